//! The task that owns a session.

mod requests;
mod view;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use prost::Message;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::{sync::mpsc, time::Instant};
use tonic::Status;
use vantage_contract::v1::{Hello, ProbeResult};
use vantage_daemon::clock;

use super::{
    Attached, Command, Presence, Shared, WINDOW, Watched, draining,
    runs::{Ended, Runs},
};
use crate::{
    book::{Book, Due},
    journal::{Bounds, Journal, MemoryJournal},
    schedule::Now,
    tally::Tally,
};

/// Results on their way into a stream; what does not fit waits in the journal.
const STREAM_DEPTH: usize = 64;
/// Commands on their way; who sends more waits.
const COMMAND_DEPTH: usize = 64;
/// How often bounds of age are looked after.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How long a client is remembered of which nothing is left.
const IDLE_EXPIRY: Duration = Duration::from_secs(10);
/// How long a stopping session waits for the last acknowledgement.
const ACK_LINGER: Duration = Duration::from_secs(2);
/// How long a stream may take to accept its last word.
const LAST_WORD: Duration = Duration::from_secs(5);

/// Begins a session for the client of that id: how to tell it things, and its life, which leaves what it has counted.
/// `expendable` says at all times whether the client could be parted with: it is away, has no orders, and was sent all that there is.
pub(crate) fn spawn(
    client_id: String,
    shared: Shared,
    expendable: Arc<AtomicBool>,
) -> (mpsc::Sender<Command>, impl Future<Output = Tally> + Send + 'static) {
    let (sender, commands) = mpsc::channel(COMMAND_DEPTH);
    let actor = Actor::new(client_id, shared, commands, expendable);
    (sender, actor.run())
}

struct Stream {
    number: u64,
    results: mpsc::Sender<Result<ProbeResult, Status>>,
    /// The last sequence put into it.
    cursor: u64,
    /// The client has nothing more to say.
    half_closed: bool,
}

struct Actor {
    client_id: String,
    hello: Hello,
    address: String,
    presence: Presence,
    away_since: Instant,
    session: String,
    shared: Shared,
    commands: mpsc::Receiver<Command>,
    book: Book,
    journal: Box<dyn Journal>,
    runs: Runs,
    stream: Option<Stream>,
    last_stream: u64,
    tally: Tally,
    expendable: Arc<AtomicBool>,
}

/// What woke the actor.
enum Woken {
    Command(Option<Command>),
    Ended(Box<Ended>),
    Due,
    Room,
    StreamGone,
    Drain,
    End,
    Housekeeping,
}

impl Actor {
    fn new(client_id: String, shared: Shared, commands: mpsc::Receiver<Command>, expendable: Arc<AtomicBool>) -> Self {
        let now = Now::read();
        let journal = shared.settings.journal;
        Self {
            client_id,
            hello: Hello::default(),
            address: String::new(),
            presence: Presence { connected: false, since: now.wall },
            away_since: now.monotonic,
            session: session_name(),
            journal: Box::new(MemoryJournal::new(Bounds { bytes: journal.bytes, age: journal.age })),
            shared,
            commands,
            book: Book::default(),
            runs: Runs::new(),
            stream: None,
            last_stream: 0,
            tally: Tally::default(),
            expendable,
        }
    }

