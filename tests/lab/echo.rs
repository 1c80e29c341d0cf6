//! A target that answers echo requests as the test says: late, twice, changed, from elsewhere.

use std::{
    io::Read,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use vantage_probes::wire::{
    icmp::{Echo, Version},
    ip::Ipv4,
};

use super::netns::{Row, enter};

/// An echo request that came, or a reply that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// How long to wait before it goes, after the one before.
    pub(crate) after: Duration,
    /// From where it goes; the target's own address where None.
    pub(crate) source: Option<Ipv4Addr>,
    /// The identifier.
    pub(crate) identifier: u16,
    /// The sequence.
    pub(crate) sequence: u16,
    /// The payload.
    pub(crate) payload: Vec<u8>,
}

/// A scripted target. It ends with the value.
pub(crate) struct Echoer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echoer {
    /// Answers echo requests over IPv4 in the namespace of a node, where the kernel's own replies are turned off. `script` says which
    /// replies a request gets; it returns what the right one would be, changed at will.
    pub(crate) fn start(row: &Row, node: usize, script: impl Fn(Message) -> Vec<Message> + Send + 'static) -> Self {
        row.exec(node, "sysctl -qw net.ipv4.icmp_echo_ignore_all=1");
        let stop = Arc::new(AtomicBool::new(false));
        let (namespace, stopping) = (row.name(node).to_owned(), Arc::clone(&stop));
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            enter(&namespace);
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            ready.send(()).unwrap();
            let mut buffer = vec![0; 70_000];
            while !stopping.load(Ordering::Relaxed) {
                let Ok(length) = (&socket).read(&mut buffer) else { continue };
                let Some(ip) = Ipv4::parse(&buffer[..length]) else { continue };
                let Some(echo) = Echo::parse(Version::V4, ip.payload).filter(|echo| echo.kind == 8) else { continue };
                let (identifier, sequence, payload) = (echo.identifier, echo.sequence, echo.payload.to_vec());
                for reply in script(Message { after: Duration::ZERO, source: None, identifier, sequence, payload }) {
                    if stopping.load(Ordering::Relaxed) {
                        break;
                    }
                    std::thread::sleep(reply.after);
                    send(&reply, ip.destination, ip.source);
                }
            }
        });
        is_ready.recv().unwrap();
        Self { stop, thread: Some(thread) }
    }
}

fn send(reply: &Message, own: Ipv4Addr, to: Ipv4Addr) {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
    let at = |address: Ipv4Addr| SockAddr::from(SocketAddr::new(IpAddr::V4(address), 0));
    socket.bind(&at(reply.source.unwrap_or(own))).unwrap();
    let echo = Echo { kind: 0, identifier: reply.identifier, sequence: reply.sequence, payload: &reply.payload };
    // The other side may be gone by now.
    let _ = socket.send_to(&echo.encode(Version::V4), &at(to));
}

impl Drop for Echoer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the scripted target panicked");
        }
    }
}
