//! The thread that owns the journal's disk: it commits what all sessions want written in groups, and reads for them what is to be sent.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;
use vantage_daemon::{
    clock,
    exit::{Exit, Fatal},
    readiness::Readiness,
    sqlite,
};

use super::{Changes, Disk, Holding, Written};

/// The most bytes that one commit takes together.
const GROUP_BYTES: u64 = 16 << 20;
/// What is read at once.
const READ_BYTES: usize = 256 * 1024;
/// The first wait after a failure, and the longest.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const MOST_RETRY: Duration = Duration::from_secs(2);
/// How often the file is made smaller, if it can be.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// The condition of readiness that a disk which takes nothing leaves unmet.
const CONDITION: &str = "journal";

/// What the keeper answers. A session has one commit and, for each of its lanes, one read under way at most: so much is in the channel.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The changes are on the disk. What was acknowledged with them is among them.
    Written(Box<Changes>, Written),
    /// What follows `after` in a session.
    Read { session: String, after: u64, blocks: Vec<(u64, Option<Bytes>)> },
    /// What was acknowledged is forgotten, ahead of what else waits to be written; or that did not work either.
    Freed { acknowledged: BTreeMap<String, u64>, written: Option<Written> },
    /// There was no room on the disk: a session's oldest results were dropped for it.
    MadeRoom(Written),
}

enum Op {
    Commit { client_id: Arc<str>, changes: Box<Changes>, patience: Duration, answer: UnboundedSender<Answer> },
    Read { session: String, after: u64, answer: UnboundedSender<Answer> },
    Free { acknowledged: BTreeMap<String, u64>, answer: UnboundedSender<Answer> },
    End,
}

/// How the disk is.
#[derive(Debug, Clone, Default)]
pub struct Condition {
    /// Where it is; empty: in memory.
    pub folder: String,
    /// What the files take up.
    pub file_bytes: u64,
    /// Why it takes nothing just now; empty: it does.
    pub error: String,
    /// Where a damaged file was set aside at the start; empty: it was sound.
    pub set_aside: String,
    /// Commits since the start.
    pub commits: u64,
}

/// The way to the thread. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    ops: Sender<Op>,
    condition: Arc<Mutex<Condition>>,
    thread: Arc<Mutex<Option<thread::JoinHandle<()>>>>,
}

