//! A monitor by hand, for tests: each call of `Execute` is given to the test, which reads the requests and sends what it likes.

use std::{net::SocketAddr, time::Duration};

use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};
use vantage_contract::v1::{
    Commit, ExecuteRequest, Hello, ProbeResult,
    execute_request::Order,
    monitor_service_server::{MonitorService, MonitorServiceServer},
};

/// Long enough for anything on a busy machine; waiting ends earlier.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is waited for, if it comes.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

/// One call of `Execute`, in the test's hands.
pub(crate) struct Call {
    pub(crate) requests: Streaming<ExecuteRequest>,
    pub(crate) replies: mpsc::Sender<Result<ProbeResult, Status>>,
}

impl Call {
    pub(crate) async fn next(&mut self) -> Option<Order> {
        soon("a request", self.requests.message()).await.unwrap_or_else(|status| panic!("{status:?}")).and_then(|request| request.order)
    }

    /// The restatement: Hello, the names and revisions of the orders, and Commit as its end.
    pub(crate) async fn restatement(&mut self) -> (Hello, Vec<(String, String)>) {
        let Some(Order::Hello(hello)) = self.next().await else { panic!("the first request is Hello") };
        let mut orders = Vec::new();
        loop {
            match self.next().await {
                Some(Order::Start(start)) => orders.push((start.check.unwrap().name, start.revision)),
                Some(Order::Commit(Commit {})) => return (hello, orders),
                // Of what was stored before the link came.
                Some(Order::Ack(_)) => {}
                other => panic!("{other:?} in a restatement"),
            }
        }
    }

    pub(crate) async fn send(&self, result: ProbeResult) {
        self.replies.send(Ok(result)).await.unwrap();
    }

    pub(crate) async fn fail(self, status: Status) {
        self.replies.send(Err(status)).await.unwrap();
    }

    /// Reads acknowledgements up to this one.
    pub(crate) async fn acknowledged(&mut self, sequence: u64) {
        let mut last = 0;
        while last < sequence {
            match self.next().await {
                Some(Order::Ack(ack)) => {
                    assert!(ack.sequence > last, "acknowledgements don't go back");
                    assert_eq!(ack.session, "s1");
                    last = ack.sequence;
                }
                other => panic!("{other:?} in place of an acknowledgement"),
            }
        }
        assert_eq!(last, sequence);
    }
}

struct Script {
    calls: mpsc::Sender<Call>,
    /// The header `vantage-closed-sessions`.
    closed: &'static str,
}

#[tonic::async_trait]
impl MonitorService for Script {
    type ExecuteStream = ReceiverStream<Result<ProbeResult, Status>>;

    async fn execute(&self, request: Request<Streaming<ExecuteRequest>>) -> Result<Response<Self::ExecuteStream>, Status> {
        let (replies, stream) = mpsc::channel(1);
        let call = Call { requests: request.into_inner(), replies };
        self.calls.send(call).await.map_err(|_| Status::unavailable("the test is over"))?;
        let mut response = Response::new(ReceiverStream::new(stream));
        response.metadata_mut().insert("vantage-monitor", "lab".parse().unwrap());
        response.metadata_mut().insert("vantage-session", "s1".parse().unwrap());
        if !self.closed.is_empty() {
            response.metadata_mut().insert("vantage-closed-sessions", self.closed.parse().unwrap());
        }
        Ok(response)
    }
}

/// Serves a scripted monitor; gives its calls.
pub(crate) fn script_on(listener: TcpListener) -> mpsc::Receiver<Call> {
    script_with(listener, "")
}

/// The same, with earlier sessions that are still to be acknowledged.
pub(crate) fn script_with(listener: TcpListener, closed: &'static str) -> mpsc::Receiver<Call> {
    let (to, calls) = mpsc::channel(8);
    let server = Server::builder().add_service(MonitorServiceServer::new(Script { calls: to, closed }));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    calls
}

/// A scripted monitor on a port of its own.
pub(crate) async fn script() -> (SocketAddr, mpsc::Receiver<Call>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener.local_addr().unwrap(), script_on(listener))
}
