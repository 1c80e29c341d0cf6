//! TCP: connecting, and conversations.

mod real;
mod starttls;

use std::time::Duration;

use rustls::version::TLS12;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vantage_contract::v1::{
    Attribution, Outcome, Reason, TcpProbe, TcpReport, TcpStep, TimingSource, TlsOptions, probe::Kind, probe_result::Report, tcp_step::Step,
};

use crate::lab::{
    http::{Server, finish, reset},
    netns::Row,
    place::Closed,
    probe::{Verdict as _, assert_ended_by_the_timeout, hasty, probe, run, within},
    tls::{Authority, Leaf, serve},
};

fn asking(server: &Server) -> TcpProbe {
    TcpProbe { host: server.address.ip().to_string(), port: server.address.port().into(), ..TcpProbe::default() }
}

fn saying(server: &Server, steps: Vec<Step>) -> Kind {
    Kind::Tcp(TcpProbe { steps: steps.into_iter().map(|step| TcpStep { step: Some(step) }).collect(), ..asking(server) })
}

fn expect(text: &str) -> Step {
    Step::Expect(text.into())
}

fn send(text: &str) -> Step {
    Step::Send(text.into())
}

fn report(report: Option<Report>) -> TcpReport {
    match report {
        Some(Report::Tcp(report)) => *report,
        other => panic!("a report of tcp, not {other:?}"),
    }
}

/// A server that says this at once and then does as told.
async fn saying_first(text: &'static str, after: After) -> Server {
    Server::start(move |mut stream, _| async move {
        stream.write_all(text.as_bytes()).await.unwrap();
        match after {
            After::Closes => finish(stream).await,
            After::Stays => std::future::pending().await,
            After::Resets => {
                // The client has what was said once it answers.
                let _ = stream.read_u8().await;
                reset(stream);
            }
        }
    })
    .await
}

#[derive(Clone, Copy)]
enum After {
    Closes,
    Stays,
    Resets,
}

#[tokio::test]
async fn an_open_port_passes_with_addresses_and_round_trips() {
    let server = saying_first("", After::Stays).await;
    let sight = run(&probe(Kind::Tcp(asking(&server)))).await;
    let (latency, source) = sight.latency.unwrap();
    assert_eq!(source, TimingSource::User);
    let report = report(Some(sight.passed()));
    assert!(report.connected);
    assert_eq!(report.remote_address, server.address.to_string());
    assert!(report.local_address.starts_with("127.0.0.1:"));
    assert_eq!(Duration::try_from(report.connect_time.unwrap()).unwrap(), latency);
    assert!(report.kernel_round_trip.is_some());
    assert_eq!(report.tls, None);
}

#[tokio::test]
async fn a_closed_port_is_refused_by_the_target() {
    for host in ["127.0.0.1", "::1"] {
        let closed = Closed::on(host);
        let port = closed.address.port().into();
        let sight = run(&probe(Kind::Tcp(TcpProbe { host: host.into(), port, ..TcpProbe::default() }))).await;
        assert_eq!(sight.attribution, Attribution::Target);
        assert_eq!(sight.latency, None);
        assert!(!report(sight.because(Reason::Refused)).connected);
    }
}

#[tokio::test]
async fn a_port_expected_to_be_closed_passes_if_it_is_and_fails_if_it_is_open() {
    let closed = Closed::find();
    let port = closed.address.port().into();
    let spec = TcpProbe { host: "127.0.0.1".into(), port, expect_closed: true, ..TcpProbe::default() };
    let sight = run(&probe(Kind::Tcp(spec))).await;
    assert!(sight.summary.contains("closed, as expected"), "{}", sight.summary);
    sight.passed();
    let server = saying_first("", After::Stays).await;
    run(&probe(Kind::Tcp(TcpProbe { expect_closed: true, ..asking(&server) }))).await.because(Reason::UnexpectedAnswer);
}

#[tokio::test]
async fn a_backlog_that_is_full_times_out_in_connecting() {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    // One connection fills it; the kernel drops the SYNs of all others.
    let _first = std::net::TcpStream::connect(address).unwrap();
    let sight = run(&hasty(Kind::Tcp(TcpProbe { host: "127.0.0.1".into(), port: address.port().into(), ..TcpProbe::default() }))).await;
    assert_ended_by_the_timeout(&sight);
    assert!(sight.summary.contains("connecting"), "{}", sight.summary);
    sight.because(Reason::TimedOut);
}

