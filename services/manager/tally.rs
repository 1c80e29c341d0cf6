//! Orders that end: how many of their runs are accounted for. Pure.
//!
//! A manager that was restarted finds its orders half done, and what was acknowledged before does not come again. It sees that by the
//! first run that ran: an order has one run in flight at a time, so all runs before that one are accounted for, here or earlier.

use std::collections::BTreeMap;

use vantage_contract::v1::{Outcome, ProbeResult, Start};

use crate::plan::Plan;

/// Counts accounted runs of the orders of a plan, since this process started.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    plan: Plan,
    /// By link and check.
    accounted: BTreeMap<(String, String), Accounted>,
}

#[derive(Debug, Default)]
struct Accounted {
    revision: String,
    /// Runs that results told of here, in all sessions: a monitor that forgot an order begins it anew.
    runs: u64,
    /// By session: an order goes on as long as its session does.
    sessions: BTreeMap<String, InSession>,
}

#[derive(Debug, Default)]
struct InSession {
    runs: u64,
    /// Runs accounted for before this process came; known once one ran.
    earlier: Option<u64>,
    /// What was told of before that: first run and number of runs.
    waiting: Vec<(u64, u64)>,
}

impl Accounted {
    /// Whether so many runs are accounted for.
    fn all_of(&self, count: u64) -> bool {
        let in_session = |session: &InSession| session.earlier.is_some_and(|earlier| earlier.saturating_add(session.runs) >= count);
        self.runs >= count || self.sessions.values().any(in_session)
    }
}

impl InSession {
    fn add(&mut self, result: &ProbeResult, runs: u64) {
        self.runs = self.runs.saturating_add(runs);
        if self.earlier.is_some() {
            return;
        }
        self.waiting.push((result.run, runs));
        if result.outcome() != Outcome::Skipped {
            let told = |(first, runs): (u64, u64)| result.run.saturating_sub(first).min(runs);
            let told = self.waiting.drain(..).map(told).sum();
            self.earlier = Some(result.run.saturating_sub(told));
        }
    }
}

impl Tally {
    /// Says which orders there are, from now on. Those of the same revision keep what was counted.
    pub(crate) fn expect(&mut self, plan: Plan) {
        let mut accounted = BTreeMap::new();
        for (link, orders) in &plan.monitors {
            for (name, start) in orders {
                let key = (link.clone(), name.clone());
                let kept = self.accounted.remove(&key).filter(|kept| kept.revision == start.revision);
                accounted.insert(key, kept.unwrap_or_else(|| Accounted { revision: start.revision.clone(), ..Accounted::default() }));
            }
        }
        (self.plan, self.accounted) = (plan, accounted);
    }

    /// Counts a result that is new.
    pub(crate) fn add(&mut self, link: &str, result: &ProbeResult) {
        if let Some(accounted) = self.accounted.get_mut(&(link.to_owned(), result.check_name.clone()))
            && accounted.revision == result.revision
        {
            let runs = result.run_count.max(1);
            accounted.runs = accounted.runs.saturating_add(runs);
            accounted.sessions.entry(result.session.clone()).or_default().add(result, runs);
        }
    }

    /// Whether an order has a count, and all its runs are accounted for.
    pub(crate) fn counted_out(&self, link: &str, start: &Start) -> bool {
        let Some(check) = &start.check else { return false };
        let accounted = self.accounted.get(&(link.to_owned(), check.name.clone()));
        check.count > 0 && accounted.is_some_and(|accounted| accounted.revision == start.revision && accounted.all_of(check.count))
    }

    /// Whether there is nothing left to wait for: every order is counted out.
    pub(crate) fn done(&self) -> bool {
        let mut orders = self.plan.monitors.iter().flat_map(|(link, orders)| orders.values().map(move |start| (link, start)));
        !self.accounted.is_empty() && orders.all(|(link, start)| self.counted_out(link, start))
    }
}

#[cfg(test)]
mod tests {
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
        assert!(!tally.counted_out("m", &start));
        tally.add("m", &result(&start, 1));
        assert!(tally.counted_out("m", &start));
        assert!(!tally.counted_out("n", &start) && !tally.done());
        tally.add("n", &result(&start, 4));
        assert!(tally.done());
    }

    /// Results of one session: run, number of runs, whether they ran. Which of them completes a count of 4?
    fn completes_four(results: &[(u64, u64, bool)]) -> Option<usize> {
        let plan = plan(&[("a", 4)], &["m"]);
        let start = plan.monitors["m"]["a"].clone();
        let mut tally = Tally::default();
        tally.expect(plan);
        results.iter().position(|(run, runs, ran)| {
            let outcome = if *ran { Outcome::Passed } else { Outcome::Skipped };
            tally.add("m", &ProbeResult { run: *run, outcome: outcome.into(), session: "s".into(), ..result(&start, *runs) });
            tally.done()
        })
    }

    #[test]
    fn a_restarted_manager_counts_what_was_accounted_for_before_it_came() {
        assert_eq!(completes_four(&[(2, 1, true), (3, 1, true)]), Some(1));
        assert_eq!(completes_four(&[(0, 1, true), (1, 1, true), (2, 1, true), (3, 1, true)]), Some(3));
        // Run 1 was in flight when it came, and run 2 was skipped because of it.
        assert_eq!(completes_four(&[(2, 1, false), (1, 1, true), (3, 1, true)]), Some(2));
    }

    #[test]
    fn skipped_runs_that_overtake_the_first_run_do_not_end_an_order_before_it() {
        assert_eq!(completes_four(&[(1, 3, false), (0, 1, true)]), Some(1));
        assert_eq!(completes_four(&[(0, 2, false), (2, 1, true), (3, 1, true)]), Some(2));
    }

    #[test]
    fn a_check_for_ever_is_never_done_nor_is_an_empty_plan() {
        let plan = plan(&[("a", 0)], &["m"]);
        let start = plan.monitors["m"]["a"].clone();
        let mut tally = Tally::default();
        assert!(!tally.done());
        tally.expect(plan);
        tally.add("m", &result(&start, 1000));
        assert!(!tally.counted_out("m", &start) && !tally.done());
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
        assert!(!tally.done() && tally.counted_out("m", &b));
        // A late result of the old revision does not count for the new one.
        tally.add("m", &result(&a, 2));
        assert!(!tally.counted_out("m", &changed));
    }
}
