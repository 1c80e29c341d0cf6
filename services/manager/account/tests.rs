//! The arithmetic of accounts, and accounts of whole stores.

use std::{collections::BTreeSet, ops::Range};

use proptest::prelude::*;
use vantage_contract::v1::{Outcome, Reason};

use super::arithmetic::{Known, Life, Record, Span, Sweep, Tally};

const SECOND: i64 = 1_000_000_000;
const ALWAYS: Span = Span { since: i64::MIN, until: 1_000_000 * SECOND };

/// Every 10 s, from second 1000 on; its patience is 2 + 2 × 10 + 5 = 27 s.
fn life() -> Life {
    let known = Some(Known { anchor: 1000 * SECOND, first_run: 0, next_run: 1 });
    Life { interval: 10 * SECOND, count: 0, timeout: 2 * SECOND, placed: 990 * SECOND, known, ended_heard: None }
}

fn span(since: i64, until: i64) -> Span {
    Span { since: since * SECOND, until: until * SECOND }
}

fn record(run: u64, run_count: u64) -> Record {
    Record { run, run_count, outcome: Outcome::Passed.into(), reason: 0 }
}

fn down(run: u64, run_count: u64) -> Record {
    Record { run, run_count, outcome: Outcome::Skipped.into(), reason: Reason::MonitorDown.into() }
}

fn sweep(life: &Life, span: Span, heard: i64, records: &[Record]) -> Tally {
    let mut sweep = Sweep::new(life, span, heard.saturating_mul(SECOND));
    records.iter().for_each(|record| sweep.enter(*record));
    sweep.end()
}

#[test]
fn runs_are_planned_from_the_edges_of_the_span() {
    assert_eq!(life().planned(span(0, 1051)), 0..6);
    assert_eq!(life().planned(span(1020, 1050)), 2..5, "due at its begin counts, due at its end does not");
    assert_eq!(life().planned(span(1021, 1050)), 3..5);
    assert!(life().planned(span(0, 1000)).is_empty());
    let late = Life { known: Some(Known { anchor: 1000 * SECOND, first_run: 4, next_run: 5 }), ..life() };
    assert_eq!(late.planned(span(0, 1061)), 4..7, "from the first run that has a record");
}

#[test]
fn an_order_is_planned_to_its_count_or_its_end_and_as_far_as_it_has_records() {
    let counted = Life { count: 3, ..life() };
    assert_eq!(counted.planned(ALWAYS), 0..3);
    let ended = Life { ended_heard: Some(1025 * SECOND), ..life() };
    assert_eq!(ended.planned(ALWAYS), 0..3);
    let went_on = Life { known: Some(Known { anchor: 1000 * SECOND, first_run: 0, next_run: 9 }), ..ended.clone() };
    assert_eq!(went_on.planned(ALWAYS), 0..9);
    assert_eq!(went_on.planned(span(0, 1051)), 0..6, "but not beyond the span");
    assert!(Life { ended_heard: Some(i64::MIN), known: None, ..life() }.planned(ALWAYS).is_empty(), "never heard of: nothing is known");
}

#[test]
fn an_order_without_any_record_is_planned_from_an_interval_after_it_was_placed() {
    let silent = Life { known: None, ..life() };
    assert_eq!(silent.planned(span(0, 1041)), 0..5);
    assert_eq!(sweep(&silent, span(0, 1041), 1050, &[]), Tally { planned: 5, missing: 3, awaited: 2, ..Tally::default() });
    assert_eq!(sweep(&silent, span(0, 1041), 0, &[]).awaited, 5, "its monitor has not been heard of");
}

#[test]
fn a_hole_is_missing_once_its_monitor_was_heard_of_long_enough_after_it() {
    let records = [record(0, 1), record(3, 1)];
    let tally = |heard| sweep(&life(), span(0, 1031), heard, &records);
    assert_eq!(tally(1036), Tally { planned: 4, passed: 2, awaited: 2, ..Tally::default() });
    assert_eq!(tally(1037), Tally { planned: 4, passed: 2, awaited: 1, missing: 1, ..Tally::default() });
    assert_eq!(tally(9999), Tally { planned: 4, passed: 2, missing: 2, ..Tally::default() });
    assert!(tally(1036).is_sound() && !tally(1037).is_sound());
}

