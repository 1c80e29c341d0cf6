//! One check over all name servers of a zone.

use std::{net::SocketAddr, sync::atomic::Ordering};

use vantage_contract::v1::DnsTry;

use super::*;
use crate::lab::{named::Named, place, probe::run_behind};

fn soa(serial: u32) -> RData {
    RData::SOA(rdata::SOA::new(name("ns1.zone.test."), name("host.test."), serial, 1, 1, 1, 1))
}

/// A server of the zone, which knows its servers, too. What it answers for the SOA record is the script's.
async fn server(at: SocketAddr, all: [SocketAddr; 3], script: impl Fn(&Asked) -> Option<Message> + Send + 'static) -> DnsServer {
    DnsServer::start_at(&at.to_string(), move |asked| {
        let query = &asked.message.queries[0];
        let address = |number: usize| match all[number].ip() {
            std::net::IpAddr::V4(address) => a(address.octets()),
            std::net::IpAddr::V6(_) => unreachable!(),
        };
        let answer = match (query.query_type(), query.name().to_ascii().as_str()) {
            (RecordType::NS, "zone.test.") => {
                let ns = |host: &str| RData::NS(rdata::NS(name(host)));
                Some(asked.with(&[("zone.test.", 60, ns("ns1.zone.test.")), ("zone.test.", 60, ns("ns2.zone.test."))]))
            }
            (RecordType::A, "ns1.zone.test.") => Some(asked.with(&[("ns1.zone.test.", 60, address(0))])),
            (RecordType::A, "ns2.zone.test.") => {
                Some(asked.with(&[("ns2.zone.test.", 60, address(1)), ("ns2.zone.test.", 60, address(2))]))
            }
            (RecordType::SOA, "zone.test.") => {
                assert!(!asked.message.metadata.recursion_desired, "who has authority needs not recurse");
                script(asked)
            }
            _ => Some(asked.answer()),
        };
        answer.iter().map(bytes).collect()
    })
    .await
}

fn with_serial(serial: u32) -> impl Fn(&Asked) -> Option<Message> + Send + 'static {
    move |asked| {
        let mut answer = asked.with(&[("zone.test.", 60, soa(serial))]);
        answer.metadata.authoritative = true;
        Some(answer)
    }
}

fn check(at: SocketAddr) -> DnsProbe {
    DnsProbe { query: "zone.test".into(), zone_consistency: true, ..ask_at(at) }
}

#[tokio::test]
async fn a_zone_whose_servers_agree_passes_and_each_is_shown() {
    let row = place::row();
    let servers =
        [server(row[0], row, with_serial(7)).await, server(row[1], row, with_serial(7)).await, server(row[2], row, with_serial(7)).await];
    for spec in [check(row[0]), over_tcp(check(row[0]))] {
        let sight = run(&probe(Kind::Dns(spec))).await;
        assert!(sight.latency.is_some_and(|latency| latency.0 < sight.duration), "{sight:?}");
        let Some(Report::Dns(report)) = &sight.report else { panic!("{sight:?}") };
        let DnsReport { tries, .. } = &**report;
        let ended =
            |asked: &DnsTry| [asked.sent_after, asked.wait].into_iter().flatten().map(|part| Duration::try_from(part).unwrap()).sum();
        assert!(tries.iter().map(ended).all(|end: Duration| end <= sight.duration), "{sight:?}");
        let report = seen(sight.passed());
        let shown: Vec<_> =
            report.zone_servers.iter().map(|server| (server.name.as_str(), server.address.clone(), server.soa_serial)).collect();
        let at = |number: usize| row[number].ip().to_string();
        let expected = [("ns1.zone.test.", at(0)), ("ns2.zone.test.", at(1)), ("ns2.zone.test.", at(2))];
        assert_eq!(shown, expected.map(|(name, address)| (name, address, Some(7))));
        assert!(report.zone_servers.iter().all(|server| server.authoritative && server.latency.is_some() && server.trouble.is_empty()));
        // NS, A and AAAA of two names, and three SOA records.
        assert_eq!((report.sent_count, report.tries.len(), report.soa_serial), (8, 8, Some(7)));
        assert!(report.tries.iter().all(|asked| asked.fate == "answered"), "{report:?}");
    }
    assert!(servers.iter().all(|server| server.count.load(Ordering::SeqCst) >= 2));
}

