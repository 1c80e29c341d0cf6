//! What the kind udp promises.

use std::time::Duration;

use tokio::net::UdpSocket;
use vantage_contract::v1::{
    Attribution, Outcome, Reason, UdpPortState, UdpProbe, UdpReport, probe::Kind, probe_result::Report, udp_probe::Payload,
};

use crate::lab::{
    netns::Row,
    probe::{Verdict, hasty, invalid, probe, run, within},
    udp::{ClosedPort, UdpServer},
};

fn ask(address: std::net::SocketAddr) -> UdpProbe {
    let payload = Some(Payload::Text("who is there".into()));
    UdpProbe { host: address.ip().to_string(), port: address.port().into(), payload, ..UdpProbe::default() }
}

fn seen(report: Report) -> UdpReport {
    match report {
        Report::Udp(report) => report,
        other => panic!("not a report of udp: {other:?}"),
    }
}

/// A server that says what it was sent, in brackets.
async fn echo() -> UdpServer {
    UdpServer::start(|_, bytes| vec![[b"[", bytes, b"]\n"].concat()]).await
}

#[tokio::test]
async fn an_answer_as_expected_passes_and_is_shown() {
    let server = echo().await;
    let spec = UdpProbe { expect: "is there".into(), expect_regex: r"^\[who.*\]\s$".into(), ..ask(server.address) };
    let sight = run(&probe(Kind::Udp(spec))).await;
    assert!(sight.latency.is_some());
    let report = seen(sight.passed());
    assert_eq!(report.state(), UdpPortState::Open);
    assert_eq!((report.answer.as_str(), report.answer_size_bytes), (r"[who is there]\x0a", 15));
    assert_eq!(report.sent_count, 1);
    assert!(report.local_address.starts_with("127.0.0.1:"));
    assert!(report.error.is_none());
}

#[tokio::test]
async fn bytes_are_sent_as_they_are_written_in_hexadecimal() {
    let server = echo().await;
    let spec = UdpProbe { payload: Some(Payload::Hex("00 FF 5c".into())), ..ask(server.address) };
    assert_eq!(seen(run(&probe(Kind::Udp(spec))).await.passed()).answer, r"[\x00\xff\]\x0a");
    let spec = UdpProbe { payload: None, ..ask(server.address) };
    assert_eq!(seen(run(&probe(Kind::Udp(spec))).await.passed()).answer, r"[]\x0a");
}

#[tokio::test]
async fn an_answer_that_is_not_as_expected_fails_and_is_shown() {
    let server = echo().await;
    for spec in
        [UdpProbe { expect: "nobody".into(), ..ask(server.address) }, UdpProbe { expect_regex: "^who".into(), ..ask(server.address) }]
    {
        let report = seen(run(&probe(Kind::Udp(spec))).await.because(Reason::UnexpectedAnswer).expect("a report"));
        assert_eq!((report.state(), report.answer_size_bytes), (UdpPortState::Open, 15));
    }
}

