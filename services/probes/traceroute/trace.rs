//! Which packet of a trace goes next, and when it is over: pure, told the time.
//!
//! Hops are probed concurrently, in a window that begins with the first one that neither has answered nor has been silent for a while (the
//! hold, a tenth of the patience at most). A first packet goes to each hop of the window; the others follow when it was
//! answered or the hold is over. So silent hops, however many, are waited for at the same time, and a target that answers soon gets few
//! packets too many.

use std::{net::IpAddr, time::Duration};

use tokio::time::Instant;
use vantage_contract::v1::TimingSource;

use crate::{net::errqueue::SocketError, wire::extension::Label};

/// How many hops are probed before the first of them has answered. All of them may be beyond the target, and are answered by it then: with
/// three attempts that makes six answers, which is what Linux sends in a burst of the errors by which a target answers UDP.
const WINDOW: usize = 4;
/// From one packet to the next with the same hop limit, at the most: routers limit the errors they send.
const PACE: Duration = Duration::from_millis(10);

/// The bounds of a trace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The largest hop limit.
    pub(super) max_hops: u8,
    /// Packets for each hop.
    pub(super) attempts: u8,
    /// How long an answer may take.
    pub(super) patience: Duration,
    /// Whether the packets with the same number of attempt go one after the other, as they share a port that takes one at a time.
    pub(super) in_lanes: bool,
}

/// What an answer says about the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// A router on the way: the hop limit ran out there.
    Passing,
    /// The target answered.
    Target,
    /// Somebody says that it does not go on from there.
    Refusal,
}

/// An answer to one packet.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    /// Who answered.
    pub(super) from: IpAddr,
    /// How long it took, and who took the stamps.
    pub(super) round_trip: (Duration, TimingSource),
    /// The ICMP error it was.
    pub(super) error: Option<SocketError>,
    /// What it says.
    pub(super) word: Word,
    /// The MPLS labels with which the packet arrived there, outermost first.
    pub(super) labels: Vec<Label>,
}

/// What became of the packets with one hop limit.
#[derive(Debug, Clone, Default)]
pub(super) struct Hop {
    /// Which attempts were made, as bits.
    tried: u16,
    /// Packets that were not answered in time.
    overdue: u32,
    /// The answers, in the order of arrival.
    pub(super) answers: Vec<Answer>,
    first_sent: Option<Instant>,
    last_sent: Option<Instant>,
}

impl Hop {
    /// Packets sent.
    pub(super) fn sent_count(&self) -> u32 {
        self.tried.count_ones()
    }

    fn settled(&self) -> u32 {
        self.overdue + u32::try_from(self.answers.len()).unwrap_or(u32::MAX)
    }
}

#[derive(Debug, Clone, Copy)]
struct Packet {
    hop: u8,
    attempt: u8,
    sent: Instant,
    open: bool,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Send a packet with that hop limit, as that attempt from 0.
    Send {
        /// The hop limit.
        hop: u8,
        /// The attempt.
        attempt: u8,
    },
    /// Wait for answers, until then at most.
    Wait(Instant),
    /// Nothing: the trace is complete.
    Done,
}

/// A packet that may go.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    ready: Instant,
    /// How many went to that hop before it.
    sent: u32,
    hop: u8,
    attempt: u8,
}

/// A trace under way.
#[derive(Debug)]
pub(super) struct Trace {
    limits: Limits,
    packets: Vec<Packet>,
    /// Hop 1 is at 0.
    hops: Vec<Hop>,
    /// The lowest hop from which it does not go on: the target's, or one that refuses.
    end: Option<u8>,
    /// The largest round trip seen so far.
    slowest: Option<Duration>,
    /// One packet at a time, because an answer came that does not say to which packet.
    careful: bool,
    /// While packets of the time before that are under way.
    confused: bool,
}

impl Trace {
    /// A trace within limits.
    pub(super) fn new(limits: Limits) -> Self {
        let hops = vec![Hop::default(); limits.max_hops.into()];
        Self { limits, packets: Vec::new(), hops, end: None, slowest: None, careful: false, confused: false }
    }

