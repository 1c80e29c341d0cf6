//! What is probed, and who may forbid it.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use vantage_contract::v1::{AddressFamily, AddressSelection, Probe};

use crate::failure::Invalid;
pub use crate::gate::{Demand, Destination, Gate, OpenGate};

/// A target as the check names it: an address, or a name to be resolved in each run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// An address, with or without brackets in the check.
    Address(IpAddr),
    /// A name, in ASCII (an internationalized one in its A-label form, RFC 5890).
    Name(String),
}

impl Host {
    /// Parses the content of `field`. A name has 1 to 253 characters in labels of 1 to 63 (RFC 1035), underscores allowed; a final dot
    /// says that it is complete and no search domain is tried.
    pub fn parse(field: &str, text: &str) -> Result<Self, Invalid> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical()));
        }
        if text.is_empty() {
            return Err(Invalid::new(field, "is missing: give a name or an address"));
        }
        let host =
            url::Host::parse(text).map_err(|error| Invalid::new(field, format!("{text:?} is neither a name nor an address: {error}")))?;
        match host {
            url::Host::Ipv4(address) => Ok(Self::Address(address.into())),
            url::Host::Ipv6(address) => Ok(Self::Address(address.into())),
            url::Host::Domain(name) => {
                let labels = name.strip_suffix('.').unwrap_or(&name);
                if labels.len() > 253 || labels.split('.').any(|label| label.is_empty() || label.len() > 63) {
                    return Err(Invalid::new(field, format!("{text:?} is not a name: labels have 1 to 63 characters, 253 in all")));
                }
                Ok(Self::Name(name))
            }
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Parses a port: 1 to 65535, or `default` where it is 0 and there is a default.
pub fn port(field: &str, value: u32, default: Option<u16>) -> Result<u16, Invalid> {
    match (u16::try_from(value), default) {
        (Ok(0), Some(default)) => Ok(default),
        (Ok(0), None) => Err(Invalid::new(field, "is missing: give a port from 1 to 65535")),
        (Ok(port), _) => Ok(port),
        (Err(_), _) => Err(Invalid::new(field, format!("must be 1 to 65535, is {value}"))),
    }
}

/// Parses a duration of the contract: `default` where it is unset, else it has to lie within `range`.
pub fn duration(
    field: &str,
    value: Option<prost_types::Duration>,
    default: Duration,
    range: std::ops::RangeInclusive<Duration>,
) -> Result<Duration, Invalid> {
    let Some(value) = value else { return Ok(default) };
    let parsed = Duration::try_from(value).map_err(|_| Invalid::new(field, "must not be negative"))?;
    if range.contains(&parsed) {
        return Ok(parsed);
    }
    Err(Invalid::new(field, format!("must be {:?} to {:?}, is {parsed:?}", range.start(), range.end())))
}

/// Parses a number of the contract: `default` where it is 0, else it has to lie within `range`.
pub fn number<N: PartialOrd + Default + Copy + fmt::Display>(
    field: &str,
    value: N,
    default: N,
    range: std::ops::RangeInclusive<N>,
) -> Result<N, Invalid> {
    if value == N::default() {
        return Ok(default);
    }
    if range.contains(&value) {
        return Ok(value);
    }
    Err(Invalid::new(field, format!("must be {} to {}, is {value}", range.start(), range.end())))
}

/// Which addresses of a name count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// The first IPv4 address, or the first IPv6 address where there is no other.
    #[default]
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

/// Which of the addresses that count are probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Selection {
    /// The first.
    #[default]
    First,
    /// Each, and so many have to pass.
    All(Required),
    /// That which connects first (RFC 8305).
    HappyEyeballs,
}

/// How many of a target's addresses have to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Required {
    /// As many as there are.
    Every,
    /// So many; at least 1.
    AtLeast(usize),
}

/// The most addresses of one name that are probed.
pub const MAX_ADDRESSES: usize = 64;

impl Selection {
    fn parse(probe: &Probe) -> Result<Self, Invalid> {
        let require = probe.require.as_str();
        match AddressSelection::try_from(probe.addresses) {
            Ok(AddressSelection::Unspecified | AddressSelection::First) if require.is_empty() => Ok(Self::First),
            Ok(AddressSelection::Unspecified | AddressSelection::First) => {
                Err(Invalid::new("require", "means nothing where only the first address is probed: it goes with addresses \"all\""))
            }
            Ok(AddressSelection::All) => match (require, require.parse()) {
                ("" | "all", _) => Ok(Self::All(Required::Every)),
                ("any", _) => Ok(Self::All(Required::AtLeast(1))),
                (_, Ok(count @ 1..=MAX_ADDRESSES)) => Ok(Self::All(Required::AtLeast(count))),
                _ => {
                    Err(Invalid::new("require", format!("must be \"all\", \"any\" or a number from 1 to {MAX_ADDRESSES}, is {require:?}")))
                }
            },
            Ok(AddressSelection::HappyEyeballs) if require.is_empty() => Ok(Self::HappyEyeballs),
            Ok(AddressSelection::HappyEyeballs) => {
                Err(Invalid::new("require", "means nothing where one address is enough: it goes with addresses \"all\""))
            }
            Err(_) => Err(Invalid::new("addresses", format!("{} is not a selection", probe.addresses))),
        }
    }

