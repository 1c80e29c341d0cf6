//! What became of each request of a run: pure, so that every odd reply can be tried without a network.

use std::time::Duration;

use vantage_contract::v1::{PingReport, PingRequest, TimingSource};

use crate::{net::errqueue::SocketError, stopwatch::to_proto};

/// Errors that are kept at most.
const MOST_ERRORS: usize = 16;

/// What requests carry: a cookie that nobody can guess, the sequence, and bytes that follow from both, so that a reply to another run, or
/// one that was changed on the way, can't pass for a true one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stuffing {
    /// Random, one for each run.
    pub(super) cookie: u64,
    /// Bytes after the ICMP header, at least 16.
    pub(super) size: usize,
}

impl Stuffing {
    /// The payload of a request.
    pub(super) fn payload(self, sequence: u16) -> Vec<u8> {
        let mut payload = Vec::with_capacity(self.size + 8);
        payload.extend(self.cookie.to_be_bytes());
        // SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): cheap, and no two runs or requests share a byte but by chance.
        let mut state = self.cookie ^ (u64::from(sequence) << 48 | u64::from(sequence));
        while payload.len() < self.size {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            payload.extend((mixed ^ (mixed >> 31)).to_be_bytes());
        }
        payload.truncate(self.size);
        payload
    }

