//! Each limit of a monitor is told by its name, and by that of its setting.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;
use vantage_contract::v1::{
    Ack, Check, ClientState, ExecuteRequest, HttpExpectations, HttpProbe, Outcome, Probe, ProbeResult, Reason, RunOnce, Start,
    execute_request::Order, probe::Kind,
};
use vantage_monitor::{
    Settings,
    config::{Journal, Limits},
};
use vantage_probes::stopwatch;

use crate::lab::monitor::{Link, Monitor, eventually, settings, silent_port, tcp_check};

async fn with(limits: Limits) -> Monitor {
    Monitor::start_with(Settings { limits, ..settings() }).await
}

/// How the stream ended.
async fn ended(link: &mut Link) -> Status {
    loop {
        match link.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended with OK"),
            Err(status) => return status,
        }
    }
}

#[track_caller]
fn assert_names(status: &Status, setting: &str, limit: &str) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains(setting), "{status}");
    let details = status.get_error_details();
    let info = details.error_info().expect("google.rpc.ErrorInfo");
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("LIMIT_REACHED", "vantage.v1"));
    assert_eq!((info.metadata["setting"].as_str(), info.metadata["limit"].as_str()), (setting, limit));
    assert!(details.quota_failure().is_some_and(|quota| quota.violations[0].description.contains(setting)));
}

#[tokio::test]
async fn too_many_clients_orders_runs_and_bytes_are_refused_by_name() {
    let second = Duration::from_secs(1);
    let monitor = with(Limits { clients: 1, orders_per_client: 2, ..Limits::default() }).await;
    let mut link = monitor.connect("one", &[]).await;
    for name in ["a", "b", "c"] {
        link.start(tcp_check(name, 9, second, 0)).await;
    }
    let Err(status) = monitor.try_connect(crate::lab::monitor::hello("two", &[])).await else { panic!("a second client") };
    assert_names(&status, "limits.clients", "1");
    assert_names(&ended(&mut link).await, "limits.orders_per_client", "2");

    let monitor = with(Limits { runs_per_second: 10, ..Limits::default() }).await;
    let mut link = monitor.connect("fast", &[]).await;
    link.start(tcp_check("a", 9, Duration::from_millis(200), 0)).await;
    link.start(tcp_check("b", 9, Duration::from_millis(200), 0)).await;
    // In the place of one of the same rate there is room.
    link.start(tcp_check("b", 10, Duration::from_millis(200), 0)).await;
    link.start(tcp_check("c", 9, Duration::from_secs(60), 0)).await;
    assert_names(&ended(&mut link).await, "limits.runs_per_second", "10");
    assert_eq!(monitor.clients().await["fast"].order_count, 2);

    let heavy = |name: &str, bytes: usize| Check { labels: [("x".to_owned(), "y".repeat(bytes))].into(), ..tcp_check(name, 9, second, 0) };
    let monitor = with(Limits { order_bytes_per_client: 1 << 20, order_bytes: 3 << 19, ..Limits::default() }).await;
    let mut one = monitor.connect("one", &[]).await;
    one.start(heavy("a", 266_000)).await;
    // What is stopped holds nothing.
    one.order(Order::Stop(vantage_contract::v1::Stop { check_name: "a".into() })).await;
    one.start(heavy("b", 266_000)).await;
    one.start(heavy("c", 266_000)).await;
    assert_names(&ended(&mut one).await, "limits.order_bytes_per_client", "1048576");
    let mut two = monitor.connect("two", &[]).await;
    two.start(heavy("d", 300_000)).await;
    assert_names(&ended(&mut two).await, "limits.order_bytes", "1572864");
}

#[tokio::test]
async fn regular_expressions_weigh_what_they_are_made_into() {
    let monitor = with(Limits { order_bytes_per_client: 1 << 20, ..Limits::default() }).await;
    let mut link = monitor.connect("greedy", &[]).await;
    let body_matches = vec![r"\w{10}".to_owned(); 20];
    let http = HttpProbe {
        url: "http://127.0.0.1/".into(),
        expect: Some(HttpExpectations { body_matches, ..Default::default() }),
        ..Default::default()
    };
    let check = |name: &str| Check {
        name: name.into(),
        probe: Some(Probe { kind: Some(Kind::Http(http.clone())), ..Probe::default() }),
        ..Check::default()
    };
    link.start(check("a")).await;
    assert_names(&ended(&mut link).await, "limits.order_bytes_per_client", "1048576");
    assert_eq!(monitor.clients().await["greedy"].order_count, 0);
}

#[tokio::test]
async fn a_request_that_is_too_long_ends_its_stream_with_the_limit() {
    let monitor = with(Limits { request_bytes: 64 << 10, ..Limits::default() }).await;
    let mut link = monitor.connect("long", &[]).await;
    let check = Check { name: "x".repeat(70_000), ..Check::default() };
    link.order(Order::Start(Start { check: Some(check), ..Start::default() })).await;
    assert_names(&ended(&mut link).await, "limits.request_bytes", "65536");
}

#[tokio::test]
async fn who_takes_no_results_is_refused_new_orders_once_the_accounts_of_the_old_fill_the_journal() {
    refused_for_accounts(Journal { bytes: Some(256 << 10), ..Journal::default() }, "journal.bytes").await;
}

#[tokio::test]
async fn who_fills_the_journal_of_all_with_accounts_is_refused_new_orders_too() {
    refused_for_accounts(Journal { total_bytes: Some(256 << 10), ..Journal::default() }, "journal.total_bytes").await;
}

