//! The policy as it stands in the settings file.

mod amounts;
mod words;

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use amounts::{Bound, Bounds, Nat64, OwnListener, OwnListeners, Rate, Rates};
pub use words::{Method, Suffix};

/// What orders may ask of this monitor. No order can widen it.
///
/// In each group the narrowest rule that fits decides; of two that are equally narrow, the one that denies. What no rule fits follows
/// `others`. Default: everything is allowed but the networks of the default rules (see [`Policy`](super::Policy)).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicySettings {
    /// By the address that is really dialled, resolvers and redirects included. A rule of the user's that is as narrow as a default
    /// rule wins over it: `{"allow": ["169.254.0.0/16"]}` opens link-local addresses, and still not 169.254.169.254. The directed
    /// broadcast address of a network that this machine is in is open to a rule for that address alone.
    pub networks: Rules<Network>,
    /// Prefixes of translators to IPv4 (RFC 6052) that are in use here, beside those that everybody knows: what they carry is judged too.
    /// Their lengths are 32, 40, 48, 56, 64 or 96. Default: none.
    pub nat64_prefixes: Vec<Nat64>,
    /// By destination port, for what has one (UDP and TCP).
    pub ports: Rules<Ports>,
    /// By name, with all that is below it: "example.com" is www.example.com too. Judged are the names that are asked for, before anybody is
    /// asked, and those that they turn out to be aliases of (CNAME). An address that an order names itself has no name.
    pub names: Rules<Suffix>,
    /// By kind: "ping", "dns". `deny` wins where a kind is in both.
    pub kinds: Rules<String>,
    /// By method of HTTP, of requests for tokens too: "GET". `deny` wins where a method is in both.
    pub methods: Rules<Method>,
    /// Which of the monitor's own listeners may be probed. By default none, whatever the networks and ports say, at whatever address of
    /// this machine they can be reached.
    pub own_listeners: OwnListeners,
    /// The most that a run may do, by kind: `{"ping": {"max_requests": 10}}`. Default: what the contract says.
    pub bounds: Bounds,
    /// How many packets may leave in what time. A run that would send more is undetermined, POLICY_DENIED, before it sends any to that
    /// address: it is not put off, for then it would measure another moment than it was due at; and it is not OVERLOADED, for the cure is
    /// another check or another policy, not another machine.
    pub rates: Rates,
    /// What orders may name for secrets and bodies, to be looked up on this machine in each run.
    pub secrets: Secrets,
    /// What proxies may be asked for.
    pub proxies: Proxies,
}

/// What orders may name for secrets and bodies. Anything else is denied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Secrets {
    /// Files, and folders with all that is in them, by absolute paths. Judged is where a path really leads, links and `..` followed.
    /// Default: none.
    pub files: Vec<PathBuf>,
    /// Environment variables of the monitor, by name; `*` at the end stands for any rest. Default: none.
    pub variables: Vec<String>,
}

/// What proxies may be asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Proxies {
    /// Whether they may be given names to resolve: this policy can't judge then to which addresses they go. The names are judged all the
    /// same. Default false.
    pub names: bool,
}

/// One group of rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, bound(deserialize = "R: Deserialize<'de>"))]
pub struct Rules<R> {
    /// What is allowed. Default: nothing is named.
    pub allow: Vec<R>,
    /// What is denied. Default: nothing is named.
    pub deny: Vec<R>,
    /// What holds for what no rule fits: "allow" or "deny". Default "allow".
    pub others: Others,
}

impl<R> Default for Rules<R> {
    fn default() -> Self {
        Self { allow: Vec::new(), deny: Vec::new(), others: Others::Allow }
    }
}

/// What holds where no rule fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Others {
    /// It is allowed.
    #[default]
    Allow,
    /// It is denied.
    Deny,
}

/// A network ("192.0.2.0/24") or one address ("192.0.2.1"). Bits beyond the prefix are refused: they are a slip of the pen. A network of
/// IPv4-mapped addresses ("::ffff:192.0.2.0/120") is the IPv4 network it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(pub IpNet);

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = text
            .parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map_err(|_| format!("{text:?} is neither a network nor an address"))?;
        if network.addr() != network.network() {
            return Err(format!("{text:?} has bits beyond its prefix: write {}", network.trunc()));
        }
        let IpNet::V6(wide) = network else { return Ok(Self(network)) };
        let Some(mapped) = wide.addr().to_ipv4_mapped() else { return Ok(Self(network)) };
        let bits =
            wide.prefix_len().checked_sub(96).ok_or_else(|| format!("{text:?} is not the network of IPv4-mapped addresses alone"))?;
        IpNet::new(mapped.into(), bits).map(Self).map_err(|error| format!("{text:?}: {error}"))
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.0.to_string()
    }
}

/// A port ("443") or a range of them ("1024-65535"), both ends included. 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Spelled", into = "String")]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

/// A port may be written as a number too.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a port (443) or a range of ports (\"1024-65535\")")]
enum Spelled {
    Number(u64),
    Text(String),
}

impl TryFrom<Spelled> for Ports {
    type Error = String;

    fn try_from(spelled: Spelled) -> Result<Self, String> {
        match spelled {
            Spelled::Number(port) => port.to_string().parse(),
            Spelled::Text(text) => text.parse(),
        }
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |part: &str| part.parse::<u16>().ok().filter(|port| *port > 0);
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(format!("{text:?} is neither a port from 1 to 65535 nor a range of them, as \"1024-65535\"")),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl From<Ports> for String {
    fn from(ports: Ports) -> Self {
        ports.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Result<String, String> {
        text.parse::<Network>().map(String::from)
    }

    #[test]
    fn networks_are_read_in_their_spellings_and_slips_are_named() {
        assert_eq!(network("192.0.2.0/24").unwrap(), "192.0.2.0/24");
        assert_eq!(network("192.0.2.1").unwrap(), "192.0.2.1/32");
        assert_eq!(network("::ffff:10.0.0.0/104").unwrap(), "10.0.0.0/8");
        assert!(network("192.0.2.1/24").unwrap_err().ends_with("write 192.0.2.0/24"));
        assert!(network("::ffff:0:0/90").is_err());
        assert!(network("example.com").is_err());
    }

    #[test]
    fn ports_are_numbers_or_ranges() {
        let read = |text| serde_json::from_str::<Ports>(text).map(|ports| ports.to_string()).map_err(|error| error.to_string());
        assert_eq!(read("443").unwrap(), "443");
        assert_eq!(read("\"80-90\"").unwrap(), "80-90");
        for bad in ["0", "65536", "\"90-80\"", "\"http\"", "-1", "true"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
