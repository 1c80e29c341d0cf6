//! The rules of a policy, compiled: which of them decides, and how.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    fmt,
    net::IpAddr,
};

use ipnet::IpNet;
use vantage_probes::{Demand, KINDS};

use super::settings::{Bound, Others, OwnListener, PolicySettings, Ports, Rules, Suffix};

/// What is denied unless the user allows it by a rule that is as narrow.
pub(super) const DEFAULTS: &[(&str, &str)] = &[
    ("169.254.0.0/16", "link-local"),
    ("fe80::/10", "link-local"),
    // Amazon, Google, Azure, Digital Ocean and more; then the addresses that only one of them uses.
    ("169.254.169.254/32", "cloud metadata"),
    ("169.254.170.2/32", "cloud metadata"),
    ("169.254.170.23/32", "cloud metadata"),
    ("fd00:ec2::23/128", "cloud metadata"),
    ("fd00:ec2::254/128", "cloud metadata"),
    ("fd20:ce::254/128", "cloud metadata"),
    ("100.100.100.200/32", "cloud metadata"),
    ("168.63.129.16/32", "cloud metadata"),
    ("192.0.0.192/32", "cloud metadata"),
    ("169.254.42.42/32", "cloud metadata"),
    ("fd00:42::42/128", "cloud metadata"),
    ("224.0.0.0/4", "multicast"),
    ("ff00::/8", "multicast"),
    ("255.255.255.255/32", "broadcast"),
    // Linux dials itself for 0.0.0.0; the rest of the network is no destination either (RFC 1122 section 3.2.1.3).
    ("0.0.0.0/8", "unspecified"),
    ("::/128", "unspecified"),
];

/// What a rule says, and which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ruling<'r> {
    pub(super) allowed: bool,
    pub(super) rule: Rule<'r>,
}

/// The rule that decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule<'r> {
    /// A default rule about a network.
    Default(IpNet, &'static str),
    /// The address is the directed broadcast of a network that this machine is in.
    Broadcast(IpAddr),
    Network(IpNet),
    NoNetwork(IpAddr),
    Own(OwnListener, u16),
    Port(u16, Ports),
    NoPort(u16),
    Name(&'r Suffix),
    NoName,
    /// A kind or a method.
    Word(&'static str, &'r str),
    NoWord(&'static str, &'r str),
}

impl Ruling<'_> {
    /// What the gate says.
    pub(super) fn permit(self) -> Result<(), String> {
        if self.allowed { Ok(()) } else { Err(format!("policy: {self}")) }
    }
}

impl fmt::Display for Ruling<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (is, list, others) = if self.allowed { ("is allowed", "allow", "allow") } else { ("is denied", "deny", "deny") };
        match self.rule {
            Rule::Default(network, name) => write!(f, "{network} {is} (default rule {name:?})"),
            Rule::Broadcast(address) => write!(f, "{address} {is} (default rule \"directed broadcast\")"),
            Rule::Network(network) => write!(f, "{network} {is} (networks.{list})"),
            Rule::NoNetwork(address) if self.allowed => {
                write!(f, "{address} is in none of the networks denied (networks.others is {others:?})")
            }
            Rule::NoNetwork(address) => write!(f, "{address} is in none of the networks allowed (networks.others is {others:?})"),
            Rule::Own(listener, port) if self.allowed => {
                write!(f, "port {port} here is this monitor's own listener {listener}, which is allowed (own_listeners.allow)")
            }
            Rule::Own(listener, port) => {
                write!(
                    f,
                    "port {port} here is this monitor's own listener {listener}, which is not among those allowed (own_listeners.allow)"
                )
            }
            Rule::Port(port, ports) => write!(f, "port {port} {is} (ports.{list}: {ports})"),
            Rule::NoPort(port) if self.allowed => write!(f, "port {port} is not among those denied (ports.others is {others:?})"),
            Rule::NoPort(port) => write!(f, "port {port} is not among those allowed (ports.others is {others:?})"),
            Rule::Name(suffix) => write!(f, "{suffix}, with all below it, {is} (names.{list})"),
            Rule::NoName if self.allowed => write!(f, "the name is not among those denied (names.others is {others:?})"),
            Rule::NoName => write!(f, "the name is not among those allowed (names.others is {others:?})"),
            Rule::Word(what, word) => write!(f, "the {what} {word} {is} ({what}s.{list})"),
            Rule::NoWord(what, word) if self.allowed => {
                write!(f, "the {what} {word} is not among those denied ({what}s.others is {others:?})")
            }
            Rule::NoWord(what, word) => write!(f, "the {what} {word} is not among those allowed ({what}s.others is {others:?})"),
        }
    }
}

