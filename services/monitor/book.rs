//! The orders of one client, and which of their runs is due next. Pure: time is an argument.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
};

use tokio::time::Instant;
use vantage_contract::v1::{Reason, Start};

use crate::{
    journal::OrderId,
    order::{self, Facts, Order},
    schedule::Now,
};

/// What is due at once is handed out in parts: a client whose orders are all due together must not hold up the others.
const MOST_DUE: usize = 512;
/// Entries of orders that are gone, beyond as many as there are orders.
const STALE: usize = 1000;

/// What became of a Start.
#[derive(Debug, PartialEq, Eq)]
pub enum Placed {
    /// A new order stands.
    New {
        /// Its id.
        id: OrderId,
        /// The one of that name whose place it took.
        replaced: Option<Gone>,
    },
    /// An identical order stands already, and goes on.
    Unchanged,
}

/// An order that does not stand any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    /// Its id.
    pub id: OrderId,
    /// The first run that it does not have any more; those before are accounted for, or will be.
    pub end: u64,
}

/// What has to be done about a run that is due.
#[derive(Debug)]
pub enum Due {
    /// Run it.
    Run(Ticket),
    /// It can't be run any more: account for it.
    Skip {
        /// The order.
        order: OrderId,
        /// Whose run it is.
        facts: Arc<Facts>,
        /// The first run.
        run: u64,
        /// How many.
        count: u64,
        /// When the first was due.
        due: std::time::SystemTime,
        /// Why.
        reason: Reason,
    },
}

/// A run that is to be started.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// The order; a RunOnce has an id too, and no place in the book.
    pub order: OrderId,
    /// Whose run it is.
    pub facts: Arc<Facts>,
    /// Its number.
    pub run: u64,
    /// When it was due, on the monotonic clock.
    pub due: Instant,
    /// When it was due, on the wall clock.
    pub due_wall: std::time::SystemTime,
    /// If it has not started by then, it is too late.
    pub give_up: Instant,
    /// What it is then.
    pub too_late: Reason,
}

/// The orders of one client.
#[derive(Debug, Default)]
pub struct Book {
    orders: HashMap<OrderId, Order>,
    by_name: HashMap<String, OrderId>,
    /// When each order's next run is due; entries of orders that are gone, or whose next run is another, are stale and passed over.
    agenda: BinaryHeap<Reverse<(Instant, OrderId, u64)>>,
    /// Runs that all orders together have in a second, in thousandths.
    milliruns_per_second: u64,
    last_id: OrderId,
}

impl Book {
    /// How many orders stand, counted-out ones not included.
    pub fn standing(&self) -> usize {
        self.orders.values().filter(|order| !order.is_counted_out()).count()
    }

    /// How many orders are kept, counted-out ones included.
    pub fn kept(&self) -> usize {
        self.orders.len()
    }

    /// How many runs a second there would be with this order, in the place of the one of its name.
    pub fn runs_per_second_with(&self, start: &Start) -> u64 {
        let name = start.check.as_ref().map(|check| check.name.as_str()).unwrap_or_default();
        let replaced = self.by_name.get(name).and_then(|id| self.orders.get(id)).map_or(0, Order::milliruns_per_second);
        let rest = self.milliruns_per_second.saturating_sub(replaced);
        rest.saturating_add(order::milliruns_per_second(start)).div_ceil(1000)
    }

    /// The order of that name, and its id.
    pub fn named(&self, name: &str) -> Option<&Order> {
        self.by_name.get(name).and_then(|id| self.orders.get(id))
    }

    /// All orders that are kept.
    pub fn all(&self) -> impl Iterator<Item = &Order> {
        self.orders.values()
    }

    /// Whether an order of that name is kept.
    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// An id that no order has.
    pub fn new_id(&mut self) -> OrderId {
        self.last_id += 1;
        self.last_id
    }

    /// Says that this id was given before.
    pub fn know_id(&mut self, id: OrderId) {
        self.last_id = self.last_id.max(id);
    }

    /// The order of that id.
    pub fn order(&self, id: OrderId) -> Option<&Order> {
        self.orders.get(&id)
    }

