//! The thread: takes orders, receives, sends, waits; again.

use std::{
    os::fd::AsFd,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use nix::{
    libc,
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};
use tokio::time::Instant;

use super::{
    Command, Shared,
    batch::{Batch, PACKETS},
    clocks::{Clocks, Moment},
    core::{Came, Core, Request, Start},
    lane::{Lane, Road},
};
use crate::{
    net::{errqueue::Origin, random::random},
    stopwatch,
    wire::{
        icmp::{Echo, HEADER, Version},
        ip::Ipv4,
    },
};

/// The room for each packet at first: a default payload with all around it. Packets side by side are found in the caches where those a page
/// apart are not; whoever asks for more gets more.
const USUAL: usize = 192;
/// The room that is kept for good once it was needed: header, an Ethernet's worth of payload.
const KEPT: usize = 2048;
/// The longest IPv4 header, and a byte more than a right answer has, so that a longer one shows.
const AROUND: usize = 60 + HEADER + 1;
/// How much an ICMP error quotes at most (RFC 1812).
const QUOTE: usize = 576;

/// Requests leave at most this often, in the long run: 100 000 in a second.
const PACE: Duration = Duration::from_micros(10);
/// Requests that may leave at once, as they would in the time that the thread may have waited.
const BURST: u32 = 128;
/// Requests that leave before it is looked what came.
const LOT: usize = PACKETS;
/// Requests that go with one call where the kernel stamps their departure: where it does not give the stamp, the process's own is
/// earlier by what the call took until then.
const STAMPED_AT_ONCE: usize = 16;
/// Requests that go with one call where it does not: what the process's own stamp of the last is early by is what the kernel takes for the
/// others, some 4 µs each. A call for each costs a fifth more.
const UNSTAMPED_AT_ONCE: usize = 4;

/// The time over which requests are counted.
const WINDOW: Duration = Duration::from_millis(20);
/// From so many requests in a window on (1000 in a second), the thread waits for batches in place of single packets: waking up costs more
/// than a ping does.
const BUSY: u32 = 20;
/// From so many requests in a window on (50 000 in a second), departures are stamped by the process: the kernel's stamps cost as much as
/// the sending.
const FLOOD: u32 = 1000;
/// How long it waits for a batch.
const REST: Duration = Duration::from_micros(900);

/// How often in a row a socket may answer with the error of an earlier packet.
const TRIES: usize = 8;
/// How many batches are taken from one queue before the others have their turn: a flood must not hold up the timers.
const ROUNDS: usize = 16;

/// A road's socket, and the packets that wait to be sent over it.
struct Open {
    lane: Lane,
    out: Batch,
    requests: Vec<Request>,
}

struct Worker {
    shared: Arc<Shared>,
    core: Core<{ Road::COUNT }>,
    open: [Option<Open>; Road::COUNT],
    drops: [u32; Road::COUNT],
    back: Batch,
    errors: Batch,
    clocks: Clocks,
    /// When the requests sent so far would have left at the slowest.
    paced: Instant,
    window: Instant,
    counted: u32,
    before: u32,
}

/// Says that the thread has ended, also where it breaks.
struct Farewell(Arc<Shared>);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::SeqCst);
        // Whoever waits for these is told by the loss of their channels.
        self.0.commands.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Works until nobody asks any more.
pub(super) fn work(shared: Arc<Shared>) {
    let _farewell = Farewell(Arc::clone(&shared));
    let now = Moment::now();
    let mut worker = Worker {
        shared,
        core: Core::new(),
        open: [const { None }; Road::COUNT],
        drops: [0; Road::COUNT],
        back: Batch::new(USUAL),
        errors: Batch::new(QUOTE),
        clocks: Clocks::new(now),
        paced: now.monotonic,
        window: now.monotonic,
        counted: 0,
        before: 0,
    };
    while worker.turn() {}
}

impl Worker {
    /// One turn. Whether there is to be another.
    fn turn(&mut self) -> bool {
        let now = Moment::now();
        self.clocks.read(now);
        self.obey(now.monotonic);
        for road in 0..Road::COUNT {
            self.receive(road);
        }
        // Between two lots what came is taken: the kernel's room for it is not endless, and on this machine itself it comes at once.
        let mut now = now.monotonic;
        while self.send(now) {
            for road in 0..Road::COUNT {
                self.receive(road);
            }
            now = stopwatch::now();
        }
        if self.core.is_empty() {
            if self.shared.closed.load(Ordering::SeqCst) {
                return false;
            }
            if self.back.size() > KEPT {
                self.back = Batch::new(USUAL);
                self.open.iter_mut().flatten().for_each(|open| open.out = Batch::new(USUAL));
            }
        }
        self.rest();
        true
    }

