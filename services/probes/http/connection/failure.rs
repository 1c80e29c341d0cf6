//! What an error of hyper means, together with how the connection ended.

use std::{error::Error, io};

use vantage_contract::v1::Reason;

use super::{Again, MAX_FIELDS, MAX_HEAD, MAX_INTERIM, stream::Life, watched::End};
use crate::{failure::Failure, http::version::Version, tls, wire::text::escape};

/// The failure that it is.
pub(super) fn failure(act: &str, error: &hyper::Error, life: &Life) -> Failure {
    let notes = life.notes.lock();
    let malformed = |why: String| Failure::target(Reason::MalformedAnswer, format!("{act}: {why}"));
    if notes.interim > MAX_INTERIM {
        return malformed(format!("{} interim answers (1xx) and no final one", notes.interim));
    }
    match &notes.end {
        Some(End::OverBudget) => return Failure::target(Reason::TooLarge, format!("{act}: {} bytes came and no end of it", notes.read)),
        Some(End::Chatter) => return malformed(format!("{} frames of HTTP/2 that carry nothing of an answer", notes.chatter)),
        Some(End::Broken(error)) => return tls::of_wire(act, error),
        Some(End::Closed) | None => {}
    }
    if error.is_parse_too_large() {
        return long_head(act);
    }
    let is_http = |beginning: &[u8]| beginning.iter().zip(b"HTTP/1.").all(|(came, expected)| came == expected);
    if life.version == Version::Two && notes.beginning.starts_with(b"HTTP/1.") {
        return malformed("the server answers in HTTP/1, not in HTTP/2".to_owned());
    }
    if let Some(protocol) = find::<h2::Error>(error) {
        if protocol.is_remote() && (protocol.is_reset() || protocol.is_go_away()) {
            return Failure::target(Reason::Disconnected, format!("{act}: {protocol}"));
        }
        if !protocol.is_io() {
            return malformed(protocol.to_string());
        }
    } else if life.version == Version::One && !is_http(&notes.beginning) {
        let shown = escape(notes.beginning.get(..notes.beginning.len().min(32)).unwrap_or_default());
        return malformed(format!("the answer is not HTTP, it begins with \"{shown}\""));
    }
    if error.is_parse() {
        return malformed(format!("the answer is not HTTP: {}", innermost(error)));
    }
    let kind = find::<io::Error>(error).map(io::Error::kind);
    if matches!(kind, Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)) {
        return malformed(innermost(error));
    }
    if error.is_user() {
        return Failure::internal(format!("{act}: {error}"));
    }
    if matches!(notes.end, Some(End::Closed)) || error.is_incomplete_message() {
        let when = if notes.answered.is_some() { "in the middle of the answer" } else { "without an answer" };
        return Failure::target(Reason::Disconnected, format!("{act}: the connection was closed {when}"));
    }
    malformed(innermost(error))
}

/// Whether the request may be made again.
pub(super) fn again(error: &hyper::Error, life: &Life) -> Again {
    let notes = life.notes.lock();
    if notes.answered.is_some() {
        return Again::Never;
    }
    if let Some(protocol) = find::<h2::Error>(error) {
        let is_unheard = protocol.is_remote()
            && (protocol.is_go_away() && protocol.reason() == Some(h2::Reason::NO_ERROR)
                || protocol.is_reset() && protocol.reason() == Some(h2::Reason::REFUSED_STREAM));
        if is_unheard {
            return Again::Always;
        }
        if !protocol.is_io() {
            return Again::Never;
        }
    }
    let is_closed = match &notes.end {
        Some(End::Closed) => true,
        Some(End::Broken(error)) => matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof
        ),
        Some(End::OverBudget | End::Chatter) | None => false,
    };
    match (error.is_canceled(), is_closed) {
        // It was still here when the connection ended.
        (true, _) => Again::Always,
        (false, true) => Again::IfIdempotent,
        (false, false) => Again::Never,
    }
}

/// A head that is more than anybody needs, or announces a body that is more than there can be.
pub(in crate::http) fn long_head(act: &str) -> Failure {
    let sentence =
        format!("{act}: the header section is longer than {} KiB or {MAX_FIELDS} fields, or says a length beyond measure", MAX_HEAD >> 10);
    Failure::target(Reason::TooLarge, sentence)
}

/// The first error of that type in the chain of causes.
fn find<E: Error + 'static>(error: &hyper::Error) -> Option<&E> {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(found) = inner.downcast_ref() {
            return Some(found);
        }
        cause = inner.source();
    }
    None
}

fn innermost(error: &hyper::Error) -> String {
    let mut innermost: &dyn Error = error;
    while let Some(inner) = innermost.source() {
        innermost = inner;
    }
    innermost.to_string()
}
