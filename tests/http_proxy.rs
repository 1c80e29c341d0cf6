//! Through proxies: who is asked for what, and whose fault it is.

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio::io::AsyncWriteExt as _;
use vantage_contract::v1::{
    AddressSelection, Attribution, HttpProbe, HttpProxy, HttpReport, HttpVersion, Outcome, Probe, Reason, Secret, TlsOptions, probe::Kind,
    probe_result::Report, secret::Source,
};
use vantage_probes::{Destination, Gate, Sight, stopwatch::Phase};

use crate::lab::{
    http::{Server, finish, ok, read_request, redirect, reset},
    place::Closed,
    probe::{Verdict as _, assert_ended_by_the_timeout, hasty, invalid, probe, run, run_behind},
    proxy, servers,
    tls::{Authority, Leaf, serve},
};

const PASSWORD: &str = "hunter2-hunter2";

fn secret(text: &str) -> Option<Secret> {
    Some(Secret { source: Some(Source::Value(text.into())) })
}

fn by(scheme: &str, proxy: &Server) -> HttpProxy {
    HttpProxy { url: format!("{scheme}://{}", proxy.address), ..HttpProxy::default() }
}

fn through(proxy: HttpProxy, url: String) -> HttpProbe {
    HttpProbe { url, proxy: Some(proxy), ..HttpProbe::default() }
}

async fn ask(spec: HttpProbe) -> Sight {
    let sight = run(&probe(Kind::Http(spec))).await;
    assert!(!format!("{sight:?}").contains(PASSWORD), "{sight:?}");
    sight
}

fn report(report: Option<Report>) -> HttpReport {
    match report {
        Some(Report::Http(report) | Report::Https(report)) => *report,
        other => panic!("a report of http, not {other:?}"),
    }
}

fn passed(sight: Sight) -> HttpReport {
    report(Some(sight.passed()))
}

/// A gate that keeps what it was asked, and allows names at proxies or not.
struct Asked {
    names: bool,
    denied: Option<&'static str>,
    seen: std::sync::Mutex<Vec<String>>,
}

