//! Manager and monitor as two processes, as their users run them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lab::{
    monitor::{PATIENCE, eventually, silent_port},
    place::{self, Closed},
    process::{MANAGER, MONITOR, Running, run, write},
    relay::Relay,
};

/// A monitor process of that name at an address.
fn monitor(name: &str, at: &str) -> Running {
    Running::start(MONITOR, &["serve", "--name", name, "--listen", at, "--http-listen", "off"])
}

/// A manager process with these checks; what else it is told.
fn manager(folder: &TempDir, checks: &Value, more: &[&str]) -> Running {
    let file = write(folder.path(), "checks.json", &checks.to_string());
    let mut arguments = vec!["--config", &file, "--output", "json", "--http", "off"];
    arguments.extend(more);
    Running::start(MANAGER, &arguments)
}

fn tcp_check(name: &str, port: u16, interval: &str) -> Value {
    json!({ "name": name, "interval": interval, "tcp": { "host": "127.0.0.1", "port": port } })
}

/// What `vantage-monitor clients` or `queues` says of a monitor, by client id; nothing while it does not answer.
async fn ask(what: &str, at: &str) -> BTreeMap<String, Value> {
    let ended = run(MONITOR, &[what, "--output", "json", "--at", &format!("http://{at}")]).await;
    let Ok(answer) = serde_json::from_str::<Value>(&ended.stdout) else { return BTreeMap::new() };
    let rows = answer[what].as_array().cloned().unwrap_or_default();
    rows.into_iter().map(|row| (row["client_id"].as_str().unwrap().to_owned(), row)).collect()
}

/// Asserts that each run of the lines is there exactly once, from 0 on, and returns how many there are. While the check goes on, the lines may
/// lack the one that is under way, where the next was skipped for its sake.
fn assert_each_run_once(lines: &[Value], goes_on: bool) -> usize {
    let mut runs: Vec<u64> = Vec::new();
    for line in lines {
        let number = |field: &str| line[field].as_str().unwrap().parse::<u64>().unwrap();
        runs.extend(number("run")..number("run") + number("run_count"));
    }
    runs.sort_unstable();
    assert!(runs.windows(2).all(|pair| pair[0] < pair[1]), "a run came twice: {runs:?}");
    let missing = runs.last().map_or(0, |last| last + 1) - runs.len() as u64;
    assert!(missing <= u64::from(goes_on), "a run is missing: {runs:?}");
    runs.len()
}

#[tokio::test]
async fn a_flat_file_runs_as_it_is_and_then_is_done() {
    let ((_open, port), folder) = (silent_port().await, tempfile::tempdir().unwrap());
    let checks =
        json!([{ "name": "google", "host": "127.0.0.1", "port": port, "service": "TCP", "interval": 0.6, "count": 4, "server_number": 7 }]);
    let ended = manager(&folder, &checks, &["--embedded-listen", "127.0.0.1:0"]).ended().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let lines = ended.json_lines();
    assert_eq!(assert_each_run_once(&lines, false), 4);
    for line in &lines {
        assert_eq!((&line["outcome"], &line["labels"]["server_number"]), (&json!("OUTCOME_PASSED"), &json!("7")), "{line}");
    }
}

