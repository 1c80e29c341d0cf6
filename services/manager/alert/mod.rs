//! When people are told. Deciding is pure and lives here; telling is one log line and lives in [`tell`].
//!
//! Two things keep one lost packet from waking anybody. Each monitor's say has to be confirmed ([`Confirmed`]) by a number of results in
//! a row before it counts here, for the worse and for the better; what the page shows is the unconfirmed judgement, at once. And a check that
//! nobody can tell about is told of only when the patience with it is used up and the link to its monitors stands: a lost link is told
//! once, as that, and not once more for each check.

use crate::state::{Say, State};

pub mod tell;

/// How alerts are decided.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How many determined results of one monitor in a row have to agree before what it says counts. 1 to 100. Default 2.
    pub confirmations: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { confirmations: 2 }
    }
}

/// Something that people should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alert {
    /// The confirmed state of a check changed.
    Check(CheckAlert),
    /// The link to a monitor was lost, could not be made, or stands again.
    Link {
        /// The monitor, as configured.
        monitor: String,
        /// Whether it stands now.
        connected: bool,
        /// Why not.
        error: String,
    },
}

/// The confirmed state of a check changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckAlert {
    /// The name of the check.
    pub check: String,
    /// Its kind.
    pub kind: String,
    /// Its target. Empty where no result has named it yet.
    pub target: String,
    /// What people were told last.
    pub from: Option<State>,
    /// What it is now.
    pub to: State,
    /// Monitors that say that it fails.
    pub failing_count: usize,
    /// Monitors that say something.
    pub determined_count: usize,
    /// The monitor that `reason` and `summary` come from.
    pub monitor: String,
    /// The reason of the result that tells best why; empty where it passed.
    pub reason: String,
    /// That result's sentence.
    pub summary: String,
}

/// What one monitor says about one check, once enough results in a row have agreed on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Confirmed {
    say: Option<Say>,
    contrary_count: u32,
}

impl Confirmed {
    /// Enters a determined result. Until something is confirmed, a pass is believed at once: it wakes nobody.
    pub fn enter(&mut self, say: Say, settings: Settings) {
        if self.say == Some(say) || (self.say.is_none() && say == Say::Passed) {
            *self = Self { say: Some(say), contrary_count: 0 };
            return;
        }
        self.contrary_count += 1;
        if self.contrary_count >= settings.confirmations {
            *self = Self { say: Some(say), contrary_count: 0 };
        }
    }

    /// What is confirmed.
    pub fn say(self) -> Option<Say> {
        self.say
    }
}

/// What people were last told about a check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told(Option<State>);

impl Told {
    /// Whether a confirmed state is news: if so, what was told before, and it counts as told. `overdue` says that what is
    /// unknown should have been known by now. That a check starts out well is not news.
    pub fn news(&mut self, state: State, overdue: bool) -> Option<Option<State>> {
        if self.0 == Some(state) || (state == State::Unknown && !overdue) {
            return None;
        }
        let before = self.0.replace(state);
        (before.is_some() || state != State::Up).then_some(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TWO: Settings = Settings { confirmations: 2 };

    fn confirmed(says: &[Say], settings: Settings) -> Option<Say> {
        let mut confirmed = Confirmed::default();
        for say in says {
            confirmed.enter(*say, settings);
        }
        confirmed.say()
    }

    #[test]
    fn one_lost_packet_wakes_nobody_and_one_lucky_one_calms_nobody() {
        use Say::{Failed, Passed};
        assert_eq!(confirmed(&[Passed, Failed, Passed, Failed, Passed], TWO), Some(Passed));
        assert_eq!(confirmed(&[Passed, Failed, Failed], TWO), Some(Failed));
        assert_eq!(confirmed(&[Failed, Failed, Passed, Failed], TWO), Some(Failed));
        assert_eq!(confirmed(&[Failed, Failed, Passed, Passed], TWO), Some(Passed));
    }

    #[test]
    fn at_first_a_pass_is_believed_and_a_failure_is_not() {
        assert_eq!(confirmed(&[Say::Passed], TWO), Some(Say::Passed));
        assert_eq!(confirmed(&[Say::Failed], TWO), None);
        assert_eq!(confirmed(&[Say::Failed], Settings { confirmations: 1 }), Some(Say::Failed));
    }

    #[test]
    fn that_all_is_well_from_the_start_is_no_news_and_that_it_is_well_again_is() {
        let mut told = Told::default();
        assert_eq!(told.news(State::Up, false), None);
        assert_eq!(told.news(State::Down, false), Some(Some(State::Up)));
        assert_eq!(told.news(State::Down, false), None);
        assert_eq!(told.news(State::Up, false), Some(Some(State::Down)));
    }

    #[test]
    fn what_is_unknown_is_news_only_when_it_should_be_known() {
        let mut told = Told::default();
        assert_eq!(told.news(State::Unknown, false), None);
        assert_eq!(told.news(State::Unknown, true), Some(None));
        assert_eq!(told.news(State::Unknown, true), None);
        let mut told = Told::default();
        assert_eq!(told.news(State::Down, false), Some(None), "down from the start is news");
        assert_eq!(told.news(State::Unknown, false), None);
        assert_eq!(told.news(State::Down, false), None, "and was told");
    }

    proptest! {
        #[test]
        fn what_is_confirmed_changes_only_after_enough_results_in_a_row(
            says in prop::collection::vec(prop_oneof![Just(Say::Passed), Just(Say::Failed)], 1..60),
            confirmations in 1u32..6,
        ) {
            let mut confirmed = Confirmed::default();
            for at in 0..says.len() {
                let before = confirmed.say();
                confirmed.enter(says[at], Settings { confirmations });
                if confirmed.say() != before && !(before.is_none() && says[at] == Say::Passed) {
                    let needed = confirmations as usize;
                    prop_assert!(at + 1 >= needed);
                    prop_assert!(says[at + 1 - needed..=at].iter().all(|say| *say == says[at]));
                }
            }
        }
    }
}
