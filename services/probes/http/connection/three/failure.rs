//! What an error of h3 means.

use h3::error::{Code, ConnectionError, LocalError, StreamError};
use vantage_contract::v1::Reason;

use super::super::{MAX_FIELDS, MAX_HEAD};
use crate::failure::Failure;

/// The failure that an error of the connection is, which h3 found out about.
pub(super) fn of_connection(act: &str, error: &ConnectionError) -> Failure {
    match error {
        ConnectionError::Local { error: LocalError::Application { code, reason, .. }, .. } => {
            Failure::target(Reason::MalformedAnswer, format!("{act}: the answer is not HTTP/3: {reason} ({code})"))
        }
        // The connection itself tells how it ended: see `Shared::accept`.
        other => Failure::internal(format!("{act}: {other}")),
    }
}

/// The failure that an error of the request's stream is; `has_begun` says whether any of the answer had come.
pub(super) fn of_stream(act: &str, error: &StreamError, has_begun: bool) -> Failure {
    let of = |reason, why: String| Failure::target(reason, format!("{act}: {why}"));
    match error {
        StreamError::ConnectionError { 0: ConnectionError::Local { error: LocalError::Application { code, .. }, .. }, .. }
            if !has_begun && *code == Code::H3_FRAME_UNEXPECTED =>
        {
            of(Reason::Disconnected, "the stream ended without an answer".to_owned())
        }
        StreamError::ConnectionError { 0: error, .. } => of_connection(act, error),
        StreamError::RemoteTerminate { code, .. } if *code == Code::H3_VERSION_FALLBACK => {
            of(Reason::UnexpectedAnswer, format!("the server wants to be asked over an earlier version of HTTP ({code})"))
        }
        StreamError::RemoteTerminate { code, .. } => {
            let when = if has_begun { "in the middle of the answer" } else { "without an answer" };
            of(Reason::Disconnected, format!("the server gave the request up {when} ({code})"))
        }
        StreamError::RemoteClosing { .. } => of(Reason::Disconnected, "the server takes no more requests (GOAWAY)".to_owned()),
        StreamError::HeaderTooBig { .. } => {
            of(Reason::TooLarge, format!("the header section is longer than {} KiB or {MAX_FIELDS} fields", MAX_HEAD >> 10))
        }
        StreamError::StreamError { code, reason, .. } => {
            of(Reason::MalformedAnswer, format!("the answer is not HTTP/3: {reason} ({code})"))
        }
        other => Failure::internal(format!("{act}: {other}")),
    }
}
