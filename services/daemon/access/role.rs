//! What somebody may do, and by what that is known.

use std::{fmt, str::FromStr};

use crate::tls::certificate::{Facts, Name};

/// What the URI name of a certificate begins with that says a role: `vantage:role:manager`. (RFC 3986 section 3: scheme and path.)
pub const ROLE_URI: &str = "vantage:role:";

/// What somebody may do. Each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads: asks AdminService, sees pages and figures. Gives no orders, and has nothing probed.
    Admin,
    /// Gives orders, and has probes run.
    Manager,
}

impl Role {
    /// Its word, in certificates, settings and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Manager => "manager",
        }
    }

    /// The URI name that says it in a certificate.
    pub fn uri(self) -> String {
        format!("{ROLE_URI}{}", self.word())
    }

    /// The role that a certificate says by itself: the highest, where it says several.
    pub fn said_by(facts: &Facts) -> Option<Self> {
        let said = |name: &Name| match name {
            Name::Uri(uri) => uri.strip_prefix(ROLE_URI).and_then(|word| word.parse().ok()),
            Name::Dns(_) | Name::Address(_) | Name::Email(_) => None,
        };
        facts.names.iter().filter_map(said).max()
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "admin" => Ok(Self::Admin),
            "manager" => Ok(Self::Manager),
            _ => Err(format!("{text:?} is no role: \"manager\" or \"admin\"")),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What a certificate is known by, in settings: "dns:…", "uri:…", "email:…", "cn:…" or "sha256:…".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// A name of it.
    Name(Name),
    /// The common name of its subject.
    CommonName(String),
    /// Its fingerprint.
    Fingerprint(String),
}

impl Mark {
    fn fits(&self, facts: &Facts) -> bool {
        match self {
            // Names of hosts know no case (RFC 4343).
            Self::Name(Name::Dns(wanted)) => {
                facts.names.iter().any(|name| matches!(name, Name::Dns(name) if name.eq_ignore_ascii_case(wanted)))
            }
            Self::Name(wanted) => facts.names.contains(wanted),
            Self::CommonName(wanted) => facts.common_names.contains(wanted),
            Self::Fingerprint(wanted) => facts.fingerprint == *wanted,
        }
    }
}

impl FromStr for Mark {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} marks no certificate: write dns:NAME, uri:URI, email:ADDRESS, cn:NAME or sha256:FINGERPRINT");
        let (what, value) = text.split_once(':').filter(|(_, value)| !value.is_empty()).ok_or_else(wrong)?;
        let value = value.to_owned();
        Ok(match what {
            "dns" => Self::Name(Name::Dns(value)),
            "uri" => Self::Name(Name::Uri(value)),
            "email" => Self::Name(Name::Email(value)),
            "cn" => Self::CommonName(value),
            "sha256" => {
                // As openssl writes it, too: AB:CD:…
                let bare = value.replace(':', "").to_ascii_lowercase();
                if bare.len() != 64 || !bare.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return Err(format!("{text:?}: a SHA-256 fingerprint has 64 hexadecimal digits"));
                }
                Self::Fingerprint(bare)
            }
            _ => return Err(wrong()),
        })
    }
}

/// Which certificates have which role by our own settings, in place of what they say themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roles(Vec<(Mark, Option<Role>)>);

