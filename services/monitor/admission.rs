//! How many runs at once, and what is answered when it is full.
//!
//! Each run takes a place of the monitor and one of its kind. Of both, orders that take long may hold a part only ([`Pace`]), so that a
//! flood of checks that wait for an answer that never comes displaces none that is answered soon, not even one of its own kind. Those for
//! whom there is no room wait in one hall: who is let in takes all that it needs at once, so nobody holds one place while it waits for
//! another, and a full class holds up none but its own. Who has fewest places goes first, of all clients, and of the runs of one client that
//! whose order has had no place for longest: by arrival, those of short patience would never come to the front of a line that is longer than
//! that. Where the hall is full, the client with most runs in it makes room.

mod hall;
mod pace;

use std::{
    iter,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{sync::oneshot, time::Instant};
use tokio_util::sync::CancellationToken;
use vantage_contract::v1::{KindLoad, Reason};
use vantage_daemon::clock;

use crate::{book::Ticket, config::Limits, order::Facts};
use hall::{Class, Entry, Hall, Turn};

pub use hall::{Bound, three_quarters};
pub use pace::{Habit, Pace};

/// The places of a monitor. Runs that are due take one; while there is none for them they wait, until it is too late for them. Cheap to
/// clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Admission {
    hall: Arc<Mutex<Hall<oneshot::Sender<Seat>>>>,
    /// In whose name it is asked.
    client: u64,
}

/// A place, held while the run is in flight. Dropping it frees it, wakes the next, and notes how long the run took.
#[derive(Debug)]
pub struct Place {
    facts: Arc<Facts>,
    since: Instant,
    #[expect(dead_code, reason = "held, not read: dropping it frees the place")]
    seat: Seat,
}

/// What is taken in the hall, for as long as it lives.
#[derive(Debug)]
struct Seat {
    admission: Admission,
    class: Class,
}

/// One who waits, for as long as it lives. A seat that is given to it just as it gives up is freed with the rest of it.
struct Waiter<'a> {
    admission: &'a Admission,
    class: Class,
    turn: Turn,
    seat: oneshot::Receiver<Seat>,
}

/// How full each class is.
#[derive(Debug, Clone, Default)]
pub struct Load {
    /// In flight, over all kinds.
    pub places: Bound,
    /// In flight, by kind.
    pub kinds: Vec<(&'static str, Bound)>,
    /// Waiting, over all kinds.
    pub waiting: Bound,
}

impl Drop for Place {
    fn drop(&mut self) {
        // Before the seat is freed, so that the order's next run is judged by this one.
        let timeout = self.facts.plan.as_ref().map(|plan| plan.timeout()).unwrap_or_default();
        self.facts.habit.held(clock::monotonic().saturating_duration_since(self.since), timeout);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.admission.leave(self.class);
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.admission.lock().give_up(self.class, self.turn);
    }
}

impl Admission {
    /// All places free.
    pub fn new(limits: Limits) -> Self {
        Self { hall: Arc::new(Mutex::new(Hall::new(limits))), client: 0 }
    }

    /// The same, for the runs of another client.
    #[must_use]
    pub fn for_client(&self) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        Self { hall: Arc::clone(&self.hall), client: NUMBERS.fetch_add(1, Ordering::Relaxed) }
    }

    /// Takes a place for the run, or says why it is skipped: it is too late, too many wait already, or the monitor is stopping.
    pub async fn enter(&self, ticket: &Ticket, drain: &CancellationToken) -> Result<Place, Reason> {
        if drain.is_cancelled() {
            return Err(Reason::Draining);
        }
        let facts = &ticket.facts;
        let class = Class { client: self.client, kind: facts.kind(), pace: facts.habit.pace() };
        let mut waiting = None;
        let entry = self.lock().enter(class, facts.habit.wants(ticket.due), || {
            let (waker, seat) = oneshot::channel();
            waiting = Some(seat);
            waker
        });
        let seat = match (entry, waiting) {
            (Entry::In, _) => Seat { admission: self.clone(), class },
            (Entry::Waiting(turn), Some(seat)) => {
                // Most runs don't wait, and don't need the room for it.
                Box::pin(Waiter { admission: self, class, turn, seat }.wait(ticket, drain)).await?
            }
            (Entry::Waiting(_), None) | (Entry::Full, _) => return Err(Reason::Overloaded),
        };
        facts.habit.served();
        Ok(Place { facts: Arc::clone(facts), since: clock::monotonic(), seat })
    }

    /// How full each class is.
    pub fn load(&self) -> Load {
        let hall = self.lock();
        Load { places: hall.places, kinds: hall.kinds.iter().map(|(kind, bound)| (*kind, *bound)).collect(), waiting: hall.waiting }
    }

    /// Runs in flight, over all clients.
    pub fn in_flight(&self) -> usize {
        self.lock().places.taken(Pace::Prompt)
    }

    /// Runs that may be in flight.
    pub fn limit(&self) -> usize {
        self.lock().places.limit(Pace::Prompt)
    }

    /// Runs that wait, over all clients.
    pub fn waiting(&self) -> usize {
        self.lock().waiting.taken(Pace::Prompt)
    }

    fn leave(&self, class: Class) {
        let admitted: Vec<_> = {
            let mut hall = self.lock();
            hall.leave(class);
            iter::from_fn(|| hall.next()).collect()
        };
        for (class, waker) in admitted {
            // The seat of one who has just gone comes back, and is dropped here, where the hall is not locked: so it is freed in turn.
            let _ = waker.send(Seat { admission: self.clone(), class });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Hall<oneshot::Sender<Seat>>> {
        self.hall.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter<'_> {
    async fn wait(mut self, ticket: &Ticket, drain: &CancellationToken) -> Result<Seat, Reason> {
        tokio::select! {
            biased;
            () = drain.cancelled() => Err(Reason::Draining),
            // An error says that its client had more that waited than one that came.
            seat = &mut self.seat => seat.map_err(|_| Reason::Overloaded),
            () = tokio::time::sleep_until(ticket.give_up) => Err(ticket.too_late),
        }
    }
}

impl Load {
    /// By kind, as GetMonitor shows it.
    pub fn to_proto(&self) -> Vec<KindLoad> {
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let load = |(kind, bound): &(&str, Bound)| KindLoad {
            kind: (*kind).to_owned(),
            in_flight_count: number(bound.taken(Pace::Prompt)),
            in_flight_limit: number(bound.limit(Pace::Prompt)),
        };
        self.kinds.iter().map(load).collect()
    }
}

#[cfg(test)]
mod tests;
