//! Certificates, authorities and tokens that change while the programs run.

use std::time::Duration;

use serde_json::json;
use tonic::Code;

use super::{Guarded, execute, list, tls};
use crate::lab::{
    monitor::{eventually, silent_port},
    pki::{Leaf, Pki, replace},
    process::{MANAGER, Running, run, write},
};

/// The fingerprint of the certificate that a monitor shows now.
async fn shown(pki: &Pki, at: std::net::SocketAddr) -> String {
    use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.path("ca.pem")).unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(at).await.unwrap();
    let name = ServerName::from(at.ip());
    let stream = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await.unwrap();
    vantage_daemon::tls::certificate::fingerprint(&stream.get_ref().1.peer_certificates().unwrap()[0])
}

#[tokio::test]
async fn a_renewed_certificate_counts_at_once_and_drops_no_stream() {
    let ((_open, port), pki) = (silent_port().await, Pki::new().await);
    let mut monitor = Guarded::start(&pki).await;
    let folder = tempfile::tempdir().unwrap();
    let checks = json!({ "monitors": [{ "name": "fra", "address": format!("https://{}", monitor.at), "tls": tls(&pki, Some("manager")) }],
        "checks": [{ "name": "web", "interval": "200ms", "tcp": { "host": "127.0.0.1", "port": port } }] });
    let file = write(folder.path(), "checks.json", &checks.to_string());
    let mut manager = Running::start(MANAGER, &["--config", &file, "--output", "json", "--http", "off"]);
    manager.json().await;
    let before = shown(&pki, monitor.at).await;
    let renewed = run(MANAGER, &["certs", "renew", &pki.path("").display().to_string(), "monitor-fra"]).await;
    assert_eq!(renewed.code, Some(0), "{renewed:?}");
    monitor.running.says("other credentials are in force").await;
    assert_ne!(shown(&pki, monitor.at).await, before);
    let session = manager.json().await["session"].clone();
    for _ in 0..5 {
        assert_eq!(manager.json().await["session"], session);
    }
    assert!(!manager.said().contains("link down"), "{}", manager.said());
    assert_eq!(monitor.running.said().matches("stream opened").count(), 1, "{}", monitor.running.said());
}

