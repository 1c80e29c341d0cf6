//! What the policy of a monitor denies gets no packet, however it is spelled and whatever leads there: a real monitor with real orders in a
//! network where everything that leaves it is seen.

mod detours;
mod spellings;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use hickory_proto::rr::{RData, RecordType, rdata};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vantage_contract::{
    file::{self, Format},
    v1::{Outcome, ProbeResult, Reason, RunOnce, execute_request::Order},
};

use crate::lab::{
    dns::{DnsServer, a, aaaa, bytes},
    http::{Server, finish},
    monitor::{Monitor, PATIENCE},
    netns::Row,
    place,
    process::{MONITOR, Running},
    tap::Tap,
};

/// Denied by a default rule.
const METADATA: &str = "169.254.169.254";
/// Denied by the policy's own rule about networks.
const INSIDE: &str = "10.66.0.1";
/// Where a packet may go, to show that it would be seen.
const ALLOWED: &str = "198.51.100.7";

/// What is tried, by name: the check as files of checks have it, without its name.
type Attempts = Vec<(String, Value)>;

/// Where a test can be led to on the way.
struct Places {
    /// The monitor's gRPC and HTTP.
    grpc: u16,
    http: u16,
    /// The DNS server, which knows names for denied addresses.
    dns: SocketAddr,
    /// The server that redirects.
    web: SocketAddr,
    /// Where it redirects to: each request's path is a number in here.
    redirects: Arc<Mutex<Vec<(u16, String)>>>,
}

impl Places {
    /// The URL that answers with this status and `Location`.
    fn redirect(&self, status: u16, location: &str) -> String {
        let mut redirects = self.redirects.lock().unwrap();
        redirects.push((status, location.to_owned()));
        format!("http://{}/{}", self.web, redirects.len() - 1)
    }
}

/// A server whose answers are redirects; a path that is none is answered with 200.
async fn web(redirects: Arc<Mutex<Vec<(u16, String)>>>) -> Server {
    Server::start(move |mut stream, _| {
        let redirects = redirects.clone();
        async move {
            let mut head = Vec::new();
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read_buf(&mut head).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
            let path = String::from_utf8_lossy(&head).split(['/', ' ']).nth(2).and_then(|number| number.parse::<usize>().ok());
            let found = path.and_then(|number| redirects.lock().unwrap().get(number).cloned());
            let answer = match found {
                Some((status, location)) => format!("HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"),
                None => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
            };
            let _ = stream.write_all(answer.as_bytes()).await;
            finish(stream).await;
        }
    })
    .await
}

/// A name server that knows ways to denied addresses. It notes what it is asked for.
async fn names(asked_for: Arc<Mutex<BTreeSet<String>>>) -> DnsServer {
    let mut turns: BTreeMap<String, usize> = BTreeMap::new();
    DnsServer::start(move |asked| {
        let query = &asked.message.queries[0];
        let name = query.name().to_ascii().to_ascii_lowercase();
        asked_for.lock().unwrap().insert(name.clone());
        let is_four = query.query_type() == RecordType::A;
        let alias = |to: &str| RData::CNAME(rdata::CNAME(to.parse().unwrap()));
        let metadata = || a([169, 254, 169, 254]);
        let four = |answer: &[(&str, u32, RData)]| if is_four { asked.with(answer) } else { asked.answer() };
        let answer = match name.as_str() {
            "metadata.lab.test." => four(&[(&name, 0, metadata())]),
            "inside.lab.test." => four(&[(&name, 0, a([10, 66, 0, 1]))]),
            "chain.lab.test." => four(&[
                (&name, 0, alias("two.lab.test.")),
                ("two.lab.test.", 0, alias("three.lab.test.")),
                ("three.lab.test.", 0, metadata()),
            ]),
            "to-denied.lab.test." => four(&[(&name, 0, alias("www.denied.test.")), ("www.denied.test.", 0, a([198, 51, 100, 9]))]),
            "translated.lab.test." if !is_four => asked.with(&[(&name, 0, aaaa("64:ff9b::a9fe:a9fe"))]),
            "mapped.lab.test." if !is_four => asked.with(&[(&name, 0, aaaa("::ffff:169.254.169.254"))]),
            "six.lab.test." if !is_four => asked.with(&[(&name, 0, aaaa("2001:db8:66::1"))]),
            "many.lab.test." => four(&[(&name, 0, metadata()), (&name, 0, a([10, 66, 0, 1])), (&name, 0, a([10, 66, 0, 2]))]),
            // Harmless for who looks first, and then no more.
            "rebind.lab.test." if is_four => {
                let turn = turns.entry(name.clone()).or_default();
                *turn += 1;
                asked.with(&[(&name, 0, if *turn == 1 { a([127, 0, 0, 1]) } else { metadata() })])
            }
            "zone.lab.test." => {
                let server = |host: &str| RData::NS(rdata::NS(host.parse().unwrap()));
                asked.with(&[(&name, 0, server("metadata.lab.test.")), (&name, 0, server("inside.lab.test."))])
            }
            "named.lab.test." => asked.with(&[(&name, 0, RData::NS(rdata::NS("ns.denied.test.".parse().unwrap())))]),
            _ => asked.answer(),
        };
        vec![bytes(&answer)]
    })
    .await
}

