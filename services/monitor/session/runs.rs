//! Runs waiting and in flight.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::task::{Id, JoinError, JoinSet};
use vantage_contract::v1::{Attribution, Outcome, ProbeResult, Reason};
use vantage_probes::{Failure, Plan};

use super::Shared;
use crate::{book::Ticket, journal::OrderId, order::Timing, schedule::Now};

/// The runs of one session that wait for their turn or are in flight.
pub(super) struct Runs {
    tasks: JoinSet<Ended>,
    tickets: HashMap<Id, Ticket>,
    in_flight: Arc<AtomicU32>,
}

/// A run that has ended.
pub(super) struct Ended {
    /// Its order.
    pub order: OrderId,
    /// Its record.
    pub record: ProbeResult,
    /// How late it started, and of what kind it is; none if it did not start.
    pub started: Option<(Duration, &'static str)>,
}

impl Runs {
    pub(super) fn new() -> Self {
        Self { tasks: JoinSet::new(), tickets: HashMap::new(), in_flight: Arc::default() }
    }

    /// Runs in flight.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Runs that wait for their turn.
    pub(super) fn waiting(&self) -> u32 {
        u32::try_from(self.tasks.len()).unwrap_or(u32::MAX).saturating_sub(self.in_flight())
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Starts a run: it waits for its turn, then probes.
    pub(super) fn start(&mut self, ticket: Ticket, shared: &Shared) {
        let (shared, in_flight) = (shared.clone(), Arc::clone(&self.in_flight));
        let task = self.tasks.spawn(attempt(ticket.clone(), shared, in_flight));
        self.tickets.insert(task.id(), ticket);
    }

    /// Waits for the next to end. Never returns while there are none.
    pub(super) async fn next(&mut self) -> Ended {
        match self.tasks.join_next_with_id().await {
            Some(Ok((id, ended))) => {
                self.tickets.remove(&id);
                ended
            }
            Some(Err(error)) => self.broken(&error),
            None => std::future::pending().await,
        }
    }

    /// Ends all that are left; their records say that the monitor was stopping.
    pub(super) fn abort(&mut self) {
        self.tasks.abort_all();
    }

    /// A task that did not come to its end: aborted while stopping, or broken by a fault of ours. The run is accounted for all the same.
    fn broken(&mut self, error: &JoinError) -> Ended {
        let Some(ticket) = self.tickets.remove(&error.id()) else {
            // Each task has its ticket from start to end.
            return Ended { order: 0, record: ProbeResult::default(), started: None };
        };
        let record = if error.is_cancelled() {
            ticket.facts.skipped(ticket.run, 1, ticket.due_wall, Reason::Draining)
        } else {
            tracing::error!(check = ticket.facts.name(), run = ticket.run, "a probe broke: a fault in Vantage, please report it");
            let (timing, _) = timing(&ticket);
            ticket.facts.undone(ticket.run, timing, Failure::internal("the probe broke: a fault in Vantage"))
        };
        Ended { order: ticket.order, record, started: None }
    }
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

async fn attempt(ticket: Ticket, shared: Shared, in_flight: Arc<AtomicU32>) -> Ended {
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
    let started = (record.outcome() != Outcome::Skipped).then(|| (timing.lateness, facts.kind()));
    Ended { order, record, started }
}

fn runnable<'t>(ticket: &'t Ticket, shared: &Shared) -> Result<&'t Plan, Failure> {
    let plan = ticket.facts.plan.as_ref().map_err(|invalid| Failure::from(invalid.clone()))?;
    shared.policy.permit_kind(plan.kind()).map_err(|rule| Failure::new(Reason::PolicyDenied, Attribution::Vantage, rule))?;
    Ok(plan)
}
