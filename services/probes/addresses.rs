//! A target's addresses: the first is probed, or each of them at the same time, and then it is judged how many passed.

use std::{net::IpAddr, time::Duration};

use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};
use vantage_contract::v1::{Attribution, Outcome, Reason, TimingSource, probe_result::Report};

use crate::{
    Probe,
    failure::Failure,
    net::resolve::Addresses,
    run::{self, Sight, World},
    stopwatch::{self, Phase, Stopwatch, Times},
    target::{Host, MAX_ADDRESSES, Options, Required, Selection},
};

/// Runs a probe of one kind to its end, or to its deadline.
pub(crate) async fn conduct<P: Probe>(probe: &P, world: &World, options: &Options, wrap: fn(Box<P::Report>) -> Report) -> Sight {
    let start = stopwatch::now();
    let deadline = start + options.timeout;
    match options.selection {
        Selection::First | Selection::HappyEyeballs => run::conduct(probe, world, options, deadline, None, wrap).await,
        // Its room is not that of every run.
        Selection::All(required) => Box::pin(conduct_all(probe, world, options, start, required, wrap)).await,
    }
}

/// Runs it for each address.
async fn conduct_all<P: Probe>(
    probe: &P,
    world: &World,
    options: &Options,
    start: Instant,
    required: Required,
    wrap: fn(Box<P::Report>) -> Report,
) -> Sight {
    let deadline = start + options.timeout;
    let mut watch = Stopwatch::start(start);
    watch.enter(Phase::Resolve, start);
    let resolving = world.resolver.addresses(probe.host(), options, world.gate.as_ref(), deadline);
    let resolved = match timeout_at(deadline, resolving).await {
        Ok(resolved) => resolved.and_then(|addresses| bounded(probe.host(), addresses)),
        Err(_) => Err(run::overdue(watch.phase(), None, &probe.target(), options)),
    };
    let (judgement, sights) = match resolved {
        Ok(Addresses { found, unknown }) => {
            watch.enter(Phase::Wait, stopwatch::now());
            // In one task: when the run is dropped, nothing is left behind.
            let each = found.iter().map(|address| run::conduct(probe, world, options, deadline, Some(*address), wrap));
            let sights = join_all(each).await;
            (judge(required, &sights, unknown.as_ref()), sights)
        }
        Err(failure) => (Judgement::of(failure), Vec::new()),
    };
    let Times { duration, phases, .. } = watch.stop(stopwatch::now());
    let Judgement { outcome, reason, attribution, summary, latency } = judgement;
    Sight { outcome, reason, attribution, summary, address: None, duration, phases, latency, report: None, addresses: sights }
}

fn bounded(host: &Host, addresses: Addresses) -> Result<Addresses, Failure> {
    match addresses.found.len() {
        0..=MAX_ADDRESSES => Ok(addresses),
        count => Err(Failure::new(
            Reason::TooLarge,
            Attribution::Resolver,
            format!("resolve {host}: it has {count} addresses, and at most {MAX_ADDRESSES} of one name are probed"),
        )),
    }
}

/// What the sights of all addresses mean together.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Judgement {
    outcome: Outcome,
    reason: Reason,
    attribution: Attribution,
    summary: String,
    latency: Option<(Duration, TimingSource)>,
}

impl Judgement {
    fn of(failure: Failure) -> Self {
        let outcome = failure.outcome();
        Self { outcome, reason: failure.reason, attribution: failure.attribution, summary: failure.sentence, latency: None }
    }
}

/// One of those that had to pass.
struct Party<'a> {
    /// Its address; none for those that the resolver did not tell.
    address: Option<IpAddr>,
    outcome: Outcome,
    reason: Reason,
    attribution: Attribution,
    summary: &'a str,
}

/// Judges: enough passed; or those that are undetermined could be what is missing; or it failed. The culprit is the first that failed,
/// or is undetermined. `unknown` says why there may be more addresses than these: where every one is required, that they can be learnt
/// of is, too. More required than there are is a fault of the name's, whatever became of those that it has.
fn judge(required: Required, sights: &[Sight], unknown: Option<&Failure>) -> Judgement {
    let parties: Vec<_> = sights
        .iter()
        .map(|sight| Party {
            address: sight.address,
            outcome: sight.outcome,
            reason: sight.reason,
            attribution: sight.attribution,
            summary: &sight.summary,
        })
        .chain(unknown.map(|failure| Party {
            address: None,
            outcome: failure.outcome(),
            reason: failure.reason,
            attribution: failure.attribution,
            summary: &failure.sentence,
        }))
        .collect();
    let count = |outcome| parties.iter().filter(|party| party.outcome == outcome).count();
    let first = |outcome| parties.iter().find(|party| party.outcome == outcome);
    // An address that asked to be left alone says as little of itself as one that we could not ask.
    let (passed, untold) = (count(Outcome::Passed), count(Outcome::Undetermined) + count(Outcome::Skipped));
    let (needed, asked) = match required {
        Required::Every => (parties.len(), "all".to_owned()),
        Required::AtLeast(needed) => (needed, needed.to_string()),
    };
    let addresses = if sights.len() == 1 { "address" } else { "addresses" };
    let told = format!("{passed} of {} {addresses} passed, {asked} required", sights.len());
    let with = |culprit: Option<&Party<'_>>| match culprit {
        Some(Party { address: Some(address), summary, .. }) => format!("{told}; {address}: {summary}"),
        Some(Party { address: None, summary, .. }) => format!("{told}; {summary}"),
        None => told.clone(),
    };

    if passed >= needed {
        let summary = with(first(Outcome::Failed).or_else(|| first(Outcome::Undetermined)));
        let latency = nth_latency(sights, needed);
        return Judgement {
            outcome: Outcome::Passed,
            reason: Reason::Unspecified,
            attribution: Attribution::Unspecified,
            summary,
            latency,
        };
    }
    if needed > sights.len() && unknown.is_none() {
        let sentence = format!("{told}: the name has no more");
        return Judgement::of(Failure::new(Reason::NameNotResolved, Attribution::Resolver, sentence));
    }
    let culprit = if needed > parties.len() {
        parties.last()
    } else if passed + untold >= needed {
        first(Outcome::Undetermined).or_else(|| first(Outcome::Skipped))
    } else {
        first(Outcome::Failed)
    };
    match culprit {
        Some(party) => Judgement::of(Failure::new(party.reason, party.attribution, with(culprit))),
        // Too few passed, so that one of the others is to be blamed.
        None => Judgement::of(Failure::internal(told)),
    }
}

/// The latency by which the requirement was met: the `needed`-th smallest of those that passed.
fn nth_latency(sights: &[Sight], needed: usize) -> Option<(Duration, TimingSource)> {
    let mut latencies: Vec<_> = sights.iter().filter(|sight| sight.outcome == Outcome::Passed).filter_map(|sight| sight.latency).collect();
    latencies.sort_by_key(|(taken, _)| *taken);
    latencies.get(needed.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests;
