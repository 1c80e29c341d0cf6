//! Orders: checks that a client has placed, when their runs are due, and the records that account for them.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use prost::Message;
use prost_types::Timestamp;
use vantage_contract::{
    labels::{LONGEST, MOST, is_name},
    v1::{Attribution, Check, Outcome, Probe, ProbeResult, Reason, Start},
};
use vantage_probes::{Failure, Invalid, Plan, Sight, stopwatch, wire::text};

use crate::{
    admission::Habit,
    holdings::{Held, weight},
    record::Record,
    schedule::{Now, Schedule},
};

/// The interval of a check that names none.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);
/// The shortest interval.
pub const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// The longest interval.
pub const MAX_INTERVAL: Duration = Duration::from_secs(7 * 24 * 3600);
const MAX_NAME_BYTES: usize = 128;
const MAX_REVISION_BYTES: usize = 64;
/// What the sub-results of one record may take up together, in bytes: a message of gRPC has 4 MiB at most, and a journal's memory as much.
const MAX_SUB_BYTES: usize = 1 << 20;

/// What every record of an order says of it.
#[derive(Debug)]
pub struct Facts {
    /// A record with all that is the same in each run, encoded.
    constant: Bytes,
    name: String,
    target: String,
    kind: &'static str,
    /// Why it can't be run, if it can't.
    pub plan: Result<Plan, Invalid>,
    /// How its runs go, for admission to judge the next one by.
    pub habit: Habit,
    /// What it takes up, counted as long as anybody has it.
    held: OnceLock<Held>,
}

/// When a run was due, and when it started.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// When it was due, on the wall clock.
    pub due: SystemTime,
    /// When it started, on the wall clock.
    pub start: SystemTime,
    /// From due to started, on the monotonic clock.
    pub lateness: Duration,
}

impl Facts {
    /// What a check is, for the monitor called `monitor`. Whatever is wrong with it is kept, and told in each record. The journal gives records
    /// their sessions.
    pub fn new(check: &Check, revision: &str, monitor: &str) -> Self {
        let plan = validate(check, revision).and_then(|()| Plan::parse(check.probe.as_ref().unwrap_or(&Probe::default())));
        let kind = check.probe.as_ref().map(vantage_probes::kind_of).unwrap_or_default();
        let template = ProbeResult {
            check_name: cut(&check.name, MAX_NAME_BYTES),
            kind: kind.to_owned(),
            target: plan.as_ref().map(Plan::target).unwrap_or_default(),
            labels: if labels(check).is_ok() { check.labels.clone() } else { Default::default() },
            revision: cut(revision, MAX_REVISION_BYTES),
            monitor: monitor.to_owned(),
            ..ProbeResult::default()
        };
        let constant = template.encode_to_vec().into();
        let (name, target) = (template.check_name, template.target);
        Self { constant, name, target, kind, plan, habit: Habit::default(), held: OnceLock::new() }
    }

    /// What it takes up in memory, about, with the order that it is of.
    pub(crate) fn weight(&self, order: &impl Message) -> u64 {
        weight(order, self.plan.as_ref().map_or(0, Plan::pattern_bytes))
    }

    /// Counts what it takes up, from now until nobody has it any more.
    pub(crate) fn count(&self, held: Held) {
        // It is counted once, when it is made.
        let _ = self.held.set(held);
    }

    /// The kind's name; empty where there is none.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// The target as the check names it, without credentials; empty where it can't be run.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The name of the check.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The record of a run that happened; or did not, where the probe found that its target asked to be left alone.
    pub fn ran(&self, run: u64, timing: Timing, sight: Sight) -> Record {
        if sight.outcome == Outcome::Skipped {
            let attribution = sight.attribution.into();
            let skipped = skipped(run, 1, timing.due, sight.reason);
            return self.record(ProbeResult { attribution, summary: sight.summary, ..skipped });
        }
        self.record(ProbeResult {
            run,
            run_count: 1,
            due_time: Some(Timestamp::from(timing.due)),
            start_time: Some(Timestamp::from(timing.start)),
            lateness: Some(stopwatch::to_proto(timing.lateness)),
            ..seen(sight)
        })
    }

    fn record(&self, said: ProbeResult) -> Record {
        Record { constant: self.constant.clone(), said }
    }

    /// The record of a run that came to nothing for a reason of our own: nothing was sent.
    pub fn undone(&self, run: u64, timing: Timing, failure: Failure) -> Record {
        let sight = Sight {
            outcome: failure.outcome(),
            reason: failure.reason,
            attribution: failure.attribution,
            summary: failure.sentence,
            address: None,
            duration: Duration::ZERO,
            phases: Vec::new(),
            latency: None,
            report: None,
            addresses: Vec::new(),
        };
        self.ran(run, timing, sight)
    }

