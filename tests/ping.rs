//! Ping against targets and paths of our own.

use std::{net::Ipv4Addr, time::Duration};

use vantage_contract::v1::{
    AddressFamily, Attribution, Outcome, PingProbe, PingReport, PingTiming, Probe, Reason, TimingSource, TracerouteMethod, TracerouteProbe,
    probe::Kind, probe_result::Report,
};
use vantage_probes::Sight;

use crate::lab::{
    echo::{Echoer, Message},
    netns::Row,
    probe::{address, run, within},
};

/// In milliseconds, for runs that wait for it.
const TIMEOUT: u64 = 1000;
/// In milliseconds, for runs that end before.
const NEVER: u64 = 20_000;

/// What is wrong with a reply, and how it is made so.
type Wrong = (&'static str, fn(&mut Message));

fn ping(host: &str, count: u32) -> PingProbe {
    PingProbe { host: host.into(), count, spacing: proto(Duration::from_millis(10)), ..PingProbe::default() }
}

fn proto(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}

/// Runs a ping in node 0 of the row, which ends by itself, and checks what holds for every run.
fn ping_in(row: &Row, spec: PingProbe) -> (Sight, PingReport) {
    run_within(row, NEVER, spec)
}

fn run_within(row: &Row, millis: u64, spec: PingProbe) -> (Sight, PingReport) {
    let sight = row.inside(0, async || run(&within(millis, Kind::Ping(spec))).await);
    let Some(Report::Ping(report)) = sight.report.clone() else { panic!("{sight:?}") };
    assert_eq!(report.requests.len(), report.sent_count as usize);
    assert_eq!(report.requests.iter().filter(|request| request.round_trip.is_some()).count(), report.answered_count as usize);
    (sight, *report)
}

fn verdict(sight: &Sight) -> (Outcome, Reason, Attribution) {
    (sight.outcome, sight.reason, sight.attribution)
}

const PASSED: (Outcome, Reason, Attribution) = (Outcome::Passed, Reason::Unspecified, Attribution::Unspecified);
const TIMED_OUT: (Outcome, Reason, Attribution) = (Outcome::Failed, Reason::TimedOut, Attribution::Target);

#[test]
fn a_target_that_answers_passes_over_both_families_and_both_kinds_of_socket() {
    let Some(row) = Row::of(3) else { return };
    for socket in ["raw", "datagram"] {
        if socket == "datagram" {
            row.inside(0, async || std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap());
        }
        for target in row.target() {
            let (sight, report) = ping_in(&row, ping(&target, 5));
            assert_eq!(verdict(&sight), PASSED, "{sight:?}");
            assert_eq!((report.sent_count, report.answered_count, report.socket.as_str()), (5, 5, socket), "{report:?}");
            assert_eq!((report.duplicate_count, report.corrupt_count, report.out_of_order_count, report.local_drop_count), (0, 0, 0, 0));
            assert_eq!(report.reply_hop_limit, 63, "one router on the way back from 64");
            let (latency, source) = sight.latency.unwrap();
            assert_eq!((source, sight.address), (TimingSource::Kernel, Some(address(&target))));
            assert!(latency > Duration::ZERO && latency < sight.duration, "{latency:?}");
            assert_eq!(report.min_round_trip, proto(latency));
            assert!(sight.duration < Duration::from_millis(NEVER / 2), "it ends when all are answered");
        }
    }
}

#[test]
fn a_reply_20_ms_later_is_20_ms_away() {
    let Some(row) = Row::of(2) else { return };
    let _target = Echoer::start(&row, 1, |request| vec![Message { after: Duration::from_millis(20), ..request }]);
    let (sight, report) = ping_in(&row, PingProbe { spacing: proto(Duration::from_millis(200)), ..ping("10.9.0.2", 3) });
    assert_eq!(verdict(&sight), PASSED, "{sight:?}");
    let taken: Vec<_> =
        report.requests.iter().map(|request| Duration::try_from(request.round_trip.unwrap()).unwrap().as_millis()).collect();
    assert!(taken.iter().all(|taken| *taken >= 20), "{taken:?}");
    // A busy machine may lengthen one, but not all.
    assert!(taken.iter().any(|taken| *taken < 100), "{taken:?}");
}

#[test]
fn one_lost_of_ten_passes_unless_the_limit_is_below() {
    let Some(row) = Row::of(2) else { return };
    let _target = Echoer::start(&row, 1, |request| if request.sequence == 4 { vec![] } else { vec![request] });
    let (sight, report) = run_within(&row, TIMEOUT, ping("10.9.0.2", 10));
    assert_eq!((verdict(&sight), report.sent_count, report.answered_count), (PASSED, 10, 9), "{sight:?}");
    assert_eq!(report.requests[4].round_trip, None);
    let (sight, _) = run_within(&row, TIMEOUT, PingProbe { max_loss_percent: Some(10.0), ..ping("10.9.0.2", 10) });
    assert_eq!(verdict(&sight), PASSED, "{sight:?}");
    let (sight, report) = run_within(&row, TIMEOUT, PingProbe { max_loss_percent: Some(9.9), ..ping("10.9.0.2", 10) });
    assert_eq!(verdict(&sight), (Outcome::Failed, Reason::TooLossy, Attribution::Target), "{sight:?}");
    assert_eq!((report.sent_count, report.answered_count), (10, 9));
}

#[test]
fn a_target_slower_than_the_limit_fails() {
    let Some(row) = Row::of(2) else { return };
    let _target = Echoer::start(&row, 1, |request| vec![Message { after: Duration::from_millis(20), ..request }]);
    let (sight, _) = ping_in(&row, PingProbe { max_latency: proto(Duration::from_millis(10)), ..ping("10.9.0.2", 1) });
    assert_eq!(verdict(&sight), (Outcome::Failed, Reason::TooSlow, Attribution::Target), "{sight:?}");
    let (sight, _) = ping_in(&row, PingProbe { max_latency: proto(Duration::from_secs(10)), ..ping("10.9.0.2", 1) });
    assert_eq!(verdict(&sight), PASSED, "{sight:?}");
}

#[test]
fn each_reply_twice_is_answered_once() {
    let Some(row) = Row::of(2) else { return };
    let _target = Echoer::start(&row, 1, |request| vec![request.clone(), request]);
    let (sight, report) = ping_in(&row, ping("10.9.0.2", 5));
    assert_eq!((verdict(&sight), report.answered_count), (PASSED, 5), "{sight:?}");
    // The last one's duplicate may come after the end.
    assert!((4..=5).contains(&report.duplicate_count), "{report:?}");
}

#[test]
fn replies_that_overtake_each_other_are_seen() {
    let Some(row) = Row::of(2) else { return };
    let held = std::sync::Mutex::new(None);
    let _target = Echoer::start(&row, 1, move |request| {
        if request.sequence == 0 {
            *held.lock().unwrap() = Some(request);
            return vec![];
        }
        let first = held.lock().unwrap().take();
        std::iter::once(request).chain(first).collect()
    });
    let (sight, report) = ping_in(&row, ping("10.9.0.2", 3));
    assert_eq!((verdict(&sight), report.answered_count, report.out_of_order_count), (PASSED, 3, 1), "{sight:?}");
}

#[test]
fn what_is_not_a_reply_to_this_request_does_not_count() {
    let Some(row) = Row::of(2) else { return };
    row.exec(1, "ip addr add 10.9.0.3/24 dev left");
    for datagram in [false, true] {
        if datagram {
            row.inside(0, async || std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap());
        }
        let wrongs: [Wrong; 4] = [
            ("identifier", |reply| reply.identifier = reply.identifier.wrapping_add(1)),
            // That of no request of the run.
            ("sequence", |reply| reply.sequence += 7),
            ("source", |reply| reply.source = Some(Ipv4Addr::new(10, 9, 0, 3))),
            ("payload", |reply| reply.payload.reverse()),
        ];
        for (what, wrong) in wrongs {
            let _target = Echoer::start(&row, 1, move |mut request| {
                wrong(&mut request);
                vec![request]
            });
            let (sight, report) = run_within(&row, 500, ping("10.9.0.2", 2));
            assert_eq!((verdict(&sight), report.sent_count, report.answered_count), (TIMED_OUT, 2, 0), "wrong {what}: {sight:?}");
            assert_eq!(report.corrupt_count, 0, "wrong {what}: {sight:?}");
        }
        let _target = Echoer::start(&row, 1, |mut request| {
            request.payload[40] ^= 0x20;
            vec![request]
        });
        let (sight, report) = run_within(&row, TIMEOUT, ping("10.9.0.2", 3));
        assert_eq!((report.answered_count, report.corrupt_count), (0, 3), "{sight:?}");
        assert_eq!((sight.outcome, sight.reason), (Outcome::Failed, Reason::MalformedAnswer), "{sight:?}");
    }
}

#[test]
fn a_flood_of_replies_costs_no_time_beyond_the_timeout() {
    let Some(row) = Row::of(2) else { return };
    let _target = Echoer::start(&row, 1, |mut request| {
        request.payload[40] ^= 0x20;
        vec![request; 20_000]
    });
    let (sight, report) = run_within(&row, TIMEOUT, ping("10.9.0.2", 1));
    // What did not fit into our own socket may have been a true reply: then it is not the target's fault.
    let reason = if report.local_drop_count > 0 { Reason::ResourceExhausted } else { Reason::MalformedAnswer };
    assert_eq!((sight.reason, report.answered_count), (reason, 0), "{sight:?}");
    assert!(report.corrupt_count > 100, "{report:?}");
}

#[test]
fn a_reply_after_the_timeout_is_credited_to_no_run() {
    let Some(row) = Row::of(2) else { return };
    let first = std::sync::atomic::AtomicBool::new(true);
    let _target = Echoer::start(&row, 1, move |request| {
        let late = first.swap(false, std::sync::atomic::Ordering::Relaxed);
        // The second run's request gets the first one's late reply and no other.
        if late { vec![Message { after: Duration::from_millis(TIMEOUT + 300), ..request }] } else { vec![] }
    });
    for _ in 0..2 {
        let (sight, report) = run_within(&row, TIMEOUT, ping("10.9.0.2", 1));
        assert_eq!((verdict(&sight), report.answered_count, report.corrupt_count), (TIMED_OUT, 0, 0), "{sight:?}");
        assert!(sight.latency.is_none());
    }
}

#[test]
fn a_reply_after_its_requests_time_is_late_and_no_answer() {
    let Some(row) = Row::of(2) else { return };
    // The replies to the first and second come in the time of the third.
    let _target = Echoer::start(&row, 1, |request| vec![Message { after: Duration::from_millis(100), ..request }]);
    let spec =
        PingProbe { spacing: proto(Duration::from_millis(150)), request_timeout: proto(Duration::from_millis(50)), ..ping("10.9.0.2", 3) };
    let (sight, report) = ping_in(&row, spec);
    assert_eq!(verdict(&sight), TIMED_OUT, "{sight:?}");
    assert_eq!((report.sent_count, report.answered_count, report.late_count), (3, 0, 2), "{report:?}");
    assert!(sight.duration < Duration::from_millis(NEVER / 2), "it ends with the last request's time");
}

#[test]
fn each_round_trip_says_who_stamped_it() {
    let Some(row) = Row::of(2) else { return };
    let (_, report) = ping_in(&row, ping("10.9.0.2", 3));
    assert!(report.requests.iter().all(|request| request.timing() == PingTiming::Kernel), "{report:?}");
    assert!(!report.clock_stepped);
}

#[test]
fn routers_that_refuse_are_named() {
    let Some(row) = Row::of(4) else { return };
    let refusals = [
        ("iptables -A FORWARD -p icmp -j REJECT --reject-with icmp-host-unreachable", Reason::Unreachable, 3, 1),
        ("iptables -A FORWARD -p icmp -j REJECT --reject-with icmp-admin-prohibited", Reason::Prohibited, 3, 13),
    ];
    for (rule, reason, kind, code) in refusals {
        row.exec(1, rule);
        let (sight, report) = ping_in(&row, ping("10.9.2.2", 3));
        assert_eq!(verdict(&sight), (Outcome::Failed, reason, Attribution::Path), "{sight:?}");
        assert!(sight.summary.contains("10.9.0.2"), "{}", sight.summary);
        assert_eq!((report.sent_count, report.answered_count, report.errors.len()), (3, 0, 3));
        assert!(
            report.errors.iter().all(|error| (error.from.as_str(), error.r#type, error.code) == ("10.9.0.2", kind, code)),
            "{report:?}"
        );
        assert!(sight.duration < Duration::from_millis(NEVER / 2), "it ends when all are refused");
        row.exec(1, "iptables -F FORWARD");
    }
    row.exec(1, "ip6tables -A FORWARD -p icmpv6 -j REJECT --reject-with icmp6-adm-prohibited");
    let (sight, report) = ping_in(&row, ping("fd09:2::2", 3));
    assert_eq!(verdict(&sight), (Outcome::Failed, Reason::Prohibited, Attribution::Path), "{sight:?}");
    assert_eq!((report.errors[0].from.as_str(), report.errors[0].r#type, report.errors[0].code), ("fd09::2", 1, 1));
    row.exec(1, "ip6tables -F FORWARD");

    for (target, router, kind) in [("10.9.2.2", "10.9.1.2", 11), ("fd09:2::2", "fd09:1::2", 3)] {
        for datagram in [false, true] {
            let range = if datagram { "0 2147483647" } else { "1 0" };
            row.inside(0, async || std::fs::write("/proc/sys/net/ipv4/ping_group_range", range).unwrap());
            let (sight, report) = ping_in(&row, PingProbe { hop_limit: 2, ..ping(target, 2) });
            assert_eq!(verdict(&sight), (Outcome::Failed, Reason::Unreachable, Attribution::Path), "{sight:?}");
            let error = &report.errors[0];
            assert_eq!((error.from.as_str(), error.r#type, error.code, error.meaning.as_str()), (router, kind, 0, "hop limit exceeded"));
            assert!(sight.summary.contains(router), "{}", sight.summary);
        }
    }
}

#[test]
fn a_neighbour_that_is_not_there_is_unreachable() {
    let Some(row) = Row::of(2) else { return };
    // The kernel asks the link three times, and then says itself that nobody is there.
    row.exec(0, "sysctl -qw net.ipv4.neigh.right.retrans_time_ms=200 net.ipv6.neigh.right.retrans_time_ms=200");
    for (target, own) in [("10.9.0.99", "10.9.0.1"), ("fd09::99", "fd09::1")] {
        let (sight, report) = ping_in(&row, ping(target, 2));
        assert_eq!(verdict(&sight), (Outcome::Failed, Reason::Unreachable, Attribution::Path), "{sight:?}");
        assert_eq!(report.errors[0].from, own);
    }
}

#[test]
fn a_target_that_refuses_is_itself_at_fault() {
    let Some(row) = Row::of(2) else { return };
    row.exec(1, "iptables -A INPUT -p icmp -j REJECT --reject-with icmp-admin-prohibited");
    let (sight, _) = ping_in(&row, ping("10.9.0.2", 1));
    assert_eq!(verdict(&sight), (Outcome::Failed, Reason::Prohibited, Attribution::Target), "{sight:?}");
}

#[test]
fn silence_is_a_timeout_that_keeps_to_the_millisecond() {
    let Some(row) = Row::of(2) else { return };
    row.exec(1, "sysctl -qw net.ipv4.icmp_echo_ignore_all=1 net.ipv6.icmp.echo_ignore_all=1");
    for target in row.target() {
        let (sight, report) = run_within(&row, TIMEOUT, ping(&target, 3));
        assert_eq!((verdict(&sight), report.sent_count, report.answered_count), (TIMED_OUT, 3, 0), "{sight:?}");
        assert!(sight.duration >= Duration::from_millis(TIMEOUT - 10), "{sight:?}");
        assert!(sight.summary.contains("no reply to 3 requests"), "{}", sight.summary);
    }
}

#[test]
fn no_way_out_is_our_own_fault() {
    let Some(row) = Row::of(2) else { return };
    row.exec(0, "ip route del default");
    row.exec(0, "ip -6 route del default");
    for target in ["192.0.2.1", "2001:db8::1"] {
        let (sight, report) = ping_in(&row, ping(target, 2));
        assert_eq!(verdict(&sight), (Outcome::Undetermined, Reason::LocalNetwork, Attribution::Vantage), "{sight:?}");
        assert_eq!(report.sent_count, 0);
    }
    row.exec(0, "iptables -A OUTPUT -p icmp -j DROP");
    let (sight, _) = ping_in(&row, ping("10.9.0.2", 2));
    assert_eq!(verdict(&sight), (Outcome::Undetermined, Reason::NotPermitted, Attribution::Vantage), "{sight:?}");
}

#[test]
fn a_hundred_checks_of_one_address_each_get_their_own_replies() {
    let Some(row) = Row::of(2) else { return };
    for range in ["1 0", "0 2147483647"] {
        row.inside(0, async || std::fs::write("/proc/sys/net/ipv4/ping_group_range", range).unwrap());
        let sights = row.inside(0, async || {
            let mut all = tokio::task::JoinSet::new();
            for _ in 0..100 {
                let probe = within(NEVER, Kind::Ping(PingProbe { spacing: proto(Duration::from_millis(50)), ..ping("10.9.0.2", 3) }));
                all.spawn(async move { run(&probe).await });
            }
            all.join_all().await
        });
        assert_eq!(sights.len(), 100);
        for sight in sights {
            let Some(Report::Ping(report)) = &sight.report else { panic!("{sight:?}") };
            assert_eq!((report.answered_count, report.duplicate_count, report.corrupt_count), (3, 0, 0), "{sight:?}");
        }
    }
}

#[test]
fn large_requests_are_cut_into_fragments_unless_that_is_forbidden() {
    let Some(row) = Row::of(3) else { return };
    for target in row.target() {
        let large = PingProbe { payload_size_bytes: 4000, ..ping(&target, 2) };
        let (sight, report) = ping_in(&row, large.clone());
        assert_eq!((verdict(&sight), report.answered_count), (PASSED, 2), "{sight:?}");
        let (sight, _) = ping_in(&row, PingProbe { dont_fragment: true, ..large });
        assert_eq!((sight.outcome, sight.reason), (Outcome::Failed, Reason::Unreachable), "{sight:?}");
        assert!(sight.summary.contains("MTU 1500"), "{}", sight.summary);
    }
    row.exec(1, "ip link set right mtu 1300");
    row.exec(2, "ip link set left mtu 1300");
    let (sight, report) = ping_in(&row, PingProbe { dont_fragment: true, payload_size_bytes: 1400, ..ping("10.9.1.2", 1) });
    assert_eq!(verdict(&sight), (Outcome::Failed, Reason::Unreachable, Attribution::Path), "{sight:?}");
    assert_eq!((report.errors[0].from.as_str(), report.errors[0].r#type, report.errors[0].code), ("10.9.0.2", 3, 4));
}

#[test]
fn hop_limit_and_code_point_are_those_of_the_check() {
    let Some(row) = Row::of(2) else { return };
    // Counted by the target's own firewall: exactly these packets.
    row.exec(1, "iptables -A INPUT -p icmp -m ttl --ttl-eq 7 -m dscp --dscp 46 -j ACCEPT");
    row.exec(1, "iptables -A INPUT -p icmp -j DROP");
    let (sight, _) = ping_in(&row, PingProbe { hop_limit: 7, dscp: 46, ..ping("10.9.0.2", 2) });
    assert_eq!(verdict(&sight), PASSED, "{sight:?}");
    let (sight, _) = run_within(&row, TIMEOUT, ping("10.9.0.2", 2));
    assert_eq!(verdict(&sight), TIMED_OUT, "{sight:?}");
}

#[test]
fn the_source_address_is_the_one_of_the_check() {
    let Some(row) = Row::of(2) else { return };
    row.exec(0, "ip addr add 10.9.0.77/24 dev right");
    let other = Probe { source_address: "10.9.0.77".into(), ..within(NEVER, Kind::Ping(ping("10.9.0.2", 1))) };
    row.exec(1, "iptables -A INPUT -p icmp ! -s 10.9.0.77 -j DROP");
    let sight = row.inside(0, async || run(&other).await);
    assert_eq!(verdict(&sight), PASSED, "{sight:?}");
    let foreign = Probe { source_address: "192.0.2.7".into(), ..other };
    let sight = row.inside(0, async || run(&foreign).await);
    assert_eq!(verdict(&sight), (Outcome::Undetermined, Reason::LocalNetwork, Attribution::Vantage), "{sight:?}");
}

#[test]
fn without_echo_sockets_the_sentence_names_both_cures() {
    let Some(row) = Row::of(2) else { return };
    // A user namespace of its own: whoever is in there is nobody to the network namespace outside.
    let output = std::process::Command::new("ip")
        .args(["netns", "exec", row.name(0), "unshare", "--user"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "ping::nobody_pings", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
#[ignore = "run by without_echo_sockets_the_sentence_names_both_cures, as nobody"]
async fn nobody_pings() {
    for target in ["127.0.0.1", "::1"] {
        let sight = run(&Probe { address_family: AddressFamily::Unspecified.into(), ..within(TIMEOUT, Kind::Ping(ping(target, 1))) }).await;
        assert_eq!(verdict(&sight), (Outcome::Undetermined, Reason::NotPermitted, Attribution::Vantage), "{sight:?}");
        assert!(sight.summary.contains("net.ipv4.ping_group_range") && sight.summary.contains("cap_net_raw"), "{}", sight.summary);
    }
    for (method, outcome) in [
        (TracerouteMethod::Icmp, Outcome::Undetermined),
        (TracerouteMethod::Udp, Outcome::Passed),
        (TracerouteMethod::Tcp, Outcome::Passed),
    ] {
        let port = if method == TracerouteMethod::Icmp { 0 } else { 1 };
        let trace = TracerouteProbe { host: "127.0.0.1".into(), method: method.into(), port, ..TracerouteProbe::default() };
        let sight = run(&within(TIMEOUT, Kind::Traceroute(trace))).await;
        assert_eq!(sight.outcome, outcome, "{sight:?}");
    }
    let capability = vantage_probes::net::capability::echo_capability();
    assert_eq!(capability.traceroute_methods(), ["udp", "tcp"]);
    assert!(!capability.v4() && !capability.v6() && capability.cure().is_some());
}
