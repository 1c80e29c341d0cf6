//! Echo sockets: datagram ones, which need no privilege where `net.ipv4.ping_group_range` allows them, else raw ones.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use nix::{
    errno::Errno,
    libc,
    sys::{
        socket::{setsockopt, sockopt::SetStruct},
        time::TimeSpec,
    },
};
use ring::rand::{SecureRandom, SystemRandom};
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use vantage_contract::v1::{Attribution, Reason, TimingSource};

use super::{
    capability,
    errqueue::{Origin, SocketError},
    filter,
    stamped::{Arrival, Stamped},
};
use crate::{
    failure::{Failure, Moment},
    wire::{
        icmp::{Echo, EchoError, HEADER, Version},
        ip::Ipv4,
    },
};

/// Whether IPv4 packets may be fragmented: IP_MTU_DISCOVER.
#[derive(Debug, Clone, Copy)]
struct MtuDiscoverV4;
/// Whether IPv6 packets may be fragmented by us: IPV6_MTU_DISCOVER.
#[derive(Debug, Clone, Copy)]
struct MtuDiscoverV6;
nix::setsockopt_impl!(MtuDiscoverV4, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::c_int, SetStruct<'_, libc::c_int>);
nix::setsockopt_impl!(MtuDiscoverV6, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::c_int, SetStruct<'_, libc::c_int>);

/// How many packets are taken before the caller looks at the clock: a flood must not hold a run beyond its end.
pub(crate) const BATCH: usize = 64;

/// How much of an error is read, as a packet: what RFC 4443 lets it have at the most.
const LONGEST_ERROR: usize = 1280;

/// How requests are sent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manner {
    /// The hop limit; None: the kernel's.
    pub(crate) hop_limit: Option<u8>,
    /// Whether fragmenting is forbidden, on the way and here.
    pub(crate) dont_fragment: bool,
    /// The differentiated services code point.
    pub(crate) dscp: u8,
}

/// An echo socket of one run, and of one target.
pub(crate) struct EchoSocket {
    socket: Stamped,
    version: Version,
    target: IpAddr,
    raw: bool,
    /// Ours, on a raw socket; on a datagram socket the kernel has one and lets nothing else through.
    identifier: u16,
    buffer: Vec<u8>,
}

/// Something that came back about one of our requests.
#[derive(Debug)]
pub(crate) enum Answer {
    /// An echo reply from the target. Whether its payload is ours is for the caller to say.
    Reply {
        /// Which request it answers.
        sequence: u16,
        /// How long it took, and who took the stamps.
        round_trip: (Duration, TimingSource),
        /// What it carries.
        payload: Vec<u8>,
    },
    /// An ICMP error, or a local one.
    Error {
        /// Which request it is about, where it says so.
        sequence: Option<u16>,
        /// How long it took to come back, and who took the stamps, where it says which request it is about.
        round_trip: Option<(Duration, TimingSource)>,
        /// The error.
        error: SocketError,
    },
}

impl EchoSocket {
    /// Opens one to `target`, from `source` where given: a datagram socket, or a raw one where that is not allowed. `payload_size` is the
    /// largest that is going to be sent. A raw one is not connected, for then it would not hear of routers, and asks for no queue of
    /// errors, for that would have everybody's: what is about its requests comes to it through a filter.
    pub(crate) fn open(target: IpAddr, source: Option<IpAddr>, payload_size: usize) -> Result<Self, Failure> {
        let (socket, raw) = open_either(target)?;
        let at_once = |act: String| move |error: io::Error| Failure::of_io(act, &error, Moment::AtOnce);
        let version = Version::of(target);
        let identifier = if raw { next_identifier()? } else { 0 };
        let options = || format!("open an echo socket to {target}");
        apply(&socket, version, Manner::default()).map_err(at_once(options()))?;
        if raw {
            socket.attach_filter(&filter::about_requests_of(version, identifier)).map_err(at_once(options()))?;
        }
        if let Some(source) = source {
            socket.bind(&SockAddr::from(SocketAddr::new(source, 0))).map_err(at_once(format!("bind to {source}")))?;
        }
        if raw {
            let socket = Stamped::unconnected(socket, target).map_err(at_once(options()))?;
            return Ok(Self { socket, version, target, raw, identifier, buffer: vec![0; LONGEST_ERROR] });
        }
        socket.connect(&SockAddr::from(SocketAddr::new(target, 0))).map_err(at_once(format!("find a way to {target}")))?;
        let socket = Stamped::new(socket, target).map_err(at_once(options()))?;
        // One byte more than a right answer has, so that a longer one shows.
        Ok(Self { socket, version, target, raw, identifier, buffer: vec![0; HEADER + payload_size + 1] })
    }

    /// Whom it asks.
    pub(crate) fn target(&self) -> IpAddr {
        self.target
    }

    /// "datagram" or "raw".
    pub(crate) fn style(&self) -> &'static str {
        if self.raw { "raw" } else { "datagram" }
    }

    /// The sequence of the request that is sent next.
    pub(crate) fn next_sequence(&self) -> u16 {
        self.socket.next_number()
    }

    /// Sets the hop limit of the requests that follow.
    pub(crate) fn set_hop_limit(&self, hop_limit: u8) -> io::Result<()> {
        set_hop_limit(&self.socket.as_socket(), self.version, hop_limit)
    }

    /// Sends a request; its sequence is what [`next_sequence`](Self::next_sequence) was.
    pub(crate) fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        let sequence = self.next_sequence();
        let echo = Echo { kind: self.version.echo_request(), identifier: self.identifier, sequence, payload };
        self.socket.send(&echo.encode(self.version))
    }

    /// Waits until something may have come back.
    pub(crate) async fn ready(&self) -> io::Result<()> {
        self.socket.ready().await
    }

    /// Takes what came back, without waiting. What is not about this socket's requests is passed over, a few packets at a time: None may
    /// mean that there is more, and then [`ready`](Self::ready) returns at once.
    pub(crate) fn receive(&mut self) -> io::Result<Option<Answer>> {
        for _ in 0..BATCH {
            let Some(arrival) = self.socket.receive(&mut self.buffer)? else { return Ok(None) };
            let answer = match arrival {
                Arrival::Packet { length, from, arrived } => {
                    let packet = self.buffer.get(..length).unwrap_or_default();
                    // A raw IPv4 socket hands over the IP header, too.
                    let packet = match (self.raw, self.version) {
                        (true, Version::V4) => Ipv4::parse(packet).map(|ip| ip.payload).unwrap_or_default(),
                        _ => packet,
                    };
                    if let Some(error) = self.heard(packet, from, arrived) {
                        let sequence = Echo::parse(self.version, &error.quote).map(|quote| quote.sequence);
                        let round_trip = sequence.and_then(|sequence| self.socket.round_trip(sequence, arrived));
                        return Ok(Some(Answer::Error { sequence, round_trip, error }));
                    }
                    let Some(echo) = Echo::parse(self.version, packet) else { continue };
                    let ours = echo.kind == self.version.echo_reply()
                        && from == Some(self.target)
                        && (!self.raw || echo.identifier == self.identifier);
                    if !ours {
                        continue;
                    }
                    let (sequence, payload) = (echo.sequence, echo.payload.to_vec());
                    let Some(round_trip) = self.socket.round_trip(sequence, arrived) else { continue };
                    Answer::Reply { sequence, round_trip, payload }
                }
                Arrival::Error(error) => {
                    let sequence = Echo::parse(self.version, &error.quote).map(|quote| quote.sequence);
                    let round_trip = sequence.and_then(|sequence| self.socket.round_trip(sequence, error.arrived));
                    Answer::Error { sequence, round_trip, error }
                }
            };
            return Ok(Some(answer));
        }
        Ok(None)
    }

    /// The error about one of our requests that came as a packet.
    fn heard(&self, packet: &[u8], from: Option<IpAddr>, arrived: Option<TimeSpec>) -> Option<SocketError> {
        let error = EchoError::parse(self.version, packet).filter(|_| self.raw)?;
        let quoted = Echo::parse(self.version, error.quote)?;
        (error.destination == self.target && quoted.identifier == self.identifier).then(|| SocketError {
            origin: Origin::Icmp(self.version),
            from: from.map(|from| from.to_canonical()),
            kind: error.kind,
            code: error.code,
            errno: Errno::EHOSTUNREACH,
            info: 0,
            arrived,
            quote: error.quote.to_vec(),
            extension_at: error.extension_at,
        })
    }
}

