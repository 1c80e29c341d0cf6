//! What the ledger knows, on the wire.

use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;
use vantage_contract::v1::Commit;

use super::*;
use crate::script::{Call, script_with};

/// Half done: so many runs have a record, and run 0 was due long ago.
fn standing(accounted_count: u64) -> Standing {
    let anchor = SystemTime::UNIX_EPOCH + Duration::new(1_795_335_545, 5);
    Standing { anchor: Some(anchor), next_run: Some(accounted_count), accounted_count }
}

fn counted(name: &str, count: u64) -> Orders {
    [(name.to_owned(), plan::order(&Check { name: name.into(), count, ..Check::default() }))].into()
}

fn stored(session: &str, sequence: u64) -> StoredSession {
    StoredSession { session: session.into(), sequence }
}

/// All that is said before and with Commit, without Hello.
async fn said(call: &mut Call) -> Vec<Order> {
    assert!(matches!(call.next().await, Some(Order::Hello(_))));
    let mut said = Vec::new();
    loop {
        match call.next().await.expect("the stream is open") {
            Order::Commit(Commit {}) => return said,
            order => said.push(order),
        }
    }
}

fn name(order: &Option<Order>) -> &str {
    match order {
        Some(Order::Start(start)) => &start.check.as_ref().unwrap().name,
        other => panic!("{other:?} in place of Start"),
    }
}

#[tokio::test]
async fn what_is_known_of_an_order_is_restated_with_it() {
    let (address, mut calls) = script().await;
    let desk = Desk::new(1000);
    desk.stands("b", standing(7));
    let setting = start_with(address, orders(&["a", "b"]), settings(), desk);
    let said = said(&mut soon("a call", calls.recv()).await.unwrap()).await;
    let anchor = prost_types::Timestamp { seconds: 1_795_335_545, nanos: 5 };
    let plain = orders(&["a", "b"]);
    let known = vantage_contract::v1::Start { anchor: Some(anchor), resume_run: Some(7), ..plain["b"].clone() };
    assert_eq!(said, [Order::Start(plain["a"].clone()), Order::Start(known)]);
    assert_eq!(setting.desk.seen.borrow().entered, [["a", "b"]]);
}

