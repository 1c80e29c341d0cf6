//! Links against a scripted monitor.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tonic_types::{ErrorDetails, StatusExt as _};
use vantage_contract::v1::{Ack, Check, Stop, execute_request::Order};

use super::*;
use crate::{
    plan,
    script::{script, script_on, soon},
};

mod ledger;

/// An intake that remembers, and that can be held or broken.
struct Desk {
    seen: watch::Sender<Seen>,
    /// How many batches may be stored; more wait.
    permits: tokio::sync::Semaphore,
    broken: AtomicBool,
    /// How orders stand, by check; those that are not here are new.
    ledger: Mutex<HashMap<String, Standing>>,
    /// Sessions that were stored before this process came.
    before: Mutex<Vec<StoredSession>>,
    /// Who has the monitor's name, if not this link.
    namesake: Mutex<Option<String>>,
}

#[derive(Default)]
struct Seen {
    batches: Vec<Vec<ProbeResult>>,
    refused: usize,
    /// What was entered in the ledger: names of checks, and of stopped ones after a minus.
    entered: Vec<Vec<String>>,
    closed: Vec<StoredSession>,
    states: Vec<State>,
}

impl Desk {
    fn new(permits: usize) -> Arc<Self> {
        Arc::new(Self {
            seen: watch::Sender::new(Seen::default()),
            permits: tokio::sync::Semaphore::new(permits),
            broken: AtomicBool::new(false),
            ledger: Mutex::default(),
            before: Mutex::default(),
            namesake: Mutex::default(),
        })
    }

    async fn until(&self, what: &str, condition: impl FnMut(&Seen) -> bool) {
        soon(what, async { self.seen.subscribe().wait_for(condition).await.map(drop) }).await.unwrap();
    }

    async fn until_state(&self, what: &str, mut condition: impl FnMut(&State) -> bool) {
        self.until(what, |seen| seen.states.last().is_some_and(&mut condition)).await;
    }

    fn stands(&self, check: &str, standing: Standing) {
        self.ledger.lock().unwrap().insert(check.into(), standing);
    }

    fn enter(&self, names: Vec<String>, stops: &[String]) -> Result<Vec<Standing>, String> {
        if self.broken.load(Ordering::SeqCst) {
            self.seen.send_modify(|seen| seen.refused += 1);
            return Err("disk full".into());
        }
        let ledger = self.ledger.lock().unwrap();
        let standings = names.iter().map(|name| ledger.get(name).cloned().unwrap_or_default()).collect();
        let entered = stops.iter().map(|name| format!("-{name}")).chain(names).collect();
        self.seen.send_modify(|seen| seen.entered.push(entered));
        Ok(standings)
    }

    fn stored(&self) -> u64 {
        self.seen.borrow().batches.iter().flatten().map(|result| result.sequence).max().unwrap_or(0)
    }
}

impl Intake for Desk {
    async fn stored_sessions(&self, monitor: &str) -> Vec<StoredSession> {
        assert_eq!(monitor, "lab");
        let mut sessions = self.before.lock().unwrap().clone();
        if self.stored() > 0 {
            sessions.push(StoredSession { session: "s1".into(), sequence: self.stored() });
        }
        sessions
    }

