//! Which runs of an order have a record. Pure.

/// The runs of one order that are accounted for: all before `next` but one that may be open, as an order has one run in flight at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ledger {
    /// The first run after the last that is accounted for.
    pub next: u64,
    /// The run before `next` without a record: it was in flight when later ones were skipped for its sake.
    pub open: Option<u64>,
}

impl Ledger {
    /// Nothing is accounted for; the first run is `first`.
    pub fn new(first: u64) -> Self {
        Self { next: first, open: None }
    }

    /// Enters a record of `count` runs from `run` on.
    pub fn enter(&mut self, run: u64, count: u64) {
        if self.open == Some(run) && run < self.next {
            self.open = None;
            return;
        }
        if run > self.next {
            self.open = Some(self.next);
        }
        self.next = self.next.max(run.saturating_add(count.max(1)));
    }

    /// Whether all runs before `end` are accounted for.
    pub fn is_complete(&self, end: u64) -> bool {
        self.open.is_none() && self.next >= end
    }

    /// The runs before `end` that are not accounted for, as (first, count).
    pub fn missing(&self, end: u64) -> impl Iterator<Item = (u64, u64)> {
        let open = self.open.filter(|open| *open < end).map(|open| (open, 1));
        let rest = (self.next < end).then(|| (self.next, end - self.next));
        open.into_iter().chain(rest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_run_in_flight_stays_open_while_later_ones_are_skipped() {
        let mut ledger = Ledger::new(3);
        ledger.enter(4, 2);
        assert_eq!(ledger.missing(8).collect::<Vec<_>>(), [(3, 1), (6, 2)]);
        ledger.enter(3, 1);
        assert!(ledger.is_complete(6) && !ledger.is_complete(7));
    }

    proptest! {
        /// Runs start one at a time and end whenever they like; what comes due meanwhile is skipped. At each moment the ledger knows exactly
        /// which runs have a record.
        #[test]
        fn it_knows_exactly_what_has_no_record(steps in proptest::collection::vec((any::<bool>(), 1_u64..4), 0..60)) {
            let (mut ledger, mut due, mut busy) = (Ledger::new(0), 0, None);
            let mut recorded = std::collections::BTreeSet::new();
            for (ends, count) in steps {
                match busy {
                    Some(run) if ends => {
                        ledger.enter(run, 1);
                        recorded.insert(run);
                        busy = None;
                    }
                    Some(_) => {
                        ledger.enter(due, count);
                        recorded.extend(due..due + count);
                        due += count;
                    }
                    None => {
                        busy = Some(due);
                        due += 1;
                    }
                }
                let missing: Vec<u64> = ledger.missing(due).flat_map(|(first, count)| first..first + count).collect();
                prop_assert_eq!(missing, (0..due).filter(|run| !recorded.contains(run)).collect::<Vec<_>>());
            }
        }
    }
}
