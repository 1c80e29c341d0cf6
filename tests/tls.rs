//! TLS: what was agreed on, what is wrong with a chain, staples and resumption.

mod hostile;
mod real;

use rcgen::{CustomExtension, ExtendedKeyUsagePurpose};
use rustls::{NamedGroup, pki_types::CertificateDer};
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::TlsAcceptor;
use vantage_contract::v1::{
    CertificateProblem, HttpProbe, HttpVersion, OcspStatus, Probe, Reason, TcpProbe, TlsOptions, TlsReport, TlsVersion, probe::Kind,
    probe_result::Report,
};
use vantage_probes::{OpenGate, Plan, Sight, World};

use crate::lab::{
    http::{Server, finish, ok, read_request},
    ocsp::{Signer, Staple, Status},
    probe::{Verdict as _, invalid, probe, run},
    tls::{Authority, BOTH, EACH, Leaf, ONLY_12, ONLY_13, Terms, Versions, presenting, serve},
};

/// A probe that connects, shakes hands and is done.
fn shaking(server: &Server, tls: TlsOptions) -> Probe {
    let (host, port) = (server.address.ip().to_string(), server.address.port().into());
    probe(Kind::Tcp(TcpProbe { host, port, tls: Some(tls), ..TcpProbe::default() }))
}

fn seen(report: Option<Report>) -> TlsReport {
    match report {
        Some(Report::Tcp(report)) => report.tls,
        Some(Report::Https(report)) => report.tls,
        other => panic!("a report with TLS, not {other:?}"),
    }
    .expect("TLS was spoken")
}

async fn passed(server: &Server, tls: TlsOptions) -> TlsReport {
    seen(Some(run(&shaking(server, tls)).await.passed()))
}

async fn failed(server: &Server, tls: TlsOptions, reason: Reason) -> (TlsReport, String) {
    let sight = run(&shaking(server, tls)).await;
    let summary = sight.summary.clone();
    (seen(sight.because(reason)), summary)
}

/// A server that says nothing after the handshake, until the client has gone.
async fn silent(acceptor: TlsAcceptor) -> Server {
    serve(acceptor, |stream, _| finish(stream)).await
}

#[tokio::test]
async fn version_group_and_round_trips_are_told_as_they_were_agreed_on() {
    let authority = Authority::new();
    let both: Versions = &BOTH;
    let (v12, v13) = (TlsVersion::TlsVersion12.into(), TlsVersion::TlsVersion13.into());
    for (versions, group, min_version, max_version, version, name, round_trips) in [
        (both, None, 0, 0, "1.3", "x25519", 1),
        // A server that has not what it is offered first asks again (HelloRetryRequest).
        (both, Some(NamedGroup::secp256r1), 0, 0, "1.3", "secp256r1", 2),
        (both, None, 0, v12, "1.2", "x25519", 2),
        (both, Some(NamedGroup::secp384r1), v12, v12, "1.2", "secp384r1", 2),
        (&ONLY_12, None, 0, 0, "1.2", "x25519", 2),
        (&ONLY_13, None, v13, v13, "1.3", "x25519", 1),
    ] {
        let server = silent(presenting(authority.issue(&Leaf::default()), Terms { versions, group, ..Terms::default() })).await;
        let tls = passed(&server, TlsOptions { min_version, max_version, ..authority.options() }).await;
        assert_eq!((tls.version.as_str(), tls.key_exchange_group.as_str(), tls.handshake_round_trip_count), (version, name, round_trips));
        assert!(!tls.resumed && tls.verified && tls.certificate_problem() == CertificateProblem::Unspecified, "{tls:?}");
        let [leaf, issuer] = tls.certificates.as_slice() else { panic!("{tls:?}") };
        assert_eq!((leaf.is_authority, issuer.is_authority, leaf.signature_algorithm.as_str()), (false, true, "ecdsa-with-SHA256"));
    }
    let newer = silent(presenting(authority.issue(&Leaf::default()), Terms { versions: &ONLY_13, ..Terms::default() })).await;
    let (tls, _) = failed(&newer, TlsOptions { max_version: v12, ..authority.options() }, Reason::TlsFailed).await;
    assert_eq!((tls.version.as_str(), tls.handshake_round_trip_count), ("", 0));
}

