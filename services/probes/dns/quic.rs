//! DNS over QUIC (RFC 9250): one question on a stream of its own.
//!
//! The protocol is quinn's, without its sockets and tasks: the datagrams go through our own socket, which hears that a port is closed and knows
//! when the kernel received them, and nothing outlives the run.

use std::{net::SocketAddr, sync::Arc};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    ClientConfig, Connection, ConnectionError, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event, ReadError,
    ReadableError, StreamId, TransportConfig, VarInt, WriteError,
    crypto::rustls::{HandshakeData, QuicClientConfig},
};
use tokio::time::Instant;
use vantage_contract::v1::{Reason, TlsReport};

use super::{
    ask::{Errand, Heard, heard, refused},
    notes::Notes,
};
use crate::{
    failure::Failure,
    net::{
        dns as net,
        stamp::Reading,
        tls::Witness,
        udp::{Connected, Received},
    },
    stopwatch::{self, Phase},
    target::Host,
    tls::{self, Loaded, Tls},
    wire::dns::Answer,
};

/// What the protocol is called in ALPN (RFC 9250 section 4.1.1).
const ALPN: &[u8] = b"doq";
/// The identifier of all messages (RFC 9250 section 4.2.1).
const ID: u16 = 0;
/// The codes of QUIC's errors that are alerts of TLS (RFC 9001 section 4.8).
const ALERTS: std::ops::Range<u64> = 0x100..0x200;

/// Asks on a new connection.
pub(super) async fn ask(errand: &Errand<'_>, host: &Host, tls: &Tls, server: SocketAddr, notes: &mut Notes<'_>) -> Result<Heard, Failure> {
    notes.enter(Phase::Connect);
    let (loaded, name) = (tls.load().await?, tls.name_for(host)?);
    let act = format!("QUIC with {host} ({server})");
    let (config, witness) = loaded.configure(&[ALPN], &act)?;
    let mut link = Link::open(errand, config, server, &name.to_str(), act)?;
    notes.enter(Phase::Tls);
    let report = notes.report.tls.get_or_insert_default();
    if let rustls::pki_types::ServerName::DnsName(name) = &name {
        name.as_ref().clone_into(&mut report.server_name);
    }
    link.shake_hands(&loaded, &witness, report).await?;

    notes.enter(Phase::Send);
    let cased = errand.cased()?;
    let message = cased.as_ref().unwrap_or(errand.question).encode(ID, errand.manner);
    let framed = net::framed(&message)?;
    let stream = link.open_stream().await?;
    let left = Reading::now();
    let departure = notes.depart("quic", left.monotonic);
    link.send(stream, &framed).await?;
    notes.enter(Phase::Wait);
    let answer = link.receive(stream).await?;
    // The datagram that made the answer whole.
    let latency = link.last.as_ref().map_or_else(|| super::ask::by_our_clock(departure, stopwatch::now()), |last| last.since(&left));
    link.close().await;
    let answer = Answer::decode_in_case(answer, ID, cased.as_ref().unwrap_or(errand.question), errand.manner.exact_case);
    heard(answer.map_err(|refusal| refused(server, refusal))?, departure, latency, server, "quic", notes)
}

/// A connection and the socket it goes over.
struct Link {
    socket: Connected,
    endpoint: Endpoint,
    handle: ConnectionHandle,
    connection: Connection,
    server: SocketAddr,
    act: String,
    /// The datagram that came last, without its bytes.
    last: Option<Received>,
}

