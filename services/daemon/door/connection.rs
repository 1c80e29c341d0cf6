//! A connection that was let in: in the clear, or over TLS.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    task::AbortHandle,
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use super::Peer;
use crate::access::Access;

/// What the first record of TLS begins with: a handshake (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// What is read of a connection before others have their turn, in bytes. A flood always has more to say, and what it says is cheap: some
/// thousands of frames come with one read.
const TURN_BYTES: usize = 16 * 1024;

pub(super) enum Wire {
    /// In the clear; whether something was read already.
    Plain(TcpStream, bool),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection. It ends at the latest when its peer is no longer accepted.
pub struct Connection {
    wire: Wire,
    peer: Peer,
    access: Access,
    /// Ends the connection where it is; none: nothing does.
    cut: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// Judges the peer anew.
    judge: Option<AbortHandle>,
    /// What was read in this turn.
    read: usize,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    pub(super) fn new(
        wire: Wire,
        peer: Peer,
        access: Access,
        judged: Option<(AbortHandle, WaitForCancellationFutureOwned)>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        access.counts().open(peer.listener(), 1);
        let (judge, cut) = judged.unzip();
        Self { wire, peer, access, cut: cut.map(Box::pin), judge, read: 0, _place: place }
    }

    /// Who is on the other side.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.access.counts().open(self.peer.listener(), -1);
        if let Some(judge) = &self.judge {
            judge.abort();
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.cut.as_mut().is_some_and(|cut| cut.as_mut().poll(context).is_ready()) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the peer is no longer accepted")));
        }
        if this.read >= TURN_BYTES {
            this.read = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = into.filled().len();
        let read = match &mut this.wire {
            Wire::Tls(stream) => Pin::new(stream).poll_read(context, into),
            Wire::Plain(stream, true) => Pin::new(stream).poll_read(context, into),
            Wire::Plain(stream, begun) => {
                let read = Pin::new(stream).poll_read(context, into);
                if let Some(first) = into.filled().get(before) {
                    *begun = true;
                    if *first == TLS_HANDSHAKE {
                        super::refuse_wire(&this.access, &this.peer, "plaintext", "it speaks TLS, and this listener does not");
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "TLS to a listener in the clear")));
                    }
                }
                read
            }
        };
        match read {
            Poll::Pending => this.read = 0,
            Poll::Ready(_) => this.read += into.filled().len().saturating_sub(before),
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.wire {
            Wire::Plain(stream, _) => Pin::new(stream).poll_write(context, bytes),
            Wire::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match &mut self.wire {
            Wire::Plain(stream, _) => Pin::new(stream).poll_write_vectored(context, parts),
            Wire::Tls(stream) => Pin::new(stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.wire {
            Wire::Plain(stream, _) => stream.is_write_vectored(),
            Wire::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Plain(stream, _) => Pin::new(stream).poll_flush(context),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Plain(stream, _) => Pin::new(stream).poll_shutdown(context),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
