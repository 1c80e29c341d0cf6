//! How fast somebody may go on asking: time is an argument.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Lets a burst pass, and then so many a second; those that come faster wait. (The generic cell rate algorithm, ITU-T I.371.)
#[derive(Debug)]
pub(crate) struct Pacer {
    each: Duration,
    burst: Duration,
    /// When all that has passed is made up for.
    even: Mutex<Option<Instant>>,
}

impl Pacer {
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        let each = Duration::from_secs(1) / per_second.max(1);
        Self { each, burst: each * burst, even: Mutex::default() }
    }

    /// Counts one that comes `now` and weighs so much, and says how long it has to wait.
    pub(crate) fn pass(&self, now: Instant, weight: u32) -> Duration {
        let mut even = self.even.lock().unwrap_or_else(PoisonError::into_inner);
        let next = even.map_or(now, |even| even.max(now)) + self.each * weight;
        *even = Some(next);
        next.saturating_duration_since(now).saturating_sub(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use vantage_daemon::clock;

    use super::*;

    #[test]
    fn a_burst_passes_and_the_rest_goes_at_the_rate() {
        let (pacer, now) = (Pacer::new(100, 10), clock::monotonic());
        let waits: Vec<_> = (0..15).map(|_| pacer.pass(now, 1).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 20, 30, 40, 50]);
        assert_eq!(pacer.pass(now + Duration::from_secs(1), 1), Duration::ZERO);
        assert_eq!(pacer.pass(now + Duration::from_secs(2), 30), Duration::from_millis(200), "what weighs more is made up for longer");
    }
}
