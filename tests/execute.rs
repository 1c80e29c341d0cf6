//! The laws of Execute, held by a real monitor against a scripted client.

use std::time::Duration;

use tonic::Code;
use tonic_types::StatusExt;
use vantage_contract::v1::{Ack, Check, ClientState, Hello, Outcome, Probe, ProbeResult, Reason, RunOnce, Stop, execute_request::Order};
use vantage_monitor::config::Limits;

use crate::lab::monitor::{Monitor, accounted, eventually, hello, settings, silent_port, stalling_check, tcp_check};

const FAST: Duration = Duration::from_millis(100);
/// For tests in which each run has to happen: one that does not begin within its interval is skipped, and rightly.
const CALM: Duration = Duration::from_millis(600);

/// A stream's results have to continue those before it.
fn assert_continuous(results: &[ProbeResult]) {
    for pair in results.windows(2) {
        assert_eq!(pair[1].sequence - pair[1].sequence_count, pair[0].sequence);
    }
}

#[tokio::test]
async fn an_order_is_run_at_its_interval_and_each_run_gives_one_result() {
    let ((_open, port), monitor) = (silent_port().await, Monitor::start().await);
    let mut link = monitor.connect("desk", &[]).await;
    assert_eq!(link.monitor, "lab", "the response headers say who serves");
    link.start(tcp_check("web", port, CALM, 3)).await;
    let results = link.results(3).await;
    assert_eq!(results.iter().map(|result| (result.run, result.sequence)).collect::<Vec<_>>(), [(0, 1), (1, 2), (2, 3)]);
    for result in &results {
        assert_eq!(
            (result.outcome(), result.kind.as_str(), result.monitor.as_str()),
            (Outcome::Passed, "tcp", "lab"),
            "{}",
            result.summary
        );
        assert_eq!((result.session.as_str(), result.revision.as_str()), (link.session.as_str(), "1"));
    }
    let due = |result: &ProbeResult| std::time::SystemTime::try_from(result.due_time.unwrap()).unwrap();
    assert_eq!(due(&results[2]).duration_since(due(&results[0])).unwrap(), 2 * CALM);
    assert_eq!(monitor.clients().await["desk"].order_count, 0, "it is counted out");
}

