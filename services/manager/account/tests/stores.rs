//! Accounts of whole stores.

use std::time::{Duration, SystemTime};

use vantage_contract::v1::{Check, Outcome, ProbeResult, Reason, StoredSession};
use vantage_daemon::data::{Data, Folder};

use crate::{
    account::{
        By,
        arithmetic::Tally,
        ledger::{Question, draw_up},
        print::Sheet,
    },
    fabric::{duration, result},
    plan, results,
    store::{Order, Settings, SqliteStore, Store as _, row},
};

/// Second 0 of these tests.
const START: u64 = 1_795_348_800;

fn at(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(START.strict_add_signed(seconds))
}

/// A store on a disk, of monitor "m", with checks that run every 10 s.
struct Shop {
    folder: tempfile::TempDir,
    store: SqliteStore,
    sequence: u64,
}

impl Shop {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { clock: || at(0), ..Settings::new("client") };
        let store = SqliteStore::open(Some(Folder::open(folder.path()).unwrap()), settings).unwrap();
        Self { folder, store, sequence: 0 }
    }

    fn order(check: &str, count: u64) -> Order {
        let check = Check { name: check.into(), interval: Some(duration(10.0)), count, ..Check::default() };
        Order { start: plan::order(&check), timeout: Duration::from_secs(2) }
    }

    fn restate(&self, seconds: i64, checks: &[&str], closed: &[StoredSession]) {
        let orders: Vec<_> = checks.iter().map(|check| Self::order(check, 0)).collect();
        self.store.restate("m", &orders, closed, at(seconds)).unwrap();
    }

    /// Records of runs of an order whose run 0 is due at `anchor`.
    fn ran(&mut self, check: &str, anchor: i64, runs: impl IntoIterator<Item = u64>) {
        for run in runs {
            self.enter(check, anchor, run, |_| {});
        }
    }

    fn enter(&mut self, check: &str, anchor: i64, run: u64, change: impl FnOnce(&mut ProbeResult)) {
        self.sequence += 1;
        let due = Some(at(anchor + 10 * run.cast_signed()).into());
        let revision = Self::order(check, 0).start.revision;
        let mut result = ProbeResult {
            run,
            revision,
            due_time: due,
            start_time: due,
            duration: Some(duration(0.5)),
            ..result(check, self.sequence, Outcome::Passed)
        };
        change(&mut result);
        self.store.append(vec![result]).unwrap();
    }

    fn sheet(&self, since: i64, until: i64, by: Option<By>) -> Sheet {
        let mut db = results::open(Some(&Data::Folder(self.folder.path().into()))).unwrap();
        let question = Question { since: row::nanos(at(since)), until: row::nanos(at(until)), ..Question::default() };
        Sheet::new(draw_up(&mut db, &question).unwrap(), question.until, by)
    }

    fn total(&self, since: i64, until: i64) -> serde_json::Value {
        self.sheet(since, until, None).json()["total"].take()
    }
}

fn assert_counts(total: &serde_json::Value, expected: &[(&str, u64)]) {
    for name in ["planned", "passed", "failed", "undetermined", "awaited", "missing", "duplicates"] {
        let expected = expected.iter().find(|(key, _)| *key == name).map_or(0, |(_, count)| *count);
        assert_eq!(total[name], expected, "{name} of {total}");
    }
}

#[test]
fn each_run_with_its_one_record_is_a_sound_account() {
    let mut shop = Shop::new();
    shop.restate(0, &["a", "b"], &[]);
    shop.ran("a", 3, 0..10);
    shop.ran("b", 5, 0..10);
    assert_counts(&shop.total(0, 100), &[("planned", 20), ("passed", 20)]);
    let sheet = shop.sheet(0, 100, Some(By::Check));
    assert!(sheet.is_sound());
    assert!(
        sheet.text().contains("Runs due from 2026-11-22T12:00:00Z until 2026-11-22T12:01:40Z: each run has its one record.\n"),
        "{}",
        sheet.text()
    );
}

#[test]
fn a_lost_record_is_missing_and_told() {
    let mut shop = Shop::new();
    shop.restate(0, &["a"], &[]);
    shop.ran("a", 3, [0, 1, 2, 4, 5, 6, 7, 8, 9]);
    assert_counts(&shop.total(0, 100), &[("planned", 10), ("passed", 9), ("missing", 1)]);
    let sheet = shop.sheet(0, 100, Some(By::None));
    assert!(!sheet.is_sound() && sheet.text().contains("1 runs have no record"), "{}", sheet.text());
}

#[test]
fn an_order_of_which_nothing_ever_came_is_missing_though_it_has_no_results() {
    let mut shop = Shop::new();
    shop.restate(0, &["a", "silent"], &[]);
    shop.ran("a", 3, 0..20);
    let sheet = shop.sheet(0, 200, Some(By::Check)).json();
    let silent = sheet["rows"].as_array().unwrap().iter().find(|row| row["check"] == "silent").unwrap();
    assert_counts(silent, &[("planned", 19), ("missing", 16), ("awaited", 3)]);
}

