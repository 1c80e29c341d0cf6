//! One client's orders, logs and stream. One task owns all of it (`actor`), so nothing here is locked; what it decides is in `core`, which is pure.
//!
//! It outlives its streams, and the process: the next one goes on with what the journal has. It ends when its client has been away for long,
//! or when nothing of the client is left.

mod actor;
mod core;
mod refusal;
mod runs;
mod thread;

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use prost::Message as _;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use vantage_contract::v1::{Client, ClientState, ExecuteRequest, Hello, ProbeResult, Queue};
use vantage_daemon::audit::Audit;
use vantage_probes::World;

use crate::{
    admission::Admission,
    config::Settings,
    figures::ClientFigures,
    holdings::Holdings,
    journal::{Common, Keeper},
    pacer::Pacer,
    policy::Policy,
    tally::Tally,
};

pub(crate) use actor::spawn;
pub(crate) use refusal::{draining, exhausted, invalid, limit, unreadable};
pub(crate) use thread::{Load, SessionThread};

/// What all sessions of a monitor share.
#[derive(Clone)]
pub struct Shared {
    /// The settings in force.
    pub settings: Arc<Settings>,
    /// What probes run in.
    pub world: World,
    /// What orders may ask.
    pub policy: Policy,
    /// What keeps orders and results.
    pub(crate) keeper: Keeper,
    /// What the sessions' thread has to do.
    pub(crate) load: Load,
    /// Where runs go that compute.
    pub(crate) workers: Handle,
    /// The places for runs.
    pub admission: Admission,
    /// What orders hold in memory.
    pub(crate) holdings: Holdings,
    /// The room of all logs together.
    pub(crate) common: Common,
    /// How fast all clients together may ask.
    pub(crate) pacer: Arc<Pacer>,
    /// Every record, as it is appended, for those who watch.
    pub watchers: broadcast::Sender<Arc<Watched>>,
    /// Cancelled when the monitor is told to stop.
    pub drain: CancellationToken,
    /// Cancelled when the time for stopping is over.
    pub end: CancellationToken,
    /// The way to tell of what was asked and decided.
    pub audit: Audit,
}

/// A record, watched.
#[derive(Debug)]
pub struct Watched {
    /// Whose it is.
    pub client_id: String,
    /// The record.
    pub result: ProbeResult,
}

/// What a session is told.
pub(crate) enum Command {
    /// A stream of the client has been opened.
    Attach {
        hello: Hello,
        /// Where it comes from.
        address: String,
        reply: oneshot::Sender<Result<Attached, Status>>,
    },
    /// A request has come on a stream.
    Request {
        stream: u64,
        request: Box<ExecuteRequest>,
        /// What it takes of the room for requests of its client that are not obeyed yet.
        room: OwnedSemaphorePermit,
    },
    /// The client's side of a stream has ended; politely, as it seems.
    HalfClosed { stream: u64 },
    /// A request could not be read: the stream ends with this.
    Refused { stream: u64, status: Status },
    /// A stream is lost.
    Lost { stream: u64 },
    /// Its place is needed for another client.
    Forget,
    /// Somebody asks how it is going.
    Inspect(oneshot::Sender<View>),
}

/// A stream that a session serves now.
pub(crate) struct Attached {
    /// Its number, which its requests carry: those of a replaced stream are passed over.
    pub stream: u64,
    /// The name of the session that takes the new results.
    pub session: String,
    /// The earlier sessions that are still to be acknowledged, with their last sequences.
    pub closed_sessions: Vec<(String, u64)>,
    /// How fast the client may ask.
    pub pacer: Arc<Pacer>,
    /// Room for what it asks and is not obeyed yet, by [`room_for`].
    pub room: Arc<Semaphore>,
    /// The results as they are encoded, in lots, and at the end the status if it is not OK.
    pub results: mpsc::Receiver<Result<Vec<Bytes>, Status>>,
}

/// In what unit the room for requests is counted, in bytes.
const ROOM_UNIT: usize = 1024;

/// The room for requests of one client that are not obeyed yet: two of the longest.
fn room(request_bytes: usize) -> Semaphore {
    Semaphore::new(2 * request_bytes.div_ceil(ROOM_UNIT))
}

/// What a request takes of it.
pub(crate) fn room_for(request: &ExecuteRequest, request_bytes: usize) -> u32 {
    u32::try_from(request.encoded_len().min(request_bytes).div_ceil(ROOM_UNIT)).unwrap_or(1)
}

/// How a session is going.
#[derive(Debug, Clone)]
pub struct View {
    /// As ListClients shows it.
    pub client: Client,
    /// As ListQueues shows it.
    pub queue: Queue,
    /// What it has counted.
    pub tally: Tally,
}

impl View {
    /// As the figures show it.
    pub fn figures(&self) -> ClientFigures {
        let Self { client, queue, .. } = self;
        ClientFigures {
            client_id: client.client_id.clone(),
            connected: client.state() == ClientState::Connected,
            orders: client.order_count as usize,
            due: queue.due_count as usize,
            in_flight: queue.in_flight_count as usize,
            unacknowledged: queue.unacknowledged_count,
            journal_bytes: queue.journal_bytes,
            journal_limit_bytes: queue.journal_limit_bytes,
            unwritten_bytes: queue.unwritten_bytes,
            unwritten_limit_bytes: queue.unwritten_limit_bytes,
        }
    }
}

/// Whether a client's stream is open, and since when.
#[derive(Debug, Clone, Copy)]
struct Presence {
    connected: bool,
    since: SystemTime,
}
