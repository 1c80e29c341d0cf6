//! Connections that are kept for the next exchange.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Notify,
};
use vantage_contract::v1::{AddressSelection, HttpExpectations, HttpProbe, HttpReport, HttpVersion, Probe, Reason, probe::Kind};
use vantage_probes::{Destination, Gate, OpenGate, Plan, Sight, World, stopwatch::Phase};

use super::{ONE_HOP, asking, names, passed, report};
use crate::lab::{
    dns::DnsServer,
    http::{Requests, Server, ok, read_request, redirect, reset},
    probe::{Verdict as _, probe},
    tls::{Authority, Leaf, serve},
};

/// A check that is run more than once.
struct Check {
    plan: Plan,
    world: World,
}

impl Check {
    fn of(kind: Kind) -> Self {
        Self { plan: Plan::parse(&probe(kind)).unwrap(), world: World::new(Arc::new(OpenGate)) }
    }

    /// One that keeps its connections.
    fn keeping(spec: HttpProbe) -> Self {
        Self::of(Kind::Http(HttpProbe { reuse: true, ..spec }))
    }

    async fn run(&self) -> Sight {
        let sight = self.plan.run(&self.world).await;
        assert_eq!(sight.phases.iter().map(|(_, taken)| *taken).sum::<std::time::Duration>(), sight.duration, "{sight:?}");
        sight
    }

    async fn passes(&self) -> HttpReport {
        passed(self.run().await)
    }
}

fn hops(report: &HttpReport) -> Vec<(u32, bool)> {
    report.hops.iter().map(|hop| (hop.status, hop.reused)).collect()
}

const ON_A_KEPT_ONE: [Phase; 3] = [Phase::Send, Phase::Wait, Phase::Transfer];

fn always(_: &str, _: usize, _: usize) -> Option<Vec<u8>> {
    Some(ok("hello").into_bytes())
}

