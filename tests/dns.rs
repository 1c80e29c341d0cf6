//! What the kind dns promises.

mod dnssec;
mod expectations;
mod hostile;
mod quic;
mod real;
mod streams;
mod tries;
mod zone;

use std::{sync::Arc, time::Duration};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Name, RData, RecordType, rdata},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UdpSocket,
};
use vantage_contract::v1::{
    Attribution, DnsExpectations, DnsProbe, DnsReport, DnsTransport, Outcome, Probe, Reason, TlsOptions, probe::Kind, probe_result::Report,
};

use crate::lab::{
    dns::{Asked, DnsServer, a, aaaa, bytes, record},
    place::Closed,
    probe::{Verdict, hasty, invalid, probe, run, within},
    udp::{ClosedPort, UdpServer},
};

fn ask(server: &DnsServer) -> DnsProbe {
    ask_at(server.address)
}

fn ask_at(address: std::net::SocketAddr) -> DnsProbe {
    DnsProbe { server: address.ip().to_string(), port: address.port().into(), query: "example.test".into(), ..DnsProbe::default() }
}

fn over_tcp(spec: DnsProbe) -> DnsProbe {
    DnsProbe { transport: DnsTransport::Tcp.into(), ..spec }
}

fn expecting(spec: DnsProbe, expect: DnsExpectations) -> Probe {
    probe(Kind::Dns(DnsProbe { expect: Some(expect), ..spec }))
}

fn seen(report: Report) -> DnsReport {
    match report {
        Report::Dns(report) => *report,
        other => panic!("not a report of dns: {other:?}"),
    }
}

async fn passed(spec: DnsProbe) -> DnsReport {
    seen(run(&probe(Kind::Dns(spec))).await.passed())
}