#[test]
fn a_range_counts_with_its_runs_inside_the_span() {
    let skipped = |count| [(Reason::MonitorDown.into(), count)].into();
    let records = [down(0, 8), record(8, 1)];
    assert_eq!(sweep(&life(), span(0, 1081), 9999, &records), Tally { planned: 9, passed: 1, skipped: skipped(8), ..Tally::default() });
    assert_eq!(sweep(&life(), span(1050, 1081), 9999, &records).skipped, skipped(3));
    assert_eq!(sweep(&life(), span(1050, 1070), 9999, &records), Tally { planned: 2, skipped: skipped(2), ..Tally::default() });
}

#[test]
fn a_second_record_of_a_run_is_a_duplicate() {
    let records = [record(0, 1), record(0, 1), down(0, 3), record(1, 1), record(3, 1)];
    let skipped = [(Reason::MonitorDown.into(), 2)].into();
    assert_eq!(sweep(&life(), span(0, 1031), 9999, &records), Tally { planned: 4, passed: 2, skipped, duplicates: 3, ..Tally::default() });
}

/// The same by hand: run for run.
fn naive(planned: Range<u64>, awaited_from: u64, records: &[Record]) -> Tally {
    let mut tally = Tally { planned: planned.end - planned.start, ..Tally::default() };
    for run in planned {
        let mut of_run = records.iter().filter(|record| (record.run..record.run + record.run_count).contains(&run));
        match of_run.next() {
            None if run < awaited_from => tally.missing += 1,
            None => tally.awaited += 1,
            Some(record) if record.outcome == i32::from(Outcome::Passed) => tally.passed += 1,
            Some(record) => *tally.skipped.entry(record.reason).or_default() += 1,
        }
        tally.duplicates += of_run.count() as u64;
    }
    tally
}

proptest! {
    #[test]
    fn one_pass_finds_what_counting_run_for_run_finds(
        mut records in prop::collection::vec((0u64..60, 1u64..9, any::<bool>()), 0..40),
        since in 900i64..1300, length in 0i64..500, heard in 900i64..1700, ended in prop::option::of(1000i64..1500), count in 0u64..50,
    ) {
        records.sort_by_key(|(run, ..)| *run);
        let records: Vec<_> = records.into_iter().map(|(run, count, passed)| if passed { record(run, 1) } else { down(run, count) }).collect();
        let known = records.first().map(|first| Known {
            anchor: 1000 * SECOND,
            first_run: first.run,
            next_run: records.iter().map(|record| record.run + record.run_count).max().unwrap_or_default(),
        });
        let life = Life { known, count, ended_heard: ended.map(|ended| ended * SECOND), ..life() };
        let span = span(since, since + length);
        let tally = sweep(&life, span, heard, &records);
        prop_assert_eq!(&tally, &naive(life.planned(span), life.awaited_from(heard * SECOND), &records));
        let accounted = tally.passed + tally.failed + tally.undetermined + tally.skipped_count();
        prop_assert_eq!(tally.planned, accounted + tally.awaited + tally.missing);
    }

    #[test]
    fn spans_that_lie_side_by_side_add_up(cuts in prop::collection::btree_set(900i64..1700, 2..9), lost in prop::collection::btree_set(0u64..60, 0..9)) {
        let known = Some(Known { anchor: 1000 * SECOND, first_run: 0, next_run: 60 });
        let life = Life { known, ended_heard: Some(1600 * SECOND), ..life() };
        let records: Vec<_> = (0..60).filter(|run| !lost.contains(run)).map(|run| record(run, 1)).collect();
        let cuts: Vec<_> = cuts.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        let mut sum = Tally::default();
        cuts.windows(2).for_each(|cut| sum.add(&sweep(&life, span(cut[0], cut[1]), 9999, &records)));
        prop_assert_eq!(sum, sweep(&life, span(cuts[0], *cuts.last().unwrap()), 9999, &records));
    }
}

mod stores;