/// Asks for runs and takes no results, until `setting`, 256 KiB, refuses more.
async fn refused_for_accounts(journal: Journal, setting: &str) {
    let monitor = Monitor::start_with(Settings { journal, ..settings() }).await;
    let once = |number: u64| {
        let check = tcp_check(&format!("once-{number}"), 9, Duration::from_secs(1), 0);
        let check = Check { labels: (0..32).map(|label| (format!("x{label}"), "y".repeat(256))).collect(), ..check };
        ExecuteRequest { order: Some(Order::RunOnce(RunOnce { check: Some(check), ..RunOnce::default() })) }
    };
    let mut link = monitor.connect("deaf", &[]).await;
    let mut asked = 0;
    while monitor.clients().await["deaf"].state() == ClientState::Connected {
        for _ in 0..50 {
            link.send(once(asked)).await;
            asked += 1;
        }
        assert!(asked < 20_000, "it takes them without end");
    }
    assert_names(&ended(&mut link).await, setting, "262144");

    // What ends later would make up for what is acknowledged.
    eventually("the last run to end", async || {
        let queue = &monitor.queues().await["deaf"];
        (queue.in_flight_count, queue.due_count) == (0, 0)
    })
    .await;
    // Each of those that were taken is told of, once.
    let mut link = monitor.connect("deaf", &[]).await;
    let mut told = Vec::new();
    loop {
        let waiting = monitor.queues().await["deaf"].unacknowledged_count;
        if waiting == 0 {
            break;
        }
        told.extend(link.results(waiting.min(500) as usize).await);
        // After a long backlog the session of the stream is another one than theirs.
        let ProbeResult { session, sequence, .. } = told.last().unwrap().clone();
        link.order(Order::Ack(Ack { session, sequence })).await;
        // Until it is obeyed, they wait yet.
        eventually("the acknowledgement", async || monitor.queues().await["deaf"].unacknowledged_count < waiting).await;
    }
    let mut numbers: Vec<u64> = told.iter().map(|result| result.check_name["once-".len()..].parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
    assert!(told.iter().filter(|result| result.reason() == Reason::JournalFull).count() > 20);
    link.send(once(0)).await;
    assert_eq!(link.result().await.reason(), Reason::Refused, "there is room again");
}

#[tokio::test]
async fn what_clients_leave_in_the_journal_has_a_bound_together_and_who_leaves_little_loses_none_of_it() {
    const TOTAL: u64 = 4 << 20;
    let journal = Journal { bytes: Some(64 << 20), total_bytes: Some(TOTAL), ..Journal::default() };
    let monitor = Monitor::start_with(Settings { journal, ..settings() }).await;
    let greedy = ["one", "two"];
    for client in greedy {
        let mut link = monitor.connect(client, &[]).await;
        for number in 0..20 {
            let check = tcp_check(&format!("{client}-{number}"), 9, Duration::from_millis(100), 0);
            // 8 KiB each.
            link.start(Check { labels: (0..32).map(|label| (format!("x{label}"), "y".repeat(256))).collect(), ..check }).await;
        }
        link.result().await;
    }
    let mut link = monitor.connect("modest", &[]).await;
    link.start(tcp_check("modest", 9, Duration::from_millis(200), 0)).await;
    link.result().await;
    drop(link);

    let mut most = 0;
    loop {
        let (clients, queues) = (monitor.clients().await, monitor.queues().await);
        most = most.max(queues.values().map(|queue| queue.journal_bytes).sum());
        if greedy.iter().map(|client| clients[*client].started_run_count * 8192).sum::<u64>() > 4 * TOTAL {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // It is looked after once a second, in which there are 3 MiB more.
    assert!((TOTAL / 2..TOTAL * 3).contains(&most), "{most}");
    eventually("the last second's are trimmed", async || {
        let queues = monitor.queues().await;
        // Each looks at its own moment, and what the modest one has changes.
        greedy.iter().all(|client| (TOTAL / 3..=TOTAL / 2).contains(&queues[*client].journal_limit_bytes))
    })
    .await;

    for (client, loses) in [("one", true), ("modest", false)] {
        let mut link = monitor.connect(client, &[]).await;
        let waiting = monitor.queues().await[client].unacknowledged_count;
        // A few were sent before it left, and are kept.
        let results = link.results(waiting.min(300) as usize).await;
        assert_eq!(results.iter().any(|result| result.reason() == Reason::JournalFull), loses, "{client}");
    }
}

#[tokio::test]
async fn who_asks_too_fast_waits_and_loses_nothing() {
    let (_open, port) = silent_port().await;
    // Of the burst that a restatement may be, nothing is left after a thousand and one.
    let monitor = with(Limits { requests_per_second: 100, orders_per_client: 1, ..Limits::default() }).await;
    let mut link = monitor.connect("fast", &[]).await;
    let begun = stopwatch::now();
    for _ in 0..1030 {
        link.ack(0).await;
    }
    let once = RunOnce { check: Some(tcp_check("once", port, Duration::from_secs(1), 1)), ..RunOnce::default() };
    link.send(ExecuteRequest { order: Some(Order::RunOnce(once)) }).await;
    let result = link.result().await;
    assert_eq!((result.outcome(), result.reason()), (Outcome::Passed, Reason::Unspecified));
    // Thirty of them at a hundred a second.
    assert!(stopwatch::now() - begun >= Duration::from_millis(290));
}
