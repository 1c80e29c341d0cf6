//! What is expected of the last answer.

use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode, response};
use regex::bytes::Regex;
use vantage_contract::v1::{HttpExpectations, HttpHeaderExpectation};

use crate::{failure::Invalid, pattern, target};

const MAX_ENTRIES: usize = 64;
const MAX_EXCERPT: usize = 200;

/// The expectations, parsed.
pub(super) struct Expectations {
    /// Empty: 200 to 399.
    status: Vec<u16>,
    body: Vec<Pattern>,
    headers: Vec<Header>,
    max_duration: Option<Duration>,
}

/// Something that the body has, or has not.
struct Pattern {
    /// As the check says it.
    wanted: String,
    regex: Regex,
    is_there: bool,
}

struct Header {
    name: HeaderName,
    /// None: any value.
    matches: Option<Regex>,
    absent: bool,
}

impl Expectations {
    /// Parses them; none given is the default.
    pub(super) fn parse(spec: Option<&HttpExpectations>) -> Result<Self, Invalid> {
        let default = HttpExpectations::default();
        let spec = spec.unwrap_or(&default);
        let mut status = Vec::with_capacity(spec.status.len());
        for (at, code) in spec.status.iter().enumerate() {
            let code = u16::try_from(*code).ok().filter(|code| (100..=599).contains(code));
            status.push(code.ok_or_else(|| Invalid::new(format!("expect.status[{at}]"), "must be 100 to 599"))?);
        }
        let mut body = Vec::new();
        for (field, patterns, is_text, is_there) in [
            ("body_contains", &spec.body_contains, true, true),
            ("body_lacks", &spec.body_lacks, true, false),
            ("body_matches", &spec.body_matches, false, true),
            ("body_mismatches", &spec.body_mismatches, false, false),
        ] {
            bounded(field, patterns.len())?;
            for (at, pattern) in patterns.iter().enumerate() {
                let field = format!("expect.{field}[{at}]");
                if pattern.is_empty() {
                    return Err(Invalid::new(field, "is empty"));
                }
                let (wanted, regex) =
                    if is_text { (format!("{pattern:?}"), regex::escape(pattern)) } else { (format!("/{pattern}/"), pattern.clone()) };
                body.push(Pattern { wanted, regex: compile(&field, &regex)?, is_there });
            }
        }
        bounded("headers", spec.headers.len())?;
        let headers = spec.headers.iter().enumerate().map(|(at, header)| Header::parse(at, header)).collect::<Result<_, _>>()?;
        let max_duration = match spec.max_duration {
            None => None,
            some => {
                let range = Duration::from_nanos(1)..=Duration::from_secs(300);
                Some(target::duration("expect.max_duration", some, Duration::ZERO, range)?)
            }
        };
        Ok(Self { status, body, headers, max_duration })
    }

    /// Whether the body has to be kept to be judged.
    pub(super) fn wants_body(&self) -> bool {
        !self.body.is_empty()
    }

    pub(super) fn judge_status(&self, status: StatusCode) -> Result<(), String> {
        let code = status.as_u16();
        let expected = match self.status.as_slice() {
            [] if (200..400).contains(&code) => return Ok(()),
            [] => "200 to 399".to_owned(),
            some if some.contains(&code) => return Ok(()),
            some => some.iter().map(u16::to_string).collect::<Vec<_>>().join(" or "),
        };
        Err(format!("{}, expected {expected}", status_line(status)))
    }

    pub(super) fn judge_headers(&self, headers: &HeaderMap) -> Result<(), String> {
        self.headers.iter().try_for_each(|header| header.judge(headers))
    }

    pub(super) fn judge_body(&self, body: &[u8]) -> Result<(), String> {
        self.body.iter().try_for_each(|pattern| match (pattern.is_there, pattern.regex.is_match(body)) {
            (true, false) => Err(format!("the body lacks {}", pattern.wanted)),
            (false, true) => Err(format!("the body has {}", pattern.wanted)),
            _ => Ok(()),
        })
    }

    pub(super) fn judge_duration(&self, taken: Duration) -> Result<(), String> {
        match self.max_duration {
            Some(max) if taken > max => Err(format!("took {taken:.1?}, more than {max:?}")),
            _ => Ok(()),
        }
    }
}

impl Header {
    fn parse(at: usize, spec: &HttpHeaderExpectation) -> Result<Self, Invalid> {
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
    fn judge(&self, headers: &HeaderMap) -> Result<(), String> {
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

fn bounded(field: &str, count: usize) -> Result<(), Invalid> {
    if count <= MAX_ENTRIES {
        Ok(())
    } else {
        Err(Invalid::new(format!("expect.{field}"), format!("must be at most {MAX_ENTRIES}, are {count}")))
    }
}

fn compile(field: &str, pattern: &str) -> Result<Regex, Invalid> {
    pattern::compile(pattern).map_err(|error| Invalid::new(field, error))
}

/// A status for people: "404 Not Found".
pub(super) fn status_line(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("status {} {reason}", status.as_u16()),
        None => format!("status {}", status.as_u16()),
    }
}

/// The first line of the body that says something, or the reason phrase.
pub(super) fn excerpt(head: &response::Parts, body: &[u8]) -> String {
    let first = body.split(|byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii).find(|line| !line.is_empty());
    let phrase = head.extensions.get::<hyper::ext::ReasonPhrase>().map(|phrase| phrase.as_bytes());
    let line = first.or(phrase).unwrap_or_else(|| head.status.canonical_reason().unwrap_or_default().as_bytes());
    let line = line.get(..line.len().min(MAX_EXCERPT)).unwrap_or_default();
    let mut text: String =
        String::from_utf8_lossy(line).chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect();
    text.truncate(text.floor_char_boundary(MAX_EXCERPT));
    text
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

    #[test]
    fn the_default_is_any_success_or_redirect() {
        let default = Expectations::parse(None).unwrap();
        let passes = |code| default.judge_status(StatusCode::from_u16(code).unwrap()).is_ok();
        assert_eq!([199, 200, 299, 302, 399, 400, 503].map(passes), [false, true, true, true, true, false, false]);
    }

    #[test]
    fn text_is_text_and_bodies_need_not_be_unicode() {
        let spec = HttpExpectations { body_contains: vec!["a.c".into()], body_mismatches: vec!["(?i)error".into()], ..Default::default() };
        let expect = Expectations::parse(Some(&spec)).unwrap();
        assert_eq!(expect.judge_body(b"\xffa.c"), Ok(()));
        assert_eq!(expect.judge_body(b"abc"), Err("the body lacks \"a.c\"".into()));
        assert_eq!(expect.judge_body(b"a.c ERROR"), Err("the body has /(?i)error/".into()));
    }

    #[test]
    fn an_excerpt_is_short_and_harmless() {
        let (head, ()) = http::Response::builder().status(404).body(()).unwrap().into_parts();
        assert_eq!(excerpt(&head, b""), "Not Found");
        assert_eq!(excerpt(&head, b"\r\n  \x1b[31mno\n<html>"), "\u{fffd}[31mno");
        assert!(excerpt(&head, "ü".repeat(300).as_bytes()).len() <= 200);
    }
}
