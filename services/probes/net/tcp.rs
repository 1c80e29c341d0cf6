//! TCP connections whose errors are told apart.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd as _},
    time::Duration,
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{setsockopt, sockopt},
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use vantage_contract::v1::{Attribution, IcmpError, Reason};

use crate::{
    failure::{Failure, Moment},
    net::errqueue,
};

/// TCP_ESTABLISHED (linux/tcp_states.h), which libc does not know.
const ESTABLISHED: u8 = 1;

/// Why there is no connection.
#[derive(Debug, Clone)]
pub struct ConnectError {
    /// The failure.
    pub failure: Failure,
    /// The ICMP error that it came from. None: another cause.
    pub icmp: Option<IcmpError>,
    /// How often the kernel had to send the SYN again.
    pub syn_retransmits: u32,
}

impl From<Failure> for ConnectError {
    fn from(failure: Failure) -> Self {
        Self { failure, icmp: None, syn_retransmits: 0 }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        error.failure
    }
}

/// A connection over which nothing was said yet. It is not prepared for that, and nobody waits for what comes over it: where nothing is to be
/// said, that saves five system calls of twelve.
#[derive(Debug)]
pub struct Connected {
    socket: Link,
    /// What the kernel knew of it when it was made.
    pub account: Account,
    /// The address and port on this side.
    pub local: SocketAddr,
}

#[derive(Debug)]
enum Link {
    /// It was made within the call.
    New(Socket),
    /// It was waited for.
    Awaited(TcpStream),
}

impl Connected {
    /// The stream over which to say something. Errors: the kernel does not watch any more of them (`fs.epoll.max_user_watches`).
    pub fn speak(self) -> Result<TcpStream, Failure> {
        let failed = |error: &io::Error| Failure::of_io(format!("a connection from {}", self.local), error, Moment::AtOnce);
        let stream = match self.socket {
            Link::New(socket) => TcpStream::from_std(socket.into()).map_err(|error| failed(&error))?,
            Link::Awaited(stream) => stream,
        };
        stream.set_nodelay(true).map_err(|error| failed(&error))?;
        // From here on an ICMP error is a hint that TCP may outlive (RFC 1122 section 4.2.3.9), as long as nobody asks for it.
        match self.local {
            SocketAddr::V4(_) => setsockopt(&stream, sockopt::Ipv4RecvErr, &false),
            SocketAddr::V6(_) => setsockopt(&stream, sockopt::Ipv6RecvErr, &false),
        }
        .map_err(|errno| failed(&errno.into()))?;
        Ok(stream)
    }
}

/// Connects to `remote`, from `source` where given. An error says whether it was ours (no route, no descriptors, no permission) or came
/// back from the network: `connect` fails at once for the former, and through the socket's error, with the ICMP message that caused it in
/// the error queue, for the latter.
pub async fn connect(remote: SocketAddr, source: Option<IpAddr>) -> Result<TcpStream, ConnectError> {
    Ok(connect_by(remote, source, None).await?.speak()?)
}

