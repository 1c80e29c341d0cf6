//! The socket's error queue (`IP_RECVERR`, ip(7)): which ICMP error came back, from whom, about which packet. It needs no privilege and
//! works for UDP, TCP, echo and raw sockets alike. When transmit timestamps are on, they come out of the same queue.
//!
//! Two habits of the kernel: a queued error is also pending on the socket, so the next call on it (`send`, too) returns its errno once,
//! whatever that call was about; and an error wakes a poller with EPOLLERR alone, so wait for [`tokio::io::Interest::ERROR`] as well as
//! for readability. One habit of tokio (1.54): `ready` takes a union of interests, but `try_io` knows single ones only and answers "would
//! block" to a union without trying, which makes a busy loop: `ready(READABLE | ERROR)`, then `try_io(ERROR, ..)`, then `try_io(READABLE, ..)`.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd},
};

use nix::{
    errno::Errno,
    libc,
    sys::{
        socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt, sockopt::SetStruct},
        time::TimeSpec,
    },
};
use vantage_contract::v1::{Attribution, IcmpError, Reason};

use crate::{
    failure::Failure,
    wire::icmp::{self, Meaning, Version},
};

/// IP_RECVERR_RFC4884 (linux/in.h), which libc does not know.
const RECVERR_RFC4884_V4: libc::c_int = 26;
/// IPV6_RECVERR_RFC4884 (linux/in6.h).
const RECVERR_RFC4884_V6: libc::c_int = 31;
/// Whether errors of IPv4 tell where their extensions begin.
#[derive(Debug, Clone, Copy)]
struct ExtensionsV4;
/// Whether errors of IPv6 tell where their extensions begin.
#[derive(Debug, Clone, Copy)]
struct ExtensionsV6;
nix::setsockopt_impl!(ExtensionsV4, libc::IPPROTO_IP, RECVERR_RFC4884_V4, libc::c_int, SetStruct<'_, libc::c_int>);
nix::setsockopt_impl!(ExtensionsV6, libc::IPPROTO_IPV6, RECVERR_RFC4884_V6, libc::c_int, SetStruct<'_, libc::c_int>);

/// How much of the offending packet is kept. Routers of IPv4 quote 8 bytes beyond the IP header, or up to 548 (RFC 1812).
const QUOTE: usize = 576;

/// Room for the control messages of one packet: an extended error with its address, three timestamps, hop limit, drop counter.
#[repr(align(8))]
pub(crate) struct Control(pub(crate) [u8; 320]);

impl Control {
    pub(crate) fn new() -> Self {
        Self([0; 320])
    }
}

/// Where an error was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This machine: a packet larger than the interface takes, for instance.
    Local,
    /// An ICMP message, of that version.
    Icmp(Version),
}

/// An error about something that this socket sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketError {
    /// Where it was made.
    pub origin: Origin,
    /// Who sent the ICMP message. None for local errors.
    pub from: Option<IpAddr>,
    /// The ICMP type; 0 for local errors.
    pub kind: u8,
    /// The ICMP code; 0 for local errors.
    pub code: u8,
    /// What the kernel makes of it.
    pub errno: Errno,
    /// The MTU, where the error is that a packet was too large.
    pub info: u32,
    /// When it arrived, by the kernel's wall clock, where the socket asked for receive timestamps.
    pub arrived: Option<TimeSpec>,
    /// What the error quotes of the packet: for UDP sockets what comes after the UDP header, for echo and raw sockets what begins with
    /// the ICMP header, for TCP nothing that could be relied on. Routers may quote as little as 8 bytes beyond the IP header, so it may be empty.
    pub quote: Vec<u8>,
    /// Where an extension structure (RFC 4884) begins in `quote`, where the error tells and the kernel knows of them (5.9 or later).
    pub extension_at: Option<usize>,
}

impl SocketError {
    /// What it says, in words and as a reason: "port unreachable".
    pub fn meaning(&self) -> Meaning {
        match self.origin {
            Origin::Icmp(version) => Meaning::of(version, self.kind, self.code),
            Origin::Local => Meaning { words: "refused by this machine", reason: Reason::LocalNetwork },
        }
    }

