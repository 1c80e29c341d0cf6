//! The packets of a trace, under way: echo requests, UDP datagrams or TCP SYNs.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use futures_util::future::select_all;
use nix::{
    errno::Errno,
    sys::socket::{setsockopt, sockopt},
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::{io::Interest, net::TcpStream};
use vantage_contract::v1::TimingSource;

use crate::{
    failure::{Failure, Moment},
    net::{
        errqueue::{self, Origin, SocketError},
        icmp::{Answer, BATCH, EchoSocket, random, set_hop_limit},
        stamp::{self, Reading},
        stamped::{Arrival, Stamped},
        tcp::kernel_round_trip,
    },
    wire::{
        extension::{self, Label},
        icmp::Version,
    },
};

/// Something that came back.
#[derive(Debug)]
pub(super) struct Heard {
    /// About which packet, from 0. None where it does not say, and several are under way.
    pub(super) number: Option<u16>,
    /// Who sent it.
    pub(super) from: IpAddr,
    /// How long it took; unset where `number` is.
    pub(super) round_trip: Option<(Duration, TimingSource)>,
    /// The ICMP error it is. None: the target answered in the protocol's own way.
    pub(super) error: Option<SocketError>,
}

impl Heard {
    /// The label stack that the error carries. `header` is how much of what it quotes the kernel keeps for itself behind the IP header:
    /// UDP's.
    pub(super) fn labels(&self, header: usize) -> Vec<Label> {
        let Some(error) = &self.error else { return Vec::new() };
        let ip = if error.origin == Origin::Icmp(Version::V6) { 40 } else { 20 };
        extension::labels(&error.quote, ip + header, error.extension_at)
    }
}

/// The sockets of a trace.
pub(super) enum Flight {
    /// Echo requests: one socket, so one identifier.
    Echo(EchoSocket, Filling),
    /// UDP datagrams: one socket, so one pair of ports.
    Udp(Box<Stamped>, SocketAddr),
    /// TCP SYNs: a socket each.
    Tcp(Syns),
}

impl Flight {
    /// Echo requests to `target`.
    pub(super) fn echo(target: IpAddr, source: Option<IpAddr>) -> Result<Self, Failure> {
        let filling = Filling { cookie: random()? };
        Ok(Self::Echo(EchoSocket::open(target, source, filling.payload(0).len())?, filling))
    }

    /// UDP datagrams to one port.
    pub(super) fn udp(target: SocketAddr, source: Option<IpAddr>) -> Result<Self, Failure> {
        let open = || {
            let socket = Socket::new(Domain::for_address(target), Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
            if let Some(source) = source {
                socket.bind(&SockAddr::from(SocketAddr::new(source, 0)))?;
            }
            socket.connect(&SockAddr::from(target))?;
            Stamped::new(socket, target.ip())
        };
        let socket = open().map_err(|error| Failure::of_io(format!("open a UDP socket to {target}"), &error, Moment::AtOnce))?;
        Ok(Self::Udp(Box::new(socket), target))
    }

    /// TCP SYNs to one port, each given up after `patience`.
    pub(super) fn tcp(target: SocketAddr, source: Option<IpAddr>, patience: Duration) -> Self {
        Self::Tcp(Syns { target, source, patience, ports: Vec::new(), open: Vec::new(), count: 0 })
    }

    /// The socket, as the contract names it: "datagram" or "raw" for echo requests; "error_queue" where errors come through that, and no
    /// privilege is needed.
    pub(super) fn style(&self) -> &'static str {
        match self {
            Self::Echo(socket, _) => socket.style(),
            Self::Udp(..) | Self::Tcp(_) => "error_queue",
        }
    }

    /// Sends the next packet. `attempt` says which of the packets with the same hop limit it is.
    pub(super) fn send(&mut self, hop_limit: u8, attempt: u8) -> io::Result<()> {
        match self {
            Self::Echo(socket, filling) => {
                socket.set_hop_limit(hop_limit)?;
                socket.send(&filling.payload(socket.next_sequence()))
            }
            Self::Udp(socket, target) => {
                set_hop_limit(&socket.as_socket(), Version::of(target.ip()), hop_limit)?;
                let number = socket.next_number();
                socket.send(&numbered(number))
            }
            Self::Tcp(syns) => syns.send(hop_limit, attempt),
        }
    }

    /// Waits until something may have come back.
    pub(super) async fn ready(&self) -> io::Result<()> {
        match self {
            Self::Echo(socket, _) => socket.ready().await,
            Self::Udp(socket, _) => socket.ready().await,
            Self::Tcp(syns) => syns.ready().await,
        }
    }

    /// Takes what came back, without waiting. `only` is the packet that is meant where the answer does not say.
    pub(super) fn receive(&mut self, only: Option<u16>) -> io::Result<Option<Heard>> {
        match self {
            Self::Echo(socket, filling) => receive_echo(socket, *filling),
            Self::Udp(socket, target) => receive_udp(socket, target.ip(), only),
            Self::Tcp(syns) => Ok(syns.receive()),
        }
    }
}

/// What echo requests carry. The last two bytes make up for the sequence, so that all requests of a run have one checksum: balancing
/// routers take it for a port.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filling {
    cookie: [u8; 16],
}

