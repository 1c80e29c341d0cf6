//! What the time of a run goes into: phases that follow each other without a gap and add up to the whole.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use vantage_contract::v1;

/// The monotonic clock of the probes. Nothing else in this package reads a clock, but for the wall instants of protocols that carry them.
pub fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the one place where probes read the monotonic clock")]
    Instant::now()
}

/// The wall clock, for what protocols carry as instants: the end of a cookie, of a certificate.
pub fn wall() -> SystemTime {
    #[expect(clippy::disallowed_methods, reason = "the one place where probes read the wall clock")]
    SystemTime::now()
}

/// What a part of a run's time goes into. The names are the contract's (`Phase.name`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Getting a token from somebody else than the target.
    Authenticate,
    /// Finding the addresses of the target's name.
    Resolve,
    /// Making a connection: TCP, or QUIC with its TLS.
    Connect,
    /// Being let through by a proxy.
    Proxy,
    /// The TLS handshake.
    Tls,
    /// Handing over the request.
    Send,
    /// From the request's end to the first of the answer.
    Wait,
    /// The rest of the answer.
    Transfer,
}

impl Phase {
    /// The contract's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Authenticate => "authenticate",
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::Send => "send",
            Self::Wait => "wait",
            Self::Transfer => "transfer",
        }
    }
}

/// Measures phases. Entering one ends the one before it, so there are no gaps; what comes before the first belongs to the first.
#[derive(Debug)]
pub struct Stopwatch {
    start: Instant,
    done: Vec<(Phase, Duration)>,
    current: Option<(Phase, Instant)>,
    /// When what was waited for came.
    came: Option<Instant>,
    /// Where the laps after the first begin, as places in `done`.
    laps: Vec<usize>,
    /// The next phase that is entered begins a lap.
    is_lap_due: bool,
}

/// What was measured.
#[derive(Debug, Clone)]
pub struct Times {
    /// From start to end.
    pub duration: Duration,
    /// The phases; they add up to the duration.
    pub phases: Vec<(Phase, Duration)>,
    laps: Vec<usize>,
}

impl Times {
    /// The phases of each lap: together they are all phases.
    pub fn laps(&self) -> impl Iterator<Item = &[(Phase, Duration)]> {
        let ends = self.laps.iter().copied().chain([self.phases.len()]);
        let begins = [0].into_iter().chain(self.laps.iter().copied());
        begins.zip(ends).map(|(begin, end)| self.phases.get(begin..end).unwrap_or_default())
    }
}

impl Stopwatch {
    /// Starts at `now`.
    pub fn start(now: Instant) -> Self {
        Self { start: now, done: Vec::new(), current: None, came: None, laps: Vec::new(), is_lap_due: false }
    }

    /// When it started.
    pub fn started(&self) -> Instant {
        self.start
    }

    /// Enters a phase at `now`. Entering the phase one is in goes on with it.
    pub fn enter(&mut self, phase: Phase, now: Instant) {
        self.came = None;
        match self.current {
            Some((current, _)) if current == phase && !self.is_lap_due => {}
            Some((current, since)) => {
                self.done.push((current, now.saturating_duration_since(since)));
                self.current = Some((phase, now));
                if self.is_lap_due {
                    self.laps.push(self.done.len());
                }
            }
            None => self.current = Some((phase, self.start)),
        }
        self.is_lap_due = false;
    }

    /// The next phase that is entered begins a lap, also if it is the one that one is in. The first lap begins by itself.
    pub fn lap(&mut self) {
        self.is_lap_due = self.current.is_some();
    }

    /// The phase one is in.
    pub fn phase(&self) -> Option<Phase> {
        self.current.map(|(phase, _)| phase)
    }

    /// How long the last occurrence of `phase` took, if it has ended.
    pub fn taken(&self, phase: Phase) -> Option<Duration> {
        self.done.iter().rev().find(|(done, _)| *done == phase).map(|(_, taken)| *taken)
    }

    /// How long all occurrences of `phase` took together, until `now`.
    pub fn total(&self, phase: Phase, now: Instant) -> Duration {
        let current = self.current.filter(|(current, _)| *current == phase).map(|(_, since)| now.saturating_duration_since(since));
        self.done.iter().filter(|(done, _)| *done == phase).map(|(_, taken)| *taken).chain(current).sum()
    }

