//! Names of targets to addresses, freshly for each run: a cached answer would hide the resolver's failures.
//!
//! The settings are the system's (resolv.conf and hosts file, read again when they change). The asking is ours, over connected sockets:
//! a closed port at the resolver is told from its silence, and SERVFAIL from a name that does not exist.

mod each;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    pin::pin,
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use hickory_proto::rr::Name;
use tokio::{sync::Semaphore, time::Instant};
use vantage_contract::v1::{Attribution, Outcome, Reason};

use super::{
    dns,
    names::Names,
    settings::{Settings, System},
};
use crate::{
    failure::Failure,
    gate::{Destination, Gate},
    run::{permit, permit_name},
    stopwatch,
    target::{Family, Host, Options},
    wire::{
        dns::{A, AAAA, Answer, IN, Manner, PTR, Question},
        name, rdata,
    },
};

/// What a lookup sends to a resolver of the check's own, as the rates of a policy count it: a question for each family.
const LOOKUP_PACKETS: u32 = 2;

/// How many questions may be under way at once, in a process; each has a socket. More wait for their turn.
const MAX_SOCKETS: usize = 256;

/// The addresses of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Those that fit, IPv4 first, each once; at least one.
    pub found: Vec<IpAddr>,
    /// Why there may be more: the other family's resolution failed. None: these are all.
    pub unknown: Option<Failure>,
}

/// Resolves the names of targets.
pub struct Resolver {
    system: System,
    sockets: Semaphore,
    /// Names of addresses, which are no part of what is measured and may be kept.
    pub(super) names: Names,
}

/// Where and how to ask.
struct Plan<'a> {
    servers: &'a [SocketAddr],
    /// When to ask again or elsewhere, counted from the question before.
    gap: Duration,
    tries: usize,
    edns_size: Option<u16>,
    /// When the last answer has to be there.
    end: Instant,
    /// Says which names may be asked for.
    gate: &'a dyn Gate,
}

/// How far a name is resolved before anybody is asked.
enum Begun<'h> {
    /// It is an address, or this machine knows it.
    Known(Vec<IpAddr>),
    Search(Box<Search<'h>>),
}

/// Whom to ask for which names.
struct Search<'h> {
    /// The name as the check has it.
    text: &'h str,
    /// The names to ask for, one after the other.
    candidates: Vec<Name>,
    settings: Settings,
    /// How much time there was when it began.
    left: Duration,
    /// When the last answer has to be there.
    end: Instant,
}

impl Settings {
    /// How to ask for an address with so much time left.
    fn plan<'p>(&'p self, left: Duration, end: Instant, gate: &'p dyn Gate) -> Plan<'p> {
        let tries = self.servers.len() * self.attempts;
        let share = u32::try_from(tries + 1).unwrap_or(u32::MAX);
        Plan { servers: &self.servers, gap: self.timeout.min(left / share), tries, edns_size: self.edns_size, end, gate }
    }
}

/// Why a name has no address; the graver the later.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trouble {
    /// NXDOMAIN: there is no such name.
    NoSuchName,
    /// NOERROR, without an address of this family.
    NoAddress,
    /// No server said the one or the other; the first failure.
    Failed(Failure),
}

impl Trouble {
    fn gravity(&self) -> u8 {
        match self {
            Self::NoSuchName => 0,
            Self::NoAddress => 1,
            Self::Failed(_) => 2,
        }
    }

    /// What failed; none where the answer was clear.
    fn failure(self) -> Option<Failure> {
        match self {
            Self::NoSuchName | Self::NoAddress => None,
            Self::Failed(failure) => Some(failure),
        }
    }

    fn graver(self, other: Self) -> Self {
        if other.gravity() > self.gravity() { other } else { self }
    }

    /// What it makes of a run that asked for addresses of the name.
    fn of_name(self, text: &str, family: Family) -> Failure {
        match self {
            Self::NoSuchName => not_resolved(format!("resolve {text}: the name does not exist")),
            Self::NoAddress => not_resolved(match family {
                Family::Any => format!("resolve {text}: the name exists, but has no address"),
                family => format!("resolve {text}: there is no {} address", family_name(family)),
            }),
            Self::Failed(failure) => blame(text, failure),
        }
    }
}

impl Resolver {
    /// A resolver with the system's settings. Never fails: settings that are missing or broken show in the first lookup.
    pub fn system() -> Self {
        Self::with_files("/etc/resolv.conf", "/etc/hosts")
    }

    /// A resolver with settings and hosts from other files than the system's.
    pub fn with_files(resolv_conf: impl Into<PathBuf>, hosts: impl Into<PathBuf>) -> Self {
        Self { system: System::new(resolv_conf.into(), hosts.into()), sockets: Semaphore::new(MAX_SOCKETS), names: Names::new() }
    }

