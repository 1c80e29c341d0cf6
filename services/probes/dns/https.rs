//! DNS over HTTPS (RFC 8484): one POST over HTTP/2.

use std::{
    future::poll_fn,
    pin::pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, client};
use http::{Method, Request, Response, StatusCode, Uri, Version, header, uri::PathAndQuery};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use vantage_contract::v1::Reason;

use super::{
    ask::{Errand, Heard, by_our_clock},
    notes::Notes,
};
use crate::{
    failure::Failure,
    stopwatch::{self, Phase},
    tls,
    wire::{dns::Answer, text},
};

/// What the protocol is called in ALPN.
pub(super) const ALPN: &[u8] = b"h2";
/// The media type of a message (RFC 8484 section 6).
const MEDIA_TYPE: &str = "application/dns-message";
/// The longest message.
const MAX_MESSAGE: usize = 65_535;
/// The longest header section that is read, in bytes.
const MAX_HEAD: u32 = 64 << 10;
/// The identifier of all messages (RFC 8484 section 4.1): the stream tells them apart.
const ID: u16 = 0;

/// Where on a server to ask.
pub(super) struct Place<'p> {
    pub(super) authority: &'p str,
    pub(super) path: &'p PathAndQuery,
}

/// Asks on a connection over TLS that has agreed to HTTP/2.
pub(super) async fn ask(
    errand: &Errand<'_>,
    place: &Place<'_>,
    stream: TlsStream<TcpStream>,
    notes: &mut Notes<'_>,
) -> Result<Heard, Failure> {
    let act = format!("ask {} over https", errand.server);
    notes.enter(Phase::Send);
    let mut builder = client::Builder::new();
    builder.enable_push(false).max_header_list_size(MAX_HEAD).initial_window_size(1 << 17);
    let (sender, connection) = builder.handshake::<_, Bytes>(stream).await.map_err(|error| failure(&act, &error))?;
    let mut connection = Life { connection: pin!(connection), over: false };

    let cased = errand.cased()?;
    let question = cased.as_ref().unwrap_or(errand.question);
    let message = question.encode(ID, errand.manner);
    let request = place.request(message.len()).map_err(|error| Failure::internal(format!("{act}: {error}")))?;
    let mut sender = connection.beside(sender.ready()).await.map_err(|error| failure(&act, &error))?;
    let departure = notes.depart("https", stopwatch::now());
    let (answer, mut body) = sender.send_request(request, false).map_err(|error| failure(&act, &error))?;
    body.send_data(message.into(), true).map_err(|error| failure(&act, &error))?;
    connection.turn().await;
    notes.enter(Phase::Wait);

    let answer = connection.beside(answer).await.map_err(|error| failure(&act, &error))?;
    let mut body = judge(&act, answer)?;
    let mut whole = BytesMut::new();
    while let Some(chunk) = connection.beside(body.data()).await {
        let chunk = chunk.map_err(|error| failure(&act, &error))?;
        if whole.len() + chunk.len() > MAX_MESSAGE {
            return Err(Failure::target(Reason::TooLarge, format!("{act}: the body is longer than {MAX_MESSAGE} bytes")));
        }
        whole.extend_from_slice(&chunk);
        // What is not given back only makes the window smaller.
        let _ = body.flow_control().release_capacity(chunk.len());
    }
    let arrival = stopwatch::now();
    let answer = Answer::decode_in_case(whole.into(), ID, question, errand.manner.exact_case);
    let answer = answer.map_err(|refusal| errand.refused(refusal))?;
    errand.heard(answer, departure, by_our_clock(departure, arrival), "https", notes)
}

impl Place<'_> {
    fn request(&self, length: usize) -> Result<Request<()>, http::Error> {
        let uri = Uri::builder().scheme("https").authority(self.authority).path_and_query(self.path.clone()).build()?;
        Request::builder()
            .method(Method::POST)
            .uri(uri)
            .version(Version::HTTP_2)
            .header(header::ACCEPT, MEDIA_TYPE)
            .header(header::CONTENT_TYPE, MEDIA_TYPE)
            .header(header::CONTENT_LENGTH, length)
            .header(header::USER_AGENT, concat!("vantage/", env!("CARGO_PKG_VERSION")))
            .body(())
    }
}

/// The body of an answer that is one of DNS: any status of success, whatever the rcode inside (RFC 8484 section 4.2.1), and the media type.
fn judge(act: &str, answer: Response<RecvStream>) -> Result<RecvStream, Failure> {
    let unexpected = |what: String| Err(Failure::target(Reason::UnexpectedAnswer, format!("{act}: {what}")));
    let (head, body) = answer.into_parts();
    if !head.status.is_success() || head.status == StatusCode::NO_CONTENT {
        return unexpected(format!("the HTTP status is {}", head.status.as_u16()));
    }
    let Some(media_type) = head.headers.get(header::CONTENT_TYPE) else {
        return unexpected("the answer has no content type".to_owned());
    };
    let essence = media_type.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if !essence.eq_ignore_ascii_case(MEDIA_TYPE.as_bytes()) {
        let shown: String = text::escape(media_type.as_bytes()).chars().take(100).collect();
        return unexpected(format!("the content type is \"{shown}\", not {MEDIA_TYPE}"));
    }
    Ok(body)
}

/// A connection that is polled beside what is done on it, and nowhere else: when a run is dropped, nothing is left behind.
struct Life<F> {
    connection: F,
    over: bool,
}

impl<F: Future + Unpin> Life<F> {
    async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            let polled = work.as_mut().poll(cx);
            if polled.is_ready() {
                return polled;
            }
            self.live(cx);
            // What the connection has just brought need not wait for another turn. An error of it comes out of the work.
            work.as_mut().poll(cx)
        })
        .await
    }

    /// Lets it write what it has.
    async fn turn(&mut self) {
        poll_fn(|cx| {
            self.live(cx);
            Poll::Ready(())
        })
        .await;
    }

    fn live(&mut self, cx: &mut Context<'_>) {
        self.over = self.over || std::pin::Pin::new(&mut self.connection).poll(cx).is_ready();
    }
}

/// What an error of HTTP/2 means.
fn failure(act: &str, error: &h2::Error) -> Failure {
    if let Some(error) = error.get_io() {
        return tls::of_wire(act, error);
    }
    if error.is_remote() && (error.is_reset() || error.is_go_away()) {
        return Failure::target(Reason::Disconnected, format!("{act}: {error}"));
    }
    if error.reason().is_none() {
        // What is asked of a connection that is over has no reason of its own.
        return Failure::target(Reason::Disconnected, format!("{act}: the connection was closed: {error}"));
    }
    Failure::target(Reason::MalformedAnswer, format!("{act}: {error}"))
}
