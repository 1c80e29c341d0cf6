//! Ping: echo requests, and what becomes of them (RFC 792, RFC 4443 section 4).

use std::{io, net::IpAddr, time::Duration};

use vantage_contract::v1::{PingProbe, PingReport, Reason};

use crate::{
    Probe, Run,
    failure::{Failure, Invalid, Moment},
    net::icmp::{Answer, BATCH, EchoSocket, Manner, random},
    stopwatch::{self, Phase},
    target::{self, Host, Options},
};

mod tally;

use tally::{Stuffing, Tally};

/// A ping, parsed.
pub(crate) struct Ping {
    host: Host,
    count: u32,
    spacing: Duration,
    payload_size: usize,
    manner: Manner,
    max_loss_percent: Option<f64>,
    max_latency: Option<Duration>,
}

impl Probe for Ping {
    type Spec = PingProbe;
    type Report = PingReport;

    fn parse(spec: &PingProbe, options: &Options) -> Result<Self, Invalid> {
        let host = Host::parse("host", &spec.host)?;
        let count = target::number("count", spec.count, 3, 1..=1000)?;
        let spacing =
            target::duration("spacing", spec.spacing, Duration::from_millis(200), Duration::from_millis(1)..=Duration::from_secs(60))?;
        let last = spacing * (count - 1);
        if last >= options.timeout {
            let field = if spec.spacing.is_some() && spec.count == 0 { "spacing" } else { "count" };
            let problem = format!(
                "{count} requests, one each {spacing:?}, do not fit into the timeout: the last leaves after {last:?}, the timeout is {:?}",
                options.timeout
            );
            return Err(Invalid::new(field, problem));
        }
        let payload_size = target::number("payload_size_bytes", spec.payload_size_bytes, 56, 16..=65_000)?;
        let hop_limit = target::number("hop_limit", spec.hop_limit, 0, 1..=255)?;
        let dscp = target::number("dscp", spec.dscp, 0, 0..=63)?;
        let max_loss_percent = match spec.max_loss_percent {
            Some(limit) if !(0.0..=100.0).contains(&limit) => {
                return Err(Invalid::new("max_loss_percent", format!("must be 0 to 100, is {limit}")));
            }
            limit => limit,
        };
        let max_latency = match spec.max_latency {
            None => None,
            limit => Some(target::duration("max_latency", limit, Duration::ZERO, Duration::from_nanos(1)..=Duration::from_secs(300))?),
        };
        Ok(Self {
            host,
            count,
            spacing,
            // At most 65 000, 255 and 63: checked above.
            payload_size: usize::try_from(payload_size).unwrap_or(56),
            manner: Manner {
                hop_limit: u8::try_from(hop_limit).ok().filter(|hops| *hops > 0),
                dont_fragment: spec.dont_fragment,
                dscp: u8::try_from(dscp).unwrap_or_default(),
            },
            max_loss_percent,
            max_latency,
        })
    }

    fn target(&self) -> String {
        self.host.to_string()
    }

    fn host(&self) -> &Host {
        &self.host
    }

    async fn run(&self, run: &mut Run<'_, PingReport>) -> Result<String, Failure> {
        let target = run.resolve(&self.host, None).await?;
        run.enter(Phase::Send);
        let mut socket = EchoSocket::open(target, run.options.source, self.manner, self.payload_size)?;
        let stuffing = Stuffing { cookie: u64::from_ne_bytes(random()?), size: self.payload_size };
        let mut tally = Tally::new(stuffing);
        let traffic = self.exchange(run, &mut socket, &mut tally, stuffing).await;
        tally.drops = socket.drops();
        run.report = tally.report(socket.style());
        run.latency = tally.smallest();
        let unsent = traffic.map_err(|error| Failure::of_io(format!("ping {target}"), &error, Moment::AtOnce))?;
        self.judge(&tally, target, run.options.timeout, unsent)
    }
}

