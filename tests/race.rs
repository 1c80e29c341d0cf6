//! Happy Eyeballs: a name's addresses race to connect first.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use hickory_proto::rr::RecordType;
use tokio::io::AsyncWriteExt;
use vantage_contract::v1::{
    AddressFamily, AddressSelection, Attribution, ConnectAttempt, DnsProbe, HttpProbe, HttpReport, PingProbe, Probe, Reason, TcpProbe,
    TcpReport, probe::Kind, probe_result::Report,
};
use vantage_probes::{Destination, Gate, Sight};

use crate::lab::{
    dns::{DnsServer, a, bytes},
    http::{Server, finish, ok, read_request, redirect},
    netns::Row,
    place::Closed,
    probe::{Verdict as _, address, assert_ended_by_the_timeout, invalid, probe, run, run_behind, within},
    tls::{Authority, Leaf},
};

/// A probe of the addresses that this resolver has, that which connects first.
fn racing(resolver: SocketAddr, kind: Kind) -> Probe {
    Probe { addresses: AddressSelection::HappyEyeballs.into(), resolver: resolver.to_string(), ..probe(kind) }
}

fn tcp(port: u16) -> Kind {
    Kind::Tcp(TcpProbe { host: "host.test".into(), port: port.into(), ..TcpProbe::default() })
}

fn tcp_report(report: Option<Report>) -> TcpReport {
    match report {
        Some(Report::Tcp(report)) => *report,
        other => panic!("a report of tcp, not {other:?}"),
    }
}

fn http_report(report: Report) -> HttpReport {
    match report {
        Report::Http(report) | Report::Https(report) => *report,
        other => panic!("a report of http, not {other:?}"),
    }
}

/// Who was tried, whether each won, and whether it says what went wrong.
fn told(attempts: &[ConnectAttempt]) -> Vec<(&str, bool, bool)> {
    assert!(attempts.iter().all(|attempt| attempt.delay.is_some() && attempt.duration.is_some()), "{attempts:?}");
    attempts.iter().map(|attempt| (attempt.address.as_str(), attempt.won, !attempt.error.is_empty())).collect()
}

fn of(duration: Option<prost_types::Duration>) -> Duration {
    Duration::try_from(duration.expect("a duration")).expect("which is not negative")
}

fn phase(sight: &Sight, name: &str) -> Duration {
    sight.phases.iter().filter(|(phase, _)| phase.name() == name).map(|(_, taken)| *taken).sum()
}

async fn both() -> DnsServer {
    DnsServer::zone(&[("host.test.", &["127.0.0.1", "::1"])]).await
}

/// A server on one address of loopback, and the same port of the other, where nobody listens.
async fn alone(on: &str, not_on: &str) -> (Server, Closed) {
    loop {
        let server = Server::on(on, |_, _| async {}).await;
        if let Ok(closed) = Closed::at(SocketAddr::new(address(not_on), server.address.port())) {
            return (server, closed);
        }
    }
}

/// A listener at an address that answers no more: its backlog is full, and the kernel drops the SYNs of all who come. It lives as long as
/// what is returned.
fn full(at: SocketAddr) -> std::io::Result<(socket2::Socket, std::net::TcpStream)> {
    let listener = socket2::Socket::new(socket2::Domain::for_address(at), socket2::Type::STREAM, None)?;
    if at.is_ipv6() {
        listener.set_only_v6(true)?;
    }
    listener.bind(&at.into())?;
    listener.listen(0)?;
    let first = std::net::TcpStream::connect(listener.local_addr()?.as_socket().expect("an address of IP"))?;
    Ok((listener, first))
}

#[tokio::test]
async fn where_both_families_connect_ipv6_wins_and_ipv4_is_not_tried() {
    let server = Server::on("::", |_, _| async {}).await;
    let sight = run(&racing(both().await.address, tcp(server.address.port()))).await;
    assert_eq!(sight.address, Some(address("::1")));
    let latency = sight.latency.expect("a latency").0;
    let report = tcp_report(Some(sight.passed()));
    assert_eq!(told(&report.attempts), [("::1", true, false)]);
    assert_eq!(
        (of(report.connect_time), of(report.attempts[0].duration), of(report.attempts[0].delay)),
        (latency, latency, Duration::ZERO)
    );
    assert_eq!((report.connected, report.remote_address), (true, format!("[::1]:{}", server.address.port())));
}

