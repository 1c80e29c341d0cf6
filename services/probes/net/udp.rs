//! Connected UDP sockets: they hear their peer only, and the errors about what they sent.

use std::{
    cell::RefCell,
    io,
    mem::MaybeUninit,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
#[cfg(feature = "quic")]
use std::{
    pin::pin,
    task::{Context, Poll, ready},
};

use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::time::Instant;
use vantage_contract::v1::{IcmpError, TimingSource};

use super::{
    errqueue::SocketError,
    ports::Ports,
    stamp::{self, Reading},
    stamped::{Arrival, MOST_STALE, Stamped, Stamps},
};
use crate::failure::{Failure, Moment};

/// The largest datagram.
const MAX_DATAGRAM: usize = 65_535;

/// A UDP socket connected to one peer. Nobody else's datagrams get in, and what routers and the peer say about ours is heard
/// (`IP_RECVERR`; without it Linux keeps all but port unreachable to itself).
pub(crate) struct Connected {
    socket: Stamped,
    remote: SocketAddr,
}

/// A datagram that came.
pub(crate) struct Received {
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
    /// When it was taken from the kernel.
    seen: Reading,
    /// When it came, by the kernel.
    pub(crate) arrived: Option<TimeSpec>,
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
    /// When it came, by the kernel.
    pub(crate) arrived: Option<TimeSpec>,
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        trouble.failure
    }
}

/// One exchange with the peer: when the request left, and how long the answer took to come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exchange {
    /// When the request left, as the time since 1970 by the wall clock.
    pub(crate) departure: Duration,
    /// How long it took.
    pub(crate) taken: Duration,
    /// Who took the stamps of both.
    pub(crate) source: TimingSource,
    /// When the answer came.
    pub(crate) arrival: Instant,
    /// How exactly our two clocks were compared.
    pub(crate) resolution: Duration,
}

impl Connected {
    /// Opens a socket to `remote`, from `source` where given. Sends nothing; fails where there is no route or no descriptor left.
    pub(crate) fn open(remote: SocketAddr, source: Option<IpAddr>, stamps: Stamps) -> Result<Self, Failure> {
        Self::open_socket(remote, stamps, |socket| match source {
            Some(source) => socket.bind(&SockAddr::from(SocketAddr::new(source, 0))),
            None => Ok(()),
        })
    }

    /// The same, from a port that is as long unused as can be: an answer that comes too late for its own run finds nobody there.
    pub(crate) fn open_afresh(remote: SocketAddr, source: Option<IpAddr>, ports: &Ports) -> Result<Self, Failure> {
        let source = source.unwrap_or(match remote {
            SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        });
        Self::open_socket(remote, Stamps::Both, |socket| ports.bind(|port| socket.bind(&SockAddr::from(SocketAddr::new(source, port)))))
    }

