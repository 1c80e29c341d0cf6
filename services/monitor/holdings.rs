//! What orders hold in memory, over all clients and for each: counted as long as they are there, in the book or under way.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use prost::Message;

use crate::config::Limits;

/// What an order takes beside what it says.
const EACH: u64 = 1024;

/// What is held in all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holdings(Arc<AtomicU64>);

/// What one client holds.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    all: Arc<AtomicU64>,
    own: Arc<AtomicU64>,
}

/// What one order holds, as long as this lives.
#[derive(Debug)]
pub(crate) struct Held {
    share: Share,
    bytes: u64,
}

/// A limit that is reached: the setting's name, and its value.
pub(crate) type Reached = (&'static str, u64);

impl Holdings {
    /// The share of another client.
    pub(crate) fn share(&self) -> Share {
        Share { all: Arc::clone(&self.0), own: Arc::default() }
    }
}

impl Share {
    /// Holds so many bytes more, or says which limit that would break.
    pub(crate) fn hold(&self, bytes: u64, limits: &Limits) -> Result<Held, Reached> {
        let held = self.hold_anyhow(bytes);
        let over = |counter: &AtomicU64, limit: u64| counter.load(Ordering::Relaxed) > limit;
        // Who is refused gives back what it took when `held` goes.
        match () {
            () if over(&self.own, limits.order_bytes_per_client) => Err(("limits.order_bytes_per_client", limits.order_bytes_per_client)),
            () if over(&self.all, limits.order_bytes) => Err(("limits.order_bytes", limits.order_bytes)),
            () => Ok(held),
        }
    }

    /// Holds them whatever the limits: an order of the journal's was let in before.
    pub(crate) fn hold_anyhow(&self, bytes: u64) -> Held {
        self.own.fetch_add(bytes, Ordering::Relaxed);
        self.all.fetch_add(bytes, Ordering::Relaxed);
        Held { share: self.clone(), bytes }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.share.own.fetch_sub(self.bytes, Ordering::Relaxed);
        self.share.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// About what an order takes up: what it says, as it came, as it is run and in a journal in memory, and what its regular expressions are made
/// into.
pub(crate) fn weight(order: &impl Message, pattern_bytes: usize) -> u64 {
    EACH + 3 * order.encoded_len() as u64 + pattern_bytes as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_counts_until_it_goes_and_a_refusal_holds_nothing() {
        let limits = Limits { order_bytes_per_client: 100, order_bytes: 150, ..Limits::default() };
        let all = Holdings::default();
        let (one, two) = (all.share(), all.share());
        let held = one.hold(100, &limits).unwrap();
        assert_eq!(one.hold(1, &limits).unwrap_err(), ("limits.order_bytes_per_client", 100));
        assert_eq!(two.hold(51, &limits).unwrap_err(), ("limits.order_bytes", 150));
        let _second = two.hold(50, &limits).unwrap();
        drop(held);
        assert!(one.hold(100, &limits).is_ok());
        assert_eq!(all.0.load(Ordering::Relaxed), 50);
    }
}
