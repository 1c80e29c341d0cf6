//! One session's log, as its owner sees it: what is not yet written, what is on the disk, what may be sent. Pure: the disk is somebody else's.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use tokio::time::Instant;
use vantage_contract::v1::ProbeResult;

use super::{Block, Bounds, Encoded, Entry, Holding, OrderId, StoredLane, Trim, WINDOW, accounts::Accounts};
use crate::{record::Record, schedule::Now};

/// What one block holds at most, but for its last record: what is read back at once.
const BLOCK_BYTES: usize = 256 * 1024;
/// What waits in memory to be sent, of what is on the disk already.
const READY_BYTES: usize = 512 * 1024;
/// What is dropped at once beyond what has to be.
const SLACK_BYTES: u64 = 1 << 20;
/// How finely the ages of records are told apart, and those of the newest: of a client that keeps up no others are left.
const MARK_INTERVAL: Duration = Duration::from_secs(10);
const FINE_INTERVAL: Duration = Duration::from_millis(250);
const FINE_MARKS: usize = 40;

/// One session's log.
#[derive(Debug)]
pub struct Lane {
    session: String,
    /// What all records say of it, encoded.
    constant: Bytes,
    bounds: Bounds,
    /// The last sequence given.
    last: u64,
    /// Sequences that the next record takes besides its own.
    gap: u64,
    /// The last sequence that is on the disk.
    written: u64,
    /// The last sequence that may have been sent at any time.
    sent: u64,
    /// The last sequence acknowledged, and the last one of which the disk knows that.
    acknowledged: u64,
    acknowledged_on_disk: u64,
    /// The last sequence put into the present stream.
    cursor: u64,
    /// Records that nobody has begun to write, and their bytes.
    pending: VecDeque<Entry>,
    pending_bytes: u64,
    /// So many make accounts of the oldest.
    compact_at: u64,
    /// Records that are being written, and their bytes.
    writing: Vec<Entry>,
    writing_bytes: u64,
    /// There is a stream to send into.
    attached: bool,
    /// What follows the cursor, and all their bytes.
    ready: VecDeque<Encoded>,
    ready_bytes: usize,
    /// The last sequence in `ready`, or the cursor.
    ready_through: u64,
    /// What is being read from the disk: what follows this sequence.
    fetching: Option<u64>,
    /// A trim is on its way: nothing is read that it may drop.
    trimming: bool,
    /// The last one found nothing to drop, and nothing has come since.
    spent: bool,
    /// What is on the disk.
    on_disk: Holding,
    /// When the records up to some sequences were appended.
    marks: VecDeque<(u64, Instant)>,
    dropped_runs: u64,
}

impl Lane {
    /// An empty log.
    pub fn new(session: String, bounds: Bounds) -> Self {
        Self {
            constant: ProbeResult { session: session.clone(), ..ProbeResult::default() }.encode_to_vec().into(),
            session,
            bounds,
            last: 0,
            gap: 0,
            written: 0,
            sent: 0,
            acknowledged: 0,
            acknowledged_on_disk: 0,
            cursor: 0,
            attached: false,
            pending: VecDeque::new(),
            pending_bytes: 0,
            compact_at: bounds.unwritten_bytes,
            writing: Vec::new(),
            writing_bytes: 0,
            ready: VecDeque::new(),
            ready_bytes: 0,
            ready_through: 0,
            fetching: None,
            trimming: false,
            spent: false,
            on_disk: Holding::default(),
            marks: VecDeque::new(),
            dropped_runs: 0,
        }
    }

    /// The log as it was found on the disk.
    pub fn resume(stored: StoredLane, bounds: Bounds, now: Now) -> Self {
        let StoredLane { session, last, acknowledged, records, bytes, settled, marks, gap, .. } = stored;
        let since = |at: SystemTime| {
            // The one place where a wall clock tells an age: no other clock goes on while the process is away.
            let age = now.wall.duration_since(at).unwrap_or_default();
            now.monotonic.checked_sub(age).unwrap_or(now.monotonic)
        };
        Self {
            last,
            gap,
            written: last,
            // How far the process before this one came is not known; further it was not allowed to go.
            sent: last.min(acknowledged + WINDOW),
            acknowledged,
            acknowledged_on_disk: acknowledged,
            cursor: acknowledged,
            ready_through: acknowledged,
            on_disk: Holding { records, bytes, settled, ..Holding::default() },
            marks: marks.into_iter().map(|(last, at)| (last, since(at))).collect(),
            ..Self::new(session, bounds)
        }
    }

