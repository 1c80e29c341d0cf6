//! DNS over QUIC.

use quinn::{Connection, Endpoint, RecvStream, SendStream, ServerConfig, crypto::rustls::QuicServerConfig};
use vantage_contract::v1::TimingSource;

use super::*;
use crate::lab::tls::{Authority, Leaf};

/// A server over QUIC, until it is dropped.
struct Server {
    address: std::net::SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves each stream with the question that came on it, the whole message as it was framed.
async fn serve<S, F>(authority: &Authority, alpn: &str, script: S) -> Server
where
    S: Fn(Vec<u8>, SendStream, Connection) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let acceptor = authority.acceptor(&Leaf::default(), &[alpn]);
    let crypto = QuicServerConfig::try_from(acceptor.config().clone()).unwrap();
    let endpoint = Endpoint::server(ServerConfig::with_crypto(Arc::new(crypto)), "127.0.0.1:0".parse().unwrap()).unwrap();
    let address = endpoint.local_addr().unwrap();
    let script = Arc::new(script);
    let task = tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let script = script.clone();
            tokio::spawn(async move {
                let Ok(connection) = incoming.await else { return };
                while let Ok((sender, mut receiver)) = connection.accept_bi().await {
                    script(question(&mut receiver).await, sender, connection.clone()).await;
                }
            });
        }
    });
    Server { address, task }
}

/// A question, to the end of its stream.
async fn question(receiver: &mut RecvStream) -> Vec<u8> {
    receiver.read_to_end(1000).await.unwrap()
}

/// The right answer to a framed question, framed.
fn right(question: &[u8]) -> Vec<u8> {
    let asked = Asked { message: Message::from_vec(&question[2..]).expect("a question"), number: 0, over_tcp: true };
    let answer = bytes(&asked.with(&[("example.test.", 60, a([192, 0, 2, 1]))]));
    [&u16::try_from(answer.len()).unwrap().to_be_bytes(), answer.as_slice()].concat()
}

async fn answer_all(mut sender: SendStream, answer: &[u8]) {
    let _ = sender.write_all(answer).await;
    let _ = sender.finish();
}

fn check(server: &Server, authority: &Authority) -> DnsProbe {
    DnsProbe { transport: DnsTransport::Quic.into(), tls: Some(authority.options()), ..ask_at(server.address) }
}

#[tokio::test]
async fn over_quic_the_answer_comes_on_a_stream_of_its_own() {
    let authority = Authority::new();
    let (asked, mut questions) = tokio::sync::mpsc::unbounded_channel();
    let server = serve(&authority, "doq", move |question, sender, _| {
        asked.send(question.clone()).unwrap();
        async move { answer_all(sender, &right(&question)).await }
    })
    .await;
    let sight = run(&probe(Kind::Dns(check(&server, &authority)))).await;
    let phases: Vec<_> = sight.phases.iter().map(|(phase, _)| phase.name()).collect();
    assert_eq!(phases, ["resolve", "connect", "tls", "send", "wait"]);
    let (latency, source) = sight.latency.expect("a latency");
    assert!(latency < sight.duration && source == TimingSource::KernelReceive, "{sight:?}");
    let report = seen(sight.passed());
    assert_eq!((report.transport.as_str(), report.sent_count, report.answers[0].data.as_str()), ("quic", 1, "192.0.2.1"));
    assert_eq!((report.tries[0].transport.as_str(), report.tries[0].fate.as_str()), ("quic", "answered"));
    let tls = report.tls.expect("the TLS");
    assert_eq!((tls.alpn.as_str(), tls.version.as_str(), tls.verified, tls.certificates.len()), ("doq", "1.3", true, 2));
    let question = questions.recv().await.unwrap();
    assert_eq!((usize::from(question[0]) << 8 | usize::from(question[1]), &question[2..4]), (question.len() - 2, &[0, 0][..]));
}