#[tokio::test]
async fn an_address_that_refuses_is_followed_at_once_by_the_other_family() {
    let (server, _closed) = alone("127.0.0.1", "::1").await;
    let sight = run(&racing(both().await.address, tcp(server.address.port()))).await;
    assert_eq!(sight.address, Some(address("127.0.0.1")));
    let report = tcp_report(Some(sight.passed()));
    assert_eq!(told(&report.attempts), [("::1", false, true), ("127.0.0.1", true, false)]);
    assert!(report.attempts[0].error.ends_with("connection refused"), "{:?}", report.attempts);
    assert!(report.error.is_none(), "the error of a loser is not the probe's");
}

#[tokio::test]
async fn where_all_addresses_refuse_the_target_did_and_each_is_told() {
    let (four, _six) = loop {
        let four = Closed::find();
        if let Ok(six) = Closed::at(SocketAddr::new(address("::1"), four.address.port())) {
            break (four, six);
        }
    };
    let sight = run(&racing(both().await.address, tcp(four.address.port()))).await;
    assert_eq!((sight.attribution, sight.address), (Attribution::Target, Some(address("::1"))));
    for sentence in ["none of 2 addresses of host.test:", "connect to [::1]:", "connect to 127.0.0.1:"] {
        assert!(sight.summary.contains(sentence), "{}", sight.summary);
    }
    let report = tcp_report(sight.because(Reason::Refused));
    assert_eq!(told(&report.attempts), [("::1", false, true), ("127.0.0.1", false, true)]);
    assert!(!report.connected && report.connect_time.is_none());
}

#[tokio::test]
async fn where_nobody_answers_it_times_out_and_tells_who_was_tried_when() {
    let (four, six) = loop {
        let four = full("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = four.0.local_addr().unwrap().as_socket().unwrap().port();
        if let Ok(six) = full(SocketAddr::new(address("::1"), port)) {
            break (four, six);
        }
    };
    let port = six.0.local_addr().unwrap().as_socket().unwrap().port();
    let resolver = both().await;
    let timeout = within(600, tcp(port)).timeout;
    let sight = run(&Probe { timeout, ..racing(resolver.address, tcp(port)) }).await;
    assert_ended_by_the_timeout(&sight);
    assert!(phase(&sight, "connect") > Duration::from_millis(250), "{sight:?}");
    let report = tcp_report(sight.because(Reason::TimedOut));
    assert_eq!(told(&report.attempts), [("::1", false, true), ("127.0.0.1", false, true)]);
    assert!(of(report.attempts[1].delay) >= Duration::from_millis(250), "{report:?}");
    // Over IPv6 nobody answers; over IPv4 nobody listens: that tells more.
    drop(four);
    let _closed = Closed::at(SocketAddr::new(address("127.0.0.1"), port)).unwrap();
    let sight = run(&Probe { timeout, ..racing(resolver.address, tcp(port)) }).await;
    assert_eq!(sight.address, Some(address("127.0.0.1")));
    assert_ended_by_the_timeout(&sight);
    sight.because(Reason::Refused);
}

/// Forbids addresses.
struct Forbids(&'static [&'static str]);

impl Gate for Forbids {
    fn permit(&self, destination: Destination) -> Result<(), String> {
        // The resolver is asked at another port than the target's.
        let forbidden = self.0.iter().any(|forbidden| address(forbidden) == destination.address);
        if forbidden { Err(format!("{} is forbidden", destination.address)) } else { Ok(()) }
    }
}

