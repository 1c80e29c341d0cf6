//! DNS over QUIC (RFC 9250): one question on a stream of its own.

use quinn_proto::{Dir, ReadError, ReadableError, StreamId, WriteError};
use vantage_contract::v1::Reason;

use super::{
    ask::{Errand, Heard},
    notes::Notes,
};
use crate::{
    failure::Failure,
    net::{dns as net, stamp::Reading},
    quic::{Link, Plan},
    stopwatch::{self, Phase},
    target::Host,
    tls::Tls,
    wire::dns::Answer,
};

/// What the protocol is called in ALPN (RFC 9250 section 4.1.1).
const ALPN: &[u8] = b"doq";
/// The identifier of all messages (RFC 9250 section 4.2.1).
const ID: u16 = 0;
/// The code for an end without an error (RFC 9250 section 4.3).
const NO_ERROR: u32 = 0;

/// Asks on a new connection.
pub(super) async fn ask(errand: &Errand<'_>, host: &Host, tls: &Tls, notes: &mut Notes<'_>) -> Result<Heard, Failure> {
    notes.enter(Phase::Connect);
    let (loaded, name) = (tls.load().await?, tls.name_for(host)?);
    let server = errand.server;
    let act = format!("QUIC with {host} ({server})");
    let plan = Plan { server, source: errand.source, name, alpn: ALPN, server_streams: 0, farewell: NO_ERROR, act: act.clone() };
    notes.enter(Phase::Tls);
    let link = Link::connect(plan, &loaded, notes.report.tls.get_or_insert_default()).await?;
    let mut exchange = Exchange { link, act };

    notes.enter(Phase::Send);
    let cased = errand.cased()?;
    let message = cased.as_ref().unwrap_or(errand.question).encode(ID, errand.manner);
    let framed = net::framed(&message)?;
    let stream = exchange.open_stream().await?;
    let left = Reading::now();
    let departure = notes.depart("quic", left.monotonic);
    exchange.send(stream, &framed).await?;
    notes.enter(Phase::Wait);
    let answer = exchange.receive(stream).await?;
    // The datagram that made the answer whole.
    let last = exchange.link.last.as_ref();
    let latency = last.map_or_else(|| super::ask::by_our_clock(departure, stopwatch::now()), |last| last.since(&left));
    let answer = Answer::decode_in_case(answer, ID, cased.as_ref().unwrap_or(errand.question), errand.manner.exact_case);
    errand.heard(answer.map_err(|refusal| errand.refused(refusal))?, departure, latency, "quic", notes)
}

/// A question and its answer.
struct Exchange {
    link: Box<Link>,
    act: String,
}

impl Exchange {
    async fn open_stream(&mut self) -> Result<StreamId, Failure> {
        loop {
            if let Some(stream) = self.link.connection.streams().open(Dir::Bi) {
                return Ok(stream);
            }
            self.link.turn().await?;
        }
    }

    /// Sends all of it, and says that this is all (RFC 9250 section 4.2).
    async fn send(&mut self, stream: StreamId, bytes: &[u8]) -> Result<(), Failure> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.link.connection.send_stream(stream).write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(WriteError::Blocked) => self.link.turn().await?,
                Err(error) => return Err(self.disconnected(&error)),
            }
        }
        self.link.connection.send_stream(stream).finish().map_err(|error| self.disconnected(&error))?;
        self.link.flush()
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
            self.link.turn().await?;
        }
    }

    /// Takes what has come on a stream; whether that is all.
    fn read(&mut self, stream: StreamId, came: &mut Vec<u8>) -> Result<bool, Failure> {
        let mut receiving = self.link.connection.recv_stream(stream);
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

    fn disconnected(&self, what: &dyn std::fmt::Display) -> Failure {
        Failure::target(Reason::Disconnected, format!("{}: {what}", self.act))
    }
}
