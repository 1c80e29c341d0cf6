//! The figures, as a scrape shows them.

use std::collections::BTreeSet;

use prometheus_client::{encoding::text, registry::Registry};
use vantage_contract::v1::{self, Outcome, ProbeResult, Reason, UdpPortState, probe_result::Report};

use super::{register, reports};
use crate::{
    desk::{Desk, LinkState},
    fabric::{check, desk, duration, place, result},
};

fn scrape(desk: &Desk) -> String {
    let mut registry = Registry::default();
    register(desk.clone(), &mut registry);
    let mut text = String::new();
    text::encode(&mut text, &registry).unwrap();
    text
}

/// Asserts that the text is OpenMetrics as far as families go: each with its TYPE before its samples, in one piece, no series twice.
fn assert_open_metrics(text: &str) {
    let (mut families, mut family, mut series) = (BTreeSet::new(), String::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap().to_owned();
            assert!(families.insert(family.clone()), "{family} comes in two pieces");
        } else if let Some(rest) = line.strip_prefix("# UNIT ") {
            let (name, unit) = rest.split_once(' ').unwrap();
            assert!(name == family && name.ends_with(&format!("_{unit}")), "{line}");
        } else if !line.starts_with('#') {
            assert!(line.starts_with(&family), "{line:?} is outside its family {family}");
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(series.insert(name.to_owned()), "{name} comes twice");
            assert!(value.parse::<f64>().unwrap().is_finite(), "{line}");
        }
    }
    assert!(text.ends_with("# EOF\n"));
}

fn https(sequence: u64) -> ProbeResult {
    let tls = v1::TlsReport { verified: true, remaining_validity: Some(duration(86_400.5)), ..v1::TlsReport::default() };
    let report = v1::HttpReport { status: 200, body_size_bytes: 1234, tls: Some(tls), ..v1::HttpReport::default() };
    let phase = |name: &str, seconds| v1::Phase { name: name.into(), duration: Some(duration(seconds)) };
    ProbeResult {
        kind: "https".into(),
        latency: Some(duration(0.25)),
        phases: vec![phase("connect", 0.125), phase("tls", 0.5), phase("connect", 0.25), phase("not a phase\n", 1.0)],
        report: Some(Report::Https(Box::new(report))),
        ..result("web", sequence, Outcome::Passed)
    }
}

#[tokio::test]
async fn the_numbers_of_a_report_come_by_the_contracts_own_names() {
    let desk = desk();
    desk.expect(vec![place(check("web", v1::probe::Kind::Https(v1::HttpProbe::default())), &["a"])]);
    desk.take(vec![https(1)]).await.unwrap();
    let text = scrape(&desk);
    assert_open_metrics(&text);
    let line = r#"{check="web",monitor="m",kind="https"}"#;
    for expected in [
        format!("vantage_https_status{line} 200.0"),
        format!("vantage_https_body_size_bytes{line} 1234.0"),
        format!("vantage_https_tls_verified{line} 1.0"),
        format!("vantage_https_tls_remaining_validity_seconds{line} 86400.5"),
        format!("vantage_check_latency_seconds{line} 0.25"),
        r#"vantage_check_phase_seconds{check="web",monitor="m",kind="https",phase="connect"} 0.375"#.into(),
        r#"vantage_check_outcome{check="web",monitor="m",kind="https",outcome="passed"} 1.0"#.into(),
        r#"vantage_check_outcome{check="web",monitor="m",kind="https",outcome="failed"} 0.0"#.into(),
        r#"vantage_check_state{check="web",kind="https",state="up"} 1.0"#.into(),
        r#"vantage_check_runs_total{check="web",monitor="m",kind="https",outcome="passed",reason=""} 1"#.into(),
        r#"vantage_manager_results_total{outcome="passed",reason=""} 1"#.into(),
        "# HELP vantage_https_status The status of the last answer.".into(),
    ] {
        assert!(text.lines().any(|line| line == expected), "{expected}\n{text}");
    }
    assert!(!text.contains("not a phase") && !text.contains("certificates"));
}

#[tokio::test]
async fn unset_fields_have_no_series_and_enumerations_one_for_each_value() {
    let desk = desk();
    let ntp = v1::NtpReport {
        stratum: 3,
        offset: Some(duration(-0.25)),
        reference_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
        ..v1::NtpReport::default()
    };
    let udp = v1::UdpReport { state: UdpPortState::Closed.into(), ..v1::UdpReport::default() };
    desk.expect(vec![
        place(check("time", v1::probe::Kind::Ntp(v1::NtpProbe::default())), &["a"]),
        place(check("port", v1::probe::Kind::Udp(v1::UdpProbe::default())), &["a"]),
    ]);
    desk.take(vec![
        ProbeResult { report: Some(Report::Ntp(Box::new(ntp))), ..result("time", 1, Outcome::Passed) },
        ProbeResult { report: Some(Report::Udp(Box::new(udp))), reason: Reason::Refused.into(), ..result("port", 2, Outcome::Failed) },
    ])
    .await
    .unwrap();
    let text = scrape(&desk);
    assert_open_metrics(&text);
    assert!(text.contains("vantage_ntp_offset_seconds{check=\"time\",monitor=\"m\",kind=\"ntp\"} -0.25\n"), "{text}");
    assert!(text.contains("vantage_ntp_reference_timestamp_seconds{check=\"time\",monitor=\"m\",kind=\"ntp\"} 1700000000.0\n"), "{text}");
    assert!(!text.contains("vantage_ntp_delay_seconds"), "it is unset");
    assert!(text.contains("vantage_udp_state{check=\"port\",monitor=\"m\",kind=\"udp\",value=\"closed\"} 1.0\n"), "{text}");
    assert!(text.contains("vantage_udp_state{check=\"port\",monitor=\"m\",kind=\"udp\",value=\"open\"} 0.0\n"), "{text}");
}

