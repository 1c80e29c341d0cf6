//! A packet socket with one peer whose departures, arrivals and errors are stamped by the kernel where it can: what all that sends packets
//! sends through.

use std::{
    collections::VecDeque,
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    sync::{Arc, OnceLock},
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
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::Instant,
};
use vantage_contract::v1::TimingSource;

use super::{
    errqueue::{self, Control, Queued, SocketError},
    stamp::{self, Reading},
};

/// How often in a row a socket may answer with an error before that is the answer.
const TRIES: u32 = 8;

/// How many packets that came before a request are looked through.
pub(super) const MOST_STALE: usize = 64;

/// How many errors are kept until somebody takes them.
const MOST_ERRORS: usize = 64;

/// Waits until something may have come back.
#[cfg(feature = "quic")]
type Waiter = std::pin::Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// A packet that left.
struct Departure {
    left: Reading,
    departed: Option<TimeSpec>,
}

/// Whose stamps the kernel is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stamps {
    /// Those of departures and arrivals.
    Both,
    /// Those of arrivals: one of a departure costs as much as an answer does.
    Arrival,
}

/// A packet socket with one peer: UDP, echo or raw.
pub(crate) struct Stamped {
    /// Watched for what comes and for errors alone: room to send is there all the time, and would wake us at each packet that left.
    socket: Arc<AsyncFd<Socket>>,
    /// Who waits for it where it is polled, with whom to wake: it has to be kept from one poll to the next.
    #[cfg(feature = "quic")]
    waiter: Option<Waiter>,
    /// In the order of sending; a packet's place is its number.
    departures: Vec<Departure>,
    /// Whether departures are kept.
    is_remembered: bool,
    /// The number of the packet that the kernel counts as 0.
    counted_from: usize,
    stamps: Stamps,
    /// The flags of SO_TIMESTAMPING, where the kernel knows them.
    stamping: Option<TimestampingFlag>,
    /// Errors that were found while looking for something else.
    errors: VecDeque<SocketError>,
    /// There may be more of them in the kernel.
    has_more: bool,
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

/// Keeps the kernel stamping what arrives. It begins a moment after the first socket asks for it, and ends with the last: without one that stays,
/// the answers of a near target would come before it, run after run. That costs the machine some 20 ns a packet, as any time daemon does.
fn keep_stamping() {
    static KEPT: OnceLock<Option<std::net::UdpSocket>> = OnceLock::new();
    KEPT.get_or_init(|| {
        // Bound to nothing, it hears nothing.
        let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM.cloexec(), Some(socket2::Protocol::UDP)).ok()?;
        let flags = TimestampingFlag::SOF_TIMESTAMPING_RX_SOFTWARE | TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE;
        setsockopt(&socket, sockopt::Timestamping, &flags).ok().map(|()| socket.into())
    });
}

impl Stamped {
    /// Takes over a connected, nonblocking socket of the family of `target`, whose errors tell where their extensions are. What the kernel can't
    /// do (stamps, counts) is done without.
    pub(crate) fn new(socket: Socket, target: IpAddr) -> io::Result<Self> {
        errqueue::enable_with_extensions(&socket, target)?;
        Self::with(socket, None, Stamps::Both)
    }

    /// The same, with these stamps, for who looks into no extensions.
    pub(crate) fn with_stamps(socket: Socket, target: IpAddr, stamps: Stamps) -> io::Result<Self> {
        errqueue::enable(&socket, target)?;
        Self::with(socket, None, stamps)
    }

    /// Takes over a nonblocking socket that is not connected and sends to `target` alone. It takes packets from everybody, and errors are among them if
    /// it is a raw one: none are queued, for a raw socket's queue has everybody's.
    pub(crate) fn unconnected(socket: Socket, target: IpAddr) -> io::Result<Self> {
        Self::with(socket, Some(SocketAddr::new(target, 0).into()), Stamps::Both)
    }

