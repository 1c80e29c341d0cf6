//! A target of known delay: it sends each echo request back after so long, to the microsecond, whatever address it was sent to.

use std::{
    collections::VecDeque,
    io::Read as _,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd as _,
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{setsockopt, sockopt},
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::Instant;
use vantage_daemon::clock;

/// How long before a reply is due it is waited for by looking at the clock: sleeping is not that exact.
const SPIN: Duration = Duration::from_micros(400);

/// Reflects until it is killed, in a network namespace.
pub(crate) fn reflect(namespace: &str, delay: Duration) {
    crate::netns::enter(namespace);
    let socket = Socket::new(Domain::IPV4, Type::RAW.nonblocking(), Some(Protocol::ICMPV4)).unwrap();
    socket.set_header_included_v4(true).unwrap();
    // Thousands of requests may come at once.
    setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20)).unwrap();
    println!("ready");
    let mut waiting: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut buffer = [0; 2048];
    loop {
        while let Ok(length) = (&socket).read(&mut buffer) {
            // An echo request without IP options.
            if length >= 28 && buffer[0] == 0x45 && buffer[20] == 8 {
                waiting.push_back((clock::monotonic() + delay, reply(&buffer[..length])));
            }
        }
        let next = waiting.front().map(|(due, _)| due.saturating_duration_since(clock::monotonic()));
        match next {
            Some(Duration::ZERO) => {
                let (_, packet) = waiting.pop_front().unwrap();
                let to = IpAddr::from([packet[16], packet[17], packet[18], packet[19]]);
                // A reply that finds no room is one that was lost: the capture shows it.
                let _ = socket.send_to(&packet, &SocketAddr::new(to, 0).into());
            }
            Some(wait) if wait <= SPIN => {}
            wait => {
                let wait = wait.map_or(PollTimeout::NONE, |wait| PollTimeout::try_from(wait - SPIN).unwrap());
                let _ = poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], wait);
            }
        }
    }
}

/// The reply to a request: its addresses exchanged, its type that of a reply, its checksum changed by as much (RFC 1624).
fn reply(request: &[u8]) -> Vec<u8> {
    let mut packet = request.to_vec();
    packet[12..16].copy_from_slice(&request[16..20]);
    packet[16..20].copy_from_slice(&request[12..16]);
    // A fresh hop limit; no flags, and an identification of the kernel's choice.
    packet[4..9].copy_from_slice(&[0, 0, 0, 0, 64]);
    packet[20] = 0;
    let sum = u32::from(u16::from_be_bytes([packet[22], packet[23]])) + 0x0800;
    let sum = (sum & 0xffff) + (sum >> 16);
    packet[22..24].copy_from_slice(&u16::try_from(sum & 0xffff).unwrap().to_be_bytes());
    packet
}
