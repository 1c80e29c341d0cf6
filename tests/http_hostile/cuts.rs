//! Answers that are cut short, at each byte: closed or reset, in the clear and under TLS. Half an answer never passes.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
};
use vantage_contract::v1::{HttpProbe, HttpVersion, Outcome, Reason, TlsOptions, probe::Kind};
use vantage_probes::Sight;

use super::{ask, asking, asking_two, two};
use crate::lab::{
    http::{Server, read_request, reset},
    probe::{probe, run},
    tls::{Authority, Leaf},
};

/// How a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// Closed in good order, as far as TCP is concerned.
    Closed,
    /// Reset (RFC 9293 section 3.5.2), by SO_LINGER.
    Reset,
}

const CUTS: [Cut; 2] = [Cut::Closed, Cut::Reset];

impl Cut {
    async fn end(self, mut stream: TcpStream) {
        match self {
            Self::Closed => {
                let _ = stream.shutdown().await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
            Self::Reset => reset(stream),
        }
    }
}

/// Answers, and from which byte on they are whole; none: only their end says so.
fn answers() -> [(&'static str, Vec<u8>, Option<usize>); 5] {
    let text = |text: &str| (text.as_bytes().to_vec(), Some(text.len()));
    let (sized, sized_end) = text("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let (chunked, chunked_end) =
        text("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nX-Trailer: it ends\r\n\r\n");
    let (interim, interim_end) = text("HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let (empty, empty_end) = text("HTTP/1.1 204 No Content\r\n\r\n");
    let (open, _) = text("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end");
    [
        ("a length", sized, sized_end),
        ("chunks", chunked, chunked_end),
        ("after an interim answer", interim, interim_end),
        ("no body", empty, empty_end),
        ("until the end", open, None),
    ]
}

/// Passed only if whole, and otherwise the target's fault, for one of the two reasons that there are.
#[track_caller]
fn judge(what: &str, at: usize, is_whole: bool, sight: &Sight) {
    if is_whole && sight.outcome == Outcome::Passed {
        return;
    }
    assert_eq!(sight.outcome, Outcome::Failed, "{what}, cut at byte {at}: {sight:?}");
    assert!(matches!(sight.reason, Reason::Disconnected | Reason::MalformedAnswer), "{what}, cut at byte {at}: {sight:?}");
}

#[tokio::test]
async fn an_answer_cut_at_any_byte_is_a_disconnect_in_the_clear() {
    for cut in CUTS {
        for (what, answer, whole) in answers() {
            // The number of the connection is where it is cut.
            let bytes = answer.clone();
            let server = Server::start(move |mut stream, at| {
                let bytes = bytes.get(..at).unwrap_or(&bytes).to_vec();
                async move {
                    read_request(&mut stream).await;
                    let _ = stream.write_all(&bytes).await;
                    cut.end(stream).await;
                }
            })
            .await;
            let head = answer.windows(4).rposition(|four| four == b"\r\n\r\n").unwrap() + 4;
            for at in 0..=answer.len() {
                let sight = ask(asking(&server)).await;
                // What only the end of the connection ends may end anywhere, unless the end is not a good one.
                let is_whole = whole.map_or(at >= head && cut == Cut::Closed, |whole| at >= whole);
                judge(&format!("{what}, {cut:?}"), at, is_whole, &sight);
                if cut == Cut::Closed && is_whole {
                    assert_eq!(sight.outcome, Outcome::Passed, "{what}: {sight:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn an_answer_of_http_2_cut_at_any_byte_is_a_disconnect() {
    let answer =
        [two::SETTINGS, two::ACK, &two::head(two::END_HEADERS), &two::data(b"hel", 0), &two::data(b"lo", two::END_STREAM)].concat();
    for cut in CUTS {
        let bytes = answer.clone();
        let server = Server::start(move |mut stream, at| {
            let bytes = bytes.get(..at).unwrap_or(&bytes).to_vec();
            async move {
                two::read_request(&mut stream).await;
                let _ = stream.write_all(&bytes).await;
                cut.end(stream).await;
            }
        })
        .await;
        for at in 0..=answer.len() {
            let sight = ask(asking_two(&server)).await;
            judge(&format!("HTTP/2, {cut:?}"), at, at == answer.len(), &sight);
            if cut == Cut::Closed && at == answer.len() {
                assert_eq!(sight.outcome, Outcome::Passed, "{sight:?}");
            }
        }
    }
}

/// Whether TLS says goodbye before the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goodbye {
    Said,
    /// Who cuts a connection on the way can't say it: that is what it is for (RFC 8446 section 6.1).
    Missing,
}

#[tokio::test]
async fn under_tls_an_answer_is_whole_only_if_its_framing_or_a_goodbye_says_so() {
    let authority = Authority::new();
    let mut first = 0;
    for version in [HttpVersion::HttpVersion11, HttpVersion::HttpVersion2] {
        let alpn = if version == HttpVersion::HttpVersion2 { "h2" } else { "http/1.1" };
        let acceptor = authority.acceptor(&Leaf::default(), &[alpn]);
        let two = [two::SETTINGS, two::ACK, &two::head(two::END_HEADERS), &two::data(b"hello", two::END_STREAM)].concat();
        let all = match version {
            HttpVersion::HttpVersion2 => vec![("HTTP/2", two.clone(), Some(two.len()))],
            _ => answers().to_vec(),
        };
        for (what, answer, whole) in all {
            for (goodbye, cut) in [(Goodbye::Said, Cut::Closed), (Goodbye::Missing, Cut::Closed), (Goodbye::Missing, Cut::Reset)] {
                let (bytes, acceptor) = (answer.clone(), acceptor.clone());
                // Some of the bytes each time, for the sake of time: others each time, and the last.
                let step = std::env::var("VANTAGE_CUT_STEP").map_or(7, |step| step.parse().unwrap());
                first = (first + 3) % step;
                let place = move |number: usize| first + number * step;
                let server = Server::start(move |stream, at| {
                    let (bytes, acceptor) = (bytes.get(..place(at)).unwrap_or(&bytes).to_vec(), acceptor.clone());
                    async move {
                        let Ok(mut stream) = acceptor.accept(stream).await else { return };
                        if version == HttpVersion::HttpVersion2 {
                            two::read_request(&mut stream).await;
                        } else {
                            read_request(&mut stream).await;
                        }
                        let _ = stream.write_all(&bytes).await;
                        let _ = stream.flush().await;
                        if goodbye == Goodbye::Said {
                            let _ = stream.shutdown().await;
                        }
                        cut.end(stream.into_inner().0).await;
                    }
                })
                .await;
                let head = answer.windows(4).rposition(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
                for at in 0..=answer.len().div_ceil(step) {
                    let sight = ask_tls(&server, version, authority.options()).await;
                    let at = place(at).min(answer.len());
                    let is_whole = whole.map_or(at >= head && goodbye == Goodbye::Said, |whole| at >= whole);
                    judge(&format!("{what}, {goodbye:?}, {cut:?}"), at, is_whole, &sight);
                    if is_whole && cut == Cut::Closed {
                        assert_eq!(sight.outcome, Outcome::Passed, "{what}, {goodbye:?}: {sight:?}");
                    }
                }
            }
        }
    }
}

async fn ask_tls(server: &Server, version: HttpVersion, tls: TlsOptions) -> Sight {
    let url = format!("https://{}/", server.address);
    run(&probe(Kind::Https(HttpProbe { url, version: version.into(), tls: Some(tls), ..HttpProbe::default() }))).await
}

/// A connection that lets only so many bytes out, and says nothing of it.
struct Short(TcpStream, usize);

impl AsyncRead for Short {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Short {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Some(room) = bytes.get(..bytes.len().min(self.1)).filter(|room| !room.is_empty()) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let polled = Pin::new(&mut self.0).poll_write(cx, room);
        if let Poll::Ready(Ok(written)) = polled {
            self.1 -= written;
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// In the handshake, in its tickets, in a record: wherever the bytes of TLS end.
#[tokio::test]
async fn a_connection_cut_at_any_byte_of_tls_never_passes_before_its_answer_is_whole() {
    let authority = Authority::new();
    let acceptor = authority.acceptor(&Leaf::default(), &["http/1.1"]);
    for cut in CUTS {
        let acceptor = acceptor.clone();
        let written = Arc::new(std::sync::atomic::AtomicUsize::new(usize::MAX));
        let limit = written.clone();
        let server = Server::start(move |stream, _| {
            let (acceptor, limit) = (acceptor.clone(), limit.load(std::sync::atomic::Ordering::SeqCst));
            async move {
                let mut short = Short(stream, limit);
                {
                    let Ok(mut stream) = acceptor.accept(&mut short).await else { return cut.end(short.0).await };
                    read_request(&mut stream).await;
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
                    let _ = stream.flush().await;
                }
                cut.end(short.0).await;
            }
        })
        .await;
        let mut passed = 0;
        for at in (0..2000).step_by(29) {
            written.store(at, std::sync::atomic::Ordering::SeqCst);
            let sight = ask_tls(&server, HttpVersion::HttpVersion11, authority.options()).await;
            if sight.outcome == Outcome::Passed {
                passed += 1;
                continue;
            }
            // What was reset may have been so before anybody read it.
            assert!(passed == 0 || cut == Cut::Reset, "more of it came, at byte {at}: {sight:?}");
            assert_eq!(sight.outcome, Outcome::Failed, "at byte {at}: {sight:?}");
            assert!(matches!(sight.reason, Reason::Disconnected | Reason::TlsFailed), "at byte {at}: {sight:?}");
        }
        assert!(cut == Cut::Reset || passed > 0, "2,000 bytes are enough for it");
    }
}
