//! UDP: one datagram and its answer.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use regex::bytes::Regex;
use vantage_contract::v1::{Attribution, Reason, TimingSource, UdpPortState, UdpProbe, UdpReport, udp_probe::Payload};

use crate::{
    Probe, Run,
    failure::{Failure, Invalid},
    net::{
        stamp::Reading,
        udp::{Connected, Trouble},
    },
    stopwatch::{self, Phase},
    target::{self, Host, Options},
    wire::text,
};

/// The most that fits into a datagram over IPv4: 65 535 bytes less the headers.
const MAX_PAYLOAD: usize = 65_507;
/// How much of an answer is shown, in bytes.
const MAX_SHOWN: usize = 1024;

/// A UDP probe, parsed.
pub(crate) struct Udp {
    host: Host,
    port: u16,
    payload: Bytes,
    expect: Vec<u8>,
    expect_regex: Option<Regex>,
    require_answer: bool,
    attempts: u32,
}

impl Probe for Udp {
    type Spec = UdpProbe;
    type Report = UdpReport;

    fn parse(spec: &UdpProbe, _: &Options) -> Result<Self, Invalid> {
        let (field, payload) = match &spec.payload {
            None => ("text", Bytes::new()),
            Some(Payload::Text(text)) => ("text", Bytes::from(text.clone())),
            Some(Payload::Preset(_)) => return Err(Invalid::new("preset", "is not known to this monitor")),
            Some(Payload::Hex(digits)) => ("hex", text::hex(digits).map_err(|problem| Invalid::new("hex", problem))?),
        };
        if payload.len() > MAX_PAYLOAD {
            return Err(Invalid::new(field, format!("has {} bytes; a datagram takes {MAX_PAYLOAD}", payload.len())));
        }
        let expect_regex = match spec.expect_regex.as_str() {
            "" => None,
            text => Some(Regex::new(text).map_err(|error| Invalid::new("expect_regex", error.to_string()))?),
        };
        Ok(Self {
            host: Host::parse("host", &spec.host)?,
            port: target::port("port", spec.port, None)?,
            payload,
            expect: spec.expect.clone().into_bytes(),
            expect_regex,
            require_answer: spec.require_answer,
            attempts: target::number("attempts", spec.attempts, 1, 1..=10)?,
        })
    }

    fn target(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    fn host(&self) -> &Host {
        &self.host
    }

    async fn run(&self, run: &mut Run<'_, UdpReport>) -> Result<String, Failure> {
        let remote = run.resolve_port(&self.host, self.port).await?;
        run.enter(Phase::Send);
        let gap = run.remaining() / self.attempts;
        let mut next_departure = stopwatch::now();
        // A socket for each attempt: its port says which datagram an answer, or an error, is about.
        let mut asked = FuturesUnordered::new();
        loop {
            if run.report.sent_count < self.attempts && stopwatch::now() >= next_departure {
                let socket = Connected::open(remote, run.options.source)?;
                if let Some(local) = socket.local_address().filter(|_| run.report.local_address.is_empty()) {
                    run.report.local_address = local.to_string();
                }
                let left = Reading::now();
                if let Err(trouble) = socket.send(&self.payload).await {
                    return Err(refused(trouble, &mut run.report));
                }
                run.report.sent_count += 1;
                run.report.set_state(UdpPortState::OpenOrFiltered);
                run.enter(Phase::Wait);
                next_departure += gap;
                asked.push(async move {
                    let received = socket.receive().await;
                    (left, socket, received)
                });
            }
            let more = run.report.sent_count < self.attempts;
            let wake = if more { next_departure.min(run.last_call()) } else { run.last_call() };
            match tokio::time::timeout_at(wake, asked.next()).await {
                Ok(Some((left, socket, received))) => {
                    if let Some(local) = socket.local_address() {
                        run.report.local_address = local.to_string();
                    }
                    return match received {
                        Ok(received) => {
                            run.latency = Some(received.since(&left));
                            self.judge(remote, &received.bytes, &mut run.report)
                        }
                        Err(trouble) => {
                            let taken = stopwatch::now().saturating_duration_since(left.monotonic);
                            run.latency = Some((taken, TimingSource::User));
                            Err(refused(trouble, &mut run.report))
                        }
                    };
                }
                Err(_) if wake == run.last_call() => return Err(self.silence(remote, run)),
                _ => {}
            }
        }
    }
}

impl Udp {
    fn judge(&self, remote: SocketAddr, answer: &[u8], report: &mut UdpReport) -> Result<String, Failure> {
        report.set_state(UdpPortState::Open);
        report.answer_size_bytes = answer.len() as u64;
        report.answer = text::escape(&answer[..answer.len().min(MAX_SHOWN)]);
        let unexpected =
            |what: String| Failure::target(Reason::UnexpectedAnswer, format!("the answer of {remote} ({} bytes) {what}", answer.len()));
        let has = |text: &[u8]| text.is_empty() || answer.windows(text.len()).any(|window| window == text);
        if !has(&self.expect) {
            return Err(unexpected(format!("does not have {:?}", String::from_utf8_lossy(&self.expect))));
        }
        if let Some(regex) = &self.expect_regex
            && !regex.is_match(answer)
        {
            return Err(unexpected(format!("does not match \"{regex}\"")));
        }
        Ok(format!("{remote} answered with {} bytes", answer.len()))
    }

    fn silence(&self, remote: SocketAddr, run: &Run<'_, UdpReport>) -> Failure {
        let limit = run.options.timeout;
        if self.require_answer {
            return Failure::timed_out(format!("after {limit:?} waiting for the answer of {remote}"));
        }
        let sentence = format!("{remote} was silent for {limit:?}: the port is open or filtered");
        Failure::new(Reason::NoAnswer, Attribution::Target, sentence)
    }
}

/// What an error says of the port.
fn refused(trouble: Trouble, report: &mut UdpReport) -> Failure {
    let Trouble { failure, error } = trouble;
    if error.is_some() {
        let closed = failure.reason == Reason::Refused && failure.attribution == Attribution::Target;
        report.set_state(if closed { UdpPortState::Closed } else { UdpPortState::Filtered });
    }
    report.error = error;
    failure
}
