//! `MonitorService`: the streams of clients.

mod results;
mod server;

use std::{error::Error as _, sync::Arc, time::Duration};

use prost::Message as _;
use tokio::sync::{Semaphore, mpsc};
use tonic::{Code, Request, Response, Status, Streaming, metadata::MetadataValue};
use vantage_contract::v1::{ExecuteRequest, Hello, execute_request::Order};
use vantage_daemon::{audit::Event, clock, door::Peer};

use crate::{
    guard::code_name,
    pacer::Pacer,
    registry::Registry,
    session::{self, Attached, Command, Shared},
    strangers::{MOST, Strangers},
};

/// How long a stream may stay without its Hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_CLIENT_ID_BYTES: usize = 128;
const MAX_CLIENT_NAME_BYTES: usize = 128;
const MAX_CLIENT_VERSION_BYTES: usize = 64;
const MAX_STORED_SESSIONS: usize = 1000;
/// Bytes of a request for which it counts once more against its client's pace.
const PACE_UNIT: usize = 4096;

/// Serves the streams of clients.
#[derive(Clone)]
pub(crate) struct Execute {
    pub registry: Registry,
    pub strangers: Strangers,
}

use results::Results;
pub(crate) use server::ExecuteServer;

impl Execute {
    /// Opens a stream: its results are `ProbeResult`s, encoded.
    async fn execute(&self, request: Request<Streaming<ExecuteRequest>>) -> Result<Response<Results>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let address = peer.as_ref().map(|peer| peer.address().to_string()).unwrap_or_default();
        let mut requests = request.into_inner();
        let stranger = self.strangers.come();
        let first = tokio::select! {
            biased;
            first = tokio::time::timeout(HELLO_TIMEOUT, requests.message()) => {
                first.map_err(|_| Status::deadline_exceeded(format!("no Hello within {HELLO_TIMEOUT:?}")))?
            }
            () = stranger.displaced.cancelled() => {
                return Err(session::exhausted("streams", format!("more than {MOST} streams wait for their Hello: say it at once")));
            }
        };
        drop(stranger);
        let request_bytes = self.shared().settings.limits.request_bytes;
        let first = first.map_err(|status| session::unreadable(&status, request_bytes))?;
        let Some(ExecuteRequest { order: Some(Order::Hello(hello)) }) = first else {
            return Err(session::invalid("order", "the first request must be a Hello"));
        };
        validate(&hello)?;
        let (client, version) = (hello.client_id.clone(), hello.client_version.clone());
        let identity = peer.as_ref().map(Peer::identity).unwrap_or_default();
        let attached = self.registry.attach(hello, address.clone()).await;
        match &attached {
            Ok(_) => self.shared().audit.tell(Event::StreamOpened, |event| {
                tracing::info!(target: "audit", event, client, identity, address, version, "stream opened");
            }),
            Err(status) => self.shared().audit.tell(Event::Refused, |event| {
                let (code, why) = (code_name(status.code()), status.message());
                tracing::warn!(target: "audit", event, client, identity, address, what = "stream", code, why, "refused");
            }),
        }
        let (commands, Attached { stream, session, closed_sessions, pacer, room, results }) = attached?;
        let pacers = [pacer, Arc::clone(&self.shared().pacer)];
        tokio::spawn(listen(Listener { requests, commands, stream, pacers, room, request_bytes }));

        let mut response = Response::new(Results::new(results));
        let headers = response.metadata_mut();
        let closed: Vec<String> = closed_sessions.iter().map(|(session, last)| format!("{session}={last}")).collect();
        let closed = closed.join(" ");
        let named =
            [("vantage-monitor", &self.shared().settings.name), ("vantage-session", &session), ("vantage-closed-sessions", &closed)];
        for (name, value) in named.into_iter().filter(|(_, value)| !value.is_empty()) {
            if let Ok(value) = MetadataValue::try_from(value) {
                headers.insert(name, value);
            }
        }
        Ok(response)
    }

    fn shared(&self) -> &Shared {
        &self.registry.shared
    }
}

/// Where a stream's requests go, and at what pace.
struct Listener {
    requests: Streaming<ExecuteRequest>,
    commands: mpsc::Sender<Command>,
    stream: u64,
    pacers: [Arc<Pacer>; 2],
    room: Arc<Semaphore>,
    request_bytes: usize,
}

/// For how many short requests one counts: it is written to the journal, too.
fn weight(request: &ExecuteRequest) -> u32 {
    u32::try_from(request.encoded_len() / PACE_UNIT).unwrap_or(u32::MAX).saturating_add(1)
}

/// Passes a stream's requests on. Who sends faster than the session obeys, or than the limits say, waits, by the flow control of HTTP/2.
async fn listen(listener: Listener) {
    let Listener { mut requests, commands, stream, pacers, room, request_bytes } = listener;
    loop {
        let command = match requests.message().await {
            Ok(Some(request)) => {
                let now = clock::monotonic();
                // What is long is paid for by its own client alone: others should not wait for it.
                let [own, common] = &pacers;
                let wait = own.pass(now, weight(&request)).max(common.pass(now, 1));
                if !wait.is_zero() {
                    tokio::time::sleep(wait).await;
                }
                // The semaphore is never closed.
                let Ok(room) = Arc::clone(&room).acquire_many_owned(session::room_for(&request, request_bytes)).await else { return };
                Command::Request { stream, request: request.into(), room }
            }
            // Also what a peer looks like that has died: then the response side shows it.
            Ok(None) => Command::HalfClosed { stream },
            Err(status) if matches!(status.code(), Code::OutOfRange | Code::Internal) && status.source().is_none() => {
                Command::Refused { stream, status: session::unreadable(&status, request_bytes) }
            }
            Err(_) => Command::Lost { stream },
        };
        let is_last = !matches!(command, Command::Request { .. });
        if commands.send(command).await.is_err() || is_last {
            return;
        }
    }
}

pub(crate) fn validate(hello: &Hello) -> Result<(), Status> {
    let Hello { client_id, client_name, client_version, stored_sessions } = hello;
    if client_id.is_empty() || client_id.len() > MAX_CLIENT_ID_BYTES || !client_id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(session::invalid("hello.client_id", "must be 1 to 128 bytes of printable ASCII without spaces"));
    }
    if client_name.len() > MAX_CLIENT_NAME_BYTES {
        return Err(session::invalid("hello.client_name", "must be at most 128 bytes"));
    }
    if client_version.len() > MAX_CLIENT_VERSION_BYTES {
        return Err(session::invalid("hello.client_version", "must be at most 64 bytes"));
    }
    if stored_sessions.len() > MAX_STORED_SESSIONS {
        return Err(session::invalid("hello.stored_sessions", "must be at most 1000"));
    }
    Ok(())
}