    /// The record of `count` runs from `run` on that did not happen.
    pub fn skipped(&self, run: u64, count: u64, due: SystemTime, reason: Reason) -> Record {
        self.record(skipped(run, count, due, reason))
    }
}

fn skipped(run: u64, count: u64, due: SystemTime, reason: Reason) -> ProbeResult {
    ProbeResult {
        run,
        run_count: count,
        due_time: Some(Timestamp::from(due)),
        outcome: Outcome::Skipped.into(),
        reason: reason.into(),
        attribution: Attribution::Vantage.into(),
        summary: why_skipped(reason).to_owned(),
        ..ProbeResult::default()
    }
}

/// The sub-results of the addresses that were probed. What is the same for all of them is said once, by the record that they are in.
fn sub_results(sights: Vec<Sight>) -> Vec<ProbeResult> {
    let mut results: Vec<_> = sights.into_iter().map(seen).collect();
    fit(&mut results, MAX_SUB_BYTES);
    results
}

/// A record of what was seen.
fn seen(sight: Sight) -> ProbeResult {
    let (latency, timing_source) = sight.latency.unzip();
    ProbeResult {
        outcome: sight.outcome.into(),
        reason: sight.reason.into(),
        attribution: sight.attribution.into(),
        summary: sight.summary,
        address: sight.address.map(text::address).unwrap_or_default(),
        duration: Some(stopwatch::to_proto(sight.duration)),
        phases: stopwatch::phases_to_proto(&sight.phases),
        latency: latency.map(stopwatch::to_proto),
        timing_source: timing_source.unwrap_or_default().into(),
        address_results: sub_results(sight.addresses),
        report: sight.report,
        ..ProbeResult::default()
    }
}

/// Leaves out reports until all together take up at most `bytes`: first of those that passed, the longest first. Their summaries say so.
fn fit(results: &mut [ProbeResult], bytes: usize) {
    let mut total: usize = results.iter().map(ProbeResult::encoded_len).sum();
    while total > bytes {
        let longest = results
            .iter_mut()
            .filter(|result| result.report.is_some())
            .max_by_key(|result| (result.outcome() == Outcome::Passed, result.encoded_len()));
        let Some(result) = longest else { return };
        let before = result.encoded_len();
        result.report = None;
        result.summary.push_str(" (the report is left out: those of all addresses are too long for one record)");
        total = total.saturating_sub(before) + result.encoded_len();
    }
}

fn why_skipped(reason: Reason) -> &'static str {
    match reason {
        Reason::Overloaded => "the monitor had more to do than it may do at once",
        Reason::StillRunning => "the run before was still going on",
        Reason::Expired => "it came too late to be run",
        Reason::Draining => "the monitor was stopping",
        Reason::ClockJump => "the clock was set over it, or the machine slept",
        Reason::MonitorDown => "the monitor was not running",
        Reason::HeldOff => "the target asked to be left alone",
        _ => "it was not run",
    }
}

/// Cut to at most `bytes`, between characters.
fn cut(text: &str, bytes: usize) -> String {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn validate(check: &Check, revision: &str) -> Result<(), Invalid> {
    let name = &check.name;
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
        return Err(Invalid::new("name", format!("must be 1 to {MAX_NAME_BYTES} bytes without control characters")));
    }
    if revision.len() > MAX_REVISION_BYTES {
        return Err(Invalid::new("revision", format!("must be at most {MAX_REVISION_BYTES} bytes")));
    }
    labels(check)?;
    vantage_probes::target::duration("interval", check.interval, DEFAULT_INTERVAL, MIN_INTERVAL..=MAX_INTERVAL)?;
    Ok(())
}

/// Labels are in each record: what is allowed here is paid for in each run.
fn labels(check: &Check) -> Result<(), Invalid> {
    if check.labels.len() > MOST {
        return Err(Invalid::new("labels", format!("must be at most {MOST}, are {}", check.labels.len())));
    }
    for (name, value) in &check.labels {
        if !is_name(name) || name.len() > LONGEST {
            let name = cut(name, MAX_NAME_BYTES);
            let problem = format!("have names of letters, digits and `_`, not beginning with a digit, up to {LONGEST} bytes: not {name:?}");
            return Err(Invalid::new("labels", problem));
        }
        if value.len() > LONGEST {
            return Err(Invalid::new(format!("labels.{name}"), format!("must be at most {LONGEST} bytes, is {}", value.len())));
        }
    }
    Ok(())
}