#[tokio::test]
async fn an_order_whose_runs_are_all_accounted_for_is_not_placed_again() {
    let (address, mut calls) = script().await;
    let desk = Desk::new(1000);
    desk.stands("a", standing(4));
    let all = counted("a", 4).into_iter().chain(counted("b", 4)).collect();
    let setting = start_with(address, all, settings(), desk);
    let mut first = soon("a call", calls.recv()).await.unwrap();
    assert_eq!(first.restatement().await.1.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(setting.desk.seen.borrow().entered, [["a", "b"]], "the ledger is asked about both");
    setting.desk.stands("b", standing(3));
    first.fail(Status::unknown("cut")).await;
    let mut second = soon("a second call", calls.recv()).await.unwrap();
    assert!(matches!(&said(&mut second).await[..], [Order::Start(start)] if start.resume_run == Some(3)));
}

#[tokio::test]
async fn nothing_is_restated_without_the_ledger() {
    let (address, mut calls) = script().await;
    let desk = Desk::new(1000);
    desk.broken.store(true, Ordering::SeqCst);
    let setting = start_with(address, orders(&["a"]), settings(), desk);
    let mut call = soon("a call", calls.recv()).await.unwrap();
    assert!(matches!(call.next().await, Some(Order::Hello(_))));
    setting.desk.until("two refusals", |seen| seen.refused >= 2).await;
    let early = tokio::time::timeout(Duration::from_millis(50), call.requests.message()).await;
    assert!(early.is_err(), "{early:?} though the ledger failed");
    assert!(setting.readiness.complaints()[0].contains("disk full"), "{:?}", setting.readiness.complaints());
    // What counts is what is wanted when the ledger is there again.
    setting.link.order(orders(&["b"]));
    setting.desk.broken.store(false, Ordering::SeqCst);
    assert_eq!(name(&call.next().await), "b");
    assert!(setting.readiness.complaints().is_empty());
}

#[tokio::test]
async fn a_link_that_waits_for_the_ledger_can_be_told_to_end() {
    let (address, mut calls) = script().await;
    let Setting { link, desk, .. } = start(address, &["a"]);
    desk.broken.store(true, Ordering::SeqCst);
    let _call = soon("a call", calls.recv()).await.unwrap();
    link.drain();
    soon("the end of the link", link.ended()).await;
}

#[tokio::test]
async fn a_changed_file_touches_only_what_changed_and_the_ledger_knows_first() {
    let (address, mut calls) = script().await;
    let setting = start(address, &["a", "b"]);
    let mut call = soon("a call", calls.recv()).await.unwrap();
    call.restatement().await;
    // An anchor that became known meanwhile does not make another order of it.
    setting.desk.stands("b", standing(7));
    setting.desk.broken.store(true, Ordering::SeqCst);
    setting.link.order(orders(&["b", "c"]));
    setting.desk.until("two refusals", |seen| seen.refused >= 2).await;
    let early = tokio::time::timeout(Duration::from_millis(50), call.requests.message()).await;
    assert!(early.is_err(), "{early:?} though the ledger failed");
    setting.desk.broken.store(false, Ordering::SeqCst);
    assert_eq!(call.next().await, Some(Order::Stop(Stop { check_name: "a".into() })));
    assert_eq!(name(&call.next().await), "c");
    assert_eq!(setting.desk.seen.borrow().entered, [vec!["a", "b"], vec!["-a", "c"]]);
    // And no more than that, nor a Commit.
    call.send(result(1)).await;
    assert_eq!(call.next().await, Some(Order::Ack(Ack { session: "s1".into(), sequence: 1 })));
}

#[tokio::test]
async fn a_check_that_changes_is_one_start_on_the_wire() {
    let (address, mut calls) = script().await;
    let setting = start(address, &["a", "b", "c"]);
    let mut call = soon("a call", calls.recv()).await.unwrap();
    call.restatement().await;
    let mut changed = orders(&["a", "b", "c"]);
    changed.append(&mut counted("b", 9));
    setting.link.order(changed.clone());
    assert_eq!(call.next().await, Some(Order::Start(changed["b"].clone())));
    call.send(result(1)).await;
    call.acknowledged(1).await;
}

#[tokio::test]
async fn what_was_stored_by_an_earlier_process_is_acknowledged_once_the_monitor_has_said_its_name() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut calls = script_with(listener, "s0=9 junk s-unknown=3");
    let desk = Desk::new(1000);
    *desk.before.lock().unwrap() = vec![stored("ended", 5), stored("s0", 7), stored("s1", 2)];
    let setting = start_with(address, orders(&["a"]), settings(), desk);
    let mut first = soon("a call", calls.recv()).await.unwrap();
    let ack = |session: &str, sequence| Order::Ack(Ack { session: session.into(), sequence });
    assert_eq!(said(&mut first).await[..2], [ack("s0", 7), ack("s1", 2)]);
    assert_eq!(setting.desk.seen.borrow().closed, [stored("s0", 9), stored("s-unknown", 3)]);
    first.fail(Status::unknown("cut")).await;
    // From now on Hello says it.
    let mut second = soon("a second call", calls.recv()).await.unwrap();
    let (hello, stated) = second.restatement().await;
    assert_eq!((hello.stored_sessions.len(), stated.len()), (3, 1));
}

#[tokio::test]
async fn two_monitors_of_one_name_are_told_and_the_second_is_given_nothing() {
    let (address, mut calls) = script().await;
    let desk = Desk::new(1000);
    *desk.namesake.lock().unwrap() = Some("both call themselves \"lab\": give each its own --name".into());
    let setting = start_with(address, orders(&["a"]), settings(), desk);
    let mut call = soon("a call", calls.recv()).await.unwrap();
    assert!(matches!(call.next().await, Some(Order::Hello(_))));
    setting.desk.until_state("the word of it", |state| matches!(state, State::Refused(why) if why.contains("--name"))).await;
    assert!(setting.readiness.complaints()[0].contains("both call themselves"));
    assert_eq!(setting.desk.seen.borrow().entered, Vec::<Vec<String>>::new());
    *setting.desk.namesake.lock().unwrap() = None;
    setting.link.order(orders(&["a"]));
    soon("a call after a reload", calls.recv()).await.unwrap().restatement().await;
}
