//! HTTP/3.

mod hostile;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::mpsc::unbounded_channel;
use vantage_contract::v1::{
    AddressFamily, AddressSelection, HttpExpectations, HttpProbe, HttpProxy, HttpReport, Outcome, Probe, Reason, TlsOptions, TlsVersion,
    probe::Kind, probe_result::Report,
};
use vantage_probes::{Destination, Gate, Plan, Sight, World, stopwatch::Phase};

use crate::lab::{
    dns::DnsServer,
    http3::{Server, config, ok, redirect},
    probe::{Verdict as _, address, assert_ended_by_the_timeout, hasty, invalid, probe, run, run_behind, within},
    tls::{Authority, Leaf},
    udp::{ClosedPort, UdpServer},
};

async fn ask(spec: HttpProbe) -> Sight {
    run(&probe(Kind::Https(spec))).await
}

fn report(report: Option<Report>) -> HttpReport {
    match report {
        Some(Report::Https(report)) => *report,
        other => panic!("a report of https, not {other:?}"),
    }
}

fn passed(sight: Sight) -> HttpReport {
    report(Some(sight.passed()))
}

fn names(sight: &Sight) -> Vec<Phase> {
    sight.phases.iter().map(|(phase, _)| *phase).collect()
}

#[tokio::test]
async fn an_answer_over_quic_is_told_with_its_version_its_phases_and_its_tls() {
    let authority = Authority::new();
    let server = Server::answering(&authority, |_| ok("hello")).await;
    let sight = ask(server.get(&authority)).await;
    assert_eq!(names(&sight), [Phase::Resolve, Phase::Connect, Phase::Send, Phase::Wait, Phase::Transfer]);
    let report = passed(sight);
    assert_eq!((report.status, report.version.as_str(), report.body_size_bytes), (200, "3", 5));
    assert_eq!(report.remote_address, server.address.to_string());
    assert!(report.local_address.starts_with("127.0.0.1:"), "{report:?}");
    assert!(report.sent_bytes > 0 && report.received_bytes > 5, "{report:?}");
    let [hop] = report.hops.as_slice() else { panic!("{:?}", report.hops) };
    assert_eq!((hop.version.as_str(), hop.address.as_str(), hop.body_size_bytes), ("3", "127.0.0.1", 5));
    let phases = hop.phases.as_ref().unwrap();
    assert!(phases.connect.is_some() && phases.tls.is_none() && phases.wait.is_some(), "{phases:?}");
    let tls = report.tls.expect("the TLS");
    assert_eq!((tls.version.as_str(), tls.alpn.as_str(), tls.verified, tls.certificates.len()), ("1.3", "h3", true, 2));
}

#[tokio::test]
async fn a_request_goes_out_as_it_is_and_without_what_belongs_to_a_connection() {
    let authority = Authority::new();
    let (heard, mut requests) = unbounded_channel();
    let server = Server::answering(&authority, move |asked| {
        heard.send(asked.clone()).unwrap();
        ok("")
    })
    .await;
    let headers = [("Host", "other.test:1"), ("X-Own", "1"), ("Connection", "keep-alive"), ("Keep-Alive", "5")];
    let body = "x".repeat(300_000);
    let spec = HttpProbe {
        url: format!("https://{}/path?query", server.address),
        method: "POST".into(),
        headers: headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        body: body.clone(),
        ..server.get(&authority)
    };
    let report = passed(ask(spec).await);
    assert!(report.sent_bytes > 300_000, "{report:?}");
    let asked = requests.recv().await.unwrap();
    assert_eq!(asked.head.uri(), "https://other.test:1/path?query");
    assert_eq!((asked.head.method().as_str(), asked.head.headers()["content-length"].as_bytes()), ("POST", &b"300000"[..]));
    assert_eq!(asked.head.headers()["x-own"], "1");
    assert!(!asked.head.headers().contains_key("connection") && !asked.head.headers().contains_key("keep-alive"));
    assert!(asked.body == body.as_bytes(), "the body came as it was sent");
}