#[tokio::test]
async fn a_closed_port_is_refused_at_once_and_by_whom() {
    let closed = ClosedPort::find();
    let sight = run(&probe(Kind::Udp(ask(closed.address)))).await;
    assert!(sight.duration < Duration::from_secs(10) && sight.latency.is_some(), "{sight:?}");
    assert_eq!((sight.outcome, sight.attribution), (Outcome::Failed, Attribution::Target));
    let report = seen(sight.because(Reason::Refused).expect("a report"));
    assert_eq!(report.state(), UdpPortState::Closed);
    let error = report.error.expect("the error");
    assert_eq!((error.from.as_str(), error.r#type, error.code, error.meaning.as_str()), ("127.0.0.1", 3, 3, "port unreachable"));
}

#[tokio::test]
async fn a_closed_port_over_ipv6_has_the_numbers_of_icmpv6() {
    let held = std::net::UdpSocket::bind("[::1]:0").unwrap();
    held.connect("[::1]:9").unwrap();
    let report = seen(run(&probe(Kind::Udp(ask(held.local_addr().unwrap())))).await.because(Reason::Refused).expect("a report"));
    let error = report.error.expect("the error");
    assert_eq!((error.from.as_str(), error.r#type, error.code), ("::1", 1, 4));
}

#[tokio::test]
async fn silence_is_undetermined_unless_an_answer_is_required() {
    let silent = UdpServer::silent().await;
    let sight = run(&hasty(Kind::Udp(ask(silent.address)))).await;
    assert_eq!(sight.outcome, Outcome::Undetermined);
    let report = seen(sight.because(Reason::NoAnswer).expect("a report"));
    assert_eq!(report.state(), UdpPortState::OpenOrFiltered);
    let spec = UdpProbe { require_answer: true, ..ask(silent.address) };
    let sight = run(&hasty(Kind::Udp(spec))).await;
    assert_eq!(sight.outcome, Outcome::Failed);
    sight.because(Reason::TimedOut);
}

#[tokio::test]
async fn a_datagram_is_sent_again_until_it_is_answered() {
    let server = UdpServer::start(|number, _| if number < 2 { Vec::new() } else { vec![b"at last".to_vec()] }).await;
    let spec = UdpProbe { attempts: 4, ..ask(server.address) };
    let sight = run(&within(2000, Kind::Udp(spec.clone()))).await;
    let latency = sight.latency.expect("a latency").0;
    assert!(sight.duration > latency * 2, "the wait for the lost ones shows in the phases, not in the latency: {sight:?}");
    assert_eq!(seen(sight.passed()).sent_count, 3);
    let silent = UdpServer::silent().await;
    let spec = UdpProbe { host: silent.address.ip().to_string(), port: silent.address.port().into(), ..spec };
    assert_eq!(seen(run(&within(2000, Kind::Udp(spec))).await.because(Reason::NoAnswer).expect("a report")).sent_count, 4);
}

#[tokio::test]
async fn an_answer_from_elsewhere_does_not_count() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = UdpServer::serve(socket, |_, _, (_, client)| {
        let elsewhere = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        elsewhere.send_to(b"me", client).unwrap();
        Vec::new()
    });
    run(&hasty(Kind::Udp(ask(server.address)))).await.because(Reason::NoAnswer);
}

#[tokio::test]
async fn an_answer_after_the_timeout_is_not_credited_to_a_later_run() {
    // Each answer says which request it belongs to, and goes out when the next request comes.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut earlier: Option<std::net::SocketAddr> = None;
    let server = UdpServer::serve(socket, move |_, _, (socket, client)| {
        if let Some(earlier) = earlier.replace(client) {
            let _ = socket.try_send_to(b"late", earlier);
        }
        Vec::new()
    });
    for _ in 0..3 {
        run(&hasty(Kind::Udp(ask(server.address)))).await.because(Reason::NoAnswer);
    }
}

#[tokio::test]
async fn an_empty_or_a_huge_answer_is_an_answer() {
    let server = UdpServer::start(|number, _| vec![vec![b'x'; if number == 0 { 0 } else { 65_000 }]]).await;
    let report = seen(run(&probe(Kind::Udp(ask(server.address)))).await.passed());
    assert_eq!((report.state(), report.answer_size_bytes), (UdpPortState::Open, 0));
    let report = seen(run(&probe(Kind::Udp(ask(server.address)))).await.passed());
    assert_eq!((report.answer_size_bytes, report.answer.len()), (65_000, 1024));
}

#[test]
fn what_routers_say_is_told_apart_and_the_paths_fault() {
    let Some(row) = Row::of(3) else { return };
    for (kind, address) in [("prohibit", "203.0.113.1"), ("unreachable", "203.0.113.2"), ("blackhole", "203.0.113.3")] {
        row.exec(1, &format!("ip route add {kind} {address}/32"));
    }
    row.inside(0, async || {
        let ask = |address: &str| UdpProbe { host: address.into(), port: 9, ..UdpProbe::default() };
        for (address, reason, code) in [("203.0.113.1", Reason::Prohibited, 13), ("203.0.113.2", Reason::Unreachable, 1)] {
            let sight = run(&probe(Kind::Udp(ask(address)))).await;
            assert_eq!((sight.outcome, sight.attribution), (Outcome::Failed, Attribution::Path));
            let report = seen(sight.because(reason).expect("a report"));
            assert_eq!(report.state(), UdpPortState::Filtered);
            let error = report.error.expect("the error");
            assert_eq!((error.from.as_str(), error.r#type, error.code), ("10.9.0.2", 3, code));
        }
        run(&hasty(Kind::Udp(ask("203.0.113.3")))).await.because(Reason::NoAnswer);
        // The target itself, where nobody listens.
        let sight = run(&probe(Kind::Udp(ask("10.9.1.2")))).await;
        assert_eq!(sight.attribution, Attribution::Target);
        let report = seen(sight.because(Reason::Refused).expect("a report"));
        assert_eq!((report.state(), report.error.expect("the error").from), (UdpPortState::Closed, "10.9.1.2".to_owned()));
        row.exec(0, "ip route del default");
        let sight = run(&probe(Kind::Udp(ask("203.0.113.3")))).await;
        assert_eq!((sight.outcome, sight.attribution), (Outcome::Undetermined, Attribution::Vantage));
        sight.because(Reason::LocalNetwork);
    });
}

#[test]
fn what_can_not_be_sent_or_matched_is_refused_with_its_field() {
    let spec = || UdpProbe { host: "192.0.2.1".into(), port: 7, ..UdpProbe::default() };
    assert_eq!(invalid(&probe(Kind::Udp(UdpProbe { port: 0, ..spec() }))), "udp.port");
    assert_eq!(invalid(&probe(Kind::Udp(UdpProbe { payload: Some(Payload::Hex("abc".into())), ..spec() }))), "udp.hex");
    assert_eq!(invalid(&probe(Kind::Udp(UdpProbe { expect_regex: "(".into(), ..spec() }))), "udp.expect_regex");
    assert_eq!(invalid(&probe(Kind::Udp(UdpProbe { attempts: 11, ..spec() }))), "udp.attempts");
    let long = Some(Payload::Text("x".repeat(65_508)));
    assert_eq!(invalid(&probe(Kind::Udp(UdpProbe { payload: long, ..spec() }))), "udp.text");
}
