//! Connected UDP sockets: they hear their peer only, and the errors about what they sent.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use nix::sys::{
    socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt},
    time::TimeSpec,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::{io::Interest, net::UdpSocket};
use vantage_contract::v1::{IcmpError, TimingSource};

use super::{
    errqueue::{self, Control},
    stamp::{self, Reading},
};
use crate::failure::{Failure, Moment};

/// The largest datagram.
const MAX_DATAGRAM: usize = 65_535;

/// A UDP socket connected to one peer. Nobody else's datagrams get in, and what routers and the peer say about ours is heard
/// (`IP_RECVERR`; without it Linux keeps all but port unreachable to itself).
pub(crate) struct Connected {
    socket: UdpSocket,
    remote: SocketAddr,
}

/// A datagram that came.
pub(crate) struct Received {
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
    /// When it was taken from the kernel.
    seen: Reading,
    /// When it came, by the kernel.
    arrived: Option<TimeSpec>,
}

impl Received {
    /// How long it took to come, from `left`, which was read before the request was handed to the kernel.
    pub(crate) fn since(&self, left: &Reading) -> (Duration, TimingSource) {
        stamp::round_trip(left, None, &self.seen, self.arrived)
    }
}

/// An error of a socket, with the ICMP error behind it where there was one.
#[derive(Debug)]
pub(crate) struct Trouble {
    /// What it makes of the run.
    pub(crate) failure: Failure,
    /// The ICMP error.
    pub(crate) error: Option<IcmpError>,
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        trouble.failure
    }
}

impl Connected {
    /// Opens a socket to `remote`, from `source` where given. Sends nothing; fails where there is no route or no descriptor left.
    pub(crate) fn open(remote: SocketAddr, source: Option<IpAddr>) -> Result<Self, Failure> {
        let at_once = |error: &io::Error| Failure::of_io(format!("reach {remote} over udp"), error, Moment::AtOnce);
        let socket = Socket::new(Domain::for_address(remote), Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))
            .map_err(|error| at_once(&error))?;
        errqueue::enable(&socket, remote.ip()).map_err(|error| at_once(&error))?;
        // Where the kernel can't stamp, the process's own clock counts.
        let _ = setsockopt(&socket, sockopt::ReceiveTimestampns, &true);
        if let Some(source) = source {
            socket
                .bind(&SockAddr::from(SocketAddr::new(source, 0)))
                .map_err(|error| Failure::of_io(format!("bind to {source}"), &error, Moment::AtOnce))?;
        }
        socket.connect(&SockAddr::from(remote)).map_err(|error| at_once(&error))?;
        let socket = UdpSocket::from_std(socket.into()).map_err(|error| at_once(&error))?;
        Ok(Self { socket, remote })
    }

    /// The local address and port.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    /// Sends a datagram. An error that came back about an earlier one shows here too.
    pub(crate) async fn send(&self, bytes: &[u8]) -> Result<(), Trouble> {
        match self.socket.send(bytes).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.trouble("send to", &error, Moment::AtOnce)),
        }
    }

    /// Receives the next datagram of the peer, whole, or the error that came back instead.
    pub(crate) async fn receive(&self) -> Result<Received, Trouble> {
        loop {
            let ready = self.socket.ready(Interest::READABLE | Interest::ERROR).await;
            ready.map_err(|error| self.trouble("wait for", &error, Moment::AtOnce))?;
            match self.socket.try_io(Interest::READABLE, || take(&self.socket)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok((bytes, arrived)) => return Ok(Received { bytes, seen: Reading::now(), arrived }),
                Err(error) => return Err(self.trouble("ask", &error, Moment::Later)),
            }
            // A queued error is pending on the socket as well, so receiving has told it; this clears what woke us otherwise.
            let taken =
                self.socket.try_io(Interest::ERROR, || errqueue::take_error(&self.socket)?.ok_or_else(|| io::ErrorKind::WouldBlock.into()));
            if let Ok(error) = taken {
                return Err(self.told("ask", &error));
            }
        }
    }

    /// The ICMP error behind an error of the socket tells more than its number.
    fn trouble(&self, act: &str, error: &io::Error, moment: Moment) -> Trouble {
        match errqueue::take_error(&self.socket) {
            Ok(Some(error)) => self.told(act, &error),
            _ => Trouble { failure: Failure::of_io(format!("{act} {} over udp", self.remote), error, moment), error: None },
        }
    }

    fn told(&self, act: &str, error: &errqueue::SocketError) -> Trouble {
        let failure = error.failure(format!("{act} {} over udp", self.remote), self.remote.ip().to_canonical());
        Trouble { failure, error: error.to_proto() }
    }
}

/// Takes a datagram, without waiting. The buffer lives here and not in the future: a thousand probes that wait hold no memory for it.
fn take(socket: impl AsFd) -> io::Result<(Vec<u8>, Option<TimeSpec>)> {
    let mut buffer = [0; MAX_DATAGRAM];
    let mut control = Control::new();
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let fd = socket.as_fd().as_raw_fd();
    let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control.0), MsgFlags::MSG_DONTWAIT)?;
    let arrived = message.cmsgs()?.find_map(|part| match part {
        ControlMessageOwned::ScmTimestampns(at) => Some(at),
        _ => None,
    });
    let length = message.bytes;
    Ok((buffer[..length].to_vec(), arrived))
}
