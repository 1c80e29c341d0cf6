//! Runs a probe in this process.

use std::{net::IpAddr, sync::Arc, time::Duration};

use vantage_contract::v1::{self, Outcome, Probe, Reason, probe::Kind, probe_result::Report};
use vantage_probes::{Gate, OpenGate, Plan, Sight, World, stopwatch};

/// A probe of this kind with a timeout that no healthy loopback needs.
pub(crate) fn probe(kind: Kind) -> Probe {
    Probe { timeout: Some(prost_types::Duration { seconds: 20, nanos: 0 }), kind: Some(kind), ..Probe::default() }
}

/// A probe of this kind with a timeout in milliseconds.
pub(crate) fn within(millis: u64, kind: Kind) -> Probe {
    Probe { timeout: prost_types::Duration::try_from(Duration::from_millis(millis)).ok(), ..probe(kind) }
}

/// An address, from its text.
pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A probe of this kind that has to wait for its timeout: a short one.
pub(crate) fn hasty(kind: Kind) -> Probe {
    within(300, kind)
}

/// Asserts that a hasty run lasted as long as it was allowed to. (Never longer: [`run`] sees to that.)
#[track_caller]
pub(crate) fn assert_ended_by_the_timeout(sight: &Sight) {
    // The last milliseconds belong to the verdict.
    assert!(sight.duration >= Duration::from_millis(290), "{sight:?}");
}

/// Runs a probe; whatever it saw, of its addresses too, its phases add up to its duration and are not longer than its timeout allows.
pub(crate) async fn run(probe: &Probe) -> Sight {
    run_behind(probe, Arc::new(OpenGate)).await
}

/// Runs a probe behind a gate.
pub(crate) async fn run_behind(probe: &Probe, gate: Arc<dyn Gate>) -> Sight {
    run_in(probe, &World::new(gate)).await
}

/// Runs a probe in a world.
pub(crate) async fn run_in(probe: &Probe, world: &World) -> Sight {
    let plan = Plan::parse(probe).expect("the probe is valid");
    let timeout = plan.timeout();
    // A plain timer beside it says how late this machine is, which may have other things to do. The run ends before it rings, or just after.
    let start = stopwatch::now();
    let (timer, running) = (tokio::time::sleep_until(start + timeout), plan.run(world));
    let (mut timer, mut running) = (std::pin::pin!(timer), std::pin::pin!(running));
    let (sight, rang) = tokio::select! {
        biased;
        () = &mut timer => {
            let rang = stopwatch::now() - start;
            (running.await, rang)
        }
        sight = &mut running => (sight, timeout),
    };
    for sight in std::iter::once(&sight).chain(&sight.addresses) {
        assert_eq!(sight.phases.iter().map(|(_, taken)| *taken).sum::<Duration>(), sight.duration, "{sight:?}");
    }
    assert!(sight.addresses.iter().all(|address| address.duration <= sight.duration), "{sight:?}");
    assert!(sight.duration <= rang + Duration::from_millis(200), "the timer rang after {rang:?}: {sight:?}");
    // Whatever kept the timer from ringing.
    assert!(sight.duration <= timeout + Duration::from_secs(2), "{sight:?}");
    sight
}

/// Asserts that the kernel stamps departure and arrival of what these probes send. It may begin to do so only a moment after the first.
pub(crate) async fn assert_stamped_by_the_kernel(probe: &Probe) {
    super::monitor::eventually("stamps of the kernel", || async {
        run(probe).await.latency.is_some_and(|(_, source)| source == v1::TimingSource::Kernel)
    })
    .await;
}

/// The field that is wrong with a probe.
pub(crate) fn invalid(probe: &Probe) -> String {
    Plan::parse(probe).expect_err("the probe is not valid").field
}

/// Asserts a pass and gives the report.
pub(crate) trait Verdict {
    /// It passed.
    fn passed(self) -> Report;
    /// It failed, or is undetermined, for this reason; the report is an empty one where there is none.
    fn because(self, reason: Reason) -> Option<Report>;
}

impl Verdict for Sight {
    #[track_caller]
    fn passed(self) -> Report {
        assert_eq!(self.outcome, Outcome::Passed, "{self:?}");
        assert_eq!((self.reason, self.attribution), (Reason::Unspecified, v1::Attribution::Unspecified));
        self.report.expect("a probe that passed reports")
    }

    #[track_caller]
    fn because(self, reason: Reason) -> Option<Report> {
        assert_eq!(self.reason, reason, "{self:?}");
        assert_eq!(self.outcome, vantage_probes::failure::outcome_of(reason));
        assert_ne!(self.attribution, v1::Attribution::Unspecified);
        assert!(!self.summary.is_empty() && !self.summary.ends_with('.'), "{}", self.summary);
        self.report
    }
}
