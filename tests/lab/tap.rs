//! What leaves a node of a row: packets as the next node sees them, neighbours' questions included.

use std::{
    collections::BTreeSet,
    io::Read,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::netns::{self, Row};

/// All that arrives at node 1 of a row of two, while it lives.
pub(crate) struct Tap {
    seen: Arc<Mutex<BTreeSet<IpAddr>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tap {
    /// Begins to listen.
    pub(crate) fn at(row: &Row) -> Self {
        let (seen, stop) = (Arc::<Mutex<BTreeSet<IpAddr>>>::default(), Arc::<AtomicBool>::default());
        let (name, noted, stopped) = (row.name(1).to_owned(), seen.clone(), stop.clone());
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            netns::enter(&name);
            let every = i32::from(0x0003_u16.to_be());
            let mut socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(every))).unwrap();
            socket.set_recv_buffer_size(4 << 20).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            ready.send(()).unwrap();
            let mut buffer = [0; 4096];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok(length) = socket.read(&mut buffer)
                    && let Some(wanted) = wanted(&buffer[..length])
                {
                    noted.lock().unwrap().insert(wanted);
                }
            }
        });
        is_ready.recv().unwrap();
        Self { seen, stop, thread: Some(thread) }
    }

    /// Whom node 0 has sent something to, or asked for the way to.
    pub(crate) fn seen(&self) -> BTreeSet<IpAddr> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Whom a frame is for, or whose place it asks for; none: node 1 said it, or it is the small talk of neighbours.
fn wanted(frame: &[u8]) -> Option<IpAddr> {
    let v4 = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?));
    let v6 = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(frame.get(at..at + 16)?).ok()?));
    match (frame.get(12)?, frame.get(13)?) {
        // ARP: a request of node 0 for somebody's place.
        (0x08, 0x06) => v4(38).filter(|_| frame.get(21) == Some(&1) && v4(28) != Some(Ipv4Addr::new(10, 9, 0, 2))).map(IpAddr::V4),
        (0x08, 0x00) => v4(30).filter(|_| v4(26) != Some(Ipv4Addr::new(10, 9, 0, 2))).map(IpAddr::V4),
        (0x86, 0xdd) => {
            let (source, destination) = (v6(22)?, v6(38)?);
            let is_next_nodes = source == Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2) || source.is_unspecified();
            match (frame.get(20)?, frame.get(54)) {
                // A neighbour solicitation (RFC 4861): for whom. Other messages of that protocol, and multicast reports, are small talk.
                (58, Some(135)) => v6(62).filter(|_| !is_next_nodes && source.octets()[0] != 0xfe).map(IpAddr::V6),
                (58, Some(130..=132 | 133 | 134 | 136 | 137 | 143)) | (0, _) => None,
                _ => Some(destination).filter(|_| !is_next_nodes).map(IpAddr::V6),
            }
        }
        _ => None,
    }
}
