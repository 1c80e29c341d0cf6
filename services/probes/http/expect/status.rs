//! Which statuses are expected.

use std::ops::RangeInclusive;

use http::StatusCode;

use super::bounded;
use crate::failure::Invalid;

/// Any of these. Empty: 200 to 399.
pub(super) struct Statuses(Vec<RangeInclusive<u16>>);

impl Statuses {
    /// Parses codes and ranges.
    pub(super) fn parse(codes: &[u32], ranges: &[String]) -> Result<Self, Invalid> {
        bounded("status", codes.len())?;
        bounded("status_ranges", ranges.len())?;
        let mut all = Vec::with_capacity(codes.len() + ranges.len());
        for (at, code) in codes.iter().enumerate() {
            let code = u16::try_from(*code).ok().filter(is_code);
            let code = code.ok_or_else(|| Invalid::new(format!("expect.status[{at}]"), "must be 100 to 599"))?;
            all.push(code..=code);
        }
        for (at, text) in ranges.iter().enumerate() {
            let wrong = || format!("{text:?} is neither a range (\"200-299\") nor a class (\"2xx\") within 100 to 599");
            all.push(range(text).ok_or_else(|| Invalid::new(format!("expect.status_ranges[{at}]"), wrong()))?);
        }
        Ok(Self(all))
    }

    pub(super) fn judge(&self, status: StatusCode) -> Result<(), String> {
        let code = status.as_u16();
        let fits = if self.0.is_empty() { (200..400).contains(&code) } else { self.0.iter().any(|range| range.contains(&code)) };
        if fits {
            return Ok(());
        }
        let expected = match self.0.as_slice() {
            [] => "200 to 399".to_owned(),
            some => some.iter().map(words).collect::<Vec<_>>().join(" or "),
        };
        Err(format!("{}, expected {expected}", status_line(status)))
    }
}

fn is_code(code: &u16) -> bool {
    (100..=599).contains(code)
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let code = |text: &str| text.parse().ok().filter(|_| text.len() == 3).filter(is_code);
    if let Some((from, to)) = text.split_once('-') {
        let (from, to) = (code(from.trim())?, code(to.trim())?);
        return (from <= to).then_some(from..=to);
    }
    let class = text.strip_suffix("xx").or_else(|| text.strip_suffix("XX"))?;
    let first = code(&format!("{class}00"))?;
    Some(first..=first + 99)
}

fn words(range: &RangeInclusive<u16>) -> String {
    let (from, to) = (range.start(), range.end());
    if from == to { from.to_string() } else { format!("{from} to {to}") }
}

/// A status for people: "404 Not Found".
pub(in crate::http) fn status_line(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("status {} {reason}", status.as_u16()),
        None => format!("status {}", status.as_u16()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passing(codes: &[u32], ranges: &[&str]) -> Vec<u16> {
        let ranges: Vec<_> = ranges.iter().map(|range| (*range).to_owned()).collect();
        let statuses = Statuses::parse(codes, &ranges).unwrap();
        [199, 200, 299, 302, 399, 400, 404, 503]
            .into_iter()
            .filter(|code| statuses.judge(StatusCode::from_u16(*code).unwrap()).is_ok())
            .collect()
    }

    #[test]
    fn the_default_is_any_success_or_redirect() {
        assert_eq!(passing(&[], &[]), [200, 299, 302, 399]);
    }

    #[test]
    fn codes_ranges_and_classes_fit_beside_each_other() {
        assert_eq!(passing(&[404], &[]), [404]);
        assert_eq!(passing(&[404], &["2xx", "300-302"]), [200, 299, 302, 404]);
        assert_eq!(passing(&[], &["400-404", "5XX"]), [400, 404, 503]);
    }

    #[test]
    fn what_is_no_range_of_statuses_is_refused() {
        for wrong in ["", "200", "xx", "0xx", "6xx", "299-200", "99-200", "200-600", "2x", "+20-299", "2xx-3xx"] {
            let invalid = Statuses::parse(&[], &["2xx".to_owned(), wrong.to_owned()]).err().map(|invalid| invalid.field);
            assert_eq!(invalid.as_deref(), Some("expect.status_ranges[1]"), "{wrong}");
        }
    }
}
