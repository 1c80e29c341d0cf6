//! A monitor in this process, and a scripted client: a manager that does exactly what a test tells it.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming, transport::Channel};
use vantage_contract::v1::{
    Ack, Check, Client, Commit, ExecuteRequest, Hello, ListClientsRequest, ListQueuesRequest, Probe, ProbeResult, Queue, Start,
    StoredSession, TcpProbe, admin_service_client::AdminServiceClient, execute_request::Order,
    monitor_service_client::MonitorServiceClient, probe::Kind,
};
use vantage_daemon::{data::Data, exit::Fatal};
use vantage_monitor::Settings;

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A monitor on a port of its own.
pub(crate) struct Monitor {
    pub(crate) address: SocketAddr,
    pub(crate) drain: CancellationToken,
    pub(crate) serving: JoinHandle<Result<(), Fatal>>,
}

/// The settings of a monitor for tests: named, without a health listener.
pub(crate) fn settings() -> Settings {
    Settings { name: "lab".to_owned(), http_listen: None, data: Data::Memory, ..Settings::default() }
}

impl Monitor {
    pub(crate) async fn start() -> Self {
        Self::start_with(settings()).await
    }

    pub(crate) async fn start_with(settings: Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, drain) = (listener.local_addr().unwrap(), CancellationToken::new());
        let serving = tokio::spawn(vantage_monitor::serve(settings, listener, drain.clone()));
        Self { address, drain, serving }
    }

    /// One that is served elsewhere.
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self { address, drain: CancellationToken::new(), serving: tokio::spawn(async { Ok(()) }) }
    }

    pub(crate) async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    /// What ListClients says, by id.
    pub(crate) async fn clients(&self) -> BTreeMap<String, Client> {
        let mut admin = AdminServiceClient::new(self.channel().await);
        let clients = admin.list_clients(ListClientsRequest::default()).await.unwrap().into_inner().clients;
        clients.into_iter().map(|client| (client.client_id.clone(), client)).collect()
    }

    /// What ListQueues says, by id.
    pub(crate) async fn queues(&self) -> BTreeMap<String, Queue> {
        let mut admin = AdminServiceClient::new(self.channel().await);
        let queues = admin.list_queues(ListQueuesRequest::default()).await.unwrap().into_inner().queues;
        queues.into_iter().map(|queue| (queue.client_id.clone(), queue)).collect()
    }

    /// Opens a stream as this client, with what it has stored.
    pub(crate) async fn connect(&self, client_id: &str, stored: &[(String, u64)]) -> Link {
        self.try_connect(hello(client_id, stored)).await.unwrap()
    }

    /// Opens a stream with this first request.
    pub(crate) async fn try_connect(&self, first: Order) -> Result<Link, Status> {
        let (requests, receiver) = mpsc::channel(64);
        requests.send(ExecuteRequest { order: Some(first) }).await.unwrap();
        let response = MonitorServiceClient::new(self.channel().await).execute(ReceiverStream::new(receiver)).await?;
        let header = |name: &str| response.metadata().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let (monitor, session) = (header("vantage-monitor"), header("vantage-session"));
        Ok(Link { monitor, session, requests: Some(requests), results: response.into_inner() })
    }
}

pub(crate) fn hello(client_id: &str, stored: &[(String, u64)]) -> Order {
    Order::Hello(Hello {
        client_id: client_id.to_owned(),
        client_name: "the lab".to_owned(),
        client_version: "1".to_owned(),
        stored_sessions: stored.iter().map(|(session, sequence)| StoredSession { session: session.clone(), sequence: *sequence }).collect(),
    })
}

/// An open stream.
pub(crate) struct Link {
    pub(crate) monitor: String,
    pub(crate) session: String,
    requests: Option<mpsc::Sender<ExecuteRequest>>,
    results: Streaming<ProbeResult>,
}

impl Link {
    pub(crate) async fn order(&self, order: Order) {
        self.send(ExecuteRequest { order: Some(order) }).await;
    }

