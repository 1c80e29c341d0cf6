//! Who sends what when, and whose reply it is: pure, with time as an argument.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    hash::{BuildHasherDefault, Hasher},
    io,
    net::IpAddr,
    time::Duration,
};

use nix::errno::Errno;
use tokio::{sync::oneshot, time::Instant};
use vantage_contract::v1::TimingSource;

use super::{
    clocks::{Clocks, Moment, nanoseconds},
    tally::{Reply, Stuffing, Tally, cookie_of},
};
use crate::net::{errqueue::SocketError, icmp::Manner};

/// What is asked of the engine: echo requests to one target.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    /// To whom.
    pub(crate) target: IpAddr,
    /// From where; None: the kernel's choice.
    pub(crate) source: Option<IpAddr>,
    /// Hop limit, fragmenting, code point.
    pub(crate) manner: Manner,
    /// How many requests, at least one.
    pub(crate) count: u32,
    /// From one to the next.
    pub(crate) spacing: Duration,
    /// Bytes after the ICMP header, at least 16.
    pub(crate) size: usize,
    /// How long the reply to one may take; None: until the end.
    pub(crate) request_timeout: Option<Duration>,
    /// When nothing is awaited any more.
    pub(crate) end: Instant,
}

/// What became of an order.
#[derive(Debug)]
pub(crate) struct Landing {
    /// The accounts.
    pub(crate) tally: Tally,
    /// Why the last request that did not leave did not.
    pub(crate) unsent: Option<io::Error>,
    /// The wall clock was stepped meanwhile.
    pub(crate) stepped: bool,
}

/// Where and when an order is begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub(super) lane: usize,
    /// Fresh and random.
    pub(super) cookie: u64,
    /// Packets that the lane's socket has dropped so far.
    pub(super) drops: u32,
    pub(super) now: Instant,
    pub(super) era: u32,
}

/// A request that left.
#[derive(Debug)]
struct Sent {
    sequence: u16,
    left: Instant,
    era: u32,
    /// The kernel's stamp, by the wall clock in nanoseconds since 1970.
    departed: Option<i64>,
}

/// An order that is being carried out.
#[derive(Debug)]
struct Flight {
    order: Order,
    lane: usize,
    tally: Tally,
    requests: Vec<Sent>,
    tried: u32,
    next: Instant,
    /// Requests before this one are answered or expired.
    watched: usize,
    unsent: Option<io::Error>,
    era: u32,
    drops: u32,
    done: oneshot::Sender<Landing>,
}

impl Flight {
    /// When something is to be done for it, if nothing comes before.
    fn wakes(&self) -> Instant {
        let mut wakes = self.order.end;
        if self.tried < self.order.count {
            wakes = wakes.min(self.next);
        }
        if let (Some(timeout), Some(oldest)) = (self.order.request_timeout, self.requests.get(self.watched)) {
            wakes = wakes.min(oldest.left + timeout);
        }
        wakes
    }

    fn index_of(&self, sequence: u16) -> Option<usize> {
        self.requests.iter().rposition(|sent| sent.sequence == sequence)
    }
}

/// Cookies are random already.
#[derive(Debug, Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Only whole cookies come, by `write_u64`.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, cookie: u64) {
        self.0 = cookie;
    }
}

/// A request that is about to be sent.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) flight: u32,
    pub(super) lane: usize,
    pub(super) sequence: u16,
    pub(super) stuffing: Stuffing,
    pub(super) target: IpAddr,
    pub(super) source: Option<IpAddr>,
    pub(super) manner: Manner,
}

/// An echo reply, as it came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Came<'b> {
    pub(super) sequence: u16,
    pub(super) payload: &'b [u8],
    /// The kernel's stamp of its arrival.
    pub(super) arrived: Option<i64>,
    pub(super) hop_limit: Option<u8>,
}

/// How soon a packet is tried again for which the kernel had no room.
const FULL: Duration = Duration::from_millis(1);

fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EAGAIN | Errno::ENOBUFS))
}

/// From departure to arrival. The kernel's stamps count where no step of the wall clock came in between, else the process's own clock: a
/// kernel's round trip lies within the process's own.
fn round_trip(sent: &Sent, arrived: Option<i64>, seen: &Moment, clocks: &Clocks) -> (Duration, TimingSource) {
    let user = seen.monotonic.saturating_duration_since(sent.left);
    let most = nanoseconds(user).saturating_add(clocks.slack());
    let from = |departed: i64| {
        let taken = u64::try_from(arrived?.checked_sub(departed)?).ok()?;
        (sent.era == clocks.era() && i64::try_from(taken).ok()? <= most).then(|| Duration::from_nanos(taken))
    };
    if let Some(taken) = sent.departed.and_then(from) {
        return (taken, TimingSource::Kernel);
    }
    match from(clocks.wall(sent.left)) {
        Some(taken) => (taken, TimingSource::KernelReceive),
        None => (user, TimingSource::User),
    }
}

