//! When runs are due. Pure: time is an argument.

use std::time::{Duration, SystemTime};

use ring::digest::{SHA256, digest};
use tokio::time::Instant;

/// One instant on both clocks, read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock: how long.
    pub monotonic: Instant,
    /// The wall clock: when.
    pub wall: SystemTime,
}

impl Now {
    /// Reads both clocks.
    pub fn read() -> Self {
        Self { monotonic: vantage_daemon::clock::monotonic(), wall: vantage_daemon::clock::wall() }
    }
}

/// The runs of one order: run n is due at `anchor + n × interval`.
///
/// The anchor is a wall instant, but the schedule goes by the monotonic clock from the moment it is placed. Where the two clocks come apart by
/// more than a second, because the wall clock was set or the machine slept, it is [realigned](Schedule::realign): forward, the runs in between
/// are skipped; backward, it goes on as it was, as no run comes twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    interval: Duration,
    /// One more than the last run; `u64::MAX`: for ever.
    end: u64,
    anchor: SystemTime,
    first_run: u64,
    first_due: Instant,
}

impl Schedule {
    /// A schedule placed `now`. Without an anchor, run 0 is due within the first interval by [`spread`] of `name`. With one in the past, the
    /// first run is the first that is not yet overdue. `count` 0 is for ever. The interval is not 0: [`crate::order`] sees to that.
    pub fn place(name: &str, interval: Duration, count: u64, anchor: Option<SystemTime>, now: Now) -> Self {
        let anchor = anchor.unwrap_or_else(|| now.wall + spread(name, interval));
        let end = if count == 0 { u64::MAX } else { count };
        Self::resume(interval, end, anchor, 0, now)
    }

    /// A schedule that was placed before, of which all runs before `next` are accounted for. Its first run is the first from `next` on that is
    /// not overdue. `end` is one more than the last run.
    pub fn resume(interval: Duration, end: u64, anchor: SystemTime, next: u64, now: Now) -> Self {
        let mut schedule = Self { interval, end, anchor, first_run: next, first_due: now.monotonic };
        match schedule.aligned(next, now) {
            Aligned::Due { run, wait } => (schedule.first_run, schedule.first_due) = (run, now.monotonic + wait),
            // The clock was set back meanwhile: nobody waits until it is there again. The place within the interval is kept.
            Aligned::Ahead { wait } => schedule.first_due = now.monotonic + remainder(wait, interval),
        }
        schedule
    }

    /// Follows the wall clock, after it came apart from the monotonic one. Returns the first run from `next` on that is not overdue.
    pub fn realign(&mut self, next: u64, now: Now) -> u64 {
        if let Aligned::Due { run, wait } = self.aligned(next, now) {
            (self.first_run, self.first_due) = (run, now.monotonic + wait);
            return run;
        }
        next
    }

    fn aligned(&self, next: u64, now: Now) -> Aligned {
        match self.due_wall(next).duration_since(now.wall) {
            Ok(wait) if next > 0 && wait > self.interval => Aligned::Ahead { wait },
            Ok(wait) => Aligned::Due { run: next, wait },
            Err(_) => {
                let past = now.wall.duration_since(self.anchor).unwrap_or_default();
                let run = past.as_nanos().div_ceil(self.interval.as_nanos().max(1));
                let run = u64::try_from(run).unwrap_or(u64::MAX);
                Aligned::Due { run, wait: after(run, self.interval).saturating_sub(past) }
            }
        }
    }

    /// When run 0 is due.
    pub fn anchor(&self) -> SystemTime {
        self.anchor
    }

    /// One more than the last run; `u64::MAX`: for ever.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The first run that this schedule runs; those before were due before it was placed.
    pub fn first_run(&self) -> u64 {
        self.first_run
    }

    /// The time from one run to the next.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Whether `run` lies beyond the last.
    pub fn is_over(&self, run: u64) -> bool {
        run >= self.end
    }

    /// When `run` is due, on the monotonic clock. Only for runs from the first on.
    pub fn due(&self, run: u64) -> Instant {
        self.first_due + after(run.saturating_sub(self.first_run), self.interval)
    }

    /// When `run` is due, on the wall clock, as planned.
    pub fn due_wall(&self, run: u64) -> SystemTime {
        // Beyond what the clock can say (the year 292 billion) there is nothing to plan.
        self.anchor.checked_add(after(run, self.interval)).unwrap_or(self.anchor)
    }

    /// The last run that is due at `now`, if `next` is due at all. More than `next` means that runs were slept through: they can't start
    /// before the next one is due.
    pub fn last_due(&self, next: u64, now: Instant) -> Option<u64> {
        if self.is_over(next) {
            return None;
        }
        let late = now.checked_duration_since(self.due(next))?;
        let behind = u64::try_from(late.as_nanos() / self.interval.as_nanos().max(1)).unwrap_or(u64::MAX);
        Some(next.saturating_add(behind).min(self.end - 1))
    }
}

/// Where a schedule stands on the wall clock.
enum Aligned {
    /// `run` is the first that is not overdue, due in `wait`.
    Due { run: u64, wait: Duration },
    /// The next run is further off than it can have been when the one before it ran.
    Ahead { wait: Duration },
}

fn remainder(wait: Duration, interval: Duration) -> Duration {
    let nanos = wait.as_nanos() % interval.as_nanos().max(1);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or_default())
}

fn after(runs: u64, interval: Duration) -> Duration {
    let nanos = interval.as_nanos().saturating_mul(u128::from(runs));
    // Capped at some 100 years, so that adding it to an instant can't overflow.
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX / 6).min(u64::MAX / 6))
}

