//! The law of the whole, in virtual time: whatever is cut, killed, restated or lost on the way, each run of each order arrives exactly once.

use std::time::Duration;

use proptest::prelude::*;
use prost::Message as _;
use vantage_contract::v1::{Check, Outcome, ProbeResult, Reason, Start, StoredSession};
use vantage_daemon::sqlite::Sync;

use super::*;
use crate::journal::{Disk, WINDOW};

const BOUNDS: Bounds = Bounds { bytes: 40_000, age: Duration::from_secs(600), unwritten_bytes: 8_000 };

/// What can happen.
#[derive(Debug, Clone)]
enum Step {
    /// Time passes, in milliseconds.
    Wait(u64),
    /// The wall clock is set forward, or back, by seconds.
    SetClock(i64),
    /// The oldest run in flight ends.
    End,
    /// Everything is written.
    Write,
    /// The process is killed: before a write, after it, or with nothing under way; it is back after so many milliseconds.
    Kill { written: bool, away: u64 },
    /// The stream is opened (again): what the client wants is restated.
    Attach,
    /// The stream is cut.
    Cut,
    /// So many records arrive, and are acknowledged or not.
    Deliver { count: usize, acknowledged: bool },
    /// The client wants a check, in a new revision.
    Place(u8),
    /// The client does not want a check any more.
    Stop(u8),
    /// A probe for once.
    Once,
    /// Bounds are looked after.
    Tidy,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u64..5000).prop_map(Step::Wait),
        1 => (-7200_i64..7200).prop_map(Step::SetClock),
        4 => Just(Step::End),
        4 => Just(Step::Write),
        3 => (any::<bool>(), 0_u64..20_000).prop_map(|(written, away)| Step::Kill { written, away }),
        3 => Just(Step::Attach),
        1 => Just(Step::Cut),
        4 => (1_usize..60, any::<bool>()).prop_map(|(count, acknowledged)| Step::Deliver { count, acknowledged }),
        2 => (0_u8..3).prop_map(Step::Place),
        1 => (0_u8..3).prop_map(Step::Stop),
        1 => Just(Step::Once),
        2 => Just(Step::Tidy),
    ]
}

/// What the client has stored.
#[derive(Default)]
struct Client {
    wanted: BTreeMap<u8, Start>,
    through: BTreeMap<String, u64>,
    /// How often each run has come, by revision.
    runs: BTreeMap<String, BTreeMap<u64, u32>>,
    revisions: u64,
}

impl Client {
    fn store(&mut self, record: &ProbeResult) {
        let through = self.through.entry(record.session.clone()).or_default();
        if record.sequence <= *through {
            return;
        }
        assert_eq!(record.sequence - record.sequence_count, *through, "sequences have no holes");
        *through = record.sequence;
        assert!(record.run_count < 100_000);
        for run in record.run..record.run + record.run_count {
            *self.runs.entry(record.revision.clone()).or_default().entry(run).or_default() += 1;
        }
    }

    fn stored(&self) -> Vec<StoredSession> {
        self.through.iter().map(|(session, sequence)| StoredSession { session: session.clone(), sequence: *sequence }).collect()
    }
}

struct World {
    disk: Disk,
    core: Core,
    client: Client,
    attached: bool,
    in_flight: Vec<Ticket>,
    now: Now,
}

impl World {
    fn new() -> Self {
        let now = Now::read();
        let (disk, _) = Disk::open(None, "m", Sync::Full, now.wall).unwrap();
        Self { disk, core: Core::new("m", BOUNDS, now), client: Client::default(), attached: false, in_flight: Vec::new(), now }
    }

    fn wait(&mut self, millis: u64) {
        self.now.monotonic += Duration::from_millis(millis);
        self.now.wall += Duration::from_millis(millis);
    }

    fn run_due(&mut self) {
        let tickets = self.core.due(self.now);
        self.in_flight.extend(tickets);
    }

