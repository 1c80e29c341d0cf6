//! A probe from this machine, in this process. Its user may go where the operating system lets them: there is no policy.

use std::{sync::Arc, time::Duration};

use vantage_contract::v1::{Check, ProbeResult};
use vantage_probes::{Failure, OpenGate, World};

use crate::{
    config::Settings,
    order::{Facts, Timing},
    schedule::Now,
};

/// Runs it once.
pub(super) async fn run(check: &Check) -> ProbeResult {
    let world = World::new(Arc::new(OpenGate));
    let facts = Facts::new(check, "", &Settings::default().name);
    let start = Now::read().wall;
    let timing = Timing { due: start, start, lateness: Duration::ZERO };
    let record = match &facts.plan {
        Ok(plan) => facts.ran(0, timing, plan.run(&world).await),
        Err(invalid) => facts.undone(0, timing, Failure::from(invalid.clone())),
    };
    record.whole()
}