    /// What is to be done at `now`.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        self.age(now);
        let last = self.last();
        let attempts = u32::from(self.limits.attempts);
        if self.hops.iter().take(last.into()).all(|hop| hop.settled() >= attempts) {
            return Next::Done;
        }
        let mut wake =
            self.packets.iter().filter(|packet| packet.open && packet.hop <= last).map(|packet| packet.sent + self.limits.patience).min();
        if self.may_send() {
            let candidate = if self.limits.in_lanes { self.next_in_lanes(last, now) } else { self.next_in_window(last, now) };
            if let Some(candidate) = candidate {
                if candidate.ready <= now {
                    return Next::Send { hop: candidate.hop, attempt: candidate.attempt };
                }
                wake = wake.into_iter().chain([candidate.ready]).min();
            }
        }
        Next::Wait(wake.unwrap_or(now + PACE))
    }

    /// How long a hop may be silent before the trace goes on beyond it: twice the largest round trip, within a twentieth and a tenth of the
    /// patience. Answers that come later count all the same.
    fn hold(&self) -> Duration {
        let patience = self.limits.patience;
        self.slowest.map_or(patience / 10, |slowest| (slowest * 2).clamp(patience / 20, patience / 10))
    }

    fn pace(&self) -> Duration {
        PACE.min(self.limits.patience / 100)
    }

    fn may_send(&self) -> bool {
        let is_alone = !self.careful || self.packets.iter().all(|packet| !packet.open);
        is_alone && !self.confused
    }

    /// What may go first, and when: hops with the fewest packets before others, then nearer ones.
    fn next_in_window(&self, last: u8, now: Instant) -> Option<Candidate> {
        let (hold, pace) = (self.hold(), self.pace());
        let held_until = |hop: &Hop| match (hop.answers.is_empty(), hop.first_sent) {
            (true, first_sent) => first_sent.map(|sent| sent + hold),
            // It is not held up by a hop that has answered.
            (false, _) => Some(now),
        };
        let hops = || (1..).zip(&self.hops).take(last.into());
        let base = hops().position(|(_, hop)| held_until(hop).is_none_or(|until| until > now)).unwrap_or(last.into());
        // The window opens when the hop at its beginning has been waited for.
        let opens = self.hops.get(base).and_then(held_until);
        hops()
            .take(base + WINDOW + 1)
            .filter(|(_, hop)| hop.sent_count() < self.limits.attempts.into())
            .filter_map(|(number, hop)| {
                let ready = match hop.last_sent {
                    Some(sent) => held_until(hop)?.max(sent + pace),
                    None if usize::from(number) <= base + WINDOW => now,
                    None => opens?,
                };
                let attempt = u8::try_from(hop.tried.trailing_ones()).unwrap_or_default();
                Some(Candidate { ready, sent: hop.sent_count(), hop: number, attempt })
            })
            .min_by_key(|candidate| (candidate.ready.max(now), candidate.sent, candidate.hop))
    }

    /// The next hop of the lane that is free first: one with nothing under way that is younger than the hold.
    fn next_in_lanes(&self, last: u8, now: Instant) -> Option<Candidate> {
        let (hold, pace) = (self.hold(), self.pace());
        (0..self.limits.attempts)
            .filter_map(|lane| {
                let (number, hop) = (1..).zip(&self.hops).take(last.into()).find(|(_, hop)| hop.tried & (1 << lane) == 0)?;
                let busy = self.packets.iter().filter(|packet| packet.open && packet.attempt == lane).map(|packet| packet.sent + hold);
                let ready = busy.chain(hop.last_sent.map(|sent| sent + pace)).chain([now]).max()?;
                Some(Candidate { ready, sent: hop.sent_count(), hop: number, attempt: lane })
            })
            .min_by_key(|candidate| (candidate.ready, candidate.hop))
    }

    /// A packet left: its number follows that of the one before, from 0.
    pub(super) fn sent(&mut self, hop: u8, attempt: u8, now: Instant) {
        self.packets.push(Packet { hop, attempt, sent: now, open: true });
        if let Some(hop) = self.hop_mut(hop) {
            hop.tried |= 1 << attempt;
            hop.first_sent = hop.first_sent.or(Some(now));
            hop.last_sent = Some(now);
        }
    }

    /// The only packet under way, which an answer without a number must be to.
    pub(super) fn only_open(&self) -> Option<u16> {
        if self.confused {
            return None;
        }
        let mut open = (0..).zip(&self.packets).filter(|(_, packet)| packet.open).map(|(number, _)| number);
        let only = open.next();
        if open.next().is_none() { only } else { None }
    }

    /// Packet `number` was answered. Later than the patience allows, or a second time, it does not count.
    pub(super) fn answered(&mut self, number: u16, answer: Answer) {
        let patience = self.limits.patience;
        let Some(packet) = self.packets.get_mut(usize::from(number)) else { return };
        if !packet.open || answer.round_trip.0 > patience {
            return;
        }
        packet.open = false;
        let number = packet.hop;
        self.slowest = self.slowest.max(Some(answer.round_trip.0));
        if answer.word != Word::Passing {
            self.end = Some(self.end.map_or(number, |end| end.min(number)));
        }
        if let Some(hop) = self.hop_mut(number) {
            hop.answers.push(answer);
        }
    }

    /// An answer came that quotes too little to say to which of the packets under way: from here on they go one at a time, and those
    /// under way that stay without an answer are sent again and not held against their hops.
    pub(super) fn unattributed(&mut self) {
        if self.packets.iter().any(|packet| packet.open) && !self.careful {
            self.careful = true;
            self.confused = true;
        }
    }

    fn age(&mut self, now: Instant) {
        for packet in self.packets.iter_mut().filter(|packet| packet.open && packet.sent + self.limits.patience <= now) {
            packet.open = false;
            if let Some(hop) = usize::from(packet.hop).checked_sub(1).and_then(|index| self.hops.get_mut(index)) {
                if self.confused {
                    hop.tried &= !(1 << packet.attempt);
                } else {
                    hop.overdue += 1;
                }
            }
        }
        self.confused &= self.packets.iter().any(|packet| packet.open);
    }

    fn hop_mut(&mut self, number: u8) -> Option<&mut Hop> {
        usize::from(number).checked_sub(1).and_then(|index| self.hops.get_mut(index))
    }

    /// The last hop that matters, as far as is known.
    fn last(&self) -> u8 {
        self.end.unwrap_or(self.limits.max_hops)
    }

    /// The hops that were tried, up to the last that matters.
    pub(super) fn hops(&self) -> &[Hop] {
        let known = self.hops.get(..usize::from(self.last())).unwrap_or_default();
        let tried = known.iter().rposition(|hop| hop.tried != 0).map_or(0, |index| index + 1);
        known.get(..tried).unwrap_or_default()
    }

    /// The hop from which it does not go on, and what was said there: the target's own word before any other.
    pub(super) fn ending(&self) -> Option<(u8, &Answer)> {
        let end = self.end?;
        let answers = &self.hops.get(usize::from(end).checked_sub(1)?)?.answers;
        let of = |word| answers.iter().find(|answer| answer.word == word);
        of(Word::Target).or_else(|| of(Word::Refusal)).map(|answer| (end, answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stopwatch;

    const PATIENCE: Duration = Duration::from_secs(1);

    fn limits(max_hops: u8, attempts: u8) -> Limits {
        Limits { max_hops, attempts, patience: PATIENCE, in_lanes: false }
    }

    fn answer(last: u8, word: Word) -> Answer {
        let round_trip = (Duration::from_millis(5), TimingSource::Kernel);
        Answer { from: IpAddr::from([10, 0, 0, last]), round_trip, error: None, word, labels: Vec::new() }
    }

    /// Drives a trace in virtual time through a path that answers 5 ms later as `path` says; returns how long it took.
    fn drive(trace: &mut Trace, path: impl Fn(u8, u8) -> Option<Answer>) -> Duration {
        let start = stopwatch::now();
        let mut now = start;
        let mut pending: Vec<(Instant, u16, Answer)> = Vec::new();
        for _ in 0..10_000 {
            pending.retain(|(at, number, answer)| {
                let due = *at <= now;
                if due {
                    trace.answered(*number, answer.clone());
                }
                !due
            });
            match trace.next(now) {
                Next::Send { hop, attempt } => {
                    let number = u16::try_from(trace.packets.len()).unwrap();
                    trace.sent(hop, attempt, now);
                    pending.extend(path(hop, attempt).map(|answer| (now + Duration::from_millis(5), number, answer)));
                }
                Next::Wait(until) => now = pending.iter().map(|(at, ..)| *at).chain([until]).min().unwrap().max(now),
                Next::Done => return now - start,
            }
        }
        panic!("the trace does not end: {trace:?}");
    }

    fn four_hops(hop: u8, _: u8) -> Option<Answer> {
        Some(answer(hop.min(4), if hop < 4 { Word::Passing } else { Word::Target }))
    }

    #[test]
    fn a_trace_ends_when_the_target_and_all_hops_before_it_are_settled() {
        for in_lanes in [false, true] {
            let mut trace = Trace::new(Limits { in_lanes, ..limits(30, 3) });
            assert!(drive(&mut trace, four_hops) < Duration::from_millis(100));
            assert_eq!(trace.hops().len(), 4);
            assert!(trace.hops().iter().all(|hop| hop.sent_count() == 3 && hop.answers.len() == 3));
            assert_eq!(trace.ending().map(|(hop, answer)| (hop, answer.word)), Some((4, Word::Target)));
            assert!(trace.packets.len() <= 3 * (3 + WINDOW), "{}", trace.packets.len());
        }
    }

    #[test]
    fn a_silent_hop_costs_one_patience() {
        let mut trace = Trace::new(limits(30, 3));
        let taken = drive(&mut trace, |hop, attempt| if hop == 2 { None } else { four_hops(hop, attempt) });
        assert!(taken >= PATIENCE && taken < PATIENCE * 2, "{taken:?}");
        assert_eq!(trace.hops().iter().map(|hop| hop.answers.len()).collect::<Vec<_>>(), [3, 0, 3, 3]);
    }

    #[test]
    fn a_silent_target_ends_with_the_largest_hop_limit() {
        let mut trace = Trace::new(limits(30, 3));
        let taken = drive(&mut trace, |hop, attempt| if hop < 4 { four_hops(hop, attempt) } else { None });
        assert_eq!(trace.hops().len(), 30);
        assert!(trace.ending().is_none() && taken < PATIENCE * 6, "{taken:?}");
    }

    #[test]
    fn loss_is_shown_at_its_own_hop_alone() {
        let mut trace = Trace::new(limits(30, 4));
        drive(&mut trace, |hop, attempt| if hop == 2 && attempt % 2 == 0 { None } else { four_hops(hop, attempt) });
        assert_eq!(trace.hops().iter().map(|hop| hop.answers.len()).collect::<Vec<_>>(), [4, 2, 4, 4]);
    }

    #[test]
    fn nothing_is_sent_beyond_the_largest_hop_limit() {
        let mut trace = Trace::new(limits(2, 3));
        drive(&mut trace, four_hops);
        assert_eq!(trace.hops().len(), 2);
        assert!(trace.packets.iter().all(|packet| packet.hop <= 2));
    }

    #[test]
    fn a_refusal_ends_the_path_at_its_hop() {
        let mut trace = Trace::new(limits(30, 2));
        drive(&mut trace, |hop, _| Some(answer(hop.min(3), if hop < 3 { Word::Passing } else { Word::Refusal })));
        assert_eq!(trace.ending().map(|(hop, answer)| (hop, answer.word)), Some((3, Word::Refusal)));
        assert_eq!(trace.hops().len(), 3);
    }

    #[test]
    fn late_and_second_answers_do_not_count() {
        let now = stopwatch::now();
        let mut trace = Trace::new(limits(1, 1));
        trace.sent(1, 0, now);
        trace.answered(0, Answer { round_trip: (PATIENCE * 2, TimingSource::User), ..answer(1, Word::Target) });
        assert!(trace.ending().is_none());
        trace.answered(0, answer(1, Word::Target));
        trace.answered(0, answer(1, Word::Target));
        trace.answered(7, answer(1, Word::Target));
        assert_eq!(trace.hops()[0].answers.len(), 1);
    }

    #[test]
    fn answers_that_do_not_say_to_what_make_it_go_one_at_a_time() {
        let mut trace = Trace::new(limits(3, 1));
        let mut now = stopwatch::now();
        for hop in 1..=3 {
            assert_eq!(trace.next(now), Next::Send { hop, attempt: 0 });
            trace.sent(hop, 0, now);
        }
        assert_eq!(trace.only_open(), None);
        trace.unattributed();
        trace.answered(0, answer(1, Word::Passing));
        trace.answered(1, answer(2, Word::Passing));
        assert_eq!(trace.only_open(), None, "it may be about any of those that were under way");
        now += PATIENCE;
        // The third is sent again, alone, and what comes without a number is its answer.
        assert_eq!(trace.next(now), Next::Send { hop: 3, attempt: 0 });
        trace.sent(3, 0, now);
        assert_eq!(trace.only_open(), Some(3));
        trace.answered(3, answer(3, Word::Target));
        assert_eq!(trace.next(now), Next::Done);
        assert!(trace.hops().iter().all(|hop| hop.sent_count() == 1 && hop.answers.len() == 1));
    }
}
