//! Servers that asked to be left alone, by a kiss-o'-death (RFC 5905 section 7.4), and until when they are. Pure: time is an argument.
//!
//! A kiss is believed only in an answer to a request of ours, so nobody off the path can make us blind to a server.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The first hold of a server that is asked too often (RATE), unless its packet asks for more.
const RATE: Duration = Duration::from_secs(60);
/// The longest hold after RATE.
const MOST_RATE: Duration = Duration::from_secs(3600);
/// The first hold of a server that wants none of us (DENY, RSTR).
const DENIED: Duration = Duration::from_secs(3600);
/// The longest hold after DENY or RSTR: once a day it is asked whether that still holds, as a monitor has to know.
const MOST_DENIED: Duration = Duration::from_secs(24 * 3600);
/// How long after the end of a hold another kiss makes it longer, rather than the first again.
const MEMORY: Duration = Duration::from_secs(24 * 3600);
/// How many servers are remembered. Then the one whose hold ended longest ago, or ends first, makes room.
const MOST_SERVERS: usize = 4096;

/// What is known of servers that sent a kiss.
#[derive(Debug, Default)]
pub(crate) struct Holds(Mutex<HashMap<SocketAddr, Hold>>);

/// A server that is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hold {
    /// The kiss code.
    pub(crate) code: String,
    /// How long the hold is.
    pub(crate) length: Duration,
    /// When it ends.
    pub(crate) until: Instant,
}

impl Holds {
    /// The hold that a server is under, if it is.
    pub(crate) fn of(&self, server: SocketAddr, now: Instant) -> Option<Hold> {
        self.lock().get(&server).filter(|hold| now < hold.until).cloned()
    }

    /// A server sent a kiss. Says how long it is left alone from now on; `None`: this code asks for nothing. `poll` is that of its packet, a power of two
    /// of a second.
    pub(crate) fn kiss(&self, server: SocketAddr, code: &str, poll: i8, now: Instant) -> Option<Duration> {
        let (first, most) = match code {
            "DENY" | "RSTR" => (DENIED, MOST_DENIED),
            // Experiments of strangers are to be ignored (RFC 5905 section 7.4).
            code if code.starts_with('X') => return None,
            // RATE; and what is asked by a word that we don't know is at most this.
            _ => (RATE.max(seconds(poll)), MOST_RATE),
        };
        let mut servers = self.lock();
        let length = match servers.get(&server) {
            // An answer to a request that left before the first kiss came asks for nothing new.
            Some(before) if now < before.until => before.length.max(first.min(most)),
            Some(before) if now < before.until + MEMORY => first.max(before.length * 2).min(most),
            _ => first.min(most),
        };
        if servers.len() >= MOST_SERVERS
            && !servers.contains_key(&server)
            && let Some(first) = servers.iter().min_by_key(|(_, hold)| hold.until).map(|(server, _)| *server)
        {
            servers.remove(&first);
        }
        servers.insert(server, Hold { code: code.to_owned(), length, until: now + length });
        Some(length)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Hold>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A poll interval; one that no server means is none.
fn seconds(poll: i8) -> Duration {
    match u32::try_from(poll) {
        // RFC 5905 MAXPOLL: 2¹⁷ s are 36 h.
        Ok(poll @ 0..=17) => Duration::from_secs(1 << poll),
        _ => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stopwatch;

    fn server(number: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], number))
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_server_that_is_asked_too_often_is_left_alone_for_ever_longer_up_to_an_hour() {
        let (holds, mut now) = (Holds::default(), stopwatch::now());
        let mut lengths = Vec::new();
        for _ in 0..9 {
            let length = holds.kiss(server(123), "RATE", 0, now).unwrap();
            lengths.push(length.as_secs());
            assert_eq!(holds.of(server(123), now + length - SECOND).unwrap().code, "RATE");
            assert_eq!(holds.of(server(124), now), None, "its neighbour is not");
            now += length;
            assert_eq!(holds.of(server(123), now), None, "then it is asked again");
            now += SECOND;
        }
        assert_eq!(lengths, [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]);
        let much_later = now + MEMORY + SECOND;
        assert_eq!(holds.kiss(server(123), "RATE", 0, much_later), Some(RATE), "a kiss of yesterday is forgotten");
    }

    #[test]
    fn the_poll_interval_of_the_packet_counts_where_it_makes_sense() {
        let now = stopwatch::now();
        for (poll, length) in [(10, 1024), (6, 64), (5, 60), (17, 3600), (18, 60), (-1, 60), (i8::MIN, 60), (i8::MAX, 60)] {
            assert_eq!(Holds::default().kiss(server(123), "RATE", poll, now), Some(SECOND * length), "{poll}");
        }
    }

    #[test]
    fn a_server_that_wants_none_of_us_is_asked_once_an_hour_and_then_once_a_day() {
        let (holds, mut now) = (Holds::default(), stopwatch::now());
        for hours in [1, 2, 4, 8, 16, 24, 24] {
            assert_eq!(holds.kiss(server(123), "DENY", 0, now), Some(SECOND * hours * 3600));
            now += SECOND * hours * 3600;
        }
    }

    #[test]
    fn kisses_of_one_moment_are_one_and_the_longest_counts() {
        let (holds, now) = (Holds::default(), stopwatch::now());
        assert_eq!(holds.kiss(server(123), "RATE", 0, now), Some(RATE));
        assert_eq!(holds.kiss(server(123), "RATE", 0, now + SECOND), Some(RATE));
        assert_eq!(holds.kiss(server(123), "RSTR", 0, now + SECOND), Some(DENIED));
        assert_eq!(holds.kiss(server(123), "RATE", 0, now + SECOND), Some(DENIED), "not shortened");
    }

    #[test]
    fn words_of_no_meaning_hold_as_the_mildest_and_experiments_not_at_all() {
        let (holds, now) = (Holds::default(), stopwatch::now());
        assert_eq!(holds.kiss(server(1), "WHAT", 0, now), Some(RATE));
        assert_eq!(holds.kiss(server(2), "XYZ", 0, now), None);
        assert_eq!(holds.of(server(2), now), None);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_makes_room() {
        let (holds, now) = (Holds::default(), stopwatch::now());
        for number in 0..5000 {
            holds.kiss(server(number), "RATE", 0, now + Duration::from_millis(number.into()));
        }
        assert_eq!(holds.lock().len(), MOST_SERVERS);
        assert!(holds.of(server(903), now + SECOND * 5).is_none() && holds.of(server(904), now + SECOND * 5).is_some());
    }
}
