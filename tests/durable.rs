//! What outlives what: damaged journals, full disks, bounds, paused programs, cut networks, clocks that are set.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::lab::{
    monitor::{eventually, silent_port},
    netns::Row,
    privilege,
    stage::Stage,
};

/// So many checks of a port that is open.
fn checks(count: usize, port: u16, interval: &str) -> Value {
    let check = |number| json!({ "name": format!("check-{number}"), "interval": interval, "tcp": { "host": "127.0.0.1", "port": port } });
    (0..count).map(check).collect()
}

/// The same, each of whose results takes several KiB.
fn heavy_checks(count: usize, port: u16) -> Value {
    let mut checks = checks(count, port, "100ms");
    let labels: serde_json::Map<String, Value> = (0..20).map(|number| (format!("label_{number}"), json!("x".repeat(200)))).collect();
    checks.as_array_mut().unwrap().iter_mut().for_each(|check| check["labels"] = json!(labels));
    checks
}

async fn until_stored(stage: &Stage, runs: u64) {
    eventually("results are stored", || async { stage.account("2100-01-01T00:00:00Z").await["passed"].as_u64().unwrap() >= runs }).await;
}

/// A monitor that was stopped finds its journal damaged when it starts again.
async fn finds_damaged(damage: fn(&mut Vec<u8>)) {
    let (_target, port) = silent_port().await;
    let mut stage = Stage::set(&checks(3, port, "200ms"), &json!({})).await;
    stage.start_monitor();
    stage.monitor.as_mut().unwrap().says("serving").await;
    stage.start_manager();
    until_stored(&stage, 6).await;
    Stage::drain(&mut stage.monitor).await;
    let file = stage.monitor_data.join("journal.db");
    let mut bytes = fs::read(&file).unwrap();
    damage(&mut bytes);
    fs::write(&file, bytes).unwrap();
    stage.start_monitor();
    let monitor = stage.monitor.as_mut().unwrap();
    monitor.says("the journal was damaged and set aside").await;
    monitor.says("journal.db.damaged-").await;
    monitor.says("serving").await;
    let set_aside = stage.ask("monitor").await["journal"]["set_aside"].as_str().unwrap().to_owned();
    assert!(Path::new(&set_aside).exists(), "{set_aside}");
    let before = stage.account("2100-01-01T00:00:00Z").await["passed"].as_u64().unwrap();
    until_stored(&stage, before + 6).await;
    let account = stage.sound().await;
    assert!(account["skipped"]["expired"].as_u64().unwrap() >= 1, "{account}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_was_cut_in_half_is_set_aside_and_no_run_is_unaccounted_for() {
    finds_damaged(|bytes| bytes.truncate(bytes.len() / 2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_with_another_beginning_is_set_aside_and_no_run_is_unaccounted_for() {
    finds_damaged(|bytes| bytes[..100].fill(0x55)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flipped_bytes_cost_the_results_of_their_block_which_are_told_to_be_missing() {
    let (_target, port) = silent_port().await;
    let mut stage = Stage::play(&checks(3, port, "100ms"), &json!({})).await;
    until_stored(&stage, 6).await;
    Stage::kill(&mut stage.manager).await;
    eventually("results pile up", || async { stage.unacknowledged().await >= 60 }).await;
    Stage::drain(&mut stage.monitor).await;
    let file = stage.monitor_data.join("journal.db");
    let mut bytes = fs::read(&file).unwrap();
    let mark = format!("connected to 127.0.0.1:{port}");
    let places: Vec<usize> = bytes.windows(mark.len()).enumerate().filter(|(_, part)| *part == mark.as_bytes()).map(|(at, _)| at).collect();
    bytes[places[places.len() / 2]] ^= 0x20;
    fs::write(&file, bytes).unwrap();
    stage.start_monitor();
    stage.start_manager();
    stage.monitor.as_mut().unwrap().says("results of the journal are lost: it was damaged").await;
    let account = stage.settled().await;
    let missing = account["missing"].as_u64().unwrap();
    assert!((1..30).contains(&missing) && account["duplicates"] == 0 && account["failed"] == 0, "{account}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_at_its_bound_gives_up_the_oldest_results_and_tells_of_each() {
    let (_target, port) = silent_port().await;
    let mut stage = Stage::play(&heavy_checks(5, port), &json!({ "journal": { "bytes": 65536 } })).await;
    until_stored(&stage, 10).await;
    Stage::kill(&mut stage.manager).await;
    eventually("the oldest make room", || async { stage.skipped("REASON_JOURNAL_FULL").await >= 50 }).await;
    let queue = stage.ask("queues").await["queues"][0].clone();
    let bytes = |field: &str| queue[field].as_str().unwrap().parse::<u64>().unwrap();
    assert!(bytes("journal_bytes") < 8 * bytes("journal_limit_bytes"), "{queue}");
    stage.start_manager();
    let account = stage.sound().await;
    assert!(account["skipped"]["journal_full"].as_u64().unwrap() >= 50, "{account}");
}

/// A small file system of its own, unmounted when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// At this place; none, loudly, without the privilege.
    fn mount(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "tmpfs"]).arg(at).output();
        if mounted.is_ok_and(|mounted| mounted.status.success()) {
            return Some(Self(at.to_owned()));
        }
        privilege::skipped("root, to mount a small file system");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, as a program that was killed may still be about to let go.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_the_monitor_stops_no_measuring_and_costs_only_results() {
    let (_target, port) = silent_port().await;
    let mut stage = Stage::set(&heavy_checks(10, port), &json!({ "journal": { "unwritten_bytes": 262_144 } })).await;
    let Some(_disk) = SmallDisk::mount(&stage.monitor_data, "4m") else { return };
    stage.start_monitor();
    stage.start_manager();
    until_stored(&stage, 10).await;
    Stage::kill(&mut stage.manager).await;
    stage.monitor.as_mut().unwrap().says("the journal's disk takes nothing").await;
    eventually("what does not fit is accounted for", || async { stage.skipped("REASON_JOURNAL_FULL").await >= 50 }).await;
    assert!(!stage.ask("monitor").await["journal"]["error"].as_str().unwrap().is_empty());
    stage.start_manager();
    stage.monitor.as_mut().unwrap().says("the journal's disk takes results again").await;
    let account = stage.sound().await;
    assert!(account["skipped"]["journal_full"].as_u64().unwrap() >= 50 && account["skipped"]["monitor_down"] == Value::Null, "{account}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_the_manager_keeps_results_at_the_monitor_until_there_is_room() {
    let (_target, port) = silent_port().await;
    let mut stage = Stage::set(&heavy_checks(5, port), &json!({})).await;
    let Some(disk) = SmallDisk::mount(&stage.manager_data, "16m") else { return };
    stage.start_monitor();
    stage.start_manager();
    until_stored(&stage, 10).await;
    let ballast = disk.0.join("ballast");
    // As much as goes in; what is left over is the manager's.
    let _ = fs::write(&ballast, vec![0; 16 << 20]);
    stage.manager.as_mut().unwrap().says("results can't be stored, so they are not acknowledged").await;
    eventually("results wait at the monitor", || async { stage.unacknowledged().await >= 30 }).await;
    fs::remove_file(&ballast).unwrap();
    stage.sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_paused_loses_and_doubles_nothing() {
    let (_target, port) = silent_port().await;
    let stage = Stage::play(&checks(5, port, "200ms"), &json!({})).await;
    until_stored(&stage, 10).await;
    for paused in [&stage.monitor, &stage.manager] {
        let paused = paused.as_ref().unwrap();
        paused.signal(Signal::SIGSTOP);
        tokio::time::sleep(Duration::from_millis(2500)).await;
        paused.signal(Signal::SIGCONT);
    }
    let account = stage.sound().await;
    // The monitor did not know that it was paused: to it, it was too busy.
    assert!(account["skipped"]["overloaded"].as_u64().unwrap() >= 10 && account["skipped"]["monitor_down"] == Value::Null, "{account}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_check_touches_its_own_order_and_no_other() {
    let (_target, port) = silent_port().await;
    let mut all = checks(3, port, "200ms");
    let stage = Stage::play(&all, &json!({})).await;
    until_stored(&stage, 9).await;
    all[1]["interval"] = json!("300ms");
    stage.change_checks(&all);
    eventually("it is replaced", || async { stage.account("2100-01-01T00:00:00Z").await["planned"].as_u64().unwrap() > 0 }).await;
    let mut stage = stage;
    stage.monitor.as_mut().unwrap().says("order replaced").await;
    let account = stage.sound().await;
    assert!(account["passed"].as_u64().unwrap() > 9, "{account}");
    Stage::drain(&mut stage.manager).await;
    let ended = stage.monitor.take().unwrap();
    ended.signal(Signal::SIGTERM);
    let ended = ended.ended().await;
    assert_eq!(ended.stderr.matches("order replaced").count(), 1, "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("order stopped").count(), 0, "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_cut_between_two_networks_loses_and_doubles_nothing() {
    let Some(row) = Row::of(2) else { return };
    let at = format!("{}:20000", row.target()[0]);
    let mut own = checks(5, 20_000, "200ms");
    own.as_array_mut().unwrap().iter_mut().for_each(|check| check["tcp"]["host"] = json!(row.target()[0]));
    // What is probed is the monitor's own port.
    let policy = json!({ "own_listeners": { "allow": ["grpc"] } });
    let settings = json!({ "keepalive": { "interval": "1s", "timeout": "1s" }, "allow_unprotected_listener": true, "policy": policy });
    let mut stage = Stage::set(&own, &settings).await;
    (stage.at, stage.through) = (at.clone(), at);
    let inside = |node| ["ip", "netns", "exec", row.name(node)].map(str::to_owned).to_vec();
    (stage.monitor_in, stage.manager_in) = (inside(1), inside(0));
    stage.start_monitor();
    stage.monitor.as_mut().unwrap().says("serving").await;
    stage.start_manager();
    until_stored(&stage, 10).await;
    // Nothing comes through, either way, and nobody is told.
    row.exec(1, "iptables -I INPUT -i left -j DROP");
    stage.manager.as_mut().unwrap().says("link down").await;
    stage.monitor.as_mut().unwrap().says("client away").await;
    let before = stage.account("2100-01-01T00:00:00Z").await["passed"].as_u64().unwrap();
    row.exec(1, "iptables -D INPUT -i left -j DROP");
    until_stored(&stage, before + 20).await;
    let account = stage.sound().await;
    assert!(account["skipped"].as_object().unwrap().keys().all(|reason| reason == "overloaded"), "{account}");
}

/// What sets the clock that one program sees, and no other.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// Asserts that each run is told of once, from 0 on, and due at anchor + run x interval; returns how many were skipped for the clock's sake.
fn jumped_over(results: &[Value], interval: i128) -> u64 {
    let number = |result: &Value, field: &str| result[field].as_str().unwrap().parse::<u64>().unwrap();
    let due = |result: &Value| {
        let due: prost_types::Timestamp = result["due_time"].as_str().unwrap().parse().unwrap();
        i128::from(due.seconds) * 1_000_000_000 + i128::from(due.nanos)
    };
    let mut results: Vec<&Value> = results.iter().collect();
    results.sort_by_key(|result| number(result, "run"));
    let anchor = due(results[0]);
    let (mut next, mut jumped) = (0, 0);
    for result in results {
        // The one run that may still be under way has no record yet.
        assert_eq!(number(result, "run"), next, "{result}");
        assert_eq!(due(result), anchor + i128::from(next) * interval, "{result}");
        next += number(result, "run_count");
        if result["reason"] == "REASON_CLOCK_JUMP" {
            jumped += number(result, "run_count");
        }
    }
    jumped
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_skips_what_lies_ahead_and_repeats_nothing_that_lies_behind() {
    if !Path::new(FAKETIME).exists() {
        return privilege::skipped("libfaketime, of the package faketime");
    }
    let (_target, port) = silent_port().await;
    let mut stage = Stage::set(&checks(1, port, "500ms"), &json!({})).await;
    let clock = stage.manager_data.with_file_name("clock");
    fs::write(&clock, "+0").unwrap();
    let file = format!("FAKETIME_TIMESTAMP_FILE={}", clock.display());
    let preload = format!("LD_PRELOAD={FAKETIME}");
    stage.monitor_in = ["env", &preload, &file, "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"].map(str::to_owned).to_vec();
    stage.start_monitor();
    stage.start_manager();
    let stored = async |stage: &Stage, count: usize| {
        eventually("results are stored", || async { stage.results().await.len() >= count }).await;
        stage.results().await
    };
    stored(&stage, 3).await;
    fs::write(&clock, "+3600").unwrap();
    stage.monitor.as_mut().unwrap().says("the wall clock was set").await;
    let count = stage.results().await.len();
    let results = stored(&stage, count + 5).await;
    let jumped = jumped_over(&results, 500_000_000);
    assert!((7190..=7202).contains(&jumped), "{jumped} runs of an hour");
    // Back again: it goes on, and no run comes twice.
    fs::write(&clock, "+0").unwrap();
    let results = stored(&stage, results.len() + 5).await;
    assert_eq!(jumped_over(&results, 500_000_000), jumped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_manager_with_the_same_id_takes_over_and_the_first_is_told() {
    let (_target, port) = silent_port().await;
    let mut stage = Stage::play(&checks(3, port, "200ms"), &json!({})).await;
    until_stored(&stage, 6).await;
    let mut first = stage.manager.take().unwrap();
    let firsts = stage.manager_data.clone();
    stage.manager_data = firsts.with_file_name("second");
    stage.start_manager();
    first.says("another manager took over with the same client id").await;
    until_stored(&stage, 6).await;
    let clients = stage.ask("clients").await["clients"].as_array().unwrap().len();
    let seconds = std::mem::replace(&mut stage.manager_data, firsts);
    let before = stage.results().await.len();
    stage.manager_data = seconds;
    until_stored(&stage, 12).await;
    stage.manager_data = stage.manager_data.with_file_name("manager");
    assert_eq!((stage.results().await.len(), clients), (before, 1), "its link stays down");
}
