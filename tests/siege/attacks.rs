//! What a hostile client does, each in a task of its own, again and again.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Handle,
    task::JoinSet,
    time::timeout,
};
use vantage_contract::v1::{
    Ack, Check, ExecuteRequest, ListQueuesRequest, RunOnce, Start, Stop, WatchResultsRequest, admin_service_client::AdminServiceClient,
    execute_request::Order,
};

use crate::lab::monitor::{Monitor, hello, stalling_check, tcp_check};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long each waits for an answer that may never come.
const PATIENCE: Duration = Duration::from_secs(2);

/// What an attack works on.
#[derive(Clone)]
struct Siege {
    at: SocketAddr,
    port: u16,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
}

pub(super) fn begin(at: SocketAddr, port: u16, stop: &Arc<AtomicBool>, done: &Arc<AtomicU64>, attackers: &mut JoinSet<()>, camp: &Handle) {
    let siege = Siege { at, port, stop: stop.clone(), done: done.clone() };
    attackers.spawn_on(siege.clone().garbage(), camp);
    attackers.spawn_on(siege.clone().frames(6, 8), camp);
    attackers.spawn_on(siege.clone().frames(4, 0), camp);
    attackers.spawn_on(siege.clone().resets(), camp);
    attackers.spawn_on(siege.clone().half_open(), camp);
    attackers.spawn_on(siege.clone().silent_streams(), camp);
    attackers.spawn_on(siege.clone().huge(), camp);
    attackers.spawn_on(siege.clone().churn(), camp);
    attackers.spawn_on(siege.clone().once(), camp);
    attackers.spawn_on(siege.clone().nonsense(), camp);
    attackers.spawn_on(siege.clone().strangers(), camp);
    attackers.spawn_on(siege.clone().deaf(), camp);
    attackers.spawn_on(siege.operators(), camp);
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn start(check: Check) -> Order {
    Order::Start(Start { check: Some(check), revision: "1".to_owned(), ..Start::default() })
}

impl Siege {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn blow(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    fn monitor(&self) -> Monitor {
        Monitor::at(self.at)
    }

    /// A stream of requests as fast as they are taken; answers are not read. The stream may end, and is opened again.
    async fn storm(self, client: &str, mut request: impl FnMut(u64) -> Order) {
        let mut number = 0;
        while self.goes_on() {
            let Ok(Ok(link)) = timeout(PATIENCE, self.monitor().try_connect(hello(client, &[]))).await else { continue };
            while self.goes_on() {
                number += 1;
                let sent = link.try_send(ExecuteRequest { order: Some(request(number)) });
                if !matches!(timeout(PATIENCE, sent).await, Ok(true)) {
                    break;
                }
                self.blow();
            }
        }
    }

    /// Bytes that mean nothing.
    async fn garbage(self) {
        let settings = frame(4, 0, 0, &[]);
        let all = [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            vec![0; 100_000],
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
            [PREFACE, &settings, &frame(1, 4, 1, &[0xff; 5000])].concat(),
            [PREFACE, &settings, &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat(),
            // Headers without an end.
            [PREFACE, &settings, &frame(1, 0, 1, &[0x82]), &frame(9, 0, 1, &[0x40; 4000]).repeat(50)].concat(),
        ];
        for bytes in all.iter().cycle() {
            if !self.goes_on() {
                return;
            }
            let Ok(Ok(mut stream)) = timeout(PATIENCE, TcpStream::connect(self.at)).await else { continue };
            let _ = timeout(PATIENCE, stream.write_all(bytes)).await;
            let mut answer = Vec::new();
            let _ = timeout(Duration::from_millis(50), stream.read_to_end(&mut answer)).await;
            self.blow();
        }
    }

    /// A flood of one frame: PING (6), SETTINGS (4). Its answers are not read.
    async fn frames(self, kind: u8, length: usize) {
        let flood = frame(kind, 0, 0, &vec![0; length]).repeat(1000);
        while self.goes_on() {
            let Ok(Ok(mut stream)) = timeout(PATIENCE, TcpStream::connect(self.at)).await else { continue };
            if stream.write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat()).await.is_err() {
                continue;
            }
            while self.goes_on() && matches!(timeout(PATIENCE, stream.write_all(&flood)).await, Ok(Ok(()))) {
                self.blow();
            }
        }
    }

    /// Streams that are opened and reset at once (CVE-2023-44487).
    async fn resets(self) {
        // :method POST, :scheme http, :path /, from the static table (RFC 7541).
        let opened = |stream| [frame(1, 4, stream, &[0x83, 0x86, 0x84]), frame(3, 0, stream, &[0, 0, 0, 8])].concat();
        while self.goes_on() {
            let Ok(Ok(mut stream)) = timeout(PATIENCE, TcpStream::connect(self.at)).await else { continue };
            let _ = stream.write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat()).await;
            for batch in 0..100_u32 {
                let bytes: Vec<u8> = (0..50).flat_map(|number| opened(2 * (batch * 50 + number) + 1)).collect();
                if !matches!(timeout(PATIENCE, stream.write_all(&bytes)).await, Ok(Ok(()))) {
                    break;
                }
                self.blow();
            }
        }
    }

    /// Connections on which nothing is said, or only the beginning, drop by drop.
    async fn half_open(self) {
        let mut held = Vec::new();
        while self.goes_on() {
            if let Ok(Ok(mut stream)) = timeout(PATIENCE, TcpStream::connect(self.at)).await {
                let _ = stream.write_all(&PREFACE[..held.len() % PREFACE.len()]).await;
                held.push(stream);
                self.blow();
            }
            if held.len() > 300 {
                held.drain(..100);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Streams that never say whose they are, or begin a long Hello and leave it at that.
    async fn silent_streams(self) {
        while self.goes_on() {
            let monitor = self.monitor();
            let Ok(channel) = timeout(PATIENCE, monitor.channel()).await else { continue };
            let mut streams = JoinSet::new();
            for _ in 0..100 {
                let mut client = vantage_contract::v1::monitor_service_client::MonitorServiceClient::new(channel.clone());
                streams.spawn(async move {
                    let _ = timeout(PATIENCE, client.execute(tokio_stream::pending())).await;
                });
            }
            while streams.join_next().await.is_some() {
                self.blow();
            }
        }
    }

    /// Requests that are too long, and some that only just are not.
    async fn huge(self) {
        self.storm("huge", |number| {
            let length = if number % 4 == 0 { 5 << 20 } else { 3 << 20 };
            let mut check = tcp_check(&format!("huge-{}", number % 1000), 9, Duration::from_secs(60), 0);
            check.labels = [("x".to_owned(), "y".repeat(length))].into();
            start(check)
        })
        .await;
    }

    /// Orders that come and go.
    async fn churn(self) {
        let port = self.port;
        self.storm("churn", |number| match number % 3 {
            0 => Order::Stop(Stop { check_name: format!("churn-{}", number % 50) }),
            _ => start(tcp_check(&format!("churn-{}", number % 50), port, Duration::from_millis(100 + number % 1000), 0)),
        })
        .await;
    }

    /// Runs for once, in masses, which stall.
    async fn once(self) {
        let port = self.port;
        self.storm("once", |number| {
            let check = stalling_check(&format!("once-{number}"), port, Duration::from_secs(1), Duration::from_millis(300));
            Order::RunOnce(RunOnce { check: Some(check), ..RunOnce::default() })
        })
        .await;
    }

    /// Acknowledgements of what never was.
    async fn nonsense(self) {
        self.storm("nonsense", |number| Order::Ack(Ack { session: format!("{:x}", number % 7), sequence: u64::MAX - number })).await;
    }

    /// Clients that nobody has heard of, each with an order.
    async fn strangers(self) {
        let mut number = 0_u64;
        while self.goes_on() {
            number += 1;
            let client = format!("stranger-{number}");
            if let Ok(Ok(link)) = timeout(PATIENCE, self.monitor().try_connect(hello(&client, &[]))).await {
                link.start(tcp_check("web", self.port, Duration::from_millis(200), 0)).await;
            }
            self.blow();
        }
    }

    /// Many orders whose results are never read.
    async fn deaf(self) {
        while self.goes_on() {
            let Ok(Ok(link)) = timeout(PATIENCE, self.monitor().try_connect(hello("deaf", &[]))).await else { continue };
            for number in 0..200 {
                link.start(tcp_check(&format!("web-{number}"), self.port, Duration::from_millis(500), 0)).await;
                self.blow();
            }
            while self.goes_on() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// Questions to AdminService, and watchers that do not watch.
    async fn operators(self) {
        let mut admin = AdminServiceClient::new(self.monitor().channel().await);
        let mut watchers = Vec::new();
        while self.goes_on() {
            let _ = timeout(PATIENCE, admin.list_queues(ListQueuesRequest::default())).await;
            if let Ok(Ok(watcher)) = timeout(PATIENCE, admin.watch_results(WatchResultsRequest::default())).await {
                watchers.push(watcher);
            }
            if watchers.len() > 50 {
                watchers.clear();
            }
            self.blow();
        }
    }
}
