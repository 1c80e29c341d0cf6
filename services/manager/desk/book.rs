//! What is known of each check, from each monitor. Pure: time is an argument.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use prost_reflect::ReflectMessage as _;
use tokio::time::Instant;
use vantage_contract::{
    json,
    v1::{Check, ProbeResult},
};

use super::{
    LinkState, Placement,
    line::Line,
    view::{CheckView, LinkView, Snapshot},
};
use crate::{
    alert::{Alert, CheckAlert, Settings, Told},
    state::{self, Say, State},
    words,
};

/// The most monitors that one check is followed on; results of more are stored and not judged.
const LINES_PER_CHECK: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct Book {
    settings: Settings,
    checks: BTreeMap<String, Record>,
    links: BTreeMap<String, Link>,
}

/// One check.
#[derive(Debug)]
struct Record {
    check: Arc<Check>,
    kind: String,
    revisions: BTreeSet<String>,
    monitors: Vec<String>,
    patience: Duration,
    /// Since when it has been expected as it is.
    since: Instant,
    /// By the name the monitor gives itself.
    lines: BTreeMap<String, Line>,
    /// The judgement when it was last looked at, and since when it has been so.
    state: (State, Instant),
    told: Told,
}

#[derive(Debug)]
struct Link {
    state: LinkState,
    /// Since when it has been connected, or not.
    changed: Instant,
    connected_count: u64,
    told_lost: bool,
}

impl Book {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    pub(super) fn expect(&mut self, placements: Vec<Placement>, now: Instant) {
        let mut before = std::mem::take(&mut self.checks);
        for Placement { check, revisions, monitors } in placements {
            let name = check.name.clone();
            let record = match before.remove(&name) {
                Some(record) => record.replaced(check, revisions, monitors, now),
                None => Record::new(check, revisions, monitors, now),
            };
            self.checks.insert(name, record);
        }
        self.drop_strangers();
    }

    /// Enters a result that has just been stored. False: it is of a check, revision or monitor that is not expected.
    pub(super) fn enter(&mut self, result: &Arc<ProbeResult>, now: Instant, wall: SystemTime) -> bool {
        let Some(record) = self.checks.get_mut(&result.check_name) else { return false };
        if !record.revisions.is_empty() && !record.revisions.contains(&result.revision) {
            return false;
        }
        if !record.lines.contains_key(&result.monitor) {
            let known = names(&record.monitors, &self.links);
            if record.lines.len() >= LINES_PER_CHECK || known.is_some_and(|known| !known.contains(result.monitor.as_str())) {
                return false;
            }
        }
        let patience = record.patience;
        let line = record.lines.entry(result.monitor.clone()).or_insert_with(|| Line::new(Arc::clone(result), now));
        line.enter(result, now, wall, patience, record.check.count, self.settings);
        true
    }

    /// Judges these checks, once what came together is entered: a backlog tells how it is now, not how it was in between.
    pub(super) fn review_of(&mut self, checks: &BTreeSet<&str>, now: Instant) -> Vec<Alert> {
        checks.iter().filter_map(|name| self.checks.get_mut(*name)?.review(&self.links, now)).collect()
    }

    pub(super) fn note_link(&mut self, monitor: &str, state: LinkState, now: Instant) -> Option<Alert> {
        let link = self.links.entry(monitor.to_owned()).or_insert_with(|| Link {
            state: LinkState { connected: false, ..state.clone() },
            changed: now,
            connected_count: 0,
            told_lost: false,
        });
        let renamed = link.state.announced != state.announced && !state.announced.is_empty();
        if link.state.connected != state.connected {
            link.changed = now;
        }
        if state.connected && !link.state.connected {
            link.connected_count += 1;
        }
        let announced = if state.announced.is_empty() { std::mem::take(&mut link.state.announced) } else { state.announced.clone() };
        link.state = LinkState { announced, ..state };
        let lost = !link.state.connected && !link.state.error.is_empty();
        let news = (lost && !link.told_lost) || (link.state.connected && link.told_lost);
        let alert = news.then(|| {
            link.told_lost = lost;
            Alert::Link { monitor: monitor.to_owned(), connected: link.state.connected, error: link.state.error.clone() }
        });
        if renamed {
            self.drop_strangers();
        }
        alert
    }

    pub(super) fn forget_link(&mut self, monitor: &str) {
        self.links.remove(monitor);
    }

    /// Judges all checks as time has passed.
    pub(super) fn review(&mut self, now: Instant) -> Vec<Alert> {
        self.checks.values_mut().filter_map(|record| record.review(&self.links, now)).collect()
    }

    pub(super) fn snapshot(&mut self, now: Instant) -> Snapshot {
        let checks = self.checks.values_mut().map(|record| record.view(now)).collect();
        let links = self.links.iter().map(|(monitor, link)| LinkView {
            monitor: monitor.clone(),
            state: link.state.clone(),
            age: now.saturating_duration_since(link.changed),
            connected_count: link.connected_count,
        });
        Snapshot { checks, links: links.collect() }
    }

