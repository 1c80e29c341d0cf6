//! One long-lived echo socket, its options, and the numbers by which the kernel stamps its packets.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, BorrowedFd},
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{TimestampingFlag, setsockopt, sockopt},
};
use socket2::Socket;

use super::{
    batch::{Ancillary, Batch, Packet, read_name},
    core::Request,
};
use crate::{
    failure::Failure,
    net::{
        errqueue::{self, SocketError},
        icmp,
    },
    wire::icmp::{HEADER, Version},
};

/// What is asked of the kernel for packets that wait for us, stamps of departure among them. It gives no more than `net.core.rmem_max`
/// without CAP_NET_ADMIN.
const BUFFER: usize = 8 << 20;

/// Departures whose stamps are awaited at most; older ones do without.
const MOST_AWAITED: usize = 1 << 16;

/// Where packets go and come: one socket for each family, and one more for each where fragmenting is forbidden, as that can't be said of a
/// single packet over IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Road {
    pub(super) version: Version,
    pub(super) dont_fragment: bool,
}

impl Road {
    /// How many there are.
    pub(super) const COUNT: usize = 4;

    /// Its number.
    pub(super) fn number(self) -> usize {
        usize::from(self.version == Version::V6) * 2 + usize::from(self.dont_fragment)
    }
}

/// A socket.
pub(super) struct Lane {
    socket: Socket,
    version: Version,
    raw: bool,
    /// Ours, on a raw socket; on a datagram socket the kernel has one and lets nothing else through.
    identifier: u16,
    /// The flags of SO_TIMESTAMPING, where the kernel knows them.
    stamping: Option<TimestampingFlag>,
    /// Whose departure the kernel numbers how: the cookie of the flight and the number of the request, for numbers from `first` on.
    awaited: VecDeque<(u64, usize)>,
    first: u32,
}

/// What a packet's control messages say.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// When it arrived, or departed, by the wall clock in nanoseconds since 1970.
    pub(super) stamp: Option<i64>,
    pub(super) hop_limit: Option<u8>,
    /// Packets dropped at the socket so far.
    pub(super) drops: Option<u32>,
    pub(super) error: Option<Report>,
}

/// An extended error.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) origin: u8,
    pub(super) data: u32,
    pub(super) error: SocketError,
}

impl Lane {
    /// Opens a socket in the caller's network namespace: a datagram one, or a raw one where that is not allowed. `target` is any of the
    /// family, for the sentence that says why there is none.
    pub(super) fn open(target: IpAddr, road: Road) -> Result<Self, Failure> {
        let (socket, raw) = icmp::open_either(target)?;
        let identifier = if raw { icmp::next_identifier()? } else { 0 };
        let prepared = Self::prepare(socket, road, raw, identifier);
        prepared.map_err(|error| Failure::of_io(format!("open an echo socket to {target}"), &error, crate::failure::Moment::AtOnce))
    }

