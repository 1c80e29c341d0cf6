use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::KindLimits;

const PACES: [Pace; 3] = [Pace::Prompt, Pace::Unproven, Pace::Slow];

fn hall(in_flight: usize, max_waiting: usize, by_kind: KindLimits) -> Hall<u64> {
    Hall::new(Limits { in_flight, max_waiting, in_flight_by_kind: by_kind, ..Limits::default() })
}

fn class(kind: &'static str, pace: Pace) -> Class {
    Class { client: 0, kind, pace }
}

/// How many of a class find a place at once.
fn fill(hall: &mut Hall<u64>, class: Class) -> usize {
    let now = vantage_daemon::clock::monotonic();
    (0..).take_while(|_| hall.has_room(class) && hall.enter(class, now, || 0) == Entry::In).count()
}

#[test]
fn slow_runs_leave_places_to_unproven_ones_and_both_to_prompt_ones() {
    let mut hall = hall(64, 0, KindLimits::default());
    assert_eq!(fill(&mut hall, class("tcp", Pace::Slow)), 24, "half of the kind's 48");
    assert_eq!(fill(&mut hall, class("tcp", Pace::Unproven)), 12, "up to three quarters of them");
    assert_eq!(fill(&mut hall, class("tcp", Pace::Prompt)), 12, "up to all");
    assert_eq!(fill(&mut hall, class("udp", Pace::Slow)), 8, "up to half of the 64");
    assert_eq!(fill(&mut hall, class("udp", Pace::Unproven)), 4, "up to three quarters");
    assert_eq!(fill(&mut hall, class("udp", Pace::Prompt)), 4, "up to all");
}

#[test]
fn where_there_is_one_place_every_pace_may_take_it() {
    for pace in PACES {
        assert_eq!(fill(&mut hall(1, 0, KindLimits::default()), class("ping", pace)), 1);
    }
    assert_eq!(hall(1, 0, KindLimits::default()).waiting.limit(Pace::Slow), 0, "none is none");
}

#[test]
fn a_kind_that_is_full_holds_up_no_other() {
    let (now, mut hall) = (vantage_daemon::clock::monotonic(), hall(4, 10, KindLimits::default().with("tcp", 1)));
    let (tcp, udp) = (class("tcp", Pace::Prompt), class("udp", Pace::Prompt));
    assert_eq!(hall.enter(tcp, now, || 1), Entry::In);
    assert!(matches!(hall.enter(tcp, now, || 2), Entry::Waiting(_)));
    assert_eq!(hall.enter(udp, now, || 3), Entry::In);
    hall.leave(udp);
    assert_eq!(hall.next(), None);
    hall.leave(tcp);
    assert_eq!((hall.next(), hall.next()), (Some((tcp, 2)), None));
}

#[test]
fn whose_order_has_had_no_place_for_longest_is_next() {
    let (now, mut hall) = (vantage_daemon::clock::monotonic(), hall(1, 10, KindLimits::default()));
    let slow = class("tcp", Pace::Slow);
    assert_eq!(hall.enter(slow, now, || 0), Entry::In);
    for (who, ago) in [(1, 5), (2, 60), (3, 5)] {
        assert!(matches!(hall.enter(slow, now - Duration::from_secs(ago), || who), Entry::Waiting(_)));
    }
    let mut served = Vec::new();
    for _ in 0..3 {
        hall.leave(slow);
        served.extend(hall.next().map(|(_, who)| who));
    }
    assert_eq!(served, [2, 1, 3]);
}