    /// Its name.
    pub fn session(&self) -> &str {
        &self.session
    }

    /// Appends a record. It gets its session and sequence. What it is then, encoded, is returned where it is `watched`.
    pub fn append(&mut self, order: OrderId, mut record: Record, now: Instant, watched: bool) -> Option<Bytes> {
        let first = self.last + 1;
        self.spent = false;
        self.last += 1 + std::mem::take(&mut self.gap);
        (record.said.sequence, record.said.sequence_count) = (self.last, self.last + 1 - first);
        let (run, run_count) = (record.said.run, record.said.run_count.max(1));
        let encoded = record.encode_with(&self.constant);
        let copy = watched.then(|| encoded.clone());
        let entry = Entry { first, last: self.last, order, run, run_count, encoded };
        match self.marks.back_mut() {
            Some((last, at)) if now.saturating_duration_since(*at) < FINE_INTERVAL => *last = self.last,
            _ => {
                self.marks.push_back((self.last, now));
                self.merge_mark();
            }
        }
        self.pending_bytes += entry.encoded.len() as u64;
        self.pending.push_back(entry);
        if self.pending_bytes > self.compact_at {
            self.compact();
        }
        copy
    }

    /// The newest mark that is not to be fine any more joins the one before it.
    fn merge_mark(&mut self) {
        let Some(index) = self.marks.len().checked_sub(FINE_MARKS + 1).filter(|index| *index > 0) else { return };
        if let (Some((_, begun)), Some((last, at))) = (self.marks.get(index - 1).copied(), self.marks.get(index).copied())
            && at.saturating_duration_since(begun) < MARK_INTERVAL
        {
            self.marks.remove(index);
            if let Some(before) = self.marks.get_mut(index - 1) {
                before.0 = last;
            }
        }
    }

    /// The disk is too slow, or takes nothing at all: the oldest that waits becomes accounts, until an eighth is free.
    fn compact(&mut self) {
        let most = self.bounds.unwritten_bytes - self.bounds.unwritten_bytes / 8;
        let mut accounts = Accounts::default();
        while self.pending_bytes > most
            && let Some(entry) = self.pending.pop_front()
        {
            self.pending_bytes -= entry.encoded.len() as u64;
            // What was encoded here can be decoded.
            if let Ok(record) = ProbeResult::decode(&*entry.encoded) {
                accounts.add(entry.order, record);
            }
        }
        self.dropped_runs += accounts.lost_runs();
        let mut account_bytes = 0;
        for (order, record) in accounts.into_records().into_iter().rev() {
            let entry = Entry {
                first: record.sequence + 1 - record.sequence_count,
                last: record.sequence,
                order,
                run: record.run,
                run_count: record.run_count,
                encoded: record.encode_to_vec().into(),
            };
            account_bytes += entry.encoded.len() as u64;
            self.pending.push_front(entry);
        }
        self.pending_bytes += account_bytes;
        // Accounts can't be made smaller: where there are many, it is not tried again for each record.
        self.compact_at = self.bounds.unwritten_bytes.max(account_bytes * 2);
    }

    /// Takes what waits to be written, if nothing is being written: blocks for the disk, and whose runs they account for.
    pub fn hand_over(&mut self) -> (Vec<Block>, Vec<(OrderId, u64, u64)>) {
        let mut blocks = Vec::new();
        if !self.writing.is_empty() || self.pending.is_empty() {
            return (blocks, Vec::new());
        }
        self.writing = std::mem::take(&mut self.pending).into();
        self.writing_bytes = std::mem::take(&mut self.pending_bytes);
        self.compact_at = self.bounds.unwritten_bytes;
        let mut rest = &self.writing[..];
        while let Some(first) = rest.first() {
            let (mut bytes, mut count) = (0, 0);
            while count < rest.len() && bytes < BLOCK_BYTES {
                bytes += rest[count].encoded.len() + 3;
                count += 1;
            }
            let (block, later) = rest.split_at(count);
            let mut body = BytesMut::with_capacity(bytes);
            for entry in block {
                // Writing to memory that grows does not fail.
                let _ = prost::encode_length_delimiter(entry.encoded.len(), &mut body);
                body.put_slice(&entry.encoded);
            }
            let last = block.last().map_or(first.last, |entry| entry.last);
            blocks.push(Block { session: self.session.clone(), first: first.first, last, count: count as u64, body: body.freeze() });
            rest = later;
        }
        (blocks, self.writing.iter().map(|entry| (entry.order, entry.run, entry.run_count)).collect())
    }

