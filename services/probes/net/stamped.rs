//! A packet socket with one peer whose departures, arrivals and errors are stamped by the kernel where it can: what ping and traceroute
//! send through.

use std::{
    collections::VecDeque,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, TimestampingFlag, recvmsg, send, sendto, setsockopt, sockopt},
        time::TimeSpec,
    },
};
use socket2::Socket;
use tokio::{io::Interest, net::UdpSocket};
use vantage_contract::v1::TimingSource;

use super::{
    errqueue::{self, Control, Queued, SocketError},
    stamp::{self, Reading},
};

/// How often in a row a socket may answer with an error before that is the answer.
const TRIES: u32 = 8;

/// How many errors are kept until somebody takes them.
const MOST_ERRORS: usize = 64;

/// A packet that left.
struct Departure {
    left: Reading,
    departed: Option<TimeSpec>,
}

/// A packet socket with one peer: UDP, echo or raw.
pub(crate) struct Stamped {
    /// tokio's type for any packet socket; it is polled through this and used through its descriptor.
    socket: UdpSocket,
    /// In the order of sending; a packet's place is its number.
    departures: Vec<Departure>,
    /// The number of the packet that the kernel counts as 0.
    counted_from: usize,
    /// The flags of SO_TIMESTAMPING, where the kernel knows them.
    stamping: Option<TimestampingFlag>,
    /// Errors that were found while looking for something else.
    errors: VecDeque<SocketError>,
    /// Where packets go, where the socket is not connected.
    peer: Option<SockaddrStorage>,
}

/// What came back.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A packet; its bytes are in the caller's buffer.
    Packet {
        /// How many bytes.
        length: usize,
        /// Who sent it.
        from: Option<IpAddr>,
        /// When, by the kernel.
        arrived: Option<TimeSpec>,
    },
    /// An ICMP error, or a local one.
    Error(SocketError),
}

impl Stamped {
    /// Takes over a connected socket of the family of `target`. What the kernel can't do (stamps, counts) is done without.
    pub(crate) fn new(socket: Socket, target: IpAddr) -> io::Result<Self> {
        errqueue::enable(&socket, target)?;
        Self::with(socket, None)
    }

    /// Takes over a socket that is not connected and sends to `target` alone. It takes packets from everybody, and errors are among them if
    /// it is a raw one: none are queued, for a raw socket's queue has everybody's.
    pub(crate) fn unconnected(socket: Socket, target: IpAddr) -> io::Result<Self> {
        Self::with(socket, Some(SocketAddr::new(target, 0).into()))
    }

    fn with(socket: Socket, peer: Option<SockaddrStorage>) -> io::Result<Self> {
        use TimestampingFlag as Flag;
        socket.set_nonblocking(true)?;
        let all = Flag::SOF_TIMESTAMPING_TX_SOFTWARE
            | Flag::SOF_TIMESTAMPING_RX_SOFTWARE
            | Flag::SOF_TIMESTAMPING_SOFTWARE
            | Flag::SOF_TIMESTAMPING_OPT_ID
            | Flag::SOF_TIMESTAMPING_OPT_TSONLY;
        let stamping = setsockopt(&socket, sockopt::Timestamping, &all).is_ok().then_some(all);
        if stamping.is_none() {
            // Without stamps of any kind the process's own count.
            let _ = setsockopt(&socket, sockopt::ReceiveTimestampns, &true);
        }
        let socket = UdpSocket::from_std(socket.into())?;
        Ok(Self { socket, departures: Vec::new(), counted_from: 0, stamping, errors: VecDeque::new(), peer })
    }

    /// The number of the packet that is sent next, from 0. Packets that did not leave have none.
    pub(crate) fn next_number(&self) -> u16 {
        u16::try_from(self.departures.len()).unwrap_or(u16::MAX)
    }

