//! HTTP/2 (RFC 9113) by servers that mean no good: floods of each kind of frame, resets, windows that never open, and headers that swell.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use vantage_contract::v1::{HttpProbe, HttpVersion, Outcome, Reason, TlsOptions, probe::Kind};

use super::{ask, asking, asking_two, fails, in_haste, report, times_out};
use crate::lab::{
    http::{Server, finish},
    probe::{Verdict as _, probe, run, within},
    tls::{Authority, Leaf, serve},
};

/// A server's preface: SETTINGS that ask for nothing.
pub(super) const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// And that those of the client have been seen.
pub(super) const ACK: &[u8] = &[0, 0, 0, 4, 1, 0, 0, 0, 0];
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

const HEADERS: u8 = 1;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of an answer to the first request: `:status: 200`, from the static table of HPACK (RFC 7541).
pub(super) fn head(flags: u8) -> Vec<u8> {
    frame(HEADERS, flags, 1, &[0x88])
}

pub(super) fn data(bytes: &[u8], flags: u8) -> Vec<u8> {
    frame(0, flags, 1, bytes)
}

/// A field that is not put into the table: name and value are short.
fn field(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).ok().filter(|length| *length < 127).unwrap();
    [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}

/// Reads until the head of the first request, and of its body what there is.
pub(super) async fn read_request(stream: &mut (impl AsyncRead + Unpin)) {
    let mut preface = [0; 24];
    if stream.read_exact(&mut preface).await.is_err() {
        return;
    }
    loop {
        let mut start = [0; 9];
        if stream.read_exact(&mut start).await.is_err() {
            return;
        }
        let length = u32::from_be_bytes([0, start[0], start[1], start[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        if stream.read_exact(&mut payload).await.is_err() || start[3] == HEADERS {
            return;
        }
    }
}

/// Reads a request, says `first`, and then `again` without end. What the client says meanwhile is read.
pub(super) async fn flooding(first: Vec<u8>, again: Vec<u8>) -> Server {
    let again = again.repeat(16_384_usize.div_ceil(again.len()));
    Server::start(move |mut stream, _| {
        let (first, again) = (first.clone(), again.clone());
        async move {
            read_request(&mut stream).await;
            let (mut heard, mut said) = stream.into_split();
            let listening = tokio::spawn(async move { tokio::io::copy(&mut heard, &mut tokio::io::sink()).await });
            let _ = said.write_all(&first).await;
            while said.write_all(&again).await.is_ok() {}
            listening.abort();
        }
    })
    .await
}

/// Reads a request, says so much, and then keeps the connection open.
async fn saying(bytes: Vec<u8>) -> Server {
    Server::start(move |mut stream, _| {
        let bytes = bytes.clone();
        async move {
            read_request(&mut stream).await;
            let _ = stream.write_all(&bytes).await;
            // Until the client leaves.
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
    })
    .await
}

pub(super) fn begun(frames: &[Vec<u8>]) -> Vec<u8> {
    [&[SETTINGS.to_vec(), ACK.to_vec()], frames].concat().concat()
}

#[tokio::test]
async fn an_answer_of_hand_made_frames_passes() {
    let server = saying(begun(&[head(END_HEADERS), data(b"hello", END_STREAM)])).await;
    let seen = report(Some(ask(asking_two(&server)).await.passed()));
    assert_eq!((seen.version.as_str(), seen.status, seen.body_size_bytes), ("2", 200, 5));
}

/// Floods before the answer and in the middle of it: all of them end long before the timeout.
#[tokio::test]
async fn floods_of_any_frame_end_the_run_as_malformed_or_too_large() {
    let settings = frame(4, 0, 0, &[0, 3, 0, 0, 0, 100]);
    let kinds = [
        ("SETTINGS (CVE-2019-9515)", settings),
        ("PING (CVE-2019-9512)", frame(6, 0, 0, &[7; 8])),
        ("answers to pings that were never sent", frame(6, 1, 0, &[7; 8])),
        ("WINDOW_UPDATE", frame(8, 0, 0, &[0, 0, 0, 1])),
        ("WINDOW_UPDATE of the stream", frame(8, 0, 1, &[0, 0, 0, 1])),
        ("PRIORITY", frame(2, 0, 1, &[0, 0, 0, 0, 5])),
        ("a frame that there is not", frame(0xfa, 0, 0, &[])),
        ("empty DATA (CVE-2019-9518)", data(b"", 0)),
        ("CONTINUATION out of place", frame(9, 0, 1, &[])),
        ("RST_STREAM of streams that are not", frame(3, 0, 3, &[0, 0, 0, 8])),
        ("GOAWAY that lets the request be", frame(7, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])),
        ("answers to SETTINGS that were never sent", frame(4, 1, 0, &[])),
    ];
    for (what, again) in kinds {
        for (first, when) in [(begun(&[]), "before the answer"), (begun(&[head(END_HEADERS), data(b"hel", 0)]), "within the answer")] {
            let server = flooding(first, again.clone()).await;
            let sight = ask(asking_two(&server)).await;
            fails(&format!("{what}, {when}"), sight, &[Reason::MalformedAnswer, Reason::TooLarge, Reason::Disconnected]);
        }
    }
}

#[tokio::test]
async fn heads_without_end_are_too_large_or_malformed() {
    let piece = field("x-more", "and more").repeat(50);
    for (what, first, again) in [
        ("CONTINUATION (CVE-2024-27316)", begun(&[frame(HEADERS, 0, 1, &[0x88])]), frame(9, 0, 1, &piece)),
        ("CONTINUATION of nothing", begun(&[frame(HEADERS, 0, 1, &[0x88])]), frame(9, 0, 1, &[])),
        ("interim answers", begun(&[]), frame(HEADERS, END_HEADERS, 1, &field(":status", "103"))),
        ("trailers that don't end", begun(&[head(END_HEADERS), frame(HEADERS, END_STREAM, 1, &[])]), frame(9, 0, 1, &piece)),
        // One byte of the wire stands for 4,000 of the table.
        ("a bomb (CVE-2016-6581)", begun(&[bomb(60_000)]), frame(6, 0, 0, &[7; 8])),
    ] {
        let server = flooding(first, again).await;
        fails(what, ask(asking_two(&server)).await, &[Reason::MalformedAnswer, Reason::TooLarge, Reason::Disconnected]);
    }
}

/// Floods that could cost memory, and not time alone: what, how each begins, and how it goes on.
pub(super) fn costly() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let answered = || begun(&[head(END_HEADERS)]);
    vec![
        ("a byte in each frame of DATA", answered(), data(b"x", 0)),
        ("a byte and padding", answered(), data(&[&[200, b'x'][..], &[0; 200]].concat(), 8)),
        ("empty frames of DATA", answered(), data(b"", 0)),
        ("PING", answered(), frame(6, 0, 0, &[7; 8])),
        ("SETTINGS", answered(), frame(4, 0, 0, &[0, 3, 0, 0, 0, 100])),
        ("CONTINUATION", begun(&[frame(HEADERS, 0, 1, &[0x88])]), frame(9, 0, 1, &field("x-more", "and more").repeat(50))),
        ("a bomb", begun(&[bomb(60_000)]), data(b"x", 0)),
        ("interim answers", begun(&[]), frame(HEADERS, END_HEADERS, 1, &field(":status", "103"))),
        ("RST_STREAM", answered(), frame(3, 0, 3, &[0, 0, 0, 8])),
    ]
}

/// A head that puts a large field into the table, and repeats it so often, a byte each time.
fn bomb(times: usize) -> Vec<u8> {
    // 0x40: literal with incremental indexing, new name. A value of 3,900 bytes: 127 and 3,773 in seven-bit groups.
    let mut block = vec![0x88, 0x40, 1, b'x', 127, 0xbd, 0x1d];
    block.resize(block.len() + 3900, b'y');
    // The newest entry of the dynamic table is 62.
    block.resize(block.len() + times, 0x80 | 62);
    let mut frames = Vec::new();
    let pieces: Vec<&[u8]> = block.chunks(16_000).collect();
    for (number, piece) in pieces.iter().enumerate() {
        let flags = if number + 1 == pieces.len() { END_HEADERS } else { 0 };
        frames.extend(frame(if number == 0 { HEADERS } else { 9 }, flags, 1, piece));
    }
    frames
}

#[tokio::test]
async fn a_stream_that_is_reset_is_a_disconnect_whatever_the_code() {
    for code in (0..=14_u32).chain([255, u32::MAX]) {
        for (frames, when) in [(vec![], "at once"), (vec![head(END_HEADERS), data(b"hel", 0)], "within the answer")] {
            let frames = [frames, vec![frame(3, 0, 1, &code.to_be_bytes())]].concat();
            let sight = ask(asking_two(&saying(begun(&frames)).await)).await;
            fails(&format!("code {code}, {when}"), sight, &[Reason::Disconnected]);
        }
    }
    // After the answer is whole, it says only that no more of the request is wanted (RFC 9113 section 8.1).
    let late = saying(begun(&[head(END_HEADERS), data(b"hello", END_STREAM), frame(3, 0, 1, &[0; 4])])).await;
    ask(asking_two(&late)).await.passed();
}

#[tokio::test]
async fn a_server_that_says_goodbye_at_once_is_a_disconnect() {
    for code in [0, 1, 2, 7, 11, 12, 13] {
        for last in [0, 1] {
            let goodbye = frame(7, 0, 0, &[[0, 0, 0, last], [0, 0, 0, code]].concat());
            let closes = {
                let bytes = begun(&[goodbye]);
                Server::start(move |mut stream, _| {
                    let bytes = bytes.clone();
                    async move {
                        read_request(&mut stream).await;
                        let _ = stream.write_all(&bytes).await;
                        finish(stream).await;
                    }
                })
                .await
            };
            fails(&format!("code {code}, last stream {last}"), ask(asking_two(&closes)).await, &[Reason::Disconnected]);
        }
    }
}

#[tokio::test]
async fn frames_that_break_the_protocol_are_malformed() {
    let settings = |id: u8, value: u32| frame(4, 0, 0, &[&[0, id], value.to_be_bytes().as_slice()].concat());
    for (what, bytes) in [
        ("SETTINGS of 5 bytes", frame(4, 0, 0, &[0; 5])),
        ("SETTINGS of a stream", frame(4, 0, 1, &[])),
        ("an answer with a payload to SETTINGS", begun(&[frame(4, 1, 0, &[0; 6])])),
        ("a window that is too large", settings(4, u32::MAX)),
        ("frames that are too small", settings(5, 1)),
        ("PING of 7 bytes", begun(&[frame(6, 0, 0, &[0; 7])])),
        ("WINDOW_UPDATE of 0", begun(&[frame(8, 0, 0, &[0; 4])])),
        (
            "a window that overflows",
            begun(&[frame(8, 0, 0, &0x7fff_ffff_u32.to_be_bytes()), frame(8, 0, 0, &0x7fff_ffff_u32.to_be_bytes())]),
        ),
        ("DATA before the head", begun(&[data(b"hello", END_STREAM)])),
        ("DATA of no stream", begun(&[head(END_HEADERS), frame(0, END_STREAM, 0, b"hello")])),
        ("DATA of a stream that was not asked for", begun(&[frame(0, END_STREAM, 5, b"hello")])),
        ("HEADERS of a stream that was not asked for", begun(&[frame(HEADERS, END_HEADERS | END_STREAM, 5, &[0x88])])),
        ("more padding than there is", begun(&[head(END_HEADERS), data(&[200, 1, 2], 8 | END_STREAM)])),
        ("a push, which was declined", begun(&[frame(5, END_HEADERS, 1, &[0, 0, 0, 2, 0x82, 0x84, 0x86])])),
        ("a frame that is too long", begun(&[frame(0, 0, 1, &[0; 16_385])])),
        ("an index that is not in the table", begun(&[frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff, 0x80, 0x7f])])),
        ("a number without end", begun(&[frame(HEADERS, END_HEADERS | END_STREAM, 1, &[&[0xff], [0xff; 20].as_slice()].concat())])),
        ("a table that is too large", begun(&[frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x3f, 0xff, 0xff, 0x7f, 0x88])])),
        ("no status", begun(&[frame(HEADERS, END_HEADERS | END_STREAM, 1, &field("x-a", "b"))])),
        ("a status that is none", begun(&[frame(HEADERS, END_HEADERS | END_STREAM, 1, &field(":status", "2000"))])),
        ("a status of words", begun(&[frame(HEADERS, END_HEADERS | END_STREAM, 1, &field(":status", "two"))])),
        ("an upper case name", begun(&[frame(HEADERS, END_HEADERS | END_STREAM, 1, &[&[0x88], field("X-Name", "b").as_slice()].concat())])),
        (
            "a value with a line end",
            begun(&[frame(HEADERS, END_HEADERS | END_STREAM, 1, &[&[0x88], field("x-a", "b\r\nc: d").as_slice()].concat())]),
        ),
        (
            "less than Content-Length",
            begun(&[
                frame(HEADERS, END_HEADERS, 1, &[&[0x88], field("content-length", "6").as_slice()].concat()),
                data(b"hello", END_STREAM),
            ]),
        ),
        (
            "more than Content-Length",
            begun(&[
                frame(HEADERS, END_HEADERS, 1, &[&[0x88], field("content-length", "4").as_slice()].concat()),
                data(b"hello", END_STREAM),
            ]),
        ),
        (
            "a Content-Length that is none",
            begun(&[
                frame(HEADERS, END_HEADERS, 1, &[&[0x88], field("content-length", "4x").as_slice()].concat()),
                data(b"hello", END_STREAM),
            ]),
        ),
        ("no frames at all", vec![0xff; 100]),
        ("zeroes", vec![0; 100]),
        ("HTTP/1", b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec()),
        ("a client's preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
    ] {
        let sight = ask(asking_two(&saying(bytes).await)).await;
        fails(what, sight, &[Reason::MalformedAnswer]);
    }
}