#[tokio::test]
async fn an_address_that_the_policy_denies_is_told_and_never_dialled() {
    let peers = Arc::new(Mutex::new(Vec::new()));
    let kept = peers.clone();
    let server = Server::on("::", move |stream, _| {
        kept.lock().unwrap().push(stream.local_addr().unwrap().ip().to_canonical());
        async {}
    })
    .await;
    let resolver = DnsServer::zone(&[("host.test.", &["127.0.0.2", "::1"])]).await;
    let probe = racing(resolver.address, tcp(server.address.port()));
    let report = tcp_report(Some(run_behind(&probe, Arc::new(Forbids(&["::1"]))).await.passed()));
    assert_eq!(told(&report.attempts), [("::1", false, true), ("127.0.0.2", true, false)]);
    assert_eq!(report.attempts[0].error, "::1 is forbidden");
    // Where none is left, that is nobody's fault but ours, and nothing was sent.
    let sight = run_behind(&probe, Arc::new(Forbids(&["::1", "127.0.0.2"]))).await;
    assert_eq!((sight.attribution, sight.address), (Attribution::Vantage, None));
    assert!(sight.summary.contains("::1 is forbidden; 127.0.0.2 is forbidden"), "{}", sight.summary);
    assert_eq!(sight.because(Reason::PolicyDenied), None);
    assert!(server.connections() <= 1 && peers.lock().unwrap().iter().all(|at| *at == address("127.0.0.2")), "{peers:?}");
}

#[tokio::test]
async fn ipv4_does_not_wait_for_a_resolver_that_is_silent_about_ipv6() {
    let server = Server::start(|_, _| async {}).await;
    let resolver = DnsServer::start(|asked| match asked.message.queries[0].query_type() {
        RecordType::A => vec![bytes(&asked.with(&[("host.test.", 60, a([127, 0, 0, 1]))]))],
        _ => Vec::new(),
    })
    .await;
    let sight = run(&racing(resolver.address, tcp(server.address.port()))).await;
    assert!(phase(&sight, "resolve") >= Duration::from_millis(50), "{sight:?}");
    // The other way round a client has half of its time to wait for IPv6.
    assert!(phase(&sight, "resolve") < Duration::from_secs(10), "{sight:?}");
    assert_eq!(told(&tcp_report(Some(sight.passed())).attempts), [("127.0.0.1", true, false)]);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_and_one_without_the_family_asked_for_are_told_as_ever() {
    let resolver = DnsServer::zone(&[("other.test.", &["127.0.0.1"]), ("host.test.", &["::1"])]).await;
    let with = |host: &str| Kind::Tcp(TcpProbe { host: host.into(), port: 1, ..TcpProbe::default() });
    let sight = run(&racing(resolver.address, with("nobody.test"))).await;
    assert_eq!(sight.summary, "resolve nobody.test: the name does not exist");
    assert_eq!(sight.because(Reason::NameNotResolved), None);
    let four = Probe { address_family: AddressFamily::Ipv4.into(), ..racing(resolver.address, tcp(1)) };
    let sight = run(&four).await;
    assert_eq!(sight.summary, "resolve host.test: there is no IPv4 address");
    sight.because(Reason::NameNotResolved);
}

#[tokio::test]
async fn a_family_or_a_source_address_narrows_the_race() {
    let server = Server::on("::", |_, _| async {}).await;
    let resolver = both().await;
    let wide = racing(resolver.address, tcp(server.address.port()));
    let narrow = Probe { address_family: AddressFamily::Ipv4.into(), ..wide.clone() };
    assert_eq!(told(&tcp_report(Some(run(&narrow).await.passed())).attempts), [("127.0.0.1", true, false)]);
    let narrow = Probe { source_address: "127.0.0.5".into(), ..wide };
    let report = tcp_report(Some(run(&narrow).await.passed()));
    assert_eq!(told(&report.attempts), [("127.0.0.1", true, false)]);
    assert!(report.local_address.starts_with("127.0.0.5:"), "{report:?}");
}

#[tokio::test]
async fn each_hop_of_a_redirect_races_for_itself() {
    let server = Server::on("::", move |mut stream, _| async move {
        let port = stream.local_addr().unwrap().port();
        let request = read_request(&mut stream).await;
        let answer = if request.starts_with("GET / ") { redirect(302, &format!("http://other.test:{port}/away")) } else { ok("hello") };
        let _ = stream.write_all(answer.as_bytes()).await;
        finish(stream).await;
    })
    .await;
    let resolver = DnsServer::zone(&[("host.test.", &["127.0.0.1", "::1"]), ("other.test.", &["127.0.0.3"])]).await;
    let url = format!("http://host.test:{}/", server.address.port());
    let sight = run(&racing(resolver.address, Kind::Http(HttpProbe { url, ..HttpProbe::default() }))).await;
    assert_eq!(sight.address, Some(address("127.0.0.3")));
    let report = http_report(sight.passed());
    assert_eq!((report.status, report.redirect_count), (200, 1));
    assert_eq!(told(&report.attempts), [("127.0.0.3", true, false)], "those of the last connection");
}

#[tokio::test]
async fn over_https_the_winner_is_asked_by_name() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&Leaf { names: &["host.test"], ..Leaf::default() }, &[]);
    let (server, _closed) = loop {
        let acceptor = acceptor.clone();
        let server = Server::start(move |stream, _| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                assert_eq!(stream.get_ref().1.server_name(), Some("host.test"));
                read_request(&mut stream).await;
                let _ = stream.write_all(ok("hello").as_bytes()).await;
                finish(stream).await;
            }
        })
        .await;
        if let Ok(closed) = Closed::at(SocketAddr::new(address("::1"), server.address.port())) {
            break (server, closed);
        }
    };
    let url = format!("https://host.test:{}/", server.address.port());
    let spec = HttpProbe { url, tls: Some(authority.options()), ..HttpProbe::default() };
    let sight = run(&racing(both().await.address, Kind::Https(spec))).await;
    let report = http_report(sight.passed());
    assert_eq!(told(&report.attempts), [("::1", false, true), ("127.0.0.1", true, false)]);
    assert!(report.tls.expect("the TLS").verified);
}

