//! More to do than may be done at once: healthy checks keep their schedule, and nothing is lost or blamed on a target.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;
use vantage_contract::v1::{
    Check, DnsProbe, GetMonitorRequest, GetMonitorResponse, Outcome, PingProbe, Probe, ProbeResult, Reason, UdpProbe,
    admin_service_client::AdminServiceClient, probe::Kind,
};
use vantage_monitor::config::{KindLimits, Limits};

use crate::lab::{
    dns::DnsServer,
    monitor::{Link, Monitor, accounted, eventually, settings, silent_port, stalling_check, tcp_check},
    privilege,
    udp::UdpServer,
};

const OFTEN: Duration = Duration::from_millis(200);

async fn monitor(limits: Limits) -> Monitor {
    Monitor::start_with(vantage_monitor::Settings { limits, ..settings() }).await
}

async fn describe(monitor: &Monitor) -> GetMonitorResponse {
    AdminServiceClient::new(monitor.channel().await).get_monitor(GetMonitorRequest {}).await.unwrap().into_inner()
}

/// All results until then, by check. They are acknowledged, and meanwhile the monitor's bounds are looked at.
async fn results_until(link: &mut Link, monitor: &Monitor, until: Instant) -> BTreeMap<String, Vec<ProbeResult>> {
    let mut checks: BTreeMap<String, Vec<ProbeResult>> = BTreeMap::new();
    let mut look = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(until) => return checks,
            _ = look.tick() => assert_bounds(&describe(monitor).await),
            result = link.result() => {
                if result.sequence % 100 == 0 {
                    link.ack(result.sequence).await;
                }
                checks.entry(result.check_name.clone()).or_default().push(result);
            }
        }
    }
}

fn assert_bounds(monitor: &GetMonitorResponse) {
    assert!(monitor.in_flight_count <= monitor.in_flight_limit, "{monitor:?}");
    assert!(monitor.waiting_count <= monitor.waiting_limit, "{monitor:?}");
    assert!(monitor.kinds.iter().all(|kind| kind.in_flight_count <= kind.in_flight_limit), "{monitor:?}");
}

/// Of a check that is never answered, each run is accounted for, and none with a reason but these.
fn assert_black_hole(results: &[ProbeResult]) {
    accounted(results);
    for result in results {
        assert!(matches!(result.reason(), Reason::TimedOut | Reason::StillRunning | Reason::Overloaded), "{result:?}");
    }
}

/// How many of these runs passed. None says anything else than that it did, or that this machine had no time for it.
fn passed(results: &[ProbeResult]) -> usize {
    let is_honest = |result: &&ProbeResult| matches!(result.outcome(), Outcome::Passed | Outcome::Skipped);
    assert_eq!(results.iter().find(|result| !is_honest(result)), None);
    results.iter().filter(|result| result.outcome() == Outcome::Passed).count()
}

/// How many runs these results account for.
fn runs<'r>(results: impl IntoIterator<Item = &'r ProbeResult>) -> usize {
    results.into_iter().map(|result| usize::try_from(result.run_count).unwrap()).sum()
}

