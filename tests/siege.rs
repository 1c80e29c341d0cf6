//! A client that means harm, beside one that means well: the latter's schedule and results are as if it were alone, and the monitor's memory
//! is bounded. `VANTAGE_HOSTILE_SECONDS=300` does for five minutes what the test does for ten seconds otherwise.

mod attacks;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::{runtime::Runtime, task::JoinSet};
use vantage_contract::v1::{Outcome, ProbeResult};
use vantage_probes::stopwatch;

use crate::lab::{
    monitor::{Link, Monitor, accounted, silent_port, tcp_check},
    place,
    process::{MONITOR, Running},
};

/// What results that a client does not take, and what accounts for dropped ones, may take up each: `journal.bytes` in the monitor's settings.
const JOURNAL_BYTES: u64 = 32 << 20;
/// What the monitor may take up more under attack than before: by its limits, the orders of the one that sends long ones
/// (`order_bytes_per_client`, 256 MiB), and the journals of the four that have orders and take nothing (huge, churn, once, deaf).
const MOST_MORE_KIB: u64 = (256 << 10) + 4 * 2 * (JOURNAL_BYTES >> 10);
/// The honest client's checks, and how often each runs.
const CHECKS: usize = 10;
const INTERVAL: Duration = Duration::from_millis(500);

/// How long the attack lasts.
fn duration() -> Duration {
    let seconds = std::env::var("VANTAGE_HOSTILE_SECONDS").ok().map(|text| text.parse().expect("VANTAGE_HOSTILE_SECONDS is a number"));
    Duration::from_secs(seconds.unwrap_or(10))
}

/// What is kept of a process in memory, in KiB.
fn resident_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The value below which so many of a hundred lie.
fn percentile(values: &mut [Duration], percent: usize) -> Duration {
    values.sort_unstable();
    values[(values.len() - 1) * percent / 100]
}

fn lateness(results: &[ProbeResult]) -> Vec<Duration> {
    results.iter().filter_map(|result| Duration::try_from(result.lateness?).ok()).collect()
}

/// What the honest client was told.
#[derive(Default)]
struct Heard {
    results: Vec<ProbeResult>,
    /// From the end of a run until its result is there.
    underway: Vec<Duration>,
}

impl Heard {
    /// Takes and acknowledges what comes for so long.
    async fn listen(&mut self, link: &mut Link, time: Duration) {
        let end = stopwatch::now() + time;
        while stopwatch::now() < end {
            let result = link.result().await;
            link.ack(result.sequence).await;
            let age = result.start_time.and_then(|start| SystemTime::try_from(start).ok()?.elapsed().ok());
            let took = result.duration.and_then(|duration| Duration::try_from(duration).ok());
            self.underway.extend(age.zip(took).map(|(age, took)| age.saturating_sub(took)));
            self.results.push(result);
        }
    }
}

/// How late a thread of its own wakes up meanwhile: what of the lateness is this machine's, and nobody's fault.
fn yardstick(stop: Arc<AtomicBool>) -> std::thread::JoinHandle<Vec<Duration>> {
    std::thread::spawn(move || {
        let mut late = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let due = stopwatch::now() + Duration::from_millis(20);
            std::thread::sleep(Duration::from_millis(20));
            late.push(stopwatch::now().saturating_duration_since(due));
        }
        late
    })
}

/// A port of the honest client's own, served by a thread of its own: its backlog is not that of the others, nor its time.
fn honest_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // It ends with the process.
    std::thread::spawn(move || listener.incoming().for_each(drop));
    port
}

