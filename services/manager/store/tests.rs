//! The laws of the store: each result once, all or nothing, the same after a restart.

use std::{
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use proptest::prelude::*;
use vantage_contract::v1::{Check, Outcome, ProbeResult, Reason, StoredSession};
use vantage_daemon::data::Folder;

use super::{Appended, Keep, Order, Query, Settings, Standing, Store, StoreError, row, schema::FILE, sqlite::SqliteStore};
use crate::{
    fabric::{duration, result},
    plan,
};

/// Where time stands still in these tests: 2026-11-22, 12:00 UTC.
fn noon() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_348_800)
}

fn at(seconds: i64) -> SystemTime {
    if seconds < 0 { noon() - Duration::from_secs(seconds.unsigned_abs()) } else { noon() + Duration::from_secs(seconds.unsigned_abs()) }
}

fn settings() -> Settings {
    Settings { clock: noon, ..Settings::new("client") }
}

fn memory(keep: Keep) -> SqliteStore {
    SqliteStore::open(None, Settings { keep, ..settings() }).unwrap()
}

fn on_disk(path: &Path) -> SqliteStore {
    SqliteStore::open(Some(Folder::open(path).unwrap()), settings()).unwrap()
}

/// A run of the check, due every 10 s, the first one at noon.
fn ran(check: &str, sequence: u64, run: u64) -> ProbeResult {
    let due = at(10 * run.cast_signed()).into();
    ProbeResult { run, due_time: Some(due), revision: order(check).start.revision, ..result(check, sequence, Outcome::Passed) }
}

fn order(check: &str) -> Order {
    let check = Check { name: check.into(), interval: Some(duration(10.0)), ..Check::default() };
    Order { start: plan::order(&check), timeout: Duration::from_secs(2) }
}

fn sequences<'a>(results: impl IntoIterator<Item = &'a Arc<ProbeResult>>) -> Vec<u64> {
    results.into_iter().map(|result| result.sequence).collect()
}

fn all(store: &SqliteStore) -> Vec<Arc<ProbeResult>> {
    store.recent(&Query { limit: usize::MAX, ..Query::default() }).unwrap()
}

fn query(check: Option<&str>, limit: usize) -> Query {
    Query { check: check.map(Into::into), limit, ..Query::default() }
}

#[test]
fn what_is_stored_already_is_not_stored_again() {
    let store = memory(Keep::default());
    assert_eq!(store.append(vec![ran("a", 1, 0), ran("a", 2, 1)]).unwrap().new.len(), 2);
    let again = store.append(vec![ran("a", 2, 1), ran("a", 3, 2)]).unwrap();
    assert_eq!((sequences(&again.new), again.duplicate_count), (vec![3], 1));
    assert_eq!(store.stored_sessions("m").unwrap(), [StoredSession { session: "s".into(), sequence: 3 }]);
    assert!(store.stored_sessions("other").unwrap().is_empty());
}

#[test]
fn a_hole_is_reported_and_what_has_no_place_is_left_out() {
    let store = memory(Keep::default());
    let unnumbered = ProbeResult { session: String::new(), ..ran("a", 5, 4) };
    let Appended { new, gaps, misnumbered_count, .. } = store.append(vec![ran("a", 7, 1), ran("a", 10, 2), unnumbered]).unwrap();
    assert_eq!((new.len(), misnumbered_count), (2, 1));
    assert_eq!((gaps.len(), gaps[0].after, gaps[0].missing_count), (1, 7, 2), "an unknown session may begin anywhere");
}

#[test]
fn a_record_for_several_sequences_follows_the_one_before_them() {
    let store = memory(Keep::default());
    let range = |sequence, sequence_count| ProbeResult { sequence_count, ..ran("a", sequence, sequence) };
    let appended = store.append(vec![range(1, 1), range(9, 8), range(12, 6)]).unwrap();
    assert_eq!((appended.new.len(), appended.gaps.len()), (3, 0), "one that overlaps accounts for the rest");
}

#[test]
fn the_newest_come_first_by_when_they_were_due_and_then_by_arrival() {
    let store = memory(Keep::default());
    store.append(vec![ran("a", 1, 7), ran("b", 2, 7), ran("a", 3, 9), ran("b", 4, 2)]).unwrap();
    assert_eq!(sequences(&store.recent(&query(None, 3)).unwrap()), [3, 2, 1]);
    assert_eq!(sequences(&store.recent(&query(Some("b"), 10)).unwrap()), [2, 4]);
    let nobody = Query { monitor: Some("n".into()), ..query(Some("b"), 10) };
    assert!(store.recent(&nobody).unwrap().is_empty());
}