/// The same, given up at an instant; the error tells how often the SYN was sent by then. (The kernel sends it again after 1 s, 3 s, 7 s and so
/// on, `net.ipv4.tcp_syn_retries` times.)
pub async fn connect_by(remote: SocketAddr, source: Option<IpAddr>, end: Option<Instant>) -> Result<Connected, ConnectError> {
    let act = || format!("connect to {remote}");
    let at_once = |error: io::Error| Failure::of_io(act(), &error, Moment::AtOnce);

    let socket = Socket::new(Domain::for_address(remote), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP)).map_err(at_once)?;
    errqueue::enable(&socket, remote.ip()).map_err(at_once)?;
    if let Some(source) = source {
        // The port is chosen when connecting: only then does the kernel know that a port may serve several destinations.
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true).map_err(|errno| at_once(errno.into()))?;
        socket
            .bind(&SockAddr::from(SocketAddr::new(source, 0)))
            .map_err(|error| Failure::of_io(format!("bind to {source}"), &error, Moment::AtOnce))?;
    }
    match socket.connect(&SockAddr::from(remote)) {
        Ok(()) => {}
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EINPROGRESS) => {}
            // With a route and a source address, all that can be missing is a free port (connect(2)).
            Some(Errno::EADDRNOTAVAIL) if remote.is_ipv4() || source.is_some() => {
                let sentence = format!("{}: no local port is free", act());
                return Err(Failure::new(Reason::ResourceExhausted, Attribution::Vantage, sentence).into());
            }
            // Nobody can have said so yet but our own table of routes.
            Some(Errno::EHOSTUNREACH) => {
                return Err(Failure::new(Reason::LocalNetwork, Attribution::Vantage, format!("{}: no route to host", act())).into());
            }
            // Loopback answers a SYN within the call itself: refused at once is still the target's word.
            _ => return Err(at_once(error).into()),
        },
    }
    let connected = match made(socket, remote)? {
        // What is near, as a port of this machine is, has answered within the call: nobody has to be woken for it, and it is timed as it came.
        Progress::Made(connected) => connected,
        Progress::Pending(socket) => awaited(TcpStream::from_std(socket.into()).map_err(at_once)?, remote, end).await?,
    };
    // Without a listener a port of loopback can be given to its own caller, who then talks to itself (a simultaneous open, RFC 9293
    // section 3.5): nobody is there.
    if connected.local == remote {
        return Err(Failure::of_io(act(), &Errno::ECONNREFUSED.into(), Moment::Later).into());
    }
    Ok(connected)
}

/// How far connecting has come.
enum Progress {
    Made(Connected),
    Pending(Socket),
}

/// Whether a connection that was asked for has been made already.
fn made(socket: Socket, remote: SocketAddr) -> Result<Progress, ConnectError> {
    let told = info(&socket);
    if told.is_none_or(|told| told.tcpi_state != ESTABLISHED) {
        // Asking again says so where it is, and takes the error where there is one.
        match socket.connect(&SockAddr::from(remote)) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::EALREADY as i32) => return Ok(Progress::Pending(socket)),
            Err(error) => return Err(refused(&socket, remote, &error)),
        }
    }
    let local = local(socket.local_addr().map(|local| local.as_socket()), remote)?;
    let account = told.map(Account::from).unwrap_or_default();
    Ok(Progress::Made(Connected { socket: Link::New(socket), account, local }))
}

/// Waits for a connection.
async fn awaited(stream: TcpStream, remote: SocketAddr, end: Option<Instant>) -> Result<Connected, ConnectError> {
    let at_once = |error: io::Error| Failure::of_io(format!("connect to {remote}"), &error, Moment::AtOnce);
    let writable = stream.writable();
    let writable = match end {
        None => writable.await,
        Some(end) => match timeout_at(end, writable).await {
            Ok(writable) => writable,
            Err(_) => {
                let failure = Failure::timed_out(format!("connecting to {remote}"));
                return Err(ConnectError { failure, icmp: None, syn_retransmits: account(&stream).unwrap_or_default().retransmits });
            }
        },
    };
    writable.map_err(at_once)?;
    if let Some(error) = stream.take_error().map_err(at_once)? {
        return Err(refused(&stream, remote, &error));
    }
    let local = local(stream.local_addr().map(Some), remote)?;
    Ok(Connected { account: account(&stream).unwrap_or_default(), local, socket: Link::Awaited(stream) })
}

/// The address on this side of a connection.
fn local(told: io::Result<Option<SocketAddr>>, remote: SocketAddr) -> Result<SocketAddr, Failure> {
    let failed = |error: &io::Error| Failure::of_io(format!("the address from which to connect to {remote}"), error, Moment::AtOnce);
    told.and_then(|local| local.ok_or_else(|| Errno::EAFNOSUPPORT.into())).map_err(|error| failed(&error))
}