impl Link {
    fn open(errand: &Errand<'_>, config: rustls::ClientConfig, server: SocketAddr, name: &str, act: String) -> Result<Self, Failure> {
        let socket = Connected::open(server, errand.source)?;
        let internal = |error: &dyn std::fmt::Display| Failure::internal(format!("{act}: {error}"));
        let crypto = QuicClientConfig::try_from(config).map_err(|error| internal(&error))?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        let mut transport = TransportConfig::default();
        // The run has its own end. Larger datagrams than those that always pass are not needed, nor streams of the server's own.
        transport
            .max_idle_timeout(None)
            .mtu_discovery_config(None)
            .max_concurrent_uni_streams(0_u8.into())
            .max_concurrent_bidi_streams(0_u8.into());
        config.transport_config(Arc::new(transport));
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None);
        let now = stopwatch::now().into_std();
        let (handle, connection) = endpoint.connect(now, config, server, name).map_err(|error| internal(&error))?;
        Ok(Self { socket, endpoint, handle, connection, server, act, last: None })
    }

    /// Shakes hands. The report is filled in as things become known, whatever comes of it.
    async fn shake_hands(&mut self, loaded: &Loaded, witness: &Witness, report: &mut TlsReport) -> Result<(), Failure> {
        loop {
            let stepped = self.step().await;
            let verdict = witness.take().map_or(Ok(()), |presented| loaded.note(presented, report));
            // The chain comes first: a handshake that failed because of it says less.
            if let Err(words) = verdict {
                self.close().await;
                return Err(tls::rejected(&self.act, words, report));
            }
            match stepped? {
                Some(Event::Connected) => {
                    // QUIC has no other.
                    "1.3".clone_into(&mut report.version);
                    let data = self.connection.crypto_session().handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
                    let alpn = data.and_then(|data| data.protocol).unwrap_or_default();
                    report.alpn = String::from_utf8_lossy(&alpn).into_owned();
                    return Ok(());
                }
                Some(Event::ConnectionLost { reason }) => return Err(self.lost(&reason)),
                _ => {}
            }
        }
    }

    async fn open_stream(&mut self) -> Result<StreamId, Failure> {
        loop {
            if let Some(stream) = self.connection.streams().open(Dir::Bi) {
                return Ok(stream);
            }
            self.go_on().await?;
        }
    }

    /// Sends all of it, and says that this is all (RFC 9250 section 4.2).
    async fn send(&mut self, stream: StreamId, bytes: &[u8]) -> Result<(), Failure> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.connection.send_stream(stream).write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(WriteError::Blocked) => self.go_on().await?,
                Err(error) => return Err(self.disconnected(&error)),
            }
        }
        self.connection.send_stream(stream).finish().map_err(|error| self.disconnected(&error))?;
        self.flush().await
    }

    /// Receives one message with its length before it.
    async fn receive(&mut self, stream: StreamId) -> Result<Vec<u8>, Failure> {
        let mut came = Vec::new();
        loop {
            let is_over = self.read(stream, &mut came)?;
            if let Some((length, message)) = came.split_first_chunk()
                && let Some(message) = message.get(..u16::from_be_bytes(*length).into())
            {
                return Ok(message.to_vec());
            }
            if is_over {
                let when = if came.is_empty() { "without an answer" } else { "in the middle of the answer" };
                return Err(self.disconnected(&format!("the stream ended {when}")));
            }
            self.go_on().await?;
        }
    }

    /// Takes what has come on a stream; whether that is all.
    fn read(&mut self, stream: StreamId, came: &mut Vec<u8>) -> Result<bool, Failure> {
        let mut receiving = self.connection.recv_stream(stream);
        let mut chunks = match receiving.read(true) {
            Ok(chunks) => chunks,
            Err(ReadableError::ClosedStream) => return Ok(true),
            Err(error @ ReadableError::IllegalOrderedRead) => return Err(Failure::internal(format!("{}: {error}", self.act))),
        };
        let ended = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => came.extend_from_slice(&chunk.bytes),
                Ok(None) => break Ok(true),
                Err(ReadError::Blocked) => break Ok(false),
                Err(ReadError::Reset(code)) => break Err(code),
            }
        };
        // What there is to send about it is sent in the next step.
        let _ = chunks.finalize();
        ended.map_err(|code| self.disconnected(&format!("the server gave the stream up with code {code}")))
    }

    async fn go_on(&mut self) -> Result<(), Failure> {
        match self.step().await? {
            Some(Event::ConnectionLost { reason }) => Err(self.lost(&reason)),
            _ => Ok(()),
        }
    }

    /// Does what is due, until something has happened: an event, a datagram, or the passing of time.
    async fn step(&mut self) -> Result<Option<Event>, Failure> {
        self.flush().await?;
        if let Some(event) = self.connection.poll() {
            return Ok(Some(event));
        }
        let received = match self.connection.poll_timeout() {
            None => Some(self.socket.receive().await?),
            Some(at) => match tokio::time::timeout_at(Instant::from_std(at), self.socket.receive()).await {
                Ok(received) => Some(received?),
                Err(_) => None,
            },
        };
        let now = stopwatch::now().into_std();
        let Some(mut received) = received else {
            self.connection.handle_timeout(now);
            return Ok(self.connection.poll());
        };
        let bytes = BytesMut::from(std::mem::take(&mut received.bytes).as_slice());
        self.last = Some(received);
        let mut answer = Vec::new();
        if let Some(DatagramEvent::ConnectionEvent(_, event)) = self.endpoint.handle(now, self.server, None, None, bytes, &mut answer) {
            self.connection.handle_event(event);
        }
        Ok(self.connection.poll())
    }

    /// Sends what there is to send.
    async fn flush(&mut self) -> Result<(), Failure> {
        while let Some(event) = self.connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.connection.handle_event(event);
            }
        }
        let mut datagram = Vec::new();
        while let Some(transmit) = self.connection.poll_transmit(stopwatch::now().into_std(), 1, &mut datagram) {
            self.socket.send(datagram.get(..transmit.size).unwrap_or_default())?;
            datagram.clear();
        }
        Ok(())
    }

    /// Says good-bye (RFC 9250 section 4.3: no error), and does not care whether anybody hears it.
    async fn close(&mut self) {
        self.connection.close(stopwatch::now().into_std(), VarInt::from_u32(0), Bytes::new());
        let _ = self.flush().await;
    }

    fn disconnected(&self, what: &dyn std::fmt::Display) -> Failure {
        Failure::target(Reason::Disconnected, format!("{}: {what}", self.act))
    }

    fn lost(&self, reason: &ConnectionError) -> Failure {
        let code = match reason {
            ConnectionError::TransportError(error) => u64::from(error.code),
            ConnectionError::ConnectionClosed(close) => u64::from(close.error_code),
            _ => 0,
        };
        let whose = match reason {
            _ if ALERTS.contains(&code) => Reason::TlsFailed,
            ConnectionError::VersionMismatch => Reason::UnexpectedAnswer,
            ConnectionError::TransportError(_) => Reason::MalformedAnswer,
            ConnectionError::TimedOut => Reason::TimedOut,
            ConnectionError::LocallyClosed | ConnectionError::CidsExhausted => return Failure::internal(format!("{}: {reason}", self.act)),
            ConnectionError::ConnectionClosed(_) | ConnectionError::ApplicationClosed(_) | ConnectionError::Reset => Reason::Disconnected,
        };
        Failure::target(whose, format!("{}: {reason}", self.act))
    }
}
