//! Content codings.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use tokio::io::AsyncWriteExt as _;
use vantage_contract::v1::{HttpCoding, HttpExpectations, HttpProbe, Reason, probe::Kind};

use super::{ask, asking, expecting, passed, report};
use crate::lab::{
    http::{Server, coded, ok, read_request},
    probe::{Verdict as _, invalid, probe},
};

/// `{"status":"ok","nodes":[1,2,3],"text":"hello hello hello hello"}`, by brotli 1.0.9 and zstd 1.5.4.
const BROTLI: &str =
    "a1f80100e9388c1d4f173f02c1a2d2892354f216d95adbdb3132336f9a45a7ab2f38e480f9a02d8bec58362aaafa987a491ecee1a0869d1cef8b03";
const ZSTD: &str = "28b52ffd2440b50100f4027b22737461747573223a226f6b222c226e6f646573223a5b312c322c335d2c2274657874223a2268656c6c6f20227d0100cd5ccabb227eba";
const TEXT: &str = r#"{"status":"ok","nodes":[1,2,3],"text":"hello hello hello hello"}"#;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn has(text: &str) -> HttpExpectations {
    HttpExpectations { body_contains: vec![text.into()], ..HttpExpectations::default() }
}

#[tokio::test]
async fn codings_are_asked_for_by_name_and_not_at_all_by_default() {
    let (server, requests) = Server::scripted(|_, _| ok("")).await;
    let content_codings = vec![HttpCoding::Br.into(), HttpCoding::Gzip.into()];
    passed(ask(asking(&server)).await);
    passed(ask(HttpProbe { content_codings: content_codings.clone(), ..asking(&server) }).await);
    let headers = [("Accept-Encoding".into(), "compress".into())].into();
    passed(ask(HttpProbe { content_codings, headers, ..asking(&server) }).await);
    let asked: Vec<_> = requests
        .all()
        .iter()
        .map(|request| request.lines().find_map(|line| line.strip_prefix("accept-encoding: ").map(str::to_owned)))
        .collect();
    assert_eq!(asked, [None, Some("br, gzip".into()), Some("compress".into())]);
    let unknown = HttpProbe { content_codings: vec![9], ..asking(&server) };
    assert_eq!(invalid(&probe(Kind::Http(unknown))), "http.content_codings[0]");
}

#[tokio::test]
async fn what_comes_coded_is_decoded_asked_for_or_not_and_both_sizes_are_told() {
    let twice = gzip(&gzip(TEXT.as_bytes()));
    for (coding, body) in [("gzip", gzip(TEXT.as_bytes())), ("br", hex(BROTLI)), ("zstd", hex(ZSTD)), ("gzip, gzip", twice)] {
        let server = Server::answering(coded(coding, &body)).await;
        let seen = passed(ask(expecting(&server, has(TEXT))).await);
        assert_eq!((seen.body_size_bytes, seen.decoded_body_size_bytes), (body.len() as u64, TEXT.len() as u64), "{coding}");
        assert_eq!(seen.content_coding, coding);
    }
    let plain = Server::answering(ok(TEXT)).await;
    let seen = passed(ask(asking(&plain)).await);
    assert_eq!((seen.body_size_bytes, seen.decoded_body_size_bytes), (TEXT.len() as u64, TEXT.len() as u64));
    assert_eq!(seen.content_coding, "");
    // Answers to HEAD say how they would be coded, and have no body.
    let head = Server::answering("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 99\r\n\r\n").await;
    passed(ask(HttpProbe { method: "HEAD".into(), ..asking(&head) }).await);
}

#[tokio::test]
async fn the_limit_is_one_of_decoded_bytes_and_no_more_are_decoded() {
    let limited = |server: &Server, max_body_size_bytes| HttpProbe { max_body_size_bytes, ..asking(server) };
    let server = Server::answering(coded("gzip", &gzip(&[b'x'; 129]))).await;
    let seen = report(ask(limited(&server, 128)).await.because(Reason::TooLarge));
    assert_eq!(seen.decoded_body_size_bytes, 128);
    assert_eq!(passed(ask(limited(&server, 129)).await).decoded_body_size_bytes, 129);
    // Ten megabytes of zeros in ten kilobytes, and those in some hundred bytes.
    let bomb = gzip(&vec![0; 10_000_000]);
    for (coding, body) in [("gzip", bomb.clone()), ("gzip, gzip", gzip(&bomb))] {
        let server = Server::answering(coded(coding, &body)).await;
        let seen = report(ask(limited(&server, 1_000_000)).await.because(Reason::TooLarge));
        assert_eq!(seen.decoded_body_size_bytes, 1_000_000);
    }
    let endless = Server::start(|mut stream, _| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n").await;
        let member = gzip(&[0; 100]);
        while stream.write_all(&member).await.is_ok() {}
    })
    .await;
    assert_eq!(report(ask(limited(&endless, 10_000)).await.because(Reason::TooLarge)).decoded_body_size_bytes, 10_000);
}

#[tokio::test]
async fn a_body_that_is_not_what_its_coding_says_is_malformed() {
    let whole = gzip(TEXT.as_bytes());
    for (coding, body) in
        [("gzip", TEXT.as_bytes()), ("gzip", &whole[..whole.len() - 9]), ("br", b"\xff\xff\xff"), ("zstd", &whole), ("deflate", b"\xff")]
    {
        let server = Server::answering(coded(coding, body)).await;
        let sight = ask(asking(&server)).await;
        assert!(sight.summary.contains("not what its coding says"), "{coding}: {}", sight.summary);
        sight.because(Reason::MalformedAnswer);
    }
}

#[tokio::test]
async fn a_body_in_a_coding_that_nobody_knows_is_left_as_it_is_and_never_judged() {
    let server = Server::answering(coded("compress", TEXT.as_bytes())).await;
    let seen = passed(ask(asking(&server)).await);
    assert_eq!((seen.content_coding.as_str(), seen.decoded_body_size_bytes), ("compress", TEXT.len() as u64));
    let fewer = HttpExpectations { body_lacks: vec!["error".into()], ..HttpExpectations::default() };
    let size = HttpExpectations { min_body_size_bytes: 1, ..HttpExpectations::default() };
    for expect in [has("ok"), fewer, size] {
        let sight = ask(expecting(&server, expect)).await;
        assert!(sight.summary.contains("\"compress\", which is not known"), "{}", sight.summary);
        sight.because(Reason::UnexpectedAnswer);
    }
}
