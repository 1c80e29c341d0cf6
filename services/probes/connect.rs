//! Connecting to a target by TCP: to its first address, or to that which connects first (Happy Eyeballs, RFC 8305).

use std::{fmt::Write as _, net::SocketAddr, pin::pin, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::{
    sync::mpsc::unbounded_channel,
    time::{Instant, sleep_until},
};
use vantage_contract::v1::{ConnectAttempt, HttpReport, Reason, TcpReport};

use crate::{
    Run,
    failure::Failure,
    net::{
        race::{Next, Race},
        tcp::{self, ConnectError, Connected},
    },
    stopwatch::{self, Phase},
    target::{Host, MAX_ADDRESSES, Selection},
};

/// How many of the attempts that failed are told in the sentence; all are in the report.
const MOST_TOLD: usize = 4;

/// A connection that was made.
pub(crate) struct Connection {
    pub(crate) stream: Connected,
    pub(crate) remote: SocketAddr,
    /// From its first SYN to the connection.
    pub(crate) taken: Duration,
}

/// A report that tells who was tried.
pub(crate) trait Attempts {
    /// Who was tried.
    fn attempts(&mut self) -> &mut Vec<ConnectAttempt>;
}

impl Attempts for TcpReport {
    fn attempts(&mut self) -> &mut Vec<ConnectAttempt> {
        &mut self.attempts
    }
}

impl Attempts for HttpReport {
    fn attempts(&mut self) -> &mut Vec<ConnectAttempt> {
        &mut self.attempts
    }
}

impl<R> Run<'_, R> {
    /// Resolves the host (phase `resolve`), asks the gate and connects (phase `connect`), to the address or by the race that the options
    /// ask for. The report tells of the attempts of this race alone.
    pub(crate) async fn connect(&mut self, host: &Host, port: u16) -> Result<Connection, ConnectError>
    where
        R: Attempts,
    {
        if self.options.selection == Selection::HappyEyeballs {
            // Its room is not that of every run.
            return Box::pin(race(self, host, port)).await;
        }
        let remote = self.resolve_port(host, port).await?;
        self.enter(Phase::Connect);
        let before = stopwatch::now();
        let end = self.last_call();
        let stream = tcp::connect_by(remote, self.options.source, Some(end)).await.map_err(|mut error| {
            if error.failure.reason == Reason::TimedOut && stopwatch::now() >= end {
                error.failure = Failure::timed_out(format!("after {:?} connecting to {remote}", self.options.timeout));
            }
            error
        })?;
        Ok(Connection { stream, remote, taken: stopwatch::now() - before })
    }
}

/// Connects to the address that connects first. The others are closed as soon as there is one.
async fn race<R: Attempts>(run: &mut Run<'_, R>, host: &Host, port: u16) -> Result<Connection, ConnectError> {
    run.enter(Phase::Resolve);
    run.report.attempts().clear();
    let (world, options, deadline) = (run.world, run.options, run.deadline);
    let (teller, mut told) = unbounded_channel();
    let mut resolving = pin!(world.resolver.each_family(host, options, world.gate.as_ref(), deadline, &teller));
    let mut resolved = None;
    let mut attempts = FuturesUnordered::new();
    let mut race = Race::new(MAX_ADDRESSES);
    let mut field = Field::default();
    loop {
        let at = match race.next(stopwatch::now()) {
            Next::Try(address) => {
                let (remote, now) = (SocketAddr::new(address, port), stopwatch::now());
                let number = field.enter(run.report.attempts(), remote, now);
                if let Err(denied) = run.permit(address, Some(port)) {
                    field.failed(run.report.attempts(), number, denied.into(), now);
                    race.failed(true);
                    continue;
                }
                run.enter(Phase::Connect);
                run.address = Some(address);
                attempts.push(async move { (number, tcp::connect_by(remote, options.source, None).await, stopwatch::now()) });
                continue;
            }
            Next::Wait(at) => at,
            Next::Lost => break,
        };
        // Until somebody is tried the time is the resolver's, who ends by itself.
        let end = if field.0.is_empty() { deadline } else { run.last_call() };
        tokio::select! {
            biased;
            Some((number, outcome, now)) = attempts.next() => match outcome {
                Ok(stream) => {
                    let Some(Runner { remote, begun, .. }) = field.0.get(number) else { break };
                    let (remote, taken) = (*remote, now - *begun);
                    field.won(run.report.attempts(), number, now);
                    run.address = Some(remote.ip());
                    return Ok(Connection { stream, remote, taken });
                }
                Err(error) => {
                    field.failed(run.report.attempts(), number, error, now);
                    race.failed(number + 1 == field.0.len());
                }
            },
            Some(told) = told.recv() => race.resolved(told.is_six, told.found, stopwatch::now()),
            outcome = &mut resolving, if resolved.is_none() => resolved = Some(outcome?),
            () = sleep_until(at.map_or(end, |at| at.min(end))) => {
                let now = stopwatch::now();
                if now >= end {
                    field.end(run.report.attempts(), options.timeout, now);
                    break;
                }
            }
        }
    }
    let (address, error) = field.verdict(host, port, resolved.flatten());
    run.address = address.or(run.address);
    Err(error)
}

