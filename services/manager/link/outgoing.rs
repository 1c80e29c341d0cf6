//! What is still to be said on a stream.

use std::collections::{BTreeMap, VecDeque};

use prost_types::Timestamp;
use vantage_contract::v1::{Ack, Commit, ExecuteRequest, Start, Stop, execute_request::Order};

use super::stream::ask;
use crate::{plan::Changes, store::Standing};

/// What is still to be said. Acknowledgements are cumulative, so only the newest of each session counts. Orders are bounded by those that
/// the monitor has and those that it should have: a change is taken up when the one before it has been said.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    acks: BTreeMap<String, u64>,
    orders: VecDeque<ExecuteRequest>,
}

impl Outgoing {
    pub(super) fn is_empty(&self) -> bool {
        self.acks.is_empty() && self.orders.is_empty()
    }

    /// Whether all orders have been said.
    pub(super) fn is_settled(&self) -> bool {
        self.orders.is_empty()
    }

    /// What is to be said next. Acknowledgements first: they make room on the monitor.
    pub(super) fn next(&mut self) -> Option<ExecuteRequest> {
        match self.acks.pop_first() {
            Some((session, sequence)) => Some(ask(Order::Ack(Ack { session, sequence }))),
            None => self.orders.pop_front(),
        }
    }

    /// Acknowledges a session up to a sequence.
    pub(super) fn acknowledge(&mut self, session: &str, sequence: u64) {
        match self.acks.get_mut(session) {
            Some(newest) => *newest = sequence.max(*newest),
            None => drop(self.acks.insert(session.to_owned(), sequence)),
        }
    }

    /// States all orders, as they stand, and closes the statement.
    pub(super) fn restate<'o>(&mut self, orders: impl IntoIterator<Item = (&'o Start, Standing)>) {
        self.start(orders);
        self.orders.push_back(ask(Order::Commit(Commit {})));
    }

    /// Says what has changed.
    pub(super) fn change(&mut self, changes: &Changes, standings: Vec<Standing>) {
        self.orders.extend(changes.stops.iter().map(|check_name| ask(Order::Stop(Stop { check_name: check_name.clone() }))));
        self.start(changes.starts.iter().zip(standings));
    }

    fn start<'o>(&mut self, orders: impl IntoIterator<Item = (&'o Start, Standing)>) {
        self.orders
            .extend(orders.into_iter().filter_map(|(start, standing)| as_it_stands(start, standing)).map(|start| ask(Order::Start(start))));
    }
}

/// An order as it has to be placed: with the runs that are known of it. None where all its runs are accounted for; placed again, it would
/// run once more.
fn as_it_stands(start: &Start, standing: Standing) -> Option<Start> {
    let count = start.check.as_ref().map_or(0, |check| check.count);
    if count > 0 && standing.accounted_count >= count {
        return None;
    }
    // Without an anchor a run has no number that means anything.
    let resume_run = standing.anchor.and(standing.next_run);
    Some(Start { anchor: standing.anchor.map(Timestamp::from), resume_run, ..start.clone() })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use vantage_contract::v1::Check;

    use super::*;

    fn standing(accounted_count: u64) -> Standing {
        let anchor = SystemTime::UNIX_EPOCH + Duration::new(1_795_335_545, 123_456_789);
        Standing { anchor: Some(anchor), next_run: Some(accounted_count), accounted_count }
    }

    fn start(count: u64) -> Start {
        Start { check: Some(Check { name: "a".into(), count, ..Check::default() }), revision: "r".into(), ..Start::default() }
    }

    #[test]
    fn an_order_that_is_known_is_placed_with_its_anchor_and_the_first_run_without_account() {
        let placed = as_it_stands(&start(0), standing(7)).unwrap();
        assert_eq!((placed.anchor, placed.resume_run), (Some(Timestamp { seconds: 1_795_335_545, nanos: 123_456_789 }), Some(7)));
        assert_eq!(as_it_stands(&start(0), Standing::default()), Some(start(0)));
    }

    #[test]
    fn an_order_whose_count_is_used_up_is_not_placed() {
        assert!(as_it_stands(&start(4), standing(3)).is_some());
        assert!(as_it_stands(&start(4), standing(4)).is_none());
    }

    #[test]
    fn only_the_newest_acknowledgement_of_a_session_is_said_and_before_any_order() {
        let mut outgoing = Outgoing::default();
        outgoing.restate([(&start(0), Standing::default())]);
        for sequence in [3, 9, 5] {
            outgoing.acknowledge("s", sequence);
        }
        assert_eq!(outgoing.next(), Some(ask(Order::Ack(Ack { session: "s".into(), sequence: 9 }))));
        assert_eq!(outgoing.next(), Some(ask(Order::Start(start(0)))));
        assert!(!outgoing.is_settled());
        assert_eq!(outgoing.next(), Some(ask(Order::Commit(Commit {}))));
        assert!(outgoing.is_empty() && outgoing.is_settled());
    }
}
