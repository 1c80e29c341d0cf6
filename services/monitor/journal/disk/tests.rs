use std::time::Duration;

use prost_types::Timestamp;
use vantage_contract::v1::{Outcome, ProbeResult, Reason};

use super::*;
use crate::journal::{Placement, StoredClient};

/// A journal in memory with one session, and `blocks` of `count` results each.
fn journal(blocks: u64, count: u64) -> Disk {
    let (mut disk, _) = Disk::open(None, "m", Sync::Full, SystemTime::UNIX_EPOCH).unwrap();
    let block = |number: u64| block(number * count + 1, count);
    let changes = Changes { opened: vec!["s".into()], blocks: (0..blocks).map(block).collect(), ..Changes::default() };
    disk.apply(&[("c", &changes)], SystemTime::UNIX_EPOCH).unwrap();
    disk
}

fn block(first: u64, count: u64) -> Block {
    let mut body = Vec::new();
    for sequence in first..first + count {
        let due = SystemTime::UNIX_EPOCH + Duration::from_secs(sequence);
        let record = ProbeResult {
            check_name: "a".into(),
            run: sequence - 1,
            run_count: 1,
            sequence,
            sequence_count: 1,
            outcome: Outcome::Passed.into(),
            due_time: Some(Timestamp::from(due)),
            ..ProbeResult::default()
        };
        record.encode_length_delimited(&mut body).unwrap();
    }
    Block { session: "s".into(), first, last: first + count - 1, count, body: body.into() }
}

/// All records of the session, which have to follow one another in sequences and runs.
fn records_of(disk: &Disk) -> Vec<ProbeResult> {
    let blocks = disk.read("s", 0, usize::MAX).unwrap();
    let records: Vec<_> = blocks.into_iter().flat_map(|(_, body)| records(body.unwrap())).map(|record| record.unwrap().0).collect();
    let (mut sequence, mut run) = (0, 0);
    for record in &records {
        assert_eq!((record.sequence - record.sequence_count, record.run), (sequence, run));
        (sequence, run) = (record.sequence, run + record.run_count);
    }
    records
}

fn trim(disk: &mut Disk, after: u64, bytes: u64, through: u64) -> u64 {
    let trims = vec![Trim { session: "s".into(), after, bytes, through }];
    let written = disk.apply(&[("c", &Changes { trims, ..Changes::default() })], SystemTime::UNIX_EPOCH).unwrap();
    written[0].lanes[0].3
}

#[test]
fn the_oldest_that_were_never_sent_become_one_range_and_later_ones_join_it() {
    let mut disk = journal(10, 20);
    assert_eq!(trim(&mut disk, 20, 0, 60), 40);
    let kept = records_of(&disk);
    assert_eq!((kept.len(), kept[20].reason(), kept[20].run_count, kept[20].sequence_count), (20 + 1 + 140, Reason::JournalFull, 40, 40));
    assert_eq!(trim(&mut disk, 20, 0, 100), 40);
    assert_eq!((records_of(&disk).len(), records_of(&disk)[20].run_count), (20 + 1 + 100, 80));
    assert_eq!(trim(&mut disk, 20, 0, 100), 0, "accounts alone are left as they are");
}

#[test]
fn as_many_bytes_go_as_have_to() {
    let mut disk = journal(10, 20);
    let before = disk.lanes["s"].bytes;
    trim(&mut disk, 0, before / 2, 0);
    let after = disk.lanes["s"].bytes;
    assert!(after < before * 6 / 10 && after > before * 3 / 10, "{before} {after}");
    assert_eq!(disk.lanes["s"].records as usize, records_of(&disk).len());
}

#[test]
fn a_full_disk_gets_room_from_what_was_never_sent() {
    let mut disk = journal(40, 1000);
    let pages: i64 = disk.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    disk.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
    let more = Changes { blocks: vec![block(40_001, 10_000)], ..Changes::default() };
    let refused = disk.apply(&[("c", &more)], SystemTime::UNIX_EPOCH).unwrap_err();
    assert!(sqlite::is_full(&refused), "{refused}");
    assert_eq!(records_of(&disk).len(), 40_000, "nothing is half written");
    let mut rounds = 0;
    while disk.apply(&[("c", &more)], SystemTime::UNIX_EPOCH).is_err() {
        assert!(disk.make_room(SystemTime::UNIX_EPOCH).unwrap().is_some());
        rounds += 1;
    }
    let kept = records_of(&disk);
    assert!(rounds > 0 && kept.len() < 50_000);
    assert!(kept[..2 * 8192].iter().all(|record| record.outcome() == Outcome::Passed), "what may have been sent is left alone");
    assert_eq!(kept.last().map(|record| record.sequence), Some(50_000));
}

#[test]
fn bytes_that_flipped_cost_their_block_and_no_other() {
    let disk = journal(3, 5);
    disk.connection.execute("UPDATE blocks SET body = zeroblob(length(body)) WHERE first = 6", []).unwrap();
    let blocks = disk.read("s", 0, usize::MAX).unwrap();
    assert_eq!(blocks.iter().map(|(last, body)| (*last, body.is_some())).collect::<Vec<_>>(), [(5, true), (10, false), (15, true)]);
}

#[test]
fn what_is_acknowledged_or_forgotten_leaves_nothing() {
    let mut disk = journal(3, 5);
    let acknowledged = [("s".to_owned(), 12)].into();
    let written = disk.apply(&[("c", &Changes { acknowledged, ..Changes::default() })], SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(written[0].lanes[0].1, 5, "whole blocks go");
    let stored: Vec<StoredClient> = disk.load(Sync::Full).unwrap();
    assert_eq!((stored[0].lanes[0].acknowledged, stored[0].lanes[0].last, stored[0].lanes[0].records), (12, 15, 5));
    disk.apply(&[("c", &Changes { forget: true, ..Changes::default() })], SystemTime::UNIX_EPOCH).unwrap();
    assert!(disk.load(Sync::Full).unwrap().is_empty() && disk.lanes.is_empty());
}

#[test]
fn a_damaged_order_is_left_out_and_the_others_stand() {
    let mut disk = journal(0, 0);
    let placed = |id| (id, Placement { start: Default::default(), anchor_ns: 5, first_run: 0, end: None });
    disk.apply(&[("c", &Changes { placed: vec![placed(1), placed(2)], ..Changes::default() })], SystemTime::UNIX_EPOCH).unwrap();
    disk.connection.execute("UPDATE orders SET anchor_ns = 6 WHERE id = 1", []).unwrap();
    let stored = disk.load(Sync::Full).unwrap();
    assert_eq!(stored[0].orders.iter().map(|order| order.id).collect::<Vec<_>>(), [2]);
}

#[test]
fn another_life_of_the_machine_leaps_over_what_may_have_been_lost() {
    let mut disk = journal(1, 5);
    assert_eq!(disk.load(Sync::Normal).unwrap()[0].lanes[0].gap, 0);
    assert_eq!(disk.load(Sync::Normal).unwrap()[0].lanes[0].gap, 0, "only the process was new");
    disk.connection.execute("UPDATE life SET boot = 'before'", []).unwrap();
    assert_eq!(disk.load(Sync::Full).unwrap()[0].lanes[0].gap, 1 << 32);
    disk.connection.execute("UPDATE life SET boot = 'before'", []).unwrap();
    assert_eq!(disk.load(Sync::Full).unwrap()[0].lanes[0].gap, 0, "it was asked to survive that");
}
