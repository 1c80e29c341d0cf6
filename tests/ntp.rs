//! What the kind ntp promises.

use std::time::Duration;

use tokio::net::UdpSocket;
use vantage_contract::v1::{NtpProbe, NtpReport, Probe, Reason, probe::Kind, probe_result::Report};
use vantage_probes::wire::ntp::Stamp;

use crate::lab::{
    ntp::{clock, in_step, server},
    probe::{Verdict, hasty, invalid, probe, run, within},
    udp::{ClosedPort, UdpServer},
};

fn ask(address: std::net::SocketAddr) -> NtpProbe {
    NtpProbe { server: address.ip().to_string(), port: address.port().into(), ..NtpProbe::default() }
}

fn seen(report: Report) -> NtpReport {
    match report {
        Report::Ntp(report) => report,
        other => panic!("not a report of ntp: {other:?}"),
    }
}

fn nanos(duration: Option<prost_types::Duration>) -> i128 {
    let duration = duration.expect("a duration");
    i128::from(duration.seconds) * 1_000_000_000 + i128::from(duration.nanos)
}

fn millis(millis: u64) -> Option<prost_types::Duration> {
    Duration::from_millis(millis).try_into().ok()
}

async fn verdict_of(change: impl FnMut(usize, &mut vantage_probes::wire::ntp::Packet) + Send + 'static, reason: Reason) -> NtpReport {
    let server = server(change).await;
    seen(run(&probe(Kind::Ntp(ask(server.address)))).await.because(reason).expect("a report"))
}

#[tokio::test]
async fn a_server_in_step_passes_with_an_offset_within_its_uncertainty_of_zero() {
    let server = server(|_, _| {}).await;
    let sight = run(&probe(Kind::Ntp(ask(server.address)))).await;
    let latency = sight.latency.expect("a latency").0;
    let report = seen(sight.passed());
    assert!(nanos(report.offset).abs() <= nanos(report.offset_uncertainty), "{report:?}");
    assert_eq!(nanos(report.delay), i128::try_from(latency.as_nanos()).unwrap());
    assert_eq!((report.stratum, report.leap_indicator, report.version), (3, 0, 4));
    assert_eq!((report.reference_id.as_str(), report.kiss_code.as_str()), ("192.0.2.1", ""));
    assert_eq!((nanos(report.root_delay), nanos(report.root_dispersion)), (15_625_000, 3_906_250));
    assert_eq!((report.sent_count, report.answered_count, report.ignored_count), (1, 1, 0));
    assert_eq!(report.precision_log2_seconds, -24);
    assert!(report.reference_time.is_some());
}

#[tokio::test]
async fn a_server_ahead_shows_how_far_and_fails_only_where_the_limit_is_less() {
    let ahead = Duration::from_millis(1234);
    let server = server(move |_, packet| {
        let now = clock(ahead);
        (packet.receive, packet.transmit) = (now, now);
    })
    .await;
    let report = seen(run(&probe(Kind::Ntp(ask(server.address)))).await.passed());
    assert!((nanos(report.offset) - 1_234_000_000).abs() <= nanos(report.offset_uncertainty), "{report:?}");
    let limited = |limit| probe(Kind::Ntp(NtpProbe { max_offset: millis(limit), ..ask(server.address) }));
    run(&limited(20_000)).await.passed();
    let report = seen(run(&limited(1000)).await.because(Reason::UnexpectedAnswer).expect("a report"));
    assert!(report.offset.is_some(), "what is beyond the limit is shown");
}

