//! How long an order holds its places, as far as its runs have shown. Pure: time is an argument.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// A run that takes longer than this takes long, whatever its timeout.
const PROMPT_AT_MOST: Duration = Duration::from_secs(1);

/// How long an order may be expected to hold a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pace {
    /// Its last run was done soon.
    Prompt,
    /// It has not had a run yet; or its last one took long, but not the one before: one lost packet tells nothing yet.
    Unproven,
    /// Its last two runs took long: more than a second, or more than a quarter of their timeout. Those that run out of time do.
    Slow,
}

impl Pace {
    /// The pace of an order whose last so many runs took long, one after the other. None: it has had no run.
    pub fn of(long_runs: Option<u32>) -> Self {
        match long_runs {
            Some(0) => Self::Prompt,
            None | Some(1) => Self::Unproven,
            Some(2..) => Self::Slow,
        }
    }
}

/// What admission knows of an order: its runs write it, and the next one is judged by it.
#[derive(Debug, Default)]
pub struct Habit(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// How many runs took long, up to the last one. None: it has had no run.
    long_runs: Option<u32>,
    /// Since when it has had none, if it wants one.
    unserved: Option<Instant>,
}

impl Habit {
    /// Its pace.
    pub fn pace(&self) -> Pace {
        Pace::of(self.lock().long_runs)
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

    /// A run has ended that held its place for `duration`, and might have for `timeout`.
    pub fn held(&self, duration: Duration, timeout: Duration) {
        let took_long = duration > PROMPT_AT_MOST.min(timeout / 4);
        let mut known = self.lock();
        known.long_runs = Some(if took_long { known.long_runs.unwrap_or_default().saturating_add(1) } else { 0 });
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

    /// What an order is after runs of these durations, in milliseconds, which might have taken `timeout`.
    fn after(runs: &[u64], timeout: u64) -> Pace {
        let habit = Habit::default();
        runs.iter().for_each(|run| habit.held(millis(*run), millis(timeout)));
        habit.pace()
    }

    #[test]
    fn an_order_is_judged_by_its_last_two_runs() {
        assert_eq!(after(&[], 5000), Pace::Unproven);
        assert_eq!(after(&[1000], 5000), Pace::Prompt);
        assert_eq!(after(&[3, 1001], 60_000), Pace::Unproven, "a lost packet, it may be");
        assert_eq!(after(&[3, 1001, 1001], 60_000), Pace::Slow);
        assert_eq!(after(&[101, 101], 400), Pace::Slow);
        assert_eq!(after(&[101, 101, 100], 400), Pace::Prompt);
        for timeout in [1, 100, 3000, 60_000] {
            assert_eq!(after(&[timeout, timeout], timeout), Pace::Slow, "it ran out of time");
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
    }
}