    /// What is waited for in this phase came at this instant, by the kernel. If nothing comes after it, that is the end: who is told of it a
    /// little later has not waited for longer.
    pub fn came(&mut self, at: Instant) {
        self.came = Some(at);
    }

    /// More is waited for in this phase, by somebody who has no stopwatch: what came before is not the end.
    pub fn goes_on(&mut self) {
        self.came = None;
    }

    /// Ends at `now`, or when the last thing came.
    pub fn stop(mut self, now: Instant) -> Times {
        let begun = self.current.map_or(self.start, |(_, since)| since);
        let now = self.came.map_or(now, |came| came.clamp(begun, now.max(begun)));
        if let Some((current, since)) = self.current.take() {
            self.done.push((current, now.saturating_duration_since(since)));
        }
        Times { duration: now.saturating_duration_since(self.start), phases: self.done, laps: self.laps }
    }
}

/// A duration as the contract carries it. Longer than 10 000 years (`Duration`'s bound) can't be measured.
pub fn to_proto(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(i32::MAX),
    }
}

/// Phases as the contract carries them.
pub fn phases_to_proto(phases: &[(Phase, Duration)]) -> Vec<v1::Phase> {
    phases.iter().map(|(phase, taken)| v1::Phase { name: phase.name().to_owned(), duration: Some(to_proto(*taken)) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_have_no_gaps_and_add_up_to_the_duration() {
        let start = now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut watch = Stopwatch::start(start);
        watch.enter(Phase::Resolve, at(1));
        watch.enter(Phase::Connect, at(5));
        watch.enter(Phase::Connect, at(7));
        watch.enter(Phase::Wait, at(30));
        let Times { duration, phases, .. } = watch.stop(at(100));
        let millis: Vec<_> = phases.iter().map(|(phase, taken)| (*phase, taken.as_millis())).collect();
        assert_eq!(millis, [(Phase::Resolve, 5), (Phase::Connect, 25), (Phase::Wait, 70)]);
        assert_eq!(phases.iter().map(|(_, taken)| *taken).sum::<Duration>(), duration);
    }

    #[test]
    fn laps_share_no_phase_and_leave_none_out() {
        let start = now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut watch = Stopwatch::start(start);
        watch.lap();
        watch.enter(Phase::Resolve, at(1));
        watch.enter(Phase::Wait, at(2));
        watch.lap();
        watch.enter(Phase::Wait, at(5));
        watch.enter(Phase::Transfer, at(9));
        watch.lap();
        let times = watch.stop(at(10));
        let laps: Vec<Vec<_>> = times.laps().map(|lap| lap.iter().map(|(phase, taken)| (*phase, taken.as_millis())).collect()).collect();
        assert_eq!(laps, [vec![(Phase::Resolve, 2), (Phase::Wait, 3)], vec![(Phase::Wait, 4), (Phase::Transfer, 1)]]);
        assert_eq!(Stopwatch::start(start).stop(at(1)).laps().count(), 1);
    }

    #[test]
    fn a_run_ends_when_the_last_thing_came_and_not_when_it_was_looked_at() {
        let start = now();
        let at = |millis| start + Duration::from_millis(millis);
        let stopped = |came: &[u64], stop: u64| {
            let mut watch = Stopwatch::start(start);
            watch.enter(Phase::Send, at(1));
            watch.enter(Phase::Wait, at(10));
            came.iter().for_each(|came| watch.came(at(*came)));
            let Times { duration, phases, .. } = watch.stop(at(stop));
            assert_eq!(phases.iter().map(|(_, taken)| *taken).sum::<Duration>(), duration);
            duration.as_millis()
        };
        assert_eq!((stopped(&[20], 30), stopped(&[], 30), stopped(&[40], 30), stopped(&[5], 30)), (20, 30, 30, 10));
        let mut watch = Stopwatch::start(start);
        watch.enter(Phase::Wait, at(1));
        watch.came(at(2));
        watch.enter(Phase::Connect, at(3));
        assert_eq!(watch.stop(at(9)).duration, Duration::from_millis(9), "something came after it");
        let mut watch = Stopwatch::start(start);
        watch.enter(Phase::Wait, at(1));
        watch.came(at(2));
        watch.goes_on();
        assert_eq!(watch.stop(at(9)).duration, Duration::from_millis(9), "more was waited for");
    }
}
