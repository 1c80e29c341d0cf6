//! What became of each request of a flight: pure, so that every odd reply can be tried without a network.

use std::time::Duration;

use vantage_contract::v1::TimingSource;

use crate::net::errqueue::SocketError;

/// Errors that are kept at most.
const MOST_ERRORS: usize = 16;

/// What requests carry: a cookie that nobody can guess, and bytes that follow from it and the sequence, so that a reply to another flight,
/// or one that was changed on the way, can't pass for a true one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stuffing {
    /// Random, one for each flight.
    pub(crate) cookie: u64,
    /// Bytes after the ICMP header, at least 16.
    pub(crate) size: usize,
}

impl Stuffing {
    /// The payload of a request, eight bytes at a time; the last may be cut.
    fn words(self, sequence: u16) -> impl Iterator<Item = [u8; 8]> {
        // SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): cheap, and no two flights or requests share a byte but by chance.
        let mut state = self.cookie ^ (u64::from(sequence) << 48 | u64::from(sequence));
        let rest = std::iter::repeat_with(move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)).to_be_bytes()
        });
        std::iter::once(self.cookie.to_be_bytes()).chain(rest)
    }

    /// Fills `room` with the payload of a request.
    pub(crate) fn write(self, sequence: u16, room: &mut [u8]) {
        for (room, word) in room.chunks_mut(8).zip(self.words(sequence)) {
            match room.first_chunk_mut() {
                Some(room) => *room = word,
                None => room.copy_from_slice(&word[..room.len()]),
            }
        }
    }

    /// What a reply's payload shows about it.
    fn judge(self, sequence: u16, payload: &[u8]) -> Likeness {
        let is = |(came, sent): (&[u8], [u8; 8])| came.first_chunk().map_or_else(|| *came == sent[..came.len()], |came| *came == sent);
        if payload.len() == self.size && payload.chunks(8).zip(self.words(sequence)).all(is) {
            return Likeness::Same;
        }
        let same: usize = payload
            .chunks(8)
            .take(self.size.div_ceil(8))
            .zip(self.words(sequence))
            .map(|(came, sent)| came.iter().zip(sent).filter(|(came, sent)| **came == *sent).count())
            .sum();
        // Another flight's bytes agree in one of 256; ours with some changed agree in most.
        let common = self.size.min(payload.len());
        if common >= 8 && same * 2 > common { Likeness::Changed } else { Likeness::Foreign }
    }
}

/// The cookie with which a payload begins.
pub(crate) fn cookie_of(payload: &[u8]) -> Option<u64> {
    payload.first_chunk().copied().map(u64::from_be_bytes)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Likeness {
    Same,
    Changed,
    Foreign,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Its reply is awaited.
    Open,
    /// Its reply came in time.
    Answered(Duration, TimingSource),
    /// Its time is up.
    Expired,
    /// Its reply came when its time was up.
    Late,
    /// An error came in place of a reply.
    Refused,
}

/// A reply, as it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reply<'b> {
    /// The sequence of its request.
    pub(crate) sequence: u16,
    /// What it carries.
    pub(crate) payload: &'b [u8],
    /// From departure to arrival, and who took the stamps.
    pub(crate) round_trip: (Duration, TimingSource),
    /// Whether it came when its request's time was up.
    pub(crate) late: bool,
    /// The hop limit with which it arrived.
    pub(crate) hop_limit: Option<u8>,
}

/// The accounts of a flight.
#[derive(Debug)]
pub(crate) struct Tally {
    stuffing: Stuffing,
    fates: Vec<Fate>,
    open: usize,
    highest: Option<usize>,
    /// Further replies to requests already answered.
    pub(crate) duplicates: u32,
    /// Replies whose payload was changed.
    pub(crate) corrupt: u32,
    /// Replies that came when their request's time was up.
    pub(crate) late: u32,
    /// Replies that came after one to a later request.
    pub(crate) out_of_order: u32,
    /// The hop limit with which the last reply arrived; 0: not known.
    pub(crate) reply_hop_limit: u8,
    /// The ICMP errors that came back, at most 16.
    pub(crate) errors: Vec<SocketError>,
    /// A local error that the kernel queued: it knows the MTU.
    pub(crate) local: Option<SocketError>,
    /// Packets that the kernel dropped at our own socket meanwhile.
    pub(crate) drops: u32,
}

