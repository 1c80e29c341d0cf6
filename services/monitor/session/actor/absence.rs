//! How a stream ends, and what is looked after while there is none.

use std::{sync::atomic::Ordering, time::Duration};

use tonic::Status;

use super::{Actor, Presence};
use crate::schedule::Now;

/// How long a stream may take to accept its last word.
const LAST_WORD: Duration = Duration::from_secs(5);
/// How long a client is remembered of which nothing is left.
const IDLE_EXPIRY: Duration = Duration::from_secs(10);

impl Actor {
    /// Ends the stream with a status, if there is one.
    pub(super) fn dismiss(&mut self, status: Status) {
        let Some(stream) = self.stream.take() else { return };
        self.note_away(status.message());
        tokio::spawn(async move {
            // A peer that takes nothing any more will find out by its keepalive.
            let _ = tokio::time::timeout(LAST_WORD, stream.results.send(Err(status))).await;
        });
    }

    /// Ends the stream with OK, if there is one.
    pub(super) fn leave(&mut self, why: &str) {
        if self.stream.take().is_some() {
            self.note_away(why);
        }
    }

    fn note_away(&mut self, why: &str) {
        self.core.detach();
        let now = Now::read();
        self.presence = Presence { connected: false, since: now.wall };
        self.away_since = now.monotonic;
        tracing::info!(client = &*self.client_id, orders = self.core.book.standing(), why, "client away");
    }

    /// Looks after bounds. True: nothing is left of the client, or it stayed away too long.
    pub(super) fn tidy(&mut self) -> bool {
        let now = Now::read();
        self.look();
        let share = self.claim.note(self.core.stored_bytes());
        self.core.tidy(now, share);
        self.show();
        if self.stream.is_some() {
            return false;
        }
        let has_nothing_to_do = self.core.book.standing() == 0 && self.runs.is_empty();
        self.expendable.store(has_nothing_to_do && self.core.was_sent(), Ordering::Relaxed);
        let away = now.monotonic.saturating_duration_since(self.away_since);
        if away > self.shared.settings.client_expiry {
            tracing::warn!(
                client = &*self.client_id,
                orders = self.core.book.clear(),
                results = self.core.usage().records,
                "client forgotten with all that is its: it stayed away longer than client_expiry"
            );
            return true;
        }
        has_nothing_to_do && self.core.is_acknowledged() && away > IDLE_EXPIRY
    }
}