#[tokio::test]
async fn the_next_run_takes_up_the_connection_of_the_one_before() {
    let (server, requests) = Server::keeping(always).await;
    let check = Check::keeping(asking(&server));
    let first = check.run().await;
    assert_eq!(names(&first), ONE_HOP);
    let first = passed(first);
    for _ in 0..3 {
        let next = check.run().await;
        assert_eq!((names(&next), next.address), (ON_A_KEPT_ONE.to_vec(), Some("127.0.0.1".parse().unwrap())));
        let next = passed(next);
        assert_eq!(hops(&next), [(200, true)]);
        assert_eq!((next.sent_bytes, next.received_bytes), (first.sent_bytes, first.received_bytes));
        assert_eq!((&next.local_address, &next.remote_address), (&first.local_address, &first.remote_address));
        let phases = next.hops[0].phases.as_ref().unwrap();
        assert!(phases.connect.is_none() && phases.resolve.is_none() && phases.wait.is_some());
    }
    assert_eq!((hops(&first), server.connections(), requests.all().len()), (vec![(200, false)], 1, 4));
    let fresh = Check::of(Kind::Http(asking(&server)));
    fresh.passes().await;
    assert_eq!(hops(&fresh.passes().await), [(200, false)]);
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
async fn a_connection_goes_with_its_check() {
    let gone = Arc::new(Notify::new());
    let left = gone.clone();
    let server = Server::start(move |mut stream, _| {
        let left = left.clone();
        async move {
            read_request(&mut stream).await;
            stream.write_all(ok("").as_bytes()).await.unwrap();
            assert_eq!(stream.read(&mut [0; 16]).await.unwrap_or(0), 0);
            left.notify_one();
        }
    })
    .await;
    let check = Check::keeping(asking(&server));
    check.passes().await;
    drop(check);
    gone.notified().await;
}

#[tokio::test]
async fn a_connection_that_the_server_closed_meanwhile_is_replaced_without_a_trace() {
    for ends_with_a_reset in [false, true] {
        let closed = Arc::new(Notify::new());
        let closing = closed.clone();
        let server = Server::start(move |mut stream, _| {
            let closing = closing.clone();
            async move {
                read_request(&mut stream).await;
                stream.write_all(ok("").as_bytes()).await.unwrap();
                if ends_with_a_reset {
                    // Only once the answer has been read: a reset takes with it what has not been.
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    reset(stream);
                } else {
                    drop(stream);
                }
                closing.notify_one();
            }
        })
        .await;
        let check = Check::keeping(HttpProbe { method: "POST".into(), ..asking(&server) });
        for run in 1..=3 {
            assert_eq!(hops(&check.passes().await), [(200, false)]);
            closed.notified().await;
            assert_eq!(server.connections(), run);
            // The end arrives by the kernel's way, at once; the reactor has to have heard of it.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

/// A server that hears a second request on its first connection and closes without an answer.
async fn racing(how: fn(tokio::net::TcpStream)) -> (Server, Requests) {
    let requests = Requests::default();
    let kept = requests.clone();
    let server = Server::start(move |mut stream, connection| {
        let kept = kept.clone();
        async move {
            loop {
                let request = read_request(&mut stream).await;
                if request.is_empty() {
                    return;
                }
                kept.push(request);
                if connection == 0 && kept.all().len() == 2 {
                    return how(stream);
                }
                stream.write_all(ok("hello").as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    (server, requests)
}

#[tokio::test]
async fn a_request_that_met_the_close_is_made_again_only_if_it_is_idempotent() {
    for how in [drop, reset] {
        for method in ["GET", "PUT"] {
            let (server, requests) = racing(how).await;
            let check = Check::keeping(HttpProbe { method: method.into(), ..asking(&server) });
            check.passes().await;
            let sight = check.run().await;
            assert_eq!(names(&sight), [&[Phase::Send, Phase::Wait], &ONE_HOP[..]].concat());
            let seen = passed(sight);
            assert_eq!(hops(&seen), [(0, true), (200, false)], "both are told");
            assert_eq!((requests.all().len(), server.connections()), (3, 2));
            assert_eq!(hops(&check.passes().await), [(200, true)]);
        }
        let (server, requests) = racing(how).await;
        let check = Check::keeping(HttpProbe { method: "POST".into(), body: "once".into(), ..asking(&server) });
        check.passes().await;
        let sight = check.run().await;
        assert!(sight.summary.contains("one that was kept") && sight.summary.contains("not to be tried twice"), "{}", sight.summary);
        assert_eq!(hops(&report(sight.because(Reason::Disconnected))), [(0, true)]);
        assert_eq!((requests.all().len(), server.connections()), (2, 1));
        assert_eq!(hops(&check.passes().await), [(200, false)]);
    }
}

#[tokio::test]
async fn a_request_that_was_half_answered_is_not_made_again() {
    let (server, requests) = Server::keeping(|_, connection, number| match (connection, number) {
        (0, 1) => Some(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()),
        (0, 2..) => None,
        _ => Some(ok("").into_bytes()),
    })
    .await;
    let check = Check::keeping(asking(&server));
    check.passes().await;
    let half = check.run();
    let cutting = async {
        // The third request never comes: this ends the connection from the server's side.
        while requests.all().len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    let spec = tokio::time::timeout(std::time::Duration::from_millis(300), async { tokio::join!(half, cutting) }).await;
    assert!(spec.is_err(), "it waits for the rest");
    assert_eq!(requests.all().len(), 2);
    assert_eq!(hops(&check.passes().await), [(200, false)], "what was under way is not kept");
}

#[tokio::test]
async fn a_server_that_says_close_or_speaks_the_old_way_is_asked_afresh() {
    for answer in ["HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"]
    {
        let (server, _) = Server::keeping(|_, _, _| Some(answer.as_bytes().to_vec())).await;
        let check = Check::keeping(asking(&server));
        for _ in 0..2 {
            assert_eq!(hops(&check.passes().await), [(200, false)]);
        }
        assert_eq!(server.connections(), 2);
    }
    // A body that was not read to its end leaves nothing that could be kept; one that was is, whatever the verdict.
    let (server, _) = Server::keeping(always).await;
    let limited = Check::keeping(HttpProbe { max_body_size_bytes: 2, ..asking(&server) });
    limited.run().await.because(Reason::TooLarge);
    assert_eq!(hops(&report(limited.run().await.because(Reason::TooLarge))), [(200, false)]);
    let expect = Some(HttpExpectations { status: vec![404], ..HttpExpectations::default() });
    let wrong = Check::keeping(HttpProbe { expect, ..asking(&server) });
    wrong.run().await.because(Reason::UnexpectedAnswer);
    assert_eq!(hops(&report(wrong.run().await.because(Reason::UnexpectedAnswer))), [(200, true)]);
}

#[tokio::test]
async fn redirects_within_a_server_share_a_connection() {
    let (server, requests) = Server::keeping(|request, _, _| {
        let place = if request.starts_with("GET /end ") { return always(request, 0, 0) } else { "/end" };
        Some(redirect(302, place).replace("Content-Length: 0\r\n\r\n", "Content-Length: 4\r\n\r\ngone").into_bytes())
    })
    .await;
    let check = Check::keeping(asking(&server));
    let sight = check.run().await;
    assert_eq!(names(&sight), [&ONE_HOP[..], &ON_A_KEPT_ONE].concat());
    let seen = passed(sight);
    assert_eq!((hops(&seen), seen.hops[0].body_size_bytes), (vec![(302, false), (200, true)], 4));
    assert_eq!(hops(&check.passes().await), [(302, true), (200, true)]);
    assert_eq!((server.connections(), requests.all().len()), (1, 4));
}

#[tokio::test]
async fn each_address_of_a_name_keeps_a_connection_of_its_own() {
    let one = loop {
        // The same port at two addresses.
        let (one, _) = Server::keeping(always).await;
        if let Ok(listener) = std::net::TcpListener::bind(("127.0.0.2", one.address.port())) {
            drop(listener);
            break one;
        }
    };
    let other = tokio::net::TcpListener::bind(("127.0.0.2", one.address.port())).await.unwrap();
    let accepted = Arc::new(Mutex::new(0));
    let counter = accepted.clone();
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = other.accept().await {
            *counter.lock().unwrap() += 1;
            tokio::spawn(async move {
                while !read_request(&mut stream).await.is_empty() {
                    stream.write_all(ok("hello").as_bytes()).await.unwrap();
                }
            });
        }
    });
    let resolver = DnsServer::zone(&[("host.test.", &["127.0.0.1", "127.0.0.2"])]).await;
    let url = format!("http://host.test:{}/", one.address.port());
    let all = Probe {
        addresses: AddressSelection::All.into(),
        resolver: resolver.address.to_string(),
        ..probe(Kind::Http(HttpProbe { reuse: true, ..super::get(url) }))
    };
    let plan = Plan::parse(&all).unwrap();
    let world = World::new(Arc::new(OpenGate));
    for expected in [false, true, true] {
        let sight = plan.run(&world).await;
        assert_eq!(sight.addresses.len(), 2, "{sight:?}");
        for (sub, address) in sight.addresses.into_iter().zip(["127.0.0.1", "127.0.0.2"]) {
            let seen = passed(sub);
            assert_eq!((hops(&seen), seen.hops[0].address.as_str()), (vec![(200, expected)], address));
        }
    }
    assert_eq!((one.connections(), *accepted.lock().unwrap()), (1, 1));
    serving.abort();
}

struct Switch(AtomicBool);

impl Gate for Switch {
    fn permit(&self, _: Destination) -> Result<(), String> {
        if self.0.load(Ordering::SeqCst) { Ok(()) } else { Err("not any more".into()) }
    }
}

#[tokio::test]
async fn the_policy_is_asked_again_before_a_kept_connection_is_used() {
    let (server, requests) = Server::keeping(always).await;
    let gate = Arc::new(Switch(AtomicBool::new(true)));
    let check = Check { world: World::new(gate.clone()), ..Check::keeping(asking(&server)) };
    check.passes().await;
    gate.0.store(false, Ordering::SeqCst);
    check.run().await.because(Reason::PolicyDenied);
    assert_eq!(requests.all().len(), 1);
    gate.0.store(true, Ordering::SeqCst);
    assert_eq!(hops(&check.passes().await), [(200, false)], "what was denied is gone");
}

#[tokio::test]
async fn over_tls_a_kept_connection_shows_what_its_handshake_showed() {
    let authority = Authority::new();
    let server = serve(authority.acceptor(&Leaf::default(), &[]), |mut stream, _| async move {
        while !read_request(&mut stream).await.is_empty() {
            stream.write_all(ok("hello").as_bytes()).await.unwrap();
        }
    })
    .await;
    let spec =
        HttpProbe { url: format!("https://{}/", server.address), tls: Some(authority.options()), reuse: true, ..HttpProbe::default() };
    let check = Check::of(Kind::Https(spec));
    let of = |sight: Sight| match sight.passed() {
        vantage_contract::v1::probe_result::Report::Https(report) => *report,
        other => panic!("{other:?}"),
    };
    let first = of(check.run().await);
    let second = check.run().await;
    assert_eq!(names(&second), ON_A_KEPT_ONE);
    let second = of(second);
    assert_eq!((hops(&second), server.connections()), (vec![(200, true)], 1));
    let (first, second) = (first.tls.unwrap(), second.tls.unwrap());
    assert_eq!((&first.certificates, first.verified, &first.version), (&second.certificates, second.verified, &second.version));
    assert!(second.remaining_validity.unwrap().seconds <= first.remaining_validity.unwrap().seconds);
}

/// What a server of HTTP/2 does once it has answered so many requests on a connection.
#[derive(Clone, Copy)]
enum Then {
    Goes,
    Refuses,
}

async fn serving_two(answers: usize, then: Then) -> (Server, Arc<Mutex<usize>>) {
    let heard = Arc::new(Mutex::new(0));
    let counter = heard.clone();
    let server = Server::start(move |stream, connection| {
        let counter = counter.clone();
        async move {
            let Ok(mut handshake) = h2::server::handshake(stream).await else { return };
            let mut left = if connection == 0 { answers } else { usize::MAX };
            while let Some(Ok((_, mut respond))) = handshake.accept().await {
                *counter.lock().unwrap() += 1;
                if left == 0 {
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                    continue;
                }
                left -= 1;
                let mut sending = respond.send_response(http::Response::new(()), false).unwrap();
                sending.send_data(bytes::Bytes::from_static(b"hello"), true).unwrap();
                if left == 0 && matches!(then, Then::Goes) {
                    handshake.graceful_shutdown();
                }
            }
        }
    })
    .await;
    (server, heard)
}

fn two(server: &Server, method: &str) -> HttpProbe {
    HttpProbe { version: HttpVersion::HttpVersion2.into(), method: method.into(), ..asking(server) }
}

#[tokio::test]
async fn one_connection_of_http_2_serves_many_runs() {
    let (server, _) = serving_two(usize::MAX, Then::Goes).await;
    let check = Check::keeping(two(&server, "GET"));
    check.passes().await;
    for _ in 0..3 {
        let sight = check.run().await;
        assert_eq!(names(&sight), ON_A_KEPT_ONE);
        let seen = passed(sight);
        assert_eq!((hops(&seen), seen.version.as_str(), seen.body_size_bytes), (vec![(200, true)], "2", 5));
        assert!(seen.sent_bytes > 0 && seen.received_bytes > 5);
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_connection_of_http_2_that_says_goodbye_is_replaced() {
    let (server, heard) = serving_two(1, Then::Goes).await;
    let check = Check::keeping(two(&server, "POST"));
    check.passes().await;
    let next = check.passes().await;
    assert_eq!(next.hops.last().map(|hop| (hop.status, hop.reused)), Some((200, false)));
    assert_eq!((server.connections(), *heard.lock().unwrap()), (2, 2), "a POST was heard once each");
}

#[tokio::test]
async fn a_stream_that_was_refused_was_not_heard_and_is_tried_again_whatever_the_method() {
    let (server, _) = serving_two(1, Then::Refuses).await;
    let check = Check::keeping(two(&server, "POST"));
    check.passes().await;
    assert_eq!(hops(&check.passes().await), [(0, true), (200, false)]);
    assert_eq!(server.connections(), 2);
}