/// Threads of the attackers' own, which take from the monitor only what it gives them: they have the priority that it gives to connections. Like
/// this they are where they would be, on another machine.
fn camp() -> Runtime {
    let yields = || rustix::process::nice(10).map(drop).unwrap();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().on_thread_start(yields).build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_client_costs_the_honest_one_nothing_and_the_monitor_little() {
    let ((_open, port), own_port) = (silent_port().await, honest_port());
    let at: SocketAddr = place::own();
    let settings = tempfile::NamedTempFile::with_suffix(".json").unwrap();
    std::fs::write(&settings, format!(r#"{{"journal": {{"bytes": {JOURNAL_BYTES}}}}}"#)).unwrap();
    let (listen, settings) = (at.to_string(), settings.into_temp_path());
    let config = settings.to_str().unwrap();
    let flags = ["serve", "--listen", &listen, "--http-listen", "off", "--data", "memory", "--name", "besieged", "--config", config];
    let mut serving = Running::start(MONITOR, &flags);
    serving.says("serving").await;
    let monitor = Monitor::at(at);
    let mut honest = monitor.connect("honest", &[]).await;
    for number in 0..CHECKS {
        honest.start(tcp_check(&format!("web-{number}"), own_port, INTERVAL, 0)).await;
    }
    let mut peace = Heard::default();
    peace.listen(&mut honest, duration() / 4).await;
    let mut before = lateness(&peace.results);
    let resident_before = resident_kib(serving.id());

    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let own = yardstick(stop.clone());
    let camp = camp();
    let mut attackers = JoinSet::new();
    attacks::begin(at, port, &stop, &done, &mut attackers, camp.handle());
    let mut most_resident = 0;
    let mut war = Heard::default();
    let end = stopwatch::now() + duration();
    while stopwatch::now() < end {
        war.listen(&mut honest, Duration::from_millis(500)).await;
        most_resident = most_resident.max(resident_kib(serving.id()));
    }
    stop.store(true, Ordering::Relaxed);
    attackers.shutdown().await;
    camp.shutdown_background();
    let mut own = own.join().unwrap();
    let mut during = lateness(&war.results);
    // What was due meanwhile comes, too.
    war.listen(&mut honest, Duration::from_secs(2)).await;

    let skipped: Vec<_> = war.results.iter().filter(|result| result.outcome() == Outcome::Skipped).map(|result| result.reason()).collect();
    let (mean, p90, machine) = (percentile(&mut during, 50), percentile(&mut during, 90), percentile(&mut own, 90));
    let (mean_before, p90_before) = (percentile(&mut before, 50), percentile(&mut before, 90));
    let [under_way_before, under_way] = [&mut peace.underway, &mut war.underway].map(|all| (percentile(all, 90), percentile(all, 100)));
    #[expect(clippy::print_stdout, reason = "the figures are what a siege is run for")]
    {
        println!(
            "{} blows in {:?}: {} results of the honest client, {} of them skipped; lateness {mean_before:?} before, {mean:?} under attack \
         (nine in ten: {p90_before:?}, {p90:?}; of this machine {machine:?}); under way (nine in ten, most) {under_way_before:?} before, \
         {under_way:?}; resident {} MiB before, {} MiB at most",
            done.load(Ordering::Relaxed),
            duration(),
            war.results.len(),
            skipped.len(),
            resident_before >> 10,
            most_resident >> 10,
        );
    }
    let results = [peace.results, war.results].concat();
    for number in 0..CHECKS {
        let name = format!("web-{number}");
        let own: Vec<_> = results.iter().filter(|result| result.check_name == name).cloned().collect();
        accounted(&own);
    }
    let other: Vec<_> = results.iter().filter(|result| !matches!(result.outcome(), Outcome::Passed | Outcome::Skipped)).collect();
    assert!(other.is_empty(), "nobody's blame: {other:?}");
    // Where this machine stopped a thread that only sleeps, so it did those that measure; else one moment may have been lost.
    let stops = own.iter().filter(|late| **late > INTERVAL / 5).count();
    assert!(skipped.len() <= CHECKS * (1 + stops), "{} of {} skipped, {stops} stops: {skipped:?}", skipped.len(), results.len());
    let yardstick = p90_before.max(machine).max(Duration::from_millis(1));
    assert!(p90 <= 20 * yardstick, "{p90:?} late, {p90_before:?} before, the machine {machine:?}");
    assert!(most_resident <= resident_before + MOST_MORE_KIB, "{most_resident} KiB, {resident_before} KiB before");
    assert!(done.load(Ordering::Relaxed) > 1000, "an attack that was none");
}
