//! How many runs at once, and what is answered when it is full.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use vantage_contract::v1::Reason;

use crate::{book::Ticket, config::Limits};

/// The places of a monitor. Runs that are due take one, first come, first served over all clients; while there is none they wait, until
/// it is too late for them. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Admission {
    places: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    limits: Limits,
}

/// A place, held while the run is in flight.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "held, not read: dropping it frees the place")] OwnedSemaphorePermit);

/// Counts one who waits, for as long as it lives.
struct Waiting<'w>(&'w AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Admission {
    /// All places free.
    pub fn new(limits: Limits) -> Self {
        Self { places: Arc::new(Semaphore::new(limits.in_flight)), waiting: Arc::default(), limits }
    }

    /// Takes a place for the run, or says why it is skipped: it is too late, too many wait already, or the monitor is stopping.
    pub async fn enter(&self, ticket: &Ticket, drain: &CancellationToken) -> Result<Place, Reason> {
        if drain.is_cancelled() {
            return Err(Reason::Draining);
        }
        if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(Place(permit));
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.limits.max_waiting {
            drop(Waiting(&self.waiting));
            return Err(Reason::Overloaded);
        }
        let _waiting = Waiting(&self.waiting);
        tokio::select! {
            permit = Arc::clone(&self.places).acquire_owned() => permit.map(Place).map_err(|_| Reason::Draining),
            () = tokio::time::sleep_until(ticket.give_up) => Err(ticket.too_late),
            () = drain.cancelled() => Err(Reason::Draining),
        }
    }

    /// Runs in flight, over all clients.
    pub fn in_flight(&self) -> usize {
        self.limits.in_flight.saturating_sub(self.places.available_permits())
    }

    /// Runs that may be in flight.
    pub fn limit(&self) -> usize {
        self.limits.in_flight
    }

    /// Runs that wait, over all clients.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vantage_contract::v1::Check;

    use super::*;
    use crate::{order::Facts, schedule::Now};

    fn ticket(patience: Duration) -> Ticket {
        let now = Now::read();
        Ticket {
            order: 1,
            facts: Arc::new(Facts::new(&Check::default(), "", "")),
            run: 0,
            due: now.monotonic,
            due_wall: now.wall,
            give_up: now.monotonic + patience,
            too_late: Reason::Overloaded,
        }
    }

    fn admission(in_flight: usize, max_waiting: usize) -> Admission {
        Admission::new(Limits { in_flight, max_waiting, ..Limits::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_finds_no_place_in_time_is_overloaded() {
        let (admission, drain) = (admission(1, 10), CancellationToken::new());
        let held = admission.enter(&ticket(Duration::ZERO), &drain).await.unwrap();
        assert_eq!(admission.in_flight(), 1);
        assert_eq!(admission.enter(&ticket(Duration::from_secs(1)), &drain).await.unwrap_err(), Reason::Overloaded);
        assert_eq!(admission.waiting(), 0);
        drop(held);
        assert!(admission.enter(&ticket(Duration::ZERO), &drain).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_are_served_in_turn_and_bounded() {
        let (admission, drain) = (admission(1, 1), CancellationToken::new());
        let held = admission.enter(&ticket(Duration::ZERO), &drain).await.unwrap();
        let waiting = tokio::spawn({
            let (admission, drain) = (admission.clone(), drain.clone());
            async move { admission.enter(&ticket(Duration::from_secs(60)), &drain).await.map(|_| ()) }
        });
        while admission.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(admission.enter(&ticket(Duration::from_secs(60)), &drain).await.unwrap_err(), Reason::Overloaded);
        drop(held);
        assert_eq!(waiting.await.unwrap(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopping_monitor_lets_nobody_in() {
        let (admission, drain) = (admission(1, 10), CancellationToken::new());
        let _held = admission.enter(&ticket(Duration::ZERO), &drain).await.unwrap();
        let waiting = tokio::spawn({
            let (admission, drain) = (admission.clone(), drain.clone());
            async move { admission.enter(&ticket(Duration::from_secs(60)), &drain).await.map(|_| ()) }
        });
        while admission.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        drain.cancel();
        assert_eq!(waiting.await.unwrap(), Err(Reason::Draining));
    }
}