    /// Places an order, unless an identical one stands.
    pub fn place(&mut self, start: Start, monitor: &str, now: Now) -> Placed {
        let name = start.check.as_ref().map(|check| check.name.clone()).unwrap_or_default();
        let before = self.by_name.get(&name).copied();
        if let Some(standing) = before.and_then(|id| self.orders.get_mut(&id))
            && standing.is(&start)
        {
            standing.restated = true;
            return Placed::Unchanged;
        }
        let replaced = before.and_then(|id| self.remove(id));
        let id = self.new_id();
        self.stand(id, Order::place(start, monitor, now));
        Placed::New { id, replaced }
    }

    /// Takes in an order that stood before.
    pub fn stand(&mut self, id: OrderId, order: Order) {
        self.know_id(id);
        let name = order.start.check.as_ref().map(|check| check.name.clone()).unwrap_or_default();
        self.plan_next(id, &order);
        self.milliruns_per_second += order.milliruns_per_second();
        self.orders.insert(id, order);
        self.by_name.insert(name, id);
    }

    fn remove(&mut self, id: OrderId) -> Option<Gone> {
        let order = self.orders.remove(&id)?;
        self.milliruns_per_second = self.milliruns_per_second.saturating_sub(order.milliruns_per_second());
        Some(Gone { id, end: order.next_run })
    }

    /// Ends an order, if there is one of that name.
    pub fn stop(&mut self, name: &str) -> Option<Gone> {
        self.by_name.remove(name).and_then(|id| self.remove(id))
    }

    /// Begins a restatement: from here on, orders have to be restated to outlive [`commit`](Book::commit).
    pub fn begin_restatement(&mut self) {
        for order in self.orders.values_mut() {
            order.restated = false;
        }
    }

    /// Ends orders that were not restated. Returns them.
    pub fn commit(&mut self) -> Vec<Gone> {
        self.end_all(|order| order.restated)
    }

    /// Ends all orders. Returns how many.
    pub fn clear(&mut self) -> usize {
        self.end_all(|_| false).len()
    }

    /// Forgets orders that are counted out and idle, and returns them; to be called when nothing of theirs is unacknowledged, so that a client
    /// that comes back before it knew the end finds them.
    pub fn forget_counted_out(&mut self) -> Vec<Gone> {
        self.end_all(|order| !order.is_counted_out() || order.busy.is_some())
    }

    fn end_all(&mut self, stays: impl Fn(&Order) -> bool) -> Vec<Gone> {
        let gone: Vec<OrderId> = self.orders.iter().filter(|(_, order)| !stays(order)).map(|(id, _)| *id).collect();
        if gone.is_empty() {
            return Vec::new();
        }
        let gone = gone.into_iter().filter_map(|id| self.remove(id)).collect();
        self.by_name.retain(|_, id| self.orders.contains_key(id));
        gone
    }

    /// Follows the wall clock, after it came apart from the monotonic one. Returns the runs that it jumped over.
    pub fn realign(&mut self, now: Now) -> Vec<Due> {
        let (mut skipped, mut agenda) = (Vec::new(), BinaryHeap::new());
        for (id, order) in &mut self.orders {
            if order.is_counted_out() {
                continue;
            }
            let (next, first) = (order.next_run, order.schedule.realign(order.next_run, now).min(order.schedule.end()));
            if first > next {
                skipped.push(order.skip(*id, next, first - next, Reason::ClockJump));
                order.next_run = first;
            }
            if !order.is_counted_out() {
                agenda.push(Reverse((order.schedule.due(order.next_run), *id, order.next_run)));
            }
        }
        self.agenda = agenda;
        skipped
    }

    /// When something will be due next.
    pub fn next_due(&self) -> Option<Instant> {
        self.agenda.peek().map(|Reverse((due, ..))| *due)
    }

