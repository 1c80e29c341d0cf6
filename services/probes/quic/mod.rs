//! What is common to the kinds that speak QUIC (RFC 9000): a connection, and the handshake, judged.
//!
//! The protocol is quinn's, without its sockets and tasks: the datagrams go through our own socket, which hears that a port is closed and knows
//! when the kernel received them, and nothing outlives the run.

mod lost;

use std::{
    future::poll_fn,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig, Event, TransportConfig, VarInt,
    crypto::rustls::{HandshakeData, QuicClientConfig},
};
use rustls::pki_types::ServerName;
use tokio::time::{Instant, Sleep, sleep_until};
use vantage_contract::v1::{Reason, TlsReport};

use crate::{
    failure::Failure,
    net::{
        stamped::Stamps,
        tls::Witness,
        udp::{Connected, Received},
    },
    stopwatch,
    tls::{self, Loaded},
};

/// What the server may send before it is asked to go on (RFC 9000 section 4.1): the most that lies in memory unread.
const WINDOW: u32 = 1 << 20;

/// How much may come, datagrams and all, until somebody [allows](Link::allow) more.
const BUDGET: u64 = 256 << 10;

/// How often a sign of life is sent while an answer is awaited: who thinks longer than the server's own idle timeout is waited for, too (RFC 9114
/// section 5.1).
const SIGN_OF_LIFE: Duration = Duration::from_secs(3);

/// What is spoken, and with whom.
pub(crate) struct Plan<'a> {
    /// Where the server is.
    pub(crate) server: SocketAddr,
    /// The local address to send from.
    pub(crate) source: Option<IpAddr>,
    /// The name to ask for and to expect in the certificate.
    pub(crate) name: ServerName<'static>,
    /// What the protocol is called in ALPN.
    pub(crate) alpn: &'a [u8],
    /// How many streams of its own, which go one way, the server may have open.
    pub(crate) server_streams: u8,
    /// The application's code for an end without an error.
    pub(crate) farewell: u32,
    /// What is being done, with its subject: "QUIC with example.com (192.0.2.1:443)".
    pub(crate) act: String,
}

/// A connection and the socket it goes over. It does what is due while it is asked for a [turn](Self::poll_turn), and nothing otherwise.
pub(crate) struct Link {
    socket: Connected,
    endpoint: Endpoint,
    handle: ConnectionHandle,
    pub(crate) connection: Connection,
    server: SocketAddr,
    act: String,
    farewell: u32,
    /// When the connection wants to be asked again.
    timer: Pin<Box<Sleep>>,
    is_established: bool,
    /// How it ended. None: it goes on.
    end: Option<Failure>,
    /// The datagram that came last, without its bytes.
    pub(crate) last: Option<Received>,
    /// Bytes of datagrams that came, and that may come.
    received: u64,
    budget: u64,
}

impl Link {
    /// Opens a socket, and shakes hands. The report is filled in as things become known, whatever comes of it.
    pub(crate) async fn connect(plan: Plan<'_>, loaded: &Loaded, report: &mut TlsReport) -> Result<Box<Self>, Failure> {
        if let ServerName::DnsName(name) = &plan.name {
            name.as_ref().clone_into(&mut report.server_name);
        }
        let (config, witness) = loaded.configure(&[plan.alpn]);
        let mut link = Self::open(plan, config)?;
        link.shake_hands(loaded, &witness, report).await?;
        Ok(link)
    }