/// A policy, ready to be asked.
pub(super) struct Compiled {
    pub(super) settings: PolicySettings,
    /// By prefix length, the longest first; then by network.
    networks: BTreeMap<Reverse<u8>, BTreeMap<IpNet, Of>>,
    /// By name: whether it is allowed.
    names: HashMap<String, (Suffix, bool)>,
    pub(super) nat64: Vec<ipnet::Ipv6Net>,
}

/// Whose rule about a network it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Default(&'static str),
    User { allowed: bool },
}

impl Compiled {
    pub(super) fn new(settings: PolicySettings) -> Result<Self, String> {
        for kind in settings.kinds.allow.iter().chain(&settings.kinds.deny) {
            if !KINDS.contains(&kind.as_str()) {
                return Err(format!("{kind:?} is not a kind of probe: there are {}", KINDS.join(", ")));
            }
        }
        settings.secrets.check()?;
        let mut networks: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        let mut put = |network: IpNet, of| {
            networks.entry(Reverse(network.prefix_len())).or_default().insert(network, of);
        };
        // Among equals the user's own counts before a default one, and then the one that denies: each takes the place of the one before.
        for (network, name) in DEFAULTS {
            let network = network.parse().map_err(|error| format!("default rule {network}: {error}"))?;
            put(network, Of::Default(name));
        }
        settings.networks.allow.iter().for_each(|network| put(network.0, Of::User { allowed: true }));
        settings.networks.deny.iter().for_each(|network| put(network.0, Of::User { allowed: false }));
        let mut names = HashMap::new();
        let Rules { allow, deny, .. } = &settings.names;
        names.extend(allow.iter().map(|suffix| (suffix.as_str().to_owned(), (suffix.clone(), true))));
        names.extend(deny.iter().map(|suffix| (suffix.as_str().to_owned(), (suffix.clone(), false))));
        let nat64 = settings.nat64_prefixes.iter().map(|prefix| prefix.0).collect();
        Ok(Self { settings, networks, names, nat64 })
    }