async fn failed(spec: DnsProbe, reason: Reason) -> DnsReport {
    seen(run(&probe(Kind::Dns(spec))).await.because(reason).expect("a report"))
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

/// A server with one address for every name.
async fn one_address() -> DnsServer {
    DnsServer::honest(|asked| asked.with(&[("example.test.", 300, a([192, 0, 2, 1]))])).await
}

#[tokio::test]
async fn an_answer_passes_and_its_records_are_shown_with_their_ttls() {
    let server = one_address().await;
    for (spec, transport) in [(ask(&server), "udp"), (over_tcp(ask(&server)), "tcp")] {
        let sight = run(&probe(Kind::Dns(spec))).await;
        assert!(sight.latency.is_some());
        let report = seen(sight.passed());
        assert_eq!((report.rcode.as_str(), report.transport.as_str(), report.sent_count), ("NOERROR", transport, 1));
        assert_eq!((report.answer_count, report.ignored_count, report.truncated), (1, 0, false));
        let record = &report.answers[0];
        assert_eq!((record.name.as_str(), record.r#type.as_str(), record.data.as_str()), ("example.test.", "A", "192.0.2.1"));
        assert_eq!(record.ttl.map(|ttl| ttl.seconds), Some(300));
        assert!(report.answer_size_bytes > 12 && report.soa_serial.is_none());
    }
}

#[tokio::test]
async fn every_type_is_shown_as_zone_files_write_it() {
    let soa = rdata::SOA::new(name("ns.test."), name("host.test."), 2_026_112_201, 7200, 600, 86_400, 300);
    let cases: Vec<(&str, RData, &str)> = vec![
        ("AAAA", aaaa("2001:db8::1"), "2001:db8::1"),
        ("mx", RData::MX(rdata::MX::new(10, name("mail.test."))), "10 mail.test."),
        ("TXT", RData::TXT(rdata::TXT::new(vec!["v=spf1 -all".into(), "more".into()])), r#""v=spf1 -all" "more""#),
        ("SRV", RData::SRV(rdata::SRV::new(1, 2, 443, name("a.test."))), "1 2 443 a.test."),
        ("257", RData::CAA(rdata::CAA::new_issue(false, Some(name("ca.test")), vec![])), r#"0 issue "ca.test""#),
        ("PTR", RData::PTR(rdata::PTR(name("host.test."))), "host.test."),
        ("NS", RData::NS(rdata::NS(name("ns.test."))), "ns.test."),
        ("SOA", RData::SOA(soa), "ns.test. host.test. 2026112201 7200 600 86400 300"),
        ("TYPE65280", RData::Unknown { code: RecordType::Unknown(65_280), rdata: rdata::NULL::with(vec![1, 2, 0xab]) }, r"\# 3 0102AB"),
    ];
    for (kind, data, shown) in cases {
        let server = DnsServer::honest(move |asked| asked.with(&[("example.test.", 60, data.clone())])).await;
        let report = passed(DnsProbe { r#type: kind.into(), ..ask(&server) }).await;
        assert_eq!(report.answers[0].data, shown);
        assert_eq!(report.soa_serial, (kind == "SOA").then_some(2_026_112_201));
        let expect = DnsExpectations { min_answers: 1, answers: vec![shown.into()], ..DnsExpectations::default() };
        run(&expecting(DnsProbe { r#type: kind.into(), ..ask(&server) }, expect)).await.passed();
    }
}

#[tokio::test]
async fn the_question_carries_the_flags_that_the_check_asks_for() {
    // The answer repeats what the server saw as a text.
    let server = DnsServer::honest(|asked| {
        let (head, edns) = (&asked.message.metadata, asked.message.edns.as_ref());
        let edns = edns.map(|edns| (edns.max_payload(), edns.flags().dnssec_ok));
        let query = &asked.message.queries[0];
        let saw = format!("{} {} {edns:?} {} {}", head.recursion_desired, head.checking_disabled, query.query_type(), query.query_class());
        asked.with(&[("example.test.", 0, RData::TXT(rdata::TXT::new(vec![saw])))])
    })
    .await;
    let saw = async |spec| passed(spec).await.answers[0].data.clone();
    assert_eq!(saw(ask(&server)).await, r#""true false Some((1232, false)) A IN""#);
    let spec = DnsProbe {
        recursion_desired: Some(false),
        checking_disabled: true,
        dnssec_ok: true,
        edns_size_bytes: Some(4096),
        class: "ch".into(),
        r#type: "any".into(),
        ..ask(&server)
    };
    assert_eq!(saw(spec).await, r#""false true Some((4096, true)) ANY CH""#);
    assert_eq!(saw(DnsProbe { edns_size_bytes: Some(0), ..ask(&server) }).await, r#""true false None A IN""#);
}

#[test]
fn what_makes_no_sense_is_refused_with_its_field() {
    let spec = || DnsProbe { server: "192.0.2.53".into(), query: "example.test".into(), ..DnsProbe::default() };
    let refused = |spec: DnsProbe| invalid(&probe(Kind::Dns(spec)));
    assert_eq!(refused(DnsProbe { query: String::new(), ..spec() }), "dns.query");
    assert_eq!(refused(DnsProbe { query: "a..b".into(), ..spec() }), "dns.query");
    assert_eq!(refused(DnsProbe { query: "a.".repeat(128), ..spec() }), "dns.query");
    assert_eq!(refused(DnsProbe { class: "INN".into(), ..spec() }), "dns.class");
    let expect = |expect| refused(DnsProbe { expect: Some(expect), ..spec() });
    assert_eq!(expect(DnsExpectations { rcodes: vec!["NOPE".into()], ..DnsExpectations::default() }), "dns.expect.rcodes");
    assert_eq!(expect(DnsExpectations { answers_match: vec!["(".into()], ..DnsExpectations::default() }), "dns.expect.answers_match");
    assert_eq!(expect(DnsExpectations { answers_within: vec!["x".into()], ..DnsExpectations::default() }), "dns.expect.answers_within");
}
