//! `--once`: every check once on each of its monitors, and an exit code that says how it went.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use prost_types::Timestamp;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use vantage_contract::{
    json,
    v1::{Ack, Attribution, MonitorAddress, Outcome, ProbeResult, Reason, RunOnce, execute_request::Order},
};
use vantage_daemon::{
    backoff::Backoff,
    clock,
    exit::{Exit, Fatal},
};

use crate::{
    border,
    config::Setup,
    link::{self, Settings, Stream, ask},
    plan::Orders,
    print::Printer,
};

/// What a run may take beyond its own timeout: the way there and back, and the monitor's queue.
const MARGIN: Duration = Duration::from_secs(5);
/// How long a monitor may take to be there.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a monitor may take to end the stream after all is said.
const FAREWELL: Duration = Duration::from_secs(1);

/// How it went so far.
#[derive(Debug, Default)]
struct Verdict {
    failed: bool,
    undetermined: bool,
    unreachable: Vec<String>,
}

impl Verdict {
    fn enter(&mut self, result: &ProbeResult) {
        match result.outcome() {
            Outcome::Passed => {}
            Outcome::Failed => self.failed = true,
            Outcome::Undetermined | Outcome::Skipped | Outcome::Unspecified => self.undetermined = true,
        }
    }

    fn merge(&mut self, other: Self) {
        self.failed |= other.failed;
        self.undetermined |= other.undetermined;
        self.unreachable.extend(other.unreachable);
    }

    fn conclude(self) -> Result<Exit, Fatal> {
        if !self.unreachable.is_empty() {
            return Err(Fatal::new(Exit::Unavailable, self.unreachable.join("\n")));
        }
        Ok(if self.failed {
            Exit::SomeFailed
        } else if self.undetermined {
            Exit::SomeUndetermined
        } else {
            Exit::Ok
        })
    }
}

/// Runs every check of a setup once, prints each result as it comes, and says how it went. `stop` ends it early; what has no result by then
/// is undetermined.
pub(crate) async fn run(setup: &Setup, settings: Arc<Settings>, printer: &Printer, stop: &CancellationToken) -> Result<Exit, Fatal> {
    let mut questions = JoinSet::new();
    for monitor in &setup.monitors {
        let orders = setup.plan.monitors.get(&monitor.name).cloned().unwrap_or_default();
        if orders.is_empty() {
            continue;
        }
        let question = Question {
            monitor: monitor.clone(),
            waiting: orders,
            timeouts: setup.timeouts.clone(),
            settings: Arc::clone(&settings),
            printer: printer.clone(),
            stop: stop.clone(),
            verdict: Verdict::default(),
        };
        questions.spawn(question.ask());
    }
    let mut verdict = Verdict::default();
    while let Some(ended) = questions.join_next().await {
        verdict.merge(ended.map_err(|error| Fatal::new(Exit::Software, format!("ask a monitor: {error}")))?);
    }
    verdict.conclude()
}

/// What is asked of one monitor.
struct Question {
    monitor: MonitorAddress,
    /// What has no result yet.
    waiting: Orders,
    timeouts: BTreeMap<String, Duration>,
    settings: Arc<Settings>,
    printer: Printer,
    stop: CancellationToken,
    verdict: Verdict,
}

impl Question {
    async fn ask(mut self) -> Verdict {
        match self.reach().await {
            Ok(stream) => {
                let why = self.exchange(stream).await;
                self.forsake(Outcome::Undetermined, Reason::Internal, &why).await;
            }
            Err(why) => {
                let why = format!("monitor {:?} at {} can't be reached: {why}", self.monitor.name, self.monitor.address);
                self.forsake(Outcome::Skipped, Reason::MonitorDown, &why).await;
                self.verdict.unreachable.push(why);
            }
        }
        self.verdict
    }

