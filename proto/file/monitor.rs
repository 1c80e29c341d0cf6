//! The addresses of monitors.

use std::{fmt, net::IpAddr};

use crate::v1::MonitorAddress;

/// The port of a monitor whose address names none.
pub const DEFAULT_PORT: u16 = 54321;

/// Where a monitor listens, and whether to speak TLS with it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// A name, or an address; an IPv6 address without brackets.
    pub host: String,
    /// The port, not 0.
    pub port: u16,
    /// Whether the stream is over TLS.
    pub tls: bool,
}

impl Endpoint {
    /// Reads the address of a monitor: `http://host:port`, `https://host:port`, or `host:port`, which is http unless `tls` is given. An
    /// IPv6 address stands in brackets. The error is the end of a sentence about the address.
    pub fn parse(monitor: &MonitorAddress) -> Result<Self, String> {
        let address = monitor.address.as_str();
        if address.is_empty() {
            return Err("is missing; write it like \"http://host:54321\"".into());
        }
        let (tls, authority) = match address.split_once("://") {
            None => (monitor.tls.is_some(), address),
            Some((scheme, authority)) if scheme.eq_ignore_ascii_case("https") => (true, authority),
            Some((scheme, authority)) if scheme.eq_ignore_ascii_case("http") => (false, authority),
            Some(_) => return Err("must begin with \"http://\" or \"https://\", or be \"host:port\"".into()),
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if authority.contains('@') {
            return Err("must not carry credentials; a token goes into \"token_file\"".into());
        }
        let (host, port) = split(authority)?;
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or("must have a port from 1 to 65535")?,
        };
        if tls || monitor.tls.is_none() {
            Ok(Self { host: host.to_owned(), port, tls })
        } else {
            Err("begins with \"http://\", beside \"tls\"; write \"https://\"".into())
        }
    }

    /// Whether the monitor is on this machine for sure.
    pub fn is_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost") || self.host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') { write!(f, "[{}]:{}", self.host, self.port) } else { write!(f, "{}:{}", self.host, self.port) }
    }
}

/// Host and port of an authority.
fn split(authority: &str) -> Result<(&str, Option<&str>), &'static str> {
    const ODD: &str = "is neither \"http://host:port\" nor \"https://host:port\" nor \"host:port\"";
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or(ODD)?;
        let is_v6 = host.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6());
        return match (is_v6, port.strip_prefix(':')) {
            (true, Some(port)) => Ok((host, Some(port))),
            (true, None) if port.is_empty() => Ok((host, None)),
            _ => Err(ODD),
        };
    }
    if authority.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()) {
        return Err("must have its IPv6 address in brackets, as in \"[::1]:54321\"");
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_');
    if host.is_empty() || !host.chars().all(is_name) { Err(ODD) } else { Ok((host, port)) }
}

#[cfg(test)]
mod tests {
    use super::Endpoint;
    use crate::v1::{MonitorAddress, MonitorTls};

    fn parsed(address: &str, tls: bool) -> Result<(String, bool), String> {
        let monitor = MonitorAddress { address: address.into(), tls: tls.then(MonitorTls::default), ..MonitorAddress::default() };
        Endpoint::parse(&monitor).map(|endpoint| (endpoint.to_string(), endpoint.tls))
    }

    #[test]
    fn an_address_has_a_scheme_or_is_host_and_port() {
        for (address, tls, expected) in [
            ("http://probe-1:50051", false, ("probe-1:50051", false)),
            ("https://probe-1", false, ("probe-1:54321", true)),
            ("HTTPS://probe-1/", true, ("probe-1:54321", true)),
            ("probe-1.example.com:1", false, ("probe-1.example.com:1", false)),
            ("probe-1:54321", true, ("probe-1:54321", true)),
            ("127.0.0.1", false, ("127.0.0.1:54321", false)),
            ("[::1]:9", false, ("[::1]:9", false)),
            ("http://[2001:db8::1]", false, ("[2001:db8::1]:54321", false)),
        ] {
            assert_eq!(parsed(address, tls), Ok((expected.0.to_owned(), expected.1)), "{address}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_its_reason() {
        for (address, tls, reason) in [
            ("", false, "is missing"),
            ("http://a", true, "beside \"tls\""),
            ("grpc://a", false, "must begin with"),
            ("a:0", false, "must have a port"),
            ("a:65536", false, "must have a port"),
            ("a:", false, "must have a port"),
            ("::1", false, "in brackets"),
            ("[127.0.0.1]:1", false, "is neither"),
            ("[::1", false, "is neither"),
            ("http://a/b", false, "is neither"),
            ("http://", false, "is neither"),
            ("a b:1", false, "is neither"),
            ("http://me:secret@a", false, "must not carry credentials"),
        ] {
            let problem = parsed(address, tls).unwrap_err();
            assert!(problem.contains(reason), "{address}: {problem}");
        }
    }

    #[test]
    fn loopback_is_known_by_its_address_or_name() {
        let endpoint = |host: &str| Endpoint { host: host.into(), port: 1, tls: false };
        assert!(["localhost", "127.1.2.3", "::1", "::ffff:127.0.0.1"].iter().all(|host| endpoint(host).is_loopback()));
        assert!(!["example.com", "10.0.0.1", "fe80::1"].iter().any(|host| endpoint(host).is_loopback()));
    }
}
