//! Handshakes in progress. Pure: it decides who has to go, and its owner ends it.
//!
//! An honest handshake takes a round trip or two. When there is no place left, the oldest goes: whoever fills all places and says nothing keeps
//! others out only as long as it opens more of them in one of their round trips than there are places.

use std::{collections::BTreeMap, net::IpAddr};

/// Handshakes at one listener.
pub(super) const MOST: usize = 256;
/// Handshakes from one address; of IPv6, from one network of 64 bits.
pub(super) const MOST_OF_ONE: usize = 64;

/// Those in progress, oldest first; with each, what ends it.
#[derive(Debug)]
pub(super) struct Handshakes<E> {
    in_progress: BTreeMap<u64, (IpAddr, E)>,
    last: u64,
}

impl<E> Default for Handshakes<E> {
    fn default() -> Self {
        Self { in_progress: BTreeMap::new(), last: 0 }
    }
}

impl<E> Handshakes<E> {
    /// One begins: its number, and the one that has to go for it.
    pub(super) fn enter(&mut self, from: IpAddr, end: E) -> (u64, Option<E>) {
        let from = network(from);
        let of_one = self.in_progress.values().filter(|(other, _)| *other == from).count();
        let oldest = if of_one >= MOST_OF_ONE {
            self.in_progress.iter().find(|(_, (other, _))| *other == from).map(|(number, _)| *number)
        } else if self.in_progress.len() >= MOST {
            self.in_progress.keys().next().copied()
        } else {
            None
        };
        let evicted = oldest.and_then(|number| self.in_progress.remove(&number)).map(|(_, end)| end);
        self.last += 1;
        self.in_progress.insert(self.last, (from, end));
        (self.last, evicted)
    }

    /// One has ended.
    pub(super) fn leave(&mut self, number: u64) {
        self.in_progress.remove(&number);
    }
}

/// What one customer of the network has: an address of IPv4, 64 bits of IPv6 (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    #[test]
    fn who_opens_many_displaces_its_own_and_the_oldest_goes_first() {
        let mut handshakes = Handshakes::default();
        assert_eq!(handshakes.enter(address(1), 0), (1, None));
        for number in 0..MOST_OF_ONE {
            assert_eq!(handshakes.enter(address(2), 100 + number).1, None);
        }
        assert_eq!(handshakes.enter(address(2), 7).1, Some(100));
        assert_eq!(handshakes.enter(address(3), 8).1, None);
    }

    #[test]
    fn when_all_places_are_taken_the_oldest_of_all_goes() {
        let mut handshakes = Handshakes::default();
        for number in 0..MOST {
            assert_eq!(handshakes.enter(address(u8::try_from(number % 200).unwrap()), number).1, None);
        }
        assert_eq!(handshakes.enter(address(250), 999).1, Some(0));
        handshakes.leave(2);
        assert_eq!(handshakes.enter(address(251), 1000).1, None);
        assert_eq!(handshakes.in_progress.len(), MOST);
    }

    #[test]
    fn a_network_of_ipv6_is_one() {
        let one: IpAddr = "2001:db8:1:2::1".parse().unwrap();
        assert_eq!(network(one), network("2001:db8:1:2:ffff::9".parse().unwrap()));
        assert_ne!(network(one), network("2001:db8:1:3::1".parse().unwrap()));
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), address(1));
    }
}
