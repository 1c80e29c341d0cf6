//! One run of a probe: its world, its clock, its findings.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::time::Instant;
use vantage_contract::v1::{Attribution, Outcome, Reason, TimingSource, probe_result::Report};

use crate::{
    Hurry, Probe,
    failure::Failure,
    gate::{Destination, Gate},
    net::{
        echo::EchoEngine,
        ports::Ports,
        resolve::{self, Resolver},
        shelf::Shelf,
    },
    ntp::holds::Holds,
    secret::Masks,
    stopwatch::{self, Phase, Stopwatch, Times},
    target::{Host, Options},
};

/// Who notices a deadline so much later was not there when it passed. An ordinary delay is a few milliseconds.
const OVERSLEPT: Duration = Duration::from_millis(50);

/// What all runs of a process share.
#[derive(Clone)]
pub struct World {
    /// Says which destinations are allowed.
    pub gate: Arc<dyn Gate>,
    /// Resolves the names of targets.
    pub resolver: Arc<Resolver>,
    /// Sends all pings.
    pub echo: Arc<EchoEngine>,
    /// What runs leave for later ones.
    pub memory: Arc<Memory>,
}

/// What runs leave for later ones: servers that asked to be left alone, and which source ports were used.
#[derive(Debug, Default)]
pub struct Memory {
    pub(crate) holds: Holds,
    pub(crate) ports: Ports,
    pub(crate) shelf: Shelf,
    pub(crate) hurry: Hurry,
}

impl World {
    /// A world with this gate and the system's resolver settings.
    pub fn new(gate: Arc<dyn Gate>) -> Self {
        Self::with_resolver(gate, Resolver::system())
    }

    /// A world with this gate and this resolver.
    pub fn with_resolver(gate: Arc<dyn Gate>, resolver: Resolver) -> Self {
        Self { gate, resolver: Arc::new(resolver), echo: Arc::default(), memory: Arc::default() }
    }

    /// Who of its runs must be woken at once.
    pub fn hurry(&self) -> &Hurry {
        &self.memory.hurry
    }
}

/// What a run saw: the parts of a `ProbeResult` that don't depend on who asked for it, or when.
#[derive(Debug, Clone)]
pub struct Sight {
    /// What came out of it.
    pub outcome: Outcome,
    /// Why, unless it passed.
    pub reason: Reason,
    /// Whose fault it is, unless it passed.
    pub attribution: Attribution,
    /// One sentence for people.
    pub summary: String,
    /// The address that was probed, once it was known.
    pub address: Option<IpAddr>,
    /// From start to end.
    pub duration: Duration,
    /// What the time went into; they add up to the duration.
    pub phases: Vec<(Phase, Duration)>,
    /// The one number that stands for this probe, and who took its stamps.
    pub latency: Option<(Duration, TimingSource)>,
    /// What this kind of probe saw; none where nothing was sent.
    pub report: Option<Report>,
    /// What was seen of each address, where all of them were probed. Each has its address, and none of its own.
    pub addresses: Vec<Sight>,
}

/// A run under way: where a kind finds its world, and leaves its findings.
pub struct Run<'w, R> {
    /// What all runs share.
    pub world: &'w World,
    /// The options of the check.
    pub options: &'w Options,
    /// When the run has to be over.
    pub deadline: Instant,
    /// The phases.
    pub watch: Stopwatch,
    /// The one address that this run is for, where all addresses of the target are probed.
    pub(crate) pinned: Option<IpAddr>,
    /// The target's own host, to which that address belongs.
    pub(crate) home: &'w Host,
    /// The address that is probed; set by [`resolve`](Run::resolve) or by the kind.
    pub address: Option<IpAddr>,
    /// The one number that stands for this probe.
    pub latency: Option<(Duration, TimingSource)>,
    /// What was seen so far.
    pub report: Box<R>,
    /// The most packets that it sends to one address.
    pub(crate) packets: u32,
    /// The part of Vantage that knows the deadline, and says by itself what became of the run. It may take a moment longer for that; if it
    /// does not do it at all, the fault is ours.
    pub owed_by: &'w OnceLock<&'static str>,
    /// What must not be told, should the target send it back.
    pub(crate) masks: Masks,
}

