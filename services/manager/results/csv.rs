//! Comma-separated values (RFC 4180): what results of all kinds have in common.

use jiff::Timestamp;
use vantage_contract::v1::ProbeResult;

use crate::words;

/// The columns. Only ever added to, at the end: programs read them by place.
const COLUMNS: [&str; 19] = [
    "due_time",
    "start_time",
    "check_name",
    "monitor",
    "kind",
    "target",
    "outcome",
    "reason",
    "attribution",
    "run",
    "run_count",
    "latency_seconds",
    "duration_seconds",
    "lateness_seconds",
    "address",
    "revision",
    "session",
    "sequence",
    "summary",
];

/// The first line.
pub(super) fn header() -> String {
    format!("{}\r\n", COLUMNS.join(","))
}

/// The line of a result. What is unset is empty.
pub(super) fn line(result: &ProbeResult) -> String {
    let fields: [String; COLUMNS.len()] = [
        time(result.due_time),
        time(result.start_time),
        result.check_name.clone(),
        result.monitor.clone(),
        result.kind.clone(),
        result.target.clone(),
        words::outcome(result.outcome),
        words::reason(result.reason),
        words::attribution(result.attribution),
        result.run.to_string(),
        result.run_count.to_string(),
        length(result.latency),
        length(result.duration),
        length(result.lateness),
        result.address.clone(),
        result.revision.clone(),
        result.session.clone(),
        result.sequence.to_string(),
        result.summary.clone(),
    ];
    format!("{}\r\n", fields.map(quoted).join(","))
}

/// In quotes where it has to be, with quotes inside doubled.
fn quoted(field: String) -> String {
    if field.contains(['"', ',', '\r', '\n']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
}

fn time(time: Option<prost_types::Timestamp>) -> String {
    let time = time.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok());
    time.map(|time| time.to_string()).unwrap_or_default()
}

/// Seconds with all of their nanoseconds.
fn length(duration: Option<prost_types::Duration>) -> String {
    let exact = |duration: prost_types::Duration| {
        let sign = if duration.seconds < 0 || duration.nanos < 0 { "-" } else { "" };
        format!("{sign}{}.{:09}", duration.seconds.unsigned_abs(), duration.nanos.unsigned_abs())
    };
    duration.map(exact).unwrap_or_default()
}
