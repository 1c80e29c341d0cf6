//! Who is in, who waits, and who is next. Pure: it decides, and leaves waking to its owner.

use std::collections::{BTreeMap, HashMap, hash_map};

use tokio::time::Instant;
use vantage_probes::KINDS;

use super::Pace;
use crate::config::Limits;

/// Whose places a run takes: those of its client, of its kind and of its pace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Class {
    /// The client's number.
    pub(super) client: u64,
    /// The kind's name; empty for a check without one.
    pub(super) kind: &'static str,
    /// How long it is expected to take.
    pub(super) pace: Pace,
}

/// One who waits: since when its order has had no place, and a number that nobody else has.
pub(super) type Turn = (Instant, u64);

/// What becomes of one who comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// It is in.
    In,
    /// It waits.
    Waiting(Turn),
    /// There is no room, nor any to wait.
    Full,
}

/// Places, and how many of them each pace may take: slow ones half, slow and unproven ones three quarters, all together all. So prompt
/// runs always find some, and an order that comes new can show what it is, however many others wait for answers that never come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bound {
    /// Taken by runs of a pace and of all that are slower.
    taken: [usize; 3],
    limits: [usize; 3],
}

impl Bound {
    fn new(limit: usize) -> Self {
        // One place is open to all: a pace that may take none would never run.
        let at_least_one = |share: usize| share.max(limit.min(1));
        Self { taken: [0; 3], limits: [limit, at_least_one(three_quarters(limit)), at_least_one(limit / 2)] }
    }

    /// How many are taken by runs of this pace and of all that are slower; with `Prompt`, by all.
    pub fn taken(&self, pace: Pace) -> usize {
        self.taken[pace as usize]
    }

    /// How many these may take.
    pub fn limit(&self, pace: Pace) -> usize {
        self.limits[pace as usize]
    }

    fn has_room(&self, pace: Pace) -> bool {
        (0..=pace as usize).all(|level| self.taken[level] < self.limits[level])
    }

    fn take(&mut self, pace: Pace) {
        self.taken[..=pace as usize].iter_mut().for_each(|taken| *taken += 1);
    }

    fn free(&mut self, pace: Pace) {
        self.taken[..=pace as usize].iter_mut().for_each(|taken| *taken = taken.saturating_sub(1));
    }
}

/// Three quarters, rounded down.
pub fn three_quarters(number: usize) -> usize {
    number - number.div_ceil(4)
}

/// The runs that are in or wait. `W` is what its owner needs to wake one.
#[derive(Debug)]
pub(super) struct Hall<W> {
    /// Over all kinds.
    pub(super) places: Bound,
    /// By kind, each of them.
    pub(super) kinds: BTreeMap<&'static str, Bound>,
    /// Those who wait, over all kinds.
    pub(super) waiting: Bound,
    lines: BTreeMap<Class, BTreeMap<Turn, W>>,
    last: u64,
    /// By client, of those that have any.
    clients: HashMap<u64, Holding>,
}

/// What one client has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Holding {
    places: usize,
    waiting: usize,
}

impl<W> Hall<W> {
    /// An empty one.
    pub(super) fn new(limits: Limits) -> Self {
        let bound = |kind: &'static str| (kind, Bound::new(limits.in_flight_of(kind)));
        Self {
            places: Bound::new(limits.in_flight),
            // A check without a kind is no burden: it is answered at once.
            kinds: KINDS.iter().copied().map(bound).collect(),
            waiting: Bound::new(limits.max_waiting),
            lines: BTreeMap::new(),
            last: 0,
            clients: HashMap::new(),
        }
    }

    /// One comes whose order has had no place since `unserved`. It never passes those who wait in its class: while there is room for the
    /// class, nobody does, if [`next`](Hall::next) is asked after each [`leave`](Hall::leave).
    pub(super) fn enter(&mut self, class: Class, unserved: Instant, waker: impl FnOnce() -> W) -> Entry {
        if self.has_room(class) {
            self.take(class);
            return Entry::In;
        }
        if !self.waiting.has_room(class.pace) && !self.displace(class) {
            return Entry::Full;
        }
        self.waiting.take(class.pace);
        self.clients.entry(class.client).or_default().waiting += 1;
        self.last += 1;
        let turn = (unserved, self.last);
        self.lines.entry(class).or_default().insert(turn, waker());
        Entry::Waiting(turn)
    }

    /// Makes room to wait for one of this class, where another client has more that wait: its newest gives up, and learns it by its waker,
    /// which is dropped. A client that floods the hall has its own flood to thank.
    fn displace(&mut self, class: Class) -> bool {
        let own = self.of(class.client).waiting;
        // Who is as slow or slower frees what is wanted: see [`Bound`].
        let lines = self.lines.keys().filter(|line| line.client != class.client && line.pace >= class.pace);
        let greediest = lines.copied().max_by_key(|line| self.of(line.client).waiting);
        let Some(line) = greediest.filter(|line| self.of(line.client).waiting > own + 1) else { return false };
        let newest = self.lines.get(&line).and_then(|line| line.keys().max_by_key(|(_, number)| *number).copied());
        newest.is_some_and(|newest| self.step_out(line, newest).is_some()) && self.waiting.has_room(class.pace)
    }

    fn of(&self, client: u64) -> Holding {
        self.clients.get(&client).copied().unwrap_or_default()
    }

    /// Takes note that a client has so much less.
    fn release(&mut self, client: u64, less: impl Fn(&mut Holding)) {
        if let hash_map::Entry::Occupied(mut entry) = self.clients.entry(client) {
            less(entry.get_mut());
            if *entry.get() == Holding::default() {
                entry.remove();
            }
        }
    }

    /// One that is in leaves.
    pub(super) fn leave(&mut self, class: Class) {
        self.release(class.client, |holding| holding.places = holding.places.saturating_sub(1));
        self.places.free(class.pace);
        if let Some(kind) = self.kinds.get_mut(class.kind) {
            kind.free(class.pace);
        }
    }

    /// One who waits gives up. False: it waits no more, because it is in.
    pub(super) fn give_up(&mut self, class: Class, turn: Turn) -> bool {
        self.step_out(class, turn).is_some()
    }

    /// Lets in the next for whom there is room: one of the client that has fewest places, and of these the one whose order has had none for
    /// longest. A full class holds up none but its own.
    pub(super) fn next(&mut self) -> Option<(Class, W)> {
        let heads = self.lines.iter().filter_map(|(class, line)| Some((self.of(class.client).places, *line.first_key_value()?.0, *class)));
        let (_, turn, class) = heads.filter(|(_, _, class)| self.has_room(*class)).min()?;
        self.take(class);
        Some((class, self.step_out(class, turn)?))
    }

    fn step_out(&mut self, class: Class, turn: Turn) -> Option<W> {
        let line = self.lines.get_mut(&class)?;
        let waker = line.remove(&turn)?;
        if line.is_empty() {
            self.lines.remove(&class);
        }
        self.waiting.free(class.pace);
        self.release(class.client, |holding| holding.waiting = holding.waiting.saturating_sub(1));
        Some(waker)
    }

    fn has_room(&self, class: Class) -> bool {
        self.places.has_room(class.pace) && self.kinds.get(class.kind).is_none_or(|kind| kind.has_room(class.pace))
    }

    fn take(&mut self, class: Class) {
        self.clients.entry(class.client).or_default().places += 1;
        self.places.take(class.pace);
        if let Some(kind) = self.kinds.get_mut(class.kind) {
            kind.take(class.pace);
        }
    }
}

#[cfg(test)]
mod tests;
