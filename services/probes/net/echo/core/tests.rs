//! Flights in virtual time, over a network that does as the test says.

use std::net::Ipv4Addr;

use nix::errno::Errno;
use vantage_contract::v1::TimingSource;

use super::*;
use crate::{
    net::{echo::tally::Fate, errqueue::Origin},
    stopwatch,
    wire::icmp::Version,
};

const MS: Duration = Duration::from_millis(1);
const TARGET: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

/// The core, its clocks, and what left so far.
struct Bench {
    core: Core<1>,
    clocks: Clocks,
    start: Instant,
    /// Where the wall clock is ahead of where it was, in nanoseconds.
    ahead: i64,
    now: Duration,
    drops: u32,
    cookies: u64,
}

impl Bench {
    fn new() -> Self {
        let start = stopwatch::now();
        let moment = Moment { monotonic: start, wall: 1 << 60, apart: 0 };
        Self { core: Core::new(), clocks: Clocks::new(moment), start, ahead: 0, now: Duration::ZERO, drops: 0, cookies: 1000 }
    }

    fn moment(&self) -> Moment {
        Moment { monotonic: self.start + self.now, wall: self.wall(self.now), apart: 0 }
    }

    fn wall(&self, at: Duration) -> i64 {
        (1 << 60) + nanoseconds(at) + self.ahead
    }

    fn order(&self, count: u32) -> Order {
        let (source, manner, request_timeout) = (None, Manner::default(), None);
        Order { target: TARGET, source, manner, count, spacing: 10 * MS, size: 24, request_timeout, end: self.start + self.now + 1000 * MS }
    }

    fn begin(&mut self, order: Order) -> oneshot::Receiver<Landing> {
        let (done, landing) = oneshot::channel();
        // Cookies are random in life; here they only differ.
        self.cookies = self.cookies.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let start = Start { lane: 0, cookie: self.cookies, drops: self.drops, now: self.start + self.now, era: self.clocks.era() };
        self.core.begin(order, start, done);
        landing
    }

    /// Time goes on to `millis`; what is due leaves at its time, and is returned.
    fn until(&mut self, millis: u64) -> Vec<Request> {
        self.go_on(millis, |_| Ok(()))
    }

    fn go_on(&mut self, millis: u64, mut network: impl FnMut(&Request) -> io::Result<()>) -> Vec<Request> {
        let end = Duration::from_millis(millis);
        let mut left = Vec::new();
        while let Some(wakes) = self.core.wakes() {
            let wakes = wakes.saturating_duration_since(self.start).max(self.now);
            if wakes > end {
                break;
            }
            self.now = wakes;
            self.clocks.read(self.moment());
            let Ok(Some(request)) = self.core.look_after(self.start + self.now, &[self.drops], self.clocks.era()) else { continue };
            let outcome = network(&request);
            let sent = outcome.is_ok();
            let place = self.core.sent(&request, self.start + self.now, self.clocks.era(), outcome);
            if let Some(place) = place {
                self.core.departed(place, self.wall(self.now));
            }
            if sent {
                left.push(request);
            }
        }
        self.now = end;
        self.clocks.read(self.moment());
        left
    }

    /// The reply to a request arrives now.
    fn reply(&mut self, request: &Request) {
        self.reply_from(request.target, request, |_| {});
    }

    fn reply_from(&mut self, from: IpAddr, request: &Request, change: impl FnOnce(&mut Vec<u8>)) {
        let mut payload = vec![0; request.stuffing.size];
        request.stuffing.write(request.sequence, &mut payload);
        change(&mut payload);
        let seen = self.moment();
        self.clocks.read(seen);
        let came = Came { sequence: request.sequence, payload: &payload, arrived: Some(seen.wall), hop_limit: Some(60) };
        self.core.replied(0, from, came, &seen, &self.clocks);
    }