impl Roles {
    /// From marks and roles as settings write them; "none" is no role at all, and shuts a certificate out.
    pub fn read<'t>(entries: impl IntoIterator<Item = (&'t str, &'t str)>) -> Result<Self, String> {
        let read = |(mark, role): (&str, &str)| {
            let role = match role {
                "none" => None,
                role => Some(role.parse().map_err(|error| format!("{mark}: {error}, or \"none\""))?),
            };
            Ok((mark.parse()?, role))
        };
        entries.into_iter().map(read).collect::<Result<_, String>>().map(Self)
    }

    /// From the command line: MARK=ROLE.
    pub fn read_flags(flags: &[String]) -> Result<Self, String> {
        let split = |flag: &'_ String| {
            flag.rsplit_once('=').map(|(mark, role)| (mark.to_owned(), role.to_owned())).ok_or_else(|| format!("{flag:?}: write MARK=ROLE"))
        };
        let pairs: Vec<(String, String)> = flags.iter().map(split).collect::<Result<_, _>>()?;
        Self::read(pairs.iter().map(|(mark, role)| (mark.as_str(), role.as_str())))
    }

    /// These and others.
    pub fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// The role of a certificate: by these, the least of those that fit, or else what it says itself.
    pub fn of(&self, facts: &Facts) -> Option<Role> {
        match self.0.iter().filter(|(mark, _)| mark.fits(facts)).map(|(_, role)| *role).min() {
            Some(role) => role,
            None => Role::said_by(facts),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn facts(names: &[Name]) -> Facts {
        Facts {
            subject: "desk".into(),
            common_names: vec!["desk".into()],
            issuer: String::new(),
            names: names.to_vec(),
            not_before: SystemTime::UNIX_EPOCH,
            not_after: SystemTime::UNIX_EPOCH,
            fingerprint: "ab".repeat(32),
            is_authority: false,
            for_servers: true,
            for_clients: true,
        }
    }

    fn says(uri: &str) -> Facts {
        facts(&[Name::Uri(uri.into()), Name::Dns("Desk.Example".into())])
    }

    #[test]
    fn a_certificate_says_its_role_by_a_uri_and_by_nothing_else() {
        let none = Roles::default();
        assert_eq!(none.of(&says("vantage:role:manager")), Some(Role::Manager));
        assert_eq!(none.of(&says("vantage:role:admin")), Some(Role::Admin));
        for other in [
            "vantage:role:monitor",
            "vantage:role:",
            "vantage:role:Manager",
            "VANTAGE:ROLE:MANAGER",
            "x-vantage:role:manager",
            "vantage:role:manager/",
        ] {
            assert_eq!(none.of(&says(other)), None, "{other}");
        }
        assert_eq!(none.of(&facts(&[Name::Dns("vantage:role:manager".into()), Name::Email("vantage:role:manager".into())])), None);
        assert_eq!(
            none.of(&facts(&[Name::Uri("vantage:role:admin".into()), Name::Uri("vantage:role:manager".into())])),
            Some(Role::Manager)
        );
    }

    #[test]
    fn settings_win_over_the_certificate_and_the_least_of_them_counts() {
        let roles = |pairs: &[(&str, &str)]| Roles::read(pairs.iter().copied()).unwrap();
        assert_eq!(roles(&[("dns:desk.example", "manager")]).of(&says("spiffe://x/y")), Some(Role::Manager));
        assert_eq!(roles(&[("uri:spiffe://x/y", "admin")]).of(&says("spiffe://x/y")), Some(Role::Admin));
        assert_eq!(roles(&[("cn:desk", "admin")]).of(&says("vantage:role:manager")), Some(Role::Admin));
        assert_eq!(roles(&[("cn:desk", "manager"), ("dns:desk.example", "none")]).of(&says("vantage:role:manager")), None);
        let shut_out = format!("sha256:{}", ["AB"; 32].join(":"));
        assert_eq!(roles(&[(&shut_out, "none")]).of(&says("vantage:role:manager")), None);
        assert_eq!(roles(&[("cn:other", "none")]).of(&says("vantage:role:manager")), Some(Role::Manager));
    }

    #[test]
    fn what_is_no_mark_or_no_role_is_refused_with_what_would_be_one() {
        let refused = |mark: &str, role: &str| Roles::read([(mark, role)]).unwrap_err();
        assert!(refused("desk", "admin").contains("dns:NAME"));
        assert!(refused("dns:", "admin").contains("dns:NAME"));
        assert!(refused("sha256:abcd", "admin").contains("64 hexadecimal digits"));
        assert!(refused("cn:desk", "root").contains(r#""manager" or "admin", or "none""#));
        assert_eq!(Roles::read_flags(&["uri:x=y=admin".into()]).unwrap(), Roles::read([("uri:x=y", "admin")]).unwrap());
        assert!(Roles::read_flags(&["cn:desk".into()]).unwrap_err().contains("MARK=ROLE"));
    }
}