    /// The narrowest rule about an address. `is_broadcast`: it is the directed broadcast of one of this machine's networks.
    pub(super) fn address(&self, address: IpAddr, is_broadcast: bool) -> Ruling<'_> {
        let longest = self.networks.iter().find_map(|(Reverse(length), of_length)| {
            let network = IpNet::new(address, *length).ok()?.trunc();
            of_length.get(&network).map(|of| (network, *of))
        });
        match longest {
            _ if is_broadcast && !matches!(longest, Some((network, Of::User { .. })) if network.prefix_len() == 32) => {
                Ruling { allowed: false, rule: Rule::Broadcast(address) }
            }
            Some((network, Of::Default(name))) => Ruling { allowed: false, rule: Rule::Default(network, name) },
            Some((network, Of::User { allowed })) => Ruling { allowed, rule: Rule::Network(network) },
            None => Ruling { allowed: self.settings.networks.others == Others::Allow, rule: Rule::NoNetwork(address) },
        }
    }

    pub(super) fn port(&self, port: u16) -> Ruling<'_> {
        let rules = &self.settings.ports;
        let width = |ports: &Ports| ports.last - ports.first;
        let narrowest = |rules: &[Ports]| {
            rules.iter().filter(|ports| (ports.first..=ports.last).contains(&port)).min_by_key(|ports| width(ports)).copied()
        };
        match (narrowest(&rules.allow), narrowest(&rules.deny)) {
            (Some(allowed), denied) if denied.is_none_or(|denied| width(&allowed) < width(&denied)) => {
                Ruling { allowed: true, rule: Rule::Port(port, allowed) }
            }
            (_, Some(denied)) => Ruling { allowed: false, rule: Rule::Port(port, denied) },
            (_, None) => Ruling { allowed: rules.others == Others::Allow, rule: Rule::NoPort(port) },
        }
    }

    /// The longest suffix of a name that there is a rule about.
    pub(super) fn name(&self, name: &str) -> Ruling<'_> {
        let others = Ruling { allowed: self.settings.names.others == Others::Allow, rule: Rule::NoName };
        if self.names.is_empty() {
            return others;
        }
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let mut rest = name.as_str();
        loop {
            if let Some((suffix, allowed)) = self.names.get(rest) {
                return Ruling { allowed: *allowed, rule: Rule::Name(suffix) };
            }
            let Some(dot) = first_dot(rest) else { return others };
            rest = &rest[dot + 1..];
        }
    }

    pub(super) fn kind<'r>(&'r self, kind: &'r str) -> Ruling<'r> {
        word("kind", &self.settings.kinds, String::as_str, kind)
    }

    pub(super) fn method<'r>(&'r self, method: &'r str) -> Ruling<'r> {
        word("method", &self.settings.methods, |method| method.as_str(), method)
    }

    /// Whether a run may do so much.
    pub(super) fn demand(&self, kind: &str, demand: &Demand<'_>) -> Result<(), String> {
        let Some(Bound { max_requests, max_payload_size_bytes, min_spacing, max_hops }) = self.settings.bounds.of(kind) else {
            return Ok(());
        };
        let beyond = |what: String, name: &str, bound: String| Err(format!("policy: {what}, and bounds.{kind}.{name} is {bound}"));
        if let Some(most) = max_requests.filter(|most| demand.requests > *most) {
            return beyond(format!("{} requests", demand.requests), "max_requests", most.to_string());
        }
        let payload = u64::try_from(demand.payload_bytes).unwrap_or(u64::MAX);
        if let Some(most) = max_payload_size_bytes.filter(|most| payload > *most) {
            return beyond(format!("{payload} bytes of payload"), "max_payload_size_bytes", most.to_string());
        }
        if let (Some(least), Some(spacing)) = (min_spacing, demand.spacing)
            && spacing < *least
            && demand.requests > 1
        {
            return beyond(format!("a request each {spacing:?}"), "min_spacing", format!("{least:?}"));
        }
        if let (Some(most), Some(hops)) = (max_hops, demand.max_hops)
            && hops > *most
        {
            return beyond(format!("{hops} hops"), "max_hops", most.to_string());
        }
        Ok(())
    }
}

/// A word is in one of the lists, or in none; `deny` wins.
fn word<'r, W>(what: &'static str, rules: &'r Rules<W>, text: fn(&W) -> &str, asked: &'r str) -> Ruling<'r> {
    let is_in = |list: &[W]| list.iter().any(|word| text(word) == asked);
    match (is_in(&rules.deny), is_in(&rules.allow)) {
        (true, _) => Ruling { allowed: false, rule: Rule::Word(what, asked) },
        (false, true) => Ruling { allowed: true, rule: Rule::Word(what, asked) },
        (false, false) => Ruling { allowed: rules.others == Others::Allow, rule: Rule::NoWord(what, asked) },
    }
}

/// The first dot that ends a label; one that is part of a label has a backslash before it.
fn first_dot(name: &str) -> Option<usize> {
    let mut is_escaped = false;
    name.bytes().position(|byte| {
        let ends = byte == b'.' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    })
}
