//! The store on SQLite: one file, or memory.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Sender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::SystemTime,
};

use rusqlite::Connection;
use vantage_contract::v1::{ProbeResult, StoredSession};
use vantage_daemon::{
    clock,
    data::Folder,
    exit::{Exit, Fatal},
    sqlite::{self, OpenError, Sync},
};

use super::{
    Appended, Keep, Order, Query, Standing, Store, StoreError, Usage,
    keeper::{Job, Keeper, Reply, failed},
    ledger::Statement,
    read, retention,
    schema::{FILE, SCHEMA},
    sessions::Sessions,
    tails::{self, Tails},
    writer::Writer,
};

/// The write-ahead log is written into the file when it has grown to this many pages of 4 KiB: seldom enough not to be felt.
const CHECKPOINT_PAGES: i64 = 4096;
/// What the connection that writes keeps of the file in memory, in KiB.
const CACHE_KIBIBYTES: i64 = 16_384;

/// What a store is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What monitors know this manager by: orders of others that are found in the ledger end when the store is opened.
    pub client_id: String,
    /// For how long results are kept.
    pub keep: Keep,
    /// The wall clock.
    pub clock: fn() -> SystemTime,
}

impl Settings {
    /// The defaults, for a client.
    pub fn new(client_id: impl Into<String>) -> Self {
        Self { client_id: client_id.into(), keep: Keep::default(), clock: clock::wall }
    }
}

/// Keeps results and the ledger of orders in a database.
///
/// One thread writes. What waits for it is committed together, and a call returns only when the disk has it (`synchronous` is FULL), so that
/// what is acknowledged survives a power loss. Reading has a connection of its own and holds up nobody. In memory, where nothing outlives the
/// process, both share one.
pub struct SqliteStore {
    /// Taken when the store ends.
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// The connection to read by; none in memory.
    reader: Option<Mutex<Connection>>,
    usage: Arc<Mutex<Usage>>,
    tails: Arc<Mutex<Tails>>,
    /// Held for as long as the file is open.
    _folder: Option<Folder>,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("usage", &self.usage).finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens the store in a folder, or makes it; none: one in memory, which takes up at most [`Keep::MEMORY_BYTES`]. A damaged file is set
    /// aside and named in the log.
    pub fn open(folder: Option<Folder>, settings: Settings) -> Result<Self, Fatal> {
        let file = folder.as_ref().map(|folder| folder.path().join(FILE));
        Self::begin(file, folder, settings).map_err(|error| match error {
            OpenError::Refused { .. } => Fatal::new(Exit::OsError, format!("{error}; give another folder by --data DIR, or --data memory")),
            OpenError::Foreign { .. } => Fatal::new(Exit::Config, format!("{error}: move it away, or give another folder by --data DIR")),
        })
    }

