use proptest::prelude::*;

use super::*;
use crate::stopwatch;

/// A race in virtual time, in milliseconds from its start.
struct Track {
    race: Race,
    start: Instant,
}

impl Track {
    fn new() -> Self {
        Self { race: Race::new(64), start: stopwatch::now() }
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    fn resolved(&mut self, millis: u64, is_six: bool, last: &[u8]) {
        let now = self.at(millis);
        self.race.resolved(is_six, last.iter().map(|last| if is_six { six(*last) } else { four(*last) }), now);
    }

    fn next(&mut self, millis: u64) -> Next {
        let now = self.at(millis);
        self.race.next(now)
    }

    fn until(&self, millis: u64) -> Next {
        Next::Wait(Some(self.at(millis)))
    }
}

fn six(last: u8) -> IpAddr {
    IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(last)])
}

fn four(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

#[test]
fn families_take_turns_250_ms_apart_beginning_with_ipv6() {
    let mut track = Track::new();
    track.resolved(0, false, &[1, 2]);
    track.resolved(0, true, &[1, 2, 3]);
    let expected = [six(1), four(1), six(2), four(2), six(3)];
    for (number, address) in expected.into_iter().enumerate() {
        let due = 250 * number as u64;
        if number > 0 {
            assert_eq!(track.next(due - 1), track.until(due));
        }
        assert_eq!(track.next(due), Next::Try(address));
    }
    assert_eq!(track.next(5000), Next::Wait(None), "five are under way");
    for number in 0..5 {
        track.race.failed(number == 4);
    }
    assert_eq!(track.next(5000), Next::Lost);
}

#[test]
fn ipv6_is_tried_as_soon_as_it_is_told() {
    let mut track = Track::new();
    assert_eq!(track.next(0), Next::Wait(None));
    track.resolved(10, true, &[1]);
    assert_eq!(track.next(10), Next::Try(six(1)));
    // Nobody else is known; then somebody is, whose time has long come.
    assert_eq!(track.next(600), Next::Wait(None));
    track.resolved(700, false, &[1]);
    assert_eq!(track.next(700), Next::Try(four(1)));
}

#[test]
fn ipv4_waits_50_ms_for_the_answer_of_ipv6() {
    let early = |six_at: Option<u64>| {
        let mut track = Track::new();
        track.resolved(10, false, &[1]);
        assert_eq!(track.next(10), track.until(60));
        if let Some(millis) = six_at {
            track.resolved(millis, true, &[1]);
            return track.next(millis);
        }
        assert_eq!(track.next(59), track.until(60));
        track.next(60)
    };
    assert_eq!(early(Some(59)), Next::Try(six(1)));
    assert_eq!(early(None), Next::Try(four(1)));
    // That there is none is an answer, too.
    let mut track = Track::new();
    track.resolved(10, false, &[1]);
    track.resolved(20, true, &[]);
    assert_eq!(track.next(20), Next::Try(four(1)));
}

#[test]
fn an_answer_that_comes_late_joins_the_race_and_is_next() {
    let mut track = Track::new();
    track.resolved(0, false, &[1, 2]);
    assert_eq!(track.next(50), Next::Try(four(1)));
    track.resolved(100, true, &[1]);
    assert_eq!(track.next(100), track.until(300));
    assert_eq!(track.next(300), Next::Try(six(1)));
    assert_eq!(track.next(550), Next::Try(four(2)));
}

#[test]
fn the_next_is_tried_at_once_where_the_one_before_has_failed() {
    let mut track = Track::new();
    track.resolved(0, true, &[1]);
    track.resolved(0, false, &[1, 2]);
    assert_eq!(track.next(0), Next::Try(six(1)));
    track.race.failed(true);
    assert_eq!(track.next(3), Next::Try(four(1)));
    assert_eq!(track.next(3), track.until(253));
    assert_eq!(track.next(253), Next::Try(four(2)));
    // One that failed long after it was overtaken does not hurry anybody.
    track.race.failed(false);
    track.resolved(260, true, &[2]);
    assert_eq!(track.next(260), track.until(503));
}

#[test]
fn a_race_is_lost_only_when_both_families_are_told_and_all_attempts_have_failed() {
    let mut track = Track::new();
    track.resolved(0, true, &[1]);
    assert_eq!(track.next(0), Next::Try(six(1)));
    track.race.failed(true);
    assert_eq!(track.next(5), Next::Wait(None), "IPv4 may be told yet");
    track.resolved(40, false, &[]);
    assert_eq!(track.next(40), Next::Lost);
    let mut nobody = Track::new();
    nobody.resolved(0, true, &[]);
    nobody.resolved(0, false, &[]);
    assert_eq!(nobody.next(0), Next::Lost);
}

#[test]
fn no_more_than_so_many_are_tried() {
    let mut track = Track { race: Race::new(2), start: stopwatch::now() };
    track.resolved(0, false, &[1, 2, 3]);
    track.resolved(0, true, &[]);
    assert_eq!(track.next(0), Next::Try(four(1)));
    track.race.failed(true);
    assert_eq!(track.next(1), Next::Try(four(2)));
    assert_eq!(track.next(1000), Next::Wait(None));
    track.race.failed(true);
    assert_eq!(track.next(1000), Next::Lost);
}

proptest! {
    /// Whenever names are resolved and attempts fail: each address is tried once, none sooner than it may be, and it ends.
    #[test]
    fn each_address_is_tried_once_and_the_race_ends(
        sixes in 0..6_u8,
        fours in 0..6_u8,
        told in (0..400_u64, 0..400_u64),
        lives in prop::collection::vec(0..600_u64, 12),
    ) {
        let mut track = Track::new();
        // Who is under way, with the instant at which each fails.
        let mut running: Vec<(IpAddr, u64)> = Vec::new();
        let mut tried: Vec<(IpAddr, u64)> = Vec::new();
        let mut last_failed = true;
        let mut is_lost = false;
        for now in 0..10_000 {
            if now == told.0 {
                track.resolved(now, true, &(1..=sixes).collect::<Vec<_>>());
            }
            if now == told.1 {
                track.resolved(now, false, &(1..=fours).collect::<Vec<_>>());
            }
            let last = tried.last().map(|(address, _)| *address);
            running.retain(|(address, end)| {
                let goes_on = *end > now;
                if !goes_on {
                    track.race.failed(last == Some(*address));
                    last_failed |= last == Some(*address);
                }
                goes_on
            });
            loop {
                match track.next(now) {
                    Next::Try(address) => {
                        if let Some((_, before)) = tried.last() {
                            prop_assert!(last_failed || now - before >= 250, "{tried:?}");
                        } else if address.is_ipv4() {
                            prop_assert!(now >= told.0.min(told.1 + 50));
                        }
                        prop_assert!(tried.iter().all(|(other, _)| *other != address));
                        last_failed = false;
                        running.push((address, now + 1 + lives[tried.len()]));
                        tried.push((address, now));
                    }
                    Next::Wait(at) => {
                        prop_assert!(at.is_none_or(|at| at > track.at(now)));
                        break;
                    }
                    Next::Lost => {
                        prop_assert!(running.is_empty());
                        is_lost = true;
                        break;
                    }
                }
            }
            if is_lost {
                break;
            }
        }
        prop_assert!(is_lost);
        prop_assert_eq!(tried.len(), usize::from(sixes + fours));
    }
}