    pub(crate) async fn send(&self, request: ExecuteRequest) {
        self.requests.as_ref().expect("not half-closed").send(request).await.unwrap();
    }

    /// Sends, or says that the stream is gone.
    pub(crate) async fn try_send(&self, request: ExecuteRequest) -> bool {
        self.requests.as_ref().expect("not half-closed").send(request).await.is_ok()
    }

    pub(crate) async fn start(&self, check: Check) {
        self.order(Order::Start(Start { check: Some(check), revision: "1".to_owned(), ..Start::default() })).await;
    }

    pub(crate) async fn commit(&self) {
        self.order(Order::Commit(Commit {})).await;
    }

    pub(crate) async fn ack(&self, sequence: u64) {
        self.order(Order::Ack(Ack { session: self.session.clone(), sequence })).await;
    }

    /// Says that nothing more will be asked.
    pub(crate) fn half_close(&mut self) {
        self.requests = None;
    }

    /// The next result, the end (None), or how the stream ended.
    pub(crate) async fn next(&mut self) -> Result<Option<ProbeResult>, Status> {
        tokio::time::timeout(PATIENCE, self.results.message()).await.expect("something within the patience of a test")
    }

    /// The next result.
    pub(crate) async fn result(&mut self) -> ProbeResult {
        self.next().await.unwrap().expect("a result, not the end")
    }

    /// The next so many results.
    pub(crate) async fn results(&mut self, count: usize) -> Vec<ProbeResult> {
        let mut results = Vec::with_capacity(count);
        while results.len() < count {
            results.push(self.result().await);
        }
        results
    }
}

/// The runs that these results account for, in order, from 0. None is there twice, and at most one is missing below the last: the one that
/// was still going on.
pub(crate) fn accounted(results: &[ProbeResult]) -> Vec<u64> {
    let mut runs: Vec<_> = results.iter().flat_map(|result| result.run..result.run + result.run_count).collect();
    runs.sort_unstable();
    assert!(runs.windows(2).all(|pair| pair[0] < pair[1]), "each run once: {runs:?}");
    assert!(runs.last().is_none_or(|last| *last <= runs.len() as u64), "no run without a record: {runs:?}");
    runs
}

/// A check of a TCP port on loopback.
pub(crate) fn tcp_check(name: &str, port: u16, interval: Duration, count: u64) -> Check {
    let tcp = TcpProbe { host: "127.0.0.1".to_owned(), port: port.into(), ..TcpProbe::default() };
    Check {
        name: name.to_owned(),
        interval: Some(prost_types::Duration::try_from(interval).unwrap()),
        count,
        probe: Some(Probe { kind: Some(Kind::Tcp(tcp)), ..Probe::default() }),
        ..Check::default()
    }
}

/// A check of a port where a connection is accepted and never answered, with steps that wait for an answer: it stalls for `timeout`.
pub(crate) fn stalling_check(name: &str, port: u16, interval: Duration, timeout: Duration) -> Check {
    use vantage_contract::v1::{TcpStep, tcp_step::Step};
    let mut check = tcp_check(name, port, interval, 0);
    let probe = check.probe.as_mut().unwrap();
    probe.timeout = Some(prost_types::Duration::try_from(timeout).unwrap());
    let Some(Kind::Tcp(tcp)) = probe.kind.as_mut() else { unreachable!() };
    tcp.steps = vec![TcpStep { step: Some(Step::Expect("never".to_owned())) }];
    check
}

/// Where connections are accepted, kept until the peer closes them, and never answered.
pub(crate) struct SilentPort(JoinHandle<()>);

impl Drop for SilentPort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A silent port on loopback. It is closed when the first part is dropped.
pub(crate) async fn silent_port() -> (SilentPort, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepting = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await });
        }
    });
    (SilentPort(accepting), port)
}

/// Waits until a condition holds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = tokio::time::timeout(PATIENCE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    deadline.await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"));
}