    async fn run(mut self) -> Tally {
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if !self.shared.drain.is_cancelled() {
                self.start_due();
            }
            match self.wake(&mut housekeeping).await {
                Woken::Command(Some(Command::Forget)) => return self.part(),
                Woken::Command(Some(command)) => self.obey(command),
                Woken::Command(None) | Woken::Drain => return self.stop().await,
                Woken::Ended(ended) => self.keep(*ended),
                Woken::Due => {}
                Woken::Room => self.send(),
                Woken::StreamGone => self.leave("the stream was lost"),
                Woken::End => return self.abandon(),
                Woken::Housekeeping => {
                    if self.tidy() {
                        return self.tally;
                    }
                }
            }
        }
    }

    async fn wake(&mut self, housekeeping: &mut tokio::time::Interval) -> Woken {
        let drain = self.shared.drain.clone();
        let next_due = if drain.is_cancelled() { None } else { self.book.next_due() };
        let results = self.stream.as_ref().map(|stream| stream.results.clone());
        let has_more = self.may_send();
        let draining = drain.is_cancelled();
        tokio::select! {
            command = self.commands.recv() => Woken::Command(command),
            ended = self.runs.next(), if !self.runs.is_empty() => Woken::Ended(ended.into()),
            () = at(next_due), if next_due.is_some() => Woken::Due,
            room = room(results.as_ref()), if has_more => if room { Woken::Room } else { Woken::StreamGone },
            () = gone(results.as_ref()), if results.is_some() => Woken::StreamGone,
            () = drain.cancelled(), if !draining => Woken::Drain,
            () = self.shared.end.cancelled() => Woken::End,
            _ = housekeeping.tick() => Woken::Housekeeping,
        }
    }

    fn start_due(&mut self) {
        for due in self.book.due(clock::monotonic()) {
            match due {
                Due::Run(ticket) => self.runs.start(ticket, &self.shared),
                Due::Skip { facts, run, count, due, reason } => self.append(facts.skipped(run, count, due, reason)),
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Attach { hello, address, reply } => {
                let attached = self.attach(hello, address);
                // Who opened the stream may have gone meanwhile: then it is lost, and shows as such.
                let _ = reply.send(attached);
            }
            Command::Request { stream, request } => {
                if self.is_current(stream) {
                    self.tally.received_bytes += request.encoded_len() as u64;
                    if let Err(status) = self.request(*request) {
                        self.dismiss(status);
                    }
                }
            }
            Command::HalfClosed { stream } => {
                if let Some(current) = self.stream.as_mut().filter(|current| current.number == stream) {
                    current.half_closed = true;
                    self.finish_half_closed();
                }
            }
            Command::Lost { stream } => {
                if self.is_current(stream) {
                    self.leave("the stream was lost");
                }
            }
            // Who is stopping makes room anyway.
            Command::Forget => {}
            Command::Inspect(reply) => {
                let _ = reply.send(self.view());
            }
        }
    }

    fn is_current(&self, stream: u64) -> bool {
        self.stream.as_ref().is_some_and(|current| current.number == stream && !current.half_closed)
    }

    fn attach(&mut self, hello: Hello, address: String) -> Result<Attached, Status> {
        if self.shared.drain.is_cancelled() {
            return Err(draining());
        }
        self.dismiss(Status::aborted(format!("another stream of client {:?} has taken over, from {address}", self.client_id)));
        for stored in &hello.stored_sessions {
            if stored.session == self.session {
                self.acknowledge(stored.sequence);
            }
        }
        self.book.begin_restatement();
        self.expendable.store(false, Ordering::Relaxed);
        self.last_stream += 1;
        let (results, receiver) = mpsc::channel(STREAM_DEPTH);
        self.stream = Some(Stream { number: self.last_stream, results, cursor: self.journal.acknowledged(), half_closed: false });
        tracing::info!(client = self.client_id, %address, version = hello.client_version, session = self.session, orders = self.book.standing(),
            unacknowledged = self.journal.usage().records, "client connected");
        self.hello = Hello { stored_sessions: Vec::new(), ..hello };
        self.address = address;
        self.presence = Presence { connected: true, since: clock::wall() };
        Ok(Attached { stream: self.last_stream, session: self.session.clone(), results: receiver })
    }

    fn keep(&mut self, ended: Ended) {
        if let Some(order) = ended.order {
            self.book.ended(order);
        }
        if let Some((late, kind)) = ended.started {
            *self.tally.started.entry(kind).or_default() += 1;
            self.tally.lateness.observe(late);
        }
        self.append(ended.record);
        self.finish_half_closed();
    }

    fn append(&mut self, record: ProbeResult) {
        self.tally.account(&record);
        let watched = (self.shared.watchers.receiver_count() > 0).then(|| record.clone());
        let sequence = self.journal.append(record, clock::monotonic());
        if let Some(mut result) = watched {
            (result.sequence, result.sequence_count) = (sequence, 1);
            // An error says that nobody watches any more.
            let _ = self.shared.watchers.send(Watched { client_id: self.client_id.clone(), result }.into());
        }
    }

    /// Whether there is something to send that may be sent.
    fn may_send(&self) -> bool {
        self.stream
            .as_ref()
            .is_some_and(|stream| stream.cursor < self.journal.last() && stream.cursor < self.journal.acknowledged() + WINDOW)
    }

    /// Sends what there is room for.
    fn send(&mut self) {
        while self.may_send() {
            let Some(stream) = self.stream.as_mut() else { return };
            let Ok(room) = stream.results.try_reserve() else { break };
            let Some(record) = self.journal.send_after(stream.cursor) else {
                // Each sequence after the cursor has a record: an unreadable one is a fault of ours, which must not stop the rest.
                tracing::error!(client = self.client_id, sequence = stream.cursor + 1, "a record of the journal can't be read");
                stream.cursor += 1;
                continue;
            };
            stream.cursor = record.sequence;
            self.tally.sent_results += 1;
            self.tally.sent_bytes += record.encoded_len() as u64;
            room.send(Ok(record));
        }
        self.finish_half_closed();
    }

    /// A stream whose client has nothing more to say ends when all that was under way for it has been sent.
    fn finish_half_closed(&mut self) {
        let all_sent = |stream: &Stream| stream.cursor == self.journal.last() || stream.cursor >= self.journal.acknowledged() + WINDOW;
        if self.runs.is_empty() && self.stream.as_ref().is_some_and(|stream| stream.half_closed && all_sent(stream)) {
            self.leave("the client closed its stream");
        }
    }

    /// Ends the stream with a status, if there is one.
    fn dismiss(&mut self, status: Status) {
        let Some(stream) = self.stream.take() else { return };
        self.note_away(status.message());
        tokio::spawn(async move {
            // A peer that takes nothing any more will find out by its keepalive.
            let _ = tokio::time::timeout(LAST_WORD, stream.results.send(Err(status))).await;
        });
    }

    /// Ends the stream with OK, if there is one.
    fn leave(&mut self, why: &str) {
        if self.stream.take().is_some() {
            self.note_away(why);
        }
    }

    fn note_away(&mut self, why: &str) {
        let now = Now::read();
        self.presence = Presence { connected: false, since: now.wall };
        self.away_since = now.monotonic;
        tracing::info!(client = self.client_id, orders = self.book.standing(), why, "client away");
    }

    /// Looks after bounds of age. True: nothing is left of the client, or it stayed away too long.
    fn tidy(&mut self) -> bool {
        let now = clock::monotonic();
        self.tally.journal_dropped_runs += self.journal.expire(now);
        if self.stream.is_some() {
            return false;
        }
        let has_nothing_to_do = self.book.standing() == 0 && self.runs.is_empty();
        self.expendable.store(has_nothing_to_do && self.journal.sent() == self.journal.last(), Ordering::Relaxed);
        let away = now.saturating_duration_since(self.away_since);
        if away > self.shared.settings.client_expiry {
            tracing::warn!(
                client = self.client_id,
                orders = self.book.clear(),
                results = self.journal.usage().records,
                "client forgotten with all that is its: it stayed away longer than client_expiry"
            );
            return true;
        }
        has_nothing_to_do && self.journal.usage().records == 0 && away > IDLE_EXPIRY
    }

    /// Another client needs the place.
    fn part(self) -> Tally {
        tracing::warn!(
            client = self.client_id,
            results = self.journal.usage().records,
            "client forgotten to make room for another: it is away, without orders, and was sent all these results"
        );
        self.tally
    }

    /// The monitor is stopping: no run starts, what is in flight is delivered, the stream ends with OK.
    async fn stop(mut self) -> Tally {
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        let mut aborted = false;
        let mut linger = None;
        loop {
            let sent = self.stream.as_ref().is_none_or(|stream| stream.cursor == self.journal.last());
            if self.runs.is_empty() && sent {
                let acknowledged = self.journal.acknowledged() == self.journal.last();
                let nobody = self.stream.as_ref().is_none_or(|stream| stream.half_closed);
                if acknowledged || nobody || linger.is_some_and(|until| clock::monotonic() >= until) {
                    break;
                }
                linger.get_or_insert_with(|| clock::monotonic() + ACK_LINGER);
            }
            let woken = tokio::select! {
                woken = self.wake(&mut housekeeping) => woken,
                () = at(linger), if linger.is_some() => Woken::Housekeeping,
            };
            match woken {
                Woken::Command(Some(command)) => self.obey(command),
                Woken::Ended(ended) => self.keep(*ended),
                Woken::Room => self.send(),
                Woken::StreamGone => self.leave("the stream was lost"),
                Woken::End if aborted => break,
                Woken::End => {
                    self.runs.abort();
                    while !self.runs.is_empty() {
                        let ended = self.runs.next().await;
                        self.keep(ended);
                    }
                    self.send();
                    aborted = true;
                }
                Woken::Command(None) | Woken::Due | Woken::Drain | Woken::Housekeeping => {}
            }
        }
        self.abandon()
    }

    /// The session ends here. What was not taken is lost with a journal in memory: it is said.
    fn abandon(mut self) -> Tally {
        let lost = self.journal.usage().records;
        if lost > 0 {
            tracing::warn!(
                client = self.client_id,
                session = self.session,
                results = lost,
                "stopped with results that were not acknowledged"
            );
        }
        self.leave("the monitor stops");
        self.tally
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Waits for room in the stream. False: it is gone.
async fn room(results: Option<&mpsc::Sender<Result<ProbeResult, Status>>>) -> bool {
    match results {
        Some(results) => results.reserve().await.is_ok(),
        None => std::future::pending().await,
    }
}

async fn gone(results: Option<&mpsc::Sender<Result<ProbeResult, Status>>>) {
    match results {
        Some(results) => results.closed().await,
        None => std::future::pending().await,
    }
}

/// A name that no other session ever had: 64 random bits.
fn session_name() -> String {
    let mut bytes = [0_u8; 8];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        // Without randomness the clock tells the lives of a journal apart.
        let nanos = clock::wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        bytes = u64::try_from(nanos & u128::from(u64::MAX)).unwrap_or_default().to_be_bytes();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
