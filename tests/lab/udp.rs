//! Scripted UDP servers, and ports where nobody is.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle as JoinThread,
};

use tokio::{net::UdpSocket, task::JoinHandle};

/// A UDP server on loopback that answers each datagram with what its script says. Ends when dropped.
pub(crate) struct UdpServer {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl UdpServer {
    /// Starts a server on 127.0.0.1. The script gets the number of the datagram, from 0, and its bytes, and gives the answers to it.
    pub(crate) async fn start(script: impl FnMut(usize, &[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        Self::start_at("127.0.0.1:0", script).await
    }

    /// Starts a server at an address.
    pub(crate) async fn start_at(address: &str, mut script: impl FnMut(usize, &[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        let socket = UdpSocket::bind(address).await.expect("bind");
        Self::serve(socket, move |number, bytes, _| script(number, bytes))
    }

    /// Serves on a socket; the script also gets the socket and the client, to answer in its own way.
    pub(crate) fn serve(
        socket: UdpSocket,
        mut script: impl FnMut(usize, &[u8], (&Arc<UdpSocket>, SocketAddr)) -> Vec<Vec<u8>> + Send + 'static,
    ) -> Self {
        let address = socket.local_addr().expect("an address");
        let socket = Arc::new(socket);
        let task = tokio::spawn(async move {
            let mut buffer = vec![0; 65_535];
            for number in 0.. {
                let Ok((length, client)) = socket.recv_from(&mut buffer).await else { return };
                for answer in script(number, &buffer[..length], (&socket, client)) {
                    let _ = socket.send_to(&answer, client).await;
                }
            }
        });
        Self { address, task }
    }

    /// A server that never answers.
    pub(crate) async fn silent() -> Self {
        Self::start(|_, _| Vec::new()).await
    }
}

impl Drop for UdpServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A port of 127.0.0.1 where nobody listens: kept by a connected socket of ours, so that nobody else takes it meanwhile.
pub(crate) struct ClosedPort {
    /// The port.
    pub(crate) address: SocketAddr,
    _held: std::net::UdpSocket,
}

impl ClosedPort {
    /// Finds one. A datagram to it finds no socket, since ours hears only its peer, and the kernel answers port unreachable.
    pub(crate) fn find() -> Self {
        let held = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        held.connect("127.0.0.1:9").expect("connect");
        Self { address: held.local_addr().expect("an address"), _held: held }
    }
}

/// Counts what a script has seen.
#[derive(Clone, Default)]
pub(crate) struct Counter(Arc<AtomicUsize>);

impl Counter {
    /// One more.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A server that floods the first who asks with the same bytes, until it is dropped.
pub(crate) struct Flood {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinThread<()>>,
}

impl Flood {
    /// Starts one on 127.0.0.1.
    pub(crate) fn start(bytes: Vec<u8>) -> Self {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        // Somebody asks, or the test has failed.
        socket.set_read_timeout(Some(super::monitor::PATIENCE)).expect("a socket option");
        let (address, is_over) = (socket.local_addr().expect("an address"), Arc::new(AtomicBool::new(false)));
        let over = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let Ok((_, client)) = socket.recv_from(&mut [0; 2000]) else { return };
            while !over.load(Ordering::Relaxed) {
                let _ = socket.send_to(&bytes, client);
            }
        });
        Self { address, is_over, thread: Some(thread) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
