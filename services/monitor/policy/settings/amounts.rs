//! How much: bounds of a run, rates, own listeners, prefixes of translators.

use std::{collections::BTreeMap, fmt, time::Duration};

use ipnet::{IpNet, Ipv6Net};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use vantage_probes::KINDS;

use super::Network;
use crate::{config::fields::parse_duration, policy::spellings::NAT64_LENGTHS};

/// The most that a run of each kind may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Bounds(BTreeMap<String, Bound>);

impl Bounds {
    /// The bound of a kind, where there is one.
    pub fn of(&self, kind: &str) -> Option<&Bound> {
        self.0.get(kind)
    }
}

impl<'de> Deserialize<'de> for Bounds {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let bounds = BTreeMap::<String, Bound>::deserialize(from)?;
        for (kind, bound) in &bounds {
            let only = |is_set: bool, what: &str, kinds: &[&str]| match is_set && !kinds.contains(&kind.as_str()) {
                true => Err(D::Error::custom(format!("{what} means nothing for {kind}: it is for {}", kinds.join(" and ")))),
                false => Ok(()),
            };
            if !KINDS.contains(&kind.as_str()) {
                return Err(D::Error::custom(format!("unknown kind {kind:?}, expected one of {}", KINDS.join(", "))));
            }
            only(bound.min_spacing.is_some(), "min_spacing", &["ping", "ntp"])?;
            only(bound.max_hops.is_some(), "max_hops", &["traceroute"])?;
        }
        Ok(Self(bounds))
    }
}

/// The most that one run may do to one address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bound {
    /// Requests: of ping its `count`, of traceroute `max_hops` times `attempts`, of udp `source_ports` times `attempts`, of dns its
    /// `attempts`, of ntp its `samples`; the others make one. Default: no bound.
    pub max_requests: Option<u32>,
    /// What one of them carries, in bytes: the payload of ping and udp, the body of http and https, all that the steps of tcp send.
    /// Default: no bound.
    pub max_payload_size_bytes: Option<u64>,
    /// The least time from one request to the next, of ping and ntp. Default: no bound.
    #[serde(deserialize_with = "spacing", serialize_with = "spacing_as_text")]
    pub min_spacing: Option<Duration>,
    /// How many routers may be asked, of traceroute. 1 to 64. Default: no bound.
    pub max_hops: Option<u8>,
}

fn spacing<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    text.map(|text| parse_duration(&text, 1, 60_000)).transpose().map_err(D::Error::custom)
}

fn spacing_as_text<S: Serializer>(spacing: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    spacing.map(|spacing| format!("{spacing:?}")).serialize(to)
}

/// How many packets may leave in what time. A packet is one of at most 1500 bytes: a larger datagram counts as its fragments, a connection
/// as one and its payload as what it fills; answers, and what TCP and TLS need beside, do not count. A run's packets are counted before the
/// first of them leaves, as the most that it may send to that address; name resolution by the monitor's own resolver does not count.
/// `null` stands for no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rates {
    /// From this monitor. Default: no bound.
    pub total: Option<Rate>,
    /// For each client. Default: no bound.
    pub client: Option<Rate>,
    /// To each address, of all clients together; addresses of this machine (127.0.0.0/8, ::1) excepted. Default 2,000 packets a second.
    pub address: Option<Rate>,
    /// To each /24 (of IPv6: /48), as for `address`. Default 20,000 packets a second.
    pub network: Option<Rate>,
}

impl Default for Rates {
    fn default() -> Self {
        let rate = |packets_per_second| Some(Rate { packets_per_second, burst: None });
        Self { total: None, client: None, address: rate(2000), network: rate(20_000) }
    }
}

/// A rate, and how many may leave at once after a quiet time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// In the long run. 1 to 10,000,000.
    #[serde(deserialize_with = "crate::config::fields::number::<1, 10_000_000, _, _>")]
    pub packets_per_second: u32,
    /// At once. 1 to 100,000,000. Default: as many as in ten seconds.
    #[serde(default, deserialize_with = "burst", skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

fn burst<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    crate::config::fields::number::<1, 100_000_000, _, _>(from).map(Some)
}

impl Rate {
    /// How many may leave at once.
    pub fn burst(&self) -> u32 {
        self.burst.unwrap_or(self.packets_per_second.saturating_mul(10))
    }
}

/// Which of the monitor's own listeners may be probed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OwnListeners {
    /// By name. Default: none.
    pub allow: Vec<OwnListener>,
}

/// A listener of the monitor's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OwnListener {
    /// gRPC: orders and answers.
    Grpc,
    /// Health and figures.
    Http,
}

impl fmt::Display for OwnListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        })
    }
}

/// A prefix of a translator (RFC 6052): a network of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Network", into = "Network")]
pub struct Nat64(pub Ipv6Net);

impl TryFrom<Network> for Nat64 {
    type Error = String;

    fn try_from(Network(network): Network) -> Result<Self, String> {
        match network {
            IpNet::V6(prefix) if NAT64_LENGTHS.contains(&prefix.prefix_len()) => Ok(Self(prefix)),
            _ => Err(format!("{network} is not the prefix of a translator: one of IPv6, with 32, 40, 48, 56, 64 or 96 bits (RFC 6052)")),
        }
    }
}

impl From<Nat64> for Network {
    fn from(nat64: Nat64) -> Self {
        Self(nat64.0.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T: for<'de> Deserialize<'de> + fmt::Debug>(json: &str) -> String {
        serde_json::from_str::<T>(json).unwrap_err().to_string()
    }

    #[test]
    fn bounds_are_by_kind_and_only_for_kinds_that_have_them() {
        let bounds: Bounds = serde_json::from_str(r#"{"ping": {"max_requests": 3, "min_spacing": "100ms"}}"#).unwrap();
        assert_eq!(bounds.of("ping").unwrap().min_spacing, Some(Duration::from_millis(100)));
        assert_eq!(bounds.of("tcp"), None);
        assert!(serde_json::to_string(&bounds).unwrap().contains(r#""min_spacing":"100ms""#));
        assert!(refused::<Bounds>(r#"{"pign": {}}"#).contains("unknown kind \"pign\""));
        assert!(refused::<Bounds>(r#"{"tcp": {"min_spacing": "1s"}}"#).contains("it is for ping and ntp"));
        assert!(refused::<Bounds>(r#"{"ping": {"min_spacing": "1h"}}"#).contains("must be"));
        assert!(refused::<Bounds>(r#"{"ping": {"max_count": 1}}"#).contains("unknown field"));
    }

    #[test]
    fn a_rate_allows_ten_seconds_of_it_at_once_and_null_is_no_bound() {
        let rates: Rates = serde_json::from_str(r#"{"address": {"packets_per_second": 5}, "network": null}"#).unwrap();
        assert_eq!((rates.address.unwrap().burst(), rates.network, rates.client), (50, None, None));
        assert_eq!(Rates::default().address.unwrap().burst(), 20_000);
        assert!(refused::<Rates>(r#"{"address": {"packets_per_second": 0}}"#).contains("must be 1 to 10000000"));
        assert!(refused::<Rates>(r#"{"adress": null}"#).contains("unknown field"));
    }

    #[test]
    fn prefixes_of_translators_have_the_lengths_of_the_rfc() {
        assert!(serde_json::from_str::<Nat64>("\"2001:db8:64::/96\"").is_ok());
        for wrong in ["\"2001:db8::/33\"", "\"10.0.0.0/8\"", "\"x\""] {
            assert!(serde_json::from_str::<Nat64>(wrong).is_err(), "{wrong}");
        }
    }
}
