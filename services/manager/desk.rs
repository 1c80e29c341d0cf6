//! Where results come in: store, judge, tell.
//!
//! The desk is the one meeting point: links bring results and the state of themselves, the plan says what to expect, and the page, the
//! figures and the alerts read from here. What it knows is in `book`, which is pure; here are the clock, the store's thread and the telling.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::broadcast,
    task::{self, JoinError},
};
use tokio_util::sync::CancellationToken;
use vantage_contract::v1::{self, ProbeResult, StoredSession};
use vantage_daemon::clock;

use crate::{
    alert::{self, Alert, tell::tell},
    store::{Order, Query, Standing, Store, StoreError, Usage},
};

mod book;
mod counts;
mod line;
mod view;

pub use counts::Counts;
pub use view::{CheckView, LineView, LinkView, Snapshot};

use book::Book;

/// Results that a subscriber may lag behind before it misses some.
const SUBSCRIBER_LAG: usize = 1024;
/// How often it is looked whether something has become stale.
const REVIEW_INTERVAL: Duration = Duration::from_secs(1);

/// That a check runs on some monitors.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Placement {
    /// The check.
    pub check: v1::Check,
    /// The revisions that its orders have: with secrets and without may be two. Results of another one are stored and counted, but not
    /// judged. Empty: any will do.
    pub revisions: BTreeSet<String>,
    /// The monitors that run it, by the names they are configured under.
    pub monitors: Vec<String>,
}

/// How the link to a monitor stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkState {
    /// Whether the stream is open, and the monitor has answered.
    pub connected: bool,
    /// Since when it is as it is.
    pub since: SystemTime,
    /// The name that the monitor gives itself, as its results carry it. Empty as long as it has never answered.
    pub announced: String,
    /// Why it is not connected, as a sentence. Empty where it is, or while nothing was tried yet.
    pub error: String,
}

/// Where results come in. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Desk {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<dyn Store>,
    book: Mutex<Book>,
    counts: Counts,
    results: broadcast::Sender<Arc<ProbeResult>>,
}

impl Desk {
    /// A desk over a store. Nothing runs yet: see [`Desk::watch`].
    pub fn new(store: Arc<dyn Store>, alerts: alert::Settings) -> Self {
        let (results, _) = broadcast::channel(SUBSCRIBER_LAG);
        Self { inner: Arc::new(Inner { store, book: Mutex::new(Book::new(alerts)), counts: Counts::default(), results }) }
    }

    /// Says which checks run where, from now on; to be told at the start and after each reload. Checks that are not named any more are
    /// forgotten, with their figures; those whose revision changed are judged anew.
    pub fn expect(&self, placements: Vec<Placement>) {
        let now = clock::monotonic();
        let alerts = {
            let mut book = self.inner.book();
            book.expect(placements, now);
            book.review(now)
        };
        self.inner.tell(&alerts);
    }

    /// Stores results as durably as the store can, judges them, tells what has to be told, and returns those that were new, in their
    /// order. Only then may they be acknowledged. With an error none is stored.
    ///
    /// To be called with the results of one monitor in their order. It goes through with it even if the caller doesn't wait for the end.
    pub async fn take(&self, results: Vec<ProbeResult>) -> Result<Vec<Arc<ProbeResult>>, StoreError> {
        let desk = self.clone();
        // A task of its own: were this future dropped half-way, results would be stored that nobody judged or told.
        task::spawn(async move { desk.take_through(results).await }).await.map_err(|error| interrupted("append results", &error))?
    }

    /// How far the sessions of a monitor are stored, by the name the monitor gives itself: what `Hello` says.
    pub async fn stored_sessions(&self, monitor: &str) -> Result<Vec<StoredSession>, StoreError> {
        let (store, monitor) = (Arc::clone(&self.inner.store), monitor.to_owned());
        task::spawn_blocking(move || store.stored_sessions(&monitor)).await.map_err(|error| interrupted("read the sessions", &error))?
    }

    /// Enters in the store's ledger that exactly these orders are about to stand on a monitor: see [`Store::restate`].
    pub async fn restate(&self, monitor: &str, orders: Vec<Order>, closed: Vec<StoredSession>) -> Result<Vec<Standing>, StoreError> {
        let (store, monitor) = (Arc::clone(&self.inner.store), monitor.to_owned());
        let enter = move || store.restate(&monitor, &orders, &closed, clock::wall());
        task::spawn_blocking(enter).await.map_err(|error| interrupted("restate orders", &error))?
    }

