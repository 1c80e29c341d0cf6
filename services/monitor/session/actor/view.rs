//! How a session is going, as the admin service shows it.

use prost_types::Timestamp;
use vantage_contract::v1::{Client, ClientState, Queue, SkippedCount};
use vantage_daemon::clock;

use super::Actor;
use crate::session::View;

impl Actor {
    /// The session at this moment.
    pub(super) fn view(&self) -> View {
        let usage = self.core.usage();
        let now = clock::monotonic();
        let state = if self.presence.connected { ClientState::Connected } else { ClientState::Away };
        View {
            client: Client {
                client_id: self.client_id.to_string(),
                name: self.hello.client_name.clone(),
                address: self.address.clone(),
                version: self.hello.client_version.clone(),
                state: state.into(),
                state_time: Some(Timestamp::from(self.presence.since)),
                session: self.core.session().to_owned(),
                order_count: u32::try_from(self.core.book.standing()).unwrap_or(u32::MAX),
                started_run_count: self.core.tally.started_runs(),
                sent_result_count: self.core.tally.sent_results,
                acknowledged_sequence: self.core.acknowledged(),
                sent_bytes: self.core.tally.sent_bytes,
                received_bytes: self.core.tally.received_bytes,
            },
            queue: Queue {
                client_id: self.client_id.to_string(),
                due_count: self.runs.waiting(),
                in_flight_count: self.runs.in_flight(),
                unacknowledged_count: usage.records,
                oldest_age: usage.oldest.map(|oldest| vantage_probes::stopwatch::to_proto(now.saturating_duration_since(oldest))),
                journal_bytes: usage.bytes,
                journal_limit_bytes: self.core.most_bytes(),
                skipped: self
                    .core
                    .tally
                    .skipped()
                    .into_iter()
                    .map(|(reason, count)| SkippedCount { reason: reason.into(), count })
                    .collect(),
                session_count: u32::try_from(usage.sessions).unwrap_or(u32::MAX),
                unwritten_bytes: usage.unwritten_bytes,
                unwritten_limit_bytes: self.shared.settings.bounds().unwritten_bytes,
            },
            tally: self.core.tally.clone(),
        }
    }
}
