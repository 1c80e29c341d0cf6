//! What has been counted. Counters only grow, within the life of the process.

use std::{collections::BTreeMap, ops::AddAssign, time::Duration};

use vantage_contract::v1::{Outcome, ProbeResult, Reason};

/// The upper bounds of the lateness histogram's buckets, in milliseconds; one more bucket takes the rest.
pub const LATENESS_BUCKETS_MS: [u64; 9] = [1, 2, 5, 10, 20, 50, 100, 1000, 10_000];

/// How late runs started.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Lateness {
    /// Runs in each bucket, not cumulated; the last is for those beyond all bounds.
    pub buckets: [u64; LATENESS_BUCKETS_MS.len() + 1],
    /// The sum.
    pub sum: Duration,
}

impl Lateness {
    /// Counts a run.
    pub fn count(&mut self, late: Duration) {
        let bucket =
            LATENESS_BUCKETS_MS.iter().position(|bound| late <= Duration::from_millis(*bound)).unwrap_or(LATENESS_BUCKETS_MS.len());
        self.buckets[bucket] += 1;
        self.sum += late;
    }
}

/// What a session has done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally {
    /// Runs started, by kind.
    pub started: BTreeMap<String, u64>,
    /// Runs accounted for, by outcome and reason.
    pub accounted: BTreeMap<(Outcome, Reason), u64>,
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
        *self.accounted.entry((record.outcome(), record.reason())).or_default() += record.run_count.max(1);
    }

    /// Runs skipped, by reason; those that the journal pushed out included.
    pub fn skipped(&self) -> BTreeMap<Reason, u64> {
        let mut skipped: BTreeMap<_, _> = self
            .accounted
            .iter()
            .filter(|((outcome, _), _)| *outcome == Outcome::Skipped)
            .map(|((_, reason), count)| (*reason, *count))
            .collect();
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
            *self.started.entry(kind.clone()).or_default() += count;
        }
        for (key, count) in &other.accounted {
            *self.accounted.entry(*key).or_default() += count;
        }
        for (bucket, count) in self.lateness.buckets.iter_mut().zip(other.lateness.buckets) {
            *bucket += count;
        }
        self.lateness.sum += other.lateness.sum;
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

    #[test]
    fn lateness_falls_into_the_first_bucket_that_holds_it() {
        let mut lateness = Lateness::default();
        for millis in [0, 1, 3, 99_999] {
            lateness.count(Duration::from_millis(millis));
        }
        assert_eq!((lateness.buckets[0], lateness.buckets[2], lateness.buckets[9]), (2, 1, 1));
    }
}
