//! What stands behind all links: results go to the desk, then to the output, and are counted; orders go to the desk's ledger.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;
use vantage_contract::v1::{ProbeResult, Start, StoredSession};
use vantage_daemon::clock;

use crate::{
    border,
    desk::{Desk, LinkState},
    link::{Intake, State},
    plan::{Changes, Orders, Plan},
    print::Printer,
    state,
    store::{Order, Standing},
    tally::Tally,
};

/// The intake of a manager.
pub(crate) struct Reception {
    desk: Desk,
    printer: Printer,
    tally: Mutex<Tally>,
    /// How long a run may take, by check.
    timeouts: Mutex<BTreeMap<String, Duration>>,
    links: Mutex<BTreeMap<String, LinkState>>,
    /// The links that serve a monitor, with the name it gives itself.
    names: Mutex<BTreeMap<String, String>>,
    counted: Notify,
}

impl Reception {
    pub(crate) fn new(desk: Desk, printer: Printer) -> Self {
        Self {
            desk,
            printer,
            tally: Mutex::default(),
            timeouts: Mutex::default(),
            links: Mutex::default(),
            names: Mutex::default(),
            counted: Notify::new(),
        }
    }

    /// Says which orders there are, from now on, and how long a run of each check may take.
    pub(crate) fn expect(&self, plan: Plan, timeouts: BTreeMap<String, Duration>) {
        // A link that is not in the plan is leaving: who takes its place may serve the same monitor.
        lock(&self.names).retain(|link, _| plan.monitors.contains_key(link));
        *lock(&self.timeouts) = timeouts;
        lock(&self.tally).expect(plan);
        self.counted.notify_one();
    }

    /// Ends when every order is counted out: there is nothing left to wait for.
    pub(crate) async fn done(&self) {
        while !lock(&self.tally).done() {
            self.counted.notified().await;
        }
    }
}

impl Reception {
    /// An order as the ledger has to know it.
    fn order(&self, start: &Start) -> Order {
        let timeout = start.check.as_ref().and_then(|check| lock(&self.timeouts).get(&check.name).copied());
        Order { start: start.clone(), timeout: timeout.unwrap_or(state::LONGEST_DEFAULT_TIMEOUT) }
    }

    /// What the ledger knows of these orders counts, from here on.
    fn seed<'o>(&self, link: &str, orders: impl Iterator<Item = &'o Start>, standings: &[Standing]) {
        let mut tally = lock(&self.tally);
        orders.zip(standings).for_each(|(start, standing)| tally.seed(link, start, standing.accounted_count));
        drop(tally);
        self.counted.notify_one();
    }
}

impl Intake for Reception {
    async fn stored_sessions(&self, monitor: &str) -> Vec<StoredSession> {
        self.desk.stored_sessions(monitor).await.unwrap_or_else(|error| {
            tracing::warn!(monitor, %error, "what is stored can't be told to the monitor: it will send again");
            Vec::new()
        })
    }

    fn admit(&self, link: &str, monitor: &str) -> Result<(), String> {
        let mut names = lock(&self.names);
        match names.iter().find(|(other, name)| *other != link && *name == monitor && !monitor.is_empty()) {
            Some((other, _)) => Err(format!(
                "monitors {other:?} and {link:?} both call themselves {monitor:?}, and two monitors of one name can't be told apart: give each \
                 its own --name; if they are one, take one of the two out of the file"
            )),
            None => {
                names.insert(link.to_owned(), monitor.to_owned());
                Ok(())
            }
        }
    }

    async fn restate(&self, link: &str, monitor: &str, closed: &[StoredSession], orders: &Orders) -> Result<Vec<Standing>, String> {
        let entered = orders.values().map(|start| self.order(start)).collect();
        let standings = self.desk.restate(monitor, entered, closed.to_vec()).await.map_err(|error| error.to_string())?;
        self.seed(link, orders.values(), &standings);
        Ok(standings)
    }

    async fn change(&self, link: &str, monitor: &str, changes: &Changes) -> Result<Vec<Standing>, String> {
        let starts = changes.starts.iter().map(|start| self.order(start)).collect();
        let standings = self.desk.change(monitor, starts, changes.stops.clone()).await.map_err(|error| error.to_string())?;
        self.seed(link, changes.starts.iter(), &standings);
        Ok(standings)
    }

    async fn take(&self, link: &str, results: &[ProbeResult]) -> Result<(), String> {
        let results = results.iter().cloned().map(border::admit).collect();
        let new = self.desk.take(results).await.map_err(|error| error.to_string())?;
        self.printer.print(&new).await;
        {
            let mut tally = lock(&self.tally);
            new.iter().for_each(|result| tally.add(link, result));
        }
        self.counted.notify_one();
        Ok(())
    }

    fn note(&self, link: &str, state: &State) {
        if !matches!(state, State::Connected { .. }) {
            lock(&self.names).remove(link);
        }
        let mut links = lock(&self.links);
        let before = links.remove(link);
        let down = |before: Option<LinkState>, error: &str| match before {
            // It is still down, and since then.
            Some(before) if !before.connected => LinkState { error: error.to_owned(), ..before },
            Some(before) => LinkState { connected: false, since: clock::wall(), error: error.to_owned(), ..before },
            None => LinkState { connected: false, since: clock::wall(), announced: String::new(), error: error.to_owned() },
        };
        let now = match state {
            State::Ended => {
                self.desk.forget_link(link);
                return;
            }
            // It tries again: nothing is known that was not known before.
            State::Connecting => before.unwrap_or_else(|| down(None, "")),
            State::Connected { monitor, .. } => {
                LinkState { connected: true, since: clock::wall(), announced: monitor.clone(), error: String::new() }
            }
            State::Down(why) | State::Refused(why) => down(before, why),
            State::TakenOver => down(before, "another manager took over with the same client id"),
        };
        links.insert(link.to_owned(), now.clone());
        drop(links);
        self.desk.note_link(link, now);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