    /// Takes what was ordered.
    fn obey(&mut self, now: Instant) {
        let commands = std::mem::take(&mut *self.shared.commands.lock().unwrap_or_else(PoisonError::into_inner));
        for command in commands {
            match command {
                Command::Open(road, lane) => {
                    if let Some(place) = self.open.get_mut(road) {
                        *place = Some(Open { lane: *lane, out: Batch::new(USUAL), requests: Vec::with_capacity(PACKETS) });
                    }
                }
                Command::Begin(order, road, done) => {
                    let Ok(cookie) = random().map(u64::from_ne_bytes) else { continue };
                    let size = order.size + AROUND;
                    if self.back.size() < size {
                        self.back = Batch::new(size);
                    }
                    if let Some(Some(open)) = self.open.get_mut(road)
                        && open.out.size() < size
                    {
                        open.out = Batch::new(size);
                    }
                    let drops = self.drops.get(road).copied().unwrap_or_default();
                    self.core.begin(order, Start { lane: road, cookie, drops, now, era: self.clocks.era() }, done);
                }
            }
        }
    }

    /// Takes what came over a road.
    fn receive(&mut self, road: usize) {
        for _ in 0..ROUNDS {
            let Some(Some(open)) = self.open.get(road) else { return };
            // A pending error of an earlier packet may be handed to this call; the queue of errors has the whole story.
            let received = self.back.receive(open.lane.as_fd(), false);
            // Stamps of departure come before the replies and have to be known first.
            self.collect(road, None);
            let seen = Moment::now();
            self.clocks.read(seen);
            let Some(Some(open)) = self.open.get(road) else { return };
            for packet in self.back.packets() {
                let told = open.lane.told(&packet);
                let (message, hop_limit) = match (open.lane.is_raw(), open.lane.version()) {
                    (true, Version::V4) => match Ipv4::parse(packet.bytes) {
                        Some(ip) => (ip.payload, Some(ip.hop_limit)),
                        None => continue,
                    },
                    _ => (packet.bytes, told.hop_limit),
                };
                let (Some(echo), Some(from)) = (Echo::parse(open.lane.version(), message), packet.peer) else { continue };
                let ours = !open.lane.is_raw() || echo.identifier == open.lane.identifier();
                if echo.kind == open.lane.version().echo_reply() && ours {
                    let came = Came { sequence: echo.sequence, payload: echo.payload, arrived: told.stamp, hop_limit };
                    self.core.replied(road, from, came, &seen, &self.clocks);
                }
            }
            match received {
                Ok(PACKETS) | Err(_) => {}
                Ok(_) => break,
            }
        }
        if let (Some(Some(open)), Some(drops)) = (self.open.get(road), self.drops.get_mut(road)) {
            *drops = open.lane.drops().unwrap_or(*drops);
        }
    }

    /// Empties the queue of errors of a road: stamps go where they belong, errors to the flights that they are about. Local ones are about
    /// `sending`.
    fn collect(&mut self, road: usize, sending: Option<&Request>) {
        let Some(Some(open)) = self.open.get(road) else { return };
        for _ in 0..ROUNDS {
            let taken = self.errors.receive(open.lane.as_fd(), true);
            for packet in self.errors.packets() {
                let told = open.lane.told(&packet);
                let Some(report) = told.error else { continue };
                if report.origin == libc::SO_EE_ORIGIN_TIMESTAMPING {
                    if let (Some(whose), Some(at)) = (open.lane.departed(report.data), told.stamp) {
                        self.core.departed(whose, at);
                    }
                    continue;
                }
                if report.error.origin == Origin::Local {
                    if let Some(request) = sending {
                        self.core.refused_here(request, report.error);
                    }
                    continue;
                }
                let Some(quote) = Echo::parse(open.lane.version(), packet.bytes) else { continue };
                // Raw sockets hear of every error about an echo request.
                if open.lane.is_raw() && quote.identifier != open.lane.identifier() {
                    continue;
                }
                self.core.refused(road, packet.peer, quote.sequence, quote.payload, report.error, self.clocks.latest());
            }
            if !matches!(taken, Ok(PACKETS)) {
                break;
            }
        }
    }

