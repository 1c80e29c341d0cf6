//! What a session makes of what the process before it left.

use vantage_contract::v1::Reason;

use super::{Core, Row};
use crate::{
    book::Gone,
    journal::{Bounds, Lane, StoredClient, StoredOrder},
    order::Order,
    schedule::Now,
};

impl Core {
    /// Goes on where the process before was: its orders run on, and what they missed meanwhile is accounted for.
    pub(crate) fn resume(stored: StoredClient, monitor: &str, bounds: Bounds, now: Now) -> Self {
        let mut core = Self::empty(monitor, bounds, now);
        // A monitor that was renamed begins a session: the name is part of what names a result.
        let is_ours = stored.lanes.last().is_some_and(|lane| lane.monitor == monitor);
        core.lanes = stored.lanes.into_iter().map(|lane| Lane::resume(lane, bounds, now)).collect();
        if !is_ours {
            core.open_lane();
        }
        for order in stored.orders {
            core.resume_order(order, now);
        }
        core
    }

    fn resume_order(&mut self, stored: StoredOrder, now: Now) {
        let StoredOrder { id, start, anchor, ledger, end, ended } = stored;
        self.book.know_id(id);
        self.rows.insert(id, Row { ledger, end: None });
        let order = Order::resume(start, &self.monitor, anchor, ledger.next, now);
        // Of an order that ended only what was under way is left; of one that stands, what was due until now.
        let until = if ended { end.unwrap_or_default() } else { order.next_run };
        for (run, count) in ledger.missing(until) {
            let record = order.facts.skipped(run, count, order.schedule.due_wall(run), Reason::MonitorDown);
            self.append(id, record, now);
        }
        if ended {
            self.end(Gone { id, end: until });
        } else {
            self.book.stand(id, order);
        }
    }
}
