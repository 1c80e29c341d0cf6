//! What is expected of the last answer.

mod header;
mod status;

use std::time::{Duration, SystemTime};

use http::response;
use regex::bytes::Regex;
use vantage_contract::v1::{HttpExpectations, HttpPhases, HttpReport, HttpVersion};

use super::{
    exchange::Body,
    json::{self, JsonExpectation, Wrong},
    version,
};
use crate::{
    failure::Invalid,
    pattern,
    stopwatch::{Phase, Stopwatch},
    target,
};
use header::Header;
use status::Statuses;

pub(super) use status::status_line;

const MAX_ENTRIES: usize = 64;
const MAX_EXCERPT: usize = 200;

/// The longest limit of time.
const MAX_LIMIT: Duration = Duration::from_secs(300);

/// The expectations, parsed.
pub(super) struct Expectations {
    statuses: Statuses,
    /// Names of versions. Empty: any.
    versions: Vec<&'static str>,
    headers: Vec<Header>,
    max_last_modified_age: Option<Duration>,
    final_url: Option<regex::Regex>,
    body: Vec<Pattern>,
    json: Vec<JsonExpectation>,
    min_body: u64,
    max_duration: Option<Duration>,
    max_phases: Vec<(Phase, Duration)>,
}

/// Something that the body has, or has not.
struct Pattern {
    /// As the check says it.
    wanted: String,
    regex: Regex,
    is_there: bool,
}

impl Expectations {
    /// Parses them; none given is the default.
    pub(super) fn parse(spec: Option<&HttpExpectations>) -> Result<Self, Invalid> {
        let default = HttpExpectations::default();
        let spec = spec.unwrap_or(&default);
        bounded("headers", spec.headers.len())?;
        bounded("json", spec.json.len())?;
        bounded("versions", spec.versions.len())?;
        if spec.min_body_size_bytes > 64 << 20 {
            return Err(Invalid::new("expect.min_body_size_bytes", format!("must be at most {}", 64 << 20)));
        }
        let final_url = match spec.final_url_matches.as_str() {
            "" => None,
            pattern => Some(compile_text("expect.final_url_matches", pattern)?),
        };
        let years = Duration::from_secs(100 * 366 * 86_400);
        Ok(Self {
            statuses: Statuses::parse(&spec.status, &spec.status_ranges)?,
            versions: spec.versions.iter().enumerate().map(|(at, number)| version_of(at, *number)).collect::<Result<_, _>>()?,
            headers: spec.headers.iter().enumerate().map(|(at, header)| Header::parse(at, header)).collect::<Result<_, _>>()?,
            max_last_modified_age: limit("max_last_modified_age", spec.max_last_modified_age, years)?,
            final_url,
            body: patterns(spec)?,
            json: spec.json.iter().enumerate().map(|(at, json)| JsonExpectation::parse(at, json)).collect::<Result<_, _>>()?,
            min_body: spec.min_body_size_bytes,
            max_duration: limit("max_duration", spec.max_duration, MAX_LIMIT)?,
            max_phases: spec.max_phases.as_ref().map_or(Ok(Vec::new()), limits)?,
        })
    }

    /// Whether the body has to be kept to be judged.
    pub(super) fn wants_body(&self) -> bool {
        !self.body.is_empty() || !self.json.is_empty()
    }

    pub(super) fn judge_status(&self, status: http::StatusCode) -> Result<(), String> {
        self.statuses.judge(status)
    }

    /// Judges all of the head but the status, and where it came from.
    pub(super) fn judge_head(&self, head: &response::Parts, report: &HttpReport, now: SystemTime) -> Result<(), String> {
        if !self.versions.is_empty() && !self.versions.contains(&report.version.as_str()) {
            return Err(format!("the answer is in HTTP/{}, expected {}", report.version, self.versions.join(" or ")));
        }
        match &self.final_url {
            Some(regex) if !regex.is_match(&report.final_url) => return Err(format!("the final URL does not match /{regex}/")),
            _ => {}
        }
        self.headers.iter().try_for_each(|header| header.judge(&head.headers))?;
        let Some(max) = self.max_last_modified_age else { return Ok(()) };
        let modified = report.last_modified_time.and_then(|time| SystemTime::try_from(time).ok());
        let modified = modified.ok_or("there is no Last-Modified that can be read")?;
        // What will be modified in the future is as new as can be.
        let age = now.duration_since(modified).unwrap_or_default();
        if age > max { Err(format!("Last-Modified is {} s ago, at most {} s are allowed", age.as_secs(), max.as_secs())) } else { Ok(()) }
    }

