//! The two clocks: the kernel stamps packets by the wall clock, which may be set at any moment; the process measures by the monotonic one.
//! Both are slewed alike, so their distance changes when the wall clock is stepped, and only then.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use crate::stopwatch;

/// A change of the clocks' distance below this is reading them one after the other; above, it is a step. In nanoseconds.
const STEP: i64 = 50_000;

/// One moment by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// By the monotonic clock.
    pub(super) monotonic: Instant,
    /// By the wall clock, in nanoseconds since 1970.
    pub(super) wall: i64,
    /// How far apart the two were read, in nanoseconds.
    pub(super) apart: i64,
}

impl Moment {
    /// Reads both clocks: up to three times, if something came in between.
    pub(super) fn now() -> Self {
        let mut best: Option<Self> = None;
        for _ in 0..3 {
            let monotonic = stopwatch::now();
            let wall = clock_gettime(ClockId::CLOCK_REALTIME).map_or(0, |at| at.tv_sec() * 1_000_000_000 + at.tv_nsec());
            let apart = nanoseconds(stopwatch::now().saturating_duration_since(monotonic));
            if best.is_none_or(|best| apart < best.apart) {
                best = Some(Self { monotonic, wall, apart });
            }
            if apart < STEP / 10 {
                break;
            }
        }
        best.unwrap_or_else(|| Self { monotonic: stopwatch::now(), wall: 0, apart: 0 })
    }
}

pub(super) fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// What is known of the clocks. An era is the time between two steps of the wall clock.
#[derive(Debug)]
pub(super) struct Clocks {
    last: Moment,
    era: u32,
}

impl Clocks {
    pub(super) fn new(now: Moment) -> Self {
        Self { last: now, era: 0 }
    }

    /// Takes note of a reading: where the wall clock was stepped since the last one, another era begins. Returns the era.
    pub(super) fn read(&mut self, now: Moment) -> u32 {
        let monotonic = nanoseconds(now.monotonic.saturating_duration_since(self.last.monotonic));
        let wall = now.wall.saturating_sub(self.last.wall);
        if wall.saturating_sub(monotonic).saturating_abs() > STEP + now.apart + self.last.apart {
            self.era = self.era.wrapping_add(1);
        }
        self.last = now;
        self.era
    }

    /// When the last reading was.
    pub(super) fn latest(&self) -> Instant {
        self.last.monotonic
    }

    /// The era of the last reading.
    pub(super) fn era(&self) -> u32 {
        self.era
    }

    /// A moment of this era by the wall clock, in nanoseconds since 1970.
    pub(super) fn wall(&self, at: Instant) -> i64 {
        let wall = self.last.wall;
        match at.checked_duration_since(self.last.monotonic) {
            Some(later) => wall.saturating_add(nanoseconds(later)),
            None => wall.saturating_sub(nanoseconds(self.last.monotonic.saturating_duration_since(at))),
        }
    }

    /// How far a stamp of this era may seem to be off, in nanoseconds.
    pub(super) fn slack(&self) -> i64 {
        STEP + self.last.apart
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_wall_clock_begins_another_era_and_nothing_else_does() {
        let start = stopwatch::now();
        let at = |micros: u64, ahead: i64| Moment {
            monotonic: start + Duration::from_micros(micros),
            wall: 1_000_000_000_000_000_000 + i64::try_from(micros).unwrap() * 1000 + ahead * 1000,
            apart: 100,
        };
        let mut clocks = Clocks::new(at(0, 0));
        assert_eq!(clocks.read(at(1_000_000, 0)), 0);
        assert_eq!(clocks.read(at(2_000_000, 20)), 0, "the readings are not taken at one instant");
        assert_eq!(clocks.read(at(3_000_000, 2_000_020)), 1);
        assert_eq!(clocks.read(at(4_000_000, 2_000_020)), 1);
        assert_eq!(clocks.read(at(4_000_100, 0)), 2, "back again");
        assert_eq!(clocks.wall(start + Duration::from_micros(4_000_200)), at(4_000_200, 0).wall);
        assert_eq!(clocks.wall(start), at(0, 0).wall);
    }

    #[test]
    fn the_real_clocks_go_together() {
        let mut clocks = Clocks::new(Moment::now());
        assert_eq!((0..100).map(|_| clocks.read(Moment::now())).max(), Some(0));
    }
}