    fn open_socket(remote: SocketAddr, stamps: Stamps, bind: impl FnOnce(&Socket) -> io::Result<()>) -> Result<Self, Failure> {
        let at_once = |error: io::Error| Failure::of_io(format!("reach {remote} over udp"), &error, Moment::AtOnce);
        let socket = Socket::new(Domain::for_address(remote), Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP)).map_err(at_once)?;
        bind(&socket).map_err(|error| Failure::of_io("bind a UDP socket", &error, Moment::AtOnce))?;
        socket.connect(&SockAddr::from(remote)).map_err(at_once)?;
        // What came between the two calls came from anywhere, and answers nothing of ours.
        let mut stale = [MaybeUninit::uninit(); 1];
        for _ in 0..MOST_STALE {
            if socket.recv(&mut stale).is_err() {
                break;
            }
        }
        Ok(Self { socket: Stamped::with_stamps(socket, remote.ip(), stamps).map_err(at_once)?, remote })
    }

    /// Makes it as good as new for a run to come: what came since the last one ended is thrown away. False: that can't be done.
    pub(super) fn renew(&mut self) -> bool {
        self.socket.renew()
    }

    /// The local address and port.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.socket.local_address().ok()
    }

    /// Departures are neither stamped nor remembered from here on: for protocols that send thousands of datagrams and keep count themselves.
    #[cfg(feature = "quic")]
    pub(crate) fn send_unstamped(&mut self) {
        self.socket.send_unstamped();
    }

    /// Sends a datagram and says which number it has on this socket, from 0.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<u16, Trouble> {
        let number = self.socket.next_number();
        match self.socket.send(bytes) {
            Ok(()) => Ok(number),
            Err(error) => Err(self.trouble("send to", &error, Moment::AtOnce)),
        }
    }

    /// Receives the next datagram of the peer, whole, or the error that came back instead. Nothing is lost where it is given up.
    pub(crate) async fn receive(&mut self) -> Result<Received, Trouble> {
        loop {
            // Whoever floods us does not hold up the clock: tokio's `ready` itself never yields.
            tokio::task::consume_budget().await;
            if let Err(error) = self.socket.ready().await {
                return Err(self.trouble("wait for", &error, Moment::AtOnce));
            }
            if let Some(heard) = self.take() {
                return heard;
            }
        }
    }

    /// The same, for who is polled and has other things to do beside it.
    #[cfg(feature = "quic")]
    pub(crate) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, Trouble>> {
        loop {
            ready!(pin!(tokio::task::consume_budget()).poll(cx));
            if let Err(error) = ready!(self.socket.poll_ready(cx)) {
                return Poll::Ready(Err(self.trouble("wait for", &error, Moment::AtOnce)));
            }
            if let Some(heard) = self.take() {
                return Poll::Ready(heard);
            }
        }
    }

    /// What came, if anything did.
    fn take(&mut self) -> Option<Result<Received, Trouble>> {
        match take(&mut self.socket) {
            Ok(None) => None,
            Ok(Some(Heard::Datagram(received))) => Some(Ok(received)),
            Ok(Some(Heard::Error(error))) => Some(Err(self.told("ask", &error))),
            Err(error) => Some(Err(self.trouble("ask", &error, Moment::Later))),
        }
    }

    /// The exchange of the datagram with this number and what came at `arrived`, by the kernel, or just now.
    pub(crate) fn exchange(&mut self, number: u16, arrived: Option<TimeSpec>) -> Option<Exchange> {
        let (taken, source) = self.socket.round_trip(number, arrived)?;
        let departure = self.socket.departure(number, source)?;
        let arrival = self.socket.left(number)? + taken;
        Some(Exchange { departure, taken, source, arrival, resolution: self.socket.resolution(number)? })
    }

    /// The ICMP error behind an error of the socket tells more than its number.
    fn trouble(&mut self, act: &str, error: &io::Error, moment: Moment) -> Trouble {
        match self.socket.take_error() {
            Ok(Some(error)) => self.told(act, &error),
            _ => {
                let failure = Failure::of_io(format!("{act} {} over udp", self.remote), error, moment);
                Trouble { failure, error: None, arrived: None }
            }
        }
    }

    fn told(&self, act: &str, error: &SocketError) -> Trouble {
        let failure = error.failure(format!("{act} {} over udp", self.remote), self.remote.ip().to_canonical());
        Trouble { failure, error: error.to_proto(), arrived: error.arrived }
    }
}

enum Heard {
    Datagram(Received),
    Error(SocketError),
}

thread_local! {
    /// Where datagrams are taken to. Not in the future: a thousand probes that wait hold no memory for it. Nor on the stack, where it would have
    /// to be cleared each time.
    static ROOM: RefCell<Box<[u8]>> = RefCell::new(vec![0; MAX_DATAGRAM].into());
}

/// Takes what came, without waiting.
fn take(socket: &mut Stamped) -> io::Result<Option<Heard>> {
    ROOM.with_borrow_mut(|room| {
        Ok(socket.receive(room)?.map(|arrival| match arrival {
            Arrival::Packet { length, arrived, .. } => {
                let bytes = room.get(..length).unwrap_or_default().to_vec();
                Heard::Datagram(Received { bytes, seen: Reading::now(), arrived })
            }
            Arrival::Error(error) => Heard::Error(error),
        }))
    })
}
