//! Orders that come and go.

use std::time::SystemTime;

use vantage_contract::v1::{Reason, RunOnce, Start};

use super::{Core, Row};
use crate::{
    book::{Gone, Placed, Ticket},
    journal::{Placement, nanos},
    ledger::Ledger,
    order::Facts,
    schedule::Now,
};

impl Core {
    /// Places an order, unless the identical one stands.
    pub(crate) fn place(&mut self, start: Start, now: Now) -> Placed {
        let placed = self.book.place(start, &self.monitor, now);
        let Placed::New { id, replaced } = placed else { return placed };
        replaced.into_iter().for_each(|gone| self.end(gone));
        let Some(order) = self.book.order(id) else { return Placed::New { id, replaced } };
        let runs_from = order.next_run;
        // Only with its anchor does a number of a run say which run it is.
        let resumed = order.start.resume_run.filter(|run| order.start.anchor.is_some() && *run < runs_from);
        let end = order.schedule.end();
        let placement = Placement {
            start: order.start.clone(),
            anchor_ns: nanos(order.schedule.anchor()),
            first_run: resumed.unwrap_or(runs_from),
            end: (end != u64::MAX).then_some(end),
        };
        let late = resumed.map(|run| order.facts.skipped(run, runs_from - run, order.schedule.due_wall(run), Reason::Expired));
        self.rows.insert(id, Row { ledger: Ledger::new(placement.first_run), end: None });
        self.changes.placed.push((id, placement));
        if let Some(record) = late {
            self.append(id, record, now);
        }
        Placed::New { id, replaced }
    }

    /// Ends an order. False: there was none of that name.
    pub(crate) fn stop(&mut self, name: &str) -> bool {
        let gone = self.book.stop(name);
        gone.into_iter().for_each(|gone| self.end(gone));
        gone.is_some()
    }

    /// Ends the orders that were not restated. Returns how many.
    pub(crate) fn commit(&mut self) -> usize {
        let gone = self.book.commit();
        let count = gone.len();
        gone.into_iter().for_each(|gone| self.end(gone));
        count
    }

    /// An order stands no more. What is left of its runs is remembered until it is accounted for.
    pub(super) fn end(&mut self, gone: Gone) {
        if let Some(row) = self.rows.get_mut(&gone.id) {
            row.end = Some(gone.end);
            self.changes.ended.push((gone.id, gone.end));
        }
    }

    /// A run for once, to be started now; none: it is too late for it, and accounted for.
    pub(crate) fn run_once(&mut self, once: RunOnce, now: Now) -> Option<Ticket> {
        let id = self.book.new_id();
        let check = once.check.unwrap_or_default();
        let facts = Facts::new(&check, &once.revision, &self.monitor);
        let start = Start { check: Some(check), revision: once.revision, ..Start::default() };
        self.rows.insert(id, Row { ledger: Ledger::new(0), end: Some(1) });
        self.changes.placed.push((id, Placement { start, anchor_ns: nanos(now.wall), first_run: 0, end: Some(1) }));
        self.changes.ended.push((id, 1));
        let left =
            once.expire_time.map(|expires| SystemTime::try_from(expires).ok().and_then(|expires| expires.duration_since(now.wall).ok()));
        if left == Some(None) {
            self.append(id, facts.skipped(0, 1, now.wall, Reason::Expired), now);
            return None;
        }
        let patience = facts.plan.as_ref().map(|plan| plan.timeout()).unwrap_or_default();
        let (patience, too_late) = match left.flatten() {
            Some(left) if left < patience => (left, Reason::Expired),
            _ => (patience, Reason::Overloaded),
        };
        Some(Ticket {
            order: id,
            facts: facts.into(),
            run: 0,
            due: now.monotonic,
            due_wall: now.wall,
            give_up: now.monotonic + patience,
            too_late,
        })
    }
}
