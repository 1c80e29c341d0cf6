//! What an answer has to be.

use super::*;

#[tokio::test]
async fn an_rcode_fails_unless_it_is_expected() {
    for (rcode, name) in [
        (ResponseCode::NXDomain, "NXDOMAIN"),
        (ResponseCode::ServFail, "SERVFAIL"),
        (ResponseCode::Refused, "REFUSED"),
        (ResponseCode::BADCOOKIE, "BADCOOKIE"),
        (ResponseCode::Unknown(3841), "RCODE3841"),
    ] {
        let server = DnsServer::honest(move |asked| {
            let mut answer = asked.refused_as(rcode);
            answer.set_edns(hickory_proto::op::Edns::new());
            answer
        })
        .await;
        let sight = run(&probe(Kind::Dns(ask(&server)))).await;
        assert_eq!((sight.outcome, sight.attribution), (Outcome::Failed, Attribution::Target));
        assert_eq!(seen(sight.because(Reason::UnexpectedAnswer).expect("a report")).rcode, name);
        let number = u16::from(rcode).to_string();
        for rcodes in [vec![name.to_lowercase()], vec!["NOERROR".into(), number]] {
            run(&expecting(ask(&server), DnsExpectations { rcodes, ..DnsExpectations::default() })).await.passed();
        }
    }
}

#[tokio::test]
async fn an_answer_without_records_fails_where_some_are_expected() {
    let soa = || RData::SOA(rdata::SOA::new(name("ns.test."), name("host.test."), 7, 1, 1, 1, 1));
    let server = DnsServer::honest(move |asked| {
        let mut answer = asked.answer();
        answer.add_authority(record("test.", 60, soa()));
        answer
    })
    .await;
    let report = passed(ask(&server)).await;
    assert_eq!((report.answer_count, report.authorities.len(), report.soa_serial), (0, 1, Some(7)));
    let expect = DnsExpectations { min_answers: 1, ..DnsExpectations::default() };
    run(&expecting(ask(&server), expect)).await.because(Reason::UnexpectedAnswer);
}

#[tokio::test]
async fn records_of_another_type_do_not_count_as_answers() {
    let server = DnsServer::honest(|asked| asked.with(&[("example.test.", 60, RData::CNAME(rdata::CNAME(name("other.test."))))])).await;
    let expect = DnsExpectations { min_answers: 1, ..DnsExpectations::default() };
    run(&expecting(ask(&server), expect.clone())).await.because(Reason::UnexpectedAnswer);
    run(&expecting(DnsProbe { r#type: "CNAME".into(), ..ask(&server) }, expect)).await.passed();
}

#[tokio::test]
async fn expectations_on_the_answers_hold_or_fail() {
    let server = DnsServer::honest(|asked| {
        let mut answer = asked.with(&[("example.test.", 60, a([192, 0, 2, 1])), ("example.test.", 60, a([192, 0, 2, 130]))]);
        answer.metadata.authoritative = true;
        answer
    })
    .await;
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let all = |answers: &[&str]| DnsExpectations { answers_equal: texts(answers), ..DnsExpectations::default() };
    let any = |answers: &[&str]| DnsExpectations { answers_any: texts(answers), ..DnsExpectations::default() };
    let none = |answers: &[&str]| DnsExpectations { answers_none: texts(answers), ..DnsExpectations::default() };
    let unlike = |answers: &[&str]| DnsExpectations { answers_match_none: texts(answers), ..DnsExpectations::default() };
    let ttl = |min, max| DnsExpectations { min_ttl: min, max_ttl: max, ..DnsExpectations::default() };
    let equal = |answers: &[&str]| DnsExpectations { answers: texts(answers), ..DnsExpectations::default() };
    let like = |answers: &[&str]| DnsExpectations { answers_match: texts(answers), ..DnsExpectations::default() };
    let within = |networks: &[&str]| DnsExpectations { answers_within: texts(networks), ..DnsExpectations::default() };
    let flags = |aa, ad| DnsExpectations { authoritative: aa, authenticated: ad, ..DnsExpectations::default() };
    for good in [
        equal(&["192.0.2.130", "192.0.2.1"]),
        like(&[r"\.130$", r"^192\."]),
        within(&["192.0.2.0/25", "192.0.2.128/25"]),
        flags(Some(true), Some(false)),
        DnsExpectations { min_answers: 2, max_answers: Some(2), ..DnsExpectations::default() },
        all(&["192.0.2.130", "192.0.2.1"]),
        any(&["192.0.2.7", "192.0.2.130"]),
        none(&["192.0.2.13"]),
        unlike(&["^10\\."]),
        ttl(seconds(60), seconds(60)),
    ] {
        run(&expecting(ask(&server), good)).await.passed();
    }
    for bad in [
        equal(&["192.0.2.1", "192.0.2.2"]),
        like(&["^10\\."]),
        within(&["192.0.2.0/25"]),
        flags(Some(false), None),
        flags(None, Some(true)),
        DnsExpectations { min_answers: 3, ..DnsExpectations::default() },
        DnsExpectations { max_answers: Some(1), ..DnsExpectations::default() },
        all(&["192.0.2.1"]),
        all(&["192.0.2.1", "192.0.2.130", "192.0.2.131"]),
        any(&["192.0.2.7", "192.0.2.8"]),
        none(&["192.0.2.7", "192.0.2.130"]),
        unlike(&["^10\\.", "130$"]),
        ttl(seconds(61), None),
        ttl(None, seconds(59)),
        DnsExpectations { min_soa_serial: Some(1), ..DnsExpectations::default() },
    ] {
        let sight = run(&expecting(ask(&server), bad)).await;
        assert_eq!(sight.attribution, Attribution::Target);
        sight.because(Reason::UnexpectedAnswer);
    }
    let empty = DnsServer::honest(|asked| asked.answer()).await;
    run(&expecting(ask(&empty), within(&["0.0.0.0/0"]))).await.because(Reason::UnexpectedAnswer);
}

#[tokio::test]
async fn a_serial_that_is_behind_fails_also_where_serials_go_round() {
    let soa = |serial| RData::SOA(rdata::SOA::new(name("ns.test."), name("host.test."), serial, 1, 1, 1, 1));
    for (serial, min, good) in [(7, 7, true), (8, 7, true), (6, 7, false), (3, u32::MAX - 3, true), (u32::MAX - 3, 3, false)] {
        let server = DnsServer::honest(move |asked| asked.with(&[("example.test.", 60, soa(serial))])).await;
        let expect = DnsExpectations { min_soa_serial: Some(min), ..DnsExpectations::default() };
        let sight = run(&expecting(DnsProbe { r#type: "SOA".into(), ..ask(&server) }, expect)).await;
        assert_eq!(sight.outcome == Outcome::Passed, good, "{serial} where {min} is expected: {sight:?}");
        assert!(good || sight.summary.contains("older than"), "{}", sight.summary);
    }
}