impl Keeper {
    /// Starts the thread. A disk that turns out to be damaged ends it, and `broken` is told why.
    pub(crate) fn start(
        disk: Disk,
        set_aside: Option<String>,
        readiness: Readiness,
        broken: UnboundedSender<Fatal>,
    ) -> Result<Self, Fatal> {
        let folder = disk.folder().map(|folder| folder.display().to_string()).unwrap_or_default();
        let condition =
            Condition { folder, set_aside: set_aside.unwrap_or_default(), file_bytes: disk.file_bytes(), ..Condition::default() };
        let condition = Arc::new(Mutex::new(condition));
        let (ops, todo) = mpsc::channel();
        readiness.met(CONDITION);
        let worker = Worker {
            disk,
            todo,
            condition: Arc::clone(&condition),
            readiness,
            broken,
            waiting: Vec::new(),
            tidy_at: now(),
            clients: HashMap::new(),
        };
        let thread = thread::Builder::new().name("journal".into()).spawn(move || worker.run());
        let thread = thread.map_err(|error| Fatal::new(Exit::OsError, format!("start the journal's thread: {error}")))?;
        Ok(Self { ops, condition, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// Has changes written, within `patience` and together with those of others. The answer comes when they are, however long that takes.
    pub(crate) fn commit(&self, client_id: &Arc<str>, changes: Changes, patience: Duration, answer: &UnboundedSender<Answer>) {
        let client_id = Arc::clone(client_id);
        // Without the thread nothing will ever be written: who waits for that is told by the end of the process.
        let _ = self.ops.send(Op::Commit { client_id, changes: changes.into(), patience, answer: answer.clone() });
    }

    /// Reads what follows a sequence of a session.
    pub(crate) fn read(&self, session: &str, after: u64, answer: &UnboundedSender<Answer>) {
        let _ = self.ops.send(Op::Read { session: session.to_owned(), after, answer: answer.clone() });
    }

    /// Has what was acknowledged forgotten at once: where the disk takes nothing, that may be what gives it room.
    pub(crate) fn free(&self, acknowledged: BTreeMap<String, u64>, answer: &UnboundedSender<Answer>) {
        let _ = self.ops.send(Op::Free { acknowledged, answer: answer.clone() });
    }

    /// Whether the disk takes nothing just now.
    pub(crate) fn is_refusing(&self) -> bool {
        !lock(&self.condition).error.is_empty()
    }

    /// How the disk is.
    pub(crate) fn condition(&self) -> Condition {
        lock(&self.condition).clone()
    }

    /// Ends the thread once all that it was told before is done, and waits for it; so the folder is free when this returns. Blocks.
    pub(crate) fn end(&self) {
        let _ = self.ops.send(Op::End);
        let thread = lock(&self.thread).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the journal's thread broke: a fault in Vantage, please report it");
        }
    }
}

struct Commit {
    client_id: Arc<str>,
    changes: Box<Changes>,
    answer: UnboundedSender<Answer>,
}

struct Worker {
    disk: Disk,
    todo: Receiver<Op>,
    condition: Arc<Mutex<Condition>>,
    readiness: Readiness,
    broken: UnboundedSender<Fatal>,
    /// What came while the disk took nothing.
    waiting: Vec<Commit>,
    /// When the file is looked after next, also where there is always something to do.
    tidy_at: Instant,
    /// Whom to tell that room had to be made.
    clients: HashMap<Arc<str>, UnboundedSender<Answer>>,
}

/// Why the thread ends.
struct Ended;

impl Worker {
    fn run(mut self) {
        while let Ok(ended) = self.group() {
            if ended {
                return;
            }
        }
    }

    /// Waits for something to do, collects what comes with it, and does it. True: it was told to end.
    fn group(&mut self) -> Result<bool, Ended> {
        let mut group: Vec<Commit> = std::mem::take(&mut self.waiting);
        let (mut deadline, mut bytes, mut end) = ((!group.is_empty()).then(now), 0, false);
        while !end && bytes < GROUP_BYTES {
            let op = match deadline {
                None => match self.todo.recv_timeout(HOUSEKEEPING) {
                    Ok(op) => op,
                    Err(RecvTimeoutError::Timeout) => {
                        self.tidy()?;
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => Op::End,
                },
                Some(deadline) => match self.todo.recv_timeout(deadline.saturating_duration_since(now())) {
                    Ok(op) => op,
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => Op::End,
                },
            };
            match op {
                Op::Commit { client_id, changes, patience, answer } => {
                    let until = now() + patience;
                    deadline = Some(deadline.map_or(until, |deadline| deadline.min(until)));
                    bytes += changes.bytes();
                    group.push(Commit { client_id, changes, answer });
                }
                Op::Read { session, after, answer } => self.read(session, after, &answer)?,
                Op::Free { acknowledged, answer } => self.free(acknowledged, &answer)?,
                Op::End => end = true,
            }
        }
        if !group.is_empty() {
            self.commit(group)?;
        }
        if now() >= self.tidy_at {
            self.tidy()?;
        }
        Ok(end)
    }

    fn read(&mut self, session: String, after: u64, answer: &UnboundedSender<Answer>) -> Result<(), Ended> {
        let blocks = match self.disk.read(&session, after, READ_BYTES) {
            Ok(blocks) => blocks,
            Err(error) => {
                self.check(&error)?;
                tracing::error!(session, after, %error, "the journal can't be read");
                Vec::new()
            }
        };
        // Who asked may have gone.
        let _ = answer.send(Answer::Read { session, after, blocks });
        Ok(())
    }

    fn free(&mut self, acknowledged: BTreeMap<String, u64>, answer: &UnboundedSender<Answer>) -> Result<(), Ended> {
        let changes = Changes { acknowledged, ..Changes::default() };
        let written = match self.disk.with_reserve(|disk| disk.apply(&[("", &changes)], wall())) {
            Ok(mut written) => written.pop(),
            Err(error) => {
                self.check(&error)?;
                tracing::warn!(%error, "what is acknowledged can't be forgotten yet");
                None
            }
        };
        let _ = answer.send(Answer::Freed { acknowledged: changes.acknowledged, written });
        Ok(())
    }

    /// Writes a group, as often as it takes. Meanwhile reads are answered, and what else is to be written waits: sessions have one commit
    /// under way each, and bound what they collect in the meantime.
    fn commit(&mut self, group: Vec<Commit>) -> Result<(), Ended> {
        let mut wait = FIRST_RETRY;
        let written = loop {
            let changes: Vec<(&str, &Changes)> = group.iter().map(|commit| (&*commit.client_id, &*commit.changes)).collect();
            let error = match self.disk.apply(&changes, wall()) {
                Ok(written) => break written,
                Err(error) => error,
            };
            self.check(&error)?;
            self.complain(&error);
            group.iter().for_each(|commit| drop(self.clients.insert(Arc::clone(&commit.client_id), commit.answer.clone())));
            if sqlite::is_full(&error) {
                // What was acknowledged meanwhile may have left free pages in the file, and room in the write-ahead log is room on the disk.
                self.disk.checkpoint();
                let bytes = changes.iter().flat_map(|(_, changes)| &changes.blocks).map(|block| block.body.len() as u64).sum();
                if self.disk.has_free_pages_for(bytes)
                    && let Ok(written) = self.disk.with_reserve(|disk| disk.apply(&changes, wall()))
                {
                    break written;
                }
                if self.make_room()? {
                    continue;
                }
            }
            let again = now() + wait;
            wait = (wait * 2).min(MOST_RETRY);
            while let Ok(op) = self.todo.recv_timeout(again.saturating_duration_since(now())) {
                match op {
                    Op::Read { session, after, answer } => self.read(session, after, &answer)?,
                    Op::Free { acknowledged, answer } => self.free(acknowledged, &answer)?,
                    // The process ends with a disk that takes nothing: what is not written can't be kept.
                    Op::End => return Err(Ended),
                    Op::Commit { client_id, changes, answer, .. } => self.waiting.push(Commit { client_id, changes, answer }),
                }
            }
        };
        self.recover();
        for (commit, written) in group.into_iter().zip(written) {
            let _ = commit.answer.send(Answer::Written(commit.changes, written));
        }
        Ok(())
    }
    /// Drops the oldest results that no client was sent, an eighth of the session that has most. False: that frees nothing.
    fn make_room(&mut self) -> Result<bool, Ended> {
        match self.disk.with_reserve(|disk| disk.make_room(wall())) {
            Ok(Some(written)) => {
                for Holding { session, bytes, lost_runs, .. } in &written.lanes {
                    tracing::warn!(session, bytes, runs = lost_runs, "the disk is full: the oldest results made room");
                }
                self.clients.retain(|_, client| client.send(Answer::MadeRoom(written.clone())).is_ok());
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(error) => self.check(&error).map(|()| false),
        }
    }

    /// Gives back what the file does not need, and notes its size.
    fn tidy(&mut self) -> Result<(), Ended> {
        if let Err(error) = self.disk.shrink() {
            self.check(&error)?;
            tracing::debug!(%error, "the journal's file can't be made smaller just now");
        }
        self.disk.keep_reserve();
        lock(&self.condition).file_bytes = self.disk.file_bytes();
        self.tidy_at = now() + HOUSEKEEPING;
        Ok(())
    }

    /// A damaged file can't be gone on with: the process has to begin anew, and then sets it aside.
    fn check(&self, error: &rusqlite::Error) -> Result<(), Ended> {
        if !sqlite::is_damage(error) {
            return Ok(());
        }
        sqlite::mark_if_damaged(self.disk.connection(), error);
        let folder = lock(&self.condition).folder.clone();
        let message = format!("the journal in {folder} is damaged ({error}); the next start sets it aside and begins an empty one");
        let _ = self.broken.send(Fatal::new(Exit::OsError, message));
        Err(Ended)
    }

    fn complain(&mut self, error: &rusqlite::Error) {
        let why = error.to_string();
        let mut condition = lock(&self.condition);
        if condition.error != why {
            tracing::error!(
                error = why,
                folder = condition.folder,
                "the journal's disk takes nothing: results wait in memory, and are not sent"
            );
            self.readiness.unmet(CONDITION, why.clone());
            condition.error = why;
        }
    }

    fn recover(&mut self) {
        let mut condition = lock(&self.condition);
        condition.commits += 1;
        if !condition.error.is_empty() {
            condition.error.clear();
            tracing::info!(folder = condition.folder, "the journal's disk takes results again");
            self.readiness.met(CONDITION);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> Instant {
    clock::monotonic().into_std()
}

fn wall() -> SystemTime {
    clock::wall()
}