#[tokio::test]
async fn the_first_request_must_be_a_hello() {
    let monitor = Monitor::start().await;
    let refused = monitor.try_connect(Order::Ack(Ack::default())).await.err().expect("a refusal");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let details = refused.get_details_bad_request().expect("google.rpc details");
    assert_eq!(details.field_violations[0].field, "order");
    for id in ["", "two words", "ünicode", &"x".repeat(129)] {
        let refused = monitor.try_connect(hello(id, &[])).await.err().expect("a refusal");
        assert_eq!(refused.code(), Code::InvalidArgument, "{id:?}");
    }
    let second = monitor.connect("desk", &[]).await;
    second.order(Order::Hello(Hello { client_id: "desk".into(), ..Hello::default() })).await;
    let mut second = second;
    assert_eq!(second.next().await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn what_is_not_acknowledged_is_sent_again_and_what_is_is_not() {
    let ((_open, port), monitor) = (silent_port().await, Monitor::start().await);
    let mut link = monitor.connect("desk", &[]).await;
    link.start(tcp_check("web", port, FAST, 6)).await;
    let first = link.results(3).await;
    link.ack(2).await;
    eventually("the acknowledgement has come", || async { monitor.clients().await["desk"].acknowledged_sequence == 2 }).await;
    drop(link);
    let mut link = monitor.connect("desk", &[]).await;
    let mut again = vec![link.result().await];
    assert_eq!(again[0], first[2], "the same record, to the letter");
    let run_count = |results: &[ProbeResult]| results.iter().map(|result| result.run_count).sum::<u64>();
    while run_count(&first[..2]) + run_count(&again) < 6 {
        again.push(link.result().await);
    }
    assert_continuous(&again);
    assert_eq!(accounted(&[&first[..2], &again].concat()), [0, 1, 2, 3, 4, 5]);
    let last = again.last().unwrap().sequence;
    // What Hello says counts as an acknowledgement.
    drop(link);
    let session = again[0].session.clone();
    let mut link = monitor.connect("desk", &[(session, last - 1)]).await;
    assert_eq!(link.result().await.sequence, last);
}

#[tokio::test]
async fn orders_outlive_the_stream_and_results_wait() {
    let ((_open, port), monitor) = (silent_port().await, Monitor::start().await);
    let mut link = monitor.connect("desk", &[]).await;
    link.start(tcp_check("web", port, FAST, 0)).await;
    link.result().await;
    drop(link);
    eventually("it is away", || async { monitor.clients().await["desk"].state() == ClientState::Away }).await;
    eventually("results pile up", || async { monitor.queues().await["desk"].unacknowledged_count >= 5 }).await;
    let mut link = monitor.connect("desk", &[]).await;
    let results = link.results(5).await;
    assert_continuous(&results);
    assert_eq!(results[0].sequence, 1, "from the first on");
    accounted(&results);
}

#[tokio::test]
async fn restating_an_identical_order_neither_restarts_nor_doubles_it() {
    let ((_open, port), monitor) = (silent_port().await, Monitor::start().await);
    let check = tcp_check("web", port, FAST, 0);
    let mut link = monitor.connect("desk", &[]).await;
    link.start(check.clone()).await;
    let mut results = link.results(2).await;
    drop(link);
    let mut link = monitor.connect("desk", &[(results[0].session.clone(), 2)]).await;
    link.start(check).await;
    link.commit().await;
    results.extend(link.results(3).await);
    assert_continuous(&results);
    // Started again or twice, run 0 would come again.
    accounted(&results);
}

#[tokio::test]
async fn orders_not_restated_stop_at_commit() {
    let ((_open, port), monitor) = (silent_port().await, Monitor::start().await);
    let link = monitor.connect("desk", &[]).await;
    link.start(tcp_check("a", port, Duration::from_secs(60), 0)).await;
    link.start(tcp_check("b", port, Duration::from_secs(60), 0)).await;
    eventually("both stand", || async { monitor.clients().await["desk"].order_count == 2 }).await;
    drop(link);
    let link = monitor.connect("desk", &[]).await;
    link.start(tcp_check("b", port, Duration::from_secs(60), 0)).await;
    link.commit().await;
    eventually("one stands", || async { monitor.clients().await["desk"].order_count == 1 }).await;
    link.order(Order::Stop(Stop { check_name: "b".into() })).await;
    link.order(Order::Stop(Stop { check_name: "never there".into() })).await;
    eventually("none stands", || async { monitor.clients().await["desk"].order_count == 0 }).await;
}

#[tokio::test]
async fn a_probe_is_run_once_unless_it_has_expired() {
    let ((_open, port), monitor) = (silent_port().await, Monitor::start().await);
    let mut link = monitor.connect("desk", &[]).await;
    let check = tcp_check("once", port, FAST, 0);
    link.order(Order::RunOnce(RunOnce { check: Some(check.clone()), revision: "now".into(), expire_time: None })).await;
    let result = link.result().await;
    assert_eq!((result.outcome(), result.revision.as_str(), result.run_count), (Outcome::Passed, "now", 1));
    let past = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
    link.order(Order::RunOnce(RunOnce { check: Some(check), revision: "late".into(), expire_time: past })).await;
    let result = link.result().await;
    assert_eq!((result.outcome(), result.reason()), (Outcome::Skipped, Reason::Expired));
    link.half_close();
    assert_eq!(link.next().await.unwrap(), None, "the stream ends with OK");
}

#[tokio::test]
async fn an_order_that_cant_be_run_is_answered_and_disturbs_nothing() {
    let ((_open, port), monitor) = (silent_port().await, Monitor::start().await);
    let mut link = monitor.connect("desk", &[]).await;
    link.start(Check { probe: Some(Probe::default()), ..tcp_check("wrong", port, CALM, 1) }).await;
    link.start(tcp_check("right", port, CALM, 1)).await;
    let mut results = link.results(2).await;
    results.sort_by_key(|result| result.check_name.clone());
    assert_eq!(results[0].outcome(), Outcome::Passed);
    assert_eq!((results[1].outcome(), results[1].reason()), (Outcome::Undetermined, Reason::InvalidCheck));
    assert!(results[1].summary.contains("kind"), "{}", results[1].summary);
}

#[tokio::test]
async fn a_second_stream_of_a_client_replaces_the_first() {
    let monitor = Monitor::start().await;
    let mut first = monitor.connect("desk", &[]).await;
    let second = monitor.connect("desk", &[]).await;
    let ended = first.next().await.unwrap_err();
    assert_eq!(ended.code(), Code::Aborted);
    assert_eq!(first.session, second.session);
    assert_eq!(monitor.clients().await.len(), 1);
    assert_eq!(monitor.clients().await["desk"].state(), ClientState::Connected);
}

#[tokio::test]
async fn two_clients_do_not_see_each_others_orders() {
    let ((_open, port), monitor) = (silent_port().await, Monitor::start().await);
    let (mut a, mut b) = (monitor.connect("a", &[]).await, monitor.connect("b", &[]).await);
    a.start(tcp_check("same name", port, FAST, 0)).await;
    b.start(tcp_check("same name", port, FAST, 0)).await;
    for link in [&mut a, &mut b] {
        let results = link.results(2).await;
        assert!(results.iter().all(|result| result.session == link.session));
    }
    assert_ne!(a.session, b.session);
    assert_eq!(monitor.clients().await.keys().collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test]
async fn a_stopping_monitor_delivers_what_is_in_flight_and_ends_with_ok() {
    let ((_open, port), monitor) = (silent_port().await, Monitor::start().await);
    let mut link = monitor.connect("desk", &[]).await;
    link.start(stalling_check("slow", port, FAST, Duration::from_millis(600))).await;
    eventually("it is in flight", || async { monitor.queues().await["desk"].in_flight_count == 1 }).await;
    monitor.drain.cancel();
    let mut results = Vec::new();
    while let Some(result) = link.next().await.unwrap() {
        link.ack(result.sequence).await;
        results.push(result);
    }
    let ran: Vec<_> = results.iter().filter(|result| result.outcome() == Outcome::Failed).collect();
    assert!(!ran.is_empty() && ran.iter().all(|result| result.reason() == Reason::TimedOut), "{results:?}");
    monitor.serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_run_longer_than_its_interval_makes_the_next_ones_skipped_and_not_failed() {
    let ((_open, port), monitor) = (silent_port().await, Monitor::start().await);
    let mut link = monitor.connect("desk", &[]).await;
    link.start(stalling_check("slow", port, FAST, Duration::from_millis(350))).await;
    let mut results = Vec::new();
    let with = |results: &[ProbeResult], reason| results.iter().filter(|result| result.reason() == reason).count();
    while with(&results, Reason::StillRunning) < 3 || with(&results, Reason::TimedOut) < 2 {
        results.push(link.result().await);
    }
    accounted(&results);
    // A machine that has no time for a run within its interval skips it as well.
    let others = with(&results, Reason::Overloaded);
    assert_eq!(results.len(), with(&results, Reason::StillRunning) + with(&results, Reason::TimedOut) + others, "{results:?}");
    let skipped = &monitor.queues().await["desk"].skipped;
    assert!(skipped.iter().any(|skipped| skipped.reason() == Reason::StillRunning), "{skipped:?}");
}

#[tokio::test]
async fn more_work_than_allowed_is_overloaded_and_never_a_false_failure() {
    let limits = Limits { in_flight: 2, ..Limits::default() };
    let ((_open, port), monitor) = (silent_port().await, Monitor::start_with(vantage_monitor::Settings { limits, ..settings() }).await);
    let mut link = monitor.connect("desk", &[]).await;
    for number in 0..6 {
        link.start(stalling_check(&format!("slow-{number}"), port, FAST * 2, Duration::from_secs(1))).await;
    }
    let mut overloaded = 0;
    while overloaded < 4 {
        let result = link.result().await;
        match result.reason() {
            Reason::Overloaded => overloaded += 1,
            Reason::StillRunning | Reason::TimedOut => {}
            reason => panic!("{reason:?}: {}", result.summary),
        }
        let queue = &monitor.queues().await["desk"];
        assert!(queue.in_flight_count <= 2);
    }
}

#[tokio::test]
async fn limits_of_clients_and_orders_are_named() {
    let limits = Limits { clients: 1, orders_per_client: 1, ..Limits::default() };
    let monitor = Monitor::start_with(vantage_monitor::Settings { limits, ..settings() }).await;
    let mut link = monitor.connect("a", &[]).await;
    let refused = monitor.try_connect(hello("b", &[])).await.err().expect("a refusal");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.get_details_quota_failure().is_some() && refused.message().contains("limits.clients"), "{refused}");
    link.start(tcp_check("one", 9, FAST * 600, 0)).await;
    link.start(tcp_check("two", 9, FAST * 600, 0)).await;
    let refused = link.next().await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("limits.orders_per_client"), "{refused}");
}

#[tokio::test]
async fn those_who_came_once_make_room_for_others() {
    let limits = Limits { clients: 1, ..Limits::default() };
    let monitor = Monitor::start_with(vantage_monitor::Settings { limits, ..settings() }).await;
    let mut once = monitor.connect("once", &[]).await;
    once.order(Order::RunOnce(RunOnce { check: Some(tcp_check("web", 9, FAST, 0)), ..RunOnce::default() })).await;
    once.result().await;
    drop(once);
    eventually("its place is free", || async { monitor.try_connect(hello("next", &[])).await.is_ok() }).await;
    assert_eq!(monitor.clients().await.keys().collect::<Vec<_>>(), ["next"]);
}