    /// What was handed over is on the disk.
    pub fn written(&mut self) {
        self.writing_bytes = 0;
        for entry in std::mem::take(&mut self.writing) {
            // What was just measured need not be read back, as long as the stream keeps up.
            let follows = self.attached && self.ready_through == self.written && !self.trimming && self.fetching.is_none();
            self.written = entry.last;
            if follows && self.ready_bytes < READY_BYTES {
                self.make_ready(Encoded { sequence: entry.last, bytes: entry.encoded });
            }
        }
    }

    fn make_ready(&mut self, record: Encoded) {
        self.ready_bytes += record.bytes.len();
        self.ready_through = record.sequence;
        self.ready.push_back(record);
    }

    /// The disk knows an acknowledgement.
    pub fn acknowledged_on_disk(&mut self, sequence: u64) {
        self.acknowledged_on_disk = self.acknowledged_on_disk.max(sequence);
    }

    /// What is on the disk now.
    pub fn note_usage(&mut self, on_disk: &Holding) {
        self.on_disk = on_disk.clone();
    }

    /// What results take of the disk, in bytes.
    pub fn result_bytes(&self) -> u64 {
        self.on_disk.bytes.saturating_sub(self.on_disk.settled)
    }

    /// What all of it takes of the disk, in bytes.
    pub fn stored_bytes(&self) -> u64 {
        self.on_disk.bytes
    }

    /// What accounts of dropped runs take of the disk, in bytes.
    pub fn settled_bytes(&self) -> u64 {
        // The disk forgets what is acknowledged a little later.
        if self.acknowledged == self.last { 0 } else { self.on_disk.settled }
    }

    /// A trim was done; it cost so many runs their results.
    pub fn trimmed(&mut self, dropped_runs: u64) {
        self.trimming = false;
        self.spent = dropped_runs == 0;
        self.dropped_runs += dropped_runs;
    }

    /// Forgets all up to `sequence`, if that has been sent. False: it has not, and nothing changed.
    pub fn acknowledge(&mut self, sequence: u64) -> bool {
        if sequence > self.sent {
            return false;
        }
        self.acknowledged = self.acknowledged.max(sequence);
        if self.cursor < self.acknowledged {
            // It was sent in an earlier stream.
            self.cursor = self.acknowledged;
            self.ready_through = self.ready_through.max(self.cursor);
            while let Some(record) = self.ready.pop_front_if(|record| record.sequence <= self.cursor) {
                self.ready_bytes -= record.bytes.len();
            }
        }
        while self.marks.front().is_some_and(|(last, _)| *last <= self.acknowledged) {
            self.marks.pop_front();
        }
        true
    }

    /// Begins to send from the first that is not acknowledged, or ceases to send.
    pub fn rewind(&mut self, attached: bool) {
        self.attached = attached;
        self.cursor = self.acknowledged;
        self.ready_through = self.cursor;
        self.ready = VecDeque::new();
        self.ready_bytes = 0;
    }

    /// What should be read from the disk: what follows this sequence. To be answered with [`fetched`](Self::fetched).
    pub fn fetch(&mut self) -> Option<u64> {
        let wanted = self.attached && self.ready.is_empty() && self.fetching.is_none() && !self.trimming && self.may_send();
        wanted.then(|| *self.fetching.insert(self.cursor))
    }

