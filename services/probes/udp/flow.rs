//! One source port: what was sent from it, and what came back to it.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::time::Instant;
use vantage_contract::v1::{Attribution, Reason, TimingSource, UdpFlow, UdpPortState};

use super::verdict::Expectations;
use crate::{
    failure::Failure,
    net::{
        ports::Ports,
        random::random,
        udp::{Connected, Received, Trouble},
    },
    stopwatch,
    wire::preset::{self, Answer, Preset},
};

/// What is sent.
pub(super) enum Content {
    /// Always these bytes. Nothing in an answer says which of several they were an answer to.
    Bytes(Vec<u8>),
    /// A question that is made anew each time.
    Preset(Preset),
}

impl Content {
    /// How many bytes one datagram has, at most.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Preset(_) => preset::MAX_SIZE,
        }
    }
}

/// A source port.
pub(super) struct Flow<'p> {
    content: &'p Content,
    remote: SocketAddr,
    local: SocketAddr,
    socket: Connected,
    /// The questions of a preset, by their numbers.
    questions: Vec<Vec<u8>>,
    /// What is known of it so far.
    pub(super) sight: UdpFlow,
    /// The answer that counts.
    pub(super) answer: Vec<u8>,
    pub(super) latency: Option<(Duration, TimingSource)>,
    /// When it came, where that is known.
    pub(super) arrival: Option<Instant>,
    /// Something came that is no answer in the preset's protocol.
    pub(super) is_foreign: bool,
    /// What came of it: nothing yet, the expected, or a failure.
    pub(super) end: Option<Result<(), Failure>>,
}

impl<'p> Flow<'p> {
    /// Opens one that has not been used for long.
    pub(super) fn open(remote: SocketAddr, source: Option<IpAddr>, ports: &Ports, content: &'p Content) -> Result<Self, Failure> {
        let socket = Connected::open_afresh(remote, source, ports)?;
        let local = socket.local_address().ok_or_else(|| Failure::internal("a socket without an address"))?;
        let sight = UdpFlow { local_address: local.to_string(), ..UdpFlow::default() };
        Ok(Self {
            content,
            remote,
            local,
            socket,
            questions: Vec::new(),
            sight,
            answer: Vec::new(),
            latency: None,
            arrival: None,
            is_foreign: false,
            end: None,
        })
    }

    /// Whether something may still come.
    pub(super) fn is_open(&self) -> bool {
        self.end.is_none()
    }

    /// Asks. What the kernel has against it, or has heard of an earlier datagram, ends the flow.
    pub(super) fn send(&mut self) -> Result<(), Failure> {
        let sent = match self.content {
            Content::Bytes(bytes) => self.socket.send(bytes),
            Content::Preset(preset) => {
                self.questions.push(preset.question(&random()?, self.local, self.remote));
                self.socket.send(self.questions.last().map_or(&[], Vec::as_slice))
            }
        };
        match sent {
            Ok(_) => {
                self.sight.sent_count += 1;
                self.sight.set_state(UdpPortState::OpenOrFiltered);
            }
            Err(trouble) => self.fail(trouble),
        }
        Ok(())
    }

    /// Listens until what came back decides. What is no answer to what was asked from here is counted, and does not. May be given up and
    /// taken up again.
    pub(super) async fn hear(&mut self, expect: &Expectations) {
        while self.is_open() {
            match self.socket.receive().await {
                Ok(received) => self.take(received, expect),
                Err(trouble) => self.fail(trouble),
            }
        }
    }

    fn take(&mut self, received: Received, expect: &Expectations) {
        let number = match self.content {
            Content::Bytes(_) => self.only_number(),
            Content::Preset(preset) => {
                let judged = self.questions.iter().map(|question| preset.judge(question, &received.bytes));
                let (mut ours, mut is_foreign) = (None, false);
                for (number, judged) in judged.enumerate() {
                    match judged {
                        Answer::Ours => ours = u16::try_from(number).ok(),
                        Answer::Stranger => {}
                        Answer::Foreign => is_foreign = true,
                    }
                }
                if ours.is_none() {
                    self.sight.ignored_count += 1;
                    if is_foreign {
                        self.is_foreign = true;
                        self.sight.set_state(UdpPortState::Open);
                    }
                    return;
                }
                ours
            }
        };
        self.time(number, received.arrived);
        self.answer = received.bytes;
        self.sight.answer_size_bytes = self.answer.len() as u64;
        self.sight.set_state(UdpPortState::Open);
        let verdict = expect.judge(self.remote, &self.answer);
        self.sight.as_expected = verdict.is_ok();
        self.end = Some(verdict);
    }

    /// What an error says of the port.
    fn fail(&mut self, trouble: Trouble) {
        let Trouble { failure, error, arrived } = trouble;
        if error.is_some() {
            self.time(self.only_number(), arrived);
            let is_closed = failure.reason == Reason::Refused && failure.attribution == Attribution::Target;
            self.sight.set_state(if is_closed { UdpPortState::Closed } else { UdpPortState::Filtered });
        }
        self.sight.error = error;
        self.end = Some(Err(failure));
    }

    /// The datagram that anything must be about, where only one was sent. With more there is no telling (Karn and Partridge, 1987), and
    /// no latency is better than a wrong one.
    fn only_number(&self) -> Option<u16> {
        (self.sight.sent_count == 1).then_some(0)
    }

    fn time(&mut self, number: Option<u16>, arrived: Option<nix::sys::time::TimeSpec>) {
        let exchange = number.and_then(|number| self.socket.exchange(number, arrived));
        self.arrival = exchange.map(|exchange| exchange.arrival);
        self.latency = exchange.map(|exchange| (exchange.taken, exchange.source));
        self.sight.latency = self.latency.map(|(taken, _)| stopwatch::to_proto(taken));
    }
}