    /// Dials until the monitor is there, within patience.
    async fn reach(&self) -> Result<Stream, String> {
        let deadline = clock::monotonic() + PATIENCE;
        let mut backoff = Backoff::new(self.settings.first_delay, self.settings.most_delay);
        let mut why = format!("no answer within {PATIENCE:?}");
        loop {
            let dial = link::dial(&self.monitor, &self.settings).map_err(|fatal| fatal.message)?;
            let (hello, fault) = (self.settings.hello(Vec::new()), dial.fault.clone());
            tokio::select! {
                opened = tokio::time::timeout_at(deadline, link::open(dial, hello, &self.settings)) => match opened {
                    Ok(Ok(stream)) => return Ok(stream),
                    Ok(Err(status)) => {
                        if let Some(why) = link::trouble(&fault) {
                            return Err(why);
                        }
                        why = link::explain(&status);
                        if let Some(cure) = link::cure(status.code()) {
                            return Err(format!("{why} ({cure})"));
                        }
                    }
                    Err(_) => return Err(why),
                },
                () = self.stop.cancelled() => return Err("interrupted".into()),
            }
            let wait = backoff.next_delay();
            if clock::monotonic() + wait >= deadline {
                return Err(why);
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Asks for all runs and takes their results; says why there are no more.
    async fn exchange(&mut self, stream: Stream) -> String {
        let Stream { outbox, mut inbox, .. } = stream;
        let (wall, monotonic) = (clock::wall(), clock::monotonic());
        let longest = self.waiting.keys().map(|name| self.timeout(name)).max().unwrap_or_default();
        let requests: Vec<_> = self
            .waiting
            .iter()
            .map(|(name, start)| {
                let expire_time = Some(instant(wall + self.timeout(name) + MARGIN));
                ask(Order::RunOnce(RunOnce { check: start.check.clone(), revision: start.revision.clone(), expire_time }))
            })
            .collect();
        let orders = outbox.clone();
        // Beside the taking of results: either side may be slow.
        let asking = tokio::spawn(async move {
            for request in requests {
                if orders.send(request).await.is_err() {
                    break;
                }
            }
        });
        // A run that expires just now may take its whole timeout.
        let deadline: Instant = monotonic + longest * 2 + MARGIN * 2;
        let why = loop {
            let message = tokio::select! {
                message = tokio::time::timeout_at(deadline, inbox.message()) => message,
                () = self.stop.cancelled() => break "interrupted".to_owned(),
            };
            match message {
                Ok(Ok(Some(result))) => {
                    let ack = Order::Ack(Ack { session: result.session.clone(), sequence: result.sequence });
                    self.take(result).await;
                    if outbox.send(ask(ack)).await.is_err() || self.waiting.is_empty() {
                        break "the monitor ended the stream without a result".to_owned();
                    }
                }
                Ok(Ok(None)) => break "the monitor ended the stream without a result".to_owned(),
                Ok(Err(status)) => {
                    let why = format!("monitor {:?} at {}: {}", self.monitor.name, self.monitor.address, link::explain(&status));
                    if let Some(cure) = link::cure(status.code()) {
                        self.verdict.unreachable.push(format!("{why} ({cure})"));
                    }
                    break why;
                }
                Err(_) => break "no result came in time".to_owned(),
            }
        };
        asking.abort();
        let _ = asking.await;
        drop(outbox);
        // Lets the acknowledgements arrive.
        let _ = tokio::time::timeout(FAREWELL, async { while let Ok(Some(_)) = inbox.message().await {} }).await;
        why
    }

    fn timeout(&self, check: &str) -> Duration {
        self.timeouts.get(check).copied().unwrap_or_default()
    }

    async fn take(&mut self, result: ProbeResult) {
        let awaited = self.waiting.get(&result.check_name).is_some_and(|start| start.revision == result.revision);
        if awaited {
            self.waiting.remove(&result.check_name);
            let result = border::admit(result);
            self.verdict.enter(&result);
            self.printer.print(&[result]).await;
        }
    }

    /// Results for what has none.
    async fn forsake(&mut self, outcome: Outcome, reason: Reason, why: &str) {
        let now = Some(instant(clock::wall()));
        let results: Vec<_> = std::mem::take(&mut self.waiting)
            .into_iter()
            .map(|(check_name, start)| {
                let check = start.check.unwrap_or_default();
                ProbeResult {
                    check_name,
                    kind: check.probe.as_ref().and_then(kind).unwrap_or_default(),
                    labels: check.labels,
                    revision: start.revision,
                    run_count: 1,
                    monitor: self.monitor.name.clone(),
                    due_time: now,
                    outcome: outcome.into(),
                    reason: reason.into(),
                    attribution: Attribution::Vantage.into(),
                    summary: why.to_owned(),
                    ..ProbeResult::default()
                }
            })
            .collect();
        results.iter().for_each(|result| self.verdict.enter(result));
        self.printer.print(&results).await;
    }
}

/// The kind of a probe, by the name of its field.
fn kind(probe: &vantage_contract::v1::Probe) -> Option<String> {
    use prost_reflect::ReflectMessage as _;
    let probe = json::dynamic(probe);
    let kinds = probe.descriptor().oneofs().find(|oneof| oneof.name() == "kind")?;
    kinds.fields().find(|field| probe.has_field(field)).map(|field| field.name().to_owned())
}

fn instant(time: SystemTime) -> Timestamp {
    Timestamp::from(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(outcomes: &[Outcome]) -> Verdict {
        let mut verdict = Verdict::default();
        for outcome in outcomes {
            verdict.enter(&ProbeResult { outcome: (*outcome).into(), ..ProbeResult::default() });
        }
        verdict
    }

    #[test]
    fn failed_beats_undetermined_and_skipped_counts_as_undetermined() {
        assert_eq!(with(&[Outcome::Passed]).conclude(), Ok(Exit::Ok));
        assert_eq!(with(&[Outcome::Passed, Outcome::Undetermined]).conclude(), Ok(Exit::SomeUndetermined));
        assert_eq!(with(&[Outcome::Skipped]).conclude(), Ok(Exit::SomeUndetermined));
        assert_eq!(with(&[Outcome::Skipped, Outcome::Failed]).conclude(), Ok(Exit::SomeFailed));
    }

    #[test]
    fn a_monitor_that_is_not_there_beats_all_and_is_named() {
        let mut verdict = with(&[Outcome::Failed]);
        verdict.merge(Verdict { unreachable: vec!["monitor \"lab\" …".into()], ..Verdict::default() });
        assert_eq!(verdict.conclude(), Err(Fatal::new(Exit::Unavailable, "monitor \"lab\" …")));
    }
}
