//! What is kept, as it is shown.

use std::path::Path;

use jiff::tz::TimeZone;
use vantage_contract::v1::{Outcome, Reason};
use vantage_daemon::data::Folder;

use super::*;
use crate::{
    cli::{Cli, Command},
    fabric,
    store::{Settings, SqliteStore, Store as _},
};

fn arguments(line: &str) -> Result<Arguments, Exit> {
    match Cli::read(format!("vantage-manager results {line}").split_whitespace())?.command {
        Some(Command::Results(arguments)) => Ok(arguments),
        other => panic!("{other:?}"),
    }
}

/// Ten results a minute apart, from 2026-11-22T08:00:00Z on: every third failed; of "b" from the sixth on.
fn filled(folder: &Path) -> SqliteStore {
    let store = SqliteStore::open(Some(Folder::open(folder).unwrap()), Settings::new("client")).unwrap();
    let result = |number: u64| {
        let failed = number.is_multiple_of(3);
        let due = prost_types::Timestamp { seconds: 1_795_334_400 + 60 * number.cast_signed(), nanos: 0 };
        ProbeResult {
            due_time: Some(due),
            reason: if failed { Reason::TimedOut.into() } else { 0 },
            summary: if failed { "no answer, \"really\"\nnone".into() } else { String::new() },
            latency: (!failed).then_some(prost_types::Duration { seconds: 1, nanos: 500 }),
            ..fabric::result(if number < 6 { "a" } else { "b" }, number + 1, if failed { Outcome::Failed } else { Outcome::Passed })
        }
    };
    store.append((0..10).map(result).collect()).unwrap();
    store
}

fn shown(folder: &Path, line: &str) -> String {
    let arguments = arguments(&format!("--data {} {line}", folder.display())).unwrap();
    let db = open(arguments.data.as_ref()).unwrap();
    let output = if arguments.output == Form::Json { Output::Json } else { Output::Text };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_334_400 + 600);
    let mut text = Vec::new();
    show(&db, &arguments, &Style { output, colour: false, zone: TimeZone::UTC }, now, &mut text).unwrap();
    String::from_utf8(text).unwrap()
}

/// The sequences of the results that are shown.
fn sequences(folder: &Path, line: &str) -> Vec<u64> {
    let json = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    shown(folder, &format!("{line} --output json")).lines().map(|line| json(line)["sequence"].as_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn results_are_selected_by_what_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let _running = filled(folder.path());
    for (line, expected) in [
        ("", vec![10, 9, 8, 7, 6, 5, 4, 3, 2, 1]),
        ("--limit 2", vec![10, 9]),
        ("--limit 2 --oldest-first", vec![1, 2]),
        ("--check a --limit 2", vec![6, 5]),
        ("--check c", vec![]),
        ("--monitor m --outcome failed --limit 0", vec![10, 7, 4, 1]),
        ("--reason timed_out --check b", vec![10, 7]),
        ("--since 3m", vec![10, 9, 8]),
        ("--until 3m --since 2026-11-22T08:05:00Z", vec![7, 6]),
        ("--since 2026-11-22T09:00:00+01:00 --until 2026-11-22T08:01:00Z", vec![1]),
    ] {
        assert_eq!(sequences(folder.path(), line), expected, "{line}");
    }
}

#[test]
fn text_is_as_the_running_manager_prints_it() {
    let folder = tempfile::tempdir().unwrap();
    drop(filled(folder.path()));
    let text = shown(folder.path(), "--limit 2");
    let lines = "[2026-11-22 08:09:00] [unknown] [failed: timed_out] [b@m: no answer, \"really\"\\nnone]\n[2026-11-22 08:08:00] [unknown] [passed] [b@m: ";
    assert!(text.starts_with(lines), "{text}");
}

#[test]
fn csv_has_a_header_and_quotes_what_would_break_it() {
    let folder = tempfile::tempdir().unwrap();
    drop(filled(folder.path()));
    let text = shown(folder.path(), "--output csv --limit 2");
    let mut records = text.split("\r\n");
    assert!(records.next().unwrap().starts_with("due_time,start_time,check_name,monitor,kind,target,outcome,reason,"));
    let failed = "2026-11-22T08:09:00Z,,b,m,,,failed,timed_out,,9,1,,,,,,s,10,\"no answer, \"\"really\"\"\nnone\"";
    assert_eq!(records.next(), Some(failed));
    assert_eq!(records.next(), Some("2026-11-22T08:08:00Z,,b,m,,,passed,,,8,1,1.000000500,,,,,s,9,"));
}

#[test]
fn many_results_come_page_by_page_each_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(folder.path());
    // All due at once: their order is that of arrival.
    let due = Some(prost_types::Timestamp { seconds: 1_795_335_000, nanos: 0 });
    let batch = (11..=1500).map(|sequence| ProbeResult { due_time: due, ..fabric::result("c", sequence, Outcome::Passed) });
    store.append(batch.collect()).unwrap();
    assert_eq!(sequences(folder.path(), "--limit 0 --oldest-first"), (1..=1500).collect::<Vec<_>>());
    assert_eq!(sequences(folder.path(), "--limit 0"), (1..=1500).rev().collect::<Vec<_>>());
}

#[test]
fn a_reader_that_had_enough_is_no_error() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let folder = tempfile::tempdir().unwrap();
    drop(filled(folder.path()));
    let arguments = arguments(&format!("--data {}", folder.path().display())).unwrap();
    assert_eq!(tell(&arguments, &mut Closed), Ok(Exit::Ok));
}

#[test]
fn where_there_is_no_store_it_is_said_and_none_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let gone = folder.path().join("x");
    let error = open(Some(&Data::Folder(gone.clone()))).unwrap_err();
    assert!(error.exit == Exit::Config && error.message.contains("there is no store at") && !gone.exists(), "{error}");
    std::fs::write(
        folder.path().join(FILE),
        "something else altogether, longer than a header of SQLite would be, which is 100 bytes long in all.",
    )
    .unwrap();
    assert_eq!(open(Some(&Data::Folder(folder.path().into()))).unwrap_err().exit, Exit::OsError);
    assert_eq!(open(Some(&Data::Memory)).unwrap_err().exit, Exit::Usage);
}

#[test]
fn slips_are_told_by_their_exit_code() {
    for wrong in [
        "--outcome well",
        "--outcome unspecified",
        "--reason none",
        "--since yesterday",
        "--until 5",
        "--limit -1",
        "--output xml",
        "--once",
    ] {
        assert_eq!(arguments(wrong).unwrap_err(), Exit::Usage, "{wrong}");
    }
    assert_eq!(arguments("--help").unwrap_err(), Exit::Ok);
}
