//! Happy Eyeballs (RFC 8305): which address is tried next, and when. It decides and does nothing: time is an argument, and who asks it
//! resolves and connects.

use std::{collections::VecDeque, net::IpAddr, time::Duration};

use tokio::time::Instant;

/// How long the answer of IPv4 waits for that of IPv6 (RFC 8305 section 3, Resolution Delay).
pub(crate) const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// How long an attempt has to itself before the next one is begun beside it (RFC 8305 section 5, Connection Attempt Delay).
pub(crate) const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Try this address now, beside those under way.
    Try(IpAddr),
    /// Wait for an answer of the resolver, for an attempt to end, or until then.
    Wait(Option<Instant>),
    /// No address is left, and no attempt under way.
    Lost,
}

/// A race of a name's addresses.
#[derive(Debug)]
pub(crate) struct Race {
    /// The addresses that are yet to be tried, as the resolver has them.
    six: Line,
    four: Line,
    /// Whether the next one is of IPv6, if there is one: the families take turns (RFC 8305 section 4, First Address Family Count 1).
    six_is_next: bool,
    /// When the last attempt was begun. None: none was, or the last one has failed, so that there is nothing to wait for.
    begun: Option<Instant>,
    /// How many attempts have been begun, and how many of them are under way.
    tried: usize,
    running: usize,
    most: usize,
}

/// The addresses of one family.
#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<IpAddr>,
    /// When the resolver told them, or that there are none.
    told: Option<Instant>,
}

impl Race {
    /// A race in which at most so many addresses are tried.
    pub(crate) fn new(most: usize) -> Self {
        Self { six: Line::default(), four: Line::default(), six_is_next: true, begun: None, tried: 0, running: 0, most }
    }

    /// The resolver has told the addresses of a family: all it has, or none.
    pub(crate) fn resolved(&mut self, is_six: bool, addresses: impl IntoIterator<Item = IpAddr>, now: Instant) {
        let line = if is_six { &mut self.six } else { &mut self.four };
        line.waiting.extend(addresses);
        line.told = Some(now);
    }

    /// An attempt has failed; whether it was the last that was begun.
    pub(crate) fn failed(&mut self, is_last: bool) {
        self.running = self.running.saturating_sub(1);
        if is_last {
            self.begun = None;
        }
    }

    /// What to do at `now`. An address that it says to try counts as tried.
    pub(crate) fn next(&mut self, now: Instant) -> Next {
        if self.tried >= self.most || (self.six.waiting.is_empty() && self.four.waiting.is_empty()) {
            let is_all = self.tried >= self.most || (self.six.told.is_some() && self.four.told.is_some());
            return if is_all && self.running == 0 { Next::Lost } else { Next::Wait(None) };
        }
        if let Some(at) = self.not_before()
            && now < at
        {
            return Next::Wait(Some(at));
        }
        let is_six = if self.six_is_next { !self.six.waiting.is_empty() } else { self.four.waiting.is_empty() };
        let line = if is_six { &mut self.six } else { &mut self.four };
        // One of them has somebody waiting, and this is it.
        let Some(address) = line.waiting.pop_front() else { return Next::Wait(None) };
        self.six_is_next = !is_six;
        self.begun = Some(now);
        self.tried += 1;
        self.running += 1;
        Next::Try(address)
    }

    /// When the next attempt may be begun. None: at once.
    fn not_before(&self) -> Option<Instant> {
        if let Some(begun) = self.begun {
            return Some(begun + ATTEMPT_DELAY);
        }
        // Only the first attempt of all waits for the other family.
        match (self.six.told, self.four.told) {
            (None, Some(four)) if self.tried == 0 => Some(four + RESOLUTION_DELAY),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