    /// What is due `now`, in the order of being due. Where that is much, the rest comes when it is asked for again.
    pub fn due(&mut self, now: Instant) -> Vec<Due> {
        let mut dues = Vec::new();
        while let Some(Reverse((at, id, run))) = self.agenda.peek().copied()
            && at <= now
            && dues.len() < MOST_DUE
        {
            self.agenda.pop();
            let Some(order) = self.orders.get_mut(&id).filter(|order| order.next_run == run) else { continue };
            let Some(last) = order.schedule.last_due(run, now) else { continue };
            if last > run {
                dues.push(order.skip(id, run, last - run, Reason::Overloaded));
            }
            order.next_run = last + 1;
            if order.busy.is_some() {
                dues.push(order.skip(id, last, 1, Reason::StillRunning));
            } else {
                order.busy = Some(last);
                dues.push(Due::Run(Ticket {
                    order: id,
                    facts: Arc::clone(&order.facts),
                    run: last,
                    due: order.schedule.due(last),
                    due_wall: order.schedule.due_wall(last),
                    // A little before the next one, so that a run that never came to its turn does not cost the next its own.
                    give_up: order.schedule.due(last + 1) - order.schedule.interval() / 10,
                    too_late: Reason::Overloaded,
                }));
            }
            if !order.is_counted_out() {
                self.agenda.push(Reverse((order.schedule.due(last + 1), id, last + 1)));
            }
        }
        dues
    }

    /// A run of an order has ended.
    pub fn ended(&mut self, id: OrderId) {
        if let Some(order) = self.orders.get_mut(&id) {
            order.busy = None;
        }
    }

    fn plan_next(&mut self, id: OrderId, order: &Order) {
        if !order.is_counted_out() {
            self.agenda.push(Reverse((order.schedule.due(order.next_run), id, order.next_run)));
        }
        // Entries of orders that are gone would lie here until they are due, which may be days.
        if self.agenda.len() > 2 * self.orders.len() + STALE {
            let orders = &self.orders;
            self.agenda.retain(|Reverse((_, of, run))| *of == id || orders.get(of).is_some_and(|order| order.next_run == *run));
        }
    }
}

