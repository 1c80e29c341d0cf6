//! What the kind dns promises.

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
        Report::Dns(report) => report,
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

#[tokio::test]
async fn an_rcode_fails_unless_it_is_expected() {
    for (rcode, name) in [
        (ResponseCode::NXDomain, "NXDOMAIN"),
        (ResponseCode::ServFail, "SERVFAIL"),
        (ResponseCode::Refused, "REFUSED"),
        (ResponseCode::BADCOOKIE, "BADCOOKIE"),
        (ResponseCode::Unknown(3841), "RCODE3841"),
    ] {
        let server = DnsServer::honest(move |asked| {
            let mut answer = asked.refused_as(rcode);
            answer.set_edns(hickory_proto::op::Edns::new());
            answer
        })
        .await;
        let sight = run(&probe(Kind::Dns(ask(&server)))).await;
        assert_eq!((sight.outcome, sight.attribution), (Outcome::Failed, Attribution::Target));
        assert_eq!(seen(sight.because(Reason::UnexpectedAnswer).expect("a report")).rcode, name);
        let number = u16::from(rcode).to_string();
        for rcodes in [vec![name.to_lowercase()], vec!["NOERROR".into(), number]] {
            run(&expecting(ask(&server), DnsExpectations { rcodes, ..DnsExpectations::default() })).await.passed();
        }
    }
}

#[tokio::test]
async fn an_answer_without_records_fails_where_some_are_expected() {
    let soa = || RData::SOA(rdata::SOA::new(name("ns.test."), name("host.test."), 7, 1, 1, 1, 1));
    let server = DnsServer::honest(move |asked| {
        let mut answer = asked.answer();
        answer.add_authority(record("test.", 60, soa()));
        answer
    })
    .await;
    let report = passed(ask(&server)).await;
    assert_eq!((report.answer_count, report.authorities.len(), report.soa_serial), (0, 1, Some(7)));
    let expect = DnsExpectations { min_answers: 1, ..DnsExpectations::default() };
    run(&expecting(ask(&server), expect)).await.because(Reason::UnexpectedAnswer);
}

