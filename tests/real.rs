//! One check of each kind against real servers, through the whole of both programs.

use std::collections::BTreeMap;

use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use crate::lab::{
    place::Closed,
    privilege,
    process::{Ended, MANAGER, run, write},
    servers::Server,
};

/// Runs a file of checks once.
async fn once(checks: &Value) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "checks.json", &checks.to_string());
    run(MANAGER, &["--config", &file, "--once", "--output", "json", "--http", "off"]).await
}

fn by_name(ended: &Ended) -> BTreeMap<String, Value> {
    ended.json_lines().into_iter().map(|result| (result["check_name"].as_str().unwrap().to_owned(), result)).collect()
}

fn seconds(value: &Value) -> f64 {
    value.as_str().and_then(|text| text.strip_suffix('s')).unwrap().parse().unwrap()
}

struct Servers {
    nginx: Server,
    nginx_tls: Server,
    unbound: Server,
    chronyd: Server,
    lost_chronyd: Server,
}

impl Servers {
    fn start() -> Option<Self> {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["web.lab".to_owned()]).unwrap().self_signed(&key).unwrap();
        Some(Self {
            nginx: Server::nginx(None)?,
            nginx_tls: Server::nginx(Some((&certificate.pem(), &key.serialize_pem())))?,
            unbound: Server::unbound()?,
            chronyd: Server::chronyd(true)?,
            lost_chronyd: Server::chronyd(false)?,
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_passes_against_a_real_server() {
    if !vantage_probes::net::capability::echo_capability().v4() {
        return privilege::skipped("echo sockets, for ping");
    }
    let Some(servers) = Servers::start() else { return };
    let Servers { nginx, nginx_tls, unbound, chronyd, .. } = &servers;
    let resolver = unbound.address.to_string();
    let host = unbound.address.ip();
    let ended = once(&json!({
        "defaults": { "timeout": "10s", "resolver": resolver },
        "checks": [
            { "name": "ping", "ping": { "host": "here.lab", "spacing": "10ms" } },
            { "name": "traceroute", "traceroute": { "host": "127.0.0.1", "method": "udp" } },
            { "name": "http", "http": { "url": format!("http://here.lab:{}/moved", nginx.address.port()), "expect": { "body_contains": "all is well" } } },
            { "name": "https", "https": {
                "url": format!("https://{}/", nginx_tls.address),
                "tls": { "server_name": "web.lab", "ca_file": nginx_tls.file("chain.pem") },
            } },
            { "name": "tcp", "tcp": { "host": host, "port": nginx.address.port() } },
            { "name": "udp", "udp": { "host": host, "port": unbound.address.port(), "hex": "1234 0100 0001 0000 0000 0000 03776562 036c6162 00 0001 0001" } },
            { "name": "dns", "dns": { "server": host, "port": unbound.address.port(), "query": "web.lab", "expect": { "answers": "192.0.2.80" } } },
            { "name": "ntp", "ntp": { "server": host, "port": chronyd.address.port(), "max_offset": "1s", "max_stratum": 3 } },
        ],
    }))
    .await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let results = by_name(&ended);
    assert_eq!(results.keys().collect::<Vec<_>>(), ["dns", "http", "https", "ntp", "ping", "tcp", "traceroute", "udp"]);
    for (kind, result) in &results {
        assert_eq!(
            (&result["kind"], &result["outcome"], &result["reason"]),
            (&json!(kind), &json!("OUTCOME_PASSED"), &json!("REASON_UNSPECIFIED"))
        );
        assert!(seconds(&result["latency"]) > 0.0, "{result}");
        let phases: f64 = result["phases"].as_array().unwrap().iter().map(|phase| seconds(&phase["duration"])).sum();
        assert!((phases - seconds(&result["duration"])).abs() < 1e-6, "{result}");
        assert!(result[kind].is_object(), "the report of its kind: {result}");
    }
    assert_eq!(results["http"]["http"]["redirect_count"], 1);
    assert_eq!(results["https"]["https"]["tls"]["verified"], true);
    assert_eq!(results["dns"]["dns"]["rcode"], "NOERROR");
    assert_eq!(results["ntp"]["ntp"]["stratum"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_has_its_own_reason() {
    let Some(servers) = Servers::start() else { return };
    let Servers { nginx, nginx_tls, unbound, lost_chronyd, .. } = &servers;
    let (closed, (_silent, silent_udp)) = (Closed::find(), silent_udp_port());
    let (_quiet, quiet) = crate::lab::monitor::silent_port().await;
    let resolver = unbound.address.to_string();
    let host = unbound.address.ip();
    let ended = once(&json!({
        "defaults": { "timeout": "2s", "resolver": resolver },
        "checks": [
            { "name": "closed port", "tcp": { "host": "127.0.0.1", "port": closed.address.port() } },
            { "name": "silent http", "timeout": "300ms", "http": { "url": format!("http://127.0.0.1:{quiet}/") } },
            { "name": "silent udp", "timeout": "300ms", "udp": { "host": "127.0.0.1", "port": silent_udp, "text": "hello" } },
            { "name": "wrong name", "ping": { "host": "nobody.lab" } },
            { "name": "a 500", "http": { "url": format!("http://{}/broken", nginx.address) } },
            { "name": "unknown issuer", "https": { "url": format!("https://{}/", nginx_tls.address), "tls": { "server_name": "web.lab" } } },
            { "name": "nxdomain", "dns": { "server": host, "port": unbound.address.port(), "query": "nobody.lab" } },
            { "name": "no clock", "ntp": { "server": host, "port": lost_chronyd.address.port() } },
        ],
    }))
    .await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let results = by_name(&ended);
    let seen: BTreeMap<&str, (&str, &str)> = results
        .iter()
        .map(|(name, result)| (name.as_str(), (result["outcome"].as_str().unwrap(), result["reason"].as_str().unwrap())))
        .collect();
    let failed = |reason| ("OUTCOME_FAILED", reason);
    let expected = BTreeMap::from([
        ("closed port", failed("REASON_REFUSED")),
        ("silent http", failed("REASON_TIMED_OUT")),
        ("silent udp", ("OUTCOME_UNDETERMINED", "REASON_NO_ANSWER")),
        ("wrong name", failed("REASON_NAME_NOT_RESOLVED")),
        ("a 500", failed("REASON_UNEXPECTED_ANSWER")),
        ("unknown issuer", failed("REASON_CERTIFICATE_INVALID")),
        ("nxdomain", failed("REASON_UNEXPECTED_ANSWER")),
        ("no clock", failed("REASON_UNSYNCHRONIZED")),
    ]);
    assert_eq!(seen, expected, "{ended:?}");
    assert_eq!(results["a 500"]["http"]["status"], 500);
    assert_eq!(results["nxdomain"]["dns"]["rcode"], "NXDOMAIN");
    assert_eq!(results["unknown issuer"]["https"]["tls"]["certificates"].as_array().unwrap().len(), 1, "the chain is shown all the same");
}

/// A bound UDP port that never answers.
fn silent_udp_port() -> (std::net::UdpSocket, u16) {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

#[tokio::test]
async fn undetermined_alone_exits_with_2() {
    let (_silent, port) = silent_udp_port();
    let ended =
        once(&json!([{ "name": "silence", "timeout": "200ms", "udp": { "host": "127.0.0.1", "port": port, "text": "hello" } }])).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
}