/// A check that a client has placed; it stands until stopped, replaced or counted out.
#[derive(Debug)]
pub struct Order {
    /// What was placed, to tell a restatement from a change.
    pub start: Start,
    /// What the records say.
    pub facts: Arc<Facts>,
    /// When its runs are due.
    pub schedule: Schedule,
    /// The next run that is due and not yet accounted for.
    pub next_run: u64,
    /// The run that is waiting or in flight.
    pub busy: Option<u64>,
    /// Restated since the client's last Hello.
    pub restated: bool,
}

impl Order {
    /// Places an order `now`.
    pub fn place(start: Start, monitor: &str, now: Now) -> Self {
        let check = start.check.clone().unwrap_or_default();
        let anchor = start.anchor.and_then(|anchor| SystemTime::try_from(anchor).ok());
        let interval = interval(&check);
        let schedule = match (anchor, start.resume_run) {
            (Some(anchor), Some(next)) => Schedule::resume(interval, end(&check), anchor, next, now),
            _ => Schedule::place(&check.name, interval, check.count, anchor, now),
        };
        Self::new(start, &check, monitor, schedule)
    }

    /// An order that stood before this process began: its runs before `next` are accounted for.
    pub fn resume(start: Start, monitor: &str, anchor: SystemTime, next: u64, now: Now) -> Self {
        let check = start.check.clone().unwrap_or_default();
        let schedule = Schedule::resume(interval(&check), end(&check), anchor, next, now);
        Self::new(start, &check, monitor, schedule)
    }

    fn new(start: Start, check: &Check, monitor: &str, schedule: Schedule) -> Self {
        let facts = Arc::new(Facts::new(check, &start.revision, monitor));
        Self { next_run: schedule.first_run().min(schedule.end()), start, facts, schedule, busy: None, restated: true }
    }

    /// Whether a Start says what stands already.
    pub fn is(&self, start: &Start) -> bool {
        let anchor = start.anchor.and_then(|anchor| SystemTime::try_from(anchor).ok());
        self.start.check == start.check
            && self.start.revision == start.revision
            && (start.anchor == self.start.anchor || anchor.is_none_or(|anchor| anchor == self.schedule.anchor()))
    }

    /// How many runs it has in a second, in thousandths; at least one of them.
    pub fn milliruns_per_second(&self) -> u64 {
        milliruns(self.schedule.interval())
    }

    /// Whether all its runs have been started or accounted for.
    pub fn is_counted_out(&self) -> bool {
        self.schedule.is_over(self.next_run)
    }
}

/// How many runs an order would have in a second, in thousandths; at least one of them.
pub fn milliruns_per_second(start: &Start) -> u64 {
    milliruns(start.check.as_ref().map_or(DEFAULT_INTERVAL, interval))
}

fn milliruns(interval: Duration) -> u64 {
    u64::try_from(Duration::from_secs(1000).as_nanos() / interval.as_nanos().max(1)).unwrap_or(u64::MAX).max(1)
}

/// The interval of a check, where it names one that can be.
fn interval(check: &Check) -> Duration {
    vantage_probes::target::duration("interval", check.interval, DEFAULT_INTERVAL, MIN_INTERVAL..=MAX_INTERVAL).unwrap_or(DEFAULT_INTERVAL)
}

fn end(check: &Check) -> u64 {
    if check.count == 0 { u64::MAX } else { check.count }
}

#[cfg(test)]
mod tests {
    use vantage_contract::v1::{TcpProbe, UdpReport, probe::Kind, probe_result::Report};

    use super::*;

    fn check(name: &str) -> Check {
        let tcp = TcpProbe { host: "127.0.0.1".into(), port: 80, ..TcpProbe::default() };
        Check { name: name.into(), probe: Some(Probe { kind: Some(Kind::Tcp(tcp)), ..Probe::default() }), ..Check::default() }
    }

    #[test]
    fn labels_that_no_record_could_carry_are_refused_and_in_no_record() {
        let with = |name: &str, value: &str| Check { labels: [(name.to_owned(), value.to_owned())].into(), ..check("web") };
        let long = "x".repeat(257);
        for (name, value) in [("1a", "b"), ("a-b", "c"), ("", "d"), ("é", "e"), (&*long, "f"), ("g", &*long)] {
            let facts = Facts::new(&with(name, value), "r1", "here");
            assert!(facts.plan.as_ref().is_err_and(|invalid| invalid.field.starts_with("labels")), "{name:?} {value:?}");
            assert!(facts.skipped(0, 1, SystemTime::UNIX_EPOCH, Reason::Overloaded).whole().labels.is_empty());
        }
        let facts = Facts::new(&with("_a1", &long[1..]), "r1", "here");
        assert!(facts.plan.is_ok());
        assert_eq!(facts.skipped(0, 1, SystemTime::UNIX_EPOCH, Reason::Overloaded).whole().labels.len(), 1);
    }

