//! A connection of hyper, over a stream of bytes: HTTP/1.1 or HTTP/2.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use http::{Request, response};
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::{http1, http2},
    rt::Executor,
};
use hyper_util::rt::TokioIo;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::coop,
};
use vantage_contract::v1::{HttpReport, Reason};

use super::{
    BUDGET, MAX_FIELDS, MAX_HEAD, Unanswered,
    failure::{again, failure},
    watched::{Framing, Shared, Watched},
};
use crate::{
    Run,
    failure::Failure,
    http::version::Version,
    net::stream::Stream,
    stopwatch::{Phase, to_proto},
};

/// What HTTP/2 may send before it is asked to go on (RFC 9113 section 5.2): the most that lies in memory unread.
const WINDOW: u32 = 1 << 20;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection, ready for a request.
pub(in crate::http) struct Connection {
    sender: Sender,
    /// What comes of the answer's body.
    body: Option<Incoming>,
    life: Life,
}

enum Sender {
    One(http1::SendRequest<Outgoing>),
    Two(http2::SendRequest<Outgoing>),
}

/// What has to be polled for the connection to live.
pub(super) struct Life {
    tasks: Tasks,
    pub(super) version: Version,
    pub(super) notes: Shared,
}

/// What hyper would have somebody poll.
enum Tasks {
    /// HTTP/1.1: the connection, until it has ended. It is boxed as it is large, and moved with its owner.
    One(Option<Box<http1::Connection<TokioIo<Watched>, Outgoing>>>),
    /// HTTP/2: the connection, and what it begins on its way.
    Two { tasks: FuturesUnordered<Task>, born: UnboundedReceiver<Task> },
}

impl Connection {
    /// Begins HTTP on `stream`.
    pub(super) async fn begin(stream: Stream, version: Version, act: &str, run: &mut Run<'_, HttpReport>) -> Result<Self, Failure> {
        let notes = Shared::default();
        notes.lock().budget = BUDGET;
        let mut life = Life { tasks: Tasks::One(None), version, notes: notes.clone() };
        let sender = match version {
            Version::One => {
                let io = TokioIo::new(Watched::new(stream, Framing::One, notes));
                let mut builder = http1::Builder::new();
                builder.max_buf_size(MAX_HEAD).max_headers(MAX_FIELDS);
                let (sender, connection) = builder.handshake(io).await.map_err(|error| failure(act, &error, &life))?;
                life.tasks = Tasks::One(Some(Box::new(connection)));
                Sender::One(sender)
            }
            // HTTP/3 does not come over a stream of bytes.
            _ => {
                let (bearer, born) = unbounded_channel();
                let local = Local(bearer);
                life.tasks = Tasks::Two { tasks: FuturesUnordered::new(), born };
                let io = TokioIo::new(Watched::new(stream, Framing::two(), notes));
                let mut builder = http2::Builder::new(local.clone());
                builder
                    .initial_stream_window_size(WINDOW)
                    .initial_connection_window_size(WINDOW)
                    .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX));
                let begun = life.beside(run, builder.handshake(io)).await;
                let (sender, connection) = begun.map_err(|error| failure(act, &error, &life))?;
                local.execute(async move { drop(connection.await) });
                Sender::Two(sender)
            }
        };
        Ok(Self { sender, body: None, life })
    }

    pub(super) async fn ask(
        &mut self,
        mut request: Request<Bytes>,
        act: &str,
        run: &mut Run<'_, HttpReport>,
    ) -> Result<response::Parts, Unanswered> {
        let notes = self.life.notes.clone();
        notes.lock().begin(request.body().is_empty(), BUDGET);
        let counter = notes.clone();
        hyper::ext::on_informational(&mut request, move |_| counter.lock().interim += 1);
        let request = request.map(|bytes| Outgoing { bytes: Some(bytes).filter(|bytes| !bytes.is_empty()), notes });
        let answer = match &mut self.sender {
            Sender::One(sender) => self.life.beside(run, sender.send_request(request)).await,
            Sender::Two(sender) => self.life.beside(run, sender.send_request(request)).await,
        };
        let answer = answer.map_err(|error| Unanswered { again: again(&error, &self.life), failure: failure(act, &error, &self.life) })?;
        let (head, body) = answer.into_parts();
        self.body = Some(body);
        Ok(head)
    }

    pub(super) async fn is_free(&mut self) -> bool {
        let Self { sender, body, life } = self;
        body.is_none()
            && poll_fn(|cx| {
                // The first turn reads what has come, and the second sees what came of it.
                life.live(cx);
                let polled = match sender {
                    Sender::One(sender) => sender.poll_ready(cx),
                    Sender::Two(sender) => sender.poll_ready(cx),
                };
                Poll::Ready(matches!(polled, Poll::Ready(Ok(()))) && life.notes.lock().end.is_none())
            })
            .await
    }

    pub(super) fn version(&self) -> Version {
        self.life.version
    }

    pub(super) fn allow(&mut self, body: u64) {
        // Chunks of one byte are five times as long on the wire.
        let mut notes = self.life.notes.lock();
        notes.budget = notes.read + body.saturating_mul(8) + BUDGET;
    }

    pub(super) fn promised(&self) -> u64 {
        self.body.as_ref().map_or(0, |body| body.size_hint().lower())
    }

    pub(super) async fn data(&mut self, act: &str, run: &mut Run<'_, HttpReport>) -> Result<Option<Bytes>, Failure> {
        let Some(body) = &mut self.body else { return Ok(None) };
        let chunk = poll_fn(|cx| poll_data(body, cx));
        match self.life.beside(run, chunk).await {
            None => {
                // Hyper takes a stream that was reset without an error for one that has come to its end.
                let is_whole = self.life.version != Version::Two || body.is_end_stream();
                self.body = None;
                // The connection has yet to see that it is free for another request.
                poll_fn(|cx| {
                    self.life.live(cx);
                    Poll::Ready(())
                })
                .await;
                if is_whole {
                    return Ok(None);
                }
                Err(Failure::target(Reason::Disconnected, format!("{act}: the stream was reset in the middle of the answer")))
            }
            Some(Err(error)) => Err(failure(act, &error, &self.life)),
            Some(Ok(chunk)) => Ok(Some(chunk)),
        }
    }
}