#[tokio::test]
async fn a_server_that_stalls_is_ended_by_the_timeout() {
    for (what, bytes) in [
        ("before its preface", vec![]),
        ("within its preface", SETTINGS[..5].to_vec()),
        ("after its preface", begun(&[])),
        ("within a head", begun(&[frame(HEADERS, 0, 1, &[0x88])])),
        ("within a body", begun(&[head(END_HEADERS), data(b"hel", 0)])),
    ] {
        times_out(what, in_haste(asking_two(&saying(bytes).await)).await);
    }
    // A window that never opens: of the body, nothing can be sent.
    let shut = saying([frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]), ACK.to_vec()].concat()).await;
    let post = HttpProbe { method: "POST".into(), body: "x".repeat(100_000), ..asking_two(&shut) };
    times_out("a window that never opens", in_haste(post).await);
}

/// A frame now and then keeps nobody beyond the timeout.
#[tokio::test]
async fn frames_now_and_then_do_not_outlast_the_timeout() {
    for frame in [frame(6, 0, 0, &[7; 8]), data(b"x", 0), data(b"", 0), frame(8, 0, 0, &[0, 0, 0, 1])] {
        let server = Server::start(move |mut stream, _| {
            let frame = frame.clone();
            async move {
                read_request(&mut stream).await;
                let _ = stream.write_all(&begun(&[head(END_HEADERS)])).await;
                while stream.write_all(&frame).await.is_ok() {
                    tokio::time::sleep(std::time::Duration::from_millis(15)).await;
                }
            }
        })
        .await;
        times_out("now and then", in_haste(asking_two(&server)).await);
    }
}

