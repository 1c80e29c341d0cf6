//! Servers, and others, that answer with what nobody asked for.

use super::*;

#[tokio::test]
async fn an_answer_to_another_question_is_ignored() {
    let server = DnsServer::start(|asked| {
        let right = asked.with(&[("example.test.", 60, a([192, 0, 2, 1]))]);
        let wrong = |change: &dyn Fn(&mut Message)| {
            let mut answer = asked.with(&[("example.test.", 60, a([192, 0, 2, 66]))]);
            change(&mut answer);
            bytes(&answer)
        };
        vec![
            wrong(&|answer| answer.metadata.id ^= 1),
            wrong(&|answer| answer.queries[0].name = name("other.test.")),
            wrong(&|answer| answer.queries[0].query_type = RecordType::AAAA),
            wrong(&|answer| answer.queries.clear()),
            bytes(&asked.message),
            vec![0],
            bytes(&right),
        ]
    })
    .await;
    let report = passed(ask(&server)).await;
    assert_eq!((report.ignored_count, report.answers[0].data.as_str()), (6, "192.0.2.1"));
}

#[tokio::test]
async fn an_answer_from_another_port_is_not_one() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = UdpServer::serve(socket, |_, question, (_, client)| {
        let mut answer = question.to_vec();
        answer[2] |= 0x80;
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&answer, client).unwrap();
        Vec::new()
    });
    let sight = run(&hasty(Kind::Dns(ask_at(server.address)))).await;
    assert_eq!(seen(sight.because(Reason::TimedOut).expect("a report")).ignored_count, 0);
}

#[tokio::test]
async fn bytes_with_our_identifier_that_can_not_be_read_are_malformed() {
    let garble: [fn(Vec<u8>) -> Vec<u8>; 5] = [
        |whole| whole[..5].to_vec(),
        |whole| whole[..whole.len() - 2].to_vec(),
        // More records than there are.
        |mut whole| {
            whole[7] = 200;
            whole
        },
        // More questions than anybody asks.
        |mut whole| {
            whole[4] = 0xff;
            whole
        },
        // A name that points at itself.
        |mut whole| {
            let at = whole.len() - 16;
            whole[at..at + 2].copy_from_slice(&(0xc000 | u16::try_from(at).unwrap()).to_be_bytes());
            whole
        },
    ];
    for garble in garble {
        let server = DnsServer::start(move |asked| vec![garble(bytes(&asked.with(&[("example.test.", 60, a([192, 0, 2, 1]))])))]).await;
        run(&probe(Kind::Dns(ask(&server)))).await.because(Reason::MalformedAnswer);
        run(&probe(Kind::Dns(over_tcp(ask(&server))))).await.because(Reason::MalformedAnswer);
    }
}

#[tokio::test]
async fn an_answer_made_to_be_slow_to_read_is_refused_quickly() {
    // A chain of pointers through half of a large message, and thousands of records whose names begin at its end.
    let server = DnsServer::start(|asked| {
        let mut message = bytes(&asked.answer());
        let chain = message.len() + 11;
        message.extend([0, 0, 10, 0, 1, 0, 0, 0, 0, 0x3e, 0x81, 0]);
        message.truncate(chain);
        message.push(0);
        for number in 0..8000_u16 {
            let target = if number == 0 { chain } else { chain + 1 + 2 * (usize::from(number) - 1) };
            message.extend((0xc000 | u16::try_from(target).unwrap_or(0)).to_be_bytes());
        }
        while message.len() < 65_000 {
            let target = u16::try_from(chain + 1 + 2 * 7999).unwrap_or(u16::MAX).min(0x3ffe);
            message.extend((0xc000 | target).to_be_bytes());
            message.extend([0, 1, 0, 1, 0, 0, 0, 0, 0, 0]);
        }
        message[6..8].copy_from_slice(&4000_u16.to_be_bytes());
        vec![message]
    })
    .await;
    let sight = run(&probe(Kind::Dns(over_tcp(ask(&server))))).await;
    assert!(sight.duration < Duration::from_secs(10), "{sight:?}");
    sight.because(Reason::MalformedAnswer);
}

#[tokio::test]
async fn a_stream_that_promises_more_than_it_sends_times_out_or_is_disconnected() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let _ = stream.writable().await;
            let _ = stream.try_write(&[0xff, 0xff, 1, 2, 3]);
            kept.push(stream);
        }
    });
    run(&hasty(Kind::Dns(over_tcp(ask_at(address))))).await.because(Reason::TimedOut);
    server.abort();
}

#[tokio::test]
async fn letters_in_another_case_are_a_strangers_where_the_case_is_random() {
    let server = DnsServer::honest(|asked| {
        let mut answer = asked.with(&[("example.test.", 60, a([192, 0, 2, 66]))]);
        answer.queries[0].name = answer.queries[0].name.to_lowercase();
        answer
    })
    .await;
    // Twenty letters come out all in lower case once in a million runs.
    let spec = |spec: DnsProbe| DnsProbe { query: "abcdefghij.klmnopqrst".into(), randomize_case: true, ..spec };
    passed(DnsProbe { randomize_case: false, ..spec(ask(&server)) }).await;
    let sight = run(&hasty(Kind::Dns(spec(ask(&server))))).await;
    assert!(sight.summary.contains("0x20"), "{}", sight.summary);
    let report = seen(sight.because(Reason::UnexpectedAnswer).expect("a report"));
    assert_eq!((report.ignored_count, report.rcode.as_str()), (2, ""));
    failed(over_tcp(spec(ask(&server))), Reason::UnexpectedAnswer).await;

    let faithful = one_address().await;
    for spec in [spec(ask(&faithful)), over_tcp(spec(ask(&faithful)))] {
        assert_eq!(passed(spec).await.ignored_count, 0);
    }
}

