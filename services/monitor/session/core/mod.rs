//! What a session knows and decides, without clock, disk or stream: its orders, its logs, what has to be written. Pure: time is an argument.
//!
//! The actor feeds it with what happens, starts the runs that it says are due, has its [`Changes`] written, and sends what it may send.
//! Were it gone at any moment, the last changes that were written are all that is needed to go on without losing or doubling a run.

mod delivery;
mod orders;
mod restart;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};

use crate::{
    book::{Book, Due, Ticket},
    journal::{Bounds, Changes, Lane, OrderId, Written},
    ledger::Ledger,
    record::Record,
    schedule::Now,
    tally::Tally,
};

/// How far the wall clock may come apart from the monotonic one before the schedules follow it. What steers a clock gently steers both.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);

/// One client's orders and logs.
#[derive(Debug)]
pub(crate) struct Core {
    /// What the monitor is called.
    monitor: String,
    bounds: Bounds,
    /// The most bytes of results now, and of accounts of dropped ones: its own bound, or less where others need room, too.
    most_bytes: u64,
    pub(super) book: Book,
    /// Of each order that has runs to be accounted for: which of them are, as far as they were handed over to be written.
    rows: HashMap<OrderId, Row>,
    /// Oldest first. The last one takes the new records.
    lanes: Vec<Lane>,
    changes: Changes,
    /// Changes are being written.
    committing: bool,
    /// How many of them are orders.
    committing_orders: usize,
    /// Acknowledgements are being written, ahead of the rest.
    freeing: bool,
    /// Which lane the last record came from.
    turn: usize,
    /// The two clocks as they were when the schedules were last aligned to the wall.
    aligned: Now,
    pub(super) tally: Tally,
    /// Records as they were appended, encoded, for those who watch; only kept while `watched`.
    appended: Vec<Bytes>,
    pub(super) watched: bool,
}

/// What is accounted for of an order.
#[derive(Debug)]
struct Row {
    ledger: Ledger,
    /// It ended: the first run that it does not have any more.
    end: Option<u64>,
}

impl Core {
    /// A client that was never seen before.
    pub(crate) fn new(monitor: &str, bounds: Bounds, now: Now) -> Self {
        let mut core = Self::empty(monitor, bounds, now);
        core.open_lane();
        core
    }

    fn empty(monitor: &str, bounds: Bounds, now: Now) -> Self {
        Self {
            monitor: monitor.to_owned(),
            bounds,
            most_bytes: bounds.bytes,
            book: Book::default(),
            rows: HashMap::new(),
            lanes: Vec::new(),
            changes: Changes::default(),
            committing: false,
            committing_orders: 0,
            freeing: false,
            turn: 0,
            aligned: now,
            tally: Tally::default(),
            appended: Vec::new(),
            watched: false,
        }
    }

    fn open_lane(&mut self) {
        let session = session_name();
        self.changes.opened.push(session.clone());
        self.lanes.push(Lane::new(session, self.bounds));
    }

