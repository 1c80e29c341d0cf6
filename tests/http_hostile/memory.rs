//! What hostile servers cost a monitor's process: many of them at once, and no more memory than so many honest ones would be worth.

use std::{io::Write as _, time::Duration};

use flate2::{Compression, write::GzEncoder};
use prost::Message as _;
use vantage_contract::v1::{Check, HttpProbe, Outcome, Probe, Reason, RunOnce, execute_request::Order, probe::Kind};

use super::{asking, asking_two, endless, two};
use crate::lab::{
    http::Server,
    monitor::{Link, Monitor, eventually},
    place,
    process::{MONITOR, Running, forget_peak, peak_bytes, resident_bytes},
};

/// How many meet such a server at once.
const AT_ONCE: usize = 32;
/// How long each run may take; many of these servers go on for as long.
const TIMEOUT: Duration = Duration::from_millis(1500);
/// What a run may take while it lasts: what is read and not yet looked at, what HTTP/2 may send unasked, a table of headers; and what the
/// process takes for itself, of which threads and their arenas are the most.
const EACH: u64 = 2 << 20;
const ALL: u64 = 24 << 20;
/// The most that a result may say of it.
const RESULT: usize = 16 << 10;

/// A monitor in a process of its own, and its client.
async fn monitor() -> (Running, Link) {
    let address = place::own();
    let listen = address.to_string();
    let running =
        Running::silent(MONITOR, &["serve", "--name", "hostile", "--listen", &listen, "--http-listen", "off", "--data", "memory"]);
    eventually("the monitor serves", || async { tokio::net::TcpStream::connect(address).await.is_ok() }).await;
    let link = Monitor::at(address).connect("desk", &[]).await;
    (running, link)
}

fn check(spec: HttpProbe) -> Check {
    let timeout = prost_types::Duration::try_from(TIMEOUT).ok();
    Check { name: "hostile".into(), probe: Some(Probe { timeout, kind: Some(Kind::Http(spec)), ..Probe::default() }), ..Check::default() }
}

/// Runs it so often at once, and says how much more memory there was in use meanwhile.
async fn growth(running: &Running, link: &mut Link, what: &str, spec: HttpProbe) -> u64 {
    forget_peak(running.id());
    let before = resident_bytes(running.id());
    for _ in 0..AT_ONCE {
        link.order(Order::RunOnce(RunOnce { check: Some(check(spec.clone())), ..RunOnce::default() })).await;
    }
    for result in link.results(AT_ONCE).await {
        // A machine that is as busy as this makes it may sleep over a deadline, and says so.
        let is_honest = result.outcome() == Outcome::Failed || result.reason() == Reason::ResourceExhausted;
        assert!(is_honest, "{what}: {result:?}");
        assert!(result.encoded_len() < RESULT, "{what}: {} bytes: {result:?}", result.encoded_len());
        link.ack(result.sequence).await;
    }
    peak_bytes(running.id()).saturating_sub(before)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_hostile_servers_at_once_cost_bounded_memory() {
    let servers: Vec<(&str, Server)> = vec![
        ("headers without end", endless("HTTP/1.1 200 OK\r\n", "X-More: and more\r\n").await),
        ("tiny headers without end", endless("HTTP/1.1 200 OK\r\n", "a:\r\n").await),
        ("a header without end", endless("HTTP/1.1 200 OK\r\nX-More: ", "and more ").await),
        ("a body without end", endless("HTTP/1.1 200 OK\r\n\r\n", "x").await),
        ("chunks without end", endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n").await),
        ("trailers without end", endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "X-More: and more\r\n").await),
        ("a large Content-Type", endless(format!("HTTP/1.1 500 Oh\r\nContent-Type: {}\r\n\r\n", "x".repeat(60_000)), "x").await),
        ("a large Location", endless(format!("HTTP/1.1 302 Oh\r\nLocation: /{}\r\n\r\n", "x".repeat(60_000)), "x").await),
    ];
    let (running, mut link) = monitor().await;
    // What the first runs of a kind take for good is not the hostile ones'.
    let usual = endless("HTTP/1.1 500 Oh\r\nContent-Length: 1000000\r\n\r\n", "x").await;
    growth(&running, &mut link, "usual", asking(&usual)).await;
    for (what, server) in &servers {
        let grown = growth(&running, &mut link, what, asking(server)).await;
        assert!(grown < ALL + EACH * AT_ONCE as u64, "{what}: {} MiB more", grown >> 20);
    }
}

/// Coded bodies of which a few bytes stand for many: of zeros by gzip, which has two of itself within, and by zstd (RFC 8878), a block for each
/// four bytes.
fn bombs() -> [(&'static str, Vec<u8>, Vec<u8>); 3] {
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let head = |coding: &str| format!("HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\n\r\n").into_bytes();
    let zeros = gzip(&vec![0; 50 << 20]);
    // A frame whose window is 8 MiB, the most that a coding may ask for (RFC 9659), and then blocks of 128 KiB of one byte.
    let frame = [head("zstd"), vec![0x28, 0xb5, 0x2f, 0xfd, 0, 13 << 3]].concat();
    let block = ((128_u32 << 10) << 3 | 1 << 1).to_le_bytes();
    [
        ("gzip", [head("gzip"), zeros.clone()].concat(), vec![0]),
        ("gzip of gzip", [head("gzip, gzip"), gzip(&zeros)].concat(), vec![0]),
        ("zstd", frame, [&block[..3], b"x"].concat()),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_bombs_at_once_cost_bounded_memory() {
    let (running, mut link) = monitor().await;
    let usual = endless("HTTP/1.1 500 Oh\r\nContent-Length: 1000000\r\n\r\n", "x").await;
    growth(&running, &mut link, "usual", asking(&usual)).await;
    for (what, first, again) in bombs() {
        let server = endless(first, again).await;
        let spec = HttpProbe { max_body_size_bytes: 1 << 20, ..asking(&server) };
        let grown = growth(&running, &mut link, what, spec).await;
        assert!(grown < ALL + EACH * AT_ONCE as u64, "{what}: {} MiB more", grown >> 20);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_hostile_servers_of_http_2_at_once_cost_bounded_memory() {
    let mut servers = Vec::new();
    for (what, first, again) in two::costly() {
        servers.push((what, two::flooding(first, again).await));
    }
    let (running, mut link) = monitor().await;
    let usual = two::flooding(two::begun(&[two::head(two::END_HEADERS)]), two::data(&[b'x'; 1000], 0)).await;
    growth(&running, &mut link, "usual", asking_two(&usual)).await;
    for (what, server) in &servers {
        let grown = growth(&running, &mut link, what, asking_two(server)).await;
        assert!(grown < ALL + EACH * AT_ONCE as u64, "{what}: {} MiB more", grown >> 20);
    }
}