    fn admit(&self, link: &str, monitor: &str) -> Result<(), String> {
        assert_eq!((link, monitor), ("m", "lab"));
        self.namesake.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    async fn restate(&self, _: &str, monitor: &str, closed: &[StoredSession], orders: &Orders) -> Result<Vec<Standing>, String> {
        assert_eq!(monitor, "lab");
        self.seen.send_modify(|seen| seen.closed = closed.to_vec());
        self.enter(orders.keys().cloned().collect(), &[])
    }

    async fn change(&self, _: &str, monitor: &str, changes: &Changes) -> Result<Vec<Standing>, String> {
        assert_eq!(monitor, "lab");
        self.enter(changes.starts.iter().map(|start| start.check.as_ref().unwrap().name.clone()).collect(), &changes.stops)
    }

    async fn take(&self, link: &str, results: &[ProbeResult]) -> Result<(), String> {
        assert_eq!(link, "m");
        self.permits.acquire().await.unwrap().forget();
        if self.broken.load(Ordering::SeqCst) {
            self.permits.add_permits(1);
            self.seen.send_modify(|seen| seen.refused += 1);
            return Err("disk full".into());
        }
        self.seen.send_modify(|seen| seen.batches.push(results.to_vec()));
        Ok(())
    }

    fn note(&self, link: &str, state: &State) {
        assert_eq!(link, "m");
        self.seen.send_modify(|seen| seen.states.push(state.clone()));
    }
}

fn orders(names: &[&str]) -> Orders {
    names.iter().map(|name| ((*name).to_owned(), plan::order(&Check { name: (*name).into(), ..Check::default() }))).collect()
}

fn result(sequence: u64) -> ProbeResult {
    ProbeResult { check_name: "a".into(), session: "s1".into(), sequence, sequence_count: 1, run_count: 1, ..ProbeResult::default() }
}

fn settings() -> Settings {
    Settings { first_delay: Duration::from_millis(5), most_delay: Duration::from_millis(20), ..Settings::new("client", "tests") }
}

/// A link under test, with what it was given.
struct Setting {
    link: Link,
    desk: Arc<Desk>,
    readiness: Readiness,
}

fn start_with(address: SocketAddr, orders: Orders, settings: Settings, desk: Arc<Desk>) -> Setting {
    let readiness = Readiness::default();
    let address = MonitorAddress { name: "m".into(), address: address.to_string(), ..MonitorAddress::default() };
    let link = Link::start(address, orders, Arc::new(settings), Arc::clone(&desk), readiness.clone(), None);
    Setting { link, desk, readiness }
}

fn start(address: SocketAddr, names: &[&str]) -> Setting {
    start_with(address, orders(names), settings(), Desk::new(1000))
}

#[tokio::test]
async fn a_link_says_hello_states_its_orders_and_closes_the_statement() {
    let (address, mut calls) = script().await;
    let setting = start(address, &["a", "b"]);
    let mut call = soon("a call", calls.recv()).await.unwrap();
    let (hello, stated) = call.restatement().await;
    assert_eq!((hello.client_id.as_str(), hello.client_name.as_str()), ("client", "tests"));
    assert_eq!(hello.stored_sessions, []);
    let expected: Vec<_> = orders(&["a", "b"]).into_iter().map(|(name, start)| (name, start.revision)).collect();
    assert_eq!(stated, expected);
    let connected = State::Connected { monitor: "lab".into(), session: "s1".into() };
    setting.desk.until_state("the connection", |state| *state == connected).await;
    assert!(setting.readiness.complaints().is_empty());
}

#[tokio::test]
async fn results_are_acknowledged_after_they_are_stored_and_not_before() {
    let (address, mut calls) = script().await;
    let setting = start_with(address, orders(&["a"]), settings(), Desk::new(0));
    let mut call = soon("a call", calls.recv()).await.unwrap();
    call.restatement().await;
    call.send(result(1)).await;
    let early = tokio::time::timeout(Duration::from_millis(50), call.requests.message()).await;
    assert!(early.is_err(), "{early:?} before anything was stored");
    setting.desk.permits.add_permits(1);
    call.acknowledged(1).await;
    assert_eq!(setting.desk.stored(), 1);
}

#[tokio::test]
async fn a_store_that_fails_is_tried_again_with_the_same_results() {
    let (address, mut calls) = script().await;
    let setting = start(address, &["a"]);
    let mut call = soon("a call", calls.recv()).await.unwrap();
    call.restatement().await;
    setting.desk.broken.store(true, Ordering::SeqCst);
    call.send(result(1)).await;
    setting.desk.until("two refusals", |seen| seen.refused >= 2).await;
    assert_eq!(setting.desk.stored(), 0);
    setting.desk.broken.store(false, Ordering::SeqCst);
    call.acknowledged(1).await;
    assert_eq!(setting.desk.stored(), 1);
}

#[tokio::test]
async fn what_came_while_the_store_was_busy_is_stored_together() {
    let (address, mut calls) = script().await;
    let setting = start_with(address, orders(&["a"]), settings(), Desk::new(0));
    let mut call = soon("a call", calls.recv()).await.unwrap();
    call.restatement().await;
    // That many small frames that nobody reads end the connection if its window is left as it comes.
    for sequence in 1..=3000 {
        call.send(result(sequence)).await;
    }
    setting.desk.permits.add_permits(3000);
    call.acknowledged(3000).await;
    let seen = setting.desk.seen.borrow();
    assert!(seen.batches.len() < 300, "{} batches", seen.batches.len());
    assert!(seen.batches.iter().all(|batch| batch.len() <= 1024));
    assert!(seen.batches.iter().flatten().map(|result| result.sequence).eq(1..=3000));
}

#[tokio::test]
async fn a_busy_store_holds_the_monitor_back_and_memory_stays_bounded() {
    const SIZE: usize = 64 * 1024;
    let (address, mut calls) = script().await;
    let setting = start_with(address, orders(&["a"]), settings(), Desk::new(0));
    let mut call = soon("a call", calls.recv()).await.unwrap();
    call.restatement().await;
    let (mut sent, large) = (0, |sequence| ProbeResult { summary: "x".repeat(SIZE), ..result(sequence) });
    // A slow machine ends this earlier, never later.
    while tokio::time::timeout(Duration::from_millis(300), call.send(large(sent + 1))).await.is_ok() {
        sent += 1;
        let on_the_way = sent as usize * SIZE;
        assert!(on_the_way < 8 << 20, "{on_the_way} bytes: a batch, a window and what the transport holds are less");
    }
    setting.desk.permits.add_permits(1000);
    call.acknowledged(sent).await;
}

#[tokio::test]
async fn after_a_lost_connection_the_same_orders_are_stated_and_hello_says_what_is_stored() {
    let (address, mut calls) = script().await;
    let setting = start(address, &["a", "b"]);
    let mut first = soon("a call", calls.recv()).await.unwrap();
    let (_, before) = first.restatement().await;
    first.send(result(1)).await;
    first.acknowledged(1).await;
    first.fail(Status::unknown("h2 protocol error")).await;
    setting.desk.until("the cut", |seen| seen.states.contains(&State::Down("the connection was lost: h2 protocol error".into()))).await;
    let mut second = soon("a second call", calls.recv()).await.unwrap();
    let (hello, after) = second.restatement().await;
    assert_eq!(after, before);
    assert_eq!(hello.stored_sessions, [StoredSession { session: "s1".into(), sequence: 1 }]);
    // A result that is sent again is acknowledged again.
    second.send(result(1)).await;
    second.acknowledged(1).await;
}

#[tokio::test]
async fn a_monitor_that_stops_or_drains_is_dialled_again() {
    let (address, mut calls) = script().await;
    let _setting = start(address, &["a"]);
    let mut first = soon("a call", calls.recv()).await.unwrap();
    first.restatement().await;
    drop(first);
    let second = soon("a call after an end with OK", calls.recv()).await.unwrap();
    let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(30)));
    second.fail(Status::with_error_details(Code::Unavailable, "draining", details)).await;
    soon("a call after UNAVAILABLE", calls.recv()).await.unwrap();
}

