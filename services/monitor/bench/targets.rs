//! Targets built in, on loopback: as little work as an answer takes, so that a benchmark measures who asks.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, UNIX_EPOCH},
};

use nix::sys::socket::{Backlog, listen};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;
use vantage_daemon::clock;
use vantage_probes::wire::ntp::{self, Packet, Stamp};

use super::authority::{self, Authority};

/// How often a target looks whether it is still wanted.
const GLANCE: Duration = Duration::from_millis(100);

/// The answer to each HTTP request.
const PAGE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nok\n";

/// What a target speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Sends each datagram back.
    Udp,
    /// Answers each DNS question with the address 192.0.2.1 (RFC 1035).
    Dns,
    /// Answers as a stratum 2 server that is in step with this machine (RFC 5905).
    Ntp,
    /// Accepts connections, and closes them when the other side has.
    Tcp,
    /// Answers each request with 200 and three bytes (RFC 9112).
    Http,
    /// The same over TLS, with a certificate of an authority of its own.
    Https,
}

/// A target that answers until it is dropped.
#[derive(Debug)]
pub struct Target {
    /// Where.
    pub address: SocketAddr,
    authority: Option<Authority>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Target {
    /// The file, in PEM form, of the authority that certifies it; as long as it lives. None where it needs none.
    pub fn authority(&self) -> Option<PathBuf> {
        self.authority.as_ref().map(Authority::path)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A target that panicked has nothing to hand over.
            let _ = thread.join();
        }
    }
}

/// Starts one on a free port of 127.0.0.1. Errors: no socket, no thread.
pub fn start(service: Service) -> io::Result<Target> {
    start_slow(service, Duration::ZERO)
}

/// The same; a web server that lets each request wait for so long.
pub fn start_slow(service: Service, delay: Duration) -> io::Result<Target> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = Arc::clone(&stop);
    let wanted = move || !stopping.load(Ordering::Relaxed);
    let (authority, config) = if service == Service::Https { Some(authority::certify()?).unzip() } else { (None, None) };
    let manner = Manner { answers: service != Service::Tcp, delay, acceptor: config.map(TlsAcceptor::from) };
    let (address, work): (_, Box<dyn FnOnce() + Send>) = match service {
        Service::Udp | Service::Dns | Service::Ntp => {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.set_read_timeout(Some(GLANCE))?;
            (socket.local_addr()?, Box::new(move || datagrams(service, &socket, wanted)))
        }
        Service::Tcp | Service::Http | Service::Https => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            listener.set_nonblocking(true)?;
            // Checks may be due at the same moment, and a SYN that finds no place is sent again after a second.
            listen(&listener, Backlog::new(4096)?)?;
            (listener.local_addr()?, Box::new(move || connections(&manner, listener, wanted)))
        }
    };
    let thread = thread::Builder::new().name("target".to_owned()).spawn(work)?;
    Ok(Target { address, authority, stop, thread: Some(thread) })
}

fn datagrams(service: Service, socket: &UdpSocket, wanted: impl Fn() -> bool) {
    let mut buffer = [0; 2048];
    while wanted() {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let request = buffer.get(..length).unwrap_or_default();
        // Who asked may be gone by now.
        let _ = match service {
            Service::Dns => answer(request).map(|answer| socket.send_to(&answer, from)),
            Service::Ntp => time(request).map(|answer| socket.send_to(&answer, from)),
            Service::Udp | Service::Tcp | Service::Http | Service::Https => Some(socket.send_to(request, from)),
        };
    }
}

/// How connections are served.
#[derive(Clone)]
struct Manner {
    /// With a page for each request, or not at all.
    answers: bool,
    /// How long after the request.
    delay: Duration,
    /// Over TLS.
    acceptor: Option<TlsAcceptor>,
}

/// Connections are served by a small runtime of its own: thousands may be open at once.
fn connections(manner: &Manner, listener: TcpListener, wanted: impl Fn() -> bool) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
        while wanted() {
            let Ok(Ok((stream, _))) = tokio::time::timeout(GLANCE, listener.accept()).await else { continue };
            let manner = manner.clone();
            // Who leaves early has what was wanted.
            tokio::spawn(async move { drop(connection(stream, &manner).await) });
        }
    });
}

async fn connection(stream: TcpStream, manner: &Manner) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match &manner.acceptor {
        Some(acceptor) => serve(acceptor.accept(stream).await?, manner).await,
        None => serve(stream, manner).await,
    }
}

/// The requests of a benchmark are one segment each, and so are the answers.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, manner: &Manner) -> io::Result<()> {
    let mut buffer = [0; 2048];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        if !manner.delay.is_zero() {
            tokio::time::sleep(manner.delay).await;
        }
        if manner.answers {
            stream.write_all(PAGE).await?;
            stream.flush().await?;
        }
        // Whoever speaks that reads to the end, as openssl's s_time does.
        if buffer.get(..length).unwrap_or_default().windows(8).any(|word| word == b"HTTP/1.0") {
            return stream.shutdown().await;
        }
    }
}

/// The answer to a DNS question: the header and the question again, and one record. None where there is no question.
fn answer(request: &[u8]) -> Option<Vec<u8>> {
    let mut end = 12;
    loop {
        match usize::from(*request.get(end)?) {
            0 => break,
            label => end += 1 + label,
        }
    }
    // The root label, type and class.
    let mut answer = request.get(..end + 5)?.to_vec();
    // An answer, with recursion asked for as it was; no error; one question and one record.
    answer.get_mut(2..12)?.copy_from_slice(&[0x80 | (request[2] & 1), 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    // The name of the question, A, IN, one minute.
    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
    Some(answer)
}

/// The answer to an NTP request. None where it is not one.
fn time(request: &[u8]) -> Option<[u8; ntp::LENGTH]> {
    let request = Packet::decode(request)?;
    let now = Stamp::of_unix(clock::wall().duration_since(UNIX_EPOCH).ok()?);
    let packet = Packet {
        poll: 6,
        leap: 0,
        version: request.version,
        mode: 4,
        stratum: 2,
        precision: -24,
        root_delay: 1 << 8,
        root_dispersion: 1 << 8,
        reference_id: [192, 0, 2, 1],
        reference: now,
        origin: request.transmit,
        receive: now,
        transmit: now,
    };
    Some(packet.encode())
}
