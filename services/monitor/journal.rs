//! The log of results that a client has not acknowledged.
//!
//! [`Journal`] is the interface that the durable form will have too; [`MemoryJournal`] lives as long as the process.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use prost::Message;
use tokio::time::Instant;
use vantage_contract::v1::{Attribution, Outcome, ProbeResult, Reason};

/// How full a journal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Records not acknowledged.
    pub records: u64,
    /// What they take up, encoded.
    pub bytes: u64,
    /// When the oldest was appended.
    pub oldest: Option<Instant>,
}

/// One session's log. Sequences begin at 1 and have no holes. What is acknowledged is forgotten; nothing else is, but for the bounds: then
/// the oldest results that were never sent become `skipped`, JOURNAL_FULL, in the same sequences. What has been sent once is kept as it
/// was until it is acknowledged, as the client may have stored it.
pub trait Journal: Send {
    /// Appends a record; it gets the next sequence, which is returned. `now` counts for the bound of age.
    fn append(&mut self, record: ProbeResult, now: Instant) -> u64;

    /// Forgets all up to `sequence`, if that has been sent. False: it has not, and nothing changed.
    fn acknowledge(&mut self, sequence: u64) -> bool;

    /// The first record after `sequence`, marked as sent.
    fn send_after(&mut self, sequence: u64) -> Option<ProbeResult>;

    /// The last sequence acknowledged.
    fn acknowledged(&self) -> u64;

    /// The last sequence ever sent.
    fn sent(&self) -> u64;

    /// The last sequence given.
    fn last(&self) -> u64;

    /// Applies the bound of age at `now`. Returns how many runs were dropped by either bound since it was last called.
    fn expire(&mut self, now: Instant) -> u64;

    /// How full it is.
    fn usage(&self) -> Usage;
}

/// The bounds of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The most bytes of encoded records. The accounts of dropped runs, one for each check and gap, come on top.
    pub bytes: u64,
    /// The longest that a record waits to be sent for the first time.
    pub age: Duration,
}

struct Entry {
    first: u64,
    last: u64,
    at: Instant,
    encoded: Box<[u8]>,
    /// It stands for results that were dropped.
    is_account: bool,
}

impl Entry {
    fn new(record: &ProbeResult, at: Instant) -> Self {
        let first = record.sequence + 1 - record.sequence_count.max(1);
        Self { first, last: record.sequence, at, encoded: record.encode_to_vec().into_boxed_slice(), is_account: false }
    }

    fn size(&self) -> u64 {
        self.encoded.len() as u64
    }
}

/// A journal in memory. Records are kept encoded: a fifth of their size as messages, and the bound is exact.
pub struct MemoryJournal {
    bounds: Bounds,
    entries: VecDeque<Entry>,
    bytes: u64,
    last: u64,
    sent: u64,
    acknowledged: u64,
    dropped_runs: u64,
}

impl MemoryJournal {
    /// An empty journal.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, entries: VecDeque::new(), bytes: 0, last: 0, sent: 0, acknowledged: 0, dropped_runs: 0 }
    }

    /// The index of the first entry that ends after `sequence`.
    fn index_after(&self, sequence: u64) -> usize {
        self.entries.partition_point(|entry| entry.last <= sequence)
    }

    /// Drops the oldest never-sent entries while `too_much` says so of (bytes left, entry), and puts the accounts of their runs in their place.
    fn drop_while(&mut self, too_much: impl Fn(u64, &Entry) -> bool) {
        let from = self.index_after(self.sent);
        let (mut to, mut left) = (from, self.bytes);
        while let Some(entry) = self.entries.get(to).filter(|entry| too_much(left, entry)) {
            left -= entry.size();
            to += 1;
        }
        if to == from {
            return;
        }
        let dropped: Vec<Entry> = self.entries.drain(from..to).collect();
        self.bytes = left;
        let (accounts, lost) = account_for(&dropped);
        self.dropped_runs += lost;
        for (offset, account) in accounts.into_iter().enumerate() {
            self.bytes += account.size();
            self.entries.insert(from + offset, account);
        }
    }
}

