//! Where results are kept.
//!
//! [`Store`] is what the desk asks of any store; [`memory`] is the one that forgets with the process.

use std::{fmt::Debug, sync::Arc};

use vantage_contract::v1::{ProbeResult, StoredSession};

pub mod memory;
mod sessions;

/// Keeps results, each once, named by (monitor, session, sequence).
///
/// The calls may block on a disk: the desk makes them on threads where that harms nobody, all but [`Store::usage`].
pub trait Store: Debug + Send + Sync {
    /// Stores a batch, in its order, as durably as this store can; all of it or, with an error, none of it. Results that are stored
    /// already are left out and counted.
    fn append(&self, batch: Vec<ProbeResult>) -> Result<Appended, StoreError>;

    /// How far the sessions of a monitor are stored, by the name the monitor gives itself.
    fn stored_sessions(&self, monitor: &str) -> Result<Vec<StoredSession>, StoreError>;

    /// The newest results that `query` selects, newest first.
    fn recent(&self, query: &Query) -> Result<Vec<Arc<ProbeResult>>, StoreError>;

    /// How full it is. Answers at once, from memory.
    fn usage(&self) -> Usage;
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
    /// What they take up, estimated.
    pub bytes: u64,
    /// What they may take up. 0: no limit but the disk.
    pub limit_bytes: u64,
    /// Results that had to make room since the process started.
    pub evicted_count: u64,
    /// Sessions whose end is known.
    pub session_count: u64,
    /// Sessions forgotten because there were too many, since the process started.
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
