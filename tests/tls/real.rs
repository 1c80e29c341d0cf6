//! OpenSSL as a peer.

use vantage_contract::v1::{CertificateProblem, OcspStatus, Reason, TcpProbe, TlsOptions, probe::Kind};

use super::seen;
use crate::lab::{
    peers,
    probe::{Verdict as _, probe, run},
    tls::Authority,
};

#[tokio::test]
async fn what_openssl_staples_is_judged_as_its_responder_meant_it() {
    let authority = Authority::new();
    for (version, told) in [("-tls1_3", "1.3"), ("-tls1_2", "1.2")] {
        for is_revoked in [false, true] {
            let server = peers::openssl(&authority, version, |folder| peers::openssl_says(folder, is_revoked));
            let Some(server) = server else { return };
            let tls = TlsOptions { require_staple: true, server_name: "127.0.0.1".into(), ..authority.options() };
            let (host, port) = (server.address.ip().to_string(), server.address.port().into());
            let sight = run(&probe(Kind::Tcp(TcpProbe { host, port, tls: Some(tls), ..TcpProbe::default() }))).await;
            let tls = if is_revoked { seen(sight.because(Reason::CertificateInvalid)) } else { seen(Some(sight.passed())) };
            let staple = tls.ocsp.clone().unwrap();
            assert!(staple.verified && staple.next_update_time.is_some(), "{staple:?}");
            let expected = if is_revoked {
                (OcspStatus::Revoked, CertificateProblem::Revoked)
            } else {
                (OcspStatus::Good, CertificateProblem::Unspecified)
            };
            assert_eq!((staple.status(), tls.certificate_problem(), tls.version.as_str()), (expected.0, expected.1, told));
        }
    }
}

#[tokio::test]
async fn a_server_of_openssl_without_a_staple_resumes_its_sessions() {
    let authority = Authority::new();
    for version in ["-tls1_3", "-tls1_2"] {
        let Some(server) = peers::openssl(&authority, version, |_| None) else { return };
        let tls = TlsOptions { resume: true, server_name: "127.0.0.1".into(), ..authority.options() };
        let (host, port) = (server.address.ip().to_string(), server.address.port().into());
        let runs = super::Runs::of(&probe(Kind::Tcp(TcpProbe { host, port, tls: Some(tls), ..TcpProbe::default() })));
        let resumed = [runs.tls().await.resumed, runs.tls().await.resumed, runs.tls().await.resumed];
        assert_eq!(resumed, [false, true, true], "{version}");
    }
}
