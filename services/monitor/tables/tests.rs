use std::pin::Pin;

use prost_types::{Duration, Timestamp};
use tokio::net::TcpListener;
use tokio_stream::{Stream, wrappers::TcpListenerStream};
use tonic::{Request, Response, transport::Server};
use vantage_contract::v1::{
    GetMonitorRequest, GetMonitorResponse, Reason, SkippedCount, WatchResultsRequest, WatchResultsResponse,
    admin_service_server::{AdminService, AdminServiceServer},
};

use super::*;
use crate::client::Trust;

#[test]
fn clients_are_shown_in_columns() {
    let desk = Client {
        client_id: "desk".into(),
        name: "The desk\u{1b}[2J".into(),
        address: "127.0.0.1:40000".into(),
        version: "0.1.0".into(),
        state: ClientState::Connected.into(),
        state_time: Some(Timestamp { seconds: 1_795_335_545, nanos: 0 }),
        order_count: 12,
        started_run_count: 3456,
        sent_result_count: 3450,
        acknowledged_sequence: 3449,
        sent_bytes: 1_500_000,
        received_bytes: 900,
        ..Client::default()
    };
    let lab = Client { client_id: "lab".into(), state: ClientState::Away.into(), ..Client::default() };
    let expected = "\
CLIENT  NAME          ADDRESS          VERSION  STATE      SINCE                ORDERS  STARTED  SENT  ACKED      OUT     IN
desk    The desk\u{fffd}[2J  127.0.0.1:40000  0.1.0    connected  2026-11-22 08:19:05      12     3456  3450   3449  1.4 MiB  900 B
lab                                             away                                 0        0     0      0      0 B    0 B
";
    assert_eq!(clients_table(&[desk, lab], &TimeZone::UTC), expected);
    assert_eq!(clients_table(&[], &TimeZone::UTC), "no clients\n");
}

#[test]
fn queues_are_shown_in_columns() {
    let queue = Queue {
        client_id: "desk".into(),
        due_count: 1,
        in_flight_count: 20,
        unacknowledged_count: 300,
        oldest_age: Some(Duration { seconds: 75, nanos: 0 }),
        journal_bytes: 2048,
        journal_limit_bytes: 64 << 20,
        skipped: vec![
            SkippedCount { reason: Reason::Overloaded.into(), count: 7 },
            SkippedCount { reason: Reason::StillRunning.into(), count: 1 },
        ],
        session_count: 2,
        unwritten_bytes: 512,
        unwritten_limit_bytes: 4 << 20,
    };
    let expected = "\
CLIENT  DUE  IN FLIGHT  UNACKED      OLDEST  SESSIONS  UNWRITTEN  JOURNAL     LIMIT  SKIPPED
desk      1         20      300  1 min 15 s         2      512 B  2.0 KiB  64.0 MiB  7 overloaded, 1 still running
";
    assert_eq!(queues_table(&[queue]), expected);
}

/// A monitor that has three clients and two queues, and pages of one.
struct Paged;

fn page<T>(all: Vec<T>, token: &str) -> (Vec<T>, String) {
    let at: usize = token.parse().unwrap_or(0);
    let next = if at + 1 < all.len() { (at + 1).to_string() } else { String::new() };
    (all.into_iter().skip(at).take(1).collect(), next)
}

#[tonic::async_trait]
impl AdminService for Paged {
    async fn list_clients(&self, request: Request<ListClientsRequest>) -> Result<Response<ListClientsResponse>, Status> {
        let all = ["a", "b", "c"].map(|id| Client { client_id: id.into(), ..Client::default() }).into();
        let (clients, next_page_token) = page(all, &request.get_ref().page_token);
        Ok(Response::new(ListClientsResponse { clients, next_page_token }))
    }

    async fn list_queues(&self, request: Request<ListQueuesRequest>) -> Result<Response<ListQueuesResponse>, Status> {
        let all = ["a", "b"].map(|id| Queue { client_id: id.into(), ..Queue::default() }).into();
        let (queues, next_page_token) = page(all, &request.get_ref().page_token);
        Ok(Response::new(ListQueuesResponse { queues, next_page_token }))
    }

    async fn get_monitor(&self, _: Request<GetMonitorRequest>) -> Result<Response<GetMonitorResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    type WatchResultsStream = Pin<Box<dyn Stream<Item = Result<WatchResultsResponse, Status>> + Send>>;

    async fn watch_results(&self, _: Request<WatchResultsRequest>) -> Result<Response<Self::WatchResultsStream>, Status> {
        Err(Status::unimplemented("not asked here"))
    }
}

#[tokio::test]
async fn all_pages_are_fetched_and_become_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving =
        tokio::spawn(Server::builder().add_service(AdminServiceServer::new(Paged)).serve_with_incoming(TcpListenerStream::new(listener)));
    let link = Link::connect(&address, &Trust::default()).await.unwrap();
    let clients = clients(&link).await.unwrap();
    assert_eq!(clients.clients.iter().map(|client| client.client_id.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(clients.next_page_token, "");
    assert_eq!(queues(&link).await.unwrap().queues.len(), 2);
    serving.abort();
}