    /// Judges the body; `size` is that of all of it, decoded.
    pub(super) fn judge_body(&self, body: &Body, size: u64) -> Result<(), Wrong> {
        if let (true, Some(why)) = (self.wants_body() || self.min_body > 0, &body.coded) {
            return Err(Wrong::Unexpected(format!("the body can't be judged: it is coded {why}")));
        }
        if size < self.min_body {
            return Err(Wrong::Unexpected(format!("the body has {size} bytes, expected at least {}", self.min_body)));
        }
        for pattern in &self.body {
            match (pattern.is_there, pattern.regex.is_match(&body.bytes)) {
                (true, false) => return Err(Wrong::Unexpected(format!("the body lacks {}", pattern.wanted))),
                (false, true) => return Err(Wrong::Unexpected(format!("the body has {}", pattern.wanted))),
                _ => {}
            }
        }
        json::judge(&self.json, &body.bytes)
    }

    /// Judges how long it took, as a whole and by phases, up to the end of phase `transfer`.
    pub(super) fn judge_times(&self, taken: Duration, watch: &Stopwatch) -> Result<(), String> {
        let too_slow = |what: &str, taken: Duration, max: Duration| Err(format!("{what}took {taken:.1?}, more than {max:?}"));
        match self.max_duration {
            Some(max) if taken > max => return too_slow("", taken, max),
            _ => {}
        }
        let end = watch.started() + taken;
        self.max_phases.iter().try_for_each(|(phase, max)| match watch.total(*phase, end) {
            taken if taken > *max => too_slow(&format!("phase {} ", phase.name()), taken, *max),
            _ => Ok(()),
        })
    }
}

fn patterns(spec: &HttpExpectations) -> Result<Vec<Pattern>, Invalid> {
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
    Ok(body)
}

fn version_of(at: usize, number: i32) -> Result<&'static str, Invalid> {
    match HttpVersion::try_from(number) {
        Ok(HttpVersion::HttpVersion11) => Ok(version::name(http::Version::HTTP_11)),
        Ok(HttpVersion::HttpVersion2) => Ok(version::name(http::Version::HTTP_2)),
        Ok(HttpVersion::HttpVersion3) => Ok(version::name(http::Version::HTTP_3)),
        Ok(HttpVersion::Unspecified) | Err(_) => Err(Invalid::new(format!("expect.versions[{at}]"), "must be 1.1, 2 or 3")),
    }
}

fn limit(field: &str, value: Option<prost_types::Duration>, max: Duration) -> Result<Option<Duration>, Invalid> {
    if value.is_none() {
        return Ok(None);
    }
    target::duration(&format!("expect.{field}"), value, Duration::ZERO, Duration::from_nanos(1)..=max).map(Some)
}

fn limits(spec: &HttpPhases) -> Result<Vec<(Phase, Duration)>, Invalid> {
    let HttpPhases { authenticate, resolve, connect, proxy, tls, send, wait, transfer } = *spec;
    let limits = [
        (Phase::Authenticate, authenticate),
        (Phase::Resolve, resolve),
        (Phase::Connect, connect),
        (Phase::Proxy, proxy),
        (Phase::Tls, tls),
        (Phase::Send, send),
        (Phase::Wait, wait),
        (Phase::Transfer, transfer),
    ];
    let limit = |(phase, value): (Phase, _)| {
        limit(&format!("max_phases.{}", phase.name()), value, MAX_LIMIT).map(|max| max.map(|max| (phase, max)))
    };
    limits.into_iter().filter_map(|limits| limit(limits).transpose()).collect()
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

/// Compiles a regular expression for text.
pub(super) fn compile_text(field: &str, pattern: &str) -> Result<regex::Regex, Invalid> {
    pattern::compile_text(pattern).map_err(|error| Invalid::new(field, error))
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
    use super::*;

    #[test]
    fn text_is_text_and_bodies_need_not_be_unicode() {
        let spec = HttpExpectations { body_contains: vec!["a.c".into()], body_mismatches: vec!["(?i)error".into()], ..Default::default() };
        let expect = Expectations::parse(Some(&spec)).unwrap();
        let judge = |bytes: &[u8]| expect.judge_body(&Body { bytes: bytes.to_vec(), coded: None }, bytes.len() as u64);
        assert_eq!(judge(b"\xffa.c"), Ok(()));
        assert_eq!(judge(b"abc"), Err(Wrong::Unexpected("the body lacks \"a.c\"".into())));
        assert_eq!(judge(b"a.c ERROR"), Err(Wrong::Unexpected("the body has /(?i)error/".into())));
    }

    #[test]
    fn an_excerpt_is_short_and_harmless() {
        let (head, ()) = http::Response::builder().status(404).body(()).unwrap().into_parts();
        assert_eq!(excerpt(&head, b""), "Not Found");
        assert_eq!(excerpt(&head, b"\r\n  \x1b[31mno\n<html>"), "\u{fffd}[31mno");
        assert!(excerpt(&head, "ü".repeat(300).as_bytes()).len() <= 200);
    }
}
