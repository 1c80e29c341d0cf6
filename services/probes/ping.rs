//! Ping: echo requests, and what becomes of them (RFC 792, RFC 4443 section 4).

use std::{io, net::IpAddr, time::Duration};

use vantage_contract::v1::{Attribution, PingProbe, PingReport, PingRequest, PingTiming, Reason, TimingSource};

use crate::{
    Probe, Run,
    failure::{Failure, Invalid, Moment},
    gate::Demand,
    net::{
        echo::{Fate, Landing, Order, Tally},
        errqueue::SocketError,
        icmp::Manner,
    },
    stopwatch::{Phase, to_proto},
    target::{self, Host, Options},
    wire::text,
};

/// A ping, parsed.
pub(crate) struct Ping {
    host: Host,
    count: u32,
    spacing: Duration,
    payload_size: usize,
    manner: Manner,
    max_loss_percent: Option<f64>,
    max_latency: Option<Duration>,
    request_timeout: Option<Duration>,
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
        let request_timeout = match spec.request_timeout {
            None => None,
            limit => Some(target::duration("request_timeout", limit, Duration::ZERO, Duration::from_millis(1)..=Duration::from_secs(300))?),
        };
        Ok(Self {
            host,
            count,
            spacing,
            request_timeout,
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

    fn is_stamped(&self) -> bool {
        true
    }

    fn target(&self) -> String {
        self.host.to_string()
    }

    fn host(&self) -> &Host {
        &self.host
    }

    fn demand(&self) -> Demand<'_> {
        Demand { requests: self.count, payload_bytes: self.payload_size, spacing: Some(self.spacing), ..Demand::default() }
    }

    async fn run(&self, run: &mut Run<'_, PingReport>) -> Result<String, Failure> {
        let target = run.resolve(&self.host, None).await?;
        run.enter(Phase::Send);
        // A little earlier than the deadline, so that the verdict is ours and not that of being cut off.
        let end = run.deadline - (run.remaining() / 10).min(Duration::from_millis(5));
        let order = Order {
            target,
            source: run.options.source,
            manner: self.manner,
            count: self.count,
            spacing: self.spacing,
            size: self.payload_size,
            request_timeout: self.request_timeout,
            end,
        };
        run.enter(Phase::Wait);
        // Set once: a run pings one address.
        let _ = run.owed_by.set("the echo engine");
        let (landing, style) = run.world.echo.fly(order).await?;
        *run.report = report(&landing, style);
        run.latency = landing.tally.smallest();
        self.judge(&landing.tally, target, run.options.timeout, landing.unsent)
    }
}

impl Ping {
    /// What the accounts mean.
    fn judge(&self, tally: &Tally, target: IpAddr, timeout: Duration, unsent: Option<io::Error>) -> Result<String, Failure> {
        let (sent, answered) = (tally.sent_count(), tally.answered_count());
        let whom = self.whom(target);
        let act = || format!("ping {whom}");
        // What was dropped at our own socket may have been an answer: it is not the target's loss.
        let dropped = tally.drops.min(sent - answered);
        let (lost, judged) = (sent - answered - dropped, sent - dropped);
        if answered == 0 {
            if let Some(error) = tally.first_error() {
                return Err(error.failure(act(), target));
            }
            if let Some(error) = &tally.local {
                return Err(error.failure(act(), target));
            }
            if let Some(error) = unsent {
                return Err(Failure::of_io(act(), &error, Moment::AtOnce));
            }
            if dropped > 0 {
                let sentence = format!("{}: {} packets were dropped at our own socket for want of room", act(), tally.drops);
                return Err(Failure::new(Reason::ResourceExhausted, Attribution::Vantage, sentence));
            }
            if tally.corrupt > 0 {
                let sentence = format!("{}: {} replies, each with a changed payload", act(), tally.corrupt);
                return Err(Failure::target(Reason::MalformedAnswer, sentence));
            }
            let (limit, late) = match (self.request_timeout, tally.late) {
                (Some(limit), 0) => (limit, String::new()),
                (Some(limit), late) => (limit, format!(", {late} came late")),
                (None, _) => (timeout, String::new()),
            };
            return Err(Failure::timed_out(format!("after {limit:?} waiting for {whom}: no reply to {sent} requests{late}")));
        }
        let (min, mean, max) = (tally.smallest().map_or(Duration::ZERO, |(taken, _)| taken), tally.mean(), tally.largest());
        let (mean, max) = (mean.unwrap_or(min), max.unwrap_or(min));
        if let Some(limit) = self.max_loss_percent
            && f64::from(lost) * 100.0 > limit * f64::from(judged)
        {
            let why = tally.first_error().and_then(|error| error.to_proto()).map_or_else(String::new, |error| {
                format!("; {} (type {} code {}), says {}", error.meaning, error.r#type, error.code, error.from)
            });
            return Err(Failure::target(
                Reason::TooLossy,
                format!("{}: {lost} of {judged} requests lost, allowed are {limit} %{why}", act()),
            ));
        }
        if let Some(limit) = self.max_latency
            && mean > limit
        {
            return Err(Failure::target(Reason::TooSlow, format!("{}: the mean round trip is {mean:.3?}, allowed is {limit:?}", act())));
        }
        let [min, max, mean] = [min, max, mean].map(text::duration);
        Ok(format!("{whom} answered {answered} of {sent}, round trips {min} to {max}, mean {mean}"))
    }

    fn whom(&self, target: IpAddr) -> String {
        match &self.host {
            Host::Address(_) => text::address(target),
            Host::Name(name) => format!("{name} ({target})"),
        }
    }
}

/// The report of a flight over a socket of that style.
fn report(landing: &Landing, style: &str) -> PingReport {
    let tally = &landing.tally;
    let request = |(sequence, fate): (u32, &Fate)| {
        let (round_trip, timing) = match fate {
            Fate::Answered(taken, source) => (Some(to_proto(*taken)), timing(*source)),
            Fate::Open | Fate::Expired | Fate::Late | Fate::Refused => (None, PingTiming::Unspecified),
        };
        PingRequest { sequence, round_trip, timing: timing.into() }
    };
    PingReport {
        sent_count: tally.sent_count(),
        answered_count: tally.answered_count(),
        duplicate_count: tally.duplicates,
        corrupt_count: tally.corrupt,
        out_of_order_count: tally.out_of_order,
        local_drop_count: tally.drops,
        min_round_trip: tally.smallest().map(|(taken, _)| to_proto(taken)),
        mean_round_trip: tally.mean().map(to_proto),
        max_round_trip: tally.largest().map(to_proto),
        reply_hop_limit: tally.reply_hop_limit.into(),
        requests: (0..).zip(tally.fates()).map(request).collect(),
        errors: tally.errors.iter().filter_map(SocketError::to_proto).collect(),
        socket: style.to_owned(),
        late_count: tally.late,
        clock_stepped: landing.stepped,
    }
}

fn timing(source: TimingSource) -> PingTiming {
    match source {
        TimingSource::Unspecified => PingTiming::Unspecified,
        TimingSource::User => PingTiming::User,
        TimingSource::KernelReceive => PingTiming::KernelReceive,
        TimingSource::Kernel => PingTiming::Kernel,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::echo::{Reply, Stuffing};

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
        let mut tally = Tally::new(stuffing, 2);
        tally.sent();
        tally.sent();
        tally.drops = 2;
        let failure = ping.judge(&tally, target, Duration::from_secs(5), None).unwrap_err();
        assert_eq!(failure.reason, Reason::ResourceExhausted);
        let mut payload = [0; 56];
        stuffing.write(0, &mut payload);
        let round_trip = (Duration::from_millis(1), TimingSource::Kernel);
        tally.replied(0, Reply { sequence: 0, payload: &payload, round_trip, late: false, hop_limit: None });
        tally.drops = 1;
        assert!(ping.judge(&tally, target, Duration::from_secs(5), None).is_ok());
        tally.drops = 0;
        assert_eq!(ping.judge(&tally, target, Duration::from_secs(5), None).unwrap_err().reason, Reason::TooLossy);
    }
}
