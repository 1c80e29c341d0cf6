//! What strangers can have of a listener, and which listener has what.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::Code;

use super::{Guarded, execute, list};
use crate::lab::{
    pki::Pki,
    place,
    process::{MANAGER, MONITOR, run, write},
};

#[tokio::test]
async fn handshakes_that_never_end_are_bounded_and_keep_nobody_out() {
    let pki = Pki::new().await;
    let mut monitor = Guarded::start(&pki).await;
    let mut half_open = Vec::new();
    for _ in 0..300 {
        let mut stream = TcpStream::connect(monitor.at).await.unwrap();
        // The first bytes of a ClientHello, and no more.
        stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await.unwrap();
        half_open.push(stream);
    }
    let answer = list(Pki::channel(&pki.client(Some("admin")), monitor.at), None).await;
    assert_eq!(answer, Ok(0), "{}", monitor.running.said());
    monitor.running.says("this is the oldest").await;
    monitor.running.says("no handshake within 5s").await;
    let mut last = half_open.pop().unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(20), last.read(&mut [0; 1])).await.expect("closed in time");
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    assert_eq!(list(Pki::channel(&pki.client(Some("admin")), monitor.at), None).await, Ok(0));
}

#[tokio::test]
async fn garbage_in_place_of_a_handshake_takes_nothing_down() {
    let pki = Pki::new().await;
    let mut monitor = Guarded::start(&pki).await;
    for garbage in [vec![0; 100_000], vec![0xff; 100_000], b"GET / HTTP/1.1\r\n\r\n".to_vec(), b"\x16\x03\x01\x00\x00".to_vec(), Vec::new()]
    {
        let mut stream = TcpStream::connect(monitor.at).await.unwrap();
        let _ = stream.write_all(&garbage).await;
        let _ = stream.shutdown().await;
        let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut Vec::new())).await.expect("hung up in time");
    }
    monitor.running.says("what it says is not TLS").await;
    assert_eq!(list(Pki::channel(&pki.client(Some("admin")), monitor.at), None).await, Ok(0));
}

#[tokio::test]
async fn an_admin_listener_has_admin_service_and_the_main_one_has_it_no_more() {
    let (pki, admin) = (Pki::new().await, place::own());
    let (ca, at) = (pki.text("ca.pem"), admin.to_string());
    let monitor = Guarded::with(&pki, "monitor-fra", &["--client-ca-file", &ca, "--admin-listen", &at]).await;
    let manager = |at| Pki::channel(&pki.client(Some("manager")), at);
    assert_eq!(list(manager(monitor.at), None).await, Err(Code::Unimplemented));
    assert_eq!(list(Pki::channel(&pki.client(Some("admin")), admin), None).await, Ok(0));
    assert_eq!(execute(manager(admin), None).await.err().map(|status| status.code()), Some(Code::Unimplemented));
    assert!(execute(manager(monitor.at), None).await.is_ok());
    assert!(list(Pki::channel(&pki.client(None), admin), None).await.is_err());
}

#[tokio::test]
async fn a_listener_beyond_loopback_that_anybody_could_use_refuses_to_start() {
    let pki = Pki::new().await;
    let (certificate, key) = (pki.text("monitor-fra.pem"), pki.text("monitor-fra.key"));
    let only_tls = ["--certificate-file", &certificate, "--key-file", &key];
    let loopback = ["serve", "--data", "memory", "--listen", "127.0.0.1:0"];
    for (open, cures) in [
        (vec!["--http-listen", "0.0.0.0:0"], ["--client-ca-file", "--token-file", "--insecure-http"]),
        (vec!["--http-listen", "off", "--admin-listen", "[::]:0"], ["--client-ca-file", "--token-file", "--insecure-listen"]),
        ([&["--http-listen", "0.0.0.0:0"], &only_tls[..]].concat(), ["--client-ca-file", "--token-file", "--insecure-http"]),
    ] {
        let ended = run(MONITOR, &[&loopback[..], &open].concat()).await;
        assert_eq!(ended.code, Some(64), "{ended:?}");
        assert!(cures.iter().all(|cure| ended.stderr.contains(cure)), "{ended:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "checks.json", r#"{"checks": [{"name": "a", "ping": {"host": "127.0.0.1"}}]}"#);
    let page = ["--config", &file, "--data", "memory", "--embedded-listen", "127.0.0.1:0", "--http", "0.0.0.0:0"];
    let ended = run(MANAGER, &page).await;
    assert_eq!(ended.code, Some(64), "{ended:?}");
    assert!(["--http-client-ca-file", "--http-token-file", "--insecure-http"].iter().all(|cure| ended.stderr.contains(cure)), "{ended:?}");
}
