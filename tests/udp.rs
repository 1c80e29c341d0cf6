//! What the kind udp promises.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::net::UdpSocket;
use vantage_contract::v1::{
    Attribution, Outcome, Reason, UdpPortState, UdpProbe, UdpReport, probe::Kind, probe_result::Report, udp_probe::Payload,
};
use vantage_probes::{OpenGate, World};

use crate::lab::{
    netns::Row,
    probe::{Verdict, assert_ended_by_the_timeout, assert_stamped_by_the_kernel, hasty, invalid, probe, run, run_in, within},
    servers::Server,
    udp::{ClosedPort, Flood, UdpServer},
};

fn ask(address: SocketAddr) -> UdpProbe {
    let payload = Some(Payload::Text("who is there".into()));
    UdpProbe { host: address.ip().to_string(), port: address.port().into(), payload, ..UdpProbe::default() }
}

fn seen(report: Report) -> UdpReport {
    match report {
        Report::Udp(report) => *report,
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
    assert_stamped_by_the_kernel(&probe(Kind::Udp(spec.clone()))).await;
    let sight = run(&probe(Kind::Udp(spec))).await;
    assert!(sight.latency.is_some());
    let report = seen(sight.passed());
    assert!(report.flows.is_empty(), "there was but one source port");
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
    let spec = UdpProbe { payload: Some(Payload::Hex("00".into())), expect_hex: "5B 00 5d0a".into(), ..ask(server.address) };
    run(&probe(Kind::Udp(spec))).await.passed();
    let spec = UdpProbe { payload: None, ..ask(server.address) };
    assert_eq!(seen(run(&probe(Kind::Udp(spec))).await.passed()).answer, r"[]\x0a");
}

#[tokio::test]
async fn an_answer_that_is_not_as_expected_fails_and_is_shown() {
    let server = echo().await;
    for spec in [
        UdpProbe { expect: "nobody".into(), ..ask(server.address) },
        UdpProbe { expect_regex: "^who".into(), ..ask(server.address) },
        // "who", which is not at the beginning; and more than there is.
        UdpProbe { expect_hex: "77 68 6f".into(), ..ask(server.address) },
        UdpProbe { expect_hex: format!("5b77686f{}", "00".repeat(40)), ..ask(server.address) },
    ] {
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
    let mut earlier: Option<SocketAddr> = None;
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

/// A range of source ports for the namespace that this thread is in.
fn few_ports(range: &str) {
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", range).unwrap();
}

/// A server that says nothing to a request, and something late to the one before: where it came from, what it was.
async fn late_server(answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> (UdpServer, Arc<Mutex<Vec<u16>>>) {
    let socket = UdpSocket::bind("127.0.0.1:2000").await.unwrap();
    let (mut earlier, ports) = (None::<(SocketAddr, Vec<u8>)>, Arc::new(Mutex::new(Vec::new())));
    let seen = Arc::clone(&ports);
    let server = UdpServer::serve(socket, move |_, bytes, (socket, client)| {
        seen.lock().unwrap().push(client.port());
        if let Some((whom, what)) = earlier.replace((client, bytes.to_vec())) {
            socket.try_send_to(&answer(&what), whom).unwrap();
        }
        Vec::new()
    });
    (server, ports)
}

#[test]
fn a_late_answer_finds_nobody_though_the_kernel_has_but_few_ports() {
    let Some(row) = Row::of(2) else { return };
    row.inside(0, async || {
        few_ports("40000 40003");
        let (server, ports) = late_server(|_| b"late".to_vec()).await;
        let world = World::new(Arc::new(OpenGate));
        for _ in 0..9 {
            run_in(&hasty(Kind::Udp(ask(server.address))), &world).await.because(Reason::NoAnswer);
        }
        let ports = ports.lock().unwrap();
        assert_eq!(ports.len(), 9);
        for window in ports.windows(4) {
            assert_eq!(window.iter().collect::<HashSet<_>>().len(), 4, "each port comes again after all the others: {ports:?}");
        }
    });
}

#[test]
fn a_presets_late_answer_is_known_by_its_id_though_there_is_but_one_port() {
    let Some(row) = Row::of(2) else { return };
    row.inside(0, async || {
        few_ports("40000 40000");
        let (server, ports) = late_server(dns_answer).await;
        let world = World::new(Arc::new(OpenGate));
        for number in 0..4 {
            let report = seen(run_in(&hasty(preset(server.address, "dns")), &world).await.because(Reason::NoAnswer).expect("a report"));
            assert_eq!((report.state(), report.ignored_count), (UdpPortState::OpenOrFiltered, u32::from(number > 0)));
        }
        assert_eq!(*ports.lock().unwrap(), [40_000; 4]);
    });
}

fn preset(address: SocketAddr, name: &str) -> Kind {
    Kind::Udp(UdpProbe { payload: Some(Payload::Preset(name.into())), ..ask(address) })
}

/// The answer of a DNS server that refuses.
fn dns_answer(question: &[u8]) -> Vec<u8> {
    let mut answer = question.to_vec();
    (answer[2], answer[3]) = (0x81, 0x85);
    answer
}

#[tokio::test]
async fn a_preset_passes_by_an_answer_of_its_protocol_to_its_question_alone() {
    let server = UdpServer::start(|_, question| {
        let right = dns_answer(question);
        let mut stranger = right.clone();
        stranger[0] ^= 1;
        vec![b"what?".to_vec(), stranger, question.to_vec(), right]
    })
    .await;
    let report = seen(run(&probe(preset(server.address, "dns"))).await.passed());
    assert_eq!((report.ignored_count, report.answer_size_bytes), (3, 17));
    // What the answer says is for expectations to judge.
    let Kind::Udp(spec) = preset(server.address, "dns") else { unreachable!() };
    let refused = |pattern: &str| probe(Kind::Udp(UdpProbe { expect_regex: pattern.into(), ..spec.clone() }));
    run(&refused(r"(?s-u)^..\x81\x85")).await.passed();
    run(&refused(r"(?s-u)^..\x81\x80")).await.because(Reason::UnexpectedAnswer);
}

#[tokio::test]
async fn what_is_of_no_such_protocol_is_unexpected_and_what_answers_another_question_is_silence() {
    let server = echo().await;
    for name in ["dns", "ntp", "snmp", "sip", "stun", "coap", "memcached", "quic"] {
        let sight = run(&hasty(preset(server.address, name))).await;
        assert_ended_by_the_timeout(&sight);
        let report = seen(sight.because(Reason::UnexpectedAnswer).expect("a report"));
        assert_eq!((report.state(), report.ignored_count, report.answer.as_str()), (UdpPortState::Open, 1, ""), "{name}");
    }
    let server = UdpServer::start(|_, question| {
        let mut stranger = dns_answer(question);
        stranger[0] ^= 1;
        vec![stranger]
    })
    .await;
    let report = seen(run(&hasty(preset(server.address, "dns"))).await.because(Reason::NoAnswer).expect("a report"));
    assert_eq!((report.state(), report.ignored_count), (UdpPortState::OpenOrFiltered, 1));
}

#[tokio::test]
async fn each_question_of_a_preset_is_another() {
    let (questions, seen) = (Arc::new(Mutex::new(HashSet::new())), Arc::new(Mutex::new(0)));
    let (inner, count) = (Arc::clone(&questions), Arc::clone(&seen));
    let server = UdpServer::start(move |_, question| {
        inner.lock().unwrap().insert(question.to_vec());
        *count.lock().unwrap() += 1;
        Vec::new()
    })
    .await;
    let Kind::Udp(spec) = preset(server.address, "stun") else { unreachable!() };
    for _ in 0..2 {
        run(&hasty(Kind::Udp(UdpProbe { attempts: 3, source_ports: 4, ..spec.clone() }))).await.because(Reason::NoAnswer);
    }
    assert_eq!((questions.lock().unwrap().len(), *seen.lock().unwrap()), (24, 24));
}

#[tokio::test]
async fn real_servers_answer_their_presets() {
    if let Some(unbound) = Server::unbound() {
        run(&probe(preset(unbound.address, "dns"))).await.passed();
    }
    if let Some(chronyd) = Server::chronyd(true) {
        assert_eq!(seen(run(&probe(preset(chronyd.address, "ntp"))).await.passed()).answer_size_bytes, 48);
    }
}

#[tokio::test]
async fn a_flood_of_what_is_no_answer_does_not_hold_up_the_timeout() {
    let flood = Flood::start(b"nonsense".to_vec());
    let report = seen(run(&hasty(preset(flood.address, "dns"))).await.because(Reason::UnexpectedAnswer).expect("a report"));
    assert!(report.ignored_count > 100, "{report:?}");
}

fn from_many(address: SocketAddr, source_ports: u32) -> UdpProbe {
    UdpProbe { source_ports, ..ask(address) }
}

#[tokio::test]
async fn each_of_many_source_ports_has_its_own_sight() {
    let server = echo().await;
    let sight = run(&probe(Kind::Udp(from_many(server.address, 16)))).await;
    let latency = sight.latency.expect("a latency").0;
    let report = seen(sight.passed());
    assert_eq!((report.sent_count, report.flows.len(), report.state()), (16, 16, UdpPortState::Open));
    let ports: HashSet<_> = report.flows.iter().map(|flow| &flow.local_address).collect();
    assert_eq!(ports.len(), 16);
    for flow in &report.flows {
        assert_eq!((flow.state(), flow.as_expected, flow.sent_count, flow.answer_size_bytes), (UdpPortState::Open, true, 1, 15));
    }
    // All have to be answered: the last one decides.
    let latencies: Vec<_> = report.flows.iter().map(|flow| Duration::try_from(flow.latency.unwrap()).unwrap()).collect();
    assert_eq!(latencies.iter().max(), Some(&latency));
    let spec = UdpProbe { require_flows: 1, ..from_many(server.address, 16) };
    let sight = run(&probe(Kind::Udp(spec))).await;
    let latency = sight.latency.expect("a latency").0;
    let report = seen(sight.passed());
    let flow = report.flows.iter().find(|flow| flow.local_address == report.local_address).expect("the deciding flow");
    assert_eq!(Duration::try_from(flow.latency.unwrap()).unwrap(), latency);
    assert!(report.flows.iter().all(|other| Duration::try_from(other.latency.unwrap()).unwrap() >= latency));
}

/// A server behind ways of which every fourth is broken: all from one source port goes one way, however often.
async fn broken_ways() -> UdpServer {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut ways: Vec<SocketAddr> = Vec::new();
    UdpServer::serve(socket, move |_, bytes, (_, client)| {
        let way = ways.iter().position(|known| *known == client).unwrap_or_else(|| {
            ways.push(client);
            ways.len() - 1
        });
        if way % 4 == 3 { Vec::new() } else { vec![bytes.to_vec()] }
    })
}

#[tokio::test]
async fn a_broken_way_among_several_is_seen_and_the_paths_fault() {
    let server = broken_ways().await;
    let spec = UdpProbe { attempts: 2, ..from_many(server.address, 8) };
    let sight = run(&hasty(Kind::Udp(spec))).await;
    assert_eq!((sight.outcome, sight.attribution, sight.latency), (Outcome::Failed, Attribution::Path, None));
    let report = seen(sight.because(Reason::TimedOut).expect("a report"));
    assert_eq!((report.state(), report.sent_count), (UdpPortState::OpenOrFiltered, 10), "the silent two were asked twice");
    let silent: Vec<_> = report.flows.iter().filter(|flow| flow.state() == UdpPortState::OpenOrFiltered).collect();
    assert_eq!((silent.len(), silent[0].sent_count, silent[0].latency, silent[0].as_expected), (2, 2, None, false));
    assert_eq!(report.local_address, silent[0].local_address);
    // A server for each run: a port that is given out again would be one of the ways that are known.
    let (enough, short) = (broken_ways().await, broken_ways().await);
    let spec = |server: &UdpServer, require_flows| UdpProbe { require_flows, ..from_many(server.address, 8) };
    run(&hasty(Kind::Udp(spec(&enough, 6)))).await.passed();
    run(&hasty(Kind::Udp(spec(&short, 7)))).await.because(Reason::TimedOut);
}

#[tokio::test]
async fn silence_and_refusals_to_all_ports_mean_what_they_mean_to_one() {
    let silent = UdpServer::silent().await;
    let sight = run(&hasty(Kind::Udp(from_many(silent.address, 4)))).await;
    assert_ended_by_the_timeout(&sight);
    assert_eq!(seen(sight.because(Reason::NoAnswer).expect("a report")).flows.len(), 4);
    let spec = UdpProbe { require_answer: true, ..from_many(silent.address, 4) };
    run(&hasty(Kind::Udp(spec))).await.because(Reason::TimedOut);
    let closed = ClosedPort::find();
    let sight = run(&probe(Kind::Udp(from_many(closed.address, 4)))).await;
    assert!(sight.duration < Duration::from_secs(10), "{sight:?}");
    let report = seen(sight.because(Reason::Refused).expect("a report"));
    assert_eq!(report.state(), UdpPortState::Closed);
    assert!(report.flows.iter().all(|flow| flow.state() == UdpPortState::Closed && flow.error.is_some()), "{report:?}");
    let server = echo().await;
    let spec = UdpProbe { expect: "nobody".into(), ..from_many(server.address, 4) };
    let report = seen(run(&probe(Kind::Udp(spec))).await.because(Reason::UnexpectedAnswer).expect("a report"));
    assert!(report.flows.iter().all(|flow| flow.state() == UdpPortState::Open && !flow.as_expected), "{report:?}");
}

#[tokio::test]
async fn where_equal_datagrams_left_from_one_port_nothing_says_which_was_answered() {
    let lossy = || UdpServer::start(|number, bytes| if number < 2 { Vec::new() } else { vec![dns_answer(bytes)] });
    let server = lossy().await;
    let spec = UdpProbe { attempts: 2, ..from_many(server.address, 2) };
    let sight = run(&within(1000, Kind::Udp(spec.clone()))).await;
    assert_eq!(sight.latency, None);
    assert_eq!(seen(sight.passed()).sent_count, 4);
    // A preset's questions differ.
    let server = lossy().await;
    let Kind::Udp(spec) = preset(server.address, "dns") else { unreachable!() };
    let sight = run(&within(1000, Kind::Udp(UdpProbe { attempts: 2, source_ports: 2, ..spec }))).await;
    let latency = sight.latency.expect("a latency").0;
    assert!(latency < Duration::from_millis(400), "the wait for the lost ones is not in it: {sight:?}");
    sight.passed();
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
    assert_eq!(invalid(&probe(Kind::Udp(UdpProbe { expect_hex: "0g".into(), ..spec() }))), "udp.expect_hex");
    assert_eq!(invalid(&probe(Kind::Udp(UdpProbe { source_ports: 65, ..spec() }))), "udp.source_ports");
    assert_eq!(invalid(&probe(Kind::Udp(UdpProbe { source_ports: 4, require_flows: 5, ..spec() }))), "udp.require_flows");
    assert_eq!(invalid(&probe(Kind::Udp(UdpProbe { require_flows: 2, ..spec() }))), "udp.require_flows");
    for name in ["", "DNS", "radius"] {
        assert_eq!(invalid(&probe(Kind::Udp(UdpProbe { payload: Some(Payload::Preset(name.into())), ..spec() }))), "udp.preset");
    }
    let long = Some(Payload::Text("x".repeat(65_508)));
    assert_eq!(invalid(&probe(Kind::Udp(UdpProbe { payload: long, ..spec() }))), "udp.text");
}
