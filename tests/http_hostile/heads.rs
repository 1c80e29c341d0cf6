//! Heads of answers: status lines and headers of every kind of wrongness, and without end.

use vantage_contract::v1::{HttpProbe, Outcome, Reason};

use super::{ask, asking, dripping, endless, fails, in_haste, report, saying, times_out};
use crate::lab::probe::Verdict as _;

#[tokio::test]
async fn status_lines_of_every_bad_kind_are_malformed() {
    for line in [
        "HTTP/1.1",
        "HTTP/1.1 ",
        "HTTP/1.1 20",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 099 Low",
        "HTTP/1.1 000 Zero",
        "HTTP/1.1 -20 OK",
        "HTTP/1.1 0x200 OK",
        "HTTP/1.1 2 00 OK",
        "HTTP/1.1\t200 OK",
        "HTTP/1.1 200\tOK",
        "HTTP/1.1 200 \u{0}",
        "HTTP/1.1 200 O\u{0}K",
        "HTTP/1.2 200 OK",
        "HTTP/2.0 200 OK",
        "HTTP/3 200 OK",
        "HTTP/1 200 OK",
        "HTTP/1.10 200 OK",
        "HTTP/11 200 OK",
        "http/1.1 200 OK",
        "HTTPS/1.1 200 OK",
        "HTTP 200 OK",
        "ICY 200 OK",
        "RTSP/1.0 200 OK",
        "SIP/2.0 200 OK",
        "200 OK",
        " HTTP/1.1 200 OK",
        "\u{0}HTTP/1.1 200 OK",
        "\u{feff}HTTP/1.1 200 OK",
        "GET / HTTP/1.1",
        "<html><body>as HTTP/0.9 had it</body></html>",
    ] {
        let server = saying(format!("{line}\r\nContent-Length: 0\r\n\r\n")).await;
        let sight = ask(asking(&server)).await;
        fails(line, sight, &[Reason::MalformedAnswer]);
    }
}

#[tokio::test]
async fn a_status_that_nobody_has_heard_of_is_an_answer_all_the_same() {
    for status in [600, 999] {
        let server = saying(format!("HTTP/1.1 {status} Odd\r\nContent-Length: 0\r\n\r\n")).await;
        let seen = report(fails("odd", ask(asking(&server)).await, &[Reason::UnexpectedAnswer]));
        assert_eq!(seen.status, status);
    }
}

#[tokio::test]
async fn a_head_without_end_is_too_large_however_it_goes_on() {
    for (first, again) in [
        ("HTTP/1.1 200 OK\r\n", "X-More: and more\r\n"),
        ("HTTP/1.1 200 OK\r\n", "a:\r\n"),
        ("HTTP/1.1 200 OK\r\nX-More: ", "and more "),
        ("HTTP/1.1 200 OK\r\n", "x"),
        ("HTTP/1.1 200 OK\r\nSet-Cookie: a=b", "; c=d"),
        ("HTTP/1.1 200 ", "very "),
    ] {
        let server = endless(first, again).await;
        fails(again, ask(asking(&server)).await, &[Reason::TooLarge]);
    }
    // These end, but are more than anybody needs.
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-More: and more\r\n".repeat(3000));
    fails("3000 headers", ask(asking(&saying(many).await)).await, &[Reason::TooLarge]);
    let beyond = "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n";
    fails("more bytes than there can be", ask(asking(&saying(beyond).await)).await, &[Reason::TooLarge]);
    let large = format!("HTTP/1.1 200 OK\r\nX-Large: {}\r\n\r\n", "x".repeat(70_000));
    fails("a large header", ask(asking(&saying(large).await)).await, &[Reason::TooLarge]);
}

#[tokio::test]
async fn what_never_becomes_a_status_line_is_not_waited_for() {
    for again in ["x", "\u{0}", "HTTP", "\r"] {
        let server = endless("", again).await;
        fails(again, ask(asking(&server)).await, &[Reason::MalformedAnswer]);
    }
    // Empty lines before an answer are passed over (RFC 9112 section 2.2), as long as there is a bound to it.
    fails("empty lines", ask(asking(&endless("", "\r\n").await)).await, &[Reason::TooLarge, Reason::MalformedAnswer]);
}