#[tokio::test]
async fn a_forged_answer_in_the_wrong_case_does_not_keep_the_right_one_out() {
    let server = DnsServer::start(|asked| {
        let mut forged = asked.with(&[("example.test.", 60, a([192, 0, 2, 66]))]);
        forged.queries[0].name = forged.queries[0].name.to_lowercase();
        vec![bytes(&forged), bytes(&asked.with(&[("example.test.", 60, a([192, 0, 2, 1]))]))]
    })
    .await;
    let spec = DnsProbe { query: "abcdefghij.klmnopqrst".into(), randomize_case: true, ..ask(&server) };
    let report = passed(spec).await;
    assert_eq!((report.ignored_count, report.answers[0].data.as_str()), (1, "192.0.2.1"));
}

#[tokio::test]
async fn a_message_with_two_opt_records_is_malformed() {
    let server = DnsServer::start(|asked| {
        let mut message = asked.answer();
        message.set_edns(hickory_proto::op::Edns::new());
        let mut message = bytes(&message);
        let opt = message[message.len() - 11..].to_vec();
        message.extend(opt);
        message[11] = 2;
        vec![message]
    })
    .await;
    failed(ask(&server), Reason::MalformedAnswer).await;
}

#[tokio::test]
async fn a_server_that_names_itself_with_any_bytes_is_shown_without_harm() {
    let server = DnsServer::start(|asked| {
        let mut message = asked.answer();
        message.set_edns(hickory_proto::op::Edns::new());
        let mut message = bytes(&message);
        let name = b"\x00\x1b[31mns\xff1";
        let end = message.len();
        message[end - 1] = u8::try_from(4 + name.len()).unwrap();
        message.extend([0, 3, 0, u8::try_from(name.len()).unwrap()]);
        message.extend(name);
        vec![message]
    })
    .await;
    assert_eq!(passed(DnsProbe { nsid: true, ..ask(&server) }).await.nsid, r"\x00\x1b[31mns\xff1");
}

/// A server over TCP that answers with what the script makes of the right answer, in its frame, chunk by chunk.
async fn in_chunks(script: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static, chunk: usize) -> crate::lab::http::Server {
    let script = Arc::new(script);
    crate::lab::http::Server::start(move |mut stream, _| {
        let script = script.clone();
        async move {
            let length = stream.read_u16().await.unwrap();
            let mut question = vec![0; length.into()];
            stream.read_exact(&mut question).await.unwrap();
            let asked = Asked { message: Message::from_vec(&question).unwrap(), number: 0, over_tcp: true };
            let answer = script(&asked);
            let framed = [&u16::try_from(answer.len()).unwrap().to_be_bytes(), answer.as_slice()].concat();
            for chunk in framed.chunks(chunk) {
                let _ = stream.write_all(chunk).await;
                tokio::task::yield_now().await;
            }
            // The probe ends the connection, not we.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await
}

#[tokio::test]
async fn an_answer_that_comes_byte_by_byte_is_read_and_so_is_the_longest() {
    let dribbled = in_chunks(|asked| bytes(&asked.with(&[("example.test.", 60, a([192, 0, 2, 1]))])), 1).await;
    assert_eq!(passed(over_tcp(ask_at(dribbled.address))).await.answer_count, 1);
    let longest = in_chunks(
        |asked| {
            let mut message = bytes(&asked.answer());
            // 4090 addresses, and bytes beyond the last record up to what the length can say.
            for number in 0..4090_u16 {
                let [high, low] = number.to_be_bytes();
                message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, high, low]);
            }
            message[6..8].copy_from_slice(&4090_u16.to_be_bytes());
            message.resize(65_535, 0);
            message
        },
        1 << 16,
    )
    .await;
    let expect = DnsExpectations { min_answers: 4090, answers_within: vec!["10.0.0.0/16".into()], ..DnsExpectations::default() };
    let report = seen(run(&expecting(over_tcp(ask_at(longest.address)), expect)).await.passed());
    assert_eq!((report.answer_size_bytes, report.answer_count, report.answers.len()), (65_535, 4090, 100));
}

#[tokio::test]
async fn a_stream_asked_for_too_long_keeps_what_was_seen() {
    // An answer that begins and never ends.
    let server = in_chunks(|asked| bytes(&asked.refused_as(ResponseCode::ServFail))[..6].to_vec(), 4).await;
    let endless = crate::lab::http::Server::start(|mut stream, _| async move {
        while stream.write_all(&[0, 12, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    failed(over_tcp(ask_at(server.address)), Reason::MalformedAnswer).await;
    let sight = run(&hasty(Kind::Dns(over_tcp(ask_at(endless.address))))).await;
    let report = seen(sight.because(Reason::TimedOut).expect("a report"));
    assert!(report.ignored_count > 0 && report.tries[0].fate == "silent", "{report:?}");
}
