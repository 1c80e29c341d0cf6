//! Traceroute over paths of our own.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hickory_proto::{
    op::ResponseCode,
    rr::{
        Name, RData,
        rdata::{CNAME, PTR},
    },
};
use vantage_contract::v1::{
    Attribution, MplsLabel, Outcome, Probe, Reason, TimingSource, TracerouteHop, TracerouteMethod, TracerouteProbe, TracerouteReport,
    probe::Kind, probe_result::Report,
};
use vantage_probes::{Destination, Gate, OpenGate, Sight, World};

use crate::lab::{
    dns::{Asked, DnsServer},
    netns::Row,
    probe::{Verdict as _, address, run, run_behind, run_in, within},
    tunnel::{Told, Tunnel},
    udp::UdpServer,
};

const TIMEOUT: u64 = 5000;
const METHODS: [TracerouteMethod; 3] = [TracerouteMethod::Icmp, TracerouteMethod::Udp, TracerouteMethod::Tcp];
const PASSED: (Outcome, Reason, Attribution) = (Outcome::Passed, Reason::Unspecified, Attribution::Unspecified);

fn trace(host: &str, method: TracerouteMethod) -> TracerouteProbe {
    let attempt_timeout = prost_types::Duration::try_from(Duration::from_millis(300)).ok();
    TracerouteProbe { host: host.into(), method: method.into(), attempts: 2, max_hops: 10, attempt_timeout, ..TracerouteProbe::default() }
}

fn trace_in(row: &Row, spec: TracerouteProbe) -> (Sight, TracerouteReport) {
    let (_, sight, report) = traces_in(row, vec![spec]).remove(0);
    (sight, report)
}

