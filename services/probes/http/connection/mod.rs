//! A connection on which HTTP is spoken, whatever the version: what an exchange needs to know of it.

pub(super) mod failure;
mod stream;
#[cfg(feature = "http3")]
mod three;
mod watched;

use bytes::Bytes;
use http::response;
use vantage_contract::v1::HttpReport;

use super::{dial::Line, version::Version};
use crate::{Run, failure::Failure};

#[cfg(any(test, fuzzing))]
pub(crate) use watched::fuzz_frames;

/// The longest header section that is read, in bytes and in fields.
pub(super) const MAX_HEAD: usize = 64 << 10;
const MAX_FIELDS: usize = 256;

/// How much may come before the answer's head is whole: the head, interim answers, the chatter of HTTP/2.
const BUDGET: u64 = 256 << 10;

/// How many interim answers (1xx) are listened to. More is a way never to answer.
const MAX_INTERIM: u32 = 20;

/// How many frames of HTTP/2 may carry nothing of an answer: SETTINGS, pings, windows, empty DATA. An honest server has a few for each
/// megabyte; more is a way to keep us busy.
const MAX_CHATTER: u32 = 10_000;

/// A connection, ready for a request. It lives in its owner's future and nowhere else: when a run is dropped, nothing is left behind.
///
/// Its methods enter the phases of an exchange as the connection shows them: `wait` when the request has left, `transfer` when the answer
/// begins; and they keep the report's count of bytes, so that a run that ends in the middle has it. `act` is what is being done, with its
/// subject: "GET http://example.com/".
pub(super) enum Connection {
    /// HTTP/1.1 or HTTP/2 over a stream of bytes.
    Stream(Box<stream::Connection>),
    /// HTTP/3 over QUIC.
    #[cfg(feature = "http3")]
    Three(Box<three::Connection>),
}

impl Connection {
    /// Begins to speak HTTP.
    pub(super) async fn begin(line: Line, act: &str, run: &mut Run<'_, HttpReport>) -> Result<Self, Failure> {
        match line {
            Line::Stream(stream, version) => Ok(Self::Stream(Box::new(stream::Connection::begin(stream, version, act, run).await?))),
            #[cfg(feature = "http3")]
            // Its room is not that of every exchange.
            Line::Quic(link) => Ok(Self::Three(Box::pin(three::Connection::begin(link, act)).await?)),
        }
    }

    /// Sends the request and waits for the head of the answer.
    pub(super) async fn ask(
        &mut self,
        request: http::Request<Bytes>,
        act: &str,
        run: &mut Run<'_, HttpReport>,
    ) -> Result<response::Parts, Unanswered> {
        match self {
            Self::Stream(connection) => connection.ask(request, act, run).await,
            #[cfg(feature = "http3")]
            // None is kept, so that none is found closed.
            Self::Three(connection) => {
                connection.ask(request, act, run).await.map_err(|failure| Unanswered { failure, again: Again::Never })
            }
        }
    }

    /// The version that is spoken.
    pub(super) fn version(&self) -> Version {
        match self {
            Self::Stream(connection) => connection.version(),
            #[cfg(feature = "http3")]
            Self::Three(_) => Version::Three,
        }
    }

    /// Lets a body of so many bytes come, after the head of the answer.
    pub(super) fn allow(&mut self, body: u64) {
        match self {
            Self::Stream(connection) => connection.allow(body),
            #[cfg(feature = "http3")]
            Self::Three(connection) => connection.allow(body),
        }
    }

    /// How many bytes of the body are sure to come.
    pub(super) fn promised(&self) -> u64 {
        match self {
            Self::Stream(connection) => connection.promised(),
            #[cfg(feature = "http3")]
            Self::Three(connection) => connection.promised(),
        }
    }

    /// The next of the body, after the head of the answer. None: that was all.
    pub(super) async fn data(&mut self, act: &str, run: &mut Run<'_, HttpReport>) -> Result<Option<Bytes>, Failure> {
        match self {
            Self::Stream(connection) => connection.data(act, run).await,
            #[cfg(feature = "http3")]
            Self::Three(connection) => connection.data(act, run).await,
        }
    }

    /// Whether it can take another request: the answer before was read to its end, and neither side has closed. Never waits.
    pub(super) async fn is_free(&mut self) -> bool {
        match self {
            Self::Stream(connection) => connection.is_free().await,
            // QUIC has timers that run while it is idle.
            #[cfg(feature = "http3")]
            Self::Three(_) => false,
        }
    }
}

/// A request without an answer.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) failure: Failure,
    pub(super) again: Again,
}

/// Whether a request may be made again on a fresh connection, where this happened on one that was kept: the server may have closed it
/// just then (RFC 9110 section 9.2.2, RFC 9112 section 9.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// Something came of it.
    Never,
    /// It may have been heard, and nothing came of it: if it is idempotent.
    IfIdempotent,
    /// It was not heard (RFC 9113 section 8.7).
    Always,
}