#[tokio::test]
async fn redirects_are_followed_over_connections_of_their_own_with_cookies_and_each_hosts_name() {
    let authority = Authority::new();
    let leaf = Leaf { names: &["host.test", "other.test"], ..Leaf::default() };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    let server = Server::answering_at("127.0.0.1:0", &authority, &leaf, move |asked| {
        let (uri, cookie) = (asked.head.uri(), asked.head.headers().get("cookie").map(|value| value.to_str().unwrap().to_owned()));
        kept.lock().unwrap().push((asked.server_name.clone().unwrap(), uri.path().to_owned(), cookie));
        let port = uri.port_u16().unwrap();
        match uri.path() {
            "/" => {
                let mut answer = redirect("/next");
                answer.headers_mut().insert("set-cookie", "a=b".parse().unwrap());
                answer
            }
            "/next" => redirect(&format!("https://other.test:{port}/end")),
            _ => ok("end"),
        }
    })
    .await;
    let resolver = DnsServer::zone(&[("host.test.", &["127.0.0.1"]), ("other.test.", &["127.0.0.1"])]).await;
    let spec = HttpProbe { url: format!("https://host.test:{}/", server.address.port()), ..server.get(&authority) };
    let sight = run(&Probe { resolver: resolver.address.to_string(), ..probe(Kind::Https(spec)) }).await;
    let report = passed(sight);
    assert_eq!((report.redirect_count, report.hops.len(), server.connections()), (2, 3, 3));
    assert!(report.hops.iter().all(|hop| hop.version == "3" && hop.phases.is_some()));
    let [first, second, third] = seen.lock().unwrap().clone().try_into().unwrap();
    assert_eq!(first, ("host.test".into(), "/".into(), None));
    assert_eq!(second, ("host.test".into(), "/next".into(), Some("a=b".into())));
    assert_eq!(third, ("other.test".into(), "/end".into(), None));
}

#[tokio::test]
async fn a_redirect_to_the_clear_is_not_followed_by_an_earlier_version() {
    let authority = Authority::new();
    let server = Server::answering(&authority, |_| redirect("http://127.0.0.1:1/")).await;
    let sight = ask(server.get(&authority)).await;
    assert!(sight.summary.contains("http://127.0.0.1:1/: HTTP/3 is asked for"), "{}", sight.summary);
    sight.because(Reason::UnexpectedAnswer);
}

