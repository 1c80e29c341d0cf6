//! Runs waiting and in flight.

use std::{
    collections::{HashMap, VecDeque},
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{
    FutureExt,
    stream::{FuturesUnordered, StreamExt},
};
use tokio::task::{Id, JoinError, JoinSet};
use vantage_contract::v1::{Attribution, Outcome, Reason};
use vantage_probes::{Failure, Hurrying, Plan};

use super::Shared;
use crate::{book::Ticket, journal::OrderId, order::Timing, record::Record, schedule::Now};

/// A run in the session's own task. It ends with what became of it.
struct Light {
    ticket: Ticket,
    attempt: Pin<Box<dyn Future<Output = Ended> + Send>>,
    #[expect(dead_code, reason = "held, not read: while it is, nobody rests")]
    hurrying: Option<Hurrying>,
}

impl Future for Light {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { ticket, attempt, .. } = &mut *self;
        // A probe that breaks must not take the session with it. What it leaves behind is its own, and it is not polled again.
        match panic::catch_unwind(AssertUnwindSafe(|| attempt.as_mut().poll(context))) {
            Ok(polled) => polled,
            Err(_) => Poll::Ready(broken(ticket)),
        }
    }
}

/// The runs of one session that wait for their turn or are in flight. Most only wait for the network, and share the session's own task: to
/// wake another one costs more than they do. Those that compute (TLS) have tasks of their own.
pub(super) struct Runs {
    light: FuturesUnordered<Light>,
    heavy: JoinSet<Ended>,
    heavy_tickets: HashMap<Id, Ticket>,
    /// Runs that were ended before they came to their end.
    aborted: VecDeque<Ended>,
    in_flight: Arc<AtomicU32>,
}

/// A run that has ended.
pub(super) struct Ended {
    /// Its order.
    pub order: OrderId,
    /// Its record.
    pub record: Record,
    /// How late it started, and of what kind it is; none if it did not start.
    pub started: Option<(Duration, &'static str)>,
}

impl Runs {
    pub(super) fn new() -> Self {
        Self {
            light: FuturesUnordered::new(),
            heavy: JoinSet::new(),
            heavy_tickets: HashMap::new(),
            aborted: VecDeque::new(),
            in_flight: Arc::default(),
        }
    }

    /// Runs in flight.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Runs that wait for their turn.
    pub(super) fn waiting(&self) -> u32 {
        let all = self.light.len() + self.heavy.len() + self.aborted.len();
        u32::try_from(all).unwrap_or(u32::MAX).saturating_sub(self.in_flight())
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.light.is_empty() && self.heavy.is_empty() && self.aborted.is_empty()
    }

    /// Starts a run: it waits for its turn, then probes.
    pub(super) fn start(&mut self, ticket: Ticket, shared: &Arc<Shared>) {
        let is_light = ticket.facts.plan.as_ref().map_or(true, Plan::is_light);
        let attempt = attempt(ticket.clone(), Arc::clone(shared), Arc::clone(&self.in_flight));
        if is_light {
            let is_stamped = ticket.facts.plan.as_ref().map_or(true, Plan::is_stamped);
            let hurrying = (!is_stamped).then(|| shared.world.hurry().begin());
            self.light.push(Light { hurrying, attempt: Box::pin(attempt), ticket });
        } else {
            let task = self.heavy.spawn_on(attempt, &shared.workers);
            self.heavy_tickets.insert(task.id(), ticket);
        }
    }

    /// Waits for the next to end. Never returns while there are none.
    pub(super) async fn next(&mut self) -> Ended {
        if let Some(ended) = self.aborted.pop_front() {
            return ended;
        }
        tokio::select! {
            Some(ended) = self.light.next() => ended,
            Some(joined) = self.heavy.join_next_with_id() => self.heavy_ended(joined),
            else => std::future::pending().await,
        }
    }

    /// The next that has ended already.
    pub(super) fn next_ended(&mut self) -> Option<Ended> {
        if let Some(ended) = self.aborted.pop_front() {
            return Some(ended);
        }
        if let Some(Some(ended)) = self.light.next().now_or_never() {
            return Some(ended);
        }
        self.heavy.try_join_next_with_id().map(|joined| self.heavy_ended(joined))
    }

    fn heavy_ended(&mut self, joined: Result<(Id, Ended), JoinError>) -> Ended {
        match joined {
            Ok((id, ended)) => {
                self.heavy_tickets.remove(&id);
                ended
            }
            Err(error) => match self.heavy_tickets.remove(&error.id()) {
                Some(ticket) if error.is_cancelled() => cut_short(&ticket),
                Some(ticket) => broken(&ticket),
                None => nobodys(),
            },
        }
    }

    /// Ends all that are left; their records say that the monitor was stopping.
    pub(super) fn abort(&mut self) {
        self.aborted.extend(self.light.iter().map(|light| cut_short(&light.ticket)));
        self.light.clear();
        self.heavy.abort_all();
    }
}

/// A run that was ended while the monitor was stopping.
fn cut_short(ticket: &Ticket) -> Ended {
    let record = ticket.facts.skipped(ticket.run, 1, ticket.due_wall, Reason::Draining);
    Ended { order: ticket.order, record, started: None }
}

/// A run that was broken by a fault of ours. It is accounted for all the same.
fn broken(ticket: &Ticket) -> Ended {
    tracing::error!(check = ticket.facts.name(), run = ticket.run, "a probe broke: a fault in Vantage, please report it");
    let (timing, _) = timing(ticket);
    let record = ticket.facts.undone(ticket.run, timing, Failure::internal("the probe broke: a fault in Vantage"));
    Ended { order: ticket.order, record, started: None }
}

/// Each run has its ticket from start to end.
fn nobodys() -> Ended {
    Ended { order: 0, record: Record::default(), started: None }
}

/// Counts one in flight, for as long as it lives.
struct InFlight(Arc<AtomicU32>);

impl InFlight {
    fn begin(counter: &Arc<AtomicU32>) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counter))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn timing(ticket: &Ticket) -> (Timing, Now) {
    let now = Now::read();
    let lateness = now.monotonic.saturating_duration_since(ticket.due);
    (Timing { due: ticket.due_wall, start: now.wall, lateness }, now)
}

async fn attempt(ticket: Ticket, shared: Arc<Shared>, in_flight: Arc<AtomicU32>) -> Ended {
    let Ticket { order, ref facts, run, due_wall, .. } = ticket;
    let _place = match shared.admission.enter(&ticket, &shared.drain).await {
        Ok(place) => place,
        Err(reason) => return Ended { order, record: facts.skipped(run, 1, due_wall, reason), started: None },
    };
    let _in_flight = InFlight::begin(&in_flight);
    let (timing, _) = timing(&ticket);
    let record = match runnable(&ticket, &shared) {
        Ok(plan) => facts.ran(run, timing, plan.run(&shared.world).await),
        Err(failure) => facts.undone(run, timing, failure),
    };
    let started = (record.said.outcome() != Outcome::Skipped).then(|| (timing.lateness, facts.kind()));
    Ended { order, record, started }
}

fn runnable<'t>(ticket: &'t Ticket, shared: &Shared) -> Result<&'t Plan, Failure> {
    let plan = ticket.facts.plan.as_ref().map_err(|invalid| Failure::from(invalid.clone()))?;
    shared.policy.permit_plan(plan).map_err(|rule| Failure::new(Reason::PolicyDenied, Attribution::Vantage, rule))?;
    Ok(plan)
}
