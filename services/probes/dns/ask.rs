//! One question to one server, over datagrams or a stream.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, error::Elapsed, timeout_at},
};
use vantage_contract::v1::{Reason, TimingSource};

use super::notes::{Departure, Notes};
use crate::{
    failure::Failure,
    net::{dns as net, random::random, stamp::Reading, tcp},
    run::Memory,
    stopwatch::{self, Phase},
    wire::dns::{Answer, Manner, Question, Refusal},
};

/// What is asked of whom, in which manner, from where, and until when.
#[derive(Clone, Copy)]
pub(super) struct Errand<'e> {
    pub(super) server: SocketAddr,
    pub(super) question: &'e Question,
    pub(super) manner: Manner,
    pub(super) source: Option<IpAddr>,
    /// What runs leave for later ones: sockets.
    pub(super) memory: &'e Memory,
    /// When nobody waits any longer.
    pub(super) end: Instant,
    /// How long that is, for people.
    pub(super) timeout: Duration,
}

/// An answer, and how long it took.
pub(super) struct Heard {
    pub(super) answer: Answer,
    pub(super) latency: (Duration, TimingSource),
}

/// What became of an errand by its end.
pub(super) type ByTheEnd = Result<Result<Heard, Failure>, Elapsed>;

/// A question as it was sent.
struct Asked {
    id: u16,
    /// As it was written where that matters, with random letters' case.
    cased: Option<Question>,
    left: Reading,
    departure: Departure,
}

