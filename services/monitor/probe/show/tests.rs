use vantage_contract::v1::{
    HttpHop, HttpPhases, HttpReport, IcmpError, Outcome, Phase, PingReport, PingRequest, Reason, TracerouteAnswer, TracerouteHop,
    TracerouteReport, UdpPortState, UdpReport, probe_result::Report,
};

use super::*;

fn micros(micros: i32) -> Option<Duration> {
    Some(Duration { seconds: 0, nanos: micros * 1000 })
}

#[test]
fn a_result_tells_the_verdict_the_time_and_the_report() {
    let ping = PingReport {
        sent_count: 2,
        answered_count: 1,
        min_round_trip: micros(150),
        requests: vec![
            PingRequest { sequence: 0, round_trip: micros(150), timing: 3 },
            PingRequest { sequence: 1, ..PingRequest::default() },
        ],
        socket: "datagram".into(),
        ..PingReport::default()
    };
    let shown = ProbeResult {
        kind: "ping".into(),
        target: "a.example".into(),
        monitor: "fra-1".into(),
        start_time: Some(Timestamp { seconds: 1_795_335_545, nanos: 0 }),
        outcome: Outcome::Passed.into(),
        summary: "1 of 2 answered".into(),
        address: "192.0.2.1".into(),
        duration: micros(200_000),
        phases: vec![Phase { name: "resolve".into(), duration: micros(50_000) }, Phase { name: "wait".into(), duration: micros(150_000) }],
        latency: micros(150),
        timing_source: TimingSource::Kernel.into(),
        report: Some(Report::Ping(Box::new(ping))),
        ..ProbeResult::default()
    };
    let expected = "\
passed: 1 of 2 answered
ping a.example · 192.0.2.1 · latency 150 µs (kernel stamps) · from fra-1 at 2026-11-22 08:19:05

time
  resolve  50.0 ms  ▪▪▪▪▪▪▪▪▪▪
  wait      150 ms  ▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪
  in all    200 ms  ▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪

report
  sent_count          2
  answered_count      1
  duplicate_count     0
  corrupt_count       0
  out_of_order_count  0
  local_drop_count    0
  min_round_trip      150 µs
  reply_hop_limit     0
  requests
    sequence  round_trip  timing
           0      150 µs  kernel
           1           -  unspecified
  socket              datagram
  late_count          0
  clock_stepped       no
";
    assert_eq!(result(&shown, &TimeZone::UTC), expected);
}

#[test]
fn messages_within_lists_are_told_in_one_cell() {
    let error = IcmpError { from: "10.0.0.1".into(), r#type: 11, code: 0, meaning: "hop limit exceeded".into() };
    let answer =
        TracerouteAnswer { address: "10.0.0.1".into(), round_trip: micros(900), error: Some(error), ..TracerouteAnswer::default() };
    let hops = vec![
        TracerouteHop { hop_limit: 1, sent_count: 3, answered_count: 1, answers: vec![answer] },
        TracerouteHop { hop_limit: 2, sent_count: 3, ..TracerouteHop::default() },
    ];
    let report = Report::Traceroute(Box::new(TracerouteReport { hop_count: 2, hops, ..TracerouteReport::default() }));
    let shown = result(&ProbeResult { report: Some(report), ..ProbeResult::default() }, &TimeZone::UTC);
    let hops = shown.split_once("  hops\n").unwrap().1;
    let expected = "    hop_limit  sent_count  answered_count  answers
            1           3               1  10.0.0.1 900 µs (10.0.0.1 11 hop limit exceeded)
            2           3               0\n";
    assert_eq!(hops, expected);
}

#[test]
fn times_within_lists_are_told_by_name() {
    let phases = HttpPhases { connect: micros(20_100), wait: micros(20_400), ..HttpPhases::default() };
    let hop = HttpHop { url: "http://a.example/".into(), status: 200, version: "1.1".into(), phases: Some(phases), ..HttpHop::default() };
    let report = Report::Http(Box::new(HttpReport { hops: vec![hop], ..HttpReport::default() }));
    let shown = result(&ProbeResult { report: Some(report), ..ProbeResult::default() }, &TimeZone::UTC);
    let hops = shown.split_once("  hops\n").unwrap().1;
    assert!(hops.contains("http://a.example/     200  1.1      connect 20.1 ms, wait 20.4 ms\n"), "{hops}");
}

#[test]
fn what_a_target_says_can_not_steer_the_terminal() {
    let report = Report::Udp(Box::new(UdpReport {
        state: UdpPortState::OpenOrFiltered.into(),
        answer: "a\u{1b}]0;b\u{7}".into(),
        ..UdpReport::default()
    }));
    let failed = ProbeResult {
        outcome: Outcome::Undetermined.into(),
        reason: Reason::NoAnswer.into(),
        attribution: Attribution::Vantage.into(),
        summary: "silent\r\nno".into(),
        report: Some(report),
        ..ProbeResult::default()
    };
    let shown = result(&failed, &TimeZone::UTC);
    assert!(shown.starts_with("undetermined: silent\u{fffd}\u{fffd}no\n"), "{shown}");
    assert!(shown.contains("no answer · fault: vantage"), "{shown}");
    assert!(shown.contains("open or filtered"), "{shown}");
    assert!(!shown.contains('\u{1b}') && !shown.contains('\u{7}'), "{shown}");
}
