//! What can be asked for, and what is refused.

use vantage_contract::v1::{HttpExpectations, HttpHeaderExpectation};

use super::*;

fn parse(kind: &str, spec: HttpProbe) -> Result<Http, Invalid> {
    let options = Options::parse(&vantage_contract::v1::Probe::default(), Duration::from_secs(5))?;
    Http::parse_as(kind, &spec, &options)
}

fn url(kind: &str, url: &str) -> Result<String, String> {
    parse(kind, HttpProbe { url: url.into(), ..HttpProbe::default() }).map(|http| http.target()).map_err(|invalid| invalid.to_string())
}

#[test]
fn a_url_without_a_scheme_has_the_kinds_own() {
    assert_eq!(url("http", "example.com"), Ok("http://example.com/".into()));
    assert_eq!(url("https", "example.com:8443/a?b#c"), Ok("https://example.com:8443/a?b".into()));
    assert_eq!(url("http", "[::1]:8080"), Ok("http://[::1]:8080/".into()));
    assert_eq!(url("http", "http://EXAMPLE.com:80/"), Ok("http://example.com/".into()));
}

#[test]
fn credentials_are_never_part_of_the_target() {
    assert_eq!(url("http", "http://joe:secret@example.com/x"), Ok("http://example.com/x".into()));
}

#[test]
fn a_url_of_another_scheme_or_of_none_at_all_is_refused() {
    assert!(url("http", "https://example.com/").unwrap_err().contains("must begin with http://"));
    assert!(url("https", "ftp://example.com/").unwrap_err().contains("must begin with https://"));
    for wrong in ["", "http://", "http://a b/", "http://example.com:99999/", "http://x\n/", &format!("http://a/{}", "b".repeat(8192))] {
        let error = url("http", wrong).unwrap_err();
        assert!(error.starts_with("url: "), "{error}");
    }
}

#[test]
fn what_cannot_be_sent_or_expected_is_refused_by_field() {
    let field = |spec: HttpProbe| parse("http", HttpProbe { url: "a".into(), ..spec }).err().map(|invalid| invalid.field);
    let headers = |name: &str, value: &str| HttpProbe { headers: [(name.into(), value.into())].into(), ..HttpProbe::default() };
    let expect = |expect: HttpExpectations| HttpProbe { expect: Some(expect), ..HttpProbe::default() };
    assert_eq!(field(HttpProbe { method: "get".into(), ..HttpProbe::default() }).as_deref(), Some("method"));
    assert_eq!(field(HttpProbe { method: "CONNECT".into(), ..HttpProbe::default() }).as_deref(), Some("method"));
    assert_eq!(field(HttpProbe { method: "a b".into(), ..HttpProbe::default() }).as_deref(), Some("method"));
    assert_eq!(field(headers("a b", "c")).as_deref(), Some("headers"));
    assert_eq!(field(headers("a", "b\r\nc: d")).as_deref(), Some("headers"));
    assert_eq!(field(headers("Content-Length", "5")).as_deref(), Some("headers"));
    assert_eq!(field(headers("Host", "user@example.com")).as_deref(), Some("headers"));
    assert_eq!(field(headers("Host", "example.com")), None);
    assert_eq!(field(HttpProbe { body: "x".repeat((1 << 20) + 1), ..HttpProbe::default() }).as_deref(), Some("body"));
    assert_eq!(field(HttpProbe { max_redirects: Some(21), ..HttpProbe::default() }).as_deref(), Some("max_redirects"));
    assert_eq!(field(HttpProbe { version: 3, ..HttpProbe::default() }).as_deref(), Some("version"));
    assert_eq!(field(HttpProbe { max_body_size_bytes: (64 << 20) + 1, ..HttpProbe::default() }).as_deref(), Some("max_body_size_bytes"));
    assert_eq!(field(expect(HttpExpectations { status: vec![200, 99], ..Default::default() })).as_deref(), Some("expect.status[1]"));
    assert_eq!(
        field(expect(HttpExpectations { body_matches: vec!["(".into()], ..Default::default() })).as_deref(),
        Some("expect.body_matches[0]")
    );
    assert_eq!(
        field(expect(HttpExpectations { body_lacks: vec![String::new()], ..Default::default() })).as_deref(),
        Some("expect.body_lacks[0]")
    );
    let header = HttpHeaderExpectation { name: "a b".into(), ..Default::default() };
    assert_eq!(field(expect(HttpExpectations { headers: vec![header], ..Default::default() })).as_deref(), Some("expect.headers[0].name"));
}
