//! All addresses of a name: each probed at the same time, with a sub-result of its own.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use vantage_contract::v1::{
    AddressFamily, AddressSelection, Attribution, DnsProbe, HttpProbe, NtpProbe, Outcome, PingProbe, Probe, Reason, TcpProbe,
    TracerouteProbe, UdpProbe, probe::Kind,
};
use vantage_probes::{Destination, Gate, Sight};

use crate::lab::{
    dns::{DnsServer, a, aaaa, bytes},
    http::{Requests, Server, finish, ok, read_request, redirect},
    netns::Row,
    ntp::in_step,
    place::Closed,
    probe::{address, assert_ended_by_the_timeout, probe, run, run_behind, within},
    process::{MANAGER, MONITOR, run as start, write},
    tls::{Authority, Leaf},
    udp::{ClosedPort, UdpServer},
};

const PASSED: (Outcome, Reason, Attribution) = (Outcome::Passed, Reason::Unspecified, Attribution::Unspecified);
const REFUSED: (Outcome, Reason, Attribution) = (Outcome::Failed, Reason::Refused, Attribution::Target);
const NOT_RESOLVED: (Outcome, Reason, Attribution) = (Outcome::Failed, Reason::NameNotResolved, Attribution::Resolver);

/// A probe of all addresses that this resolver has, of which so many are required.
fn all(require: &str, resolver: SocketAddr, kind: Kind) -> Probe {
    let addresses = AddressSelection::All.into();
    Probe { addresses, require: require.into(), resolver: resolver.to_string(), ..probe(kind) }
}

fn tcp(port: u16) -> Kind {
    Kind::Tcp(TcpProbe { host: "host.test".into(), port: port.into(), ..TcpProbe::default() })
}

fn udp(port: u16) -> Kind {
    Kind::Udp(UdpProbe { host: "host.test".into(), port: port.into(), ..UdpProbe::default() })
}

fn verdict(sight: &Sight) -> (Outcome, Reason, Attribution) {
    (sight.outcome, sight.reason, sight.attribution)
}

/// The sub-results: addresses and outcomes.
fn subs(sight: &Sight) -> Vec<(String, Outcome)> {
    sight.addresses.iter().map(|sub| (sub.address.unwrap().to_string(), sub.outcome)).collect()
}

fn phases(sight: &Sight) -> Vec<&'static str> {
    sight.phases.iter().map(|(phase, _)| phase.name()).collect()
}

/// A TCP server on 127.0.0.1, and the same port of 127.0.0.2, where nobody listens.
async fn one_alive_one_dead() -> (Server, Closed) {
    loop {
        let server = Server::start(|_, _| async {}).await;
        if let Ok(closed) = Closed::at(SocketAddr::new(address("127.0.0.2"), server.address.port())) {
            return (server, closed);
        }
    }
}

#[tokio::test]
async fn of_two_addresses_one_of_them_dead_so_many_pass_as_required() {
    let (server, _closed) = one_alive_one_dead().await;
    let kind = || tcp(server.address.port());
    for (addresses, first) in [(["127.0.0.1", "127.0.0.2"], PASSED), (["127.0.0.2", "127.0.0.1"], REFUSED)] {
        let resolver = DnsServer::zone(&[("host.test.", &addresses)]).await;
        let sight = run(&Probe { resolver: resolver.address.to_string(), ..probe(kind()) }).await;
        assert_eq!((verdict(&sight), sight.address, sight.addresses.len()), (first, Some(address(addresses[0])), 0), "{sight:?}");
        for (require, expected) in [("", REFUSED), ("all", REFUSED), ("any", PASSED), ("1", PASSED), ("2", REFUSED), ("3", NOT_RESOLVED)] {
            let sight = run(&all(require, resolver.address, kind())).await;
            assert_eq!(verdict(&sight), expected, "{require:?}: {sight:?}");
            let outcomes = addresses.map(|address| if address == "127.0.0.1" { Outcome::Passed } else { Outcome::Failed });
            assert_eq!(subs(&sight), [(addresses[0].into(), outcomes[0]), (addresses[1].into(), outcomes[1])]);
            assert!(sight.address.is_none() && sight.report.is_none(), "they belong to the sub-results");
            assert_eq!(phases(&sight), ["resolve", "wait"]);
            let living = sight.addresses.iter().find(|sub| sub.outcome == Outcome::Passed).unwrap();
            assert_eq!(sight.latency, living.latency.filter(|_| expected == PASSED));
            assert!(sight.summary.starts_with("1 of 2 addresses passed"), "{}", sight.summary);
            // Where too few there are, no target is to blame.
            assert_eq!(sight.summary.contains("127.0.0.2: connect to 127.0.0.2:"), expected != NOT_RESOLVED, "{}", sight.summary);
        }
    }
}

