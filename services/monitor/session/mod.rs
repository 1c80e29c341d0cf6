//! One client's orders, logs and stream. One task owns all of it (`actor`), so nothing here is locked; what it decides is in `core`, which is pure.
//!
//! It outlives its streams, and the process: the next one goes on with what the journal has. It ends when its client has been away for long,
//! or when nothing of the client is left.

mod actor;
mod core;
mod refusal;
mod runs;

use std::{sync::Arc, time::SystemTime};

use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use vantage_contract::v1::{Client, ClientState, ExecuteRequest, Hello, ProbeResult, Queue};
use vantage_daemon::audit::Audit;
use vantage_probes::World;

use crate::{admission::Admission, config::Settings, figures::ClientFigures, journal::Keeper, policy::Policy, tally::Tally};

pub(crate) use actor::spawn;
pub(crate) use refusal::{draining, exhausted, invalid};

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
    /// The places for runs.
    pub admission: Admission,
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
    Request { stream: u64, request: Box<ExecuteRequest> },
    /// The client's side of a stream has ended; politely, as it seems.
    HalfClosed { stream: u64 },
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
    /// The results, and at the end the status if it is not OK.
    pub results: mpsc::Receiver<Result<ProbeResult, Status>>,
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