    /// The socket, for its options.
    pub(crate) fn as_socket(&self) -> socket2::SockRef<'_> {
        socket2::SockRef::from(&self.socket)
    }

    /// Sends a packet; its number is what [`next_number`](Self::next_number) was.
    pub(crate) fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        let left = Reading::now();
        let mut sent = self.hand_over(packet);
        if sent.is_err() {
            // An ICMP error about an earlier packet is handed to whoever calls next, so it may be none of this packet's business. And a
            // packet that did not leave may or may not have been counted: count anew from here.
            self.collect()?;
            self.recount();
            sent = self.hand_over(packet);
        }
        if sent.is_err() {
            self.recount();
        }
        match sent {
            Ok(_) => {
                self.departures.push(Departure { left, departed: None });
                Ok(())
            }
            Err(Errno::EAGAIN) => Err(Errno::ENOBUFS.into()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn hand_over(&self, packet: &[u8]) -> nix::Result<usize> {
        let fd = self.socket.as_raw_fd();
        match &self.peer {
            None => send(fd, packet, MsgFlags::MSG_DONTWAIT),
            Some(peer) => sendto(fd, packet, peer, MsgFlags::MSG_DONTWAIT),
        }
    }

    /// Makes the kernel count from 0 again with the next packet.
    fn recount(&mut self) {
        let Some(all) = self.stamping else { return };
        let uncounted = all - TimestampingFlag::SOF_TIMESTAMPING_OPT_ID;
        let again = setsockopt(&self.socket, sockopt::Timestamping, &uncounted)
            .and_then(|()| setsockopt(&self.socket, sockopt::Timestamping, &all));
        if again.is_err() {
            self.stamping = None;
        }
        self.counted_from = self.departures.len();
    }

    /// Waits until something may have come back.
    pub(crate) async fn ready(&self) -> io::Result<()> {
        if !self.errors.is_empty() {
            // The kernel has said all about these; others get their turn first.
            tokio::task::yield_now().await;
            return Ok(());
        }
        self.socket.ready(Interest::READABLE | Interest::ERROR).await.map(|_| ())
    }

    /// Takes what came back, without waiting: None where there is nothing. The packet's bytes go to `buffer`.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Arrival>> {
        let mut failure = io::ErrorKind::Other.into();
        for _ in 0..TRIES {
            // Cleared before the queue is emptied: what comes in between wakes `ready` again.
            let _ = self.socket.try_io(Interest::ERROR, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
            // Stamps of departure come through the error queue and belong before the answers.
            self.collect()?;
            if let Some(error) = self.errors.pop_front() {
                return Ok(Some(Arrival::Error(error)));
            }
            let fd = self.socket.as_raw_fd();
            let mut control = Control::new();
            let taken = self.socket.try_io(Interest::READABLE, || {
                let mut parts = [IoSliceMut::new(buffer)];
                let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control.0), MsgFlags::MSG_DONTWAIT)?;
                let mut packet = (message.bytes, message.address.as_ref().and_then(address_of), None);
                for part in message.cmsgs()? {
                    match part {
                        ControlMessageOwned::ScmTimestampsns(stamps) => packet.2 = Some(stamps.system),
                        ControlMessageOwned::ScmTimestampns(at) => packet.2 = Some(at),
                        _ => {}
                    }
                }
                Ok(packet)
            });
            match taken {
                Ok((length, from, arrived)) => return Ok(Some(Arrival::Packet { length, from, arrived })),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(self.errors.pop_front().map(Arrival::Error)),
                // The errno of a queued error, or an interruption: the queue has the whole story.
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// From the departure of packet `number` to an arrival that the kernel stamped `arrived`, or that is seen just now.
    pub(crate) fn round_trip(&mut self, number: u16, arrived: Option<TimeSpec>) -> Option<(Duration, TimingSource)> {
        let seen = Reading::now();
        if self.departures.get(usize::from(number))?.departed.is_none() {
            // The stamp may have come since the queue was read. An error here shows again in the next `receive`.
            let _ = self.collect();
        }
        let departure = self.departures.get(usize::from(number))?;
        Some(stamp::round_trip(&departure.left, departure.departed, &seen, arrived))
    }

    /// Empties the error queue: stamps go where they belong, errors are kept. A flood stays in the kernel, which bounds it.
    fn collect(&mut self) -> io::Result<()> {
        while self.errors.len() < MOST_ERRORS
            && let Some(queued) = errqueue::read(&self.socket)?
        {
            match queued {
                Queued::Error(error) => self.errors.push_back(error),
                Queued::Departed { key, at } => {
                    let number = usize::try_from(key).unwrap_or(usize::MAX).saturating_add(self.counted_from);
                    if let Some(departure) = self.departures.get_mut(number) {
                        departure.departed = Some(at);
                    }
                }
            }
        }
        Ok(())
    }
}

fn address_of(address: &SockaddrStorage) -> Option<IpAddr> {
    if let Some(address) = address.as_sockaddr_in() {
        return Some(address.ip().into());
    }
    address.as_sockaddr_in6().map(|address| address.ip().into())
}