/// A listener whose backlog is full: the kernel drops the SYNs of all but the connection that fills it.
fn full() -> (socket2::Socket, std::net::TcpStream, TcpProbe) {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let first = std::net::TcpStream::connect(address).unwrap();
    (listener, first, TcpProbe { host: "127.0.0.1".into(), port: address.port().into(), ..TcpProbe::default() })
}

#[tokio::test]
async fn syns_that_were_lost_are_counted_with_and_without_a_connection() {
    let (_listener, _first, spec) = full();
    // The kernel sends the second SYN after one second.
    let (soon, late) = (probe_within(300, &spec), probe_within(1500, &spec));
    let (soon, late) = tokio::join!(run(&soon), run(&late));
    assert_eq!(report(soon.because(Reason::TimedOut)).syn_retransmit_count, 0);
    assert_eq!(report(late.because(Reason::TimedOut)).syn_retransmit_count, 1);

    let (listener, _first, spec) = full();
    let patient = probe(Kind::Tcp(spec));
    let making_room = async {
        // The first SYN has been dropped by then, and the second has not been sent.
        tokio::time::sleep(Duration::from_millis(300)).await;
        listener.accept().unwrap()
    };
    let (sight, _accepted) = tokio::join!(run(&patient), making_room);
    let seen = report(Some(sight.passed()));
    assert_eq!((seen.syn_retransmit_count, seen.retransmit_count), (1, 0));
    assert!(Duration::try_from(seen.connect_time.unwrap()).unwrap() >= Duration::from_millis(900));
}

fn probe_within(millis: u64, spec: &TcpProbe) -> vantage_contract::v1::Probe {
    within(millis, Kind::Tcp(spec.clone()))
}

#[tokio::test]
async fn connecting_that_takes_longer_than_allowed_is_too_slow_and_all_else_is_reported() {
    let server = saying_first("SSH-2.0-x\r\n", After::Stays).await;
    let limited = |limit: Duration| TcpProbe {
        max_connect_time: Some(limit.try_into().unwrap()),
        steps: vec![TcpStep { step: Some(expect("SSH")) }],
        ..asking(&server)
    };
    run(&probe(Kind::Tcp(limited(Duration::from_secs(20))))).await.passed();
    let sight = run(&probe(Kind::Tcp(limited(Duration::from_micros(1))))).await;
    assert!(sight.summary.contains("the limit is 1µs"), "{}", sight.summary);
    assert_eq!(report(sight.because(Reason::TooSlow)).completed_step_count, 1);
}