/// Who was tried, in the order of the report.
#[derive(Default)]
struct Field(Vec<Runner>);

struct Runner {
    remote: SocketAddr,
    begun: Instant,
    failed: Option<ConnectError>,
}

impl Field {
    /// Somebody is tried: its number.
    fn enter(&mut self, told: &mut Vec<ConnectAttempt>, remote: SocketAddr, now: Instant) -> usize {
        let delay = self.0.first().map_or(Duration::ZERO, |first| now - first.begun);
        told.push(ConnectAttempt {
            address: remote.ip().to_string(),
            delay: Some(stopwatch::to_proto(delay)),
            ..ConnectAttempt::default()
        });
        self.0.push(Runner { remote, begun: now, failed: None });
        self.0.len() - 1
    }

    fn failed(&mut self, told: &mut [ConnectAttempt], number: usize, error: ConnectError, now: Instant) {
        let (Some(runner), Some(told)) = (self.0.get_mut(number), told.get_mut(number)) else { return };
        told.duration = Some(stopwatch::to_proto(now.saturating_duration_since(runner.begun)));
        told.error.clone_from(&error.failure.sentence);
        runner.failed = Some(error);
    }

    fn won(&self, told: &mut [ConnectAttempt], winner: usize, now: Instant) {
        for (number, (runner, told)) in self.0.iter().zip(told).enumerate() {
            told.won = number == winner;
            told.duration.get_or_insert_with(|| stopwatch::to_proto(now.saturating_duration_since(runner.begun)));
        }
    }

    /// The time is up for those that are under way.
    fn end(&mut self, told: &mut [ConnectAttempt], limit: Duration, now: Instant) {
        for number in 0..self.0.len() {
            if let Some(Runner { remote, failed: None, .. }) = self.0.get(number) {
                let failure = Failure::timed_out(format!("after {limit:?} connecting to {remote}"));
                self.failed(told, number, failure.into(), now);
            }
        }
    }

