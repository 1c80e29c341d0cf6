//! `vantage-monitor bench KIND`: what a kind of probe costs on this machine, beside a bare loop over the same sockets.
//!
//! A monitor is started, as `serve` is, and given checks of targets on loopback; its manager and its targets are here, in another process, so that
//! the processor time of its process is all its own: orders, schedule, probes, journal and results. `benches/probes` does the same for more
//! than one kind, and beside others' programs.

mod authority;
pub mod checks;
pub mod load;
pub mod targets;
pub mod window;

use std::{fs, io, net::Ipv4Addr, time::Duration};

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::json;
use vantage_contract::v1::Check;
use vantage_daemon::{
    exit::{Exit, Fatal},
    signal::Signals,
};
use vantage_probes::{
    net::bare::{
        self, Echo, Sockets, Stamps, Tally,
        web::{self, Handshakes},
    },
    wire::ntp::{self, Stamp},
};

use crate::output::{Output, print};
use load::Monitor;
use targets::{Service, Target};
use window::line;

/// How long each bare loop runs: it is even, so that more tells no more.
const BARE: Duration = Duration::from_millis(500);
/// How long checks run before they are looked at: until each has been due, and the first rush is over.
const WARM: Duration = Duration::from_secs(1);

/// What is measured, and how long.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// The kind of probe
    kind: Kind,
    /// How many checks, each of a target of its own where the kind has no ports
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=20_000))]
    targets: u16,
    /// How many runs a second, over all targets (each has at most 10)
    #[arg(long, value_name = "NUMBER", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Echo requests of each run of ping, a millisecond apart
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=50))]
    count: u32,
    /// How long to look on, in seconds; a second of warming up and the bare loops come on top
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// What to print: text for people, or one JSON document
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    output: Output,
}

/// The kinds that have a target here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Ping,
    Traceroute,
    Http,
    Https,
    Tcp,
    Udp,
    Dns,
    Ntp,
}

impl Kind {
    /// What answers it; none where the kernel does.
    fn service(self) -> Option<Service> {
        match self {
            Self::Ping | Self::Traceroute => None,
            Self::Http => Some(Service::Http),
            Self::Https => Some(Service::Https),
            Self::Tcp => Some(Service::Tcp),
            Self::Udp => Some(Service::Udp),
            Self::Dns => Some(Service::Dns),
            Self::Ntp => Some(Service::Ntp),
        }
    }
}

/// A bare loop, and what part of it the monitor is.
#[derive(Debug, Serialize)]
struct Comparison {
    name: String,
    per_processor_second: f64,
    round_trip_us: Option<f64>,
    ours: f64,
}

/// Measures and tells. Exits 0 if any run was measured, else 1; a signal ends it, and the monitor with it.
pub async fn run(args: &BenchArgs) -> Result<Exit, Fatal> {
    let signals = Signals::listen()?;
    tokio::select! {
        () = signals.drain.cancelled() => Ok(Exit::Ok),
        ended = measure(args) => ended,
    }
}

async fn measure(args: &BenchArgs) -> Result<Exit, Fatal> {
    let machine = |error: io::Error| Fatal::new(Exit::OsError, format!("prepare the benchmark: {error}"));
    let program = std::env::current_exe().map_err(machine)?;
    let target = args.kind.service().map(targets::start).transpose().map_err(machine)?;
    let authority = target.as_ref().and_then(Target::authority);
    let monitor = Monitor::start(&program, None, authority.as_deref()).await?;
    let checks = place(args, target.as_ref());
    let interval = interval(args);
    let window = monitor.measure(&checks, WARM.max(interval), Duration::from_secs(args.seconds).max(interval)).await?;
    drop(monitor);
    let figures = window.figures();
    let (kind, ours) = (args.kind, figures.rate().0);
    let addresses = checks::addresses(checks.len());
    // A loop blocks, and so it has a thread of its own, by whose processor time it is measured.
    let bare = tokio::task::spawn_blocking(move || compare(kind, &addresses, target.as_ref(), ours)).await;
    let bare = bare.map_err(|error| machine(io::Error::other(error)))?.map_err(machine)?;
    match args.output {
        Output::Json => print(&format!("{}\n", json!({ "figures": figures, "bare": bare })))?,
        Output::Text => {
            let mut text = window.text();
            for Comparison { name, per_processor_second, ours, .. } in &bare {
                text += &format!("{}; the monitor is {ours:.2} of it\n", line(name, *per_processor_second, figures.rate().1));
            }
            if bare.is_empty() {
                text += "  there is no bare loop to compare with: no two programs would do the same in it\n";
            }
            print(&text)?
        }
    };
    Ok(if figures.runs > 0 { Exit::Ok } else { Exit::SomeFailed })
}

