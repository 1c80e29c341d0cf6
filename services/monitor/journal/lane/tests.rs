use std::time::Duration;

use vantage_contract::v1::{Outcome, Reason};

use super::*;

fn result(run: u64) -> Record {
    let (check_name, summary) = ("a".to_owned(), "x".repeat(100));
    let said = ProbeResult { check_name, run, run_count: 1, outcome: Outcome::Passed.into(), summary, ..ProbeResult::default() };
    Record { said, ..Record::default() }
}

fn lane(unwritten_bytes: u64) -> Lane {
    let mut lane = Lane::new("s".to_owned(), Bounds { bytes: 1 << 20, age: Duration::from_secs(3600), unwritten_bytes });
    lane.rewind(true);
    lane
}

fn append(lane: &mut Lane, runs: std::ops::Range<u64>) {
    for run in runs {
        lane.append(1, result(run), vantage_daemon::clock::monotonic(), false);
    }
}

fn sent(lane: &mut Lane) -> Vec<u64> {
    std::iter::from_fn(|| lane.send()).map(|record| record.sequence).collect()
}

#[test]
fn nothing_is_sent_before_it_is_written() {
    let mut lane = lane(1 << 20);
    append(&mut lane, 0..3);
    assert!(!lane.has_ready());
    let (blocks, runs) = lane.hand_over();
    assert_eq!((blocks.len(), blocks[0].first, blocks[0].last, runs.len()), (1, 1, 3, 3));
    append(&mut lane, 3..5);
    assert!(!lane.has_ready() && lane.hand_over().0.is_empty(), "one at a time");
    lane.written();
    assert_eq!(sent(&mut lane), [1, 2, 3]);
    assert!(!lane.acknowledge(4) && lane.acknowledge(3));
}

#[test]
fn what_does_not_stay_in_memory_is_read_back() {
    let mut lane = lane(1 << 20);
    append(&mut lane, 0..3);
    let (blocks, _) = lane.hand_over();
    lane.written();
    lane.rewind(true);
    assert!(!lane.has_ready());
    assert_eq!((lane.fetch(), lane.fetch()), (Some(0), None));
    lane.fetched(0, vec![(3, Some(blocks[0].body.clone()))]);
    assert_eq!(sent(&mut lane), [1, 2, 3]);
    assert_eq!(lane.fetch(), None);
}

#[test]
fn a_client_that_does_not_acknowledge_gets_a_window_and_no_more() {
    let mut lane = lane(64 << 20);
    for _ in 0..4 {
        append(&mut lane, 0..WINDOW / 2);
        lane.hand_over();
        lane.written();
    }
    let first = sent(&mut lane).len() as u64;
    assert!(first <= WINDOW && first > 1000, "{first}");
    assert!(lane.acknowledge(first));
    assert!(!lane.may_send() || first < WINDOW, "only what the disk knows to be acknowledged makes room");
    lane.acknowledged_on_disk(first);
    assert!(lane.may_send());
}

#[test]
fn a_disk_that_takes_nothing_costs_the_oldest_results_and_no_run() {
    let mut lane = lane(4_000);
    append(&mut lane, 0..1);
    let (mut entered, _) = (lane.hand_over().1, ());
    append(&mut lane, 1..100);
    assert!(lane.unwritten_bytes() < 5_000);
    assert!(lane.take_dropped_runs() > 60);
    lane.written();
    let (blocks, rest) = lane.hand_over();
    entered.extend(rest);
    let mut ledger = crate::ledger::Ledger::new(0);
    entered.iter().for_each(|(_, run, count)| ledger.enter(*run, *count));
    assert!(ledger.is_complete(100));
    let records: Vec<_> =
        blocks.into_iter().flat_map(|block| crate::journal::records(block.body)).map(|record| record.unwrap().0).collect();
    assert_eq!((records[0].reason(), records[0].run, records[0].outcome()), (Reason::JournalFull, 1, Outcome::Skipped));
    assert_eq!(records.last().map(|record| record.sequence), Some(100));
}

#[test]
fn a_block_that_cannot_be_read_is_passed_over_and_the_rest_is_sent() {
    let mut lane = lane(1 << 20);
    append(&mut lane, 0..2);
    lane.hand_over();
    lane.written();
    append(&mut lane, 2..4);
    let (sound, _) = lane.hand_over();
    lane.written();
    lane.rewind(true);
    assert_eq!(lane.fetch(), Some(0));
    lane.fetched(0, vec![(2, None), (4, Some(sound[0].body.clone()))]);
    assert_eq!(sent(&mut lane), [3, 4]);
    lane.rewind(true);
    assert_eq!(lane.fetch(), Some(0));
    // It can be read, but says nothing of what was asked for.
    lane.fetched(0, vec![(2, Some(Bytes::new())), (4, Some(sound[0].body.clone()))]);
    assert_eq!(sent(&mut lane), [3, 4]);
}

#[test]
fn an_acknowledgement_of_an_earlier_stream_moves_the_present_one_on() {
    let mut lane = lane(1 << 20);
    append(&mut lane, 0..5);
    let (blocks, _) = lane.hand_over();
    lane.written();
    assert_eq!(sent(&mut lane).len(), 5);
    lane.rewind(true);
    assert_eq!(lane.fetch(), Some(0));
    lane.fetched(0, vec![(5, Some(blocks[0].body.clone()))]);
    assert!(lane.acknowledge(3));
    assert_eq!(sent(&mut lane), [4, 5]);
}

#[test]
fn the_age_of_the_oldest_is_told_to_a_moment_and_of_a_long_wait_to_ten_seconds() {
    let mut lane = lane(64 << 20);
    let start = vantage_daemon::clock::monotonic();
    let at = |millis: u64| start + Duration::from_millis(millis);
    // Ten in a second, for an hour.
    for run in 0..36_000 {
        lane.append(1, result(run), at(run * 100), false);
        if run < 100 {
            lane.hand_over();
            lane.written();
            sent(&mut lane);
            lane.acknowledge(run);
            let age = at(run * 100) - lane.oldest().unwrap();
            assert!(age <= Duration::from_millis(300), "{age:?} at {run}");
        }
    }
    assert!(lane.marks.len() < 360 + 50, "{}", lane.marks.len());
    let apart = lane.marks.iter().zip(lane.marks.iter().skip(1)).map(|((_, one), (_, other))| *other - *one);
    assert!(apart.clone().take(300).all(|apart| apart >= Duration::from_secs(9)) && apart.max().unwrap() <= Duration::from_secs(11));
}