#[test]
fn the_newest_of_a_line_are_those_of_the_whole_store_before_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = on_disk(folder.path());
    let line = |limit| Query { monitor: Some("m".into()), ..query(Some("a"), limit) };
    let checks = ["a", "b", "c"];
    for sequence in 1..=300u64 {
        // Runs come in no order: 7 and 300 have no common divisor.
        store.append(vec![ran(checks[sequence as usize % 3], sequence, sequence * 7 % 300)]).unwrap();
        if sequence == 150 {
            assert_eq!(store.recent(&line(40)).unwrap(), store.recent(&query(Some("a"), 40)).unwrap());
        }
    }
    for limit in [1, 40, 64, 65, 1000] {
        assert_eq!(store.recent(&line(limit)).unwrap(), store.recent(&query(Some("a"), limit)).unwrap());
    }
    drop(store);
    store = on_disk(folder.path());
    assert_eq!(store.recent(&line(64)).unwrap(), store.recent(&query(Some("a"), 64)).unwrap());
}

#[test]
fn what_comes_out_is_what_went_in() {
    let store = memory(Keep::default());
    let whole = ProbeResult {
        kind: "ping".into(),
        target: "localhost".into(),
        labels: [("site".to_owned(), "x".to_owned())].into(),
        outcome: Outcome::Failed.into(),
        reason: Reason::TimedOut.into(),
        summary: "no answer".into(),
        run_count: u64::MAX,
        ..ran("a", u64::MAX, u64::MAX >> 8)
    };
    store.append(vec![whole.clone()]).unwrap();
    assert_eq!(*all(&store)[0], whole);
}

#[test]
fn a_store_that_is_opened_again_knows_what_it_knew() {
    let folder = tempfile::tempdir().unwrap();
    let store = on_disk(folder.path());
    store.restate("m", &[order("a")], &[], noon()).unwrap();
    store.append(vec![ran("a", 1, 3), ran("a", 2, 4)]).unwrap();
    let (results, usage) = (all(&store), store.usage());
    drop(store);
    let store = on_disk(folder.path());
    assert_eq!(all(&store), results);
    assert_eq!((store.usage().result_count, store.usage().session_count), (usage.result_count, usage.session_count));
    assert_eq!(store.append(vec![ran("a", 2, 4), ran("a", 3, 5)]).unwrap().duplicate_count, 1);
    let standing = store.restate("m", &[order("a")], &[], at(60)).unwrap();
    assert_eq!(standing, [Standing { anchor: Some(noon()), next_run: Some(6), accounted_count: 3 }]);
}

#[test]
fn the_folder_is_held_as_long_as_the_store_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let store = on_disk(folder.path());
    assert!(Folder::open(folder.path()).is_err());
    drop(store);
    assert!(Folder::open(folder.path()).is_ok());
}

#[test]
fn a_damaged_file_is_set_aside_and_work_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    on_disk(folder.path()).append(vec![ran("a", 1, 0)]).unwrap();
    let file = folder.path().join(FILE);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[..100].fill(0x55);
    std::fs::write(&file, bytes).unwrap();
    let store = on_disk(folder.path());
    assert!(all(&store).is_empty());
    assert_eq!(store.append(vec![ran("a", 1, 0)]).unwrap().new.len(), 1);
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().any(|name| name.to_string_lossy().starts_with("results.db.damaged-2026-11-22T120000Z")), "{names:?}");
}

#[test]
fn a_file_of_the_first_version_opens() {
    // As the first release wrote it; later ones add migrations, and this stays.
    let folder = tempfile::tempdir().unwrap();
    let first = vantage_daemon::sqlite::Schema { migrations: &super::schema::SCHEMA.migrations[..1], ..super::schema::SCHEMA };
    let opened = vantage_daemon::sqlite::open(Some(&folder.path().join(FILE)), first, vantage_daemon::sqlite::Sync::Full, noon()).unwrap();
    let rows =
        "INSERT INTO series VALUES (1, 'm', 'a', 'r', x'0a0161420172', 0); INSERT INTO session VALUES (1, 'm', 's', 7, NULL, 0, 0, 0);
                INSERT INTO result VALUES (1, 1, NULL, 1, 7, 5, 3, 1, 1, 0, x''); UPDATE meta SET value = 1 WHERE name = 'result_count'";
    opened.connection.execute_batch(rows).unwrap();
    drop(opened);
    let store = on_disk(folder.path());
    let [result] = <[_; 1]>::try_from(all(&store)).unwrap();
    assert_eq!((result.check_name.as_str(), result.session.as_str(), result.sequence, result.run), ("a", "s", 7, 3));
}

#[test]
fn a_full_disk_stores_nothing_of_a_batch_says_so_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = on_disk(folder.path());
    let pages =
        |store: &SqliteStore, count: &'static str| store.on_writer(move |db| db.pragma_update(None, "max_page_count", count)).unwrap();
    store.append(vec![ran("a", 1, 0)]).unwrap();
    pages(&store, "1");
    let batch: Vec<_> = (1..3000).map(|sequence| ProbeResult { summary: "x".repeat(200), ..ran("a", sequence, sequence - 1) }).collect();
    let error = store.append(batch.clone()).unwrap_err();
    assert!(matches!(&error, StoreError::Failed { cause, .. } if cause.contains("no room")), "{error}");
    assert_eq!((sequences(&all(&store)), store.usage().result_count), (vec![1], 1));
    assert_eq!(store.stored_sessions("m").unwrap()[0].sequence, 1);
    pages(&store, "1000000");
    assert_eq!(store.append(batch).unwrap().new.len(), 2998);
    assert_eq!(store.usage().result_count, 2999);
}

