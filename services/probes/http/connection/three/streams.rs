//! The streams of a QUIC connection, as h3 wants them.
//!
//! Nobody here wakes anybody: whoever works on a stream is asked again after each turn of the connection, as all of them live in one future.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes};
use h3::{
    error::Code,
    quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, WriteBuf},
};
use quinn_proto::{Dir, FinishError, ReadError, ReadableError, StreamId, VarInt, WriteError};
use tokio::time::Instant;
use vantage_contract::v1::Reason;

use super::{super::MAX_HEAD, frames::Frames};
use crate::{quic::Link, stopwatch};

/// The connection and what is noted of it.
pub(super) struct Inner {
    pub(super) link: Box<Link>,
    /// Bytes of streams that were handed over, and that came.
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Bytes of datagrams that had left before the first of the streams.
    before: u64,
    /// Whether all of the request has been handed over.
    is_handed: bool,
    /// When the last of the request left.
    pub(super) left: Option<Instant>,
    /// When the first of the answer came.
    pub(super) answered: Option<Instant>,
    /// What came on the server's own streams.
    own: u64,
    /// What came that h3 does not see as a fault, or not as this one, in words.
    pub(super) fault: Option<(Reason, String)>,
}

impl Inner {
    /// Notes when the request has left: all of its bytes have to be in datagrams.
    pub(super) fn note_departure(&mut self) {
        let gone = self.link.connection.stats().udp_tx.bytes.saturating_sub(self.before);
        if self.is_handed && self.left.is_none() && gone >= self.sent {
            self.left = Some(stopwatch::now());
        }
    }

    /// Notes what has come on a stream, and when the answer began. Fails where it is more than h3 may have to keep.
    fn note_arrival(&mut self, dir: Dir, bytes: &[u8], frames: &mut Frames) -> Result<(), StreamErrorIncoming> {
        self.received += bytes.len() as u64;
        let limit = MAX_HEAD as u64;
        let excess = match dir {
            Dir::Bi => {
                if self.answered.is_none() {
                    let now = stopwatch::now();
                    self.answered = Some(now);
                    // Some answer before they have heard the whole question.
                    self.left.get_or_insert(now);
                }
                frames.feed(bytes, limit).err().map(|length| format!("a frame of {length} bytes that is not one of data"))
            }
            Dir::Uni => {
                self.own += bytes.len() as u64;
                (self.own > limit).then(|| format!("{} bytes on streams of the server's own", self.own))
            }
        };
        match excess {
            None => Ok(()),
            Some(excess) => Err(self.found(Reason::TooLarge, excess)),
        }
    }

    /// Notes a fault, and says so to h3.
    fn found(&mut self, reason: Reason, words: String) -> StreamErrorIncoming {
        self.fault = Some((reason, words.clone()));
        StreamErrorIncoming::Unknown(words.into())
    }
}

/// A connection that several can hold.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Inner>>);

