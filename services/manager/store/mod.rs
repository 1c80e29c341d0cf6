//! Where results are kept.
//!
//! [`Store`] is what the desk asks of any store; [`SqliteStore`] keeps it in one file, or in memory, where it ends with the process.
//!
//! `schema` tells what is kept. `writer` writes it, on a thread of its own (`keeper`); of that, `sessions` knows what is stored already, `ledger`
//! which orders there were, and `retention` what has to go. `read` is for those who only look, `tails` for what
//! pages ask for all the time.

use std::{
    fmt::Debug,
    sync::Arc,
    time::{Duration, SystemTime},
};

use vantage_contract::v1::{ProbeResult, Start, StoredSession};

mod keeper;
mod ledger;
pub(crate) mod read;
mod retention;
pub(crate) mod row;
pub(crate) mod schema;
mod sessions;
mod sqlite;
mod tails;
mod writer;

#[cfg(test)]
mod tests;

pub use retention::Keep;
pub use sqlite::{Settings, SqliteStore};

/// Keeps results, each once, named by (monitor, session, sequence).
///
/// The calls may block on a disk: the desk makes them on threads where that harms nobody, all but [`Store::usage`].
pub trait Store: Debug + Send + Sync {
    /// Stores a batch, in its order, as durably as this store can; all of it or, with an error, none of it. Results that are stored
    /// already are left out and counted.
    fn append(&self, batch: Vec<ProbeResult>) -> Result<Appended, StoreError>;

    /// How far the sessions of a monitor are stored, by the name the monitor gives itself; the ones used last, at most a hundred.
    fn stored_sessions(&self, monitor: &str) -> Result<Vec<StoredSession>, StoreError>;

    /// Says that exactly these orders are about to stand on a monitor (by the name it gives itself), because a stream to it was opened and
    /// they are going to be restated. Orders of this manager that stood there in another revision, or are not among these, end here. `closed`
    /// are the sessions that the monitor says are still to come, with their last sequences. Returns how each order stands, in their order.
    ///
    /// What is written here is what the account of runs is computed from: it is durable before it returns.
    fn restate(&self, monitor: &str, orders: &[Order], closed: &[StoredSession], now: SystemTime) -> Result<Vec<Standing>, StoreError>;

    /// Says that these orders are about to be placed on a monitor, and those of the names in `stops` to be stopped, while its stream is open;
    /// all others stay. Returns how each of `starts` stands, in their order.
    fn change(&self, monitor: &str, starts: &[Order], stops: &[String], now: SystemTime) -> Result<Vec<Standing>, StoreError>;

    /// The newest results that `query` selects, newest first: by when they were due, and those due together by arrival.
    fn recent(&self, query: &Query) -> Result<Vec<Arc<ProbeResult>>, StoreError>;

    /// How full it is. Answers at once, from memory.
    fn usage(&self) -> Usage;
}

/// An order, as the store has to know it.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// What is said to the monitor, without anchor.
    pub start: Start,
    /// How long one of its runs may take: until then it may be without a record.
    pub timeout: Duration,
}

/// How an order stands on a monitor. One that is stopped, or comes in another revision, begins a new life, of which nothing is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// When its run 0 was due, as its records tell. None: there is no record yet.
    pub anchor: Option<SystemTime>,
    /// The first run after the last one that has a record. None: there is no record yet.
    pub next_run: Option<u64>,
    /// How many of its runs have a record.
    pub accounted_count: u64,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub struct Appended {
    /// Those that were new, in their order.
    pub new: Vec<Arc<ProbeResult>>,
    /// How many were stored already.
    pub duplicate_count: u64,
    /// Records without a place in any session (sequence 0, no session, no monitor). They are not stored: they could not be told
    /// from one another.
    pub misnumbered_count: u64,
    /// Holes before a record of `new`.
    pub gaps: Vec<Gap>,
}

/// A hole in the sequences of a session: the contract says that there is none, so a monitor or its disk lost something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The monitor.
    pub monitor: String,
    /// The session.
    pub session: String,
    /// The last sequence stored before the hole.
    pub after: u64,
    /// How many sequences are missing.
    pub missing_count: u64,
}

/// Which results to show.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Only those of this check. Default: all.
    pub check: Option<String>,
    /// Only those of this monitor. Default: all.
    pub monitor: Option<String>,
    /// The most results to return.
    pub limit: usize,
}

/// How full a store is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Results that can be read back.
    pub result_count: u64,
    /// What the database takes up, with its indexes and without what is free in it, as of the last commit.
    pub bytes: u64,
    /// What it may take up; then the oldest results make room.
    pub limit_bytes: u64,
    /// Results that were removed because they were too old, or had to make room, since the process started.
    pub evicted_count: u64,
    /// Sessions of which it is known how far they are stored.
    pub session_count: u64,
    /// Sessions without results that were forgotten because their monitor had too many, since the process started.
    pub forgotten_session_count: u64,
}

/// A store could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The disk, the file, or what is in it.
    #[error("{act}: {cause}")]
    Failed {
        /// What was being done: "append 50 results".
        act: String,
        /// Why it failed.
        cause: String,
    },
    /// The process is stopping, or the thread that did the work broke.
    #[error("{0}: the store's thread ended")]
    Interrupted(&'static str),
}
