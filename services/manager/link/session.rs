//! One stream to a monitor, from Hello to its end.

use std::{
    collections::{BTreeMap, VecDeque},
    future,
    sync::Arc,
};

use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming};
use vantage_contract::v1::{
    Ack, Commit, ExecuteRequest, Hello, ProbeResult, Stop, execute_request::Order, monitor_service_client::MonitorServiceClient,
};
use vantage_daemon::backoff::Backoff;

use super::{Intake, Settings, endpoint::Dial};
use crate::plan::{self, Orders};

/// The most results that are stored and acknowledged together, and (roughly) the most bytes.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Requests that wait for the transport. What waits beyond that waits in [`Outgoing`], which is bounded by the number of orders.
const OUTBOX: usize = 64;

/// An open stream: the monitor has answered.
pub(crate) struct Stream {
    /// The way to the monitor; dropping it half-closes.
    pub(crate) outbox: mpsc::Sender<ExecuteRequest>,
    /// The way back.
    pub(crate) inbox: Streaming<ProbeResult>,
    /// What the monitor calls itself.
    pub(crate) monitor: String,
    /// The session that serves us.
    pub(crate) session: String,
}

/// Connects and says Hello. Ends within the settings' timeouts.
pub(crate) async fn open(dial: Dial, hello: Hello, settings: &Settings) -> Result<Stream, Status> {
    let mut client = MonitorServiceClient::new(dial.endpoint.connect_lazy());
    let (outbox, requests) = mpsc::channel(OUTBOX);
    // The channel is empty and its other end is in our hands: this can't fail.
    let _ = outbox.try_send(ask(Order::Hello(hello)));
    let mut request = Request::new(ReceiverStream::new(requests));
    if let Some(token) = dial.token {
        request.metadata_mut().insert("authorization", token);
    }
    let limit = settings.connect_timeout + settings.answer_timeout;
    let response = tokio::time::timeout(limit, client.execute(request))
        .await
        .map_err(|_| Status::deadline_exceeded(format!("no answer to Hello within {limit:?}")))??;
    let header = |name| response.metadata().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let (monitor, session) = (header("vantage-monitor"), header("vantage-session"));
    Ok(Stream { outbox, inbox: response.into_inner(), monitor, session })
}

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

/// What is still to be said. Acknowledgements are cumulative, so only the newest of each session counts.
#[derive(Default)]
struct Outgoing {
    acks: BTreeMap<String, u64>,
    orders: VecDeque<ExecuteRequest>,
}

impl Outgoing {
    fn is_empty(&self) -> bool {
        self.acks.is_empty() && self.orders.is_empty()
    }

    fn next(&mut self) -> Option<ExecuteRequest> {
        match self.acks.pop_first() {
            Some((session, sequence)) => Some(ask(Order::Ack(Ack { session, sequence }))),
            None => self.orders.pop_front(),
        }
    }

    fn change(&mut self, from: &Orders, to: &Orders) {
        let changes = plan::diff(from, to);
        self.orders.extend(changes.stops.into_iter().map(|check_name| ask(Order::Stop(Stop { check_name }))));
        self.orders.extend(changes.starts.into_iter().map(|start| ask(Order::Start(start))));
    }
}

/// A stream at work.
pub(crate) struct Session<'l, I> {
    pub(crate) link: &'l str,
    pub(crate) intake: &'l Arc<I>,
    pub(crate) settings: &'l Settings,
    pub(crate) drain: &'l CancellationToken,
    pub(crate) orders: &'l mut watch::Receiver<Arc<Orders>>,
}

impl<I: Intake> Session<'_, I> {
    /// Restates the orders, closes the restatement, and takes results until the stream or the link ends.
    pub(crate) async fn serve(mut self, stream: Stream) -> Ending {
        let Stream { outbox, mut inbox, .. } = stream;
        let mut outgoing = Outgoing::default();
        let mut placed = self.wanted(&Orders::new());
        outgoing.change(&Orders::new(), &placed);
        outgoing.orders.push_back(ask(Order::Commit(Commit {})));
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
                changed = self.orders.changed() => match changed {
                    Ok(()) => {
                        let wanted = self.wanted(&placed);
                        outgoing.change(&placed, &wanted);
                        placed = wanted;
                    }
                    // Whoever could change the orders is gone: so should we be.
                    Err(_) => break,
                },
                () = self.drain.cancelled() => break,
            }
        }
        // A link that is taken out of the file has just been given an empty list of orders.
        let wanted = self.wanted(&placed);
        outgoing.change(&placed, &wanted);
        let limit = self.settings.drain_timeout;
        match tokio::time::timeout(limit, self.finish(outbox, inbox, outgoing)).await {
            Ok(()) => {}
            Err(_) => {
                tracing::info!(link = self.link, "the monitor did not end the stream within {limit:?}: left it; it keeps what it has")
            }
        }
        Ending::Drained
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

    /// The orders that the monitor should have. One whose runs are all accounted for is not placed again, but also not taken from a
    /// monitor that still has it.
    fn wanted(&mut self, placed: &Orders) -> Orders {
        let orders = Arc::clone(&self.orders.borrow_and_update());
        orders
            .iter()
            .filter(|(name, start)| placed.get(*name).is_some_and(|placed| placed == *start) || !self.intake.counted_out(self.link, start))
            .map(|(name, start)| (name.clone(), start.clone()))
            .collect()
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
        let mut acks = BTreeMap::new();
        for result in &batch {
            let newest = acks.entry(result.session.clone()).or_insert(0);
            *newest = result.sequence.max(*newest);
        }
        let mut patience = Backoff::new(self.settings.first_delay, self.settings.most_delay);
        let mut told = String::new();
        while let Err(why) = self.intake.take(self.link, batch.clone()).await {
            if why != told {
                tracing::error!(
                    link = self.link,
                    results = batch.len(),
                    error = why,
                    "results can't be stored, so they are not acknowledged"
                );
                told = why;
            }
            tokio::select! {
                () = tokio::time::sleep(patience.next_delay()) => {}
                // Not stored, not acknowledged: the monitor still has them.
                () = self.drain.cancelled() => return,
            }
        }
        if !told.is_empty() {
            tracing::info!(link = self.link, "results are stored again");
        }
        outgoing.acks.append(&mut acks);
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

/// A request.
pub(crate) fn ask(order: Order) -> ExecuteRequest {
    ExecuteRequest { order: Some(order) }
}
