//! Malformed and hostile gRPC clients never take a monitor down, nor disturb another client.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::Code;
use vantage_contract::v1::{Check, ExecuteRequest, Outcome, Start, execute_request::Order};

use crate::lab::monitor::{Monitor, accounted, silent_port, tcp_check};

/// What an HTTP/2 client says first (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Says `bytes` and waits until the monitor hangs up, or for a moment.
async fn say(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The monitor may hang up in the middle of it.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_millis(200), stream.read_to_end(&mut answer)).await;
}

/// A HEADERS or other frame with this payload.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[tokio::test]
async fn garbage_on_the_wire_disturbs_nobody() {
    let ((_open, port), monitor) = (silent_port().await, Monitor::start().await);
    let mut link = monitor.connect("honest", &[]).await;
    // Slow enough that a busy machine skips no run, which it does with one that can't begin within its interval.
    link.start(tcp_check("web", port, Duration::from_millis(600), 0)).await;
    link.result().await;

    let settings = frame(4, 0, 0, &[]);
    for garbage in [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![0; 100_000],
        vec![0xff; 100_000],
        // A TLS ClientHello's first bytes, to a listener in the clear.
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        PREFACE.to_vec(),
        [PREFACE, &settings, &frame(1, 4, 1, &[0xff; 5000])].concat(),
        // A frame that says that it is 16 MB long.
        [PREFACE, &settings, &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat(),
        [PREFACE, &settings, &(0..2000).flat_map(|_| frame(6, 0, 0, &[0; 8])).collect::<Vec<u8>>()].concat(),
        [PREFACE, &settings, &(0..2000).flat_map(|n: u32| frame(3, 0, 2 * n + 1, &[0, 0, 0, 8])).collect::<Vec<u8>>()].concat(),
    ] {
        say(monitor.address, &garbage).await;
    }
    let half_open: Vec<_> = futures_connect(monitor.address, 200).await;

    let results = link.results(5).await;
    assert!(results.iter().all(|result| result.outcome() == Outcome::Passed), "{results:?}");
    drop(half_open);
    assert_eq!(monitor.clients().await.len(), 1);
}

async fn futures_connect(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        streams.push(TcpStream::connect(address).await.unwrap());
    }
    streams
}

#[tokio::test]
async fn a_huge_order_ends_its_own_stream_alone() {
    let ((_open, port), monitor) = (silent_port().await, Monitor::start().await);
    let mut honest = monitor.connect("honest", &[]).await;
    honest.start(tcp_check("web", port, Duration::from_millis(100), 0)).await;

    let mut hostile = monitor.connect("hostile", &[]).await;
    let huge = Check { name: "x".repeat(8 << 20), ..Check::default() };
    hostile.order(Order::Start(Start { check: Some(huge), ..Start::default() })).await;
    // The stream is lost for the hostile one: its orders, none, stand.
    while let Ok(Some(_)) = hostile.next().await {}
    assert_eq!(monitor.clients().await["hostile"].order_count, 0);
    assert_eq!(honest.results(3).await.len(), 3);
}

#[tokio::test]
async fn an_empty_request_is_refused_by_name() {
    let monitor = Monitor::start().await;
    let mut link = monitor.connect("odd", &[]).await;
    link.send(ExecuteRequest::default()).await;
    let status = link.next().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("order:"), "{status}");
}

#[tokio::test]
async fn a_client_that_never_reads_does_not_stop_another_or_the_measuring() {
    let ((_open, port), monitor) = (silent_port().await, Monitor::start().await);
    let deaf = monitor.connect("deaf", &[]).await;
    for number in 0..50 {
        deaf.start(tcp_check(&format!("web-{number}"), port, Duration::from_millis(100), 0)).await;
    }
    let mut honest = monitor.connect("honest", &[]).await;
    honest.start(tcp_check("web", port, Duration::from_millis(100), 0)).await;
    let results = honest.results(10).await;
    accounted(&results);
    assert!(results.iter().any(|result| result.outcome() == Outcome::Passed), "{results:?}");
    assert!(monitor.queues().await["deaf"].unacknowledged_count > 100);
}
