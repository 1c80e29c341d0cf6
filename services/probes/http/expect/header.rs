//! What is expected of a header.

use http::{HeaderMap, HeaderName};
use regex::bytes::Regex;
use vantage_contract::v1::HttpHeaderExpectation;

use super::compile;
use crate::failure::Invalid;

pub(super) struct Header {
    name: HeaderName,
    /// None: any value.
    matches: Option<Regex>,
    absent: bool,
}

impl Header {
    pub(super) fn parse(at: usize, spec: &HttpHeaderExpectation) -> Result<Self, Invalid> {
        let field = |name: &str| format!("expect.headers[{at}].{name}");
        let name = HeaderName::try_from(spec.name.as_str())
            .map_err(|_| Invalid::new(field("name"), format!("{:?} is not the name of a header", spec.name)))?;
        let matches = match spec.matches.as_str() {
            "" => None,
            pattern => Some(compile(&field("matches"), pattern)?),
        };
        Ok(Self { name, matches, absent: spec.absent })
    }

    /// Any of the repeated ones counts; a header with an empty value is there.
    pub(super) fn judge(&self, headers: &HeaderMap) -> Result<(), String> {
        let mut values = headers.get_all(&self.name).iter();
        let name = self.name.as_str();
        match (&self.matches, self.absent) {
            (None, false) => values.next().map(|_| ()).ok_or_else(|| format!("the header {name} is not there")),
            (None, true) => values.next().map_or(Ok(()), |_| Err(format!("the header {name} is there"))),
            (Some(regex), absent) => match (values.any(|value| regex.is_match(value.as_bytes())), absent) {
                (false, false) => Err(format!("no header {name} matches /{regex}/")),
                (true, true) => Err(format!("the header {name} matches /{regex}/")),
                _ => Ok(()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn header(matches: &str, absent: bool, values: &[&'static str]) -> bool {
        let spec = HttpHeaderExpectation { name: "X-Thing".into(), matches: matches.into(), absent };
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("x-thing", HeaderValue::from_static(value));
        }
        Header::parse(0, &spec).unwrap().judge(&headers).is_ok()
    }

    #[test]
    fn absent_is_not_empty_and_any_of_the_repeated_ones_counts() {
        assert!(header("", false, &[""]));
        assert!(!header("", false, &[]));
        assert!(header("", true, &[]));
        assert!(!header("", true, &[""]));
        assert!(header("^b$", false, &["a", "b"]));
        assert!(!header("^b$", false, &["a", "c"]));
        assert!(!header("^b$", false, &[]));
        assert!(header("^b$", true, &["a"]));
        assert!(header("^b$", true, &[]));
        assert!(!header("^b$", true, &["a", "b"]));
    }
}