#[tokio::test]
async fn application_protocols_are_offered_and_may_be_required() {
    let authority = Authority::new();
    let of = |alpn: &[&str], require_alpn| TlsOptions {
        alpn: alpn.iter().map(|name| (*name).to_owned()).collect(),
        require_alpn,
        ..authority.options()
    };
    let mail = silent(presenting(authority.issue(&Leaf::default()), Terms { alpn: &["imap", "pop3"], ..Terms::default() })).await;
    assert_eq!(passed(&mail, of(&["x", "pop3"], true)).await.alpn, "pop3");
    assert_eq!(passed(&mail, of(&[], false)).await.alpn, "");
    let (_, summary) = failed(&mail, of(&["x"], false), Reason::TlsFailed).await;
    assert!(summary.contains("no application protocol"), "{summary}");
    let ignorant = silent(presenting(authority.issue(&Leaf::default()), Terms::default())).await;
    assert_eq!(passed(&ignorant, of(&["imap"], false)).await.alpn, "");
    let (tls, summary) = failed(&ignorant, of(&["imap"], true), Reason::TlsFailed).await;
    assert!(summary.contains("agrees to none of the application protocols"), "{summary}");
    assert!(tls.verified && tls.certificate_problem() == CertificateProblem::Unspecified, "the chain is not at fault: {tls:?}");
    let https = HttpProbe { url: "https://a/".into(), tls: Some(of(&["h2"], false)), ..HttpProbe::default() };
    assert_eq!(invalid(&probe(Kind::Https(https))), "https.tls.alpn");
    let (version, tls) = (HttpVersion::HttpVersion3.into(), Some(TlsOptions { resume: true, ..TlsOptions::default() }));
    let quic = HttpProbe { url: "https://a/".into(), version, tls, ..HttpProbe::default() };
    assert_eq!(invalid(&probe(Kind::Https(quic))), "https.tls.resume");
}

