//! NTP: the clock of a server beside ours.

use std::{
    net::SocketAddr,
    time::{Duration, UNIX_EPOCH},
};

use vantage_contract::v1::{Attribution, NtpProbe, NtpReport, NtpSample, Reason, TimingSource};

use crate::{
    Probe, Run,
    failure::{Failure, Invalid},
    gate::Demand,
    net::{
        random::random,
        stamped::Stamps,
        udp::{Connected, Exchange},
    },
    stopwatch::{self, Phase},
    target::{self, Host, Options},
    wire::ntp::{self as wire, Fault, Packet, Sample, Stamp},
};

pub(crate) mod holds;

use holds::Hold;

/// An NTP probe, parsed.
pub(crate) struct Ntp {
    server: Host,
    port: u16,
    samples: u32,
    spacing: Duration,
    max_offset: Option<Duration>,
    max_stratum: u32,
    max_root_distance: Option<Duration>,
    max_delay: Option<Duration>,
    version: u8,
}

impl Probe for Ntp {
    type Spec = NtpProbe;
    type Report = NtpReport;

    fn parse(spec: &NtpProbe, options: &Options) -> Result<Self, Invalid> {
        let limit = |field, value: Option<prost_types::Duration>| match value {
            Some(_) => target::duration(field, value, Duration::ZERO, Duration::ZERO..=Duration::from_secs(u32::MAX.into())).map(Some),
            None => Ok(None),
        };
        let ntp = Self {
            server: Host::parse("server", &spec.server)?,
            port: target::port("port", spec.port, Some(123))?,
            samples: target::number("samples", spec.samples, 1, 1..=8)?,
            spacing: target::duration(
                "spacing",
                spec.spacing,
                Duration::from_secs(2),
                Duration::from_millis(10)..=Duration::from_secs(60),
            )?,
            max_offset: limit("max_offset", spec.max_offset)?,
            max_stratum: target::number("max_stratum", spec.max_stratum, 15, 1..=15)?,
            max_root_distance: limit("max_root_distance", spec.max_root_distance)?,
            max_delay: limit("max_delay", spec.max_delay)?,
            version: if target::number("version", spec.version, 4, 3..=4)? == 3 { 3 } else { 4 },
        };
        let needed = ntp.spacing * (ntp.samples - 1);
        if needed >= options.timeout {
            let problem =
                format!("{} with a spacing of {:?} need more than the timeout of {:?}", ntp.samples, ntp.spacing, options.timeout);
            return Err(Invalid::new("samples", problem));
        }
        Ok(ntp)
    }

    fn is_stamped(&self) -> bool {
        true
    }

    fn target(&self) -> String {
        match self.port {
            123 => self.server.to_string(),
            port => format!("{}:{port}", self.server),
        }
    }

    fn host(&self) -> &Host {
        &self.server
    }

