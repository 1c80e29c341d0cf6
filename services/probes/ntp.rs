//! NTP: the clock of a server beside ours.

use std::{
    net::SocketAddr,
    time::{Duration, UNIX_EPOCH},
};

use vantage_contract::v1::{NtpProbe, NtpReport, Reason, TimingSource};

use crate::{
    Probe, Run,
    failure::{Failure, Invalid},
    net::{random::random, stamp::Reading, udp::Connected},
    stopwatch::{self, Phase},
    target::{self, Host, Options},
    wire::ntp::{self as wire, Fault, Packet, Sample, Stamp},
};

/// An NTP probe, parsed.
pub(crate) struct Ntp {
    server: Host,
    port: u16,
    samples: u32,
    spacing: Duration,
    max_offset: Option<Duration>,
    max_stratum: u32,
    max_root_distance: Option<Duration>,
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
        };
        let needed = ntp.spacing * (ntp.samples - 1);
        if needed >= options.timeout {
            let problem =
                format!("{} with a spacing of {:?} need more than the timeout of {:?}", ntp.samples, ntp.spacing, options.timeout);
            return Err(Invalid::new("samples", problem));
        }
        Ok(ntp)
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

    async fn run(&self, run: &mut Run<'_, NtpReport>) -> Result<String, Failure> {
        let server = run.resolve_port(&self.server, self.port).await?;
        run.enter(Phase::Send);
        let socket = Connected::open(server, run.options.source)?;
        let mut asked: Vec<Asked> = Vec::new();
        let mut best: Option<(Sample, Packet, TimingSource)> = None;
        let mut next_departure = stopwatch::now();
        loop {
            if run.report.sent_count < self.samples && stopwatch::now() >= next_departure {
                asked.push(Asked::send(&socket).await?);
                run.report.sent_count += 1;
                next_departure += self.spacing;
                run.enter(Phase::Wait);
            }
            let more = run.report.sent_count < self.samples;
            if !more && run.report.answered_count == self.samples {
                break;
            }
            let wake = if more { next_departure.min(run.last_call()) } else { run.last_call() };
            let received = match tokio::time::timeout_at(wake, socket.receive()).await {
                Ok(received) => received?,
                Err(_) if wake == run.last_call() => break,
                Err(_) => continue,
            };
            let bytes = &received.bytes;
            let origin = wire::origin(bytes);
            // An answer counts once: a second one with the same origin is a replay.
            let Some(number) = asked.iter().position(|asked| Some(asked.nonce) == origin) else {
                run.report.ignored_count += 1;
                continue;
            };
            let asked = asked.swap_remove(number);
            let packet = Packet::decode(bytes)
                .ok_or_else(|| malformed(server, &format!("it has {} bytes, fewer than {}", bytes.len(), wire::LENGTH)))?;
            show(&packet, &mut run.report);
            let (elapsed, source) = received.since(&asked.left);
            let departure = Stamp::of_unix(asked.left.since_1970());
            let sample = packet
                .check()
                .and_then(|()| Sample::of(&packet, departure, elapsed, asked.left.resolution()))
                .map_err(|fault| failure(server, fault))?;
            run.report.answered_count += 1;
            if best.as_ref().is_none_or(|(least, ..)| sample.delay < least.delay) {
                best = Some((sample, packet, source));
            }
        }
        let Some((sample, packet, source)) = best else {
            let ignored = match run.report.ignored_count {
                0 => String::new(),
                count => format!(" (datagrams that were not an answer to us: {count})"),
            };
            return Err(Failure::timed_out(format!("after {:?} waiting for the answer of {server}{ignored}", run.options.timeout)));
        };
        show(&packet, &mut run.report);
        run.report.offset = Some(signed(sample.offset));
        run.report.offset_uncertainty = Some(stopwatch::to_proto(sample.uncertainty));
        run.report.delay = Some(stopwatch::to_proto(sample.delay));
        run.latency = Some((sample.delay, source));
        self.judge(server, &sample, &packet)
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
        Ok(format!("{server} is off by {offset} ± {:?}, stratum {}", sample.uncertainty, packet.stratum))
    }
}

/// A request that is under way.
struct Asked {
    nonce: Stamp,
    /// When it left, by both clocks.
    left: Reading,
}

impl Asked {
    async fn send(socket: &Connected) -> Result<Self, Failure> {
        let nonce = Stamp(u64::from_be_bytes(random()?));
        let request = wire::request(nonce);
        let left = Reading::now();
        socket.send(&request).await?;
        Ok(Self { nonce, left })
    }
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