#[tokio::test]
async fn the_addresses_of_a_name_are_counted_and_have_no_series_of_their_own() {
    let desk = desk();
    desk.expect(vec![place(check("web", v1::probe::Kind::Https(v1::HttpProbe::default())), &["a"])]);
    let sub = |last: usize| ProbeResult { address: format!("192.0.2.{last}"), ..https(1) };
    let all = ProbeResult { report: None, address_results: (0..64).map(sub).collect(), ..https(1) };
    desk.take(vec![all]).await.unwrap();
    let text = scrape(&desk);
    assert_open_metrics(&text);
    let line = |outcome: &str| format!("vantage_check_addresses{{check=\"web\",monitor=\"m\",kind=\"https\",outcome=\"{outcome}\"}}");
    for (outcome, count) in [("passed", "64.0"), ("failed", "0.0"), ("undetermined", "0.0")] {
        assert!(text.contains(&format!("{} {count}\n", line(outcome))), "{text}");
    }
    assert!(!text.contains("192.0.2.") && !text.contains("vantage_https_status"), "{text}");
}

#[tokio::test]
async fn the_series_of_a_removed_check_end() {
    let desk = desk();
    desk.expect(vec![place(check("web", v1::probe::Kind::Https(v1::HttpProbe::default())), &["a"])]);
    desk.take(vec![https(1)]).await.unwrap();
    assert!(scrape(&desk).contains("check=\"web\""));
    desk.expect(Vec::new());
    assert!(!scrape(&desk).contains("check=\"web\""));
}

#[tokio::test]
async fn hostile_text_stays_inside_its_label() {
    let desk = desk();
    let evil = "x\"} 1\nevil_total{a=\"\\";
    let mut check = check("web", v1::probe::Kind::Https(v1::HttpProbe::default()));
    check.labels.insert("team".into(), evil.into());
    desk.expect(vec![place(check, &["a"])]);
    desk.take(vec![ProbeResult { target: evil.into(), ..https(1) }]).await.unwrap();
    let text = scrape(&desk);
    assert_open_metrics(&text);
    assert!(!text.lines().any(|line| line.starts_with("evil")), "{text}");
    assert!(text.contains(r#"label_team="x\"} 1\nevil_total{a=\"\\""#), "{text}");
}

#[tokio::test]
async fn links_and_duplicates_are_figures() {
    let desk = desk();
    let link = LinkState { connected: true, since: std::time::UNIX_EPOCH, announced: "m".into(), error: String::new() };
    desk.note_link("a", link);
    desk.take(vec![https(1)]).await.unwrap();
    desk.take(vec![https(1)]).await.unwrap();
    let text = scrape(&desk);
    assert_open_metrics(&text);
    for expected in [
        "vantage_manager_link_up{monitor=\"a\"} 1.0",
        "vantage_manager_link_connects_total{monitor=\"a\"} 1",
        "vantage_manager_duplicate_results_total 1",
        "vantage_manager_unexpected_results_total 1",
        "vantage_manager_stored_results 1.0",
    ] {
        assert!(text.lines().any(|line| line == expected), "{expected}\n{text}");
    }
}

#[test]
fn no_two_figures_share_a_name_and_none_takes_one_of_ours() {
    let mut names = BTreeSet::new();
    for figure in reports::FIGURES.values().flatten() {
        assert!(names.insert(figure.name.clone()), "{} comes twice", figure.name);
        assert!(!figure.name.starts_with("vantage_check_") && !figure.name.starts_with("vantage_manager_"), "{}", figure.name);
        assert!(!figure.name.ends_with("_bytes") && !figure.name.ends_with("_total"), "{}", figure.name);
    }
    let kinds = reports::FIGURES.len();
    assert!(kinds >= 8 && names.len() > 40, "{kinds} kinds, {} figures", names.len());
}

#[tokio::test]
async fn every_kind_of_report_gives_valid_figures() {
    let desk = desk();
    let reports = [
        Report::Ping(Box::default()),
        Report::Traceroute(Box::default()),
        Report::Http(Box::default()),
        Report::Https(Box::default()),
        Report::Tcp(Box::new(v1::TcpReport { error: Some(v1::IcmpError::default()), ..v1::TcpReport::default() })),
        Report::Udp(Box::default()),
        Report::Dns(Box::new(v1::DnsReport { soa_serial: Some(7), ..v1::DnsReport::default() })),
        Report::Ntp(Box::default()),
    ];
    let names: Vec<_> = (0..reports.len()).map(|number| format!("check{number}")).collect();
    desk.expect(names.iter().map(|name| place(check(name, v1::probe::Kind::Ping(v1::PingProbe::default())), &["a"])).collect());
    let results = names.iter().zip(reports).zip(1..);
    let results = results.map(|((name, report), sequence)| ProbeResult { report: Some(report), ..result(name, sequence, Outcome::Passed) });
    desk.take(results.collect()).await.unwrap();
    let text = scrape(&desk);
    assert_open_metrics(&text);
    for kind in ["ping", "traceroute", "http", "https", "tcp", "udp", "dns", "ntp"] {
        assert!(text.contains(&format!("# TYPE vantage_{kind}_")), "{kind}");
    }
    assert!(text.contains("vantage_dns_soa_serial{check=\"check6\",monitor=\"m\",kind=\"ping\"} 7.0\n"));
}
