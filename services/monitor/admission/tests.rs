use std::time::Duration;

use vantage_contract::v1::{Check, Probe, TcpProbe, probe::Kind};

use super::*;
use crate::schedule::Now;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// An order for TCP, with the default timeout of 5 s.
fn order() -> Arc<Facts> {
    let tcp = TcpProbe { host: "127.0.0.1".into(), port: 80, ..TcpProbe::default() };
    let probe = Some(Probe { kind: Some(Kind::Tcp(tcp)), ..Probe::default() });
    Arc::new(Facts::new(&Check { name: "web".into(), probe, ..Check::default() }, "", ""))
}

/// A run of an order that is due now.
fn run(order: &Arc<Facts>, patience: Duration) -> Ticket {
    let now = Now::read();
    Ticket {
        order: 1,
        facts: Arc::clone(order),
        run: 0,
        due: now.monotonic,
        due_wall: now.wall,
        give_up: now.monotonic + patience,
        too_late: Reason::Overloaded,
    }
}

fn ticket(patience: Duration) -> Ticket {
    run(&order(), patience)
}

fn admission(in_flight: usize, max_waiting: usize) -> Admission {
    Admission::new(Limits { in_flight, max_waiting, ..Limits::default() })
}

/// One who waits for a minute, from when this returns.
async fn waiting(admission: &Admission, ticket: Ticket, drain: &CancellationToken) -> tokio::task::JoinHandle<Result<Place, Reason>> {
    let before = admission.waiting();
    let (entering, drain) = (admission.clone(), drain.clone());
    let waiting = tokio::spawn(async move { entering.enter(&ticket, &drain).await });
    while admission.waiting() == before {
        tokio::task::yield_now().await;
    }
    waiting
}

#[tokio::test(start_paused = true)]
async fn a_run_that_finds_no_place_in_time_is_overloaded() {
    let (admission, drain) = (admission(1, 10), CancellationToken::new());
    let held = admission.enter(&ticket(Duration::ZERO), &drain).await.unwrap();
    assert_eq!(admission.in_flight(), 1);
    assert_eq!(admission.enter(&ticket(SECOND), &drain).await.unwrap_err(), Reason::Overloaded);
    assert_eq!(admission.waiting(), 0);
    drop(held);
    assert!(admission.enter(&ticket(Duration::ZERO), &drain).await.is_ok());
    assert_eq!(admission.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_bounded_and_come_in() {
    let (admission, drain) = (admission(1, 1), CancellationToken::new());
    let held = admission.enter(&ticket(Duration::ZERO), &drain).await.unwrap();
    let waiting = waiting(&admission, ticket(MINUTE), &drain).await;
    assert_eq!(admission.enter(&ticket(MINUTE), &drain).await.unwrap_err(), Reason::Overloaded);
    drop(held);
    assert!(waiting.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_stopping_monitor_lets_nobody_in() {
    let (admission, drain) = (admission(1, 10), CancellationToken::new());
    let _held = admission.enter(&ticket(Duration::ZERO), &drain).await.unwrap();
    let waiting = waiting(&admission, ticket(MINUTE), &drain).await;
    drain.cancel();
    assert_eq!(waiting.await.unwrap().unwrap_err(), Reason::Draining);
    assert_eq!(admission.enter(&ticket(MINUTE), &drain).await.unwrap_err(), Reason::Draining);
}

#[tokio::test(start_paused = true)]
async fn who_is_cancelled_while_it_waits_or_just_as_it_comes_in_leaks_no_place() {
    let (admission, drain) = (admission(1, 10), CancellationToken::new());
    let held = admission.enter(&ticket(Duration::ZERO), &drain).await.unwrap();
    let (first, second) = (ticket(MINUTE), ticket(MINUTE));
    let first = waiting(&admission, first, &drain).await;
    let second = waiting(&admission, second, &drain).await;
    first.abort();
    assert!(first.await.is_err());
    assert_eq!(admission.waiting(), 1);
    // The seat is on its way to the second one, which never comes to take it.
    drop(held);
    assert_eq!((admission.waiting(), admission.in_flight()), (0, 1));
    second.abort();
    assert!(second.await.is_err());
    assert_eq!(admission.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_order_whose_runs_take_long_is_slow_from_then_on() {
    let (admission, drain, order) = (admission(16, 0), CancellationToken::new(), order());
    assert_eq!(order.habit.pace(), Pace::Unproven);
    drop(admission.enter(&run(&order, SECOND), &drain).await.unwrap());
    assert_eq!(order.habit.pace(), Pace::Prompt);
    for pace in [Pace::Unproven, Pace::Slow] {
        let held = admission.enter(&run(&order, SECOND), &drain).await.unwrap();
        tokio::time::advance(5 * SECOND).await;
        drop(held);
        assert_eq!(order.habit.pace(), pace);
    }
}

/// Forty orders that never get an answer, and eight places. However long that lasts, each of them gets its turn, one that comes new gets
/// in as soon as all have shown what they are, and one that is prompt never waits.
#[tokio::test(start_paused = true)]
async fn black_holes_take_turns_and_displace_nobody() {
    let (admission, drain) = (admission(8, 1000), CancellationToken::new());
    let flood: Vec<_> = (0..40)
        .map(|_| {
            let (admission, drain, order) = (admission.clone(), drain.clone(), order());
            tokio::spawn(async move {
                let mut served = 0_u32;
                while !drain.is_cancelled() {
                    if let Ok(_place) = admission.enter(&run(&order, SECOND), &drain).await {
                        tokio::time::sleep(5 * SECOND).await;
                        served += 1;
                    }
                }
                served
            })
        })
        .collect();
    let prompt = order();
    prompt.habit.held(Duration::from_millis(1), SECOND);
    for _ in 0..300 {
        tokio::time::sleep(SECOND).await;
        assert!(admission.enter(&run(&prompt, Duration::ZERO), &drain).await.is_ok(), "{:?}", admission.load());
    }
    assert!(admission.enter(&ticket(Duration::ZERO), &drain).await.is_ok(), "a new order: {:?}", admission.load());
    drain.cancel();
    for served in futures_util::future::join_all(flood).await {
        assert!((4..=10).contains(&served.unwrap()), "each gets its share");
    }
    assert_eq!((admission.in_flight(), admission.waiting()), (0, 0));
}

/// On real threads: who comes in, gives up or is aborted just as it is let in leaves nothing behind, and nobody is forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_race_leaks_a_place_or_forgets_one_who_waits() {
    let (admission, drain) = (admission(6, 500), CancellationToken::new());
    let tasks: Vec<_> = (0..400_u64)
        .map(|number| {
            let (admission, drain, order) = (admission.clone(), drain.clone(), order());
            tokio::spawn(async move {
                for round in 0..50 {
                    // Some are in a hurry, and give up about when their turn comes.
                    let patience = if (number + round) % 3 == 0 { Duration::from_micros(200 * (round % 8)) } else { MINUTE };
                    let place = admission.enter(&run(&order, patience), &drain).await;
                    tokio::task::yield_now().await;
                    drop(place);
                }
            })
        })
        .collect();
    for task in tasks.iter().step_by(7) {
        tokio::task::yield_now().await;
        task.abort();
    }
    let ended = tokio::time::timeout(MINUTE, futures_util::future::join_all(tasks)).await.expect("all have their turn");
    assert!(ended.into_iter().all(|ended| ended.is_ok() || ended.is_err_and(|error| error.is_cancelled())));
    assert_eq!((admission.in_flight(), admission.waiting()), (0, 0));
}
