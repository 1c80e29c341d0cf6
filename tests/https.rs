//! HTTPS: handshakes, certificates of every wrongness, and HTTP/2.

use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vantage_contract::v1::{
    Attribution, HttpProbe, HttpReport, HttpVersion, Outcome, Reason, TlsOptions, TlsVersion, probe::Kind, probe_result::Report,
};
use vantage_probes::{Sight, stopwatch::Phase};

use crate::lab::{
    http::{Requests, Server, finish, ok, read_request, redirect, reset},
    probe::{Verdict as _, assert_ended_by_the_timeout, hasty, probe, run},
    tls::{Authority, Leaf, self_signed as lab_self_signed, serve},
};

fn get(server: &Server, tls: TlsOptions) -> HttpProbe {
    HttpProbe { url: format!("https://{}/", server.address), tls: Some(tls), ..HttpProbe::default() }
}

async fn ask(spec: HttpProbe) -> Sight {
    run(&probe(Kind::Https(spec))).await
}

fn report(report: Option<Report>) -> HttpReport {
    match report {
        Some(Report::Https(report) | Report::Http(report)) => *report,
        other => panic!("a report of https, not {other:?}"),
    }
}

fn passed(sight: Sight) -> HttpReport {
    report(Some(sight.passed()))
}

/// A server with this certificate that answers every request with 200, over HTTP/1.1.
async fn serving(authority: &Authority, leaf: &Leaf<'_>) -> Server {
    serve(authority.acceptor(leaf, &[]), |mut stream, _| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(ok("hello").as_bytes()).await;
        finish(stream).await;
    })
    .await
}

#[tokio::test]
async fn a_valid_chain_passes_and_is_reported() {
    let authority = Authority::new();
    let server = serving(&authority, &Leaf { names: &["127.0.0.1", "www.example"], ..Leaf::default() }).await;
    let sight = ask(get(&server, authority.options())).await;
    let phases: Vec<_> = sight.phases.iter().map(|(phase, _)| *phase).collect();
    assert_eq!(phases, [Phase::Resolve, Phase::Connect, Phase::Tls, Phase::Send, Phase::Wait, Phase::Transfer]);
    let tls = passed(sight).tls.unwrap();
    assert_eq!((tls.version.as_str(), tls.alpn.as_str(), tls.server_name.as_str()), ("1.3", "", ""));
    assert!(tls.cipher_suite.starts_with("TLS_"), "{}", tls.cipher_suite);
    assert!(tls.verified && tls.certificate_error.is_empty());
    let [leaf, issuer] = tls.certificates.as_slice() else { panic!("{:?}", tls.certificates) };
    assert_eq!(leaf.names, ["127.0.0.1", "www.example"]);
    assert_eq!(
        (leaf.issuer.as_str(), issuer.subject.as_str(), issuer.issuer.as_str()),
        ("CN=Lab Intermediate", "CN=Lab Intermediate", "CN=Lab Root")
    );
    assert_eq!(leaf.key, "ECDSA 256");
    let left = tls.remaining_validity.unwrap().seconds;
    assert!((89 * 86_400..=90 * 86_400).contains(&left), "{left}");
}

