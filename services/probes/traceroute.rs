//! Traceroute: the path to the target, by packets whose hop limit runs out on the way (RFC 792, RFC 4443).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ring::digest;
use tokio::time::Instant;
use vantage_contract::v1::{
    Attribution, MplsLabel, Reason, TracerouteAnswer, TracerouteHop, TracerouteMethod, TracerouteProbe, TracerouteReport,
};

use crate::{
    Probe, Run,
    failure::{Failure, Invalid, Moment},
    gate::Demand,
    net::icmp::BATCH,
    stopwatch::{self, Phase, to_proto},
    target::{self, Host, Options},
    wire::{
        extension::Label,
        icmp::{Version, is_hop_limit_exceeded, is_port_unreachable},
    },
};

mod flight;
#[cfg(test)]
mod simulation;
mod trace;

use flight::{Flight, Heard};
use trace::{Answer, Hop, Limits, Next, Trace, Word};

/// How long names of hops may take.
const NAMES_WITHIN: Duration = Duration::from_secs(1);

/// What the kernel keeps for itself of a quoted datagram.
const UDP_HEADER: usize = 8;

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Icmp,
    /// To that port.
    Udp(u16),
    /// To that port.
    Tcp(u16),
}

/// A traceroute, parsed.
pub(crate) struct Traceroute {
    host: Host,
    method: Method,
    limits: Limits,
    hop_names: bool,
}

impl Probe for Traceroute {
    type Spec = TracerouteProbe;
    type Report = TracerouteReport;

    const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

    fn parse(spec: &TracerouteProbe, _: &Options) -> Result<Self, Invalid> {
        let host = Host::parse("host", &spec.host)?;
        let method = match TracerouteMethod::try_from(spec.method) {
            Ok(TracerouteMethod::Unspecified | TracerouteMethod::Icmp) if spec.port != 0 => {
                return Err(Invalid::new("port", "is for the methods udp and tcp: ICMP has no ports"));
            }
            Ok(TracerouteMethod::Unspecified | TracerouteMethod::Icmp) => Method::Icmp,
            Ok(TracerouteMethod::Udp) => Method::Udp(target::port("port", spec.port, Some(33434))?),
            Ok(TracerouteMethod::Tcp) => Method::Tcp(target::port("port", spec.port, Some(80))?),
            Err(_) => return Err(Invalid::new("method", format!("{} is not a method", spec.method))),
        };
        let max_hops = target::number("max_hops", spec.max_hops, 30, 1..=64)?;
        let attempts = target::number("attempts", spec.attempts, 3, 1..=10)?;
        let range = Duration::from_millis(1)..=Duration::from_secs(10);
        let patience = target::duration("attempt_timeout", spec.attempt_timeout, Duration::from_secs(1), range)?;
        let limits = Limits {
            // At most 64 and 10: checked above.
            max_hops: u8::try_from(max_hops).unwrap_or(30),
            attempts: u8::try_from(attempts).unwrap_or(3),
            patience,
            in_lanes: matches!(method, Method::Tcp(_)),
        };
        Ok(Self { host, method, limits, hop_names: spec.hop_names })
    }

    fn target(&self) -> String {
        match self.method {
            Method::Icmp => self.host.to_string(),
            Method::Udp(port) | Method::Tcp(port) => format!("{}:{port}", self.host),
        }
    }

    fn host(&self) -> &Host {
        &self.host
    }

