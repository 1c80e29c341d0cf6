//! Traceroute over paths of our own.

use std::{net::IpAddr, time::Duration};

use vantage_contract::v1::{
    Attribution, Outcome, Reason, TimingSource, TracerouteHop, TracerouteMethod, TracerouteProbe, TracerouteReport, probe::Kind,
    probe_result::Report,
};
use vantage_probes::Sight;

use crate::lab::{
    netns::Row,
    probe::{address, run, within},
};

const TIMEOUT: u64 = 5000;
const METHODS: [TracerouteMethod; 3] = [TracerouteMethod::Icmp, TracerouteMethod::Udp, TracerouteMethod::Tcp];
const PASSED: (Outcome, Reason, Attribution) = (Outcome::Passed, Reason::Unspecified, Attribution::Unspecified);

fn trace(host: &str, method: TracerouteMethod) -> TracerouteProbe {
    let attempt_timeout = prost_types::Duration::try_from(Duration::from_millis(300)).ok();
    TracerouteProbe { host: host.into(), method: method.into(), attempts: 2, max_hops: 10, attempt_timeout, ..TracerouteProbe::default() }
}

fn trace_in(row: &Row, spec: TracerouteProbe) -> (Sight, TracerouteReport) {
    let sight = row.inside(0, async || run(&within(TIMEOUT, Kind::Traceroute(spec))).await);
    let Some(Report::Traceroute(report)) = sight.report.clone() else { panic!("{sight:?}") };
    for (number, hop) in (1..).zip(&report.hops) {
        assert_eq!((hop.hop_limit, hop.answered_count as usize), (number, hop.answers.len()));
        assert!(hop.sent_count >= hop.answered_count);
    }
    (sight, report)
}

fn verdict(sight: &Sight) -> (Outcome, Reason, Attribution) {
    (sight.outcome, sight.reason, sight.attribution)
}

/// The addresses of each hop, "*" for a silent one.
fn path(hops: &[TracerouteHop]) -> Vec<String> {
    hops.iter().map(|hop| hop.answers.first().map_or("*".into(), |answer| answer.address.clone())).collect()
}

/// Which hops a path from node 0 has, by the first network of each link.
fn hops_to(target: &str, nodes: usize) -> Vec<String> {
    let six = address(target).is_ipv6();
    let at = |link: usize| if six { format!("fd09:{link}::2") } else { format!("10.9.{link}.2") };
    (0..nodes - 1).map(|link| at(link).parse::<IpAddr>().unwrap().to_string()).collect()
}

fn allow_datagram(row: &Row) {
    row.inside(0, async || std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap());
}

#[test]
fn three_routers_and_the_target_are_four_hops_by_every_method_over_both_families() {
    let Some(row) = Row::of(5) else { return };
    let mut hashes = Vec::new();
    for socket in ["raw", "datagram"] {
        if socket == "datagram" {
            allow_datagram(&row);
        }
        for target in row.target() {
            for method in METHODS {
                let (sight, report) = trace_in(&row, trace(&target, method));
                assert_eq!(verdict(&sight), PASSED, "{method:?} {sight:?}");
                assert_eq!(path(&report.hops), hops_to(&target, 5), "{method:?} {sight:?}");
                assert_eq!((report.reached, report.hop_count), (true, 4));
                assert!(report.hops.iter().all(|hop| (hop.sent_count, hop.answered_count) == (2, 2)), "{method:?} {report:?}");
                assert_eq!(format!("TRACEROUTE_METHOD_{}", report.method.to_uppercase()), method.as_str_name());
                for answer in report.hops.iter().flat_map(|hop| &hop.answers) {
                    let taken = Duration::try_from(answer.round_trip.unwrap()).unwrap();
                    assert!(taken > Duration::ZERO && taken < sight.duration, "{taken:?}: {sight:?}");
                }
                let (latency, source) = sight.latency.unwrap();
                assert!(latency < sight.duration);
                assert_eq!(source, if method == TracerouteMethod::Tcp { TimingSource::User } else { TimingSource::Kernel });
                assert!(sight.duration < Duration::from_millis(TIMEOUT / 2), "it ends when the target and all before it have answered");
                hashes.push((address(&target).is_ipv6(), report.path_hash));
            }
        }
    }
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), 2, "one path in each family: {hashes:?}");
}