#[tokio::test]
async fn a_rejected_certificate_says_why_and_is_reported_all_the_same() {
    let authority = Authority::new();
    let stranger = Authority::named("Other Root");
    let impostor = Authority::new();
    let cases = [
        (Leaf { from_day: -9, to_day: -2, ..Leaf::default() }, authority.options(), "expired on "),
        (Leaf { from_day: 2, ..Leaf::default() }, authority.options(), "is not valid before "),
        (Leaf { names: &["other.example"], ..Leaf::default() }, authority.options(), "not valid for 127.0.0.1, only for other.example"),
        (Leaf::default(), stranger.options(), "the issuer \"CN=Lab Root\" is unknown"),
        (Leaf::default(), impostor.options(), "has another key"),
        (Leaf { whole_chain: false, ..Leaf::default() }, authority.options(), "missing intermediate"),
        (Leaf::default(), TlsOptions::default(), "is unknown"),
    ];
    for (leaf, options, why) in cases {
        let server = serving(&authority, &leaf).await;
        let insecure = passed(ask(get(&server, TlsOptions { insecure: true, ..TlsOptions::default() })).await).tls.unwrap();
        assert!(!insecure.verified && insecure.certificate_error.is_empty());

        let sight = ask(get(&server, options)).await;
        assert!(sight.summary.contains(why), "{}", sight.summary);
        assert_eq!(sight.attribution, Attribution::Target);
        let tls = report(sight.because(Reason::CertificateInvalid)).tls.unwrap();
        assert!(tls.certificate_error.contains(why), "{}", tls.certificate_error);
        assert_eq!((tls.version.as_str(), tls.verified), ("1.3", false));
        assert_eq!(tls.certificates, insecure.certificates);
        let shown = &tls.certificates[0];
        assert_eq!((tls.certificates.len(), shown.fingerprint_sha256.len()), (1 + usize::from(leaf.whole_chain), 64));
        let days = |time: Option<prost_types::Timestamp>| time.unwrap().seconds / 86_400;
        assert_eq!(days(shown.not_after_time) - days(shown.not_before_time), i64::from(leaf.to_day - leaf.from_day));
        assert_eq!(tls.remaining_validity.unwrap().seconds < 0, leaf.to_day < 0);
    }
}

#[tokio::test]
async fn a_certificate_that_is_trusted_itself_passes_even_if_it_calls_itself_an_authority() {
    let (acceptor, file) = lab_self_signed();
    let server = serve(acceptor, |mut stream, _| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(ok("").as_bytes()).await;
        finish(stream).await;
    })
    .await;
    let trusting = TlsOptions { ca_file: file.path().display().to_string(), ..TlsOptions::default() };
    passed(ask(get(&server, trusting.clone())).await);
    let sight = ask(get(&server, TlsOptions { server_name: "other.example".into(), ..trusting })).await;
    assert!(sight.summary.contains("not valid for other.example"), "{}", sight.summary);
    sight.because(Reason::CertificateInvalid);
    let sight = ask(get(&server, TlsOptions::default())).await;
    assert!(sight.summary.contains("self-signed"), "{}", sight.summary);
    sight.because(Reason::CertificateInvalid);
}

#[tokio::test]
async fn a_certificate_has_to_be_valid_for_as_long_as_asked() {
    let authority = Authority::new();
    let server = serving(&authority, &Leaf { to_day: 3, ..Leaf::default() }).await;
    let at_least = |days: i64| TlsOptions {
        min_remaining_validity: Some(prost_types::Duration { seconds: days * 86_400, nanos: 0 }),
        ..authority.options()
    };
    let sight = ask(get(&server, at_least(7))).await;
    assert!(sight.summary.contains(" days more, at least 7 days are asked for"), "{}", sight.summary);
    sight.because(Reason::CertificateInvalid);
    passed(ask(get(&server, at_least(2))).await);
}

#[tokio::test]
async fn an_address_with_a_certificate_for_a_name_passes_by_that_name() {
    let authority = Authority::new();
    let server = serve(authority.acceptor(&Leaf { names: &["www.example"], ..Leaf::default() }, &[]), |mut stream, _| async move {
        let name = stream.get_ref().1.server_name().unwrap_or("none").to_owned();
        read_request(&mut stream).await;
        let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\nX-Name: {name}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await;
        finish(stream).await;
    })
    .await;
    let header = vantage_contract::v1::HttpHeaderExpectation { name: "x-name".into(), matches: "^www.example$".into(), absent: false };
    let expect = vantage_contract::v1::HttpExpectations { headers: vec![header], ..Default::default() };
    let tls = TlsOptions { server_name: "www.example".into(), ..authority.options() };
    let seen = passed(ask(HttpProbe { expect: Some(expect), ..get(&server, tls) }).await);
    assert_eq!(seen.tls.unwrap().server_name, "www.example");
}

