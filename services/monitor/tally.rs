//! What has been counted. Counters only grow, within the life of the process.

use std::{collections::BTreeMap, ops::AddAssign};

use vantage_contract::v1::{Outcome, ProbeResult, Reason};

use crate::figures::Lateness;

/// What a session has done.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Runs started, by kind.
    pub started: BTreeMap<&'static str, u64>,
    /// Records, by outcome and reason; one that covers a range counts once.
    pub records: BTreeMap<(Outcome, Reason), u64>,
    /// Runs skipped, by reason; all of a range.
    skipped: BTreeMap<Reason, u64>,
    /// How late runs started.
    pub lateness: Lateness,
    /// Results sent, resent ones counted again.
    pub sent_results: u64,
    /// Bytes of results sent.
    pub sent_bytes: u64,
    /// Bytes of requests received.
    pub received_bytes: u64,
    /// Runs whose results the bounds of the journal pushed out.
    pub journal_dropped_runs: u64,
    /// Acknowledgements of other sessions, or of what was not sent.
    pub odd_acknowledgements: u64,
}

impl Tally {
    /// Counts a record.
    pub fn account(&mut self, record: &ProbeResult) {
        let (outcome, reason) = (record.outcome(), record.reason());
        *self.records.entry((outcome, reason)).or_default() += 1;
        if outcome == Outcome::Skipped {
            *self.skipped.entry(reason).or_default() += record.run_count.max(1);
        }
    }

    /// Runs skipped, by reason; those whose results the journal pushed out included.
    pub fn skipped(&self) -> BTreeMap<Reason, u64> {
        let mut skipped = self.skipped.clone();
        if self.journal_dropped_runs > 0 {
            *skipped.entry(Reason::JournalFull).or_default() += self.journal_dropped_runs;
        }
        skipped
    }

    /// Runs started, over all kinds.
    pub fn started_runs(&self) -> u64 {
        self.started.values().sum()
    }
}

impl AddAssign<&Self> for Tally {
    fn add_assign(&mut self, other: &Self) {
        for (kind, count) in &other.started {
            *self.started.entry(kind).or_default() += count;
        }
        for (key, count) in &other.records {
            *self.records.entry(*key).or_default() += count;
        }
        for (reason, count) in &other.skipped {
            *self.skipped.entry(*reason).or_default() += count;
        }
        self.lateness += &other.lateness;
        self.sent_results += other.sent_results;
        self.sent_bytes += other.sent_bytes;
        self.received_bytes += other.received_bytes;
        self.journal_dropped_runs += other.journal_dropped_runs;
        self.odd_acknowledgements += other.odd_acknowledgements;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_counts_for_each_of_its_runs() {
        let mut tally = Tally::default();
        tally.account(&ProbeResult {
            outcome: Outcome::Skipped.into(),
            reason: Reason::Overloaded.into(),
            run_count: 7,
            ..ProbeResult::default()
        });
        tally.journal_dropped_runs = 2;
        let mut sum = tally.clone();
        sum += &tally;
        assert_eq!(sum.skipped(), BTreeMap::from([(Reason::Overloaded, 14), (Reason::JournalFull, 4)]));
    }
}
