//! UDP: one datagram and its answer, or the same from several source ports.

use std::net::SocketAddr;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;
use vantage_contract::v1::{UdpPortState, UdpProbe, UdpReport, udp_probe::Payload};

use crate::{
    Probe, Run,
    failure::{Failure, Invalid},
    gate::Demand,
    pattern,
    stopwatch::{self, Phase},
    target::{self, Host, Options},
    wire::{preset::Preset, text},
};

mod flow;
mod verdict;

use flow::{Content, Flow};
use verdict::Expectations;

/// The most that fits into a datagram over IPv4: 65 535 bytes less the headers.
const MAX_PAYLOAD: usize = 65_507;

/// A UDP probe, parsed.
pub(crate) struct Udp {
    host: Host,
    port: u16,
    content: Content,
    expect: Expectations,
    require_answer: bool,
    attempts: u32,
    source_ports: u32,
    require_flows: usize,
}

impl Probe for Udp {
    type Spec = UdpProbe;
    type Report = UdpReport;

    fn parse(spec: &UdpProbe, _: &Options) -> Result<Self, Invalid> {
        let hex = |field, digits: &str| text::hex(digits).map_err(|problem| Invalid::new(field, problem));
        let (field, content) = match &spec.payload {
            None => ("text", Content::Bytes(Vec::new())),
            Some(Payload::Text(text)) => ("text", Content::Bytes(text.clone().into_bytes())),
            Some(Payload::Hex(digits)) => ("hex", Content::Bytes(hex("hex", digits)?.to_vec())),
            Some(Payload::Preset(name)) => {
                let problem = || format!("{name:?} is none of {}", Preset::NAMES.join(", "));
                ("preset", Content::Preset(Preset::named(name).ok_or_else(|| Invalid::new("preset", problem()))?))
            }
        };
        if let Content::Bytes(bytes) = &content
            && bytes.len() > MAX_PAYLOAD
        {
            return Err(Invalid::new(field, format!("has {} bytes; a datagram takes {MAX_PAYLOAD}", bytes.len())));
        }
        let regex = match spec.expect_regex.as_str() {
            "" => None,
            text => Some(pattern::compile(text).map_err(|error| Invalid::new("expect_regex", error))?),
        };
        let source_ports = target::number("source_ports", spec.source_ports, 1, 1..=64)?;
        let require_flows = target::number("require_flows", spec.require_flows, source_ports, 1..=source_ports)?;
        Ok(Self {
            host: Host::parse("host", &spec.host)?,
            port: target::port("port", spec.port, None)?,
            content,
            expect: Expectations {
                text: spec.expect.clone().into_bytes(),
                beginning: hex("expect_hex", &spec.expect_hex)?.to_vec(),
                regex,
            },
            require_answer: spec.require_answer,
            attempts: target::number("attempts", spec.attempts, 1, 1..=10)?,
            source_ports,
            require_flows: usize::try_from(require_flows).unwrap_or(usize::MAX),
        })
    }

    fn is_stamped(&self) -> bool {
        true
    }

    fn target(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    fn host(&self) -> &Host {
        &self.host
    }

    fn demand(&self) -> Demand<'_> {
        Demand { requests: self.source_ports * self.attempts, payload_bytes: self.content.size(), ..Demand::default() }
    }

    async fn run(&self, run: &mut Run<'_, UdpReport>) -> Result<String, Failure> {
        let remote = run.resolve_port(&self.host, self.port).await?;
        run.enter(Phase::Send);
        let mut flows: Vec<Flow<'_>> = Vec::new();
        let gap = run.remaining() / self.attempts;
        let (mut rounds, mut next_departure) = (0, stopwatch::now());
        while !self.is_decided(&flows) {
            if rounds < self.attempts && stopwatch::now() >= next_departure {
                self.send(remote, run, &mut flows)?;
                (rounds, next_departure) = (rounds + 1, next_departure + gap);
                run.enter(Phase::Wait);
                continue;
            }
            let wake = if rounds < self.attempts { next_departure.min(run.last_call()) } else { run.last_call() };
            if !self.hear(&mut flows, wake).await && wake == run.last_call() {
                break;
            }
        }
        if let Some(last) = flows.iter().filter_map(|flow| flow.arrival).max()
            && flows.iter().all(|flow| flow.arrival.is_some())
        {
            run.watch.came(last);
        }
        self.conclude(remote, run, &flows)
    }
}

impl Udp {
    /// Asks once more: from all ports that nothing came back to. Where there is to be but one, from another each time: it says which
    /// datagram an answer, or an error, is about.
    fn send<'p>(&'p self, remote: SocketAddr, run: &mut Run<'_, UdpReport>, flows: &mut Vec<Flow<'p>>) -> Result<(), Failure> {
        if flows.is_empty() || self.source_ports == 1 {
            for _ in 0..self.source_ports {
                flows.push(Flow::open(remote, run.options.source, &run.world.memory.ports, &self.content)?);
            }
        }
        let newest = flows.len().saturating_sub(self.source_ports as usize);
        for flow in flows.iter_mut().skip(newest).filter(|flow| flow.is_open()) {
            flow.send()?;
            if flow.is_open() {
                run.report.sent_count += 1;
                run.report.set_state(UdpPortState::OpenOrFiltered);
            }
        }
        Ok(())
    }

    /// Waits until something comes back to one of them. False: nothing until `wake`.
    async fn hear(&self, flows: &mut [Flow<'_>], wake: Instant) -> bool {
        let open = flows.iter_mut().filter(|flow| flow.is_open());
        let mut listening: FuturesUnordered<_> = open.map(|flow| flow.hear(&self.expect)).collect();
        tokio::time::timeout_at(wake, listening.next()).await.is_ok()
    }

    /// Whether all that has to be known is known.
    fn is_decided(&self, flows: &[Flow<'_>]) -> bool {
        let mut ended = flows.iter().map(|flow| !flow.is_open());
        if self.source_ports == 1 { ended.any(|ended| ended) } else { !flows.is_empty() && ended.all(|ended| ended) }
    }
}
