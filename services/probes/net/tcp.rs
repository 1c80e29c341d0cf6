//! TCP connections whose errors are told apart.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use nix::errno::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::TcpStream;

use crate::failure::{Failure, Moment};

/// Connects to `remote`, from `source` where given. An error says whether it was ours (no route, no descriptors, no permission) or came
/// back from the network: `connect` fails at once for the former, and through `SO_ERROR` for the latter.
pub async fn connect(remote: SocketAddr, source: Option<IpAddr>) -> Result<TcpStream, Failure> {
    let act = || format!("connect to {remote}");
    let at_once = |error: &io::Error| Failure::of_io(act(), error, Moment::AtOnce);

    let socket = Socket::new(Domain::for_address(remote), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))
        .map_err(|error| at_once(&error))?;
    socket.set_tcp_nodelay(true).map_err(|error| at_once(&error))?;
    if let Some(source) = source {
        socket
            .bind(&SockAddr::from(SocketAddr::new(source, 0)))
            .map_err(|error| Failure::of_io(format!("bind to {source}"), &error, Moment::AtOnce))?;
    }
    let later = match socket.connect(&SockAddr::from(remote)) {
        Ok(()) => false,
        Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => true,
        // Loopback answers a SYN within the call itself: refused at once is still the target's word.
        Err(error) => return Err(at_once(&error)),
    };
    let stream = TcpStream::from_std(socket.into()).map_err(|error| at_once(&error))?;
    if later {
        stream.writable().await.map_err(|error| Failure::of_io(act(), &error, Moment::Later))?;
        if let Some(error) = stream.take_error().map_err(|error| at_once(&error))? {
            return Err(Failure::of_io(act(), &error, Moment::Later));
        }
    }
    Ok(stream)
}
