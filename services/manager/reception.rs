//! What stands behind all links: results go to the desk, then to the output, and are counted.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;
use vantage_contract::v1::{ProbeResult, Start, StoredSession};
use vantage_daemon::clock;

use crate::{
    border,
    desk::{Desk, LinkState},
    link::{Intake, State},
    plan::Plan,
    print::Printer,
    tally::Tally,
};

/// The intake of a manager.
pub(crate) struct Reception {
    desk: Desk,
    printer: Printer,
    tally: Mutex<Tally>,
    links: Mutex<BTreeMap<String, LinkState>>,
    counted: Notify,
}

impl Reception {
    pub(crate) fn new(desk: Desk, printer: Printer) -> Self {
        Self { desk, printer, tally: Mutex::default(), links: Mutex::default(), counted: Notify::new() }
    }

    /// Says which orders there are, from now on.
    pub(crate) fn expect(&self, plan: Plan) {
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

impl Intake for Reception {
    async fn stored_sessions(&self, monitor: &str) -> Vec<StoredSession> {
        self.desk.stored_sessions(monitor).await.unwrap_or_else(|error| {
            tracing::warn!(monitor, %error, "what is stored can't be told to the monitor: it will send again");
            Vec::new()
        })
    }

    async fn take(&self, link: &str, results: Vec<ProbeResult>) -> Result<(), String> {
        let results = results.into_iter().map(border::admit).collect();
        let new = self.desk.take(results).await.map_err(|error| error.to_string())?;
        self.printer.print(&new).await;
        {
            let mut tally = lock(&self.tally);
            new.iter().for_each(|result| tally.add(link, result));
        }
        self.counted.notify_one();
        Ok(())
    }

    fn counted_out(&self, link: &str, start: &Start) -> bool {
        lock(&self.tally).counted_out(link, start)
    }

    fn note(&self, link: &str, state: &State) {
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
