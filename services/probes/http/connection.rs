//! A connection of hyper that lives in its owner's future and nowhere else: when a run is dropped, nothing is left behind.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http::{Request, Response};
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::{http1, http2},
    rt::Executor,
};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::watched::{Framing, Shared, Watched};
use crate::{
    net::stream::Stream,
    stopwatch::{Phase, Stopwatch},
};

/// The longest header section that is read, in bytes and in fields.
pub(super) const MAX_HEAD: usize = 64 << 10;
pub(super) const MAX_FIELDS: usize = 256;

/// What HTTP/2 may send before it is asked to go on (RFC 9113 section 5.2): the most that lies in memory unread.
const WINDOW: u32 = 1 << 20;

/// How many interim answers (1xx) are listened to. More is a way never to answer.
pub(super) const MAX_INTERIM: u32 = 20;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection, ready for one request.
pub(super) struct Connection {
    sender: Sender,
    pub(super) life: Life,
}

enum Sender {
    One(http1::SendRequest<Outgoing>),
    Two(http2::SendRequest<Outgoing>),
}

/// What has to be polled for the connection to live.
pub(super) struct Life {
    tasks: FuturesUnordered<Task>,
    born: UnboundedReceiver<Task>,
    /// Whether HTTP/2 is spoken.
    pub(super) two: bool,
    pub(super) notes: Shared,
}

impl Connection {
    /// Begins HTTP on `stream`. An error comes with what tells how the connection ended.
    pub(super) async fn begin(stream: Stream, two: bool, watch: &mut Stopwatch, budget: u64) -> Result<Self, (hyper::Error, Life)> {
        let notes = Shared::default();
        notes.lock().budget = budget;
        let (bearer, born) = unbounded_channel();
        let local = Local(bearer);
        let mut life = Life { tasks: FuturesUnordered::new(), born, two, notes: notes.clone() };
        let sender = if two {
            let io = TokioIo::new(Watched::new(stream, Framing::two(), notes));
            let mut builder = http2::Builder::new(local.clone());
            builder
                .initial_stream_window_size(WINDOW)
                .initial_connection_window_size(WINDOW)
                .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX));
            let (sender, connection) = match life.beside(watch, builder.handshake(io)).await {
                Ok(begun) => begun,
                Err(error) => return Err((error, life)),
            };
            // An error of the connection comes out of the request, too.
            local.execute(async move { drop(connection.await) });
            Sender::Two(sender)
        } else {
            let io = TokioIo::new(Watched::new(stream, Framing::One, notes));
            let mut builder = http1::Builder::new();
            builder.max_buf_size(MAX_HEAD).max_headers(MAX_FIELDS);
            let (sender, connection) = match builder.handshake(io).await {
                Ok(begun) => begun,
                Err(error) => return Err((error, life)),
            };
            local.execute(async move { drop(connection.await) });
            Sender::One(sender)
        };
        Ok(Self { sender, life })
    }

    /// Sends the request and waits for the head of the answer.
    pub(super) async fn send(&mut self, mut request: Request<Bytes>, watch: &mut Stopwatch) -> hyper::Result<Response<Incoming>> {
        let notes = self.life.notes.clone();
        hyper::ext::on_informational(&mut request, move |_| notes.lock().interim += 1);
        let notes = self.life.notes.clone();
        notes.lock().handed = request.body().is_empty();
        let request = request.map(|bytes| Outgoing { bytes: Some(bytes).filter(|bytes| !bytes.is_empty()), notes });
        match &mut self.sender {
            Sender::One(sender) => self.life.beside(watch, sender.send_request(request)).await,
            Sender::Two(sender) => self.life.beside(watch, sender.send_request(request)).await,
        }
    }
}

impl Life {
    /// Does `work` while the connection lives, and enters the phases as the connection shows them.
    pub(super) async fn beside<T>(&mut self, watch: &mut Stopwatch, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            let mut polled = work.as_mut().poll(cx);
            self.live(cx);
            // What the connection has just brought need not wait for another turn.
            if polled.is_pending() {
                polled = work.as_mut().poll(cx);
            }
            self.enter_phases(watch);
            polled
        })
        .await
    }

    fn live(&mut self, cx: &mut Context<'_>) {
        loop {
            let mut is_new = false;
            while let Poll::Ready(Some(task)) = self.born.poll_recv(cx) {
                self.tasks.push(task);
                is_new = true;
            }
            let is_done = matches!(self.tasks.poll_next_unpin(cx), Poll::Ready(Some(())));
            if !is_new && !is_done {
                return;
            }
        }
    }

    fn enter_phases(&self, watch: &mut Stopwatch) {
        let notes = self.notes.lock();
        if let (Some(Phase::Send), Some(sent)) = (watch.phase(), notes.sent) {
            watch.enter(Phase::Wait, sent);
        }
        if let (Some(Phase::Wait), Some(answered)) = (watch.phase(), notes.answered) {
            watch.enter(Phase::Transfer, answered);
        }
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
pub(super) struct Outgoing {
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

/// The next chunk of data of a body; trailers are read and not looked at. None: that was all.
pub(super) fn poll_data(body: &mut Incoming, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Bytes>>> {
    loop {
        match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Poll::Ready(Some(Ok(data)));
                }
            }
        }
    }
}
