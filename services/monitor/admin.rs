//! `AdminService`: what an operator asks. It changes nothing.

use std::{pin::Pin, sync::Arc, time::SystemTime};

use prost_types::Timestamp;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use vantage_contract::v1::{
    Capability, GetMonitorRequest, GetMonitorResponse, JournalStatus, ListClientsRequest, ListClientsResponse, ListQueuesRequest,
    ListQueuesResponse, WatchResultsRequest, WatchResultsResponse, admin_service_server::AdminService,
};

use crate::{
    doctor,
    journal::Condition,
    registry::Registry,
    session::{self, Shared, Watched},
};

const DEFAULT_PAGE: i32 = 100;
const MAX_PAGE: i32 = 1000;
/// What our page tokens begin with; the rest is the last id of the page before.
const TOKEN_PREFIX: &str = "after:";

/// Answers an operator.
pub(crate) struct Admin {
    pub registry: Registry,
    pub started: SystemTime,
    pub capabilities: Vec<Capability>,
}

#[tonic::async_trait]
impl AdminService for Admin {
    type WatchResultsStream = Pin<Box<dyn Stream<Item = Result<WatchResultsResponse, Status>> + Send>>;

    async fn list_clients(&self, request: Request<ListClientsRequest>) -> Result<Response<ListClientsResponse>, Status> {
        let ListClientsRequest { page_size, page_token } = request.into_inner();
        let clients = self.registry.views().await.into_iter().map(|view| view.client).collect();
        let (clients, next_page_token) = page(clients, |client| &client.client_id, page_size, &page_token)?;
        Ok(Response::new(ListClientsResponse { clients, next_page_token }))
    }

    async fn list_queues(&self, request: Request<ListQueuesRequest>) -> Result<Response<ListQueuesResponse>, Status> {
        let ListQueuesRequest { page_size, page_token } = request.into_inner();
        let queues = self.registry.views().await.into_iter().map(|view| view.queue).collect();
        let (queues, next_page_token) = page(queues, |queue| &queue.client_id, page_size, &page_token)?;
        Ok(Response::new(ListQueuesResponse { queues, next_page_token }))
    }

    async fn get_monitor(&self, _: Request<GetMonitorRequest>) -> Result<Response<GetMonitorResponse>, Status> {
        let shared = &self.registry.shared;
        let views = self.registry.views().await;
        Ok(Response::new(GetMonitorResponse {
            name: shared.settings.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            start_time: Some(Timestamp::from(self.started)),
            capabilities: doctor::under(&shared.policy, &self.capabilities),
            client_count: u32::try_from(views.len()).unwrap_or(u32::MAX),
            order_count: views.iter().map(|view| view.client.order_count).sum(),
            in_flight_count: u32::try_from(shared.admission.in_flight()).unwrap_or(u32::MAX),
            in_flight_limit: u32::try_from(shared.admission.limit()).unwrap_or(u32::MAX),
            draining: shared.drain.is_cancelled(),
            waiting_count: u32::try_from(shared.admission.waiting()).unwrap_or(u32::MAX),
            waiting_limit: u32::try_from(shared.settings.limits.max_waiting).unwrap_or(u32::MAX),
            journal: Some(journal_status(shared)),
            kinds: shared.admission.load().to_proto(),
            policy: Some(shared.policy.to_proto()),
        }))
    }

    async fn watch_results(&self, request: Request<WatchResultsRequest>) -> Result<Response<Self::WatchResultsStream>, Status> {
        let shared = &self.registry.shared;
        let watcher =
            Watcher { wanted: request.into_inner(), results: shared.watchers.subscribe(), drain: shared.drain.clone(), missed: 0 };
        Ok(Response::new(Box::pin(watcher.into_stream())))
    }
}

fn journal_status(shared: &Shared) -> JournalStatus {
    let Condition { folder, file_bytes, error, set_aside, .. } = shared.keeper.condition();
    JournalStatus { folder, sync: shared.settings.journal.sync.name().to_owned(), file_bytes, error, set_aside }
}

struct Watcher {
    wanted: WatchResultsRequest,
    results: Receiver<Arc<Watched>>,
    drain: CancellationToken,
    missed: u64,
}

impl Watcher {
    fn into_stream(self) -> impl Stream<Item = Result<WatchResultsResponse, Status>> + Send {
        futures_util::stream::unfold(self, async |mut watcher| {
            let response = watcher.next().await?;
            Some((Ok(response), watcher))
        })
    }

    /// The next result that is wanted. None: the monitor stops.
    async fn next(&mut self) -> Option<WatchResultsResponse> {
        loop {
            let received = tokio::select! {
                received = self.results.recv() => received,
                () = self.drain.cancelled() => return None,
            };
            match received {
                Ok(watched) => {
                    let is_wanted = |wanted: &str, is: &str| wanted.is_empty() || wanted == is;
                    if is_wanted(&self.wanted.client_id, &watched.client_id)
                        && is_wanted(&self.wanted.check_name, &watched.result.check_name)
                    {
                        let missed_count = std::mem::take(&mut self.missed);
                        return Some(WatchResultsResponse { result: Some(watched.result.clone()), missed_count });
                    }
                }
                Err(RecvError::Lagged(missed)) => self.missed += missed,
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

/// One page of `items`, which are sorted by `id`, and the token of the next.
fn page<T>(items: Vec<T>, id: impl Fn(&T) -> &str, size: i32, token: &str) -> Result<(Vec<T>, String), Status> {
    let size = match size {
        0 => DEFAULT_PAGE,
        1.. => size.min(MAX_PAGE),
        _ => return Err(session::invalid("page_size", "must not be negative")),
    };
    let after = match (token, token.strip_prefix(TOKEN_PREFIX)) {
        ("", _) => None,
        (_, Some(after)) if !after.is_empty() => Some(after),
        _ => return Err(session::invalid("page_token", "is not one that this monitor made")),
    };
    let size = usize::try_from(size).unwrap_or_default();
    let mut rest = items.into_iter().filter(|item| after.is_none_or(|after| id(item) > after));
    let page: Vec<T> = rest.by_ref().take(size).collect();
    let next = match (rest.next(), page.last()) {
        (Some(_), Some(last)) => format!("{TOKEN_PREFIX}{}", id(last)),
        _ => String::new(),
    };
    Ok((page, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(size: i32) -> Vec<Vec<&'static str>> {
        let (mut pages, mut token) = (Vec::new(), String::new());
        loop {
            let (items, next) = page(vec!["a", "b", "c", "d", "e"], |item| item, size, &token).unwrap();
            pages.push(items);
            if next.is_empty() {
                return pages;
            }
            token = next;
        }
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_repeat() {
        assert_eq!(pages(2), [vec!["a", "b"], vec!["c", "d"], vec!["e"]]);
        assert_eq!(pages(5), [vec!["a", "b", "c", "d", "e"]]);
        assert_eq!(pages(0).len(), 1);
        assert_eq!(pages(i32::MAX).len(), 1);
    }

    #[test]
    fn a_negative_size_and_a_foreign_token_are_invalid() {
        assert_eq!(page(vec!["a"], |item| item, -1, "").unwrap_err().code(), tonic::Code::InvalidArgument);
        assert_eq!(page(vec!["a"], |item| item, 1, "nonsense").unwrap_err().code(), tonic::Code::InvalidArgument);
        assert_eq!(page(vec!["a"], |item| item, 1, "after:").unwrap_err().code(), tonic::Code::InvalidArgument);
    }
}
