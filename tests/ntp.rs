//! What the kind ntp promises.

use std::{sync::Arc, time::Duration};

use tokio::net::UdpSocket;
use vantage_contract::v1::{Attribution, Check, NtpProbe, NtpReport, Outcome, Probe, Reason, probe::Kind, probe_result::Report};
use vantage_probes::{
    OpenGate, World,
    wire::ntp::{Packet, Stamp},
};

use crate::lab::{
    monitor::{Monitor, accounted, eventually},
    ntp::{answer, clock, in_step, kiss, path, server},
    probe::{Verdict, assert_stamped_by_the_kernel, hasty, invalid, probe, run, run_in, within},
    servers::{Server, chronyd_measures},
    udp::{ClosedPort, Counter, Flood, UdpServer},
};

fn ask(address: std::net::SocketAddr) -> NtpProbe {
    NtpProbe { server: address.ip().to_string(), port: address.port().into(), ..NtpProbe::default() }
}

fn seen(report: Report) -> NtpReport {
    match report {
        Report::Ntp(report) => *report,
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

async fn verdict_of(change: impl FnMut(usize, &mut Packet) + Send + 'static, reason: Reason) -> NtpReport {
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
    let unset = |_: usize, packet: &mut Packet| {
        (packet.leap, packet.stratum, packet.reference_id) = (3, 0, [0; 4]);
    };
    let report = verdict_of(unset, Reason::Unsynchronized).await;
    assert_eq!(report.kiss_code, "");
    verdict_of(|_, packet| packet.root_dispersion = 16 << 16, Reason::Unsynchronized).await;
}

#[tokio::test]
async fn a_kiss_of_death_is_told_with_its_code_and_ends_the_run() {
    for (code, hold) in [(*b"RATE", 64), (*b"DENY", 3600), (*b"RSTR", 3600), (*b"ODD!", 64)] {
        let server = server(move |_, packet| kiss(packet, code)).await;
        let spec = NtpProbe { samples: 4, spacing: millis(10), ..ask(server.address) };
        let report = seen(run(&probe(Kind::Ntp(spec))).await.because(Reason::KissOfDeath).expect("a report"));
        assert_eq!((report.kiss_code.as_bytes(), report.sent_count), (code.as_slice(), 1));
        assert_eq!((report.offset, nanos(report.hold_off)), (None, hold * 1_000_000_000));
    }
}

#[tokio::test]
async fn a_server_that_asked_for_it_is_sent_no_packet_by_any_check() {
    for code in [*b"RATE", *b"DENY"] {
        let (counter, world) = (Counter::default(), World::new(Arc::new(OpenGate)));
        let counted = counter.clone();
        let server = server(move |_, packet| {
            counted.add();
            kiss(packet, code);
        })
        .await;
        let mine = probe(Kind::Ntp(ask(server.address)));
        let other = probe(Kind::Ntp(NtpProbe { samples: 2, spacing: millis(10), ..ask(server.address) }));
        run_in(&mine, &world).await.because(Reason::KissOfDeath);
        for probe in [&mine, &other, &mine] {
            let sight = run_in(probe, &world).await;
            assert_eq!((sight.outcome, sight.attribution), (Outcome::Skipped, Attribution::Target));
            assert_eq!((sight.address, &sight.report), (None, &None), "nothing was probed");
            let (whom, code) = (server.address.to_string(), String::from_utf8_lossy(&code));
            assert!(
                sight.summary.starts_with(&whom) && sight.summary.contains(&*code) && sight.summary.ends_with('Z'),
                "{}",
                sight.summary
            );
            sight.because(Reason::HeldOff);
        }
        assert_eq!(counter.count(), 1, "the server saw the first request alone");
        // Its neighbour did not ask for anything, and neither did it ask anybody else.
        let neighbour = crate::lab::ntp::server(|_, _| {}).await;
        run_in(&probe(Kind::Ntp(ask(neighbour.address))), &world).await.passed();
        run(&mine).await.because(Reason::KissOfDeath);
    }
}

#[tokio::test]
async fn a_kiss_stops_what_other_runs_were_about_to_send() {
    // The first request of the slow run is answered well; the second run is kissed before the next sample of the first is due.
    let (counter, world) = (Counter::default(), World::new(Arc::new(OpenGate)));
    let counted = counter.clone();
    let server = server(move |number, packet| {
        counted.add();
        if number > 0 {
            kiss(packet, *b"RATE");
        }
    })
    .await;
    let slow = within(5000, Kind::Ntp(NtpProbe { samples: 3, spacing: millis(1000), ..ask(server.address) }));
    let quick = probe(Kind::Ntp(ask(server.address)));
    let (slow, ()) = tokio::join!(run_in(&slow, &world), async {
        eventually("the first request has come", || async { counter.count() == 1 }).await;
        run_in(&quick, &world).await.because(Reason::KissOfDeath);
    });
    let report = seen(slow.passed());
    assert_eq!((report.sent_count, report.answered_count, counter.count()), (1, 1, 2));
}

#[tokio::test]
async fn words_for_no_time_and_experiments_of_strangers_ask_for_nothing() {
    let world = World::new(Arc::new(OpenGate));
    for (code, reason) in [(*b"INIT", Reason::Unsynchronized), (*b"STEP", Reason::Unsynchronized), (*b"XTRA", Reason::KissOfDeath)] {
        let server = server(move |_, packet| kiss(packet, code)).await;
        for _ in 0..2 {
            let report = seen(run_in(&probe(Kind::Ntp(ask(server.address))), &world).await.because(reason).expect("a report"));
            assert_eq!((report.kiss_code.as_bytes(), report.hold_off), (code.as_slice(), None));
        }
    }
}

#[tokio::test]
async fn a_kiss_that_answers_nobody_is_not_heard() {
    // Whoever is not on the path can't know the origin, and so can't make us blind to a server.
    let world = World::new(Arc::new(OpenGate));
    let server = UdpServer::start(|_, request| {
        let right = in_step(request);
        let mut forged = Packet { origin: Stamp(right.origin.0 ^ 1), ..right };
        kiss(&mut forged, *b"DENY");
        vec![forged.encode().to_vec(), right.encode().to_vec()]
    })
    .await;
    for _ in 0..2 {
        let report = seen(run_in(&probe(Kind::Ntp(ask(server.address))), &world).await.passed());
        assert_eq!(report.ignored_count, 1);
    }
}

#[tokio::test]
async fn fields_that_contradict_each_other_are_malformed() {
    for mode in [0, 1, 2, 3, 5, 6, 7] {
        verdict_of(move |_, packet| packet.mode = mode, Reason::MalformedAnswer).await;
    }
    for version in [0, 5, 7] {
        verdict_of(move |_, packet| packet.version = version, Reason::MalformedAnswer).await;
    }
    verdict_of(|_, packet| packet.transmit = Stamp(0), Reason::MalformedAnswer).await;
    verdict_of(|_, packet| packet.receive = Stamp(0), Reason::MalformedAnswer).await;
    verdict_of(|_, packet| packet.receive = Stamp(packet.transmit.0 + (1 << 32)), Reason::MalformedAnswer).await;
    verdict_of(|_, packet| packet.transmit = Stamp(packet.transmit.0 + (60 << 32)), Reason::MalformedAnswer).await;
    let report = verdict_of(|_, packet| packet.reference = Stamp(packet.transmit.0 + (1 << 32)), Reason::MalformedAnswer).await;
    assert_eq!((report.stratum, report.offset, report.answered_count), (3, None, 0), "what it said is shown, and not believed");
}

#[tokio::test]
async fn the_version_asked_is_that_of_the_request_and_a_newer_one_is_no_answer_to_it() {
    for version in [3, 4] {
        let server = server(move |_, packet| assert_eq!(packet.version, version)).await;
        let spec = NtpProbe { version: version.into(), ..ask(server.address) };
        assert_eq!(seen(run(&probe(Kind::Ntp(spec))).await.passed()).version, u32::from(version));
    }
    let newer = server(|_, packet| packet.version = 4).await;
    run(&probe(Kind::Ntp(NtpProbe { version: 3, ..ask(newer.address) }))).await.because(Reason::MalformedAnswer);
    let older = server(|_, packet| packet.version = 3).await;
    run(&probe(Kind::Ntp(ask(older.address)))).await.passed();
}

#[tokio::test]
async fn extension_fields_and_macs_that_we_did_not_ask_for_do_no_harm() {
    let field = |length: u16| [&[2, 4], &length.to_be_bytes()[..], &vec![7; usize::from(length) - 4]].concat();
    for appended in [vec![0; 4], vec![9; 20], vec![9; 24], field(16), field(28), [field(32), field(24), vec![9; 20]].concat()] {
        let server = UdpServer::start(move |_, request| vec![[in_step(request).encode().as_slice(), &appended].concat()]).await;
        run(&probe(Kind::Ntp(ask(server.address)))).await.passed();
    }
    for appended in [vec![0], vec![0; 8], vec![0; 1000], field(16)[..15].to_vec()] {
        let server = UdpServer::start(move |_, request| vec![[in_step(request).encode().as_slice(), &appended].concat()]).await;
        run(&probe(Kind::Ntp(ask(server.address)))).await.because(Reason::MalformedAnswer);
    }
}

#[tokio::test]
async fn an_answer_to_somebody_else_is_ignored() {
    let server = UdpServer::start(|_, request| {
        let right = in_step(request);
        let wrong = Packet { origin: Stamp(right.origin.0 ^ 1), stratum: 16, ..right };
        let unset = Packet { origin: Stamp(0), ..wrong };
        [wrong.encode().as_slice(), &unset.encode(), b"?", request, &right.encode()].map(<[u8]>::to_vec).to_vec()
    })
    .await;
    let report = seen(run(&probe(Kind::Ntp(ask(server.address)))).await.passed());
    assert_eq!((report.ignored_count, report.answered_count, report.stratum), (4, 1, 3));
}

#[tokio::test]
async fn an_answer_that_comes_twice_counts_once() {
    // The second of each pair comes while the next sample is awaited.
    let server = UdpServer::start(|_, request| vec![in_step(request).encode().to_vec(); 2]).await;
    let spec = NtpProbe { samples: 3, spacing: millis(20), ..ask(server.address) };
    let report = seen(run(&probe(Kind::Ntp(spec))).await.passed());
    assert_eq!((report.sent_count, report.answered_count, report.samples.len(), report.ignored_count), (3, 3, 3, 2));
}

#[tokio::test]
async fn answers_to_others_in_a_flood_do_not_hold_up_the_timeout() {
    let flood = Flood::start(vec![0x24; 48]);
    let report = seen(run(&hasty(Kind::Ntp(ask(flood.address)))).await.because(Reason::TimedOut).expect("a report"));
    assert!(report.ignored_count > 100, "{report:?}");
}

#[tokio::test]
async fn an_answer_cut_short_is_malformed_where_it_is_ours_and_ignored_where_not() {
    let cut = |length: usize| UdpServer::start(move |_, request| vec![in_step(request).encode()[..length].to_vec()]);
    for length in [32, 47] {
        let server = cut(length).await;
        run(&probe(Kind::Ntp(ask(server.address)))).await.because(Reason::MalformedAnswer);
    }
    for length in [0, 31] {
        let server = cut(length).await;
        let report = seen(run(&hasty(Kind::Ntp(ask(server.address)))).await.because(Reason::TimedOut).expect("a report"));
        assert_eq!(report.ignored_count, 1);
    }
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
    let samples: Vec<_> = report.samples.iter().map(|sample| (nanos(sample.delay), nanos(sample.offset))).collect();
    assert_eq!((samples.len(), samples[1]), (3, (nanos(report.delay), nanos(report.offset))), "in the order of asking");
    assert!(samples[0].0 >= 300_000_000 && samples[2].0 >= 300_000_000, "{report:?}");
    let away = |index: usize| (samples[index].1 - samples[1].1) as f64;
    let jitter = ((away(0).powi(2) + away(2).powi(2)) / 2.0).sqrt();
    assert!((nanos(report.jitter) as f64 - jitter).abs() < 1000.0, "{report:?}");
    assert!(nanos(report.jitter) > 100_000_000, "{report:?}");
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
    // 10 ms out and 30 ms back: the server's clock is ours, so the offset seen is the path's doing.
    let server = server(|_, _| {}).await;
    let path = path(server.address, Duration::from_millis(10), Duration::from_millis(30)).await;
    // Timers are late by more than a millisecond on a machine with other work: the sample that was disturbed least counts.
    let spec = NtpProbe { samples: 8, spacing: millis(20), ..ask(path.address) };
    let report = seen(run(&probe(Kind::Ntp(spec))).await.passed());
    let (offset, uncertainty, delay) = (nanos(report.offset), nanos(report.offset_uncertainty), nanos(report.delay));
    assert!(delay >= 40_000_000 && uncertainty >= 20_000_000, "{report:?}");
    // Whatever the timers add to the 40 ms is in the delay, and half of it at most in the offset.
    assert!((offset + 10_000_000).abs() <= (delay - 40_000_000) / 2 + 1_000_000, "{report:?}");
    assert!(offset.abs() <= uncertainty, "{report:?}");
}

#[tokio::test]
async fn the_kernel_stamps_departure_and_arrival() {
    let server = server(|_, _| {}).await;
    assert_stamped_by_the_kernel(&probe(Kind::Ntp(ask(server.address)))).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_are_those_that_chrony_measures() {
    let ahead = Duration::from_micros(1_234_000);
    let server = UdpServer::start(move |_, request| {
        let now = clock(ahead);
        // Chrony's requests say more than ours.
        let asked = Packet::decode(request).unwrap();
        let packet = Packet { poll: asked.poll, receive: now, transmit: now, ..answer(&asked) };
        vec![packet.encode().to_vec()]
    })
    .await;
    let address = server.address;
    let Some(theirs) = tokio::task::spawn_blocking(move || chronyd_measures(address)).await.unwrap() else { return };
    let spec = NtpProbe { samples: 8, spacing: millis(10), ..ask(address) };
    let report = seen(run(&probe(Kind::Ntp(spec))).await.passed());
    let (ours, uncertainty) = (nanos(report.offset) as f64 / 1e9, nanos(report.offset_uncertainty) as f64 / 1e9);
    assert!((ours - 1.234).abs() <= uncertainty, "{report:?}");
    // Chrony has its own, of about the same size; it does not tell it.
    assert!((ours - theirs).abs() <= uncertainty + 0.005, "chrony measures {theirs}: {report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_chrony_says_of_itself_is_what_is_reported() {
    let Some(first) = Server::chronyd(true) else { return };
    let Some(second) = Server::chronyd_behind(first.address) else { return };
    let before = second.tracking();
    let report = seen(run(&probe(Kind::Ntp(ask(second.address)))).await.passed());
    let after = second.tracking();
    assert_eq!((report.stratum, before.stratum), (4, 4));
    assert_eq!(report.reference_id, first.address.ip().to_string());
    // Both grow and shrink from one of its own exchanges to the next: within what they were around ours, or a few times that.
    let within = |seen: f64, around: [f64; 2]| {
        let (least, most) = (around[0].min(around[1]), around[0].max(around[1]));
        // A unit on the wire is 15 us.
        seen >= least / 4.0 - 2e-5 && seen <= most * 4.0 + 2e-5
    };
    let seconds = |duration| nanos(duration) as f64 / 1e9;
    assert!(within(seconds(report.root_delay), [before.root_delay, after.root_delay]), "{before:?} {after:?} {report:?}");
    assert!(within(seconds(report.root_dispersion), [before.root_dispersion, after.root_dispersion]), "{before:?} {after:?} {report:?}");
    let distance = nanos(report.root_delay) / 2 + nanos(report.root_dispersion);
    assert!((nanos(report.root_distance) - distance).abs() <= 1, "{report:?}");
    // Its clock is in step with the first one's, which is ours: to within what both admit to.
    assert!(nanos(report.offset).abs() <= nanos(report.offset_uncertainty) + nanos(report.root_distance), "{report:?}");
}

/// A check of a server five times a second.
fn often(name: &str, address: std::net::SocketAddr) -> Check {
    let probe = Some(probe(Kind::Ntp(ask(address))));
    Check { name: name.into(), interval: millis(200), probe, ..Check::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_that_are_due_while_a_server_is_left_alone_are_skipped_and_accounted_for() {
    let counter = Counter::default();
    let counted = counter.clone();
    let server = server(move |_, packet| {
        counted.add();
        kiss(packet, *b"RATE");
    })
    .await;
    let monitor = Monitor::start().await;
    let mut link = monitor.connect("desk", &[]).await;
    link.start(often("first", server.address)).await;
    let kissed = link.result().await;
    assert_eq!((kissed.reason(), kissed.run), (Reason::KissOfDeath, 0));
    link.start(often("second", server.address)).await;
    let results = link.results(8).await;
    for name in ["first", "second"] {
        let mut own: Vec<_> = results.iter().filter(|result| result.check_name == name).cloned().collect();
        assert!(own.len() >= 2, "{results:?}");
        for result in &own {
            assert_eq!((result.outcome(), result.reason(), result.run_count), (Outcome::Skipped, Reason::HeldOff, 1), "{result:?}");
            assert_eq!((result.start_time, result.lateness, result.duration, result.latency), (None, None, None, None));
            assert_eq!((&result.address, &result.phases, &result.report), (&String::new(), &Vec::new(), &None));
            assert!(result.due_time.is_some() && result.summary.contains("RATE"), "{result:?}");
        }
        if name == "first" {
            own.push(kissed.clone());
        }
        accounted(&own);
    }
    assert_eq!(counter.count(), 1, "the server saw the one request");
    let skipped = &monitor.queues().await["desk"].skipped;
    assert!(skipped.iter().any(|skipped| skipped.reason() == Reason::HeldOff && skipped.count >= 8), "{skipped:?}");
    assert_eq!(monitor.clients().await["desk"].started_run_count, 1, "what is left out was not started");
}

#[tokio::test]
async fn limits_on_stratum_root_distance_and_delay_hold() {
    let server = server(|_, _| {}).await;
    let limited =
        |stratum, distance| probe(Kind::Ntp(NtpProbe { max_stratum: stratum, max_root_distance: distance, ..ask(server.address) }));
    let report = seen(run(&limited(3, millis(20))).await.passed());
    // Half of 2¹⁰ and 2⁸ units of 2⁻¹⁶ s.
    assert_eq!(nanos(report.root_distance), 11_718_750);
    run(&limited(2, None)).await.because(Reason::UnexpectedAnswer);
    run(&limited(3, millis(5))).await.because(Reason::UnexpectedAnswer);
    let path = path(server.address, Duration::from_millis(10), Duration::from_millis(10)).await;
    let slow = |limit| probe(Kind::Ntp(NtpProbe { max_delay: millis(limit), ..ask(path.address) }));
    run(&slow(10_000)).await.passed();
    let report = seen(run(&slow(15)).await.because(Reason::TooSlow).expect("a report"));
    assert!(nanos(report.delay) >= 20_000_000 && report.offset.is_some(), "{report:?}");
}

#[test]
fn samples_that_do_not_fit_into_the_timeout_are_refused() {
    let spec = NtpProbe { server: "192.0.2.1".into(), samples: 4, ..NtpProbe::default() };
    let five = Probe { timeout: None, ..probe(Kind::Ntp(spec.clone())) };
    assert_eq!(invalid(&five), "ntp.samples");
    assert_eq!(invalid(&probe(Kind::Ntp(NtpProbe { samples: 9, ..spec.clone() }))), "ntp.samples");
    assert_eq!(invalid(&probe(Kind::Ntp(NtpProbe { max_stratum: 16, ..spec.clone() }))), "ntp.max_stratum");
    for version in [1, 2, 5] {
        assert_eq!(invalid(&probe(Kind::Ntp(NtpProbe { version, ..spec.clone() }))), "ntp.version");
    }
    let negative = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    assert_eq!(invalid(&probe(Kind::Ntp(NtpProbe { max_delay: negative, ..spec.clone() }))), "ntp.max_delay");
    assert_eq!(invalid(&probe(Kind::Ntp(NtpProbe { port: 70_000, ..spec }))), "ntp.port");
}
