//! What measuring costs, and how true it is.
//!
//! `cargo bench --bench probes [-- SCENARIO.. --seconds N --rate REQUESTS --data memory|disk]`, with scenarios `ping`, `flood`, `many`, `udp`, `dns`,
//! `ntp`, `tcp`, `http`, `https`, `accuracy`; without one, all.
//!
//! Measured: `vantage-monitor serve` as it ships (orders in, engine, journal, results out through the stream), by the processor time of its
//! process; the manager is played here and costs it nothing. Beside it, in the same run: a bare loop over the same sockets in a process of
//! its own (`vantage_probes::net::bare`), fping and blackbox_exporter where they are installed. What else the machine does changes wall times and
//! not these figures, or little. As root all of it runs in a network namespace of its own, where nobody else's ICMP is heard and datagram
//! echo sockets are allowed; else on the loopback that there is.
#![expect(clippy::unwrap_used, reason = "a benchmark that can't go on has nothing to say")]
#![expect(clippy::expect_used, reason = "a benchmark that can't go on has nothing to say")]
#![expect(clippy::print_stdout, reason = "the figures are what a benchmark is for")]

mod accuracy;
mod peers;
mod reflector;
mod tcp;
mod web;

#[path = "../../tests/lab/netns.rs"]
mod netns;
#[path = "../../tests/lab/privilege.rs"]
mod privilege;

use std::{process::Command, time::Duration};

use nix::{
    sched::{CloneFlags, unshare},
    sys::resource::{Resource, getrlimit, setrlimit},
};
use vantage_contract::v1::Check;
use vantage_monitor::bench::{
    checks::{self, addresses},
    load::Monitor,
    targets::Service,
    window::Window,
};

use peers::Peer;

/// The program that is measured.
const MONITOR: &str = env!("CARGO_BIN_EXE_vantage-monitor");

/// How a benchmark is run.
#[derive(Clone)]
struct Plan {
    scenarios: Vec<String>,
    time: Duration,
    /// Whether the journal is on disk.
    durable: bool,
    /// Requests a second, for `ping` and `flood`.
    rate: Option<f64>,
}

impl Plan {
    fn read() -> Self {
        let mut plan = Self { scenarios: Vec::new(), time: Duration::from_secs(10), durable: false, rate: None };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--seconds" => plan.time = Duration::from_secs(words.next().unwrap().parse().unwrap()),
                "--data" => plan.durable = words.next().unwrap() == "disk",
                "--rate" => plan.rate = Some(words.next().unwrap().parse().unwrap()),
                // What cargo adds.
                "--bench" => {}
                _ => plan.scenarios.push(word),
            }
        }
        plan
    }

    fn has(&self, scenario: &str) -> bool {
        self.scenarios.is_empty() || self.scenarios.iter().any(|name| name == scenario)
    }
}

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("child") => return peers::child(&arguments[2..]),
        Some("reflect") => return reflector::reflect(&arguments[2], Duration::from_micros(arguments[3].parse().unwrap())),
        _ => {}
    }
    let plan = Plan::read();
    // A socket for each run in flight.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if setrlimit(Resource::RLIMIT_NOFILE, most.max(65_536), most.max(65_536)).is_err() {
        setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    }
    let (cores, data) = (std::thread::available_parallelism().unwrap(), if plan.durable { "on disk, flushed" } else { "in memory" });
    println!("{cores} cores, journal {data}; pings and runs are per second of processor time of their process");
    if plan.has("accuracy") {
        accuracy::show(&plan);
    }
    own_network();
    for targets in [100, 5000] {
        if plan.has("ping") {
            ping(&plan, targets, 10, false);
        }
        if plan.has("flood") {
            ping(&plan, targets, 10, true);
        }
    }
    if plan.has("many") {
        many(&plan);
    }
    if plan.has("udp") {
        served(&plan, "udp", Service::Udp);
    }
    if plan.has("dns") {
        served(&plan, "dns", Service::Dns);
    }
    if plan.has("tcp") {
        tcp::show(&plan);
    }
    if plan.has("http") {
        web::http(&plan);
    }
    if plan.has("https") {
        web::https(&plan);
    }
    if plan.has("ntp") {
        ntp(&plan);
    }
}

/// A network of our own, where that is allowed.
fn own_network() {
    if unshare(CloneFlags::CLONE_NEWNET).is_err() {
        println!("not root: on the loopback of all, with the sockets that are allowed");
        return;
    }
    // Thousands of connections a second leave their ports behind for a second each.
    let up = "ip link set lo up && sysctl -qw net.ipv4.ping_group_range='0 2147483647' net.ipv4.ip_local_port_range='1024 65535'";
    assert!(Command::new("sh").args(["-c", up]).status().unwrap().success());
}