    /// What the records since this was last asked are; nothing unless they are watched.
    pub(crate) fn take_appended(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.appended)
    }

    /// The runs to be started `now`; what can't be run any more is accounted for.
    pub(crate) fn due(&mut self, now: Now) -> Vec<Ticket> {
        self.follow_clock(now);
        let dues = self.book.due(now.monotonic);
        self.settle(dues, now)
    }

    /// Accounts for what is skipped, and returns the rest.
    fn settle(&mut self, dues: Vec<Due>, now: Now) -> Vec<Ticket> {
        let mut tickets = Vec::new();
        for due in dues {
            match due {
                Due::Run(ticket) => tickets.push(ticket),
                Due::Skip { order, facts, run, count, due, reason } => self.append(order, facts.skipped(run, count, due, reason), now),
            }
        }
        tickets
    }

    /// Looks whether the wall clock was set, or the machine slept: then the schedules follow.
    pub(crate) fn follow_clock(&mut self, now: Now) {
        let elapsed = now.monotonic.saturating_duration_since(self.aligned.monotonic);
        let expected = self.aligned.wall.checked_add(elapsed).unwrap_or(now.wall);
        let (apart, forward) = match now.wall.duration_since(expected) {
            Ok(ahead) => (ahead, true),
            Err(behind) => (behind.duration(), false),
        };
        if apart <= CLOCK_TOLERANCE {
            return;
        }
        tracing::warn!(?apart, forward, "the wall clock was set, or the machine slept");
        self.aligned = now;
        let skipped = self.book.realign(now);
        self.settle(skipped, now);
    }

    /// A run has ended.
    pub(crate) fn ended(&mut self, order: OrderId, record: Record, now: Now) {
        self.book.ended(order);
        self.append(order, record, now);
    }

    fn append(&mut self, order: OrderId, record: Record, now: Now) {
        self.tally.account(&record.said);
        // There is always a lane.
        let Some(live) = self.lanes.last_mut() else { return };
        self.appended.extend(live.append(order, record, now.monotonic, self.watched));
    }

    /// What the logs take of the disk, in bytes.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.lanes.iter().map(Lane::stored_bytes).sum()
    }

    /// The most bytes of results now, and of accounts of dropped ones.
    pub(crate) fn most_bytes(&self) -> u64 {
        self.most_bytes
    }

    /// Looks after bounds, and what is done with. `share` is what the client may take of the room for all.
    pub(crate) fn tidy(&mut self, now: Now, share: u64) {
        self.follow_clock(now);
        self.most_bytes = self.bounds.bytes.min(share);
        let results: u64 = self.lanes.iter().map(Lane::result_bytes).sum();
        // Of the room for all, accounts take a part, too.
        let most = self.bounds.bytes.min(share.saturating_sub(self.stored_bytes() - results));
        let mut excess = results.saturating_sub(most);
        for lane in &mut self.lanes {
            // The oldest go first.
            excess = if lane.is_busy() { 0 } else { excess };
            if let Some(trim) = lane.trim(now.monotonic, excess, self.most_bytes) {
                excess = excess.saturating_sub(trim.bytes);
                self.changes.trims.push(trim);
            }
            self.tally.journal_dropped_runs += lane.take_dropped_runs();
        }
        // The last one is kept for what is to come.
        let live = self.lanes.len().saturating_sub(1);
        let finished = |lane: &Lane| lane.is_finished();
        let done: Vec<String> = self.lanes.iter().take(live).filter(|lane| finished(lane)).map(|lane| lane.session().to_owned()).collect();
        if !done.is_empty() {
            self.lanes.retain(|lane| !done.iter().any(|session| session == lane.session()));
            self.turn = 0;
            self.changes.finished.extend(done);
        }
        if self.is_acknowledged() {
            let gone = self.book.forget_counted_out();
            gone.into_iter().for_each(|gone| self.end(gone));
        }
    }

    /// What has to be written now, unless something is being written already. To be answered with [`written`](Self::written).
    pub(crate) fn take_changes(&mut self) -> Option<Changes> {
        if self.committing {
            return None;
        }
        let mut changes = std::mem::take(&mut self.changes);
        let mut touched: Vec<OrderId> = changes.ended.iter().map(|(id, _)| *id).collect();
        for lane in &mut self.lanes {
            let (blocks, runs) = lane.hand_over();
            changes.blocks.extend(blocks);
            for (id, run, count) in runs {
                if let Some(row) = self.rows.get_mut(&id) {
                    row.ledger.enter(run, count);
                    changes.ledgers.insert(id, row.ledger);
                    touched.push(id);
                }
            }
        }
        for id in touched {
            if self.rows.get(&id).is_some_and(|row| row.end.is_some_and(|end| row.ledger.is_complete(end))) {
                self.rows.remove(&id);
                changes.ledgers.remove(&id);
                changes.dropped.push(id);
            }
        }
        self.committing = !changes.is_empty();
        self.committing_orders = changes.placed.len();
        self.committing.then_some(changes)
    }

    /// What was taken is on the disk.
    pub(crate) fn written(&mut self, changes: &Changes, written: &Written) {
        (self.committing, self.committing_orders) = (false, 0);
        for lane in &mut self.lanes {
            if changes.blocks.iter().any(|block| block.session == lane.session()) {
                lane.written();
            }
            if let Some(sequence) = changes.acknowledged.get(lane.session()) {
                lane.acknowledged_on_disk(*sequence);
            }
        }
        let trimmed = |session: &str| changes.trims.iter().any(|trim| trim.session == session);
        for holding in &written.lanes {
            if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.session() == holding.session) {
                lane.note_usage(holding);
                if trimmed(&holding.session) {
                    lane.trimmed(holding.lost_runs);
                }
            }
        }
    }

    /// What was acknowledged and is not yet on the disk, to be written ahead of what waits: to be answered with [`freed`](Self::freed).
    pub(crate) fn take_acknowledged(&mut self) -> Option<BTreeMap<String, u64>> {
        if self.freeing || self.changes.acknowledged.is_empty() {
            return None;
        }
        self.freeing = true;
        Some(std::mem::take(&mut self.changes.acknowledged))
    }

    /// What came of it.
    pub(crate) fn freed(&mut self, acknowledged: BTreeMap<String, u64>, written: Option<Written>) {
        self.freeing = false;
        let Some(written) = written else {
            for (session, sequence) in acknowledged {
                let newest = self.changes.acknowledged.entry(session).or_default();
                *newest = sequence.max(*newest);
            }
            return;
        };
        for lane in &mut self.lanes {
            if let Some(sequence) = acknowledged.get(lane.session()) {
                lane.acknowledged_on_disk(*sequence);
            }
        }
        self.made_room(&written);
    }

    /// Room was made on a full disk; perhaps with records of this client.
    pub(crate) fn made_room(&mut self, written: &Written) {
        for holding in &written.lanes {
            if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.session() == holding.session) {
                lane.note_usage(holding);
                self.tally.journal_dropped_runs += holding.lost_runs;
            }
        }
    }

    /// Whether everything that was said and done is on the disk.
    pub(crate) fn is_settled(&self) -> bool {
        !self.committing && self.changes.is_empty() && self.lanes.iter().all(|lane| lane.unwritten_bytes() == 0)
    }

    /// Orders, those for once included, that the disk has not taken yet.
    pub(crate) fn unwritten_orders(&self) -> usize {
        self.changes.placed.len() + self.committing_orders
    }

    /// Whether changes are being written.
    pub(crate) fn is_committing(&self) -> bool {
        self.committing
    }

    /// Nothing of the client is to be kept.
    pub(crate) fn forget(&mut self) {
        self.changes = Changes { forget: true, ..Changes::default() };
    }
}

/// A name that no other session ever had: 64 random bits.
fn session_name() -> String {
    let mut bytes = [0_u8; 8];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        // Without randomness the clock tells the lives of a journal apart.
        let nanos = vantage_daemon::clock::wall().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        bytes = u64::try_from(nanos & u128::from(u64::MAX)).unwrap_or_default().to_be_bytes();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
