//! Ping against targets and paths of our own.

use std::{net::Ipv4Addr, time::Duration};

use vantage_contract::v1::{
    AddressFamily, Attribution, Outcome, PingProbe, PingReport, Probe, Reason, TimingSource, probe::Kind, probe_result::Report,
};
use vantage_probes::Sight;

use crate::lab::{
    address, assert_sound,
    echo::{Echoer, Message},
    netns::Row,
    probe, within,
};

const TIMEOUT: u64 = 1000;

fn ping(host: &str, count: u32) -> PingProbe {
    PingProbe { host: host.into(), count, spacing: proto(Duration::from_millis(10)), ..PingProbe::default() }
}

fn proto(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}

/// Runs a ping in node 0 of the row, within a second, and checks what holds for every run.
fn run(row: &Row, spec: PingProbe) -> (Sight, PingReport) {
    let sight = row.inside(0, async || probe(within(TIMEOUT, Kind::Ping(spec))).await);
    assert_sound(&sight, TIMEOUT);
    let Some(Report::Ping(report)) = sight.report.clone() else { panic!("{sight:?}") };
    assert_eq!(report.requests.len(), report.sent_count as usize);
    assert_eq!(report.requests.iter().filter(|request| request.round_trip.is_some()).count(), report.answered_count as usize);
    (sight, report)
}

fn verdict(sight: &Sight) -> (Outcome, Reason, Attribution) {
    (sight.outcome, sight.reason, sight.attribution)
}

const PASSED: (Outcome, Reason, Attribution) = (Outcome::Passed, Reason::Unspecified, Attribution::Unspecified);
const TIMED_OUT: (Outcome, Reason, Attribution) = (Outcome::Failed, Reason::TimedOut, Attribution::Target);

#[test]
fn a_target_that_answers_passes_over_both_families_and_both_kinds_of_socket() {
    let Some(row) = Row::of(3) else { return };
    for socket in ["raw", "datagram"] {
        if socket == "datagram" {
            row.inside(0, async || std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap());
        }
        for target in row.target() {
            let (sight, report) = run(&row, ping(&target, 5));
            assert_eq!(verdict(&sight), PASSED, "{sight:?}");
            assert_eq!((report.sent_count, report.answered_count, report.socket.as_str()), (5, 5, socket), "{report:?}");
            assert_eq!((report.duplicate_count, report.corrupt_count, report.out_of_order_count, report.local_drop_count), (0, 0, 0, 0));
            assert_eq!(report.reply_hop_limit, 63, "one router on the way back from 64");
            let (latency, source) = sight.latency.unwrap();
            assert_eq!((source, sight.address), (TimingSource::Kernel, Some(address(&target))));
            assert!(latency > Duration::ZERO && latency < Duration::from_millis(100), "{latency:?}");
            assert_eq!(report.min_round_trip, proto(latency));
            assert!(sight.duration < Duration::from_millis(TIMEOUT), "it ends when all are answered");
        }
    }
}