    /// An empty store in memory, with the defaults.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        Self::begin(None, None, Settings::new("test")).unwrap()
    }

    pub(super) fn begin(file: Option<PathBuf>, folder: Option<Folder>, mut settings: Settings) -> Result<Self, OpenError> {
        let now = (settings.clock)();
        let opened = sqlite::open(file.as_deref(), SCHEMA, Sync::Full, now)?;
        if let (Some(file), Some(aside)) = (&file, &opened.set_aside) {
            let (file, aside) = (file.display(), aside.display());
            tracing::error!(%file, %aside, "the store was damaged: it was set aside, and an empty one begun");
        }
        let path = file.clone().unwrap_or_else(|| ":memory:".into());
        let refused = |error: rusqlite::Error| OpenError::Refused { path: path.clone(), cause: error.to_string() };
        let db = opened.connection;
        db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES).map_err(refused)?;
        db.pragma_update(None, "cache_size", -CACHE_KIBIBYTES).map_err(refused)?;
        if file.is_none() {
            settings.keep.bytes = settings.keep.bytes.min(Keep::MEMORY_BYTES);
        }
        let usage = Arc::new(Mutex::new(usage(&db, settings.keep).map_err(refused)?));
        let tails = Arc::new(Mutex::new(Tails::scan(&db).map_err(refused)?));
        let mut writer = Writer::new(db, settings.client_id);
        let ended = writer.take_over(super::row::nanos(now)).map_err(refused)?;
        if ended > 0 {
            tracing::warn!(orders = ended, "the store was used under another client id, whose orders are taken for ended");
        }
        let reader = file.as_deref().map(|file: &Path| sqlite::open_to_read(file, SCHEMA)).transpose()?.map(Mutex::new);
        let (jobs, waiting) = mpsc::channel();
        let keeper = Keeper::new(writer, settings.keep, settings.clock, Arc::clone(&usage), Arc::clone(&tails));
        let thread = thread::Builder::new().name("store".into()).spawn(move || keeper.serve(&waiting));
        let thread = thread.map_err(|error| OpenError::Refused { path, cause: format!("start its thread: {error}") })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), reader, usage, tails, _folder: folder })
    }

    /// Does something on the connection that writes.
    #[cfg(test)]
    pub(super) fn on_writer<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.ask("act", |reply| Job::Read(Box::new(move |db| drop(reply.send(act(db).map_err(|error| failed("act", &error)))))))
    }

    /// Asks the thread that writes, and waits for its answer.
    fn ask<T>(&self, act: &'static str, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, StoreError> {
        let (reply, answer) = sync_channel(1);
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job(reply)).is_ok());
        if !sent {
            return Err(StoreError::Interrupted(act));
        }
        answer.recv().unwrap_or(Err(StoreError::Interrupted(act)))
    }

    fn read<T: Send + 'static>(
        &self,
        act: &'static str,
        look: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        match &self.reader {
            Some(reader) => {
                let reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
                look(&reader).map_err(|error| failed(act, &error))
            }
            None => self.ask(act, |reply| {
                Job::Read(Box::new(move |db| {
                    // Who asked may have left.
                    let _ = reply.send(look(db).map_err(|error| failed(act, &error)));
                }))
            }),
        }
    }

    fn tails(&self) -> MutexGuard<'_, Tails> {
        self.tails.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self, statement: Statement, closed: Option<Vec<StoredSession>>, now: SystemTime) -> Result<Vec<Standing>, StoreError> {
        self.ask("enter orders", |reply| Job::State { statement, closed, now, reply })
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        drop(self.jobs.take());
        // Whoever opens the folder next finds the file closed.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn usage(db: &Connection, keep: Keep) -> rusqlite::Result<Usage> {
    let count = |query: &str| db.query_row(query, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs);
    Ok(Usage {
        result_count: count("SELECT value FROM meta WHERE name = 'result_count'")?,
        bytes: retention::bytes(db)?,
        limit_bytes: keep.bytes,
        session_count: count("SELECT count(*) FROM session")?,
        ..Usage::default()
    })
}

impl Store for SqliteStore {
    fn append(&self, batch: Vec<ProbeResult>) -> Result<Appended, StoreError> {
        self.ask("append results", |reply| Job::Append(batch, reply))
    }

    fn stored_sessions(&self, monitor: &str) -> Result<Vec<StoredSession>, StoreError> {
        let monitor = monitor.to_owned();
        self.read("read the sessions", move |db| Sessions::of(db, &monitor))
    }

    fn restate(&self, monitor: &str, orders: &[Order], closed: &[StoredSession], now: SystemTime) -> Result<Vec<Standing>, StoreError> {
        let statement = Statement { monitor: monitor.to_owned(), orders: orders.to_vec(), stops: None };
        self.state(statement, Some(closed.to_vec()), now)
    }

    fn change(&self, monitor: &str, starts: &[Order], stops: &[String], now: SystemTime) -> Result<Vec<Standing>, StoreError> {
        let statement = Statement { monitor: monitor.to_owned(), orders: starts.to_vec(), stops: Some(stops.to_vec()) };
        self.state(statement, None, now)
    }

    fn recent(&self, query: &Query) -> Result<Vec<Arc<ProbeResult>>, StoreError> {
        let selection = read::Selection { check: query.check.clone(), monitor: query.monitor.clone(), ..read::Selection::default() };
        let limit = query.limit;
        let results = match (&query.check, &query.monitor) {
            (Some(check), Some(monitor)) if limit <= tails::LENGTH => {
                let ids = self.tails().newest(check, monitor, limit);
                match ids {
                    Some(ids) => self.read("read results", move |db| read::by_ids(db, &ids))?,
                    None => {
                        let look = move |db: &Connection| read::Page::new(&selection).next_with_places(db, tails::LENGTH);
                        let (places, results): (Vec<_>, Vec<_>) = self.read("read results", look)?.into_iter().unzip();
                        self.tails().found(check, monitor, places);
                        results
                    }
                }
            }
            _ => self.read("read results", move |db| read::Page::new(&selection).next(db, limit))?,
        };
        Ok(results.into_iter().take(limit).map(Arc::new).collect())
    }

    fn usage(&self) -> Usage {
        *self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
