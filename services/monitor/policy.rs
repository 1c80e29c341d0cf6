//! Which targets are allowed. A monitor never trusts a client more than its own policy.
//!
//! Judged is the address that is really dialled, in its canonical form, and each IPv4 address that an IPv6 address carries for somebody on
//! the way to unpack (`spellings`): all have to be allowed. Names are judged before anybody is asked for them.

mod explain;
mod file;
mod rates;
mod rules;
mod secrets;
mod settings;
mod spellings;
mod status;

use std::{
    collections::HashSet,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use serde::Deserialize;
use vantage_daemon::clock;
use vantage_probes::{Destination, Gate, Plan, net::local};

use rates::{Bucket, Meters};
use rules::{Compiled, Rule, Ruling};

pub(crate) use explain::{PolicyArgs, run};
pub(crate) use file::{Source, follow};
pub use settings::{
    Bound, Bounds, Method, Nat64, Network, Others, OwnListener, OwnListeners, PolicySettings, Ports, Proxies, Rate, Rates, Rules, Secrets,
    Suffix,
};
pub use status::Status;
#[cfg(any(test, fuzzing))]
pub(crate) use {explain::explained, file::parse_policy};

/// The policy in force. Cheap to clone; all clones are one, so that [`replace`](Policy::replace) reaches everybody.
#[derive(Clone, Deserialize)]
#[serde(try_from = "PolicySettings")]
pub struct Policy {
    shared: Arc<Shared>,
    /// What the client has left, in whose name is asked.
    client: Option<Arc<Mutex<Bucket>>>,
}

struct Shared {
    force: RwLock<Arc<Force>>,
    meters: Mutex<Meters>,
    status: Mutex<Status>,
}

/// What is in force: rules, and what they have to know of this machine.
#[derive(Clone)]
struct Force {
    rules: Arc<Compiled>,
    own: Vec<(OwnListener, SocketAddr)>,
    broadcasts: Arc<HashSet<Ipv4Addr>>,
}

impl Policy {
    /// Compiles settings, or says what is wrong with them.
    pub fn new(settings: PolicySettings) -> Result<Self, String> {
        let force = Force { rules: Arc::new(Compiled::new(settings)?), own: Vec::new(), broadcasts: Arc::default() };
        let status = Mutex::new(Status::new(clock::wall()));
        Ok(Self { shared: Arc::new(Shared { force: RwLock::new(Arc::new(force)), meters: Mutex::default(), status }), client: None })
    }

    /// Puts new settings in force, for all clones, from the next question on; settings that are wrong change nothing.
    pub fn replace(&self, settings: PolicySettings) -> Result<(), String> {
        let rules = Arc::new(Compiled::new(settings)?);
        self.change(|force| force.rules = rules);
        Ok(())
    }

    /// The same for the runs of one client, who has a rate of its own.
    #[must_use]
    pub fn for_client(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), client: Some(Arc::default()) }
    }

    /// Says which listeners are this monitor's own, and where: as they are bound, `0.0.0.0` and `[::]` being all that this machine has.
    pub fn note_own(&self, own: Vec<(OwnListener, SocketAddr)>) {
        self.change(|force| force.own = own);
    }

    /// Looks which networks this machine is in now, for their broadcast addresses.
    pub fn look_around(&self) {
        match local::broadcasts() {
            Ok(found) if found != *self.force().broadcasts => self.change(|force| force.broadcasts = Arc::new(found)),
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "the addresses of the interfaces can't be told"),
        }
    }

    /// The settings in force.
    pub fn settings(&self) -> PolicySettings {
        self.force().rules.settings.clone()
    }

    /// Permits a kind of probe ("ping"), or says in one sentence which rule forbids it.
    pub fn permit_kind(&self, kind: &str) -> Result<(), String> {
        self.force().rules.kind(kind).permit()
    }

    /// Permits what a run would do wherever it leads, or says which rule forbids it.
    pub fn permit_plan(&self, plan: &Plan) -> Result<(), String> {
        let (force, demand) = (self.force(), plan.demand());
        force.rules.kind(plan.kind()).permit()?;
        demand.method.map_or(Ok(()), |method| force.rules.method(method).permit())?;
        force.rules.demand(plan.kind(), &demand)
    }

    fn force(&self) -> Arc<Force> {
        Arc::clone(&self.shared.force.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, change: impl FnOnce(&mut Force)) {
        let mut force = self.shared.force.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut force));
    }

    fn take(&self, force: &Force, to: IpAddr, packets: u32) -> Result<(), String> {
        let rates = &force.rules.settings.rates;
        let mut client = self.client.as_ref().map(|client| client.lock().unwrap_or_else(PoisonError::into_inner));
        let mut meters = self.shared.meters.lock().unwrap_or_else(PoisonError::into_inner);
        meters.take(rates, client.as_deref_mut(), to, packets, clock::monotonic())
    }
}

