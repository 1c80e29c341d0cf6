//! A monitor at work: a process of its own, whose processor time is its own, and the manager that it works for, which is played here.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    time::{ClockId, clock_getcpuclockid},
    unistd::Pid,
};
use prost_types::Timestamp;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use vantage_contract::v1::{
    Ack, Check, Commit, ExecuteRequest, Hello, ProbeResult, Start, Stop, execute_request::Order,
    monitor_service_client::MonitorServiceClient,
};
use vantage_daemon::{
    clock,
    exit::{Exit, Fatal},
};

use super::window::Window;

/// How often the manager acknowledges.
const ACKNOWLEDGE: Duration = Duration::from_millis(20);
/// How long a monitor may take to open its listener.
const PATIENCE: Duration = Duration::from_secs(20);
/// Its settings: places for all that is asked of it.
const SETTINGS: &str =
    r#"{"limits": {"in_flight": 20000, "in_flight_by_kind": {"ping": 20000}, "max_waiting": 50000, "orders_per_client": 100000}}"#;

/// A running `vantage-monitor serve`. It is killed when this is dropped.
#[derive(Debug)]
pub struct Monitor {
    child: Child,
    clock: ClockId,
    address: SocketAddr,
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // One that has ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What goes wrong around a benchmark is the machine's.
fn machine(act: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Fatal {
    move |error| Fatal::new(Exit::OsError, format!("{act}: {error}"))
}

fn errno(act: &str) -> impl FnOnce(nix::Error) -> Fatal + '_ {
    move |error| machine(act)(error.into())
}

/// Opens a file to be read by processes that are started while it is open, too.
fn inherited(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(file)
}

impl Monitor {
    /// Starts `program` in the network of the calling thread, with its journal in a folder or in memory; where an authority is given, it takes
    /// that one for the system's. Errors: it does not come up.
    pub async fn start(program: &Path, journal: Option<&Path>, authority: Option<&Path>) -> Result<Self, Fatal> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.map_err(machine("find a free port"))?;
        let mut command = Command::new(program);
        command.args(["serve", "--name", "bench", "--http-listen", "off", "--log", "error,audit=off", "--listen", &address.to_string()]);
        // Its settings come through a pipe: no file is left behind.
        command.args(["--config", "/proc/self/fd/0", "--data"]).arg(journal.unwrap_or(Path::new("memory")));
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        // It gives up what it would need to look into this process, and so has the file handed to it.
        let authority = authority.map(inherited).transpose().map_err(machine("hand over the authority"))?;
        if let Some(authority) = &authority {
            command.env("SSL_CERT_FILE", format!("/proc/self/fd/{}", authority.as_raw_fd())).env_remove("SSL_CERT_DIR");
        }
        let child = command.spawn().map_err(machine(format!("start {}", program.display())))?;
        let id = Pid::from_raw(child.id().cast_signed());
        // In place before anything may fail, so that the process ends with it.
        let mut monitor = Self { child, clock: ClockId::CLOCK_MONOTONIC, address };
        if let Some(mut settings) = monitor.child.stdin.take() {
            settings.write_all(SETTINGS.as_bytes()).map_err(machine("hand over the settings"))?;
        }
        monitor.clock = clock_getcpuclockid(id).map_err(errno("read the processor time of the monitor"))?;
        let began = clock::monotonic();
        while TcpStream::connect(address).is_err() {
            if began.elapsed() > PATIENCE || monitor.child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return Err(Fatal::new(Exit::Unavailable, "the monitor that is to be measured did not come up".to_owned()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(monitor)
    }

    /// The processor time that its process has used.
    fn busy(&self) -> Result<Duration, Fatal> {
        let at = self.clock.now().map_err(errno("read the processor time of the monitor"))?;
        Ok(Duration::new(at.tv_sec().cast_unsigned(), u32::try_from(at.tv_nsec()).unwrap_or_default()))
    }

    /// A line of its `status` in the kernel's words, in bytes.
    fn memory(&self, line: &str) -> Result<u64, Fatal> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(&path).map_err(machine(format!("read {path}")))?;
        let line = status.lines().find_map(|text| text.strip_prefix(line));
        Ok(line.and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or_default() * 1024)
    }

    /// Places the checks, lets them run for `warm`, and then looks on for `time`. Errors: the stream ends.
    pub async fn measure(&self, checks: &[Check], warm: Duration, time: Duration) -> Result<Window, Fatal> {
        let empty = self.memory("VmRSS")?;
        let mut link = Link::open(self.address).await?;
        link.place(checks, None).await?;
        link.watch(warm, |_| {}).await?;
        let mut window = Window::new(checks.len());
        let (before, began) = (self.busy()?, clock::monotonic());
        link.watch(time, |result| window.add(&result)).await?;
        (window.busy, window.wall) = (self.busy()? - before, began.elapsed());
        (window.empty, window.resident, window.peak) = (empty, self.memory("VmRSS")?, self.memory("VmHWM")?);
        Ok(window)
    }

    /// Places the checks, all due at the same moments from `anchor` on, and returns each of their results of about `time`. Errors: the stream ends.
    pub async fn record(&self, checks: &[Check], anchor: SystemTime, time: Duration) -> Result<Vec<ProbeResult>, Fatal> {
        let mut link = Link::open(self.address).await?;
        let mut results = Vec::new();
        link.place(checks, Some(anchor.into())).await?;
        link.watch(time, |result| results.push(result)).await?;
        for check in checks {
            link.ask(Order::Stop(Stop { check_name: check.name.clone() })).await?;
        }
        // What is in flight still comes.
        link.watch(Duration::from_secs(3), |result| results.push(result)).await?;
        Ok(results)
    }
}

/// The stream of the manager that is played here.
struct Link {
    requests: mpsc::Sender<ExecuteRequest>,
    results: Streaming<ProbeResult>,
    session: String,
    acknowledged: u64,
    last: u64,
}

fn ended(why: impl std::fmt::Display) -> Fatal {
    Fatal::new(Exit::Unavailable, format!("the stream of the monitor that is measured: {why}"))
}

impl Link {
    async fn open(address: SocketAddr) -> Result<Self, Fatal> {
        let (requests, receiver) = mpsc::channel(1024);
        let hello = Hello { client_id: "bench".to_owned(), ..Hello::default() };
        requests.send(ExecuteRequest { order: Some(Order::Hello(hello)) }).await.map_err(ended)?;
        let mut client = MonitorServiceClient::connect(format!("http://{address}")).await.map_err(ended)?;
        let response = client.execute(ReceiverStream::new(receiver)).await.map_err(|status| ended(status.message()))?;
        let session = response.metadata().get("vantage-session").and_then(|session| session.to_str().ok());
        let session = session.ok_or_else(|| ended("it has no session"))?.to_owned();
        Ok(Self { requests, results: response.into_inner(), session, acknowledged: 0, last: 0 })
    }

