//! Servers of HTTP/3 that stall, lie, or never end.

use quinn::{SendStream, VarInt};
use tokio::io::AsyncWriteExt as _;

use super::*;
use crate::lab::http3::{data, frame, headers, integer, settle};

/// What comes of a server that sends these bytes as its answer, and then ends the stream.
async fn said(answer: Vec<u8>) -> Sight {
    let authority = Authority::new();
    let server = Server::saying(&authority, answer, |mut sender, _, _| async move {
        let _ = sender.finish();
    })
    .await;
    ask(server.get(&authority)).await
}

fn answered(body: &[u8]) -> Vec<u8> {
    [headers(&[(":status", "200")]), data(body)].concat()
}

#[tokio::test]
async fn an_answer_by_hand_passes() {
    let report = passed(said(answered(b"hello")).await);
    assert_eq!((report.status, report.body_size_bytes), (200, 5));
    // Interim answers, frames of reserved types and trailers are no part of it (RFC 9114 sections 4.1 and 7.2.8).
    let (hints, reserved, head) =
        (headers(&[(":status", "103"), ("link", "</style.css>")]), frame(0x21, b"nothing"), headers(&[(":status", "201")]));
    let answer = [hints, reserved.clone(), head, reserved.clone(), data(b"hel"), reserved, data(b"lo")];
    let trailers = headers(&[("x-checksum", "1")]);
    let report = passed(said([answer.concat(), trailers].concat()).await);
    assert_eq!((report.status, report.body_size_bytes), (201, 5));
}

#[tokio::test]
async fn what_is_not_http_3_is_malformed() {
    let twice = [("content-length", "1"), ("content-length", "2")];
    let cases = [
        ("data before headers", data(b"hello")),
        ("settings on a request", frame(4, &[])),
        ("a frame of HTTP/2", frame(8, &[0; 4])),
        ("http/1", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()),
        ("no status", headers(&[("x", "y")])),
        ("a status that is none", headers(&[(":status", "abc")])),
        ("a status that HTTP/3 does not have", headers(&[(":status", "101")])),
        ("an upper case name", headers(&[(":status", "200"), ("Upper", "x")])),
        ("a reference to a dynamic table", frame(1, &[2, 0, 0x80])),
        ("a block that ends too soon", frame(1, &[0, 0, 0x27])),
        ("headers cut off", headers(&[(":status", "200")])[..8].to_vec()),
        ("data cut off", answered(b"hello")[..headers(&[(":status", "200")]).len() + 3].to_vec()),
        ("data after trailers", [answered(b"x"), headers(&[("a", "b")]), frame(4, &[])].concat()),
        ("a shorter body", [headers(&[(":status", "200"), ("content-length", "6")]), data(b"hello")].concat()),
        ("a longer body", [headers(&[(":status", "200"), ("content-length", "4")]), data(b"hello")].concat()),
        ("two lengths", [headers(&[&[(":status", "200")][..], &twice].concat()), data(b"h")].concat()),
    ];
    for (what, answer) in cases {
        let sight = said(answer).await;
        assert_eq!(sight.reason, Reason::MalformedAnswer, "{what}: {sight:?}");
        sight.because(Reason::MalformedAnswer);
    }
}

#[tokio::test]
async fn an_answer_that_ends_in_the_middle_is_malformed_however_it_comes() {
    let authority = Authority::new();
    let whole = answered(b"hello");
    for end in 1..whole.len() {
        // The end comes apart from the bytes before it.
        let server = Server::saying(&authority, whole[..end].to_vec(), |mut sender, _, connection| async move {
            let heard = |connection: &quinn::Connection| connection.stats().frame_rx.acks;
            let before = heard(&connection);
            while heard(&connection) == before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let _ = sender.finish();
        })
        .await;
        let sight = ask(server.get(&authority)).await;
        // What is whole by then is an answer, without a body.
        let expected = if end == headers(&[(":status", "200")]).len() { Reason::Unspecified } else { Reason::MalformedAnswer };
        assert_eq!(sight.reason, expected, "{end} bytes: {sight:?}");
    }
}