#[tokio::test]
async fn interim_answers_without_end_are_no_answer() {
    for interim in [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 102 Processing\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n",
        "HTTP/1.1 199 Odd\r\n\r\n",
    ] {
        let sight = ask(asking(&endless("", interim).await)).await;
        assert!(sight.summary.contains("interim answers"), "{}", sight.summary);
        fails(interim, sight, &[Reason::MalformedAnswer]);
    }
    let once = saying("HTTP/1.1 100 Continue\r\n\r\n").await;
    fails("and no more", ask(asking(&once)).await, &[Reason::Disconnected]);
    let switches = saying("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\u{1}\u{2}").await;
    assert_eq!(report(fails("101", ask(asking(&switches)).await, &[Reason::UnexpectedAnswer])).status, 101);
}

#[tokio::test]
async fn heads_that_come_a_byte_at_a_time_are_ended_by_the_timeout() {
    for (first, then) in [
        ("", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Long-Enough: yes, it is\r\n\r\n"),
        ("HTTP/1.1 ", "200 "),
        ("HTTP/1.1 200 OK\r\n", "X-More: and more\r\n"),
        ("HTTP/1.1 200 OK\r\nX-More: ", "m"),
        ("", "\r\n"),
    ] {
        times_out(first, in_haste(asking(&dripping(first, then).await)).await);
    }
}

#[tokio::test]
async fn headers_that_are_not_headers_are_malformed() {
    for header in [
        "no colon here",
        ": no name",
        "Na me: space",
        "Name : space before the colon",
        "Na\u{0}me: nul",
        "Name: nul \u{0} within",
        "Name: bell \u{7} within",
        "Name: a return \r within",
        "N\u{fc}me: not a token",
        " folded: into nothing",
        "Content-Length: -1",
        "Content-Length: +5",
        "Content-Length: 5 5",
        "Content-Length: 0x5",
        "Content-Length: 5, 6",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 18446744073709551616",
        "Content-Length: 99999999999999999999999999999999999999",
    ] {
        let server = saying(format!("HTTP/1.1 200 OK\r\n{header}\r\n\r\nhello")).await;
        fails(header, ask(asking(&server)).await, &[Reason::MalformedAnswer]);
    }
}

#[tokio::test]
async fn what_readers_may_forgive_is_forgiven() {
    for (what, answer) in [
        ("bare line feeds, RFC 9112 section 2.2", "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"),
        ("no reason phrase", "HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\nhello"),
        ("nor a space", "HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello"),
        ("the same length twice, RFC 9110 section 8.6", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
        ("HTTP/1.0 that keeps the connection", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello"),
        ("an empty line first", "\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
        ("bytes beyond ASCII in a value", "HTTP/1.1 200 OK\r\nX-Name: Z\u{fc}rich\r\nContent-Length: 5\r\n\r\nhello"),
    ] {
        let sight = ask(asking(&saying(answer).await)).await;
        assert_eq!(sight.outcome, Outcome::Passed, "{what}: {sight:?}");
        assert_eq!(report(Some(sight.passed())).body_size_bytes, 5, "{what}");
    }
}

#[tokio::test]
async fn answers_that_have_no_body_are_whole_with_their_head() {
    for (method, head) in [
        ("GET", "204 No Content\r\nContent-Length: 5"),
        ("GET", "304 Not Modified\r\nContent-Length: 5"),
        ("GET", "204 No Content\r\nTransfer-Encoding: chunked"),
        ("HEAD", "200 OK\r\nContent-Length: 5"),
        ("HEAD", "200 OK\r\nTransfer-Encoding: chunked"),
    ] {
        // A body comes nevertheless; it is nobody's.
        let server = saying(format!("HTTP/1.1 {head}\r\n\r\nhello")).await;
        let sight = ask(HttpProbe { method: method.into(), ..asking(&server) }).await;
        assert_eq!(sight.outcome, Outcome::Passed, "{method} {head}: {sight:?}");
        assert_eq!(report(Some(sight.passed())).body_size_bytes, 0, "{method} {head}");
    }
}
