//! The task that owns a session: it gives clock, disk and stream to the [`Core`], which decides.

mod absence;
mod requests;
mod stop;
mod view;

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use prost::Message;
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};
use tonic::Status;
use vantage_contract::v1::{Hello, ProbeResult};

use super::{
    Attached, Command, Presence, Shared, Watched,
    core::Core,
    draining,
    runs::{Ended, Runs},
};
use crate::{
    holdings::Share,
    journal::{Claim, StoredClient, keeper::Answer},
    pacer::Pacer,
    schedule::Now,
    tally::Tally,
};

/// Lots of results on their way into a stream; what does not fit waits in the journal.
const STREAM_DEPTH: usize = 8;
/// What a lot has at most, but for its last result.
const LOT_BYTES: usize = 64 * 1024;
/// Commands on their way; who sends more waits.
const COMMAND_DEPTH: usize = 64;
/// Runs that have ended and are kept at once, before the rest has its turn.
const ENDED_AT_ONCE: usize = 256;
/// How long a session may go on without letting others in between.
const TURN: Duration = Duration::from_micros(500);
/// How often bounds of age are looked after.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How long results of a client that is away wait for others to be written with.
const AWAY_PATIENCE: Duration = Duration::from_millis(200);

/// Begins a session for the client of that id, or goes on with the one that was stored: how to tell it things, and its life, which leaves
/// what it has counted. `expendable` says at all times whether the client could be parted with: it is away, has no orders, and was sent all
/// that there is.
pub(crate) fn spawn(
    client_id: String,
    stored: Option<StoredClient>,
    shared: Shared,
    expendable: Arc<AtomicBool>,
) -> (mpsc::Sender<Command>, impl Future<Output = Tally> + Send + 'static) {
    let (sender, commands) = mpsc::channel(COMMAND_DEPTH);
    let actor = Actor::new(client_id, stored, shared, commands, expendable);
    (sender, actor.run())
}

struct Stream {
    number: u64,
    results: mpsc::Sender<Result<Vec<Bytes>, Status>>,
    /// The client has nothing more to say.
    half_closed: bool,
}

struct Actor {
    client_id: Arc<str>,
    hello: Hello,
    address: String,
    presence: Presence,
    away_since: Instant,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    core: Core,
    answer: mpsc::UnboundedSender<Answer>,
    answers: mpsc::UnboundedReceiver<Answer>,
    runs: Runs,
    stream: Option<Stream>,
    last_stream: u64,
    expendable: Arc<AtomicBool>,
    share: Share,
    /// Its part of the room of all logs.
    claim: Claim,
    pacer: Arc<Pacer>,
    room: Arc<Semaphore>,
    /// Since when it has gone on without waiting, if it was looked at since.
    turn_began: Option<Instant>,
}

/// What woke the actor.
enum Woken {
    Command(Option<Command>),
    Ended(Box<Ended>),
    Answer(Option<Answer>),
    Due,
    Room,
    StreamGone,
    Drain,
    End,
    Housekeeping,
}

impl Actor {
    fn new(
        client_id: String,
        stored: Option<StoredClient>,
        mut shared: Shared,
        commands: mpsc::Receiver<Command>,
        expendable: Arc<AtomicBool>,
    ) -> Self {
        shared.world.gate = Arc::new(shared.policy.for_client());
        shared.admission = shared.admission.for_client();
        let now = Now::read();
        let (name, bounds) = (&shared.settings.name, shared.settings.bounds());
        let (mut hello, mut address) = (Hello { client_id: client_id.clone(), ..Hello::default() }, String::new());
        let core = match stored {
            None => Core::new(name, bounds, now),
            Some(stored) => {
                hello.client_name.clone_from(&stored.name);
                hello.client_version.clone_from(&stored.version);
                address.clone_from(&stored.address);
                Core::resume(stored, name, bounds, now)
            }
        };
        let share = shared.holdings.share();
        for order in core.book.all() {
            order.facts.count(share.hold_anyhow(order.facts.weight(&order.start)));
        }
        let claim = shared.common.claim();
        let pacer = Arc::new(shared.settings.limits.pacer());
        let room = Arc::new(super::room(shared.settings.limits.request_bytes));
        let (answer, answers) = mpsc::unbounded_channel();
        Self {
            client_id: client_id.into(),
            hello,
            address,
            presence: Presence { connected: false, since: now.wall },
            away_since: now.monotonic,
            shared: Arc::new(shared),
            commands,
            core,
            answer,
            answers,
            runs: Runs::new(),
            stream: None,
            last_stream: 0,
            expendable,
            share,
            claim,
            pacer,
            room,
            turn_began: None,
        }
    }

