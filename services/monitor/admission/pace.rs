//! How long an order holds its places, as far as its runs have shown. Pure: time is an argument.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// A run that takes longer than this is slow, whatever its timeout.
const PROMPT_AT_MOST: Duration = Duration::from_secs(1);

/// How long an order may be expected to hold a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pace {
    /// Its last run was done soon.
    Prompt,
    /// It has not had a run yet, so nobody knows.
    New,
    /// Its last run took longer than a second or than a quarter of its timeout: where it ran out of time, among others.
    Slow,
}

impl Pace {
    /// All of them, from the one that may take every place to the one that may take the fewest.
    pub const ALL: [Self; 3] = [Self::Prompt, Self::New, Self::Slow];

    /// The pace of an order whose last run took `last` and may take `timeout`.
    pub fn of(last: Option<Duration>, timeout: Duration) -> Self {
        match last {
            None => Self::New,
            Some(last) if last > PROMPT_AT_MOST.min(timeout / 4) => Self::Slow,
            Some(_) => Self::Prompt,
        }
    }

    /// How the figures call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::New => "new",
            Self::Slow => "slow",
        }
    }
}

/// What admission knows of an order: its runs write it, and the next one is judged by it.
#[derive(Debug, Default)]
pub struct Habit(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// How long its last run held a place.
    last: Option<Duration>,
    /// Since when it has had none, if it wants one.
    unserved: Option<Instant>,
}

impl Habit {
    /// Its pace, where a run may take `timeout`.
    pub fn pace(&self, timeout: Duration) -> Pace {
        Pace::of(self.lock().last, timeout)
    }

    /// A run due at `due` wants a place. Since when has its order waited for one? Runs that were given up count: who goes away
    /// unserved comes back with the turn it had.
    pub fn wants(&self, due: Instant) -> Instant {
        *self.lock().unserved.get_or_insert(due)
    }

    /// A run has got its place.
    pub fn served(&self) {
        self.lock().unserved = None;
    }

    /// A run has ended that held its place for so long.
    pub fn held(&self, duration: Duration) {
        self.lock().last = Some(duration);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn an_order_is_judged_by_its_last_run() {
        assert_eq!(Pace::of(None, millis(5000)), Pace::New);
        assert_eq!(Pace::of(Some(millis(1000)), millis(5000)), Pace::Prompt);
        assert_eq!(Pace::of(Some(millis(1001)), millis(60_000)), Pace::Slow);
        assert_eq!(Pace::of(Some(millis(100)), millis(400)), Pace::Prompt);
        assert_eq!(Pace::of(Some(millis(101)), millis(400)), Pace::Slow);
        for timeout in [1, 100, 3000, 60_000] {
            assert_eq!(Pace::of(Some(millis(timeout)), millis(timeout)), Pace::Slow, "it ran out of time");
        }
    }

    #[test]
    fn who_was_not_served_keeps_its_turn_until_it_is() {
        let (habit, first) = (Habit::default(), vantage_daemon::clock::monotonic());
        let second = first + millis(500);
        assert_eq!(habit.wants(first), first);
        assert_eq!(habit.wants(second), first);
        habit.served();
        assert_eq!(habit.wants(second), second);
        assert_eq!(habit.pace(millis(5000)), Pace::New);
        habit.held(millis(5000));
        assert_eq!(habit.pace(millis(5000)), Pace::Slow);
        habit.held(millis(5));
        assert_eq!(habit.pace(millis(5000)), Pace::Prompt);
    }
}
