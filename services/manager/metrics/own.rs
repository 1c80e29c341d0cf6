//! What the manager itself does.

use prometheus_client::registry::Unit;

use super::sheet::{Sheet, labels};
use crate::desk::{Desk, LinkView};

pub(super) fn write(desk: &Desk, links: &[LinkView], sheet: &mut Sheet) {
    let build = labels([("version", env!("CARGO_PKG_VERSION"))]);
    sheet.info("vantage_manager_build", "The manager that tells these figures.", build);
    results(desk, sheet);
    store(desk, sheet);
    for link in links {
        let monitor = labels([("monitor", &link.monitor)]);
        let up = if link.state.connected { 1.0 } else { 0.0 };
        sheet.gauge("vantage_manager_link_up", None, "Whether the link to the monitor, as configured, stands.", monitor.clone(), up);
        let help = "For how long the link has been as it is.";
        sheet.gauge("vantage_manager_link_age", Some(Unit::Seconds), help, monitor.clone(), link.age.as_secs_f64());
        let help = "How often the link came to stand; more than once are reconnects.";
        sheet.counter("vantage_manager_link_connects", help, monitor, link.connected_count);
    }
}

fn results(desk: &Desk, sheet: &mut Sheet) {
    let counts = desk.counts();
    for ((outcome, reason), count) in counts.taken_by_outcome() {
        let labels = labels([("outcome", &outcome), ("reason", &reason)]);
        sheet.counter("vantage_manager_results", "New results that were stored.", labels, count);
    }
    for (event, count) in counts.alerts_by_event() {
        let help = "Alerts: what a check came to be, or what happened to a link.";
        sheet.counter("vantage_manager_alerts", help, labels([("event", event)]), count);
    }
    let plain = [
        ("duplicate_results", &counts.duplicates, "Results that came again and were stored already."),
        ("misnumbered_results", &counts.misnumbered, "Results without monitor, session or sequence; not stored."),
        ("unexpected_results", &counts.unexpected, "Results of checks, revisions or monitors that are not expected; stored, not judged."),
        ("sequence_gaps", &counts.gaps, "Holes in the sequences of results: something was lost."),
        ("missing_sequences", &counts.missing, "Sequences in those holes."),
        ("store_errors", &counts.store_errors, "Batches of results that could not be stored."),
        ("missed_events", &counts.missed_events, "Events that readers of the event stream missed because they were too slow."),
        ("refused_event_readers", &counts.refused_events, "Readers of the event stream that were turned away because there were too many."),
    ];
    for (name, count, help) in plain {
        sheet.counter(&format!("vantage_manager_{name}"), help, Vec::new(), count.get());
    }
}

fn store(desk: &Desk, sheet: &mut Sheet) {
    let usage = desk.usage();
    // Counts as doubles: exact up to 2^53.
    sheet.gauge("vantage_manager_stored_results", None, "Results that can be read back.", Vec::new(), usage.result_count as f64);
    sheet.gauge(
        "vantage_manager_store",
        Some(Unit::Bytes),
        "What the store takes up, as of its last commit.",
        Vec::new(),
        usage.bytes as f64,
    );
    let help = "What the store may take up: then the oldest results make room.";
    sheet.gauge("vantage_manager_store_limit", Some(Unit::Bytes), help, Vec::new(), usage.limit_bytes as f64);
    sheet.gauge("vantage_manager_stored_sessions", None, "Sessions whose end is known.", Vec::new(), usage.session_count as f64);
    sheet.counter(
        "vantage_manager_evicted_results",
        "Results that were removed: too old, or in the way of newer ones.",
        Vec::new(),
        usage.evicted_count,
    );
    let help = "Sessions without results that were forgotten because their monitor had too many.";
    sheet.counter("vantage_manager_forgotten_sessions", help, Vec::new(), usage.forgotten_session_count);
}