    /// The first address of the host that fits the options' family: IPv4 before IPv6 where both count.
    ///
    /// Fails NAME_NOT_RESOLVED where the name does not exist, has no address of the family, or no resolver answered; POLICY_DENIED where
    /// the gate forbids the name, one that it is an alias of, or the check's own resolver; LOCAL_NETWORK where this machine has no resolver or no route to it.
    pub async fn first_address(&self, host: &Host, options: &Options, gate: &dyn Gate, deadline: Instant) -> Result<IpAddr, Failure> {
        let addresses = self.lookup(host, options, gate, deadline, false).await?;
        addresses.found.first().copied().ok_or_else(|| Failure::internal(format!("resolve {host}: an answer without an address")))
    }

    /// All addresses of the host that fit the options' family. Fails as [`first_address`](Self::first_address); where both families count
    /// and one of them gives addresses, that the other fails is told beside them.
    pub async fn addresses(&self, host: &Host, options: &Options, gate: &dyn Gate, deadline: Instant) -> Result<Addresses, Failure> {
        self.lookup(host, options, gate, deadline, true).await
    }

    async fn lookup(&self, host: &Host, options: &Options, gate: &dyn Gate, deadline: Instant, all: bool) -> Result<Addresses, Failure> {
        let family = options.family;
        let Search { text, candidates, settings, left, end } = match self.begin(host, options, gate, deadline)? {
            Begun::Known(found) => return Ok(Addresses { found, unknown: None }),
            Begun::Search(search) => *search,
        };
        let plan = settings.plan(left, end, gate);
        let mut trouble = Trouble::NoSuchName;
        for candidate in candidates {
            match self.of_family(&candidate, family, &plan, all).await {
                Ok((found, silence)) => return Ok(Addresses { found, unknown: silence.map(|failure| blame(text, failure)) }),
                // No other spelling makes a silent or absent resolver answer.
                Err(Trouble::Failed(failure)) if failure.reason != Reason::UnexpectedAnswer => {
                    trouble = Trouble::Failed(failure);
                    break;
                }
                Err(found) => trouble = trouble.graver(found),
            }
        }
        Err(trouble.of_name(text, family))
    }