impl Tally {
    /// Accounts of a flight of up to `count` requests that carry `stuffing`.
    pub(crate) fn new(stuffing: Stuffing, count: usize) -> Self {
        Self {
            stuffing,
            fates: Vec::with_capacity(count),
            open: 0,
            highest: None,
            duplicates: 0,
            corrupt: 0,
            late: 0,
            out_of_order: 0,
            reply_hop_limit: 0,
            errors: Vec::new(),
            local: None,
            drops: 0,
        }
    }

    /// What requests carry.
    pub(crate) fn stuffing(&self) -> Stuffing {
        self.stuffing
    }

    /// The next request left.
    pub(crate) fn sent(&mut self) {
        self.fates.push(Fate::Open);
        self.open += 1;
    }

    /// A reply of the target to request `index` came.
    pub(crate) fn replied(&mut self, index: usize, reply: Reply<'_>) {
        let Some(fate) = self.fates.get_mut(index) else { return };
        match self.stuffing.judge(reply.sequence, reply.payload) {
            Likeness::Same => {}
            Likeness::Changed => {
                self.corrupt += 1;
                return;
            }
            Likeness::Foreign => return,
        }
        if matches!(fate, Fate::Answered(..) | Fate::Late) {
            self.duplicates += 1;
            return;
        }
        if *fate == Fate::Open {
            self.open -= 1;
        }
        self.reply_hop_limit = reply.hop_limit.unwrap_or(self.reply_hop_limit);
        if reply.late {
            *fate = Fate::Late;
            self.late += 1;
            return;
        }
        *fate = Fate::Answered(reply.round_trip.0, reply.round_trip.1);
        match self.highest {
            Some(highest) if index < highest => self.out_of_order += 1,
            _ => self.highest = Some(index),
        }
    }

    /// The time of request `index` is up.
    pub(crate) fn expired(&mut self, index: usize) {
        if let Some(fate @ Fate::Open) = self.fates.get_mut(index) {
            *fate = Fate::Expired;
            self.open -= 1;
        }
    }

    /// An error came back, about that request where it says so.
    pub(crate) fn refused(&mut self, index: Option<usize>, error: SocketError) {
        if error.to_proto().is_none() {
            self.local = Some(error);
            return;
        }
        if let Some(fate @ Fate::Open) = index.and_then(|index| self.fates.get_mut(index)) {
            *fate = Fate::Refused;
            self.open -= 1;
        }
        if self.errors.len() < MOST_ERRORS {
            self.errors.push(error);
        }
    }

    /// Whether nothing is awaited any more.
    pub(crate) fn is_settled(&self) -> bool {
        self.open == 0
    }

    /// What became of each request, in the order of sending.
    pub(crate) fn fates(&self) -> &[Fate] {
        &self.fates
    }

    /// Requests that left.
    pub(crate) fn sent_count(&self) -> u32 {
        u32::try_from(self.fates.len()).unwrap_or(u32::MAX)
    }

    /// Requests that were answered.
    pub(crate) fn answered_count(&self) -> u32 {
        u32::try_from(self.round_trips().count()).unwrap_or(u32::MAX)
    }

    /// The first ICMP error.
    pub(crate) fn first_error(&self) -> Option<&SocketError> {
        self.errors.first()
    }

    /// The smallest round trip, and who took its stamps.
    pub(crate) fn smallest(&self) -> Option<(Duration, TimingSource)> {
        self.round_trips().min_by_key(|(taken, _)| *taken)
    }

    /// The mean round trip.
    pub(crate) fn mean(&self) -> Option<Duration> {
        let count = self.answered_count();
        (count > 0).then(|| self.round_trips().map(|(taken, _)| taken).sum::<Duration>() / count)
    }

    /// The largest round trip.
    pub(crate) fn largest(&self) -> Option<Duration> {
        self.round_trips().map(|(taken, _)| taken).max()
    }

