//! HTTP and HTTPS: in turns with bare loops, openssl and blackbox_exporter, so that whatever else the machine does meets all of them, and told as
//! medians; then the memory that runs in flight take.

use std::{fs, net::SocketAddr, process::Command, time::Duration};

use vantage_contract::v1::{Check, TlsOptions, probe::Kind};
use vantage_monitor::bench::{checks, targets::Service, window::line};
use vantage_probes::net::bare::{
    Tally,
    web::{self, Handshakes},
};

use crate::{
    Plan, measure_with,
    peers::{self, Peer, Served},
};

/// How often all take their turn.
const ROUNDS: usize = 3;
/// How long a target lets a run wait whose memory is looked at.
const STALL: Duration = Duration::from_secs(2);

/// Somebody who makes requests of a server that this authority certifies. None where it is not installed.
type Turn = Box<dyn Fn(SocketAddr, &str) -> Option<Peer>>;

/// HTTP (RFC 9112) in the clear.
pub(crate) fn http(plan: &Plan) {
    let turns: Vec<Turn> = vec![Box::new(|server, _| Some(bare("http", server, ""))), Box::new(|server, _| blackbox(server, None))];
    compare(plan, "http", Service::Http, 1000, &turns, |_| {});
}

/// HTTPS with full handshakes of TLS 1.3, and with resumed sessions.
pub(crate) fn https(plan: &Plan) {
    let full: Vec<Turn> = vec![
        Box::new(|server, authority| Some(bare("full", server, authority))),
        Box::new(|server, _| openssl(server)),
        Box::new(|server, authority| blackbox(server, Some(authority))),
    ];
    compare(plan, "https, full handshakes", Service::Https, 200, &full, |_| {});
    let resumed: Vec<Turn> = vec![Box::new(|server, authority| Some(bare("resumed", server, authority)))];
    compare(plan, "https, resumed sessions", Service::Https, 200, &resumed, |check| {
        let Some(Kind::Https(spec)) = check.probe.as_mut().and_then(|probe| probe.kind.as_mut()) else { unreachable!() };
        spec.tls = Some(TlsOptions { resume: true, ..TlsOptions::default() });
    });
}

fn compare(plan: &Plan, title: &str, service: Service, count: usize, turns: &[Turn], change: fn(&mut Check)) {
    let name = if service == Service::Https { "https" } else { "http" };
    let target = Served::start(name, Duration::ZERO);
    let authority = target.authority.clone().unwrap_or_default();
    let interval = Duration::from_millis(100);
    let mut checks: Vec<_> = (0..count).map(|number| checks::served(service, target.address, interval, number)).collect();
    checks.iter_mut().for_each(change);
    println!("\n{title}: {count} checks of one server, every {interval:?}; {ROUNDS} rounds, load {}", load());
    let mut ours = Vec::new();
    let mut theirs: Vec<Vec<(Peer, f64)>> = turns.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        let window = measure_with(plan, &checks, interval, &authority);
        let rate = window.figures().rate().0;
        ours.push((rate, window));
        for (turn, peers) in turns.iter().zip(&mut theirs) {
            peers.extend(turn(target.address, &authority).map(|peer| (peer, rate)));
        }
    }
    ours.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    print!("{}", ours[ours.len() / 2].1.text());
    for peers in theirs.iter().filter(|peers| !peers.is_empty()) {
        let middle = |number: &dyn Fn(&(Peer, f64)) -> f64| {
            let mut numbers: Vec<_> = peers.iter().map(number).collect();
            numbers.sort_by(f64::total_cmp);
            numbers[numbers.len() / 2]
        };
        let lost: u64 = peers.iter().map(|(peer, _)| peer.lost()).sum();
        let rate = middle(&|(peer, _)| peer.rate());
        println!(
            "{}, {lost} lost; the monitor is {:.2} of it",
            line(peers[0].0.name(), rate, "runs"),
            middle(&|(peer, ours)| ours / peer.rate())
        );
    }
    println!("  load {}", load());
    if title.contains("resumed") {
        return;
    }
    for many in [1, 64, 1000] {
        memory(plan, name, service, many);
    }
}

/// So many runs in flight, all of them waiting for an answer.
fn memory(plan: &Plan, name: &str, service: Service, many: usize) {
    let target = Served::start(name, STALL);
    let interval = STALL + STALL / 20;
    let checks: Vec<_> = (0..many).map(|number| checks::served(service, target.address, interval, number)).collect();
    let plan = Plan { time: interval * 3, ..plan.clone() };
    let window = measure_with(&plan, &checks, interval, target.authority.as_deref().unwrap_or_default());
    let figures = window.figures();
    let mean = figures.runs as f64 * figures.duration.p50_us / 1e6 / figures.seconds;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let (empty, resident, peak) = (mib(window.empty), mib(figures.resident_bytes), mib(figures.peak_bytes));
    println!(
        "  {mean:.0} in flight: {resident:.1} MiB, at most {peak:.1} MiB ({empty:.1} MiB without checks); {} of {} passed",
        figures.passed, figures.runs
    );
}

fn load() -> String {
    fs::read_to_string("/proc/loadavg").unwrap().split_whitespace().next().unwrap().to_owned()
}

/// The bare loop, in a process of its own.
fn bare(manner: &str, server: SocketAddr, authority: &str) -> Peer {
    Peer::bare(&format!("bare loop, {manner}"), &["web", manner, &server.to_string(), authority])
}

/// What that process does.
pub(crate) fn child(manner: &str, server: SocketAddr, authority: &str) -> Tally {
    let root = || fs::read(authority).unwrap();
    match manner {
        "full" => web::https(server, &root(), Handshakes::Full, peers::BARE),
        "resumed" => web::https(server, &root(), Handshakes::Resumed, peers::BARE),
        _ => web::http(server, peers::BARE),
    }
    .unwrap()
}

fn blackbox(server: SocketAddr, authority: Option<&str>) -> Option<Peer> {
    let (scheme, tls) = match authority {
        Some(file) => ("https", format!("\n      tls_config:\n        ca_file: {file}")),
        None => ("http", String::new()),
    };
    let module =
        format!("    prober: http\n    timeout: 2s\n    http:\n      preferred_ip_protocol: ip4\n      no_follow_redirects: false{tls}\n");
    Peer::blackbox(&module, &format!("{scheme}://{server}/"), 1000)
}

/// `openssl s_time`, a new session each time; it reads the answer to its end. None where it is not installed.
fn openssl(server: SocketAddr) -> Option<Peer> {
    let before = peers::children();
    let seconds = peers::BARE.as_secs().to_string();
    let arguments = ["s_time", "-new", "-tls1_3", "-www", "/", "-time", &seconds, "-connect", &server.to_string()];
    let Ok(output) = Command::new("openssl").args(arguments).output() else {
        println!("  openssl is not installed: not compared");
        return None;
    };
    let busy = peers::children() - before;
    let text = String::from_utf8_lossy(&output.stdout);
    let count = text.lines().find_map(|line| line.split_once(" connections in ")?.0.parse().ok());
    let Some(count) = count else {
        println!("  openssl s_time: {}", text.lines().last().unwrap_or_default());
        return None;
    };
    Some(Peer::new("openssl s_time -new -tls1_3", count, 0, busy))
}
