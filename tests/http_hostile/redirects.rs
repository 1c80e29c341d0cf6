//! Redirects to where no probe may go, in every spelling, and in circles.

use std::sync::Arc;

use vantage_contract::v1::{HttpProbe, Outcome, Reason, probe::Kind};
use vantage_monitor::policy::{Policy, PolicySettings};

use super::{ask, asking, fails, report, saying};
use crate::lab::{
    http::{Server, finish, ok, redirect},
    probe::{Verdict as _, probe, run_behind},
};

#[tokio::test]
async fn places_that_are_no_web_are_not_followed() {
    for place in [
        "file:///etc/passwd",
        "file://127.0.0.1/etc/passwd",
        "ftp://127.0.0.1/",
        "data:text/html,<h1>hello</h1>",
        "javascript:alert(1)",
        "about:blank",
        "blob:http://127.0.0.1/1",
        "ws://127.0.0.1/",
        "gopher://127.0.0.1:70/_x",
        "ldap://127.0.0.1/",
        "mailto:root@127.0.0.1",
        "view-source:http://127.0.0.1/",
        "http://",
        "http:///",
        "http://[::1",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:-1/",
        "http://a b/",
        "http://%00/",
        "http://256.256.256.256/",
        "http://1.2.3.4.5/",
        "//",
    ] {
        let server = Server::answering(redirect(302, place)).await;
        let seen = report(fails(place, ask(asking(&server)).await, &[Reason::UnexpectedAnswer]));
        assert_eq!((seen.status, seen.redirect_count, server.connections()), (302, 0, 1), "{place}");
    }
}

#[tokio::test]
async fn a_location_that_is_too_long_or_no_text_is_not_followed() {
    let long = Server::answering(redirect(302, &format!("/{}", "x".repeat(60_000)))).await;
    let sight = ask(asking(&long)).await;
    assert!(sight.summary.len() < 500, "{}", sight.summary);
    fails("60 KB", sight, &[Reason::UnexpectedAnswer]);
    // It is the head that is too long, if that is found first.
    let longer = Server::answering(redirect(302, &format!("/{}", "x".repeat(64 << 10)))).await;
    fails("64 KiB", ask(asking(&longer)).await, &[Reason::TooLarge]);
    let binary = saying(b"HTTP/1.1 302 Found\r\nLocation: http://\xff\xfe/\r\nContent-Length: 0\r\n\r\n".as_slice()).await;
    fails("no text", ask(asking(&binary)).await, &[Reason::UnexpectedAnswer]);
}

/// What each of these means is 127.0.0.66, where nobody may go: however it is written, nobody is asked there.
#[tokio::test]
async fn a_forbidden_address_is_forbidden_in_every_spelling() {
    let forbidden = Server::on("127.0.0.66", |stream, _| finish(stream)).await;
    let port = forbidden.address.port();
    let settings: PolicySettings = serde_json::from_str(r#"{"networks": {"deny": ["127.0.0.66/32"]}}"#).unwrap();
    let policy = Arc::new(Policy::new(settings).unwrap());
    for host in [
        "127.0.0.66",
        "127.0.0.66.",
        "2130706498",
        "0x7f000042",
        "017700000102",
        "0177.0.0.0102",
        "0x7f.0.0.0x42",
        "0x7F.0x0.0x0.0x42",
        "127.66",
        "127.0.66",
        "127.0.0.0102",
        "[::ffff:127.0.0.66]",
        "[::ffff:7f00:42]",
        "[0:0:0:0:0:ffff:7f00:0042]",
        "user@127.0.0.66",
        "user:pass@127.0.0.66",
        "127.0.0.1@127.0.0.66",
        "1\u{ff12}7.0.0.66",
        "127\u{3002}0\u{3002}0\u{3002}66",
        "%31%32%37.0.0.66",
    ] {
        for place in [format!("http://{host}:{port}/"), format!("//{host}:{port}/"), format!("http:\\\\{host}:{port}\\")] {
            let head = format!("HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n");
            let server = Server::answering(head).await;
            let sight = run_behind(&probe(Kind::Http(asking(&server))), policy.clone()).await;
            assert_eq!(sight.outcome, Outcome::Undetermined, "{place}: {sight:?}");
            sight.because(Reason::PolicyDenied);
        }
    }
    assert_eq!(forbidden.connections(), 0);
}

#[tokio::test]
async fn what_clouds_tell_about_themselves_is_not_asked_for_by_default() {
    let policy = Arc::new(Policy::default());
    for place in [
        "http://169.254.169.254/latest/meta-data/",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://0251.0376.0251.0376/",
        "http://169.254.43518/",
        "http://[::ffff:169.254.169.254]/",
        "http://[::169.254.169.254]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[2002:a9fe:a9fe::]/",
        "http://[fd00:ec2::254]/",
        "http://[fe80::1]/",
        "http://100.100.100.200/",
        "http://0/",
        "http://0.0.0.0/",
        "http://[::]/",
        "http://[::ffff:0.0.0.0]/",
        "http://255.255.255.255/",
        "http://224.0.0.1/",
    ] {
        let server = Server::answering(redirect(307, place)).await;
        let sight = run_behind(&probe(Kind::Http(asking(&server))), policy.clone()).await;
        assert_eq!(sight.outcome, Outcome::Undetermined, "{place}: {sight:?}");
        sight.because(Reason::PolicyDenied);
    }
}

#[tokio::test]
async fn circles_end_where_the_check_says() {
    // To itself, and to and fro between two.
    for places in [["/"; 2], ["/a", "/b"]] {
        for max in [1, 10, 20] {
            let (server, requests) = Server::scripted(move |_, number| redirect(302, places[number % 2])).await;
            let sight = ask(HttpProbe { max_redirects: Some(max), ..asking(&server) }).await;
            let seen = report(fails("a circle", sight, &[Reason::UnexpectedAnswer]));
            assert_eq!((seen.redirect_count, requests.all().len()), (max, max as usize + 1));
        }
    }
}

#[tokio::test]
async fn a_redirect_to_a_name_that_is_none_or_to_a_closed_port_says_whose_fault_it_is() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Server::answering(redirect(302, &format!("http://{closed}/"))).await;
    fails("closed", ask(asking(&server)).await, &[Reason::Refused]);
    let server = Server::answering(redirect(302, "http://no-such-name.invalid/")).await;
    let sight = ask(asking(&server)).await;
    // A machine without a resolver can't know.
    assert!(matches!(sight.reason, Reason::NameNotResolved | Reason::LocalNetwork), "{sight:?}");
}

/// What a redirect sets and another one asks for is bounded, too.
#[tokio::test]
async fn cookies_without_end_are_not_sent_on() {
    let (server, requests) = Server::scripted(|request, _| {
        if request.starts_with("GET /end ") {
            return ok("");
        }
        let cookies: String = (0..200).map(|number| format!("Set-Cookie: c{number}={}\r\n", "x".repeat(250))).collect();
        format!("HTTP/1.1 302 Found\r\n{cookies}Location: /end\r\nContent-Length: 0\r\n\r\n")
    })
    .await;
    ask(asking(&server)).await.passed();
    let second = requests.all()[1].len();
    assert!(second > 250 && second < 20_000, "{second} bytes");
}
