//! Connected sockets that are used again. To open one, connect it, have it watched and close it costs more than to ask and be answered.
//!
//! For protocols whose answers name their questions alone: a socket that is used again may hear a second answer to what was asked from it
//! before. It keeps the numbers of all that was asked from it, and none of them is taken again, so that such an answer is a stranger's. One run
//! has it at a time, and only one that got all its answers and no error puts it back, so that nothing is awaited on it any more.
//!
//! Whoever forges answers has to guess the port, too, as long as it is not known for long: so a socket lives for a second, and asks few
//! questions. The ways to learn of an open port (CVE-2020-25705, CVE-2021-20322) take longer.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::time::Instant;

use super::{random::random, stamped::Stamps, udp::Connected};
use crate::{failure::Failure, stopwatch};

/// How long after it was opened a socket is still taken.
const LIFETIME: Duration = Duration::from_secs(1);
/// How many questions are asked from one.
pub(super) const MOST_ASKED: usize = 64;
/// How many wait for the next run, to one server and to all.
const MOST_OF_ONE: usize = 64;
const MOST: usize = 512;

/// Where they wait, each for the next run that has its peer and source.
#[derive(Debug, Default)]
pub(crate) struct Shelf(Arc<Mutex<Kept>>);

type Way = (SocketAddr, Option<IpAddr>);

#[derive(Debug, Default)]
struct Kept {
    // Boxed, as they are moved from here into a run and back.
    #[expect(clippy::vec_box, reason = "a run takes the box with it")]
    sockets: BTreeMap<Way, Vec<Box<Shared>>>,
    count: usize,
    /// Somebody looks after those that have had their time.
    swept: bool,
}

/// A socket, with the numbers of all that was asked from it. Dropped, it is closed.
pub(crate) struct Shared {
    pub(crate) socket: Connected,
    asked: Vec<u16>,
    opened: Instant,
    way: Way,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("way", &self.way).field("asked", &self.asked.len()).finish_non_exhaustive()
    }
}

impl Shared {
    /// A random number for a question, that none had before which was asked from here.
    pub(crate) fn number(&mut self) -> Result<u16, Failure> {
        loop {
            let number = random().map(u16::from_be_bytes)?;
            if !self.asked.contains(&number) {
                self.asked.push(number);
                return Ok(number);
            }
        }
    }

    fn is_fit(&self, now: Instant) -> bool {
        self.asked.len() < MOST_ASKED && now.saturating_duration_since(self.opened) < LIFETIME
    }
}

impl Shelf {
    /// A socket to `remote`, from `source` where given: one that waits here, or a new one. Fails where there is no route or no descriptor left.
    pub(crate) fn take(&self, remote: SocketAddr, source: Option<IpAddr>) -> Result<Box<Shared>, Failure> {
        let way = (remote, source);
        while let Some(mut shared) = self.next(&way) {
            if shared.is_fit(stopwatch::now()) && shared.socket.renew() {
                return Ok(shared);
            }
        }
        let socket = Connected::open(remote, source, Stamps::Arrival)?;
        Ok(Box::new(Shared { socket, asked: Vec::new(), opened: stopwatch::now(), way }))
    }

    fn next(&self, way: &Way) -> Option<Box<Shared>> {
        let mut kept = lock(&self.0);
        let next = kept.sockets.get_mut(way)?.pop()?;
        kept.count -= 1;
        Some(next)
    }

    /// Puts one back, from which all that was asked was answered, and to which no error came.
    pub(crate) fn put_back(&self, shared: Box<Shared>) {
        if !shared.is_fit(stopwatch::now()) {
            return;
        }
        let mut guard = lock(&self.0);
        let kept = &mut *guard;
        let waiting = kept.sockets.entry(shared.way).or_default();
        if kept.count >= MOST || waiting.len() >= MOST_OF_ONE {
            return;
        }
        waiting.push(shared);
        kept.count += 1;
        if !std::mem::replace(&mut kept.swept, true) {
            tokio::spawn(sweep(Sweeper(Arc::downgrade(&self.0))));
        }
    }
}

/// Says that nobody looks after the shelf any more, also where its runtime ends.
struct Sweeper(Weak<Mutex<Kept>>);

impl Drop for Sweeper {
    fn drop(&mut self) {
        if let Some(kept) = self.0.upgrade() {
            lock(&kept).swept = false;
        }
    }
}

/// Closes sockets that have had their time, until there are none.
async fn sweep(mut sweeper: Sweeper) {
    loop {
        tokio::time::sleep(LIFETIME).await;
        let Some(shelf) = sweeper.0.upgrade() else { return };
        let now = stopwatch::now();
        let mut kept = lock(&shelf);
        let mut old = Vec::new();
        for waiting in kept.sockets.values_mut() {
            old.extend(waiting.extract_if(.., |shared| !shared.is_fit(now)));
        }
        kept.sockets.retain(|_, waiting| !waiting.is_empty());
        kept.count = kept.sockets.values().map(Vec::len).sum();
        let is_empty = kept.count == 0;
        // Said under the same lock, so that whoever puts one back meanwhile sees it.
        kept.swept = !is_empty;
        drop(kept);
        // Closing takes its time.
        drop(old);
        if is_empty {
            sweeper.0 = Weak::new();
            return;
        }
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
