//! How a connection ended, as a failure.

use std::fmt::Display;

use quinn_proto::{ConnectionError, TransportErrorCode};
use vantage_contract::v1::Reason;

use crate::{failure::Failure, wire::text::escape};

/// The codes of QUIC's errors that are alerts of TLS (RFC 9001 section 4.8).
const ALERTS: std::ops::Range<u64> = 0x100..0x200;

/// How much is told of the words that the server gives for closing.
const MAX_WORDS: usize = 64;

/// What it makes of a run; `act` is what was being done, with its subject.
pub(super) fn failure(act: &str, reason: &ConnectionError) -> Failure {
    let of = |reason, why: &dyn Display| Failure::target(reason, format!("{act}: {why}"));
    match reason {
        ConnectionError::ConnectionClosed(close) => {
            let code = u64::from(close.error_code);
            let reason = match close.error_code {
                _ if ALERTS.contains(&code) => Reason::TlsFailed,
                TransportErrorCode::CONNECTION_REFUSED => Reason::Refused,
                _ => Reason::Disconnected,
            };
            of(reason, &format!("closed by peer: {}{}", close.error_code, words(&close.reason)))
        }
        ConnectionError::ApplicationClosed(close) => {
            of(Reason::Disconnected, &format!("closed by peer with code {:#x}{}", close.error_code.into_inner(), words(&close.reason)))
        }
        ConnectionError::TransportError(error) if ALERTS.contains(&u64::from(error.code)) => of(Reason::TlsFailed, reason),
        ConnectionError::TransportError(_) => of(Reason::MalformedAnswer, reason),
        ConnectionError::VersionMismatch => of(Reason::UnexpectedAnswer, &"the server does not speak QUIC version 1"),
        ConnectionError::TimedOut => of(Reason::TimedOut, reason),
        ConnectionError::Reset => of(Reason::Disconnected, &"the server knows nothing of the connection (stateless reset)"),
        ConnectionError::LocallyClosed | ConnectionError::CidsExhausted => Failure::internal(format!("{act}: {reason}")),
    }
}

/// The server's words, as they may be shown.
fn words(reason: &[u8]) -> String {
    match reason {
        [] => String::new(),
        reason => format!(", \"{}\"", escape(reason.get(..reason.len().min(MAX_WORDS)).unwrap_or_default())),
    }
}