    async fn run(mut self) -> Tally {
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if self.shared.drain.is_cancelled() {
                return self.stop().await;
            }
            let now = self.start_due();
            self.flush();
            // Sessions share their thread: who has much to do lets others in between.
            if self.is_over(now) {
                tokio::task::yield_now().await;
                self.turn_began = None;
            }
            let (woken, waited) = noting_waits(self.wake(&mut housekeeping)).await;
            if waited {
                self.turn_began = None;
            }
            match woken {
                Woken::Command(Some(Command::Forget)) => return self.part().await,
                Woken::Command(Some(command)) => self.obey(command),
                Woken::Command(None) | Woken::Drain => return self.stop().await,
                Woken::Ended(ended) => self.keep_all(*ended),
                Woken::Answer(answer) => self.hear(answer),
                Woken::Due => {}
                Woken::Room => self.send(),
                Woken::StreamGone => self.leave("the stream was lost"),
                Woken::End => return self.abandon(),
                Woken::Housekeeping => {
                    if self.tidy() {
                        return self.forget().await;
                    }
                }
            }
        }
    }

    async fn wake(&mut self, housekeeping: &mut tokio::time::Interval) -> Woken {
        let drain = self.shared.drain.clone();
        let draining = drain.is_cancelled();
        let next_due = if draining { None } else { self.core.book.next_due() };
        let results = self.stream.as_ref().map(|stream| stream.results.clone());
        let has_ready = results.is_some() && self.core.has_ready();
        tokio::select! {
            command = self.commands.recv() => Woken::Command(command),
            ended = self.runs.next(), if !self.runs.is_empty() => Woken::Ended(ended.into()),
            answer = self.answers.recv() => Woken::Answer(answer),
            () = at(next_due), if next_due.is_some() => Woken::Due,
            room = room(results.as_ref()), if has_ready => if room { Woken::Room } else { Woken::StreamGone },
            () = gone(results.as_ref()), if results.is_some() => Woken::StreamGone,
            () = drain.cancelled(), if !draining => Woken::Drain,
            () = self.shared.end.cancelled() => Woken::End,
            _ = housekeeping.tick() => Woken::Housekeeping,
        }
    }

    /// Whether this turn has taken long enough.
    fn is_over(&mut self, now: Now) -> bool {
        let began = *self.turn_began.get_or_insert(now.monotonic);
        now.monotonic.saturating_duration_since(began) >= TURN
    }

    fn start_due(&mut self) -> Now {
        self.look();
        let now = Now::read();
        let due = self.core.due(now);
        if !due.is_empty() {
            self.shared.load.begun(due.len(), now.monotonic);
        }
        for ticket in due {
            self.runs.start(ticket, &self.shared);
        }
        self.show();
        now
    }

    /// Has written what there is to write, and read what there is to send.
    fn flush(&mut self) {
        if let Some(changes) = self.core.take_changes() {
            let soon = self.shared.settings.journal.commit_interval;
            let patience = if self.stream.is_some() { soon } else { soon.max(AWAY_PATIENCE) };
            self.shared.keeper.commit(&self.client_id, changes, patience, &self.answer);
        }
        if self.core.is_committing()
            && self.shared.keeper.is_refusing()
            && let Some(acknowledged) = self.core.take_acknowledged()
        {
            self.shared.keeper.free(acknowledged, &self.answer);
        }
        if self.stream.is_some() {
            for (session, after) in self.core.fetches() {
                self.shared.keeper.read(&session, after, &self.answer);
            }
        }
    }

    /// The disk answered.
    fn hear(&mut self, answer: Option<Answer>) {
        match answer {
            Some(Answer::Written(changes, written)) => self.core.written(&changes, &written),
            Some(Answer::Read { session, after, blocks }) => self.core.fetched(&session, after, blocks),
            Some(Answer::Freed { acknowledged, written }) => self.core.freed(acknowledged, written),
            Some(Answer::MadeRoom(written)) => self.core.made_room(&written),
            // The sender is in our own hands.
            None => {}
        }
        self.send();
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Attach { hello, address, reply } => {
                let attached = self.attach(hello, address);
                // Who opened the stream may have gone meanwhile: then it is lost, and shows as such.
                let _ = reply.send(attached);
            }
            Command::Request { stream, request, room: _room } => {
                if self.is_current(stream) {
                    self.core.tally.received_bytes += request.encoded_len() as u64;
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
            Command::Refused { stream, status } => {
                if self.is_current(stream) {
                    self.dismiss(status);
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
        self.core.attach(&hello.stored_sessions);
        self.expendable.store(false, Ordering::Relaxed);
        self.last_stream += 1;
        let (results, receiver) = mpsc::channel(STREAM_DEPTH);
        self.stream = Some(Stream { number: self.last_stream, results, half_closed: false });
        let session = self.core.session().to_owned();
        let closed_sessions = self.core.closed_sessions().map(|(session, last)| (session.to_owned(), last)).collect();
        tracing::info!(client = &*self.client_id, %address, version = hello.client_version, session, orders = self.core.book.standing(),
            unacknowledged = self.core.usage().records, "client connected");
        self.hello = Hello { stored_sessions: Vec::new(), ..hello };
        self.core.note_client(self.hello.clone(), address.clone());
        self.address = address;
        self.presence = Presence { connected: true, since: Now::read().wall };
        Ok(Attached {
            stream: self.last_stream,
            session,
            closed_sessions,
            pacer: Arc::clone(&self.pacer),
            room: Arc::clone(&self.room),
            results: receiver,
        })
    }

    /// Keeps a run that has ended, and those that have ended with it: under load that is most of them, and waiting for each alone costs
    /// more than keeping it.
    fn keep_all(&mut self, first: Ended) {
        let mut now = self.keep(first);
        for _ in 1..ENDED_AT_ONCE {
            if self.is_over(now) {
                break;
            }
            let Some(ended) = self.runs.next_ended() else { break };
            now = self.keep(ended);
        }
    }

    fn keep(&mut self, ended: Ended) -> Now {
        self.look();
        if let Some((late, kind)) = ended.started {
            *self.core.tally.started.entry(kind).or_default() += 1;
            self.core.tally.lateness.observe(late);
        }
        let now = Now::read();
        self.core.ended(ended.order, ended.record, now);
        self.show();
        self.finish_half_closed();
        now
    }

    /// Looks whether anybody watches, before something is appended.
    fn look(&mut self) {
        self.core.watched = self.shared.watchers.receiver_count() > 0;
    }

    /// Shows what was appended to those who watch.
    fn show(&mut self) {
        for encoded in self.core.take_appended() {
            // What was encoded here can be decoded.
            let result = ProbeResult::decode(encoded).unwrap_or_default();
            // An error says that nobody watches any more.
            let _ = self.shared.watchers.send(Watched { client_id: self.client_id.to_string(), result }.into());
        }
    }

    /// Sends what there is room for.
    fn send(&mut self) {
        while self.core.has_ready() {
            let Some(stream) = &self.stream else { break };
            let Ok(room) = stream.results.try_reserve() else { break };
            let (mut lot, mut bytes) = (Vec::new(), 0);
            while bytes < LOT_BYTES
                && let Some(record) = self.core.send()
            {
                bytes += record.bytes.len();
                lot.push(record.bytes);
            }
            if lot.is_empty() {
                break;
            }
            self.core.tally.sent_results += lot.len() as u64;
            self.core.tally.sent_bytes += bytes as u64;
            room.send(Ok(lot));
        }
        self.finish_half_closed();
    }

    /// A stream whose client has nothing more to say ends when all that was under way for it has been sent.
    fn finish_half_closed(&mut self) {
        let is_done = self.runs.is_empty() && self.stream.as_ref().is_some_and(|stream| stream.half_closed);
        if is_done && (self.core.is_sent() || self.core.is_at_limit()) {
            self.leave("the client closed its stream");
        }
    }
}

/// What a future comes to, and whether it had to be waited for.
async fn noting_waits<T>(future: impl Future<Output = T>) -> (T, bool) {
    let (mut future, mut waited) = (pin!(future), false);
    let output = poll_fn(|context| {
        let polled = future.as_mut().poll(context);
        waited |= polled.is_pending();
        polled
    })
    .await;
    (output, waited)
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Waits for room in the stream. False: it is gone.
async fn room(results: Option<&mpsc::Sender<Result<Vec<Bytes>, Status>>>) -> bool {
    match results {
        Some(results) => results.reserve().await.is_ok(),
        None => std::future::pending().await,
    }
}

async fn gone(results: Option<&mpsc::Sender<Result<Vec<Bytes>, Status>>>) {
    match results {
        Some(results) => results.closed().await,
        None => std::future::pending().await,
    }
}