impl Filling {
    fn payload(self, sequence: u16) -> [u8; 32] {
        let mut payload = [0; 32];
        payload[..16].copy_from_slice(&self.cookie);
        payload[30..].copy_from_slice(&(!sequence).to_be_bytes());
        payload
    }
}

/// What a UDP datagram carries: its number, and what keeps the checksum the same. Routers that quote enough of it say which one it was.
fn numbered(number: u16) -> [u8; 16] {
    let mut payload = [0; 16];
    payload[..2].copy_from_slice(&number.to_be_bytes());
    payload[2..4].copy_from_slice(&(!number).to_be_bytes());
    payload
}

fn receive_echo(socket: &mut EchoSocket, filling: Filling) -> io::Result<Option<Heard>> {
    let target = socket.target();
    for _ in 0..BATCH {
        let Some(answer) = socket.receive()? else { break };
        match answer {
            Answer::Reply { sequence, round_trip, payload, .. } if payload == filling.payload(sequence) => {
                return Ok(Some(Heard { number: Some(sequence), from: target, round_trip: Some(round_trip), error: None }));
            }
            Answer::Error { sequence: Some(sequence), round_trip, error } => {
                if let Some(from) = error.from {
                    return Ok(Some(Heard { number: Some(sequence), from, round_trip, error: Some(error) }));
                }
            }
            Answer::Reply { .. } | Answer::Error { .. } => {}
        }
    }
    Ok(None)
}

fn receive_udp(socket: &mut Stamped, target: IpAddr, only: Option<u16>) -> io::Result<Option<Heard>> {
    let mut buffer = [0; 64];
    for _ in 0..BATCH {
        let Some(arrival) = socket.receive(&mut buffer)? else { break };
        let (number, from, arrived, error) = match arrival {
            // A service answers there: nothing in its answer has to say to which datagram.
            Arrival::Packet { from, arrived, .. } if from.is_none_or(|from| from == target) => (only, target, arrived, None),
            Arrival::Packet { .. } => continue,
            Arrival::Error(error) => {
                let quoted = match error.quote.first_chunk() {
                    Some([n0, n1, c0, c1]) if *n0 == !*c0 && *n1 == !*c1 => Some(u16::from_be_bytes([*n0, *n1])),
                    _ => None,
                };
                let Some(from) = error.from else { continue };
                (quoted.or(only), from, error.arrived, Some(error))
            }
        };
        let round_trip = number.and_then(|number| socket.round_trip(number, arrived));
        return Ok(Some(Heard { number, from, round_trip, error }));
    }
    Ok(None)
}

/// TCP SYNs, a socket each: the kernel takes one connection at a time from one port to another. So attempt `n` of all hops has a port of its
/// own, on which one SYN after the other goes out; the connection is reset as soon as it stands. Where a hop keeps silent, its SYN keeps
/// the port, and the next hops get another one.
pub(super) struct Syns {
    target: SocketAddr,
    source: Option<IpAddr>,
    patience: Duration,
    /// The local address of each attempt.
    ports: Vec<Option<SocketAddr>>,
    open: Vec<Syn>,
    count: u16,
}

struct Syn {
    number: u16,
    attempt: u8,
    left: Reading,
    stream: TcpStream,
    /// What came back before `connect` returned, as it does where the path is short.
    early: Option<Said>,
}

/// Who said what: an ICMP error, or the target's own answer.
type Said = (IpAddr, Option<SocketError>);

/// What a socket has to say.
enum State {
    Waiting,
    Said(Said),
    /// An error that nobody sent: the kernel gave up, and that is silence.
    Silent,
}

