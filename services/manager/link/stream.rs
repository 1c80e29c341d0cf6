//! An open stream: dialled, greeted, answered.

use std::str::FromStr as _;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming, metadata::MetadataMap};
use vantage_contract::v1::{
    ExecuteRequest, Hello, ProbeResult, StoredSession, execute_request::Order, monitor_service_client::MonitorServiceClient,
};

use super::{Settings, endpoint::Dial};

/// Requests that wait for the transport. What waits beyond that waits in [`Outgoing`](super::outgoing::Outgoing), which is bounded by the
/// number of orders.
const OUTBOX: usize = 64;

/// An open stream: the monitor has answered.
pub(crate) struct Stream {
    /// The way to the monitor; dropping it half-closes.
    pub(crate) outbox: mpsc::Sender<ExecuteRequest>,
    /// The way back.
    pub(crate) inbox: Streaming<ProbeResult>,
    /// What the monitor calls itself.
    pub(crate) monitor: String,
    /// The session that takes our new results.
    pub(crate) session: String,
    /// Earlier sessions that are still to be acknowledged, each with its last sequence.
    pub(crate) closed: Vec<StoredSession>,
}

/// Connects and says Hello. Ends within the settings' timeouts.
pub(crate) async fn open(dial: Dial, hello: Hello, settings: &Settings) -> Result<Stream, Status> {
    let mut client = MonitorServiceClient::new(dial.endpoint.connect_with_connector_lazy(dial.connector));
    let (outbox, requests) = mpsc::channel(OUTBOX);
    // The channel is empty and its other end is in our hands: this can't fail.
    let _ = outbox.try_send(ask(Order::Hello(hello)));
    let mut request = Request::new(ReceiverStream::new(requests));
    if let Some(token) = dial.token {
        request.metadata_mut().insert("authorization", token);
    }
    let limit = settings.connect_timeout + settings.answer_timeout;
    let response = tokio::time::timeout(limit, client.execute(request))
        .await
        .map_err(|_| Status::deadline_exceeded(format!("no answer to Hello within {limit:?}")))??;
    let headers = response.metadata();
    let (monitor, session) = (header(headers, "vantage-monitor").to_owned(), header(headers, "vantage-session").to_owned());
    let closed = closed_sessions(header(headers, "vantage-closed-sessions"));
    Ok(Stream { outbox, inbox: response.into_inner(), monitor, session, closed })
}

/// The text of a header; empty where there is none, or none that is text.
fn header<'h>(headers: &'h MetadataMap, name: &str) -> &'h str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Reads `8f1c=4711 02ab=9000`. What can't be read is passed over: the results of such a session come all the same.
fn closed_sessions(text: &str) -> Vec<StoredSession> {
    let read = |part: &str| {
        let (session, sequence) = part.rsplit_once('=')?;
        let sequence = u64::from_str(sequence).ok()?;
        (!session.is_empty()).then(|| StoredSession { session: session.to_owned(), sequence })
    };
    text.split_ascii_whitespace().filter_map(read).collect()
}

/// A request.
pub(crate) fn ask(order: Order) -> ExecuteRequest {
    ExecuteRequest { order: Some(order) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn session(session: &str, sequence: u64) -> StoredSession {
        StoredSession { session: session.into(), sequence }
    }

    #[test]
    fn closed_sessions_are_read_and_what_is_none_is_passed_over() {
        assert_eq!(closed_sessions("8f1c=4711 02ab=9000"), [session("8f1c", 4711), session("02ab", 9000)]);
        assert_eq!(closed_sessions(" a=b=7\t=5 c= d 8f1c=-1 e=1x f=3 "), [session("a=b", 7), session("f", 3)]);
        assert_eq!(closed_sessions(""), []);
    }

    proptest! {
        #[test]
        fn whatever_the_header_says_what_is_sound_in_it_is_read(junk in "[^0-9]{0,20}", name in "[0-9a-f]{1,16}", sequence: u64) {
            let read = closed_sessions(&format!("{junk} {name}={sequence} {junk}"));
            prop_assert_eq!(read, [session(&name, sequence)]);
        }
    }
}