#[tokio::test]
async fn each_wrongness_of_a_chain_has_its_own_name() {
    use CertificateProblem::{
        BadSignature, EndsSoon, Expired, IncompleteChain, Malformed, NoStaple, NotYetValid, SelfSigned, UnknownIssuer, WrongName,
        WrongPurpose,
    };
    let authority = Authority::new();
    let (stranger, impostor) = (Authority::named("Other Root"), Authority::new());
    let plain = || authority.issue(&Leaf::default());
    let garbage = |place: usize| {
        let (mut chain, key) = plain();
        chain[place] = CertificateDer::from(b"\x30\x03nonsense".to_vec());
        (chain, key)
    };
    let with_root = || {
        let (mut chain, key) = plain();
        // The wrong way round, as many servers send it.
        chain.insert(1, authority.root());
        (chain, key)
    };
    let own = || {
        let params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        (vec![certificate.der().clone()], rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    };
    let critical = || {
        authority.issue_with(|params| {
            let mut odd = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
            odd.set_criticality(true);
            params.custom_extensions.push(odd);
        })
    };
    let for_clients = || authority.issue_with(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    let of_an_authority = || authority.issue_with(|params| params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
    let a_year = prost_types::Duration { seconds: 366 * 86_400, nanos: 0 };
    let lasting = TlsOptions { min_remaining_validity: Some(a_year), ..authority.options() };
    let stapled = TlsOptions { require_staple: true, ..authority.options() };
    let leaf = |leaf: Leaf<'_>| authority.issue(&leaf);
    for (identity, options, problem) in [
        (leaf(Leaf { from_day: -9, to_day: -2, ..Leaf::default() }), authority.options(), Expired),
        (leaf(Leaf { from_day: 2, ..Leaf::default() }), authority.options(), NotYetValid),
        (leaf(Leaf { names: &["other.example"], ..Leaf::default() }), authority.options(), WrongName),
        (leaf(Leaf { whole_chain: false, ..Leaf::default() }), authority.options(), IncompleteChain),
        (plain(), stranger.options(), IncompleteChain),
        (plain(), impostor.options(), BadSignature),
        (with_root(), stranger.options(), UnknownIssuer),
        (own(), authority.options(), SelfSigned),
        (for_clients(), authority.options(), WrongPurpose),
        (of_an_authority(), authority.options(), WrongPurpose),
        (garbage(0), authority.options(), Malformed),
        (garbage(1), authority.options(), Malformed),
        (critical(), authority.options(), Malformed),
        (plain(), lasting, EndsSoon),
        (plain(), stapled, NoStaple),
    ] {
        for versions in EACH {
            let identity = (identity.0.clone(), identity.1.clone_key());
            let server = silent(presenting(identity, Terms { versions, ..Terms::default() })).await;
            let (tls, summary) = failed(&server, options.clone(), Reason::CertificateInvalid).await;
            assert_eq!(tls.certificate_problem(), problem, "{summary}");
            assert!(!tls.verified && summary.ends_with(&tls.certificate_error) && !tls.certificate_error.is_empty(), "{summary}");
            assert!(!tls.certificates.is_empty() && tls.certificates[0].fingerprint_sha256.len() == 64, "{tls:?}");
        }
    }
    // In the wrong order, and with the root among them, a chain is still one.
    assert!(passed(&silent(presenting(with_root(), Terms::default())).await, authority.options()).await.verified);
}

#[tokio::test]
async fn a_key_that_is_not_the_certificates_is_told_from_a_bad_chain() {
    let authority = Authority::new();
    for versions in EACH {
        let ((chain, _), (_, other)) = (authority.issue(&Leaf::default()), authority.issue(&Leaf::default()));
        let server = silent(presenting((chain, other), Terms { versions, ..Terms::default() })).await;
        let (tls, summary) = failed(&server, authority.options(), Reason::CertificateInvalid).await;
        assert!(summary.contains("could not prove that it has the certificate's key"), "{summary}");
        assert_eq!((tls.certificate_problem(), tls.verified, tls.certificates.len()), (CertificateProblem::Other, false, 2));
        assert!(!tls.certificate_error.is_empty());
    }
}

#[tokio::test]
async fn a_staple_is_judged_by_whose_it_is_who_signed_it_and_when() {
    let authority = Authority::new();
    let (chain, key) = authority.issue(&Leaf::default());
    let (another, _) = authority.issue(&Leaf::default());
    let good = || Staple::about(&authority, &chain[0]);
    let revoked = || Staple { status: Status::Revoked, ..good() };
    let changed = || {
        let mut bytes = good().make();
        // In the signature, which comes last.
        *bytes.last_mut().unwrap() ^= 1;
        bytes
    };
    let bare = (authority.options(), TlsOptions { require_staple: true, ..authority.options() });
    for (bytes, status, error, with, without) in [
        (good().make(), OcspStatus::Good, "", None, None),
        (Staple { signer: Signer::Delegate, ..good() }.make(), OcspStatus::Good, "", None, None),
        (Staple { next_update: None, ..good() }.make(), OcspStatus::Good, "", None, None),
        (revoked().make(), OcspStatus::Revoked, "", Some("was revoked on "), Some("was revoked on ")),
        (
            Staple { signer: Signer::Delegate, ..revoked() }.make(),
            OcspStatus::Revoked,
            "",
            Some("was revoked on "),
            Some("was revoked on "),
        ),
        // What does not count neither condemns nor serves.
        (
            Staple { signer: Signer::Impostor, ..revoked() }.make(),
            OcspStatus::Revoked,
            "signature: it is wrong",
            Some("does not count"),
            None,
        ),
        (Staple { signer: Signer::Servant, ..good() }.make(), OcspStatus::Good, "not meant for signing OCSP", Some("does not count"), None),
        (Staple { status: Status::Unknown, ..good() }.make(), OcspStatus::Unknown, "", Some("does not know the certificate"), None),
        (
            Staple::about(&authority, &another[0]).make(),
            OcspStatus::Unspecified,
            "not about this certificate",
            Some("does not count"),
            None,
        ),
        (Staple { this_update: 3600, ..good() }.make(), OcspStatus::Good, "in force only from ", Some("does not count"), None),
        (
            Staple { this_update: -3600, next_update: Some(-60), ..good() }.make(),
            OcspStatus::Good,
            "in force until ",
            Some("does not count"),
            None,
        ),
        (
            Staple { this_update: -8 * 86_400, next_update: None, ..good() }.make(),
            OcspStatus::Good,
            "until when",
            Some("does not count"),
            None,
        ),
        (changed(), OcspStatus::Good, "signature: it is wrong", Some("does not count"), None),
        (b"nonsense".to_vec(), OcspStatus::Unspecified, "can't be decoded", Some("can't be decoded"), None),
    ] {
        for versions in EACH {
            let terms = Terms { versions, staple: bytes.clone(), ..Terms::default() };
            let server = silent(presenting((chain.clone(), key.clone_key()), terms)).await;
            for (options, words) in [(&bare.0, without), (&bare.1, with)] {
                let (tls, summary) = match words {
                    None => (passed(&server, options.clone()).await, String::new()),
                    Some(_) => failed(&server, options.clone(), Reason::CertificateInvalid).await,
                };
                assert!(summary.contains(words.unwrap_or_default()), "{summary}");
                let staple = tls.ocsp.clone().expect("it was stapled");
                assert_eq!((staple.status(), staple.verified), (status, error.is_empty()), "{staple:?}");
                assert!(staple.error.contains(error), "{staple:?}");
                assert_eq!(staple.this_update_time.is_some(), status != OcspStatus::Unspecified);
                assert_eq!(staple.revocation_time.is_some(), status == OcspStatus::Revoked);
                let problem = match (words, status) {
                    (None, _) => CertificateProblem::Unspecified,
                    (Some(_), OcspStatus::Revoked) if staple.verified => CertificateProblem::Revoked,
                    (Some(_), _) => CertificateProblem::NoStaple,
                };
                assert_eq!((tls.certificate_problem(), tls.verified), (problem, words.is_none()), "{summary}");
            }
            let tls = passed(&server, TlsOptions { insecure: true, ..TlsOptions::default() }).await;
            assert_eq!((tls.verified, tls.ocsp.unwrap().status()), (false, status), "whatever it says, nobody judges");
        }
    }
}

/// Runs of one check.
struct Runs {
    plan: Plan,
    world: World,
}

impl Runs {
    fn of(probe: &Probe) -> Self {
        Self { plan: Plan::parse(probe).unwrap(), world: World::new(std::sync::Arc::new(OpenGate)) }
    }

    async fn run(&self) -> Sight {
        self.plan.run(&self.world).await
    }

    async fn tls(&self) -> TlsReport {
        seen(Some(self.run().await.passed()))
    }
}

/// A server that answers every request over HTTP/1.1.
async fn answering(acceptor: TlsAcceptor) -> Server {
    serve(acceptor, |mut stream, _| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(ok("").as_bytes()).await;
        finish(stream).await;
    })
    .await
}

#[tokio::test]
async fn a_session_is_resumed_on_request_and_never_without() {
    let authority = Authority::new();
    for versions in EACH {
        let is_old = versions[0].version == rustls::ProtocolVersion::TLSv1_2;
        let acceptor = presenting(authority.issue(&Leaf::default()), Terms { versions, ..Terms::default() });
        let (web, quiet) = (answering(acceptor.clone()).await, silent(acceptor).await);
        for resume in [true, false] {
            let tls = TlsOptions { resume, ..authority.options() };
            let https = HttpProbe { url: format!("https://{}/", web.address), tls: Some(tls.clone()), ..HttpProbe::default() };
            for probe in [probe(Kind::Https(https)), shaking(&quiet, tls)] {
                let runs = Runs::of(&probe);
                let first = runs.tls().await;
                assert!(!first.resumed && first.verified && first.certificates.len() == 2, "{first:?}");
                for _ in 0..3 {
                    let next = runs.tls().await;
                    assert_eq!(
                        (next.resumed, next.certificates.len(), next.verified),
                        (resume, if resume { 0 } else { 2 }, true),
                        "{next:?}"
                    );
                    assert_eq!(next.remaining_validity.is_none(), resume);
                    let full = if is_old { 2 } else { 1 };
                    assert_eq!(next.handshake_round_trip_count, if resume { 1 } else { full });
                    assert_eq!((next.version, next.key_exchange_group.is_empty()), (first.version.clone(), resume && is_old));
                }
                let other = Runs::of(&probe).tls().await;
                assert!(!other.resumed, "sessions are one check's own");
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_offers_no_session_costs_a_wait_and_never_the_pass() {
    let authority = Authority::new();
    let acceptor = presenting(authority.issue(&Leaf::default()), Terms { tickets: 0, ..Terms::default() });
    let slow = Server::start(move |stream, _| {
        let acceptor = acceptor.clone();
        async move {
            // Twice as long again would be past the end of the run.
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            if let Ok(stream) = acceptor.accept(stream).await {
                finish(stream).await;
            }
        }
    })
    .await;
    let tls = TlsOptions { resume: true, ..authority.options() };
    let runs = Runs::of(&Probe { timeout: Some(prost_types::Duration { seconds: 1, nanos: 0 }), ..shaking(&slow, tls) });
    assert!(!runs.tls().await.resumed && !runs.tls().await.resumed);
}

#[tokio::test]
async fn a_server_that_has_forgotten_the_session_shows_its_chain_again() {
    let authority = Authority::new();
    let acceptors: Vec<_> = (0..2).map(|_| presenting(authority.issue(&Leaf::default()), Terms::default())).collect();
    // Each connection meets another of two servers behind one address.
    let server = Server::start(move |stream, number| {
        let acceptor = acceptors[number % 2].clone();
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                finish(stream).await;
            }
        }
    })
    .await;
    let runs = Runs::of(&shaking(&server, TlsOptions { resume: true, ..authority.options() }));
    for _ in 0..4 {
        let tls = runs.tls().await;
        assert!(!tls.resumed && tls.verified && tls.certificates.len() == 2, "{tls:?}");
    }
}

#[tokio::test]
async fn a_resumed_session_does_not_hide_a_certificate_that_ends_too_soon() {
    let authority = Authority::new();
    let server = silent(presenting(authority.issue(&Leaf { to_day: 3, ..Leaf::default() }), Terms::default())).await;
    // In a few seconds it will be too late.
    let min = prost_types::Duration { seconds: 3 * 86_400 - 4, nanos: 0 };
    let runs = Runs::of(&shaking(&server, TlsOptions { resume: true, min_remaining_validity: Some(min), ..authority.options() }));
    let mut resumed = 0;
    let failed = loop {
        let sight = runs.run().await;
        if sight.reason != Reason::Unspecified {
            break sight;
        }
        resumed += u32::from(seen(sight.report).resumed);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    assert!(resumed > 0);
    assert_eq!(seen(failed.because(Reason::CertificateInvalid)).certificate_problem(), CertificateProblem::EndsSoon);
}

#[tokio::test]
async fn what_changes_in_a_file_counts_in_the_next_run() {
    let authority = Authority::new();
    let server = silent(presenting(authority.issue(&Leaf::default()), Terms::default())).await;
    let runs = Runs::of(&shaking(&server, TlsOptions { resume: true, ..authority.options() }));
    let (good, other) =
        (std::fs::read(authority.path("root.pem")).unwrap(), std::fs::read(Authority::named("Lab Root").path("root.pem")).unwrap());
    for _ in 0..3 {
        assert!(runs.tls().await.verified);
        // Of another authority with the same name, and of the same length or nearly so.
        std::fs::write(authority.path("root.pem"), &other).unwrap();
        let tls = seen(runs.run().await.because(Reason::CertificateInvalid));
        assert_eq!(tls.certificate_problem(), CertificateProblem::BadSignature);
        std::fs::remove_file(authority.path("root.pem")).unwrap();
        runs.run().await.because(Reason::InvalidCheck);
        std::fs::write(authority.path("root.pem"), &good).unwrap();
    }
    assert!(!runs.tls().await.resumed, "whom to trust has changed since");
}