#[tokio::test]
async fn the_lowest_version_and_no_common_one_are_told() {
    let authority = Authority::new();
    let old = serve(authority.acceptor_of(&Leaf::default(), &[], &[&TLS12], false), |mut stream, _| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(ok("").as_bytes()).await;
        finish(stream).await;
    })
    .await;
    let tls = passed(ask(get(&old, authority.options())).await).tls.unwrap();
    assert_eq!((tls.version.as_str(), tls.cipher_suite.starts_with("TLS_ECDHE_")), ("1.2", true));
    let newer = TlsOptions { min_version: TlsVersion::TlsVersion13.into(), ..authority.options() };
    let sight = ask(get(&old, newer)).await;
    assert_eq!(sight.attribution, Attribution::Target);
    assert!(sight.summary.contains("alert \"protocol version\" (70)"), "{}", sight.summary);
    sight.because(Reason::TlsFailed);
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_it_is_asked_for() {
    let authority = Authority::new();
    for version in [&TLS12, &TLS13] {
        let acceptor = authority.acceptor_of(&Leaf::default(), &[], &[version], true);
        let server = serve(acceptor, |mut stream, _| async move {
            read_request(&mut stream).await;
            let _ = stream.write_all(ok("").as_bytes()).await;
            finish(stream).await;
        })
        .await;
        let (certificate_file, key_file) = authority.client();
        let with = TlsOptions { certificate_file, key_file, ..authority.options() };
        passed(ask(get(&server, with)).await);
        let sight = ask(get(&server, authority.options())).await;
        assert!(sight.summary.contains("alert"), "{}", sight.summary);
        sight.because(Reason::TlsFailed);
    }
}

