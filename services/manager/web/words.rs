//! Numbers as people say them.

use std::time::Duration;

/// A duration to three digits: "412 µs", "71.3 ms", "1.23 s".
pub(super) fn precise(duration: Duration) -> String {
    let (value, unit) = match duration.as_secs_f64() {
        seconds if seconds < 0.000_999_5 => (seconds * 1e6, "µs"),
        seconds if seconds < 0.999_5 => (seconds * 1e3, "ms"),
        seconds => (seconds, "s"),
    };
    let decimals = match value {
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

/// An age in its largest unit: "12 s", "3 min", "5 h", "2 d".
pub(super) fn age(age: Duration) -> String {
    match age.as_secs() {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds if seconds < 2 * 3600 => format!("{} min", seconds / 60),
        seconds if seconds < 2 * 86_400 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// "1 result", "2 results".
pub(super) fn plural(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits_and_a_fitting_unit() {
        for (nanos, text) in [
            (412_000, "412 µs"),
            (999_900, "1.00 ms"),
            (71_300_000, "71.3 ms"),
            (9_996_000, "10.0 ms"),
            (999_600_000, "1.00 s"),
            (1_234_000_000, "1.23 s"),
            (0, "0.00 µs"),
        ] {
            assert_eq!(precise(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn ages_change_their_unit_late_enough_to_mean_something() {
        for (seconds, text) in [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (200_000, "2 d")] {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
    }
}