impl<R> Run<'_, R> {
    /// Enters a phase, now.
    pub fn enter(&mut self, phase: Phase) {
        self.watch.enter(phase, stopwatch::now());
    }

    /// How long the run may still take.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(stopwatch::now())
    }

    /// When a kind has to end by itself if it wants the last word: a few milliseconds before the deadline.
    pub fn last_call(&self) -> Instant {
        self.deadline - (self.options.timeout / 10).min(Duration::from_millis(5))
    }

    /// Resolves the target (phase `resolve`), asks the gate, and remembers the address as the one that is probed. `port` is for the gate.
    /// Where this run is for one address of the target, that is what its host resolves to; other hosts, as of redirects, are as ever.
    pub async fn resolve(&mut self, host: &Host, port: Option<u16>) -> Result<IpAddr, Failure> {
        self.enter(Phase::Resolve);
        let address = match self.pinned.filter(|_| host == self.home) {
            Some(address) => address,
            // A run's future is moved about, and most runs don't need the room that a lookup takes.
            None => match host {
                Host::Address(address) if resolve::fits(*address, self.options.family) => *address,
                host => Box::pin(self.world.resolver.first_address(host, self.options, self.world.gate.as_ref(), self.deadline)).await?,
            },
        };
        self.permit(address, port)?;
        self.address = Some(address);
        Ok(address)
    }

    /// Like [`resolve`](Run::resolve), for a target with a port.
    pub async fn resolve_port(&mut self, host: &Host, port: u16) -> Result<SocketAddr, Failure> {
        Ok(SocketAddr::new(self.resolve(host, Some(port)).await?, port))
    }

    /// Asks the gate about an address that is about to be dialled, and takes what the probe may send to it from the rates of the policy.
    pub fn permit(&self, address: IpAddr, port: Option<u16>) -> Result<(), Failure> {
        permit(self.world.gate.as_ref(), Destination { address, port, packets: self.packets })
    }

    /// Asks the gate about a name that is about to be asked for, or to be told to somebody who will ask for it.
    pub fn permit_name(&self, name: &str) -> Result<(), Failure> {
        permit_name(self.world.gate.as_ref(), name)
    }

    /// Asks the gate about a method of HTTP that is about to be used.
    pub fn permit_method(&self, method: &str) -> Result<(), Failure> {
        self.world.gate.permit_method(method).map_err(denied)
    }
}

/// Asks the gate; a refusal is ours and undetermined.
pub(crate) fn permit(gate: &dyn Gate, to: Destination) -> Result<(), Failure> {
    gate.permit(Destination { address: to.address.to_canonical(), ..to }).map_err(denied)
}

/// Asks the gate about a name; a refusal is ours and undetermined.
pub(crate) fn permit_name(gate: &dyn Gate, name: &str) -> Result<(), Failure> {
    gate.permit_name(name).map_err(denied)
}

fn denied(rule: String) -> Failure {
    Failure::new(Reason::PolicyDenied, Attribution::Vantage, rule)
}

/// Runs a probe of one kind to its end, or to its deadline; of the `pinned` address where there is one.
pub(crate) async fn conduct<P: Probe>(
    probe: &P,
    world: &World,
    options: &Options,
    deadline: Instant,
    pinned: Option<IpAddr>,
    wrap: fn(Box<P::Report>) -> Report,
) -> Sight {
    let (watch, owed_by) = (Stopwatch::start(stopwatch::now()), OnceLock::new());
    let mut run = Run {
        world,
        options,
        deadline,
        watch,
        pinned,
        home: probe.host(),
        address: None,
        latency: None,
        report: Box::default(),
        packets: probe.demand().packets(),
        owed_by: &owed_by,
        masks: Masks::default(),
    };
    let verdict = {
        // In a piece of memory of its own: allocators hand out two small ones at less than one that is as large as both.
        let mut running = Box::pin(probe.run(&mut run));
        let mut verdict = tokio::time::timeout_at(deadline, &mut running).await.ok();
        if verdict.is_none() && owed_by.get().is_some() {
            verdict = tokio::time::timeout_at(deadline + OVERSLEPT, running).await.ok();
        }
        verdict
    };
    let verdict = verdict.unwrap_or_else(|| {
        Err(match owed_by.get() {
            Some(part) => {
                let sentence = format!("{}: {part} was too busy to say in time what became of it", probe.target());
                Failure::new(Reason::ResourceExhausted, Attribution::Vantage, sentence)
            }
            None => overdue(run.watch.phase(), run.address, &probe.target(), options),
        })
    });
    let now = stopwatch::now();
    let verdict = verdict.map_err(|failure| excuse(failure, now.saturating_duration_since(deadline)));
    let Run { watch, address, latency, mut report, masks, .. } = run;
    let times = watch.stop(now);
    P::settle(&mut report, &times, &masks);
    let Times { duration, phases, .. } = times;
    let (outcome, reason, attribution, mut summary) = match verdict {
        Ok(summary) => (Outcome::Passed, Reason::Unspecified, Attribution::Unspecified, summary),
        Err(failure) => (failure.outcome(), failure.reason, failure.attribution, failure.sentence),
    };
    masks.apply(&mut summary);
    // A denied or unknown address means that nothing was sent: there is nothing to report.
    let report = address.map(|_| wrap(report));
    // Redirects may have led elsewhere since, but this is about the address it is for.
    let address = pinned.or(address);
    Sight { outcome, reason, attribution, summary, address, duration, phases, latency, report, addresses: Vec::new() }
}

