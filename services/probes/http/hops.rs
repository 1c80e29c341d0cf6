//! The exchanges of a run, as the report tells of them.

use std::time::Duration;

use vantage_contract::v1::{HttpHop, HttpPhases, HttpReport};

use crate::{
    secret::Masks,
    stopwatch::{Phase, Times, to_proto},
};

/// The most exchanges that are told of.
const MAX_HOPS: usize = 24;

/// Begins to tell of the next exchange.
pub(super) fn begin(report: &mut HttpReport, number: usize, url: &str) {
    if number < MAX_HOPS {
        report.hops.push(HttpHop { url: url.to_owned(), ..HttpHop::default() });
    }
}

/// Writes down when each of the exchanges had its time: each is a lap.
pub(super) fn settle(report: &mut HttpReport, times: &Times) {
    for (hop, phases) in report.hops.iter_mut().zip(times.laps()) {
        hop.duration = Some(to_proto(phases.iter().map(|(_, taken)| *taken).sum()));
        hop.phases = Some(phases_to_proto(phases));
    }
}

/// Takes secrets out of what servers may have sent back.
pub(super) fn mask(report: &mut HttpReport, masks: &Masks) {
    let of_hops = report.hops.iter_mut().map(|hop| &mut hop.url);
    let own = [&mut report.final_url, &mut report.excerpt, &mut report.content_type, &mut report.content_coding];
    of_hops.chain(own).for_each(|text| masks.apply(text));
}

/// All occurrences of each phase together.
fn phases_to_proto(phases: &[(Phase, Duration)]) -> HttpPhases {
    let total = |wanted: Phase| {
        let mut taken = phases.iter().filter(|(phase, _)| *phase == wanted).map(|(_, taken)| *taken).peekable();
        taken.peek().is_some().then(|| to_proto(taken.sum()))
    };
    HttpPhases {
        authenticate: total(Phase::Authenticate),
        resolve: total(Phase::Resolve),
        connect: total(Phase::Connect),
        proxy: total(Phase::Proxy),
        tls: total(Phase::Tls),
        send: total(Phase::Send),
        wait: total(Phase::Wait),
        transfer: total(Phase::Transfer),
    }
}