impl Life {
    /// Does `work` while the connection lives, and enters the phases as the connection shows them.
    async fn beside<T>(&mut self, run: &mut Run<'_, HttpReport>, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            let mut polled = work.as_mut().poll(cx);
            // More is read only when all that came has been looked at; and that need not wait for another turn.
            if polled.is_pending() {
                self.live(cx);
                polled = work.as_mut().poll(cx);
            }
            self.tell(run);
            polled
        })
        .await
    }

    /// An error of the connection comes out of the request, too.
    fn live(&mut self, cx: &mut Context<'_>) {
        match &mut self.tasks {
            Tasks::One(connection) => {
                if connection.as_mut().is_some_and(|connection| connection.poll_unpin(cx).is_ready()) {
                    *connection = None;
                }
            }
            Tasks::Two { tasks, born } => loop {
                let mut is_new = false;
                while let Poll::Ready(Some(task)) = born.poll_recv(cx) {
                    tasks.push(task);
                    is_new = true;
                }
                let is_done = matches!(tasks.poll_next_unpin(cx), Poll::Ready(Some(())));
                if !is_new && !is_done {
                    return;
                }
            },
        }
    }

    /// Enters the phases and fills in the report, as far as the connection has come.
    fn tell(&self, run: &mut Run<'_, HttpReport>) {
        let notes = self.notes.lock();
        if let (Some(Phase::Send), Some(sent)) = (run.watch.phase(), notes.sent) {
            run.watch.enter(Phase::Wait, sent);
        }
        if let (Some(Phase::Wait), Some(answered)) = (run.watch.phase(), notes.answered) {
            run.watch.enter(Phase::Transfer, answered);
        }
        (run.report.received_bytes, run.report.sent_bytes) = notes.traffic();
        run.report.kernel_round_trip = notes.round_trip.map(to_proto);
    }
}

/// Takes tasks for [`Life`] to poll.
#[derive(Clone)]
struct Local(UnboundedSender<Task>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Local {
    fn execute(&self, task: F) {
        // Without a receiver the connection is gone, and its tasks with it.
        let _ = self.0.send(Box::pin(task));
    }
}

/// A body that notes when it has been handed over.
struct Outgoing {
    bytes: Option<Bytes>,
    notes: Shared,
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = self.bytes.take();
        self.notes.lock().handed = true;
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// The next chunk of data of a body; trailers are read and not looked at. None: that was all. A body of many small chunks that have all come is
/// not read in one go: others want their turn.
fn poll_data(body: &mut Incoming, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Bytes>>> {
    loop {
        let turn = ready!(coop::poll_proceed(cx));
        match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            Some(Ok(frame)) => {
                turn.made_progress();
                if let Ok(data) = frame.into_data() {
                    return Poll::Ready(Some(Ok(data)));
                }
            }
        }
    }
}
