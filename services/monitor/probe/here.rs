//! A probe from this machine, in this process. Its user may go where the operating system lets them: there is no policy.

use std::sync::Arc;

use vantage_contract::v1::ProbeResult;
use vantage_daemon::clock;
use vantage_probes::{OpenGate, Plan, World, stopwatch};

use super::CHECK_NAME;
use crate::config::Settings;

/// Runs it once.
pub(super) async fn run(plan: &Plan) -> ProbeResult {
    let world = World::new(Arc::new(OpenGate));
    let start = clock::wall();
    let sight = plan.run(&world).await;
    let (latency, timing_source) = sight.latency.unzip();
    ProbeResult {
        check_name: CHECK_NAME.to_owned(),
        kind: plan.kind().to_owned(),
        target: plan.target(),
        run_count: 1,
        monitor: Settings::default().name,
        due_time: Some(start.into()),
        start_time: Some(start.into()),
        lateness: Some(prost_types::Duration::default()),
        outcome: sight.outcome.into(),
        reason: sight.reason.into(),
        attribution: sight.attribution.into(),
        summary: sight.summary,
        address: sight.address.map(|address| address.to_string()).unwrap_or_default(),
        duration: Some(stopwatch::to_proto(sight.duration)),
        phases: stopwatch::phases_to_proto(&sight.phases),
        latency: latency.map(stopwatch::to_proto),
        timing_source: timing_source.unwrap_or_default().into(),
        report: sight.report,
        ..ProbeResult::default()
    }
}