#[tokio::test]
async fn broken_files_make_the_check_invalid_and_name_the_field() {
    let authority = Authority::new();
    let server = serving(&authority, &Leaf::default()).await;
    let (certificate_file, key_file) = authority.client();
    let junk = authority.path("junk.pem").display().to_string();
    std::fs::write(&junk, "-----BEGIN CERTIFICATE-----\nnonsense\n").unwrap();
    let other = authority.path("other.key").display().to_string();
    std::fs::write(&other, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let missing = authority.path("missing.pem").display().to_string();
    for (field, options) in [
        ("https.tls.ca_file", TlsOptions { ca_file: missing.clone(), ..TlsOptions::default() }),
        ("https.tls.ca_file", TlsOptions { ca_file: junk.clone(), ..TlsOptions::default() }),
        ("https.tls.ca_file", TlsOptions { ca_file: key_file.clone(), ..TlsOptions::default() }),
        ("https.tls.certificate_file", TlsOptions { certificate_file: missing, key_file, ..authority.options() }),
        ("https.tls.key_file", TlsOptions { certificate_file: certificate_file.clone(), key_file: junk, ..authority.options() }),
        ("https.tls.key_file", TlsOptions { certificate_file, key_file: other, ..authority.options() }),
    ] {
        let sight = ask(get(&server, options)).await;
        assert_eq!((sight.outcome, sight.attribution), (Outcome::Undetermined, Attribution::Request));
        assert!(sight.summary.starts_with(field), "{field}: {}", sight.summary);
        sight.because(Reason::InvalidCheck);
    }
}

#[tokio::test]
async fn what_is_not_tls_fails_as_tls() {
    let talks = Server::start(|mut stream, _| async move {
        stream.write_all(b"220 mail.example ESMTP\r\n").await.unwrap();
        finish(stream).await;
    })
    .await;
    let http = Server::start(|mut stream, _| async move {
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        finish(stream).await;
    })
    .await;
    for server in [talks, http] {
        let sight = ask(get(&server, TlsOptions::default())).await;
        assert!(sight.summary.contains("not TLS"), "{}", sight.summary);
        sight.because(Reason::TlsFailed);
    }
}

#[tokio::test]
async fn a_handshake_that_ends_early_is_a_disconnect() {
    let closes = Server::start(|mut stream, _| async move {
        let _ = stream.read_u8().await;
        finish(stream).await;
    })
    .await;
    let resets = Server::start(|mut stream, _| async move {
        let _ = stream.read_u8().await;
        reset(stream);
    })
    .await;
    for server in [closes, resets] {
        let sight = ask(get(&server, TlsOptions::default())).await;
        assert_eq!(sight.phases.last().unwrap().0, Phase::Tls);
        sight.because(Reason::Disconnected);
    }
}

#[tokio::test]
async fn a_stall_anywhere_is_ended_by_the_timeout() {
    let authority = Authority::new();
    let in_the_handshake = Server::start(|stream, _| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let before_the_answer = serve(authority.acceptor(&Leaf::default(), &[]), |stream, _| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let in_the_answer = serve(authority.acceptor(&Leaf::default(), &[]), |mut stream, _| async move {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").await.unwrap();
        stream.flush().await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    for (server, phase) in [(in_the_handshake, Phase::Tls), (before_the_answer, Phase::Wait), (in_the_answer, Phase::Transfer)] {
        let sight = run(&hasty(Kind::Https(get(&server, authority.options())))).await;
        assert_ended_by_the_timeout(&sight);
        assert_eq!(sight.phases.last().unwrap().0, phase);
        let seen = report(sight.because(Reason::TimedOut)).tls.unwrap();
        assert_eq!(seen.certificates.is_empty(), phase == Phase::Tls);
    }
}

#[tokio::test]
async fn redirects_cross_from_the_clear_to_tls_and_back() {
    let authority = Authority::new();
    let end = Server::answering(ok("done")).await;
    let place = end.url("/end");
    let secure = serve(authority.acceptor(&Leaf::default(), &[]), move |mut stream, _| {
        let place = place.clone();
        async move {
            read_request(&mut stream).await;
            let _ = stream.write_all(redirect(302, &place).as_bytes()).await;
            finish(stream).await;
        }
    })
    .await;
    let start = Server::answering(redirect(301, &format!("https://{}/", secure.address))).await;
    let spec = HttpProbe { url: start.url("/"), tls: Some(authority.options()), ..HttpProbe::default() };
    let sight = run(&probe(Kind::Http(spec.clone()))).await;
    assert_eq!(sight.phases.iter().filter(|(phase, _)| *phase == Phase::Tls).count(), 1);
    assert_eq!(sight.phases.iter().filter(|(phase, _)| *phase == Phase::Connect).count(), 3);
    let seen = passed(sight);
    assert_eq!((seen.redirect_count, seen.tls), (2, None));
    let half = run(&probe(Kind::Http(HttpProbe { max_redirects: Some(1), ..spec }))).await;
    assert!(report(half.because(Reason::UnexpectedAnswer)).tls.unwrap().verified);
}

#[tokio::test]
async fn another_host_gets_neither_our_server_name_nor_our_certificate() {
    let authority = Authority::new();
    let seen = Requests::default();
    let names = seen.clone();
    let acceptor = authority.acceptor(&Leaf { names: &["127.0.0.2"], ..Leaf::default() }, &[]);
    let other = Server::on("127.0.0.2", move |stream, _| {
        let (names, acceptor) = (names.clone(), acceptor.clone());
        async move {
            let mut stream = acceptor.accept(stream).await.unwrap();
            names.push(stream.get_ref().1.server_name().unwrap_or("none").to_owned());
            read_request(&mut stream).await;
            let _ = stream.write_all(ok("").as_bytes()).await;
            finish(stream).await;
        }
    })
    .await;
    let place = format!("https://{}/", other.address);
    let first = serve(authority.acceptor(&Leaf { names: &["www.example"], ..Leaf::default() }, &[]), move |mut stream, _| {
        let place = place.clone();
        async move {
            read_request(&mut stream).await;
            let _ = stream.write_all(redirect(302, &place).as_bytes()).await;
            finish(stream).await;
        }
    })
    .await;
    let tls = TlsOptions { server_name: "www.example".into(), ..authority.options() };
    assert_eq!(passed(ask(get(&first, tls)).await).tls.unwrap().server_name, "");
    assert_eq!(seen.all(), ["none"]);
}

/// A server of HTTP/2 that answers with the method, the authority and the length of the body; over TLS if it has an acceptor.
async fn serving_two(acceptor: Option<tokio_rustls::TlsAcceptor>) -> Server {
    let acceptor = Arc::new(acceptor);
    Server::start(move |stream, _| {
        let acceptor = acceptor.clone();
        async move {
            match acceptor.as_ref() {
                Some(acceptor) => answer_two(acceptor.accept(stream).await.unwrap()).await,
                None => answer_two(stream).await,
            }
        }
    })
    .await
}

async fn answer_two(stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            let (head, mut body) = request.into_parts();
            let mut length = 0;
            while let Some(Ok(chunk)) = body.data().await {
                length += chunk.len();
                let _ = body.flow_control().release_capacity(chunk.len());
            }
            let authority = head.uri.authority().map(ToString::to_string).unwrap_or_default();
            let text = format!("{} {authority} {} {length}", head.method, head.uri.path());
            let mut sending = respond.send_response(http::Response::new(()), false).unwrap();
            sending.send_data(bytes::Bytes::from(text), true).unwrap();
        });
    }
}

#[tokio::test]
async fn http_2_is_spoken_by_agreement_and_by_prior_knowledge() {
    let authority = Authority::new();
    let secure = serving_two(Some(authority.acceptor(&Leaf::default(), &["h2", "http/1.1"]))).await;
    let plain = serving_two(None).await;
    let expecting = |body: String| Some(vantage_contract::v1::HttpExpectations { body_contains: vec![body], ..Default::default() });
    let spec = HttpProbe { expect: expecting(format!("GET {} / 0", secure.address)), ..get(&secure, authority.options()) };
    let sight = ask(spec).await;
    assert_eq!(sight.phases.len(), 6, "{:?}", sight.phases);
    let seen = passed(sight);
    assert_eq!((seen.version.as_str(), seen.tls.unwrap().alpn.as_str()), ("2", "h2"));

    // A body larger than the window that the server opens at first.
    let spec = HttpProbe {
        url: plain.url("/x"),
        method: "POST".into(),
        body: "x".repeat(300_000),
        headers: [("Host".into(), "www.example".into())].into(),
        version: HttpVersion::HttpVersion2.into(),
        expect: expecting("POST www.example /x 300000".to_owned()),
        ..HttpProbe::default()
    };
    let sight = run(&probe(Kind::Http(spec))).await;
    let phases: Vec<_> = sight.phases.iter().map(|(phase, _)| *phase).collect();
    assert_eq!(phases, [Phase::Resolve, Phase::Connect, Phase::Send, Phase::Wait, Phase::Transfer]);
    assert_eq!(passed(sight).version, "2");
}

#[tokio::test]
async fn a_version_that_the_server_does_not_agree_to_fails() {
    let authority = Authority::new();
    let silent = serving(&authority, &Leaf::default()).await;
    let two = HttpProbe { version: HttpVersion::HttpVersion2.into(), ..get(&silent, authority.options()) };
    ask(two).await.because(Reason::UnexpectedAnswer);
    let only_two = serving_two(Some(authority.acceptor(&Leaf::default(), &["h2"]))).await;
    let one = HttpProbe { version: HttpVersion::HttpVersion11.into(), ..get(&only_two, authority.options()) };
    let sight = ask(one).await;
    assert!(sight.summary.contains("no application protocol"), "{}", sight.summary);
    sight.because(Reason::TlsFailed);
}

#[tokio::test]
async fn streams_that_the_server_gives_up_are_disconnects() {
    let resets = Server::start(|stream, _| async move {
        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            respond.send_reset(h2::Reason::REFUSED_STREAM);
        }
    })
    .await;
    let leaves = Server::start(|stream, _| async move {
        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
        if let Some(Ok((_, respond))) = connection.accept().await {
            connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
            let _ = std::future::poll_fn(|cx| connection.poll_closed(cx)).await;
            drop(respond);
        }
    })
    .await;
    let closes = Server::start(|mut stream, _| async move {
        let _ = stream.read_u8().await;
        finish(stream).await;
    })
    .await;
    for server in [resets, leaves, closes] {
        let two = HttpProbe { url: server.url("/"), version: HttpVersion::HttpVersion2.into(), ..HttpProbe::default() };
        run(&probe(Kind::Http(two))).await.because(Reason::Disconnected);
    }
}
