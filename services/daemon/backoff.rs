//! How long to wait before trying again: exponential with jitter, for ever.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Delays that double from `first` up to `most`, each with a random part added that is at most as long as itself, so that many
/// who lost the same peer don't come back together.
#[derive(Debug)]
pub struct Backoff {
    builder: ExponentialBuilder,
    delays: ExponentialBackoff,
}

impl Backoff {
    /// Delays from `first` to `most` (to twice that, with its jitter).
    pub fn new(first: Duration, most: Duration) -> Self {
        let builder =
            ExponentialBuilder::new().with_min_delay(first).with_max_delay(most).with_factor(2.0).without_max_times().with_jitter();
        Self { builder, delays: builder.build() }
    }

    /// The next delay.
    pub fn next_delay(&mut self) -> Duration {
        // Without a limit of times the iterator has no end.
        self.delays.next().unwrap_or_default()
    }

    /// Begins anew with the first delay, after things went well.
    pub fn reset(&mut self) {
        self.delays = self.builder.build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_stay_bounded_and_never_end() {
        let (first, most) = (Duration::from_millis(100), Duration::from_secs(2));
        let mut backoff = Backoff::new(first, most);
        let delays: Vec<_> = (0..1000).map(|_| backoff.next_delay()).collect();
        assert!(delays[0] >= first && delays[0] <= 2 * first, "{:?}", delays[0]);
        assert!(delays.iter().all(|delay| *delay >= first && *delay <= 2 * most));
        assert!(delays[999] >= most);
        backoff.reset();
        assert!(backoff.next_delay() <= 2 * first);
    }
}
