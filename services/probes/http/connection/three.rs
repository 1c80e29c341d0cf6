//! HTTP/3 (RFC 9114) over a QUIC connection. The framing and the compression of headers are h3's; its streams are those of our own connection,
//! which does nothing but in the future of its owner.

mod failure;
mod frames;
mod streams;

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::Poll,
};

use bytes::{Buf as _, Bytes};
use h3::client::{self, RequestStream, SendRequest};
use http::{
    HeaderName, HeaderValue, Method, Request, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE},
    response,
};
use vantage_contract::v1::{HttpReport, Reason};

use super::{BUDGET, MAX_FIELDS, MAX_HEAD, MAX_INTERIM};
use crate::{Run, failure::Failure, quic::Link, stopwatch::Phase};
use streams::{Shared, Stream};

/// What belongs to a connection of HTTP/1.1, and makes a request of HTTP/3 malformed (RFC 9114 section 4.2).
const OF_CONNECTIONS: [HeaderName; 5] =
    [CONNECTION, TRANSFER_ENCODING, UPGRADE, HeaderName::from_static("keep-alive"), HeaderName::from_static("proxy-connection")];

/// A connection, ready for a request.
pub(in crate::http) struct Connection {
    sender: SendRequest<Shared, Bytes>,
    /// What comes of the answer's body.
    body: Option<RequestStream<Stream, Bytes>>,
    /// How long the answer says that its body is, and how much of it has come.
    length: Option<u64>,
    came: u64,
    life: Life,
}