impl Default for Policy {
    #[expect(clippy::expect_used, reason = "the default rules are constants, and compiled in each test")]
    fn default() -> Self {
        Self::new(PolicySettings::default()).expect("the default rules")
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
        let Destination { address, port, packets } = destination;
        let (force, address) = (self.force(), address.to_canonical());
        let inner = spellings::embedded(address, &force.rules.nat64);
        force.judge(address, port)?;
        for inner in &inner {
            force.judge((*inner).into(), port).map_err(|rule| format!("{rule}, and {address} leads to {inner}"))?;
        }
        self.take(&force, inner.first().map_or(address, |inner| (*inner).into()), packets)
    }

    fn permit_name(&self, name: &str) -> Result<(), String> {
        self.force().rules.name(name).permit().map_err(|rule| format!("{rule}, asked was {}", name.trim_end_matches('.')))
    }

    fn permit_method(&self, method: &str) -> Result<(), String> {
        self.force().rules.method(method).permit()
    }

    fn permit_file(&self, file: &Path) -> Result<(), String> {
        self.force().rules.settings.secrets.permit_file(file)
    }

    fn permit_variable(&self, name: &str) -> Result<(), String> {
        self.force().rules.settings.secrets.permit_variable(name)
    }

    fn permit_names_at_proxies(&self) -> Result<(), String> {
        match self.force().rules.settings.proxies.names {
            true => Ok(()),
            false => Err("policy: names may not be given to proxies (proxies.names)".to_owned()),
        }
    }
}

impl Force {
    fn judge(&self, address: IpAddr, port: Option<u16>) -> Result<(), String> {
        self.address(address).permit()?;
        let Some(port) = port else { return Ok(()) };
        match self.own(address, port) {
            Some(ruling) => ruling.permit(),
            None => self.rules.port(port).permit(),
        }
    }

    fn address(&self, address: IpAddr) -> Ruling<'_> {
        let is_broadcast = matches!(address, IpAddr::V4(address) if self.broadcasts.contains(&address));
        self.rules.address(address, is_broadcast)
    }

    /// The ruling where address and port are a listener of ours.
    fn own(&self, address: IpAddr, port: u16) -> Option<Ruling<'_>> {
        let is_there = |at: &SocketAddr| {
            at.port() == port
                && match at.ip().to_canonical() {
                    // [::] takes IPv4 too, unless the system says otherwise.
                    IpAddr::V6(any) if any.is_unspecified() => local::is_local(address),
                    IpAddr::V4(any) if any.is_unspecified() => address.is_ipv4() && local::is_local(address),
                    bound => bound == address,
                }
        };
        let (listener, _) = self.own.iter().find(|(_, at)| is_there(at))?;
        let allowed = self.rules.settings.own_listeners.allow.contains(listener);
        Some(Ruling { allowed, rule: Rule::Own(*listener, port) })
    }
}

#[cfg(test)]
mod tests;