#[tokio::test]
async fn whatever_a_server_says_the_run_ends_with_a_verdict() {
    let authority = Authority::new();
    let whole = [headers(&[(":status", "103")]), answered(b"hello"), frame(0x21, b"x"), headers(&[("a", "b")])].concat();
    // A small generator of numbers that are the same each time (Marsaglia, Xorshift RNGs, 2003).
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let answers: Vec<Vec<u8>> = (0..150)
        .map(|_| {
            let mut answer = whole.clone();
            for _ in 0..=random(4) {
                let place = random(answer.len());
                answer[place] = u8::try_from(random(256)).unwrap();
            }
            answer.truncate(1 + random(2 * answer.len()));
            answer
        })
        .collect();
    let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let server = Server::scripted(&authority, move |connection| {
        let answer = answers[next.fetch_add(1, std::sync::atomic::Ordering::SeqCst) % answers.len()].clone();
        async move {
            let _control = settle(&connection).await;
            let Ok((mut sender, _receiver)) = connection.accept_bi().await else { return };
            let (first, rest) = answer.split_at(answer.len() / 2);
            let _ = sender.write_all(first).await;
            tokio::task::yield_now().await;
            let _ = sender.write_all(rest).await;
            let _ = sender.finish();
            connection.closed().await;
        }
    })
    .await;
    for _ in 0..150 {
        let sight = ask(server.get(&authority)).await;
        let is_verdict = matches!(
            sight.reason,
            Reason::Unspecified | Reason::MalformedAnswer | Reason::UnexpectedAnswer | Reason::TooLarge | Reason::Disconnected
        );
        assert!(is_verdict, "{sight:?}");
    }
}

#[tokio::test]
async fn what_never_ends_is_too_large() {
    let authority = Authority::new();
    let long = "x".repeat(70 << 10);
    let many: Vec<_> = std::iter::once((":status", "200")).chain(std::iter::repeat_n(("a", "b"), 300)).collect();
    for (what, answer) in [
        ("a long field", headers(&[(":status", "200"), ("a", &long)])),
        ("many fields", headers(&many)),
        ("a frame without an end", [integer(0x21), integer((1 << 62) - 1)].concat()),
        ("headers without an end", [integer(1), integer(1 << 40)].concat()),
        ("such a frame after the head", [headers(&[(":status", "200")]), integer(0x21), integer(1 << 30)].concat()),
    ] {
        let sight = said(answer).await;
        assert_eq!(sight.reason, Reason::TooLarge, "{what}: {sight:?}");
    }
    let endlessly = |what: Vec<u8>| {
        Server::saying(&authority, Vec::new(), move |mut sender, _, _| {
            let many = what.repeat(50);
            async move { while sender.write_all(&many).await.is_ok() {} }
        })
    };
    let reserved = endlessly(frame(0x21, &[0; 1000])).await;
    ask(reserved.get(&authority)).await.because(Reason::TooLarge);
    let body = endlessly(answered(&[b'x'; 1000])).await;
    ask(body.get(&authority)).await.because(Reason::MalformedAnswer);
    let interim = endlessly(headers(&[(":status", "103")])).await;
    let sight = ask(interim.get(&authority)).await;
    assert!(sight.summary.contains("interim answers"), "{}", sight.summary);
    sight.because(Reason::MalformedAnswer);
    let body = Server::saying(&authority, headers(&[(":status", "200")]), |mut sender, _, _| async move {
        while sender.write_all(&data(&[b'x'; 1000])).await.is_ok() {}
    })
    .await;
    let report = report(ask(HttpProbe { max_body_size_bytes: 100_000, ..body.get(&authority) }).await.because(Reason::TooLarge));
    assert_eq!(report.body_size_bytes, 100_001);
}