const POLICY: &str = r#"{"networks": {"deny": ["10.66.0.0/16", "2001:db8:66::/48"]}, "nat64_prefixes": ["2001:db8:64::/96"],
    "names": {"deny": ["denied.test"]}, "ports": {"deny": [6666]}, "methods": {"deny": ["DELETE"]},
    "bounds": {"ping": {"max_requests": 100, "max_payload_size_bytes": 1472}, "traceroute": {"max_hops": 30}}}"#;

/// Runs all of them once, at the same time.
async fn run(monitor: &Monitor, client: &str, attempts: &Attempts) -> BTreeMap<String, ProbeResult> {
    let checks: Vec<_> = attempts
        .iter()
        .map(|(name, check)| {
            let mut check = check.clone();
            check["name"] = json!(name);
            check["timeout"] = json!(check.get("timeout").cloned().unwrap_or(json!("3s")));
            check
        })
        .collect();
    let loaded =
        file::parse(&json!({ "checks": checks }).to_string(), "attempts.json", Format::Json).unwrap_or_else(|error| panic!("{error}"));
    let mut link = monitor.connect(client, &[]).await;
    for check in loaded.file.checks {
        link.order(Order::RunOnce(RunOnce { check: Some(check), ..RunOnce::default() })).await;
    }
    link.results(attempts.len()).await.into_iter().map(|result| (result.check_name.clone(), result)).collect()
}

#[test]
fn nothing_leaves_for_what_the_policy_denies() {
    let Some(row) = Row::of(2) else { return };
    let tap = Tap::at(&row);
    row.inside(0, async || {
        let (asked_for, redirects) = (Arc::<Mutex<BTreeSet<String>>>::default(), Arc::<Mutex<Vec<_>>>::default());
        let (dns, web) = (names(asked_for.clone()).await, web(redirects.clone()).await);
        let (grpc, http) = (place::own().port(), place::own().port());
        let folder = tempfile::tempdir().unwrap();
        let policy = folder.path().join("policy.json");
        std::fs::write(&policy, POLICY).unwrap();
        let mut serving = Running::start(
            MONITOR,
            &[
                "serve",
                "--insecure-listen",
                "--listen",
                &format!("0.0.0.0:{grpc}"),
                "--http-listen",
                &format!("0.0.0.0:{http}"),
                "--insecure-http",
                "--policy",
                policy.to_str().unwrap(),
                "--data",
                "memory",
            ],
        );
        serving.says("serving").await;
        let monitor = Monitor::at(SocketAddr::from(([127, 0, 0, 1], grpc)));
        let places = Places { grpc, http, dns: dns.address, web: web.address, redirects };

        let control = |name: &str| vec![(name.to_owned(), json!({ "udp": { "host": ALLOWED, "port": 9 }, "timeout": "300ms" }))];
        let shown: BTreeSet<IpAddr> = [ALLOWED, "10.9.0.2", "fd09:0::2"].map(|address| address.parse().unwrap()).into();
        run(&monitor, "before", &control("before")).await;
        seen_by(&tap, ALLOWED).await;

        let attempts: Attempts = [spellings::all(&places), detours::all(&places)].concat();
        assert!(attempts.len() >= 500, "{}", attempts.len());
        let results = run(&monitor, "attempts", &attempts).await;
        let wrong: Vec<_> = attempts
            .iter()
            .filter_map(|(name, check)| {
                let result = &results[name];
                let denied = result.outcome() == Outcome::Undetermined
                    && matches!(result.reason(), Reason::PolicyDenied | Reason::InvalidCheck)
                    && !result.summary.contains("rates.");
                (!denied).then(|| format!("{name}: {check}: {:?} {}", result.reason(), result.summary))
            })
            .collect();
        // Of those, few can't be read at all.
        let unreadable = results.values().filter(|result| result.reason() == Reason::InvalidCheck).map(|result| &result.check_name);
        let unreadable: Vec<_> = unreadable.collect();
        assert!(unreadable.len() <= 6, "{unreadable:?}");

        // And still it is seen what leaves.
        let last = vec![("after".to_owned(), json!({ "udp": { "host": "198.51.100.8", "port": 9 }, "timeout": "300ms" }))];
        run(&monitor, "after", &last).await;
        seen_by(&tap, "198.51.100.8").await;
        let mut leaked = tap.seen();
        leaked.retain(|address| !shown.contains(address) && address.to_string() != "198.51.100.8");
        assert!(
            leaked.is_empty() && wrong.is_empty(),
            "{} of {}:\n{}\npackets left for {leaked:?}",
            wrong.len(),
            attempts.len(),
            wrong.join("\n")
        );
        let asked_for = asked_for.lock().unwrap().clone();
        assert!(asked_for.contains("metadata.lab.test."), "{asked_for:?}");
        assert!(!asked_for.iter().any(|name| name.ends_with("denied.test.")), "{asked_for:?}");
    });
}

/// Waits until a packet to that address has been seen.
async fn seen_by(tap: &Tap, address: &str) {
    let address: IpAddr = address.parse().unwrap();
    let seen = async {
        while !tap.seen().contains(&address) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap_or_else(|_| panic!("{address} is seen, as it is allowed"));
}
