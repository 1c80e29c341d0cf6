//! Round trips from stamps. The kernel stamps packets by the wall clock, which may be stepped at any moment, so a kernel round trip is
//! believed only where both clocks agree that no step came in between; else the process's own monotonic stamps count.

use std::time::Duration;

use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_gettime},
};
use tokio::time::Instant;
use vantage_contract::v1::TimingSource;

use crate::stopwatch;

/// A difference of the two clocks' advances below this is reading them one after the other; above, it is a step.
const STEP: i128 = 50_000;

/// One moment by both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    /// By the monotonic clock.
    pub(crate) monotonic: Instant,
    /// By the wall clock, in nanoseconds since 1970. Only ever subtracted from other wall stamps of the same run.
    wall: i128,
    /// How far apart the two were read, in nanoseconds.
    apart: i128,
}

impl Reading {
    /// Reads both clocks: up to three times, if something came in between.
    pub(crate) fn now() -> Self {
        let mut best: Option<Self> = None;
        for _ in 0..3 {
            let before = stopwatch::now();
            let wall = clock_gettime(ClockId::CLOCK_REALTIME).map_or(0, nanoseconds);
            let after = stopwatch::now();
            let apart = as_nanoseconds(after.saturating_duration_since(before));
            if best.is_none_or(|best| apart < best.apart) {
                best = Some(Self { monotonic: before, wall, apart });
            }
            if apart < STEP / 10 {
                break;
            }
        }
        best.unwrap_or_else(|| Self { monotonic: stopwatch::now(), wall: 0, apart: 0 })
    }

    /// The wall clock's time since 1970: for protocols that carry instants.
    pub(crate) fn since_1970(&self) -> Duration {
        nonnegative(self.wall)
    }

    /// How far apart the two clocks were read.
    pub(crate) fn resolution(&self) -> Duration {
        nonnegative(self.apart)
    }
}

/// A stamp of the kernel as the time since 1970.
pub(crate) fn since_1970(at: TimeSpec) -> Duration {
    nonnegative(nanoseconds(at))
}

fn nonnegative(nanos: i128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or_default())
}

fn nanoseconds(at: TimeSpec) -> i128 {
    i128::from(at.tv_sec()) * 1_000_000_000 + i128::from(at.tv_nsec())
}

fn as_nanoseconds(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX)
}

/// From departure to arrival. `left` was read before the packet was handed to the kernel and `departed` is the kernel's stamp of it;
/// `seen` was read after the answer was taken from the kernel and `arrived` is the kernel's stamp of that.
pub(crate) fn round_trip(
    left: &Reading,
    departed: Option<TimeSpec>,
    seen: &Reading,
    arrived: Option<TimeSpec>,
) -> (Duration, TimingSource) {
    let user = seen.monotonic.saturating_duration_since(left.monotonic);
    let slack = STEP + left.apart + seen.apart;
    let stepped = ((seen.wall - left.wall) - as_nanoseconds(user)).abs() > slack;
    // A kernel's round trip lies within the process's own.
    let believed = |from: i128, to: TimeSpec| {
        let taken = nanoseconds(to) - from;
        (!stepped && taken >= 0 && taken <= as_nanoseconds(user) + slack)
            .then(|| u64::try_from(taken).map(Duration::from_nanos).ok())
            .flatten()
    };
    if let Some(arrived) = arrived {
        if let Some(taken) = departed.and_then(|departed| believed(nanoseconds(departed), arrived)) {
            return (taken, TimingSource::Kernel);
        }
        if let Some(taken) = believed(left.wall, arrived) {
            return (taken, TimingSource::KernelReceive);
        }
    }
    (user, TimingSource::User)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reading `micros` after the run's start, with the wall clock `ahead` microseconds ahead of where it was then.
    fn at(start: Instant, micros: u64, ahead: i128) -> Reading {
        let wall = 1_000_000_000_000_000_000 + i128::from(micros) * 1000 + ahead * 1000;
        Reading { monotonic: start + Duration::from_micros(micros), wall, apart: 100 }
    }

    fn stamp(micros: i64, ahead: i64) -> Option<TimeSpec> {
        Some(TimeSpec::new(1_000_000_000, (micros + ahead) * 1000))
    }

    #[test]
    fn the_kernels_stamps_count_where_it_gave_both() {
        let start = stopwatch::now();
        let taken = round_trip(&at(start, 0, 0), stamp(10, 0), &at(start, 21_000, 0), stamp(20_010, 0));
        assert_eq!(taken, (Duration::from_millis(20), TimingSource::Kernel));
        let taken = round_trip(&at(start, 0, 0), None, &at(start, 21_000, 0), stamp(20_010, 0));
        assert_eq!(taken, (Duration::from_micros(20_010), TimingSource::KernelReceive));
        let taken = round_trip(&at(start, 0, 0), stamp(10, 0), &at(start, 21_000, 0), None);
        assert_eq!(taken, (Duration::from_millis(21), TimingSource::User));
    }

    #[test]
    fn a_step_of_the_wall_clock_changes_no_round_trip() {
        let start = stopwatch::now();
        for step in [2_000_000, -2_000_000, 500, -500] {
            let ahead = i128::from(step);
            // Stepped before the packet left the kernel, while it was under way, and after its answer came.
            for (departed, arrived) in
                [(stamp(10, step), stamp(20_010, step)), (stamp(10, 0), stamp(20_010, step)), (stamp(10, 0), stamp(20_010, 0))]
            {
                let taken = round_trip(&at(start, 0, 0), departed, &at(start, 21_000, ahead), arrived);
                assert_eq!(taken, (Duration::from_millis(21), TimingSource::User), "step {step} µs");
            }
        }
    }

    #[test]
    fn the_real_clocks_agree_with_each_other() {
        let (first, second) = (Reading::now(), Reading::now());
        let arrived = clock_gettime(ClockId::CLOCK_REALTIME).unwrap();
        let third = Reading::now();
        assert_eq!(round_trip(&first, None, &third, Some(arrived)).1, TimingSource::KernelReceive);
        assert!(round_trip(&first, None, &second, None).0 < Duration::from_secs(1));
    }
}