/// Ten requests a run, below the rate at which the kernel still stamps departures, or above.
fn ping(plan: &Plan, targets: usize, count: u32, flood: bool) {
    let addresses = addresses(targets);
    // By default 40,000 requests a second all told: the contract promises the kernel's stamps of departures up to 50,000. A flood: 80,000, as the
    // engine lets 100,000 through at most; the bare loops and fping go as fast as they can.
    let rate = plan.rate.unwrap_or(if flood { 80_000.0 } else { 40_000.0 });
    // No interval is below 100 ms: few targets have more than one check each, for a flood.
    let each = ((rate / 10.0) as usize).div_ceil(targets * count as usize);
    let interval = Duration::from_secs_f64((targets as f64 * f64::from(count) / rate).max(0.1));
    let spacing = if flood { Duration::from_millis(1) } else { (interval / (count + 1)).max(Duration::from_millis(1)) };
    let several = |number| addresses.iter().map(move |address| checks::ping(*address, number, interval, count, spacing));
    let checks: Vec<_> = (0..each).flat_map(several).collect();
    let name = if flood { "flood" } else { "ping" };
    println!("\n{name}: {targets} targets, {} checks of {count} requests, one each {spacing:?}, every {interval:?}", checks.len());
    let window = measure(plan, &checks, interval);
    print!("{}", window.text());
    let fping = Peer::fping(&addresses, plan.time);
    let bare = [Peer::bare_echo(&addresses, "arrival"), Peer::bare_echo(&addresses, "both")];
    for peer in bare.iter().chain(fping.as_ref()) {
        peer.show(&window);
    }
}

/// 10,000 targets, each asked once a second.
fn many(plan: &Plan) {
    let addresses = addresses(10_000);
    let second = Duration::from_secs(1);
    let checks: Vec<_> = addresses.iter().map(|address| checks::ping(*address, 0, second, 1, second / 10)).collect();
    println!("\nmany: 10,000 targets, one request a second each");
    let window = measure(plan, &checks, second);
    print!("{}", window.text());
    if let Some(peer) = Peer::fping_paced(&addresses[..5000]) {
        peer.show(&window);
    }
}

/// A kind over UDP, against a target in a process of its own.
fn served(plan: &Plan, name: &str, service: Service) {
    // As many as one processor does with some room, and at most what a client may have in a second: the bare loop goes at full speed.
    let count = if service == Service::Dns { 1900 } else { 1000 };
    let target = peers::Served::start(name, Duration::ZERO);
    let interval = Duration::from_millis(100);
    let checks: Vec<_> = (0..count).map(|number| checks::served(service, target.address, interval, number)).collect();
    println!("\n{name}: {count} checks of one server, every {interval:?}");
    let window = measure(plan, &checks, interval);
    print!("{}", window.text());
    // Those of the probe first.
    let all = if service == Service::Dns { &["shared", "fresh", "kept"][..] } else { &["fresh", "kept"] };
    for sockets in all {
        Peer::bare_udp(target.address, name, sockets).show(&window);
    }
    if service == Service::Dns
        && let Some(peer) = Peer::blackbox_dns(target.address)
    {
        peer.show(&window);
    }
}

/// NTP, for which there is no bare loop to speak of.
fn ntp(plan: &Plan) {
    let target = peers::Served::start("ntp", Duration::ZERO);
    let checks: Vec<_> = (0..200).map(|number| checks::served(Service::Ntp, target.address, Duration::from_millis(100), number)).collect();
    println!("\nntp: 200 checks of one server, every 100ms");
    print!("{}", measure(plan, &checks, Duration::from_millis(100)).text());
}

fn measure(plan: &Plan, checks: &[Check], interval: Duration) -> Window {
    measure_with(plan, checks, interval, "")
}

/// The same, with the file of an authority that the monitor takes for the system's; "": none.
fn measure_with(plan: &Plan, checks: &[Check], interval: Duration, authority: &str) -> Window {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let authority = (!authority.is_empty()).then_some(authority.as_ref());
        let monitor = Monitor::start(MONITOR.as_ref(), plan.durable.then_some(folder.path()), authority).await.unwrap();
        monitor.measure(checks, interval + Duration::from_secs(2), plan.time.max(interval * 2)).await.unwrap()
    })
}
