//! What ping promises, whatever engine sends and hears its packets: whose replies they are, and by which clock.

use std::{
    collections::VecDeque,
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{process::Command, task::JoinSet};
use vantage_contract::v1::{Outcome, PingProbe, PingReport, Probe, Reason, probe::Kind, probe_result::Report};
use vantage_probes::{OpenGate, Sight, World};

use crate::lab::{
    dns::DnsServer,
    echo::Echoer,
    monitor::PATIENCE,
    netns::Row,
    privilege,
    probe::{run_in, within},
    process::{MANAGER, MONITOR, run as start, write},
};

/// What sets the clock that one program sees, and no other.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

fn millis(millis: u64) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(Duration::from_millis(millis)).ok()
}

fn report(sight: &Sight) -> &PingReport {
    match &sight.report {
        Some(Report::Ping(report)) => report,
        other => panic!("a report of ping, not {other:?}"),
    }
}

/// Lets everybody in the namespace of node 0 open datagram echo sockets, or nobody: then they are raw.
fn allow_datagram(row: &Row, allow: bool) {
    let range = if allow { "0 2147483647" } else { "1 0" };
    row.inside(0, async || fs::write("/proc/sys/net/ipv4/ping_group_range", range).unwrap());
}

/// A target that answers requests with an even payload, and is silent to those with an odd one.
fn even_target(row: &Row) -> Echoer {
    Echoer::start(row, 1, |request| if request.payload.len() % 2 == 0 { vec![request] } else { vec![] })
}

/// Names of one address, a hundred of them.
async fn hundred_names() -> DnsServer {
    let names: Vec<String> = (0..100).map(|number| format!("n{number}.test.")).collect();
    let zone: Vec<(&str, &[&str])> = names.iter().map(|name| (name.as_str(), &["10.9.0.2"][..])).collect();
    DnsServer::zone(&zone).await
}

#[test]
fn a_hundred_names_of_one_address_each_get_their_own_replies_and_nobody_elses() {
    let Some(row) = Row::of(2) else { return };
    let _target = even_target(&row);
    for datagram in [false, true] {
        allow_datagram(&row, datagram);
        let sights = row.inside(0, async || {
            let (resolver, world, mut runs) = (hundred_names().await, World::new(Arc::new(OpenGate)), JoinSet::new());
            for number in 0..100 {
                let spacing = millis(50);
                let payload_size_bytes = 56 + number % 2;
                let spec = PingProbe { host: format!("n{number}.test"), spacing, payload_size_bytes, ..PingProbe::default() };
                let probe = Probe { resolver: resolver.address.to_string(), ..within(5000, Kind::Ping(spec)) };
                let world = world.clone();
                runs.spawn(async move { (number, run_in(&probe, &world).await) });
            }
            runs.join_all().await
        });
        for (number, sight) in sights {
            let report = report(&sight);
            let expected = if number % 2 == 0 { (Outcome::Passed, 3) } else { (Outcome::Failed, 0) };
            assert_eq!((sight.outcome, report.answered_count), expected, "{number}: {sight:?}");
            assert_eq!((report.sent_count, report.duplicate_count, report.corrupt_count), (3, 0, 0), "{number}: {sight:?}");
        }
    }
}

#[test]
fn a_hundred_checks_of_one_monitor_do_not_take_each_others_replies() {
    let Some(row) = Row::of(2) else { return };
    let _target = even_target(&row);
    let ended = row.inside(0, async || {
        let (resolver, folder) = (hundred_names().await, tempfile::tempdir().unwrap());
        let checks: Vec<_> = (0..100)
            .map(|number| {
                let (host, size) = (format!("n{number}.test"), 56 + number % 2);
                json!({ "name": number.to_string(), "ping": { "host": host, "spacing": "50ms", "payload_size_bytes": size } })
            })
            .collect();
        let checks = json!({ "defaults": { "resolver": resolver.address, "timeout": "2s" }, "checks": checks });
        let file = write(folder.path(), "checks.json", &checks.to_string());
        start(MANAGER, &["--config", &file, "--once", "--output", "json", "--http", "off"]).await
    });
    let results = ended.json_lines();
    assert_eq!((ended.code, results.len()), (Some(1), 100), "{ended:?}");
    for result in results {
        let number: u32 = result["check_name"].as_str().unwrap().parse().unwrap();
        let expected = if number.is_multiple_of(2) { ("OUTCOME_PASSED", 3) } else { ("OUTCOME_FAILED", 0) };
        let seen = (result["outcome"].as_str().unwrap(), result["ping"]["answered_count"].as_u64().unwrap());
        assert_eq!(seen, expected, "{result}");
    }
}