#[test]
fn an_open_port_answers_a_tcp_trace_and_is_left_at_once() {
    let Some(row) = Row::of(3) else { return };
    let target = row.target()[0].clone();
    let listener = row.inside(2, async || std::net::TcpListener::bind((target.as_str(), 8080)).unwrap());
    let (sight, report) = trace_in(&row, TracerouteProbe { port: 8080, ..trace(&target, TracerouteMethod::Tcp) });
    assert_eq!((verdict(&sight), report.hop_count), (PASSED, 2), "{sight:?}");
    assert!(report.hops[1].answers.iter().all(|answer| answer.error.is_none()));
    assert_eq!(row.exec(0, "ss -Htan"), "", "no connection stays behind");
    drop(listener);
}

#[test]
fn a_silent_hop_is_present_and_empty() {
    let Some(row) = Row::of(5) else { return };
    row.exec(2, "iptables -A OUTPUT -p icmp --icmp-type time-exceeded -j DROP");
    for method in METHODS {
        let (sight, report) = trace_in(&row, trace("10.9.3.2", method));
        assert_eq!(verdict(&sight), PASSED, "{sight:?}");
        assert_eq!(path(&report.hops), ["10.9.0.2", "*", "10.9.2.2", "10.9.3.2"], "{method:?}");
        assert_eq!((report.hops[1].sent_count, report.hops[1].answered_count), (2, 0));
    }
}

#[test]
fn a_silent_target_times_out_with_the_hops_known_so_far() {
    let Some(row) = Row::of(4) else { return };
    row.exec(3, "iptables -A INPUT -j DROP");
    for method in METHODS {
        let (sight, report) = trace_in(&row, trace("10.9.2.2", method));
        assert_eq!(verdict(&sight), (Outcome::Failed, Reason::TimedOut, Attribution::Target), "{method:?} {sight:?}");
        assert_eq!((report.reached, report.hop_count, report.hops.len()), (false, 2, 10), "{method:?} {report:?}");
        assert_eq!(path(&report.hops[..3]), ["10.9.0.2", "10.9.1.2", "*"]);
        assert!(sight.summary.contains("10.9.1.2 at hop 2"), "{}", sight.summary);
    }
    // The timeout comes before the largest hop limit.
    let slow =
        TracerouteProbe { attempt_timeout: prost_types::Duration::try_from(Duration::from_secs(10)).ok(), ..trace("10.9.2.2", METHODS[0]) };
    let sight = row.inside(0, async || run(&within(500, Kind::Traceroute(slow))).await);
    let Some(Report::Traceroute(report)) = &sight.report else { panic!("{sight:?}") };
    assert_eq!((sight.reason, report.hop_count), (Reason::TimedOut, 2), "{sight:?}");
    assert!(sight.summary.contains("10.9.1.2 at hop 2"), "{}", sight.summary);
}

