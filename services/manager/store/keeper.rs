//! The thread that writes: it commits together what waits together.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender},
    },
    time::{Duration, SystemTime},
};

use rusqlite::{Connection, Error};
use vantage_contract::v1::{ProbeResult, StoredSession};
use vantage_daemon::sqlite;

use super::{
    Appended, Keep, Standing, StoreError, Usage,
    ledger::Statement,
    retention::{self, Trimmed},
    row,
    tails::Tails,
    writer::{Outline, Writer},
};

/// How many results are committed together at most, roughly.
const GROUP: usize = 8192;
/// How often it is looked for what has become too old, while nothing else is to do.
const TEND_INTERVAL: Duration = Duration::from_secs(5);
/// How often, in nanoseconds, what is left over of removed results is removed too.
const TIDY_INTERVAL: i64 = 60_000_000_000;

/// Where the answer goes. Who asked may have left.
pub(super) type Reply<T> = SyncSender<Result<T, StoreError>>;

/// What the thread is asked to do.
pub(super) enum Job {
    Append(Vec<ProbeResult>, Reply<Appended>),
    State { statement: Statement, closed: Option<Vec<StoredSession>>, now: SystemTime, reply: Reply<Vec<Standing>> },
    Read(Box<dyn FnOnce(&Connection) + Send>),
}

/// What was done of a job, before it is committed.
enum Done {
    Appended(Outline),
    Stated(Vec<Standing>),
}

/// The thread's side of the store.
pub(super) struct Keeper {
    pub(super) writer: Writer,
    pub(super) keep: Keep,
    pub(super) clock: fn() -> SystemTime,
    pub(super) usage: Arc<Mutex<Usage>>,
    pub(super) tails: Arc<Mutex<Tails>>,
    tidied: i64,
    told: String,
}

impl Keeper {
    pub(super) fn new(writer: Writer, keep: Keep, clock: fn() -> SystemTime, usage: Arc<Mutex<Usage>>, tails: Arc<Mutex<Tails>>) -> Self {
        Self { writer, keep, clock, usage, tails, tidied: i64::MIN, told: String::new() }
    }