    /// Drops what came from monitors that a check no longer runs on.
    fn drop_strangers(&mut self) {
        for record in self.checks.values_mut() {
            if let Some(known) = names(&record.monitors, &self.links) {
                record.lines.retain(|monitor, _| known.contains(monitor.as_str()));
            }
        }
    }
}

/// The names that these monitors give themselves. None where one of them has not said: then any name may be its.
fn names<'a>(monitors: &[String], links: &'a BTreeMap<String, Link>) -> Option<BTreeSet<&'a str>> {
    let name = |monitor| links.get(monitor).map(|link| link.state.announced.as_str()).filter(|name| !name.is_empty());
    monitors.iter().map(name).collect()
}

impl Record {
    fn new(check: Check, revisions: BTreeSet<String>, monitors: Vec<String>, now: Instant) -> Self {
        Self {
            kind: kind(&check),
            patience: state::patience(&check),
            check: Arc::new(check),
            revisions,
            monitors,
            since: now,
            lines: BTreeMap::new(),
            state: (State::Unknown, now),
            told: Told::default(),
        }
    }

    /// The same check after a reload. What was seen of another revision says nothing about this one; what was told stays told.
    fn replaced(self, check: Check, revisions: BTreeSet<String>, monitors: Vec<String>, now: Instant) -> Self {
        if self.revisions == revisions && *self.check == check {
            return Self { monitors, ..self };
        }
        let new = Self::new(check, revisions, monitors, now);
        if new.kind == self.kind {
            let lines = self.lines.into_iter().map(|(monitor, line)| (monitor, line.renewed())).collect();
            return Self { lines, told: self.told, state: self.state, ..new };
        }
        Self { told: self.told, ..new }
    }

    fn review(&mut self, links: &BTreeMap<String, Link>, now: Instant) -> Option<Alert> {
        self.judge(now);
        let confirmed = |line: &Line| line.fresh(now, self.patience).and_then(|_| line.confirmed());
        let state = state::judge(self.lines.values().map(confirmed));
        let overdue = self.overdue(links, now);
        let from = self.told.news(state, overdue)?;
        let (failing, determined) = self
            .lines
            .values()
            .filter_map(confirmed)
            .fold((0, 0), |(failing, all), say| (failing + usize::from(say == Say::Failed), all + 1));
        // Who fails tells best why; where nobody can tell, whoever spoke last.
        let failing_line = self.lines.values().find(|line| confirmed(line) == Some(Say::Failed)).and_then(Line::failed);
        let newest = self.lines.values().max_by_key(|line| line.arrived()).map(Line::last);
        let witness = failing_line.or(newest);
        Some(Alert::Check(CheckAlert {
            check: self.check.name.clone(),
            kind: self.kind.clone(),
            target: newest.map(|result| result.target.clone()).unwrap_or_default(),
            from,
            to: state,
            failing_count: failing,
            determined_count: determined,
            monitor: witness.map(|result| result.monitor.clone()).unwrap_or_default(),
            reason: witness.map(|result| words::reason(result.reason)).unwrap_or_default(),
            summary: witness.map(|result| result.summary.clone()).unwrap_or_default(),
        }))
    }

    /// Whether somebody should have said something by now: the patience has passed since the check was expected and since a link to
    /// one of its monitors stood again. While all links are lost, nobody is expected to say anything: that itself was told.
    fn overdue(&self, links: &BTreeMap<String, Link>, now: Instant) -> bool {
        let since = |monitor: &String| match links.get(monitor) {
            Some(link) if link.state.connected => Some(link.changed),
            Some(_) => None,
            None => Some(self.since),
        };
        let earliest = self.monitors.iter().filter_map(since).min();
        earliest.is_some_and(|since| now.saturating_duration_since(since.max(self.since)) >= self.patience)
    }

    /// The judgement that is shown: of what was said last, unconfirmed.
    fn judge(&mut self, now: Instant) {
        let state = state::judge(self.lines.values().map(|line| line.fresh(now, self.patience)));
        if self.state.0 != state {
            self.state = (state, now);
        }
    }

    fn view(&mut self, now: Instant) -> CheckView {
        self.judge(now);
        CheckView {
            check: Arc::clone(&self.check),
            kind: self.kind.clone(),
            state: self.state.0,
            state_age: now.saturating_duration_since(self.state.1),
            monitors: self.monitors.clone(),
            lines: self.lines.iter().map(|(monitor, line)| line.view(monitor, now, self.patience)).collect(),
        }
    }
}

/// The kind of a check: the field of `Probe`'s one oneof that is set. Empty where none is.
fn kind(check: &Check) -> String {
    let Some(probe) = &check.probe else { return String::new() };
    let probe = json::dynamic(probe);
    let descriptor = probe.descriptor();
    let kind = descriptor.oneofs().find_map(|oneof| oneof.fields().find(|field| probe.has_field(field)));
    kind.map(|field| field.name().to_owned()).unwrap_or_default()
}