    fn round_trips(&self) -> impl Iterator<Item = (Duration, TimingSource)> + '_ {
        self.fates.iter().filter_map(|fate| match fate {
            Fate::Answered(taken, source) => Some((*taken, *source)),
            Fate::Open | Fate::Expired | Fate::Late | Fate::Refused => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Stuffing = Stuffing { cookie: 0x0123_4567_89ab_cdef, size: 56 };

    fn tally(requests: usize) -> Tally {
        let mut tally = Tally::new(OURS, requests);
        (0..requests).for_each(|_| tally.sent());
        tally
    }

    fn payload(stuffing: Stuffing, sequence: u16) -> Vec<u8> {
        let mut payload = vec![0; stuffing.size];
        stuffing.write(sequence, &mut payload);
        payload
    }

    fn came(tally: &mut Tally, index: usize, sequence: u16, payload: &[u8], late: bool) {
        let round_trip = (Duration::from_millis(10 * (index as u64 + 1)), TimingSource::Kernel);
        tally.replied(index, Reply { sequence, payload, round_trip, late, hop_limit: Some(61) });
    }

    fn reply(tally: &mut Tally, index: u16) {
        came(tally, index.into(), index, &payload(OURS, index), false);
    }

    #[test]
    fn each_request_is_answered_once_and_what_comes_again_is_a_duplicate() {
        let mut tally = tally(3);
        for index in [0, 0, 2, 1, 1] {
            reply(&mut tally, index);
        }
        assert_eq!((tally.sent_count(), tally.answered_count(), tally.duplicates), (3, 3, 2));
        assert_eq!((tally.out_of_order, tally.reply_hop_limit), (1, 61));
        assert!(tally.is_settled());
    }

    #[test]
    fn a_changed_payload_is_counted_and_is_no_reply() {
        let mut tally = tally(2);
        let mut changed = payload(OURS, 0);
        changed[3] ^= 1;
        came(&mut tally, 0, 0, &changed, false);
        came(&mut tally, 1, 1, &payload(OURS, 1)[..40], false);
        came(&mut tally, 1, 1, &[payload(OURS, 1), vec![0]].concat(), false);
        assert_eq!((tally.answered_count(), tally.corrupt), (0, 3));
        assert!(!tally.is_settled());
    }

    #[test]
    fn replies_to_other_flights_and_to_requests_never_sent_do_not_count_at_all() {
        let mut tally = tally(1);
        let other = Stuffing { cookie: 7, size: 56 };
        came(&mut tally, 0, 0, &payload(other, 0), false);
        came(&mut tally, 0, 0, &payload(OURS, 9), false);
        came(&mut tally, 9, 9, &payload(OURS, 9), false);
        came(&mut tally, 0, 0, &[], false);
        assert_eq!((tally.answered_count(), tally.corrupt, tally.duplicates), (0, 0, 0));
    }

    #[test]
    fn a_late_reply_is_counted_and_credited_to_nobody() {
        let mut tally = tally(2);
        tally.expired(0);
        assert!(!tally.is_settled());
        came(&mut tally, 0, 0, &payload(OURS, 0), true);
        came(&mut tally, 1, 1, &payload(OURS, 1), true);
        assert!(tally.is_settled());
        assert_eq!((tally.answered_count(), tally.late, tally.duplicates), (0, 2, 0));
        came(&mut tally, 1, 1, &payload(OURS, 1), true);
        assert_eq!((tally.late, tally.duplicates), (2, 1));
    }

    #[test]
    fn the_figures_are_those_of_the_answered_requests() {
        let mut tally = tally(3);
        reply(&mut tally, 0);
        reply(&mut tally, 2);
        assert_eq!(tally.smallest(), Some((Duration::from_millis(10), TimingSource::Kernel)));
        assert_eq!((tally.mean(), tally.largest()), (Some(Duration::from_millis(20)), Some(Duration::from_millis(30))));
        assert_eq!(tally.fates()[1], Fate::Open);
    }

    #[test]
    fn payloads_have_the_size_that_was_asked_for_and_differ_in_every_word() {
        for size in [16, 17, 56, 65_000] {
            let (one, other) = (payload(Stuffing { cookie: 1, size }, 3), payload(Stuffing { cookie: 1, size }, 4));
            assert_eq!((one.len(), &one[..8], &other[..8]), (size, &1_u64.to_be_bytes()[..], &1_u64.to_be_bytes()[..]));
            assert_ne!(one[8..16], other[8..16]);
            assert_eq!(cookie_of(&one), Some(1));
        }
    }
}
