//! What a client asks on its stream.

use tonic::Status;
use vantage_contract::v1::{Ack, ExecuteRequest, Start, execute_request::Order};
use vantage_daemon::audit::Event;

use super::Actor;
use crate::{
    book::Placed,
    order::Facts,
    schedule::Now,
    session::{exhausted, invalid},
};

impl Actor {
    /// Obeys one request. An error ends the stream.
    pub(super) fn request(&mut self, request: ExecuteRequest) -> Result<(), Status> {
        self.look();
        if matches!(request.order, Some(Order::Start(_) | Order::RunOnce(_))) {
            self.ask_for_room()?;
        }
        match request.order {
            Some(Order::Start(start)) => self.place(start),
            Some(Order::Stop(stop)) => {
                let stood = self.core.stop(&stop.check_name);
                if self.shared.settings.is_embedded {
                    tracing::info!(client = &*self.client_id, check = stop.check_name, stood, "order stopped");
                } else {
                    self.shared.audit.tell(Event::OrderStopped, |event| {
                        tracing::info!(target: "audit", event, client = &*self.client_id, check = stop.check_name, stood, "order stopped");
                    });
                }
                Ok(())
            }
            Some(Order::Commit(_)) => {
                let stopped = self.core.commit();
                tracing::info!(client = &*self.client_id, orders = self.core.book.standing(), stopped, "orders committed");
                Ok(())
            }
            Some(Order::Ack(Ack { session, sequence })) => {
                if !self.core.acknowledge(&session, sequence) {
                    self.core.tally.odd_acknowledgements += 1;
                }
                Ok(())
            }
            Some(Order::RunOnce(once)) => {
                let ticket = self.core.run_once(once, Now::read());
                if let Some(ticket) = ticket {
                    self.tell_asked(Event::ProbeOnce, &ticket.facts);
                    self.runs.start(ticket, &self.shared);
                }
                self.show();
                Ok(())
            }
            Some(Order::Hello(_)) => Err(invalid("order", "Hello is the first request and only the first")),
            None => Err(invalid("order", "is missing, or of a kind that this monitor does not know")),
        }
    }

    /// Refuses what would only add to what a slow or full disk has not taken yet: nothing that waits for it may grow without end.
    fn ask_for_room(&self) -> Result<(), Status> {
        let most = 2 * self.shared.settings.limits.orders_per_client + 1000;
        let bytes = 4 * self.shared.settings.journal.unwritten_bytes;
        if self.core.unwritten_orders() > most || self.core.usage().unwritten_bytes > bytes {
            let why = format!("the journal's disk is too slow, or takes nothing: {most} orders or {bytes} bytes wait for it already");
            return Err(exhausted(&self.client_id, why));
        }
        Ok(())
    }

    fn place(&mut self, start: Start) -> Result<(), Status> {
        let limit = self.shared.settings.limits.orders_per_client;
        let name = start.check.as_ref().map(|check| check.name.clone()).unwrap_or_default();
        if !self.core.book.contains(&name) && self.core.book.kept() >= limit {
            return Err(exhausted(&self.client_id, format!("a client may have {limit} orders (limits.orders_per_client)")));
        }
        if let Placed::New { id, replaced } = self.core.place(start, Now::read())
            && let Some(order) = self.core.book.order(id)
        {
            let event = if replaced.is_some() { Event::OrderReplaced } else { Event::OrderPlaced };
            self.tell_asked(event, &order.facts);
        }
        self.show();
        Ok(())
    }

    /// Tells of what was asked, and whether it can be run here at all. (Which addresses it may reach is decided when it dials.)
    fn tell_asked(&self, asked: Event, facts: &Facts) {
        let (client, check, kind, probe_target) = (&*self.client_id, facts.name(), facts.kind(), facts.target());
        let refusal = match &facts.plan {
            Err(invalid) => Some(format!("{}: {}", invalid.field, invalid.problem)),
            Ok(plan) => self.shared.policy.permit_plan(plan).err(),
        };
        match refusal {
            None if self.shared.settings.is_embedded => {
                tracing::debug!(client, check, kind, probe_target, "{}", asked.words());
            }
            None => self.shared.audit.tell(asked, |event| {
                tracing::info!(target: "audit", event, client, check, kind, probe_target, decision = "accepted", "{}", asked.words());
            }),
            Some(why) => self.shared.audit.tell(Event::OrderRefused, |event| {
                let asked = asked.name();
                tracing::warn!(target: "audit", event, asked, client, check, kind, probe_target, decision = "refused", why, "order refused");
            }),
        }
    }
}
