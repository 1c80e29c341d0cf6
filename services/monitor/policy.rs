//! Which targets are allowed. A monitor never trusts a client more than its own policy.
//!
//! Judged is the address that is really dialled, in its canonical form, and, where an IPv6 address carries an IPv4 address to which
//! somebody on the way would translate it (NAT64, 6to4, IPv4-compatible), that one too: both have to be allowed.

mod settings;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, PoisonError, RwLock},
};

use ipnet::IpNet;
use serde::Deserialize;
use vantage_probes::{Destination, Gate, KINDS};

pub use settings::{Network, Others, PolicySettings, Ports, Rules};

/// What is denied unless the user allows it by a rule that is as narrow.
const DEFAULT_RULES: &[(&str, &str)] = &[
    ("169.254.0.0/16", "link-local"),
    ("fe80::/10", "link-local"),
    ("169.254.169.254/32", "cloud metadata"),
    ("fd00:ec2::254/128", "cloud metadata"),
    ("fd20:ce::254/128", "cloud metadata"),
    ("100.100.100.200/32", "cloud metadata"),
    ("224.0.0.0/4", "multicast"),
    ("ff00::/8", "multicast"),
    ("255.255.255.255/32", "broadcast"),
    // Linux dials itself for 0.0.0.0; the rest of the network is no destination either (RFC 1122 section 3.2.1.3).
    ("0.0.0.0/8", "unspecified"),
    ("::/128", "unspecified"),
];

/// The policy in force. Cheap to clone; all clones are one, so that [`replace`](Policy::replace) reaches everybody.
#[derive(Clone, Deserialize)]
#[serde(try_from = "PolicySettings")]
pub struct Policy {
    compiled: Arc<RwLock<Arc<Compiled>>>,
}

struct Compiled {
    settings: PolicySettings,
    networks: Vec<NetworkRule>,
}

/// One rule about a network.
struct NetworkRule {
    network: IpNet,
    allow: bool,
    /// The name of a default rule; none: the user's own.
    default: Option<&'static str>,
}

impl Policy {
    /// Compiles settings, or says what is wrong with them.
    pub fn new(settings: PolicySettings) -> Result<Self, String> {
        Ok(Self { compiled: Arc::new(RwLock::new(Arc::new(Compiled::new(settings)?))) })
    }

    /// Puts new settings in force, for all clones, from the next question on; settings that are wrong change nothing.
    pub fn replace(&self, settings: PolicySettings) -> Result<(), String> {
        let compiled = Arc::new(Compiled::new(settings)?);
        *self.compiled.write().unwrap_or_else(PoisonError::into_inner) = compiled;
        Ok(())
    }

    /// The settings in force.
    pub fn settings(&self) -> PolicySettings {
        self.compiled().settings.clone()
    }

    /// Permits a kind of probe ("ping"), or says in one sentence which rule forbids it.
    pub fn permit_kind(&self, kind: &str) -> Result<(), String> {
        let compiled = self.compiled();
        let rules = &compiled.settings.kinds;
        if rules.deny.iter().any(|denied| denied == kind) {
            return Err(format!("policy: the kind {kind} is denied (kinds.deny)"));
        }
        if rules.others == Others::Allow || rules.allow.iter().any(|allowed| allowed == kind) {
            return Ok(());
        }
        Err(format!("policy: the kind {kind} is not among those allowed (kinds.others is \"deny\")"))
    }

    fn compiled(&self) -> Arc<Compiled> {
        Arc::clone(&self.compiled.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Default for Policy {
    fn default() -> Self {
        let compiled = Compiled { settings: PolicySettings::default(), networks: default_rules() };
        Self { compiled: Arc::new(RwLock::new(Arc::new(compiled))) }
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings().fmt(f)
    }
}

impl TryFrom<PolicySettings> for Policy {
    type Error = String;

    fn try_from(settings: PolicySettings) -> Result<Self, String> {
        Self::new(settings)
    }
}

impl Gate for Policy {
    fn permit(&self, destination: Destination) -> Result<(), String> {
        let compiled = self.compiled();
        let address = destination.address.to_canonical();
        compiled.permit_address(address)?;
        if let IpAddr::V6(outer) = address
            && let Some(inner) = embedded(outer)
        {
            compiled.permit_address(inner.into()).map_err(|rule| format!("{rule}, and {outer} leads to {inner}"))?;
        }
        destination.port.map_or(Ok(()), |port| compiled.permit_port(port))
    }
}

impl Compiled {
    fn new(settings: PolicySettings) -> Result<Self, String> {
        for kind in settings.kinds.allow.iter().chain(&settings.kinds.deny) {
            if !KINDS.contains(&kind.as_str()) {
                return Err(format!("{kind:?} is not a kind of probe: there are {}", KINDS.join(", ")));
            }
        }
        let mut networks = default_rules();
        let own = |network: &Network, allow| NetworkRule { network: network.0, allow, default: None };
        networks.extend(settings.networks.allow.iter().map(|network| own(network, true)));
        networks.extend(settings.networks.deny.iter().map(|network| own(network, false)));
        Ok(Self { settings, networks })
    }

    fn permit_address(&self, address: IpAddr) -> Result<(), String> {
        // The narrowest rule; among equals the user's own before a default one, and then the one that denies.
        let rule = self
            .networks
            .iter()
            .filter(|rule| rule.network.contains(&address))
            .max_by_key(|rule| (rule.network.prefix_len(), rule.default.is_none(), !rule.allow));
        match rule {
            Some(NetworkRule { allow: true, .. }) => Ok(()),
            Some(NetworkRule { network, default: Some(name), .. }) => Err(format!("policy: {network} is denied (default rule {name:?})")),
            Some(NetworkRule { network, default: None, .. }) => Err(format!("policy: {network} is denied (networks.deny)")),
            None if self.settings.networks.others == Others::Allow => Ok(()),
            None => Err(format!("policy: {address} is in none of the networks allowed (networks.others is \"deny\")")),
        }
    }

    fn permit_port(&self, port: u16) -> Result<(), String> {
        let rules = &self.settings.ports;
        let narrowest = |rules: &[Ports]| {
            rules.iter().filter(|ports| (ports.first..=ports.last).contains(&port)).min_by_key(|ports| ports.last - ports.first).copied()
        };
        match (narrowest(&rules.allow), narrowest(&rules.deny)) {
            (Some(allowed), Some(denied)) if allowed.last - allowed.first < denied.last - denied.first => Ok(()),
            (_, Some(denied)) => Err(format!("policy: port {port} is denied (ports.deny: {denied})")),
            (Some(_), None) => Ok(()),
            (None, None) if rules.others == Others::Allow => Ok(()),
            (None, None) => Err(format!("policy: port {port} is not among those allowed (ports.others is \"deny\")")),
        }
    }
}

fn default_rules() -> Vec<NetworkRule> {
    DEFAULT_RULES
        .iter()
        .filter_map(|(network, name)| Some(NetworkRule { network: network.parse().ok()?, allow: false, default: Some(name) }))
        .collect()
}

/// The IPv4 address that an IPv6 address leads to, where somebody on the way may translate it: NAT64 with the well-known prefix
/// (RFC 6052), 6to4 (RFC 3056), IPv4-compatible (RFC 4291 section 2.5.5.1; `::` and `::1` are none).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => of(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => of(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
