//! Bodies: lengths that lie, chunks that are none, and no end of it.

use vantage_contract::v1::{HttpExpectations, HttpProbe, Outcome, Reason};

use super::{ask, asking, dripping, endless, fails, in_haste, report, saying, times_out};
use crate::lab::probe::Verdict as _;

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

#[tokio::test]
async fn bodies_without_end_are_too_large_whatever_frames_them() {
    let sized = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", u64::MAX - 10);
    for (first, again) in
        [("HTTP/1.1 200 OK\r\n\r\n", "x"), ("HTTP/1.0 200 OK\r\n\r\n", "x"), (&sized, "x"), (CHUNKED, "1\r\nx\r\n"), (CHUNKED, "1000\r\n")]
    {
        let server = endless(first, again).await;
        let limited = HttpProbe { max_body_size_bytes: 100_000, ..asking(&server) };
        let seen = report(fails(first, ask(limited).await, &[Reason::TooLarge]));
        assert!(seen.body_size_bytes <= 100_001, "{seen:?}");
    }
}

#[tokio::test]
async fn a_body_that_comes_a_byte_at_a_time_is_ended_by_the_timeout() {
    for (first, then) in [
        ("HTTP/1.1 200 OK\r\n\r\n", "x"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", "x"),
        (CHUNKED, "1\r\nx\r\n"),
        // Sizes, extensions and trailers, in drops.
        (CHUNKED, "0"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=", "b"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", "X-More: and more\r\n"),
    ] {
        let seen = times_out(first, in_haste(asking(&dripping(first, then).await)).await);
        assert_eq!(seen.status, 200);
    }
}

#[tokio::test]
async fn a_length_that_lies_shows_as_an_early_end_or_not_at_all() {
    // Less came than was said: it is cut short.
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello".to_owned(),
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\nhello", 5 << 20),
        format!("{CHUNKED}6\r\nhello"),
        format!("{CHUNKED}5\r\nhello\r\n"),
        format!("{CHUNKED}5\r\nhello\r\n0\r\n"),
        format!("{CHUNKED}5\r\nhello\r\n0\r\nX-Trailer: cut"),
        CHUNKED.to_owned(),
    ] {
        fails(&answer, ask(asking(&saying(answer.clone()).await)).await, &[Reason::Disconnected]);
    }
    // More came than was said: what was said is the answer.
    for answer in
        ["HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhello", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhellHTTP/1.1 500 Oh\r\n\r\n"]
    {
        let sight = ask(asking(&saying(answer).await)).await;
        assert_eq!(sight.outcome, Outcome::Passed, "{sight:?}");
        assert_eq!(report(Some(sight.passed())).body_size_bytes, 4);
    }
}

/// RFC 9112 section 6.3: the chunks count.
#[tokio::test]
async fn chunks_overrule_a_length() {
    for order in ["Content-Length: 3\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 3"] {
        let server = saying(format!("HTTP/1.1 200 OK\r\n{order}\r\n\r\n5\r\nhello\r\n0\r\n\r\n")).await;
        assert_eq!(report(Some(ask(asking(&server)).await.passed())).body_size_bytes, 5);
        let not_chunked = saying(format!("HTTP/1.1 200 OK\r\n{order}\r\n\r\nhey")).await;
        fails(order, ask(asking(&not_chunked)).await, &[Reason::MalformedAnswer]);
    }
    let old = saying("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
    fails("HTTP/1.0 has no chunks", ask(asking(&old)).await, &[Reason::MalformedAnswer]);
}

#[tokio::test]
async fn chunks_that_are_none_are_malformed() {
    for chunks in [
        "hello\r\n",
        "g\r\nhello\r\n",
        "\r\nhello\r\n",
        "-5\r\nhello\r\n",
        "0x5\r\nhello\r\n",
        "5 5\r\nhello\r\n",
        "5\rhello\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhelloworld\r\n0\r\n\r\n",
        "5\r\nhello\rX0\r\n\r\n",
        "10000000000000000\r\nhello\r\n",
        "fffffffffffffffff\r\nhello\r\n",
        "0\r\nno trailer\r\n\r\n",
        "5\u{0}\r\nhello\r\n",
    ] {
        let server = saying(format!("{CHUNKED}{chunks}{}", "x".repeat(100))).await;
        fails(chunks, ask(asking(&server)).await, &[Reason::MalformedAnswer]);
    }
}

#[tokio::test]
async fn what_comes_beside_the_chunks_is_bounded() {
    for (what, first, again) in [
        ("a size without end", String::new(), "0"),
        ("an extension without end", "5;".to_owned(), "more "),
        ("extensions without end", String::new(), "1;a=bcdefghijklmnopqrstuvwxyz0123456789\r\nx\r\n"),
        ("trailers without end", "5\r\nhello\r\n0\r\n".to_owned(), "X-More: and more\r\n"),
        ("a trailer without end", "5\r\nhello\r\n0\r\nX-More: ".to_owned(), "and more "),
        ("sizes and nothing else", String::new(), "1000\r\n"),
        ("a size beyond measure", String::new(), "7fffffffffffffff\r\n"),
    ] {
        let server = endless(format!("{CHUNKED}{first}"), again).await;
        let limited = HttpProbe { max_body_size_bytes: 100_000, ..asking(&server) };
        fails(what, ask(limited).await, &[Reason::MalformedAnswer, Reason::TooLarge]);
    }
}

#[tokio::test]
async fn bytes_of_any_value_are_a_body() {
    let body: Vec<u8> = (0..=255).collect();
    let server = saying([b"HTTP/1.1 200 OK\r\nContent-Length: 256\r\n\r\n".as_slice(), &body].concat()).await;
    let expect = HttpExpectations { body_matches: vec![r"(?-u)\x00\x01.*\xfe\xff".into()], ..HttpExpectations::default() };
    let expect = HttpExpectations { body_matches: vec![format!("(?s){}", expect.body_matches[0])], ..expect };
    assert_eq!(report(Some(ask(HttpProbe { expect: Some(expect), ..asking(&server) }).await.passed())).body_size_bytes, 256);
}