    fn end(&mut self, ticket: &Ticket) {
        let mut record = ticket.facts.skipped(ticket.run, 1, ticket.due_wall, Reason::Internal);
        (record.said.outcome, record.said.reason) = (Outcome::Passed.into(), 0);
        self.core.ended(ticket.order, record, self.now);
    }

    fn write(&mut self) {
        if let Some(changes) = self.core.take_changes() {
            let written = self.disk.apply(&[("c", &changes)], self.now.wall).unwrap().remove(0);
            self.core.written(&changes, &written);
        }
    }

    fn kill(&mut self, written: bool, away: u64) {
        if written && let Some(changes) = self.core.take_changes() {
            self.disk.apply(&[("c", &changes)], self.now.wall).unwrap();
        }
        self.in_flight.clear();
        self.attached = false;
        self.wait(away);
        let stored = self.disk.load(Sync::Full).unwrap().pop();
        self.core = match stored {
            Some(stored) => Core::resume(stored, "m", BOUNDS, self.now),
            None => Core::new("m", BOUNDS, self.now),
        };
    }

    fn attach(&mut self) {
        self.core.attach(&self.client.stored());
        self.attached = true;
        let wanted: Vec<_> = self.client.wanted.values().cloned().collect();
        for start in wanted {
            self.core.place(start, self.now);
        }
        self.core.commit();
    }

    fn deliver(&mut self, count: usize, acknowledged: bool) {
        if !self.attached {
            return;
        }
        for (session, after) in self.core.fetches() {
            let blocks = self.disk.read(&session, after, 4096).unwrap();
            self.core.fetched(&session, after, blocks);
        }
        for _ in 0..count {
            let Some(sent) = self.core.send() else { break };
            let record = ProbeResult::decode(sent.bytes).unwrap();
            assert_eq!(record.sequence, sent.sequence);
            self.client.store(&record);
        }
        if acknowledged {
            for stored in self.client.stored() {
                self.core.acknowledge(&stored.session, stored.sequence);
            }
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Wait(millis) => self.wait(millis),
            Step::SetClock(seconds) => {
                let by = Duration::from_secs(seconds.unsigned_abs());
                self.now.wall = if seconds < 0 { self.now.wall - by } else { self.now.wall + by };
            }
            Step::End if !self.in_flight.is_empty() => {
                let ticket = self.in_flight.remove(0);
                self.end(&ticket);
            }
            Step::End => {}
            Step::Write => self.write(),
            Step::Kill { written, away } => self.kill(written, away),
            Step::Attach => self.attach(),
            Step::Cut => {
                self.attached = false;
                self.core.detach();
            }
            Step::Deliver { count, acknowledged } => self.deliver(count, acknowledged),
            Step::Place(number) => {
                self.client.revisions += 1;
                let interval = Some(prost_types::Duration { seconds: 1 + i64::from(number), nanos: 0 });
                let check = Check { name: format!("check-{number}"), interval, ..Check::default() };
                let start = Start { check: Some(check), revision: self.client.revisions.to_string(), ..Start::default() };
                self.client.wanted.insert(number, start.clone());
                if self.attached {
                    self.core.place(start, self.now);
                }
            }
            Step::Stop(number) => {
                self.client.wanted.remove(&number);
                if self.attached {
                    self.core.stop(&format!("check-{number}"));
                }
            }
            Step::Once => {
                self.client.revisions += 1;
                let check = Check { name: "once".into(), ..Check::default() };
                let once = vantage_contract::v1::RunOnce {
                    check: Some(check),
                    revision: format!("once-{}", self.client.revisions),
                    expire_time: None,
                };
                if self.attached {
                    self.in_flight.extend(self.core.run_once(once, self.now));
                }
            }
            Step::Tidy => self.core.tidy(self.now, u64::MAX),
        }
        self.run_due();
    }