    /// Enters in the store's ledger which orders of a monitor are about to change: see [`Store::change`].
    pub async fn change(&self, monitor: &str, starts: Vec<Order>, stops: Vec<String>) -> Result<Vec<Standing>, StoreError> {
        let (store, monitor) = (Arc::clone(&self.inner.store), monitor.to_owned());
        let enter = move || store.change(&monitor, &starts, &stops, clock::wall());
        task::spawn_blocking(enter).await.map_err(|error| interrupted("change orders", &error))?
    }

    /// The newest results that are stored, newest first.
    pub async fn recent(&self, query: Query) -> Result<Vec<Arc<ProbeResult>>, StoreError> {
        let store = Arc::clone(&self.inner.store);
        task::spawn_blocking(move || store.recent(&query)).await.map_err(|error| interrupted("read results", &error))?
    }

    /// The same for several queries at once, one answer for each, in their order.
    pub async fn recent_each(&self, queries: Vec<Query>) -> Result<Vec<Vec<Arc<ProbeResult>>>, StoreError> {
        let store = Arc::clone(&self.inner.store);
        let read = move || queries.iter().map(|query| store.recent(query)).collect();
        task::spawn_blocking(read).await.map_err(|error| interrupted("read results", &error))?
    }

    /// Each new result, from now on, after it was stored and judged. Who lags more than 1024 behind misses some, and is told how many.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<ProbeResult>> {
        self.inner.results.subscribe()
    }

    /// Says how the link to a monitor stands, by the name it is configured under. To be told at each change, and each time an attempt
    /// to connect fails.
    pub fn note_link(&self, monitor: &str, state: LinkState) {
        let now = clock::monotonic();
        let alerts = {
            let mut book = self.inner.book();
            let mut alerts: Vec<_> = book.note_link(monitor, state, now).into_iter().collect();
            alerts.extend(book.review(now));
            alerts
        };
        self.inner.tell(&alerts);
    }

    /// Forgets a link, as that to a monitor which is no longer configured.
    pub fn forget_link(&self, monitor: &str) {
        self.inner.book().forget_link(monitor);
    }

    /// Looks each second whether something has become stale, until `stop`. Without it a check whose results end stays as it was, as far as
    /// alerts go; page and figures judge when they are asked.
    pub async fn watch(&self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(REVIEW_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let alerts = self.inner.book().review(clock::monotonic());
            self.inner.tell(&alerts);
        }
    }

    /// All that is known now: checks by name with their states and last results, and links.
    pub fn snapshot(&self) -> Snapshot {
        self.inner.book().snapshot(clock::monotonic())
    }

    /// What has been counted since the start.
    pub fn counts(&self) -> &Counts {
        &self.inner.counts
    }

    /// How full the store is.
    pub fn usage(&self) -> Usage {
        self.inner.store.usage()
    }

    async fn take_through(&self, results: Vec<ProbeResult>) -> Result<Vec<Arc<ProbeResult>>, StoreError> {
        let (inner, store) = (&self.inner, Arc::clone(&self.inner.store));
        let stored = task::spawn_blocking(move || store.append(results)).await.map_err(|error| interrupted("append results", &error));
        let appended = stored.flatten().inspect_err(|_| inner.counts.store_errors.add(1))?;

        inner.counts.duplicates.add(appended.duplicate_count);
        if appended.misnumbered_count > 0 {
            inner.counts.misnumbered.add(appended.misnumbered_count);
            tracing::error!(count = appended.misnumbered_count, "results without monitor, session or sequence were not stored");
        }
        for gap in &appended.gaps {
            inner.counts.gaps.add(1);
            inner.counts.missing.add(gap.missing_count);
            let (monitor, session) = (&gap.monitor, &gap.session);
            tracing::error!(monitor, session, after = gap.after, missing = gap.missing_count, "sequences are missing: results were lost");
        }

        let (monotonic, wall) = (clock::monotonic(), clock::wall());
        let alerts = {
            let mut book = inner.book();
            let mut touched = BTreeSet::new();
            for result in &appended.new {
                inner.counts.taken(result);
                if book.enter(result, monotonic, wall) {
                    touched.insert(result.check_name.as_str());
                } else {
                    inner.counts.unexpected.add(1);
                }
            }
            book.review_of(&touched, monotonic)
        };
        inner.tell(&alerts);
        for result in &appended.new {
            // An error says that nobody listens.
            let _ = inner.results.send(Arc::clone(result));
        }
        Ok(appended.new)
    }
}

impl Inner {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, alerts: &[Alert]) {
        for alert in alerts {
            self.counts.alerted(alert);
            tell(alert);
        }
    }
}

/// A task can end only with its runtime, or by a panic.
fn interrupted(act: &'static str, error: &JoinError) -> StoreError {
    tracing::error!(%error, "{act}");
    StoreError::Interrupted(act)
}

#[cfg(test)]
mod tests;