#[test]
fn a_client_that_floods_the_hall_holds_up_itself_alone() {
    let (now, mut hall) = (vantage_daemon::clock::monotonic(), hall(2, 4, KindLimits::default()));
    let of = |client| Class { client, kind: "tcp", pace: Pace::Prompt };
    let (flood, honest, third) = (of(1), of(2), of(3));
    assert_eq!(fill(&mut hall, flood), 1);
    for number in 1..=4 {
        assert!(matches!(hall.enter(flood, now - Duration::from_secs(number), || number), Entry::Waiting(_)));
    }
    assert_eq!(hall.enter(flood, now, || 5), Entry::Full, "it displaces none of its own");
    // Its newest, 4, makes room, and then 3; who has as many is left alone.
    assert!(matches!(hall.enter(honest, now, || 10), Entry::Waiting(_)));
    assert!(matches!(hall.enter(honest, now, || 11), Entry::Waiting(_)));
    assert_eq!(hall.enter(honest, now, || 12), Entry::Full);
    assert!(matches!(hall.enter(third, now, || 20), Entry::Waiting(_)), "one of the two with most");
    // Who has no place goes first, though others have waited for longer.
    let mut served = Vec::new();
    let mut leaving = flood;
    for _ in 0..4 {
        hall.leave(leaving);
        let (class, who) = hall.next().unwrap();
        served.push(who);
        leaving = class;
    }
    assert_eq!(hall.next(), None);
    served.sort_unstable();
    assert!(served.contains(&20) && served.iter().any(|who| *who > 9 && *who < 12), "{served:?}");
    assert_eq!(hall.waiting.taken(Pace::Prompt), 0);
}

proptest! {
    /// Whoever comes, leaves and gives up in whatever order: no bound is passed, no place leaks, nobody for whom there is room sleeps on,
    /// and each who was let in had come.
    #[test]
    fn bounds_hold_and_nobody_for_whom_there_is_room_sleeps(
        in_flight in 1_usize..12, max_waiting in 0_usize..12, tcp in 1_usize..12,
        steps in proptest::collection::vec((0_u8..3, 0_usize..3, 0_usize..3, any::<prop::sample::Index>()), 1..200),
    ) {
        let mut hall = hall(in_flight, max_waiting, KindLimits::default().with("tcp", tcp));
        let now = vantage_daemon::clock::monotonic();
        let (mut inside, mut asleep) = (Vec::new(), BTreeMap::new());
        for (number, (step, kind, pace, which)) in steps.into_iter().enumerate() {
            let number = u64::try_from(number).unwrap();
            match step {
                0 => {
                    let class = class(["tcp", "dns", ""][kind], PACES[pace]);
                    match hall.enter(class, now + Duration::from_millis(number % 7), || number) {
                        Entry::In => inside.push(class),
                        Entry::Waiting(turn) => prop_assert!(asleep.insert(number, (class, turn)).is_none()),
                        Entry::Full => prop_assert!(!hall.waiting.has_room(class.pace)),
                    }
                }
                1 if !inside.is_empty() => {
                    let class = inside.swap_remove(which.index(inside.len()));
                    hall.leave(class);
                    while let Some((class, woken)) = hall.next() {
                        prop_assert_eq!(asleep.remove(&woken).map(|(waited, _)| waited), Some(class), "it was waiting");
                        inside.push(class);
                    }
                }
                2 if !asleep.is_empty() => {
                    let who = *asleep.keys().nth(which.index(asleep.len())).unwrap();
                    let (class, turn) = asleep.remove(&who).unwrap();
                    prop_assert!(hall.give_up(class, turn) && !hall.give_up(class, turn));
                }
                _ => {}
            }
            let within = |bound: &Bound| PACES.iter().all(|pace| bound.taken(*pace) <= bound.limit(*pace));
            prop_assert!(within(&hall.places) && within(&hall.waiting) && hall.kinds.values().all(within));
            prop_assert_eq!(hall.places.taken(Pace::Prompt), inside.len());
            prop_assert_eq!(hall.kinds["tcp"].taken(Pace::Prompt), inside.iter().filter(|class| class.kind == "tcp").count());
            prop_assert_eq!(hall.places.taken(Pace::Slow), inside.iter().filter(|class| class.pace == Pace::Slow).count());
            prop_assert_eq!(hall.waiting.taken(Pace::Prompt), asleep.len());
            prop_assert!(asleep.values().all(|(class, _)| !hall.has_room(*class)), "{:?}", hall);
        }
        while let Some(class) = inside.pop() {
            hall.leave(class);
            while let Some((class, _)) = hall.next() {
                inside.push(class);
            }
        }
        prop_assert!(hall.lines.is_empty(), "all who waited came in, one after the other");
        prop_assert_eq!((hall.places.taken(Pace::Prompt), hall.waiting.taken(Pace::Prompt)), (0, 0));
    }
}
