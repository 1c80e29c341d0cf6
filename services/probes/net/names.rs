//! Names of addresses, for those who read a path: asked for late, a few at once, and kept for a while.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::stream::{self, StreamExt};
use tokio::{sync::Semaphore, time::Instant};

use super::resolve::Resolver;
use crate::{gate::Gate, stopwatch, wire::name};

/// How many names may be asked for at once, in a process: those of targets must not wait for them.
const AT_ONCE: usize = 32;
/// How many of them by one caller.
const AT_ONCE_EACH: usize = 8;
/// How long a name counts, and that there is none.
const AGE: Duration = Duration::from_secs(600);
/// How many are kept. The oldest goes when there is no room.
const MOST: usize = 4096;

/// Whose name, by whose word: the check's own resolver, or the system's.
type Key = (IpAddr, Option<SocketAddr>);

/// The names that were found lately.
pub(crate) struct Names {
    kept: Mutex<Kept>,
    turns: Semaphore,
}

/// Names, and when each was found.
#[derive(Default)]
struct Kept(HashMap<Key, (Option<String>, Instant)>);

impl Names {
    /// None so far.
    pub(crate) fn new() -> Self {
        Self { kept: Mutex::default(), turns: Semaphore::new(AT_ONCE) }
    }
}

impl Kept {
    /// What is known of an address: its name, or that it has none.
    fn get(&self, key: &Key, now: Instant) -> Option<Option<String>> {
        self.0.get(key).filter(|(_, found)| now < *found + AGE).map(|(name, _)| name.clone())
    }

    fn keep(&mut self, key: Key, name: Option<String>, now: Instant) {
        if self.0.len() >= MOST {
            self.0.retain(|_, (_, found)| now < *found + AGE);
        }
        if self.0.len() >= MOST
            && let Some(oldest) = self.0.iter().min_by_key(|(_, (_, found))| *found).map(|(key, _)| *key)
        {
            self.0.remove(&oldest);
        }
        self.0.insert(key, (name, now));
    }
}

impl Resolver {
    /// The names of addresses, each in presentation form with its final dot, as far as they are known or found until `end`. `server` is the
    /// check's own resolver, for which the caller asks the gate. An address is missing where it has no name, or none came in time. What a
    /// server that failed did not say is asked for again next time.
    pub(crate) async fn names_of(
        &self,
        addresses: impl IntoIterator<Item = IpAddr>,
        server: Option<SocketAddr>,
        gate: &dyn Gate,
        end: Instant,
    ) -> HashMap<IpAddr, String> {
        let asked = stream::iter(addresses).map(|address| async move { (address, self.kept_name_of(address, server, gate, end).await) });
        let mut answers = asked.buffer_unordered(AT_ONCE_EACH);
        let mut names = HashMap::new();
        while let Ok(Some((address, name))) = tokio::time::timeout_at(end, answers.next()).await {
            names.extend(name.map(|name| (address, name)));
        }
        names
    }

    async fn kept_name_of(&self, address: IpAddr, server: Option<SocketAddr>, gate: &dyn Gate, end: Instant) -> Option<String> {
        let names = &self.names;
        let kept = || names.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (address, server);
        if let Some(known) = kept().get(&key, stopwatch::now()) {
            return known;
        }
        let _turn = names.turns.acquire().await.ok()?;
        let found = self.name_of(address, server, gate, end).await.ok()?.map(|found| name::show(&found));
        kept().keep(key, found.clone(), stopwatch::now());
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Key {
        (IpAddr::from(number.to_be_bytes()), None)
    }

    #[test]
    fn a_name_counts_for_ten_minutes_and_so_does_that_there_is_none() {
        let (mut kept, start) = (Kept::default(), stopwatch::now());
        kept.keep(key(1), Some("one.".into()), start);
        kept.keep(key(2), None, start);
        let later = start + AGE - Duration::from_secs(1);
        assert_eq!(kept.get(&key(1), later), Some(Some("one.".into())));
        assert_eq!(kept.get(&key(2), later), Some(None));
        assert_eq!(kept.get(&(key(1).0, Some(SocketAddr::from(([192, 0, 2, 53], 53)))), later), None, "another server may say otherwise");
        assert_eq!(kept.get(&key(1), start + AGE), None);
    }

    #[test]
    fn the_oldest_goes_when_there_is_no_room() {
        let (mut kept, start) = (Kept::default(), stopwatch::now());
        let most = u32::try_from(MOST).unwrap();
        for number in 0..=most {
            kept.keep(key(number), None, start + Duration::from_millis(number.into()));
        }
        assert_eq!(kept.0.len(), MOST);
        assert_eq!((kept.get(&key(0), start), kept.get(&key(1), start)), (None, Some(None)));
        // Those whose time is over go all at once.
        kept.keep(key(most + 1), None, start + AGE * 2);
        assert_eq!(kept.0.len(), 1);
    }
}