impl Asked {
    fn new(names: bool, denied: Option<&'static str>) -> Arc<Self> {
        Arc::new(Self { names, denied, seen: std::sync::Mutex::default() })
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

impl Gate for Asked {
    fn permit(&self, Destination { address, port, .. }: Destination) -> Result<(), String> {
        self.seen.lock().unwrap().push(format!("{address}:{}", port.unwrap_or_default()));
        if self.denied.is_some_and(|denied| address == denied.parse::<IpAddr>().unwrap()) { Err("denied".into()) } else { Ok(()) }
    }

    fn permit_names_at_proxies(&self) -> Result<(), String> {
        if self.names { Ok(()) } else { Err("no names".into()) }
    }
}

const IN_THE_CLEAR: [Phase; 6] = [Phase::Resolve, Phase::Connect, Phase::Proxy, Phase::Send, Phase::Wait, Phase::Transfer];

#[tokio::test]
async fn the_proxy_is_given_an_address_that_the_gate_has_seen() {
    let (target, requests) = Server::scripted(|_, _| ok("hello")).await;
    let port = target.address.port();
    let (connect, connects) = proxy::connect(str::to_owned).await;
    let (socks, wanted) = proxy::socks(None, target.address).await;
    for (scheme, server) in [("http", &connect), ("socks5", &socks)] {
        let gate = Asked::new(false, None);
        let spec = through(by(scheme, server), format!("http://localhost:{port}/x"));
        let sight = run_behind(&probe(Kind::Http(spec)), gate.clone()).await;
        assert_eq!(sight.address, Some(target.address.ip()));
        assert_eq!(sight.phases.iter().map(|(phase, _)| *phase).collect::<Vec<_>>(), IN_THE_CLEAR);
        let seen = passed(sight);
        assert_eq!(
            (seen.proxy.clone(), seen.remote_address.clone()),
            (format!("{scheme}://{}", server.address), server.address.to_string())
        );
        assert_eq!(seen.hops[0].address, "127.0.0.1");
        assert!(seen.hops[0].phases.as_ref().unwrap().proxy.is_some());
        let asked = gate.seen();
        assert!(asked.contains(&format!("127.0.0.1:{port}")) && asked.contains(&server.address.to_string()), "{asked:?}");
        let request = requests.all().pop().unwrap();
        assert!(request.starts_with("GET /x HTTP/1.1\r\n") && request.contains(&format!("host: localhost:{port}\r\n")), "{request}");
    }
    let connects = connects.all();
    assert!(connects[0].starts_with(&format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n")), "{connects:?}");
    assert!(!connects[0].contains("roxy-"), "{connects:?}");
    assert_eq!(wanted.all(), [format!("127.0.0.1:{port}")]);
}

#[tokio::test]
async fn what_the_gate_denies_no_proxy_is_asked_for() {
    let (server, connects) = proxy::connect(str::to_owned).await;
    let target = Server::answering(ok("")).await;
    for (denied, url) in [("169.254.169.254", "http://169.254.169.254/".to_owned()), ("127.0.0.1", target.url("/"))] {
        let spec = through(by("http", &server), url);
        run_behind(&probe(Kind::Http(spec)), Asked::new(false, Some(denied))).await.because(Reason::PolicyDenied);
    }
    // The proxy's own address is denied.
    let elsewhere = Server::on("127.0.0.7", |stream, _| finish(stream)).await;
    let spec = through(by("http", &server), format!("http://{}/", elsewhere.address));
    let sight = run_behind(&probe(Kind::Http(spec)), Asked::new(false, Some("127.0.0.1"))).await;
    assert!(sight.summary.starts_with("the proxy http://127.0.0.1:"), "{}", sight.summary);
    sight.because(Reason::PolicyDenied);
    assert_eq!((server.connections(), connects.all().len()), (0, 0));
}

#[tokio::test]
async fn a_name_is_given_to_the_proxy_where_check_and_policy_say_so() {
    let target = Server::answering(ok("hello")).await;
    let at = target.address;
    let (connect, connects) = proxy::connect(move |_| at.to_string()).await;
    let (socks, wanted) = proxy::socks(None, at).await;
    for (scheme, server) in [("http", &connect), ("socks5", &socks)] {
        let spec = || through(HttpProxy { remote_names: true, ..by(scheme, server) }, "http://inside.example:8000/".into());
        let sight = run_behind(&probe(Kind::Http(spec())), Asked::new(false, None)).await;
        assert_eq!((sight.attribution, sight.summary.as_str()), (Attribution::Vantage, "http.proxy.remote_names: no names"));
        sight.because(Reason::PolicyDenied);
        assert_eq!(server.connections(), 0);
        let gate = Asked::new(true, None);
        let sight = run_behind(&probe(Kind::Http(spec())), gate.clone()).await;
        assert_eq!(sight.address, Some(server.address.ip()));
        assert_eq!(passed(sight).status, 200);
        assert_eq!(gate.seen(), [server.address.to_string()]);
    }
    assert!(connects.all()[0].starts_with("CONNECT inside.example:8000 "), "{:?}", connects.all());
    assert_eq!(wanted.all(), ["inside.example:8000"]);
}

#[tokio::test]
async fn tls_is_with_the_target_whatever_is_between() {
    let authority = Authority::new();
    let leaf = Leaf { names: &["localhost"], ..Leaf::default() };
    for alpn in ["http/1.1", "h2"] {
        let server = serve(authority.acceptor(&leaf, &[alpn]), move |mut stream, _| async move {
            if alpn == "h2" {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    respond.send_response(http::Response::new(()), true).unwrap();
                }
            } else {
                read_request(&mut stream).await;
                let _ = stream.write_all(ok("hello").as_bytes()).await;
                finish(stream).await;
            }
        })
        .await;
        let (connect, _) = proxy::connect(str::to_owned).await;
        let (socks, _) = proxy::socks(Some(("joe", PASSWORD)), server.address).await;
        for (scheme, proxy) in [("http", &connect), ("socks5", &socks)] {
            let proxy = HttpProxy { username: "joe".into(), password: secret(PASSWORD), ..by(scheme, proxy) };
            let url = format!("https://localhost:{}/", server.address.port());
            let spec = HttpProbe { tls: Some(authority.options()), ..through(proxy, url) };
            let sight = run(&probe(Kind::Https(spec))).await;
            assert_eq!(
                sight.phases[..4].iter().map(|(phase, _)| *phase).collect::<Vec<_>>(),
                [Phase::Resolve, Phase::Connect, Phase::Proxy, Phase::Tls]
            );
            let seen = passed(sight);
            let tls = seen.tls.unwrap();
            assert_eq!(
                (tls.server_name.as_str(), tls.verified, seen.version.as_str()),
                ("localhost", true, if alpn == "h2" { "2" } else { "1.1" })
            );
        }
    }
}

#[tokio::test]
async fn credentials_are_for_the_proxy_alone() {
    let (target, requests) = Server::scripted(|_, _| ok("")).await;
    let (connect, connects) = proxy::connect(str::to_owned).await;
    let (socks, _) = proxy::socks(Some(("joe", PASSWORD)), target.address).await;
    for (scheme, server) in [("http", &connect), ("socks5", &socks)] {
        let proxy = HttpProxy { username: "joe".into(), password: secret(PASSWORD), ..by(scheme, server) };
        passed(ask(through(proxy, target.url("/"))).await);
    }
    // "joe:hunter2-hunter2"
    assert!(connects.all()[0].contains("\r\nProxy-Authorization: Basic am9lOmh1bnRlcjItaHVudGVyMg==\r\n"), "{:?}", connects.all());
    assert!(requests.all().iter().all(|request| !request.to_lowercase().contains("authorization")), "{:?}", requests.all());
    for (login, words) in [(Some("wrong"), "does not accept user and password"), (None, "wants to know who is asking")] {
        let username = login.map(|_| "joe".to_owned()).unwrap_or_default();
        let proxy = HttpProxy { username, password: login.and_then(secret), ..by("socks5", &socks) };
        let sight = ask(through(proxy, target.url("/"))).await;
        assert_eq!((sight.outcome, sight.attribution), (Outcome::Undetermined, Attribution::Request), "{sight:?}");
        assert!(sight.summary.ends_with(words), "{}", sight.summary);
        sight.because(Reason::NotAuthenticated);
    }
    assert_eq!(requests.all().len(), 2);
}

#[tokio::test]
async fn each_hop_goes_through_the_proxy_or_not() {
    let (inner, _) = Server::scripted(|_, _| ok("there")).await;
    let place = format!("http://localhost:{}/", inner.address.port());
    let (outer, _) = Server::scripted(move |_, _| redirect(302, &place)).await;
    let (server, connects) = proxy::connect(str::to_owned).await;
    let url = format!("http://127.0.0.1:{}/", outer.address.port());
    for (direct, connected, last) in [("localhost", 1, ""), ("127.0.0.0/8", 1, "proxy"), ("*", 0, ""), (".example", 2, "proxy")] {
        let before = connects.all().len();
        let proxy = HttpProxy { no_proxy: vec![direct.into()], ..by("http", &server) };
        let seen = passed(ask(through(proxy, url.clone())).await);
        assert_eq!((connects.all().len() - before, seen.proxy.is_empty()), (connected, last.is_empty()), "{direct}");
        assert_eq!(seen.hops.len(), 2);
    }
}

#[tokio::test]
async fn a_proxy_that_is_down_or_refuses_is_not_the_targets_fault() {
    let target = Server::answering(ok("")).await;
    let closed = Closed::find();
    let url = |scheme: &str, address| format!("{scheme}://{address}");
    let down = |scheme| HttpProxy { url: url(scheme, closed.address), ..HttpProxy::default() };
    for scheme in ["http", "socks5"] {
        let sight = ask(through(down(scheme), target.url("/"))).await;
        assert_eq!((sight.outcome, sight.attribution), (Outcome::Failed, Attribution::Path));
        let expected = format!("the proxy {}: connect to {}: connection refused", url(scheme, closed.address), closed.address);
        assert_eq!(sight.summary, expected);
        sight.because(Reason::Refused);
    }
    let cases: [(&str, &[u8], Reason, &str); 8] = [
        ("http", b"HTTP/1.1 403 No\r\n\r\n", Reason::Prohibited, "status 403 (No)"),
        ("http", b"HTTP/1.1 502 Bad\r\nX-Squid-Error: ERR_X 1\r\n\r\n", Reason::Unreachable, "status 502 (ERR_X 1)"),
        ("http", b"HTTP/1.1 504 Late\r\n\r\n", Reason::TimedOut, "status 504 (Late)"),
        ("http", b"SSH-2.0-OpenSSH_9.2\r\n", Reason::MalformedAnswer, "not HTTP"),
        ("http", b"HTTP/1.1 2", Reason::Disconnected, "closed the connection"),
        ("socks5", &[5, 0, 5, 4, 0, 1, 0, 0, 0, 0, 0, 0], Reason::Unreachable, "host unreachable"),
        ("socks5", &[5, 0, 5, 5, 0, 1, 0, 0, 0, 0, 0, 0], Reason::Refused, "connection refused"),
        ("socks5", b"HTTP/1.0 400 Bad\r\n\r\n", Reason::MalformedAnswer, "answers in HTTP"),
    ];
    for (scheme, answer, reason, words) in cases {
        let refusing = Server::start(move |mut stream, _| async move {
            let _ = stream.write_all(answer).await;
            finish(stream).await;
        })
        .await;
        let sight = ask(through(by(scheme, &refusing), target.url("/"))).await;
        assert_eq!((sight.outcome, sight.attribution), (Outcome::Failed, Attribution::Path), "{sight:?}");
        let begin = format!("reach {} through the proxy {scheme}://{}: ", target.address, refusing.address);
        assert!(sight.summary.starts_with(&begin) && sight.summary.contains(words), "{}", sight.summary);
        sight.because(reason);
    }
    let resetting = Server::start(|mut stream, _| async move {
        let _ = tokio::io::AsyncReadExt::read_u8(&mut stream).await;
        reset(stream);
    })
    .await;
    assert_eq!(ask(through(by("http", &resetting), target.url("/"))).await.attribution, Attribution::Path);
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn a_proxy_that_stalls_at_any_step_ends_by_the_timeout_and_is_not_the_targets_fault() {
    let target = Server::answering(ok("")).await;
    let stalls: [(&str, &[u8]); 8] = [
        ("http", b""),
        ("http", b"HTTP/1.1 2"),
        ("http", b"HTTP/1.1 200 OK\r\nA: b\r\n"),
        ("http", b"HTTP/1.1 100 Continue\r\n\r\n"),
        ("socks5", &[]),
        ("socks5", &[5]),
        ("socks5", &[5, 0]),
        ("socks5", &[5, 0, 5, 0, 0, 3, 255, 1]),
    ];
    for (scheme, beginning) in stalls {
        let stalling = Server::start(move |mut stream, _| async move {
            let _ = stream.write_all(beginning).await;
            std::future::pending::<()>().await;
        })
        .await;
        let sight = run(&hasty(Kind::Http(through(by(scheme, &stalling), target.url("/"))))).await;
        assert_ended_by_the_timeout(&sight);
        assert_eq!(sight.attribution, Attribution::Path, "{sight:?}");
        assert_eq!(sight.phases.last().map(|(phase, _)| *phase), Some(Phase::Proxy));
        assert!(sight.summary.contains("waiting for the proxy"), "{}", sight.summary);
        sight.because(Reason::TimedOut);
    }
    let endless = Server::start(|mut stream, _| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while stream.write_all(b"a: b\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_micros(10)).await;
        }
    })
    .await;
    let sight = ask(through(by("http", &endless), target.url("/"))).await;
    assert!(sight.summary.ends_with("longer than 16 KiB"), "{}", sight.summary);
    sight.because(Reason::MalformedAnswer);
}

#[tokio::test]
async fn a_target_that_fails_behind_a_proxy_is_to_blame_itself() {
    let (server, _) = proxy::connect(str::to_owned).await;
    let not_found = Server::answering("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n").await;
    let sight = ask(through(by("http", &server), not_found.url("/"))).await;
    assert_eq!(sight.attribution, Attribution::Target);
    sight.because(Reason::UnexpectedAnswer);
    let plain = Server::start(|mut stream, _| async move {
        let _ = stream.write_all(b"220 here is SMTP\r\n").await;
        finish(stream).await;
    })
    .await;
    let spec = HttpProbe {
        tls: Some(TlsOptions { insecure: true, ..TlsOptions::default() }),
        ..through(by("http", &server), format!("https://{}/", plain.address))
    };
    run(&probe(Kind::Https(spec))).await.because(Reason::TlsFailed);
    // There nobody listens; the proxy, which is asked for the address, says what it saw.
    let closed = Closed::find();
    let (socks, _) = proxy::socks(None, closed.address).await;
    let sight = ask(through(by("socks5", &socks), format!("http://{}/", closed.address))).await;
    assert_eq!(sight.attribution, Attribution::Path);
    sight.because(Reason::Refused);
}

#[tokio::test]
async fn every_address_of_a_name_is_asked_for_through_the_proxy() {
    let (target, _) = Server::scripted(|_, _| ok("")).await;
    let (server, connects) = proxy::connect(str::to_owned).await;
    let spec = through(by("http", &server), format!("http://127.0.0.1:{}/", target.address.port()));
    let all = Probe { addresses: AddressSelection::All.into(), ..probe(Kind::Http(spec)) };
    let sight = run(&all).await;
    assert_eq!((sight.outcome, sight.addresses.len(), connects.all().len()), (Outcome::Passed, 1, 1), "{sight:?}");
}

#[tokio::test]
async fn real_proxies_lead_to_the_target() {
    let Some(target) = servers::Server::nginx(None) else { return };
    let url = format!("http://{}/", target.address);
    let closed = Closed::find();
    if let Some(squid) = servers::Server::squid() {
        let proxy = HttpProxy { url: format!("http://{}", squid.address), ..HttpProxy::default() };
        assert_eq!(passed(ask(through(proxy.clone(), url.clone())).await).status, 200);
        let sight = ask(through(proxy.clone(), format!("http://{}/", closed.address))).await;
        assert!(sight.summary.contains("status 503 (ERR_CONNECT_FAIL 111)"), "{}", sight.summary);
        sight.because(Reason::Unreachable);
        let sight = ask(through(proxy, "http://127.0.0.3:1/".into())).await;
        assert!(sight.summary.contains("status 403"), "{}", sight.summary);
        sight.because(Reason::Prohibited);
    }
    if let Some(microsocks) = servers::Server::microsocks("joe", PASSWORD) {
        let proxy = |password| HttpProxy {
            url: format!("socks5://{}", microsocks.address),
            username: "joe".into(),
            password: secret(password),
            ..HttpProxy::default()
        };
        assert_eq!(passed(ask(through(proxy(PASSWORD), url.clone())).await).status, 200);
        ask(through(proxy(PASSWORD), format!("http://{}/", closed.address))).await.because(Reason::Refused);
        ask(through(proxy("wrong"), url)).await.because(Reason::NotAuthenticated);
    }
}

#[test]
fn what_does_not_go_together_is_refused_by_field() {
    let proxy = || HttpProxy { url: "http://proxy.example:3128".into(), ..HttpProxy::default() };
    let of = |proxy: HttpProxy, addresses: AddressSelection| {
        invalid(&Probe { addresses: addresses.into(), ..probe(Kind::Http(through(proxy, "a".into()))) })
    };
    assert_eq!(of(proxy(), AddressSelection::HappyEyeballs), "http.proxy");
    assert_eq!(of(HttpProxy { remote_names: true, ..proxy() }, AddressSelection::All), "http.proxy.remote_names");
    assert_eq!(of(HttpProxy { no_proxy: vec!["a b".into()], ..proxy() }, AddressSelection::First), "http.proxy.no_proxy[0]");
    assert_eq!(of(HttpProxy { username: "joe".into(), ..proxy() }, AddressSelection::First), "http.proxy.password");
    let three = HttpProbe { version: HttpVersion::HttpVersion3.into(), ..through(proxy(), "a".into()) };
    assert_eq!(invalid(&probe(Kind::Https(three))), "https.proxy");
}