    /// What is known without asking anybody, or whom to ask for what.
    fn begin<'h>(&self, host: &'h Host, options: &Options, gate: &dyn Gate, deadline: Instant) -> Result<Begun<'h>, Failure> {
        let family = options.family;
        let text = match host {
            Host::Address(address) if fits(*address, family) => return Ok(Begun::Known(vec![*address])),
            Host::Address(address) => return Err(not_resolved(format!("{address} is not {}", family_name(family)))),
            Host::Name(text) => text,
        };
        let name = name::parse(text).ok_or_else(|| not_resolved(format!("resolve {text}: it is not a name")))?;
        // With a few milliseconds left, a sentence that names the server is worth more than the last of the wait.
        let left = deadline.saturating_duration_since(stopwatch::now());
        let end = deadline - (left / 10).min(Duration::from_millis(5));

        let named = permit_name(gate, text);
        let settings = match options.resolver {
            // A resolver of the check's own is asked for the name as it stands; hosts file and search list are the system's.
            Some(server) => {
                named?;
                permit(gate, Destination { address: server.ip(), port: Some(server.port()), packets: LOOKUP_PACKETS })?;
                if let Some(found) = localhost(&name, family) {
                    return Ok(Begun::Known(found));
                }
                Settings::of_server(server)
            }
            None => {
                let at_home = || self.system.hosts().and_then(|hosts| in_hosts(&hosts, &name, family)).or_else(|| localhost(&name, family));
                if let Some(found) = at_home() {
                    // A short name may be allowed with one of the search domains alone.
                    return named.and(Ok(Begun::Known(found)));
                }
                let settings = self.system.settings();
                let settings =
                    settings.map_err(|why| Failure::new(Reason::LocalNetwork, Attribution::Vantage, format!("resolve {text}: {why}")))?;
                (*settings).clone()
            }
        };
        // A name that a search domain makes a denied one is not asked for; that is only worth telling where no other is.
        let (allowed, denied): (Vec<_>, Vec<_>) = settings
            .candidates(&name)
            .into_iter()
            .map(|candidate| permit_name(gate, &name::show(&candidate)).map(|()| candidate))
            .partition(Result::is_ok);
        if let (true, Some(Err(denied))) = (allowed.is_empty(), denied.into_iter().next()) {
            return Err(denied);
        }
        let candidates = allowed.into_iter().flatten().collect();
        Ok(Begun::Search(Box::new(Search { text, candidates, settings, left, end })))
    }

    /// The addresses of one name. Where both families count they are asked at the same time, and one may fail if the other answers; then
    /// its failure comes with the addresses of the other.
    async fn of_family(&self, name: &Name, family: Family, plan: &Plan<'_>, all: bool) -> Result<(Vec<IpAddr>, Option<Failure>), Trouble> {
        match family {
            Family::V4 => return self.of_type(name, A, plan).await.map(|found| (found, None)),
            Family::V6 => return self.of_type(name, AAAA, plan).await.map(|found| (found, None)),
            Family::Any => {}
        }
        let mut a = pin!(self.of_type(name, A, plan));
        let mut aaaa = pin!(self.of_type(name, AAAA, plan));
        let (v4, v6) = tokio::select! {
            v4 = &mut a => match v4 {
                Ok(v4) if !all => return Ok((v4, None)),
                v4 => {
                    // Half of the time for one family that does not answer leaves the other half for the probe itself.
                    let patience = if v4.is_ok() { halfway(plan.end) } else { plan.end };
                    (Some(v4), tokio::time::timeout_at(patience, aaaa).await.ok())
                }
            },
            v6 = &mut aaaa => {
                let patience = if v6.is_ok() { halfway(plan.end) } else { plan.end };
                (tokio::time::timeout_at(patience, a).await.ok(), Some(v6))
            }
        };
        match (v4, v6) {
            (Some(Ok(v4)), Some(Ok(v6))) => Ok((if all { [v4, v6].concat() } else { v4 }, None)),
            (Some(Ok(found)), Some(Err(other))) | (Some(Err(other)), Some(Ok(found))) => Ok((found, other.failure())),
            (Some(Ok(found)), None) | (None, Some(Ok(found))) => Ok((found, silent(plan).failure())),
            (Some(Err(v4)), Some(Err(v6))) => Err(v4.graver(v6)),
            (Some(Err(trouble)), None) | (None, Some(Err(trouble))) => Err(trouble.graver(silent(plan))),
            (None, None) => Err(silent(plan)),
        }
    }

    /// The addresses of one name and one type.
    async fn of_type(&self, name: &Name, record_type: u16, plan: &Plan<'_>) -> Result<Vec<IpAddr>, Trouble> {
        let question = Question { name: name.clone(), record_type, class: IN };
        let answer = self.settle(&question, plan).await?;
        for alias in answer.aliases_of(name) {
            permit_name(plan.gate, &name::show(&alias)).map_err(Trouble::Failed)?;
        }
        let mut found = answer.addresses_of(name);
        found.retain(|address| address.is_ipv4() == (record_type == A));
        let mut seen = std::collections::HashSet::new();
        found.retain(|address| seen.insert(*address));
        if found.is_empty() { Err(Trouble::NoAddress) } else { Ok(found) }
    }

    /// Asks the servers in turn, again and again while there are tries left, and takes the first answer that settles it, however late and
    /// from whomever.
    async fn settle(&self, question: &Question, plan: &Plan<'_>) -> Result<Answer, Trouble> {
        let mut asked = FuturesUnordered::new();
        let mut next_try = 0;
        let mut tick = stopwatch::now();
        let mut trouble = None;
        loop {
            if next_try < plan.tries {
                let now = stopwatch::now();
                if asked.is_empty() || now >= tick {
                    asked.push(self.ask(plan.servers[next_try % plan.servers.len()], question, plan));
                    next_try += 1;
                    tick = now + plan.gap;
                }
            } else if asked.is_empty() {
                return Err(Trouble::Failed(trouble.unwrap_or_else(|| Failure::internal("no server to ask"))));
            }
            let wake = if next_try < plan.tries { tick.min(plan.end) } else { plan.end };
            match tokio::time::timeout_at(wake, asked.next()).await {
                Ok(Some(Ok(answer))) => return if answer.rcode == 0 { Ok(answer) } else { Err(Trouble::NoSuchName) },
                Ok(Some(Err(failure))) => {
                    trouble.get_or_insert(failure);
                }
                Ok(None) => {}
                Err(_) if wake == plan.end => return Err(trouble.map_or_else(|| silent(plan), Trouble::Failed)),
                Err(_) => {}
            }
        }
    }

    /// The name of an address (PTR), as the hosts file has it or a server says until `end`: the check's own server where it has one, for
    /// which the caller asks the gate. None where it has no name. Fails where nobody says the one or the other, or the gate forbids to ask.
    pub(crate) async fn name_of(
        &self,
        address: IpAddr,
        server: Option<SocketAddr>,
        gate: &dyn Gate,
        end: Instant,
    ) -> Result<Option<Name>, Failure> {
        let question = Question { name: Name::from(address), record_type: PTR, class: IN };
        permit_name(gate, &name::show(&question.name))?;
        let settings = match server {
            Some(server) => Settings::of_server(server),
            None => {
                if let Some(found) = self.system.hosts().and_then(|hosts| name_in_hosts(&hosts, &question.name)) {
                    return Ok(Some(found));
                }
                let settings = self.system.settings();
                (*settings.map_err(|why| Failure::new(Reason::LocalNetwork, Attribution::Vantage, why))?).clone()
            }
        };
        let plan = settings.plan(end.saturating_duration_since(stopwatch::now()), end, gate);
        match self.settle(&question, &plan).await {
            Ok(answer) => Ok(answer.pointer_of(&question.name)),
            Err(Trouble::NoSuchName | Trouble::NoAddress) => Ok(None),
            Err(Trouble::Failed(failure)) => Err(failure),
        }
    }

    /// Asks one server, when there is a socket for it. Any rcode but NOERROR and NXDOMAIN is that server's failure.
    async fn ask(&self, server: SocketAddr, question: &Question, plan: &Plan<'_>) -> Result<Answer, Failure> {
        let permit = tokio::time::timeout_at(plan.end, self.sockets.acquire()).await;
        let Ok(Ok(_permit)) = permit else {
            return Err(Failure::new(
                Reason::ResourceExhausted,
                Attribution::Vantage,
                format!("more than {MAX_SOCKETS} questions to resolvers are under way"),
            ));
        };
        let manner = Manner {
            recursion_desired: true,
            checking_disabled: false,
            edns_size: plan.edns_size,
            dnssec_ok: false,
            nsid: false,
            exact_case: false,
        };
        let answer = dns::ask(server, question, manner).await?;
        if matches!(answer.rcode, 0 | 3) {
            return Ok(answer);
        }
        let rcode = rdata::rcode_name(answer.rcode);
        Err(Failure::new(Reason::UnexpectedAnswer, Attribution::Resolver, format!("{server} answered {rcode}")))
    }
}