#[tokio::test]
async fn the_certificate_is_judged_and_shown_as_over_tcp() {
    let authority = Authority::new();
    let server = Server::answering(&authority, |_| ok("")).await;
    let stranger = Authority::named("Another Root");
    let report = report(ask(server.get(&stranger)).await.because(Reason::CertificateInvalid));
    let tls = report.tls.expect("the TLS");
    assert_eq!((report.status, tls.certificates.len(), tls.verified), (0, 2, false));
    assert!(!tls.certificate_error.is_empty());
    let insecure = TlsOptions { insecure: true, ..TlsOptions::default() };
    let report = passed(ask(HttpProbe { tls: Some(insecure), ..server.get(&authority) }).await);
    assert!(!report.tls.expect("the TLS").verified);
    let ending =
        TlsOptions { min_remaining_validity: Some(prost_types::Duration { seconds: 365 * 86_400, nanos: 0 }), ..authority.options() };
    ask(HttpProbe { tls: Some(ending), ..server.get(&authority) }).await.because(Reason::CertificateInvalid);
    let expired = Leaf { from_day: -9, to_day: -2, ..Leaf::default() };
    let server = Server::answering_at("127.0.0.1:0", &authority, &expired, |_| ok("")).await;
    ask(server.get(&authority)).await.because(Reason::CertificateInvalid);
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_who_asks_for_it() {
    let authority = Authority::new();
    let acceptor = authority.acceptor_of(&Leaf::default(), &["h3"], &[&rustls::version::TLS13], true);
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(acceptor.config().clone()).unwrap();
    let (told, mut shown) = unbounded_channel();
    let server = Server::at("127.0.0.1:0", quinn::ServerConfig::with_crypto(Arc::new(crypto)), move |incoming| {
        let told = told.clone();
        async move {
            let Ok(connection) = incoming.await else { return };
            told.send(connection.peer_identity().is_some()).unwrap();
        }
    })
    .await;
    let (certificate_file, key_file) = authority.client();
    let tls = TlsOptions { certificate_file, key_file, ..authority.options() };
    ask(HttpProbe { tls: Some(tls), ..server.get(&authority) }).await.because(Reason::Disconnected);
    assert_eq!(shown.recv().await, Some(true));
    let sight = ask(server.get(&authority)).await;
    sight.because(Reason::TlsFailed);
}

#[tokio::test]
async fn every_address_is_asked_by_name_over_both_families() {
    let authority = Authority::new();
    let leaf = Leaf { names: &["host.test"], ..Leaf::default() };
    let server = Server::answering_at("[::]:0", &authority, &leaf, |asked| {
        assert_eq!(asked.server_name.as_deref(), Some("host.test"));
        ok(asked.from.ip().to_string())
    })
    .await;
    let resolver = DnsServer::zone(&[("host.test.", &["127.0.0.1", "::1"])]).await;
    let spec = HttpProbe { url: format!("https://host.test:{}/", server.address.port()), ..server.get(&authority) };
    let by_name = Probe { resolver: resolver.address.to_string(), ..probe(Kind::Https(spec)) };
    let sight = run(&Probe { addresses: AddressSelection::All.into(), ..by_name.clone() }).await;
    assert_eq!(sight.outcome, Outcome::Passed, "{sight:?}");
    let addresses: Vec<_> = sight.addresses.iter().map(|sub| sub.address.unwrap()).collect();
    assert_eq!(addresses, [address("127.0.0.1"), address("::1")]);
    assert!(sight.addresses.iter().all(|sub| report(sub.report.clone()).version == "3"));
    let six = run(&Probe { address_family: AddressFamily::Ipv6.into(), ..by_name.clone() }).await;
    assert_eq!(six.address, Some(address("::1")));
    six.passed();
    let report = passed(run(&Probe { source_address: "127.0.0.5".into(), ..by_name }).await);
    assert!(report.local_address.starts_with("127.0.0.5:"), "{report:?}");
}

#[tokio::test]
async fn a_closed_port_is_refused_at_once_and_silence_and_noise_time_out() {
    let authority = Authority::new();
    let at = |address: std::net::SocketAddr| {
        Kind::Https(HttpProbe { url: format!("https://{address}/"), version: 30, tls: Some(authority.options()), ..HttpProbe::default() })
    };
    let sight = run(&probe(at(ClosedPort::find().address))).await;
    assert!(sight.duration < Duration::from_secs(10), "{sight:?}");
    sight.because(Reason::Refused);
    let silent = UdpServer::silent().await;
    let sight = run(&hasty(at(silent.address))).await;
    assert_ended_by_the_timeout(&sight);
    assert_eq!(names(&sight), [Phase::Resolve, Phase::Connect]);
    assert!(sight.summary.contains("connecting"), "{}", sight.summary);
    sight.because(Reason::TimedOut);
    let noisy =
        UdpServer::start(|number, bytes| vec![vec![0xff; 1200], bytes.to_vec(), vec![u8::try_from(number % 256).unwrap(); 20], Vec::new()])
            .await;
    let sight = run(&hasty(at(noisy.address))).await;
    assert_eq!(sight.outcome, Outcome::Failed, "{sight:?}");
}

#[tokio::test]
async fn a_denied_address_is_never_sent_to() {
    struct Nobody;
    impl Gate for Nobody {
        fn permit(&self, _: Destination) -> Result<(), String> {
            Err("nobody may".to_owned())
        }
    }
    let authority = Authority::new();
    let server = Server::answering(&authority, |_| ok("")).await;
    let sight = run_behind(&probe(Kind::Https(server.get(&authority))), Arc::new(Nobody)).await;
    assert_eq!(sight.because(Reason::PolicyDenied), None);
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn bodies_are_bounded_and_expected_of_as_over_tcp() {
    let authority = Authority::new();
    let server = Server::answering(&authority, |asked| match asked.head.uri().path() {
        "/long" => ok(vec![b'x'; 3 << 20]),
        _ => http::Response::builder().status(404).body(b"nothing here\nmore".to_vec()).unwrap(),
    })
    .await;
    let long = HttpProbe { url: format!("https://{}/long", server.address), ..server.get(&authority) };
    assert_eq!(passed(ask(long.clone()).await).body_size_bytes, 3 << 20);
    let report_of = |sight: Sight, reason| report(sight.because(reason));
    let small = HttpProbe { max_body_size_bytes: 128, ..long.clone() };
    assert_eq!(report_of(ask(small).await, Reason::TooLarge).body_size_bytes, 129);
    let expect = HttpExpectations { body_contains: vec!["y".into()], ..HttpExpectations::default() };
    ask(HttpProbe { expect: Some(expect), ..long }).await.because(Reason::UnexpectedAnswer);
    let report = report_of(ask(server.get(&authority)).await, Reason::UnexpectedAnswer);
    assert_eq!((report.status, report.excerpt.as_str()), (404, "nothing here"));
    let head = HttpProbe { method: "HEAD".into(), ..server.get(&authority) };
    assert_eq!(report_of(ask(head).await, Reason::UnexpectedAnswer).status, 404);
}

#[tokio::test]
async fn a_run_that_is_dropped_leaves_nothing_behind_and_says_good_bye() {
    let authority = Authority::new();
    let (told, mut ends) = unbounded_channel();
    let (heard, mut begun) = unbounded_channel();
    let server = Server::scripted(&authority, move |connection| {
        let (told, heard) = (told.clone(), heard.clone());
        async move {
            let request = connection.accept_bi().await;
            heard.send(request.is_ok()).unwrap();
            told.send(connection.closed().await).unwrap();
        }
    })
    .await;
    let plan = Plan::parse(&probe(Kind::Https(server.get(&authority)))).unwrap();
    let world = World::new(Arc::new(vantage_probes::OpenGate));
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let mut running = Box::pin(plan.run(&world));
    let request = tokio::select! {
        sight = &mut running => panic!("nobody answered: {sight:?}"),
        request = begun.recv() => request,
    };
    assert_eq!(request, Some(true));
    let before = tasks();
    drop(running);
    assert_eq!(tasks(), before, "a run has no tasks of its own");
    match ends.recv().await {
        Some(quinn::ConnectionError::ApplicationClosed(close)) => assert_eq!(close.error_code.into_inner(), 0x100),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_server_that_wants_to_see_the_address_first_is_answered_and_one_that_refuses_did() {
    let authority = Authority::new();
    let retrying = Server::at("127.0.0.1:0", config(&authority, &Leaf::default(), "h3"), |incoming| async move {
        if !incoming.remote_address_validated() {
            return incoming.retry().unwrap();
        }
        let connection = incoming.await.unwrap();
        let mut requests = h3::server::Connection::<_, bytes::Bytes>::new(h3_quinn::Connection::new(connection)).await.unwrap();
        let (_, mut stream) = requests.accept().await.unwrap().unwrap().resolve_request().await.unwrap();
        stream.send_response(http::Response::new(())).await.unwrap();
        stream.finish().await.unwrap();
        let _ = requests.accept().await;
    })
    .await;
    passed(ask(retrying.get(&authority)).await);
    assert_eq!(retrying.connections(), 2);
    let refusing = Server::at("127.0.0.1:0", config(&authority, &Leaf::default(), "h3"), |incoming| async move { incoming.refuse() }).await;
    ask(refusing.get(&authority)).await.because(Reason::Refused);
    let other =
        Server::at("127.0.0.1:0", config(&authority, &Leaf::default(), "doq"), |incoming| async move { drop(incoming.await) }).await;
    ask(other.get(&authority)).await.because(Reason::TlsFailed);
}

#[tokio::test]
async fn what_cannot_be_done_over_quic_is_refused_by_field() {
    let spec = || HttpProbe { url: "a".into(), version: 30, ..HttpProbe::default() };
    let field = |spec: HttpProbe| invalid(&probe(Kind::Https(spec)));
    assert_eq!(invalid(&probe(Kind::Http(spec()))), "http.version");
    let racing = Probe { addresses: AddressSelection::HappyEyeballs.into(), ..probe(Kind::Https(spec())) };
    assert_eq!(invalid(&racing), "https.version");
    assert_eq!(field(HttpProbe { proxy: Some(HttpProxy { url: "http://a:1".into(), ..HttpProxy::default() }), ..spec() }), "https.proxy");
    assert_eq!(field(HttpProbe { reuse: true, ..spec() }), "https.reuse");
    let old = TlsOptions { max_version: TlsVersion::TlsVersion12.into(), insecure: true, ..TlsOptions::default() };
    assert_eq!(field(HttpProbe { tls: Some(old), ..spec() }), "https.tls.max_version");
}