    fn demand(&self) -> Demand<'_> {
        Demand { requests: self.samples, payload_bytes: wire::LENGTH, spacing: Some(self.spacing), ..Demand::default() }
    }

    async fn run(&self, run: &mut Run<'_, NtpReport>) -> Result<String, Failure> {
        let server = run.resolve_port(&self.server, self.port).await?;
        let holds = &run.world.memory.holds;
        if let Some(hold) = holds.of(server, stopwatch::now()) {
            // Nothing is probed.
            run.address = None;
            return Err(held_off(server, &hold));
        }
        run.enter(Phase::Send);
        let mut socket = Connected::open(server, run.options.source, Stamps::Both)?;
        let mut asked: Vec<Asked> = Vec::new();
        let mut heard: Vec<Heard> = Vec::new();
        let mut wanted = self.samples;
        let mut next_departure = stopwatch::now();
        loop {
            if run.report.sent_count < wanted && stopwatch::now() >= next_departure {
                if run.report.sent_count > 0 && holds.of(server, stopwatch::now()).is_some() {
                    // Another check of the same server was asked to stop, and so are we.
                    wanted = run.report.sent_count;
                    continue;
                }
                let nonce = Stamp(u64::from_be_bytes(random()?));
                asked.push(Asked { nonce, number: socket.send(&wire::request(self.version, nonce))? });
                run.report.sent_count += 1;
                next_departure += self.spacing;
                run.enter(Phase::Wait);
            }
            let more = run.report.sent_count < wanted;
            if !more && run.report.answered_count == wanted {
                break;
            }
            let wake = if more { next_departure.min(run.last_call()) } else { run.last_call() };
            let received = match tokio::time::timeout_at(wake, socket.receive()).await {
                Ok(received) => received?,
                Err(_) if wake == run.last_call() => break,
                Err(_) => continue,
            };
            let origin = wire::origin(&received.bytes);
            // An answer counts once: a second one with the same origin is a replay.
            let known = asked.iter().position(|asked| Some(asked.nonce) == origin).map(|index| asked.swap_remove(index));
            let exchange = known.as_ref().and_then(|asked| socket.exchange(asked.number, received.arrived));
            let (Some(asked), Some(exchange)) = (known, exchange) else {
                run.report.ignored_count += 1;
                continue;
            };
            let packet = Packet::decode(&received.bytes);
            if let Some(packet) = &packet {
                show(packet, &mut run.report);
            }
            let sample = sample(&received.bytes, packet.as_ref(), self.version, &exchange).map_err(|fault| {
                if let (Fault::Kiss(code), Some(packet)) = (&fault, &packet) {
                    let length = holds.kiss(server, code, packet.poll, stopwatch::now());
                    run.report.hold_off = length.map(stopwatch::to_proto);
                }
                failure(server, fault)
            })?;
            run.report.answered_count += 1;
            heard.extend(packet.map(|packet| Heard { number: asked.number, sample, packet, source: exchange.source }));
        }
        heard.sort_by_key(|heard| heard.number);
        // RFC 5905 section 10: what is delayed least is disturbed least. (Of two that are equal the first.)
        let Some(best) = heard.iter().min_by_key(|heard| heard.sample.delay) else {
            let ignored = match run.report.ignored_count {
                0 => String::new(),
                count => format!(" (datagrams that were not an answer to us: {count})"),
            };
            return Err(Failure::timed_out(format!("after {:?} waiting for the answer of {server}{ignored}", run.options.timeout)));
        };
        best.show(&heard, &mut run.report);
        run.latency = Some((best.sample.delay, best.source));
        self.judge(server, &best.sample, &best.packet)
    }
}

impl Ntp {
    /// The limits of the check.
    fn judge(&self, server: SocketAddr, sample: &Sample, packet: &Packet) -> Result<String, Failure> {
        let offset = in_words(sample.offset);
        let beyond = |what: String| Err(Failure::target(Reason::UnexpectedAnswer, format!("{server} {what}")));
        if let Some(limit) = self.max_offset
            && Duration::from_nanos(sample.offset.unsigned_abs()) > limit
        {
            return beyond(format!("is off by {offset}, more than {limit:?}"));
        }
        if u32::from(packet.stratum) > self.max_stratum {
            return beyond(format!("has stratum {}, more than {}", packet.stratum, self.max_stratum));
        }
        if let Some(limit) = self.max_root_distance
            && packet.root_distance() > limit
        {
            return beyond(format!("has a root distance of {:?}, more than {limit:?}", packet.root_distance()));
        }
        if let Some(limit) = self.max_delay
            && sample.delay > limit
        {
            return Err(Failure::target(
                Reason::TooSlow,
                format!("{server} answered with a delay of {:?}, more than {limit:?}", sample.delay),
            ));
        }
        Ok(format!("{server} is off by {offset} ± {:?}, stratum {}", sample.uncertainty, packet.stratum))
    }
}

/// A request that is under way.
struct Asked {
    nonce: Stamp,
    /// Its number on the socket.
    number: u16,
}