#[test]
fn a_late_reply_is_not_credited_to_the_run_that_it_meets() {
    let Some(row) = Row::of(2) else { return };
    for datagram in [false, true] {
        allow_datagram(&row, datagram);
        // Each request is answered when the next one comes; the third one's own reply comes after the late one.
        let (held, number) = (Mutex::new(None), AtomicUsize::new(0));
        let _target = Echoer::start(&row, 1, move |request| {
            let late = held.lock().unwrap().replace(request.clone());
            let third = number.fetch_add(1, Ordering::Relaxed) == 2;
            late.into_iter().chain(third.then_some(request)).collect()
        });
        let sights = row.inside(0, async || {
            let world = World::new(Arc::new(OpenGate));
            let one = |timeout| within(timeout, Kind::Ping(PingProbe { host: "10.9.0.2".into(), count: 1, ..PingProbe::default() }));
            [run_in(&one(300), &world).await, run_in(&one(300), &world).await, run_in(&one(20_000), &world).await]
        });
        for sight in &sights[..2] {
            assert_eq!((sight.reason, report(sight).answered_count, sight.latency), (Reason::TimedOut, 0, None), "{sight:?}");
        }
        assert_eq!((sights[2].outcome, report(&sights[2]).answered_count), (Outcome::Passed, 1), "{:?}", sights[2]);
        for sight in &sights {
            let report = report(sight);
            assert_eq!((report.sent_count, report.duplicate_count, report.corrupt_count), (1, 0, 0), "{sight:?}");
        }
    }
}

#[test]
fn a_clock_that_is_stepped_during_the_run_changes_no_round_trip() {
    const COUNT: usize = 60;
    if !Path::new(FAKETIME).exists() {
        return privilege::skipped("libfaketime, of the package faketime");
    }
    let Some(row) = Row::of(2) else { return };
    // A request is answered when the fourth after it comes, the last ones at once: 100 ms later, so that the clock is set meanwhile.
    let held = Mutex::new((0, VecDeque::new()));
    let _target = Echoer::start(&row, 1, move |request| {
        let (count, held) = &mut *held.lock().unwrap();
        *count += 1;
        held.push_back(request);
        let keep = if *count < COUNT { 4 } else { 0 };
        held.drain(..held.len().saturating_sub(keep)).collect()
    });
    let output = row.inside(0, async || {
        // The program's wall clock is set; the monotonic one, and the kernel's that stamps packets, go on as they are.
        let folder = tempfile::tempdir().unwrap();
        let clock = folder.path().join("clock");
        let set = |ahead: &str| fs::write(&clock, ahead).unwrap();
        set("+0");
        let mut command = Command::new(MONITOR);
        command.env("LD_PRELOAD", FAKETIME).env("FAKETIME_TIMESTAMP_FILE", &clock);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1").kill_on_drop(true);
        let line = format!("probe ping 10.9.0.2 --count {COUNT} --spacing 25ms --timeout 20s --output json");
        let mut running = std::pin::pin!(command.args(line.split(' ')).output());
        let mut steps = ["+2", "+0", "-2", "+0"].into_iter().cycle();
        let stepping = async {
            loop {
                // Again and again, whenever the run begins.
                match tokio::time::timeout(Duration::from_millis(110), &mut running).await {
                    Ok(output) => return output.unwrap(),
                    Err(_) => set(steps.next().unwrap()),
                }
            }
        };
        tokio::time::timeout(PATIENCE, stepping).await.expect("an end within the patience of a test")
    });
    let result: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert_eq!((&result["outcome"], &result["ping"]["answered_count"]), (&"OUTCOME_PASSED".into(), &COUNT.into()), "{result}");
    let seconds = |value: &Value| value.as_str().unwrap().strip_suffix('s').unwrap().parse::<f64>().unwrap();
    let taken: Vec<_> = result["ping"]["requests"].as_array().unwrap().iter().map(|request| seconds(&request["round_trip"])).collect();
    // A step would make it about 2 s, or less than nothing; a busy machine makes it a few milliseconds more.
    assert!(taken[..COUNT - 4].iter().all(|taken| (0.05..1.0).contains(taken)), "{taken:?}");
    assert!(taken.iter().all(|taken| (0.0..1.0).contains(taken)), "{taken:?}");
}