    /// What a reply's payload shows about it.
    fn judge(self, sequence: u16, payload: &[u8]) -> Likeness {
        let sent = self.payload(sequence);
        if payload == sent {
            return Likeness::Same;
        }
        // Another run's bytes agree in one of 256; ours with some changed agree in most.
        let common = sent.len().min(payload.len());
        let same = sent.iter().zip(payload).filter(|(sent, came)| sent == came).count();
        if common >= 8 && same * 2 > common { Likeness::Changed } else { Likeness::Foreign }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Likeness {
    Same,
    Changed,
    Foreign,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Answered(Duration, TimingSource),
    Refused,
}

/// The accounts of a run.
#[derive(Debug)]
pub(super) struct Tally {
    stuffing: Stuffing,
    fates: Vec<Fate>,
    highest: Option<u16>,
    duplicates: u32,
    corrupt: u32,
    out_of_order: u32,
    reply_hop_limit: u8,
    errors: Vec<SocketError>,
    /// A local error that the kernel queued: it knows the MTU.
    pub(super) local: Option<SocketError>,
    /// Packets that the kernel dropped at our own socket.
    pub(super) drops: u32,
}

impl Tally {
    /// Accounts of a run whose requests carry `stuffing`.
    pub(super) fn new(stuffing: Stuffing) -> Self {
        Self {
            stuffing,
            fates: Vec::new(),
            highest: None,
            duplicates: 0,
            corrupt: 0,
            out_of_order: 0,
            reply_hop_limit: 0,
            errors: Vec::new(),
            local: None,
            drops: 0,
        }
    }

    /// The next request left.
    pub(super) fn sent(&mut self) {
        self.fates.push(Fate::Open);
    }

    /// A reply of the target came.
    pub(super) fn replied(&mut self, sequence: u16, payload: &[u8], round_trip: (Duration, TimingSource), hop_limit: Option<u8>) {
        let Some(fate) = self.fates.get_mut(usize::from(sequence)) else { return };
        match self.stuffing.judge(sequence, payload) {
            Likeness::Same => {}
            Likeness::Changed => {
                self.corrupt += 1;
                return;
            }
            Likeness::Foreign => return,
        }
        if let Fate::Answered(..) = fate {
            self.duplicates += 1;
            return;
        }
        *fate = Fate::Answered(round_trip.0, round_trip.1);
        self.reply_hop_limit = hop_limit.unwrap_or(self.reply_hop_limit);
        match self.highest {
            Some(highest) if sequence < highest => self.out_of_order += 1,
            _ => self.highest = Some(sequence),
        }
    }

    /// An error came back, about that request where it says so.
    pub(super) fn refused(&mut self, sequence: Option<u16>, error: SocketError) {
        if error.to_proto().is_none() {
            self.local = Some(error);
            return;
        }
        if let Some(fate @ Fate::Open) = sequence.and_then(|sequence| self.fates.get_mut(usize::from(sequence))) {
            *fate = Fate::Refused;
        }
        if self.errors.len() < MOST_ERRORS {
            self.errors.push(error);
        }
    }

    /// Whether nothing is awaited any more.
    pub(super) fn is_settled(&self) -> bool {
        !self.fates.contains(&Fate::Open)
    }

    /// Requests that left.
    pub(super) fn sent_count(&self) -> u32 {
        u32::try_from(self.fates.len()).unwrap_or(u32::MAX)
    }

    /// Requests that were answered.
    pub(super) fn answered_count(&self) -> u32 {
        u32::try_from(self.round_trips().count()).unwrap_or(u32::MAX)
    }

    /// Replies whose payload was changed.
    pub(super) fn corrupt_count(&self) -> u32 {
        self.corrupt
    }

    /// The first ICMP error.
    pub(super) fn first_error(&self) -> Option<&SocketError> {
        self.errors.first()
    }

    /// The smallest round trip, and who took its stamps.
    pub(super) fn smallest(&self) -> Option<(Duration, TimingSource)> {
        self.round_trips().min_by_key(|(taken, _)| *taken)
    }

    /// The mean round trip.
    pub(super) fn mean(&self) -> Option<Duration> {
        let count = self.answered_count();
        (count > 0).then(|| self.round_trips().map(|(taken, _)| taken).sum::<Duration>() / count)
    }

    /// The largest round trip.
    pub(super) fn largest(&self) -> Option<Duration> {
        self.round_trips().map(|(taken, _)| taken).max()
    }

    fn round_trips(&self) -> impl Iterator<Item = (Duration, TimingSource)> + '_ {
        self.fates.iter().filter_map(|fate| match fate {
            Fate::Answered(taken, source) => Some((*taken, *source)),
            Fate::Open | Fate::Refused => None,
        })
    }

    /// The report, on a socket of that style.
    pub(super) fn report(&self, socket: &str) -> PingReport {
        PingReport {
            sent_count: self.sent_count(),
            answered_count: self.answered_count(),
            duplicate_count: self.duplicates,
            corrupt_count: self.corrupt,
            out_of_order_count: self.out_of_order,
            local_drop_count: self.drops,
            min_round_trip: self.smallest().map(|(taken, _)| to_proto(taken)),
            mean_round_trip: self.mean().map(to_proto),
            max_round_trip: self.largest().map(to_proto),
            reply_hop_limit: self.reply_hop_limit.into(),
            requests: (0..)
                .zip(&self.fates)
                .map(|(sequence, fate)| PingRequest {
                    sequence,
                    round_trip: match fate {
                        Fate::Answered(taken, _) => Some(to_proto(*taken)),
                        Fate::Open | Fate::Refused => None,
                    },
                    ..PingRequest::default()
                })
                .collect(),
            errors: self.errors.iter().filter_map(SocketError::to_proto).collect(),
            socket: socket.to_owned(),
            ..PingReport::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Stuffing = Stuffing { cookie: 0x0123_4567_89ab_cdef, size: 56 };

    fn tally(requests: u16) -> Tally {
        let mut tally = Tally::new(OURS);
        (0..requests).for_each(|_| tally.sent());
        tally
    }

    fn reply(tally: &mut Tally, sequence: u16, millis: u64) {
        let round_trip = (Duration::from_millis(millis), TimingSource::Kernel);
        tally.replied(sequence, &OURS.payload(sequence), round_trip, Some(61));
    }

    #[test]
    fn each_request_is_answered_once_and_what_comes_again_is_a_duplicate() {
        let mut tally = tally(3);
        for sequence in [0, 0, 2, 1, 1] {
            reply(&mut tally, sequence, 20);
        }
        let report = tally.report("raw");
        assert_eq!((report.sent_count, report.answered_count, report.duplicate_count), (3, 3, 2));
        assert_eq!((report.out_of_order_count, report.reply_hop_limit), (1, 61));
        assert!(tally.is_settled());
    }

    #[test]
    fn a_changed_payload_is_counted_and_is_no_reply() {
        let mut tally = tally(2);
        let mut changed = OURS.payload(0);
        changed[3] ^= 1;
        tally.replied(0, &changed, (Duration::ZERO, TimingSource::User), None);
        tally.replied(1, &OURS.payload(1)[..40], (Duration::ZERO, TimingSource::User), None);
        let report = tally.report("raw");
        assert_eq!((report.answered_count, report.corrupt_count), (0, 2));
        assert!(!tally.is_settled());
    }

    #[test]
    fn replies_to_other_runs_and_to_requests_never_sent_do_not_count_at_all() {
        let mut tally = tally(1);
        let other = Stuffing { cookie: 7, size: 56 };
        tally.replied(0, &other.payload(0), (Duration::ZERO, TimingSource::User), None);
        tally.replied(0, &OURS.payload(9), (Duration::ZERO, TimingSource::User), None);
        tally.replied(9, &OURS.payload(9), (Duration::ZERO, TimingSource::User), None);
        tally.replied(0, &[], (Duration::ZERO, TimingSource::User), None);
        let report = tally.report("raw");
        assert_eq!((report.answered_count, report.corrupt_count, report.duplicate_count), (0, 0, 0));
    }

    #[test]
    fn the_figures_are_those_of_the_answered_requests() {
        let mut tally = tally(3);
        reply(&mut tally, 0, 30);
        reply(&mut tally, 2, 10);
        assert_eq!(tally.smallest(), Some((Duration::from_millis(10), TimingSource::Kernel)));
        assert_eq!((tally.mean(), tally.largest()), (Some(Duration::from_millis(20)), Some(Duration::from_millis(30))));
        let report = tally.report("datagram");
        assert_eq!(report.requests.iter().map(|request| request.round_trip.is_some()).collect::<Vec<_>>(), [true, false, true]);
    }

    #[test]
    fn payloads_have_the_size_that_was_asked_for() {
        for size in [16, 17, 56, 65_000] {
            assert_eq!(Stuffing { cookie: 1, size }.payload(3).len(), size);
        }
    }
}