impl Ping {
    /// Sends and receives until nothing is awaited any more, or the time is up. Returns the error of the last request that did not leave.
    async fn exchange(
        &self,
        run: &mut Run<'_, PingReport>,
        socket: &mut EchoSocket,
        tally: &mut Tally,
        stuffing: Stuffing,
    ) -> io::Result<Option<io::Error>> {
        // A little earlier than the deadline, so that the verdict is ours and not that of being cut off.
        let end = run.deadline - (run.remaining() / 10).min(Duration::from_millis(5));
        let mut next = stopwatch::now();
        let mut tried = 0;
        let mut unsent = None;
        loop {
            for _ in 0..BATCH {
                let Some(answer) = socket.receive()? else { break };
                match answer {
                    Answer::Reply { sequence, hop_limit, round_trip, payload } => {
                        // What arrived after the end may be read before it is noticed.
                        if socket.left_at(sequence).is_some_and(|left| left + round_trip.0 <= end) {
                            tally.replied(sequence, &payload, round_trip, hop_limit);
                        }
                    }
                    Answer::Error { sequence, error, .. } => tally.refused(sequence, error),
                }
            }
            let now = stopwatch::now();
            if now >= end || (tried == self.count && tally.is_settled()) {
                return Ok(unsent);
            }
            if tried < self.count && now >= next {
                match socket.send(&stuffing.payload(socket.next_sequence())) {
                    Ok(()) => tally.sent(),
                    Err(error) => unsent = Some(error),
                }
                tried += 1;
                // The rhythm is kept; what was missed is not made good by a burst.
                next = (next + self.spacing).max(now);
                run.enter(Phase::Wait);
                continue;
            }
            let wake = if tried < self.count { next.min(end) } else { end };
            tokio::select! {
                ready = socket.ready() => ready?,
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// What the accounts mean.
    fn judge(&self, tally: &Tally, target: IpAddr, timeout: Duration, unsent: Option<io::Error>) -> Result<String, Failure> {
        let (sent, answered) = (tally.sent_count(), tally.answered_count());
        let whom = self.whom(target);
        let act = format!("ping {whom}");
        // What was dropped at our own socket may have been an answer: it is not the target's loss.
        let dropped = tally.drops.min(sent - answered);
        let (lost, judged) = (sent - answered - dropped, sent - dropped);
        if answered == 0 {
            if let Some(error) = tally.first_error() {
                return Err(error.failure(act, target));
            }
            if let Some(error) = &tally.local {
                return Err(error.failure(act, target));
            }
            if let Some(error) = unsent {
                return Err(Failure::of_io(act, &error, Moment::AtOnce));
            }
            if dropped > 0 {
                let sentence = format!("{act}: {} packets were dropped at our own socket for want of room", tally.drops);
                return Err(Failure::new(Reason::ResourceExhausted, vantage_contract::v1::Attribution::Vantage, sentence));
            }
            if tally.corrupt_count() > 0 {
                let sentence = format!("{act}: {} replies, each with a changed payload", tally.corrupt_count());
                return Err(Failure::target(Reason::MalformedAnswer, sentence));
            }
            return Err(Failure::timed_out(format!("after {timeout:?} waiting for {whom}: no reply to {sent} requests")));
        }
        let (min, mean, max) = (tally.smallest().map_or(Duration::ZERO, |(taken, _)| taken), tally.mean(), tally.largest());
        let (mean, max) = (mean.unwrap_or(min), max.unwrap_or(min));
        if let Some(limit) = self.max_loss_percent
            && f64::from(lost) * 100.0 > limit * f64::from(judged)
        {
            let why = tally.first_error().and_then(|error| error.to_proto()).map_or_else(String::new, |error| {
                format!("; {} (type {} code {}), says {}", error.meaning, error.r#type, error.code, error.from)
            });
            return Err(Failure::target(Reason::TooLossy, format!("{act}: {lost} of {judged} requests lost, allowed are {limit} %{why}")));
        }
        if let Some(limit) = self.max_latency
            && mean > limit
        {
            return Err(Failure::target(Reason::TooSlow, format!("{act}: the mean round trip is {mean:.3?}, allowed is {limit:?}")));
        }
        Ok(format!("{whom} answered {answered} of {sent}, round trips {min:.3?} to {max:.3?}, mean {mean:.3?}"))
    }

    fn whom(&self, target: IpAddr) -> String {
        match &self.host {
            Host::Address(_) => target.to_string(),
            Host::Name(name) => format!("{name} ({target})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stopwatch::to_proto;

    fn parse(spec: PingProbe, timeout: Duration) -> Result<Ping, Invalid> {
        let options = Options { timeout, family: Default::default(), selection: Default::default(), source: None, resolver: None };
        Ping::parse(&PingProbe { host: "192.0.2.1".into(), ..spec }, &options)
    }

    #[test]
    fn an_empty_ping_has_the_defaults_of_the_contract() {
        let ping = parse(PingProbe::default(), Duration::from_secs(5)).unwrap();
        assert_eq!((ping.count, ping.spacing, ping.payload_size), (3, Duration::from_millis(200), 56));
        assert_eq!((ping.manner.hop_limit, ping.manner.dont_fragment, ping.manner.dscp), (None, false, 0));
    }

    #[test]
    fn what_is_out_of_range_names_its_field() {
        let field = |spec| parse(spec, Duration::from_secs(5)).err().map(|invalid| invalid.field);
        assert_eq!(field(PingProbe { count: 1001, ..PingProbe::default() }).unwrap(), "count");
        assert_eq!(field(PingProbe { spacing: Some(to_proto(Duration::ZERO)), ..PingProbe::default() }).unwrap(), "spacing");
        assert_eq!(field(PingProbe { payload_size_bytes: 15, ..PingProbe::default() }).unwrap(), "payload_size_bytes");
        assert_eq!(field(PingProbe { hop_limit: 256, ..PingProbe::default() }).unwrap(), "hop_limit");
        assert_eq!(field(PingProbe { dscp: 64, ..PingProbe::default() }).unwrap(), "dscp");
        assert_eq!(field(PingProbe { max_loss_percent: Some(f64::NAN), ..PingProbe::default() }).unwrap(), "max_loss_percent");
        assert_eq!(field(PingProbe { max_latency: Some(to_proto(Duration::ZERO)), ..PingProbe::default() }).unwrap(), "max_latency");
    }

    #[test]
    fn requests_that_do_not_fit_into_the_timeout_are_refused() {
        let invalid = parse(PingProbe { count: 26, ..PingProbe::default() }, Duration::from_secs(5)).err().unwrap();
        assert_eq!(invalid.field, "count");
        assert!(parse(PingProbe { count: 25, ..PingProbe::default() }, Duration::from_secs(5)).is_ok());
        assert!(parse(PingProbe { count: 1, ..PingProbe::default() }, Duration::from_millis(10)).is_ok());
        let slow = PingProbe { spacing: Some(to_proto(Duration::from_secs(3))), ..PingProbe::default() };
        assert_eq!(parse(slow, Duration::from_secs(5)).err().unwrap().field, "spacing");
    }

    #[test]
    fn packets_dropped_at_our_own_socket_are_never_loss() {
        let ping = parse(PingProbe { max_loss_percent: Some(0.0), ..PingProbe::default() }, Duration::from_secs(5)).unwrap();
        let target = IpAddr::from([192, 0, 2, 1]);
        let stuffing = Stuffing { cookie: 1, size: 56 };
        let mut tally = Tally::new(stuffing);
        tally.sent();
        tally.sent();
        tally.drops = 2;
        let failure = ping.judge(&tally, target, Duration::from_secs(5), None).unwrap_err();
        assert_eq!(failure.reason, Reason::ResourceExhausted);
        tally.replied(0, &stuffing.payload(0), (Duration::from_millis(1), vantage_contract::v1::TimingSource::Kernel), None);
        tally.drops = 1;
        assert!(ping.judge(&tally, target, Duration::from_secs(5), None).is_ok());
        tally.drops = 0;
        assert_eq!(ping.judge(&tally, target, Duration::from_secs(5), None).unwrap_err().reason, Reason::TooLossy);
    }
}