    #[test]
    fn a_record_says_whose_run_it_is() {
        let facts = Facts::new(&check("web"), "r1", "here");
        let record = facts.skipped(7, 3, SystemTime::UNIX_EPOCH, Reason::Overloaded).whole();
        assert_eq!((record.check_name.as_str(), record.kind.as_str(), record.target.as_str()), ("web", "tcp", "127.0.0.1:80"));
        assert_eq!((record.run, record.run_count), (7, 3));
        assert_eq!(record.outcome, i32::from(Outcome::Skipped));
    }

    #[test]
    fn a_run_that_its_target_asked_to_leave_out_did_not_start() {
        let timing = Timing { due: SystemTime::UNIX_EPOCH, start: SystemTime::UNIX_EPOCH, lateness: Duration::ZERO };
        let failure = Failure::new(Reason::HeldOff, Attribution::Target, "192.0.2.1:123 asked to be left alone");
        let record = Facts::new(&check("clock"), "r1", "here").undone(7, timing, failure).whole();
        assert_eq!((record.outcome(), record.reason(), record.attribution()), (Outcome::Skipped, Reason::HeldOff, Attribution::Target));
        assert_eq!((record.run, record.run_count, record.summary.as_str()), (7, 1, "192.0.2.1:123 asked to be left alone"));
        assert!(record.due_time.is_some());
        assert_eq!((record.start_time, record.lateness, record.duration, record.report), (None, None, None, None));
    }

    #[test]
    fn what_is_wrong_with_a_check_is_kept_and_named() {
        let mut wrong = check("web");
        wrong.interval = Some(prost_types::Duration { seconds: 0, nanos: 1 });
        assert_eq!(Facts::new(&wrong, "", "m").plan.err().map(|invalid| invalid.field), Some("interval".into()));
        assert_eq!(Facts::new(&check(""), "", "m").plan.err().map(|invalid| invalid.field), Some("name".into()));
        let none = Check { probe: None, ..check("web") };
        assert_eq!(Facts::new(&none, "", "m").plan.err().map(|invalid| invalid.field), Some("kind".into()));
        let long = Facts::new(&check(&"ü".repeat(100)), "", "m");
        assert_eq!(long.name().len(), 128);
    }

    #[test]
    fn sub_results_say_what_differs_and_leave_out_reports_that_do_not_fit() {
        let sight = |outcome: Outcome, answer: usize| Sight {
            outcome,
            reason: Reason::Unspecified,
            attribution: Attribution::Unspecified,
            summary: "seen".into(),
            address: Some([192, 0, 2, 1].into()),
            duration: Duration::from_millis(2),
            phases: Vec::new(),
            latency: None,
            report: Some(Report::Udp(Box::new(UdpReport { answer: "x".repeat(answer), ..UdpReport::default() }))),
            addresses: Vec::new(),
        };
        let whole = Sight { addresses: vec![sight(Outcome::Passed, 10)], report: None, address: None, ..sight(Outcome::Passed, 0) };
        let now = SystemTime::UNIX_EPOCH;
        let record =
            Facts::new(&check("web"), "r1", "here").ran(0, Timing { due: now, start: now, lateness: Duration::ZERO }, whole).whole();
        let [sub] = &record.address_results[..] else { panic!("{record:?}") };
        assert_eq!((sub.address.as_str(), sub.summary.as_str(), sub.report.is_some()), ("192.0.2.1", "seen", true));
        assert_eq!((sub.check_name.as_str(), sub.kind.as_str(), sub.run_count, sub.start_time), ("", "", 0, None));

        let mut results: Vec<_> = [(Outcome::Failed, 9000), (Outcome::Passed, 1000), (Outcome::Passed, 2000), (Outcome::Passed, 3000)]
            .map(|(outcome, answer)| seen(sight(outcome, answer)))
            .into();
        fit(&mut results, 11_000);
        assert!(results.iter().map(ProbeResult::encoded_len).sum::<usize>() <= 11_000);
        assert_eq!(results.iter().map(|result| result.report.is_some()).collect::<Vec<_>>(), [true, true, false, false]);
        assert!(results[2].summary.contains("left out") && results[1].summary == "seen");
        // What can't be made to fit is left as it is then.
        fit(&mut results, 10);
        assert!(results.iter().all(|result| result.report.is_none()));
    }

    #[test]
    fn an_order_without_an_interval_runs_once_a_minute() {
        let order = Order::place(Start { check: Some(check("web")), ..Start::default() }, "m", Now::read());
        assert_eq!(order.schedule.interval(), DEFAULT_INTERVAL);
        assert!(!order.is_counted_out());
    }
}
