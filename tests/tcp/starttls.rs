//! Ways to TLS: scripted servers of each protocol, as they should be and as they should not.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;
use vantage_contract::v1::{
    Attribution, CertificateProblem, Reason, StartTls, StartTlsProtocol as Protocol, TcpProbe, TcpStep, TlsOptions, probe::Kind,
    tcp_step::Step,
};
use vantage_probes::{Sight, stopwatch::Phase, wire::mysql};

use super::{asking, report};
use crate::lab::{
    http::{Server, finish, reset},
    probe::{Verdict as _, assert_ended_by_the_timeout, hasty, probe, run},
    tls::{Authority, Leaf},
};

/// What a server says, and what it hears before it says more.
#[derive(Clone)]
enum Line {
    Says(Vec<u8>),
    Hears(Vec<u8>),
}

fn says(text: impl AsRef<[u8]>) -> Line {
    Line::Says(text.as_ref().to_vec())
}

fn hears(text: impl AsRef<[u8]>) -> Line {
    Line::Hears(text.as_ref().to_vec())
}

/// MariaDB's greeting, which offers TLS or not.
fn welcome(offers_tls: bool) -> Vec<u8> {
    let capabilities: [u8; 2] = if offers_tls { [0xfe, 0xff] } else { [0xfe, 0xf7] };
    let packet = [b"\x0a10.11.0\0\x05\0\0\0saltsalt\0", &capabilities[..], b"\x2d\x02\0\xff\x81\x15", &[0; 10], b"saltsaltsalt\0"].concat();
    [&[u8::try_from(packet.len()).unwrap(), 0, 0, 0][..], &packet].concat()
}

const TLS_OF_XMPP: &str = "urn:ietf:params:xml:ns:xmpp-tls";
const LDAP_REQUEST: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";