    /// As the contract carries it. None for local errors, which are no ICMP messages.
    pub fn to_proto(&self) -> Option<IcmpError> {
        let Origin::Icmp(_) = self.origin else { return None };
        Some(IcmpError {
            from: self.from.map(|from| from.to_string()).unwrap_or_default(),
            r#type: self.kind.into(),
            code: self.code.into(),
            meaning: self.meaning().words.to_owned(),
        })
    }

    /// What it makes of a run: `act` is what was being done, with its subject ("ping 192.0.2.1"); an error from `target` itself is the
    /// target's, any other the path's.
    pub fn failure(&self, act: impl std::fmt::Display, target: IpAddr) -> Failure {
        let Origin::Icmp(_) = self.origin else {
            let attribution = if self.errno == Errno::EMSGSIZE { Attribution::Path } else { Attribution::Vantage };
            let reason = if self.errno == Errno::EMSGSIZE { Reason::Unreachable } else { Reason::LocalNetwork };
            let mtu = if self.errno == Errno::EMSGSIZE { format!(" (MTU {})", self.info) } else { String::new() };
            return Failure::new(reason, attribution, format!("{act}: {}{mtu}", self.errno.desc().to_lowercase()));
        };
        let meaning = self.meaning();
        let from = self.from.map_or_else(String::new, |from| format!(", says {from}"));
        Failure::new(
            meaning.reason,
            icmp::attribution(self.from, target),
            format!("{act}: {} (type {} code {}){from}", meaning.words, self.kind, self.code),
        )
    }
}

/// What the queue holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Queued {
    /// An error.
    Error(SocketError),
    /// The moment in which a packet left, by the kernel's wall clock. `key` counts the packets since `SOF_TIMESTAMPING_OPT_ID` was set.
    Departed {
        /// The packet's number.
        key: u32,
        /// When.
        at: TimeSpec,
    },
}

/// Asks the kernel to queue errors about what this socket sends. `address` is any of the socket's family.
pub fn enable(socket: impl AsFd, address: IpAddr) -> io::Result<()> {
    match address {
        IpAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
        IpAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
    }
    Ok(())
}

/// The same, for who looks into the extensions of errors (RFC 4884): where they begin is told, too.
pub fn enable_with_extensions(socket: impl AsFd, address: IpAddr) -> io::Result<()> {
    enable(&socket, address)?;
    // An older kernel does not know of it, and then an extension is looked for where most are.
    let _ = match address {
        IpAddr::V4(_) => setsockopt(&socket, ExtensionsV4, &1),
        IpAddr::V6(_) => setsockopt(&socket, ExtensionsV6, &1),
    };
    Ok(())
}

/// Takes the next entry of the queue, without waiting. None where it is empty.
pub fn read(socket: impl AsFd) -> io::Result<Option<Queued>> {
    let mut quote = [0; QUOTE];
    let mut control = Control::new();
    loop {
        let mut parts = [IoSliceMut::new(&mut quote)];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let fd = socket.as_fd().as_raw_fd();
        let message = match recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control.0), flags) {
            Ok(message) => message,
            Err(Errno::EINTR) => continue,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let length = message.bytes.min(QUOTE);
        let mut stamp = None;
        let mut error = None;
        for part in message.cmsgs()? {
            match part {
                ControlMessageOwned::ScmTimestampsns(stamps) => stamp = Some(stamps.system),
                ControlMessageOwned::ScmTimestampns(at) => stamp = Some(at),
                ControlMessageOwned::Ipv4RecvErr(report, from) => {
                    error = Some((report, from.map(|from| IpAddr::from(Ipv4Addr::from(u32::from_be(from.sin_addr.s_addr))))));
                }
                ControlMessageOwned::Ipv6RecvErr(report, from) => {
                    error = Some((report, from.map(|from| IpAddr::from(Ipv6Addr::from(from.sin6_addr.s6_addr)).to_canonical())));
                }
                _ => {}
            }
        }
        match error {
            Some((report, _)) if report.ee_origin == libc::SO_EE_ORIGIN_TIMESTAMPING => {
                if let Some(at) = stamp {
                    return Ok(Some(Queued::Departed { key: report.ee_data, at }));
                }
            }
            Some((report, from)) => {
                return Ok(Some(Queued::Error(told(&report, from, stamp, quote.get(..length).unwrap_or_default()))));
            }
            // Neither: nothing that this file knows; the next one.
            None => {}
        }
    }
}

