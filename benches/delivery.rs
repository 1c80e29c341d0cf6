//! How fast results come through journal, stream and store, and what an outage of the manager costs afterwards.
//!
//! `cargo bench --bench delivery`: the delivery on one core beside a bare SQLite insert loop on the same core; with `-- outage` instead the hour's
//! outage of 1,000 checks at one a second. `TMPDIR` says on which disk.
//!
//! Measured: the two programs, as they ship, with their folders, from the start of the manager until it has printed each result, which it
//! does after the store's commit; and the reading of those lines here. Not measured: how the backlog came into the journal. It is written by
//! the journal's own `Disk`, in blocks as sessions hand them over; nothing was probed for it.
#![expect(clippy::unwrap_used, reason = "a benchmark that can't go on has nothing to say")]
#![expect(clippy::print_stdout, reason = "the figures are what a benchmark is for")]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use prost::Message as _;
use rusqlite::Connection;
use vantage_contract::{
    file,
    v1::{Check, Outcome, Phase, ProbeResult, TcpReport, probe_result::Report},
};
use vantage_daemon::{clock, data::Folder, sqlite::Sync};
use vantage_manager::plan;
use vantage_monitor::{
    journal::{Block, Changes, Disk, Placement},
    ledger::Ledger,
};

const CLIENT: &str = "bench";
const MONITOR: &str = "bench";
const SESSION: &str = "5ac863a0799b8097";
/// What a session hands over at once, and how many of them are committed together here.
const BLOCK: u64 = 200;
const GROUP: u64 = 50;

fn result(checks: &[Check], revisions: &[String], number: u64, start: SystemTime) -> ProbeResult {
    let checks_count = checks.len() as u64;
    let (check, run) = (number % checks_count, number / checks_count);
    let due = start + Duration::from_secs(run) + Duration::from_micros(check);
    let micros = |micros| Some(prost_types::Duration { seconds: 0, nanos: micros * 1000 });
    let report = TcpReport {
        connected: true,
        connect_time: micros(71),
        kernel_round_trip: micros(64),
        local_address: "127.0.0.1:43210".into(),
        remote_address: "127.0.0.1:54999".into(),
        ..TcpReport::default()
    };
    ProbeResult {
        check_name: checks[check as usize].name.clone(),
        kind: "tcp".into(),
        target: "127.0.0.1:54999".into(),
        revision: revisions[check as usize].clone(),
        run,
        run_count: 1,
        monitor: MONITOR.into(),
        session: SESSION.into(),
        sequence: number + 1,
        sequence_count: 1,
        due_time: Some(due.into()),
        start_time: Some((due + Duration::from_micros(150)).into()),
        lateness: micros(150),
        outcome: Outcome::Passed.into(),
        address: "127.0.0.1".into(),
        duration: micros(90),
        latency: micros(71),
        phases: vec![Phase { name: "connect".into(), duration: micros(71) }],
        report: Some(Report::Tcp(Box::new(report))),
        ..ProbeResult::default()
    }
}

/// A journal as a monitor leaves it that was alone with its orders for so many seconds.
fn fill(folder: &Path, checks: &[Check], revisions: &[String], seconds: u64, start: SystemTime) {
    let mut disk = Disk::open(Some(Folder::open(folder).unwrap()), MONITOR, Sync::Full, clock::wall()).unwrap().0;
    let placed = checks.iter().zip(0_u64..).map(|(check, id)| {
        let anchor = (start + Duration::from_micros(id)).duration_since(UNIX_EPOCH).unwrap();
        (id, Placement { start: plan::order(check), anchor_ns: anchor.as_nanos() as i64, first_run: 0, end: None })
    });
    let begin = Changes { opened: vec![SESSION.into()], placed: placed.collect(), ..Changes::default() };
    disk.apply(&[(CLIENT, &begin)], clock::wall()).unwrap();
    let (count, mut number) = (checks.len() as u64 * seconds, 0);
    while number < count {
        let mut changes = Changes::default();
        for _ in 0..GROUP {
            let (first, mut body) = (number + 1, Vec::new());
            while number < count && number - (first - 1) < BLOCK {
                result(checks, revisions, number, start).encode_length_delimited(&mut body).unwrap();
                number += 1;
            }
            if number >= first {
                let count = number - first + 1;
                changes.blocks.push(Block { session: SESSION.into(), first, last: number, count, body: body.into() });
            }
        }
        if number == count {
            changes.ledgers = (0..checks.len() as u64).map(|id| (id, Ledger::new(seconds))).collect::<BTreeMap<_, _>>();
        }
        disk.apply(&[(CLIENT, &changes)], clock::wall()).unwrap();
    }
}

