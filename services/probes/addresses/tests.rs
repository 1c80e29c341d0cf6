use super::*;

/// What was seen of 192.0.2.`last`.
fn sight(last: u8, outcome: Outcome, reason: Reason, attribution: Attribution) -> Sight {
    Sight {
        outcome,
        reason,
        attribution,
        summary: format!("summary {last}"),
        address: Some(IpAddr::from([192, 0, 2, last])),
        duration: Duration::from_millis(100),
        phases: Vec::new(),
        latency: None,
        report: None,
        addresses: Vec::new(),
    }
}

fn passed(last: u8, millis: u64) -> Sight {
    let latency = Some((Duration::from_millis(millis), TimingSource::Kernel));
    Sight { latency, ..sight(last, Outcome::Passed, Reason::Unspecified, Attribution::Unspecified) }
}

fn refused(last: u8) -> Sight {
    sight(last, Outcome::Failed, Reason::Refused, Attribution::Target)
}

fn denied(last: u8) -> Sight {
    sight(last, Outcome::Undetermined, Reason::PolicyDenied, Attribution::Vantage)
}

/// The verdict, and the sentence.
fn told(required: Required, sights: &[Sight]) -> (Outcome, Reason, Attribution, String) {
    let judgement = judge(required, sights, None);
    assert_eq!(judgement.latency.is_some(), judgement.outcome == Outcome::Passed);
    (judgement.outcome, judgement.reason, judgement.attribution, judgement.summary)
}

const PASSED: (Outcome, Reason, Attribution) = (Outcome::Passed, Reason::Unspecified, Attribution::Unspecified);
const REFUSED: (Outcome, Reason, Attribution) = (Outcome::Failed, Reason::Refused, Attribution::Target);
const DENIED: (Outcome, Reason, Attribution) = (Outcome::Undetermined, Reason::PolicyDenied, Attribution::Vantage);
const TOO_FEW: (Outcome, Reason, Attribution) = (Outcome::Failed, Reason::NameNotResolved, Attribution::Resolver);

#[test]
fn so_many_as_required_have_to_pass() {
    use Required::{AtLeast, Every};
    let cases: [(Required, Vec<Sight>, _, &str); 12] = [
        (Every, vec![passed(1, 5), passed(2, 7)], PASSED, "2 of 2 addresses passed, all required"),
        (Every, vec![passed(1, 5), refused(2)], REFUSED, "1 of 2 addresses passed, all required; 192.0.2.2: summary 2"),
        (AtLeast(1), vec![refused(1), passed(2, 7)], PASSED, "1 of 2 addresses passed, 1 required; 192.0.2.1: summary 1"),
        (AtLeast(1), vec![refused(1), refused(2)], REFUSED, "0 of 2 addresses passed, 1 required; 192.0.2.1: summary 1"),
        (AtLeast(2), vec![refused(1), passed(2, 7), passed(3, 7)], PASSED, "2 of 3 addresses passed, 2 required; 192.0.2.1: summary 1"),
        // What is undetermined could be what is missing, or could not.
        (Every, vec![passed(1, 5), denied(2)], DENIED, "1 of 2 addresses passed, all required; 192.0.2.2: summary 2"),
        (Every, vec![refused(1), denied(2)], REFUSED, "0 of 2 addresses passed, all required; 192.0.2.1: summary 1"),
        (AtLeast(1), vec![refused(1), denied(2)], DENIED, "0 of 2 addresses passed, 1 required; 192.0.2.2: summary 2"),
        (AtLeast(2), vec![denied(1), refused(2), refused(3)], REFUSED, "0 of 3 addresses passed, 2 required; 192.0.2.2: summary 2"),
        (AtLeast(1), vec![denied(1), passed(2, 5)], PASSED, "1 of 2 addresses passed, 1 required; 192.0.2.1: summary 1"),
        // More than there are.
        (AtLeast(3), vec![passed(1, 5), passed(2, 5)], TOO_FEW, "2 of 2 addresses passed, 3 required: the name has no more"),
        (AtLeast(3), vec![refused(1), denied(2)], TOO_FEW, "0 of 2 addresses passed, 3 required: the name has no more"),
    ];
    for (required, sights, (outcome, reason, attribution), summary) in cases {
        assert_eq!(told(required, &sights), (outcome, reason, attribution, summary.to_owned()), "{required:?}");
    }
}

#[test]
fn the_latency_is_that_by_which_the_requirement_was_met() {
    let sights = [passed(1, 30), refused(2), passed(3, 10), passed(4, 20)];
    let latency = |required| judge(required, &sights, None).latency.map(|(taken, _)| taken.as_millis());
    assert_eq!(latency(Required::AtLeast(1)), Some(10));
    assert_eq!(latency(Required::AtLeast(2)), Some(20));
    assert_eq!(latency(Required::AtLeast(3)), Some(30));
    assert_eq!(latency(Required::Every), None, "it failed");
    // Some kinds pass without one, as tcp does where it expects a closed port.
    let silent = Sight { latency: None, ..passed(1, 0) };
    assert_eq!(judge(Required::Every, &[silent], None).latency, None);
}

#[test]
fn addresses_that_the_resolver_keeps_to_itself_are_missed_only_where_they_could_matter() {
    let servfail = Failure::new(Reason::NameNotResolved, Attribution::Resolver, "resolve host.test: 192.0.2.53:53 answered SERVFAIL");
    let judged = |required, sights: &[Sight]| {
        let judgement = judge(required, sights, Some(&servfail));
        (judgement.outcome, judgement.reason, judgement.summary)
    };
    let why = "resolve host.test: 192.0.2.53:53 answered SERVFAIL";
    assert_eq!(
        judged(Required::Every, &[passed(1, 5)]),
        (Outcome::Failed, Reason::NameNotResolved, format!("1 of 1 address passed, all required; {why}"))
    );
    assert_eq!(
        judged(Required::AtLeast(1), &[passed(1, 5)]),
        (Outcome::Passed, Reason::Unspecified, format!("1 of 1 address passed, 1 required; {why}"))
    );
    assert_eq!(judged(Required::Every, &[refused(1)]).1, Reason::Refused, "the first that failed");
    assert_eq!(
        judged(Required::AtLeast(3), &[passed(1, 5)]),
        (Outcome::Failed, Reason::NameNotResolved, format!("1 of 1 address passed, 3 required; {why}"))
    );
    // What is ours stays ours.
    let ours = Failure::new(Reason::ResourceExhausted, Attribution::Vantage, "no descriptors");
    assert_eq!(judge(Required::Every, &[passed(1, 5)], Some(&ours)).outcome, Outcome::Undetermined);
}

#[test]
fn the_addresses_of_one_name_are_bounded() {
    let addresses = |count: u8| Addresses { found: (1..=count).map(|last| IpAddr::from([192, 0, 2, last])).collect(), unknown: None };
    let host = Host::Name("host.test".into());
    assert!(bounded(&host, addresses(64)).is_ok());
    let failure = bounded(&host, addresses(65)).unwrap_err();
    assert_eq!((failure.reason, failure.attribution), (Reason::TooLarge, Attribution::Resolver));
    assert_eq!(failure.sentence, "resolve host.test: it has 65 addresses, and at most 64 of one name are probed");
}
