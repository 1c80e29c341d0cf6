//! The failure matrix: what each wrongness comes to, in the words of both sides. Nothing of it takes a monitor down.

use serde_json::{Value, json};
use tonic::Code;

use super::{Guarded, ask_once, execute, list, tls};
use crate::lab::{
    pki::{Leaf, Pki},
    process::{MONITOR, run},
};

/// Asserts that a manager is refused with words that name the cure, that the monitor says why, and that it goes on.
async fn refused(monitor: &mut Guarded, tls: Value, manager_says: &[&str], monitor_says: &str) {
    let ended = ask_once("https", monitor.at, tls, Value::Null).await;
    assert_eq!(ended.code, Some(69), "{ended:?}");
    for words in manager_says {
        assert!(ended.stderr.contains(words), "{words:?} is not in {}", ended.stderr);
    }
    monitor.running.says(monitor_says).await;
}

#[tokio::test]
async fn who_has_the_right_certificates_is_let_in_and_both_sides_say_who_it_is() {
    let pki = Pki::new().await;
    let mut monitor = Guarded::start(&pki).await;
    let ended = ask_once("https", monitor.at, tls(&pki, Some("manager")), Value::Null).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    monitor.running.says(r#""event":"connected""#).await;
    monitor.running.says(r#""event":"probe_once""#).await;
    let said = monitor.running.said();
    let connected = said.lines().find(|line| line.contains(r#""event":"connected""#)).unwrap();
    let line: Value = serde_json::from_str(connected).unwrap();
    assert_eq!(
        (&line["target"], &line["identity"], &line["role"], &line["tls"]),
        (&json!("audit"), &json!("manager"), &json!("manager"), &json!("1.3"))
    );
    let once = said.lines().find(|line| line.contains(r#""event":"probe_once""#)).unwrap();
    let once: Value = serde_json::from_str(once).unwrap();
    let told = [&once["target"], &once["check"], &once["kind"], &once["decision"]];
    assert_eq!(told, [&json!("audit"), &json!("web"), &json!("tcp"), &json!("accepted")]);
    assert!(once["probe_target"].as_str().unwrap().starts_with("127.0.0.1:"), "{once}");
    assert!(line["address"].as_str().unwrap().starts_with("127.") && line["certificate"].as_str().unwrap().len() == 64, "{line}");
}

#[tokio::test]
async fn a_wrong_certificate_of_the_manager_is_refused_and_the_manager_says_so_truthfully() {
    let (pki, other) = (Pki::new().await, Pki::new().await);
    pki.make("expired", &Leaf { from: -7200, to: -3600, ..Leaf::default() });
    pki.make("early", &Leaf { from: 3600, to: 7200, ..Leaf::default() });
    let mut monitor = Guarded::start(&pki).await;
    let with = |own: &str, from: &Pki| json!({ "ca_file": pki.text("ca.pem"), "certificate_file": from.text(&format!("{own}.pem")), "key_file": from.text(&format!("{own}.key")) });
    let refused_us = "the monitor refused the certificate of this manager";
    let wrong_authority = [refused_us, "an authority that it does not trust", "--client-ca-file"];
    refused(&mut monitor, with("manager", &other), &wrong_authority, "its certificate is by an authority that is not trusted here").await;
    refused(&mut monitor, with("expired", &pki), &[refused_us, "expired", "certs renew"], "its certificate has expired on ").await;
    refused(&mut monitor, with("early", &pki), &[refused_us, "not valid yet"], "its certificate is not valid yet").await;
    let purpose = [refused_us, "for another purpose", "manager.pem"];
    refused(&mut monitor, with("monitor-fra", &pki), &purpose, "its certificate is for another purpose").await;
    let none = ["the monitor wants a certificate, and this manager shows none", "tls.certificate_file and tls.key_file"];
    refused(&mut monitor, tls(&pki, None), &none, "it showed no certificate").await;
    assert_eq!(ask_once("https", monitor.at, tls(&pki, Some("manager")), Value::Null).await.code, Some(0), "it serves still");
}

#[tokio::test]
async fn a_wrong_certificate_of_the_monitor_is_refused_and_the_manager_names_the_cure() {
    let (pki, other) = (Pki::new().await, Pki::new().await);
    pki.make("expired", &Leaf { from: -7200, to: -3600, ..Leaf::default() });
    pki.make("early", &Leaf { from: 3600, to: 7200, ..Leaf::default() });
    pki.make("named", &Leaf { names: &["fra.example"], ..Leaf::default() });
    let ca = pki.text("ca.pem");
    let wants = ["--client-ca-file", ca.as_str()];
    for (own, says, cure) in [
        ("expired", "the monitor's certificate has expired on ", "certs renew"),
        ("early", "the monitor's certificate is not valid yet", "set the clock right"),
        ("named", "the monitor's certificate is for fra.example, and not for 127.", "tls.server_name"),
    ] {
        let mut monitor = Guarded::with(&pki, own, &wants).await;
        refused(&mut monitor, tls(&pki, Some("manager")), &[says, cure], "it refused us: ").await;
        if own == "named" {
            let mut named = tls(&pki, Some("manager"));
            named["server_name"] = json!("fra.example");
            assert_eq!(ask_once("https", monitor.at, named, Value::Null).await.code, Some(0));
        }
    }
    let mut monitor = Guarded::start(&pki).await;
    let says = ["the monitor's certificate is by an authority that is not trusted here", "tls.ca_file"];
    refused(&mut monitor, tls(&other, Some("manager")), &says, "the certificate is by an authority that it does not trust").await;
}

#[tokio::test]
async fn an_admin_may_ask_and_not_order_and_who_has_no_role_may_nothing() {
    let pki = Pki::new().await;
    pki.make("nobody", &Leaf { role: None, ..Leaf::default() });
    pki.make("monitor-role", &Leaf { role: Some("monitor"), ..Leaf::default() });
    let mut monitor = Guarded::start(&pki).await;
    let channel = |own: &str| Pki::channel(&pki.client(Some(own)), monitor.at);
    assert_eq!(list(channel("admin"), None).await, Ok(0));
    assert_eq!(list(channel("manager"), None).await, Ok(0));
    let refused = execute(channel("admin"), None).await.err().expect("a refusal");
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("you have the role admin, and this is for the role manager"), "{refused}");
    for own in ["nobody", "monitor-role"] {
        let refused = execute(channel(own), None).await.err().expect("a refusal");
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(refused.message().contains("says no role") && refused.message().contains("tls.roles"), "{refused}");
        assert_eq!(list(channel(own), None).await, Err(Code::PermissionDenied));
    }
    // What an admin might try instead: a probe.
    let (at, ca, own, key) = (format!("https://{}", monitor.at), pki.text("ca.pem"), pki.text("admin.pem"), pki.text("admin.key"));
    let trust = ["--at", &at, "--ca-file", &ca, "--certificate-file", &own, "--key-file", &key];
    let ended = run(MONITOR, &[&["probe", "tcp", "127.0.0.1:9"], &trust[..]].concat()).await;
    assert!(ended.code == Some(69) && ended.stderr.contains("this is for the role manager"), "{ended:?}");
    assert_eq!(run(MONITOR, &[&["clients"], &trust[..]].concat()).await.code, Some(0));
    let ended = ask_once("https", monitor.at, tls(&pki, Some("admin")), Value::Null).await;
    assert!(ended.code == Some(69) && ended.stderr.contains("tls.certificate_file"), "{ended:?}");
    monitor.running.says(r#""what":"/vantage.v1.MonitorService/Execute","code":"PERMISSION_DENIED""#).await;
    assert!(!monitor.running.said().contains("probe_once"));
}

#[tokio::test]
async fn settings_give_and_take_roles() {
    let pki = Pki::new().await;
    pki.make("plain", &Leaf { role: None, names: &["desk.example"], ..Leaf::default() });
    let folder = tempfile::tempdir().unwrap();
    let tls = json!({ "certificate_file": pki.text("monitor-fra.pem"), "key_file": pki.text("monitor-fra.key"), "client_ca_file": pki.text("ca.pem"),
        "roles": { "dns:desk.example": "manager", "cn:manager": "admin", "cn:admin": "none" } });
    let settings = crate::lab::process::write(folder.path(), "monitor.json", &json!({ "tls": tls }).to_string());
    let monitor = Guarded::plain(&["--config", &settings]).await;
    let channel = |own: &str| Pki::channel(&pki.client(Some(own)), monitor.at);
    assert!(execute(channel("plain"), None).await.is_ok());
    assert_eq!(execute(channel("manager"), None).await.err().map(|status| status.code()), Some(Code::PermissionDenied));
    assert_eq!(list(channel("manager"), None).await, Ok(1));
    assert_eq!(list(channel("admin"), None).await, Err(Code::PermissionDenied));
}

const TOKEN: &str = "0123456789abcdef-manager";
const ADMIN_TOKEN: &str = "0123456789abcdef-admin";

#[tokio::test]
async fn a_token_is_as_good_as_a_certificate_and_a_wrong_one_or_none_is_not() {
    let pki = Pki::new().await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| crate::lab::process::write(folder.path(), name, text);
    let (manager, admin, wrong) = (file("manager", TOKEN), file("admin", ADMIN_TOKEN), file("wrong", "fedcba9876543210"));
    let mut monitor = Guarded::with(&pki, "monitor-fra", &["--token-file", &manager, "--admin-token-file", &admin]).await;
    let channel = || Pki::channel(&pki.client(None), monitor.at);
    assert!(execute(channel(), Some(TOKEN)).await.is_ok());
    assert!(list(channel(), Some(ADMIN_TOKEN)).await.is_ok());
    assert_eq!(list(channel(), None).await, Err(Code::Unauthenticated));
    for (token, code, words) in [
        (None, Code::Unauthenticated, "a token is needed"),
        (Some("fedcba9876543210"), Code::Unauthenticated, "that token is not known here"),
        (Some(ADMIN_TOKEN), Code::PermissionDenied, "you have the role admin"),
    ] {
        let refused = execute(channel(), token).await.err().expect("a refusal");
        assert_eq!(refused.code(), code);
        assert!(refused.message().contains(words), "{refused}");
    }
    for (token, words) in [(Value::Null, "a token is needed"), (json!(wrong), "that token is not known here")] {
        let more = if token.is_null() { Value::Null } else { json!({ "token_file": token }) };
        let ended = ask_once("https", monitor.at, tls(&pki, None), more).await;
        assert!(ended.code == Some(69) && ended.stderr.contains(words) && ended.stderr.contains("token_file"), "{ended:?}");
    }
    assert_eq!(ask_once("https", monitor.at, tls(&pki, None), json!({ "token_file": manager })).await.code, Some(0));
    monitor.running.says("that token is not known here").await;
    assert!(!monitor.running.said().contains(TOKEN), "a token is never shown");
}

#[tokio::test]
async fn plaintext_to_tls_and_tls_to_plaintext_are_told_by_both_sides() {
    let pki = Pki::new().await;
    let mut secure = Guarded::start(&pki).await;
    let ended = ask_once("http", secure.at, Value::Null, Value::Null).await;
    assert!(ended.code == Some(69) && ended.stderr.contains("speaks TLS: write https://"), "{ended:?}");
    secure.running.says("what it says is not TLS").await;
    let mut open = Guarded::plain(&[]).await;
    let ended = ask_once("https", open.at, tls(&pki, Some("manager")), Value::Null).await;
    assert_eq!(ended.code, Some(69), "{ended:?}");
    open.running.says("it speaks TLS, and this listener does not").await;
    assert_eq!(ask_once("http", open.at, Value::Null, Value::Null).await.code, Some(0));
}

#[tokio::test]
async fn tls_1_2_is_spoken_only_where_it_is_allowed() {
    use vantage_daemon::tls::MinVersion;
    let pki = Pki::new().await;
    let ca = pki.text("ca.pem");
    let mut strict = Guarded::start(&pki).await;
    let lax = Guarded::with(&pki, "monitor-fra", &["--client-ca-file", &ca, "--tls-min-version", "1.2"]).await;
    assert!(old_handshake(&pki, strict.at).await.is_err());
    strict.running.says("it speaks no version of TLS that is allowed here").await;
    old_handshake(&pki, lax.at).await.unwrap();

    // The other way round: a server that knows no better.
    let authority = crate::lab::tls::Authority::new();
    let acceptor = authority.acceptor_of(&crate::lab::tls::Leaf::default(), &["h2"], &[&rustls::version::TLS12], false);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    });
    let tls = json!({ "ca_file": authority.path("root.pem").display().to_string() });
    let ended = ask_once("https", at, tls, Value::Null).await;
    assert!(ended.code == Some(69) && ended.stderr.contains("no version of TLS") && ended.stderr.contains("tls.min_version"), "{ended:?}");
    let files = vantage_daemon::tls::client::ClientFiles { min_version: MinVersion::Tls12, ..pki.client(Some("manager")) };
    assert!(list(Pki::channel(&files, lax.at), None).await.is_ok());
}

/// A handshake as one who knows TLS 1.2 and nothing newer.
async fn old_handshake(pki: &Pki, at: std::net::SocketAddr) -> std::io::Result<()> {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.path("ca.pem")).unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_file(pki.path("manager.pem")).unwrap()],
            PrivateKeyDer::from_pem_file(pki.path("manager.key")).unwrap(),
        )
        .unwrap();
    let stream = tokio::net::TcpStream::connect(at).await?;
    let name = ServerName::from(at.ip());
    tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await.map(drop)
}
