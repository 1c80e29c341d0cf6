//! The reception over a store whose ledger is in the test's hands.

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use vantage_contract::v1::{Check, MonitorAddress, Outcome};

use super::*;
use crate::{
    alert, plan,
    print::{Output, Style},
    script::soon,
    store::{Appended, Query, Store, StoreError, Usage},
};

/// A store that takes everything for new, and knows how many runs of each order are accounted for.
#[derive(Debug, Default)]
struct Ledger {
    accounted: BTreeMap<String, u64>,
    entered: Mutex<Vec<Order>>,
}

impl Ledger {
    fn enter(&self, orders: &[Order]) -> Vec<Standing> {
        lock(&self.entered).extend(orders.iter().cloned());
        let accounted = |order: &Order| *self.accounted.get(&order.start.check.as_ref().unwrap().name).unwrap_or(&0);
        orders.iter().map(|order| Standing { accounted_count: accounted(order), ..Standing::default() }).collect()
    }
}

impl Store for Ledger {
    fn append(&self, batch: Vec<ProbeResult>) -> Result<Appended, StoreError> {
        Ok(Appended { new: batch.into_iter().map(Arc::new).collect(), ..Appended::default() })
    }

    fn stored_sessions(&self, _: &str) -> Result<Vec<StoredSession>, StoreError> {
        Ok(Vec::new())
    }

    fn restate(&self, monitor: &str, orders: &[Order], _: &[StoredSession], _: SystemTime) -> Result<Vec<Standing>, StoreError> {
        match monitor {
            "broken" => Err(StoreError::Failed { act: "restate 1 order".into(), cause: "disk full".into() }),
            _ => Ok(self.enter(orders)),
        }
    }

    fn change(&self, _: &str, starts: &[Order], _: &[String], _: SystemTime) -> Result<Vec<Standing>, StoreError> {
        Ok(self.enter(starts))
    }

    fn recent(&self, _: &Query) -> Result<Vec<Arc<ProbeResult>>, StoreError> {
        Ok(Vec::new())
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }
}

/// A check of four runs, on these monitors.
fn plan(monitors: &[&str]) -> Plan {
    let monitors: Vec<_> = monitors.iter().map(|name| MonitorAddress { name: (*name).into(), ..MonitorAddress::default() }).collect();
    plan::place(&[Check { name: "a".into(), count: 4, ..Check::default() }], &monitors).unwrap()
}

fn reception(store: Arc<Ledger>) -> Reception {
    let printer = Printer::start(Style::new(Output::Text, false), Box::new(io::sink())).unwrap();
    Reception::new(Desk::new(store, alert::Settings::default()), printer)
}

/// A reception whose ledger has so many runs of "a", for monitor "m", after the restatement.
async fn restated(accounted: u64) -> (Reception, Start) {
    let reception = reception(Arc::new(Ledger { accounted: [("a".into(), accounted)].into(), ..Ledger::default() }));
    let plan = plan(&["m"]);
    let orders = plan.monitors["m"].clone();
    reception.expect(plan, BTreeMap::new());
    let standings = reception.restate("m", "lab", &[], &orders).await.unwrap();
    assert_eq!(standings[0].accounted_count, accounted);
    (reception, orders["a"].clone())
}

#[tokio::test]
async fn orders_that_were_wholly_acknowledged_before_a_restart_are_done() {
    soon("the end", restated(4).await.0.done()).await;
}

#[tokio::test]
async fn orders_whose_remaining_runs_are_all_skipped_after_a_restart_are_done() {
    let (reception, start) = restated(1).await;
    assert!(tokio::time::timeout(Duration::from_millis(20), reception.done()).await.is_err());
    let skipped = ProbeResult {
        check_name: "a".into(),
        revision: start.revision,
        run: 1,
        run_count: 3,
        outcome: Outcome::Skipped.into(),
        ..ProbeResult::default()
    };
    reception.take("m", &[skipped]).await.unwrap();
    soon("the end", reception.done()).await;
}

#[tokio::test]
async fn the_ledger_is_told_how_long_a_run_may_take_and_what_it_can_not_do_is_said() {
    let ledger = Arc::new(Ledger::default());
    let reception = reception(Arc::clone(&ledger));
    let plan = plan(&["m"]);
    let orders = plan.monitors["m"].clone();
    reception.expect(plan, [("a".into(), Duration::from_secs(7))].into());
    let changes = plan::diff(&Orders::new(), &orders);
    reception.change("m", "lab", &changes).await.unwrap();
    assert_eq!(*lock(&ledger.entered), [Order { start: orders["a"].clone(), timeout: Duration::from_secs(7) }]);
    assert_eq!(reception.restate("m", "broken", &[], &orders).await, Err("restate 1 order: disk full".into()));
}

#[tokio::test]
async fn two_connected_monitors_of_one_name_are_told_with_the_cure() {
    let reception = reception(Arc::default());
    reception.expect(plan(&["m", "n"]), BTreeMap::new());
    let connected = State::Connected { monitor: "lab".into(), session: "s".into() };
    assert_eq!(reception.admit("m", "lab"), Ok(()));
    reception.note("m", &connected);
    let why = reception.admit("n", "lab").unwrap_err();
    assert!(why.starts_with(r#"monitors "m" and "n" both call themselves "lab""#) && why.contains("--name"), "{why}");
    assert_eq!(reception.admit("n", "other"), Ok(()));
    // The same link again, and the other one once the name is free.
    assert_eq!(reception.admit("m", "lab"), Ok(()));
    reception.note("m", &State::Down("cut".into()));
    assert_eq!(reception.admit("n", "lab"), Ok(()));
}

#[tokio::test]
async fn a_link_that_is_leaving_has_no_name_any_more() {
    let reception = reception(Arc::default());
    reception.expect(plan(&["m"]), BTreeMap::new());
    assert_eq!(reception.admit("m", "lab"), Ok(()));
    reception.expect(plan(&["n"]), BTreeMap::new());
    assert_eq!(reception.admit("n", "lab"), Ok(()));
}