#[tokio::test]
async fn a_server_that_is_not_synchronized_is_told_with_all_its_fields() {
    let report = verdict_of(|_, packet| packet.leap = 3, Reason::Unsynchronized).await;
    assert_eq!((report.leap_indicator, report.stratum, report.answered_count), (3, 3, 0));
    assert!(report.offset.is_none());
    let report = verdict_of(|_, packet| packet.stratum = 16, Reason::Unsynchronized).await;
    assert_eq!(report.stratum, 16);
    let unset = |_: usize, packet: &mut vantage_probes::wire::ntp::Packet| {
        (packet.leap, packet.stratum, packet.reference_id) = (3, 0, [0; 4]);
    };
    let report = verdict_of(unset, Reason::Unsynchronized).await;
    assert_eq!(report.kiss_code, "");
    verdict_of(|_, packet| packet.root_dispersion = 16 << 16, Reason::Unsynchronized).await;
}

#[tokio::test]
async fn a_kiss_of_death_is_told_with_its_code_and_ends_the_run() {
    for code in [*b"RATE", *b"DENY", *b"RSTR"] {
        let server = server(move |_, packet| (packet.leap, packet.stratum, packet.reference_id) = (3, 0, code)).await;
        let spec = NtpProbe { samples: 4, spacing: millis(10), ..ask(server.address) };
        let report = seen(run(&probe(Kind::Ntp(spec))).await.because(Reason::KissOfDeath).expect("a report"));
        assert_eq!(report.kiss_code.as_bytes(), code);
        assert!(report.offset.is_none());
    }
}

#[tokio::test]
async fn fields_that_contradict_each_other_are_malformed() {
    verdict_of(|_, packet| packet.mode = 5, Reason::MalformedAnswer).await;
    verdict_of(|_, packet| packet.version = 7, Reason::MalformedAnswer).await;
    verdict_of(|_, packet| packet.transmit = Stamp(0), Reason::MalformedAnswer).await;
    verdict_of(|_, packet| packet.receive = Stamp(packet.transmit.0 + (1 << 32)), Reason::MalformedAnswer).await;
    verdict_of(|_, packet| packet.transmit = Stamp(packet.transmit.0 + (60 << 32)), Reason::MalformedAnswer).await;
}

#[tokio::test]
async fn an_answer_to_somebody_else_is_ignored() {
    let server = UdpServer::start(|_, request| {
        let right = in_step(request);
        let mut wrong = right;
        wrong.origin = Stamp(right.origin.0 ^ 1);
        wrong.stratum = 16;
        vec![wrong.encode().to_vec(), b"?".to_vec(), request.to_vec(), right.encode().to_vec(), right.encode().to_vec()]
    })
    .await;
    let report = seen(run(&probe(Kind::Ntp(ask(server.address)))).await.passed());
    assert_eq!((report.ignored_count, report.answered_count, report.stratum), (3, 1, 3));
}

#[tokio::test]
async fn an_answer_cut_short_is_malformed_where_it_is_ours_and_ignored_where_not() {
    let cut = |length: usize| UdpServer::start(move |_, request| vec![in_step(request).encode()[..length].to_vec()]);
    let server = cut(47).await;
    run(&probe(Kind::Ntp(ask(server.address)))).await.because(Reason::MalformedAnswer);
    let server = cut(31).await;
    let report = seen(run(&within(1000, Kind::Ntp(ask(server.address)))).await.because(Reason::TimedOut).expect("a report"));
    assert_eq!(report.ignored_count, 1);
}

#[tokio::test]
async fn the_sample_with_the_least_delay_counts() {
    // The second is answered at once and is right; the others are late by 300 ms on their way back, which shifts their offset.
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = UdpServer::serve(socket, |number, request, (socket, client)| {
        let packet = in_step(request).encode().to_vec();
        if number == 1 {
            return vec![packet];
        }
        let socket = socket.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let _ = socket.send_to(&packet, client).await;
        });
        Vec::new()
    });
    let spec = NtpProbe { samples: 3, spacing: millis(100), ..ask(server.address) };
    let report = seen(run(&probe(Kind::Ntp(spec))).await.passed());
    assert_eq!((report.sent_count, report.answered_count), (3, 3));
    assert!(nanos(report.delay) < 300_000_000, "{report:?}");
}