    /// Refuses a race for a kind that does not connect.
    pub(crate) fn fits(self, connects: bool, kind: &str) -> Result<(), Invalid> {
        if self == Self::HappyEyeballs && !connects {
            let problem = format!("happy_eyeballs is for what connects by TCP (tcp, http, https), and {kind} does not");
            return Err(Invalid::new("addresses", problem));
        }
        Ok(())
    }
}

/// The options that all kinds share, parsed.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long the whole probe may take.
    pub timeout: Duration,
    /// Which addresses count; a source address narrows it.
    pub family: Family,
    /// Which of them are probed.
    pub selection: Selection,
    /// The local address to send from.
    pub source: Option<IpAddr>,
    /// The server that resolves the target's name; none: the system's settings.
    pub resolver: Option<SocketAddr>,
}

impl Options {
    /// Parses the shared fields of a probe.
    pub fn parse(probe: &Probe, default_timeout: Duration) -> Result<Self, Invalid> {
        let timeout = duration("timeout", probe.timeout, default_timeout, Duration::from_millis(1)..=Duration::from_secs(300))?;
        let source = match probe.source_address.as_str() {
            "" => None,
            text => Some(text.parse::<IpAddr>().map_err(|_| Invalid::new("source_address", format!("{text:?} is not an IP address")))?),
        };
        let asked = match AddressFamily::try_from(probe.address_family) {
            Ok(AddressFamily::Unspecified) => Family::Any,
            Ok(AddressFamily::Ipv4) => Family::V4,
            Ok(AddressFamily::Ipv6) => Family::V6,
            Err(_) => return Err(Invalid::new("address_family", format!("{} is not a family", probe.address_family))),
        };
        let family = match (asked, source) {
            (Family::Any, Some(IpAddr::V4(_))) => Family::V4,
            (Family::Any, Some(IpAddr::V6(_))) => Family::V6,
            (Family::V4, Some(IpAddr::V6(_))) | (Family::V6, Some(IpAddr::V4(_))) => {
                return Err(Invalid::new("source_address", "is of another family than address_family"));
            }
            (asked, _) => asked,
        };
        let resolver = match probe.resolver.as_str() {
            "" => None,
            text => Some(
                text.parse::<SocketAddr>()
                    .or_else(|_| text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53)))
                    .map_err(|_| Invalid::new("resolver", format!("{text:?} is neither an address nor address:port")))?,
            ),
        };
        Ok(Self { timeout, family, selection: Selection::parse(probe)?, source, resolver })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_or_addresses_in_any_of_their_spellings() {
        let parse = |text| Host::parse("host", text).map(|host| host.to_string());
        assert_eq!(parse("example.com"), Ok("example.com".into()));
        assert_eq!(parse("[::1]"), Ok("[::1]".into()));
        assert_eq!(parse("::ffff:127.0.0.1"), Ok("127.0.0.1".into()));
        assert_eq!(parse("0x7f.1"), Ok("127.0.0.1".into()));
        assert_eq!(parse("_sip.example.com"), Ok("_sip.example.com".into()));
        assert!(parse("").is_err());
        assert!(parse("two words").is_err());
        assert!(parse("a..b").is_err());
        assert!(parse(&"a".repeat(64)).is_err());
    }

    #[test]
    fn a_source_address_decides_the_family() {
        let probe = Probe { source_address: "::1".into(), ..Probe::default() };
        assert_eq!(Options::parse(&probe, Duration::from_secs(5)).unwrap().family, Family::V6);
        let probe = Probe { address_family: AddressFamily::Ipv4.into(), ..probe };
        assert_eq!(Options::parse(&probe, Duration::from_secs(5)).unwrap_err().field, "source_address");
    }

    #[test]
    fn so_many_of_all_addresses_may_be_required_and_none_of_the_first() {
        let parse = |addresses: AddressSelection, require: &str| {
            let probe = Probe { addresses: addresses.into(), require: require.into(), ..Probe::default() };
            Options::parse(&probe, Duration::from_secs(5)).map(|options| options.selection).map_err(|invalid| invalid.to_string())
        };
        for (require, selection) in [
            ("", Selection::All(Required::Every)),
            ("all", Selection::All(Required::Every)),
            ("any", Selection::All(Required::AtLeast(1))),
            ("1", Selection::All(Required::AtLeast(1))),
            ("64", Selection::All(Required::AtLeast(64))),
        ] {
            assert_eq!(parse(AddressSelection::All, require), Ok(selection), "{require:?}");
        }
        for wrong in ["0", "65", "-1", "most", "ALL", "2.0"] {
            let said = parse(AddressSelection::All, wrong).unwrap_err();
            assert_eq!(said, format!("require: must be \"all\", \"any\" or a number from 1 to 64, is {wrong:?}"));
        }
        assert_eq!(parse(AddressSelection::Unspecified, ""), Ok(Selection::First));
        for first in [AddressSelection::Unspecified, AddressSelection::First] {
            assert!(parse(first, "any").unwrap_err().starts_with("require: means nothing"));
        }
        let unknown = Probe { addresses: 9, ..Probe::default() };
        assert_eq!(Options::parse(&unknown, Duration::from_secs(5)).unwrap_err().field, "addresses");
    }

    #[test]
    fn an_invalid_field_says_its_range() {
        let error = number("ping.count", 1001_u32, 3, 1..=1000).unwrap_err();
        assert_eq!(error.to_string(), "ping.count: must be 1 to 1000, is 1001");
    }
}
