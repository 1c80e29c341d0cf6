//! A connection that notes when the request had left and when the answer began, how it ended, and how much came: what hyper keeps to itself.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{MAX_CHATTER, MAX_INTERIM};
use crate::{
    net::{stream::Stream, tcp::kernel_round_trip},
    stopwatch,
};

/// The preface of a client of HTTP/2 (RFC 9113 section 3.4).
const PREFACE: u64 = 24;

/// What was noted.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Whether all of the request has been handed to the connection.
    pub(super) handed: bool,
    /// When it was begun to write something last, if it left at once.
    pub(super) written: Option<Instant>,
    /// When the last of the request left.
    pub(super) sent: Option<Instant>,
    /// When the first of the answer came.
    pub(super) answered: Option<Instant>,
    /// How it ended; none: it goes on.
    pub(super) end: Option<End>,
    /// The first bytes of the answer.
    pub(super) beginning: Vec<u8>,
    /// Bytes that came, and that were handed over to be sent.
    pub(super) read: u64,
    pub(super) wrote: u64,
    /// Bytes that may come.
    pub(super) budget: u64,
    /// Interim answers (1xx) that came.
    pub(super) interim: u32,
    /// Frames of HTTP/2 that came and carried nothing of the answer.
    pub(super) chatter: u32,
    /// The kernel's smoothed round trip, as the answer began.
    pub(super) round_trip: Option<Duration>,
    /// What had come and been handed over before this exchange.
    before: (u64, u64),
    /// Whether there was an exchange.
    is_used: bool,
}

impl Notes {
    /// Forgets the exchange before; so much may come until the head of the next answer is whole.
    pub(super) fn begin(&mut self, is_handed: bool, budget: u64) {
        let Self { read, wrote, end, is_used, .. } = std::mem::take(self);
        // What a fresh connection has said so far belongs to its first exchange.
        let before = if is_used { (read, wrote) } else { (0, 0) };
        *self = Self { handed: is_handed, end, read, wrote, budget: read + budget, before, is_used: true, ..Self::default() };
    }

    /// How much came, and was handed over to be sent, in this exchange.
    pub(super) fn traffic(&self) -> (u64, u64) {
        (self.read - self.before.0, self.wrote - self.before.1)
    }
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// The other side closed it.
    Closed,
    /// With an error. The error itself is here, hyper has a copy.
    Broken(io::Error),
    /// More came than may come.
    OverBudget,
    /// Nothing but talk came (`Notes::chatter`).
    Chatter,
}

/// Notes that the connection and its owner share.
#[derive(Debug, Clone, Default)]
pub(super) struct Shared(Arc<Mutex<Notes>>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How requests and answers begin and end on the wire.
pub(super) enum Framing {
    /// HTTP/1.1: the request is out when it has been handed over and flushed; the first byte begins the answer.
    One,
    /// HTTP/2: other frames go to and fro, so frames are told apart.
    Two { outgoing: Frames, incoming: Frames },
}

impl Framing {
    pub(super) fn two() -> Self {
        Self::Two { outgoing: Frames { rest: PREFACE, ..Frames::default() }, incoming: Frames::default() }
    }
}

/// The connection.
pub(super) struct Watched {
    stream: Stream,
    framing: Framing,
    notes: Shared,
}

impl Watched {
    pub(super) fn new(stream: Stream, framing: Framing, notes: Shared) -> Self {
        Self { stream, framing, notes }
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, framing, notes } = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut *stream).poll_read(cx, buffer);
        if polled.is_pending() {
            return Poll::Pending;
        }
        let mut notes = notes.lock();
        if let Poll::Ready(Err(error)) = polled {
            let copy = copy_of(&error);
            notes.end.get_or_insert(End::Broken(error));
            return Poll::Ready(Err(copy));
        }
        let came = buffer.filled().get(before..).unwrap_or_default();
        if came.is_empty() {
            notes.end.get_or_insert(End::Closed);
            return Poll::Ready(Ok(()));
        }
        notes.read += came.len() as u64;
        if notes.read > notes.budget || notes.interim > MAX_INTERIM {
            notes.end.get_or_insert(End::OverBudget);
            return Poll::Ready(Err(io::Error::other("more came than may come")));
        }
        let room = 64_usize.saturating_sub(notes.beginning.len()).min(came.len());
        notes.beginning.extend_from_slice(came.get(..room).unwrap_or_default());
        let begins = match framing {
            Framing::One => true,
            Framing::Two { incoming, .. } => incoming.feed(came, |frame| {
                notes.chatter += u32::from(frame.is_chatter());
                !frame.is_over && frame.kind == Frame::HEADERS
            }),
        };
        if notes.chatter > MAX_CHATTER {
            notes.end.get_or_insert(End::Chatter);
            return Poll::Ready(Err(io::Error::other("nothing but talk came")));
        }
        if begins && notes.answered.is_none() {
            let now = stopwatch::now();
            notes.answered = Some(now);
            notes.round_trip = kernel_round_trip(stream.tcp());
            // Some answer before they have heard the whole question.
            notes.sent.get_or_insert(now);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { stream, framing, notes } = self.get_mut();
        // What is written leaves within the call. Afterwards the kernel often lets others go first, who have just been woken by it.
        let now = stopwatch::now();
        let polled = Pin::new(stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = &polled {
            let mut notes = notes.lock();
            notes.written = Some(now);
            notes.wrote += *written as u64;
            let written = bytes.get(..*written).unwrap_or_default();
            if let Framing::Two { outgoing, .. } = framing
                && outgoing.feed(written, |frame| frame.is_over && frame.ends_stream())
            {
                notes.sent.get_or_insert(now);
            }
        }
        note_error(polled, notes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, framing, notes } = self.get_mut();
        let now = stopwatch::now();
        let polled = Pin::new(stream).poll_flush(cx);
        let mut noted = notes.lock();
        match (&polled, framing) {
            // TLS holds something back: what was written has not left.
            (Poll::Pending, _) => noted.written = None,
            (Poll::Ready(Ok(())), Framing::One) if noted.handed => {
                let left = noted.written.unwrap_or(now);
                noted.sent.get_or_insert(left);
            }
            _ => {}
        }
        drop(noted);
        note_error(polled, notes)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

fn note_error<T>(polled: Poll<io::Result<T>>, notes: &Shared) -> Poll<io::Result<T>> {
    match polled {
        Poll::Ready(Err(error)) => {
            let copy = copy_of(&error);
            notes.lock().end.get_or_insert(End::Broken(error));
            Poll::Ready(Err(copy))
        }
        other => other,
    }
}

/// As much of an error as hyper has to know: the error itself stays in the notes.
fn copy_of(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::from(error.kind()),
    }
}

/// A frame of HTTP/2 (RFC 9113 section 4.1) of which something has been seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Frame {
    kind: u8,
    flags: u8,
    /// That of its payload, in bytes.
    length: u32,
    /// Whether all of it has been seen.
    is_over: bool,
}

impl Frame {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const CONTINUATION: u8 = 9;

    /// Whether it begins and has nothing of an answer in it.
    fn is_chatter(self) -> bool {
        let carries = match self.kind {
            Self::DATA => self.length > 0 || self.ends_stream(),
            Self::HEADERS | Self::CONTINUATION => true,
            _ => false,
        };
        !self.is_over && !carries
    }

    /// Whether it is the last of its stream.
    fn ends_stream(self) -> bool {
        matches!(self.kind, Self::DATA | Self::HEADERS) && self.flags & 1 == 1
    }
}

/// Tells frames apart in a stream of bytes.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; 9],
    have: usize,
    /// Bytes until the frame is over.
    rest: u64,
    frame: Option<Frame>,
}

