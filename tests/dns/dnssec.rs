//! Validation by DNSSEC, on zones that BIND's tools have signed.

use std::net::SocketAddr;

use hickory_proto::{op::Query, rr::Record};

use super::*;
use crate::lab::{
    named::Named,
    signed::{Signer, plain},
};

/// BIND with `lab`, whose key is trusted, and zones below it in all states of health.
struct Lab {
    named: Named,
    signer: Signer,
}

impl Lab {
    fn start() -> Option<Self> {
        let signer = Signer::new()?;
        let www = "www A 192.0.2.1";
        let hashed = signer.sign("hashed.lab", "www A 192.0.2.1\n*.wild A 192.0.2.7\na.b.deep A 192.0.2.8", &["-3", "ab"]);
        let expired = signer.sign("expired.lab", www, &["-s", "20200101000000", "-e", "20200201000000"]);
        let future = signer.sign("future.lab", www, &["-s", "+864000", "-e", "+1728000"]);
        let changed = signer.sign("changed.lab", www, &[]).replace("192.0.2.1", "192.0.2.66");
        // Hashed with opt-out: a delegation that is not signed leaves no trace.
        let open = signer.sign("open.lab", "www A 192.0.2.1\nchild NS ns1.lab.", &["-3", "-", "-A"]);
        let disowned = signer.sign("disowned.lab", www, &[]);
        // The parent knows another key.
        let digest = "disowned.lab. DS 12345 13 2 0000000000000000000000000000000000000000000000000000000000000000\n";
        let children = ["hashed", "expired", "future", "changed", "open"]
            .map(|child| format!("{child} NS ns1.lab.\n{}", signer.ds(&format!("{child}.lab"))));
        let own = "ns1 A 192.0.2.53\nwww A 192.0.2.1\nwww TXT \"text\"\nalias CNAME www\nfar CNAME www.hashed\nastray CNAME nobody\n\
            *.wild A 192.0.2.7\n*.guess CNAME nobody\nmoved DNAME hashed.lab.\nplain NS ns1.lab.\ndisowned NS ns1.lab.\n";
        let lab = signer.sign("lab", &[own, digest, &children.concat()].concat(), &[]);
        let named = Named::start(&[
            ("lab", lab),
            ("hashed.lab", hashed),
            ("expired.lab", expired),
            ("future.lab", future),
            ("changed.lab", changed),
            ("open.lab", open),
            ("child.open.lab", plain(www)),
            ("disowned.lab", disowned),
            ("plain.lab", plain(www)),
        ])?;
        Some(Self { named, signer })
    }

    fn check(&self, query: &str) -> DnsProbe {
        self.check_at(self.named.address, query)
    }

    fn check_at(&self, at: SocketAddr, query: &str) -> DnsProbe {
        let expect = DnsExpectations { rcodes: vec!["NOERROR".into(), "NXDOMAIN".into()], ..DnsExpectations::default() };
        DnsProbe {
            query: query.into(),
            recursion_desired: Some(false),
            validate: true,
            trust_anchor_file: self.signer.anchor("lab"),
            expect: Some(expect),
            ..ask_at(at)
        }
    }
}