    fn demand(&self) -> Demand<'_> {
        let Limits { max_hops, attempts, .. } = self.limits;
        Demand { requests: u32::from(max_hops) * u32::from(attempts), max_hops: Some(max_hops), ..Demand::default() }
    }

    fn is_stamped(&self) -> bool {
        !matches!(self.method, Method::Tcp(_)) && !self.hop_names
    }

    async fn run(&self, run: &mut Run<'_, TracerouteReport>) -> Result<String, Failure> {
        let port = match self.method {
            Method::Icmp => None,
            Method::Udp(port) | Method::Tcp(port) => Some(port),
        };
        run.enter(Phase::Resolve);
        if let (true, Some(server)) = (self.hop_names, run.options.resolver) {
            run.permit(server.ip(), Some(server.port()))?;
        }
        let target = run.resolve(&self.host, port).await?;
        run.enter(Phase::Send);
        run.report.method = self.method.name().to_owned();
        let mut flight = match self.method {
            Method::Icmp => Flight::echo(target, run.options.source)?,
            Method::Udp(port) => Flight::udp(SocketAddr::new(target, port), run.options.source)?,
            Method::Tcp(port) => Flight::tcp(SocketAddr::new(target, port), run.options.source, self.limits.patience),
        };
        run.report.socket = flight.style().to_owned();
        let mut trace = Trace::new(self.limits);
        let traffic = self.exchange(run, &mut flight, &mut trace, target).await;
        report(&mut run.report, &trace);
        run.latency = trace.ending().and_then(|(hop, _)| {
            let answers = trace.hops().get(usize::from(hop).checked_sub(1)?)?.answers.iter();
            answers.filter(|answer| answer.word == Word::Target).map(|answer| answer.round_trip).min_by_key(|(taken, _)| *taken)
        });
        let is_complete = traffic.map_err(|error| Failure::of_io(self.act(target), &error, Moment::AtOnce))?;
        let verdict = self.judge(&trace, target, (!is_complete).then_some(run.options.timeout));
        if self.hop_names && is_complete {
            drop(flight);
            name_hops(run).await;
        }
        verdict
    }
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Self::Icmp => "icmp",
            Self::Udp(_) => "udp",
            Self::Tcp(_) => "tcp",
        }
    }

    /// What an answer says about the path.
    fn word(self, heard: &Heard, target: IpAddr) -> Word {
        let Some(error) = &heard.error else { return Word::Target };
        let version = Version::of(target);
        if is_hop_limit_exceeded(version, error.kind, error.code) {
            Word::Passing
        } else if heard.from == target && self != Self::Icmp && is_port_unreachable(version, error.kind, error.code) {
            Word::Target
        } else {
            Word::Refusal
        }
    }
}

impl Traceroute {
    /// Takes down what came back.
    fn hear(&self, trace: &mut Trace, heard: Heard, target: IpAddr) {
        let word = self.method.word(&heard, target);
        let labels = heard.labels(if matches!(self.method, Method::Udp(_)) { UDP_HEADER } else { 0 });
        match (heard.number, heard.round_trip) {
            (Some(number), Some(round_trip)) => {
                trace.answered(number, Answer { from: heard.from, round_trip, error: heard.error, word, labels });
            }
            _ => trace.unattributed(),
        }
    }

    /// Sends and receives until the trace is complete (true), or the time is up (false).
    async fn exchange(
        &self,
        run: &mut Run<'_, TracerouteReport>,
        flight: &mut Flight,
        trace: &mut Trace,
        target: IpAddr,
    ) -> io::Result<bool> {
        // A little earlier than the deadline, so that the verdict is ours and not that of being cut off.
        let end: Instant = run.deadline - (run.remaining() / 10).min(Duration::from_millis(5));
        loop {
            for _ in 0..BATCH {
                let Some(heard) = flight.receive(trace.only_open())? else { break };
                self.hear(trace, heard, target);
            }
            let now = stopwatch::now();
            if now >= end {
                return Ok(false);
            }
            match trace.next(now) {
                Next::Send { hop, attempt } => {
                    let now = stopwatch::now();
                    flight.send(hop, attempt)?;
                    trace.sent(hop, attempt, now);
                    run.enter(Phase::Wait);
                }
                Next::Wait(until) => {
                    tokio::select! {
                        ready = flight.ready() => ready?,
                        () = tokio::time::sleep_until(until.min(end)) => {}
                    }
                }
                Next::Done => return Ok(true),
            }
        }
    }

    /// What the trace means. `cut` is the timeout where it ended the trace.
    fn judge(&self, trace: &Trace, target: IpAddr, cut: Option<Duration>) -> Result<String, Failure> {
        let hops = trace.hops();
        match trace.ending() {
            Some((hop, answer)) if answer.word == Word::Target => {
                let best = hops.last().into_iter().flat_map(|hop| &hop.answers).map(|answer| answer.round_trip.0).min();
                let hops = if hop == 1 { "hop" } else { "hops" };
                return Ok(format!("{} answered at {hop} {hops}, {:.3?} away", self.whom(target), best.unwrap_or_default()));
            }
            Some((hop, Answer { error: Some(error), .. })) => {
                return Err(error.failure(format!("{}: ends at hop {hop}", self.act(target)), target));
            }
            _ => {}
        }
        if let Some(told) = routing_loop(hops) {
            return Err(Failure::new(Reason::Unreachable, Attribution::Path, format!("{}: routing loop, {told}", self.act(target))));
        }
        let last = (1..).zip(hops).filter_map(|(number, hop)| hop.answers.last().map(|answer| (number, answer.from))).last();
        let known = match last {
            Some((hop, from)) => format!("the last answer came from {from} at hop {hop}"),
            None => "no hop answered".to_owned(),
        };
        match (cut, last) {
            (Some(timeout), _) => Err(Failure::timed_out(format!("after {timeout:?} tracing the path to {}: {known}", self.whom(target)))),
            (None, Some((hop, from))) if hop == usize::from(self.limits.max_hops) => Err(Failure::new(
                Reason::Unreachable,
                Attribution::Path,
                format!("{}: not reached within {hop} hops, the last is {from}", self.act(target)),
            )),
            (None, _) => {
                Err(Failure::timed_out(format!("tracing the path to {} up to hop {}: {known}", self.whom(target), self.limits.max_hops)))
            }
        }
    }

