//! Fabricated checks and results, for the tests of several rooms.

use std::{collections::BTreeSet, sync::Arc};

use vantage_contract::v1::{Check, Outcome, Probe, ProbeResult, probe};

use crate::{
    alert::Settings,
    desk::{Desk, Placement},
    store::SqliteStore,
};

/// A desk over an empty memory.
pub(crate) fn desk() -> Desk {
    Desk::new(Arc::new(SqliteStore::in_memory()), Settings::default())
}

/// A check every 10 s with a timeout of 2 s: the patience with it is 32 s.
pub(crate) fn check(name: &str, kind: probe::Kind) -> Check {
    let probe = Probe { timeout: Some(duration(2.0)), kind: Some(kind), ..Probe::default() };
    Check { name: name.into(), interval: Some(duration(10.0)), probe: Some(probe), ..Check::default() }
}

/// A placement that takes any revision.
pub(crate) fn place(check: Check, monitors: &[&str]) -> Placement {
    Placement { check, revisions: BTreeSet::new(), monitors: monitors.iter().map(ToString::to_string).collect() }
}

/// A result of monitor "m" in session "s".
pub(crate) fn result(check: &str, sequence: u64, outcome: Outcome) -> ProbeResult {
    ProbeResult {
        check_name: check.into(),
        monitor: "m".into(),
        session: "s".into(),
        sequence,
        sequence_count: 1,
        run: sequence - 1,
        run_count: 1,
        outcome: outcome.into(),
        ..ProbeResult::default()
    }
}

/// Seconds as the contract has them.
pub(crate) fn duration(seconds: f64) -> prost_types::Duration {
    let whole = seconds.trunc();
    prost_types::Duration { seconds: whole as i64, nanos: ((seconds - whole) * 1e9).round() as i32 }
}