impl Syns {
    fn send(&mut self, hop_limit: u8, attempt: u8) -> io::Result<()> {
        let now = Reading::now().monotonic;
        self.open.retain(|syn| syn.left.monotonic + self.patience > now);
        let lane = usize::from(attempt);
        if self.ports.len() <= lane {
            self.ports.resize(lane + 1, None);
        }
        let known = self.ports.get(lane).copied().flatten().filter(|_| self.open.iter().all(|syn| syn.attempt != attempt));
        let syn = match self.connect(hop_limit, attempt, known) {
            // Somebody else took the port in between.
            Err(error)
                if known.is_some()
                    && matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EADDRINUSE | Errno::EADDRNOTAVAIL)) =>
            {
                self.connect(hop_limit, attempt, None)?
            }
            syn => syn?,
        };
        if let Some(port) = self.ports.get_mut(lane) {
            *port = syn.stream.local_addr().ok();
        }
        self.open.push(syn);
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    fn connect(&self, hop_limit: u8, attempt: u8, local: Option<SocketAddr>) -> io::Result<Syn> {
        let socket = Socket::new(Domain::for_address(self.target), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
        errqueue::enable_with_extensions(&socket, self.target.ip())?;
        set_hop_limit(&socket, Version::of(self.target.ip()), hop_limit)?;
        // Without stamps of errors the process's own count.
        let _ = setsockopt(&socket, sockopt::ReceiveTimestampns, &true);
        // Closing resets: no trace stays behind, here or there.
        socket.set_linger(Some(Duration::ZERO))?;
        let any = if self.target.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
        if local.is_some() || self.source.is_some() {
            socket.set_reuse_address(true)?;
            socket.bind(&SockAddr::from(local.unwrap_or_else(|| SocketAddr::new(self.source.unwrap_or(any), 0))))?;
        }
        let left = Reading::now();
        let early = match socket.connect(&SockAddr::from(self.target)) {
            Ok(()) => Some((self.target.ip(), None)),
            Err(error) => match (error.raw_os_error().map(Errno::from_raw), icmp_error(errqueue::take_error(&socket)?)) {
                (Some(Errno::EINPROGRESS), early) => early,
                (Some(_), Some(early)) => Some(early),
                (Some(Errno::ECONNREFUSED), None) => Some((self.target.ip(), None)),
                _ => return Err(error),
            },
        };
        Ok(Syn { number: self.count, attempt, left, stream: TcpStream::from_std(socket.into())?, early })
    }

    async fn ready(&self) -> io::Result<()> {
        if self.open.iter().any(|syn| syn.early.is_some()) {
            return Ok(());
        }
        if self.open.is_empty() {
            return std::future::pending().await;
        }
        let waits = self.open.iter().map(|syn| Box::pin(syn.stream.ready(Interest::WRITABLE | Interest::ERROR)));
        select_all(waits).await.0.map(|_| ())
    }

    /// A socket that has nothing more to say is closed.
    fn receive(&mut self) -> Option<Heard> {
        let mut index = 0;
        while let Some(syn) = self.open.get_mut(index) {
            match syn.state(self.target.ip()) {
                State::Waiting => index += 1,
                State::Silent => drop(self.open.swap_remove(index)),
                State::Said((from, error)) => {
                    let syn = self.open.swap_remove(index);
                    let round_trip = Some(syn.round_trip(error.as_ref()));
                    return Some(Heard { number: Some(syn.number), from, round_trip, error });
                }
            }
        }
        None
    }
}

impl Syn {
    /// The kernel stamps errors when they arrive, and measures from a SYN to its SYN-ACK; a reset it only tells.
    fn round_trip(&self, error: Option<&SocketError>) -> (Duration, TimingSource) {
        let seen = stamp::round_trip(&self.left, None, &Reading::now(), error.and_then(|error| error.arrived));
        match kernel_round_trip(&self.stream).filter(|taken| error.is_none() && *taken <= seen.0) {
            Some(taken) => (taken, TimingSource::Kernel),
            None => seen,
        }
    }

    fn state(&mut self, target: IpAddr) -> State {
        if let Some(said) = self.early.take() {
            return State::Said(said);
        }
        // Cleared before the look, so that what comes afterwards wakes `ready` again.
        for interest in [Interest::WRITABLE, Interest::ERROR] {
            let _ = self.stream.try_io(interest, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        }
        if let Some(said) = errqueue::take_error(&self.stream).ok().and_then(icmp_error) {
            return State::Said(said);
        }
        match self.stream.take_error() {
            Ok(Some(error)) if error.kind() == io::ErrorKind::ConnectionRefused => State::Said((target, None)),
            Ok(Some(_)) | Err(_) => State::Silent,
            Ok(None) if self.stream.peer_addr().is_ok() => State::Said((target, None)),
            Ok(None) => State::Waiting,
        }
    }
}

fn icmp_error(error: Option<SocketError>) -> Option<Said> {
    let error = error.filter(|error| error.origin != Origin::Local)?;
    error.from.map(|from| (from, Some(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{checksum, icmp::Echo};

    #[test]
    fn all_echo_requests_of_a_run_have_one_checksum() {
        let filling = Filling { cookie: [7; 16] };
        let sum = |sequence| {
            let echo = Echo { kind: 8, identifier: 99, sequence, payload: &filling.payload(sequence) };
            echo.encode(Version::V4)[2..4].to_vec()
        };
        for sequence in [1, 2, 255, 256, 639] {
            assert_eq!(sum(sequence), sum(0));
        }
    }

    #[test]
    fn all_datagrams_of_a_run_have_one_checksum() {
        for number in [1, 2, 255, 256, 639] {
            assert_eq!(checksum::internet(&numbered(number)), checksum::internet(&numbered(0)));
        }
    }
}
