//! Durations, sizes and instants as people read them. Machines get JSON.

use jiff::{Timestamp, tz::TimeZone};

/// A duration in two or three digits that matter: "51.2 µs", "71.3 ms", "1.50 s", "2 min 5 s", "3 h 20 min", "4 d 2 h"; with a minus where
/// it is negative.
pub(crate) fn duration(duration: &prost_types::Duration) -> String {
    let nanos = i128::from(duration.seconds) * 1_000_000_000 + i128::from(duration.nanos);
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let (seconds, minutes, hours) = (nanos / 1_000_000_000, nanos / 60_000_000_000, nanos / 3_600_000_000_000);
    let text = match nanos {
        0 => "0 s".to_owned(),
        1..1_000_000 => decimal(nanos, 1_000, "µs"),
        1_000_000..1_000_000_000 => decimal(nanos, 1_000_000, "ms"),
        1_000_000_000..60_000_000_000 => decimal(nanos, 1_000_000_000, "s"),
        60_000_000_000..3_600_000_000_000 => format!("{minutes} min {} s", seconds % 60),
        3_600_000_000_000..86_400_000_000_000 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{} d {} h", hours / 24, hours % 24),
    };
    format!("{sign}{text}")
}

/// Three digits that matter, cut and not rounded, so that 999.9 µs never become 1000 µs.
fn decimal(nanos: u128, unit: u128, name: &str) -> String {
    let (whole, thousandths) = (nanos / unit, nanos % unit * 1000 / unit);
    match whole {
        0..10 => format!("{whole}.{:02} {name}", thousandths / 10),
        10..100 => format!("{whole}.{} {name}", thousandths / 100),
        _ => format!("{whole} {name}"),
    }
}

/// A size in powers of 1024: "512 B", "1.5 KiB", "64.0 MiB".
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let power = (bytes.ilog2() / 10).clamp(1, 4);
    let tenths = (u128::from(bytes) * 10) >> (10 * power);
    let unit = usize::try_from(power - 1).ok().and_then(|index| UNITS.get(index)).unwrap_or(&"TiB");
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// An instant in a time zone: "2026-11-22 08:19:05"; empty where it can't be shown.
pub(crate) fn instant(instant: &prost_types::Timestamp, zone: &TimeZone) -> String {
    Timestamp::new(instant.seconds, instant.nanos)
        .map(|instant| instant.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string())
        .unwrap_or_default()
}

/// The value of an enum as people read it: "REASON_TIMED_OUT" is "timed out".
pub(crate) fn words(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase().replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_digits_that_matter() {
        let shown = |seconds, nanos| duration(&prost_types::Duration { seconds, nanos });
        assert_eq!(shown(0, 0), "0 s");
        assert_eq!(shown(0, 999_999), "999 µs");
        assert_eq!(shown(0, 51_234), "51.2 µs");
        assert_eq!(shown(0, 71_300_000), "71.3 ms");
        assert_eq!(shown(0, 7_130_000), "7.13 ms");
        assert_eq!(shown(1, 500_000_000), "1.50 s");
        assert_eq!(shown(59, 999_000_000), "59.9 s");
        assert_eq!(shown(125, 0), "2 min 5 s");
        assert_eq!(shown(12_000, 0), "3 h 20 min");
        assert_eq!(shown(352_800, 0), "4 d 2 h");
        assert_eq!(shown(0, -10_000_000), "-10.0 ms");
        assert_eq!(shown(-90_000, -5), "-1 d 1 h");
    }

    #[test]
    fn sizes_have_units_and_one_digit_after_the_point() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(64 << 20), "64.0 MiB");
        assert_eq!(bytes(u64::MAX), "16777215.9 TiB");
    }

    #[test]
    fn instants_are_told_in_the_readers_zone() {
        let at = prost_types::Timestamp { seconds: 1_795_335_545, nanos: 0 };
        assert_eq!(instant(&at, &TimeZone::UTC), "2026-11-22 08:19:05");
        assert_eq!(instant(&prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }, &TimeZone::UTC), "");
    }
}
