//! The client's end of a connection. It remembers why it broke: what is above it keeps words at best.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    task::AbortHandle,
};
use tokio_rustls::client::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::client::{Fault, Trouble};

/// What an alert of TLS begins with (RFC 8446 section 5.1): how a server of TLS answers to what is none.
const TLS_ALERT: u8 = 0x15;

/// The client's end of a connection.
#[derive(Debug)]
pub struct Wire {
    stream: Stream,
    fault: Fault,
}

#[derive(Debug)]
enum Stream {
    /// In the clear; whether something was read already.
    Plain(TcpStream, bool),
    Tls(Box<TlsStream<TcpStream>>, Judged),
}

/// Ends the connection when its server is no longer trusted.
struct Judged {
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    judge: AbortHandle,
}

impl std::fmt::Debug for Judged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Judged")
    }
}

impl Drop for Judged {
    fn drop(&mut self) {
        self.judge.abort();
    }
}

impl Wire {
    pub(super) fn plain(stream: TcpStream, fault: Fault) -> Self {
        Self { stream: Stream::Plain(stream, false), fault }
    }

    pub(super) fn tls(stream: TlsStream<TcpStream>, fault: Fault, cut: CancellationToken, judge: AbortHandle) -> Self {
        let judged = Judged { cut: Box::pin(cut.cancelled_owned()), judge };
        Self { stream: Stream::Tls(Box::new(stream), judged), fault }
    }

    /// A write failed, perhaps because the server has said why and gone: with TLS 1.3 a client learns only now that its certificate was refused
    /// (RFC 8446 section 4.6.2 and appendix E.1.2).
    fn hear_last_words(&mut self, context: &mut Context<'_>) {
        if let Stream::Tls(stream, _) = &mut self.stream {
            let mut bytes = [0; 1024];
            for _ in 0..8 {
                let mut into = ReadBuf::new(&mut bytes);
                match Pin::new(&mut *stream).poll_read(context, &mut into) {
                    Poll::Ready(Ok(())) if !into.filled().is_empty() => {}
                    Poll::Ready(Err(error)) => return self.fault.note_error(&error),
                    Poll::Ready(Ok(())) | Poll::Pending => return,
                }
            }
        }
    }

    fn heard<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &written {
            self.fault.note_error(error);
            self.hear_last_words(context);
        }
        written
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, fault } = &mut *self;
        match stream {
            Stream::Plain(stream, true) => Pin::new(stream).poll_read(context, into),
            Stream::Plain(stream, begun) => {
                let before = into.filled().len();
                let read = Pin::new(stream).poll_read(context, into);
                if let Some(first) = into.filled().get(before) {
                    *begun = true;
                    if *first == TLS_ALERT {
                        fault.note(Trouble::OnlyTls);
                    }
                }
                read
            }
            Stream::Tls(stream, judged) => {
                if judged.cut.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server is no longer trusted")));
                }
                let read = Pin::new(stream).poll_read(context, into);
                if let Poll::Ready(Err(error)) = &read {
                    fault.note_error(error);
                }
                read
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = match &mut self.stream {
            Stream::Plain(stream, _) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream, _) => Pin::new(stream).poll_write(context, bytes),
        };
        self.heard(context, written)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = match &mut self.stream {
            Stream::Plain(stream, _) => Pin::new(stream).poll_write_vectored(context, parts),
            Stream::Tls(stream, _) => Pin::new(stream).poll_write_vectored(context, parts),
        };
        self.heard(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream, _) => stream.is_write_vectored(),
            Stream::Tls(stream, _) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = match &mut self.stream {
            Stream::Plain(stream, _) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream, _) => Pin::new(stream).poll_flush(context),
        };
        self.heard(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream, _) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream, _) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
