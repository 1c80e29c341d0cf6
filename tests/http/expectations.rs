//! What is expected of answers besides status, headers and texts in the body.

use std::time::Duration;

use vantage_contract::v1::{HttpExpectations, HttpPhases, HttpProbe, HttpVersion, Outcome, Reason, probe::Kind};

use super::{ask, asking, expecting, passed};
use crate::lab::{
    http::{Server, ok, read_request, redirect},
    probe::{Verdict as _, invalid, probe},
};

/// Whether an answer is as expected.
async fn holds(server: &Server, expect: HttpExpectations) -> bool {
    let sight = ask(expecting(server, expect)).await;
    assert!(matches!(sight.reason, Reason::Unspecified | Reason::UnexpectedAnswer), "{sight:?}");
    sight.outcome == Outcome::Passed
}

fn duration(millis: u64) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(Duration::from_millis(millis)).ok()
}

#[tokio::test]
async fn statuses_are_expected_by_range_and_by_class() {
    let server = Server::answering("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
    let ranges = |status: &[u32], ranges: &[&str]| HttpExpectations {
        status: status.to_vec(),
        status_ranges: ranges.iter().map(|range| (*range).to_owned()).collect(),
        ..HttpExpectations::default()
    };
    for (expect, expected) in [
        (ranges(&[], &["4xx"]), true),
        (ranges(&[], &["400-404"]), true),
        (ranges(&[200], &["5xx", "404-410"]), true),
        (ranges(&[404], &["2xx"]), true),
        (ranges(&[], &["2xx", "405-499"]), false),
        (ranges(&[200], &["3xx"]), false),
    ] {
        assert_eq!(holds(&server, expect.clone()).await, expected, "{expect:?}");
    }
    assert_eq!(invalid(&probe(Kind::Http(expecting(&server, ranges(&[], &["4xx", "600-700"]))))), "http.expect.status_ranges[1]");
}

#[tokio::test]
async fn the_version_spoken_is_expected() {
    let versions = |all: &[HttpVersion]| HttpExpectations {
        versions: all.iter().map(|version| i32::from(*version)).collect(),
        ..HttpExpectations::default()
    };
    let server = Server::answering(ok("")).await;
    assert!(holds(&server, versions(&[HttpVersion::HttpVersion11])).await);
    assert!(holds(&server, versions(&[HttpVersion::HttpVersion2, HttpVersion::HttpVersion11])).await);
    assert!(!holds(&server, versions(&[HttpVersion::HttpVersion2, HttpVersion::HttpVersion3])).await);
    let old = Server::answering("HTTP/1.0 200 OK\r\n\r\n").await;
    assert!(!holds(&old, versions(&[HttpVersion::HttpVersion11])).await);
    assert_eq!(invalid(&probe(Kind::Http(expecting(&old, versions(&[HttpVersion::Unspecified]))))), "http.expect.versions[0]");
}

#[tokio::test]
async fn a_body_has_at_least_so_many_bytes() {
    let server = Server::answering(ok("12345")).await;
    let min = |min_body_size_bytes| HttpExpectations { min_body_size_bytes, ..HttpExpectations::default() };
    assert!(holds(&server, min(5)).await);
    assert!(!holds(&server, min(6)).await);
    assert_eq!(invalid(&probe(Kind::Http(expecting(&server, min(65 << 20))))), "http.expect.min_body_size_bytes");
}

#[tokio::test]
async fn a_phase_that_takes_too_long_is_named() {
    use tokio::io::AsyncWriteExt as _;
    let slow = Server::start(|mut stream, number| async move {
        read_request(&mut stream).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        let answer = if number % 2 == 0 { redirect(302, "/") } else { ok("") };
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let within = |max_phases| expecting(&slow, HttpExpectations { max_phases: Some(max_phases), ..HttpExpectations::default() });
    let sight = ask(within(HttpPhases { wait: duration(29), transfer: duration(20_000), ..HttpPhases::default() })).await;
    assert!(sight.summary.contains("phase wait took"), "{}", sight.summary);
    sight.because(Reason::TooSlow);
    // 30 ms and 30 ms: all occurrences of a phase count together.
    ask(within(HttpPhases { wait: duration(59), ..HttpPhases::default() })).await.because(Reason::TooSlow);
    passed(ask(within(HttpPhases { wait: duration(20_000), tls: duration(1), proxy: duration(1), ..HttpPhases::default() })).await);
    assert_eq!(invalid(&probe(Kind::Http(within(HttpPhases { tls: duration(0), ..HttpPhases::default() })))), "http.expect.max_phases.tls");
}

#[tokio::test]
async fn what_was_modified_too_long_ago_or_at_no_known_time_is_not_expected() {
    let modified = |value: &str| format!("HTTP/1.1 200 OK\r\n{value}Content-Length: 0\r\n\r\n");
    let max = |seconds: u64| HttpExpectations { max_last_modified_age: duration(seconds * 1000), ..HttpExpectations::default() };
    // Sun, 06 Nov 1994 08:49:37 GMT in the three forms of RFC 9110 section 5.6.7.
    for form in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
        let server = Server::answering(modified(&format!("Last-Modified: {form}\r\n"))).await;
        assert_eq!(passed(ask(asking(&server)).await).last_modified_time.map(|time| time.seconds), Some(784_111_777), "{form}");
        assert!(holds(&server, max(3_000_000_000)).await);
        assert!(!holds(&server, max(100_000_000)).await);
    }
    for none in ["", "Last-Modified: yesterday\r\n"] {
        let server = Server::answering(modified(none)).await;
        assert_eq!(passed(ask(asking(&server)).await).last_modified_time, None);
        assert!(!holds(&server, max(3_000_000_000)).await);
    }
    // A clock that is ahead of ours makes nothing old.
    let ahead = Server::answering(modified("Last-Modified: Fri, 01 Jan 2100 00:00:00 GMT\r\n")).await;
    assert!(holds(&ahead, max(1)).await);
}

#[tokio::test]
async fn the_final_url_matches() {
    let (server, _) =
        Server::scripted(|request, _| if request.starts_with("GET /login ") { ok("") } else { redirect(302, "/login") }).await;
    let matches = |pattern: &str| HttpExpectations { final_url_matches: pattern.into(), ..HttpExpectations::default() };
    assert!(holds(&server, matches("/login$")).await);
    assert!(!holds(&server, matches("^https:")).await);
    assert_eq!(invalid(&probe(Kind::Http(expecting(&server, matches("("))))), "http.expect.final_url_matches");
    let followed = HttpProbe { max_redirects: Some(0), ..expecting(&server, matches("/login$")) };
    ask(followed).await.because(Reason::UnexpectedAnswer);
}