#[tokio::test]
async fn a_race_is_refused_by_field_where_nothing_connects_or_one_is_not_enough() {
    let race = |kind| Probe { addresses: AddressSelection::HappyEyeballs.into(), ..probe(kind) };
    assert_eq!(invalid(&race(Kind::Ping(PingProbe { host: "a".into(), ..PingProbe::default() }))), "addresses");
    assert_eq!(invalid(&race(Kind::Dns(DnsProbe { server: "a".into(), query: "b".into(), ..DnsProbe::default() }))), "addresses");
    assert_eq!(invalid(&Probe { require: "any".into(), ..race(tcp(1)) }), "require");
    let closed = TcpProbe { host: "a".into(), port: 1, expect_closed: true, ..TcpProbe::default() };
    assert_eq!(invalid(&race(Kind::Tcp(closed))), "tcp.expect_closed");
}

#[test]
fn a_family_that_is_a_black_hole_costs_250_ms_and_is_not_counted_as_the_targets_time() {
    let Some(row) = Row::of(2) else { return };
    let [four, six] = row.target().map(|text| address(&text).to_string());
    row.exec(1, "ip6tables -A INPUT -p tcp -j DROP");
    // The kernel accepts for it.
    let listener = row.inside(1, async || std::net::TcpListener::bind("[::]:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    row.inside(0, async || {
        let resolver = DnsServer::zone(&[("host.test.", &[&four, &six])]).await;
        let sight = run(&racing(resolver.address, tcp(port))).await;
        assert_eq!(sight.address, Some(address(&four)));
        let (connecting, latency) = (phase(&sight, "connect"), sight.latency.expect("a latency").0);
        let report = tcp_report(Some(sight.passed()));
        assert_eq!(told(&report.attempts), [(six.as_str(), false, false), (four.as_str(), true, false)]);
        let [lost, won] = [&report.attempts[0], &report.attempts[1]];
        assert!(of(won.delay) >= Duration::from_millis(250), "{report:?}");
        assert_eq!((of(won.duration), of(report.connect_time)), (latency, latency));
        assert_eq!(of(lost.duration), of(won.delay) + latency, "it was given up when the other had won");
        assert!(connecting >= of(won.delay) + latency, "the phase is the whole race");
        // The kernel tries no longer for the one that lost: 02 is SYN-SENT.
        let sockets = std::fs::read_to_string("/proc/thread-self/net/tcp6").unwrap();
        let states: Vec<_> = sockets.lines().skip(1).filter_map(|line| line.split_whitespace().nth(3)).collect();
        assert!(!states.contains(&"02"), "{sockets}");
    });
}
