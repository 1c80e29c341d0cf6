//! Targets that stall do not move those that don't: neither when they are asked nor what they are seen to take.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;
use vantage_contract::v1::{Check, HttpProbe, Outcome, Probe, ProbeResult, probe::Kind};
use vantage_monitor::Settings;

use crate::lab::{
    http::{Server, ok, read_request},
    monitor::{Link, Monitor, eventually, settings},
};

const OFTEN: Duration = Duration::from_millis(500);
/// How long the others stall.
const STALL: Duration = Duration::from_secs(2);
const HEALTHY: usize = 100;
const STALLED: usize = 1000;

fn check(name: String, server: &Server, interval: Duration, timeout: Duration) -> Check {
    let duration = |time| prost_types::Duration::try_from(time).ok();
    let spec = HttpProbe { url: server.url("/"), ..HttpProbe::default() };
    let probe = Probe { timeout: duration(timeout), kind: Some(Kind::Http(spec)), ..Probe::default() };
    Check { name, interval: duration(interval), probe: Some(probe), ..Check::default() }
}

/// The results of the healthy ones until then.
async fn healthy(link: &mut Link, until: Instant) -> Vec<ProbeResult> {
    let mut results = Vec::new();
    while let Ok(result) = tokio::time::timeout_at(until, link.result()).await {
        link.ack(result.sequence).await;
        if result.check_name.starts_with("healthy") {
            results.push(result);
        }
    }
    results
}

/// The middle and the slow end, in milliseconds.
fn spread(results: &[ProbeResult], of: impl Fn(&ProbeResult) -> Option<prost_types::Duration>) -> (f64, f64) {
    let mut all: Vec<f64> =
        results.iter().filter_map(|result| Some(Duration::try_from(of(result)?).unwrap().as_secs_f64() * 1e3)).collect();
    all.sort_by(f64::total_cmp);
    assert!(all.len() > 20, "{} results", all.len());
    (all[all.len() / 2], all[all.len() * 9 / 10])
}

fn phase(name: &str) -> impl Fn(&ProbeResult) -> Option<prost_types::Duration> {
    move |result| result.phases.iter().find(|phase| phase.name == name)?.duration
}

/// Of each connection both ends are in this process: more than many a machine gives it, before it asks.
fn ask_for_descriptors() {
    let (limit, needed) = (getrlimit(Resource::Nofile), 8192);
    let current = limit.current.map(|current| current.max(needed).min(limit.maximum.unwrap_or(u64::MAX)));
    setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn healthy_targets_are_asked_in_time_and_take_no_longer_beside_stalled_ones() {
    ask_for_descriptors();
    // Slow ones have half of all places: each of them has one.
    let places = 2 * (STALLED + HEALTHY);
    let limits = serde_json::from_value(serde_json::json!({ "in_flight": places, "in_flight_by_kind": { "http": places } })).unwrap();
    let monitor = Monitor::start_with(Settings { limits, ..settings() }).await;
    let mut link = monitor.connect("desk", &[]).await;
    let good = Server::start(|mut stream, _| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(ok("fine").as_bytes()).await;
    })
    .await;
    let stalls = Server::stalling_after("HTTP/1.1 200 OK\r\n").await;
    for number in 0..HEALTHY {
        link.start(check(format!("healthy-{number}"), &good, OFTEN, Duration::from_secs(10))).await;
    }
    let now = vantage_daemon::clock::monotonic;
    // The first runs are of another kind: everything is new then.
    healthy(&mut link, now() + OFTEN * 2).await;
    let alone = healthy(&mut link, now() + Duration::from_secs(3)).await;
    for number in 0..STALLED {
        link.start(check(format!("stalled-{number}"), &stalls, OFTEN, STALL)).await;
    }
    let in_flight = async || usize::try_from(monitor.queues().await["desk"].in_flight_count).unwrap();
    eventually("most of them stall at once", || async { in_flight().await > STALLED * 3 / 4 }).await;
    healthy(&mut link, now() + OFTEN * 2).await;
    let beside = healthy(&mut link, now() + Duration::from_secs(4)).await;
    // A machine that has no time for them says so, and blames nobody.
    assert_eq!(beside.iter().find(|result| result.outcome() == Outcome::Failed), None);
    let (runs, passed) = (beside.len(), beside.iter().filter(|result| result.outcome() == Outcome::Passed).count());
    assert!(passed * 2 > runs, "{passed} of {runs} passed");
    for (what, before, after) in [
        ("lateness", spread(&alone, |result| result.lateness), spread(&beside, |result| result.lateness)),
        ("connect", spread(&alone, phase("connect")), spread(&beside, phase("connect"))),
        ("wait", spread(&alone, phase("wait")), spread(&beside, phase("wait"))),
        ("transfer", spread(&alone, phase("transfer")), spread(&beside, phase("transfer"))),
    ] {
        // All of it shares the cores with whatever else this machine does, the flood's own target for one. A target that held up others would
        // do so for as long as it stalls.
        assert!(after.0 < before.0 * 5.0 + STALL.as_secs_f64() * 1e3 / 100.0, "{what}: {before:?} became {after:?}");
    }
}