fn due(result: &ProbeResult) -> SystemTime {
    SystemTime::try_from(result.due_time.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn healthy_checks_keep_their_schedule_beside_black_holed_ones_of_their_kind() {
    let ((_open, port), monitor) = (silent_port().await, monitor(Limits { in_flight: 64, ..Limits::default() }).await);
    let mut link = monitor.connect("desk", &[]).await;
    for number in 0..30 {
        link.start(tcp_check(&format!("healthy-{number}"), port, OFTEN, 0)).await;
    }
    let soon = vantage_daemon::clock::monotonic() + Duration::from_secs(1);
    let mut checks = results_until(&mut link, &monitor, soon).await;
    assert_eq!(checks.len(), 30, "each has been run");
    let flood = vantage_daemon::clock::wall();
    for number in 0..400 {
        link.start(stalling_check(&format!("black-{number}"), port, Duration::from_millis(500), Duration::from_secs(3))).await;
    }
    for (name, results) in results_until(&mut link, &monitor, soon + Duration::from_secs(5)).await {
        checks.entry(name).or_default().extend(results);
    }
    assert_eq!(checks.len(), 430, "each check has had an answer");
    let (healthy, black): (Vec<_>, Vec<_>) = checks.into_iter().partition(|(name, _)| name.starts_with("healthy"));
    for (_, results) in &black {
        assert_black_hole(results);
    }
    let timed_out = black.iter().flat_map(|(_, results)| results).filter(|result| result.reason() == Reason::TimedOut).count();
    assert!(timed_out >= 36, "the flood was there, and has timed out {timed_out} times");
    let (mut all_runs, mut all_passed) = (0, 0);
    for (name, results) in healthy {
        accounted(&results);
        let later: Vec<_> = results.into_iter().filter(|result| due(result) > flood).collect();
        let (runs, passed) = (runs(&later), passed(&later));
        assert!(runs >= 10 && passed * 2 > runs, "{name}: {passed} of {runs} passed");
        (all_runs, all_passed) = (all_runs + runs, all_passed + passed);
    }
    assert!(all_passed * 10 > all_runs * 8, "{all_passed} of {all_runs} passed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_that_is_full_holds_up_no_other() {
    let limits = Limits { in_flight: 32, in_flight_by_kind: KindLimits::default().with("tcp", 2), ..Limits::default() };
    let ((_open, port), monitor) = (silent_port().await, monitor(limits).await);
    let echo = UdpServer::start(|_, bytes| vec![bytes.to_vec()]).await;
    let names = DnsServer::start(|asked| vec![asked.answer().to_vec().unwrap()]).await;
    let mut others = vec![
        Kind::Udp(UdpProbe { host: echo.address.ip().to_string(), port: echo.address.port().into(), ..UdpProbe::default() }),
        Kind::Dns(DnsProbe {
            server: names.address.ip().to_string(),
            port: names.address.port().into(),
            query: "example.test".into(),
            ..DnsProbe::default()
        }),
    ];
    if vantage_probes::net::capability::echo_capability().v4() {
        others.push(Kind::Ping(PingProbe { host: "127.0.0.1".into(), count: 1, ..PingProbe::default() }));
    } else {
        privilege::skipped("echo sockets, for ping beside a kind that is full");
    }
    let mut link = monitor.connect("desk", &[]).await;
    for number in 0..20 {
        link.start(stalling_check(&format!("black-{number}"), port, OFTEN, Duration::from_secs(2))).await;
    }
    eventually("tcp is full", || async { load(&describe(&monitor).await, "tcp") == (1, 2) }).await;
    let count = others.len();
    for (number, kind) in others.into_iter().enumerate() {
        let probe = Some(Probe { kind: Some(kind), ..Probe::default() });
        link.start(Check { name: format!("other-{number}"), probe, ..tcp_check("", port, OFTEN, 0) }).await;
    }
    let until = vantage_daemon::clock::monotonic() + Duration::from_secs(3);
    let checks = results_until(&mut link, &monitor, until).await;
    let (black, others): (Vec<_>, Vec<_>) = checks.iter().partition(|(name, _)| name.starts_with("black"));
    assert_eq!((black.len(), others.len()), (20, count));
    black.iter().for_each(|(_, results)| assert_black_hole(results));
    for (name, results) in others {
        accounted(results);
        let (runs, passed) = (runs(results), passed(results));
        assert!(runs >= 10 && passed * 10 > runs * 8, "{name}: {passed} of {runs} passed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_due_beyond_what_may_wait_is_overloaded_and_accounted_for() {
    let limits = Limits { in_flight: 4, max_waiting: 8, ..Limits::default() };
    let ((_open, port), monitor) = (silent_port().await, monitor(limits).await);
    let mut link = monitor.connect("desk", &[]).await;
    for number in 0..100 {
        link.start(stalling_check(&format!("black-{number}"), port, OFTEN, Duration::from_millis(500))).await;
    }
    let until = vantage_daemon::clock::monotonic() + Duration::from_secs(3);
    let checks = results_until(&mut link, &monitor, until).await;
    assert_eq!(checks.len(), 100);
    checks.values().for_each(|results| assert_black_hole(results));
    let with = |reason| runs(checks.values().flatten().filter(|result| result.reason() == reason));
    assert!(with(Reason::Overloaded) > 10 * with(Reason::TimedOut), "{} {}", with(Reason::Overloaded), with(Reason::TimedOut));
    assert!(with(Reason::TimedOut) >= 5, "what there is room for is run all the same");
    let skipped = &monitor.queues().await["desk"].skipped;
    assert!(skipped.iter().any(|skipped| skipped.reason() == Reason::Overloaded), "{skipped:?}");
}

/// Runs of a kind in flight, and how many may be.
fn load(monitor: &GetMonitorResponse, kind: &str) -> (u32, u32) {
    let load = monitor.kinds.iter().find(|load| load.kind == kind).expect("each kind is there");
    (load.in_flight_count, load.in_flight_limit)
}
