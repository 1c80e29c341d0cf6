//! What is known of one check from one monitor. Pure: time is an argument.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;
use vantage_contract::v1::{Outcome, ProbeResult, Reason};

use super::view::LineView;
use crate::{
    alert::{Confirmed, Settings},
    state::{self, Say},
    words,
};

/// Results come in the order of their runs, but for two cases: a backlog comes beside live results, in a session of its own, and runs that were
/// skipped overtake the one that was in flight meanwhile. What was due before that which the line already says is counted, and says nothing.
#[derive(Debug)]
pub(super) struct Line {
    /// The newest result, and when it came.
    last: Arc<ProbeResult>,
    arrived: Instant,
    newest: Newest,
    determined: Option<Determined>,
    /// The newest result of these that failed: why it is down, also while a first pass is not yet confirmed.
    failed: Option<Arc<ProbeResult>>,
    confirmed: Confirmed,
    totals: BTreeMap<(String, String), u64>,
    /// The check's count of runs is used up: what was said last stays said.
    done: bool,
}

/// When the newest results were due, and their runs. None: nothing that has a due time counts yet.
#[derive(Debug, Clone, Copy, Default)]
struct Newest {
    of_all: Option<(SystemTime, u64)>,
    /// Of runs that were not skipped: those are overtaken by skipped ones as a matter of course.
    of_run: Option<(SystemTime, u64)>,
}

impl Newest {
    /// Enters a result. False: it is older than what is known, so that it says nothing. Results that are due at the same instant, or
    /// don't say when they were due, are as new as they come.
    fn enter(&mut self, due: Option<SystemTime>, run: u64, skipped: bool) -> bool {
        let Some(due) = due else { return true };
        let known = if skipped { self.of_all } else { self.of_run };
        if known.is_some_and(|known| (due, run) < known) {
            return false;
        }
        self.of_all = self.of_all.max(Some((due, run)));
        if !skipped {
            self.of_run = Some((due, run));
        }
        true
    }
}

/// The newest result that said something about the target, and was of its time.
#[derive(Debug)]
struct Determined {
    say: Say,
    arrived: Instant,
}

impl Line {
    /// A line that begins with a result, which is still to be entered.
    pub(super) fn new(first: Arc<ProbeResult>, now: Instant) -> Self {
        Self {
            last: first,
            arrived: now,
            newest: Newest::default(),
            determined: None,
            failed: None,
            confirmed: Confirmed::default(),
            totals: BTreeMap::new(),
            done: false,
        }
    }

    pub(super) fn enter(
        &mut self,
        result: &Arc<ProbeResult>,
        now: Instant,
        wall: SystemTime,
        patience: Duration,
        count: u64,
        settings: Settings,
    ) {
        let key = (words::outcome(result.outcome), words::reason(result.reason));
        *self.totals.entry(key).or_default() += result.run_count.max(1);
        let is_end = count > 0 && result.run.saturating_add(result.run_count.max(1)) >= count;
        if !self.done && now.saturating_duration_since(self.arrived) >= patience {
            // Nothing newer has come for so long that it may never come, as where a monitor's clock was set back.
            self.newest = Newest::default();
        }
        let due = result.due_time.and_then(|due| SystemTime::try_from(due).ok());
        if !self.newest.enter(due, result.run, result.outcome() == Outcome::Skipped) {
            self.done |= is_end;
            return;
        }
        self.last = Arc::clone(result);
        self.arrived = now;
        if let Some(say) = state::say(result.outcome).filter(|_| state::punctual(due, wall, patience)) {
            if self.fresh(now, patience).is_none() {
                // What was confirmed before a silence is no longer.
                self.confirmed = Confirmed::default();
            }
            self.confirmed.enter(say, settings);
            if say == Say::Failed {
                self.failed = Some(Arc::clone(result));
            }
            self.determined = Some(Determined { say, arrived: now });
        }
        if result.reason() == Reason::HeldOff && self.fresh(now, patience).is_some() && state::punctual(due, wall, patience) {
            self.hold(now);
        }
        self.done = is_end;
    }

    /// A run was left out because the target had asked for that. What it said when it asked stays said for as long as it is left alone; anything
    /// else that was said grows old.
    fn hold(&mut self, now: Instant) {
        let has_asked = self.failed.as_ref().is_some_and(|failed| failed.reason() == Reason::KissOfDeath);
        if let Some(determined) = self.determined.as_mut().filter(|determined| has_asked && determined.say == Say::Failed) {
            determined.arrived = now;
        }
    }

    /// What the monitor says, if that is fresh.
    pub(super) fn fresh(&self, now: Instant, patience: Duration) -> Option<Say> {
        let determined = self.determined.as_ref()?;
        (self.done || now.saturating_duration_since(determined.arrived) < patience).then_some(determined.say)
    }

    pub(super) fn confirmed(&self) -> Option<Say> {
        self.confirmed.say()
    }

    /// The newest result that failed.
    pub(super) fn failed(&self) -> Option<&Arc<ProbeResult>> {
        self.failed.as_ref()
    }

    pub(super) fn last(&self) -> &Arc<ProbeResult> {
        &self.last
    }

    pub(super) fn arrived(&self) -> Instant {
        self.arrived
    }

    /// The line of a check that was changed: what was counted goes on, what was said is void.
    pub(super) fn renewed(self) -> Self {
        Self { newest: Newest::default(), determined: None, failed: None, confirmed: Confirmed::default(), done: false, ..self }
    }

    pub(super) fn view(&self, monitor: &str, now: Instant, patience: Duration) -> LineView {
        LineView {
            monitor: monitor.to_owned(),
            last: Arc::clone(&self.last),
            age: now.saturating_duration_since(self.arrived),
            fresh: self.fresh(now, patience).is_some(),
            totals: self.totals.clone(),
        }
    }
}