impl Shared {
    pub(super) fn new(link: Box<Link>) -> Self {
        let before = link.connection.stats().udp_tx.bytes;
        Self(Arc::new(Mutex::new(Inner {
            link,
            sent: 0,
            received: 0,
            before,
            is_handed: false,
            left: None,
            answered: None,
            own: 0,
            fault: None,
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, dir: Dir) -> Poll<Result<Stream, StreamErrorIncoming>> {
        match self.lock().link.connection.streams().open(dir) {
            Some(id) => Poll::Ready(Stream::new(self, id)),
            None => Poll::Pending,
        }
    }

    /// An error of the connection is told by its next turn, and to nobody here: so each fault is told once, by who knows it.
    fn accept(&self, dir: Dir) -> Poll<Result<Stream, ConnectionErrorIncoming>> {
        match self.lock().link.connection.streams().accept(dir) {
            Some(id) => Poll::Ready(Stream::new(self, id).map_err(|error| ConnectionErrorIncoming::InternalError(error.to_string()))),
            None => Poll::Pending,
        }
    }
}

impl quic::OpenStreams<Bytes> for Shared {
    type BidiStream = Stream;
    type SendStream = Stream;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<Stream, StreamErrorIncoming>> {
        self.open(Dir::Bi)
    }

    fn poll_open_send(&mut self, _: &mut Context<'_>) -> Poll<Result<Stream, StreamErrorIncoming>> {
        self.open(Dir::Uni)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.lock().link.connection.close(stopwatch::now().into_std(), varint(code.value()), Bytes::copy_from_slice(reason));
    }
}

impl quic::Connection<Bytes> for Shared {
    type RecvStream = Stream;
    type OpenStreams = Self;

    fn poll_accept_recv(&mut self, _: &mut Context<'_>) -> Poll<Result<Stream, ConnectionErrorIncoming>> {
        self.accept(Dir::Uni)
    }

    fn poll_accept_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<Stream, ConnectionErrorIncoming>> {
        self.accept(Dir::Bi)
    }

    fn opener(&self) -> Self {
        self.clone()
    }
}

/// A stream, or one of its directions.
pub(super) struct Stream {
    shared: Shared,
    id: StreamId,
    name: quic::StreamId,
    writing: Option<WriteBuf<Bytes>>,
    frames: Frames,
}

impl Stream {
    fn new(shared: &Shared, id: StreamId) -> Result<Self, StreamErrorIncoming> {
        let name = VarInt::from(id).into_inner().try_into().map_err(|_| StreamErrorIncoming::Unknown("a stream beyond the last".into()))?;
        Ok(Self { shared: shared.clone(), id, name, writing: None, frames: Frames::default() })
    }
}

impl quic::SendStream<Bytes> for Stream {
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        let mut inner = self.shared.lock();
        while let Some(writing) = self.writing.as_mut().filter(|writing| writing.has_remaining()) {
            match inner.link.connection.send_stream(self.id).write(writing.chunk()) {
                Ok(written) => {
                    writing.advance(written);
                    inner.sent += written as u64;
                }
                Err(WriteError::Blocked) => return Poll::Pending,
                Err(WriteError::Stopped(code)) => return Poll::Ready(Err(terminated(code))),
                Err(error @ WriteError::ClosedStream) => return Poll::Ready(Err(StreamErrorIncoming::Unknown(Box::new(error)))),
            }
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        let mut inner = self.shared.lock();
        if self.id.dir() == Dir::Bi {
            inner.is_handed = true;
        }
        Poll::Ready(match inner.link.connection.send_stream(self.id).finish() {
            Ok(()) | Err(FinishError::ClosedStream) => Ok(()),
            Err(FinishError::Stopped(code)) => Err(terminated(code)),
        })
    }

    fn reset(&mut self, code: u64) {
        // A stream that is closed has nothing to give up.
        let _ = self.shared.lock().link.connection.send_stream(self.id).reset(varint(code));
    }

    fn send_id(&self) -> quic::StreamId {
        self.name
    }
}

impl quic::RecvStream for Stream {
    type Buf = Bytes;

    fn poll_data(&mut self, _: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        let mut inner = self.shared.lock();
        let mut receiving = inner.link.connection.recv_stream(self.id);
        let mut chunks = match receiving.read(true) {
            Ok(chunks) => chunks,
            Err(ReadableError::ClosedStream) => return Poll::Ready(Ok(None)),
            Err(error @ ReadableError::IllegalOrderedRead) => return Poll::Ready(Err(StreamErrorIncoming::Unknown(Box::new(error)))),
        };
        let chunk = chunks.next(usize::MAX);
        // What there is to send about it is sent in the next turn.
        let _ = chunks.finalize();
        Poll::Ready(match chunk {
            Ok(Some(chunk)) => inner.note_arrival(self.id.dir(), &chunk.bytes, &mut self.frames).map(|()| Some(chunk.bytes)),
            // h3 0.0.8 takes that for the end of the body, where the end comes apart from the last bytes (its `FrameStream::poll_data`), and
            // panics if it is asked for more then.
            Ok(None) if self.id.dir() == Dir::Bi && !self.frames.is_between() => {
                Err(inner.found(Reason::MalformedAnswer, "the stream ended in the middle of a frame".to_owned()))
            }
            Ok(None) => Ok(None),
            Err(ReadError::Blocked) => return Poll::Pending,
            Err(ReadError::Reset(code)) => Err(terminated(code)),
        })
    }

    fn stop_sending(&mut self, code: u64) {
        // A stream that is closed sends nothing.
        let _ = self.shared.lock().link.connection.recv_stream(self.id).stop(varint(code));
    }

    fn recv_id(&self) -> quic::StreamId {
        self.name
    }
}

impl quic::BidiStream<Bytes> for Stream {
    type SendStream = Self;
    type RecvStream = Self;

    fn split(self) -> (Self, Self) {
        let Self { shared, id, name, writing, frames } = self;
        let sending = Self { shared: shared.clone(), id, name, writing, frames: Frames::default() };
        (sending, Self { shared, id, name, writing: None, frames })
    }
}

fn terminated(code: VarInt) -> StreamErrorIncoming {
    StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() }
}

/// A code, which is one of QUIC's integers.
fn varint(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}