#[tokio::test]
async fn records_of_another_type_do_not_count_as_answers() {
    let server = DnsServer::honest(|asked| asked.with(&[("example.test.", 60, RData::CNAME(rdata::CNAME(name("other.test."))))])).await;
    let expect = DnsExpectations { min_answers: 1, ..DnsExpectations::default() };
    run(&expecting(ask(&server), expect.clone())).await.because(Reason::UnexpectedAnswer);
    run(&expecting(DnsProbe { r#type: "CNAME".into(), ..ask(&server) }, expect)).await.passed();
}

#[tokio::test]
async fn expectations_on_the_answers_hold_or_fail() {
    let server = DnsServer::honest(|asked| {
        let mut answer = asked.with(&[("example.test.", 60, a([192, 0, 2, 1])), ("example.test.", 60, a([192, 0, 2, 130]))]);
        answer.metadata.authoritative = true;
        answer
    })
    .await;
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let equal = |answers: &[&str]| DnsExpectations { answers: texts(answers), ..DnsExpectations::default() };
    let like = |answers: &[&str]| DnsExpectations { answers_match: texts(answers), ..DnsExpectations::default() };
    let within = |networks: &[&str]| DnsExpectations { answers_within: texts(networks), ..DnsExpectations::default() };
    let flags = |aa, ad| DnsExpectations { authoritative: aa, authenticated: ad, ..DnsExpectations::default() };
    for good in [
        equal(&["192.0.2.130", "192.0.2.1"]),
        like(&[r"\.130$", r"^192\."]),
        within(&["192.0.2.0/25", "192.0.2.128/25"]),
        flags(Some(true), Some(false)),
        DnsExpectations { min_answers: 2, ..DnsExpectations::default() },
    ] {
        run(&expecting(ask(&server), good)).await.passed();
    }
    for bad in [
        equal(&["192.0.2.1", "192.0.2.2"]),
        like(&["^10\\."]),
        within(&["192.0.2.0/25"]),
        flags(Some(false), None),
        flags(None, Some(true)),
        DnsExpectations { min_answers: 3, ..DnsExpectations::default() },
    ] {
        let sight = run(&expecting(ask(&server), bad)).await;
        assert_eq!(sight.attribution, Attribution::Target);
        sight.because(Reason::UnexpectedAnswer);
    }
    let empty = DnsServer::honest(|asked| asked.answer()).await;
    run(&expecting(ask(&empty), within(&["0.0.0.0/0"]))).await.because(Reason::UnexpectedAnswer);
}

#[tokio::test]
async fn a_truncated_answer_is_asked_for_again_over_tcp_and_the_truncation_shows() {
    let server = DnsServer::honest(|asked| {
        if asked.over_tcp {
            let many: Vec<_> = (0..150_u8).map(|number| ("example.test.", 60, a([192, 0, 2, number]))).collect();
            return asked.with(&many);
        }
        let mut answer = asked.answer();
        answer.metadata.truncation = true;
        answer
    })
    .await;
    let sight = run(&probe(Kind::Dns(ask(&server)))).await;
    let phases: Vec<_> = sight.phases.iter().map(|(phase, _)| phase.name()).collect();
    assert_eq!(phases, ["resolve", "send", "wait", "connect", "send", "wait"]);
    let report = seen(sight.passed());
    assert_eq!((report.transport.as_str(), report.truncated, report.sent_count), ("tcp", true, 2));
    assert_eq!((report.answer_count, report.answers.len()), (150, 100));
    let report = failed(DnsProbe { no_tcp_fallback: true, ..ask(&server) }, Reason::UnexpectedAnswer).await;
    assert_eq!((report.transport.as_str(), report.truncated, report.sent_count), ("udp", true, 1));
}

#[tokio::test]
async fn a_truncated_answer_without_tcp_behind_it_fails_as_the_tcp_does() {
    // The same port over TCP is kept closed.
    let (socket, _closed) = loop {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(closed) = Closed::at(socket.local_addr().unwrap()) {
            break (socket, closed);
        }
    };
    let server = UdpServer::serve(socket, |_, question, _| {
        let mut answer = question.to_vec();
        answer[2] |= 0x82;
        vec![answer]
    });
    let report = failed(ask_at(server.address), Reason::Refused).await;
    assert_eq!((report.truncated, report.rcode.as_str(), report.transport.as_str()), (true, "NOERROR", "udp"));
}

#[tokio::test]
async fn a_datagram_cut_in_the_middle_of_a_record_is_truncated_and_not_malformed() {
    let server = DnsServer::start(|asked| {
        let mut answer = asked.with(&[("example.test.", 60, a([192, 0, 2, 1])), ("example.test.", 60, a([192, 0, 2, 2]))]);
        if asked.over_tcp {
            return vec![bytes(&answer)];
        }
        answer.metadata.truncation = true;
        let mut cut = bytes(&answer);
        cut.truncate(cut.len() - 3);
        vec![cut]
    })
    .await;
    assert_eq!(passed(ask(&server)).await.answer_count, 2);
}

#[tokio::test]
async fn a_lost_first_datagram_is_visible() {
    let server = DnsServer::start(|asked| match asked.number {
        0 => Vec::new(),
        _ => vec![bytes(&asked.with(&[("example.test.", 60, a([192, 0, 2, 1]))]))],
    })
    .await;
    let sight = run(&within(2000, Kind::Dns(ask(&server)))).await;
    let latency = sight.latency.expect("a latency").0;
    assert!(sight.duration > latency * 2, "the wait shows in the phases, the latency is the second question's: {sight:?}");
    assert_eq!(seen(sight.passed()).sent_count, 2);
}

#[tokio::test]
async fn a_late_answer_to_the_first_question_counts_with_its_whole_latency() {
    // The answer to the first question goes out when the second comes.
    let mut first: Option<Vec<u8>> = None;
    let server = DnsServer::start(move |asked| match first.take() {
        Some(answer) => vec![answer],
        None => {
            first = Some(bytes(&asked.with(&[("example.test.", 60, a([192, 0, 2, 1]))])));
            Vec::new()
        }
    })
    .await;
    let sight = run(&within(2000, Kind::Dns(ask(&server)))).await;
    let latency = sight.latency.expect("a latency").0;
    assert!(latency * 2 > sight.duration, "{sight:?}");
    assert_eq!(seen(sight.passed()).sent_count, 2);
}

#[tokio::test]
async fn an_answer_to_another_question_is_ignored() {
    let server = DnsServer::start(|asked| {
        let right = asked.with(&[("example.test.", 60, a([192, 0, 2, 1]))]);
        let wrong = |change: &dyn Fn(&mut Message)| {
            let mut answer = asked.with(&[("example.test.", 60, a([192, 0, 2, 66]))]);
            change(&mut answer);
            bytes(&answer)
        };
        vec![
            wrong(&|answer| answer.metadata.id ^= 1),
            wrong(&|answer| answer.queries[0].name = name("other.test.")),
            wrong(&|answer| answer.queries[0].query_type = RecordType::AAAA),
            wrong(&|answer| answer.queries.clear()),
            bytes(&asked.message),
            vec![0],
            bytes(&right),
        ]
    })
    .await;
    let report = passed(ask(&server)).await;
    assert_eq!((report.ignored_count, report.answers[0].data.as_str()), (6, "192.0.2.1"));
}

#[tokio::test]
async fn an_answer_from_another_port_is_not_one() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = UdpServer::serve(socket, |_, question, (_, client)| {
        let mut answer = question.to_vec();
        answer[2] |= 0x80;
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&answer, client).unwrap();
        Vec::new()
    });
    let sight = run(&hasty(Kind::Dns(ask_at(server.address)))).await;
    assert_eq!(seen(sight.because(Reason::TimedOut).expect("a report")).ignored_count, 0);
}

#[tokio::test]
async fn bytes_with_our_identifier_that_can_not_be_read_are_malformed() {
    let garble: [fn(Vec<u8>) -> Vec<u8>; 5] = [
        |whole| whole[..5].to_vec(),
        |whole| whole[..whole.len() - 2].to_vec(),
        // More records than there are.
        |mut whole| {
            whole[7] = 200;
            whole
        },
        // More questions than anybody asks.
        |mut whole| {
            whole[4] = 0xff;
            whole
        },
        // A name that points at itself.
        |mut whole| {
            let at = whole.len() - 16;
            whole[at..at + 2].copy_from_slice(&(0xc000 | u16::try_from(at).unwrap()).to_be_bytes());
            whole
        },
    ];
    for garble in garble {
        let server = DnsServer::start(move |asked| vec![garble(bytes(&asked.with(&[("example.test.", 60, a([192, 0, 2, 1]))])))]).await;
        run(&probe(Kind::Dns(ask(&server)))).await.because(Reason::MalformedAnswer);
        run(&probe(Kind::Dns(over_tcp(ask(&server))))).await.because(Reason::MalformedAnswer);
    }
}

#[tokio::test]
async fn an_answer_made_to_be_slow_to_read_is_refused_quickly() {
    // A chain of pointers through half of a large message, and thousands of records whose names begin at its end.
    let server = DnsServer::start(|asked| {
        let mut message = bytes(&asked.answer());
        let chain = message.len() + 11;
        message.extend([0, 0, 10, 0, 1, 0, 0, 0, 0, 0x3e, 0x81, 0]);
        message.truncate(chain);
        message.push(0);
        for number in 0..8000_u16 {
            let target = if number == 0 { chain } else { chain + 1 + 2 * (usize::from(number) - 1) };
            message.extend((0xc000 | u16::try_from(target).unwrap_or(0)).to_be_bytes());
        }
        while message.len() < 65_000 {
            let target = u16::try_from(chain + 1 + 2 * 7999).unwrap_or(u16::MAX).min(0x3ffe);
            message.extend((0xc000 | target).to_be_bytes());
            message.extend([0, 1, 0, 1, 0, 0, 0, 0, 0, 0]);
        }
        message[6..8].copy_from_slice(&4000_u16.to_be_bytes());
        vec![message]
    })
    .await;
    let sight = run(&probe(Kind::Dns(over_tcp(ask(&server))))).await;
    assert!(sight.duration < Duration::from_secs(10), "{sight:?}");
    sight.because(Reason::MalformedAnswer);
}

#[tokio::test]
async fn a_closed_port_is_refused_at_once_and_silence_times_out() {
    let closed = ClosedPort::find();
    let sight = run(&probe(Kind::Dns(ask_at(closed.address)))).await;
    assert!(sight.duration < Duration::from_secs(10), "{sight:?}");
    assert_eq!(sight.attribution, Attribution::Target);
    sight.because(Reason::Refused);

    let silent = DnsServer::start(|_| Vec::new()).await;
    let sight = run(&within(1500, Kind::Dns(DnsProbe { attempts: 3, ..ask(&silent) }))).await;
    assert!(sight.summary.contains("questions sent: 3"), "{}", sight.summary);
    assert_eq!(seen(sight.because(Reason::TimedOut).expect("a report")).sent_count, 3);
    // This one reads the question and closes.
    let sight = run(&probe(Kind::Dns(over_tcp(ask(&silent))))).await;
    sight.because(Reason::Disconnected);
}

#[tokio::test]
async fn a_stream_that_promises_more_than_it_sends_times_out_or_is_disconnected() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let _ = stream.writable().await;
            let _ = stream.try_write(&[0xff, 0xff, 1, 2, 3]);
            kept.push(stream);
        }
    });
    run(&hasty(Kind::Dns(over_tcp(ask_at(address))))).await.because(Reason::TimedOut);
    server.abort();
}

