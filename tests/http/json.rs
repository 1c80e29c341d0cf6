//! Bodies as JSON.

use prost_types::{Value, value::Kind as ValueKind};
use vantage_contract::v1::{HttpExpectations, HttpJsonExpectation, HttpProbe, Outcome, Reason, probe::Kind};

use super::{ask, asking, expecting, passed};
use crate::lab::{
    http::{Server, coded, ok},
    probe::{Verdict as _, invalid, probe},
};

fn json(spec: HttpJsonExpectation) -> HttpExpectations {
    HttpExpectations { json: vec![spec], ..HttpExpectations::default() }
}

fn path(path: &str) -> HttpJsonExpectation {
    HttpJsonExpectation { path: path.into(), ..HttpJsonExpectation::default() }
}

fn text(text: &str) -> Option<Value> {
    Some(Value { kind: Some(ValueKind::StringValue(text.into())) })
}

#[tokio::test]
async fn values_in_a_json_body_are_expected_by_path() {
    let server = Server::answering(ok(r#"{"status": "ok", "nodes": [{"name": "a", "up": true}, {"name": "b", "up": false}]}"#)).await;
    for (expectation, holds) in [
        (HttpJsonExpectation { equals: text("ok"), ..path("$.status") }, true),
        (HttpJsonExpectation { equals: text("down"), ..path("$.status") }, false),
        (HttpJsonExpectation { matches: "^[ab]$".into(), all: true, ..path("$.nodes[*].name") }, true),
        (HttpJsonExpectation { equals: text("a"), all: true, ..path("$.nodes[*].name") }, false),
        (HttpJsonExpectation { equals: text("b"), ..path("$.nodes[?@.up == false].name") }, true),
        (HttpJsonExpectation { absent: true, ..path("$.nodes[?@.up == false]") }, false),
        (path("$.error"), false),
        (HttpJsonExpectation { absent: true, ..path("$.error") }, true),
    ] {
        let sight = ask(expecting(&server, json(expectation.clone()))).await;
        assert_eq!(sight.outcome == Outcome::Passed, holds, "{expectation:?}: {}", sight.summary);
        if !holds {
            sight.because(Reason::UnexpectedAnswer);
        }
    }
    let sight = ask(expecting(&server, json(HttpJsonExpectation { equals: text("down"), ..path("$.status") }))).await;
    assert!(sight.summary.ends_with(r#"$.status is "ok"; expected one equal to "down""#), "{}", sight.summary);
    assert_eq!(invalid(&probe(Kind::Http(expecting(&server, json(path("status")))))), "http.expect.json[0].path");
}

#[tokio::test]
async fn a_body_that_is_not_json_fails_even_where_nothing_is_to_be_in_it() {
    for body in ["", "<html></html>", "{\"status\": \"ok\"", "{} and more"] {
        let server = Server::answering(ok(body)).await;
        let sight = ask(expecting(&server, json(HttpJsonExpectation { absent: true, ..path("$.error") }))).await;
        assert!(sight.summary.contains("the body is not JSON"), "{}", sight.summary);
        sight.because(Reason::UnexpectedAnswer);
    }
}

#[tokio::test]
async fn long_and_hostile_bodies_are_judged_within_bounds() {
    let long = format!("{{\"pad\": \"{}\", \"status\": \"ok\"}}", "x".repeat(1 << 20));
    let server = Server::answering(ok(&long)).await;
    passed(ask(expecting(&server, json(HttpJsonExpectation { equals: text("ok"), ..path("$.status") }))).await);
    let deep = Server::answering(ok(&"[".repeat(1 << 20))).await;
    ask(expecting(&deep, json(path("$")))).await.because(Reason::UnexpectedAnswer);
    let wide = Server::answering(ok(&format!("[{}0]", "0,".repeat(100_000)))).await;
    let squared = ask(expecting(&wide, json(path("$[?count($[*]) > 0]")))).await;
    assert!(squared.summary.contains("too large for that JSONPath"), "{}", squared.summary);
    squared.because(Reason::TooLarge);
    let many = Server::answering(ok(&format!("[{}0]", "0,".repeat(1 << 20)))).await;
    ask(expecting(&many, json(path("$")))).await.because(Reason::TooLarge);
    passed(ask(HttpProbe { ..asking(&many) }).await);
    let unknown = Server::answering(coded("compress", b"{}")).await;
    ask(expecting(&unknown, json(path("$")))).await.because(Reason::UnexpectedAnswer);
}