/// Turns dropped entries, oldest first, into as few `skipped` records as tell of every run, in the same sequences. Also: how many runs lost
/// their results just now. Records that were `skipped` already keep their reason.
fn account_for(dropped: &[Entry]) -> (Vec<Entry>, u64) {
    let (mut records, mut lost): (Vec<ProbeResult>, u64) = (Vec::new(), 0);
    let mut open: HashMap<(String, String), usize> = HashMap::new();
    for entry in dropped {
        // What was encoded here can be decoded.
        let Ok(record) = ProbeResult::decode(&*entry.encoded) else { continue };
        let key = (record.check_name.clone(), record.revision.clone());
        if record.outcome != i32::from(Outcome::Skipped) {
            lost += record.run_count.max(1);
        } else if record.reason != i32::from(Reason::JournalFull) {
            open.remove(&key);
            records.push(record);
            continue;
        }
        if let Some(before) = open.get(&key).and_then(|index| records.get_mut(*index))
            && before.run + before.run_count == record.run
        {
            before.run_count += record.run_count.max(1);
            continue;
        }
        open.insert(key, records.len());
        records.push(journal_full(record));
    }
    let (Some(oldest), Some(newest)) = (dropped.first(), dropped.last()) else { return (Vec::new(), 0) };
    // There are at most as many accounts as sequences: each takes one, the last one all that remain.
    let count = records.len() as u64;
    let accounts = (oldest.first..)
        .zip(records)
        .map(|(sequence, mut record)| {
            let is_last = sequence + 1 == oldest.first + count;
            record.sequence = if is_last { newest.last } else { sequence };
            record.sequence_count = if is_last { newest.last + 1 - sequence } else { 1 };
            Entry { is_account: true, ..Entry::new(&record, newest.at) }
        })
        .collect();
    (accounts, lost)
}

fn journal_full(record: ProbeResult) -> ProbeResult {
    ProbeResult {
        outcome: Outcome::Skipped.into(),
        reason: Reason::JournalFull.into(),
        attribution: Attribution::Vantage.into(),
        summary: "the journal was full before the client took the result".to_owned(),
        run_count: record.run_count.max(1),
        check_name: record.check_name,
        kind: record.kind,
        target: record.target,
        labels: record.labels,
        revision: record.revision,
        run: record.run,
        monitor: record.monitor,
        session: record.session,
        due_time: record.due_time,
        ..ProbeResult::default()
    }
}

impl Journal for MemoryJournal {
    fn append(&mut self, mut record: ProbeResult, now: Instant) -> u64 {
        self.last += 1;
        record.sequence = self.last;
        record.sequence_count = 1;
        let entry = Entry::new(&record, now);
        self.bytes += entry.size();
        self.entries.push_back(entry);
        if self.bytes > self.bounds.bytes {
            // Room for some more at once: accounts merge better, and it is done less often.
            let target = self.bounds.bytes - self.bounds.bytes / 16;
            self.drop_while(|left, _| left > target);
        }
        self.last
    }

    fn acknowledge(&mut self, sequence: u64) -> bool {
        if sequence > self.sent {
            return false;
        }
        let count = self.index_after(sequence);
        self.bytes -= self.entries.drain(..count).map(|entry| entry.size()).sum::<u64>();
        self.acknowledged = self.acknowledged.max(sequence);
        true
    }