/// Sets the hop limit of the packets that follow.
pub(crate) fn set_hop_limit(socket: &Socket, version: Version, hop_limit: u8) -> io::Result<()> {
    match version {
        Version::V4 => socket.set_ttl_v4(hop_limit.into()),
        Version::V6 => socket.set_unicast_hops_v6(hop_limit.into()),
    }
}

/// Opens an echo socket for the family of `target`.
pub(super) fn open(target: IpAddr, kind: Type) -> io::Result<Socket> {
    match Version::of(target) {
        Version::V4 => Socket::new(Domain::IPV4, kind.nonblocking().cloexec(), Some(Protocol::ICMPV4)),
        Version::V6 => Socket::new(Domain::IPV6, kind.nonblocking().cloexec(), Some(Protocol::ICMPV6)),
    }
}

/// Opens an echo socket for the family of `target`: a datagram one, or a raw one where that is not allowed; and whether it is raw.
pub(super) fn open_either(target: IpAddr) -> Result<(Socket, bool), Failure> {
    match open(target, Type::DGRAM) {
        Ok(socket) => Ok((socket, false)),
        Err(first) => match open(target, Type::RAW) {
            Ok(socket) => Ok((socket, true)),
            Err(second) => Err(forbidden(target, &first, &second)),
        },
    }
}

