//! How true round trips are: a target that answers after 5 ms, and a packet capture beside, whose stamps are the truth.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    net::Ipv4Addr,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use vantage_contract::v1::{ProbeResult, probe_result::Report};

use vantage_daemon::clock;
use vantage_monitor::bench::{checks, load::Monitor};

use crate::{MONITOR, Plan, netns::Row, peers::Killed};

const DELAY: Duration = Duration::from_millis(5);
const SECOND: Duration = Duration::from_secs(1);

/// The targets: addresses of the other end of the link.
fn targets(count: u32) -> Vec<Ipv4Addr> {
    (0..count).map(|number| Ipv4Addr::from(0x0ac8_0001 + number / 250 * 256 + number % 250)).collect()
}

/// Shows the errors of Vantage and of fping, of one target alone and of one and 2,000 others that are asked at the same moment.
pub(crate) fn show(plan: &Plan) {
    let Some(row) = Row::of(2) else { return };
    row.exec(0, "ip route add 10.200.0.0/16 via 10.9.0.2");
    row.exec(1, "ip route add local 10.200.0.0/16 dev lo");
    row.exec(1, "sysctl -qw net.ipv4.icmp_echo_ignore_all=1");
    row.inside(0, async || std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap());
    let mut reflector = Killed(
        Command::new(std::env::current_exe().unwrap())
            .args(["reflect", row.name(1), &DELAY.as_micros().to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    BufReader::new(reflector.0.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    println!("\naccuracy: round trips of {DELAY:?} less those of a packet capture; size of the error");
    for (name, count) in [("idle", 1), ("1 + 2,000 targets at the same moment", 2001)] {
        println!("  {name}");
        row.inside(0, async || vantage(&row, plan, count).await);
        fping(&row, plan, count);
    }
}

async fn vantage(row: &Row, plan: &Plan, count: u32) {
    let monitor = Monitor::start(MONITOR.as_ref(), None, None).await.unwrap();
    let capture = Capture::start(row);
    // Alone it is asked fifty times a second, so that there is something to count.
    let (requests, spacing) = if count == 1 { (45, SECOND / 50) } else { (1, SECOND / 10) };
    let checks: Vec<_> = targets(count).into_iter().map(|target| checks::ping(target, 0, SECOND, requests, spacing)).collect();
    let mut results = monitor.record(&checks, clock::wall() + SECOND, plan.time).await.unwrap();
    drop(monitor);
    let truth = capture.end();
    results.sort_by_key(|result| result.run);
    let mut told: BTreeMap<Ipv4Addr, Vec<Option<Duration>>> = BTreeMap::new();
    let mut stamps: BTreeMap<&str, u32> = BTreeMap::new();
    for result in &results {
        let (Ok(target), Some(Report::Ping(report))) = (result.address.parse(), &result.report) else { continue };
        let trips = report.requests.iter().map(|request| request.round_trip.and_then(|taken| Duration::try_from(taken).ok()));
        told.entry(target).or_default().extend(trips);
        *stamps.entry(timing(result)).or_default() += 1;
    }
    compare("Vantage", &truth, &told);
    println!("      stamps {stamps:?}");
}

fn timing(result: &ProbeResult) -> &'static str {
    result.timing_source().as_str_name()
}

fn fping(row: &Row, plan: &Plan, count: u32) {
    let capture = Capture::start(row);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("targets");
    let lines: Vec<_> = targets(count).iter().map(Ipv4Addr::to_string).collect();
    std::fs::write(&file, lines.join("\n") + "\n").unwrap();
    let (period, times) = if count == 1 { (20, plan.time.as_secs() * 50) } else { (1000, plan.time.as_secs().min(30)) };
    let output = Command::new("ip")
        .args(["netns", "exec", row.name(0), "fping", "-q", "-i", "0", "-p", &period.to_string(), "-C", &times.to_string(), "-f"])
        .arg(&file)
        .output()
        .unwrap();
    let truth = capture.end();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut told = BTreeMap::new();
    for line in text.lines() {
        let Some((target, trips)) = line.split_once(" : ") else { continue };
        let Ok(target) = target.trim().parse::<Ipv4Addr>() else { continue };
        let trip = |word: &str| word.parse::<f64>().ok().map(|millis| Duration::from_secs_f64(millis / 1000.0));
        told.insert(target, trips.split_whitespace().map(trip).collect::<Vec<_>>());
    }
    if told.is_empty() {
        println!("    fping: not compared: {}", text.lines().next().unwrap_or("it said nothing"));
        return;
    }
    compare("fping", &truth, &told);
}

/// The true round trips of each target in the order of sending.
type Truth = BTreeMap<Ipv4Addr, Vec<Option<Duration>>>;

/// Prints how far what was told lies from the truth.
fn compare(who: &str, truth: &Truth, told: &Truth) {
    let (mut errors, mut unlike) = (Vec::new(), 0);
    let mut lost = [0; 2];
    for (target, trips) in told {
        let Some(true_trips) = truth.get(target) else { continue };
        // Without the same number of requests nobody can say which is which.
        if trips.len() != true_trips.len() {
            unlike += 1;
            continue;
        }
        for (told, truth) in trips.iter().zip(true_trips) {
            match (told, truth) {
                (Some(told), Some(truth)) => errors.push(told.as_nanos() as f64 / 1000.0 - truth.as_nanos() as f64 / 1000.0),
                (None, Some(_)) => lost[0] += 1,
                (None, None) => lost[1] += 1,
                (Some(_), None) => unlike += 1,
            }
        }
    }
    let mean = errors.iter().sum::<f64>() / errors.len() as f64;
    let mut sizes: Vec<_> = errors.iter().map(|error| error.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    let at = |share: f64| sizes.get((sizes.len() as f64 * share) as usize).or(sizes.last()).copied().unwrap_or(f64::NAN);
    println!(
        "    {who:<8} median {:.1} us, p99 {:.1} us, most {:.1} us; mean {mean:+.1} us; {} requests, falsely lost {}, lost {}, not matched {unlike}",
        at(0.5),
        at(0.99),
        at(1.0),
        sizes.len(),
        lost[0],
        lost[1],
    );
}

/// A packet capture on the near end of the link.
struct Capture {
    process: Killed,
    folder: tempfile::TempDir,
}

impl Capture {
    fn start(row: &Row) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // 64 MiB of buffer, and the first 64 bytes of each packet: Ethernet, IPv4 and ICMP.
        let child = Command::new("ip")
            .args(["netns", "exec", row.name(0), "tcpdump", "-i", "right", "-n", "-Z", "root", "-B", "65536", "-s", "64", "-w"])
            .arg(folder.path().join("capture"))
            .args(["--time-stamp-precision=nano", "icmp"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("tcpdump");
        let mut process = Killed(child);
        // It says so once it listens.
        let mut line = String::new();
        let mut errors = BufReader::new(process.0.stderr.take().unwrap());
        while !line.contains("listening on") {
            line.clear();
            assert!(errors.read_line(&mut line).unwrap() > 0, "tcpdump ended");
        }
        std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        Self { process, folder }
    }

    /// Ends it and reads what it saw.
    fn end(mut self) -> Truth {
        // tcpdump takes packets in blocks: the last one is given its time.
        std::thread::sleep(SECOND);
        kill(Pid::from_raw(i32::try_from(self.process.0.id()).unwrap()), Signal::SIGINT).unwrap();
        self.process.0.wait().unwrap();
        read(&self.folder.path().join("capture"))
    }
}

/// Reads a capture file of nanosecond stamps (pcap, in this machine's byte order; Ethernet).
fn read(file: &Path) -> Truth {
    let bytes = std::fs::read(file).unwrap();
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!(word(0), 0xa1b2_3c4d, "nanosecond stamps");
    let mut at = 24;
    // By target, identifier and sequence: where the request is in its target's list, and when it left.
    let mut open: BTreeMap<(Ipv4Addr, u16, u16), (usize, Duration)> = BTreeMap::new();
    let mut truth = Truth::new();
    while at + 16 <= bytes.len() {
        let (stamp, length) = (Duration::new(word(at).into(), word(at + 4)), word(at + 8) as usize);
        let packet = &bytes[at + 16..at + 16 + length];
        at += 16 + length;
        if packet.len() < 42 || packet[14] != 0x45 {
            continue;
        }
        let address = |from: usize| Ipv4Addr::new(packet[from], packet[from + 1], packet[from + 2], packet[from + 3]);
        let half = |from: usize| u16::from_be_bytes([packet[from], packet[from + 1]]);
        match packet[34] {
            8 => {
                let trips = truth.entry(address(30)).or_default();
                open.insert((address(30), half(38), half(40)), (trips.len(), stamp));
                trips.push(None);
            }
            0 => {
                let Some((index, left)) = open.remove(&(address(26), half(38), half(40))) else { continue };
                truth.get_mut(&address(26)).unwrap()[index] = Some(stamp - left);
            }
            _ => {}
        }
    }
    truth
}