    /// Why nobody won, and the address that the failure is about: what somebody said is more telling than silence, and both more than what
    /// went wrong here, if it went otherwise elsewhere. `unknown` says why there may be more addresses than those that were tried.
    fn verdict(self, host: &Host, port: u16, unknown: Option<Failure>) -> (Option<std::net::IpAddr>, ConnectError) {
        let mut sentence = match self.0.len() {
            1 => String::new(),
            many => format!("none of {many} addresses of {host}:{port} connected: "),
        };
        let failed = |runner: &Runner| runner.failed.as_ref().map(|error| error.failure.sentence.clone());
        let sentences: Vec<_> = self.0.iter().filter_map(failed).collect();
        sentence += &sentences[..sentences.len().min(MOST_TOLD)].join("; ");
        if sentences.len() > MOST_TOLD {
            let _ = write!(sentence, "; and {} more", sentences.len() - MOST_TOLD);
        }
        if let Some(failure) = unknown {
            let _ = write!(sentence, "; of the other family is not known: {}", failure.sentence);
        }
        let failed = self.0.into_iter().filter_map(|runner| Some((runner.remote.ip(), runner.failed?)));
        // The first of those that tell as much.
        match failed.min_by_key(|(_, error)| silence(error.failure.reason)) {
            Some((address, error)) => {
                let denied = error.failure.reason == Reason::PolicyDenied;
                let failure = Failure { sentence, ..error.failure };
                ((!denied).then_some(address), ConnectError { failure, ..error })
            }
            None => (None, Failure::internal(format!("connect to {host}:{port}: nobody was tried, and nobody said why")).into()),
        }
    }
}

/// How little a failure tells of the target: the less, the greater.
fn silence(reason: Reason) -> u8 {
    match reason {
        Reason::Refused | Reason::Disconnected => 0,
        Reason::Prohibited => 1,
        Reason::Unreachable => 2,
        Reason::TimedOut => 3,
        Reason::PolicyDenied => 5,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use vantage_contract::v1::Attribution;

    use super::*;

    /// The verdict over attempts that failed for these reasons: address and reason.
    fn verdict(reasons: &[Reason]) -> (Option<String>, Reason, String) {
        let mut told = Vec::new();
        let mut field = Field::default();
        let now = stopwatch::now();
        for (number, reason) in reasons.iter().enumerate() {
            let remote = SocketAddr::from(([192, 0, 2, u8::try_from(number).unwrap()], 80));
            assert_eq!(field.enter(&mut told, remote, now), number);
            let failure = Failure::new(*reason, Attribution::Target, format!("{remote} {}", reason.as_str_name()));
            field.failed(&mut told, number, failure.into(), now);
        }
        let host = Host::parse("host", "host.test").unwrap();
        let (address, error) = field.verdict(&host, 80, None);
        (address.map(|address| address.to_string()), error.failure.reason, error.failure.sentence)
    }

    #[test]
    fn what_somebody_said_is_more_telling_than_silence_and_both_more_than_what_went_wrong_here() {
        use Reason::{LocalNetwork, PolicyDenied, Prohibited, Refused, TimedOut, Unreachable};
        let of = |reasons: &[Reason]| {
            let (address, reason, _) = verdict(reasons);
            (address, reason)
        };
        let at = |last: u8| Some(format!("192.0.2.{last}"));
        assert_eq!(of(&[TimedOut, Refused]), (at(1), Refused));
        assert_eq!(of(&[Refused, Refused]), (at(0), Refused));
        assert_eq!(of(&[LocalNetwork, TimedOut, Unreachable]), (at(2), Unreachable));
        assert_eq!(of(&[Unreachable, Prohibited]), (at(1), Prohibited));
        // A machine without IPv6 does not excuse a target that is silent over IPv4.
        assert_eq!(of(&[LocalNetwork, TimedOut]), (at(1), TimedOut));
        assert_eq!(of(&[PolicyDenied, LocalNetwork]), (at(1), LocalNetwork));
        assert_eq!(of(&[PolicyDenied, PolicyDenied]), (None, PolicyDenied));
    }

    #[test]
    fn the_sentence_tells_of_some_and_counts_the_rest() {
        assert_eq!(verdict(&[Reason::Refused]).2, "192.0.2.0:80 REASON_REFUSED");
        let (_, _, sentence) = verdict(&[Reason::Refused; 6]);
        assert!(sentence.starts_with("none of 6 addresses of host.test:80 connected: 192.0.2.0:80 "), "{sentence}");
        assert!(sentence.ends_with("; and 2 more") && sentence.matches("REFUSED").count() == 4, "{sentence}");
    }
}
