//! Pages, health and figures over TLS, to those who may see them.

use std::net::SocketAddr;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};

use super::Guarded;
use crate::lab::{
    pki::Pki,
    place,
    process::{MANAGER, Running, write},
};

async fn get(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str, more: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{more}\r\n");
    let mut answer = Vec::new();
    // Whoever is refused in the handshake learns it here.
    if stream.write_all(request.as_bytes()).await.is_ok() {
        let _ = stream.read_to_end(&mut answer).await;
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// An answer in the clear; empty where there is none.
pub(super) async fn plain(at: SocketAddr, path: &str) -> String {
    match TcpStream::connect(at).await {
        Ok(stream) => get(stream, path, "").await,
        Err(_) => String::new(),
    }
}

/// An answer over TLS, as the holder of this pair; empty where there is none.
async fn secure(pki: &Pki, own: Option<&str>, (name, at): (&'static str, SocketAddr), path: &str, more: &str) -> String {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.path("ca.pem")).unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain = vec![CertificateDer::from_pem_file(pki.path(&format!("{own}.pem"))).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(pki.path(&format!("{own}.key"))).unwrap()).unwrap()
        }
    };
    let stream = TcpStream::connect(at).await.unwrap();
    let name = ServerName::try_from(name).unwrap();
    match tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await {
        Ok(stream) => get(stream, path, more).await,
        Err(_) => String::new(),
    }
}

#[tokio::test]
async fn the_page_is_for_certificates_with_a_role_and_health_for_everybody() {
    let (pki, other, at) = (Pki::new().await, Pki::new().await, place::own());
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "checks.json", r#"{"checks": [{"name": "a", "ping": {"host": "127.0.0.1"}}]}"#);
    let (certificate, key, ca, http) = (pki.text("manager.pem"), pki.text("manager.key"), pki.text("ca.pem"), at.to_string());
    let tls = ["--http-certificate-file", &certificate, "--http-key-file", &key, "--http-client-ca-file", &ca];
    let common = ["--config", &file, "--data", "memory", "--embedded-listen", "127.0.0.1:0", "--http", &http];
    let mut manager = Running::silent(MANAGER, &[&common[..], &tls].concat());
    manager.says("serving HTTP").await;
    for path in ["/", "/api/checks", "/metrics"] {
        assert!(secure(&pki, Some("admin"), ("localhost", at), path, "").await.starts_with("HTTP/1.1 200"), "{path}");
        let refused = secure(&pki, None, ("localhost", at), path, "").await;
        assert!(refused.starts_with("HTTP/1.1 401") && refused.contains("a client certificate is needed"), "{refused}");
    }
    assert!(secure(&pki, None, ("localhost", at), "/livez", "").await.starts_with("HTTP/1.1 200"));
    let stranger = secure(&pki, None, ("localhost", at), "/readyz", "").await;
    assert!(stranger.ends_with("\r\n\r\nready\n") || stranger.contains("not ready; who shows"), "{stranger}");
    std::fs::copy(other.path("admin.pem"), pki.path("foreign.pem")).unwrap();
    std::fs::copy(other.path("admin.key"), pki.path("foreign.key")).unwrap();
    assert_eq!(secure(&pki, Some("foreign"), ("localhost", at), "/", "").await, "");
    assert!(!plain(at, "/").await.contains("HTTP"), "nothing in the clear");
    manager.says("what it says is not TLS").await;
    let figures = secure(&pki, Some("manager"), ("localhost", at), "/metrics", "").await;
    assert!(figures.contains(r#"vantage_manager_certificate_expiry_timestamp_seconds{usage="server",subject="manager"} "#), "{figures}");
    assert!(figures.contains(r#"vantage_manager_refused_total{listener="web",reason="no_certificate"} 3"#), "{figures}");
}

#[tokio::test]
async fn figures_of_a_monitor_beyond_loopback_are_for_who_has_a_token() {
    let pki = Pki::new().await;
    let token = write(&pki.path(""), "token", "0123456789abcdef-read\n");
    let monitor = Guarded::with(&pki, "monitor-fra", &["--admin-token-file", &token, "--http-listen", "0.0.0.0:0"]).await;
    let said = monitor.running.said();
    let told = said.lines().find(|line| line.contains("health and figures")).unwrap();
    let address: SocketAddr = serde_json::from_str::<serde_json::Value>(told).unwrap()["address"].as_str().unwrap().parse().unwrap();
    let at = SocketAddr::from(([127, 0, 0, 1], address.port()));
    let asked = async |more: &str| secure(&pki, None, ("fra", at), "/metrics", more).await;
    let refused = asked("").await;
    assert!(refused.starts_with("HTTP/1.1 401") && refused.to_lowercase().contains("www-authenticate: basic"), "{refused}");
    assert!(asked("Authorization: Bearer 0123456789abcdef-wrong\r\n").await.starts_with("HTTP/1.1 401"));
    assert!(asked("Authorization: Bearer 0123456789abcdef-read\r\n").await.contains("vantage_monitor_build_info"));
    // As browsers send it: prom:0123456789abcdef-read.
    assert!(asked("Authorization: Basic cHJvbTowMTIzNDU2Nzg5YWJjZGVmLXJlYWQ=\r\n").await.contains("vantage_monitor_build_info"));
    assert!(secure(&pki, None, ("fra", at), "/livez", "").await.starts_with("HTTP/1.1 200"));
}