#[tokio::test]
async fn over_quic_the_certificate_is_judged_and_shown() {
    let authority = Authority::new();
    let server = serve(&authority, "doq", |question, sender, _| async move { answer_all(sender, &right(&question)).await }).await;
    let stranger = Authority::named("Another Root");
    let report = failed(check(&server, &stranger), Reason::CertificateInvalid).await;
    let tls = report.tls.expect("the TLS");
    assert_eq!((report.sent_count, tls.certificates.len(), tls.verified), (0, 2, false));
    assert!(!tls.certificate_error.is_empty());
    let insecure = TlsOptions { insecure: true, ..TlsOptions::default() };
    assert!(!passed(DnsProbe { tls: Some(insecure), ..check(&server, &authority) }).await.tls.expect("the TLS").verified);
    let other = serve(&authority, "h3", |_, _, _| async {}).await;
    failed(check(&other, &authority), Reason::TlsFailed).await;
}

#[tokio::test]
async fn over_quic_a_closed_port_is_refused_at_once_and_silence_and_noise_time_out() {
    let authority = Authority::new();
    let closed = ClosedPort::find();
    let at = |address| DnsProbe { transport: DnsTransport::Quic.into(), tls: Some(authority.options()), ..ask_at(address) };
    let sight = run(&probe(Kind::Dns(at(closed.address)))).await;
    assert!(sight.duration < Duration::from_secs(10), "{sight:?}");
    sight.because(Reason::Refused);
    let silent = UdpServer::silent().await;
    let sight = run(&hasty(Kind::Dns(at(silent.address)))).await;
    assert!(sight.summary.contains("in the TLS handshake"), "{}", sight.summary);
    sight.because(Reason::TimedOut);
    let noisy =
        UdpServer::start(|number, bytes| vec![vec![0xff; 1200], bytes.to_vec(), vec![u8::try_from(number % 256).unwrap(); 20], Vec::new()])
            .await;
    let sight = run(&hasty(Kind::Dns(at(noisy.address)))).await;
    assert_eq!(sight.outcome, Outcome::Failed, "{sight:?}");
}

#[tokio::test]
async fn over_quic_an_answer_may_come_in_pieces_and_what_is_none_fails() {
    let authority = Authority::new();
    let dribbling = serve(&authority, "doq", |question, mut sender, _| async move {
        for byte in right(&question) {
            let _ = sender.write_all(&[byte]).await;
            tokio::task::yield_now().await;
        }
        let _ = sender.finish();
    })
    .await;
    passed(check(&dribbling, &authority)).await;

    type Change = fn(Vec<u8>) -> Vec<u8>;
    let cases: [(Change, Reason); 5] = [
        (|_| Vec::new(), Reason::Disconnected),
        (|right| right[..right.len() - 1].to_vec(), Reason::Disconnected),
        (|_| vec![0, 5, 0, 0, 0x80, 0, 0], Reason::MalformedAnswer),
        // Another identifier than 0, and another question.
        (
            |mut right| {
                right[3] = 7;
                right
            },
            Reason::UnexpectedAnswer,
        ),
        (
            |mut right| {
                right[15] = b'X';
                right
            },
            Reason::UnexpectedAnswer,
        ),
    ];
    for (change, reason) in cases {
        let server =
            serve(&authority, "doq", move |question, sender, _| async move { answer_all(sender, &change(right(&question))).await }).await;
        let report = failed(check(&server, &authority), reason).await;
        assert!(report.tries.len() == 1 && report.tries[0].fate != "answered", "{report:?}");
    }
}

#[tokio::test]
async fn over_quic_a_server_that_gives_up_or_stalls_is_told_apart() {
    let authority = Authority::new();
    let resetting = serve(&authority, "doq", |_, mut sender, _| async move { drop(sender.reset(2_u8.into())) }).await;
    failed(check(&resetting, &authority), Reason::Disconnected).await;
    let closing = serve(&authority, "doq", |_, _, connection| async move { connection.close(2_u8.into(), b"no more") }).await;
    let sight = run(&probe(Kind::Dns(check(&closing, &authority)))).await;
    assert!(sight.summary.contains("closed by peer"), "{}", sight.summary);
    sight.because(Reason::Disconnected);
    let stalling = serve(&authority, "doq", |question, mut sender, _| async move {
        let _ = sender.write_all(&right(&question)[..10]).await;
        std::future::pending::<()>().await;
    })
    .await;
    let report = seen(run(&within(600, Kind::Dns(check(&stalling, &authority)))).await.because(Reason::TimedOut).expect("a report"));
    assert_eq!((report.tries[0].fate.as_str(), report.tls.is_some_and(|tls| tls.verified)), ("silent", true));
}
