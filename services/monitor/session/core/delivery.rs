//! What goes to the client, and what it has.

use bytes::Bytes;
use tokio::time::Instant;
use vantage_contract::v1::{Hello, StoredSession};

use super::Core;
use crate::journal::{Encoded, Lane};

/// A client that comes back to more than so many sequences gets a new session for its new results.
const LONG_BACKLOG: u64 = 4096;
/// The most sessions that one client has; a client that comes and goes all the time gets no further ones.
const MOST_LANES: usize = 8;

/// How full a client's logs are.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Records that are not acknowledged.
    pub(crate) records: u64,
    /// What they take up, encoded.
    pub(crate) bytes: u64,
    /// What of that is not yet on the disk.
    pub(crate) unwritten_bytes: u64,
    /// What of that are accounts of runs whose results were dropped.
    pub(crate) settled_bytes: u64,
    /// When the oldest was appended, about.
    pub(crate) oldest: Option<Instant>,
    /// Sessions with records that are not acknowledged.
    pub(crate) sessions: usize,
}

impl Core {
    /// A stream of the client was opened: it says what it has stored, and everything else will be sent again.
    pub(crate) fn attach(&mut self, stored: &[StoredSession]) {
        for stored in stored {
            // A session that is not known is one of which nothing is left.
            self.acknowledge(&stored.session, stored.sequence);
        }
        let is_long = self.lanes.last().is_some_and(|live| live.last() - live.acknowledged() > LONG_BACKLOG);
        if is_long && self.lanes.len() < MOST_LANES {
            self.open_lane();
        }
        self.lanes.iter_mut().for_each(|lane| lane.rewind(true));
        self.book.begin_restatement();
    }

    /// The stream is no more.
    pub(crate) fn detach(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.rewind(false));
    }

    /// Who the client is, as it says now.
    pub(crate) fn note_client(&mut self, hello: Hello, address: String) {
        self.changes.client = Some((hello, address));
    }

    /// The session that takes the new results.
    pub(crate) fn session(&self) -> &str {
        self.lanes.last().map(Lane::session).unwrap_or_default()
    }

    /// The earlier sessions that are still to be acknowledged, with their last sequences.
    pub(crate) fn closed_sessions(&self) -> impl Iterator<Item = (&str, u64)> {
        let closed = self.lanes.len().saturating_sub(1);
        self.lanes.iter().take(closed).filter(|lane| lane.acknowledged() < lane.last()).map(|lane| (lane.session(), lane.last()))
    }

    /// The last sequence of the session that takes the new results which is acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.lanes.last().map(Lane::acknowledged).unwrap_or_default()
    }

    /// The client has stored all up to a sequence. False: no such session, or not sent.
    pub(crate) fn acknowledge(&mut self, session: &str, sequence: u64) -> bool {
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.session() == session) else { return false };
        let before = lane.acknowledged();
        let is_sound = lane.acknowledge(sequence);
        if lane.acknowledged() > before {
            self.changes.acknowledged.insert(session.to_owned(), sequence);
        }
        is_sound
    }

    /// The next record to send: those of the sessions in turn, so that the new results need not wait for the old ones, nor the old ones for ever.
    pub(crate) fn send(&mut self) -> Option<Encoded> {
        let count = self.lanes.len();
        for step in 1..=count {
            let index = (self.turn + step) % count;
            if let Some(sent) = self.lanes.get_mut(index).and_then(Lane::send) {
                self.turn = index;
                return Some(sent);
            }
        }
        None
    }

    /// Whether the next record to send is at hand.
    pub(crate) fn has_ready(&self) -> bool {
        self.lanes.iter().any(Lane::has_ready)
    }

    /// What has to be read from the disk before it can be sent: sessions, and after which sequence.
    pub(crate) fn fetches(&mut self) -> Vec<(String, u64)> {
        self.lanes.iter_mut().filter_map(|lane| lane.fetch().map(|after| (lane.session().to_owned(), after))).collect()
    }

    /// What was read.
    pub(crate) fn fetched(&mut self, session: &str, after: u64, blocks: Vec<(u64, Option<Bytes>)>) {
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.session() == session) {
            lane.fetched(after, blocks);
        }
    }

    /// Whether everything that there is was put into the present stream.
    pub(crate) fn is_sent(&self) -> bool {
        self.lanes.iter().all(Lane::is_sent)
    }

    /// Whether everything that may be sent before the client acknowledges was put into the present stream.
    pub(crate) fn is_at_limit(&self) -> bool {
        self.is_settled() && !self.lanes.iter().any(Lane::may_send)
    }

    /// Whether everything was sent at some time.
    pub(crate) fn was_sent(&self) -> bool {
        self.lanes.iter().all(Lane::was_sent)
    }

    /// Whether everything is acknowledged.
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.lanes.iter().all(|lane| lane.acknowledged() == lane.last())
    }

    /// How full the logs are.
    pub(crate) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for lane in &self.lanes {
            let (records, bytes) = lane.usage();
            usage.records += records;
            usage.bytes += bytes;
            usage.unwritten_bytes += lane.unwritten_bytes();
            usage.settled_bytes += lane.settled_bytes();
            usage.oldest = usage.oldest.or(lane.oldest());
            usage.sessions += usize::from(lane.acknowledged() < lane.last());
        }
        usage
    }
}
