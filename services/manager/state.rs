//! What the results of a check mean, over all its monitors. Pure: time is an argument.
//!
//! The rules, and why:
//!
//! - Each monitor has one say: its newest *determined* result, passed or failed. Undetermined and skipped results say nothing about the
//!   target; they neither count against it nor do they wipe out what was seen before.
//! - Newest is what was due last, not what came last: a backlog comes beside live results. What was due before is counted, and says nothing.
//! - A say is fresh for [`patience`]: three intervals and the timeout, so that two lost runs in a row change nothing. After that the
//!   monitor says nothing. The age is measured from the arrival at this manager, on its own monotonic clock.
//! - Where a target asked to be left alone (KISS_OF_DEATH), that stays what its monitor says for as long as runs are skipped for its sake
//!   (HELD_OFF): nothing else is known of it, and it is no silence of ours.
//! - A result that arrives long after it was due ([`punctual`]) is history, as after a link was cut: it is kept and counted, and says
//!   nothing about now.
//! - Nobody says anything: `unknown`. All who say something say failed: `down`. Some do: `degraded`. None does: `up`. A monitor
//!   that says nothing is not a vote either way, so losing a monitor never makes a target look ill, nor well.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use vantage_contract::v1::{Check, Outcome};

/// The judgement of a check over all its monitors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// All monitors that can tell say that it passes.
    Up,
    /// Some say that it passes, some that it fails.
    Degraded,
    /// All that can tell say that it fails.
    Down,
    /// None can tell.
    Unknown,
}

impl State {
    /// All states, as for figures that have a series for each.
    pub const ALL: [Self; 4] = [Self::Up, Self::Degraded, Self::Down, Self::Unknown];

    /// The word for it: "up".
    pub fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What one monitor says about a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Say {
    /// It passes.
    Passed,
    /// It fails.
    Failed,
}

/// What a result says about its target. None where it was undetermined, skipped, or of a newer contract.
pub fn say(outcome: i32) -> Option<Say> {
    match Outcome::try_from(outcome) {
        Ok(Outcome::Passed) => Some(Say::Passed),
        Ok(Outcome::Failed) => Some(Say::Failed),
        _ => None,
    }
}

/// Judges: one entry for each monitor, None where it has nothing fresh to say.
pub fn judge(says: impl IntoIterator<Item = Option<Say>>) -> State {
    let (mut passed, mut failed) = (false, false);
    for say in says.into_iter().flatten() {
        match say {
            Say::Passed => passed = true,
            Say::Failed => failed = true,
        }
    }
    match (passed, failed) {
        (true, false) => State::Up,
        (true, true) => State::Degraded,
        (false, true) => State::Down,
        (false, false) => State::Unknown,
    }
}

/// The interval of a check that names none.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);
/// The longest timeout that any kind of probe has by default. The manager does not know kinds, so a check without timeout gets this one.
pub(crate) const LONGEST_DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long what a monitor said stays fresh: three intervals and the timeout.
pub fn patience(check: &Check) -> Duration {
    let interval = check.interval.and_then(|interval| interval.try_into().ok()).unwrap_or(DEFAULT_INTERVAL);
    let timeout = check.probe.as_ref().and_then(|probe| probe.timeout).and_then(|timeout| timeout.try_into().ok());
    interval.saturating_mul(3).saturating_add(timeout.unwrap_or(LONGEST_DEFAULT_TIMEOUT))
}

/// By how much the clocks of a monitor and this manager may differ before its results look old.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// Whether a result that was due at `due` and arrived at `arrived` tells of now rather than of then. The one place where the clocks of two
/// machines are compared, so it is lenient: by a minute, or by the patience where that is longer. Without a due time it is of now.
pub fn punctual(due: Option<SystemTime>, arrived: SystemTime, patience: Duration) -> bool {
    due.and_then(|due| due.checked_add(patience.max(CLOCK_TOLERANCE))).is_none_or(|latest| arrived <= latest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vantage_contract::v1::Probe;

    const NOTHING: Option<Say> = None;
    const PASSED: Option<Say> = Some(Say::Passed);
    const FAILED: Option<Say> = Some(Say::Failed);

    #[test]
    fn the_four_states() {
        assert_eq!(judge([]), State::Unknown);
        assert_eq!(judge([NOTHING, NOTHING]), State::Unknown);
        assert_eq!(judge([PASSED, NOTHING]), State::Up);
        assert_eq!(judge([FAILED, NOTHING, FAILED]), State::Down);
        assert_eq!(judge([FAILED, PASSED]), State::Degraded);
    }

    #[test]
    fn only_passed_and_failed_say_something() {
        assert_eq!(say(Outcome::Passed.into()), PASSED);
        assert_eq!(say(Outcome::Failed.into()), FAILED);
        for outcome in [Outcome::Undetermined.into(), Outcome::Skipped.into(), Outcome::Unspecified.into(), 99] {
            assert_eq!(say(outcome), NOTHING);
        }
    }

    #[test]
    fn patience_is_three_intervals_and_the_timeout() {
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let probe = Some(Probe { timeout: seconds(2), ..Probe::default() });
        assert_eq!(patience(&Check { interval: seconds(10), probe, ..Check::default() }), Duration::from_secs(32));
        assert_eq!(patience(&Check::default()), Duration::from_secs(210));
        assert_eq!(patience(&Check { interval: seconds(-1), ..Check::default() }), Duration::from_secs(210), "nonsense is as unset");
    }

    #[test]
    fn what_comes_long_after_it_was_due_is_history() {
        let due = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let after = |seconds| due + Duration::from_secs(seconds);
        assert!(punctual(Some(due), after(60), Duration::from_secs(10)));
        assert!(!punctual(Some(due), after(61), Duration::from_secs(10)));
        assert!(punctual(Some(due), after(300), Duration::from_secs(300)));
        assert!(punctual(Some(after(3600)), due, Duration::from_secs(10)), "a clock ahead of ours is no reason to wait");
        assert!(punctual(None, due, Duration::from_secs(10)));
    }

    fn says() -> impl Strategy<Value = Vec<Option<Say>>> {
        prop::collection::vec(prop_oneof![Just(NOTHING), Just(PASSED), Just(FAILED)], 0..12)
    }

    proptest! {
        #[test]
        fn the_order_of_monitors_and_those_who_say_nothing_change_nothing(says in says(), at in 0usize..12) {
            let state = judge(says.iter().copied());
            prop_assert_eq!(judge(says.iter().rev().copied()), state);
            let mut more = says.clone();
            more.insert(at.min(says.len()), NOTHING);
            prop_assert_eq!(judge(more), state);
        }

        #[test]
        fn a_monitor_that_starts_to_fail_never_makes_it_look_better(says in says(), at in 0usize..12) {
            let before = judge(says.iter().copied());
            let mut worse = says.clone();
            if let Some(say) = worse.get_mut(at) {
                *say = FAILED;
                let after = judge(worse);
                prop_assert!(matches!(after, State::Down | State::Degraded));
                prop_assert!(before == State::Unknown || after >= before);
            }
        }

        #[test]
        fn it_is_down_only_if_nobody_passes_and_up_only_if_nobody_fails(says in says()) {
            let state = judge(says.iter().copied());
            prop_assert!(state != State::Down || !says.contains(&PASSED));
            prop_assert!(state != State::Up || !says.contains(&FAILED));
            prop_assert_eq!(state == State::Unknown, says.iter().all(Option::is_none));
        }
    }
}
