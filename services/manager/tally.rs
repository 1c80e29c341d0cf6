//! Orders that end: how many of their runs are accounted for. Pure.
//!
//! How many were accounted for before this stream the ledger knows ([`Standing::accounted_count`](crate::store::Standing)); what comes new
//! on the stream is counted here.

use std::collections::BTreeMap;

use vantage_contract::v1::{ProbeResult, Start};

use crate::plan::Plan;

/// Counts accounted runs of the orders of a plan.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    plan: Plan,
    /// By link and check.
    accounted: BTreeMap<(String, String), Accounted>,
}

#[derive(Debug, Default)]
struct Accounted {
    revision: String,
    runs: u64,
}

impl Tally {
    /// Says which orders there are, from now on. Those of the same revision keep what was counted.
    pub(crate) fn expect(&mut self, plan: Plan) {
        let mut accounted = BTreeMap::new();
        for (link, orders) in &plan.monitors {
            for (name, start) in orders {
                let key = (link.clone(), name.clone());
                let kept = self.accounted.remove(&key).filter(|kept| kept.revision == start.revision);
                accounted.insert(key, kept.unwrap_or_else(|| Accounted { revision: start.revision.clone(), runs: 0 }));
            }
        }
        (self.plan, self.accounted) = (plan, accounted);
    }

    /// Says how many runs of an order are accounted for, by what the ledger knows, before any more results of this link are taken.
    pub(crate) fn seed(&mut self, link: &str, start: &Start, runs: u64) {
        let Some(check) = &start.check else { return };
        if let Some(accounted) = self.of(link, &check.name, &start.revision) {
            accounted.runs = runs;
        }
    }

    /// Counts a result that is new.
    pub(crate) fn add(&mut self, link: &str, result: &ProbeResult) {
        if let Some(accounted) = self.of(link, &result.check_name, &result.revision) {
            accounted.runs = accounted.runs.saturating_add(result.run_count.max(1));
        }
    }

    /// Whether there is nothing left to wait for: every order has a count, and all its runs are accounted for.
    pub(crate) fn done(&self) -> bool {
        let mut orders = self.plan.monitors.iter().flat_map(|(link, orders)| orders.iter().map(move |order| (link, order)));
        !self.accounted.is_empty() && orders.all(|(link, (name, start))| self.counted_out(link, name, start))
    }

    fn counted_out(&self, link: &str, name: &str, start: &Start) -> bool {
        let count = start.check.as_ref().map_or(0, |check| check.count);
        count > 0 && self.accounted.get(&(link.to_owned(), name.to_owned())).is_some_and(|accounted| accounted.runs >= count)
    }

    fn of(&mut self, link: &str, check: &str, revision: &str) -> Option<&mut Accounted> {
        self.accounted.get_mut(&(link.to_owned(), check.to_owned())).filter(|accounted| accounted.revision == revision)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vantage_contract::v1::{Check, MonitorAddress};

    use super::*;
    use crate::plan;

    fn plan(checks: &[(&str, u64)], monitors: &[&str]) -> Plan {
        let checks: Vec<_> = checks.iter().map(|(name, count)| Check { name: (*name).into(), count: *count, ..Check::default() }).collect();
        let monitors: Vec<_> = monitors.iter().map(|name| MonitorAddress { name: (*name).into(), ..MonitorAddress::default() }).collect();
        plan::place(&checks, &monitors).unwrap()
    }

    fn result(start: &Start, run_count: u64) -> ProbeResult {
        let check_name = start.check.as_ref().unwrap().name.clone();
        ProbeResult { check_name, revision: start.revision.clone(), run_count, ..ProbeResult::default() }
    }

    #[test]
    fn all_is_done_when_every_check_is_counted_out_on_every_monitor() {
        let plan = plan(&[("a", 4)], &["m", "n"]);
        let start = plan.monitors["m"]["a"].clone();
        let mut tally = Tally::default();
        tally.expect(plan);
        assert!(!tally.done());
        // A record for runs that did not happen accounts for several.
        tally.add("m", &result(&start, 3));
        assert!(!tally.counted_out("m", "a", &start));
        tally.add("m", &result(&start, 1));
        assert!(tally.counted_out("m", "a", &start));
        assert!(!tally.counted_out("n", "a", &start) && !tally.done());
        tally.add("n", &result(&start, 4));
        assert!(tally.done());
    }

    #[test]
    fn what_the_ledger_knows_counts_and_what_comes_new_counts_from_there() {
        let plan = plan(&[("a", 4)], &["m"]);
        let start = plan.monitors["m"]["a"].clone();
        let mut tally = Tally::default();
        tally.expect(plan.clone());
        tally.add("m", &result(&start, 3));
        // After a cut the ledger says again what is accounted for, what was counted here included.
        tally.seed("m", &start, 3);
        assert!(!tally.done());
        tally.add("m", &result(&start, 1));
        assert!(tally.done());
        // A new process.
        let mut tally = Tally::default();
        tally.expect(plan);
        tally.seed("m", &start, 4);
        assert!(tally.done());
    }

    #[test]
    fn what_the_ledger_knows_of_another_revision_does_not_count() {
        let (before, after) = (plan(&[("a", 4)], &["m"]), plan(&[("a", 2)], &["m"]));
        let mut tally = Tally::default();
        tally.expect(after);
        tally.seed("m", &before.monitors["m"]["a"], 4);
        assert!(!tally.done());
    }

    proptest! {
        #[test]
        fn however_often_it_is_seeded_it_is_done_when_the_ledger_has_all_runs(
            records in prop::collection::vec((1u64..5, any::<bool>()), 1..30),
            count in 1u64..60,
        ) {
            let plan = plan(&[("a", count)], &["m"]);
            let start = plan.monitors["m"]["a"].clone();
            let (mut tally, mut ledger) = (Tally::default(), 0);
            tally.expect(plan);
            for (runs, cut) in records {
                if cut {
                    tally.seed("m", &start, ledger);
                }
                tally.add("m", &result(&start, runs));
                ledger += runs;
                prop_assert_eq!(tally.done(), ledger >= count);
            }
        }
    }

    #[test]
    fn a_check_for_ever_is_never_done_nor_is_an_empty_plan() {
        let plan = plan(&[("a", 0)], &["m"]);
        let start = plan.monitors["m"]["a"].clone();
        let mut tally = Tally::default();
        assert!(!tally.done());
        tally.expect(plan);
        tally.add("m", &result(&start, 1000));
        assert!(!tally.counted_out("m", "a", &start) && !tally.done());
    }

    #[test]
    fn a_changed_check_is_counted_anew_and_others_are_not() {
        let mut tally = Tally::default();
        let before = plan(&[("a", 1), ("b", 1)], &["m"]);
        let (a, b) = (before.monitors["m"]["a"].clone(), before.monitors["m"]["b"].clone());
        tally.expect(before);
        tally.add("m", &result(&a, 1));
        tally.add("m", &result(&b, 1));
        assert!(tally.done());
        let after = plan(&[("a", 2), ("b", 1)], &["m"]);
        let changed = after.monitors["m"]["a"].clone();
        tally.expect(after);
        assert!(!tally.done() && tally.counted_out("m", "b", &b));
        // A late result of the old revision does not count for the new one.
        tally.add("m", &result(&a, 2));
        assert!(!tally.counted_out("m", "a", &changed));
    }
}
