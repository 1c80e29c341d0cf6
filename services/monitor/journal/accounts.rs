//! What takes the place of results that were dropped. Pure.

use std::{collections::HashMap, time::SystemTime};

use vantage_contract::v1::{Attribution, Outcome, ProbeResult, Reason};

use super::OrderId;

/// Turns dropped records, oldest first, into as few `skipped` records as tell of every run, in the same sequences. Records that were
/// `skipped` already keep their reason, unless it is to be done coarsely.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    coarse: bool,
    records: Vec<Account>,
    open: HashMap<(OrderId, String, String), usize>,
    sequences: Option<(u64, u64)>,
    lost_runs: u64,
}

#[derive(Debug)]
struct Account {
    order: OrderId,
    record: ProbeResult,
    /// From one run to the next, once two are known: runs of another life of the same order don't fit.
    step_ns: Option<u128>,
}

impl Accounts {
    /// None yet. `coarse`: whatever they were skipped for, runs that follow one another become one range.
    pub(crate) fn new(coarse: bool) -> Self {
        Self { coarse, ..Self::default() }
    }

    /// Takes the next record in, of that order where it is known.
    pub(crate) fn add(&mut self, order: OrderId, record: ProbeResult) {
        let first = record.sequence + 1 - record.sequence_count.max(1);
        let begin = self.sequences.map_or(first, |(begin, _)| begin);
        self.sequences = Some((begin, record.sequence));
        let key = (order, record.check_name.clone(), record.revision.clone());
        if record.outcome() != Outcome::Skipped {
            self.lost_runs += record.run_count.max(1);
        } else if record.reason() != Reason::JournalFull && !self.coarse {
            self.open.remove(&key);
            self.records.push(Account { order, record, step_ns: None });
            return;
        }
        if let Some(before) = self.open.get(&key).and_then(|index| self.records.get_mut(*index))
            && before.goes_on_with(&record)
        {
            before.record.run_count += record.run_count.max(1);
            return;
        }
        self.open.insert(key, self.records.len());
        self.records.push(Account { order, record: journal_full(record), step_ns: None });
    }

    /// How many runs lost their results just now.
    pub(crate) fn lost_runs(&self) -> u64 {
        self.lost_runs
    }

    /// The accounts with their orders, in their sequences. There are at most as many as sequences: each takes one, the last one all that remain.
    pub(crate) fn into_records(self) -> Vec<(OrderId, ProbeResult)> {
        let Some((begin, end)) = self.sequences else { return Vec::new() };
        let count = self.records.len() as u64;
        let numbered = (begin..).zip(self.records).map(|(sequence, Account { order, mut record, .. })| {
            let is_last = sequence + 1 == begin + count;
            record.sequence = if is_last { end } else { sequence };
            record.sequence_count = if is_last { end + 1 - sequence } else { 1 };
            (order, record)
        });
        numbered.collect()
    }
}

impl Account {
    fn goes_on_with(&mut self, next: &ProbeResult) -> bool {
        let ours = &self.record;
        if ours.run + ours.run_count != next.run {
            return false;
        }
        let due = |record: &ProbeResult| record.due_time.and_then(|due| SystemTime::try_from(due).ok());
        let (Some(first), Some(later)) = (due(ours), due(next)) else { return true };
        let Ok(apart) = later.duration_since(first) else { return false };
        let runs = u128::from(ours.run_count);
        let step = apart.as_nanos() / runs;
        let fits = step * runs == apart.as_nanos() && self.step_ns.is_none_or(|known| known == step);
        self.step_ns = self.step_ns.or(Some(step));
        fits
    }
}

fn journal_full(record: ProbeResult) -> ProbeResult {
    ProbeResult {
        outcome: Outcome::Skipped.into(),
        reason: Reason::JournalFull.into(),
        attribution: Attribution::Vantage.into(),
        summary: "the journal was full before the client took the result".to_owned(),
        run_count: record.run_count.max(1),
        check_name: record.check_name,
        kind: record.kind,
        target: record.target,
        labels: record.labels,
        revision: record.revision,
        run: record.run,
        monitor: record.monitor,
        session: record.session,
        due_time: record.due_time,
        ..ProbeResult::default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prost_types::Timestamp;

    use super::*;

    fn result(check: &str, run: u64, sequence: u64, outcome: Outcome) -> ProbeResult {
        let due = SystemTime::UNIX_EPOCH + Duration::from_secs(run);
        let due_time = Some(Timestamp::from(due));
        ProbeResult {
            check_name: check.into(),
            run,
            run_count: 1,
            sequence,
            sequence_count: 1,
            outcome: outcome.into(),
            due_time,
            ..ProbeResult::default()
        }
    }

    fn told(accounts: Accounts) -> Vec<(String, u64, u64, u64, u64)> {
        let tell =
            |(_, record): (OrderId, ProbeResult)| (record.check_name, record.run, record.run_count, record.sequence, record.sequence_count);
        accounts.into_records().into_iter().map(tell).collect()
    }

    #[test]
    fn neighbours_of_one_order_become_one_range() {
        let mut accounts = Accounts::default();
        for run in 0..3 {
            accounts.add(0, result("a", run, 10 + 2 * run, Outcome::Passed));
            accounts.add(0, result("b", run, 11 + 2 * run, Outcome::Failed));
        }
        assert_eq!(accounts.lost_runs(), 6);
        assert_eq!(told(accounts), [("a".into(), 0, 3, 10, 1), ("b".into(), 0, 3, 15, 5)]);
    }

    #[test]
    fn what_was_skipped_for_another_reason_keeps_it() {
        let mut accounts = Accounts::default();
        accounts.add(0, result("a", 0, 1, Outcome::Passed));
        let skipped = ProbeResult { reason: Reason::MonitorDown.into(), run_count: 5, ..result("a", 1, 2, Outcome::Skipped) };
        accounts.add(0, skipped);
        accounts.add(0, result("a", 6, 3, Outcome::Passed));
        assert_eq!(accounts.lost_runs(), 2);
        let records = accounts.into_records();
        assert_eq!(
            records.iter().map(|(_, record)| record.reason()).collect::<Vec<_>>(),
            [Reason::JournalFull, Reason::MonitorDown, Reason::JournalFull]
        );
    }

    #[test]
    fn runs_of_another_life_of_the_order_are_not_mixed_in() {
        let mut accounts = Accounts::default();
        accounts.add(0, result("a", 0, 1, Outcome::Passed));
        accounts.add(0, result("a", 1, 2, Outcome::Passed));
        let mut other = result("a", 2, 3, Outcome::Passed);
        other.due_time = Some(Timestamp { seconds: 500, nanos: 1 });
        accounts.add(0, other);
        assert_eq!(told(accounts).len(), 2);
    }

    #[test]
    fn where_there_are_too_many_a_reason_is_given_up_for_the_range() {
        let told_of = |coarse| {
            let mut accounts = Accounts::new(coarse);
            for run in 0..100 {
                let mut record = result("a", run, run + 1, if run % 2 == 0 { Outcome::Passed } else { Outcome::Skipped });
                if run % 2 == 1 {
                    record.set_reason(Reason::Overloaded);
                }
                accounts.add(1, record);
            }
            (accounts.lost_runs(), told(accounts))
        };
        let (lost, fine) = told_of(false);
        assert_eq!((lost, fine.len()), (50, 100));
        assert_eq!(told_of(true), (50, vec![("a".to_owned(), 0, 100, 100, 100)]));
    }
}