#[tokio::test]
async fn a_server_that_is_behind_lame_silent_or_gone_fails_the_zone_and_the_others_are_shown_all_the_same() {
    let lame = |asked: &Asked| Some(asked.with(&[("zone.test.", 60, soa(7))]));
    let empty = |asked: &Asked| Some(asked.answer());
    let refusing = |asked: &Asked| Some(asked.refused_as(ResponseCode::Refused));
    type Script = Box<dyn Fn(&Asked) -> Option<Message> + Send>;
    let cases: [(Script, Reason, &str); 5] = [
        (Box::new(with_serial(6)), Reason::UnexpectedAnswer, "serial 6 is not that of the others, 7"),
        (Box::new(lame), Reason::UnexpectedAnswer, "without authority"),
        (Box::new(empty), Reason::UnexpectedAnswer, "without the zone's SOA record"),
        (Box::new(refusing), Reason::UnexpectedAnswer, "REFUSED"),
        (Box::new(|_| None), Reason::TimedOut, "timed out"),
    ];
    for (script, reason, words) in cases {
        let row = place::row();
        let _servers =
            (server(row[0], row, with_serial(7)).await, server(row[1], row, script).await, server(row[2], row, with_serial(7)).await);
        let sight = run(&within(600, Kind::Dns(check(row[0])))).await;
        assert!(sight.summary.contains("1 of 3 servers") && sight.summary.contains(words), "{}", sight.summary);
        let report = seen(sight.because(reason).expect("a report"));
        let well: Vec<_> = report.zone_servers.iter().map(|server| server.trouble.is_empty()).collect();
        assert_eq!(well, [true, false, true], "{report:?}");
        assert_eq!(report.soa_serial, Some(7));
    }
    // Nobody is at the third address.
    let row = place::row();
    let _servers = (server(row[0], row, with_serial(7)).await, server(row[1], row, with_serial(7)).await);
    let report = failed(check(row[0]), Reason::Refused).await;
    assert_eq!(report.zone_servers[2].address, row[2].ip().to_string());
}

#[tokio::test]
async fn an_expectation_holds_for_each_server() {
    let row = place::row();
    let _servers =
        [server(row[0], row, with_serial(7)).await, server(row[1], row, with_serial(7)).await, server(row[2], row, with_serial(7)).await];
    let expect = |min| DnsExpectations { min_soa_serial: Some(min), ..DnsExpectations::default() };
    run(&expecting(check(row[0]), expect(7))).await.passed();
    let sight = run(&expecting(check(row[0]), expect(8))).await;
    assert!(sight.summary.contains("3 of 3 servers"), "{}", sight.summary);
}

#[tokio::test]
async fn a_server_that_may_not_be_asked_is_our_own_matter() {
    struct Fence(std::net::IpAddr);
    impl vantage_probes::Gate for Fence {
        fn permit(&self, to: vantage_probes::Destination) -> Result<(), String> {
            if to.address == self.0 { Err(format!("{} is denied", to.address)) } else { Ok(()) }
        }
    }
    let row = place::row();
    let third = server(row[2], row, with_serial(7)).await;
    let _servers = (server(row[0], row, with_serial(7)).await, server(row[1], row, with_serial(7)).await);
    let sight = run_behind(&probe(Kind::Dns(check(row[0]))), Arc::new(Fence(row[2].ip()))).await;
    assert_eq!(sight.outcome, Outcome::Undetermined);
    sight.because(Reason::PolicyDenied);
    assert_eq!(third.asked(), 0);
}

#[tokio::test]
async fn a_name_without_servers_fails() {
    let empty = DnsServer::honest(|asked| asked.answer()).await;
    let report = failed(check(empty.address), Reason::UnexpectedAnswer).await;
    assert!(report.zone_servers.is_empty());
}

#[tokio::test]
async fn two_servers_of_bind_with_different_serials_are_told_apart() {
    let port = place::on_interface("127.0.0.1").port();
    let text = |serial: u32| {
        format!(
            "@ 60 IN SOA ns1 admin {serial} 3600 600 86400 60\n@ 60 IN NS ns1\n@ 60 IN NS ns2\nns1 60 IN A 127.0.0.1\nns2 60 IN AAAA ::1\n"
        )
    };
    let start = |address: &str, serial| Named::start_at(SocketAddr::new(address.parse().unwrap(), port), &[("lab", text(serial))]);
    let Some(first) = start("127.0.0.1", 41) else { return };
    let spec = DnsProbe { query: "lab".into(), ..check(first.address) };
    {
        let _second = start("::1", 41).unwrap();
        let report = passed(spec.clone()).await;
        let addresses: Vec<_> = report.zone_servers.iter().map(|server| server.address.as_str()).collect();
        assert_eq!(addresses, ["127.0.0.1", "::1"]);
    }
    let _second = start("::1", 42).unwrap();
    let sight = run(&probe(Kind::Dns(spec))).await;
    assert!(sight.summary.contains("ns1.lab.: serial 41 is not that of the others, 42"), "{}", sight.summary);
    sight.because(Reason::UnexpectedAnswer);
}

#[test]
fn what_has_no_meaning_for_a_zone_is_refused() {
    let refused = |spec: DnsProbe| {
        invalid(&probe(Kind::Dns(DnsProbe { server: "192.0.2.53".into(), query: "a.test".into(), zone_consistency: true, ..spec })))
    };
    assert_eq!(refused(DnsProbe { r#type: "A".into(), ..DnsProbe::default() }), "dns.type");
    assert_eq!(refused(DnsProbe { class: "CH".into(), ..DnsProbe::default() }), "dns.class");
    assert_eq!(refused(DnsProbe { transport: DnsTransport::Tls.into(), ..DnsProbe::default() }), "dns.transport");
    assert_eq!(refused(DnsProbe { nsid: true, ..DnsProbe::default() }), "dns.nsid");
}
