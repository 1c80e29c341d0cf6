//! How fast the store takes results, beside a bare loop that inserts the same bytes; and how fast it answers over what it has.
//!
//! `cargo bench -p vantage-manager --bench store`; `VANTAGE_BENCH_RESULTS` says how many results (default 1,000,000), `TMPDIR` on which disk.
#![expect(clippy::unwrap_used, reason = "a benchmark that can't go on has nothing to say")]
#![expect(clippy::print_stdout, reason = "the figures are what a benchmark is for")]

use std::{path::Path, sync::Arc, thread, time::Duration};

use prost::Message as _;
use rusqlite::Connection;
use vantage_contract::v1::{Check, Outcome, Phase, ProbeResult};
use vantage_daemon::{clock, data::Folder};
use vantage_manager::{
    cli::{Cli, Command},
    config, plan,
    store::{Order, Query, Settings, SqliteStore, Store as _},
};

/// What a link takes at once.
const BATCH: u64 = 256;
const CHECKS: u64 = 1000;

fn order(check: u64) -> Order {
    let every = prost_types::Duration { seconds: 1, nanos: 0 };
    let check = Check { name: format!("check-{check}"), interval: Some(every), ..Check::default() };
    Order { start: plan::order(&check), timeout: Duration::from_secs(5) }
}

/// A result as a monitor sends it: of so many checks at one a second each.
fn result(monitor: &str, number: u64, checks: u64, revisions: &[String], start: i64) -> ProbeResult {
    let (check, run) = (number % checks, number / checks);
    let nanos = |nanos| Some(prost_types::Duration { seconds: 0, nanos });
    let due = prost_types::Timestamp { seconds: start + run.cast_signed(), nanos: (check * 1000) as i32 };
    ProbeResult {
        check_name: format!("check-{check}"),
        kind: "some".into(),
        target: format!("host-{check}.example.net"),
        revision: revisions[check as usize].clone(),
        run,
        run_count: 1,
        monitor: monitor.into(),
        session: "5ac863a0799b8097".into(),
        sequence: number + 1,
        sequence_count: 1,
        due_time: Some(due),
        start_time: Some(due),
        lateness: nanos(150_000),
        outcome: Outcome::Passed.into(),
        address: "192.0.2.17".into(),
        duration: nanos(71_340_000),
        latency: nanos(71_300_000),
        phases: vec![Phase { name: "resolve".into(), duration: nanos(40_000) }, Phase { name: "wait".into(), duration: nanos(71_300_000) }],
        // In the place of a report, which the manager does not look into: as many bytes.
        summary: "192.0.2.17 answered 3 of 3, mean 71.3 ms".into(),
        ..ProbeResult::default()
    }
}

fn tell(what: &str, count: u64, took: Duration) -> f64 {
    let rate = count as f64 / took.as_secs_f64();
    println!("{what:64} {count:>9} in {:>7.3} s: {rate:>9.0} a second", took.as_secs_f64());
    rate
}

/// The processor time of this process so far.
fn busy() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok());
    // USER_HZ is 100 on all of Linux.
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

fn stored(folder: &Path, count: u64, checks: u64, writers: u64) -> f64 {
    let orders: Vec<_> = (0..checks).map(order).collect();
    let revisions: Vec<_> = orders.iter().map(|order| order.start.revision.clone()).collect();
    let store = Arc::new(SqliteStore::open(Some(Folder::open(folder).unwrap()), Settings::new("bench")).unwrap());
    let now = clock::wall();
    let start = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs().cast_signed() - (count / checks / writers).cast_signed() - 1;
    for writer in 0..writers {
        store.restate(&format!("m{writer}"), &orders, &[], now - Duration::from_secs(count / checks / writers + 1)).unwrap();
    }
    let (began, before) = (clock::monotonic(), busy());
    let writers: Vec<_> = (0..writers)
        .map(|writer| {
            let (store, revisions, share) = (Arc::clone(&store), revisions.clone(), count / writers);
            thread::spawn(move || {
                let monitor = format!("m{writer}");
                for batch in 0..share / BATCH {
                    let batch =
                        (batch * BATCH..(batch + 1) * BATCH).map(|number| result(&monitor, number, checks, &revisions, start)).collect();
                    assert_eq!(store.append(batch).unwrap().new.len() as u64, BATCH);
                }
                share / BATCH * BATCH
            })
        })
        .collect();
    let count = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
    let (took, worked) = (began.elapsed(), busy() - before);
    let rate = tell(&format!("  of {checks} checks"), count, took);
    tell("    by processor time, with the making of the results", count, worked);
    println!("    {} bytes each on the disk", store.usage().bytes / store.usage().result_count.max(1));
    rate
}

/// A table of blobs with an index by time, as plain as can be.
fn bare(folder: &Path, count: u64) -> f64 {
    let mut db = Connection::open(folder.join("bare.db")).unwrap();
    db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
    db.pragma_update(None, "synchronous", "FULL").unwrap();
    db.execute_batch("CREATE TABLE result (id INTEGER PRIMARY KEY, due INTEGER, bytes BLOB); CREATE INDEX by_due ON result (due)").unwrap();
    let revisions = vec!["0123456789abcdef".to_owned(); CHECKS as usize];
    let began = clock::monotonic();
    for batch in 0..count / BATCH {
        let change = db.transaction().unwrap();
        {
            let mut insert = change.prepare_cached("INSERT INTO result (due, bytes) VALUES (?1, ?2)").unwrap();
            for number in batch * BATCH..(batch + 1) * BATCH {
                insert.execute((number.cast_signed(), result("m", number, CHECKS, &revisions, 0).encode_to_vec())).unwrap();
            }
        }
        change.commit().unwrap();
    }
    tell("bare loop: encode, insert, index by time, 256 a commit", count / BATCH * BATCH, began.elapsed())
}

fn main() {
    let count = std::env::var("VANTAGE_BENCH_RESULTS").ok().and_then(|count| count.parse().ok()).unwrap_or(1_000_000);
    let folder = tempfile::tempdir().unwrap();
    let bare = bare(folder.path(), count);
    println!("store: each result once, by session, series, ledger and time, batches of {BATCH}");
    let few = stored(&folder.path().join("few"), count, 100, 1);
    let one = stored(&folder.path().join("one"), count, CHECKS, 1);
    println!("  four links at once");
    let four = stored(&folder.path().join("four"), count, CHECKS, 4);
    println!("  as a share of the bare loop: {:.2} and {:.2}, with four links {:.2}", few / bare, one / bare, four / bare);

    let folder = folder.path().join("one");
    let store = SqliteStore::open(Some(Folder::open(&folder).unwrap()), Settings::new("bench")).unwrap();
    let began = clock::monotonic();
    let newest = |check: u64| Query { check: Some(format!("check-{check}")), monitor: Some("m0".into()), limit: 40 };
    let found = (0..CHECKS).map(|check| store.recent(&newest(check)).unwrap().len() as u64).sum();
    tell("the newest 40 of each of 1000 checks, as for the page", found, began.elapsed());
    let line = format!("vantage-manager account --by none --data {}", folder.display());
    let Some(Command::Account(arguments)) = Cli::read(line.split(' ')).unwrap().command else { return };
    let began = clock::monotonic();
    let judge = |_: &_| Ok(Duration::ZERO);
    config::tell(&Command::Account(arguments), &judge, &mut std::io::stdout()).unwrap();
    tell("account of all that", count, began.elapsed());
}