#[tokio::test]
async fn an_address_is_its_own_only_address() {
    let (server, _closed) = one_alive_one_dead().await;
    let probe_of = |host: &str, require: &str| {
        let spec = TcpProbe { host: host.into(), port: server.address.port().into(), ..TcpProbe::default() };
        all(require, ClosedPort::find().address, Kind::Tcp(spec))
    };
    let sight = run(&probe_of("127.0.0.1", "all")).await;
    assert_eq!((verdict(&sight), subs(&sight)), (PASSED, vec![("127.0.0.1".into(), Outcome::Passed)]), "{sight:?}");
    assert_eq!(verdict(&run(&probe_of("127.0.0.1", "2")).await), NOT_RESOLVED);
    assert_eq!(verdict(&run(&probe_of("127.0.0.2", "any")).await), REFUSED);
}

#[tokio::test]
async fn only_the_family_asked_for_counts() {
    let server = Server::on("::", |_, _| async {}).await;
    let kind = || tcp(server.address.port());
    let family = |family: AddressFamily, probe: Probe| Probe { address_family: family.into(), ..probe };
    let six = DnsServer::zone(&[("host.test.", &["::1"])]).await;
    let sight = run(&all("all", six.address, kind())).await;
    assert_eq!((verdict(&sight), subs(&sight)), (PASSED, vec![("::1".into(), Outcome::Passed)]), "{sight:?}");
    let sight = run(&family(AddressFamily::Ipv4, all("any", six.address, kind()))).await;
    assert_eq!((verdict(&sight), subs(&sight), phases(&sight)), (NOT_RESOLVED, vec![], vec!["resolve"]), "{sight:?}");
    assert_eq!(sight.summary, "resolve host.test: there is no IPv4 address");

    let both = DnsServer::zone(&[("host.test.", &["::1", "127.0.0.1", "127.0.0.2"])]).await;
    for (asked, expected) in [
        (AddressFamily::Unspecified, vec!["127.0.0.1", "127.0.0.2", "::1"]),
        (AddressFamily::Ipv4, vec!["127.0.0.1", "127.0.0.2"]),
        (AddressFamily::Ipv6, vec!["::1"]),
    ] {
        let sight = run(&family(asked, all("all", both.address, kind()))).await;
        assert_eq!(subs(&sight).iter().map(|(address, _)| address.as_str()).collect::<Vec<_>>(), expected);
        assert_eq!(verdict(&sight), PASSED, "{sight:?}");
    }
}

/// Runs a probe of a name with an address of each family, and expects both to pass and to report.
async fn passes_over_both(kind: Kind, name: &str) {
    let resolver = DnsServer::zone(&[("host.test.", &["127.0.0.1", "::1"])]).await;
    let sight = run(&all("all", resolver.address, kind)).await;
    assert_eq!(verdict(&sight), PASSED, "{name}: {sight:?}");
    assert_eq!(subs(&sight), [("127.0.0.1".into(), Outcome::Passed), ("::1".into(), Outcome::Passed)], "{name}");
    assert!(sight.addresses.iter().all(|sub| sub.report.is_some() && sub.latency.is_some()), "{name}: {sight:?}");
    let slowest = sight.addresses.iter().filter_map(|sub| sub.latency).max_by_key(|(taken, _)| *taken);
    assert_eq!(sight.latency, slowest, "{name}: the last of those that had to pass");
}

/// A web server for both families that keeps the requests it gets.
async fn web() -> (Server, Requests) {
    let requests = Requests::default();
    let kept = requests.clone();
    let server = Server::on("::", move |mut stream, _| {
        let kept = kept.clone();
        async move {
            kept.push(read_request(&mut stream).await);
            let _ = stream.write_all(ok("hello").as_bytes()).await;
            finish(stream).await;
        }
    })
    .await;
    (server, requests)
}