/// Who sleeps over the deadline (stopped, or starved of processor time) can't blame the target for having been silent: the answer may lie in
/// a socket that nobody read in time.
fn excuse(failure: Failure, overslept: Duration) -> Failure {
    if overslept < OVERSLEPT || !matches!(failure.reason, Reason::TimedOut | Reason::NameNotResolved | Reason::NoAnswer) {
        return failure;
    }
    let sentence = format!("{}; but this monitor itself slept until {overslept:.1?} after the deadline", failure.sentence);
    Failure::new(Reason::ResourceExhausted, Attribution::Vantage, sentence)
}

/// What a deadline means depends on what was going on.
pub(crate) fn overdue(phase: Option<Phase>, address: Option<IpAddr>, target: &str, options: &Options) -> Failure {
    let limit = options.timeout;
    let whom = address.map_or_else(|| target.to_owned(), |address| format!("{target} ({address})"));
    match phase {
        None => Failure::internal(format!("the probe of {target} did not begin within {limit:?}")),
        Some(Phase::Resolve) => Failure::new(
            Reason::NameNotResolved,
            Attribution::Resolver,
            format!("resolve the name of {target}: no answer from the resolver within {limit:?}"),
        ),
        Some(Phase::Authenticate) => {
            Failure::new(Reason::NotAuthenticated, Attribution::Path, format!("timed out after {limit:?} getting a token for {target}"))
        }
        Some(Phase::Proxy) => {
            Failure::new(Reason::TimedOut, Attribution::Path, format!("timed out after {limit:?} asking the proxy for a way to {target}"))
        }
        Some(Phase::Connect) => Failure::timed_out(format!("after {limit:?} connecting to {whom}")),
        Some(Phase::Tls) => Failure::timed_out(format!("after {limit:?} in the TLS handshake with {whom}")),
        Some(Phase::Send) => Failure::timed_out(format!("after {limit:?} sending to {whom}")),
        Some(Phase::Wait) => Failure::timed_out(format!("after {limit:?} waiting for the answer of {whom}")),
        Some(Phase::Transfer) => Failure::timed_out(format!("after {limit:?} in the middle of the answer of {whom}")),
    }
}

#[cfg(test)]
mod tests {
    use vantage_contract::v1::PingReport;

    use super::*;
    use crate::{
        failure::Invalid,
        gate::OpenGate,
        target::{Family, Selection},
    };

    #[test]
    fn a_monitor_that_slept_over_the_deadline_does_not_blame_the_target() {
        let silence = || Failure::timed_out("after 1s connecting to 192.0.2.1:80");
        assert_eq!(excuse(silence(), Duration::from_millis(3)), silence());
        let excused = excuse(silence(), Duration::from_millis(900));
        assert_eq!((excused.reason, excused.attribution), (Reason::ResourceExhausted, Attribution::Vantage));
        assert!(excused.sentence.ends_with("slept until 900.0ms after the deadline"), "{}", excused.sentence);
        let refused = || Failure::target(Reason::Refused, "refused");
        assert_eq!(excuse(refused(), Duration::from_millis(900)), refused(), "what was heard was heard");
    }

    /// A probe whose verdict is a part's that comes so long after the deadline.
    struct Awaited(Host, Duration);

    impl Probe for Awaited {
        type Spec = ();
        type Report = PingReport;

        fn parse((): &(), _options: &Options) -> Result<Self, Invalid> {
            Ok(Self(Host::Address(IpAddr::from([192, 0, 2, 1])), Duration::ZERO))
        }

        fn target(&self) -> String {
            self.0.to_string()
        }

        fn host(&self) -> &Host {
            &self.0
        }

        async fn run(&self, run: &mut Run<'_, PingReport>) -> Result<String, Failure> {
            run.owed_by.set("the part").unwrap();
            tokio::time::sleep_until(run.deadline + self.1).await;
            Err(Failure::timed_out("waiting for 192.0.2.1"))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_says_a_moment_later_what_became_of_a_run_is_heard() {
        let options =
            Options { timeout: Duration::from_secs(1), family: Family::Any, selection: Selection::First, source: None, resolver: None };
        let world = World::new(Arc::new(OpenGate));
        let reason = async |late: u64| {
            let probe = Awaited(Host::Address(IpAddr::from([192, 0, 2, 1])), Duration::from_millis(late));
            let deadline = stopwatch::now() + options.timeout;
            let sight = conduct(&probe, &world, &options, deadline, None, Report::Ping).await;
            (sight.reason, sight.summary.contains("the part was too busy"))
        };
        assert_eq!(reason(0).await, (Reason::TimedOut, false));
        assert_eq!(reason(30).await, (Reason::TimedOut, false));
        assert_eq!(reason(80).await, (Reason::ResourceExhausted, true));
    }
}