/// Takes the next error of the queue, without waiting; timestamps before it are dropped. None where there is none.
pub fn take_error(socket: impl AsFd) -> io::Result<Option<SocketError>> {
    loop {
        match read(&socket)? {
            Some(Queued::Error(error)) => return Ok(Some(error)),
            Some(Queued::Departed { .. }) => {}
            None => return Ok(None),
        }
    }
}

/// An extended error, with who sent it and what it quotes, as the rest of the house knows it.
pub(super) fn told(report: &libc::sock_extended_err, from: Option<IpAddr>, arrived: Option<TimeSpec>, quote: &[u8]) -> SocketError {
    let origin = match report.ee_origin {
        libc::SO_EE_ORIGIN_ICMP => Origin::Icmp(Version::V4),
        libc::SO_EE_ORIGIN_ICMP6 => Origin::Icmp(Version::V6),
        _ => Origin::Local,
    };
    let is_icmp = origin != Origin::Local;
    SocketError {
        origin,
        from: from.filter(|from| is_icmp && !from.is_unspecified()),
        kind: if is_icmp { report.ee_type } else { 0 },
        code: if is_icmp { report.ee_code } else { 0 },
        errno: Errno::from_raw(i32::try_from(report.ee_errno).unwrap_or_default()),
        info: report.ee_info,
        arrived,
        quote: quote.to_vec(),
        extension_at: if is_icmp { extension_at(report.ee_data) } else { None },
    }
}

/// What the kernel writes into the extended error's data as `struct sock_ee_data_rfc4884` (linux/errqueue.h): the offset in two bytes, and
/// in a third whether it found the structure broken, which our own reading finds, too.
fn extension_at(data: u32) -> Option<usize> {
    let [o0, o1, _, _] = data.to_ne_bytes();
    match u16::from_ne_bytes([o0, o1]) {
        0 => None,
        offset => Some(offset.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use tokio::io::Interest;

    use super::*;

    async fn error_of_a_closed_port(any: &str, loopback: &str) -> SocketError {
        let closed = UdpSocket::bind(any).unwrap().local_addr().unwrap();
        let socket = UdpSocket::bind(any).unwrap();
        socket.set_nonblocking(true).unwrap();
        enable(&socket, closed.ip()).unwrap();
        socket.connect(closed).unwrap();
        socket.send(b"who is there").unwrap();
        assert_eq!(closed.ip().to_string(), loopback);
        let socket = tokio::net::UdpSocket::from_std(socket).unwrap();
        loop {
            socket.ready(Interest::READABLE | Interest::ERROR).await.unwrap();
            let taken = socket.try_io(Interest::ERROR, || take_error(&socket)?.ok_or(io::ErrorKind::WouldBlock.into()));
            if let Ok(error) = taken {
                return error;
            }
        }
    }

    #[tokio::test]
    async fn a_closed_udp_port_says_so_and_who_said_it() {
        let target = IpAddr::from([127, 0, 0, 1]);
        let error = error_of_a_closed_port("127.0.0.1:0", "127.0.0.1").await;
        assert_eq!((error.origin, error.kind, error.code, error.from), (Origin::Icmp(Version::V4), 3, 3, Some(target)));
        assert_eq!((error.errno, error.quote.as_slice()), (Errno::ECONNREFUSED, b"who is there".as_slice()));
        let failure = error.failure("send to 127.0.0.1:9", target);
        assert_eq!((failure.reason, failure.attribution), (Reason::Refused, Attribution::Target));
        assert_eq!(failure.sentence, "send to 127.0.0.1:9: port unreachable (type 3 code 3), says 127.0.0.1");
    }

    #[tokio::test]
    async fn icmpv6_errors_keep_their_own_numbers() {
        let error = error_of_a_closed_port("[::1]:0", "::1").await;
        assert_eq!((error.origin, error.kind, error.code), (Origin::Icmp(Version::V6), 1, 4));
        assert_eq!(error.from, Some(IpAddr::from(Ipv6Addr::LOCALHOST)));
        assert_eq!(error.to_proto().unwrap().meaning, "port unreachable");
    }

    #[test]
    fn an_empty_queue_is_not_an_error() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        enable(&socket, IpAddr::from([127, 0, 0, 1])).unwrap();
        assert_eq!(read(&socket).unwrap(), None);
    }
}
