//! A store that can't do what it is asked.

use tokio_util::sync::CancellationToken;
use vantage_daemon::{backoff::Backoff, readiness::Readiness};

use super::Settings;

/// Where it is said that the store fails, and who may end the waiting for it.
#[derive(Clone, Copy)]
pub(super) struct Place<'l> {
    pub(super) link: &'l str,
    pub(super) settings: &'l Settings,
    pub(super) readiness: &'l Readiness,
    /// The link's condition of readiness.
    pub(super) condition: &'l str,
    pub(super) drain: &'l CancellationToken,
}

/// The trouble with one thing that the store was asked; it may also do it at once, and then there was none.
pub(super) struct Trouble<'l> {
    place: Place<'l>,
    /// What can't be done, and what follows from it.
    what: &'static str,
    patience: Backoff,
    told: String,
}

impl<'l> Trouble<'l> {
    pub(super) fn with(what: &'static str, place: Place<'l>) -> Self {
        Self { place, what, patience: Backoff::new(place.settings.first_delay, place.settings.most_delay), told: String::new() }
    }

    /// Says why it could not be done, once, and again when it is something else; then waits a while. False: the link was told to drain.
    pub(super) async fn wait(&mut self, why: String) -> bool {
        let Place { link, readiness, condition, drain, .. } = self.place;
        if why != self.told {
            tracing::error!(link, error = why, "{}", self.what);
            readiness.unmet(condition, format!("{}: {why}", self.what));
            self.told = why;
        }
        tokio::select! {
            () = tokio::time::sleep(self.patience.next_delay()) => true,
            () = drain.cancelled() => false,
        }
    }

    /// It was done.
    pub(super) fn over(self) {
        if !self.told.is_empty() {
            tracing::info!(link = self.place.link, "the store does its work again");
            self.place.readiness.met(self.place.condition);
        }
    }
}
