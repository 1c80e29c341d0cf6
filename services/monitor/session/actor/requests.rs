//! What a client asks on its stream.

use std::time::SystemTime;

use tonic::Status;
use vantage_contract::v1::{Ack, ExecuteRequest, Reason, RunOnce, Start, execute_request::Order};

use super::Actor;
use crate::{
    book::{Placed, Ticket},
    order::Facts,
    schedule::Now,
    session::{exhausted, invalid},
};

impl Actor {
    /// Obeys one request. An error ends the stream.
    pub(super) fn request(&mut self, request: ExecuteRequest) -> Result<(), Status> {
        match request.order {
            Some(Order::Start(start)) => self.place(start),
            Some(Order::Stop(stop)) => {
                let stood = self.book.stop(&stop.check_name);
                tracing::info!(client = self.client_id, check = stop.check_name, stood, "order stopped");
                Ok(())
            }
            Some(Order::Commit(_)) => {
                let stopped = self.book.commit();
                tracing::info!(client = self.client_id, orders = self.book.standing(), stopped, "orders committed");
                Ok(())
            }
            Some(Order::Ack(Ack { session, sequence })) => {
                if session == self.session {
                    self.acknowledge(sequence);
                } else {
                    self.tally.odd_acknowledgements += 1;
                }
                Ok(())
            }
            Some(Order::RunOnce(once)) => {
                self.run_once(once);
                Ok(())
            }
            Some(Order::Hello(_)) => Err(invalid("order", "Hello is the first request and only the first")),
            None => Err(invalid("order", "is missing, or of a kind that this monitor does not know")),
        }
    }

    fn place(&mut self, start: Start) -> Result<(), Status> {
        let limit = self.shared.settings.limits.orders_per_client;
        let name = start.check.as_ref().map(|check| check.name.clone()).unwrap_or_default();
        if !self.book.contains(&name) && self.book.kept() >= limit {
            return Err(exhausted(&self.client_id, format!("a client may have {limit} orders (limits.orders_per_client)")));
        }
        match self.book.place(start, &self.shared.settings.name, &self.session, Now::read()) {
            Placed::New => tracing::debug!(client = self.client_id, check = name, "order placed"),
            Placed::Replaced => tracing::info!(client = self.client_id, check = name, "order replaced"),
            Placed::Unchanged => {}
        }
        Ok(())
    }

    fn run_once(&mut self, once: RunOnce) {
        let now = Now::read();
        let check = once.check.unwrap_or_default();
        let facts = Facts::new(&check, &once.revision, &self.shared.settings.name, &self.session);
        let left =
            once.expire_time.map(|expires| SystemTime::try_from(expires).ok().and_then(|expires| expires.duration_since(now.wall).ok()));
        if left == Some(None) {
            return self.append(facts.skipped(0, 1, now.wall, Reason::Expired));
        }
        let patience = facts.plan.as_ref().map(|plan| plan.timeout()).unwrap_or_default();
        let (patience, too_late) = match left.flatten() {
            Some(left) if left < patience => (left, Reason::Expired),
            _ => (patience, Reason::Overloaded),
        };
        let ticket = Ticket {
            order: None,
            facts: facts.into(),
            run: 0,
            due: now.monotonic,
            due_wall: now.wall,
            give_up: now.monotonic + patience,
            too_late,
        };
        self.runs.start(ticket, &self.shared);
    }

    pub(super) fn acknowledge(&mut self, sequence: u64) {
        if !self.journal.acknowledge(sequence) {
            self.tally.odd_acknowledgements += 1;
        }
        if self.journal.acknowledged() == self.journal.last() {
            self.book.forget_counted_out();
        }
    }
}
