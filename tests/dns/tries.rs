//! Questions that are asked more than once, and how long each was waited for.

use super::*;

#[tokio::test]
async fn a_truncated_answer_is_asked_for_again_over_tcp_and_the_truncation_shows() {
    let server = DnsServer::honest(|asked| {
        if asked.over_tcp {
            let many: Vec<_> = (0..150_u8).map(|number| ("example.test.", 60, a([192, 0, 2, number]))).collect();
            return asked.with(&many);
        }
        let mut answer = asked.answer();
        answer.metadata.truncation = true;
        answer
    })
    .await;
    let sight = run(&probe(Kind::Dns(ask(&server)))).await;
    let phases: Vec<_> = sight.phases.iter().map(|(phase, _)| phase.name()).collect();
    assert_eq!(phases, ["resolve", "send", "wait", "connect", "send", "wait"]);
    let report = seen(sight.passed());
    assert_eq!((report.transport.as_str(), report.truncated, report.sent_count), ("tcp", true, 2));
    assert_eq!((report.answer_count, report.answers.len()), (150, 100));
    let report = failed(DnsProbe { no_tcp_fallback: true, ..ask(&server) }, Reason::UnexpectedAnswer).await;
    assert_eq!((report.transport.as_str(), report.truncated, report.sent_count), ("udp", true, 1));
}

#[tokio::test]
async fn a_truncated_answer_without_tcp_behind_it_fails_as_the_tcp_does() {
    // The same port over TCP is kept closed.
    let (socket, _closed) = loop {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(closed) = Closed::at(socket.local_addr().unwrap()) {
            break (socket, closed);
        }
    };
    let server = UdpServer::serve(socket, |_, question, _| {
        let mut answer = question.to_vec();
        answer[2] |= 0x82;
        vec![answer]
    });
    let report = failed(ask_at(server.address), Reason::Refused).await;
    assert_eq!((report.truncated, report.rcode.as_str(), report.transport.as_str()), (true, "NOERROR", "udp"));
}

#[tokio::test]
async fn a_datagram_cut_in_the_middle_of_a_record_is_truncated_and_not_malformed() {
    let server = DnsServer::start(|asked| {
        let mut answer = asked.with(&[("example.test.", 60, a([192, 0, 2, 1])), ("example.test.", 60, a([192, 0, 2, 2]))]);
        if asked.over_tcp {
            return vec![bytes(&answer)];
        }
        answer.metadata.truncation = true;
        let mut cut = bytes(&answer);
        cut.truncate(cut.len() - 3);
        vec![cut]
    })
    .await;
    assert_eq!(passed(ask(&server)).await.answer_count, 2);
}

#[tokio::test]
async fn a_lost_first_datagram_is_visible() {
    let server = DnsServer::start(|asked| match asked.number {
        0 => Vec::new(),
        _ => vec![bytes(&asked.with(&[("example.test.", 60, a([192, 0, 2, 1]))]))],
    })
    .await;
    let sight = run(&within(2000, Kind::Dns(ask(&server)))).await;
    let latency = sight.latency.expect("a latency").0;
    assert!(sight.duration > latency * 2, "the wait shows in the phases, the latency is the second question's: {sight:?}");
    let report = seen(sight.passed());
    assert_eq!((report.sent_count, report.tries.len()), (2, 2));
    let length = |duration: Option<prost_types::Duration>| Duration::try_from(duration.unwrap()).unwrap();
    let [first, second] = &report.tries[..] else { panic!("{report:?}") };
    assert_eq!((first.fate.as_str(), second.fate.as_str()), ("silent", "answered"));
    assert_eq!((first.transport.as_str(), length(second.wait)), ("udp", latency));
    // Nobody waited for the first any longer once the second was answered.
    assert!(length(first.wait) > length(second.sent_after) - length(first.sent_after), "{report:?}");
}

#[tokio::test]
async fn a_late_answer_to_the_first_question_counts_with_its_whole_latency() {
    // The answer to the first question goes out when the second comes.
    let mut first: Option<Vec<u8>> = None;
    let server = DnsServer::start(move |asked| match first.take() {
        Some(answer) => vec![answer],
        None => {
            first = Some(bytes(&asked.with(&[("example.test.", 60, a([192, 0, 2, 1]))])));
            Vec::new()
        }
    })
    .await;
    let sight = run(&within(2000, Kind::Dns(ask(&server)))).await;
    let latency = sight.latency.expect("a latency").0;
    assert!(latency * 2 > sight.duration, "{sight:?}");
    let report = seen(sight.passed());
    assert_eq!(report.sent_count, 2);
    let fates: Vec<_> = report.tries.iter().map(|asked| asked.fate.as_str()).collect();
    assert_eq!(fates, ["answered", "silent"]);
}

#[tokio::test]
async fn a_closed_port_is_refused_at_once_and_silence_times_out() {
    let closed = ClosedPort::find();
    let sight = run(&probe(Kind::Dns(ask_at(closed.address)))).await;
    assert!(sight.duration < Duration::from_secs(10), "{sight:?}");
    assert_eq!(sight.attribution, Attribution::Target);
    let report = seen(sight.because(Reason::Refused).expect("a report"));
    assert!(report.tries.len() == 1 && report.tries[0].fate.contains("port unreachable"), "{report:?}");

    let silent = DnsServer::start(|_| Vec::new()).await;
    let sight = run(&within(1500, Kind::Dns(DnsProbe { attempts: 3, ..ask(&silent) }))).await;
    assert!(sight.summary.contains("questions sent: 3"), "{}", sight.summary);
    let report = seen(sight.because(Reason::TimedOut).expect("a report"));
    assert_eq!(report.sent_count, 3);
    assert!(report.tries.iter().all(|asked| asked.fate == "silent" && asked.wait.is_some()), "{report:?}");
    // This one reads the question and closes.
    let sight = run(&probe(Kind::Dns(over_tcp(ask(&silent))))).await;
    sight.because(Reason::Disconnected);
}