fn of_type(record_type: &str, spec: DnsProbe) -> DnsProbe {
    DnsProbe { r#type: record_type.into(), ..spec }
}

/// What validation finds, and why.
async fn found(spec: DnsProbe) -> (String, String) {
    let sight = run(&probe(Kind::Dns(spec))).await;
    let passed = sight.outcome == Outcome::Passed;
    let report = if passed { sight.passed() } else { sight.because(Reason::UnexpectedAnswer).expect("a report") };
    let report = seen(report);
    assert_eq!(passed, report.dnssec == "secure", "{report:?}");
    assert_eq!(passed, report.dnssec_why.is_empty(), "{report:?}");
    (report.dnssec, report.dnssec_why)
}

#[tokio::test]
async fn answers_and_denials_of_signed_zones_are_secure() {
    let Some(lab) = Lab::start() else { return };
    let mut wrong = Vec::new();
    for (query, record_type) in [
        ("www.lab", "A"),
        ("WWW.LAB", "TXT"),
        ("lab", "SOA"),
        ("lab", "DNSKEY"),
        ("hashed.lab", "DS"),
        ("alias.lab", "A"),
        ("alias.lab", "CNAME"),
        ("far.lab", "A"),
        ("any.wild.lab", "A"),
        ("www.moved.lab", "A"),
        ("www.hashed.lab", "A"),
        ("any.wild.hashed.lab", "A"),
        ("www.open.lab", "A"),
        // No such records, no such names.
        ("www.lab", "AAAA"),
        ("lab", "MX"),
        ("nobody.lab", "A"),
        ("any.wild.lab", "AAAA"),
        ("astray.lab", "A"),
        ("any.guess.lab", "A"),
        ("any.guess.lab", "AAAA"),
        ("alias.lab", "AAAA"),
        ("www.hashed.lab", "AAAA"),
        ("nobody.hashed.lab", "A"),
        ("b.deep.hashed.lab", "A"),
        ("any.wild.hashed.lab", "AAAA"),
        ("far.lab", "MX"),
    ] {
        let (proof, why) = found(of_type(record_type, lab.check(query))).await;
        if proof != "secure" {
            wrong.push(format!("{query} {record_type} is {proof}: {why}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_zone_that_is_not_signed_is_insecure_where_its_parent_proves_it() {
    let Some(lab) = Lab::start() else { return };
    for (query, record_type) in [("www.plain.lab", "A"), ("www.plain.lab", "AAAA"), ("nobody.plain.lab", "A"), ("www.child.open.lab", "A")]
    {
        let (proof, why) = found(of_type(record_type, lab.check(query))).await;
        assert_eq!(proof, "insecure", "{query} {record_type}: {why}");
    }
}

#[tokio::test]
async fn signatures_that_do_not_hold_are_bogus_and_it_says_why() {
    let Some(lab) = Lab::start() else { return };
    for (query, words) in [
        ("www.expired.lab", "the signature of www.expired.lab. A has expired"),
        ("www.future.lab", "the signature of www.future.lab. A is not valid yet"),
        ("www.changed.lab", "no signature of www.changed.lab. A fits a key that is trusted"),
        ("www.disowned.lab", "no signature of www.disowned.lab. A fits a key that is trusted"),
    ] {
        assert_eq!(found(lab.check(query)).await, ("bogus".into(), words.into()), "{query}");
    }
    // The keys of another zone.
    let stranger = DnsProbe { trust_anchor_file: lab.signer.anchor("hashed.lab"), ..lab.check("www.lab") };
    let (proof, _) = found(stranger).await;
    assert!(matches!(proof.as_str(), "bogus" | "indeterminate"), "{proof}");
    let root = DnsProbe { trust_anchor_file: String::new(), ..lab.check("www.lab") };
    let (proof, _) = found(root).await;
    assert!(matches!(proof.as_str(), "bogus" | "indeterminate"), "{proof}");
}

/// The answer to another question, as if it were to this one.
type Instead<'i> = &'i dyn Fn(&str, RecordType) -> Message;

/// Somebody between the probe and BIND, who changes what BIND answers.
async fn liar(lab: &Lab, lie: impl Fn(&Query, Message, Instead<'_>) -> Option<Message> + Send + 'static) -> DnsServer {
    let honest = lab.named.address;
    DnsServer::start(move |asked| {
        let ask = |message: &Message| {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            socket.send_to(&bytes(message), honest).unwrap();
            let mut buffer = [0; 4096];
            let length = socket.recv(&mut buffer).unwrap();
            Message::from_vec(&buffer[..length]).unwrap()
        };
        // The answer to another question, as if it were to this one.
        let instead = |query: &str, record_type| {
            let mut other = asked.message.clone();
            other.queries = vec![Query::query(name(query), record_type)];
            let mut answer = ask(&other);
            answer.queries = asked.message.queries.clone();
            answer
        };
        let query = asked.message.queries[0].clone();
        lie(&query, ask(&asked.message), &instead).iter().map(bytes).collect()
    })
    .await
}

fn is(query: &Query, text: &str, record_type: RecordType) -> bool {
    *query.name() == name(text) && query.query_type() == record_type
}

fn without_signatures(records: &mut Vec<Record>) {
    records.retain(|record| record.record_type() != RecordType::RRSIG);
}

#[tokio::test]
async fn lies_between_the_server_and_the_probe_are_found() {
    let Some(lab) = Lab::start() else { return };
    type Lie = Box<dyn Fn(&Query, Message, Instead<'_>) -> Option<Message> + Send>;
    let on = |text: &'static str, record_type, lie: fn(Message, Instead<'_>) -> Message| -> Lie {
        Box::new(move |query, truth, instead| Some(if is(query, text, record_type) { lie(truth, instead) } else { truth }))
    };
    let lies: Vec<(&str, &str, &str, Lie)> = vec![
        (
            "signatures are taken away",
            "www.lab",
            "A",
            on("www.lab.", RecordType::A, |mut truth, _| {
                without_signatures(&mut truth.answers);
                truth
            }),
        ),
        (
            "another address",
            "www.lab",
            "A",
            on("www.lab.", RecordType::A, |mut truth, _| {
                for record in &mut truth.answers {
                    if record.record_type() == RecordType::A {
                        record.data = a([192, 0, 2, 66]);
                    }
                }
                truth
            }),
        ),
        (
            "the name is denied without a proof",
            "www.lab",
            "A",
            on("www.lab.", RecordType::A, |mut truth, _| {
                truth.answers.clear();
                truth.authorities.clear();
                truth.metadata.response_code = ResponseCode::NXDomain;
                truth
            }),
        ),
        (
            "the name is denied with the proof of another",
            "www.lab",
            "A",
            on("www.lab.", RecordType::A, |_, instead| instead("nobody.lab.", RecordType::A)),
        ),
        (
            "the records are denied with the proof of another type",
            "www.lab",
            "A",
            on("www.lab.", RecordType::A, |_, instead| instead("www.lab.", RecordType::AAAA)),
        ),
        (
            "the name is denied with the hashed proof of another",
            "www.hashed.lab",
            "A",
            on("www.hashed.lab.", RecordType::A, |_, instead| instead("nobody.hashed.lab.", RecordType::A)),
        ),
        (
            "the records are denied with the hashed proof of another type",
            "www.hashed.lab",
            "A",
            on("www.hashed.lab.", RecordType::A, |_, instead| instead("www.hashed.lab.", RecordType::AAAA)),
        ),
        (
            "a name that is not there has no records",
            "nobody.lab",
            "A",
            on("nobody.lab.", RecordType::A, |mut truth, _| {
                truth.metadata.response_code = ResponseCode::NoError;
                truth.authorities.retain(|record| record.record_type() == RecordType::SOA);
                truth
            }),
        ),
        (
            "an alias is said to lead to no such records",
            "alias.lab",
            "A",
            on("alias.lab.", RecordType::A, |mut truth, instead| {
                truth.answers.retain(|record| record.name == name("alias.lab."));
                truth.authorities = instead("www.lab.", RecordType::AAAA).authorities;
                truth
            }),
        ),
        (
            "an alias is said to lead to no such name",
            "alias.lab",
            "A",
            on("alias.lab.", RecordType::A, |mut truth, _| {
                truth.answers.retain(|record| record.name == name("alias.lab."));
                truth.metadata.response_code = ResponseCode::NXDomain;
                truth
            }),
        ),
        (
            "an alias is said to lead to a name without records, which is no name",
            "astray.lab",
            "A",
            on("astray.lab.", RecordType::A, |mut truth, _| {
                truth.metadata.response_code = ResponseCode::NoError;
                truth
            }),
        ),
        (
            "the records are there, and denied",
            "www.lab",
            "A",
            on("www.lab.", RecordType::A, |mut truth, _| {
                truth.metadata.response_code = ResponseCode::NXDomain;
                truth
            }),
        ),
        (
            "a signed zone is said to be unsigned",
            "www.hashed.lab",
            "A",
            Box::new(|query, mut truth, instead| {
                without_signatures(&mut truth.answers);
                Some(if is(query, "hashed.lab.", RecordType::DS) { instead("plain.lab.", RecordType::DS) } else { truth })
            }),
        ),
        (
            "a signed zone is said to be unsigned, without a proof",
            "www.hashed.lab",
            "A",
            Box::new(|query, mut truth, _| {
                without_signatures(&mut truth.answers);
                if is(query, "hashed.lab.", RecordType::DS) {
                    truth.answers.clear();
                    truth.authorities.clear();
                }
                Some(truth)
            }),
        ),
        (
            "the keys of the zone are replaced",
            "www.hashed.lab",
            "A",
            Box::new(|query, truth, instead| {
                Some(if is(query, "hashed.lab.", RecordType::DNSKEY) { instead("disowned.lab.", RecordType::DNSKEY) } else { truth })
            }),
        ),
        (
            "a wildcard stands in for a name that is there",
            "www.lab",
            "A",
            on("www.lab.", RecordType::A, |_, instead| {
                let mut answer = instead("any.wild.lab.", RecordType::A);
                for record in &mut answer.answers {
                    record.name = name("www.lab.");
                }
                answer
            }),
        ),
        (
            "a wildcard comes without the proof that nothing is closer",
            "any.wild.lab",
            "A",
            on("any.wild.lab.", RecordType::A, |mut truth, _| {
                truth.authorities.clear();
                truth
            }),
        ),
        (
            "a wildcard comes with the proof about another name",
            "any.wild.lab",
            "A",
            on("any.wild.lab.", RecordType::A, |mut truth, instead| {
                truth.authorities = instead("nobody.lab.", RecordType::A).authorities;
                truth.authorities.retain(|record| record.record_type() != RecordType::SOA);
                truth
            }),
        ),
    ];
    let mut wrong = Vec::new();
    for (what, query, record_type, lie) in lies {
        let liar = liar(&lab, lie).await;
        let (proof, why) = found(of_type(record_type, lab.check_at(liar.address, query))).await;
        if proof != "bogus" {
            wrong.push(format!("{what}: {proof}: {why}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let honest = liar(&lab, |_, truth, _| Some(truth)).await;
    assert_eq!(found(lab.check_at(honest.address, "www.hashed.lab")).await.0, "secure");
}

#[tokio::test]
async fn a_chain_that_the_server_does_not_answer_for_shows_nothing() {
    let Some(lab) = Lab::start() else { return };
    let refusing = liar(&lab, |query, mut truth, _| {
        if query.query_type() == RecordType::DNSKEY {
            truth.answers.clear();
            truth.metadata.response_code = ResponseCode::ServFail;
        }
        Some(truth)
    })
    .await;
    let (proof, why) = found(lab.check_at(refusing.address, "www.lab")).await;
    assert!(proof == "indeterminate" && why.contains("SERVFAIL for lab. DNSKEY"), "{proof}: {why}");

    let silent = liar(&lab, |query, truth, _| (query.query_type() != RecordType::DNSKEY).then_some(truth)).await;
    let sight = run(&within(500, Kind::Dns(lab.check_at(silent.address, "www.lab")))).await;
    let report = seen(sight.because(Reason::TimedOut).expect("a report"));
    assert_eq!((report.rcode.as_str(), report.dnssec.as_str()), ("NOERROR", ""));
    let fates: Vec<_> = report.tries.iter().map(|asked| asked.fate.as_str()).collect();
    assert_eq!(fates, ["answered", "silent", "silent"], "the answer itself was there");
}

#[tokio::test]
async fn an_answer_made_to_be_costly_is_refused() {
    let Some(lab) = Lab::start() else { return };
    for record_type in [RecordType::DNSKEY, RecordType::RRSIG] {
        let many = liar(&lab, move |query, mut truth, _| {
            let one = truth.answers.iter().find(|record| record.record_type() == record_type).cloned();
            if query.query_type() == RecordType::DNSKEY {
                truth.answers.extend(std::iter::repeat_n(one.unwrap(), 70));
            }
            Some(truth)
        })
        .await;
        let report = seen(run(&probe(Kind::Dns(lab.check_at(many.address, "www.lab")))).await.because(Reason::TooLarge).expect("a report"));
        assert_eq!(report.dnssec, "");
    }
}

#[tokio::test]
async fn a_proof_is_sought_over_the_transport_of_the_question() {
    let Some(lab) = Lab::start() else { return };
    let at = |address: SocketAddr, transport: DnsTransport| DnsProbe {
        transport: transport.into(),
        tls: Some(lab.named.trusted()),
        ..lab.check_at(address, "www.hashed.lab")
    };
    for (spec, transport) in [(at(lab.named.tls, DnsTransport::Tls), "tls"), (at(lab.named.https, DnsTransport::Https), "https")] {
        let report = passed(spec).await;
        assert!(report.tries.len() > 3 && report.tries.iter().all(|asked| asked.transport == transport), "{report:?}");
        assert_eq!((report.dnssec.as_str(), report.answers[0].data.as_str()), ("secure", "192.0.2.1"));
    }
}

#[tokio::test]
async fn an_anchor_that_can_not_be_read_makes_the_check_invalid() {
    let server = one_address().await;
    for (text, words) in [(None, "can't read"), (Some("lab. IN A 192.0.2.1"), "line 1: is not a DNSKEY record")] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("anchor");
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        let spec = DnsProbe { validate: true, trust_anchor_file: file.display().to_string(), ..ask(&server) };
        let sight = run(&probe(Kind::Dns(spec))).await;
        assert!(sight.summary.contains("dns.trust_anchor_file") && sight.summary.contains(words), "{}", sight.summary);
        sight.because(Reason::InvalidCheck);
    }
}

#[test]
fn what_can_not_be_validated_is_refused() {
    let refused = |spec: DnsProbe| invalid(&probe(Kind::Dns(DnsProbe { server: "192.0.2.53".into(), query: "a.test".into(), ..spec })));
    let validated = |spec: DnsProbe| refused(DnsProbe { validate: true, ..spec });
    assert_eq!(refused(DnsProbe { trust_anchor_file: "keys".into(), ..DnsProbe::default() }), "dns.trust_anchor_file");
    assert_eq!(validated(DnsProbe { class: "CH".into(), ..DnsProbe::default() }), "dns.class");
    assert_eq!(validated(DnsProbe { r#type: "RRSIG".into(), ..DnsProbe::default() }), "dns.type");
    assert_eq!(validated(DnsProbe { edns_size_bytes: Some(0), ..DnsProbe::default() }), "dns.validate");
    assert_eq!(validated(DnsProbe { zone_consistency: true, ..DnsProbe::default() }), "dns.validate");
}