    fn act(&self, target: IpAddr) -> String {
        format!("trace the path to {}", self.whom(target))
    }

    fn whom(&self, target: IpAddr) -> String {
        match &self.host {
            Host::Address(_) => target.to_string(),
            Host::Name(name) => format!("{name} ({target})"),
        }
    }
}

/// Fills in the report.
fn report(report: &mut TracerouteReport, trace: &Trace) {
    let hops = trace.hops();
    report.reached = trace.ending().is_some_and(|(_, answer)| answer.word == Word::Target);
    let known = hops.iter().rposition(|hop| !hop.answers.is_empty()).map_or(0, |index| index + 1);
    report.hop_count = u32::try_from(known).unwrap_or(u32::MAX);
    report.path_hash = path_hash(hops.get(..known).unwrap_or_default());
    report.hops = (1..).zip(hops).map(|(hop_limit, hop)| hop_to_proto(hop_limit, hop)).collect();
}

fn hop_to_proto(hop_limit: u32, hop: &Hop) -> TracerouteHop {
    TracerouteHop {
        hop_limit,
        sent_count: hop.sent_count(),
        answered_count: u32::try_from(hop.answers.len()).unwrap_or(u32::MAX),
        answers: hop
            .answers
            .iter()
            .map(|answer| TracerouteAnswer {
                address: answer.from.to_string(),
                round_trip: Some(to_proto(answer.round_trip.0)),
                error: answer.error.as_ref().and_then(|error| error.to_proto()),
                name: String::new(),
                mpls_labels: answer.labels.iter().map(label_to_proto).collect(),
            })
            .collect(),
    }
}

fn label_to_proto(label: &Label) -> MplsLabel {
    MplsLabel {
        label: label.label,
        traffic_class: label.traffic_class.into(),
        bottom_of_stack: label.bottom_of_stack,
        ttl: label.ttl.into(),
    }
}

/// Looks up the names of those that answered, and writes them into the report. The trace is over, and its verdict does not depend on them.
async fn name_hops(run: &mut Run<'_, TracerouteReport>) {
    run.enter(Phase::Resolve);
    let end = run.last_call().min(stopwatch::now() + NAMES_WITHIN);
    let answers = || run.report.hops.iter().flat_map(|hop| &hop.answers);
    let addresses: BTreeSet<IpAddr> = answers().filter_map(|answer| answer.address.parse().ok()).collect();
    let names = run.world.resolver.names_of(addresses, run.options.resolver, run.world.gate.as_ref(), end).await;
    for answer in run.report.hops.iter_mut().flat_map(|hop| &mut hop.answers) {
        let name = answer.address.parse().ok().and_then(|address: IpAddr| names.get(&address));
        answer.name = name.cloned().unwrap_or_default();
    }
}

/// The first 64 bits of the SHA-256 of the addresses, hop by hop: "10.9.0.2;*;10.9.2.1,10.9.2.2;".
fn path_hash(hops: &[Hop]) -> String {
    let mut path = String::new();
    for hop in hops {
        let mut addresses: Vec<_> = hop.answers.iter().map(|answer| answer.from).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let addresses: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
        path.push_str(if addresses.is_empty() { "*" } else { "" });
        path.push_str(&addresses.join(","));
        path.push(';');
    }
    let digest = digest::digest(&digest::SHA256, path.as_bytes());
    digest.as_ref().iter().take(8).fold(String::new(), |mut hash, byte| {
        // Writing to a string can't fail.
        let _ = write!(hash, "{byte:02x}");
        hash
    })
}