/// A valid answer.
struct Heard {
    /// The number of its request.
    number: u16,
    sample: Sample,
    packet: Packet,
    /// Who took the stamps.
    source: TimingSource,
}

impl Heard {
    /// Shows this one as what counts, and all of them.
    fn show(&self, all: &[Self], report: &mut NtpReport) {
        show(&self.packet, report);
        let samples: Vec<_> = all.iter().map(|heard| heard.sample).collect();
        report.samples =
            samples.iter().map(|one| NtpSample { offset: Some(signed(one.offset)), delay: Some(stopwatch::to_proto(one.delay)) }).collect();
        report.jitter = wire::jitter(&self.sample, &samples).map(stopwatch::to_proto);
        report.offset = Some(signed(self.sample.offset));
        report.offset_uncertainty = Some(stopwatch::to_proto(self.sample.uncertainty));
        report.delay = Some(stopwatch::to_proto(self.sample.delay));
        report.root_distance = Some(stopwatch::to_proto(self.packet.root_distance()));
    }
}

/// What an answer to us says of the time, if it can be believed.
fn sample(bytes: &[u8], packet: Option<&Packet>, version: u8, exchange: &Exchange) -> Result<Sample, Fault> {
    let wrong = wire::wrong_length(bytes);
    let (Some(packet), None) = (packet, &wrong) else { return Err(Fault::Malformed(wrong.unwrap_or_default())) };
    packet.check(version)?;
    Sample::of(packet, exchange.departure, exchange.taken, exchange.resolution)
}

/// The wall clock as the time since the Unix epoch; zero where it is set before it.
fn wall() -> Duration {
    stopwatch::wall().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// What an answer to us says, believed or not.
fn show(packet: &Packet, report: &mut NtpReport) {
    report.stratum = packet.stratum.into();
    report.leap_indicator = packet.leap.into();
    report.reference_id = packet.reference_id();
    report.root_delay = Some(stopwatch::to_proto(packet.root_delay()));
    report.root_dispersion = Some(stopwatch::to_proto(packet.root_dispersion()));
    report.reference_time = packet
        .reference
        .to_unix(wall())
        .map(|(seconds, nanos)| prost_types::Timestamp { seconds, nanos: nanos.try_into().unwrap_or_default() });
    report.precision_log2_seconds = packet.precision.into();
    report.version = packet.version.into();
    report.kiss_code = packet.kiss_code().unwrap_or_default();
}

fn failure(server: SocketAddr, fault: Fault) -> Failure {
    match fault {
        Fault::Unsynchronized(why) => Failure::target(Reason::Unsynchronized, format!("{server} is not synchronized: {why}")),
        Fault::Kiss(code) => Failure::target(Reason::KissOfDeath, format!("{server} wants us to go away: kiss-o'-death {code}")),
        Fault::Malformed(what) => malformed(server, &what),
    }
}

/// A run that is due while the server is left alone.
fn held_off(server: SocketAddr, hold: &Hold) -> Failure {
    let left = hold.until.saturating_duration_since(stopwatch::now());
    let mut until = prost_types::Timestamp::from(stopwatch::wall() + left);
    until.nanos = 0;
    let sentence = format!("{server} asked to be left alone (kiss-o'-death {}), and is for {:?}, until {until}", hold.code, hold.length);
    Failure::new(Reason::HeldOff, Attribution::Target, sentence)
}

fn malformed(server: SocketAddr, what: &str) -> Failure {
    Failure::target(Reason::MalformedAnswer, format!("the answer of {server} is malformed: {what}"))
}

/// A duration with its sign: "+1.234s".
fn in_words(nanos: i64) -> String {
    format!("{}{:?}", if nanos < 0 { '-' } else { '+' }, Duration::from_nanos(nanos.unsigned_abs()))
}

/// A duration with its sign, as the contract carries it.
fn signed(nanos: i64) -> prost_types::Duration {
    prost_types::Duration { seconds: nanos / 1_000_000_000, nanos: i32::try_from(nanos % 1_000_000_000).unwrap_or_default() }
}