#[test]
fn while_an_earlier_session_is_still_to_come_its_runs_are_awaited() {
    let mut shop = Shop::new();
    shop.restate(0, &["a"], &[]);
    shop.ran("a", 3, 0..5);
    // Cut off for five runs; then a new session brings the new ones first.
    shop.restate(100, &["a"], &[StoredSession { session: "s".into(), sequence: 10 }]);
    let before = shop.sequence;
    for run in 10..20 {
        shop.enter("a", 3, run, |result| (result.session, result.sequence) = ("t".into(), run - 9));
    }
    assert_counts(&shop.total(0, 200), &[("planned", 20), ("passed", 15), ("awaited", 5)]);
    shop.sequence = before;
    shop.ran("a", 3, 5..9);
    assert_counts(&shop.total(0, 200), &[("planned", 20), ("passed", 19), ("awaited", 1)]);
    // The session is not said to come any more, and never came to its end.
    shop.restate(200, &["a"], &[]);
    assert_counts(&shop.total(0, 200), &[("planned", 20), ("passed", 19), ("missing", 1)]);
}

#[test]
fn two_lives_of_one_revision_are_told_apart_by_their_anchors() {
    let mut shop = Shop::new();
    shop.restate(0, &["a", "other"], &[]);
    shop.ran("a", 3, 0..5);
    shop.store.change("m", &[], &["a".into()], at(50)).unwrap();
    shop.store.change("m", &[Shop::order("a", 0)], &[], at(100)).unwrap();
    shop.ran("a", 107, 0..5);
    // What was in flight when the first one was stopped.
    shop.ran("a", 3, [5]);
    shop.ran("other", 0, 0..20);
    let sheet = shop.sheet(0, 157, Some(By::Check)).json();
    assert_counts(&sheet["rows"][0], &[("planned", 11), ("passed", 11)]);
}

#[test]
fn an_order_that_the_monitor_placed_anew_by_itself_is_a_new_life_and_what_was_lost_in_between_is_missing() {
    let mut shop = Shop::new();
    shop.restate(0, &["a"], &[]);
    shop.ran("a", 3, 0..5);
    shop.ran("a", 61, 0..4);
    assert_counts(&shop.total(0, 100), &[("planned", 10), ("passed", 9), ("missing", 1)]);
    let standing = shop.store.restate("m", &[Shop::order("a", 0)], &[], at(100)).unwrap();
    assert_eq!((standing[0].anchor, standing[0].next_run), (Some(at(61)), Some(4)));
}

#[test]
fn a_range_from_before_the_span_counts_with_its_runs_in_it() {
    let mut shop = Shop::new();
    shop.restate(0, &["a"], &[]);
    shop.ran("a", 0, 0..2);
    shop.enter("a", 0, 2, |result| {
        (result.run_count, result.outcome, result.reason) = (10, Outcome::Skipped.into(), Reason::MonitorDown.into());
    });
    shop.ran("a", 0, 12..15);
    let total = shop.total(100, 150);
    assert_counts(&total, &[("planned", 5), ("passed", 3)]);
    assert_eq!(total["skipped"], serde_json::json!({"monitor_down": 2}));
}

#[test]
fn records_of_orders_that_nobody_placed_are_told_besides() {
    let mut shop = Shop::new();
    shop.ran("stranger", 0, 0..3);
    let sheet = shop.sheet(0, 100, None);
    assert_eq!(sheet.json()["unordered"], 3);
    assert!(sheet.is_sound() && sheet.text().contains("records of 3 runs of orders"), "{}", sheet.text());
}

#[test]
fn an_order_is_planned_no_further_than_its_count() {
    let shop = Shop::new();
    shop.store.restate("m", &[Shop::order("a", 3)], &[], at(0)).unwrap();
    let mut sequence = 0;
    for run in 0..3u64 {
        sequence += 1;
        let due = Some(at(10 * run.cast_signed()).into());
        let revision = Shop::order("a", 3).start.revision;
        shop.store.append(vec![ProbeResult { run, revision, due_time: due, ..result("a", sequence, Outcome::Passed) }]).unwrap();
    }
    assert_counts(&shop.total(0, 1000), &[("planned", 3), ("passed", 3)]);
}

#[test]
fn rows_add_up_to_the_total() {
    let mut shop = Shop::new();
    shop.restate(0, &["a", "b"], &[]);
    shop.ran("a", 3, 0..4);
    shop.ran("b", 5, [0, 1, 3, 9]);
    let mut db = results::open(Some(&Data::Folder(shop.folder.path().into()))).unwrap();
    let question = Question { since: i64::MIN, until: row::nanos(at(96)), ..Question::default() };
    let account = draw_up(&mut db, &question).unwrap();
    let mut sum = Tally::default();
    account.rows.values().for_each(|tally| sum.add(tally));
    assert_eq!(account.rows.len(), 2);
    assert_eq!((sum.planned, sum.passed, sum.awaited + sum.missing), (20, 8, 12));
}
