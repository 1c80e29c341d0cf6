//! Telling: one structured log line for each alert, `warn` for the worse and `info` for the better.

use super::{Alert, CheckAlert};
use crate::state::State;

/// Tells.
pub fn tell(alert: &Alert) {
    match alert {
        Alert::Check(alert) => tell_check(alert),
        Alert::Link { monitor, connected: true, .. } => tracing::info!(alert = "link", monitor, "the link to the monitor stands again"),
        Alert::Link { monitor, connected: false, error } => tracing::warn!(alert = "link", monitor, error, "no link to the monitor"),
    }
}

fn tell_check(alert: &CheckAlert) {
    let CheckAlert { check, kind, target, from, to, failing_count, determined_count, monitor, reason, summary } = alert;
    // Not `target`: that is the name of tracing's own field, and one JSON object would have it twice.
    let probed = target;
    let (was, state) = (from.map_or("", State::word), to.word());
    // The levels of tracing are constants, so the line is written twice.
    if *to == State::Up {
        tracing::info!(
            alert = "check",
            check,
            kind,
            probed,
            state,
            was,
            failing_count,
            determined_count,
            monitor,
            summary,
            "the check is {state} again"
        );
    } else {
        tracing::warn!(
            alert = "check",
            check,
            kind,
            probed,
            state,
            was,
            failing_count,
            determined_count,
            monitor,
            reason,
            summary,
            "the check is {state}"
        );
    }
}