/// A DNS server over TLS that answers one connection after the other, and the PEM form of its certificate for `dns.test`.
async fn server_over_tls() -> (std::net::SocketAddr, String, tokio::task::JoinHandle<()>) {
    let made = rcgen::generate_simple_self_signed(vec!["dns.test".to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a certificate with its key");
    config.alpn_protocols = vec![b"dot".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("an address");
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let Ok(length) = stream.read_u16().await else { continue };
            let mut question = vec![0; length.into()];
            if stream.read_exact(&mut question).await.is_err() {
                continue;
            }
            let asked = Asked { message: Message::from_vec(&question).expect("a question"), number: 0, over_tcp: true };
            let answer = bytes(&asked.with(&[("example.test.", 60, a([192, 0, 2, 1]))]));
            let length = u16::try_from(answer.len()).expect("short");
            let _ = stream.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat()).await;
            let _ = stream.shutdown().await;
        }
    });
    (address, made.cert.pem(), task)
}

#[tokio::test]
async fn over_tls_the_certificate_is_judged_and_shown() {
    let (address, pem, server) = server_over_tls().await;
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, pem).unwrap();
    let tls = |options: TlsOptions| DnsProbe { transport: DnsTransport::Tls.into(), tls: Some(options), ..ask_at(address) };
    let trusting = TlsOptions { ca_file: ca.display().to_string(), server_name: "dns.test".into(), ..TlsOptions::default() };
    let sight = run(&probe(Kind::Dns(tls(trusting.clone())))).await;
    let phases: Vec<_> = sight.phases.iter().map(|(phase, _)| phase.name()).collect();
    assert_eq!(phases, ["resolve", "connect", "tls", "send", "wait"]);
    let report = seen(sight.passed());
    let seen_tls = report.tls.expect("the TLS");
    assert_eq!((report.transport.as_str(), report.sent_count, report.answers.len()), ("tls", 1, 1));
    assert_eq!((seen_tls.alpn.as_str(), seen_tls.server_name.as_str(), seen_tls.verified), ("dot", "dns.test", true));

    let wrong = TlsOptions { server_name: "other.test".into(), ..trusting };
    let report = failed(tls(wrong), Reason::CertificateInvalid).await;
    assert_eq!((report.sent_count, report.tls.expect("the TLS").certificates.len()), (0, 1));
    assert!(!passed(tls(TlsOptions { insecure: true, ..TlsOptions::default() })).await.tls.expect("the TLS").verified);
    server.abort();
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