#[tokio::test]
async fn every_kind_probes_both_families_at_once_and_keeps_the_name() {
    let (server, requests) = web().await;
    let url = format!("http://host.test:{}/", server.address.port());
    passes_over_both(Kind::Http(HttpProbe { url, ..HttpProbe::default() }), "http").await;
    let host = format!("\r\nhost: host.test:{}\r\n", server.address.port());
    let requests = requests.all();
    assert!(requests.len() == 2 && requests.iter().all(|request| request.to_lowercase().contains(&host)), "{requests:?}");

    // The certificate is for the name, and for no address.
    let authority = Authority::new();
    let acceptor = authority.acceptor(&Leaf { names: &["host.test"], ..Leaf::default() }, &[]);
    let server = Server::on("::", move |stream, _| {
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
    let url = format!("https://host.test:{}/", server.address.port());
    passes_over_both(Kind::Https(HttpProbe { url, tls: Some(authority.options()), ..HttpProbe::default() }), "https").await;

    passes_over_both(tcp(server.address.port()), "tcp").await;
    let echo = UdpServer::start_at("[::]:0", |_, _| vec![b"here".to_vec()]).await;
    passes_over_both(udp(echo.address.port()), "udp").await;
    let dns = DnsServer::start_at("[::]:0", |asked| vec![bytes(&asked.with(&[("example.test.", 60, a([192, 0, 2, 1]))]))]).await;
    let port = dns.address.port().into();
    passes_over_both(Kind::Dns(DnsProbe { server: "host.test".into(), port, query: "example.test".into(), ..DnsProbe::default() }), "dns")
        .await;
    let ntp = UdpServer::start_at("[::]:0", |_, request| vec![in_step(request).encode().to_vec()]).await;
    let port = ntp.address.port().into();
    passes_over_both(Kind::Ntp(NtpProbe { server: "host.test".into(), port, ..NtpProbe::default() }), "ntp").await;
}

#[test]
fn ping_and_traceroute_probe_both_families_at_once() {
    // Echo sockets need root, or a network of our own, which does, too.
    let Some(row) = Row::of(3) else { return };
    row.inside(0, async || {
        let target = row.target();
        let resolver = DnsServer::zone(&[("host.test.", &[&target[0], &target[1]])]).await;
        let spacing = Some(prost_types::Duration { seconds: 0, nanos: 10_000_000 });
        let ping = PingProbe { host: "host.test".into(), spacing, ..PingProbe::default() };
        let trace = TracerouteProbe { host: "host.test".into(), ..TracerouteProbe::default() };
        for kind in [Kind::Ping(ping), Kind::Traceroute(trace)] {
            let sight = run(&all("all", resolver.address, kind)).await;
            assert_eq!(verdict(&sight), PASSED, "{sight:?}");
            assert_eq!(subs(&sight), target.clone().map(|address| (address, Outcome::Passed)));
            assert!(sight.addresses.iter().all(|sub| sub.report.is_some() && sub.latency.is_some()), "{sight:?}");
        }
    });
}

#[tokio::test]
async fn redirects_lead_back_to_the_address_at_home_and_elsewhere_by_name() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let server = Server::on("0.0.0.0", move |mut stream, _| {
        let kept = Arc::clone(&kept);
        async move {
            let at = stream.local_addr().unwrap();
            let request = read_request(&mut stream).await;
            let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
            kept.lock().unwrap().push((at.ip().to_string(), path.clone()));
            let answer = match path.as_str() {
                "/" => redirect(302, &format!("http://other.test:{}/away", at.port())),
                "/away" => redirect(302, &format!("http://host.test:{}/home", at.port())),
                _ => ok("hello"),
            };
            let _ = stream.write_all(answer.as_bytes()).await;
            finish(stream).await;
        }
    })
    .await;
    let resolver = DnsServer::zone(&[("host.test.", &["127.0.0.1", "127.0.0.2"]), ("other.test.", &["127.0.0.3"])]).await;
    let url = format!("http://host.test:{}/", server.address.port());
    let sight = run(&all("all", resolver.address, Kind::Http(HttpProbe { url, ..HttpProbe::default() }))).await;
    assert_eq!(verdict(&sight), PASSED, "{sight:?}");
    assert_eq!(subs(&sight), [("127.0.0.1".into(), Outcome::Passed), ("127.0.0.2".into(), Outcome::Passed)]);
    let mut seen = seen.lock().unwrap().clone();
    seen.sort();
    let expected = [
        ("127.0.0.1", "/"),
        ("127.0.0.1", "/home"),
        ("127.0.0.2", "/"),
        ("127.0.0.2", "/home"),
        ("127.0.0.3", "/away"),
        ("127.0.0.3", "/away"),
    ];
    assert_eq!(seen.iter().map(|(at, path)| (at.as_str(), path.as_str())).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn silent_addresses_take_one_timeout_together() {
    let silent = UdpServer::start_at("0.0.0.0:0", |_, _| Vec::new()).await;
    let resolver = DnsServer::zone(&[("host.test.", &["127.0.0.1", "127.0.0.2", "127.0.0.3"])]).await;
    let spec = UdpProbe { host: "host.test".into(), port: silent.address.port().into(), require_answer: true, ..UdpProbe::default() };
    let timeout = within(300, Kind::Udp(spec.clone())).timeout;
    let sight = run(&Probe { timeout, ..all("any", resolver.address, Kind::Udp(spec)) }).await;
    assert_eq!(verdict(&sight), (Outcome::Failed, Reason::TimedOut, Attribution::Target), "{sight:?}");
    assert_ended_by_the_timeout(&sight);
    assert_eq!(subs(&sight).len(), 3);
    let verdicts: Vec<_> = sight.addresses.iter().map(verdict).collect();
    assert_eq!(verdicts, [verdict(&sight); 3]);
    // Silence is nobody's fault where no answer is required: open, or filtered.
    let sight = run(&Probe { timeout, ..all("any", resolver.address, udp(silent.address.port())) }).await;
    assert_eq!((sight.outcome, sight.reason), (Outcome::Undetermined, Reason::NoAnswer), "{sight:?}");
}

#[tokio::test]
async fn a_resolver_that_is_silent_or_refuses_is_at_fault_and_its_time_is_its_own() {
    let silent = UdpServer::silent().await;
    let timeout = within(300, tcp(1)).timeout;
    let sight = run(&Probe { timeout, ..all("any", silent.address, tcp(1)) }).await;
    assert_eq!((verdict(&sight), subs(&sight), phases(&sight)), (NOT_RESOLVED, vec![], vec!["resolve"]), "{sight:?}");
    assert!(sight.summary.contains(&silent.address.to_string()), "{}", sight.summary);
    assert_ended_by_the_timeout(&sight);

    let refusing = DnsServer::honest(|asked| asked.refused_as(ResponseCode::Refused)).await;
    let sight = run(&all("any", refusing.address, tcp(1))).await;
    assert_eq!((verdict(&sight), phases(&sight)), (NOT_RESOLVED, vec!["resolve"]), "{sight:?}");
    assert!(sight.summary.contains("answered REFUSED"), "{}", sight.summary);
}

#[tokio::test]
async fn a_family_that_the_resolver_fails_to_tell_is_missed_where_all_are_required() {
    let (server, _closed) = one_alive_one_dead().await;
    let resolver = DnsServer::honest(|asked| match asked.message.queries[0].query_type() {
        RecordType::A => asked.with(&[("host.test.", 60, a([127, 0, 0, 1]))]),
        _ => asked.refused_as(ResponseCode::ServFail),
    })
    .await;
    for (require, expected) in [("all", NOT_RESOLVED), ("any", PASSED), ("2", NOT_RESOLVED)] {
        let sight = run(&all(require, resolver.address, tcp(server.address.port()))).await;
        assert_eq!((verdict(&sight), subs(&sight)), (expected, vec![("127.0.0.1".into(), Outcome::Passed)]), "{require}: {sight:?}");
        assert!(sight.summary.contains("answered SERVFAIL"), "{}", sight.summary);
    }
    // One that says that there are none of a family has told all.
    let resolver = DnsServer::zone(&[("host.test.", &["127.0.0.1"])]).await;
    assert_eq!(verdict(&run(&all("all", resolver.address, tcp(server.address.port()))).await), PASSED);
}

struct Deny(IpAddr);

impl Gate for Deny {
    fn permit(&self, destination: Destination) -> Result<(), String> {
        if destination.address == self.0 { Err(format!("{} is denied", self.0)) } else { Ok(()) }
    }
}

#[tokio::test]
async fn a_denied_address_gets_no_packet_and_the_others_are_probed() {
    let echo = UdpServer::start_at("127.0.0.1:0", |_, _| vec![b"here".to_vec()]).await;
    let denied = UdpServer::start_at(&format!("127.0.0.2:{}", echo.address.port()), |_, _| panic!("a packet to a denied address")).await;
    let resolver = DnsServer::zone(&[("host.test.", &["127.0.0.2", "127.0.0.1"])]).await;
    let gate = || Arc::new(Deny(denied.address.ip()));
    let sight = run_behind(&all("any", resolver.address, udp(echo.address.port())), gate()).await;
    assert_eq!((verdict(&sight), subs(&sight)[0].clone()), (PASSED, ("127.0.0.2".into(), Outcome::Undetermined)), "{sight:?}");
    assert!(sight.addresses[0].report.is_none(), "nothing was sent");
    let sight = run_behind(&all("all", resolver.address, udp(echo.address.port())), gate()).await;
    assert_eq!(verdict(&sight), (Outcome::Undetermined, Reason::PolicyDenied, Attribution::Vantage), "{sight:?}");
}

#[tokio::test]
async fn more_than_64_addresses_of_one_name_are_not_probed() {
    let server = Server::on("0.0.0.0", |_, _| async {}).await;
    let zone = |count: u8| {
        DnsServer::honest(move |asked| match asked.message.queries[0].query_type() {
            RecordType::A => {
                let records: Vec<_> = (1..count).map(|last| ("host.test.", 60, a([127, 0, 0, last]))).collect();
                asked.with(&records)
            }
            _ => asked.with(&[("host.test.", 60, aaaa("::ffff:127.0.0.200"))]),
        })
    };
    let resolver = zone(65).await;
    let sight = run(&all("any", resolver.address, tcp(server.address.port()))).await;
    assert_eq!((verdict(&sight), sight.addresses.len()), ((Outcome::Failed, Reason::TooLarge, Attribution::Resolver), 0), "{sight:?}");
    assert_eq!(sight.summary, "resolve host.test: it has 65 addresses, and at most 64 of one name are probed");
    assert_eq!(server.connections(), 0);
    let resolver = zone(64).await;
    let all = Probe { address_family: AddressFamily::Ipv4.into(), ..all("63", resolver.address, tcp(server.address.port())) };
    let sight = run(&all).await;
    assert_eq!((verdict(&sight), sight.addresses.len()), (PASSED, 63), "{sight:?}");
}

#[tokio::test]
async fn both_programs_show_what_became_of_each_address() {
    let (server, _closed) = one_alive_one_dead().await;
    let resolver = DnsServer::zone(&[("host.test.", &["127.0.0.1", "127.0.0.2"])]).await;
    let port = server.address.port();
    let line = format!("probe tcp host.test:{port} --addresses all --require any --resolver {}", resolver.address);
    let words: Vec<_> = line.split(' ').collect();
    let shown = start(MONITOR, &words).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.stdout.starts_with("passed: 1 of 2 addresses passed, 1 required; 127.0.0.2: connect to 127.0.0.2:"), "{}", shown.stdout);
    let said = shown.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    for expected in [" addresses 127.0.0.1 passed ", " 127.0.0.2 failed - connect to 127.0.0.2:", " report of 127.0.0.1 connected yes "] {
        assert!(said.contains(expected), "{expected:?}: {}", shown.stdout);
    }
    let refused = start(MONITOR, &[&words[..5], &["--require", "many"]].concat()).await;
    assert_eq!(refused.code, Some(64), "{refused:?}");
    assert!(refused.stderr.contains("require: must be \"all\", \"any\" or a number from 1 to 64"), "{refused:?}");

    let folder = tempfile::tempdir().unwrap();
    let checks = json!({
        "defaults": { "resolver": resolver.address, "addresses": "all" },
        "checks": [
            { "name": "any", "require": 1, "tcp": { "host": "host.test", "port": port } },
            { "name": "every", "tcp": { "host": "host.test", "port": port } },
        ],
    });
    let file = write(folder.path(), "checks.json", &checks.to_string());
    let once = async |output: &str| start(MANAGER, &["--config", &file, "--once", "--output", output, "--http", "off"]).await;
    let ended = once("json").await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for result in ended.json_lines() {
        let outcome = if result["check_name"] == "any" { "OUTCOME_PASSED" } else { "OUTCOME_FAILED" };
        assert_eq!((&result["outcome"], &result["address"]), (&outcome.into(), &"".into()), "{result}");
        let [living, dead] = result["address_results"].as_array().unwrap().as_slice() else { panic!("{result}") };
        assert_eq!((&living["address"], &living["tcp"]["connected"]), (&"127.0.0.1".into(), &true.into()), "{result}");
        assert_eq!((&dead["address"], &dead["reason"]), (&"127.0.0.2".into(), &"REASON_REFUSED".into()), "{result}");
        assert!(dead["due_time"].is_null() && dead["check_name"] == "" && !dead["duration"].is_null(), "{result}");
    }
    let ended = once("text").await;
    assert!(ended.stdout.contains("] [tcp] [passed] [any@local: 1 of 2 addresses "), "{ended:?}");
    assert!(ended.stdout.contains("[every@local: host.test"), "{ended:?}");
    assert!(ended.stdout.contains("1 of 2 addresses passed, all required; 127.0.0.2: connect to"), "{ended:?}");
}
