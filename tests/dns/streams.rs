//! DNS over TLS and over HTTPS.

use bytes::Bytes;
use http::{HeaderMap, Request, Response};

use super::*;
use crate::lab::{
    http::Server,
    tls::{Authority, Leaf, serve},
};

fn over(transport: DnsTransport, server: &Server, authority: &Authority) -> DnsProbe {
    DnsProbe { transport: transport.into(), tls: Some(authority.options()), ..ask_at(server.address) }
}

/// The right answer to a question.
fn right(question: &[u8]) -> Vec<u8> {
    let asked = Asked { message: Message::from_vec(question).expect("a question"), number: 0, over_tcp: true };
    bytes(&asked.with(&[("example.test.", 60, a([192, 0, 2, 1]))]))
}

async fn server_over_tls(authority: &Authority) -> Server {
    serve(authority.acceptor(&Leaf::default(), &["dot"]), |mut stream, _| async move {
        let length = stream.read_u16().await.expect("a length");
        let mut question = vec![0; length.into()];
        stream.read_exact(&mut question).await.expect("a question");
        let answer = right(&question);
        let length = u16::try_from(answer.len()).expect("short");
        let _ = stream.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat()).await;
        let _ = stream.shutdown().await;
    })
    .await
}

/// A server over HTTP/2 whose script gives the answer's head and body to a request and its body.
async fn server_over_https<S>(authority: &Authority, script: S) -> Server
where
    S: Fn(&Request<()>, Vec<u8>) -> Response<Vec<u8>> + Send + Sync + 'static,
{
    let script = Arc::new(script);
    serve(authority.acceptor(&Leaf::default(), &["h2"]), move |stream, _| {
        let script = script.clone();
        async move {
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let script = script.clone();
                tokio::spawn(async move {
                    let (head, mut body) = request.into_parts();
                    let mut question = Vec::new();
                    while let Some(Ok(chunk)) = body.data().await {
                        question.extend_from_slice(&chunk);
                    }
                    let (head, body) = script(&Request::from_parts(head, ()), question).into_parts();
                    if let Ok(mut stream) = respond.send_response(Response::from_parts(head, ()), false) {
                        let _ = stream.send_data(Bytes::from(body), true);
                    }
                });
            }
        }
    })
    .await
}

fn message(body: Vec<u8>) -> Response<Vec<u8>> {
    Response::builder().header("content-type", "application/dns-message").body(body).unwrap()
}

fn phases(sight: &vantage_probes::Sight) -> Vec<&'static str> {
    sight.phases.iter().map(|(phase, _)| phase.name()).collect()
}

#[tokio::test]
async fn over_tls_the_certificate_is_judged_and_shown() {
    let authority = Authority::new();
    let server = server_over_tls(&authority).await;
    let sight = run(&probe(Kind::Dns(over(DnsTransport::Tls, &server, &authority)))).await;
    assert_eq!(phases(&sight), ["resolve", "connect", "tls", "send", "wait"]);
    let report = seen(sight.passed());
    let tls = report.tls.expect("the TLS");
    assert_eq!((report.transport.as_str(), report.sent_count, report.answers.len()), ("tls", 1, 1));
    assert_eq!((tls.alpn.as_str(), tls.verified, tls.certificates.len()), ("dot", true, 2));

    let wrong = TlsOptions { server_name: "other.test".into(), ..authority.options() };
    let report = failed(DnsProbe { tls: Some(wrong), ..over(DnsTransport::Tls, &server, &authority) }, Reason::CertificateInvalid).await;
    assert_eq!((report.sent_count, report.tls.expect("the TLS").certificates.len()), (0, 2));
    let insecure = TlsOptions { insecure: true, ..TlsOptions::default() };
    let spec = DnsProbe { tls: Some(insecure), ..over(DnsTransport::Tls, &server, &authority) };
    assert!(!passed(spec).await.tls.expect("the TLS").verified);
}

