//! Which runs were planned, and what became of each. Pure: lives and records in, counts out.
//!
//! Runs are numbers, so a life's part of a span is a range of them, and so is a record. Records of a life come in the order in which their
//! runs were due, which is the order of their numbers: what is not covered when the next one comes is a hole.

use std::{collections::BTreeMap, ops::Range};

use vantage_contract::v1::Outcome;

/// What a record may take beyond its run's timeout and two intervals before its absence means something, in nanoseconds.
const GRACE: i64 = 5_000_000_000;

/// A life of an order, as the ledger has it. Instants and lengths in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) interval: i64,
    /// 0: for ever.
    pub(super) count: u64,
    pub(super) timeout: i64,
    /// When it was placed, by the manager's clock.
    pub(super) placed: i64,
    /// What its records tell. None: there is no record yet.
    pub(super) known: Option<Known>,
    /// For one that has ended: up to when its monitor had been heard of then.
    pub(super) ended_heard: Option<i64>,
}

/// What the records of a life tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    /// When run 0 was due.
    pub(super) anchor: i64,
    /// The first run that has a record.
    pub(super) first_run: u64,
    /// The run after the last one that has a record.
    pub(super) next_run: u64,
}

/// From when on, and until when, exclusively, runs are due that are accounted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) since: i64,
    pub(super) until: i64,
}

impl Life {
    fn anchor(&self) -> i64 {
        // Within the first interval after it arrived, its first run is due; nobody has told when.
        self.known.map_or(self.placed.saturating_add(self.interval), |known| known.anchor)
    }

    /// The first run that is due at `instant` or later.
    fn first_at(&self, instant: i64) -> u64 {
        let (since, interval) = (i128::from(instant) - i128::from(self.anchor()), i128::from(self.interval.max(1)));
        u64::try_from((since + interval - 1).div_euclid(interval).max(0)).unwrap_or(u64::MAX)
    }

    /// The runs that were planned in a span: from the first one that has a record to the end of the span, of the order's count, or of
    /// the order; at least to the last one that has a record.
    pub(super) fn planned(&self, span: Span) -> Range<u64> {
        let (first, next) = self.known.map_or((0, 0), |known| (known.first_run, known.next_run));
        let mut end = if self.count == 0 { u64::MAX } else { self.count };
        if let Some(heard) = self.ended_heard {
            end = end.min(self.first_at(heard.saturating_add(1)));
        }
        let (from, to) = (self.first_at(span.since).max(first), self.first_at(span.until).min(end.max(next)));
        from..to.max(from)
    }

    /// The first run that may still be awaited, where its monitor has been heard of up to `heard`.
    pub(super) fn awaited_from(&self, heard: i64) -> u64 {
        let patience = self.timeout.saturating_add(self.interval.saturating_mul(2)).saturating_add(GRACE);
        self.first_at(heard.saturating_sub(patience).saturating_add(1))
    }
}

/// What became of the runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) planned: u64,
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) undetermined: u64,
    /// By the numbers of their reasons.
    pub(super) skipped: BTreeMap<i32, u64>,
    /// Without a record, which may be under way: in flight, or in the monitor's journal.
    pub(super) awaited: u64,
    /// Without a record, which should be here.
    pub(super) missing: u64,
    /// Records of runs that had one already.
    pub(super) duplicates: u64,
}

impl Tally {
    pub(super) fn skipped_count(&self) -> u64 {
        self.skipped.values().sum()
    }

    /// Whether each run has its one record, or may still get it.
    pub(super) fn is_sound(&self) -> bool {
        (self.missing, self.duplicates) == (0, 0)
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.planned += other.planned;
        self.passed += other.passed;
        self.failed += other.failed;
        self.undetermined += other.undetermined;
        self.awaited += other.awaited;
        self.missing += other.missing;
        self.duplicates += other.duplicates;
        for (reason, count) in &other.skipped {
            *self.skipped.entry(*reason).or_default() += count;
        }
    }
}

/// A record, as far as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) run: u64,
    pub(super) run_count: u64,
    pub(super) outcome: i32,
    pub(super) reason: i32,
}

/// The runs of one life, being matched with its records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sweep {
    planned: Range<u64>,
    awaited_from: u64,
    /// The first run of which nothing is known yet.
    next: u64,
    tally: Tally,
}

impl Sweep {
    pub(super) fn new(life: &Life, span: Span, heard: i64) -> Self {
        let planned = life.planned(span);
        let tally = Tally { planned: planned.end - planned.start, ..Tally::default() };
        Self { next: planned.start, awaited_from: life.awaited_from(heard), planned, tally }
    }

    /// Enters a record. They come in the order of their first runs, as far as these are in the span.
    pub(super) fn enter(&mut self, record: Record) {
        let end = record.run.saturating_add(record.run_count.max(1)).min(self.planned.end);
        let start = record.run.max(self.planned.start);
        if end <= start {
            return;
        }
        self.tally.duplicates += self.next.min(end).saturating_sub(start);
        self.hole_until(start);
        let new = end.saturating_sub(self.next);
        self.next = self.next.max(end);
        match Outcome::try_from(record.outcome) {
            Ok(Outcome::Passed) => self.tally.passed += new,
            Ok(Outcome::Failed) => self.tally.failed += new,
            Ok(Outcome::Skipped) if new > 0 => *self.tally.skipped.entry(record.reason).or_default() += new,
            Ok(Outcome::Skipped) => {}
            // A word from a newer contract: we can't tell.
            Ok(Outcome::Undetermined | Outcome::Unspecified) | Err(_) => self.tally.undetermined += new,
        }
    }

    /// No record is left.
    pub(super) fn end(mut self) -> Tally {
        self.hole_until(self.planned.end);
        self.tally
    }

    fn hole_until(&mut self, run: u64) {
        if run > self.next {
            let awaited_from = self.awaited_from.clamp(self.next, run);
            self.tally.missing += awaited_from - self.next;
            self.tally.awaited += run - awaited_from;
            self.next = run;
        }
    }
}
