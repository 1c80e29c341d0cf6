//! How a session ends.

use std::time::Duration;

use vantage_daemon::clock;

use super::{Actor, HOUSEKEEPING, Woken, at};
use crate::tally::Tally;

/// How long a stopping session waits for the last acknowledgement.
const ACK_LINGER: Duration = Duration::from_secs(2);
/// How long a session that is to be forgotten waits for the disk to have forgotten it.
const FORGET_LIMIT: Duration = Duration::from_secs(5);

impl Actor {
    /// Another client needs the place.
    pub(super) async fn part(self) -> Tally {
        tracing::warn!(
            client = &*self.client_id,
            results = self.core.usage().records,
            "client forgotten to make room for another: it is away, without orders, and was sent all these results"
        );
        self.forget().await
    }

    /// Nothing of the client is kept.
    pub(super) async fn forget(mut self) -> Tally {
        let written = async {
            while self.core.is_committing() {
                let answer = self.answers.recv().await;
                self.hear(answer);
            }
            self.core.forget();
            self.flush();
            while self.core.is_committing() {
                let answer = self.answers.recv().await;
                self.hear(answer);
            }
        };
        if tokio::time::timeout(FORGET_LIMIT, written).await.is_err() {
            tracing::warn!(client = &*self.client_id, "the journal's disk takes nothing: a restart will find the forgotten client again");
        }
        self.core.tally
    }

    /// The monitor is stopping: no run starts, what is in flight is written and delivered, the stream ends with OK.
    pub(super) async fn stop(mut self) -> Tally {
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        let mut aborted = false;
        let mut linger = None;
        loop {
            self.flush();
            let sent = self.stream.is_none() || self.core.is_sent();
            if self.runs.is_empty() && sent && self.core.is_settled() {
                let nobody = self.stream.as_ref().is_none_or(|stream| stream.half_closed);
                if self.core.is_acknowledged() || nobody || linger.is_some_and(|until| clock::monotonic() >= until) {
                    break;
                }
                linger.get_or_insert_with(|| clock::monotonic() + ACK_LINGER);
            }
            let woken = tokio::select! {
                woken = self.wake(&mut housekeeping) => woken,
                () = at(linger), if linger.is_some() => Woken::Housekeeping,
            };
            self.turn_began = None;
            match woken {
                Woken::Command(Some(command)) => self.obey(command),
                Woken::Ended(ended) => self.keep_all(*ended),
                Woken::Answer(answer) => self.hear(answer),
                Woken::Room => self.send(),
                Woken::StreamGone => self.leave("the stream was lost"),
                Woken::End if aborted => break,
                Woken::End => {
                    self.runs.abort();
                    while !self.runs.is_empty() {
                        let ended = self.runs.next().await;
                        self.keep(ended);
                    }
                    // The last words: written if the disk takes them, sent if there is room.
                    self.flush();
                    let written = async {
                        while !self.core.is_settled() {
                            let answer = self.answers.recv().await;
                            self.hear(answer);
                            self.flush();
                        }
                    };
                    // The process has not long to live: what is not written by then is accounted for by the next one.
                    let _ = tokio::time::timeout(ACK_LINGER, written).await;
                    self.send();
                    aborted = true;
                }
                Woken::Command(None) | Woken::Due | Woken::Drain | Woken::Housekeeping => {}
            }
        }
        self.abandon()
    }

    /// The session ends here, with the process.
    pub(super) fn abandon(mut self) -> Tally {
        let left = self.core.usage().records;
        if left > 0 && self.shared.keeper.condition().folder.is_empty() {
            let client = &*self.client_id;
            tracing::warn!(
                client,
                results = left,
                "stopped with results that were not acknowledged: they are lost with the journal in memory"
            );
        } else if left > 0 {
            tracing::info!(client = &*self.client_id, results = left, "the journal keeps what was not acknowledged for the next start");
        }
        self.leave("the monitor stops");
        self.core.tally
    }
}