#[tokio::test]
async fn over_https_the_question_is_posted_as_the_standard_says() {
    let authority = Authority::new();
    let (sender, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let server = server_over_https(&authority, move |head, question| {
        let header =
            |headers: &HeaderMap, name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        let headers = ["accept", "content-type", "content-length"].map(|name| header(head.headers(), name));
        sender.send((head.method().to_string(), head.uri().to_string(), headers, question.clone())).unwrap();
        message(right(&question))
    })
    .await;
    let spec = over(DnsTransport::Https, &server, &authority);
    let sight = run(&probe(Kind::Dns(spec.clone()))).await;
    assert_eq!(phases(&sight), ["resolve", "connect", "tls", "send", "wait"]);
    let latency = sight.latency.expect("a latency");
    assert!(latency.0 < sight.duration && latency.1 == vantage_contract::v1::TimingSource::User, "{sight:?}");
    let report = seen(sight.passed());
    assert_eq!((report.transport.as_str(), report.sent_count, report.answers[0].data.as_str()), ("https", 1, "192.0.2.1"));
    assert_eq!((report.tries[0].transport.as_str(), report.tries[0].fate.as_str()), ("https", "answered"));
    let tls = report.tls.expect("the TLS");
    assert_eq!((tls.alpn.as_str(), tls.version.as_str(), tls.verified, tls.certificates.len()), ("h2", "1.3", true, 2));

    let (method, uri, [accept, content_type, length], question) = requests.recv().await.unwrap();
    assert_eq!((method.as_str(), uri), ("POST", format!("https://{}/dns-query", server.address)));
    assert_eq!((accept.as_str(), content_type.as_str()), ("application/dns-message", "application/dns-message"));
    assert_eq!((length, &question[..2]), (question.len().to_string(), &[0, 0][..]));

    passed(DnsProbe { path: "/of/my/own?a=b".into(), ..spec }).await;
    assert_eq!(requests.recv().await.unwrap().1, format!("https://{}/of/my/own?a=b", server.address));
}

#[tokio::test]
async fn over_https_what_is_not_an_answer_of_dns_fails() {
    let authority = Authority::new();
    let server = server_over_https(&authority, |head, question| {
        let typed = |status: u16, media_type: &str| Response::builder().status(status).header("content-type", media_type);
        let right = right(&question);
        match head.uri().path() {
            "/missing" => typed(404, "application/dns-message").body(right).unwrap(),
            "/moved" => typed(307, "text/plain").header("location", "/dns-query").body(Vec::new()).unwrap(),
            "/page" => typed(200, "text/html").body(right).unwrap(),
            "/untyped" => Response::new(right),
            "/typed" => typed(203, "Application/DNS-Message; charset=utf-8").body(right).unwrap(),
            "/cut" => message(right[..right.len() - 1].to_vec()),
            "/other" => {
                let mut other = right;
                other[13] = b'X';
                message(other)
            }
            "/long" => message(vec![0; 65_536]),
            "/endless-head" => Response::builder().header("x", "y".repeat(100_000)).body(right).unwrap(),
            path => panic!("{path}"),
        }
    })
    .await;
    let at = |path: &str| DnsProbe { path: path.into(), ..over(DnsTransport::Https, &server, &authority) };
    for path in ["/missing", "/moved", "/page", "/untyped", "/other"] {
        let report = failed(at(path), Reason::UnexpectedAnswer).await;
        assert_eq!((report.tries.len(), report.rcode.as_str()), (1, ""), "{path}");
        assert!(!report.tries[0].fate.is_empty() && report.tries[0].fate != "answered", "{path}: {report:?}");
    }
    passed(at("/typed")).await;
    failed(at("/cut"), Reason::MalformedAnswer).await;
    failed(at("/long"), Reason::TooLarge).await;
    let sight = run(&probe(Kind::Dns(at("/endless-head")))).await;
    assert_eq!(sight.outcome, Outcome::Failed, "{sight:?}");
}

#[tokio::test]
async fn over_https_a_server_that_stalls_closes_or_speaks_something_else_is_told_apart() {
    let authority = Authority::new();
    let silent = serve(authority.acceptor(&Leaf::default(), &["h2"]), |mut stream, _| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let sight = run(&hasty(Kind::Dns(over(DnsTransport::Https, &silent, &authority)))).await;
    assert!(sight.summary.contains("waiting for the answer"), "{}", sight.summary);
    let report = seen(sight.because(Reason::TimedOut).expect("a report"));
    assert_eq!((report.tries[0].fate.as_str(), report.sent_count), ("silent", 1));
    assert!(report.tries[0].wait.is_some_and(|wait| wait.nanos > 0));

    let closing = serve(authority.acceptor(&Leaf::default(), &["h2"]), |stream, _| async move { drop(stream) }).await;
    failed(over(DnsTransport::Https, &closing, &authority), Reason::Disconnected).await;
    let old = serve(authority.acceptor(&Leaf::default(), &["http/1.1"]), |_, _| async {}).await;
    let sight = run(&probe(Kind::Dns(over(DnsTransport::Https, &old, &authority)))).await;
    assert_eq!(sight.outcome, Outcome::Failed, "{sight:?}");
    let mute = serve(authority.acceptor(&Leaf::default(), &[]), |_, _| async {}).await;
    failed(over(DnsTransport::Https, &mute, &authority), Reason::UnexpectedAnswer).await;
    let garbled = serve(authority.acceptor(&Leaf::default(), &["h2"]), |mut stream, _| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let sight = run(&within(5000, Kind::Dns(over(DnsTransport::Https, &garbled, &authority)))).await;
    assert!(matches!(sight.reason, Reason::MalformedAnswer | Reason::Disconnected), "{sight:?}");
}