/// The same bytes into a table with nothing else to it, 1000 a commit.
fn bare(folder: &Path, checks: &[Check], revisions: &[String], count: u64) -> f64 {
    let rows: Vec<_> = (0..count).map(|number| result(checks, revisions, number, UNIX_EPOCH).encode_to_vec()).collect();
    let bytes: usize = rows.iter().map(Vec::len).sum();
    println!("{count} results of {} bytes", bytes as u64 / count);
    let mut db = Connection::open(folder.join("bare.db")).unwrap();
    db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
    db.pragma_update(None, "synchronous", "FULL").unwrap();
    db.execute_batch("CREATE TABLE result (id INTEGER PRIMARY KEY, bytes BLOB)").unwrap();
    let began = clock::monotonic();
    for batch in rows.chunks(1000) {
        let change = db.transaction().unwrap();
        let mut insert = change.prepare_cached("INSERT INTO result (bytes) VALUES (?1)").unwrap();
        batch.iter().for_each(|row| _ = insert.execute([row]).unwrap());
        drop(insert);
        change.commit().unwrap();
    }
    let rate = count as f64 / began.elapsed().as_secs_f64();
    println!("  bare SQLite loop, 1000 a commit, synchronous FULL: {rate:.0} a second");
    rate
}

/// The processor time of a process so far, in seconds.
fn busy(process: &Program) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.0.id())).unwrap();
    let ticks = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap());
    // USER_HZ is 100 on all of Linux.
    ticks.sum::<u64>() as f64 / 100.0
}

/// The most memory that a process had, in MiB.
fn peak(process: &Program) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.0.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// A program that runs. It is killed when this is dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // One that has ended already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program; on loopback, and its times in UTC.
fn start(program: &str, arguments: &[&str]) -> Program {
    let program = Command::new(program)
        .args(arguments)
        .args(["--log", "warn"])
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    Program(program)
}