    fn error(&mut self, to: IpAddr, sequence: u16, quote: &[u8]) {
        let from = Some(IpAddr::from([10, 0, 0, 1]));
        let (origin, errno) = (Origin::Icmp(Version::V4), Errno::EHOSTUNREACH);
        let error = SocketError { origin, from, kind: 3, code: 1, errno, info: 0, arrived: None, extension_at: None, quote: Vec::new() };
        self.core.refused(0, Some(to), sequence, quote, error, self.start + self.now);
    }
}

fn landed(landing: &mut oneshot::Receiver<Landing>) -> Landing {
    landing.try_recv().expect("the flight has landed")
}

fn answered(millis: u64) -> Fate {
    Fate::Answered(Duration::from_millis(millis), TimingSource::Kernel)
}

#[test]
fn requests_leave_in_their_rhythm_and_the_flight_lands_with_the_last_reply() {
    let mut bench = Bench::new();
    let mut landing = bench.begin(bench.order(3));
    for number in 0..3 {
        let left = bench.until(number * 10);
        assert_eq!(left.len(), 1, "one each 10 ms");
        bench.until(number * 10 + 5);
        bench.reply(&left[0]);
    }
    bench.until(26);
    let tally = landed(&mut landing).tally;
    assert_eq!(tally.fates(), [answered(5); 3]);
    assert!(bench.core.is_empty());
}

#[test]
fn flights_to_one_target_each_get_their_own_replies() {
    let mut bench = Bench::new();
    let mut landings: Vec<_> = (0..100).map(|_| bench.begin(bench.order(2))).collect();
    let mut left = bench.until(15);
    assert_eq!(left.len(), 200);
    left.reverse();
    for (number, request) in left.iter().enumerate() {
        if number != 7 {
            bench.reply(request);
        }
    }
    bench.until(16);
    let unanswered = landings.iter_mut().map(oneshot::Receiver::try_recv).filter(Result::is_err).count();
    assert_eq!(unanswered, 1, "the one whose request was not answered waits on");
}

#[test]
fn what_comes_from_elsewhere_or_is_changed_is_no_reply() {
    let mut bench = Bench::new();
    let mut landing = bench.begin(bench.order(1));
    let left = bench.until(1);
    bench.reply_from(OTHER, &left[0], |_| {});
    bench.reply_from(TARGET, &left[0], |payload| payload[20] ^= 1);
    bench.reply_from(TARGET, &left[0], |payload| payload[2] ^= 1);
    bench.reply_from(TARGET, &left[0], |payload| payload.fill(0));
    bench.until(1001);
    let tally = landed(&mut landing).tally;
    assert_eq!((tally.answered_count(), tally.corrupt), (0, 2), "of a changed cookie the sequence still tells whose it was");
}

#[test]
fn a_reply_after_the_end_is_credited_to_nobody() {
    let mut bench = Bench::new();
    let mut first = bench.begin(bench.order(1));
    let left = bench.until(1);
    bench.until(1000);
    assert_eq!(landed(&mut first).tally.answered_count(), 0);
    let mut second = bench.begin(bench.order(1));
    bench.until(1001);
    bench.reply(&left[0]);
    bench.until(2001);
    let tally = landed(&mut second).tally;
    assert_eq!((tally.answered_count(), tally.duplicates, tally.late, tally.corrupt), (0, 0, 0, 0));
}

#[test]
fn a_reply_after_its_requests_time_is_late() {
    let mut bench = Bench::new();
    let mut landing = bench.begin(Order { request_timeout: Some(20 * MS), ..bench.order(3) });
    let left = bench.until(25);
    bench.reply(&left[0]);
    bench.reply(&left[1]);
    bench.until(41);
    let tally = landed(&mut landing).tally;
    assert_eq!(tally.fates(), [Fate::Late, answered(15), Fate::Expired]);
    assert_eq!(bench.core.wakes(), None, "it landed when the last one's time was up, not at its end");
}

