//! The kind dns against a real name server, over each transport that it speaks.

use vantage_contract::v1::TimingSource;

use super::*;
use crate::lab::named::Named;

/// A zone with a name that does not fit into a datagram.
fn zone() -> String {
    let mut text = "@ 60 IN SOA ns1 admin 2026112401 3600 600 86400 60\n@ 60 IN NS ns1\nns1 60 IN A 192.0.2.53\n\
        www 300 IN A 192.0.2.80\nwww 300 IN A 192.0.2.81\n"
        .to_owned();
    for number in 0..90 {
        text.push_str(&format!("big 60 IN TXT \"a text with the number {number}\"\n"));
    }
    text
}

fn www(named: &Named) -> DnsProbe {
    DnsProbe { query: "www.lab".into(), recursion_desired: Some(false), nsid: true, ..ask_at(named.address) }
}

#[tokio::test]
async fn bind_answers_over_udp_tcp_tls_and_https_and_names_itself() {
    let Some(named) = Named::start(&[("lab", zone())]) else { return };
    let at = |address: std::net::SocketAddr, transport: DnsTransport| DnsProbe {
        server: address.ip().to_string(),
        port: address.port().into(),
        transport: transport.into(),
        randomize_case: true,
        ..www(&named)
    };
    let encrypted = |address, transport| DnsProbe { tls: Some(named.trusted()), ..at(address, transport) };
    for (spec, transport) in [
        (at(named.address, DnsTransport::Udp), "udp"),
        (at(named.address, DnsTransport::Tcp), "tcp"),
        (encrypted(named.tls, DnsTransport::Tls), "tls"),
        (encrypted(named.https, DnsTransport::Https), "https"),
    ] {
        let expect = DnsExpectations {
            authoritative: Some(true),
            answers_equal: vec!["192.0.2.81".into(), "192.0.2.80".into()],
            min_ttl: Some(prost_types::Duration { seconds: 300, nanos: 0 }),
            ..DnsExpectations::default()
        };
        let sight = run(&expecting(spec, expect)).await;
        let (latency, source) = sight.latency.expect("a latency");
        assert!(latency <= sight.duration);
        let expected = if transport == "udp" { TimingSource::KernelReceive } else { TimingSource::User };
        assert_eq!(source, expected, "{transport}");
        let report = seen(sight.passed());
        assert_eq!((report.transport.as_str(), report.nsid.as_str()), (transport, Named::NAME));
        assert_eq!((report.sent_count, report.ignored_count, report.tries.len()), (1, 0, 1));
        assert_eq!(report.tls.is_some_and(|tls| tls.verified), matches!(transport, "tls" | "https"));
    }
}

#[tokio::test]
async fn bind_truncates_what_does_not_fit_and_gives_all_of_it_over_tcp() {
    let Some(named) = Named::start(&[("lab", zone())]) else { return };
    let spec = DnsProbe { query: "big.lab".into(), r#type: "TXT".into(), ..www(&named) };
    let expect = DnsExpectations { min_answers: 90, max_answers: Some(90), ..DnsExpectations::default() };
    let report = seen(run(&expecting(spec.clone(), expect)).await.passed());
    assert_eq!((report.truncated, report.transport.as_str(), report.answer_count), (true, "tcp", 90));
    let fates: Vec<_> = report.tries.iter().map(|asked| (asked.transport.as_str(), asked.fate.as_str())).collect();
    assert_eq!(fates, [("udp", "truncated"), ("tcp", "answered")]);
    failed(DnsProbe { no_tcp_fallback: true, ..spec }, Reason::UnexpectedAnswer).await;
}

#[tokio::test]
async fn bind_says_by_its_rcode_what_it_has_not() {
    let Some(named) = Named::start(&[("lab", zone())]) else { return };
    for (query, rcode) in [("nobody.lab", "NXDOMAIN"), ("www.elsewhere", "REFUSED")] {
        let report = failed(DnsProbe { query: query.into(), ..www(&named) }, Reason::UnexpectedAnswer).await;
        assert_eq!(report.rcode, rcode);
        assert_eq!(report.soa_serial, (rcode == "NXDOMAIN").then_some(2_026_112_401));
    }
    let chaos = DnsProbe { query: "id.server".into(), r#type: "TXT".into(), class: "CH".into(), ..www(&named) };
    assert_eq!(passed(chaos).await.answers[0].data, format!("\"{}\"", Named::NAME));
}