    fn open(plan: Plan<'_>, config: rustls::ClientConfig) -> Result<Box<Self>, Failure> {
        let Plan { server, source, name, server_streams, farewell, act, .. } = plan;
        let mut socket = Connected::open(server, source, Stamps::Arrival)?;
        socket.send_unstamped();
        let internal = |error: &dyn std::fmt::Display| Failure::internal(format!("{act}: {error}"));
        let crypto = QuicClientConfig::try_from(config).map_err(|error| internal(&error))?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        let mut transport = TransportConfig::default();
        // The run has its own end. Larger datagrams than those that always pass are not needed.
        transport
            .max_idle_timeout(None)
            .keep_alive_interval(Some(SIGN_OF_LIFE))
            .mtu_discovery_config(None)
            .max_concurrent_uni_streams(server_streams.into())
            .max_concurrent_bidi_streams(0_u8.into())
            .stream_receive_window(WINDOW.into())
            .receive_window(WINDOW.into())
            .datagram_receive_buffer_size(None);
        config.transport_config(Arc::new(transport));
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None);
        let now = stopwatch::now();
        let (handle, connection) = endpoint.connect(now.into_std(), config, server, &name.to_str()).map_err(|error| internal(&error))?;
        Ok(Box::new(Self {
            socket,
            endpoint,
            handle,
            connection,
            server,
            act,
            farewell,
            timer: Box::pin(sleep_until(now)),
            is_established: false,
            end: None,
            last: None,
            received: 0,
            budget: BUDGET,
        }))
    }

    async fn shake_hands(&mut self, loaded: &Loaded, witness: &Witness, report: &mut TlsReport) -> Result<(), Failure> {
        loop {
            let turned = self.turn().await;
            let verdict = witness.take().map_or(Ok(()), |presented| loaded.note(presented, report));
            // The chain comes first: a handshake that failed because of it says less.
            if let Err(words) = verdict {
                return Err(tls::rejected(&self.act, words, report));
            }
            turned?;
            if self.is_established {
                // QUIC has no other.
                "1.3".clone_into(&mut report.version);
                let data = self.connection.crypto_session().handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
                let alpn = data.and_then(|data| data.protocol).unwrap_or_default();
                report.alpn = String::from_utf8_lossy(&alpn).into_owned();
                return Ok(());
            }
        }
    }

    /// The address and port on this side.
    #[cfg(feature = "http3")]
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.socket.local_address()
    }

    /// Lets so many more bytes of datagrams come.
    #[cfg(feature = "http3")]
    pub(crate) fn allow(&mut self, bytes: u64) {
        self.budget = self.received.saturating_add(bytes);
    }

    /// Does what is due, until something has happened: a datagram, or the passing of time. What was heard before an end can be read before
    /// the next turn, which tells of it.
    pub(crate) async fn turn(&mut self) -> Result<(), Failure> {
        poll_fn(|cx| self.poll_turn(cx)).await
    }

    /// The same, for who has other things to do beside it.
    pub(crate) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if let Some(end) = &self.end {
            return Poll::Ready(Err(end.clone()));
        }
        self.flush()?;
        if let Poll::Ready(received) = self.socket.poll_receive(cx) {
            return Poll::Ready(self.hear(received?));
        }
        let Some(at) = self.connection.poll_timeout().map(Instant::from_std) else { return Poll::Pending };
        if self.timer.deadline() != at {
            self.timer.as_mut().reset(at);
        }
        if self.timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.connection.handle_timeout(stopwatch::now().into_std());
        self.drain();
        Poll::Ready(Ok(()))
    }

    /// Takes in a datagram.
    fn hear(&mut self, mut received: Received) -> Result<(), Failure> {
        let bytes = BytesMut::from(std::mem::take(&mut received.bytes).as_slice());
        self.last = Some(received);
        self.received += bytes.len() as u64;
        if self.received > self.budget {
            let sentence = format!("{}: {} bytes came and no end of it", self.act, self.received);
            return Err(Failure::target(Reason::TooLarge, sentence));
        }
        let (now, mut answer) = (stopwatch::now().into_std(), Vec::new());
        if let Some(DatagramEvent::ConnectionEvent(_, event)) = self.endpoint.handle(now, self.server, None, None, bytes, &mut answer) {
            self.connection.handle_event(event);
        }
        self.drain();
        Ok(())
    }

    /// Takes in what has become of the connection. What has become of its streams shows when they are used.
    fn drain(&mut self) {
        while let Some(event) = self.connection.poll() {
            match event {
                Event::Connected => self.is_established = true,
                Event::ConnectionLost { reason } => self.end = Some(lost::failure(&self.act, &reason)),
                _ => {}
            }
        }
    }

    /// Sends what there is to send.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        while let Some(event) = self.connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.connection.handle_event(event);
            }
        }
        let mut datagram = Vec::new();
        while let Some(transmit) = self.connection.poll_transmit(stopwatch::now().into_std(), 1, &mut datagram) {
            match self.socket.send(datagram.get(..transmit.size).unwrap_or_default()) {
                // No room in our own queue: the datagram is lost, as it may be anywhere on the way, and sent again.
                Err(trouble) if trouble.failure.reason == Reason::ResourceExhausted => {}
                sent => drop(sent?),
            }
            datagram.clear();
        }
        Ok(())
    }
}

/// Whoever leaves says good-bye, and does not care whether anybody hears it: a server need not wait for its timeout.
impl Drop for Link {
    fn drop(&mut self) {
        self.connection.close(stopwatch::now().into_std(), VarInt::from_u32(self.farewell), Bytes::new());
        let _ = self.flush();
    }
}