/// Where in the first interval a check starts: by a hash of its name, so that checks of one interval spread evenly, and a check keeps its
/// place for ever and on every monitor.
pub fn spread(name: &str, interval: Duration) -> Duration {
    let hash = digest(&SHA256, name.as_bytes());
    let mut bytes = [0_u8; 8];
    bytes.copy_from_slice(&hash.as_ref()[..8]);
    let nanos = (interval.as_nanos() * u128::from(u64::from_be_bytes(bytes))) >> 64;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn runs_are_due_at_the_anchor_and_each_interval_after_it() {
        let now = Now::read();
        let schedule = Schedule::place("a", 4 * SECOND, 3, Some(now.wall + SECOND), now);
        assert_eq!(schedule.first_run(), 0);
        assert_eq!(schedule.due(0), now.monotonic + SECOND);
        assert_eq!(schedule.due(2), now.monotonic + 9 * SECOND);
        assert_eq!(schedule.due_wall(2), now.wall + 9 * SECOND);
        assert!(!schedule.is_over(2) && schedule.is_over(3));
    }

    #[test]
    fn an_anchor_in_the_past_begins_with_the_first_run_that_is_not_overdue() {
        let now = Now::read();
        let schedule = Schedule::place("a", 4 * SECOND, 0, Some(now.wall - 9 * SECOND), now);
        assert_eq!(schedule.first_run(), 3);
        assert_eq!(schedule.due(3), now.monotonic + 3 * SECOND);
        assert_eq!(schedule.due_wall(3), now.wall + 3 * SECOND);
        let epoch = Schedule::place("a", 60 * SECOND, 0, Some(SystemTime::UNIX_EPOCH), now);
        assert!(epoch.due(epoch.first_run()) < now.monotonic + 60 * SECOND);
    }

    #[test]
    fn runs_slept_through_are_told_from_the_one_to_run() {
        let now = Now::read();
        let schedule = Schedule::place("a", SECOND, 0, Some(now.wall), now);
        assert_eq!(schedule.last_due(0, now.monotonic), Some(0));
        assert_eq!(schedule.last_due(1, now.monotonic), None);
        assert_eq!(schedule.last_due(1, now.monotonic + 5 * SECOND + SECOND / 2), Some(5));
    }

    #[test]
    fn a_counted_schedule_ends() {
        let now = Now::read();
        let schedule = Schedule::place("a", SECOND, 2, Some(now.wall), now);
        assert_eq!(schedule.last_due(0, now.monotonic + 100 * SECOND), Some(1));
        assert_eq!(schedule.last_due(2, now.monotonic + 100 * SECOND), None);
    }

    #[test]
    fn a_thousand_checks_spread_evenly_over_their_interval() {
        let mut tenths = [0; 10];
        for number in 0..1000 {
            let at = spread(&format!("check-{number}"), 10 * SECOND);
            tenths[usize::try_from(at.as_secs()).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|tenth| (60..=140).contains(tenth)), "{tenths:?}");
    }

    #[test]
    fn a_restart_goes_on_with_the_first_run_that_is_not_overdue() {
        let now = Now::read();
        let resume = |next, anchor| Schedule::resume(4 * SECOND, u64::MAX, anchor, next, now);
        let late = resume(5, now.wall - 41 * SECOND);
        assert_eq!((late.first_run(), late.due(11)), (11, now.monotonic + 3 * SECOND));
        let on_time = resume(5, now.wall - 18 * SECOND);
        assert_eq!((on_time.first_run(), on_time.due(5)), (5, now.monotonic + 2 * SECOND));
    }

    #[test]
    fn a_clock_set_back_stops_no_schedule_and_brings_no_run_twice() {
        let now = Now::read();
        let resumed = Schedule::resume(4 * SECOND, u64::MAX, now.wall + 3600 * SECOND, 5, now);
        assert_eq!(resumed.first_run(), 5);
        assert!(resumed.due(5) <= now.monotonic + 4 * SECOND);
        assert_eq!(resumed.due_wall(5), now.wall + 3620 * SECOND, "the plan itself does not change");
        let mut running = Schedule::place("a", 4 * SECOND, 0, Some(now.wall), now);
        let before = running.clone();
        let back = Now { monotonic: now.monotonic + 9 * SECOND, wall: now.wall - 3600 * SECOND };
        assert_eq!((running.realign(3, back), running), (3, before));
    }

    #[test]
    fn a_clock_set_forward_or_a_sleep_skips_what_lies_between() {
        let now = Now::read();
        let mut schedule = Schedule::place("a", 4 * SECOND, 0, Some(now.wall), now);
        let woken = Now { monotonic: now.monotonic + SECOND, wall: now.wall + 3601 * SECOND };
        assert_eq!(schedule.realign(1, woken), 901);
        assert_eq!(schedule.due(901), woken.monotonic + 3 * SECOND);
        assert_eq!(schedule.due_wall(901), now.wall + 3604 * SECOND);
    }

    proptest! {
        #[test]
        fn no_schedule_panics_and_due_runs_never_run_backwards(
            interval_ms in 100_u64..=604_800_000, count in any::<u64>(), run in any::<u64>(), past in 0_u64..=10_000_000_000, later in 0_u64..=10_000_000,
        ) {
            let now = Now::read();
            let schedule = Schedule::place("x", Duration::from_millis(interval_ms), count, Some(now.wall - Duration::from_millis(past / 10)), now);
            let run = run.max(schedule.first_run());
            prop_assert!(schedule.due(run.saturating_add(1)) >= schedule.due(run));
            let _ = schedule.due_wall(run);
            if let Some(last) = schedule.last_due(schedule.first_run(), now.monotonic + Duration::from_secs(later)) {
                prop_assert!(last >= schedule.first_run() && !schedule.is_over(last));
            }
        }
    }
}