#[tokio::test]
async fn an_authority_that_is_removed_ends_the_streams_of_its_clients_and_one_that_is_put_back_lets_them_in() {
    let (pki, other) = (Pki::new().await, Pki::new().await);
    let authorities = pki.path("clients.pem");
    let ours = std::fs::read_to_string(pki.path("ca.pem")).unwrap();
    let theirs = std::fs::read_to_string(other.path("ca.pem")).unwrap();
    replace(&authorities, &format!("{ours}{theirs}"));
    let mut monitor = Guarded::with(&pki, "monitor-fra", &["--client-ca-file", &pki.text("clients.pem")]).await;
    let of_other = vantage_daemon::tls::client::ClientFiles { ca: Some(pki.path("ca.pem")), ..other.client(Some("manager")) };
    let mut out = execute(Pki::channel(&of_other, monitor.at), None).await.unwrap();
    let stays = Pki::channel(&pki.client(Some("admin")), monitor.at);
    assert_eq!(list(stays.clone(), None).await, Ok(1));

    replace(&authorities, &ours);
    let ended = out.end().await;
    assert_eq!(ended.code(), Code::Unauthenticated);
    assert!(ended.message().contains("no longer accepted") && ended.message().contains("an authority that is not trusted here"), "{ended}");
    monitor.running.says(r#""event":"ended""#).await;
    assert!(list(Pki::channel(&of_other, monitor.at), None).await.is_err());
    // The others noticed nothing.
    assert_eq!(list(stays, None).await, Ok(1));

    replace(&authorities, &format!("{theirs}{ours}"));
    eventually("they are let in again", || async { list(Pki::channel(&of_other, monitor.at), None).await.is_ok() }).await;
}

#[tokio::test]
async fn a_token_that_is_removed_ends_its_streams_and_a_second_line_changes_tokens_without_a_gap() {
    let pki = Pki::new().await;
    let token = pki.path("token");
    replace(&token, "first-0123456789abcdef\n");
    let mut monitor = Guarded::with(&pki, "monitor-fra", &["--token-file", &pki.text("token")]).await;
    let channel = || Pki::channel(&pki.client(None), monitor.at);
    let mut open = execute(channel(), Some("first-0123456789abcdef")).await.unwrap();
    replace(&token, "first-0123456789abcdef\nsecond-0123456789abcdef\n");
    eventually("both count", || async { list(channel(), Some("second-0123456789abcdef")).await.is_ok() }).await;
    assert_eq!(list(channel(), Some("first-0123456789abcdef")).await, Ok(1));
    replace(&token, "second-0123456789abcdef\n");
    let ended = open.end().await;
    assert_eq!(ended.code(), Code::Unauthenticated);
    assert!(ended.message().contains("that token is not known here"), "{ended}");
    assert_eq!(list(channel(), Some("first-0123456789abcdef")).await, Err(Code::Unauthenticated));
    monitor.running.says(r#""event":"ended""#).await;
}

#[tokio::test]
async fn a_certificate_that_expires_or_is_shut_out_by_its_fingerprint_ends_its_stream() {
    let pki = Pki::new().await;
    pki.make("short", &Leaf { to: 8, ..Leaf::default() });
    let folder = tempfile::tempdir().unwrap();
    let settings = |roles: serde_json::Value| {
        json!({ "tls": { "certificate_file": pki.text("monitor-fra.pem"), "key_file": pki.text("monitor-fra.key"), "client_ca_file": pki.text("ca.pem"), "roles": roles } }).to_string()
    };
    let file = write(folder.path(), "monitor.json", &settings(json!({})));
    let monitor = Guarded::plain(&["--config", &file]).await;
    let mut short = execute(Pki::channel(&pki.client(Some("short")), monitor.at), None).await.unwrap();
    let ended = short.end().await;
    assert_eq!(ended.code(), Code::Unauthenticated);
    assert!(ended.message().contains("has expired on "), "{ended}");

    let mut open = execute(Pki::channel(&pki.client(Some("manager")), monitor.at), None).await.unwrap();
    let der = vantage_daemon::tls::files::certificates(&pki.path("manager.pem")).unwrap();
    let fingerprint = format!("sha256:{}", vantage_daemon::tls::certificate::fingerprint(&der[0]));
    replace(std::path::Path::new(&file), &settings(json!({ fingerprint: "none" })));
    let ended = open.end().await;
    assert!(ended.code() == Code::Unauthenticated && ended.message().contains("says no role"), "{ended}");
    assert_eq!(list(Pki::channel(&pki.client(Some("manager")), monitor.at), None).await, Err(Code::PermissionDenied));
}

#[tokio::test]
async fn a_broken_replacement_leaves_the_old_in_force_and_is_told_everywhere() {
    let pki = Pki::new().await;
    pki.make("past", &Leaf { from: -7200, to: -3600, ..Leaf::default() });
    let at = crate::lab::place::own();
    let http = at.to_string();
    let ca = pki.text("ca.pem");
    let mut monitor = Guarded::with(&pki, "monitor-fra", &["--client-ca-file", &ca, "--http-listen", &http]).await;
    let read = |name: &str| std::fs::read_to_string(pki.path(name)).unwrap();
    let (certificate, key) = (read("monitor-fra.pem"), read("monitor-fra.key"));
    let before = shown(&pki, monitor.at).await;
    assert!(super::web::plain(at, "/readyz").await.starts_with("HTTP/1.1 200"));

    replace(&pki.path("monitor-fra.key"), &read("admin.key"));
    monitor.running.says("the old ones stay in force").await;
    assert_eq!(shown(&pki, monitor.at).await, before);
    assert!(list(Pki::channel(&pki.client(Some("admin")), monitor.at), None).await.is_ok());
    let health = super::web::plain(at, "/readyz").await;
    assert!(health.starts_with("HTTP/1.1 503") && health.contains("credentials: the new ones are broken"), "{health}");
    let figures = super::web::plain(at, "/metrics").await;
    assert!(figures.contains("\nvantage_monitor_credentials_broken 1\n"), "{figures}");
    assert!(figures.contains(r#"vantage_monitor_certificate_expiry_timestamp_seconds{usage="server",subject="fra"} "#), "{figures}");

    // A certificate that is out of date is no better.
    replace(&pki.path("monitor-fra.key"), &read("past.key"));
    replace(&pki.path("monitor-fra.pem"), &read("past.pem"));
    monitor.running.says("the new certificate is not valid now").await;
    assert_eq!(shown(&pki, monitor.at).await, before);

    replace(&pki.path("monitor-fra.pem"), &certificate);
    replace(&pki.path("monitor-fra.key"), &key);
    monitor.running.signal(nix::sys::signal::Signal::SIGHUP);
    eventually("all is well again", || async { super::web::plain(at, "/readyz").await.starts_with("HTTP/1.1 200") }).await;
    assert_eq!(shown(&pki, monitor.at).await, before);
}

#[tokio::test]
async fn a_link_that_was_refused_stands_soon_after_its_files_are_right() {
    let ((_open, port), pki, other) = (silent_port().await, Pki::new().await, Pki::new().await);
    let monitor = Guarded::start(&pki).await;
    let folder = tempfile::tempdir().unwrap();
    for end in ["pem", "key"] {
        std::fs::copy(other.path(&format!("manager.{end}")), folder.path().join(format!("own.{end}"))).unwrap();
    }
    let checks = json!({ "monitors": [{ "name": "fra", "address": format!("https://{}", monitor.at),
            "tls": { "ca_file": pki.text("ca.pem"), "certificate_file": "own.pem", "key_file": "own.key" } }],
        "checks": [{ "name": "web", "interval": "500ms", "tcp": { "host": "127.0.0.1", "port": port } }] });
    let file = write(folder.path(), "checks.json", &checks.to_string());
    let mut manager = Running::start(MANAGER, &["--config", &file, "--output", "json", "--http", "off"]);
    manager.says("the monitor refused the certificate of this manager").await;
    for end in ["key", "pem"] {
        replace(&folder.path().join(format!("own.{end}")), &std::fs::read_to_string(pki.path(&format!("manager.{end}"))).unwrap());
    }
    let line = manager.line_within(Duration::from_secs(40)).await.expect("a result within the wait for people").unwrap();
    assert!(line.contains("OUTCOME_PASSED"), "{line}");
}

#[tokio::test]
async fn a_manager_leaves_a_monitor_whose_certificate_ends_while_they_talk() {
    let ((_open, port), pki) = (silent_port().await, Pki::new().await);
    pki.make("short", &Leaf { to: 8, ..Leaf::default() });
    let ca = pki.text("ca.pem");
    let monitor = Guarded::with(&pki, "short", &["--client-ca-file", &ca]).await;
    let folder = tempfile::tempdir().unwrap();
    let checks = json!({ "monitors": [{ "name": "fra", "address": format!("https://{}", monitor.at), "tls": tls(&pki, Some("manager")) }],
        "checks": [{ "name": "web", "interval": "500ms", "tcp": { "host": "127.0.0.1", "port": port } }] });
    let file = write(folder.path(), "checks.json", &checks.to_string());
    let mut manager = Running::start(MANAGER, &["--config", &file, "--output", "json", "--http", "off"]);
    manager.json().await;
    manager.says("the monitor's certificate has expired on ").await;
}
