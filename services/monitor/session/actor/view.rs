//! How a session is going, as the admin service shows it.

use prost_types::Timestamp;
use vantage_contract::v1::{Client, ClientState, Queue, SkippedCount};
use vantage_daemon::clock;

use super::Actor;
use crate::session::View;

impl Actor {
    /// The session at this moment.
    pub(super) fn view(&self) -> View {
        let usage = self.journal.usage();
        let now = clock::monotonic();
        let state = if self.presence.connected { ClientState::Connected } else { ClientState::Away };
        View {
            client: Client {
                client_id: self.client_id.clone(),
                name: self.hello.client_name.clone(),
                address: self.address.clone(),
                version: self.hello.client_version.clone(),
                state: state.into(),
                state_time: Some(Timestamp::from(self.presence.since)),
                session: self.session.clone(),
                order_count: u32::try_from(self.book.standing()).unwrap_or(u32::MAX),
                started_run_count: self.tally.started_runs(),
                sent_result_count: self.tally.sent_results,
                acknowledged_sequence: self.journal.acknowledged(),
                sent_bytes: self.tally.sent_bytes,
                received_bytes: self.tally.received_bytes,
            },
            queue: Queue {
                client_id: self.client_id.clone(),
                due_count: self.runs.waiting(),
                in_flight_count: self.runs.in_flight(),
                unacknowledged_count: usage.records,
                oldest_age: usage.oldest.map(|oldest| vantage_probes::stopwatch::to_proto(now.saturating_duration_since(oldest))),
                journal_bytes: usage.bytes,
                journal_limit_bytes: self.shared.settings.journal.bytes,
                skipped: self.tally.skipped().into_iter().map(|(reason, count)| SkippedCount { reason: reason.into(), count }).collect(),
                ..Queue::default()
            },
            tally: self.tally.clone(),
        }
    }
}