/// The good way of each protocol.
fn good(protocol: Protocol) -> Vec<Line> {
    let xmpp = "<?xml version='1.0'?><stream:stream to='127.0.0.1' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
    match protocol {
        Protocol::Unspecified => unreachable!("it has no way"),
        Protocol::Smtp => vec![
            says("220-mail.example\r\n220 ESMTP\r\n"),
            hears("EHLO vantage.invalid\r\n"),
            says("250-mail.example\r\n250-SIZE 1000\r\n250-starttls\r\n250 HELP\r\n"),
            hears("STARTTLS\r\n"),
            says("220 go ahead\r\n"),
        ],
        Protocol::Imap => vec![
            says("* OK [CAPABILITY IMAP4rev1] ready\r\n"),
            hears("v1 CAPABILITY\r\n"),
            says("* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\nv1 OK done\r\n"),
            hears("v2 STARTTLS\r\n"),
            says("v2 OK begin\r\n"),
        ],
        Protocol::Pop3 => vec![
            says("+OK ready <1@a>\r\n"),
            hears("CAPA\r\n"),
            says("+OK\r\nUSER\r\nSTLS\r\n.\r\n"),
            hears("STLS\r\n"),
            says("+OK begin\r\n"),
        ],
        Protocol::Ftp => {
            vec![says("120 in a minute\r\n220-welcome\r\n all of you\r\n220 now\r\n"), hears("AUTH TLS\r\n"), says("234 proceed\r\n")]
        }
        Protocol::Xmpp => vec![
            hears(xmpp),
            says("<?xml version='1.0'?><stream:stream from='a' id='x>y' version='1.0' xmlns='jabber:client'>"),
            says(format!("<stream:features><starttls xmlns='{TLS_OF_XMPP}'><required/></starttls><mechanisms/></stream:features>")),
            hears(format!("<starttls xmlns='{TLS_OF_XMPP}'/>")),
            says(format!("<proceed xmlns='{TLS_OF_XMPP}'/>")),
        ],
        Protocol::Ldap => vec![hears(LDAP_REQUEST), says(b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\0\x04\0\x04\0")],
        Protocol::Postgres => vec![hears([0, 0, 0, 8, 4, 210, 22, 47]), says("S")],
        Protocol::Mysql => vec![says(welcome(true)), hears(mysql::SSL_REQUEST)],
    }
}

const ALL: [Protocol; 8] =
    [Protocol::Smtp, Protocol::Imap, Protocol::Pop3, Protocol::Ftp, Protocol::Xmpp, Protocol::Ldap, Protocol::Postgres, Protocol::Mysql];

/// Says and hears all of it; false where the client says something else, or leaves.
async fn perform(stream: &mut TcpStream, lines: &[Line]) -> bool {
    for line in lines {
        match line {
            Line::Says(bytes) => {
                if stream.write_all(bytes).await.is_err() {
                    return false;
                }
            }
            Line::Hears(bytes) => {
                let mut heard = vec![0; bytes.len()];
                if stream.read_exact(&mut heard).await.is_err() {
                    return false;
                }
                assert_eq!(heard.escape_ascii().to_string(), bytes.escape_ascii().to_string());
            }
        }
    }
    true
}

/// A server that says this and then closes.
async fn saying(lines: Vec<Line>) -> Server {
    Server::start(move |mut stream, _| {
        let lines = lines.clone();
        async move {
            if perform(&mut stream, &lines).await {
                finish(stream).await;
            }
        }
    })
    .await
}

/// A server that goes the way to TLS, and says `hello` there.
async fn secured(lines: Vec<Line>, acceptor: TlsAcceptor) -> Server {
    Server::start(move |mut stream, _| {
        let (lines, acceptor) = (lines.clone(), acceptor.clone());
        async move {
            if perform(&mut stream, &lines).await
                && let Ok(mut stream) = acceptor.accept(stream).await
            {
                let _ = stream.write_all(b"hello").await;
                finish(stream).await;
            }
        }
    })
    .await
}

fn spec(server: &Server, protocol: Protocol, tls: TlsOptions) -> TcpProbe {
    TcpProbe { start_tls: Some(StartTls { protocol: protocol.into(), tls: Some(tls), name: String::new() }), ..asking(server) }
}

async fn ask(server: &Server, protocol: Protocol) -> Sight {
    run(&probe(Kind::Tcp(spec(server, protocol, TlsOptions { insecure: true, ..TlsOptions::default() })))).await
}

#[tokio::test]
async fn each_protocol_leads_to_tls_and_its_steps_follow_there() {
    let authority = Authority::new();
    for protocol in ALL {
        let server = secured(good(protocol), authority.acceptor(&Leaf::default(), &[])).await;
        let steps = vec![TcpStep { step: Some(Step::Expect("hello".into())) }];
        let sight = run(&probe(Kind::Tcp(TcpProbe { steps, ..spec(&server, protocol, authority.options()) }))).await;
        let phases: Vec<_> = sight.phases.iter().map(|(phase, _)| *phase).collect();
        assert!(phases.starts_with(&[Phase::Resolve, Phase::Connect]), "{phases:?}");
        assert_eq!(phases.iter().filter(|phase| **phase == Phase::Tls).count(), 1, "{phases:?}");
        assert!(sight.summary.contains("over TLS, by STARTTLS ("), "{}", sight.summary);
        let seen = report(Some(sight.passed()));
        let tls = seen.tls.unwrap();
        assert!(tls.verified && tls.certificates.len() == 2, "{protocol:?}: {tls:?}");
        let in_clear: usize = good(protocol).iter().map(|line| if let Line::Says(bytes) = line { bytes.len() } else { 0 }).sum();
        assert_eq!((seen.received_bytes, seen.banner.as_str()), (in_clear as u64 + 5, "hello"), "{protocol:?}");
        assert!(!seen.greeting.is_empty() && seen.greeting.len() <= 4096, "{}", seen.greeting);
        assert_eq!((seen.completed_step_count, seen.step_durations.len()), (1, 1));
    }
}

#[tokio::test]
async fn a_server_that_says_its_lines_byte_by_byte_is_understood() {
    let authority = Authority::new();
    for protocol in ALL {
        let slowly = good(protocol).into_iter().flat_map(|line| match line {
            Line::Says(bytes) => bytes.iter().map(|byte| says([*byte])).collect(),
            heard @ Line::Hears(_) => vec![heard],
        });
        let server = secured(slowly.collect(), authority.acceptor(&Leaf::default(), &[])).await;
        ask(&server, protocol).await.passed();
    }
}

#[tokio::test]
async fn certificates_are_judged_under_starttls_as_anywhere() {
    let authority = Authority::new();
    let server = secured(good(Protocol::Smtp), authority.acceptor(&Leaf { names: &["other.example"], ..Leaf::default() }, &[])).await;
    let sight = run(&probe(Kind::Tcp(spec(&server, Protocol::Smtp, authority.options())))).await;
    let tls = report(sight.because(Reason::CertificateInvalid)).tls.unwrap();
    assert_eq!((tls.certificate_problem(), tls.certificates.len()), (CertificateProblem::WrongName, 2));
    let options = TlsOptions { server_name: "other.example".into(), ..authority.options() };
    run(&probe(Kind::Tcp(spec(&server, Protocol::Smtp, options)))).await.passed();
}

#[tokio::test]
async fn a_refusal_of_each_protocol_is_told_in_the_servers_words() {
    let smtp = |answers: &[&str]| -> Vec<Line> {
        let heard = ["EHLO vantage.invalid\r\n", "STARTTLS\r\n"];
        answers.iter().zip(heard).flat_map(|(said, heard)| [says(said), hears(heard)]).chain(answers.get(2).map(says)).collect()
    };
    let postgres = |answer: &[u8]| vec![hears([0, 0, 0, 8, 4, 210, 22, 47]), says(answer)];
    let ldap = |answer: &[u8]| vec![hears(LDAP_REQUEST), says(answer)];
    let xmpp = |rest: &str| vec![says(format!("<stream:stream version='1.0'>{rest}"))];
    let up_to = |protocol, count: usize, last: &str| good(protocol).into_iter().take(count).chain([says(last)]).collect::<Vec<_>>();
    for (protocol, lines, words) in [
        (Protocol::Smtp, vec![says("554 no service\r\n")], "the greeting is \"554 no service\""),
        (Protocol::Smtp, smtp(&["220 a\r\n"]).into_iter().chain([says("502 what\r\n")]).collect(), "the answer to EHLO is \"502 what\""),
        (Protocol::Smtp, smtp(&["220 a\r\n"]).into_iter().chain([says("250-a\r\n250 SIZE\r\n")]).collect(), "does not offer STARTTLS"),
        (Protocol::Smtp, up_to(Protocol::Smtp, 4, "454 4.7.0 TLS not available\r\n"), "\"454 4.7.0 TLS not available\""),
        (Protocol::Imap, vec![says("* BYE too many\r\n")], "the greeting is \"* BYE too many\""),
        (Protocol::Imap, vec![says("* PREAUTH hello\r\n")], "the greeting is \"* PREAUTH hello\""),
        (Protocol::Imap, up_to(Protocol::Imap, 2, "* CAPABILITY IMAP4rev1\r\nv1 OK\r\n"), "does not offer STARTTLS"),
        (Protocol::Imap, up_to(Protocol::Imap, 4, "v2 NO not now\r\n"), "\"v2 NO not now\""),
        (Protocol::Pop3, vec![says("-ERR locked\r\n")], "the greeting is \"-ERR locked\""),
        (Protocol::Pop3, up_to(Protocol::Pop3, 2, "+OK\r\nUSER\r\n.\r\n"), "does not offer STLS"),
        (Protocol::Pop3, up_to(Protocol::Pop3, 4, "-ERR no\r\n"), "\"-ERR no\""),
        (Protocol::Ftp, vec![says("421 full\r\n")], "the greeting is \"421 full\""),
        (Protocol::Ftp, up_to(Protocol::Ftp, 2, "530 Please login with USER and PASS.\r\n"), "\"530 Please login"),
        (Protocol::Xmpp, xmpp("<stream:features><mechanisms/></stream:features>"), "does not offer STARTTLS"),
        (Protocol::Xmpp, xmpp("<stream:features/>"), "does not offer STARTTLS"),
        (Protocol::Xmpp, xmpp("<stream:error><host-unknown xmlns='x'/></stream:error>"), "the error \"host-unknown\""),
        (Protocol::Xmpp, up_to(Protocol::Xmpp, 4, "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"), "is a failure"),
        (Protocol::Ldap, ldap(b"\x30\x11\x02\x01\x01\x78\x0c\x0a\x01\x02\x04\0\x04\x05sorry"), "result 2 (protocolError): \"sorry\""),
        (Protocol::Ldap, ldap(b"\x30\x0c\x02\x01\0\x78\x07\x0a\x01\x34\x04\0\x04\0"), "by itself is result 52 (unavailable)"),
        (Protocol::Postgres, postgres(b"N"), "does not offer TLS"),
        (Protocol::Postgres, postgres(b"E\0\0\0\x1fSFATAL\0C53300\0Mtoo many now\0\0"), "error: \"too many now\""),
        (Protocol::Postgres, postgres(b"EFATAL:  unsupported frontend protocol\n\0"), "error: \"FATAL:  unsupported"),
        (Protocol::Mysql, vec![says(welcome(false))], "does not offer TLS"),
        (Protocol::Mysql, vec![says(b"\x0b\0\0\0\xff\x10\x04Too many")], "the error 1040: \"Too many\""),
    ] {
        let sight = ask(&saying(lines).await, protocol).await;
        assert!(sight.summary.contains(words), "{protocol:?}: {}", sight.summary);
        assert_eq!((sight.attribution, sight.phases.last().unwrap().0), (Attribution::Target, Phase::Transfer));
        let seen = report(sight.because(Reason::UnexpectedAnswer));
        assert!(seen.connected && seen.tls.is_none() && !seen.greeting.is_empty());
    }
}

#[tokio::test]
async fn a_pop3_server_that_knows_no_capabilities_may_know_tls() {
    let authority = Authority::new();
    let mut lines = good(Protocol::Pop3);
    lines[2] = says("-ERR what?\r\n");
    ask(&secured(lines, authority.acceptor(&Leaf::default(), &[])).await, Protocol::Pop3).await.passed();
}

#[tokio::test]
async fn what_is_said_in_the_clear_after_the_answer_is_a_fault_and_not_taken_for_tls() {
    for protocol in ALL {
        for injected in ["250 injected\r\n", "x"] {
            let mut lines = good(protocol);
            let Some(place) = lines.iter().rposition(|line| matches!(line, Line::Says(_))) else { unreachable!() };
            let Line::Says(last) = &mut lines[place] else { unreachable!() };
            last.extend_from_slice(injected.as_bytes());
            lines.truncate(place + 1);
            let steps = vec![TcpStep { step: Some(Step::Expect("injected".into())) }];
            let server = saying(lines).await;
            let options = TlsOptions { insecure: true, ..TlsOptions::default() };
            let sight = run(&probe(Kind::Tcp(TcpProbe { steps, ..spec(&server, protocol, options) }))).await;
            assert!(sight.summary.contains("agreed to TLS, and went on in the clear: \""), "{protocol:?}: {}", sight.summary);
            let seen = report(sight.because(Reason::MalformedAnswer));
            assert_eq!((seen.completed_step_count, seen.tls), (0, None));
        }
    }
}

#[tokio::test]
async fn what_is_another_protocol_is_malformed_and_never_more_than_the_limit_is_read() {
    for protocol in ALL {
        for garbage in
            ["HTTP/1.1 400 Bad Request\r\n\r\n", "\u{0}\u{1}\u{2}\u{3}\u{ff}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}", "<!DOCTYPE html>\r\n"]
        {
            let server = saying(vec![says(garbage)]).await;
            let sight = ask(&server, protocol).await;
            let is_known = matches!(sight.reason, Reason::MalformedAnswer | Reason::Disconnected);
            assert!(is_known && sight.attribution == Attribution::Target, "{protocol:?} {garbage:?}: {sight:?}");
        }
        // What may go on for ever, does.
        let (begin, more) = match protocol {
            Protocol::Smtp | Protocol::Ftp => ("", "220-more\r\n"),
            Protocol::Imap => ("* OK\r\n", "* more\r\n"),
            Protocol::Pop3 => ("+OK\r\n+OK\r\n", "MORE\r\n"),
            Protocol::Xmpp => ("<stream:stream><stream:features>", "<more/>"),
            Protocol::Ldap | Protocol::Postgres | Protocol::Mysql => ("", "\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}"),
            Protocol::Unspecified => unreachable!(),
        };
        let server = Server::start(move |mut stream, _| async move {
            let _ = stream.write_all(begin.as_bytes()).await;
            while stream.write_all(more.repeat(100).as_bytes()).await.is_ok() {}
        })
        .await;
        let spec =
            TcpProbe { max_read_size_bytes: 20_000, ..spec(&server, protocol, TlsOptions { insecure: true, ..TlsOptions::default() }) };
        let sight = run(&probe(Kind::Tcp(spec))).await;
        assert!(matches!(sight.reason, Reason::TooLarge | Reason::MalformedAnswer), "{protocol:?}: {sight:?}");
        assert!(report(sight.report).received_bytes <= 20_001);
    }
}

#[tokio::test]
async fn a_stall_a_reset_and_a_close_at_each_line_are_told_with_what_was_awaited() {
    for protocol in ALL {
        let lines = good(protocol);
        for count in 0..lines.len() {
            let before = lines[..count].to_vec();
            let Line::Says(_) = lines[count] else { continue };
            let stalling = before.clone();
            let stalls = Server::start(move |mut stream, _| {
                let lines = stalling.clone();
                async move {
                    perform(&mut stream, &lines).await;
                    std::future::pending::<()>().await;
                }
            })
            .await;
            let tls = TlsOptions { insecure: true, ..TlsOptions::default() };
            let sight = run(&hasty(Kind::Tcp(spec(&stalls, protocol, tls)))).await;
            assert_ended_by_the_timeout(&sight);
            assert!(sight.summary.contains("timed out after 300ms waiting for the "), "{}", sight.summary);
            assert!(sight.summary.contains(", in STARTTLS ("), "{}", sight.summary);
            sight.because(Reason::TimedOut);

            ask(&saying(before.clone()).await, protocol).await.because(Reason::Disconnected);
            let resets = Server::start(move |mut stream, _| {
                let lines = before.clone();
                async move {
                    perform(&mut stream, &lines).await;
                    // Not before the client has something to wait for.
                    tokio::task::yield_now().await;
                    reset(stream);
                }
            })
            .await;
            ask(&resets, protocol).await.because(Reason::Disconnected);
        }
    }
}

#[tokio::test]
async fn a_handshake_that_never_comes_after_the_answer_is_ended_by_the_timeout() {
    let lines = good(Protocol::Imap);
    let server = Server::start(move |mut stream, _| {
        let lines = lines.clone();
        async move {
            perform(&mut stream, &lines).await;
            std::future::pending::<()>().await;
        }
    })
    .await;
    let sight = run(&hasty(Kind::Tcp(spec(&server, Protocol::Imap, TlsOptions { insecure: true, ..TlsOptions::default() })))).await;
    assert_ended_by_the_timeout(&sight);
    assert!(sight.summary.contains("in the TLS handshake"), "{}", sight.summary);
    assert!(sight.phases.iter().any(|(phase, taken)| *phase == Phase::Tls && *taken > Duration::from_millis(200)));
    sight.because(Reason::TimedOut);
}

#[tokio::test]
async fn the_name_given_is_the_one_greeted_by() {
    let authority = Authority::new();
    for (protocol, place) in [(Protocol::Smtp, 1), (Protocol::Xmpp, 0)] {
        let mut lines = good(protocol);
        lines[place] = match protocol {
            Protocol::Smtp => hears("EHLO me&you.example\r\n"),
            _ => hears("<?xml version='1.0'?><stream:stream to='me&amp;you.example' version='1.0'"),
        };
        if protocol == Protocol::Xmpp {
            lines.insert(1, hears(" xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"));
        }
        let server = secured(lines, authority.acceptor(&Leaf::default(), &[])).await;
        let mut spec = spec(&server, protocol, authority.options());
        spec.start_tls.as_mut().unwrap().name = "me&you.example".into();
        run(&probe(Kind::Tcp(spec))).await.passed();
    }
}
