//! The desk, with time in hand: tokio's clock stands still unless it is moved.

use std::{
    collections::BTreeSet,
    future::{Future as _, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use proptest::prelude::*;
use tokio::time::Instant;
use vantage_contract::v1::{self, Outcome, ProbeResult, Reason, probe::Kind};
use vantage_daemon::clock;

use super::{Desk, LinkState, Placement, book::Book};
use crate::{
    alert::{Alert, CheckAlert, Settings},
    fabric::{check, desk, place, result},
    state::State,
};

fn ping(name: &str) -> v1::Check {
    check(name, Kind::Ping(v1::PingProbe::default()))
}

/// A book with one check every 10 s on two monitors, whose patience is 32 s, and a clock.
struct Scene {
    book: Book,
    now: Instant,
    sequence: u64,
}

impl Scene {
    fn new() -> Self {
        let mut scene = Self { book: Book::new(Settings::default()), now: clock::monotonic(), sequence: 0 };
        scene.book.expect(vec![place(ping("c"), &["a", "b"])], scene.now);
        scene
    }

    fn wait(&mut self, seconds: u64) -> Vec<Alert> {
        self.now += Duration::from_secs(seconds);
        self.book.review(self.now)
    }

    /// A second later, a result of that monitor.
    fn comes(&mut self, monitor: &str, outcome: Outcome) -> Option<Alert> {
        self.brings(|result| result.monitor = monitor.into(), outcome).expect("the result is expected")
    }

    fn brings(&mut self, change: impl FnOnce(&mut ProbeResult), outcome: Outcome) -> Option<Option<Alert>> {
        self.now += Duration::from_secs(1);
        self.sequence += 1;
        let mut result = result("c", self.sequence, outcome);
        change(&mut result);
        self.together(&[result])
    }

    /// Results that come in one batch: what is told of them in the end; None if one was not expected.
    fn together(&mut self, results: &[ProbeResult]) -> Option<Option<Alert>> {
        let all = results.iter().all(|result| self.book.enter(&Arc::new(result.clone()), self.now, clock::wall()));
        all.then(|| self.book.review_of(&BTreeSet::from(["c"]), self.now).pop())
    }

    fn link(&mut self, monitor: &str, connected: bool) -> Option<Alert> {
        let error = if connected { String::new() } else { "connection refused".into() };
        self.book.note_link(monitor, LinkState { connected, since: clock::wall(), announced: monitor.into(), error }, self.now)
    }

    fn state(&mut self) -> State {
        self.book.snapshot(self.now).checks[0].state
    }
}

/// What a probe that ran came to.
fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![Just(Outcome::Passed), Just(Outcome::Failed), Just(Outcome::Undetermined)]
}

fn became(alert: Option<Alert>) -> (Option<State>, State) {
    match alert {
        Some(Alert::Check(CheckAlert { from, to, .. })) => (from, to),
        other => panic!("no alert about a check: {other:?}"),
    }
}

#[test]
fn a_backlog_tells_how_it_is_now_and_not_how_it_was_in_between() {
    let mut desk = Scene::new();
    desk.comes("a", Outcome::Passed);
    desk.comes("a", Outcome::Passed);
    let mut run = 10;
    let backlog = [Outcome::Failed, Outcome::Failed, Outcome::Failed, Outcome::Passed, Outcome::Passed].map(|outcome| {
        run += 1;
        ProbeResult { monitor: "a".into(), ..result("c", run, outcome) }
    });
    assert_eq!(desk.together(&backlog).expect("they are expected").map(|_| ()), None);
    assert_eq!(desk.state(), State::Up);
}

#[test]
fn on_the_way_up_the_reason_is_still_that_of_the_failure() {
    let mut scene = Scene::new();
    for monitor in ["a", "b", "a", "b"] {
        let refused = |result: &mut ProbeResult| (result.monitor, result.reason) = (monitor.into(), Reason::Refused.into());
        scene.brings(refused, Outcome::Failed);
    }
    scene.comes("a", Outcome::Passed);
    scene.comes("b", Outcome::Passed);
    let Some(Alert::Check(alert)) = scene.comes("b", Outcome::Passed) else { panic!("it is degraded now, and that is told") };
    assert_eq!((alert.to, alert.monitor.as_str()), (State::Degraded, "a"));
    assert_eq!(alert.reason, "refused");
}

#[test]
fn the_page_shows_a_failure_at_once_and_people_are_told_when_it_is_confirmed() {
    let mut scene = Scene::new();
    assert_eq!(scene.comes("a", Outcome::Passed), None);
    assert_eq!(scene.comes("a", Outcome::Failed), None);
    assert_eq!(scene.state(), State::Down);
    assert_eq!(became(scene.comes("a", Outcome::Failed)), (Some(State::Up), State::Down));
    assert_eq!(scene.comes("a", Outcome::Failed), None);
    assert_eq!(scene.comes("a", Outcome::Passed), None);
    assert_eq!(became(scene.comes("a", Outcome::Passed)), (Some(State::Down), State::Up));
}

#[test]
fn one_lost_packet_among_several_monitors_wakes_nobody() {
    let mut scene = Scene::new();
    for _ in 0..3 {
        assert_eq!(scene.comes("a", Outcome::Passed), None);
        assert_eq!(scene.comes("b", Outcome::Passed), None);
    }
    assert_eq!(scene.comes("a", Outcome::Failed), None);
    assert_eq!(scene.state(), State::Degraded);
    assert_eq!(scene.comes("b", Outcome::Passed), None);
    assert_eq!(scene.comes("b", Outcome::Passed), None);
    assert_eq!(scene.comes("a", Outcome::Passed), None);
    assert_eq!(scene.state(), State::Up);
}

#[test]
fn what_we_could_not_tell_is_never_the_targets_fault() {
    let mut scene = Scene::new();
    scene.comes("a", Outcome::Passed);
    for outcome in [Outcome::Undetermined, Outcome::Skipped, Outcome::Undetermined, Outcome::Skipped] {
        assert_eq!(scene.comes("a", outcome), None);
        assert_eq!(scene.state(), State::Up);
    }
}

#[test]
fn what_is_not_heard_of_any_more_becomes_unknown_and_is_told_once() {
    let mut scene = Scene::new();
    scene.comes("a", Outcome::Passed);
    assert!(scene.wait(31).is_empty());
    assert_eq!(scene.state(), State::Up);
    assert_eq!(became(scene.wait(1).pop()), (Some(State::Up), State::Unknown));
    assert!(scene.wait(100).is_empty());
    assert_eq!(became(scene.comes("a", Outcome::Passed)), (Some(State::Unknown), State::Up));
}

#[test]
fn a_target_that_asked_to_be_left_alone_stays_as_it_said_while_it_is() {
    let mut scene = Scene::new();
    let (kiss, held) = (Reason::KissOfDeath, Reason::HeldOff);
    let say = |scene: &mut Scene, reason: Reason, outcome| {
        scene.brings(|result| (result.monitor, result.reason) = ("a".into(), reason.into()), outcome);
    };
    say(&mut scene, Reason::Unspecified, Outcome::Passed);
    say(&mut scene, kiss, Outcome::Failed);
    for _ in 0..10 {
        assert!(scene.wait(9).is_empty(), "one kiss is not confirmed, and people are told nothing");
        say(&mut scene, held, Outcome::Skipped);
        assert_eq!(scene.state(), State::Down);
    }
    // Then it is asked again, and left alone for the sake of another check: that says nothing about this one for long.
    say(&mut scene, Reason::Unspecified, Outcome::Passed);
    for _ in 0..4 {
        scene.wait(9);
        say(&mut scene, held, Outcome::Skipped);
    }
    assert_eq!(scene.state(), State::Unknown);
    // What grew old does not come back by it.
    say(&mut scene, kiss, Outcome::Failed);
    scene.wait(100);
    say(&mut scene, held, Outcome::Skipped);
    assert_eq!(scene.state(), State::Unknown);
}

#[test]
fn a_check_that_never_says_anything_is_told_of_when_the_patience_ends() {
    let mut scene = Scene::new();
    assert!(scene.wait(31).is_empty());
    assert_eq!(became(scene.wait(1).pop()), (None, State::Unknown));
}

#[test]
fn a_lost_link_is_told_once_and_not_for_each_check() {
    let mut scene = Scene::new();
    assert_eq!((scene.link("a", true), scene.link("b", true)), (None, None), "that links stand is no news");
    scene.comes("a", Outcome::Passed);
    assert!(matches!(scene.link("a", false), Some(Alert::Link { connected: false, .. })));
    assert!(matches!(scene.link("b", false), Some(Alert::Link { connected: false, .. })));
    assert_eq!(scene.link("a", false), None, "another attempt that fails is no news");
    assert!(scene.wait(1000).is_empty(), "the links were told");
    assert_eq!(scene.state(), State::Unknown);
    assert!(matches!(scene.link("a", true), Some(Alert::Link { connected: true, .. })));
    assert!(scene.wait(10).is_empty(), "the monitor has time to say something");
    assert_eq!(scene.comes("a", Outcome::Passed), None, "nothing has changed for the people");
}

#[test]
fn results_from_before_a_cut_are_history() {
    let mut scene = Scene::new();
    scene.comes("a", Outcome::Passed);
    let old = (clock::wall() - Duration::from_secs(3600)).into();
    for _ in 0..5 {
        assert_eq!(scene.brings(|result| (result.monitor, result.due_time) = ("a".into(), Some(old)), Outcome::Failed), Some(None));
    }
    assert_eq!(scene.state(), State::Up);
    let totals = &scene.book.snapshot(scene.now).checks[0].lines[0].totals;
    assert_eq!(totals[&("failed".into(), String::new())], 5, "they are counted all the same");
}

/// Makes a result one of monitor "a", of a run that was due so many seconds after what was 20 s ago.
fn due(run: u64, seconds: u64) -> impl FnOnce(&mut ProbeResult) {
    let due = clock::wall() - Duration::from_secs(20) + Duration::from_secs(seconds);
    move |result| (result.monitor, result.run, result.due_time) = ("a".into(), run, Some(due.into()))
}

#[test]
fn a_backlog_beside_live_results_is_counted_and_says_nothing() {
    let mut scene = Scene::new();
    scene.brings(due(10, 10), Outcome::Passed);
    for run in 1..=5 {
        assert_eq!(scene.brings(due(run, run), Outcome::Failed), Some(None), "it is expected, and no news");
    }
    assert_eq!(scene.state(), State::Up);
    let line = scene.book.snapshot(scene.now).checks[0].lines[0].clone();
    assert_eq!((line.last.run, line.age, line.totals[&("failed".into(), String::new())]), (10, Duration::from_secs(5), 5));
    scene.brings(due(11, 11), Outcome::Failed);
    assert_eq!(scene.state(), State::Down, "what is newer still counts");
}

#[test]
fn results_that_are_due_together_or_do_not_say_when_are_as_new_as_they_come() {
    let mut scene = Scene::new();
    let same = clock::wall();
    for (run, due) in [(1, Some(same)), (1, Some(same)), (0, None)] {
        let change = |result: &mut ProbeResult| (result.monitor, result.run, result.due_time) = ("a".into(), run, due.map(Into::into));
        scene.brings(change, Outcome::Passed);
        let line = scene.book.snapshot(scene.now).checks[0].lines[0].clone();
        assert_eq!((line.last.run, line.age), (run, Duration::ZERO));
    }
}

#[test]
fn a_slow_run_that_is_overtaken_by_those_skipped_meanwhile_still_counts() {
    let mut scene = Scene::new();
    scene.brings(due(0, 0), Outcome::Passed);
    scene.brings(due(2, 2), Outcome::Skipped);
    scene.brings(due(1, 1), Outcome::Failed);
    assert_eq!(scene.state(), State::Down);
    assert_eq!(scene.brings(due(0, 0), Outcome::Passed), Some(None), "but one before that does not");
    assert_eq!(scene.state(), State::Down);
}

#[test]
fn a_monitor_whose_clock_was_set_back_is_heard_again_when_the_patience_ends() {
    let mut scene = Scene::new();
    scene.brings(due(0, 3600), Outcome::Passed);
    scene.brings(due(0, 10), Outcome::Failed);
    assert_eq!(scene.state(), State::Up);
    scene.wait(31);
    scene.brings(due(1, 20), Outcome::Failed);
    assert_eq!(scene.state(), State::Down);
}

#[test]
fn the_last_of_counted_runs_keeps_its_word_though_a_backlog_follows() {
    let mut scene = Scene::new();
    scene.book.expect(vec![place(v1::Check { count: 3, ..ping("c") }, &["a"])], scene.now);
    scene.brings(due(2, 10), Outcome::Passed);
    scene.brings(due(0, 0), Outcome::Failed);
    scene.brings(due(1, 5), Outcome::Failed);
    assert!(scene.wait(100_000).is_empty());
    assert_eq!(scene.state(), State::Up);
}

#[test]
fn a_check_that_is_counted_out_keeps_its_last_word() {
    let mut scene = Scene::new();
    scene.book.expect(vec![place(v1::Check { count: 2, ..ping("c") }, &["a"])], scene.now);
    scene.brings(|result| result.run = 0, Outcome::Passed);
    scene.brings(|result| result.run = 1, Outcome::Passed);
    assert!(scene.wait(100_000).is_empty());
    assert_eq!(scene.state(), State::Up);
}

#[test]
fn a_changed_check_is_judged_anew_and_old_results_of_it_are_not_judged() {
    let mut scene = Scene::new();
    let revised = |revision: &str| vec![Placement { revisions: [revision.to_owned()].into(), ..place(ping("c"), &["a"]) }];
    scene.book.expect(revised("1"), scene.now);
    let of = |revision: &'static str| move |result: &mut ProbeResult| result.revision = revision.into();
    scene.brings(of("1"), Outcome::Failed);
    assert_eq!(became(scene.brings(of("1"), Outcome::Failed).unwrap()), (None, State::Down));
    scene.book.expect(revised("2"), scene.now);
    assert_eq!(scene.state(), State::Unknown);
    assert_eq!(scene.brings(of("1"), Outcome::Failed), None, "it is not expected any more");
    assert_eq!(became(scene.brings(of("2"), Outcome::Passed).unwrap()), (Some(State::Down), State::Up), "the people remember");
    scene.book.expect(revised("2"), scene.now);
    assert_eq!(scene.state(), State::Up, "restating changes nothing");
}

#[test]
fn a_monitor_that_no_longer_runs_a_check_has_no_say_in_it() {
    let mut scene = Scene::new();
    scene.link("a", true);
    scene.link("b", true);
    scene.comes("a", Outcome::Passed);
    scene.comes("b", Outcome::Failed);
    assert_eq!(scene.state(), State::Degraded);
    scene.book.expect(vec![place(ping("c"), &["a"])], scene.now);
    assert_eq!(scene.state(), State::Up);
    assert_eq!(scene.brings(|result| result.monitor = "b".into(), Outcome::Failed), None);
}

#[test]
fn a_range_of_skipped_runs_counts_as_many() {
    let mut scene = Scene::new();
    let change = |result: &mut ProbeResult| (result.run_count, result.reason) = (7, Reason::MonitorDown.into());
    scene.brings(change, Outcome::Skipped);
    let totals = &scene.book.snapshot(scene.now).checks[0].lines[0].totals;
    assert_eq!(totals[&("skipped".into(), "monitor_down".into())], 7);
}

proptest! {
    #[test]
    fn however_a_backlog_comes_in_between_the_line_says_what_live_results_say(
        live in prop::collection::vec((outcome(), any::<bool>()), 1..20),
        backlog in prop::collection::vec(outcome(), 0..20),
    ) {
        let told = |with_backlog: bool| {
            let mut scene = Scene::new();
            let (mut old, mut said) = (backlog.iter().enumerate(), Vec::new());
            for (run, (outcome, between)) in live.iter().enumerate() {
                let news = scene.brings(due(100 + run as u64, 10 + run as u64 / 4), *outcome);
                said.push((news, scene.state(), scene.book.snapshot(scene.now).checks[0].lines[0].last.run));
                if *between && let Some((run, outcome)) = old.next() && with_backlog {
                    assert_eq!(scene.brings(due(run as u64, run as u64 / 4), *outcome), Some(None));
                    scene.now -= Duration::from_secs(1);
                }
            }
            said
        };
        prop_assert_eq!(told(true), told(false));
    }

    #[test]
    fn what_people_are_told_is_always_a_change_of_what_they_were_told_before(
        events in prop::collection::vec((0u8..8, 0u64..40), 1..120),
    ) {
        let mut scene = Scene::new();
        let mut told = None;
        for (event, seconds) in events {
            let mut alerts = scene.wait(seconds);
            let monitor = if event % 2 == 0 { "a" } else { "b" };
            alerts.extend(match event {
                0 | 1 => scene.comes(monitor, Outcome::Passed),
                2 | 3 => scene.comes(monitor, Outcome::Failed),
                4 | 5 => scene.comes(monitor, Outcome::Undetermined),
                _ => scene.link(monitor, seconds % 2 == 0),
            });
            for alert in alerts {
                if let Alert::Check(CheckAlert { from, to, failing_count, determined_count, .. }) = alert {
                    prop_assert!(from == told || (told.is_none() && from == Some(State::Up)), "{from:?} after {told:?}");
                    prop_assert_ne!(from, Some(to));
                    prop_assert_eq!(to == State::Down, failing_count > 0 && failing_count == determined_count);
                    prop_assert_eq!(to == State::Unknown, determined_count == 0);
                    told = Some(to);
                }
            }
        }
    }
}

#[tokio::test]
async fn only_new_results_are_returned_and_told_and_sessions_say_how_far() {
    let desk = desk();
    desk.expect(vec![place(ping("c"), &["a"])]);
    let mut events = desk.subscribe();
    assert_eq!(desk.take(vec![result("c", 1, Outcome::Passed), result("c", 2, Outcome::Passed)]).await.unwrap().len(), 2);
    let again = desk.take(vec![result("c", 2, Outcome::Passed), result("c", 3, Outcome::Passed)]).await.unwrap();
    assert_eq!(again.iter().map(|result| result.sequence).collect::<Vec<_>>(), [3]);
    for sequence in 1..=3 {
        assert_eq!(events.recv().await.unwrap().sequence, sequence);
    }
    assert!(events.try_recv().is_err());
    assert_eq!(desk.stored_sessions("m").await.unwrap(), [v1::StoredSession { session: "s".into(), sequence: 3 }]);
    assert_eq!(desk.counts().duplicates.get(), 1);
}

#[tokio::test]
async fn holes_and_unnumbered_results_are_counted() {
    let desk = desk();
    let unnumbered = ProbeResult { sequence: 0, ..result("c", 1, Outcome::Passed) };
    let new = desk.take(vec![result("c", 1, Outcome::Passed), result("c", 9, Outcome::Passed), unnumbered]).await.unwrap();
    let counts = desk.counts();
    assert_eq!((new.len(), counts.gaps.get(), counts.missing.get(), counts.misnumbered.get()), (2, 1, 7, 1));
    assert_eq!(counts.unexpected.get(), 2, "nobody said that the check runs");
}

#[tokio::test]
async fn what_was_begun_is_ended_though_the_caller_leaves() {
    let desk: Desk = desk();
    let mut events = desk.subscribe();
    {
        // One poll hands the work over; then the caller is gone.
        let mut taking = pin!(desk.take(vec![result("c", 1, Outcome::Passed)]));
        let polled = poll_fn(|context| Poll::Ready(taking.as_mut().poll(context))).await;
        assert!(polled.is_pending());
    }
    assert_eq!(events.recv().await.unwrap().sequence, 1);
}