    fn prepare(socket: Socket, road: Road, raw: bool, identifier: u16) -> io::Result<Self> {
        use TimestampingFlag as Flag;
        let version = road.version;
        icmp::forbid_fragments(&socket, version, road.dont_fragment)?;
        if raw {
            socket.attach_filter(&icmp::only_replies_to(version, identifier))?;
        }
        match version {
            Version::V4 => {
                errqueue::enable(&socket, Ipv4Addr::LOCALHOST.into())?;
                setsockopt(&socket, sockopt::Ipv4RecvTtl, &true)?;
            }
            Version::V6 => {
                errqueue::enable(&socket, Ipv6Addr::LOCALHOST.into())?;
                setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
            }
        }
        // What the kernel can't do is done without: counts stay 0, stamps are the process's own, buffers as large as they may be.
        let _ = setsockopt(&socket, sockopt::RxqOvfl, &1);
        if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
            let _ = socket.set_recv_buffer_size(BUFFER);
        }
        let _ = socket.set_send_buffer_size(BUFFER);
        let flags = Flag::SOF_TIMESTAMPING_RX_SOFTWARE
            | Flag::SOF_TIMESTAMPING_SOFTWARE
            | Flag::SOF_TIMESTAMPING_OPT_ID
            | Flag::SOF_TIMESTAMPING_OPT_TSONLY;
        let stamping = setsockopt(&socket, sockopt::Timestamping, &flags).is_ok().then_some(flags);
        if stamping.is_none() {
            let _ = setsockopt(&socket, sockopt::ReceiveTimestampns, &true);
        }
        Ok(Self { socket, version, raw, identifier, stamping, awaited: VecDeque::new(), first: 0 })
    }

    /// "datagram" or "raw".
    pub(super) fn style(&self) -> &'static str {
        if self.raw { "raw" } else { "datagram" }
    }

    /// Whether it is a raw socket, which hands over IPv4 headers and other people's errors.
    pub(super) fn is_raw(&self) -> bool {
        self.raw
    }

    /// The identifier of its requests, on a raw socket.
    pub(super) fn identifier(&self) -> u16 {
        self.identifier
    }

    /// Which protocol.
    pub(super) fn version(&self) -> Version {
        self.version
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Adds a request to a batch. `stamped`: the kernel is to stamp its departure.
    pub(super) fn add(&self, request: &Request, stamped: bool, out: &mut Batch) {
        let (version, identifier) = (self.version, self.identifier);
        out.add(
            request.target,
            HEADER + request.stuffing.size,
            |room| {
                let Some((header, payload)) = room.split_first_chunk_mut::<HEADER>() else { return };
                request.stuffing.write(request.sequence, payload);
                let [id_high, id_low] = identifier.to_be_bytes();
                let [high, low] = request.sequence.to_be_bytes();
                *header = [version.echo_request(), 0, 0, 0, id_high, id_low, high, low];
                if version == Version::V4 {
                    let sum = crate::wire::checksum::internet(room);
                    if let Some(field) = room.get_mut(2..4) {
                        field.copy_from_slice(&sum.to_be_bytes());
                    }
                }
            },
            |control| self.say(request, stamped && self.stamping.is_some(), control),
        );
    }

    /// The options of one packet. None of them costs a system call.
    fn say(&self, request: &Request, stamped: bool, control: &mut Ancillary<'_>) {
        let class = i32::from(request.manner.dscp) << 2;
        match self.version {
            Version::V4 => {
                if let Some(hops) = request.manner.hop_limit {
                    control.append(libc::IPPROTO_IP, libc::IP_TTL, &i32::from(hops).to_ne_bytes());
                }
                if class != 0 {
                    control.append(libc::IPPROTO_IP, libc::IP_TOS, &class.to_ne_bytes());
                }
                if let Some(IpAddr::V4(source)) = request.source {
                    // in_pktinfo: interface, our address, unused.
                    let mut info = [0; 12];
                    info[4..8].copy_from_slice(&source.octets());
                    control.append(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
                }
            }
            Version::V6 => {
                if let Some(hops) = request.manner.hop_limit {
                    control.append(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, &i32::from(hops).to_ne_bytes());
                }
                if class != 0 {
                    control.append(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &class.to_ne_bytes());
                }
                if let Some(IpAddr::V6(source)) = request.source {
                    // in6_pktinfo: our address, interface.
                    let mut info = [0; 20];
                    info[..16].copy_from_slice(&source.octets());
                    control.append(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
                }
            }
        }
        if stamped {
            control.append(libc::SOL_SOCKET, libc::SO_TIMESTAMPING, &TimestampingFlag::SOF_TIMESTAMPING_TX_SOFTWARE.bits().to_ne_bytes());
        }
    }

    /// A packet left whose departure the kernel stamps. To be called in the order of sending.
    pub(super) fn await_stamp(&mut self, whose: (u64, usize)) {
        if self.stamping.is_none() {
            return;
        }
        if self.awaited.len() >= MOST_AWAITED {
            self.awaited.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        self.awaited.push_back(whose);
    }

    /// Whose departure number `key` is.
    pub(super) fn departed(&self, key: u32) -> Option<(u64, usize)> {
        self.awaited.get(usize::try_from(key.wrapping_sub(self.first)).ok()?).copied()
    }

    /// A packet did not leave, and may or may not have been numbered: the kernel counts from 0 again with the next one. Stamps of packets
    /// that are still under way are lost.
    pub(super) fn recount(&mut self) {
        let Some(flags) = self.stamping else { return };
        let unnumbered = flags - TimestampingFlag::SOF_TIMESTAMPING_OPT_ID;
        let again = setsockopt(&self.socket, sockopt::Timestamping, &unnumbered)
            .and_then(|()| setsockopt(&self.socket, sockopt::Timestamping, &flags));
        if again.is_err() {
            self.stamping = None;
        }
        self.awaited.clear();
        self.first = 0;
    }

    /// Packets that the kernel dropped at this socket so far, by its own count, which needs no further packet to show.
    pub(super) fn drops(&self) -> Option<u32> {
        super::meminfo::drops(self.socket.as_fd())
    }

    /// Reads a packet's control messages.
    pub(super) fn told(&self, packet: &Packet<'_>) -> Told {
        let mut told = Told::default();
        let number = |data: &[u8]| data.first_chunk().copied().map(i32::from_ne_bytes);
        for (level, kind, data) in packet.control() {
            match (level, kind) {
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPING | libc::SCM_TIMESTAMPNS) => told.stamp = stamp(data),
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => told.drops = data.first_chunk().copied().map(u32::from_ne_bytes),
                (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                    told.hop_limit = number(data).and_then(|hops| u8::try_from(hops).ok());
                }
                (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => {
                    told.error = extended(data, packet.bytes);
                }
                _ => {}
            }
        }
        told
    }

    /// Opens the way for a retry: the error of an earlier packet is pending on the socket and was handed to whoever called next.
    pub(super) fn is_pending(error: &io::Error) -> bool {
        !matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EAGAIN | Errno::ENOBUFS))
    }
}

/// The first of the stamps: the software one. A timespec with 64 bits each.
fn stamp(data: &[u8]) -> Option<i64> {
    let seconds = i64::from_ne_bytes(*data.first_chunk()?);
    let nanoseconds = i64::from_ne_bytes(*data.get(8..)?.first_chunk()?);
    (seconds != 0).then(|| seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds))
}

/// A `sock_extended_err` (ip(7)) and who sent the error.
fn extended(data: &[u8], quote: &[u8]) -> Option<Report> {
    let (report, offender) = data.split_first_chunk::<16>()?;
    let [e0, e1, e2, e3, ee_origin, ee_type, ee_code, ee_pad, i0, i1, i2, i3, d0, d1, d2, d3] = *report;
    let (ee_errno, ee_info) = (u32::from_ne_bytes([e0, e1, e2, e3]), u32::from_ne_bytes([i0, i1, i2, i3]));
    let ee_data = u32::from_ne_bytes([d0, d1, d2, d3]);
    let report = libc::sock_extended_err { ee_errno, ee_origin, ee_type, ee_code, ee_pad, ee_info, ee_data };
    let error = errqueue::told(&report, read_name(offender), None, quote);
    Some(Report { origin: ee_origin, data: ee_data, error })
}