/// All that is under way.
#[derive(Debug)]
pub(super) struct Core<const LANES: usize> {
    flights: Vec<Option<Flight>>,
    free: Vec<u32>,
    by_cookie: HashMap<u64, u32, BuildHasherDefault<AsIs>>,
    /// For each lane: the cookie of the flight that last used a sequence; empty until the lane is used.
    by_sequence: [Vec<u64>; LANES],
    next_sequence: [u16; LANES],
    /// When which flight is to be looked after. Entries may be outdated: a flight is looked after no earlier than it needs.
    timers: BinaryHeap<Reverse<(Instant, u32, u64)>>,
}

impl<const LANES: usize> Core<LANES> {
    pub(super) fn new() -> Self {
        Self {
            flights: Vec::new(),
            free: Vec::new(),
            by_cookie: HashMap::default(),
            by_sequence: std::array::from_fn(|_| Vec::new()),
            next_sequence: [0; LANES],
            timers: BinaryHeap::new(),
        }
    }

    /// Whether nothing is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.by_cookie.is_empty()
    }

    /// Begins to carry out an order.
    pub(super) fn begin(&mut self, order: Order, start: Start, done: oneshot::Sender<Landing>) {
        let Start { lane, cookie, drops, now, era } = start;
        let stuffing = Stuffing { cookie, size: order.size };
        let count = usize::try_from(order.count).unwrap_or_default();
        let flight = Flight {
            tally: Tally::new(stuffing, count),
            requests: Vec::with_capacity(count),
            tried: 0,
            next: now,
            watched: 0,
            unsent: None,
            era,
            drops,
            done,
            lane,
            order,
        };
        let at = match self.free.pop() {
            Some(at) => at,
            None => {
                self.flights.push(None);
                // Fewer than 2^32 flights fit into memory.
                u32::try_from(self.flights.len() - 1).unwrap_or(u32::MAX)
            }
        };
        if let Some(place) = self.flights.get_mut(at as usize) {
            *place = Some(flight);
            self.by_cookie.insert(cookie, at);
            self.timers.push(Reverse((now, at, cookie)));
        }
    }

    /// When something is to be done, if nothing comes before.
    pub(super) fn wakes(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, ..))| *at)
    }

    /// Looks after the next flight that needs it by `now`: the request that it is to send, or None after it was set down or set another
    /// timer. `Err`: nothing is to be done yet. Replies that came before `now` have to be known.
    pub(super) fn look_after(&mut self, now: Instant, drops: &[u32; LANES], era: u32) -> Result<Option<Request>, ()> {
        match self.timers.peek() {
            Some(Reverse((at, ..))) if *at <= now => {}
            _ => return Err(()),
        }
        let Some(Reverse((_, at, cookie))) = self.timers.pop() else { return Err(()) };
        let Some(flight) = self.flights.get_mut(at as usize).and_then(Option::as_mut) else { return Ok(None) };
        if flight.tally.stuffing().cookie != cookie {
            return Ok(None);
        }
        if let Some(timeout) = flight.order.request_timeout {
            while let Some(oldest) = flight.requests.get(flight.watched)
                && oldest.left + timeout <= now
            {
                flight.tally.expired(flight.watched);
                flight.watched += 1;
            }
        }
        let sent_all = flight.tried >= flight.order.count;
        // Nobody waits for the end of a run that was given up.
        if now >= flight.order.end || (sent_all && flight.tally.is_settled()) || flight.done.is_closed() {
            self.land(at, drops, era);
            return Ok(None);
        }
        if sent_all || now < flight.next {
            let wakes = flight.wakes();
            self.timers.push(Reverse((wakes, at, cookie)));
            return Ok(None);
        }
        let lane = flight.lane;
        let Some(next_sequence) = self.next_sequence.get_mut(lane) else { return Ok(None) };
        let sequence = *next_sequence;
        *next_sequence = sequence.wrapping_add(1);
        Ok(Some(Request {
            flight: at,
            lane,
            sequence,
            stuffing: flight.tally.stuffing(),
            target: flight.order.target,
            source: flight.order.source,
            manner: flight.order.manner,
        }))
    }

    /// A request left at `left`, or did not. Where the kernel had no room, it is tried again a little later. What the kernel's stamp is to
    /// be found by: the flight's cookie and the request's number in it.
    pub(super) fn sent(&mut self, request: &Request, left: Instant, era: u32, outcome: io::Result<()>) -> Option<(u64, usize)> {
        let cookie = request.stuffing.cookie;
        let flight = self.flights.get_mut(request.flight as usize).and_then(Option::as_mut)?;
        let mut place = None;
        match outcome {
            Ok(()) => {
                flight.tried += 1;
                flight.requests.push(Sent { sequence: request.sequence, left, era, departed: None });
                flight.tally.sent();
                place = Some((cookie, flight.requests.len() - 1));
                // The rhythm is kept; what was missed is not made good by a burst.
                flight.next = (flight.next + flight.order.spacing).max(left);
                if let Some(table) = self.by_sequence.get_mut(request.lane) {
                    if table.is_empty() {
                        *table = vec![0; 1 << 16];
                    }
                    if let Some(entry) = table.get_mut(usize::from(request.sequence)) {
                        *entry = cookie;
                    }
                }
            }
            Err(error) if is_full(&error) => {
                flight.unsent = Some(io::Error::from(Errno::ENOBUFS));
                flight.next = left + FULL;
            }
            Err(error) => {
                flight.tried += 1;
                flight.unsent = Some(error);
                flight.next = (flight.next + flight.order.spacing).max(left);
            }
        }
        let wakes = if flight.tried >= flight.order.count && flight.tally.is_settled() { left } else { flight.wakes() };
        self.timers.push(Reverse((wakes, request.flight, cookie)));
        place
    }

    /// The kernel's stamp of a departure.
    pub(super) fn departed(&mut self, (cookie, index): (u64, usize), at: i64) {
        if let Some(flight) = self.by_cookie.get(&cookie).and_then(|at| self.flights.get_mut(*at as usize)?.as_mut())
            && let Some(sent) = flight.requests.get_mut(index)
        {
            sent.departed = Some(at);
        }
    }

    /// An echo reply came over `lane`, read at `seen`, stamped `arrived`.
    pub(super) fn replied(&mut self, lane: usize, from: IpAddr, came: Came<'_>, seen: &Moment, clocks: &Clocks) {
        let Came { sequence, payload, arrived, hop_limit } = came;
        let Some((at, index)) = self.find(lane, Some(from), sequence, payload) else { return };
        let Some(flight) = self.flights.get_mut(at as usize).and_then(Option::as_mut) else { return };
        let Some(sent) = flight.requests.get(index) else { return };
        let round_trip = round_trip(sent, arrived, seen, clocks);
        if sent.left + round_trip.0 > flight.order.end {
            return;
        }
        let late = flight.order.request_timeout.is_some_and(|timeout| round_trip.0 > timeout);
        flight.tally.replied(index, Reply { sequence, payload, round_trip, late, hop_limit });
        self.look_soon(at, seen.monotonic);
    }

    /// An ICMP error came over `lane` about a request to `to`; `quote` is what it repeats of the request after the ICMP header.
    pub(super) fn refused(&mut self, lane: usize, to: Option<IpAddr>, sequence: u16, quote: &[u8], error: SocketError, now: Instant) {
        let Some((at, index)) = self.find(lane, to, sequence, quote) else { return };
        if let Some(flight) = self.flights.get_mut(at as usize).and_then(Option::as_mut) {
            flight.tally.refused(Some(index), error);
        }
        self.look_soon(at, now);
    }

    /// The kernel refused to send a request, and says more about it than a number.
    pub(super) fn refused_here(&mut self, request: &Request, error: SocketError) {
        if let Some(flight) = self.flights.get_mut(request.flight as usize).and_then(Option::as_mut)
            && flight.tally.stuffing().cookie == request.stuffing.cookie
        {
            flight.tally.refused(None, error);
        }
    }

    /// Sets a flight down as soon as nothing is awaited any more.
    fn look_soon(&mut self, at: u32, now: Instant) {
        if let Some(flight) = self.flights.get(at as usize).and_then(Option::as_ref)
            && flight.tried >= flight.order.count
            && flight.tally.is_settled()
        {
            self.timers.push(Reverse((now, at, flight.tally.stuffing().cookie)));
        }
    }

    /// The flight and the number of the request that a message is about: by the cookie, or, where it was changed or is not there, by the
    /// last request to the same target with the same sequence.
    fn find(&self, lane: usize, peer: Option<IpAddr>, sequence: u16, payload: &[u8]) -> Option<(u32, usize)> {
        let by_sequence = || self.by_sequence.get(lane)?.get(usize::from(sequence));
        let by_cookie = |cookie: u64| self.by_cookie.get(&cookie);
        let at = cookie_of(payload).and_then(by_cookie).or_else(|| by_cookie(*by_sequence()?))?;
        let flight = self.flights.get(*at as usize)?.as_ref()?;
        if flight.lane != lane || peer.is_some_and(|peer| peer != flight.order.target) {
            return None;
        }
        Some((*at, flight.index_of(sequence)?))
    }

    fn land(&mut self, at: u32, drops: &[u32; LANES], era: u32) {
        let Some(flight) = self.flights.get_mut(at as usize).and_then(Option::take) else { return };
        self.by_cookie.remove(&flight.tally.stuffing().cookie);
        self.free.push(at);
        let mut tally = flight.tally;
        tally.drops = drops.get(flight.lane).map_or(0, |drops| drops.wrapping_sub(flight.drops));
        // Whoever asked may have gone.
        let _ = flight.done.send(Landing { tally, unsent: flight.unsent, stepped: flight.era != era });
    }
}

#[cfg(test)]
mod tests;