/// The first router that comes again after another one: "192.0.2.1 at hops 3 and 5". The same address at two hops in a row is no loop:
/// some routers forward a packet whose hop limit has run out.
fn routing_loop(hops: &[Hop]) -> Option<String> {
    let mut seen: BTreeMap<IpAddr, Vec<usize>> = BTreeMap::new();
    for (number, hop) in (1..).zip(hops) {
        for answer in hop.answers.iter().filter(|answer| answer.word == Word::Passing) {
            let at = seen.entry(answer.from).or_default();
            if at.last() != Some(&number) {
                at.push(number);
            }
        }
    }
    let (address, at) = seen
        .into_iter()
        .filter(|(_, at)| at.last() > at.first().map(|first| first + 1).as_ref())
        .min_by_key(|(_, at)| at.first().copied())?;
    let mut told: Vec<_> = at.iter().take(3).map(usize::to_string).collect();
    if at.len() > 3 {
        return Some(format!("{address} at hops {}, …", told.join(", ")));
    }
    let last = told.pop().unwrap_or_default();
    Some(format!("{address} at hops {} and {last}", told.join(", ")))
}

#[cfg(test)]
mod tests {
    use vantage_contract::v1::TimingSource;

    use super::*;

    fn parse(spec: TracerouteProbe) -> Result<Traceroute, Invalid> {
        let options = Options {
            timeout: Duration::from_secs(30),
            family: Default::default(),
            selection: Default::default(),
            source: None,
            resolver: None,
        };
        Traceroute::parse(&TracerouteProbe { host: "192.0.2.1".into(), ..spec }, &options)
    }

    /// Hops that answered from these addresses, 10.0.0.x; 0 is silence.
    fn path(hops: &[u8]) -> Vec<Hop> {
        let answer = |last: &u8| Answer {
            from: IpAddr::from([10, 0, 0, *last]),
            round_trip: (Duration::from_millis(1), TimingSource::Kernel),
            error: None,
            word: Word::Passing,
            labels: Vec::new(),
        };
        let mut path = vec![Hop::default(); hops.len()];
        for (hop, last) in path.iter_mut().zip(hops).filter(|(_, last)| **last > 0) {
            hop.answers.push(answer(last));
        }
        path
    }

    #[test]
    fn an_empty_traceroute_has_the_defaults_of_the_contract() {
        let trace = parse(TracerouteProbe::default()).unwrap();
        assert_eq!((trace.method, trace.limits.max_hops, trace.limits.attempts), (Method::Icmp, 30, 3));
        assert_eq!(trace.limits.patience, Duration::from_secs(1));
        let method =
            |method: TracerouteMethod| parse(TracerouteProbe { method: method.into(), ..TracerouteProbe::default() }).unwrap().method;
        assert_eq!(method(TracerouteMethod::Udp), Method::Udp(33434));
        assert_eq!(method(TracerouteMethod::Tcp), Method::Tcp(80));
    }

    #[test]
    fn what_is_out_of_range_or_without_meaning_names_its_field() {
        let field = |spec| parse(spec).err().map(|invalid| invalid.field).unwrap();
        assert_eq!(field(TracerouteProbe { max_hops: 65, ..TracerouteProbe::default() }), "max_hops");
        assert_eq!(field(TracerouteProbe { attempts: 11, ..TracerouteProbe::default() }), "attempts");
        assert_eq!(field(TracerouteProbe { method: 9, ..TracerouteProbe::default() }), "method");
        assert_eq!(field(TracerouteProbe { port: 80, ..TracerouteProbe::default() }), "port");
        let patience = Some(to_proto(Duration::from_secs(11)));
        assert_eq!(field(TracerouteProbe { attempt_timeout: patience, ..TracerouteProbe::default() }), "attempt_timeout");
    }

    #[test]
    fn a_loop_is_a_router_that_comes_again_after_another() {
        assert_eq!(routing_loop(&path(&[1, 2, 3, 4])), None);
        assert_eq!(routing_loop(&path(&[1, 2, 2, 4])), None);
        assert_eq!(routing_loop(&path(&[1, 2, 3, 2])).unwrap(), "10.0.0.2 at hops 2 and 4");
        assert_eq!(routing_loop(&path(&[1, 3, 0, 3, 0, 3])).unwrap(), "10.0.0.3 at hops 2, 4 and 6");
        assert_eq!(routing_loop(&path(&[1, 2, 1, 2, 1, 2, 1])).unwrap(), "10.0.0.1 at hops 1, 3, 5, …");
    }

    #[test]
    fn the_hash_changes_with_the_path_and_with_nothing_else() {
        let hash = path_hash(&path(&[1, 2, 3]));
        assert_eq!(hash.len(), 16);
        assert_eq!(hash, path_hash(&path(&[1, 2, 3])));
        for other in [&[1, 2][..], &[1, 3, 2], &[1, 0, 3], &[1, 2, 3, 4]] {
            assert_ne!(hash, path_hash(&path(other)));
        }
    }
}