/// Half of the time from now to `end`.
fn halfway(end: Instant) -> Instant {
    let now = stopwatch::now();
    now + end.saturating_duration_since(now) / 2
}

fn silent(plan: &Plan<'_>) -> Trouble {
    let servers: Vec<_> = plan.servers.iter().map(ToString::to_string).collect();
    Trouble::Failed(Failure::new(Reason::TimedOut, Attribution::Resolver, format!("no answer from {}", servers.join(", "))))
}

fn not_resolved(sentence: String) -> Failure {
    Failure::new(Reason::NameNotResolved, Attribution::Resolver, sentence)
}

/// What went wrong with the resolver is the resolver's fault, but for what went wrong here.
fn blame(name: &str, failure: Failure) -> Failure {
    let sentence = format!("resolve {name}: {}", failure.sentence);
    match failure.outcome() {
        Outcome::Undetermined => Failure { sentence, ..failure },
        _ => not_resolved(sentence),
    }
}

pub(crate) fn fits(address: IpAddr, family: Family) -> bool {
    match family {
        Family::Any => true,
        Family::V4 => address.is_ipv4(),
        Family::V6 => address.is_ipv6(),
    }
}

fn family_name(family: Family) -> &'static str {
    match family {
        Family::Any => "IP",
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

/// `localhost` and what is below it never leave this machine (RFC 6761 section 6.3).
fn localhost(name: &Name, family: Family) -> Option<Vec<IpAddr>> {
    let last = name.iter().next_back()?;
    if !last.eq_ignore_ascii_case(b"localhost") {
        return None;
    }
    let both = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1_u16])];
    Some(both.into_iter().filter(|address| fits(*address, family)).collect())
}

/// The name in the hosts file that belongs to a reverse name.
fn name_in_hosts(hosts: &hickory_resolver::Hosts, reverse: &Name) -> Option<Name> {
    use hickory_proto::{op::Query, rr::RData, rr::RecordType};
    let lookup = hosts.lookup_static_host(&Query::query(reverse.clone(), RecordType::PTR))?;
    let mut name = lookup.answers().iter().find_map(|record| match &record.data {
        RData::PTR(name) => Some(name.0.clone()),
        _ => None,
    })?;
    name.set_fqdn(true);
    Some(name)
}

/// The addresses in the hosts file, IPv4 first; none where it does not have the name in this family.
fn in_hosts(hosts: &hickory_resolver::Hosts, name: &Name, family: Family) -> Option<Vec<IpAddr>> {
    use hickory_proto::{op::Query, rr::RecordType};
    let mut found = Vec::new();
    for record_type in [RecordType::A, RecordType::AAAA] {
        if let Some(lookup) = hosts.lookup_static_host(&Query::query(name.to_lowercase(), record_type)) {
            for address in lookup.answers().iter().filter_map(|record| record.data.ip_addr()) {
                if fits(address, family) && !found.contains(&address) {
                    found.push(address);
                }
            }
        }
    }
    (!found.is_empty()).then_some(found)
}
