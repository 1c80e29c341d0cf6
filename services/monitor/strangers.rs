//! Streams that have not said whose they are: few, and the newest.
//!
//! What such a stream has sent is kept while the rest of its Hello is waited for, so there must not be many; and to keep the oldest would let
//! those that never say anything lock out whoever comes with a Hello.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// How many there may be.
pub(crate) const MOST: usize = 64;

/// All of them, by the order in which they came. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Strangers(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    streams: BTreeMap<u64, CancellationToken>,
    last: u64,
}

/// One of them, as long as this lives.
#[derive(Debug)]
pub(crate) struct Stranger {
    all: Strangers,
    number: u64,
    /// Cancelled when it has to go, because others came.
    pub(crate) displaced: CancellationToken,
}

impl Strangers {
    /// Another one has come; where there is no room for it, the oldest goes.
    pub(crate) fn come(&self) -> Stranger {
        let displaced = CancellationToken::new();
        let mut waiting = self.lock();
        waiting.last += 1;
        let number = waiting.last;
        waiting.streams.insert(number, displaced.clone());
        if waiting.streams.len() > MOST
            && let Some((_, oldest)) = waiting.streams.pop_first()
        {
            oldest.cancel();
        }
        drop(waiting);
        Stranger { all: self.clone(), number, displaced }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.all.lock().streams.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let strangers = Strangers::default();
        let mut there: Vec<_> = (0..MOST).map(|_| strangers.come()).collect();
        assert!(there.iter().all(|stranger| !stranger.displaced.is_cancelled()));
        there.remove(0);
        there.push(strangers.come());
        assert!(!there[0].displaced.is_cancelled(), "who left made room");
        there.push(strangers.come());
        assert!(there[0].displaced.is_cancelled() && !there[1].displaced.is_cancelled());
        assert_eq!(strangers.lock().streams.len(), MOST);
    }
}
