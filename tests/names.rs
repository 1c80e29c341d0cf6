//! What all kinds promise about names: they are shown on udp and tcp, the plainest.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};
use tokio::{net::UdpSocket, task::JoinSet};
use vantage_contract::v1::{
    AddressFamily, Attribution, DnsProbe, HttpProbe, NtpProbe, Outcome, PingProbe, Probe, Reason, TcpProbe, TracerouteProbe, UdpProbe,
    probe::Kind,
};
use vantage_probes::{Destination, Gate, OpenGate, Options, Sight, World, net::resolve::Resolver, target::Host};

use crate::lab::{
    dns::{Asked, DnsServer, a, aaaa, bytes},
    netns::Row,
    probe::{Verdict, assert_ended_by_the_timeout, hasty, probe, run, run_behind, run_in, within},
    udp::{ClosedPort, UdpServer},
};

/// A probe of a name, on a port of an echo service, resolved by a server of the check's own.
fn named(name: &str, port: u16, resolver: SocketAddr) -> Probe {
    let spec = UdpProbe { host: name.into(), port: port.into(), ..UdpProbe::default() };
    Probe { resolver: resolver.to_string(), ..probe(Kind::Udp(spec)) }
}

async fn echo() -> UdpServer {
    UdpServer::start(|_, _| vec![b"here".to_vec()]).await
}

/// An echo service over IPv6 on the same port of ::1.
async fn echo_v6() -> UdpServer {
    UdpServer::start_at("[::1]:0", |_, _| vec![b"here".to_vec()]).await
}

fn asks_for(asked: &Asked, record_type: RecordType) -> bool {
    asked.message.queries[0].query_type() == record_type
}

fn family(family: AddressFamily, probe: Probe) -> Probe {
    Probe { address_family: family.into(), ..probe }
}

/// A probe of each kind, of this host.
fn of_every_kind(host: &str) -> Vec<Kind> {
    let (bare, host) = (host.trim_start_matches('[').trim_end_matches(']'), host.to_owned());
    let http = |scheme: &str| HttpProbe { url: format!("{scheme}://{host}/"), ..HttpProbe::default() };
    let kinds = vec![
        Kind::Ping(PingProbe { host: bare.into(), count: 1, ..PingProbe::default() }),
        Kind::Traceroute(TracerouteProbe { host: bare.into(), ..TracerouteProbe::default() }),
        Kind::Http(http("http")),
        Kind::Https(http("https")),
        Kind::Tcp(TcpProbe { host: bare.into(), port: 9, ..TcpProbe::default() }),
        Kind::Udp(UdpProbe { host: bare.into(), port: 9, ..UdpProbe::default() }),
        Kind::Dns(DnsProbe { server: bare.into(), query: "example.test".into(), ..DnsProbe::default() }),
        Kind::Ntp(NtpProbe { server: bare.into(), ..NtpProbe::default() }),
    ];
    assert_eq!(kinds.len(), vantage_probes::KINDS.len(), "each kind is here");
    kinds
}

/// Runs a probe of each kind at the same time.
async fn run_every_kind(host: &str, around: impl Fn(Kind) -> Probe) -> Vec<Sight> {
    let mut runs = JoinSet::new();
    for kind in of_every_kind(host) {
        let probe = around(kind);
        runs.spawn(async move { run(&probe).await });
    }
    runs.join_all().await
}

/// Asserts that the resolver, and nobody else, is at fault, and that the whole time was its own.
fn is_the_resolvers(sight: &Sight) {
    let verdict = (sight.outcome, sight.reason, sight.attribution);
    assert_eq!(verdict, (Outcome::Failed, Reason::NameNotResolved, Attribution::Resolver), "{sight:?}");
    let phases: Vec<_> = sight.phases.iter().map(|(phase, _)| phase.name()).collect();
    assert_eq!((phases, sight.address, sight.report.is_none()), (vec!["resolve"], None, true), "{sight:?}");
}

