//! Durations as people write them: "250ms", "1m 30s", "1.5s", "2h", "7d", or a bare number of seconds.

use jiff::{SignedDuration, SpanRelativeTo, fmt::friendly::SpanParser};
use prost_types::Duration;

/// The longest duration that the contract can carry, either way: 10,000 years, in seconds (google/protobuf/duration.proto).
const LONGEST: i64 = 315_576_000_000;

/// Longer texts are not durations, whatever they say.
const LONGEST_TEXT: usize = 128;

/// What is wrong with a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// It does not read as numbers with units. Months and years are no durations: they differ in length.
    #[error("is not a duration; write it like \"250ms\", \"1m 30s\", \"2h\" or \"7d\"")]
    Unreadable,
    /// A number in text, without a unit.
    #[error("has no unit; write it like \"250ms\", \"10s\" or \"2h\", or as a bare number of seconds")]
    NoUnit,
    /// Nothing that Vantage is told lasts less than no time.
    #[error("must not be negative")]
    Negative,
    /// Beyond 10,000 years.
    #[error("is longer than 10,000 years")]
    TooLong,
}

/// Reads text with units, in the friendly form of the crate jiff: weeks, days (of 24 hours), hours, minutes, seconds, milli-, micro- and
/// nanoseconds, long or short, with a fraction from hours down. The canonical form of protobuf ("1.5s") is a case of it.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    if text.len() > LONGEST_TEXT {
        return Err(DurationError::Unreadable);
    }
    let text = text.trim();
    if text.parse::<f64>().is_ok() {
        return Err(DurationError::NoUnit);
    }
    let span = SpanParser::new().parse_span(text).map_err(|_| DurationError::Unreadable)?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| DurationError::Unreadable)?;
    checked(duration)
}

/// Reads a number of seconds, as a decimal with or without fraction and exponent. What is finer than a nanosecond is rounded.
pub fn parse_seconds(number: &str) -> Result<Duration, DurationError> {
    let seconds: f64 = number.parse().map_err(|_| DurationError::Unreadable)?;
    if seconds.is_nan() {
        return Err(DurationError::Unreadable);
    }
    if seconds < 0.0 {
        return Err(DurationError::Negative);
    }
    // A decimal of nine places or fewer comes out exact: the whole part has room in a double, and so has the fraction.
    let duration = SignedDuration::try_from_secs_f64(seconds).map_err(|_| DurationError::TooLong)?;
    checked(duration)
}

fn checked(duration: SignedDuration) -> Result<Duration, DurationError> {
    if duration.is_negative() {
        Err(DurationError::Negative)
    } else if duration.as_secs() >= LONGEST {
        Err(DurationError::TooLong)
    } else {
        Ok(Duration { seconds: duration.as_secs(), nanos: duration.subsec_nanos() })
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Duration;

    use super::{DurationError, parse, parse_seconds};

    fn nanos(seconds: i64, nanos: i32) -> Result<Duration, DurationError> {
        Ok(Duration { seconds, nanos })
    }

    #[test]
    fn text_with_units_is_a_duration() {
        for (text, expected) in [
            ("250ms", nanos(0, 250_000_000)),
            ("1m 30s", nanos(90, 0)),
            ("1m30s", nanos(90, 0)),
            ("1.5s", nanos(1, 500_000_000)),
            ("0.071300s", nanos(0, 71_300_000)),
            ("2h", nanos(7200, 0)),
            ("0.5h", nanos(1800, 0)),
            ("7d", nanos(604_800, 0)),
            ("1w", nanos(604_800, 0)),
            ("30 days", nanos(2_592_000, 0)),
            ("90 minutes", nanos(5400, 0)),
            ("100us", nanos(0, 100_000)),
            ("1ns", nanos(0, 1)),
            (" 10s ", nanos(10, 0)),
            ("0s", nanos(0, 0)),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_its_reason() {
        for (text, expected) in [
            ("10", DurationError::NoUnit),
            ("1.5", DurationError::NoUnit),
            ("", DurationError::Unreadable),
            ("soon", DurationError::Unreadable),
            ("10 parsecs", DurationError::Unreadable),
            ("1 month", DurationError::Unreadable),
            ("1y", DurationError::Unreadable),
            ("-1s", DurationError::Negative),
            ("1s ago", DurationError::Negative),
            ("99999999999h", DurationError::Unreadable),
        ] {
            assert_eq!(parse(text), Err(expected), "{text}");
        }
        assert_eq!(parse(&"1s ".repeat(1000)), Err(DurationError::Unreadable));
    }

    #[test]
    fn a_number_is_seconds() {
        assert_eq!(parse_seconds("10"), nanos(10, 0));
        assert_eq!(parse_seconds("0.25"), nanos(0, 250_000_000));
        assert_eq!(parse_seconds("1e-3"), nanos(0, 1_000_000));
        assert_eq!(parse_seconds("0.000000001"), nanos(0, 1));
        assert_eq!(parse_seconds("86400.123"), nanos(86_400, 123_000_000));
        assert_eq!(parse_seconds("-1"), Err(DurationError::Negative));
        assert_eq!(parse_seconds("1e300"), Err(DurationError::TooLong));
        assert_eq!(parse_seconds("1e999"), Err(DurationError::TooLong));
        assert_eq!(parse_seconds("NaN"), Err(DurationError::Unreadable));
    }
}