fn forbidden(target: IpAddr, datagram: &io::Error, raw: &io::Error) -> Failure {
    let permission = |error: &io::Error| matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EACCES | Errno::EPERM));
    if permission(datagram) || permission(raw) {
        let sentence = format!("open an echo socket to {target}: neither datagram nor raw ones are allowed here; {}", capability::CURE);
        return Failure::new(Reason::NotPermitted, Attribution::Vantage, sentence);
    }
    Failure::of_io(format!("open an echo socket to {target}"), datagram, Moment::AtOnce)
}

fn apply(socket: &Socket, version: Version, manner: Manner) -> io::Result<()> {
    if let Some(hop_limit) = manner.hop_limit {
        set_hop_limit(socket, version, hop_limit)?;
    }
    forbid_fragments(socket, version, manner.dont_fragment)?;
    match version {
        Version::V4 => socket.set_tos_v4(u32::from(manner.dscp) << 2),
        Version::V6 => socket.set_tclass_v6(u32::from(manner.dscp) << 2),
    }
}

/// Says whether packets may be cut into fragments. Without a word the kernel forbids it where it explores the path's MTU, and the first
/// large packets are lost.
pub(super) fn forbid_fragments(socket: &Socket, version: Version, forbidden: bool) -> io::Result<()> {
    match version {
        Version::V4 => {
            let rule = if forbidden { libc::IP_PMTUDISC_DO } else { libc::IP_PMTUDISC_DONT };
            setsockopt(socket, MtuDiscoverV4, &rule)?;
        }
        Version::V6 => {
            let rule = if forbidden { libc::IPV6_PMTUDISC_DO } else { libc::IPV6_PMTUDISC_DONT };
            setsockopt(socket, MtuDiscoverV6, &rule)?;
        }
    }
    Ok(())
}

/// Another identifier for each raw socket of this process, from a random start: other processes use raw sockets, too.
pub(super) fn next_identifier() -> Result<u16, Failure> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static START: std::sync::OnceLock<u16> = std::sync::OnceLock::new();
    let start = match START.get() {
        Some(start) => *start,
        None => {
            let random = u16::from_ne_bytes(random()?);
            *START.get_or_init(|| random)
        }
    };
    Ok(start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// Random bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Failure::internal("the operating system gives no random numbers"))?;
    Ok(bytes)
}

/// A classic BPF program that lets only echo replies with this identifier through: a raw socket is handed every ICMP packet of the host,
/// which with a thousand of them costs a million wake-ups. IPv4 packets come with their IP header, ICMPv6 ones without.
pub(super) fn only_replies_to(version: Version, identifier: u16) -> [SockFilter; 7] {
    const LOAD_HEADER_LENGTH: u32 = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
    const LOAD_ZERO: u32 = libc::BPF_LDX | libc::BPF_IMM;
    const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_IND;
    const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_IND;
    const JUMP_UNLESS_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    // The codes fit: the kernel's are 16 bits wide.
    let step = |code: u32, unless: u8, value: u32| SockFilter::new(code as u16, 0, unless, value);
    let header = if version == Version::V4 { LOAD_HEADER_LENGTH } else { LOAD_ZERO };
    [
        step(header, 0, 0),
        step(LOAD_BYTE, 0, 0),
        step(JUMP_UNLESS_EQUAL, 3, version.echo_reply().into()),
        step(LOAD_HALF, 0, 4),
        step(JUMP_UNLESS_EQUAL, 1, identifier.into()),
        step(RETURN, 0, u32::MAX),
        step(RETURN, 0, 0),
    ]
}