#[tokio::test]
async fn who_was_replaced_by_another_manager_stays_away_and_says_so() {
    let (address, mut calls) = script().await;
    let Setting { link, desk, readiness } = start(address, &["a"]);
    soon("a call", calls.recv()).await.unwrap().fail(Status::aborted("replaced")).await;
    desk.until_state("the word of it", |state| *state == State::TakenOver).await;
    // Not even a reload brings it back.
    link.order(orders(&["b"]));
    let complaints = readiness.complaints();
    assert!(complaints[0].contains(r#"another manager took over with the same client id "client""#), "{complaints:?}");
    link.drain();
    soon("the end of the link", link.ended()).await;
    assert!(calls.try_recv().is_err());
    assert!(readiness.complaints().is_empty());
}

#[tokio::test]
async fn a_refusal_is_told_with_its_cure_and_a_reload_tries_again_at_once() {
    let (address, mut calls) = script().await;
    let setting = start(address, &["a"]);
    soon("a call", calls.recv()).await.unwrap().fail(Status::unauthenticated("no token")).await;
    setting.desk.until_state("the refusal", |state| matches!(state, State::Refused(why) if why.contains("token_file"))).await;
    assert!(setting.readiness.complaints()[0].contains("no token"));
    // The next try of its own is a minute away.
    setting.link.order(orders(&["a"]));
    soon("a call after a reload", calls.recv()).await.unwrap().restatement().await;
}

#[tokio::test]
async fn a_link_that_drains_half_closes_and_takes_what_is_in_flight() {
    let (address, mut calls) = script().await;
    let Setting { link, desk, readiness } = start(address, &["a"]);
    let mut call = soon("a call", calls.recv()).await.unwrap();
    call.restatement().await;
    call.send(result(1)).await;
    call.acknowledged(1).await;
    link.drain();
    assert_eq!(call.next().await, None, "a half-close, and no Stop: orders stand");
    call.send(result(2)).await;
    drop(call);
    soon("the end of the link", link.ended()).await;
    assert_eq!(desk.stored(), 2);
    assert_eq!(desk.seen.borrow().states.last(), Some(&State::Ended));
    assert!(readiness.complaints().is_empty());
}

#[tokio::test]
async fn a_link_that_is_taken_out_stops_its_orders_first() {
    let (address, mut calls) = script().await;
    let Setting { link, .. } = start(address, &["a"]);
    let mut call = soon("a call", calls.recv()).await.unwrap();
    call.restatement().await;
    link.order(Orders::new());
    link.drain();
    assert_eq!(call.next().await, Some(Order::Stop(Stop { check_name: "a".into() })));
    assert_eq!(call.next().await, None);
    drop(call);
    soon("the end of the link", link.ended()).await;
}

#[tokio::test]
async fn a_released_link_takes_what_comes_until_the_monitor_ends_and_does_not_dial_again() {
    let (address, mut calls) = script().await;
    let Setting { link, desk, .. } = start(address, &["a"]);
    let mut call = soon("a call", calls.recv()).await.unwrap();
    call.restatement().await;
    link.release();
    call.send(result(1)).await;
    // Unlike after a half-close, acknowledgements still arrive.
    call.acknowledged(1).await;
    drop(call);
    soon("the end of the link", link.ended()).await;
    assert_eq!(desk.stored(), 1);
    assert!(calls.try_recv().is_err());
}

#[tokio::test]
async fn a_link_that_takes_the_place_of_another_waits_for_its_end() {
    let (address, mut calls) = script().await;
    let Setting { link, desk, readiness } = start(address, &["a"]);
    let mut first = soon("a call", calls.recv()).await.unwrap();
    let (_, before) = first.restatement().await;
    link.drain();
    let place = MonitorAddress { name: "m".into(), address: address.to_string(), ..MonitorAddress::default() };
    let next = Link::start(place, orders(&["a"]), Arc::new(settings()), Arc::clone(&desk), readiness.clone(), Some(link));
    assert_eq!(first.next().await, None);
    first.send(result(1)).await;
    drop(first);
    let (_, after) = soon("a second call", calls.recv()).await.unwrap().restatement().await;
    assert_eq!(after, before);
    desk.until_state("the connection", |state| matches!(state, State::Connected { .. })).await;
    let seen = desk.seen.borrow();
    let ended = seen.states.iter().position(|state| *state == State::Ended).unwrap();
    assert_eq!(seen.states[ended + 1], State::Connecting);
    drop(next);
}

#[tokio::test]
async fn a_monitor_that_lets_a_draining_link_wait_is_left() {
    let (address, mut calls) = script().await;
    let impatient = Settings { drain_timeout: Duration::from_millis(50), ..settings() };
    let Setting { link, .. } = start_with(address, orders(&["a"]), impatient, Desk::new(1000));
    let mut call = soon("a call", calls.recv()).await.unwrap();
    call.restatement().await;
    link.drain();
    soon("the end of the link", link.ended()).await;
}

#[tokio::test]
async fn a_monitor_that_is_not_there_yet_is_found_once_it_is() {
    // Bound and not listening: nobody else gets the port, and connections are refused.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let setting = start(address, &["a"]);
    let refused = |state: &State| matches!(state, State::Down(why) if why.to_lowercase().contains("connection refused"));
    setting.desk.until("refusals", |seen| seen.states.iter().filter(|state| refused(state)).count() >= 2).await;
    assert!(setting.readiness.complaints()[0].starts_with("monitor m: "));
    let mut calls = script_on(socket.listen(16).unwrap());
    soon("a call", calls.recv()).await.unwrap().restatement().await;
    setting.desk.until_state("the connection", |state| matches!(state, State::Connected { .. })).await;
    assert!(setting.readiness.complaints().is_empty());
}

/// Forwards bytes until it is told to swallow them, without closing anything: a cable that was pulled.
async fn relay(target: SocketAddr, pulled: Arc<AtomicBool>) -> SocketAddr {
    async fn pump(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf, pulled: Arc<AtomicBool>) {
        // What was pulled once stays dead for this connection, as it would behind a router that forgot it.
        let mut dead = false;
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut bytes).await {
            dead |= pulled.load(Ordering::SeqCst);
            if !dead && to.write_all(&bytes[..length]).await.is_err() {
                break;
            }
        }
        if dead {
            std::future::pending::<()>().await;
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let Ok(far) = TcpStream::connect(target).await else { continue };
            let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
            tokio::spawn(pump(near_read, far_write, Arc::clone(&pulled)));
            tokio::spawn(pump(far_read, near_write, Arc::clone(&pulled)));
        }
    });
    address
}

#[tokio::test]
async fn a_cut_that_nobody_tells_of_is_noticed_and_mended() {
    let (monitor, mut calls) = script().await;
    let pulled = Arc::new(AtomicBool::new(false));
    let address = relay(monitor, Arc::clone(&pulled)).await;
    let watchful = Settings {
        keepalive_interval: Duration::from_millis(100),
        keepalive_timeout: Duration::from_millis(500),
        answer_timeout: Duration::from_millis(500),
        ..settings()
    };
    let setting = start_with(address, orders(&["a"]), watchful, Desk::new(1000));
    let mut first = soon("a call", calls.recv()).await.unwrap();
    let (_, before) = first.restatement().await;
    setting.desk.until_state("the connection", |state| matches!(state, State::Connected { .. })).await;
    pulled.store(true, Ordering::SeqCst);
    setting.desk.until("the cut", |seen| seen.states.iter().any(|state| matches!(state, State::Down(_)))).await;
    pulled.store(false, Ordering::SeqCst);
    let mut second = soon("a second call", calls.recv()).await.unwrap();
    assert_eq!(second.restatement().await.1, before);
}
