//! Places on loopback that are one test's alone, though all tests run beside each other, in one process or in many.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicU16, Ordering},
};

use socket2::{Domain, Socket, Type};

/// The first port given. Below those that the kernel gives by itself (`net.ipv4.ip_local_port_range` begins at 32768).
const FIRST_PORT: u16 = 20_000;

/// An address for a program that is yet to listen, or to listen again. Asking the kernel for a free port and closing it would give the port
/// to whoever asks next; here the address is this process's and the port this call's.
pub(crate) fn own() -> SocketAddr {
    static CALLS: AtomicU16 = AtomicU16::new(0);
    // Process ids have up to 22 bits (proc_pid(5), pid_max): 127.64.0.0 to 127.127.255.255.
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let address = Ipv4Addr::new(127, 64 + high % 64, middle, low);
    SocketAddr::from((address, FIRST_PORT + CALLS.fetch_add(1, Ordering::Relaxed)))
}

/// Three addresses of this process's own with the same port.
pub(crate) fn row() -> [SocketAddr; 3] {
    let first = own();
    let IpAddr::V4(address) = first.ip() else { unreachable!("the network of loopback is one of IPv4") };
    let [one, high, middle, low] = address.octets();
    [0, 64, 128].map(|more| SocketAddr::from(([one, high + more, middle, low], first.port())))
}

/// An address for a program that listens only where an interface says so, as BIND does: on 127.0.0.1, or ::1, at a port that is free over UDP and
/// TCP. Processes begin to look at places of their own, so nobody else is likely to have taken it before the program does.
pub(crate) fn on_interface(address: &str) -> SocketAddr {
    static CALLS: AtomicU16 = AtomicU16::new(0);
    let address: IpAddr = address.parse().unwrap();
    let first = u16::try_from(std::process::id() % 600).unwrap() * 16;
    loop {
        let at = SocketAddr::new(address, 10_000 + (first + CALLS.fetch_add(1, Ordering::Relaxed)) % 10_000);
        if std::net::UdpSocket::bind(at).is_ok() && std::net::TcpListener::bind(at).is_ok() {
            return at;
        }
    }
}

/// A TCP port where nobody listens, kept by a socket that is bound and does not listen: connections are refused, and nobody else gets it.
pub(crate) struct Closed {
    /// The address.
    pub(crate) address: SocketAddr,
    _held: Socket,
}

impl Closed {
    /// One on 127.0.0.1.
    pub(crate) fn find() -> Self {
        Self::on("127.0.0.1")
    }

    /// One on another address of this machine.
    pub(crate) fn on(address: &str) -> Self {
        Self::at(SocketAddr::new(address.parse::<IpAddr>().unwrap(), 0)).unwrap()
    }

    /// This one, if it is free.
    pub(crate) fn at(address: SocketAddr) -> std::io::Result<Self> {
        let held = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        held.bind(&address.into())?;
        let address = held.local_addr()?.as_socket().unwrap();
        Ok(Self { address, _held: held })
    }
}