#[tokio::test]
async fn steps_tell_how_long_they_took_also_the_one_that_was_cut_short() {
    let server = Server::start(|mut stream, _| async move {
        stream.write_all(b"one").await.unwrap();
        let _ = stream.read_u8().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        stream.write_all(b"two").await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let steps = vec![expect("one"), send("x"), expect("two"), expect("three"), send("y")];
    let seen = report(run(&within(600, saying(&server, steps))).await.because(Reason::TimedOut));
    let taken: Vec<_> = seen.step_durations.iter().map(|taken| Duration::try_from(*taken).unwrap()).collect();
    assert_eq!((taken.len(), seen.completed_step_count), (4, 3), "{taken:?}");
    assert!(taken[2] >= Duration::from_millis(100) && taken[3] > taken[1], "{taken:?}");
    assert!(seen.segment_size_bytes > 500, "{}", seen.segment_size_bytes);
}

#[tokio::test]
async fn what_was_captured_is_sent_back() {
    let server = Server::start(|mut stream, _| async move {
        stream.write_all(b"* challenge=ab$c id=7\r\n").await.unwrap();
        let mut heard = [0; 20];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard[..], b"answer ab$c 7 7 ab$ ");
        stream.write_all(b"fine").await.unwrap();
        finish(stream).await;
    })
    .await;
    let steps = vec![
        Step::ExpectRegex(r"challenge=(?<it>(ab.)\S) ".into()),
        Step::ExpectRegex(r"id=(\d)(?<none>x)?\r\n".into()),
        Step::SendCaptured("answer ${it} ${1} ${1} ".into()),
        Step::SendCaptured("${3}$$ ".into()),
    ];
    // The group 3 is none of the last expression's, nor of the one before.
    let invalid = crate::lab::probe::invalid(&probe(saying(&server, steps.clone())));
    assert_eq!(invalid, "tcp.steps[3].send_captured");
    let mut steps = steps;
    steps[3] = Step::SendCaptured("ab$$ ".into());
    steps.push(expect("fine"));
    run(&probe(saying(&server, steps.clone()))).await.passed();
    steps[2] = Step::SendCaptured("${none}".into());
    let sight = run(&probe(saying(&server, steps))).await;
    assert!(sight.summary.contains("the group \"none\" was not captured"), "{}", sight.summary);
    sight.because(Reason::UnexpectedAnswer);
}

#[tokio::test]
async fn a_banner_gives_its_captures() {
    let server = saying_first("SSH-2.0-OpenSSH_9.2\r\n", After::Stays).await;
    let sight = run(&probe(saying(&server, vec![Step::ExpectRegex(r"^SSH-([\d.]+)-(?<software>\S+)\r\n".into())]))).await;
    let report = report(Some(sight.passed()));
    assert_eq!(report.captures, ["2.0", "software=OpenSSH_9.2"]);
    assert_eq!(report.banner, "SSH-2.0-OpenSSH_9.2\\x0d\\x0a");
    assert_eq!((report.received_bytes, report.completed_step_count), (21, 1));
}

#[tokio::test]
async fn lines_before_the_one_that_matches_are_passed_over() {
    let server = saying_first("220-one\r\n220-two\r\n220 ready\r\n", After::Stays).await;
    run(&probe(saying(&server, vec![Step::ExpectRegex(r"(?m)^220 ".into()), expect("ready")]))).await.passed();
}

#[tokio::test]
async fn what_has_matched_does_not_match_again() {
    let server = saying_first("once", After::Closes).await;
    let sight = run(&probe(saying(&server, vec![expect("once"), expect("once")]))).await;
    assert_eq!(report(sight.because(Reason::Disconnected)).completed_step_count, 1);
}

#[tokio::test]
async fn a_pattern_that_never_comes_fails_as_it_was() {
    let stays = saying_first("220 no\r\n", After::Stays).await;
    let sight = run(&hasty(saying(&stays, vec![expect("yes")]))).await;
    assert_ended_by_the_timeout(&sight);
    assert!(sight.summary.contains("expected \"yes\", got \"220 no"), "{}", sight.summary);
    sight.because(Reason::TimedOut);

    let closes = saying_first("220 no\r\n", After::Closes).await;
    run(&probe(saying(&closes, vec![expect("yes")]))).await.because(Reason::UnexpectedAnswer);

    let silent = saying_first("", After::Closes).await;
    run(&probe(saying(&silent, vec![expect("yes")]))).await.because(Reason::Disconnected);

    let resets = saying_first("220 no\r\n", After::Resets).await;
    let steps = vec![expect("220"), send("x"), expect("yes")];
    run(&probe(saying(&resets, steps))).await.because(Reason::Disconnected);
}

#[tokio::test]
async fn more_than_may_be_read_is_too_large() {
    let server = Server::start(|mut stream, _| async move { while stream.write_all(&[b'x'; 4096]).await.is_ok() {} }).await;
    let endless = TcpProbe { steps: vec![TcpStep { step: Some(expect("y")) }], max_read_size_bytes: 10_000, ..asking(&server) };
    let report = report(run(&probe(Kind::Tcp(endless))).await.because(Reason::TooLarge));
    assert_eq!(report.received_bytes, 10_001);
    assert_eq!(report.banner.len(), 1024);
}

#[tokio::test]
async fn bytes_are_sent_as_they_are_and_in_hexadecimal() {
    let server = Server::start(|mut stream, _| async move {
        let mut heard = [0; 5];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"a\r\n\x00\xff");
        stream.write_all(b"\x01\xfe").await.unwrap();
        finish(stream).await;
    })
    .await;
    let steps = vec![send("a\r\n"), Step::SendHex("00 ff".into()), Step::ExpectRegex(r"(?-u)\x01(\xfe)".into())];
    assert_eq!(report(Some(run(&probe(saying(&server, steps))).await.passed())).captures, ["\\xfe"]);
}

