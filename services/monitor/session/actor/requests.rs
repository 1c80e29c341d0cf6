//! What a client asks on its stream.

use tonic::Status;
use vantage_contract::v1::{Ack, ExecuteRequest, RunOnce, Start, execute_request::Order};
use vantage_daemon::audit::Event;

use super::Actor;
use crate::{
    book::Placed,
    holdings::{Held, weight},
    order::Facts,
    schedule::Now,
    session::{exhausted, invalid, limit},
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
            Some(Order::RunOnce(once)) => self.once(once),
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

    /// Refuses what is new where the journal is full of accounts: each order has one at least, and nothing makes it smaller.
    fn ask_for_accounts(&self) -> Result<(), Status> {
        let (most, own) = (self.core.most_bytes(), self.shared.settings.bounds().bytes);
        if self.core.usage().settled_bytes <= most {
            return Ok(());
        }
        let what = "bytes of accounts of results that a client did not take in time";
        match self.shared.settings.total_bytes().filter(|_| most < own) {
            Some(total) => {
                Err(limit(&self.client_id, "journal.total_bytes", total, "bytes of results, and of accounts of dropped ones, of all"))
            }
            None => Err(limit(&self.client_id, "journal.bytes", own, what)),
        }
    }

    fn once(&mut self, once: RunOnce) -> Result<(), Status> {
        self.ask_for_accounts()?;
        let held = self.hold(weight(&once, 0))?;
        if let Some(ticket) = self.core.run_once(once, Now::read()) {
            ticket.facts.count(held);
            self.tell_asked(Event::ProbeOnce, &ticket.facts);
            self.runs.start(ticket, &self.shared);
        }
        self.show();
        Ok(())
    }

    /// Holds so many bytes for an order, or refuses it.
    fn hold(&self, bytes: u64) -> Result<Held, Status> {
        let what = |setting: &str| if setting == "limits.order_bytes" { "bytes of all orders" } else { "bytes of one client's orders" };
        self.share
            .hold(bytes, &self.shared.settings.limits)
            .map_err(|(setting, value)| limit(&self.client_id, setting, value, what(setting)))
    }

    fn place(&mut self, start: Start) -> Result<(), Status> {
        let limits = &self.shared.settings.limits;
        let name = start.check.as_ref().map(|check| check.name.clone()).unwrap_or_default();
        let standing = self.core.book.named(&name);
        if !standing.is_some_and(|standing| standing.is(&start)) {
            if standing.is_none() && self.core.book.kept() >= limits.orders_per_client {
                return Err(limit(&self.client_id, "limits.orders_per_client", limits.orders_per_client, "orders of one client"));
            }
            if self.core.book.runs_per_second_with(&start) > u64::from(limits.runs_per_second) {
                let what = "runs in a second of all orders of one client";
                return Err(limit(&self.client_id, "limits.runs_per_second", limits.runs_per_second, what));
            }
            self.ask_for_accounts()?;
            // Before its regular expressions are made: those are bounded, and counted then.
            drop(self.hold(weight(&start, 0))?);
        }
        let placed = self.core.place(start, Now::read());
        if let Placed::New { id, replaced } = placed
            && let Some(order) = self.core.book.order(id)
        {
            match self.hold(order.facts.weight(&order.start)) {
                Ok(held) => order.facts.count(held),
                Err(status) => {
                    self.core.stop(&name);
                    return Err(status);
                }
            }
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
