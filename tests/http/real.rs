//! nginx, as Debian has it.

use vantage_contract::v1::{
    HttpCoding, HttpExpectations, HttpJsonExpectation, HttpProbe, HttpReport, HttpVersion, Reason, TlsOptions, probe::Kind,
};
use vantage_probes::{OpenGate, Plan, World};

use super::{ask, get, passed, report};
use crate::lab::{
    probe::{Verdict as _, probe},
    servers::Server,
};

fn url(server: &Server, path: &str) -> String {
    format!("http://{}{path}", server.address)
}

#[tokio::test]
async fn a_page_of_nginx_is_decoded_judged_and_dated() {
    let Some(nginx) = Server::nginx(None) else { return };
    let all_up = HttpJsonExpectation {
        path: "$.nodes[*].up".into(),
        equals: Some(prost_types::Value { kind: Some(prost_types::value::Kind::BoolValue(true)) }),
        all: true,
        ..HttpJsonExpectation::default()
    };
    let expect = HttpExpectations {
        json: vec![all_up],
        status_ranges: vec!["2xx".into()],
        min_body_size_bytes: 1000,
        ..HttpExpectations::default()
    };
    let spec = HttpProbe { expect: Some(expect.clone()), ..get(url(&nginx, "/page.json")) };
    let plain = passed(ask(spec.clone()).await);
    assert_eq!((plain.content_coding.as_str(), plain.last_modified_time.map(|time| time.seconds)), ("", Some(946_684_800)));
    let coded = passed(ask(HttpProbe { content_codings: vec![HttpCoding::Gzip.into()], ..spec.clone() }).await);
    assert_eq!((coded.content_coding.as_str(), coded.decoded_body_size_bytes), ("gzip", plain.body_size_bytes));
    assert!(coded.body_size_bytes < plain.body_size_bytes / 2, "{coded:?}");
    let day = HttpExpectations { max_last_modified_age: Some(prost_types::Duration { seconds: 86_400, nanos: 0 }), ..expect };
    ask(HttpProbe { expect: Some(day), ..spec }).await.because(Reason::UnexpectedAnswer);
    let teapots = HttpExpectations { status_ranges: vec!["200-203".into(), "3xx".into()], ..HttpExpectations::default() };
    let empty = HttpProbe { expect: Some(teapots), ..get(url(&nginx, "/empty")) };
    assert_eq!(report(ask(empty).await.because(Reason::UnexpectedAnswer)).status, 204);
}

#[tokio::test]
async fn nginx_lets_its_connections_be_kept_in_every_version() {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["web.lab".to_owned()]).unwrap().self_signed(&key).unwrap();
    let (Some(clear), Some(secure)) = (Server::nginx(None), Server::nginx(Some((&certificate.pem(), &key.serialize_pem())))) else {
        return;
    };
    let tls = Some(TlsOptions { server_name: "web.lab".into(), ca_file: secure.file("chain.pem"), ..TlsOptions::default() });
    let https = |version: HttpVersion| {
        Kind::Https(HttpProbe {
            url: format!("https://{}/moved", secure.address),
            tls: tls.clone(),
            version: version.into(),
            reuse: true,
            ..HttpProbe::default()
        })
    };
    let plain = Kind::Http(HttpProbe { reuse: true, ..get(url(&clear, "/moved")) });
    for (kind, version) in [(plain, "1.1"), (https(HttpVersion::HttpVersion11), "1.1"), (https(HttpVersion::Unspecified), "2")] {
        let plan = Plan::parse(&probe(kind)).unwrap();
        let world = World::new(std::sync::Arc::new(OpenGate));
        for expected in [[(302, false), (200, true)], [(302, true), (200, true)]] {
            let seen: HttpReport = match plan.run(&world).await.passed() {
                vantage_contract::v1::probe_result::Report::Http(seen) | vantage_contract::v1::probe_result::Report::Https(seen) => *seen,
                other => panic!("{other:?}"),
            };
            assert_eq!(seen.version, version);
            assert_eq!(seen.hops.iter().map(|hop| (hop.status, hop.reused)).collect::<Vec<_>>(), expected, "{version}");
        }
    }
}