#[tokio::test]
async fn a_server_that_gives_up_is_told_by_how_it_does() {
    let authority = Authority::new();
    type Script = fn(SendStream, quinn::Connection);
    let giving_up =
        |script: Script| Server::saying(&authority, Vec::new(), move |sender, _, connection| async move { script(sender, connection) });
    let cases: [(&str, Script, Reason, &str); 5] = [
        ("ends", |mut sender, _| drop(sender.finish()), Reason::Disconnected, "the stream ended without an answer"),
        ("resets", |mut sender, _| drop(sender.reset(VarInt::from_u32(0x10b))), Reason::Disconnected, "H3_REQUEST_REJECTED"),
        ("falls back", |mut sender, _| drop(sender.reset(VarInt::from_u32(0x110))), Reason::UnexpectedAnswer, "H3_VERSION_FALLBACK"),
        ("closes", |_, connection| connection.close(VarInt::from_u32(0x102), b"oh\x1b[31m no"), Reason::Disconnected, "oh\\x1b[31m no"),
        ("closes well", |_, connection| connection.close(VarInt::from_u32(0x100), b""), Reason::Disconnected, "code 0x100"),
    ];
    for (what, script, reason, words) in cases {
        let server = giving_up(script).await;
        let sight = ask(server.get(&authority)).await;
        assert!(sight.reason == reason && sight.summary.contains(words), "{what}: {sight:?}");
    }
    let resetting = Server::saying(&authority, answered(b"hello")[..20].to_vec(), |mut sender, _, connection| async move {
        // Not before it has been heard: a reset takes back what is on its way.
        let _ = sender.flush().await;
        while connection.stats().path.sent_packets < 6 {
            tokio::task::yield_now().await;
        }
        let _ = sender.reset(VarInt::from_u32(0x102));
    })
    .await;
    let sight = ask(resetting.get(&authority)).await;
    sight.because(Reason::Disconnected);
}

#[tokio::test]
async fn streams_of_the_servers_own_that_never_end_are_too_large_and_wrong_ones_malformed() {
    let authority = Authority::new();
    let with = |opening: Vec<u8>, endlessly: Vec<u8>| {
        Server::scripted(&authority, move |connection| {
            let (opening, endlessly) = (opening.clone(), endlessly.clone());
            async move {
                let Ok(mut control) = connection.open_uni().await else { return };
                let _ = control.write_all(&opening).await;
                // Many at once: whoever writes little at a time keeps the one thread of all to itself.
                let many = endlessly.repeat(300);
                while !many.is_empty() && control.write_all(&many).await.is_ok() {}
                if endlessly.is_empty() {
                    let _ = control.finish();
                }
                connection.closed().await;
            }
        })
    };
    let settings = [0, 4, 0];
    for (what, opening, endlessly, reason) in [
        ("settings without an end", [&[0, 4][..], &integer(1 << 40)].concat(), vec![0; 1000], Reason::TooLarge),
        ("frames without an end", settings.to_vec(), frame(0x21, &[0; 100]), Reason::TooLarge),
        ("goaways without an end", settings.to_vec(), frame(7, &[0]), Reason::TooLarge),
        ("no settings", vec![0, 7, 1, 0], Vec::new(), Reason::MalformedAnswer),
        ("two settings", vec![0, 4, 0, 4, 0], Vec::new(), Reason::MalformedAnswer),
        ("settings of HTTP/2", vec![0, 4, 2, 2, 0], Vec::new(), Reason::MalformedAnswer),
        ("an end of the control stream", settings.to_vec(), Vec::new(), Reason::MalformedAnswer),
        ("data on the control stream", [&settings[..], &data(b"x")].concat(), Vec::new(), Reason::MalformedAnswer),
    ] {
        let server = with(opening, endlessly).await;
        let sight = ask(server.get(&authority)).await;
        assert_eq!(sight.reason, reason, "{what}: {sight:?}");
    }
    let twice = Server::saying(&authority, Vec::new(), |sender, _, connection| async move {
        let _second = settle(&connection).await;
        connection.closed().await;
        drop(sender);
    })
    .await;
    ask(twice.get(&authority)).await.because(Reason::MalformedAnswer);
    // A stream of a reserved type is nothing to it (RFC 9114 section 6.2.3).
    let reserved = Server::saying(&authority, answered(b"hello"), |mut sender, _, connection| async move {
        let mut more = connection.open_uni().await.unwrap();
        let _ = more.write_all(&[0x21, 1, 2, 3]).await;
        let _ = sender.finish();
    })
    .await;
    passed(ask(reserved.get(&authority)).await);
}

