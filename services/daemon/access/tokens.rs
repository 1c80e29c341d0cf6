//! Bearer tokens, and how they are shown (RFC 6750; RFC 7617 for browsers, where the password is the token).

use std::path::PathBuf;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::digest::{SHA256, digest};

use super::Role;
use crate::{exit::Fatal, tls::files};

/// What is kept of a token: it can be compared, and not be shown.
pub(crate) type Hash = [u8; 32];

/// The tokens that are in force, each with its role.
#[derive(Debug, Default)]
pub(crate) struct Tokens(Vec<(Hash, Role)>);

impl Tokens {
    pub(crate) fn load(files: &[(Role, PathBuf)]) -> Result<Self, Fatal> {
        let mut tokens = Vec::new();
        for (role, path) in files {
            files::warn_if_open(path);
            tokens.extend(files::tokens(path)?.iter().map(|token| (hash(token.as_bytes()), *role)));
        }
        Ok(Self(tokens))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The role of a token; none: it is none of ours. One that is in two files has the lesser role.
    pub(crate) fn role_of(&self, shown: &Hash) -> Option<Role> {
        // Hashes are compared, so the time that it takes tells nothing of a token.
        self.0.iter().filter(|(hash, _)| hash == shown).map(|(_, role)| *role).min()
    }

    /// Whether both are the same tokens with the same roles.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

fn hash(token: &[u8]) -> Hash {
    let mut hash = Hash::default();
    hash.copy_from_slice(digest(&SHA256, token).as_ref());
    hash
}

/// The token in an `authorization` header: `Bearer TOKEN`, or `Basic` with the token as the password of whatever user.
pub(crate) fn shown(header: &[u8]) -> Option<Hash> {
    let (scheme, value) = header.split_at_checked(header.iter().position(|byte| *byte == b' ')?)?;
    let value = value.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(hash(value));
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let pair = STANDARD.decode(value).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(hash(pair.get(colon + 1..)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens() -> Tokens {
        Tokens(vec![(hash(b"0123456789abcdef"), Role::Manager), (hash(b"fedcba9876543210"), Role::Admin)])
    }

    fn role(header: &str) -> Option<Role> {
        tokens().role_of(&shown(header.as_bytes())?)
    }

    #[test]
    fn a_token_is_shown_as_bearer_or_as_a_password() {
        assert_eq!(role("Bearer 0123456789abcdef"), Some(Role::Manager));
        assert_eq!(role("bearer  fedcba9876543210"), Some(Role::Admin));
        assert_eq!(role(&format!("Basic {}", STANDARD.encode("any:body:0123456789abcdef"))), None, "a password may have colons");
        assert_eq!(role(&format!("Basic {}", STANDARD.encode("anybody:0123456789abcdef"))), Some(Role::Manager));
        for wrong in
            ["", "0123456789abcdef", "Bearer", "Bearer ", "Bearer 0123456789abcde", "Digest 0123456789abcdef", "Basic 0123456789abcdef"]
        {
            assert_eq!(role(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_token_with_two_roles_has_the_lesser() {
        let twice = Tokens(vec![(hash(b"0123456789abcdef"), Role::Manager), (hash(b"0123456789abcdef"), Role::Admin)]);
        assert_eq!(twice.role_of(&hash(b"0123456789abcdef")), Some(Role::Admin));
    }

    proptest! {
        #[test]
        fn whatever_the_header_nobody_gets_in_without_a_token(header in prop::collection::vec(any::<u8>(), 0..200), scheme in "(Bearer|Basic|)", value in "[ -~]{0,60}") {
            let known = |header: &[u8]| shown(header).and_then(|shown| tokens().role_of(&shown));
            prop_assert_eq!(known(&header), None);
            prop_assert_eq!(known(format!("{scheme} {value}").as_bytes()), None);
            prop_assert_eq!(known(format!("{scheme} {}", STANDARD.encode(&value)).as_bytes()), None);
        }
    }
}
