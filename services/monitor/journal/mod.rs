//! The log of results that clients have not acknowledged, and of the orders that make them, on disk.
//!
//! A client's session collects [`Changes`]; the `keeper` commits those of all clients together, a group at a time, on a thread of its own,
//! in the database of `disk`. A `lane` is one session's log as its owner sees it: what is not yet written, what is on the disk, what may
//! be sent. Nothing is sent before it is written: a monitor that is killed must not give the same sequence to something else.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use prost::Message as _;
use vantage_contract::v1::{Hello, ProbeResult, Start};

use crate::ledger::Ledger;

pub(crate) mod accounts;
pub(crate) mod disk;
pub(crate) mod fairness;
pub(crate) mod keeper;
pub(crate) mod lane;
mod load;

pub use disk::{Disk, Holding, Written};
pub(crate) use fairness::{Claim, Common};
pub use keeper::Condition;
pub(crate) use keeper::Keeper;
pub use lane::Lane;
pub(crate) use load::nanos;
pub use load::{StoredClient, StoredLane, StoredOrder};

/// Names an order within its client, for ever: a replaced one has another id.
pub type OrderId = u64;

/// How many sequences of a session may be sent beyond the last one acknowledged.
pub const WINDOW: u64 = 8192;

/// A record in its place.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The first sequence it takes.
    pub first: u64,
    /// The last one, which is its own.
    pub last: u64,
    /// Whose runs it accounts for.
    pub order: OrderId,
    /// The first of them.
    pub run: u64,
    /// How many.
    pub run_count: u64,
    /// The record, encoded: a fifth of its size as a message.
    pub encoded: Bytes,
}

/// A record that may be sent.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// Its sequence.
    pub sequence: u64,
    /// The `ProbeResult`, encoded: as it is written, so it is sent.
    pub bytes: Bytes,
}

/// Records that are written together.
#[derive(Debug, Clone)]
pub struct Block {
    /// The session.
    pub session: String,
    /// The first sequence.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// How many records.
    pub count: u64,
    /// The records, each with its length before it.
    pub body: Bytes,
}

/// What one client's session wants to have written, all or nothing.
#[derive(Debug, Default)]
pub struct Changes {
    /// Who the client is, where that changed; and from where it came.
    pub client: Option<(Hello, String)>,
    /// Sessions to begin.
    pub opened: Vec<String>,
    /// Records.
    pub blocks: Vec<Block>,
    /// Orders that came to stand.
    pub placed: Vec<(OrderId, Placement)>,
    /// Orders that ended with runs still to be accounted for: the first run that they don't have any more.
    pub ended: Vec<(OrderId, u64)>,
    /// What is accounted for, of the orders whose records are in `blocks`.
    pub ledgers: BTreeMap<OrderId, Ledger>,
    /// Orders of which nothing is left to be known.
    pub dropped: Vec<OrderId>,
    /// Sequences acknowledged, by session.
    pub acknowledged: BTreeMap<String, u64>,
    /// Sessions of which nothing is left.
    pub finished: Vec<String>,
    /// Room to be made.
    pub trims: Vec<Trim>,
    /// Nothing of the client is left.
    pub forget: bool,
}

/// An order, as it is kept.
#[derive(Debug, Clone)]
pub struct Placement {
    /// What was placed.
    pub start: Start,
    /// When run 0 is due, in nanoseconds since 1970.
    pub anchor_ns: i64,
    /// The first run it accounts for.
    pub first_run: u64,
    /// One more than the last run; none: for ever.
    pub end: Option<u64>,
}

/// The oldest results of a session become accounts of their runs.
#[derive(Debug, Clone)]
pub struct Trim {
    /// The session.
    pub session: String,
    /// What comes after this sequence may be dropped: it was never sent.
    pub after: u64,
    /// So many bytes have to go.
    pub bytes: u64,
    /// And all up to this sequence.
    pub through: u64,
    /// What was skipped already need not keep its reason: there are too many accounts.
    pub coarse: bool,
}

impl Changes {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        let Self { client, opened, blocks, placed, ended, ledgers, dropped, acknowledged, finished, trims, forget } = self;
        client.is_none()
            && opened.is_empty()
            && blocks.is_empty()
            && placed.is_empty()
            && ended.is_empty()
            && ledgers.is_empty()
            && dropped.is_empty()
            && acknowledged.is_empty()
            && finished.is_empty()
            && trims.is_empty()
            && !forget
    }

    /// About how much there is to write, in bytes: records, and what was placed.
    fn bytes(&self) -> u64 {
        let records = self.blocks.iter().map(|block| block.body.len()).sum::<usize>();
        let placed = self.placed.iter().map(|(_, placement)| placement.start.encoded_len()).sum::<usize>();
        (records + placed) as u64
    }
}

/// The bounds of one client's journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The most bytes of encoded records of all sessions. The accounts of dropped runs, one for each order and gap, come on top: up to as much
    /// again, then nothing new is taken from the client.
    pub bytes: u64,
    /// The longest that a record waits to be sent for the first time.
    pub age: Duration,
    /// The most bytes that wait for the disk.
    pub unwritten_bytes: u64,
}

/// The records of a block's body, each with its bytes. All of each is looked at: what is broken must not be sent.
pub(crate) fn records(mut body: Bytes) -> impl Iterator<Item = Result<(ProbeResult, Bytes), prost::DecodeError>> {
    std::iter::from_fn(move || {
        if body.is_empty() {
            return None;
        }
        let record = next_record(&mut body);
        if record.is_err() {
            body.clear();
        }
        Some(record)
    })
}

fn next_record(body: &mut Bytes) -> Result<(ProbeResult, Bytes), prost::DecodeError> {
    let mut rest = body.clone();
    let length = prost::decode_length_delimiter(&mut rest)?;
    // Fails where one is cut short.
    let record = ProbeResult::decode_length_delimited(&mut *body)?;
    Ok((record, rest.split_to(length)))
}