#[tokio::test]
async fn a_lost_sample_does_not_spoil_the_others() {
    let server = UdpServer::start(|number, request| match number {
        0 => Vec::new(),
        _ => vec![in_step(request).encode().to_vec()],
    })
    .await;
    let spec = NtpProbe { samples: 3, spacing: millis(20), ..ask(server.address) };
    let report = seen(run(&within(1000, Kind::Ntp(spec))).await.passed());
    assert_eq!((report.sent_count, report.answered_count), (3, 2));
}

#[tokio::test]
async fn an_asymmetric_path_shows_as_an_offset_that_its_uncertainty_covers() {
    // 20 ms out, 600 ms back by a relay: the server's clock is ours, so the offset seen is the path's doing, and negative.
    let server = server(|_, _| {}).await;
    let target = server.address;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let relay = UdpServer::serve(socket, move |_, request, (socket, client)| {
        let (request, socket) = (request.to_vec(), socket.clone());
        tokio::spawn(async move {
            let onward = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            onward.send_to(&request, target).await.unwrap();
            let mut answer = [0; 48];
            let length = onward.recv(&mut answer).await.unwrap();
            tokio::time::sleep(Duration::from_millis(600)).await;
            socket.send_to(&answer[..length], client).await.unwrap();
        });
        Vec::new()
    });
    let report = seen(run(&probe(Kind::Ntp(ask(relay.address)))).await.passed());
    let (offset, uncertainty) = (nanos(report.offset), nanos(report.offset_uncertainty));
    assert!(offset < 0, "{report:?}");
    assert!(uncertainty >= offset.abs(), "{report:?}");
    assert!(uncertainty >= nanos(report.delay) / 2 && nanos(report.delay) >= 620_000_000, "{report:?}");
}

#[tokio::test]
async fn a_closed_port_is_refused_and_silence_times_out() {
    let closed = ClosedPort::find();
    let sight = run(&probe(Kind::Ntp(ask(closed.address)))).await;
    assert!(sight.duration < Duration::from_secs(10), "at once, not at the timeout: {sight:?}");
    sight.because(Reason::Refused);
    let silent = UdpServer::silent().await;
    let report = seen(run(&hasty(Kind::Ntp(ask(silent.address)))).await.because(Reason::TimedOut).expect("a report"));
    assert_eq!((report.sent_count, report.answered_count), (1, 0));
}

#[tokio::test]
async fn an_answer_from_another_port_is_not_one() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = UdpServer::serve(socket, |_, request, (_, client)| {
        let packet = in_step(request).encode();
        let elsewhere = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        elsewhere.send_to(&packet, client).unwrap();
        Vec::new()
    });
    run(&hasty(Kind::Ntp(ask(server.address)))).await.because(Reason::TimedOut);
}

#[tokio::test]
async fn limits_on_stratum_and_root_distance_hold() {
    let server = server(|_, _| {}).await;
    let limited =
        |stratum, distance| probe(Kind::Ntp(NtpProbe { max_stratum: stratum, max_root_distance: distance, ..ask(server.address) }));
    run(&limited(3, millis(20))).await.passed();
    run(&limited(2, None)).await.because(Reason::UnexpectedAnswer);
    run(&limited(3, millis(5))).await.because(Reason::UnexpectedAnswer);
}

#[test]
fn samples_that_do_not_fit_into_the_timeout_are_refused() {
    let spec = NtpProbe { server: "192.0.2.1".into(), samples: 4, ..NtpProbe::default() };
    let five = Probe { timeout: None, ..probe(Kind::Ntp(spec.clone())) };
    assert_eq!(invalid(&five), "ntp.samples");
    assert_eq!(invalid(&probe(Kind::Ntp(NtpProbe { samples: 9, ..spec.clone() }))), "ntp.samples");
    assert_eq!(invalid(&probe(Kind::Ntp(NtpProbe { max_stratum: 16, ..spec.clone() }))), "ntp.max_stratum");
    assert_eq!(invalid(&probe(Kind::Ntp(NtpProbe { port: 70_000, ..spec }))), "ntp.port");
}