    /// Looks after the flights, and sends what is due, as far as the pace allows. Whether there is more that may be sent at once.
    fn send(&mut self, now: Instant) -> bool {
        self.paced = self.paced.max(now);
        let mut allowed = LOT;
        let mut more = true;
        while allowed > 0 && self.paced < now + PACE * BURST {
            match self.core.look_after(now, &self.drops, self.clocks.era()) {
                Err(()) => {
                    more = false;
                    break;
                }
                Ok(None) => {}
                Ok(Some(request)) => {
                    let Some(Some(open)) = self.open.get_mut(request.lane) else { continue };
                    open.requests.push(request);
                    allowed -= 1;
                    self.paced += PACE;
                    self.count(now);
                }
            }
        }
        let stamped = self.before.max(self.counted) < FLOOD;
        for road in 0..Road::COUNT {
            self.flush(road, stamped);
        }
        more && allowed == 0
    }

    /// Counts a request.
    fn count(&mut self, now: Instant) {
        if now.saturating_duration_since(self.window) >= WINDOW {
            self.before = if now.saturating_duration_since(self.window) < 2 * WINDOW { self.counted } else { 0 };
            self.counted = 0;
            self.window = now;
        }
        self.counted += 1;
    }

    /// Sends what waits for a road.
    fn flush(&mut self, road: usize, stamped: bool) {
        let Some(Some(open)) = self.open.get_mut(road) else { return };
        if open.requests.is_empty() {
            return;
        }
        open.out.clear();
        let requests = std::mem::take(&mut open.requests);
        for request in &requests {
            open.lane.add(request, stamped, &mut open.out);
        }
        let most = if stamped { STAMPED_AT_ONCE } else { UNSTAMPED_AT_ONCE };
        let mut first = 0;
        let mut failures = 0;
        while let Some(request) = requests.get(first) {
            let Some(Some(open)) = self.open.get_mut(road) else { return };
            let left = stopwatch::now();
            match open.out.send(open.lane.as_fd(), first, most) {
                Ok(sent) => {
                    failures = 0;
                    for request in requests.iter().skip(first).take(sent) {
                        let whose = self.core.sent(request, left, self.clocks.era(), Ok(()));
                        if let Some(whose) = whose.filter(|_| stamped) {
                            open.lane.await_stamp(whose);
                        }
                    }
                    first += sent.max(1);
                }
                Err(error) => {
                    // An ICMP error about an earlier packet is handed to whoever calls next, so it may be none of this packet's business.
                    failures += 1;
                    self.collect(road, Some(request));
                    if stamped && let Some(Some(open)) = self.open.get_mut(road) {
                        open.lane.recount();
                    }
                    if failures >= TRIES || !Lane::is_pending(&error) {
                        self.core.sent(request, left, self.clocks.era(), Err(error));
                        failures = 0;
                        first += 1;
                    }
                }
            }
        }
        if let Some(Some(open)) = self.open.get_mut(road) {
            open.requests = requests;
            open.requests.clear();
        }
        if stamped && self.before.max(self.counted) < BUSY {
            // Most interfaces stamp within the call. Taken at once, the stamps wake nobody.
            self.collect(road, None);
        }
    }

    /// Waits for the next thing to do.
    fn rest(&mut self) {
        let now = stopwatch::now();
        // What is due and has not left waits for the pace.
        let free = self.paced.checked_sub(PACE * (BURST / 2)).unwrap_or(now);
        let is_held_up = self.core.wakes().is_some_and(|at| at <= now);
        let until = self.core.wakes().map(|at| at.max(free).saturating_duration_since(now));
        let recent = if now.saturating_duration_since(self.window) < 2 * WINDOW { self.before.max(self.counted) } else { 0 };
        if recent >= BUSY && !self.core.is_empty() {
            // Callers need not ring, and packets need not wake it one by one.
            match until.filter(|_| is_held_up) {
                Some(until) if until.is_zero() => {}
                Some(until) => std::thread::sleep(until.min(REST)),
                None => std::thread::sleep(REST),
            }
            return;
        }
        if until.is_some_and(|until| until.is_zero()) {
            return;
        }
        self.shared.asleep.store(true, Ordering::SeqCst);
        let idle = self.shared.commands.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        if idle && !(self.shared.closed.load(Ordering::SeqCst) && self.core.is_empty()) {
            let mut watched = vec![PollFd::new(self.shared.bell.as_fd(), PollFlags::POLLIN)];
            watched.extend(self.open.iter().flatten().map(|open| PollFd::new(open.lane.as_fd(), PollFlags::POLLIN)));
            // An interruption, or an error that the next turn meets again.
            let _ = ppoll(&mut watched, until.map(TimeSpec::from_duration), None);
            let rang = watched.first().and_then(PollFd::revents).is_some_and(|events| !events.is_empty());
            if rang {
                let _ = self.shared.bell.read();
            }
        }
        // A bell that is rung from here on, or was without a wait, ends the next one.
        self.shared.asleep.store(false, Ordering::SeqCst);
    }
}