#[test]
fn a_router_that_refuses_ends_the_path_at_its_hop() {
    let Some(row) = Row::of(5) else { return };
    for (rule, reason, code) in [("icmp-host-unreachable", Reason::Unreachable, 1), ("icmp-admin-prohibited", Reason::Prohibited, 13)] {
        row.exec(2, &format!("iptables -A FORWARD -s 10.9.0.1 -j REJECT --reject-with {rule}"));
        for method in METHODS {
            let (sight, report) = trace_in(&row, trace("10.9.3.2", method));
            assert_eq!(verdict(&sight), (Outcome::Failed, reason, Attribution::Path), "{method:?} {sight:?}");
            assert!(sight.summary.contains("hop 3") && sight.summary.contains("10.9.1.2"), "{}", sight.summary);
            assert_eq!(path(&report.hops), ["10.9.0.2", "10.9.1.2", "10.9.1.2"], "{method:?}");
            let error = report.hops[2].answers[0].error.clone().unwrap();
            assert_eq!((error.r#type, error.code), (3, code));
            assert!(!report.reached);
        }
        row.exec(2, "iptables -F FORWARD");
    }
    row.exec(2, "ip6tables -A FORWARD -s fd09:0::1 -j REJECT --reject-with icmp6-adm-prohibited");
    for method in METHODS {
        let (sight, _) = trace_in(&row, trace("fd09:3::2", method));
        assert_eq!(verdict(&sight), (Outcome::Failed, Reason::Prohibited, Attribution::Path), "{method:?} {sight:?}");
    }
}

#[test]
fn a_routing_loop_ends_and_is_told() {
    let Some(row) = Row::of(5) else { return };
    // Node 2 sends what is for the target back to node 1.
    row.exec(2, "ip route add 10.9.3.0/24 via 10.9.1.1");
    for method in METHODS {
        let (sight, report) = trace_in(&row, trace("10.9.3.2", method));
        assert_eq!(verdict(&sight), (Outcome::Failed, Reason::Unreachable, Attribution::Path), "{method:?} {sight:?}");
        assert_eq!(report.hops.len(), 10, "it ends with the largest hop limit");
        assert!(sight.summary.contains("10.9.0.2 at hops 1") || sight.summary.contains("10.9.1.2 at hops 2, 4"), "{}", sight.summary);
    }
}

#[test]
fn a_target_beyond_the_largest_hop_limit_is_not_reached() {
    let Some(row) = Row::of(5) else { return };
    for method in METHODS {
        let (sight, report) = trace_in(&row, TracerouteProbe { max_hops: 2, ..trace("10.9.3.2", method) });
        assert_eq!(verdict(&sight), (Outcome::Failed, Reason::Unreachable, Attribution::Path), "{method:?} {sight:?}");
        assert_eq!(path(&report.hops), ["10.9.0.2", "10.9.1.2"]);
        assert!(sight.summary.contains("not reached within 2 hops"), "{}", sight.summary);
    }
}

#[test]
fn a_router_that_answers_one_in_two_shows_loss_at_its_hop_alone() {
    let Some(row) = Row::of(5) else { return };
    row.exec(2, "iptables -A OUTPUT -p icmp --icmp-type time-exceeded -m statistic --mode nth --every 2 --packet 0 -j DROP");
    for method in METHODS {
        let (sight, report) = trace_in(&row, TracerouteProbe { attempts: 4, ..trace("10.9.3.2", method) });
        assert_eq!(verdict(&sight), PASSED, "{method:?} {sight:?}");
        assert_eq!(report.hops.iter().map(|hop| hop.answered_count).collect::<Vec<_>>(), [4, 2, 4, 4], "{method:?} {report:?}");
    }
}

#[test]
fn a_target_that_refuses_the_port_has_answered() {
    let Some(row) = Row::of(3) else { return };
    // What a firewall on the target says to a SYN by default is port unreachable, and it comes from the target.
    row.exec(2, "iptables -A INPUT -p tcp -j REJECT");
    let (sight, report) = trace_in(&row, trace("10.9.1.2", TracerouteMethod::Tcp));
    assert_eq!((verdict(&sight), report.hop_count), (PASSED, 2), "{sight:?}");
    row.exec(2, "iptables -F INPUT");
    row.exec(2, "iptables -A INPUT -p udp -j REJECT --reject-with icmp-admin-prohibited");
    let (sight, _) = trace_in(&row, trace("10.9.1.2", TracerouteMethod::Udp));
    assert_eq!(verdict(&sight), (Outcome::Failed, Reason::Prohibited, Attribution::Target), "{sight:?}");
}

#[test]
fn no_way_out_is_our_own_fault() {
    let Some(row) = Row::of(2) else { return };
    row.exec(0, "ip route del default");
    for method in METHODS {
        let (sight, report) = trace_in(&row, trace("192.0.2.1", method));
        assert_eq!(verdict(&sight), (Outcome::Undetermined, Reason::LocalNetwork, Attribution::Vantage), "{method:?} {sight:?}");
        assert_eq!(report.hops.len(), 0);
    }
}

#[test]
fn fifty_traces_at_once_do_not_disturb_each_other() {
    let Some(row) = Row::of(4) else { return };
    allow_datagram(&row);
    let sights = row.inside(0, async || {
        let mut all = tokio::task::JoinSet::new();
        for number in 0..50 {
            let spec = TracerouteProbe { attempt_timeout: None, ..trace("10.9.2.2", METHODS[number % 3]) };
            let probe = within(TIMEOUT, Kind::Traceroute(spec));
            all.spawn(async move { run(&probe).await });
        }
        all.join_all().await
    });
    for sight in sights {
        let Some(Report::Traceroute(report)) = &sight.report else { panic!("{sight:?}") };
        assert_eq!((verdict(&sight), path(&report.hops)), (PASSED, hops_to("10.9.2.2", 4)), "{sight:?}");
    }
}
