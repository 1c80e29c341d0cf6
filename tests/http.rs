//! HTTP in the clear: answers, redirects, expectations, and servers that misbehave.

mod codings;
mod distance;
mod expectations;
mod json;
mod kept;
mod real;

use std::{
    net::TcpListener,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vantage_contract::v1::{
    Attribution, HttpExpectations, HttpHeaderExpectation, HttpPhases, HttpProbe, HttpReport, HttpVersion, Outcome, Reason, probe::Kind,
    probe_result::Report,
};
use vantage_probes::{
    Destination, Gate, Sight,
    stopwatch::{self, Phase},
};

use crate::lab::{
    http::{Server, finish, ok, read_request, redirect, reset},
    probe::{Verdict as _, assert_ended_by_the_timeout, hasty, probe, run, run_behind},
};

fn get(url: String) -> HttpProbe {
    HttpProbe { url, ..HttpProbe::default() }
}

fn asking(server: &Server) -> HttpProbe {
    get(server.url("/"))
}

async fn ask(spec: HttpProbe) -> Sight {
    run(&probe(Kind::Http(spec))).await
}

fn report(report: Option<Report>) -> HttpReport {
    match report {
        Some(Report::Http(report)) => *report,
        other => panic!("a report of http, not {other:?}"),
    }
}

fn passed(sight: Sight) -> HttpReport {
    report(Some(sight.passed()))
}

fn expecting(server: &Server, expect: HttpExpectations) -> HttpProbe {
    HttpProbe { expect: Some(expect), ..asking(server) }
}

fn names(sight: &Sight) -> Vec<Phase> {
    sight.phases.iter().map(|(phase, _)| *phase).collect()
}

fn nanos(duration: &Option<prost_types::Duration>) -> i64 {
    duration.as_ref().map_or(0, |it| it.seconds * 1_000_000_000 + i64::from(it.nanos))
}

/// Runs with a short timeout and asserts that it ended the run.
async fn times_out(spec: HttpProbe) -> (Sight, HttpReport) {
    let sight = run(&hasty(Kind::Http(spec))).await;
    assert_ended_by_the_timeout(&sight);
    (sight.clone(), report(sight.because(Reason::TimedOut)))
}

const ONE_HOP: [Phase; 5] = [Phase::Resolve, Phase::Connect, Phase::Send, Phase::Wait, Phase::Transfer];

#[tokio::test]
async fn successes_pass_by_default_and_show_what_was_seen() {
    for status in [200, 201, 299] {
        let answer = format!("HTTP/1.1 {status} Fine\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 5\r\n\r\nhello");
        let size = answer.len();
        let (server, requests) = Server::scripted(move |_, _| answer.clone()).await;
        let sight = ask(get(server.url("/a?b=c#d"))).await;
        assert_eq!(names(&sight), ONE_HOP);
        assert!(sight.latency.unwrap().0 <= sight.duration);
        let report = passed(sight);
        assert_eq!((report.status, report.version.as_str(), report.body_size_bytes), (status, "1.1", 5));
        assert_eq!(report.content_type, "text/plain; charset=utf-8");
        assert_eq!(report.header_size_bytes, (12 + 25 + 14 + 1) as u64);
        assert_eq!(report.final_url, server.url("/a?b=c"));
        assert_eq!((report.remote_address.as_str(), report.kernel_round_trip.is_some()), (&*server.address.to_string(), true));
        assert!(report.local_address.starts_with("127.0.0.1:") && report.local_address != report.remote_address);
        assert_eq!((report.sent_bytes, report.received_bytes), (requests.all()[0].len() as u64, size as u64));
        assert_eq!((report.tls, report.excerpt.as_str()), (None, ""));
    }
}

#[tokio::test]
async fn the_request_is_what_was_asked_for_and_no_more() {
    let (server, requests) = Server::scripted(|_, _| ok("")).await;
    passed(ask(asking(&server)).await);
    let expected = format!("GET / HTTP/1.1\r\nuser-agent: vantage/0.1.0\r\naccept: */*\r\nhost: {}\r\n\r\n", server.address);
    assert_eq!(requests.all(), [expected]);
    let spec = HttpProbe {
        url: format!("http://joe:pw@{}/x", server.address),
        method: "POST".into(),
        headers: [("User-Agent".into(), "me".into()), ("Host".into(), "other.example".into())].into(),
        body: "hello".into(),
        ..HttpProbe::default()
    };
    let sight = ask(spec).await;
    assert!(!format!("{sight:?}").contains("pw"), "{sight:?}");
    assert_eq!(passed(sight).final_url, server.url("/x"));
    let request = &requests.all()[1];
    for part in ["POST /x HTTP/1.1", "user-agent: me\r\n", "host: other.example\r\n", "authorization: Basic am9lOnB3\r\n", "\r\n\r\nhello"]
    {
        assert!(request.contains(part), "{request}");
    }
}

#[tokio::test]
async fn an_unexpected_status_fails_with_an_excerpt_and_an_expected_one_passes() {
    let server = Server::answering("HTTP/1.1 404 Nope\r\nContent-Length: 22\r\n\r\n\nno such page\nat all \n").await;
    let sight = ask(asking(&server)).await;
    assert_eq!((sight.outcome, sight.attribution), (Outcome::Failed, Attribution::Target));
    assert!(sight.summary.contains("status 404 Not Found, expected 200 to 399"), "{}", sight.summary);
    let seen = report(sight.because(Reason::UnexpectedAnswer));
    assert_eq!((seen.status, seen.excerpt.as_str(), seen.body_size_bytes), (404, "no such page", 22));
    for status in [vec![404], vec![200, 404]] {
        assert_eq!(passed(ask(expecting(&server, HttpExpectations { status, ..Default::default() })).await).excerpt, "");
    }
    let silent = Server::answering("HTTP/1.1 503 Gone Fishing\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(report(ask(asking(&silent)).await.because(Reason::UnexpectedAnswer)).excerpt, "Gone Fishing");
}

#[tokio::test]
async fn an_unexpected_status_is_the_reason_even_if_its_body_never_ends() {
    let server = Server::stalling_after("HTTP/1.1 500 Oh\r\nContent-Length: 100\r\n\r\nsorry").await;
    let sight = run(&hasty(Kind::Http(asking(&server)))).await;
    sight.because(Reason::UnexpectedAnswer);
}

#[tokio::test]
async fn a_redirect_is_followed_or_not_as_asked() {
    let (server, _) =
        Server::scripted(|request, _| if request.starts_with("GET /end ") { ok("done") } else { redirect(302, "/end") }).await;
    let sight = ask(asking(&server)).await;
    assert_eq!(names(&sight), [ONE_HOP, ONE_HOP].concat());
    let seen = passed(sight);
    assert_eq!((seen.redirect_count, seen.status, seen.final_url), (1, 200, server.url("/end")));
    assert_eq!(server.connections(), 2);
    let once = HttpProbe { max_redirects: Some(0), ..expecting(&server, HttpExpectations { status: vec![302], ..Default::default() }) };
    let seen = passed(ask(once).await);
    assert_eq!((seen.redirect_count, seen.status), (0, 302));
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
async fn each_exchange_on_the_way_has_its_own_phases_and_they_add_up() {
    let (server, _) =
        Server::scripted(|request, _| if request.starts_with("GET /end ") { ok("done") } else { redirect(302, "/end") }).await;
    let sight = ask(asking(&server)).await;
    let seen = passed(sight.clone());
    let [first, last] = &seen.hops[..] else { panic!("two hops: {seen:?}") };
    assert_eq!((first.url.as_str(), first.status, first.address.as_str()), (&*server.url("/"), 302, "127.0.0.1"));
    assert_eq!((last.url.as_str(), last.status, last.version.as_str()), (&*server.url("/end"), 200, "1.1"));
    let nanos =
        |duration: &Option<prost_types::Duration>| duration.as_ref().map_or(0, |it| it.seconds * 1_000_000_000 + i64::from(it.nanos));
    for hop in [first, last] {
        let HttpPhases { authenticate, resolve, connect, proxy, tls, send, wait, transfer } = hop.phases.as_ref().unwrap();
        assert_eq!((authenticate, proxy, tls), (&None, &None, &None));
        let sum: i64 = [resolve, connect, send, wait, transfer].map(nanos).iter().sum();
        assert!(wait.is_some() && sum > 0);
        assert_eq!(sum, nanos(&hop.duration));
    }
    assert_eq!(u128::try_from(nanos(&first.duration) + nanos(&last.duration)).unwrap(), sight.duration.as_nanos());
    let refused = report(ask(get(Server::answering(redirect(302, "http://127.0.0.1:1/")).await.url("/"))).await.because(Reason::Refused));
    assert_eq!(refused.hops.iter().map(|hop| hop.status).collect::<Vec<_>>(), [302, 0]);
    assert!(refused.hops[1].phases.as_ref().unwrap().connect.is_some());
}

#[tokio::test]
async fn the_target_never_sees_the_eleventh_of_endless_redirects() {
    let (server, requests) = Server::scripted(|_, number| redirect(302, &format!("/{}", number + 1))).await;
    let sight = ask(asking(&server)).await;
    let seen = report(sight.because(Reason::UnexpectedAnswer));
    assert_eq!((seen.redirect_count, seen.final_url), (10, server.url("/10")));
    assert_eq!(requests.all().len(), 11);
    assert!(requests.all()[10].starts_with("GET /10 "));
}

#[tokio::test]
async fn a_cookie_that_the_next_hop_requires_is_sent() {
    let (server, _) = Server::scripted(|request, _| {
        if request.to_lowercase().contains("cookie: own=1; pass=yes\r\n") {
            ok("welcome")
        } else {
            format!("HTTP/1.1 302 Found\r\nSet-Cookie: pass=yes; HttpOnly\r\nLocation: {}\r\n\r\n", "/in")
        }
    })
    .await;
    let spec = HttpProbe { headers: [("Cookie".into(), "own=1".into())].into(), ..asking(&server) };
    assert_eq!(passed(ask(spec).await).redirect_count, 1);
}

#[tokio::test]
async fn another_host_is_asked_by_its_own_name_and_without_our_secrets() {
    let other = Server::on("127.0.0.2", |mut stream, _| async move {
        let request = read_request(&mut stream).await.to_lowercase();
        let is_right = request.contains("host: 127.0.0.2:") && !request.contains("authorization") && !request.contains("cookie");
        let _ = stream.write_all(if is_right { ok("") } else { "HTTP/1.1 400 Leak\r\n\r\n".to_owned() }.as_bytes()).await;
        finish(stream).await;
    })
    .await;
    let place = other.url("/");
    let (server, requests) = Server::scripted(move |_, _| redirect(302, &place).replace("Location", "Set-Cookie: a=b\r\nLocation")).await;
    let headers = [("Authorization".into(), "Bearer secret".into()), ("Host".into(), "my.example".into())].into();
    passed(ask(HttpProbe { headers, ..asking(&server) }).await);
    assert!(requests.all()[0].contains("authorization: Bearer secret"));
}

#[tokio::test]
async fn redirects_to_places_that_are_no_web_are_not_followed() {
    for place in ["file:///etc/passwd", "gopher://127.0.0.1/", "http://"] {
        let server = Server::answering(redirect(302, place)).await;
        ask(asking(&server)).await.because(Reason::UnexpectedAnswer);
    }
}

#[tokio::test]
async fn post_becomes_get_or_stays_as_the_status_says() {
    for (status, method, body) in [(301, "GET", ""), (302, "GET", ""), (303, "GET", ""), (307, "POST", "hello"), (308, "POST", "hello")] {
        let (server, requests) =
            Server::scripted(move |request, _| if request.contains(" /end ") { ok("") } else { redirect(status, "/end") }).await;
        passed(ask(HttpProbe { method: "POST".into(), body: "hello".into(), ..asking(&server) }).await);
        let last = &requests.all()[1];
        assert!(last.starts_with(&format!("{method} /end ")) && last.ends_with(&format!("\r\n\r\n{body}")), "{status}: {last}");
    }
}

struct Denies(&'static str);

impl Gate for Denies {
    fn permit(&self, destination: Destination) -> Result<(), String> {
        if destination.address.to_string() == self.0 { Err(format!("{} is not allowed here", self.0)) } else { Ok(()) }
    }
}

#[tokio::test]
async fn a_redirect_to_a_forbidden_address_is_not_dialled() {
    let forbidden = Server::on("127.0.0.3", |stream, _| finish(stream)).await;
    let server = Server::answering(redirect(302, &forbidden.url("/latest/meta-data"))).await;
    let sight = run_behind(&probe(Kind::Http(asking(&server))), Arc::new(Denies("127.0.0.3"))).await;
    assert_eq!((sight.outcome, sight.attribution), (Outcome::Undetermined, Attribution::Vantage));
    sight.because(Reason::PolicyDenied);
    assert_eq!(forbidden.connections(), 0);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_too_large_and_is_not_read() {
    let body = "x".repeat(129);
    let limited = |server: &Server, max_body_size_bytes| HttpProbe { max_body_size_bytes, ..asking(server) };
    let known = Server::answering(ok(&body)).await;
    report(ask(limited(&known, 128)).await.because(Reason::TooLarge));
    assert_eq!(passed(ask(limited(&known, 129)).await).body_size_bytes, 129);
    let chunked = Server::answering(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n81\r\n{body}\r\n0\r\n\r\n")).await;
    assert_eq!(report(ask(limited(&chunked, 128)).await.because(Reason::TooLarge)).body_size_bytes, 129);
    assert_eq!(passed(ask(limited(&chunked, 129)).await).body_size_bytes, 129);
    let endless = Server::start(|mut stream, _| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
    })
    .await;
    assert_eq!(report(ask(limited(&endless, 100_000)).await.because(Reason::TooLarge)).body_size_bytes, 100_001);
}

#[tokio::test]
async fn bodies_are_judged_by_text_and_by_pattern() {
    let server = Server::answering(ok("All systems are go.\nErrors: 0\n")).await;
    let one = |text: &str| vec![text.to_owned()];
    let reason = |expect| async { ask(expecting(&server, expect)).await.reason };
    let (passes, fails) = (Reason::Unspecified, Reason::UnexpectedAnswer);
    assert_eq!(reason(HttpExpectations { body_contains: one("are go."), ..Default::default() }).await, passes);
    assert_eq!(reason(HttpExpectations { body_contains: one("are.go"), ..Default::default() }).await, fails);
    assert_eq!(reason(HttpExpectations { body_lacks: one("panic"), ..Default::default() }).await, passes);
    assert_eq!(reason(HttpExpectations { body_lacks: one("Errors"), ..Default::default() }).await, fails);
    assert_eq!(reason(HttpExpectations { body_matches: one(r"(?m)^Errors: \d+$"), ..Default::default() }).await, passes);
    assert_eq!(reason(HttpExpectations { body_matches: one(r"Errors: [1-9]"), ..Default::default() }).await, fails);
    assert_eq!(reason(HttpExpectations { body_mismatches: one(r"Errors: [1-9]"), ..Default::default() }).await, passes);
    assert_eq!(reason(HttpExpectations { body_mismatches: one(r"Errors: \d"), ..Default::default() }).await, fails);
}

#[tokio::test]
async fn headers_are_judged_without_case_and_any_of_the_repeated_ones_counts() {
    let server = Server::answering("HTTP/1.1 200 OK\r\nX-Empty:\r\nX-Many: a\r\nx-many: b\r\nContent-Length: 0\r\n\r\n").await;
    for (name, matches, absent, passes) in [
        ("x-empty", "", false, true),
        ("X-EMPTY", "", true, false),
        ("x-none", "", true, true),
        ("x-none", "", false, false),
        ("X-Many", "^b$", false, true),
        ("X-Many", "^b$", true, false),
        ("X-Many", "^c$", true, true),
    ] {
        let header = HttpHeaderExpectation { name: name.into(), matches: matches.into(), absent };
        let sight = ask(expecting(&server, HttpExpectations { headers: vec![header], ..Default::default() })).await;
        assert_eq!(sight.outcome == Outcome::Passed, passes, "{name} {matches} {absent}: {}", sight.summary);
    }
}

#[tokio::test]
async fn slower_than_the_limit_is_too_slow_and_within_it_passes() {
    let server = Server::answering(ok("")).await;
    let limited = |nanos| HttpExpectations { max_duration: Some(prost_types::Duration { seconds: 0, nanos }), ..Default::default() };
    ask(expecting(&server, limited(1))).await.because(Reason::TooSlow);
    let relaxed = HttpExpectations { max_duration: Some(prost_types::Duration { seconds: 20, nanos: 0 }), ..Default::default() };
    passed(ask(expecting(&server, relaxed)).await);
}

#[tokio::test]
async fn a_target_that_stalls_is_ended_by_the_timeout_in_the_phase_where_it_stalls() {
    let accepts = Server::stalling_after("").await;
    let (sight, seen) = times_out(asking(&accepts)).await;
    assert_eq!((sight.phases.last().unwrap().0, seen.status), (Phase::Wait, 0));
    let half_a_head = Server::stalling_after("HTTP/1.1 200 OK\r\nX-").await;
    assert_eq!(times_out(asking(&half_a_head)).await.0.phases.last().unwrap().0, Phase::Transfer);
    let half_a_body = Server::stalling_after("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").await;
    let (sight, seen) = times_out(asking(&half_a_body)).await;
    assert_eq!((sight.phases.last().unwrap().0, seen.status, seen.body_size_bytes), (Phase::Transfer, 200, 5));
    // It never reads: the request gets stuck when the kernel's buffers are full, so the request has to be larger than they are.
    let deaf = Server::start(|stream, _| async move {
        socket2::SockRef::from(&stream).set_recv_buffer_size(1).unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let (sight, _) = times_out(HttpProbe { method: "POST".into(), body: "x".repeat(1 << 20), ..asking(&deaf) }).await;
    assert!(matches!(sight.phases.last().unwrap().0, Phase::Send | Phase::Wait));
}

#[tokio::test]
async fn a_byte_now_and_then_does_not_outlast_the_timeout() {
    let drips = Server::start(|mut stream, _| async move {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(times_out(asking(&drips)).await.1.status, 200);
}

#[tokio::test]
async fn a_connection_that_ends_too_early_is_a_disconnect() {
    for answer in [
        "",
        "HTTP/1.1 200 OK\r\nConte",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let server = Server::answering(answer).await;
        let sight = ask(asking(&server)).await;
        assert_eq!(sight.attribution, Attribution::Target);
        sight.because(Reason::Disconnected);
    }
    let resets = Server::start(|mut stream, _| async move {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").await.unwrap();
        reset(stream);
    })
    .await;
    let sight = ask(asking(&resets)).await;
    assert!(sight.summary.contains("reset"), "{}", sight.summary);
    sight.because(Reason::Disconnected);
}

#[tokio::test]
async fn what_is_not_http_is_malformed() {
    for answer in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "220 mail.example ESMTP\r\n",
        "\x15\x03\x01\x00\x02\x02\x46",
        "HTTP/1.1 two hundred\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
    ] {
        let server = Server::answering(answer).await;
        let sight = ask(asking(&server)).await;
        assert_eq!(sight.reason, Reason::MalformedAnswer, "{answer:?}: {sight:?}");
    }
    let greets_first = Server::start(|mut stream, _| async move {
        stream.write_all(b"220 mail.example ESMTP\r\n").await.unwrap();
        read_request(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    ask(asking(&greets_first)).await.because(Reason::MalformedAnswer);
}

#[tokio::test]
async fn heads_without_end_cost_bounded_time_and_memory() {
    let forever = |first: &'static str, again: &'static str| {
        Server::start(move |mut stream, _| async move {
            read_request(&mut stream).await;
            let _ = stream.write_all(first.as_bytes()).await;
            let again = again.repeat(64);
            while stream.write_all(again.as_bytes()).await.is_ok() {}
        })
    };
    let headers = forever("HTTP/1.1 200 OK\r\n", "X-More: and more\r\n").await;
    ask(asking(&headers)).await.because(Reason::TooLarge);
    let one_header = forever("HTTP/1.1 200 OK\r\nX-More: ", "and more ").await;
    ask(asking(&one_header)).await.because(Reason::TooLarge);
    let interim = forever("", "HTTP/1.1 100 Continue\r\n\r\n").await;
    ask(asking(&interim)).await.because(Reason::MalformedAnswer);
    let chunk = forever("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", "extension ").await;
    let sight = ask(asking(&chunk)).await;
    assert!(matches!(sight.reason, Reason::MalformedAnswer | Reason::TooLarge), "{sight:?}");
}

#[tokio::test]
async fn an_interim_answer_or_two_are_passed_over() {
    let server =
        Server::answering(format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n{}", ok("done"))).await;
    assert_eq!(passed(ask(asking(&server)).await).body_size_bytes, 4);
}

#[tokio::test]
async fn a_closed_port_is_refused() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let sight = ask(get(format!("127.0.0.1:{port}"))).await;
    assert_eq!(names(&sight), [Phase::Resolve, Phase::Connect]);
    sight.because(Reason::Refused);
}

#[tokio::test]
async fn the_answers_of_older_and_newer_http_are_told_apart() {
    let old = Server::answering("HTTP/1.0 200 OK\r\n\r\nuntil the end").await;
    let seen = passed(ask(asking(&old)).await);
    assert_eq!((seen.version.as_str(), seen.body_size_bytes), ("1.0", 13));
    let two = HttpProbe { version: HttpVersion::HttpVersion2.into(), ..asking(&old) };
    ask(two).await.because(Reason::MalformedAnswer);
}

/// All of this is one thread, and the clock is one: what is noted earlier is earlier.
#[tokio::test]
async fn the_time_that_the_target_takes_is_waiting_and_nothing_else() {
    let heard_and_answered = Arc::new(Mutex::new(Vec::new()));
    let notes = heard_and_answered.clone();
    let server = Server::start(move |mut stream, _| {
        let notes = notes.clone();
        async move {
            read_request(&mut stream).await;
            notes.lock().unwrap().push(stopwatch::now());
            tokio::time::sleep(Duration::from_millis(40)).await;
            notes.lock().unwrap().push(stopwatch::now());
            stream.write_all(ok("hello").as_bytes()).await.unwrap();
            finish(stream).await;
        }
    })
    .await;
    let before = stopwatch::now();
    let sight = ask(asking(&server)).await;
    let after = stopwatch::now();
    let taken = |wanted: Phase| sight.phases.iter().find(|(phase, _)| *phase == wanted).unwrap().1;
    let [heard, answered] = heard_and_answered.lock().unwrap()[..] else { panic!("one request") };
    assert!(taken(Phase::Wait) >= Duration::from_millis(40), "{:?}", sight.phases);
    assert!(before + taken(Phase::Resolve) + taken(Phase::Connect) + taken(Phase::Send) <= heard, "{:?}", sight.phases);
    assert!(after - taken(Phase::Transfer) >= answered, "{:?}", sight.phases);
    passed(sight);
}

#[tokio::test]
async fn a_run_that_timed_out_leaves_no_connection_behind() {
    for version in [HttpVersion::HttpVersion11, HttpVersion::HttpVersion2] {
        let (gone, mut left) = tokio::sync::mpsc::unbounded_channel();
        let server = Server::start(move |mut stream, _| {
            let gone = gone.clone();
            async move {
                let mut heard = Vec::new();
                // Ends when the client leaves, in good order or with a reset.
                let _ = stream.read_to_end(&mut heard).await;
                gone.send(heard.len()).unwrap();
            }
        })
        .await;
        times_out(HttpProbe { version: version.into(), ..asking(&server) }).await;
        assert!(left.recv().await.unwrap() > 0);
    }
}