#[tokio::test]
async fn for_every_kind_a_name_that_does_not_exist_costs_the_real_wait() {
    const WAIT: Duration = Duration::from_millis(200);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let resolver = UdpServer::serve(socket, |number, question, (socket, client)| {
        let asked = Asked { message: Message::from_vec(question).unwrap(), number, over_tcp: false };
        let (answer, socket) = (bytes(&asked.refused_as(ResponseCode::NXDomain)), Arc::clone(socket));
        tokio::spawn(async move {
            tokio::time::sleep(WAIT).await;
            let _ = socket.send_to(&answer, client).await;
        });
        Vec::new()
    });
    for sight in run_every_kind("nobody.test", |kind| Probe { resolver: resolver.address.to_string(), ..probe(kind) }).await {
        is_the_resolvers(&sight);
        assert_eq!(sight.summary, "resolve nobody.test: the name does not exist");
        assert!(sight.duration >= WAIT, "{sight:?}");
    }
}

#[tokio::test]
async fn for_every_kind_a_silent_resolver_is_at_fault_until_the_timeout() {
    let silent = UdpServer::silent().await;
    for sight in run_every_kind("host.test", |kind| Probe { resolver: silent.address.to_string(), ..hasty(kind) }).await {
        is_the_resolvers(&sight);
        assert_ended_by_the_timeout(&sight);
    }
}

#[test]
fn for_every_kind_no_route_from_here_is_our_own_fault() {
    let Some(row) = Row::of(2) else { return };
    row.exec(0, "ip route del default");
    row.exec(0, "ip -6 route del default");
    row.inside(0, async || {
        for host in ["192.0.2.1", "[2001:db8::1]"] {
            for sight in run_every_kind(host, probe).await {
                let verdict = (sight.outcome, sight.reason, sight.attribution);
                assert_eq!(verdict, (Outcome::Undetermined, Reason::LocalNetwork, Attribution::Vantage), "{sight:?}");
            }
        }
    });
}

#[tokio::test]
async fn a_name_leads_to_its_first_address_ipv4_before_ipv6() {
    let echo = echo().await;
    let resolver = DnsServer::honest(|asked| {
        if asks_for(asked, RecordType::A) {
            asked.with(&[("host.test.", 60, a([127, 0, 0, 1])), ("host.test.", 60, a([127, 0, 0, 2]))])
        } else {
            asked.with(&[("host.test.", 60, aaaa("::1"))])
        }
    })
    .await;
    let sight = run(&named("host.test", echo.address.port(), resolver.address)).await;
    assert_eq!(sight.address, Some([127, 0, 0, 1].into()));
    let phases: Vec<_> = sight.phases.iter().map(|(phase, _)| phase.name()).collect();
    assert_eq!(phases, ["resolve", "send", "wait"]);
    sight.passed();
}

#[tokio::test]
async fn all_addresses_are_found_ipv4_first_and_each_once() {
    let resolver = DnsServer::honest(|asked| {
        if asks_for(asked, RecordType::A) {
            asked.with(&[
                ("host.test.", 60, a([192, 0, 2, 2])),
                ("host.test.", 60, a([192, 0, 2, 1])),
                ("host.test.", 60, a([192, 0, 2, 2])),
            ])
        } else {
            asked.with(&[("host.test.", 60, aaaa("2001:db8::1"))])
        }
    })
    .await;
    let five = Duration::from_secs(5);
    let options = Options::parse(&named("host.test", 7, resolver.address), five).expect("options");
    let host = Host::parse("host", "host.test").expect("a host");
    let system = Resolver::system();
    let found = system.addresses(&host, &options, &OpenGate, vantage_probes::stopwatch::now() + five).await.expect("addresses");
    let texts: Vec<_> = found.found.iter().map(ToString::to_string).collect();
    assert_eq!(found.unknown, None);
    assert_eq!(texts, ["192.0.2.2", "192.0.2.1", "2001:db8::1"]);
}

