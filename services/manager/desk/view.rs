//! What the desk shows of what it knows: copies, taken at one instant.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use vantage_contract::v1::{Check, ProbeResult};

use super::LinkState;
use crate::state::State;

/// All that is known at one instant.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The checks, by name.
    pub checks: Vec<CheckView>,
    /// The links, by the names that the monitors are configured under.
    pub links: Vec<LinkView>,
}

/// One check.
#[derive(Debug, Clone)]
pub struct CheckView {
    /// The check as configured.
    pub check: Arc<Check>,
    /// Its kind: the name of the field of `Probe` that is set.
    pub kind: String,
    /// The judgement now.
    pub state: State,
    /// For how long it has been so.
    pub state_age: Duration,
    /// The monitors it is placed on, by the names they are configured under.
    pub monitors: Vec<String>,
    /// What is known from each monitor, by the name the monitor gives itself.
    pub lines: Vec<LineView>,
}

/// What is known of one check from one monitor.
#[derive(Debug, Clone)]
pub struct LineView {
    /// The name the monitor gives itself.
    pub monitor: String,
    /// The newest result.
    pub last: Arc<ProbeResult>,
    /// How long ago it arrived here.
    pub age: Duration,
    /// Whether this monitor's say counts now: it has a determined result that is fresh.
    pub fresh: bool,
    /// Runs, by the words of outcome and reason.
    pub totals: BTreeMap<(String, String), u64>,
}

/// One link.
#[derive(Debug, Clone)]
pub struct LinkView {
    /// The name that the monitor is configured under.
    pub monitor: String,
    /// How it stands.
    pub state: LinkState,
    /// For how long it has been connected, or not.
    pub age: Duration,
    /// How often it came to stand.
    pub connected_count: u64,
}