    fn with(socket: Socket, peer: Option<SockaddrStorage>, stamps: Stamps) -> io::Result<Self> {
        use TimestampingFlag as Flag;
        keep_stamping();
        let arrivals = Flag::SOF_TIMESTAMPING_RX_SOFTWARE | Flag::SOF_TIMESTAMPING_SOFTWARE;
        let departures = Flag::SOF_TIMESTAMPING_TX_SOFTWARE | Flag::SOF_TIMESTAMPING_OPT_ID | Flag::SOF_TIMESTAMPING_OPT_TSONLY;
        let all = if stamps == Stamps::Both { arrivals | departures } else { arrivals };
        let stamping = setsockopt(&socket, sockopt::Timestamping, &all).is_ok().then_some(all);
        if stamping.is_none() {
            // Without stamps of any kind the process's own count.
            let _ = setsockopt(&socket, sockopt::ReceiveTimestampns, &true);
        }
        // SAFETY: the socket owns its descriptor, which stays the same and open for as long as the socket lives; it lives in what is returned.
        #[expect(unsafe_code, reason = "tokio can't see that a socket owns its descriptor")]
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE | Interest::ERROR) }?;
        Ok(Self {
            socket: Arc::new(socket),
            #[cfg(feature = "quic")]
            waiter: None,
            departures: Vec::new(),
            is_remembered: true,
            counted_from: 0,
            stamps,
            stamping,
            errors: VecDeque::new(),
            has_more: false,
            peer,
        })
    }

    /// Forgets what was sent, and throws away what came since. False: errors came, too, or more than is looked through. Only where departures
    /// are not stamped: the kernel would go on counting.
    pub(crate) fn renew(&mut self) -> bool {
        self.departures.clear();
        let mut stale = [MaybeUninit::uninit(); 1];
        for _ in 0..MOST_STALE {
            match self.socket.get_ref().recv(&mut stale) {
                Ok(_) => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock && self.errors.is_empty() && self.stamps == Stamps::Arrival,
            }
        }
        false
    }

    /// The number of the packet that is sent next, from 0. Packets that did not leave have none.
    pub(crate) fn next_number(&self) -> u16 {
        u16::try_from(self.departures.len()).unwrap_or(u16::MAX)
    }

    /// The socket, for its options.
    pub(crate) fn as_socket(&self) -> socket2::SockRef<'_> {
        socket2::SockRef::from(self.socket.get_ref())
    }

    /// The local address and port.
    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        let address = self.socket.get_ref().local_addr()?;
        address.as_socket().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    /// When packet `number` left, as the time since 1970 by the wall clock, with a stamp of this source: for protocols that carry instants.
    pub(crate) fn departure(&self, number: u16, source: TimingSource) -> Option<Duration> {
        let departure = self.departures.get(usize::from(number))?;
        let by_kernel = departure.departed.filter(|_| source == TimingSource::Kernel);
        Some(by_kernel.map_or_else(|| departure.left.since_1970(), stamp::since_1970))
    }

    /// When packet `number` was handed over.
    pub(crate) fn left(&self, number: u16) -> Option<Instant> {
        self.departures.get(usize::from(number)).map(|departure| departure.left.monotonic)
    }

    /// How far apart the two clocks were read when packet `number` was handed over.
    pub(crate) fn resolution(&self, number: u16) -> Option<Duration> {
        self.departures.get(usize::from(number)).map(|departure| departure.left.resolution())
    }

    /// Takes the next error that came back, without waiting.
    pub(crate) fn take_error(&mut self) -> io::Result<Option<SocketError>> {
        self.collect()?;
        Ok(self.errors.pop_front())
    }

    /// Departures are neither stamped nor remembered from here on.
    #[cfg(feature = "quic")]
    pub(crate) fn send_unstamped(&mut self) {
        let arrivals = TimestampingFlag::SOF_TIMESTAMPING_RX_SOFTWARE | TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE;
        if self.stamping.take().is_some() {
            // At worst departures go on to be stamped for nobody.
            let _ = setsockopt(&self.socket, sockopt::Timestamping, &arrivals);
        }
        (self.stamps, self.is_remembered) = (Stamps::Arrival, false);
    }

    /// Sends a packet; its number is what [`next_number`](Self::next_number) was.
    pub(crate) fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        let left = Reading::now();
        let mut sent = self.hand_over(packet);
        for _ in 1..TRIES {
            if sent.is_ok() {
                break;
            }
            // An ICMP error about an earlier packet is handed to whoever calls next, so it may be none of this packet's business; and so may
            // the one that has come since. A packet that did not leave may or may not have been counted: count anew from here.
            self.collect()?;
            self.recount();
            sent = self.hand_over(packet);
        }
        if sent.is_err() {
            self.recount();
        }
        match sent {
            Ok(_) => {
                if self.is_remembered {
                    self.departures.push(Departure { left, departed: None });
                }
                if self.stamps == Stamps::Both
                    && let Ok(Some(queued)) = errqueue::read(&self.socket)
                {
                    // The stamp of departure, as a rule: most interfaces give it within the call. Taken at once, it wakes nobody.
                    self.file(queued);
                }
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
        let (Some(all), Stamps::Both) = (self.stamping, self.stamps) else { return };
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

    /// The same, for who is polled and has other things to do beside it.
    #[cfg(feature = "quic")]
    pub(crate) fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
        if !self.errors.is_empty() {
            return std::task::Poll::Ready(Ok(()));
        }
        let waiter = self.waiter.get_or_insert_with(|| {
            let socket = self.socket.clone();
            Box::pin(async move { socket.ready(Interest::READABLE | Interest::ERROR).await.map(|_| ()) })
        });
        let polled = waiter.as_mut().poll(cx);
        if polled.is_ready() {
            self.waiter = None;
        }
        polled
    }

    /// Takes what came back, without waiting: None where there is nothing. The packet's bytes go to `buffer`.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Arrival>> {
        let mut failure = io::ErrorKind::Other.into();
        let mut is_told = false;
        for _ in 0..TRIES {
            // Cleared before the queue is emptied: what comes in between wakes `ready` again.
            let _ = self.socket.try_io(Interest::ERROR, |_| {
                is_told = true;
                Err::<(), _>(io::ErrorKind::WouldBlock.into())
            });
            // What is in the queue of errors belongs before the answers. Where it was not said that it has any, asking it costs as much as
            // an answer does.
            if std::mem::take(&mut is_told) || self.has_more {
                self.collect()?;
            }
            if let Some(error) = self.errors.pop_front() {
                return Ok(Some(Arrival::Error(error)));
            }
            let fd = self.socket.as_raw_fd();
            let mut control = Control::new();
            let taken = self.socket.try_io(Interest::READABLE, |_| {
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
                Err(error) => (failure, is_told) = (error, true),
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
        self.has_more = true;
        while self.errors.len() < MOST_ERRORS {
            let Some(queued) = errqueue::read(&self.socket)? else {
                self.has_more = false;
                break;
            };
            self.file(queued);
        }
        Ok(())
    }

    /// Puts an entry of the error queue where it belongs.
    fn file(&mut self, queued: Queued) {
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
}

fn address_of(address: &SockaddrStorage) -> Option<IpAddr> {
    if let Some(address) = address.as_sockaddr_in() {
        return Some(address.ip().into());
    }
    address.as_sockaddr_in6().map(|address| address.ip().into())
}
