//! The newest results of one line as a strip of bars: height is latency, colour is outcome. An SVG that loads nothing.

use std::{sync::Arc, time::Duration};

use vantage_contract::v1::ProbeResult;

use super::{html::Html, words::plural};
use crate::words;

/// The most bars.
pub(super) const LENGTH: usize = 40;
/// The width of a bar with its gap, in units of the drawing.
const STEP: usize = 4;
/// The height of the tallest bar.
const HEIGHT: u64 = 24;

/// Draws; `history` is newest first, the strip is newest last.
pub(super) fn draw(html: &mut Html, history: &[Arc<ProbeResult>]) {
    let latency = |result: &ProbeResult| result.latency.and_then(|latency| Duration::try_from(latency).ok());
    let tallest = history.iter().filter_map(|result| latency(result)).max().unwrap_or_default().as_nanos().max(1);
    html.markup("<svg class=\"strip\" viewBox=\"0 0 160 24\" width=\"160\" height=\"24\" role=\"img\" aria-label=\"")
        .text(&label(history))
        .markup("\">");
    for (back, result) in history.iter().take(LENGTH).enumerate() {
        let outcome = words::outcome(result.outcome);
        let height = match (outcome.as_str(), latency(result)) {
            ("passed", Some(latency)) => 3 + share(latency.as_nanos(), tallest, HEIGHT - 3),
            ("passed" | "undetermined", _) => HEIGHT / 2,
            ("failed", _) => HEIGHT,
            _ => 3,
        };
        html.markup("<rect class=\"").text(&outcome).markup("\" width=\"3\" x=\"").text(&((LENGTH - 1 - back) * STEP).to_string());
        html.markup("\" y=\"").text(&(HEIGHT - height).to_string()).markup("\" height=\"").text(&height.to_string()).markup("\"/>");
    }
    html.markup("</svg>");
}

/// `part / whole` of `of`. A `whole` of 0 counts as 1.
fn share(part: u128, whole: u128, of: u64) -> u64 {
    u64::try_from(part.saturating_mul(u128::from(of)) / whole.max(1)).unwrap_or(of).min(of)
}

/// What the strip says, for those who don't see it.
fn label(history: &[Arc<ProbeResult>]) -> String {
    let passed = history.iter().filter(|result| words::outcome(result.outcome) == "passed").count();
    format!("{passed} of {} passed", plural(history.len() as u64, "recent result"))
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn a_share_is_never_more_than_the_whole() {
        assert_eq!(share(1, 2, 20), 10);
        assert_eq!(share(5, 2, 20), 20);
        assert_eq!(share(u128::MAX, 0, 20), 20);
    }
}
