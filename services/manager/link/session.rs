//! One stream at work, from the restatement to its end.

use std::{future, sync::Arc};

use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tonic::{Status, Streaming};
use vantage_contract::v1::{ExecuteRequest, ProbeResult, StoredSession};

use super::{
    Intake,
    outgoing::Outgoing,
    stream::Stream,
    trouble::{Place, Trouble},
};
use crate::plan::{self, Orders};

/// The most results that are stored and acknowledged together, and (roughly) the most bytes.
///
/// With what the transport holds ([`endpoint`](super::endpoint)), this is all that a link has in memory between the monitor and the
/// store: nothing is read while a batch is being stored and shown, so a slow store or a slow reader of the output holds the monitor back.
const BATCH: usize = 1024;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// How a stream ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// We were told to drain, and did.
    Drained,
    /// The monitor ended it with OK: it is stopping.
    Closed,
    /// Anything else.
    Failed(Status),
}

/// A stream at work.
pub(super) struct Session<'l, I> {
    pub(super) intake: &'l Arc<I>,
    pub(super) orders: &'l mut watch::Receiver<Arc<Orders>>,
    /// What the monitor calls itself.
    pub(super) monitor: String,
    pub(super) place: Place<'l>,
}

impl<I: Intake> Session<'_, I> {
    /// Restates the orders, closes the restatement, and takes results until the stream or the link ends. `stored` is how far the sessions
    /// of this stream are stored, as far as the monitor was not told yet.
    pub(super) async fn serve(mut self, stream: Stream, stored: Vec<StoredSession>) -> Ending {
        let Stream { outbox, mut inbox, closed, .. } = stream;
        let mut outgoing = Outgoing::default();
        stored.iter().for_each(|stored| outgoing.acknowledge(&stored.session, stored.sequence));
        let Some(mut placed) = self.restate(&closed, &mut outgoing).await else { return Ending::Drained };
        let mut deaf = false;
        loop {
            tokio::select! {
                permit = outbox.reserve(), if !deaf && !outgoing.is_empty() => match permit {
                    Ok(permit) => if let Some(request) = outgoing.next() { permit.send(request) },
                    // The call is over; the other side of it says why.
                    Err(_) => deaf = true,
                },
                first = inbox.message() => match first {
                    Ok(Some(first)) => {
                        let (batch, end) = self.gather(first, &mut inbox).await;
                        self.take(batch, &mut outgoing).await;
                        if let Some(end) = end {
                            return end;
                        }
                    }
                    Ok(None) => return Ending::Closed,
                    Err(status) => return Ending::Failed(status),
                },
                // One change after the other: what waits to be said does not grow while the monitor doesn't listen.
                changed = self.orders.changed(), if outgoing.is_settled() => match changed {
                    Ok(()) => self.change(&mut placed, &mut outgoing).await,
                    // Whoever could change the orders is gone: so should we be.
                    Err(_) => break,
                },
                () = self.place.drain.cancelled() => break,
            }
        }
        let limit = self.place.settings.drain_timeout;
        let finish = async {
            // A link that is taken out of the file has just been given an empty list of orders.
            self.change(&mut placed, &mut outgoing).await;
            self.finish(outbox, inbox, outgoing).await;
        };
        if tokio::time::timeout(limit, finish).await.is_err() {
            let link = self.place.link;
            tracing::info!(link, "the monitor did not end the stream within {limit:?}: left it; it keeps what it has");
        }
        Ending::Drained
    }

    /// Enters in the ledger that the orders are going to stand on the monitor, and learns how they do; then states them. Without the
    /// ledger nothing is stated. None: told to drain before.
    async fn restate(&mut self, closed: &[StoredSession], outgoing: &mut Outgoing) -> Option<Arc<Orders>> {
        let mut trouble = Trouble::with("orders can't be entered in the store, so they are not restated", self.place);
        loop {
            let orders = Arc::clone(&self.orders.borrow_and_update());
            match self.intake.restate(self.place.link, &self.monitor, closed, &orders).await {
                Ok(standings) => {
                    outgoing.restate(orders.values().zip(standings));
                    trouble.over();
                    return Some(orders);
                }
                Err(why) => {
                    if !trouble.wait(why).await {
                        return None;
                    }
                }
            }
        }
    }

    /// Enters in the ledger what has changed, and then says it. What did not change is not touched.
    async fn change(&mut self, placed: &mut Arc<Orders>, outgoing: &mut Outgoing) {
        let mut trouble = Trouble::with("changed orders can't be entered in the store, so the old ones go on", self.place);
        loop {
            let wanted = Arc::clone(&self.orders.borrow_and_update());
            let changes = plan::diff(placed, &wanted);
            let entered =
                if changes.is_empty() { Ok(Vec::new()) } else { self.intake.change(self.place.link, &self.monitor, &changes).await };
            match entered {
                Ok(standings) => {
                    outgoing.change(&changes, standings);
                    *placed = wanted;
                    return trouble.over();
                }
                Err(why) => {
                    if !trouble.wait(why).await {
                        return;
                    }
                }
            }
        }
    }

    /// Says what is still to be said, half-closes, and takes what is in flight. What comes after the half-close can't be acknowledged on
    /// this stream: the monitor sends it again, or Hello acknowledges it, the next time.
    async fn finish(&self, outbox: mpsc::Sender<ExecuteRequest>, mut inbox: Streaming<ProbeResult>, mut outgoing: Outgoing) {
        if let Some(Ok(Some(first))) = ready(inbox.message()).await {
            let (batch, end) = self.gather(first, &mut inbox).await;
            self.take(batch, &mut outgoing).await;
            if end.is_some() {
                return;
            }
        }
        while let Some(request) = outgoing.next() {
            if outbox.send(request).await.is_err() {
                break;
            }
        }
        drop(outbox);
        while let Ok(Some(first)) = inbox.message().await {
            let (batch, end) = self.gather(first, &mut inbox).await;
            self.take(batch, &mut outgoing).await;
            if end.is_some() {
                return;
            }
        }
    }

    /// The first result and all that are already here, up to a bound.
    async fn gather(&self, first: ProbeResult, inbox: &mut Streaming<ProbeResult>) -> (Vec<ProbeResult>, Option<Ending>) {
        let mut bytes = first.encoded_len();
        let mut batch = vec![first];
        while batch.len() < BATCH && bytes < BATCH_BYTES {
            match ready(inbox.message()).await {
                Some(Ok(Some(result))) => {
                    bytes += result.encoded_len();
                    batch.push(result);
                }
                Some(Ok(None)) => return (batch, Some(Ending::Closed)),
                Some(Err(status)) => return (batch, Some(Ending::Failed(status))),
                None => break,
            }
        }
        (batch, None)
    }

    /// Stores results, as often as it takes, and only then lets them be acknowledged. Meanwhile nothing is read, which holds the monitor
    /// back; it keeps what it can't send.
    async fn take(&self, batch: Vec<ProbeResult>, outgoing: &mut Outgoing) {
        let mut trouble = Trouble::with("results can't be stored, so they are not acknowledged", self.place);
        while let Err(why) = self.intake.take(self.place.link, &batch).await {
            if !trouble.wait(why).await {
                // Not stored, not acknowledged: the monitor still has them.
                return;
            }
        }
        trouble.over();
        batch.iter().for_each(|result| outgoing.acknowledge(&result.session, result.sequence));
    }
}

/// What a future has by now.
async fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = future::ready(()) => None,
    }
}