#[tokio::test]
async fn a_server_that_stalls_is_timed_out_where_it_does() {
    let authority = Authority::new();
    let stalling = |answer: Vec<u8>| {
        Server::saying(&authority, answer, |sender, _, connection| async move {
            connection.closed().await;
            drop(sender);
        })
    };
    let head = headers(&[(":status", "200")]);
    let cases = [
        (Vec::new(), "waiting for the answer", Phase::Wait),
        (head[..5].to_vec(), "in the middle of the answer", Phase::Transfer),
        (head.clone(), "in the middle of the answer", Phase::Transfer),
        (answered(b"hello"), "in the middle of the answer", Phase::Transfer),
    ];
    // Longer than a handshake takes on a machine that has other things to do.
    let all = cases.map(async |(answer, words, phase)| {
        let server = stalling(answer).await;
        let sight = run(&within(2000, Kind::Https(server.get(&authority)))).await;
        assert_ended_by_the_timeout(&sight);
        assert!(sight.summary.contains(words) && names(&sight).last() == Some(&phase), "{sight:?}");
        assert!(report(sight.because(Reason::TimedOut)).tls.is_some_and(|tls| tls.verified));
    });
    let [first, second, third, fourth] = all;
    tokio::join!(first, second, third, fourth);
}

#[tokio::test]
async fn an_answer_counts_though_the_server_does_not_want_the_rest_of_the_question() {
    let authority = Authority::new();
    // Twice: the server says that it does not want it, and it just does not take it.
    for says_so in [true, false] {
        let mut config = config(&authority, &Leaf::default(), "h3");
        let mut transport = quinn::TransportConfig::default();
        transport.stream_receive_window(10_000_u32.into());
        config.transport_config(Arc::new(transport));
        let server = Server::at("127.0.0.1:0", config, move |incoming| async move {
            let Ok(connection) = incoming.await else { return };
            let _control = settle(&connection).await;
            let Ok((mut sender, mut receiver)) = connection.accept_bi().await else { return };
            if says_so {
                let _ = receiver.stop(VarInt::from_u32(0x100));
            }
            let _ = sender.write_all(&[headers(&[(":status", "413")]), data(b"too much")].concat()).await;
            let _ = sender.finish();
            connection.closed().await;
        })
        .await;
        let expect = HttpExpectations { status: vec![413], ..HttpExpectations::default() };
        let spec = HttpProbe { method: "PUT".into(), body: "x".repeat(100_000), expect: Some(expect), ..server.get(&authority) };
        let sight = ask(spec).await;
        assert_eq!((sight.outcome, names(&sight).last()), (Outcome::Passed, Some(&Phase::Transfer)), "{says_so}: {sight:?}");
    }
}

#[tokio::test]
async fn a_server_of_another_version_of_quic_is_told_from_silence() {
    let authority = Authority::new();
    let server = UdpServer::start(|_, bytes| {
        // A version negotiation packet (RFC 9000 section 17.2.1): the identifiers the other way round.
        let (destination, rest) = bytes[6..].split_at(bytes[5].into());
        let source = &rest[1..=usize::from(rest[0])];
        let length = |id: &[u8]| [u8::try_from(id.len()).unwrap()];
        vec![[&[0x80, 0, 0, 0, 0][..], &length(source), source, &length(destination), destination, &[0x1a, 0x2a, 0x3a, 0x4a]].concat()]
    })
    .await;
    let url = format!("https://{}/", server.address);
    let sight = ask(HttpProbe { url, version: 30, tls: Some(authority.options()), ..HttpProbe::default() }).await;
    assert!(sight.summary.contains("does not speak QUIC version 1"), "{}", sight.summary);
    sight.because(Reason::UnexpectedAnswer);
}