/// A request of HTTP/1.1 met by HTTP/2, and what was agreed by ALPN and not kept.
#[tokio::test]
async fn a_version_that_was_not_agreed_on_is_malformed() {
    let server = Server::answering(begun(&[head(END_HEADERS), data(b"hello", END_STREAM)])).await;
    fails("HTTP/2 unasked", ask(asking(&server)).await, &[Reason::MalformedAnswer]);

    let authority = Authority::new();
    let secure = |server: &Server, version: HttpVersion, tls: TlsOptions| {
        let url = format!("https://{}/", server.address);
        Kind::Https(HttpProbe { url, version: version.into(), tls: Some(tls), ..HttpProbe::default() })
    };
    let liar = serve(authority.acceptor(&Leaf::default(), &["h2"]), |mut stream, _| async move {
        let mut heard = [0; 24];
        let _ = stream.read_exact(&mut heard).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        finish(stream).await;
    })
    .await;
    let sight = run(&probe(secure(&liar, HttpVersion::Unspecified, authority.options()))).await;
    assert!(sight.summary.contains("HTTP/1"), "{}", sight.summary);
    fails("agreed to h2, speaks HTTP/1.1", sight, &[Reason::MalformedAnswer]);

    let other = serve(authority.acceptor(&Leaf::default(), &["http/1.1"]), |mut stream, _| async move {
        crate::lab::http::read_request(&mut stream).await;
        let _ = stream.write_all(&begun(&[head(END_HEADERS), data(b"hello", END_STREAM)])).await;
        finish(stream).await;
    })
    .await;
    let sight = run(&probe(secure(&other, HttpVersion::Unspecified, authority.options()))).await;
    fails("agreed to HTTP/1.1, speaks h2", sight, &[Reason::MalformedAnswer]);
    let sight = run(&probe(secure(&other, HttpVersion::HttpVersion2, authority.options()))).await;
    assert_eq!(sight.outcome, Outcome::Failed, "{sight:?}");

    let silent = serve(authority.acceptor(&Leaf::default(), &["h2"]), |stream, _| async move {
        let _keep = stream;
        std::future::pending::<()>().await;
    })
    .await;
    times_out("silent after ALPN", run(&within(300, secure(&silent, HttpVersion::Unspecified, authority.options()))).await);
}