/// Traces all at once.
fn traces_in(row: &Row, specs: Vec<TracerouteProbe>) -> Vec<(TracerouteProbe, Sight, TracerouteReport)> {
    let traced = row.inside(0, async || {
        let mut all = tokio::task::JoinSet::new();
        for spec in specs {
            all.spawn(async move { (spec.clone(), run(&within(TIMEOUT, Kind::Traceroute(spec))).await) });
        }
        all.join_all().await
    });
    let with_report = |(spec, sight): (TracerouteProbe, Sight)| {
        let Some(Report::Traceroute(report)) = sight.report.clone() else { panic!("{sight:?}") };
        for (number, hop) in (1..).zip(&report.hops) {
            assert_eq!((hop.hop_limit, hop.answered_count as usize), (number, hop.answers.len()));
            assert!(hop.sent_count >= hop.answered_count);
        }
        (spec, sight, *report)
    };
    traced.into_iter().map(with_report).collect()
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

/// The name that is asked for.
fn question(asked: &Asked) -> String {
    asked.message.queries[0].name().to_ascii()
}

fn pointer(name: &str) -> RData {
    RData::PTR(PTR(name.parse().unwrap()))
}

/// Forbids one port.
struct NoPort(u16);

impl Gate for NoPort {
    fn permit(&self, destination: Destination) -> Result<(), String> {
        if destination.port == Some(self.0) { Err("the port is forbidden".into()) } else { Ok(()) }
    }
}

/// Every method to each address of the target.
fn everyway(row: &Row) -> Vec<(String, TracerouteMethod)> {
    row.target().iter().flat_map(|target| METHODS.map(|method| (target.clone(), method))).collect()
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
                assert_eq!(report.socket, if method == TracerouteMethod::Icmp { socket } else { "error_queue" });
                assert_eq!(format!("TRACEROUTE_METHOD_{}", report.method.to_uppercase()), method.as_str_name());
                for answer in report.hops.iter().flat_map(|hop| &hop.answers) {
                    let taken = Duration::try_from(answer.round_trip.unwrap()).unwrap();
                    assert!(taken > Duration::ZERO && taken < sight.duration, "{taken:?}: {sight:?}");
                }
                let (latency, source) = sight.latency.unwrap();
                assert!(latency < sight.duration);
                // A reset has no stamp.
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
    assert_eq!(sight.latency.map(|(_, source)| source), Some(TimingSource::Kernel), "from the SYN to its SYN-ACK");
    assert_eq!(row.exec(0, "ss -Htan"), "", "no connection stays behind");
    drop(listener);
}

#[test]
fn a_silent_hop_is_present_and_empty_and_waited_for_once() {
    let Some(row) = Row::of(5) else { return };
    row.exec(2, "iptables -A OUTPUT -p icmp --icmp-type time-exceeded -j DROP");
    row.exec(2, "ip6tables -A OUTPUT -p icmpv6 --icmpv6-type time-exceeded -j DROP");
    for socket in ["raw", "datagram"] {
        if socket == "datagram" {
            allow_datagram(&row);
        }
        // The wait that is needed is two seconds; the machine may be busy otherwise, but not for a fifth of it.
        let wait = Duration::from_secs(2);
        let attempt_timeout = prost_types::Duration::try_from(wait).ok();
        let specs =
            everyway(&row).into_iter().map(|(target, method)| TracerouteProbe { attempts: 3, attempt_timeout, ..trace(&target, method) });
        for (spec, sight, report) in traces_in(&row, specs.collect()) {
            assert_eq!(verdict(&sight), PASSED, "{sight:?}");
            let mut hops = hops_to(&spec.host, 5);
            hops[1] = "*".into();
            assert_eq!(path(&report.hops), hops, "{sight:?}");
            let counts: Vec<_> = report.hops.iter().map(|hop| (hop.sent_count, hop.answered_count)).collect();
            assert_eq!(counts, [(3, 3), (3, 0), (3, 3), (3, 3)], "{sight:?}");
            assert!(sight.duration >= wait && sight.duration <= wait.mul_f64(1.2), "{sight:?}");
        }
    }
}

#[test]
fn a_silent_target_times_out_with_the_hops_known_so_far() {
    let Some(row) = Row::of(4) else { return };
    row.exec(3, "iptables -A INPUT -j DROP");
    // All but what finds neighbours.
    for what in ["udp", "tcp", "icmpv6 --icmpv6-type echo-request"] {
        row.exec(3, &format!("ip6tables -A INPUT -p {what} -j DROP"));
    }
    for (target, method) in everyway(&row) {
        let (sight, report) = trace_in(&row, trace(&target, method));
        assert_eq!(verdict(&sight), (Outcome::Failed, Reason::TimedOut, Attribution::Target), "{method:?} {sight:?}");
        assert_eq!((report.reached, report.hop_count, report.hops.len()), (false, 2, 10), "{method:?} {report:?}");
        let hops = hops_to(&target, 4);
        assert_eq!(path(&report.hops[..3]), [hops[0].as_str(), &hops[1], "*"]);
        assert!(sight.summary.contains(&format!("{} at hop 2", hops[1])), "{}", sight.summary);
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
    row.exec(2, "ip route add fd09:3::/64 via fd09:1::1");
    for (target, method) in everyway(&row) {
        let (sight, report) = trace_in(&row, trace(&target, method));
        assert_eq!(verdict(&sight), (Outcome::Failed, Reason::Unreachable, Attribution::Path), "{method:?} {sight:?}");
        assert_eq!(report.hops.len(), 10, "it ends with the largest hop limit");
        let told = [format!("{} at hops 1", hops_to(&target, 5)[0]), format!("{} at hops 2, 4", hops_to(&target, 5)[1])];
        assert!(told.iter().any(|told| sight.summary.contains(told)), "{}", sight.summary);
    }
}

#[test]
fn a_target_beyond_the_largest_hop_limit_is_not_reached() {
    let Some(row) = Row::of(5) else { return };
    for (target, method) in everyway(&row) {
        let (sight, report) = trace_in(&row, TracerouteProbe { max_hops: 2, ..trace(&target, method) });
        assert_eq!(verdict(&sight), (Outcome::Failed, Reason::Unreachable, Attribution::Path), "{method:?} {sight:?}");
        assert_eq!(path(&report.hops), hops_to(&target, 5)[..2]);
        assert!(sight.summary.contains("not reached within 2 hops"), "{}", sight.summary);
    }
}

#[test]
fn a_router_that_answers_one_in_two_shows_loss_at_its_hop_alone() {
    let Some(row) = Row::of(5) else { return };
    for rule in ["iptables -A OUTPUT -p icmp --icmp-type", "ip6tables -A OUTPUT -p icmpv6 --icmpv6-type"] {
        row.exec(2, &format!("{rule} time-exceeded -m statistic --mode nth --every 2 --packet 0 -j DROP"));
    }
    for (target, method) in everyway(&row) {
        let (sight, report) = trace_in(&row, TracerouteProbe { attempts: 4, ..trace(&target, method) });
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
fn systems_that_limit_their_errors_as_linux_does_by_itself_answer_every_datagram_that_counts() {
    let Some(row) = Row::of(5) else { return };
    for node in 1..5 {
        row.exec(node, "sysctl -qw net.ipv4.icmp_ratelimit=1000 net.ipv6.icmp.ratelimit=1000");
    }
    for target in row.target() {
        let (sight, report) = trace_in(&row, TracerouteProbe { attempts: 3, ..trace(&target, TracerouteMethod::Udp) });
        assert_eq!(verdict(&sight), PASSED, "{sight:?}");
        assert!(report.hops.iter().all(|hop| (hop.sent_count, hop.answered_count) == (3, 3)), "{sight:?}");
    }
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
fn routers_of_a_tunnel_tell_their_labels_to_every_method() {
    let Some(row) = Row::of(5) else { return };
    let labels = |hop: &TracerouteHop| {
        let told = |label: &MplsLabel| (label.label, label.traffic_class, label.bottom_of_stack, label.ttl);
        let all: Vec<Vec<_>> = hop.answers.iter().map(|answer| answer.mpls_labels.iter().map(told).collect()).collect();
        assert!(all.windows(2).all(|two| two[0] == two[1]), "{hop:?}");
        all.into_iter().next().unwrap_or_default()
    };
    for (socket, told) in [("raw", Told::InHeader), ("raw", Told::Nowhere), ("datagram", Told::InHeader), ("datagram", Told::Nowhere)] {
        if socket == "datagram" {
            allow_datagram(&row);
        }
        let _tunnel = Tunnel::at(&row, 2, told);
        for (target, method) in everyway(&row) {
            let (sight, report) = trace_in(&row, trace(&target, method));
            assert_eq!((verdict(&sight), path(&report.hops)), (PASSED, hops_to(&target, 5)), "{method:?} {sight:?}");
            let stack = vec![(16001, 5, false, 1), (299_776, 0, true, 1)];
            assert_eq!(report.hops.iter().map(labels).collect::<Vec<_>>(), [vec![], stack, vec![], vec![]], "{socket} {method:?}");
        }
    }
}

#[test]
fn hops_have_the_names_that_the_checks_resolver_knows() {
    let Some(row) = Row::of(5) else { return };
    row.inside(0, async || {
        let hostile = RData::PTR(PTR(Name::from_labels([&b"a\nb\x1b[31m"[..], b"test"]).unwrap()));
        let server = DnsServer::honest(move |asked| match question(asked).as_str() {
            "2.0.9.10.in-addr.arpa." => asked.with(&[("2.0.9.10.in-addr.arpa.", 60, pointer("first.test."))]),
            // As shared networks have it (RFC 2317).
            "2.1.9.10.in-addr.arpa." => {
                let alias = RData::CNAME(CNAME("2.0-7.1.9.10.in-addr.arpa.".parse().unwrap()));
                asked.with(&[("2.1.9.10.in-addr.arpa.", 60, alias), ("2.0-7.1.9.10.in-addr.arpa.", 60, pointer("second.test."))])
            }
            "2.2.9.10.in-addr.arpa." => asked.with(&[("2.2.9.10.in-addr.arpa.", 60, hostile.clone())]),
            _ => asked.refused_as(ResponseCode::NXDomain),
        })
        .await;
        let world = World::new(Arc::new(OpenGate));
        let named = Probe {
            resolver: server.address.to_string(),
            ..within(TIMEOUT, Kind::Traceroute(TracerouteProbe { hop_names: true, ..trace("10.9.3.2", METHODS[1]) }))
        };
        for _ in 0..2 {
            let Report::Traceroute(report) = run_in(&named, &world).await.passed() else { panic!() };
            let names: Vec<_> = report.hops.iter().map(|hop| hop.answers[0].name.as_str()).collect();
            assert_eq!(names, ["first.test.", "second.test.", "a\\010b\\027[31m.test.", ""]);
        }
        assert_eq!(server.asked(), 4, "names, and that there is none, are kept");

        // Not asked for, nobody is asked.
        let plain = Probe { kind: Some(Kind::Traceroute(trace("10.9.3.2", METHODS[1]))), ..named };
        let Report::Traceroute(report) = run(&plain).await.passed() else { panic!() };
        assert!(report.hops.iter().flat_map(|hop| &hop.answers).all(|answer| answer.name.is_empty()));
        assert_eq!(server.asked(), 4);
    });
}

#[test]
fn names_that_do_not_come_cost_a_second_and_no_verdict() {
    let Some(row) = Row::of(3) else { return };
    row.inside(0, async || {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let silent = UdpServer::start(move |_, _| {
            counter.fetch_add(1, Ordering::Relaxed);
            Vec::new()
        })
        .await;
        let named = |millis, server: std::net::SocketAddr| Probe {
            resolver: server.to_string(),
            ..within(millis, Kind::Traceroute(TracerouteProbe { hop_names: true, ..trace("10.9.1.2", METHODS[1]) }))
        };
        let sight = run(&named(TIMEOUT, silent.address)).await;
        assert!(sight.duration >= Duration::from_millis(900) && sight.duration < Duration::from_secs(2), "{sight:?}");
        assert!(sight.latency.unwrap().0 < Duration::from_millis(500));
        sight.passed();
        // What is left of the timeout is less.
        let sight = run(&named(500, silent.address)).await;
        assert!(sight.duration <= Duration::from_millis(550), "{sight:?}");
        sight.passed();
        let count = asked.load(Ordering::Relaxed);
        // A server that the policy forbids is not asked, and neither is the path.
        let sight = run_behind(&named(TIMEOUT, silent.address), Arc::new(NoPort(silent.address.port()))).await;
        sight.because(Reason::PolicyDenied);
        assert_eq!(asked.load(Ordering::Relaxed), count);
    });
}

#[test]
fn two_hundred_traces_at_once_do_not_disturb_each_other() {
    let Some(row) = Row::of(5) else { return };
    for socket in ["raw", "datagram"] {
        if socket == "datagram" {
            allow_datagram(&row);
        }
        let spec = |number: usize| {
            let target = &row.target()[number % 2];
            TracerouteProbe { attempt_timeout: None, attempts: 3, ..trace(target, METHODS[number / 2 % 3]) }
        };
        for (spec, sight, report) in traces_in(&row, (0..200).map(spec).collect()) {
            assert_eq!((verdict(&sight), path(&report.hops)), (PASSED, hops_to(&spec.host, 5)), "{sight:?}");
            for hop in &report.hops {
                assert_eq!((hop.sent_count, hop.answered_count), (3, 3), "{socket}: {sight:?}");
                assert!(hop.answers.iter().all(|answer| answer.address == hop.answers[0].address), "{socket}: {sight:?}");
            }
        }
    }
}