    fn send_after(&mut self, sequence: u64) -> Option<ProbeResult> {
        let entry = self.entries.get(self.index_after(sequence))?;
        self.sent = self.sent.max(entry.last);
        ProbeResult::decode(&*entry.encoded).ok()
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    fn sent(&self) -> u64 {
        self.sent
    }

    fn last(&self) -> u64 {
        self.last
    }

    fn expire(&mut self, now: Instant) -> u64 {
        let age = self.bounds.age;
        let is_old = |entry: &Entry| now.saturating_duration_since(entry.at) > age;
        // Accounts may stand at the head for long; they are touched only when there is something to add to them.
        let oldest_result = self.entries.range(self.index_after(self.sent)..).find(|entry| !entry.is_account);
        if oldest_result.is_some_and(is_old) {
            self.drop_while(|_, entry| is_old(entry));
        }
        std::mem::take(&mut self.dropped_runs)
    }

    fn usage(&self) -> Usage {
        Usage { records: self.entries.len() as u64, bytes: self.bytes, oldest: self.entries.front().map(|entry| entry.at) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn result(check: &str, run: u64) -> ProbeResult {
        ProbeResult {
            check_name: check.to_owned(),
            run,
            run_count: 1,
            outcome: Outcome::Passed.into(),
            summary: "x".repeat(100),
            ..ProbeResult::default()
        }
    }

    fn journal(bytes: u64) -> MemoryJournal {
        MemoryJournal::new(Bounds { bytes, age: Duration::from_secs(3600) })
    }

    fn now() -> Instant {
        vantage_daemon::clock::monotonic()
    }

    /// All records after `sequence`, as a client receives them.
    fn receive(journal: &mut MemoryJournal, mut sequence: u64) -> Vec<ProbeResult> {
        let mut records = Vec::new();
        while let Some(record) = journal.send_after(sequence) {
            assert_eq!(record.sequence - record.sequence_count, sequence, "sequences have no holes");
            sequence = record.sequence;
            records.push(record);
        }
        records
    }

    #[test]
    fn what_is_acknowledged_is_forgotten_and_nothing_else() {
        let mut journal = journal(1 << 20);
        for run in 0..5 {
            journal.append(result("a", run), now());
        }
        assert_eq!(receive(&mut journal, 0).len(), 5);
        assert!(journal.acknowledge(3));
        assert_eq!(receive(&mut journal, 3).iter().map(|record| record.run).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(journal.usage().records, 2);
    }

    #[test]
    fn an_acknowledgement_of_what_was_not_sent_changes_nothing() {
        let mut journal = journal(1 << 20);
        journal.append(result("a", 0), now());
        assert!(!journal.acknowledge(1));
        assert_eq!(receive(&mut journal, 0).len(), 1);
    }

    #[test]
    fn a_full_journal_turns_its_oldest_into_one_skipped_range_per_check() {
        let mut journal = journal(2_000);
        for run in 0..100 {
            journal.append(result("a", run), now());
            journal.append(result("b", run), now());
        }
        let records = receive(&mut journal, 0);
        let skipped: Vec<_> = records.iter().filter(|record| record.reason == i32::from(Reason::JournalFull)).collect();
        assert_eq!(skipped.len(), 2);
        assert!(skipped.iter().all(|record| record.run == 0 && record.run_count > 80));
        assert_eq!(records.last().map(|record| record.sequence), Some(200));
        assert!(journal.expire(now()) > 160);
    }

    #[test]
    fn what_was_sent_is_kept_as_it_was_until_acknowledged() {
        let mut journal = journal(2_000);
        journal.append(result("a", 0), now());
        let sent = journal.send_after(0);
        for run in 1..100 {
            journal.append(result("a", run), now());
        }
        assert_eq!(journal.send_after(0), sent);
        assert!(journal.acknowledge(1));
        assert_eq!(receive(&mut journal, 1)[0].reason, i32::from(Reason::JournalFull));
    }

    #[test]
    fn results_too_old_are_accounted_for() {
        let mut journal = journal(1 << 20);
        let start = now();
        journal.append(result("a", 0), start);
        journal.append(result("a", 1), start + Duration::from_secs(4000));
        assert_eq!(journal.expire(start + Duration::from_secs(4000)), 1);
        let records = receive(&mut journal, 0);
        assert_eq!(
            records.iter().map(|record| record.outcome).collect::<Vec<_>>(),
            [i32::from(Outcome::Skipped), i32::from(Outcome::Passed)]
        );
    }

    proptest! {
        /// Any interleaving of results, sending, lost acknowledgements and reconnects: each run is accounted for exactly once.
        #[test]
        fn every_run_arrives_exactly_once(bound in 300_u64..5_000, steps in proptest::collection::vec((0_u8..4, 0_u64..3, 1_u64..20), 1..200)) {
            let mut journal = journal(bound);
            let mut next_run = BTreeMap::<String, u64>::new();
            let mut stored = BTreeMap::<(String, u64), u32>::new();
            let (mut stored_through, mut cursor) = (0, 0);
            let mut store = |record: &ProbeResult, stored_through: &mut u64| {
                // The client drops what it has.
                if record.sequence <= *stored_through {
                    return;
                }
                assert_eq!(record.sequence - record.sequence_count, *stored_through);
                *stored_through = record.sequence;
                for run in record.run..record.run + record.run_count {
                    *stored.entry((record.check_name.clone(), run)).or_default() += 1;
                }
            };
            for (step, check, amount) in steps {
                match step {
                    0 | 1 => for _ in 0..amount {
                        let run = next_run.entry(format!("check-{check}")).or_default();
                        journal.append(result(&format!("check-{check}"), *run), now());
                        *run += 1;
                    },
                    2 => for _ in 0..amount {
                        let Some(record) = journal.send_after(cursor) else { break };
                        cursor = record.sequence;
                        store(&record, &mut stored_through);
                    },
                    // An acknowledgement, or a reconnect that resends from the last one.
                    _ => if amount > 10 { prop_assert!(journal.acknowledge(stored_through)); } else { cursor = journal.acknowledged(); },
                }
            }
            cursor = journal.acknowledged();
            while let Some(record) = journal.send_after(cursor) {
                cursor = record.sequence;
                store(&record, &mut stored_through);
            }
            for (check, runs) in next_run {
                for run in 0..runs {
                    prop_assert_eq!(stored.get(&(check.clone(), run)), Some(&1), "{} run {}", &check, run);
                }
            }
        }
    }
}