impl Frames {
    /// Takes more bytes. Whether one of the frames that begin or end within them is `wanted`.
    fn feed(&mut self, mut bytes: &[u8], mut wanted: impl FnMut(Frame) -> bool) -> bool {
        let mut found = false;
        loop {
            let skipped = usize::try_from(self.rest).unwrap_or(usize::MAX).min(bytes.len());
            self.rest -= skipped as u64;
            bytes = bytes.get(skipped..).unwrap_or_default();
            if self.rest > 0 {
                return found;
            }
            if let Some(frame) = self.frame.take() {
                found |= wanted(Frame { is_over: true, ..frame });
            }
            let Some((&byte, after)) = bytes.split_first() else { return found };
            bytes = after;
            if let Some(place) = self.head.get_mut(self.have) {
                *place = byte;
            }
            self.have += 1;
            if self.have == self.head.len() {
                let [long, middle, short, kind, flags, ..] = self.head;
                self.have = 0;
                let length = u32::from_be_bytes([0, long, middle, short]);
                self.rest = length.into();
                let frame = Frame { kind, flags, length, is_over: false };
                found |= wanted(frame);
                self.frame = Some(frame);
            }
        }
    }
}

/// Frames are the same however they are cut, for fuzzing: the first byte says into how many pieces.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_frames(data: &[u8]) {
    let Some((size, wire)) = data.split_first() else { return };
    let count = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        // Begun, over, and those of them that end a stream.
        let (mut frames, mut seen) = (Frames::default(), [0; 3]);
        for piece in pieces {
            let found = frames.feed(piece, |frame| {
                seen[usize::from(frame.is_over)] += 1;
                seen[2] += usize::from(frame.ends_stream());
                false
            });
            assert!(!found, "nothing was wanted");
        }
        (seen, frames.have, frames.rest)
    };
    let (counts, have, rest) = count(&mut std::iter::once(wire));
    assert_eq!(count(&mut wire.chunks(usize::from(*size).max(1))), (counts, have, rest));
    assert!(counts[0] - counts[1] <= 1 && counts[0] * 9 <= wire.len(), "{counts:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SETTINGS with 6 bytes, then HEADERS with 3 bytes that ends its stream.
    const WIRE: &[u8] = &[0, 0, 6, 4, 0, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 0, 0, 3, 1, 5, 0, 0, 0, 1, 7, 7, 7];

    #[test]
    fn frames_are_told_apart_however_they_are_cut() {
        for size in 1..=WIRE.len() {
            let mut frames = Frames::default();
            let mut begun_at = None;
            let mut over_at = None;
            let mut fed = 0;
            for chunk in WIRE.chunks(size) {
                fed += chunk.len();
                let mut copy = Frames { head: frames.head, have: frames.have, rest: frames.rest, frame: frames.frame };
                if copy.feed(chunk, |frame| !frame.is_over && frame.kind == Frame::HEADERS) {
                    begun_at.get_or_insert(fed);
                }
                if frames.feed(chunk, |frame| frame.is_over && frame.ends_stream()) {
                    over_at.get_or_insert(fed);
                }
            }
            let up = |at: usize| at.div_ceil(size).saturating_mul(size).min(WIRE.len());
            assert_eq!((begun_at, over_at), (Some(up(24)), Some(up(27))), "chunks of {size}");
        }
    }
}
