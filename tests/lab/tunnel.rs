//! A router of user space in place of the kernel's: it tells of packets whose hop limit ends with it as the routers of an MPLS tunnel do,
//! with the labels on which they came (RFC 4950). Written after the RFCs and not with the codec that it tests.

use std::{
    io::Read,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::netns::{self, Row};

/// Two labels: 16001 with traffic class 5, and 299776 at the bottom of the stack; both with a time to live of 1.
const STACK: [u8; 8] = [0x03, 0xe8, 0x1a, 0x01, 0x49, 0x30, 0x01, 0x01];

/// Where such a router says that the labels begin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// In the header of the error, as RFC 4884 wants it.
    InHeader,
    /// Nowhere: they are behind 128 bytes, as before that RFC.
    Nowhere,
}

/// The end of hop limits at a node of a row, while it lives. The kernel of the node goes on forwarding all other packets.
pub(crate) struct Tunnel {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Tunnel {
    /// Begins at a node. Its errors come from the address nearest to node 0, as the kernel's would.
    pub(crate) fn at(row: &Row, node: usize, told: Told) -> Self {
        // Packet sockets see what arrives before these rules do.
        for rule in ["iptables -t raw -A PREROUTING -m ttl --ttl-eq 1", "ip6tables -t raw -A PREROUTING -m hl --hl-eq 1"] {
            row.exec(node, &format!("{rule} -j DROP"));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let link = node - 1;
        let near = [format!("10.9.{link}.2:0"), format!("[fd09:{link}::2]:0")].map(|near| near.parse::<SocketAddr>().unwrap());
        let threads = near.map(|near| {
            let (name, stop) = (row.name(node).to_owned(), stop.clone());
            let (ready, is_ready) = std::sync::mpsc::channel();
            let thread = std::thread::spawn(move || {
                netns::enter(&name);
                let taps = arriving(near.is_ipv4());
                let router = router(near);
                ready.send(()).unwrap();
                serve(taps, &router, told, &stop);
            });
            is_ready.recv().unwrap();
            thread
        });
        Self { stop, threads: threads.into() }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A socket that sees all packets of a family that arrive, from their IP header on.
fn arriving(is_v4: bool) -> Socket {
    let ethertype: u16 = if is_v4 { 0x0800 } else { 0x86dd };
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(i32::from(ethertype.to_be())))).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    socket
}

/// A socket that sends ICMP messages from an address.
fn router(near: SocketAddr) -> Socket {
    let protocol = if near.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
    let socket = Socket::new(Domain::for_address(near), Type::RAW, Some(protocol)).unwrap();
    socket.bind(&SockAddr::from(near)).unwrap();
    socket
}

fn serve(mut taps: Socket, router: &Socket, told: Told, stop: &AtomicBool) {
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let Ok(length) = taps.read(&mut buffer) else { continue };
        let packet = &buffer[..length];
        // Version, hop limit, and where the source is.
        let (is_v4, hop_limit) = (packet[0] >> 4 == 4, packet[if packet[0] >> 4 == 4 { 8 } else { 7 }]);
        if hop_limit != 1 {
            continue;
        }
        let source: SocketAddr = if is_v4 {
            (Ipv4Addr::from(<[u8; 4]>::try_from(&packet[12..16]).unwrap()), 0).into()
        } else {
            (Ipv6Addr::from(<[u8; 16]>::try_from(&packet[8..24]).unwrap()), 0).into()
        };
        let _ = router.send_to(&time_exceeded(is_v4, packet, told), &SockAddr::from(source));
    }
}

/// Type, code, checksum, the length of the quote in its unit and place, the quote, and the extension. The kernel sums ICMPv6.
fn time_exceeded(is_v4: bool, packet: &[u8], told: Told) -> Vec<u8> {
    let mut quote = packet[..packet.len().min(128)].to_vec();
    quote.resize(128, 0);
    let length = |unit: u8| if told == Told::InHeader { 128 / unit } else { 0 };
    let header = if is_v4 { [11, 0, 0, 0, 0, length(4), 0, 0] } else { [3, 0, 0, 0, length(8), 0, 0, 0] };
    let mut extension = [&[0x20, 0, 0, 0, 0, 12, 1, 1][..], &STACK].concat();
    let sum = checksum(&extension);
    extension[2..4].copy_from_slice(&sum);
    let mut message = [&header[..], &quote, &extension].concat();
    if is_v4 {
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum);
    }
    message
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let sum = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    (!(((sum & 0xffff) + (sum >> 16)) as u16)).to_be_bytes()
}
