//! Results as rows: what repeats, and the rest.

use std::{
    mem,
    time::{Duration, SystemTime},
};

use prost::Message as _;
use prost_types::Timestamp;
use vantage_contract::v1::{Outcome, ProbeResult};

/// A result in two parts: [`join`] puts them together again. What has a column of its own is in neither.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// What it has in common with others: monitor, check, kind, target, labels, revision.
    pub(super) template: Vec<u8>,
    /// The rest.
    pub(super) body: Vec<u8>,
}

/// The columns that hold fields of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) session: String,
    pub(super) sequence: u64,
    pub(super) run: u64,
    pub(super) run_count: u64,
    pub(super) outcome: i32,
    pub(super) reason: i32,
}

impl Parts {
    /// Takes a result apart, in buffers that are used again. It is whole again afterwards.
    pub(super) fn split(&mut self, result: &mut ProbeResult) {
        let mut template = ProbeResult::default();
        exchange(result, &mut template);
        let columns = Columns {
            session: mem::take(&mut result.session),
            sequence: mem::take(&mut result.sequence),
            run: mem::take(&mut result.run),
            run_count: mem::take(&mut result.run_count),
            outcome: mem::take(&mut result.outcome),
            reason: mem::take(&mut result.reason),
        };
        self.template.clear();
        self.body.clear();
        // A vector takes whatever is encoded.
        let _ = (template.encode(&mut self.template), result.encode(&mut self.body));
        exchange(result, &mut template);
        columns.fill(result);
    }
}

impl Columns {
    fn fill(self, result: &mut ProbeResult) {
        let Self { session, sequence, run, run_count, outcome, reason } = self;
        (result.session, result.sequence, result.run, result.run_count) = (session, sequence, run, run_count);
        (result.outcome, result.reason) = (outcome, reason);
    }
}

/// Swaps the fields of the template.
fn exchange(result: &mut ProbeResult, template: &mut ProbeResult) {
    mem::swap(&mut result.monitor, &mut template.monitor);
    mem::swap(&mut result.check_name, &mut template.check_name);
    mem::swap(&mut result.kind, &mut template.kind);
    mem::swap(&mut result.target, &mut template.target);
    mem::swap(&mut result.labels, &mut template.labels);
    mem::swap(&mut result.revision, &mut template.revision);
}

/// The result that was taken apart. Encoded messages merge by standing one after the other.
pub(super) fn join(template: &[u8], body: &[u8], columns: Columns) -> Result<ProbeResult, prost::DecodeError> {
    let mut result = ProbeResult::decode(template)?;
    result.merge(body)?;
    columns.fill(&mut result);
    Ok(result)
}

/// An instant as a column: nanoseconds since 1970. Beyond the years 1678 to 2262 it is the nearest of them.
pub(crate) fn nanos(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => length(after),
        Err(before) => -length(before.duration()),
    }
}

/// A column as an instant.
pub(crate) fn instant(nanos: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    if nanos < 0 { SystemTime::UNIX_EPOCH - distance } else { SystemTime::UNIX_EPOCH + distance }
}

/// A length of time as a column: nanoseconds.
pub(super) fn length(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

fn stamp(time: Timestamp) -> i64 {
    let nanos = time.seconds.saturating_mul(1_000_000_000).saturating_add(time.nanos.into());
    // The very first and last stand for "always" elsewhere.
    nanos.clamp(i64::MIN + 2, i64::MAX - 1)
}

/// When the run was due; where nobody says it, when it started; else now.
pub(super) fn due(result: &ProbeResult, now: i64) -> i64 {
    result.due_time.or(result.start_time).map_or(now, stamp)
}

/// When the run had ended, by the monitor's clock: what was to end before that has been heard of.
pub(super) fn end(result: &ProbeResult, now: i64) -> i64 {
    match (result.start_time, result.duration) {
        (Some(start), Some(duration)) if result.outcome() != Outcome::Skipped => {
            stamp(start).saturating_add(duration.seconds.saturating_mul(1_000_000_000)).saturating_add(duration.nanos.into())
        }
        _ => due(result, now),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use vantage_contract::v1::{PingReport, Reason, probe_result::Report};

    use super::*;

    #[test]
    fn instants_before_and_after_1970_are_columns_and_instants_again() {
        for nanos_since in [0, 1, -1, 1_795_335_545_999_999_999, i64::MAX, i64::MIN + 1] {
            assert_eq!(nanos(instant(nanos_since)), nanos_since);
        }
    }

    #[test]
    fn a_run_has_ended_its_duration_after_its_start_and_a_skipped_one_when_it_was_due() {
        let at = |seconds| Some(Timestamp { seconds, nanos: 5 });
        let half = Some(prost_types::Duration { seconds: 0, nanos: 500_000_000 });
        let ran = ProbeResult { due_time: at(10), start_time: at(11), duration: half, ..ProbeResult::default() };
        assert_eq!((due(&ran, 0), end(&ran, 0)), (10_000_000_005, 11_500_000_005));
        let skipped = ProbeResult { outcome: Outcome::Skipped.into(), ..ran };
        assert_eq!(end(&skipped, 0), 10_000_000_005);
        assert_eq!((due(&ProbeResult::default(), 7), end(&ProbeResult::default(), 7)), (7, 7));
    }

    proptest! {
        #[test]
        fn a_result_taken_apart_is_the_same_afterwards_and_when_put_together(
            names in prop::array::uniform8(".{0,9}"), numbers in prop::array::uniform4(any::<u64>()), seconds in any::<i64>(), sent in any::<u32>(),
        ) {
            let [monitor, check_name, kind, target, revision, session, summary, label] = names;
            let [run, run_count, sequence, sequence_count] = numbers;
            let result = ProbeResult {
                monitor, check_name, kind, target, revision, session, summary, run, run_count, sequence, sequence_count,
                labels: BTreeMap::from([(label, String::new())]),
                outcome: 77,
                reason: Reason::TimedOut.into(),
                due_time: Some(Timestamp { seconds, nanos: 1 }),
                report: Some(Report::Ping(Box::new(PingReport { sent_count: sent, ..PingReport::default() }))),
                ..ProbeResult::default()
            };
            let (mut parts, mut taken) = (Parts::default(), result.clone());
            parts.split(&mut taken);
            prop_assert_eq!(&taken, &result);
            let session = result.session.clone();
            let columns = Columns { session, sequence, run, run_count, outcome: 77, reason: Reason::TimedOut.into() };
            prop_assert_eq!(join(&parts.template, &parts.body, columns).unwrap(), result);
        }
    }
}