    /// What was read from the disk: blocks, each with its last sequence; the first may begin before what was asked for. One without a body can't
    /// be read any more: what was in it is lost, and passed over.
    pub fn fetched(&mut self, after: u64, blocks: Vec<(u64, Option<Bytes>)>) {
        if self.fetching != Some(after) {
            return;
        }
        self.fetching = None;
        if self.cursor != after || !self.ready.is_empty() {
            return;
        }
        for (last, body) in blocks {
            let records: Option<Vec<(ProbeResult, Bytes)>> = body.and_then(|body| super::records(body).collect::<Result<_, _>>().ok());
            let asked: Vec<_> = records.into_iter().flatten().filter(|(record, _)| record.sequence > after).collect();
            if !asked.is_empty() {
                asked.into_iter().for_each(|(ProbeResult { sequence, .. }, bytes)| self.make_ready(Encoded { sequence, bytes }));
            } else if self.ready.is_empty() {
                tracing::error!(session = self.session, after = self.cursor, last, "results of the journal are lost: it was damaged");
                (self.cursor, self.ready_through) = (last, last);
            } else {
                // It will be the first one the next time.
                return;
            }
        }
    }

    /// Whether there is something to send that may be sent.
    pub fn may_send(&self) -> bool {
        self.cursor < self.written && self.cursor < self.acknowledged_on_disk + WINDOW
    }

    /// Whether the next record to send is at hand.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty() && self.may_send()
    }

    /// The next record to send.
    pub fn send(&mut self) -> Option<Encoded> {
        if !self.may_send() {
            return None;
        }
        let record = self.ready.pop_front()?;
        self.ready_bytes -= record.bytes.len();
        self.cursor = record.sequence;
        self.sent = self.sent.max(self.cursor);
        Some(record)
    }

    /// Whether something is being dropped, or read: then it is not known yet what there is to drop.
    pub fn is_busy(&self) -> bool {
        self.trimming || self.fetching.is_some()
    }

    /// What has to be dropped at `now`: what is too old, and of the `excess` bytes that the client has beyond its bound, `most`, as much as there
    /// is. It is not looked for again until [`trimmed`](Self::trimmed).
    pub fn trim(&mut self, now: Instant, excess: u64, most: u64) -> Option<Trim> {
        if self.trimming || self.fetching.is_some() {
            return None;
        }
        let bytes = if self.spent { 0 } else { excess.min(self.result_bytes()) };
        // Room for some more at once: accounts merge better, and it is done less often. Not for much: others wait for the disk meanwhile.
        let bytes = if bytes > 0 { bytes + (most / 16).min(SLACK_BYTES) } else { 0 };
        let is_old = |(_, at): &&(u64, Instant)| now.saturating_duration_since(*at) > self.bounds.age;
        let through = self.marks.iter().take_while(is_old).last().map_or(0, |(last, _)| *last);
        let after = self.sent.max(self.ready_through);
        if (bytes == 0 && through <= after) || self.written <= after {
            return None;
        }
        // What is dropped has no age any more; what was sent keeps its own.
        self.marks.retain(|(last, _)| *last <= after || *last > through);
        self.trimming = true;
        let coarse = self.on_disk.settled > most / 4;
        Some(Trim { session: self.session.clone(), after, bytes, through, coarse })
    }

    /// How many runs were dropped by the bounds since it was last asked.
    pub fn take_dropped_runs(&mut self) -> u64 {
        std::mem::take(&mut self.dropped_runs)
    }

    /// The last sequence acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// The last sequence given.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Whether all that there is was put into the present stream.
    pub fn is_sent(&self) -> bool {
        self.cursor == self.last
    }

    /// Whether all that there is was sent at some time.
    pub fn was_sent(&self) -> bool {
        self.sent == self.last
    }

    /// Whether everything is acknowledged, and the disk knows.
    pub fn is_finished(&self) -> bool {
        self.acknowledged_on_disk == self.last
    }

    /// Records that are not acknowledged, and their bytes.
    pub fn usage(&self) -> (u64, u64) {
        let waiting = (self.pending.len() + self.writing.len()) as u64;
        // The disk forgets what is acknowledged a little later, and only by whole blocks.
        let left = self.last - self.acknowledged;
        let Holding { records, bytes, .. } = self.on_disk;
        if left == 0 { (0, 0) } else { ((records + waiting).min(left), bytes + self.unwritten_bytes()) }
    }

    /// Bytes that are not yet on the disk.
    pub fn unwritten_bytes(&self) -> u64 {
        self.pending_bytes + self.writing_bytes
    }

    /// When the oldest that is not acknowledged was appended, about.
    pub fn oldest(&self) -> Option<Instant> {
        (self.acknowledged < self.last).then(|| self.marks.front().map(|(_, at)| *at)).flatten()
    }
}

#[cfg(test)]
mod tests;
