//! Ways to TLS of real servers.

use vantage_contract::v1::{StartTls, StartTlsProtocol as Protocol, TcpProbe, TlsOptions, probe::Kind};

use super::report;
use crate::lab::{
    peers,
    probe::{Verdict as _, probe, run},
    tls::Authority,
};

/// The way to TLS of a server that listens there, with a certificate of this authority for `peer.lab`.
async fn lead(at: std::net::SocketAddr, protocol: Protocol, authority: &Authority) {
    let tls = TlsOptions { server_name: "peer.lab".into(), ..authority.options() };
    let start_tls = Some(StartTls { protocol: protocol.into(), tls: Some(tls), name: String::new() });
    let spec = TcpProbe { host: at.ip().to_string(), port: at.port().into(), start_tls, ..TcpProbe::default() };
    let seen = report(Some(run(&probe(Kind::Tcp(spec))).await.passed()));
    let tls = seen.tls.unwrap();
    assert!(tls.verified && tls.certificates.len() == 2 && tls.version == "1.3", "{tls:?}");
    assert!(!seen.greeting.is_empty());
}

#[tokio::test]
async fn slapd_leads_to_tls() {
    let authority = Authority::new();
    let Some(server) = peers::slapd(&authority) else { return };
    lead(server.address, Protocol::Ldap, &authority).await;
}

#[tokio::test]
async fn dovecot_leads_to_tls_by_imap_and_by_pop3() {
    let authority = Authority::new();
    let Some(server) = peers::dovecot(&authority) else { return };
    lead(server.address, Protocol::Imap, &authority).await;
    let mut pop3 = server.address;
    pop3.set_port(server.address.port() + 1);
    lead(pop3, Protocol::Pop3, &authority).await;
}

#[tokio::test]
async fn postgresql_leads_to_tls() {
    let authority = Authority::new();
    let Some(server) = peers::postgres(&authority) else { return };
    lead(server.address, Protocol::Postgres, &authority).await;
}