    /// Serves until nobody can ask any more.
    pub(super) fn serve(mut self, jobs: &Receiver<Job>) {
        let mut is_more = false;
        loop {
            match jobs.recv_timeout(if is_more { Duration::ZERO } else { TEND_INTERVAL }) {
                Ok(first) => self.work(gather(first, jobs)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            is_more = self.tend();
        }
    }

    /// Does what has come, in its order; what writes, in one commit.
    fn work(&mut self, jobs: Vec<Job>) {
        let mut waiting = Vec::new();
        for job in jobs {
            match job {
                Job::Read(read) => read(&self.writer.db),
                job => waiting.push(job),
            }
        }
        if waiting.is_empty() {
            return;
        }
        let done = self.attempt(&mut waiting);
        match done {
            Err(_) if waiting.len() > 1 => {
                // One may be at fault; the others need not share its fate.
                for job in waiting {
                    let mut alone = [job];
                    let done = self.attempt(&mut alone);
                    let [job] = alone;
                    conclude(job, done.map(|mut done| done.pop()));
                }
            }
            Ok(done) => waiting.into_iter().zip(done).for_each(|(job, done)| conclude(job, Ok(Some(done)))),
            Err(error) => drop(waiting.pop().map(|job| conclude(job, Err(error)))),
        }
    }

    fn attempt(&mut self, jobs: &mut [Job]) -> Result<Vec<Done>, Error> {
        let arrived = row::nanos((self.clock)());
        let done = self.writer.commit(|writer| {
            let act = |job: &mut Job| match job {
                Job::Append(batch, _) => writer.append(batch, arrived).map(Done::Appended),
                Job::State { statement, closed, now, .. } => writer.state(statement, closed.as_deref(), row::nanos(*now)).map(Done::Stated),
                Job::Read(_) => Ok(Done::Stated(Vec::new())),
            };
            jobs.iter_mut().map(act).collect::<Result<Vec<_>, _>>()
        });
        // It can't be mended while it is open: the next start sets it aside.
        let done = done.inspect_err(|error| _ = sqlite::mark_if_damaged(&self.writer.db, error))?;
        let count: u64 = done.iter().map(|done| if let Done::Appended(outline) = done { outline.count() } else { 0 }).sum();
        self.note(count, Trimmed::default());
        let mut tails = self.tails.lock().unwrap_or_else(PoisonError::into_inner);
        for (job, done) in jobs.iter().zip(&done) {
            if let (Job::Append(batch, _), Done::Appended(outline)) = (job, done) {
                outline.new_of(batch).for_each(|(result, place)| tails.note(&result.check_name, &result.monitor, place));
            }
        }
        drop(tails);
        Ok(done)
    }

    /// Removes some of what has to go. True: there is more.
    fn tend(&mut self) -> bool {
        let now = row::nanos((self.clock)());
        let tidy = now.saturating_sub(self.tidied) >= TIDY_INTERVAL;
        match retention::trim(&mut self.writer, self.keep, tidy, now) {
            Ok(trimmed) => {
                if trimmed.results > 0 {
                    self.tidied = if tidy { now } else { self.tidied };
                    self.note(0, trimmed);
                }
                self.told.clear();
                trimmed.is_more
            }
            Err(error) => {
                let error = error.to_string();
                if error != self.told {
                    tracing::error!(error, "old results can't be removed from the store");
                    self.told = error;
                }
                false
            }
        }
    }

    fn note(&self, added: u64, trimmed: Trimmed) {
        let sessions = self.writer.db.prepare_cached("SELECT count(*) FROM session");
        let sessions = sessions.and_then(|mut query| query.query_row([], |row| row.get::<_, i64>(0)));
        let mut usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        usage.result_count = (usage.result_count + added).saturating_sub(trimmed.results);
        usage.evicted_count += trimmed.results;
        usage.forgotten_session_count += trimmed.sessions;
        usage.bytes = retention::bytes(&self.writer.db).unwrap_or(usage.bytes);
        usage.session_count = sessions.map_or(usage.session_count, i64::unsigned_abs);
    }
}

fn gather(first: Job, jobs: &Receiver<Job>) -> Vec<Job> {
    let size = |job: &Job| if let Job::Append(batch, _) = job { batch.len() } else { 1 };
    let mut results = size(&first);
    let mut group = vec![first];
    while results < GROUP
        && let Ok(job) = jobs.try_recv()
    {
        results += size(&job);
        group.push(job);
    }
    group
}

fn conclude(job: Job, done: Result<Option<Done>, Error>) {
    let interrupted = || StoreError::Interrupted("write to the store");
    // Who asked may have left.
    let _ = match (job, done) {
        (Job::Append(batch, reply), Ok(Some(Done::Appended(outline)))) => reply.send(Ok(outline.of(batch))).is_ok(),
        (Job::State { reply, .. }, Ok(Some(Done::Stated(standing)))) => reply.send(Ok(standing)).is_ok(),
        (Job::Append(batch, reply), Err(error)) => reply.send(Err(failed(&format!("append {} results", batch.len()), &error))).is_ok(),
        (Job::State { statement, reply, .. }, Err(error)) => {
            reply.send(Err(failed(&format!("enter the orders of {:?}", statement.monitor), &error))).is_ok()
        }
        (Job::Append(_, reply), Ok(_)) => reply.send(Err(interrupted())).is_ok(),
        (Job::State { reply, .. }, Ok(_)) => reply.send(Err(interrupted())).is_ok(),
        (Job::Read(_), _) => true,
    };
}

/// An error of SQLite, said.
pub(super) fn failed(act: &str, error: &Error) -> StoreError {
    let cause = if sqlite::is_full(error) {
        format!("there is no room on the disk ({error})")
    } else if sqlite::is_damage(error) {
        format!("the file is damaged ({error}): restart the manager, which sets it aside")
    } else {
        error.to_string()
    };
    StoreError::Failed { act: act.to_owned(), cause }
}