impl Order {
    fn skip(&self, id: OrderId, run: u64, count: u64, reason: Reason) -> Due {
        Due::Skip { order: id, facts: Arc::clone(&self.facts), run, count, due: self.schedule.due_wall(run), reason }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use prost_types::Timestamp;
    use vantage_contract::v1::Check;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn start(name: &str, revision: &str, count: u64, now: Now) -> Start {
        let check = Check { name: name.into(), interval: Some(prost_types::Duration { seconds: 1, nanos: 0 }), count, ..Check::default() };
        Start { check: Some(check), revision: revision.into(), anchor: Some(Timestamp::from(now.wall)), ..Start::default() }
    }

    fn runs(dues: &[Due]) -> Vec<(u64, u64, Option<Reason>)> {
        dues.iter()
            .map(|due| match due {
                Due::Run(ticket) => (ticket.run, 1, None),
                Due::Skip { run, count, reason, .. } => (*run, *count, Some(*reason)),
            })
            .collect()
    }

    #[test]
    fn restating_an_identical_order_changes_nothing() {
        let (mut book, now) = (Book::default(), Now::read());
        assert!(matches!(book.place(start("a", "1", 0, now), "m", now), Placed::New { replaced: None, .. }));
        assert_eq!(runs(&book.due(now.monotonic)), [(0, 1, None)]);
        book.begin_restatement();
        assert_eq!(book.place(start("a", "1", 0, now), "m", now), Placed::Unchanged);
        assert!(book.commit().is_empty());
        assert!(book.due(now.monotonic).is_empty());
    }

    #[test]
    fn a_changed_order_starts_again_and_its_old_run_does_not_block_it() {
        let (mut book, now) = (Book::default(), Now::read());
        book.place(start("a", "1", 0, now), "m", now);
        assert_eq!(runs(&book.due(now.monotonic)), [(0, 1, None)]);
        assert!(matches!(book.place(start("a", "2", 0, now), "m", now), Placed::New { replaced: Some(Gone { id: 1, end: 1 }), .. }));
        assert_eq!(runs(&book.due(now.monotonic)), [(0, 1, None)]);
        assert_eq!(book.standing(), 1);
    }

    #[test]
    fn orders_not_restated_stop_at_commit_and_not_before() {
        let (mut book, now) = (Book::default(), Now::read());
        book.place(start("a", "1", 0, now), "m", now);
        book.place(start("b", "1", 0, now), "m", now);
        book.begin_restatement();
        book.place(start("b", "1", 0, now), "m", now);
        assert_eq!(book.standing(), 2);
        assert_eq!(book.commit().len(), 1);
        assert!(!book.contains("a") && book.contains("b"));
    }

    #[test]
    fn a_run_still_going_on_is_not_run_twice() {
        let (mut book, now) = (Book::default(), Now::read());
        book.place(start("a", "1", 0, now), "m", now);
        assert_eq!(runs(&book.due(now.monotonic)), [(0, 1, None)]);
        assert_eq!(runs(&book.due(now.monotonic + SECOND)), [(1, 1, Some(Reason::StillRunning))]);
        book.ended(1);
        assert_eq!(runs(&book.due(now.monotonic + 2 * SECOND)), [(2, 1, None)]);
    }

    #[test]
    fn runs_slept_through_are_one_range_and_the_newest_is_run() {
        let (mut book, now) = (Book::default(), Now::read());
        book.place(start("a", "1", 0, now), "m", now);
        assert_eq!(runs(&book.due(now.monotonic + 5 * SECOND)), [(0, 5, Some(Reason::Overloaded)), (5, 1, None)]);
    }

    #[test]
    fn an_anchor_that_is_told_again_restates_the_order_and_another_one_replaces_it() {
        let (mut book, now) = (Book::default(), Now::read());
        let plain = Start { anchor: None, ..start("a", "1", 0, now) };
        book.place(plain.clone(), "m", now);
        let anchor = book.orders.values().next().unwrap().schedule.anchor();
        let told = Start { anchor: Some(Timestamp::from(anchor)), resume_run: Some(7), ..plain.clone() };
        assert_eq!(book.place(told, "m", now), Placed::Unchanged);
        assert_eq!(book.place(plain.clone(), "m", now), Placed::Unchanged);
        let other = Start { anchor: Some(Timestamp::from(anchor + SECOND)), ..plain };
        assert!(matches!(book.place(other, "m", now), Placed::New { replaced: Some(_), .. }));
    }

    #[test]
    fn a_clock_that_jumps_forward_skips_a_range_and_goes_on() {
        let (mut book, now) = (Book::default(), Now::read());
        book.place(start("a", "1", 0, now), "m", now);
        assert_eq!(runs(&book.due(now.monotonic)), [(0, 1, None)]);
        book.ended(1);
        let woken = Now { monotonic: now.monotonic + SECOND / 2, wall: now.wall + 60 * SECOND };
        assert_eq!(runs(&book.realign(woken)), [(1, 59, Some(Reason::ClockJump))]);
        assert_eq!(runs(&book.due(woken.monotonic)), [(60, 1, None)]);
    }

    #[test]
    fn a_counted_order_ends_and_is_kept_until_it_may_be_forgotten() {
        let (mut book, now) = (Book::default(), Now::read());
        book.place(start("a", "1", 2, now), "m", now);
        assert_eq!(runs(&book.due(now.monotonic)), [(0, 1, None)]);
        book.ended(1);
        assert_eq!(runs(&book.due(now.monotonic + 9 * SECOND)), [(1, 1, None)]);
        assert_eq!((book.standing(), book.kept()), (0, 1));
        assert_eq!(book.place(start("a", "1", 2, now), "m", now), Placed::Unchanged);
        book.forget_counted_out();
        assert_eq!(book.kept(), 1, "its last run is still going on");
        book.ended(1);
        book.forget_counted_out();
        assert_eq!((book.kept(), book.next_due()), (0, None));
    }

    proptest! {
        /// However irregularly the clock is looked at, and however long runs take, each run is accounted for exactly once, in order.
        #[test]
        fn every_run_is_due_exactly_once(steps in proptest::collection::vec((0_u64..4000, any::<bool>()), 1..100), count in 1_u64..200) {
            let (mut book, now) = (Book::default(), Now::read());
            book.place(start("a", "1", count, now), "m", now);
            let (mut at, mut next) = (now.monotonic, 0);
            for (millis, ends) in steps {
                at += Duration::from_millis(millis);
                for (run, count, _) in runs(&book.due(at)) {
                    prop_assert_eq!(run, next);
                    next += count;
                }
                prop_assert!(next <= count);
                if ends {
                    book.ended(1);
                }
            }
            let elapsed = u64::try_from((at - now.monotonic).as_millis()).unwrap_or(u64::MAX);
            prop_assert_eq!(next, (elapsed / 1000 + 1).min(count));
        }
    }
}
