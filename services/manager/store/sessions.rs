//! Which sequences of which session have been stored: the test for "already have it".

use std::collections::HashMap;

use vantage_contract::v1::{ProbeResult, StoredSession};

use super::Gap;

/// How far each session is stored. A session has no holes, so one number says it all.
///
/// Bounded: of each monitor the [`Sessions::PER_MONITOR`] sessions used last, of at most [`Sessions::MONITORS`] monitors used last. What
/// is forgotten is counted; results of a forgotten session would be taken for new ones.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    monitors: HashMap<String, Monitor>,
    clock: u64,
    forgotten_count: u64,
}

#[derive(Debug, Default)]
struct Monitor {
    used: u64,
    sessions: HashMap<String, Place>,
}

#[derive(Debug)]
struct Place {
    used: u64,
    sequence: u64,
}

/// What a record is to its session.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It follows; or it opens a session that was not known.
    New,
    /// It follows after a hole.
    NewAfter(Gap),
    /// It is stored already.
    Duplicate,
    /// It has no place.
    Misnumbered,
}

impl Sessions {
    /// A monitor has one session per client and life of its journal: more than a few mean that it loses its journal all the time.
    const PER_MONITOR: usize = 64;
    /// More monitors than one manager will serve.
    const MONITORS: usize = 4096;

    /// Enters a record.
    ///
    /// A session not known yet may begin anywhere: what came before was acknowledged by a manager that has since forgotten. A record
    /// that covers several sequences, some of which are stored, is new: it accounts for the rest.
    pub(super) fn enter(&mut self, result: &ProbeResult) -> Standing {
        if result.monitor.is_empty() || result.session.is_empty() || result.sequence == 0 {
            return Standing::Misnumbered;
        }
        self.clock += 1;
        let now = self.clock;
        self.make_room(&result.monitor, &result.session);
        let monitor = self.monitors.entry(result.monitor.clone()).or_default();
        monitor.used = now;
        let Some(place) = monitor.sessions.get_mut(&result.session) else {
            monitor.sessions.insert(result.session.clone(), Place { used: now, sequence: result.sequence });
            return Standing::New;
        };
        place.used = now;
        if result.sequence <= place.sequence {
            return Standing::Duplicate;
        }
        let (after, before) = (place.sequence, result.sequence.saturating_sub(result.sequence_count.max(1)));
        place.sequence = result.sequence;
        if before > after {
            let (monitor, session) = (result.monitor.clone(), result.session.clone());
            return Standing::NewAfter(Gap { monitor, session, after, missing_count: before - after });
        }
        Standing::New
    }

    pub(super) fn of(&self, monitor: &str) -> Vec<StoredSession> {
        let Some(monitor) = self.monitors.get(monitor) else { return Vec::new() };
        let mut sessions: Vec<_> =
            monitor.sessions.iter().map(|(session, place)| StoredSession { session: session.clone(), sequence: place.sequence }).collect();
        sessions.sort_by(|a, b| a.session.cmp(&b.session));
        sessions
    }

    pub(super) fn count(&self) -> usize {
        self.monitors.values().map(|monitor| monitor.sessions.len()).sum()
    }

    pub(super) fn forgotten_count(&self) -> u64 {
        self.forgotten_count
    }

    /// Forgets what was used longest ago where one more would be too many.
    fn make_room(&mut self, monitor: &str, session: &str) {
        let monitors = self.monitors.len();
        match self.monitors.get_mut(monitor) {
            Some(monitor) if monitor.sessions.len() >= Self::PER_MONITOR && !monitor.sessions.contains_key(session) => {
                let oldest = monitor.sessions.iter().min_by_key(|(_, place)| place.used).map(|(name, _)| name.clone());
                if oldest.is_some_and(|oldest| monitor.sessions.remove(&oldest).is_some()) {
                    self.forgotten_count += 1;
                }
            }
            None if monitors >= Self::MONITORS => {
                let oldest = self.monitors.iter().min_by_key(|(_, monitor)| monitor.used).map(|(name, _)| name.clone());
                if let Some(oldest) = oldest.and_then(|oldest| self.monitors.remove(&oldest)) {
                    self.forgotten_count += oldest.sessions.len() as u64;
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(session: &str, sequence: u64, sequence_count: u64) -> ProbeResult {
        ProbeResult { monitor: "m".into(), session: session.into(), sequence, sequence_count, ..ProbeResult::default() }
    }

    #[test]
    fn a_resent_record_is_a_duplicate_and_a_hole_is_a_gap() {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.enter(&record("s", 1, 1)), Standing::New);
        assert_eq!(sessions.enter(&record("s", 2, 1)), Standing::New);
        assert_eq!(sessions.enter(&record("s", 2, 1)), Standing::Duplicate);
        let gap = Gap { monitor: "m".into(), session: "s".into(), after: 2, missing_count: 2 };
        assert_eq!(sessions.enter(&record("s", 5, 1)), Standing::NewAfter(gap));
        assert_eq!(sessions.of("m"), [StoredSession { session: "s".into(), sequence: 5 }]);
    }

    #[test]
    fn a_record_for_a_range_follows_the_record_before_the_range() {
        let mut sessions = Sessions::default();
        sessions.enter(&record("s", 1, 1));
        assert_eq!(sessions.enter(&record("s", 9, 8)), Standing::New);
        assert_eq!(sessions.enter(&record("s", 12, 6)), Standing::New, "it overlaps and accounts for the rest");
    }

    #[test]
    fn an_unknown_session_may_begin_anywhere_and_nothing_has_no_number() {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.enter(&record("s", 1000, 1)), Standing::New);
        assert_eq!(sessions.enter(&record("s", 0, 0)), Standing::Misnumbered);
        assert_eq!(sessions.enter(&record("", 1, 1)), Standing::Misnumbered);
    }

    #[test]
    fn sessions_and_monitors_without_end_cost_bounded_memory() {
        let mut sessions = Sessions::default();
        for number in 0..1000 {
            sessions.enter(&record(&format!("s{number}"), 1, 1));
        }
        assert_eq!((sessions.count(), sessions.forgotten_count()), (Sessions::PER_MONITOR, 1000 - Sessions::PER_MONITOR as u64));
        assert_eq!(sessions.enter(&record("s999", 1, 1)), Standing::Duplicate, "the newest are kept");
        for number in 0..Sessions::MONITORS + 10 {
            sessions.enter(&ProbeResult { monitor: format!("m{number}"), ..record("s", 1, 1) });
        }
        assert!(sessions.count() <= Sessions::MONITORS + Sessions::PER_MONITOR);
    }

    proptest! {
        #[test]
        fn however_a_monitor_resends_each_record_is_new_once(resumes in prop::collection::vec((0u64..40, 1u64..20), 1..20)) {
            let mut sessions = Sessions::default();
            let (mut sent, mut new) = (0, Vec::new());
            for (back, forward) in resumes {
                let from = sent - back.min(sent);
                for sequence in from + 1..=from + forward {
                    if sessions.enter(&record("s", sequence, 1)) == Standing::New {
                        new.push(sequence);
                    }
                }
                sent = sent.max(from + forward);
            }
            prop_assert_eq!(new, (1..=sent).collect::<Vec<_>>());
        }
    }
}