#[tokio::test]
async fn results_are_shown_in_four_brackets() {
    let ((_open, port), folder) = (silent_port().await, tempfile::tempdir().unwrap());
    let file = write(folder.path(), "checks.json", &json!([tcp_check("web", port, "1s")]).to_string());
    let ended = run(MANAGER, &["--config", &file, "--once", "--http", "off"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let line = ended.stdout.trim_end();
    assert!(line.contains("] [tcp] [passed] [web@local: 127.0.0.1 ") && line.ends_with("ms]"), "{line}");
    assert_eq!(line.matches('[').count(), 4, "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_managers_share_a_monitor_and_one_that_was_cut_off_gets_each_result_once() {
    let ((_open, target), at) = (silent_port().await, place::own());
    let direct = at.to_string();
    let folder = tempfile::tempdir().unwrap();
    let settings = write(folder.path(), "monitor.json", r#"{ "keepalive": { "interval": "1s", "timeout": "1s" } }"#);
    let _monitor = Running::start(MONITOR, &["serve", "--config", &settings, "--listen", &direct, "--http-listen", "off"]);
    let relay = Relay::to(at).await;
    let (near, far) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let relayed = format!("127.0.0.1:{}", relay.port);
    let mut near = manager(&near, &json!([tcp_check("near", target, "200ms")]), &["--monitor", &direct, "--client-id", "near"]);
    let quick = ["--keepalive-interval", "1s", "--keepalive-timeout", "1s"];
    let mut far =
        manager(&far, &json!([tcp_check("far", target, "200ms")]), &[&["--monitor", &relayed, "--client-id", "far"], &quick[..]].concat());

    let mut lines = vec![far.json().await];
    let mut others = vec![near.json().await];
    let clients = ask("clients", &direct).await;
    assert_eq!(clients.keys().collect::<Vec<_>>(), ["far", "near"]);
    assert!(clients.values().all(|client| client["state"] == "CLIENT_STATE_CONNECTED"), "{clients:?}");

    relay.cut();
    eventually("the cut is noticed", || async {
        ask("clients", &direct).await.get("far").is_some_and(|far| far["state"] == "CLIENT_STATE_AWAY")
    })
    .await;
    let unacknowledged = |row: &Value| row["unacknowledged_count"].as_str().unwrap().parse::<u64>().unwrap();
    eventually("results pile up", || async { ask("queues", &direct).await.get("far").is_some_and(|far| unacknowledged(far) >= 10) }).await;
    relay.mend();
    while lines.len() < 30 {
        lines.push(far.json().await);
    }
    assert!(assert_each_run_once(&lines, true) >= 30);
    let sequences: BTreeSet<_> = lines.iter().map(|line| line["sequence"].as_str().unwrap().to_owned()).collect();
    assert_eq!(sequences.len(), lines.len());
    // The other never noticed.
    while others.len() < 20 {
        others.push(near.json().await);
    }
    assert_each_run_once(&others, true);
    let passed = |line: &&Value| line["outcome"] == "OUTCOME_PASSED";
    // One that can't begin within its interval is skipped; that is this machine's fault.
    assert!(others.iter().all(|line| passed(&line) || line["reason"] == "REASON_OVERLOADED"), "{others:?}");
    assert!(others.iter().filter(passed).count() > 10, "{others:?}");
    assert!(others.iter().all(|line| line["session"] == others[0]["session"]), "{others:?}");
}

#[tokio::test]
async fn a_monitor_that_was_killed_and_has_lost_everything_goes_on_where_it_was() {
    let ((_open, target), folder, at) = (silent_port().await, tempfile::tempdir().unwrap(), place::own().to_string());
    let first = monitor("phoenix", &at);
    let mut manager = manager(&folder, &json!([tcp_check("web", target, "300ms")]), &["--monitor", &at]);
    let mut lines = vec![manager.json().await];
    first.signal(Signal::SIGKILL);
    first.ended().await;
    // Each has a home of its own: this one finds nothing.
    let _second = monitor("phoenix", &at);
    while lines.last().is_none_or(|line| line["session"] == lines[0]["session"] || line["outcome"] != "OUTCOME_PASSED") {
        lines.push(manager.json().await);
    }
    assert_each_run_once(&lines, true);
    let mut skipped = lines.iter().filter(|line| line["outcome"] == "OUTCOME_SKIPPED");
    assert!(skipped.all(|line| line["reason"] == "REASON_EXPIRED" || line["reason"] == "REASON_OVERLOADED"), "{lines:?}");
}

#[tokio::test]
async fn a_monitor_that_was_killed_goes_on_by_itself_and_tells_what_it_missed() {
    let ((_open, target), folder, at) = (silent_port().await, tempfile::tempdir().unwrap(), place::own().to_string());
    let data = folder.path().join("monitor").to_str().unwrap().to_owned();
    let serve = ["serve", "--name", "phoenix", "--listen", &at, "--http-listen", "off", "--data", &data];
    let first = Running::start(MONITOR, &serve);
    let store = folder.path().join("manager").to_str().unwrap().to_owned();
    let mut manager = manager(&folder, &json!([tcp_check("web", target, "300ms")]), &["--monitor", &at, "--data", &store]);
    manager.json().await;
    // The manager goes first: nobody tells the next monitor what to do.
    manager.signal(Signal::SIGKILL);
    manager.ended().await;
    first.signal(Signal::SIGKILL);
    first.ended().await;
    // Two runs at least fall due while nobody is there.
    tokio::time::sleep(Duration::from_millis(700)).await;
    let _second = Running::start(MONITOR, &serve);
    eventually("results pile up without a manager", || async {
        ask("queues", &at).await.values().any(|row| row["unacknowledged_count"].as_str().unwrap().parse::<u64>().unwrap() >= 4)
    })
    .await;
    let checks = folder.path().join("checks.json").to_str().unwrap().to_owned();
    let mut manager =
        Running::start(MANAGER, &["--config", &checks, "--output", "json", "--http", "off", "--monitor", &at, "--data", &store]);
    for _ in 0..8 {
        manager.json().await;
    }
    let lines = run(MANAGER, &["results", "--data", &store, "--output", "json", "--limit", "0"]).await.json_lines();
    assert!(assert_each_run_once(&lines, true) >= 9);
    assert!(lines.iter().all(|line| line["session"] == lines[0]["session"]), "{lines:?}");
    assert!(lines.iter().any(|line| line["reason"] == "REASON_MONITOR_DOWN"), "{lines:?}");
}

#[tokio::test]
async fn sigterm_drains_both_sides_and_exits_with_0() {
    let ((_open, target), folder, at) = (silent_port().await, tempfile::tempdir().unwrap(), place::own().to_string());
    // Embedded: one process, both sides.
    let mut whole = manager(&folder, &json!([tcp_check("web", target, "200ms")]), &["--embedded-listen", "127.0.0.1:0"]);
    whole.json().await;
    whole.signal(Signal::SIGTERM);
    let ended = whole.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    // Apart: the monitor first, then the manager that has lost it.
    let monitor = monitor("alone", &at);
    let mut manager = manager(&folder, &json!([tcp_check("web", target, "200ms")]), &["--monitor", &at]);
    manager.json().await;
    monitor.signal(Signal::SIGTERM);
    let ended = monitor.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(!ended.stderr.contains("not acknowledged"), "{}", ended.stderr);
    manager.signal(Signal::SIGINT);
    let ended = manager.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[tokio::test]
async fn a_changed_file_touches_only_what_changed_and_a_broken_one_changes_nothing() {
    let ((_open, target), folder) = (silent_port().await, tempfile::tempdir().unwrap());
    let stays = tcp_check("stays", target, "200ms");
    let mut manager = manager(&folder, &json!([stays, tcp_check("goes", target, "200ms")]), &["--embedded-listen", "127.0.0.1:0"]);
    let mut lines: Vec<Value> = Vec::new();
    let names = |lines: &[Value]| lines.iter().map(|line| line["check_name"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>();
    while names(&lines).len() < 2 {
        lines.push(manager.json().await);
    }
    write(folder.path(), "checks.json", "[{");
    // The broken file was told with line and column.
    manager.says("checks.json:1:").await;
    write(folder.path(), "checks.json", &json!([stays, tcp_check("comes", target, "200ms")]).to_string());
    while !names(&lines).contains("comes") {
        lines.push(manager.json().await);
    }
    for _ in 0..5 {
        lines.push(manager.json().await);
    }
    manager.signal(Signal::SIGTERM);
    let ended = manager.ended().await;
    assert_eq!(ended.code, Some(0));
    lines.extend(ended.json_lines());
    lines.retain(|line| line["check_name"] == "stays");
    assert_each_run_once(&lines, false);
    assert!(lines.iter().all(|line| line["revision"] == lines[0]["revision"]));
}

#[tokio::test]
async fn bad_input_is_refused_with_78_and_nothing_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let good = tcp_check("web", 80, "1s");
    for (what, text, said) in [
        ("unknown field", r#"[{"name":"a","ping":{"cuont":3,"host":"x"}}]"#.to_owned(), r#"unknown field "cuont""#),
        ("wrong type", r#"[{"name":"a","tcp":{"host":"x","port":"eighty"}}]"#.to_owned(), "port"),
        ("duplicate name", json!([good, good]).to_string(), "web"),
        ("bad duration", r#"[{"name":"a","interval":"10 bananas","ping":{"host":"x"}}]"#.to_owned(), "10 bananas"),
        ("unknown kind", r#"[{"name":"a","pong":{"host":"x"}}]"#.to_owned(), "pong"),
        ("out of range", r#"[{"name":"a","ping":{"host":"x","count":5000}}]"#.to_owned(), "1 to 1000"),
        (
            "beside a secret",
            r#"[{"name":"a","http":{"url":"http://x/","headers":{"Authorization":"Bearer s3cr3t"},"bogus":1}}]"#.to_owned(),
            "bogus",
        ),
        ("a secret itself", r#"[{"name":"a","http":{"url":"ftp://bob:s3cr3t@x/"}}]"#.to_owned(), "ftp"),
        ("empty file", String::new(), "empty"),
    ] {
        assert_refused(what, &write(folder.path(), "checks.json", &text), said).await;
    }
    let huge = std::fs::File::create(folder.path().join("huge.json")).unwrap();
    huge.set_len(100 << 20).unwrap();
    assert_refused("100 MB", folder.path().join("huge.json").to_str().unwrap(), "MiB").await;
    assert_refused("directory", folder.path().to_str().unwrap(), "directory").await;
    assert_refused("no such file", folder.path().join("none.json").to_str().unwrap(), "none.json").await;
}

/// The manager refuses a file and says so; if it started anything, it would not end.
async fn assert_refused(what: &str, file: &str, said: &str) {
    for arguments in [vec!["validate", file], vec!["--config", file], vec!["--config", file, "--once"]] {
        let ended = run(MANAGER, &arguments).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(78), ""), "{what}: {ended:?}");
        assert!(ended.stderr.contains(said) && ended.stderr.contains(file), "{what}: {}", ended.stderr);
        assert!(!ended.stderr.contains("s3cr3t"), "{what}: a secret in a log: {}", ended.stderr);
    }
}

#[tokio::test]
async fn a_monitor_that_stands_open_beyond_loopback_is_refused_with_the_two_ways() {
    let ended = run(MONITOR, &["serve", "--listen", "0.0.0.0:0"]).await;
    assert_eq!(ended.code, Some(64), "{ended:?}");
    assert!(
        ended.stderr.contains("--client-ca-file") && ended.stderr.contains("--token-file") && ended.stderr.contains("--insecure-listen")
    );
}

#[tokio::test]
async fn an_unreachable_monitor_is_named_and_exits_with_69() {
    let (folder, closed) = (tempfile::tempdir().unwrap(), Closed::find());
    let file = write(folder.path(), "checks.json", &json!([tcp_check("web", 80, "1s")]).to_string());
    let address = closed.address.to_string();
    let ended = tokio::time::timeout(PATIENCE * 2, run(MANAGER, &["--config", &file, "--once", "--monitor", &address, "--http", "off"]))
        .await
        .unwrap();
    assert_eq!(ended.code, Some(69), "{ended:?}");
    assert!(ended.stderr.contains(&address), "{}", ended.stderr);
    let ended = run(MONITOR, &["clients", "--at", &format!("http://{address}")]).await;
    assert_eq!(ended.code, Some(69), "{ended:?}");
}

#[tokio::test]
async fn a_thousand_checks_a_second_are_all_answered() {
    let ((_open, target), folder, at) = (silent_port().await, tempfile::tempdir().unwrap(), place::own().to_string());
    let monitor = monitor("busy", &at);
    let mut checks: Vec<Value> = (0..500).map(|number| tcp_check(&format!("tcp-{number}"), target, "1s")).collect();
    checks.extend((0..500).map(
        |number| json!({ "name": format!("ping-{number}"), "interval": "1s", "count": 5, "ping": { "host": "127.0.0.1", "count": 1 } }),
    ));
    for check in &mut checks {
        check["count"] = json!(5);
    }
    let manager = manager(&folder, &json!(checks), &["--monitor", &at, "--log", "warn"]);
    let id = monitor.id();
    let ended = manager.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let mut by_check: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in ended.json_lines() {
        by_check.entry(line["check_name"].as_str().unwrap().to_owned()).or_default().push(line);
    }
    assert_eq!(by_check.len(), 1000);
    for lines in by_check.values() {
        assert_eq!(assert_each_run_once(lines, false), 5);
    }
    let resident = crate::lab::process::resident_bytes(id);
    assert!(resident < 64 << 20, "{resident} bytes");
}