/// From one run of a check to the next: as the rate asks, and no less than the contract allows.
fn interval(args: &BenchArgs) -> Duration {
    Duration::from_secs_f64(f64::from(args.targets) / f64::from(args.rate)).max(Duration::from_millis(100))
}

fn place(args: &BenchArgs, target: Option<&Target>) -> Vec<Check> {
    let (interval, millisecond) = (interval(args), Duration::from_millis(1));
    let one = |(number, address): (usize, Ipv4Addr)| match (args.kind.service(), target) {
        (Some(service), Some(target)) => checks::served(service, target.address, interval, number),
        _ if args.kind == Kind::Traceroute => checks::traceroute(address, interval),
        _ => checks::ping(address, 0, interval, args.count, millisecond),
    };
    checks::addresses(args.targets.into()).into_iter().enumerate().map(one).collect()
}

/// The bare loops of a kind.
fn compare(kind: Kind, addresses: &[Ipv4Addr], target: Option<&Target>, ours: f64) -> io::Result<Vec<Comparison>> {
    let comparison = |name: String, tally: Tally| Comparison {
        name,
        per_processor_second: tally.per_busy_second(),
        round_trip_us: (!tally.round_trips.is_zero()).then(|| tally.mean_round_trip().as_secs_f64() * 1e6),
        ours: ours / tally.per_busy_second().max(1e-9),
    };
    if kind == Kind::Ping {
        let mut loops = Vec::new();
        for (stamps, name) in [(Stamps::Arrival, "stamps of arrival"), (Stamps::Both, "stamps of both ends")] {
            // Where echo sockets are forbidden, the runs have said so.
            let Ok(echo) = Echo::open(stamps) else { continue };
            loops.push(comparison(format!("bare loop, {name} ({})", echo.style()), echo.run(addresses, BARE)?));
        }
        return Ok(loops);
    }
    let Some(target) = target else { return Ok(Vec::new()) };
    if kind == Kind::Http {
        return Ok(vec![comparison("bare loop, a connection for each request".to_owned(), web::http(target.address, BARE)?)]);
    }
    if let Some(authority) = target.authority() {
        let root = fs::read(authority)?;
        let mut loops = Vec::new();
        for (handshakes, name) in [(Handshakes::Full, "full handshakes"), (Handshakes::Resumed, "resumed sessions")] {
            loops.push(comparison(format!("bare rustls loop, {name}"), web::https(target.address, &root, handshakes, BARE)?));
        }
        return Ok(loops);
    }
    let Some(request) = request(kind) else { return Ok(Vec::new()) };
    let mut loops = Vec::new();
    for (sockets, name) in [
        (Sockets::Fresh, "a socket for each request"),
        (Sockets::Shared, "a socket for 64 requests"),
        (Sockets::Kept, "one socket for all"),
    ] {
        if sockets == Sockets::Shared && kind != Kind::Dns {
            continue;
        }
        loops.push(comparison(format!("bare loop, {name}"), bare::udp(target.address, &request, sockets, BARE)?));
    }
    Ok(loops)
}

/// The datagram that a kind sends.
pub fn datagram(service: Service) -> Option<Vec<u8>> {
    match service {
        Service::Udp => Some(checks::PAYLOAD.as_bytes().to_vec()),
        Service::Dns => {
            // Identifier, RD, one question; its labels; A, IN.
            let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            for label in checks::NAME.split('.') {
                bytes.push(label.len() as u8);
                bytes.extend(label.bytes());
            }
            bytes.extend([0, 0, 1, 0, 1]);
            Some(bytes)
        }
        Service::Ntp => Some(ntp::request(4, Stamp(1)).to_vec()),
        Service::Tcp | Service::Http | Service::Https => None,
    }
}

fn request(kind: Kind) -> Option<Vec<u8>> {
    datagram(kind.service()?)
}
