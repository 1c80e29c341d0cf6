use std::time::Duration;

use prost_types::Timestamp;
use vantage_contract::v1::{Check, Outcome, ProbeResult, Reason, Start};
use vantage_daemon::clock;

use super::*;
use crate::{
    journal::{Placement, StoredClient},
    ledger::Ledger,
};

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
    let trims = vec![Trim { session: "s".into(), after, bytes, through, coarse: false }];
    let written = disk.apply(&[("c", &Changes { trims, ..Changes::default() })], SystemTime::UNIX_EPOCH).unwrap();
    written[0].lanes[0].lost_runs
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
fn accounts_that_nothing_makes_smaller_are_not_read_again_and_again() {
    let mut disk = journal(0, 0);
    let (block_bytes, mut sequence, mut most) = (20_000, 0, 0);
    for _ in 0..64 {
        // Runs of an order each, as those for once are.
        let mut body = Vec::new();
        let first = sequence + 1;
        while body.len() < block_bytes {
            sequence += 1;
            let check_name = sequence.to_string();
            let said = (sequence, 1, Outcome::Passed.into(), "x".repeat(100));
            let (sequence, sequence_count, outcome, summary) = said;
            let record = ProbeResult { check_name, sequence, sequence_count, outcome, summary, ..ProbeResult::default() };
            record.encode_length_delimited(&mut body).unwrap();
        }
        let block = Block { session: "s".into(), first, last: sequence, count: sequence + 1 - first, body: body.into() };
        disk.apply(&[("c", &Changes { blocks: vec![block], ..Changes::default() })], SystemTime::UNIX_EPOCH).unwrap();
        let before: i64 = disk.connection.query_row("SELECT count(*) FROM blocks WHERE settled", [], |row| row.get(0)).unwrap();
        assert_eq!(trim(&mut disk, 0, 1, 0), sequence + 1 - first);
        most = most.max(before);
    }
    assert!((4..=12).contains(&most), "{most} blocks of accounts");
    let blocks = disk.read("s", 0, usize::MAX).unwrap();
    let told: Vec<_> = blocks.into_iter().flat_map(|(_, body)| records(body.unwrap())).map(|record| record.unwrap().0).collect();
    assert_eq!(told.iter().map(|record| record.check_name.parse().unwrap()).collect::<Vec<u64>>(), (1..=sequence).collect::<Vec<_>>());
    let lane = disk.lanes["s"];
    assert_eq!((lane.bytes, lane.settled, lane.records), (lane.settled, lane.settled, sequence));
    assert_eq!(disk.load(Sync::Full).unwrap()[0].lanes[0].settled, lane.settled);
    assert_eq!(trim(&mut disk, 0, 1, 0), 0, "there is nothing left to drop");
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
    assert_eq!(written[0].lanes[0].records, 5, "whole blocks go");
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
    let standing = |disk: &mut Disk| disk.load(Sync::Full).unwrap()[0].orders.iter().map(|order| order.id).collect::<Vec<_>>();
    disk.connection.execute("UPDATE orders SET anchor_ns = 6 WHERE id = 1", []).unwrap();
    assert_eq!(standing(&mut disk), [2]);
    disk.connection.execute("DELETE FROM starts WHERE id = 2", []).unwrap();
    assert!(standing(&mut disk).is_empty());
}

/// An order whose check has a label of so many bytes.
fn labelled(length: usize) -> Placement {
    let labels = [("x".to_owned(), "y".repeat(length))].into();
    let start = Start { check: Some(Check { labels, ..Check::default() }), ..Start::default() };
    Placement { start, anchor_ns: 5, first_run: 0, end: None }
}

#[test]
fn an_order_is_kept_as_it_was_placed_and_what_earlier_versions_kept_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Disk::open(Some(Folder::open(folder.path()).unwrap()), "m", Sync::Full, SystemTime::UNIX_EPOCH);
    let Placement { start, anchor_ns, .. } = labelled(10_000);
    let body = start.encode_to_vec();
    let first = Schema { migrations: &SCHEMA.migrations[..1], ..SCHEMA };
    let before = sqlite::open(Some(&folder.path().join(FILE)), first, Sync::Full, SystemTime::UNIX_EPOCH).unwrap();
    let insert = "INSERT INTO orders (client_id, id, start, digest, anchor_ns, next, open, end) VALUES ('c', 3, ?1, ?2, ?3, 7, 4, 9)";
    before.connection.execute(insert, params![body, digest_of(3, anchor_ns, &body), anchor_ns]).unwrap();
    let kept = block(1, 20);
    before.connection.execute("INSERT INTO lanes (client_id, session, monitor, last) VALUES ('c', 's', 'm', 20)", []).unwrap();
    let insert = "INSERT INTO blocks SELECT id, 1, 20, 20, ?1, 0, ?2, ?3 FROM lanes";
    before.connection.execute(insert, params![signed(kept.body.len() as u64), digest_of(1, 20, &kept.body), &kept.body[..]]).unwrap();
    drop(before.connection);

    let (mut disk, aside) = open().unwrap();
    assert_eq!(aside, None);
    assert_eq!((disk.load(Sync::Full).unwrap()[0].lanes[0].bytes, disk.lanes["s"].settled), (kept.body.len() as u64, 0));
    assert_eq!(records_of(&disk).len(), 20);
    disk.apply(&[("c", &Changes { placed: vec![(4, labelled(5))], ..Changes::default() })], SystemTime::UNIX_EPOCH).unwrap();
    let orders = disk.load(Sync::Full).unwrap().remove(0).orders;
    assert_eq!(orders.iter().map(|order| order.id).collect::<Vec<_>>(), [3, 4]);
    assert_eq!((&orders[0].start, &orders[1].start), (&start, &labelled(5).start));
    assert_eq!((orders[0].ledger, orders[0].end), (Ledger { next: 7, open: Some(4) }, Some(9)));
    disk.apply(&[("c", &Changes { dropped: vec![3, 4], ..Changes::default() })], SystemTime::UNIX_EPOCH).unwrap();
    let left: i64 =
        disk.connection.query_row("SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM starts)", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
}

#[test]
fn a_long_order_does_not_make_the_runs_of_others_dear() {
    let cost = |length| {
        let mut disk = journal(0, 0);
        let placed = (1..=64).map(|id| (id, labelled(if id % 8 == 0 { length } else { 5 }))).collect();
        disk.apply(&[("c", &Changes { placed, ..Changes::default() })], SystemTime::UNIX_EPOCH).unwrap();
        let round = |disk: &mut Disk, next| {
            let begun = clock::monotonic();
            for id in 1..=64 {
                let ledgers = [(id, Ledger { next, open: None })].into();
                disk.apply(&[("c", &Changes { ledgers, ..Changes::default() })], SystemTime::UNIX_EPOCH).unwrap();
            }
            begun.elapsed()
        };
        (1..=5).map(|next| round(&mut disk, next)).min().unwrap()
    };
    let (short, long) = (cost(5), cost(3 << 20));
    assert!(long < short * 5, "{long:?} beside long ones, {short:?} beside short ones");
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