#[test]
fn an_error_is_known_by_sequence_and_target_where_it_quotes_no_more() {
    let mut bench = Bench::new();
    let mut landing = bench.begin(bench.order(1));
    let mut spared = bench.begin(Order { target: OTHER, ..bench.order(1) });
    let left = bench.until(1);
    bench.error(OTHER, left[0].sequence, &[]);
    bench.error(TARGET, left[0].sequence, &[]);
    bench.until(2);
    assert_eq!(landed(&mut landing).tally.fates(), [Fate::Refused]);
    assert!(spared.try_recv().is_err(), "an error about another target's request is not about this one");
}

#[test]
fn a_step_of_the_wall_clock_changes_no_round_trip() {
    let mut bench = Bench::new();
    let mut landing = bench.begin(bench.order(3));
    let first = bench.until(0);
    bench.until(5);
    bench.reply(&first[0]);
    bench.ahead = 2_000_000_000;
    let second = bench.until(10);
    bench.until(14);
    bench.ahead = -3_000_000_000;
    bench.reply(&second[0]);
    let third = bench.until(20);
    bench.until(26);
    bench.reply(&third[0]);
    bench.until(27);
    let Landing { tally, stepped, .. } = landed(&mut landing);
    assert!(stepped);
    let user = Fate::Answered(4 * MS, TimingSource::User);
    assert_eq!(tally.fates(), [answered(5), user, answered(6)], "the one over the step is the process's own");
}

#[test]
fn what_the_kernel_had_no_room_for_is_tried_again() {
    let mut bench = Bench::new();
    let mut landing = bench.begin(bench.order(1));
    let mut tries = 0;
    let left = bench.go_on(10, |_| {
        tries += 1;
        if tries < 4 { Err(Errno::ENOBUFS.into()) } else { Ok(()) }
    });
    assert_eq!((left.len(), tries), (1, 4));
    bench.reply(&left[0]);
    bench.until(11);
    assert_eq!(landed(&mut landing).tally.sent_count(), 1);
}

#[test]
fn requests_that_do_not_leave_are_no_loss_and_say_why() {
    let mut bench = Bench::new();
    let mut landing = bench.begin(bench.order(3));
    let left = bench.go_on(50, |_| Err(Errno::ENETUNREACH.into()));
    let Landing { tally, unsent, .. } = landed(&mut landing);
    assert_eq!((left.len(), tally.sent_count()), (0, 0));
    assert_eq!(unsent.and_then(|error| error.raw_os_error()), Some(Errno::ENETUNREACH as i32));
}

#[test]
fn drops_at_our_own_socket_are_told_to_the_flights_of_that_time() {
    let mut bench = Bench::new();
    bench.drops = 5;
    let mut early = bench.begin(bench.order(1));
    bench.until(500);
    bench.drops = 7;
    let mut late = bench.begin(bench.order(1));
    bench.until(2000);
    assert_eq!((landed(&mut early).tally.drops, landed(&mut late).tally.drops), (2, 0));
}

#[test]
fn nothing_is_sent_for_a_run_that_was_given_up() {
    let mut bench = Bench::new();
    let landing = bench.begin(bench.order(100));
    assert_eq!(bench.until(15).len(), 2);
    drop(landing);
    assert_eq!(bench.until(900).len(), 0);
    assert!(bench.core.is_empty());
}

#[test]
fn sequences_begin_again_after_65536_and_replies_still_find_their_flights() {
    let mut bench = Bench::new();
    let mut patient = bench.begin(bench.order(1));
    let first = bench.until(0);
    for _ in 0..66 {
        let end = bench.start + bench.now + 2 * MS;
        let _gone = bench.begin(Order { count: 1000, spacing: Duration::from_nanos(1), end, ..bench.order(1) });
        let millis = u64::try_from(bench.now.as_millis()).unwrap();
        bench.until(millis + 3);
    }
    bench.reply(&first[0]);
    let now = u64::try_from(bench.now.as_millis()).unwrap();
    bench.until(now + 1);
    assert_eq!(landed(&mut patient).tally.answered_count(), 1);
}
