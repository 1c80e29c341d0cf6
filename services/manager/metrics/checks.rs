//! What is known of each check.

use std::collections::BTreeMap;

use prometheus_client::registry::Unit;
use vantage_contract::v1::{Outcome, ProbeResult};

use super::{
    reports,
    sheet::{Labels, Sheet, labels, with},
};
use crate::{
    desk::{CheckView, LineView},
    state::State,
    words,
};

/// The longest text in a label, in characters; longer ones are cut.
const LABEL_LENGTH: usize = 256;
/// The most phases of one result that get a series; the contract has six.
const PHASES: usize = 16;

pub(super) fn write(view: &CheckView, sheet: &mut Sheet) {
    let (check, kind) = (view.check.name.as_str(), view.kind.as_str());
    let common = labels([("check", check), ("kind", kind)]);

    let target: String = view.lines.first().map(|line| line.last.target.chars().take(LABEL_LENGTH).collect()).unwrap_or_default();
    let own = view.check.labels.iter().map(|(name, value)| (format!("label_{name}"), value.clone()));
    let info = with(&common, [("target", &target)]);
    sheet.info("vantage_check", "The check, its target, and its own labels as label_*.", info.into_iter().chain(own).collect());

    for state in State::ALL {
        let value = if state == view.state { 1.0 } else { 0.0 };
        let help = "The judgement over all monitors: 1 for the state it is in, 0 for the others.";
        sheet.gauge("vantage_check_state", None, help, with(&common, [("state", state.word())]), value);
    }
    for line in &view.lines {
        let common = labels([("check", check), ("monitor", &line.monitor), ("kind", kind)]);
        write_line(line, &common, sheet);
        write_last(&line.last, &common, sheet);
        reports::write(&line.last, &common, sheet);
    }
}

fn write_line(line: &LineView, common: &Labels, sheet: &mut Sheet) {
    let fresh = if line.fresh { 1.0 } else { 0.0 };
    let help = "Whether what the monitor last said counts now; 0 where it is too old, or never said passed or failed.";
    sheet.gauge("vantage_check_fresh", None, help, common.clone(), fresh);
    let help = "How long ago the newest result arrived here.";
    sheet.gauge("vantage_check_result_age", Some(Unit::Seconds), help, common.clone(), line.age.as_secs_f64());
    for ((outcome, reason), count) in &line.totals {
        let help = "Runs accounted for, by outcome and reason; skipped ones too.";
        sheet.counter("vantage_check_runs", help, with(common, [("outcome", outcome), ("reason", reason)]), *count);
    }
}

fn write_last(last: &ProbeResult, common: &Labels, sheet: &mut Sheet) {
    let outcome_now = words::outcome(last.outcome);
    for outcome in [Outcome::Passed, Outcome::Failed, Outcome::Undetermined, Outcome::Skipped] {
        let word = words::outcome(outcome.into());
        let value = if word == outcome_now { 1.0 } else { 0.0 };
        let help = "The newest result: 1 for its outcome, 0 for the others.";
        sheet.gauge("vantage_check_outcome", None, help, with(common, [("outcome", &word)]), value);
    }
    let durations = [
        ("vantage_check_latency", last.latency, "The one number that stands for the newest probe."),
        ("vantage_check_duration", last.duration, "How long the newest probe took from start to end."),
        ("vantage_check_lateness", last.lateness, "How late the newest probe started, by our own fault."),
    ];
    for (name, duration, help) in durations {
        if let Some(duration) = duration {
            sheet.gauge(name, Some(Unit::Seconds), help, common.clone(), seconds(duration.seconds, duration.nanos));
        }
    }
    if let Some(time) = last.start_time.or(last.due_time) {
        let help = "When the newest probe started, or was due where it did not run, on the monitor's clock.";
        sheet.gauge("vantage_check_last_timestamp", Some(Unit::Seconds), help, common.clone(), seconds(time.seconds, time.nanos));
    }
    // Counts, and no series for each address: names change theirs as they like.
    if !last.address_results.is_empty() {
        for outcome in [Outcome::Passed, Outcome::Failed, Outcome::Undetermined] {
            let count = last.address_results.iter().filter(|result| result.outcome == i32::from(outcome)).count();
            let help = "How many of the addresses of the target's name had this outcome in the newest result that probed them all.";
            let labels = with(common, [("outcome", &words::outcome(outcome.into()))]);
            sheet.gauge("vantage_check_addresses", None, help, labels, count as f64);
        }
    }
    let mut phases = BTreeMap::new();
    for phase in last.phases.iter().filter(|phase| is_label_like(&phase.name)) {
        if phases.len() < PHASES || phases.contains_key(phase.name.as_str()) {
            let duration = phase.duration.unwrap_or_default();
            *phases.entry(phase.name.as_str()).or_insert(0.0) += seconds(duration.seconds, duration.nanos);
        }
    }
    for (phase, sum) in phases {
        let help = "What the time of the newest probe went into; a phase that came more than once is summed up.";
        sheet.gauge("vantage_check_phase", Some(Unit::Seconds), help, with(common, [("phase", phase)]), sum);
    }
}

/// A phase's name comes from a monitor: only what looks like one becomes a label.
fn is_label_like(name: &str) -> bool {
    (1..=32).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Seconds and nanoseconds as one number.
pub(super) fn seconds(seconds: i64, nanos: i32) -> f64 {
    seconds as f64 + f64::from(nanos) / 1e9
}