    async fn ask(&self, order: Order) -> Result<(), Fatal> {
        self.requests.send(ExecuteRequest { order: Some(order) }).await.map_err(ended)
    }

    async fn place(&self, checks: &[Check], anchor: Option<Timestamp>) -> Result<(), Fatal> {
        for check in checks {
            self.ask(Order::Start(Start { check: Some(check.clone()), revision: "1".to_owned(), anchor, ..Start::default() })).await?;
        }
        self.ask(Order::Commit(Commit {})).await
    }

    /// Takes results for so long, and acknowledges them.
    async fn watch(&mut self, time: Duration, mut taken: impl FnMut(ProbeResult)) -> Result<(), Fatal> {
        let end = clock::monotonic() + time;
        let mut acknowledge = tokio::time::interval(ACKNOWLEDGE);
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(end) => return Ok(()),
                _ = acknowledge.tick() => {
                    if self.last > self.acknowledged {
                        self.acknowledged = self.last;
                        self.ask(Order::Ack(Ack { session: self.session.clone(), sequence: self.last })).await?;
                    }
                }
                result = self.results.message() => {
                    let result = result.map_err(|status| ended(status.message()))?.ok_or_else(|| ended("it was closed"))?;
                    self.last = result.sequence;
                    taken(result);
                }
            }
        }
    }
}