/// A connection that failed later: by an ICMP message, if the queue has one, or by what the socket says.
fn refused(socket: impl AsFd, remote: SocketAddr, error: &io::Error) -> ConnectError {
    let act = format!("connect to {remote}");
    let syn_retransmits = account(&socket).unwrap_or_default().retransmits;
    let (failure, icmp) = match errqueue::take_error(socket) {
        Ok(Some(queued)) => (queued.failure(act, remote.ip()), queued.to_proto()),
        // A reset in answer to a SYN is a refusal; Linux says so itself, but not where the SYN had been answered.
        Ok(None) | Err(_) if error.raw_os_error() == Some(Errno::ECONNRESET as i32) => {
            (Failure::target(Reason::Refused, format!("{act}: connection reset while connecting")), None)
        }
        Ok(None) | Err(_) => (Failure::of_io(act, error, Moment::Later), None),
    };
    ConnectError { failure, icmp, syn_retransmits }
}

/// What the kernel knows of a connection (`TCP_INFO`, tcp(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Account {
    /// The smoothed round trip, in whole microseconds. None where it has none yet.
    pub round_trip: Option<Duration>,
    /// Segments sent again, SYNs too, since the beginning.
    pub retransmits: u32,
    /// The most bytes that a segment carries that way.
    pub segment_size: u32,
}

impl From<libc::tcp_info> for Account {
    fn from(info: libc::tcp_info) -> Self {
        Self {
            round_trip: (info.tcpi_rtt > 0).then(|| Duration::from_micros(info.tcpi_rtt.into())),
            retransmits: info.tcpi_total_retrans,
            segment_size: info.tcpi_snd_mss,
        }
    }
}

/// What the kernel knows of a connection. None: nothing, as it is no socket of TCP.
pub fn account(socket: &impl AsFd) -> Option<Account> {
    info(socket).map(Account::from)
}

fn info(socket: &impl AsFd) -> Option<libc::tcp_info> {
    // SAFETY: `tcp_info` is a C struct of integers, for which all zeroes is a value.
    #[expect(unsafe_code, reason = "neither nix nor socket2 reads TCP_INFO")]
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open as long as `socket` is borrowed; the kernel writes at most `length` bytes into `info`, which has that
    // many, and leaves those that it does not know as they are.
    #[expect(unsafe_code, reason = "neither nix nor socket2 reads TCP_INFO")]
    let status =
        unsafe { libc::getsockopt(descriptor, libc::IPPROTO_TCP, libc::TCP_INFO, std::ptr::from_mut(&mut info).cast(), &raw mut length) };
    (status == 0).then_some(info)
}

/// The kernel's smoothed round trip of a connection. None where it has none yet.
pub fn kernel_round_trip(stream: &TcpStream) -> Option<Duration> {
    account(stream)?.round_trip
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    fn loopback(port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    #[tokio::test]
    async fn a_connection_has_a_round_trip_in_the_kernel() {
        let listener = TcpListener::bind(loopback(0)).unwrap();
        let stream = connect(listener.local_addr().unwrap(), None).await.unwrap();
        let taken = kernel_round_trip(&stream).unwrap();
        assert!(taken > Duration::ZERO && taken < Duration::from_secs(1), "{taken:?}");
    }

    #[tokio::test]
    async fn a_closed_port_refuses() {
        let port = TcpListener::bind(loopback(0)).unwrap().local_addr().unwrap().port();
        let error = connect(loopback(port), None).await.unwrap_err();
        assert_eq!((error.failure.reason, error.failure.attribution), (Reason::Refused, Attribution::Target));
        assert_eq!(error.icmp, None);
    }

    #[tokio::test]
    async fn an_address_that_is_not_ours_is_our_own_fault() {
        let listener = TcpListener::bind(loopback(0)).unwrap();
        let source = Some(IpAddr::from([192, 0, 2, 77]));
        let error = connect(listener.local_addr().unwrap(), source).await.unwrap_err();
        assert_eq!((error.failure.reason, error.failure.attribution), (Reason::LocalNetwork, Attribution::Vantage));
        assert!(error.failure.sentence.starts_with("bind to 192.0.2.77"), "{}", error.failure.sentence);
    }
}
