//! How far a conversation has come, for when it is cut short.

use std::time::Duration;

use tokio::time::Instant;

use crate::stopwatch;

/// How far a conversation has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// When the step was begun that is not over.
    begun: Option<Instant>,
    /// What is being done, where there is more to say than the phase does.
    doing: Option<String>,
}

impl Progress {
    /// A step begins.
    pub(super) fn begin(&mut self) {
        self.begun = Some(stopwatch::now());
    }

    /// The step is over, or the whole is: how long it took. None: no step was begun.
    pub(super) fn end(&mut self) -> Option<Duration> {
        self.begun.take().map(|begun| stopwatch::now() - begun)
    }

    /// `act` is what is being done, with its subject: "STARTTLS (smtp) with 192.0.2.1:25".
    pub(super) fn doing(&mut self, act: &str, how: &str, what: &str) {
        self.doing = Some(format!("{how} {what}, in {act}"));
    }

    /// Only the phase tells what is being done from here on.
    pub(super) fn done(&mut self) {
        self.doing = None;
    }

    /// What was being done.
    pub(super) fn what(&self) -> Option<&str> {
        self.doing.as_deref()
    }
}