#[tokio::test]
async fn an_alias_is_followed_and_a_strangers_record_is_not() {
    let echo = echo().await;
    let cname = |name: &str| hickory_proto::rr::RData::CNAME(hickory_proto::rr::rdata::CNAME(name.parse().unwrap()));
    let resolver = DnsServer::honest(move |asked| {
        if asks_for(asked, RecordType::A) {
            asked.with(&[
                ("other.test.", 60, a([192, 0, 2, 66])),
                ("alias.test.", 60, cname("Middle.test.")),
                ("real.test.", 60, a([127, 0, 0, 1])),
                ("middle.test.", 60, cname("real.test.")),
            ])
        } else {
            asked.with(&[("alias.test.", 60, cname("alias.test."))])
        }
    })
    .await;
    let sight = run(&named("ALIAS.test", echo.address.port(), resolver.address)).await;
    assert_eq!(sight.address, Some([127, 0, 0, 1].into()));
    sight.passed();
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_the_resolvers_word() {
    let resolver = DnsServer::honest(|asked| asked.refused_as(ResponseCode::NXDomain)).await;
    let sight = run(&named("nobody.test", 7, resolver.address)).await;
    assert_eq!((sight.outcome, sight.attribution, sight.address), (Outcome::Failed, Attribution::Resolver, None));
    assert_eq!(sight.summary, "resolve nobody.test: the name does not exist");
    assert!(sight.because(Reason::NameNotResolved).is_none(), "nothing was sent, nothing is reported");
}

#[tokio::test]
async fn a_name_with_ipv6_alone_passes_over_it_and_says_what_ipv4_lacks() {
    let echo = echo_v6().await;
    let resolver = DnsServer::honest(|asked| match asks_for(asked, RecordType::AAAA) {
        true => asked.with(&[("six.test.", 60, aaaa("::1"))]),
        false => asked.answer(),
    })
    .await;
    let any = named("six.test", echo.address.port(), resolver.address);
    let sight = run(&any).await;
    assert_eq!(sight.address, Some("::1".parse().unwrap()));
    sight.passed();
    run(&family(AddressFamily::Ipv6, any.clone())).await.passed();
    let sight = run(&family(AddressFamily::Ipv4, any)).await;
    assert_eq!((sight.attribution, sight.summary.as_str()), (Attribution::Resolver, "resolve six.test: there is no IPv4 address"));
    sight.because(Reason::NameNotResolved);
}

#[tokio::test]
async fn one_family_may_fail_while_the_other_answers() {
    let echo = echo().await;
    for broken in [ResponseCode::ServFail, ResponseCode::NotImp] {
        let resolver = DnsServer::honest(move |asked| match asks_for(asked, RecordType::A) {
            true => asked.with(&[("four.test.", 60, a([127, 0, 0, 1]))]),
            false => asked.refused_as(broken),
        })
        .await;
        run(&named("four.test", echo.address.port(), resolver.address)).await.passed();
    }
    // Silence about IPv4 is waited for, but not for ever.
    let six = echo_v6().await;
    let resolver = DnsServer::start(|asked| match asks_for(asked, RecordType::AAAA) {
        true => vec![bytes(&asked.with(&[("six.test.", 60, aaaa("::1"))]))],
        false => Vec::new(),
    })
    .await;
    let spec = UdpProbe { host: "six.test".into(), port: six.address.port().into(), ..UdpProbe::default() };
    run(&Probe { resolver: resolver.address.to_string(), ..within(2000, Kind::Udp(spec)) }).await.passed();
}

#[tokio::test]
async fn a_resolver_that_is_silent_closed_or_failing_is_the_resolvers_fault() {
    let silent = UdpServer::silent().await;
    let spec = UdpProbe { host: "host.test".into(), port: 7, ..UdpProbe::default() };
    let sight = run(&Probe { resolver: silent.address.to_string(), ..hasty(Kind::Udp(spec)) }).await;
    assert!(sight.summary.contains(&silent.address.to_string()), "{}", sight.summary);
    assert_eq!((sight.attribution, sight.outcome), (Attribution::Resolver, Outcome::Failed));
    assert_eq!(sight.phases.len(), 1, "the wait is the resolver's: {:?}", sight.phases);
    sight.because(Reason::NameNotResolved);

    let closed = ClosedPort::find();
    let sight = run(&named("host.test", 7, closed.address)).await;
    assert!(sight.duration < Duration::from_secs(10), "at once: {sight:?}");
    assert!(sight.summary.contains(&closed.address.to_string()), "{}", sight.summary);
    assert_eq!(sight.attribution, Attribution::Resolver);
    sight.because(Reason::NameNotResolved);

    let failing = DnsServer::honest(|asked| asked.refused_as(ResponseCode::ServFail)).await;
    let sight = run(&named("host.test", 7, failing.address)).await;
    assert!(sight.summary.contains("answered SERVFAIL"), "{}", sight.summary);
    assert_eq!(sight.attribution, Attribution::Resolver);
    sight.because(Reason::NameNotResolved);
}

#[tokio::test]
async fn a_lost_question_is_asked_again_and_a_truncated_answer_over_tcp() {
    let echo = echo().await;
    let resolver = DnsServer::start(|asked| {
        if asked.number < 2 {
            return Vec::new();
        }
        let mut answer = asked.with(&[("host.test.", 60, a([127, 0, 0, 1]))]);
        if !asked.over_tcp {
            answer = asked.answer();
            answer.metadata.truncation = true;
        }
        vec![bytes(&answer)]
    })
    .await;
    let spec = UdpProbe { host: "host.test".into(), port: echo.address.port().into(), ..UdpProbe::default() };
    let lost = Probe { timeout: Some(prost_types::Duration { seconds: 2, nanos: 0 }), ..named("", 0, resolver.address) };
    let sight = run(&Probe { kind: Some(Kind::Udp(spec)), ..lost }).await;
    assert_eq!(sight.address, Some([127, 0, 0, 1].into()));
    sight.passed();
}

#[tokio::test]
async fn localhost_needs_no_resolver() {
    let (four, six) = (echo().await, echo_v6().await);
    let nowhere = ClosedPort::find();
    run(&named("localhost", four.address.port(), nowhere.address)).await.passed();
    run(&family(AddressFamily::Ipv6, named("LocalHost.", six.address.port(), nowhere.address))).await.passed();
    run(&Probe { resolver: String::new(), ..named("localhost", four.address.port(), nowhere.address) }).await.passed();
}

#[tokio::test]
async fn the_hosts_file_comes_first_and_missing_settings_are_ours() {
    let echo = echo().await;
    let directory = tempfile::tempdir().unwrap();
    let hosts = directory.path().join("hosts");
    std::fs::write(&hosts, "# a comment\n127.0.0.1 Local.test other.test\n").unwrap();
    let world = World::with_resolver(Arc::new(OpenGate), Resolver::with_files(directory.path().join("resolv.conf"), hosts));
    let system = |name| Probe { resolver: String::new(), ..named(name, echo.address.port(), echo.address) };
    run_in(&system("local.TEST"), &world).await.passed();
    let sight = run_in(&system("host.test"), &world).await;
    assert_eq!((sight.outcome, sight.attribution), (Outcome::Undetermined, Attribution::Vantage));
    assert!(sight.summary.contains("resolv.conf"), "{}", sight.summary);
    sight.because(Reason::LocalNetwork);
}

#[test]
fn the_systems_servers_are_asked_in_turn_and_with_the_search_domains() {
    // resolv.conf knows no ports: port 53 is ours in a network of our own.
    let Some(row) = Row::of(2) else { return };
    row.exec(0, "ip link set lo up");
    row.inside(0, async || {
        let echo = echo().await;
        let directory = tempfile::tempdir().unwrap();
        let resolv_conf = directory.path().join("resolv.conf");
        let world = World::with_resolver(Arc::new(OpenGate), Resolver::with_files(&resolv_conf, directory.path().join("hosts")));
        let failing = DnsServer::start_at("127.0.0.2:53", |asked| vec![bytes(&asked.refused_as(ResponseCode::ServFail))]).await;
        let _silent = UdpServer::start_at("127.0.0.3:53", |_, _| Vec::new()).await;
        let good = DnsServer::start_at("127.0.0.4:53", |asked| {
            let name = asked.message.queries[0].name().to_ascii();
            let answer = match (name.as_str(), asks_for(asked, RecordType::A)) {
                ("www.two.test.", true) => asked.with(&[(&name, 60, a([127, 0, 0, 1]))]),
                ("www.two.test.", false) => asked.answer(),
                _ => asked.refused_as(ResponseCode::NXDomain),
            };
            vec![bytes(&answer)]
        })
        .await;
        let system = |name: &str| Probe { resolver: String::new(), ..named(name, echo.address.port(), echo.address) };
        let rest = "search one.test two.test\noptions timeout:1 attempts:1\n";

        // The first is closed, the second fails, the third knows.
        std::fs::write(&resolv_conf, format!("nameserver 127.0.0.9\nnameserver 127.0.0.2\nnameserver 127.0.0.4\n{rest}")).unwrap();
        run_in(&system("www"), &world).await.passed();
        assert!(failing.asked() > 0 && good.asked() > 0);
        run_in(&system("www.two.test"), &world).await.passed();
        run_in(&system("www."), &world).await.because(Reason::NameNotResolved);

        // The settings changed: the first is silent now.
        std::fs::write(&resolv_conf, format!("nameserver 127.0.0.3\nnameserver 127.0.0.4\n{rest}")).unwrap();
        run_in(&system("www.two.test"), &world).await.passed();

        // Nobody left but the failing one.
        std::fs::write(&resolv_conf, format!("nameserver 127.0.0.2\n{rest}")).unwrap();
        let sight = run_in(&system("www"), &world).await;
        assert!(sight.summary.contains("127.0.0.2:53 answered SERVFAIL"), "{}", sight.summary);
        sight.because(Reason::NameNotResolved);

        // A resolver that can't be reached from here at all is ours to mend.
        row.exec(0, "ip route del default");
        std::fs::write(&resolv_conf, format!("nameserver 192.0.2.53\n{rest}")).unwrap();
        let sight = run_in(&system("www"), &world).await;
        assert_eq!((sight.outcome, sight.attribution), (Outcome::Undetermined, Attribution::Vantage));
        sight.because(Reason::LocalNetwork);
    });
}

#[tokio::test]
async fn a_source_address_that_is_not_ours_is_ours_to_mend() {
    let echo = echo().await;
    let sight = run(&Probe { source_address: "192.0.2.7".into(), ..named("127.0.0.1", echo.address.port(), echo.address) }).await;
    assert_eq!((sight.outcome, sight.attribution), (Outcome::Undetermined, Attribution::Vantage));
    sight.because(Reason::LocalNetwork);
}

#[tokio::test]
async fn an_address_of_another_family_is_not_one() {
    let sight = run(&family(AddressFamily::Ipv6, named("127.0.0.1", 7, ClosedPort::find().address))).await;
    assert_eq!(sight.summary, "127.0.0.1 is not IPv6");
    sight.because(Reason::NameNotResolved);
}

struct Deny(SocketAddr);

impl Gate for Deny {
    fn permit(&self, destination: Destination) -> Result<(), String> {
        let asked = (destination.address, destination.port);
        if asked == (self.0.ip(), Some(self.0.port())) { Err(format!("{} is denied", self.0)) } else { Ok(()) }
    }
}

#[tokio::test]
async fn a_denied_resolver_or_address_gets_no_packet() {
    let echo = UdpServer::start(|_, _| panic!("a packet was sent to a denied address")).await;
    let resolver = DnsServer::honest(|asked| asked.with(&[("host.test.", 60, a([127, 0, 0, 1]))])).await;
    let asked = named("host.test", echo.address.port(), resolver.address);
    let sight = run_behind(&asked, Arc::new(Deny(resolver.address))).await;
    assert_eq!(sight.outcome, Outcome::Undetermined);
    sight.because(Reason::PolicyDenied);
    assert_eq!(resolver.asked(), 0);
    run_behind(&asked, Arc::new(Deny(echo.address))).await.because(Reason::PolicyDenied);
    assert!(resolver.asked() > 0);
}

#[tokio::test]
async fn a_thousand_names_at_once_are_resolved_and_one_bad_one_harms_nobody() {
    let echo = echo().await;
    let resolver = DnsServer::honest(|asked| {
        let name = asked.message.queries[0].name().to_ascii();
        if name == "n500.test." {
            return asked.refused_as(ResponseCode::NXDomain);
        }
        match asks_for(asked, RecordType::A) {
            true => asked.with(&[(&name, 60, a([127, 0, 0, 1]))]),
            false => asked.answer(),
        }
    })
    .await;
    // One world, as a monitor has it: its resolver bounds how many questions are under way.
    let world = World::new(Arc::new(OpenGate));
    let mut runs = JoinSet::new();
    for number in 0..1000 {
        let (probe, world) = (named(&format!("n{number}.test"), echo.address.port(), resolver.address), world.clone());
        runs.spawn(async move { (number, run_in(&probe, &world).await) });
    }
    while let Some(done) = runs.join_next().await {
        let (number, sight) = done.unwrap();
        match number {
            500 => drop(sight.because(Reason::NameNotResolved)),
            _ => drop(sight.passed()),
        }
    }
}