/// What has to be polled for the connection to live.
struct Life {
    shared: Shared,
    streams: client::Connection<Shared, Bytes>,
    /// What is yet to be sent of the request.
    sending: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Connection {
    /// Begins HTTP on an established connection.
    pub(super) async fn begin(mut link: Box<Link>, act: &str) -> Result<Box<Self>, Failure> {
        link.allow(BUDGET);
        let shared = Shared::new(link);
        let mut builder = client::builder();
        builder.max_field_section_size(MAX_HEAD as u64).send_grease(false);
        // It opens its own three streams and sends what it can of them: nothing that would have to be waited for, unless the server allows
        // none, against which this ends, as all else, by the run's timeout.
        let building = builder.build::<_, _, Bytes>(shared.clone());
        let (streams, sender) = turning(&shared, building).await?.map_err(|error| failure::of_connection(act, &error))?;
        Ok(Box::new(Self { sender, body: None, length: None, came: 0, life: Life { shared, streams, sending: None } }))
    }

    pub(super) async fn ask(
        &mut self,
        request: Request<Bytes>,
        act: &str,
        run: &mut Run<'_, HttpReport>,
    ) -> Result<response::Parts, Failure> {
        let method = request.method().clone();
        let (request, body) = prepared(request);
        let asked = self.life.beside(run, act, self.sender.send_request(request)).await?;
        let stream = match asked {
            Err(h3::error::StreamError::HeaderTooBig { actual_size, max_size, .. }) => {
                let why = format!("the server takes headers of {max_size} bytes at most, and the request's are {actual_size}");
                return Err(Failure::target(Reason::UnexpectedAnswer, format!("{act}: {why}")));
            }
            asked => asked.map_err(|error| self.life.failure(act, &error))?,
        };
        let (mut sending, mut receiving) = stream.split();
        // Some answer before they have heard the whole question, and some don't want to hear it: what they answer tells how that went.
        self.life.sending = Some(Box::pin(async move {
            if body.is_empty() || sending.send_data(body).await.is_ok() {
                let _ = sending.finish().await;
            }
        }));
        let mut interim = 0;
        let head = loop {
            let head = self.life.beside(run, act, receiving.recv_response()).await?.map_err(|error| self.life.failure(act, &error))?;
            match head.status() {
                StatusCode::SWITCHING_PROTOCOLS => {
                    return Err(malformed(act, "status 101, which HTTP/3 does not have (RFC 9114 section 4.5)"));
                }
                status if status.is_informational() => interim += 1,
                _ => break head,
            }
            if interim > MAX_INTERIM {
                return Err(malformed(act, &format!("{interim} interim answers (1xx) and no final one")));
            }
        };
        let (head, ()) = head.into_parts();
        if head.headers.len() > MAX_FIELDS {
            let sentence = format!("{act}: the header section is longer than {} KiB or {MAX_FIELDS} fields", MAX_HEAD >> 10);
            return Err(Failure::target(Reason::TooLarge, sentence));
        }
        let bare = method == Method::HEAD || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        self.length = if bare { None } else { content_length(&head).map_err(|why| malformed(act, why))? };
        self.came = 0;
        self.body = Some(receiving);
        Ok(head)
    }

    pub(super) fn allow(&mut self, body: u64) {
        // As little of it may be in each datagram as in each chunk of the versions before.
        self.life.shared.lock().link.allow(body.saturating_mul(8).saturating_add(BUDGET));
    }

    pub(super) fn promised(&self) -> u64 {
        self.length.unwrap_or(0)
    }

    pub(super) async fn data(&mut self, act: &str, run: &mut Run<'_, HttpReport>) -> Result<Option<Bytes>, Failure> {
        let Some(body) = &mut self.body else { return Ok(None) };
        let chunk = poll_fn(|cx| body.poll_recv_data(cx).map_ok(|chunk| chunk.map(|mut chunk| chunk.copy_to_bytes(chunk.remaining()))));
        let chunk = self.life.beside(run, act, chunk).await?.map_err(|error| self.life.failure(act, &error))?;
        self.came += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        match self.length {
            Some(length) if self.came > length || (chunk.is_none() && self.came < length) => {
                Err(malformed(act, &format!("the body is not of the {length} bytes that Content-Length says")))
            }
            _ if chunk.is_some() => Ok(chunk),
            _ => {
                // Trailers are read and not looked at; nothing may come after them.
                let trailers = self.life.beside(run, act, body.recv_trailers()).await?;
                trailers.map_err(|error| self.life.failure(act, &error))?;
                Ok(None)
            }
        }
    }
}

impl Life {
    /// Does `work` while the connection lives, enters the phases as the connection shows them, and keeps the report's count of bytes.
    async fn beside<T>(&mut self, run: &mut Run<'_, HttpReport>, act: &str, work: impl Future<Output = T>) -> Result<T, Failure> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            loop {
                if self.sending.as_mut().is_some_and(|sending| sending.as_mut().poll(cx).is_ready()) {
                    self.sending = None;
                }
                let mut done = work.as_mut().poll(cx).map(Ok);
                if done.is_pending() {
                    done = self.streams.poll_close(cx).map(|error| Err(failure::of_connection(act, &error)));
                }
                let mut inner = self.shared.lock();
                let turned = match &done {
                    // What it has to say is said before somebody else has his turn.
                    Poll::Ready(_) => Poll::Ready(inner.link.flush()),
                    Poll::Pending => inner.link.poll_turn(cx),
                };
                inner.note_departure();
                (run.report.sent_bytes, run.report.received_bytes) = (inner.sent, inner.received);
                if let (Some(Phase::Send), Some(left)) = (run.watch.phase(), inner.left) {
                    run.watch.enter(Phase::Wait, left);
                }
                if let (Some(Phase::Wait), Some(answered)) = (run.watch.phase(), inner.answered) {
                    run.watch.enter(Phase::Transfer, answered);
                }
                if let Some((reason, words)) = &inner.fault {
                    return Poll::Ready(Err(Failure::target(*reason, format!("{act}: {words}"))));
                }
                match (done, turned) {
                    (Poll::Ready(done), _) => return Poll::Ready(done),
                    (Poll::Pending, Poll::Ready(Err(end))) => return Poll::Ready(Err(end)),
                    (Poll::Pending, Poll::Ready(Ok(()))) => {}
                    (Poll::Pending, Poll::Pending) => return Poll::Pending,
                }
            }
        })
        .await
    }

    fn failure(&self, act: &str, error: &h3::error::StreamError) -> Failure {
        failure::of_stream(act, error, self.shared.lock().answered.is_some())
    }
}

/// Does `work` while the connection lives, where there is nothing to be noted of it yet.
async fn turning<T>(shared: &Shared, work: impl Future<Output = T>) -> Result<T, Failure> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            match shared.lock().link.poll_turn(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(end)) => return Poll::Ready(Err(end)),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

/// The request as HTTP/3 wants it, and its body.
fn prepared(request: Request<Bytes>) -> (Request<()>, Bytes) {
    let (mut head, body) = request.into_parts();
    for name in OF_CONNECTIONS {
        head.headers.remove(name);
    }
    // The versions before say so by themselves, too.
    if !body.is_empty() || matches!(head.method, Method::POST | Method::PUT | Method::PATCH) {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    (Request::from_parts(head, ()), body)
}

/// How long the body is, as the answer says. None: it does not.
fn content_length(head: &response::Parts) -> Result<Option<u64>, &'static str> {
    let mut lengths = head.headers.get_all(CONTENT_LENGTH).iter().map(|value| value.to_str().ok()?.parse::<u64>().ok());
    let Some(first) = lengths.next() else { return Ok(None) };
    if first.is_none() || lengths.any(|other| other != first) {
        return Err("a Content-Length that is not a number, or several that differ");
    }
    Ok(first)
}

fn malformed(act: &str, why: &str) -> Failure {
    Failure::target(Reason::MalformedAnswer, format!("{act}: {why}"))
}
