//! Who may reach a listener: beyond loopback it needs TLS with client certificates, or TLS with a token.

use std::net::SocketAddr;

use crate::exit::{Exit, Fatal};

/// How a listener is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Protection {
    /// It speaks TLS.
    pub tls: bool,
    /// It demands client certificates.
    pub client_certificates: bool,
    /// It demands a bearer token.
    pub token: bool,
    /// Its user said that it may stand open.
    pub overridden: bool,
}

/// Refuses a listener beyond loopback that anybody could use. `harm` is what they could do there; `cure` names the flags: of TLS with client
/// certificates, of TLS with a token, and of the override.
pub fn check(what: &str, address: SocketAddr, protection: Protection, harm: &str, cure: [&str; 3]) -> Result<(), Fatal> {
    let Protection { tls, client_certificates, token, overridden } = protection;
    let loopback = address.ip().to_canonical().is_loopback();
    if token && !tls && !loopback && !overridden {
        return Err(Fatal::new(Exit::Usage, format!("{what} on {address}: a token without TLS can be read by everybody on the way")));
    }
    if loopback || (tls && (client_certificates || token)) {
        return Ok(());
    }
    if overridden {
        tracing::warn!(%address, "{what} stands open beyond loopback, as asked for by {}", cure[2]);
        return Ok(());
    }
    Err(Fatal::new(
        Exit::Usage,
        format!(
            "{what} on {address} would let everybody who reaches it {harm}. Give {}, or {}; or {} if the network itself keeps others out.",
            cure[0], cure[1], cure[2]
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(address: &str, protection: Protection) -> bool {
        check("gRPC", address.parse().unwrap(), protection, "x", ["--a", "--b", "--c"]).is_ok()
    }

    #[test]
    fn loopback_may_stand_open_in_any_spelling() {
        assert!(checked("127.0.0.1:1", Protection::default()));
        assert!(checked("[::1]:1", Protection::default()));
        assert!(checked("[::ffff:127.0.0.1]:1", Protection::default()));
    }

    #[test]
    fn beyond_loopback_needs_tls_and_somebody_known() {
        let tls = Protection { tls: true, ..Protection::default() };
        assert!(!checked("0.0.0.0:1", Protection::default()));
        assert!(!checked("[::]:1", tls));
        assert!(checked("[::]:1", Protection { client_certificates: true, ..tls }));
        assert!(checked("[::]:1", Protection { token: true, ..tls }));
        assert!(!checked("[::]:1", Protection { token: true, ..Protection::default() }));
        assert!(checked("[::]:1", Protection { overridden: true, ..Protection::default() }));
    }

    #[test]
    fn the_refusal_names_the_two_ways_and_the_override() {
        let error = check("gRPC", "0.0.0.0:1".parse().unwrap(), Protection::default(), "x", ["--a", "--b", "--c"]).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.message.contains("--a, or --b; or --c"), "{error}");
    }
}