impl Errand<'_> {
    /// Asks over UDP, and again over TCP where the answer is truncated and `tcp_fallback` allows it.
    pub(super) async fn over_datagrams(&self, attempts: u32, tcp_fallback: bool, notes: &mut Notes<'_>) -> ByTheEnd {
        // It ends by itself: no further timer is set and taken back for each of a thousand questions.
        if let Some(heard) = self.over_udp(attempts, notes).await.transpose() {
            return Ok(heard);
        }
        if !tcp_fallback {
            return Ok(Err(self.truncated("udp")));
        }
        // From here on our own clock counts.
        let _hurrying = self.memory.hurry.begin();
        // Most answers are whole, and don't need the room for it.
        timeout_at(self.end, Box::pin(self.over_tcp(notes))).await
    }

    /// Asks until there is an answer, with an identifier of its own each time, evenly over the time that is left. An answer to an earlier
    /// question is as good as one to the last. None: it is truncated.
    async fn over_udp(&self, attempts: u32, notes: &mut Notes<'_>) -> Result<Option<Heard>, Failure> {
        let server = self.server;
        notes.enter(Phase::Send);
        let mut shared = self.memory.shelf.take(server, self.source)?;
        let mut asked: Vec<Asked> = Vec::with_capacity(1);
        let mut next_departure = stopwatch::now();
        let gap = self.end.saturating_duration_since(next_departure) / attempts;
        let (mut ignored, mut in_other_case) = (0_u32, 0_u32);
        loop {
            let more = |asked: &[Asked]| asked.len() < usize::try_from(attempts).unwrap_or(usize::MAX);
            if more(&asked) && stopwatch::now() >= next_departure {
                let id = shared.number()?;
                let cased = self.cased()?;
                let message = cased.as_ref().unwrap_or(self.question).encode(id, self.manner);
                let left = Reading::now();
                let departure = notes.depart("udp", left.monotonic);
                shared.socket.send(&message)?;
                asked.push(Asked { id, cased, left, departure });
                notes.enter(Phase::Wait);
                next_departure += gap;
            }
            let wake = if more(&asked) { next_departure.min(self.end) } else { self.end };
            // Who floods us with what is no answer does not hold up the end.
            let is_over = ignored > 0 && stopwatch::now() >= self.end;
            let received = match timeout_at(wake, shared.socket.receive()).await {
                Ok(received) if !is_over => received?,
                _ if is_over || wake == self.end => {
                    let doing = format!("after {:?} waiting for the answer of {server}", self.timeout);
                    let sent = asked.len();
                    if in_other_case > 0 {
                        let what = format!("{server} does not repeat the letters of the name as they were written (0x20)");
                        return Err(Failure::target(
                            Reason::UnexpectedAnswer,
                            format!("{what}, in {in_other_case} answers to {sent} questions"),
                        ));
                    }
                    return Err(Failure::timed_out(format!("{doing} (questions sent: {sent}, other datagrams ignored: {ignored})")));
                }
                _ => continue,
            };
            let Some(known) = asked.iter().find(|asked| received.bytes.get(..2) == Some(&asked.id.to_be_bytes())) else {
                ignored += 1;
                notes.report.ignored_count += 1;
                continue;
            };
            let latency = received.since(&known.left);
            let question = known.cased.as_ref().unwrap_or(self.question);
            match Answer::decode_in_case(received.bytes, known.id, question, self.manner.exact_case) {
                Ok(answer) => {
                    notes.settle(known.departure, latency.0, if answer.truncated { "truncated" } else { "answered" });
                    notes.came(known.left.monotonic + latency.0);
                    if asked.len() == 1 && ignored == 0 {
                        self.memory.shelf.put_back(shared);
                    } else {
                        notes.settle_rest(stopwatch::now(), "silent");
                    }
                    notes.report.truncated = answer.truncated;
                    notes.show(&answer, "udp");
                    return Ok((!answer.truncated).then_some(Heard { answer, latency }));
                }
                Err(Refusal::Malformed(what)) => return Err(net::malformed(server, &what)),
                Err(refusal) => {
                    in_other_case += u32::from(refusal == Refusal::OtherCase);
                    ignored += 1;
                    notes.report.ignored_count += 1;
                }
            }
        }
    }

    /// Asks on a new connection.
    pub(super) async fn over_tcp(&self, notes: &mut Notes<'_>) -> Result<Heard, Failure> {
        notes.enter(Phase::Connect);
        let mut stream = tcp::connect(self.server, self.source).await?;
        self.over_stream(&mut stream, "tcp", notes).await
    }

    /// Asks once on a stream (RFC 7766). What comes before the answer and answers something else is ignored.
    pub(super) async fn over_stream(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        transport: &str,
        notes: &mut Notes<'_>,
    ) -> Result<Heard, Failure> {
        notes.enter(Phase::Send);
        let (id, cased) = (net::new_id()?, self.cased()?);
        let question = cased.as_ref().unwrap_or(self.question);
        let departure = notes.depart(transport, stopwatch::now());
        net::write_message(stream, self.server, &question.encode(id, self.manner)).await?;
        notes.enter(Phase::Wait);
        loop {
            let message = net::read_message(stream, self.server).await?;
            let arrival = stopwatch::now();
            match Answer::decode_in_case(message, id, question, self.manner.exact_case) {
                Ok(answer) => return self.heard(answer, departure, by_our_clock(departure, arrival), transport, notes),
                Err(Refusal::Stranger) => notes.report.ignored_count += 1,
                Err(refusal) => return Err(self.refused(refusal)),
            }
        }
    }

    /// The question as it is written this time, where its letters' case is random.
    pub(super) fn cased(&self) -> Result<Option<Question>, Failure> {
        Ok(if self.manner.exact_case { self.question.in_case(random()?) } else { None })
    }

    /// Writes down an answer that came over something reliable, `latency` after its question left.
    pub(super) fn heard(
        &self,
        answer: Answer,
        departure: Departure,
        latency: (Duration, TimingSource),
        transport: &str,
        notes: &mut Notes<'_>,
    ) -> Result<Heard, Failure> {
        notes.settle(departure, latency.0, if answer.truncated { "truncated" } else { "answered" });
        notes.show(&answer, transport);
        if answer.truncated {
            notes.report.truncated = true;
            // There is nowhere else to ask for the rest.
            return Err(self.truncated(transport));
        }
        Ok(Heard { answer, latency })
    }

    /// What to say of an answer on a connection of our own that is not one to our question.
    pub(super) fn refused(&self, refusal: Refusal) -> Failure {
        let server = self.server;
        match refusal {
            Refusal::Malformed(what) => net::malformed(server, &what),
            Refusal::Stranger => Failure::target(Reason::UnexpectedAnswer, format!("{server} answered another question")),
            Refusal::OtherCase => Failure::target(
                Reason::UnexpectedAnswer,
                format!("{server} does not repeat the letters of the name as they were written (0x20)"),
            ),
        }
    }

    fn truncated(&self, transport: &str) -> Failure {
        Failure::target(Reason::UnexpectedAnswer, format!("the answer of {} over {transport} is truncated", self.server))
    }
}

/// How long an answer took by the process's own clock.
pub(super) fn by_our_clock(departure: Departure, arrival: Instant) -> (Duration, TimingSource) {
    (arrival.saturating_duration_since(departure.at), TimingSource::User)
}
