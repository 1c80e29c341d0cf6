//! Connected UDP sockets: they hear their peer only, and the errors about what they sent.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::UdpSocket;

use crate::failure::{Failure, Moment};

/// A UDP socket connected to one peer. Nobody else's datagrams get in, and a closed port shows at once.
pub(crate) struct Connected {
    socket: UdpSocket,
    remote: SocketAddr,
}

impl Connected {
    /// Opens a socket to `remote`, from `source` where given. Sends nothing; fails where there is no route or no descriptor left.
    pub(crate) fn open(remote: SocketAddr, source: Option<IpAddr>) -> Result<Self, Failure> {
        let at_once = |error: &io::Error| Failure::of_io(format!("reach {remote} over udp"), error, Moment::AtOnce);
        let socket = Socket::new(Domain::for_address(remote), Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))
            .map_err(|error| at_once(&error))?;
        if let Some(source) = source {
            socket
                .bind(&SockAddr::from(SocketAddr::new(source, 0)))
                .map_err(|error| Failure::of_io(format!("bind to {source}"), &error, Moment::AtOnce))?;
        }
        socket.connect(&SockAddr::from(remote)).map_err(|error| at_once(&error))?;
        let socket = UdpSocket::from_std(socket.into()).map_err(|error| at_once(&error))?;
        Ok(Self { socket, remote })
    }

    /// Sends a datagram. An error that came back about an earlier one shows here too.
    pub(crate) async fn send(&self, bytes: &[u8]) -> Result<(), Failure> {
        match self.socket.send(bytes).await {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::of_io(format!("send to {} over udp", self.remote), &error, Moment::AtOnce)),
        }
    }

    /// Receives the next datagram of the peer, or the error that came back instead. What does not fit into `buffer` is cut off.
    pub(crate) async fn receive(&self, buffer: &mut [u8]) -> Result<usize, Failure> {
        match self.socket.recv(buffer).await {
            Ok(length) => Ok(length),
            Err(error) => Err(Failure::of_io(format!("ask {} over udp", self.remote), &error, Moment::Later)),
        }
    }
}
