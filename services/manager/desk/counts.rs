//! What the desk counts. All of it is bounded: by the contract's enumerations, and by the states.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use vantage_contract::v1::ProbeResult;

use crate::{alert::Alert, words};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What was counted since the process started.
#[derive(Debug, Default)]
pub struct Counts {
    /// Results that had been stored before.
    pub duplicates: Count,
    /// Results without a place in any session; not stored.
    pub misnumbered: Count,
    /// Holes in the sequences of sessions.
    pub gaps: Count,
    /// Sequences in those holes.
    pub missing: Count,
    /// Results that were stored but not judged: of checks, revisions or monitors that are not expected (any more).
    pub unexpected: Count,
    /// Batches that could not be stored.
    pub store_errors: Count,
    /// Events that slow readers of the event stream missed.
    pub missed_events: Count,
    /// Readers of the event stream that were turned away because there were too many.
    pub refused_events: Count,
    taken: Mutex<BTreeMap<(String, String), u64>>,
    alerts: Mutex<BTreeMap<&'static str, u64>>,
}

impl Counts {
    /// New results, by the words of outcome and reason.
    pub fn taken_by_outcome(&self) -> BTreeMap<(String, String), u64> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Alerts, by what they said: a state, "link_lost" or "link_restored".
    pub fn alerts_by_event(&self) -> BTreeMap<&'static str, u64> {
        self.alerts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn taken(&self, result: &ProbeResult) {
        let key = (words::outcome(result.outcome), words::reason(result.reason));
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
    }

    pub(super) fn alerted(&self, alert: &Alert) {
        let event = match alert {
            Alert::Check(alert) => alert.to.word(),
            Alert::Link { connected: true, .. } => "link_restored",
            Alert::Link { connected: false, .. } => "link_lost",
        };
        *self.alerts.lock().unwrap_or_else(PoisonError::into_inner).entry(event).or_default() += 1;
    }
}