    /// Lets everything come to its end, and everything arrive.
    fn settle(&mut self) {
        let under_way = std::mem::take(&mut self.in_flight);
        under_way.iter().for_each(|ticket| self.end(ticket));
        self.attach();
        self.in_flight.clear();
        for _ in 0..10_000 {
            self.write();
            self.deliver(1000, true);
            if self.core.is_settled() && self.core.is_acknowledged() {
                return;
            }
        }
        panic!("it does not come to an end: {:?}", self.core);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn each_run_arrives_exactly_once(steps in proptest::collection::vec(step(), 1..150)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        world.settle();
        for (revision, runs) in &world.client.runs {
            let (first, last) = (runs.keys().next().unwrap(), runs.keys().last().unwrap());
            prop_assert_eq!(*first, 0, "revision {}", revision);
            prop_assert!(runs.values().all(|times| *times == 1), "revision {}: a run came twice: {:?}", revision, runs);
            prop_assert_eq!(runs.len() as u64, last + 1, "revision {}: a run is missing: {:?}", revision, runs);
        }
        // What stands is accounted for up to now.
        for start in world.client.wanted.values() {
            let ours = |order: &&crate::order::Order| order.start.revision == start.revision;
            let order = (1..1000).filter_map(|id| world.core.book.order(id)).find(ours).expect("it stands");
            let told = world.client.runs.get(&start.revision).map_or(0, BTreeMap::len) as u64;
            prop_assert_eq!(told, order.next_run);
        }
        // Nothing is kept that nobody needs.
        world.write();
        let kept = world.disk.load(Sync::Full).unwrap();
        let orders: usize = kept.iter().map(|client| client.orders.len()).sum();
        prop_assert_eq!(orders, world.client.wanted.len());
        prop_assert!(kept.iter().flat_map(|client| &client.lanes).all(|lane| lane.records == 0));
    }
}

fn tcp(name: &str) -> Start {
    let interval = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    Start { check: Some(Check { name: name.into(), interval, ..Check::default() }), revision: "1".into(), ..Start::default() }
}

#[test]
fn a_monitor_that_was_down_accounts_for_what_it_missed_as_one_range() {
    let mut world = World::new();
    world.client.wanted.insert(0, tcp("a"));
    world.attach();
    world.wait(1000);
    world.run_due();
    world.write();
    world.kill(false, 60_000);
    world.settle();
    let record = &world.client.runs["1"];
    assert_eq!(record.len() as u64, world.core.book.order(1).unwrap().next_run);
    assert_eq!(world.core.tally.skipped(), BTreeMap::from([(Reason::MonitorDown, record.len() as u64)]));
}

#[test]
fn a_lost_journal_is_filled_up_from_what_the_client_knows() {
    let mut world = World::new();
    world.client.wanted.insert(0, tcp("a"));
    world.attach();
    for _ in 0..10 {
        world.wait(1000);
        world.run_due();
        while let Some(ticket) = world.in_flight.pop() {
            world.end(&ticket);
        }
        world.write();
    }
    world.deliver(5, true);
    let known = world.client.runs["1"].len() as u64;
    let anchor = world.core.book.order(1).unwrap().schedule.anchor();
    world.disk = Disk::open(None, "m", Sync::Full, world.now.wall).unwrap().0;
    world.kill(false, 3000);
    let start = Start { anchor: Some(anchor.into()), resume_run: Some(known), ..tcp("a") };
    world.client.wanted.insert(0, start);
    world.settle();
    let runs = &world.client.runs["1"];
    assert!(runs.values().all(|times| *times == 1) && runs.len() as u64 == world.core.book.order(1).unwrap().next_run, "{runs:?}");
    assert!(world.core.tally.skipped()[&Reason::Expired] >= 7);
}

#[test]
fn new_results_do_not_wait_behind_a_long_backlog() {
    let mut world = World::new();
    let roomy = Bounds { bytes: 64 << 20, ..BOUNDS };
    world.core = Core::new("m", Bounds { unwritten_bytes: 64 << 20, ..roomy }, world.now);
    world.client.wanted.insert(0, tcp("a"));
    world.attach();
    world.attached = false;
    let facts = std::sync::Arc::clone(&world.core.book.order(1).unwrap().facts);
    let record = |run| facts.skipped(run, 1, world.now.wall, Reason::Overloaded);
    for run in 0..2 * WINDOW {
        world.core.append(1, record(run), world.now);
    }
    world.write();
    let old = world.core.session().to_owned();
    world.attach();
    assert_ne!(world.core.session(), old);
    assert_eq!(world.core.closed_sessions().collect::<Vec<_>>(), [(old.as_str(), 2 * WINDOW)]);
    let facts = std::sync::Arc::clone(&world.core.book.order(1).unwrap().facts);
    world.core.append(1, facts.skipped(2 * WINDOW, 1, world.now.wall, Reason::Overloaded), world.now);
    world.write();
    world.deliver(2, true);
    assert_eq!(world.client.through.len(), 2, "one of each session");
    world.settle();
    world.core.tidy(world.now, u64::MAX);
    assert_eq!(world.core.closed_sessions().count(), 0);
    assert_eq!(world.client.runs["1"].len() as u64, 2 * WINDOW + 1);
}

#[test]
fn a_client_has_one_bound_for_all_its_sessions_and_the_oldest_results_go_first() {
    let mut world = World::new();
    let bounds = Bounds { bytes: 600_000, unwritten_bytes: 64 << 20, ..BOUNDS };
    world.core = Core::new("m", bounds, world.now);
    world.client.wanted.insert(0, tcp("a"));
    for session in 0..3 {
        // Back after a long time, with nothing taken: another session for what is to come.
        world.attach();
        world.core.detach();
        let facts = std::sync::Arc::clone(&world.core.book.order(1).unwrap().facts);
        for run in session * 5000..(session + 1) * 5000 {
            let mut record = facts.skipped(run, 1, world.now.wall, Reason::Internal);
            (record.said.outcome, record.said.reason) = (Outcome::Passed.into(), 0);
            world.core.append(1, record, world.now);
            if run % 100 == 99 {
                world.write();
            }
        }
    }
    world.write();
    let results = |world: &World| world.core.lanes.iter().map(Lane::result_bytes).collect::<Vec<_>>();
    let before = results(&world);
    assert!(before.len() == 3 && before.iter().all(|bytes| (250_000..600_000).contains(bytes)), "{before:?}");
    for _ in 0..5 {
        world.core.tidy(world.now, u64::MAX);
        world.write();
    }
    let after = results(&world);
    assert!(after.iter().sum::<u64>() <= bounds.bytes && after.iter().sum::<u64>() > bounds.bytes * 8 / 10, "{before:?}, {after:?}");
    assert_eq!((after[0], after[2]), (0, before[2]), "{before:?}, {after:?}");
    assert!((5001..10_000).contains(&world.core.tally.journal_dropped_runs), "{}", world.core.tally.journal_dropped_runs);

    // Others want room, too: what it may have is less than its own bound, and accounts are a part of it.
    assert_eq!(world.core.most_bytes(), bounds.bytes);
    for _ in 0..5 {
        world.core.tidy(world.now, 200_000);
        world.write();
    }
    assert_eq!(world.core.most_bytes(), 200_000);
    assert!((100_000..=200_000).contains(&world.core.stored_bytes()), "{}", world.core.stored_bytes());
}

#[test]
fn a_power_loss_that_the_disk_was_not_asked_to_survive_gives_no_sequence_twice() {
    let mut world = World::new();
    world.disk.load(Sync::Normal).unwrap();
    world.client.wanted.insert(0, tcp("a"));
    world.attach();
    world.write();
    let mut stored = world.disk.load(Sync::Full).unwrap().pop().unwrap();
    stored.lanes[0].gap = 1 << 32;
    world.wait(5000);
    world.core = Core::resume(stored, "m", BOUNDS, world.now);
    world.settle();
    assert!(world.client.through.values().all(|through| *through > 1 << 32));
    assert!(world.client.runs["1"].values().all(|times| *times == 1));
}