#[tokio::test]
async fn mail_with_starttls_shows_its_certificate() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&Leaf { names: &["mail.example"], ..Leaf::default() }, &[]);
    let server = Server::start(move |mut stream, _| {
        let acceptor = acceptor.clone();
        async move {
            stream.write_all(b"220 mail.example ESMTP\r\n").await.unwrap();
            let mut line = [0; 10];
            stream.read_exact(&mut line).await.unwrap();
            stream.write_all(b"220 go ahead\r\n").await.unwrap();
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut line = [0; 6];
            stream.read_exact(&mut line).await.unwrap();
            stream.write_all(b"221 bye\r\n").await.unwrap();
            finish(stream).await;
        }
    })
    .await;
    let tls = TlsOptions { server_name: "mail.example".into(), ..authority.options() };
    let steps = vec![expect("220 "), send("STARTTLS\r\n"), expect("220 "), Step::StartTls(tls), send("QUIT\r\n"), expect("221 ")];
    let report = report(Some(run(&probe(saying(&server, steps))).await.passed()));
    assert_eq!(report.completed_step_count, 6);
    let tls = report.tls.unwrap();
    assert_eq!((tls.server_name.as_str(), tls.verified), ("mail.example", true));
    assert_eq!(tls.certificates[0].names, ["mail.example"]);
}

#[tokio::test]
async fn two_checks_of_one_address_each_ask_for_their_own_name() {
    let authority = Authority::new();
    let leaf = Leaf { names: &["one.example", "two.example"], ..Leaf::default() };
    let server = serve(authority.acceptor_of(&leaf, &[], &[&TLS12], false), |mut stream, _| async move {
        let name = stream.get_ref().1.server_name().unwrap_or("none").to_owned();
        stream.write_all(name.as_bytes()).await.unwrap();
        finish(stream).await;
    })
    .await;
    for name in ["one.example", "two.example"] {
        let tls = Some(TlsOptions { server_name: name.into(), ..authority.options() });
        let steps = vec![TcpStep { step: Some(expect(name)) }];
        let report = report(Some(run(&probe(Kind::Tcp(TcpProbe { tls, steps, ..asking(&server) }))).await.passed()));
        assert_eq!(report.tls.unwrap().version, "1.2");
    }
}

#[tokio::test]
async fn a_source_address_that_is_not_ours_is_our_own_fault() {
    let server = saying_first("", After::Stays).await;
    let mut probe = probe(Kind::Tcp(asking(&server)));
    probe.source_address = "192.0.2.1".into();
    let sight = run(&probe).await;
    assert_eq!((sight.outcome, sight.attribution), (Outcome::Undetermined, Attribution::Vantage));
    sight.because(Reason::LocalNetwork);
    probe.source_address = "127.0.0.9".into();
    assert!(report(Some(run(&probe).await.passed())).local_address.starts_with("127.0.0.9:"));
}

#[test]
fn what_routers_say_and_what_nobody_says_are_told_apart() {
    let Some(row) = Row::of(3) else { return };
    row.exec(1, "ip route add prohibit 10.8.0.1/32");
    row.exec(1, "ip route add unreachable 10.8.0.2/32");
    row.exec(1, "ip route add blackhole 10.8.0.3/32");
    row.exec(1, "ip -6 route add prohibit fd08::1/128");
    row.exec(0, "ip route add unreachable 10.8.0.4/32");
    row.exec(0, "ip route add blackhole 10.8.0.5/32");
    let ask = async |host: &str| run(&hasty(Kind::Tcp(TcpProbe { host: host.into(), port: 80, ..TcpProbe::default() }))).await;
    row.inside(0, async || {
        for (host, reason, router, kind, code) in [
            ("10.8.0.1", Reason::Prohibited, "10.9.0.2", 3, 13),
            ("10.8.0.2", Reason::Unreachable, "10.9.0.2", 3, 1),
            ("fd08::1", Reason::Prohibited, "fd09:0::2", 1, 1),
        ] {
            let sight = ask(host).await;
            assert_eq!(sight.attribution, Attribution::Path, "{sight:?}");
            let error = report(sight.because(reason)).error.unwrap();
            let router: std::net::IpAddr = router.parse().unwrap();
            assert_eq!((error.from, error.r#type, error.code), (router.to_string(), kind, code));
        }
        let filtered = ask("10.8.0.3").await;
        assert_ended_by_the_timeout(&filtered);
        filtered.because(Reason::TimedOut);
        let [target, _] = row.target();
        assert_eq!(report(ask(&target).await.because(Reason::Refused)).error, None);
        for host in ["10.8.0.4", "10.8.0.5"] {
            let sight = ask(host).await;
            assert_eq!(sight.attribution, Attribution::Vantage, "{sight:?}");
            assert_eq!(sight.outcome, Outcome::Undetermined, "{sight:?}");
        }
        row.exec(0, "ip route del default via 10.9.0.2");
        let sight = ask("10.8.0.1").await;
        assert_eq!((sight.outcome, sight.attribution), (Outcome::Undetermined, Attribution::Vantage));
        sight.because(Reason::LocalNetwork);
    });
}