/// A backlog of so many seconds, delivered while the checks go on. Returns results a second.
fn deliver(folder: &Path, count: u64, seconds: u64) -> f64 {
    fs::create_dir_all(folder).unwrap();
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = target.local_addr().unwrap().port();
    thread::spawn(move || target.incoming().for_each(drop));
    let checks: Vec<_> = (0..count)
        .map(|number| format!(r#"{{"name":"check-{number}","interval":"1s","timeout":"1s","tcp":{{"host":"127.0.0.1","port":{port}}}}}"#))
        .collect();
    let file = folder.join("checks.json");
    fs::write(&file, format!("[{}]", checks.join(","))).unwrap();
    let checks = file::load(&file).unwrap().file.checks;
    let revisions: Vec<_> = checks.iter().map(|check| plan::order(check).revision).collect();
    let (journal, store) = (folder.join("monitor"), folder.join("manager"));
    let (journal, store, file) = (journal.to_str().unwrap(), store.to_str().unwrap(), file.to_str().unwrap());
    let came = clock::wall() - Duration::from_secs(seconds);
    fill(Path::new(journal), &checks, &revisions, seconds, came);

    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let settings = folder.join("monitor.json");
    fs::write(&settings, r#"{"journal": {"bytes": 4294967296}}"#).unwrap();
    let settings = settings.to_str().unwrap();
    let serve = ["serve", "--config", settings, "--name", MONITOR, "--listen", &free, "--http-listen", "off", "--data", journal];
    let monitor = start(env!("CARGO_BIN_EXE_vantage-monitor"), &serve);
    // The listener is open once the journal is read.
    while std::net::TcpStream::connect(&free).is_err() {
        thread::sleep(Duration::from_millis(20));
    }
    let (monitor_before, began, since) = (busy(&monitor), clock::monotonic(), clock::wall());
    let run = ["--config", file, "--monitor", &free, "--client-id", CLIENT, "--http", "off", "--data", store];
    let mut manager = start(env!("CARGO_BIN_EXE_vantage-manager"), &run);
    let (total, last) = (count * seconds, second_of(since));
    let (mut backlog, mut ages) = (0, Vec::new());
    let mut lines = BufReader::with_capacity(1 << 20, manager.0.stdout.take().unwrap());
    let mut line = Vec::new();
    while backlog < total && began.elapsed() < Duration::from_secs(300) {
        line.clear();
        if lines.read_until(b'\n', &mut line).unwrap() == 0 {
            break;
        }
        match second_of_day(&line) {
            // Started after the manager: live. The day may end meanwhile.
            Some(second) if (second + 86_400 - last) % 86_400 < 43_200 => {
                let now = clock::wall().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() % 86_400.0;
                ages.push((now - second as f64).rem_euclid(86_400.0));
            }
            _ => backlog += u64::from(!line.windows(9).any(|word| word == b"[skipped:")),
        }
    }
    assert!(backlog >= total, "only {backlog} of {total} came within {:?}", began.elapsed());
    let took = began.elapsed().as_secs_f64();
    let (monitor_busy, manager_busy) = (busy(&monitor) - monitor_before, busy(&manager));
    let arrived = backlog as f64;
    println!("  {count} checks, backlog of {total}: {backlog} in {took:.1} s, {:.0} a second", arrived / took);
    println!(
        "    processor time per result: monitor {:.1} us, manager {:.1} us",
        monitor_busy * 1e6 / arrived,
        manager_busy * 1e6 / arrived
    );
    println!("    peak memory: monitor {} MiB, manager {} MiB", peak(&monitor), peak(&manager));
    ages.sort_by(f64::total_cmp);
    let at = |share: f64| ages.get((ages.len() as f64 * share) as usize).or(ages.last()).copied().unwrap_or(f64::NAN);
    println!(
        "    live meanwhile: {} results, age (up to 1 s more than it was) p50 {:.2} s, p99 {:.2} s, most {:.2} s",
        ages.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    let reader = thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
    thread::sleep(Duration::from_secs(15));
    let account = Command::new(env!("CARGO_BIN_EXE_vantage-manager")).args(["account", "--by", "none", "--data", store]).output().unwrap();
    println!("{}", String::from_utf8_lossy(&account.stdout));
    drop((manager, monitor));
    let _ = reader.join();
    arrived / took
}

fn second_of(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap().as_secs() % 86_400
}

/// When the result of a line was started: `[2026-11-24 00:52:52] ..`.
fn second_of_day(line: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(line.get(12..20)?).ok()?;
    text.split(':').try_fold(0, |sum, part| Some(sum * 60 + part.parse::<u64>().ok()?))
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    if std::env::args().any(|argument| argument == "outage") {
        println!("an hour's outage of the manager, on all cores");
        deliver(&folder.path().join("outage"), 1000, 3600);
        return;
    }
    // What is started from here on stays on that core too.
    let mut one = CpuSet::new();
    one.set(0).unwrap();
    sched_setaffinity(Pid::from_raw(0), &one).unwrap();
    println!("delivery on one core");
    let check = |number| Check { name: format!("check-{number}"), ..Check::default() };
    let checks: Vec<_> = (0..100).map(check).collect();
    let bare = bare(folder.path(), &checks, &vec!["0123456789abcdef".to_owned(); 100], 400_000);
    let through = deliver(&folder.path().join("delivery"), 100, 4000);
    println!("  a result costs {:.1} times as much as in the bare loop", bare / through);
}