#[test]
fn batches_that_come_together_are_each_answered_with_their_own() {
    let store = Arc::new(memory(Keep::default()));
    let writers = (0..8).map(|monitor| {
        let store = Arc::clone(&store);
        thread::spawn(move || {
            for batch in 0..20 {
                let batch: Vec<_> = (batch * 5 + 1..=batch * 5 + 5)
                    .map(|sequence| ProbeResult { monitor: format!("m{monitor}"), ..ran("a", sequence, sequence - 1) })
                    .collect();
                let new = store.append(batch.clone()).unwrap().new;
                assert!(new.iter().map(Arc::as_ref).eq(batch.iter()));
            }
        })
    });
    writers.collect::<Vec<_>>().into_iter().for_each(|writer| writer.join().unwrap());
    assert_eq!((store.usage().result_count, store.usage().session_count), (800, 8));
}

#[test]
fn what_is_too_old_goes_and_sessions_stay_known() {
    let store = memory(Keep { age: Duration::from_secs(3600), ..Keep::default() });
    let old = |sequence| ProbeResult { due_time: Some(at(-7200).into()), ..ran("a", sequence, 0) };
    store.append((1..=5000).map(old).chain([ran("a", 5001, 0)]).collect()).unwrap();
    // What is asked next is done after the step that is under way.
    while store.usage().evicted_count < 5000 {
        all(&store);
    }
    assert_eq!((sequences(&all(&store)), store.usage().result_count), (vec![5001], 1));
    assert_eq!(store.append(vec![ran("a", 5001, 0)]).unwrap().duplicate_count, 1);
    assert_eq!(store.on_writer(super::retention::horizon).unwrap(), row::nanos(at(-7200)));
}

#[test]
fn what_is_too_much_goes_oldest_first_and_is_counted() {
    let keep = Keep { bytes: 1 << 20, ..Keep::default() };
    let store = memory(keep);
    for batch in 0..40 {
        let large = |sequence| ProbeResult { summary: "x".repeat(1000), ..ran("a", sequence, sequence - 1) };
        store.append((batch * 100 + 1..=batch * 100 + 100).map(large).collect()).unwrap();
    }
    while store.usage().bytes > keep.bytes {
        all(&store);
    }
    let (usage, kept) = (store.usage(), sequences(&all(&store)));
    assert!(kept.len() > 300 && kept.iter().rev().copied().eq(4001 - kept.len() as u64..=4000), "the newest, without a hole");
    assert_eq!((usage.result_count, usage.result_count + usage.evicted_count), (kept.len() as u64, 4000));
}

#[test]
fn with_a_range_goes_the_account_of_all_its_runs() {
    let store = memory(Keep { age: Duration::from_secs(3600), ..Keep::default() });
    store.restate("m", &[order("a")], &[], at(-9000)).unwrap();
    let down = ProbeResult { run_count: 30, due_time: Some(at(-7200).into()), outcome: Outcome::Skipped.into(), ..ran("a", 1, 0) };
    store.append(vec![down]).unwrap();
    while store.usage().evicted_count < 1 {
        all(&store);
    }
    assert_eq!(store.on_writer(super::retention::horizon).unwrap(), row::nanos(at(-7200 + 290)));
}

#[test]
fn sessions_that_have_results_are_never_forgotten() {
    let store = memory(Keep::default());
    let of = |session: u64| ProbeResult { session: format!("s{session}"), ..ran("a", 1, session) };
    store.append((0..1000).map(of).collect()).unwrap();
    assert_eq!(store.append((0..1000).map(of).collect()).unwrap().duplicate_count, 1000);
    assert_eq!(store.stored_sessions("m").unwrap().len(), 100);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn however_a_monitor_resends_and_the_manager_restarts_each_record_is_stored_once(
        resumes in prop::collection::vec((0u64..30, 1u64..20, 1usize..9, any::<bool>()), 1..12),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut store = on_disk(folder.path());
        store.restate("m", &[order("a")], &[], noon()).unwrap();
        let (mut sent, mut new) = (0, Vec::new());
        for (back, forward, split, restarts) in resumes {
            let from = sent - back.min(sent);
            let batch: Vec<_> = (from + 1..=from + forward).map(|sequence| ran("a", sequence, sequence - 1)).collect();
            for part in batch.chunks(split) {
                new.extend(sequences(&store.append(part.to_vec()).unwrap().new));
            }
            sent = sent.max(from + forward);
            if restarts {
                drop(store);
                store = on_disk(folder.path());
            }
        }
        prop_assert_eq!(new, (1..=sent).collect::<Vec<_>>());
        prop_assert_eq!(sequences(all(&store).iter().rev()), (1..=sent).collect::<Vec<_>>());
        prop_assert_eq!(store.stored_sessions("m").unwrap()[0].sequence, sent);
        let standing = store.restate("m", &[order("a")], &[], noon()).unwrap();
        prop_assert_eq!(&standing[0], &Standing { anchor: Some(noon()), next_run: Some(sent), accounted_count: sent });
    }
}
