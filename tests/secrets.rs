//! Secrets stay where they belong: a pair of real processes, all that they say and keep, and whether something of what was planted is in it.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::lab::{
    http::{Requests, Server, redirect},
    monitor::{PATIENCE, eventually},
    place,
    process::{MANAGER, MONITOR, Running, run, write},
    proxy,
};

/// What is planted, and where it may be found.
const PLANTED: [(&str, &str); 8] = [
    ("in a file", "planted-in-a-file"),
    ("in a variable", "planted-in-a-variable"),
    ("in the file of checks", "planted-in-the-checks"),
    ("in a body", "planted-in-a-body"),
    ("as a proxy's password", "planted-for-a-proxy"),
    ("as a client's secret", "planted-for-a-token"),
    ("as a token", "planted-token"),
    // "joe:planted-in-a-file"
    ("as credentials", "am9lOnBsYW50ZWQtaW4tYS1maWxl"),
];

/// What the monitor alone may look up.
const OWN: &str = "planted-at-the-monitor";

/// A target that says all that it was told, in each place that a report has for it.
async fn gossip() -> (Server, Requests) {
    Server::scripted(|request, _| {
        if request.starts_with("GET /redirect ") {
            let key = request.lines().find_map(|line| line.strip_prefix("x-key: ")).unwrap_or_default();
            return redirect(302, &format!("/?key={key}"));
        }
        let told = request.replace("\r\n", " ");
        format!("HTTP/1.1 404 No\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n{told}", told.replace(' ', "-"), told.len())
    })
    .await
}

fn checks(target: &Server, proxy: &Server, issuer: &Server, at: SocketAddr) -> Value {
    let url = target.url("/");
    let file = json!({ "file": "secret" });
    let check = |name: &str, mut http: Value| {
        http.as_object_mut().unwrap().entry("url").or_insert(url.clone().into());
        json!({ "name": name, "interval": "200ms", "timeout": "5s", "http": http })
    };
    json!({
        "monitors": [
            { "name": "told", "address": at.to_string() },
        ],
        "checks": [
            check("basic", json!({ "auth": { "basic": { "username": "joe", "password": file } } })),
            check("bearer", json!({ "auth": { "bearer": { "token": { "env": "PLANTED" } } } })),
            check("digest", json!({ "auth": { "digest": { "username": "joe", "password": { "value": "planted-in-the-checks" } } } })),
            check("header", json!({ "url": target.url("/redirect"), "secret_headers": { "X-Key": file } })),
            check("body", json!({ "method": "POST", "body_file": "body" })),
            check("proxy", json!({ "proxy": { "url": format!("http://{}", proxy.address), "username": "joe",
                "password": { "value": "planted-for-a-proxy" } } })),
            check("oauth2", json!({ "auth": { "oauth2": { "token_url": issuer.url("/"), "client_id": "me",
                "client_secret": { "value": "planted-for-a-token" } } } })),
            // Refused by the endpoint, which says why.
            check("refused", json!({ "auth": { "oauth2": { "token_url": target.url("/token"), "client_id": "me", "credentials_in_body": true,
                "client_secret": { "value": "planted-for-a-token" } } } })),
        ],
    })
}

/// What a page has.
fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    answer
}

/// What the stream of events has said after half a second.
fn events(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    write!(stream, "GET /api/events HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut said = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        said.extend_from_slice(&chunk[..count]);
        if said.len() > 100_000 {
            break;
        }
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// All files of a folder, as one text.
fn kept(folder: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let says_nothing = ["lock", "reserve"].iter().any(|name| path.ends_with(name));
        assert!(says_nothing || fs::metadata(&path).unwrap().permissions().mode() & 0o077 == 0, "{} is its owner's", path.display());
        all.push_str(&String::from_utf8_lossy(&bytes));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_planted_comes_out_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let (target, seen) = gossip().await;
    let (proxy, _) = proxy::connect(str::to_owned).await;
    let issuer = Server::scripted(|_, _| {
        let body = r#"{"access_token":"planted-token","token_type":"bearer","expires_in":3600}"#;
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    })
    .await
    .0;
    let (at, monitor_http, manager_http) = (place::own(), place::own(), place::own());
    write(folder.path(), "secret", "planted-in-a-file\n");
    write(folder.path(), "body", "planted-in-a-body");
    let file = write(folder.path(), "checks.json", &checks(&target, &proxy, &issuer, at).to_string());
    let data = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();

    let log = ["--log", "trace"];
    let listen = (at.to_string(), monitor_http.to_string(), manager_http.to_string(), data("monitor"), data("manager"));
    let arguments = ["serve", "--name", "told", "--listen", &listen.0, "--http-listen", &listen.1, "--data", &listen.3];
    let monitor = Running::start(MONITOR, &[&log, &arguments[..]].concat());
    let arguments =
        ["PLANTED=planted-in-a-variable", MANAGER, "--config", &file, "--http", &listen.2, "--data", &listen.4, "--output", "json"];
    let mut manager = Running::start("env", &[&arguments[..], &log].concat());

    // Each check has had its results, and each secret has been where it belongs.
    let mut results = Vec::new();
    let mut count = std::collections::BTreeMap::<String, u32>::new();
    while count.len() < 8 || count.values().any(|count| *count < 3) {
        let line = manager.line().await.expect("a result");
        let result: Value = serde_json::from_str(&line).unwrap();
        results.push(line);
        // A machine that has other things to do skips some.
        if result["outcome"] == "OUTCOME_SKIPPED" {
            continue;
        }
        *count.entry(result["check_name"].as_str().unwrap().to_owned()).or_default() += 1;
        let expected = if result["check_name"] == "refused" { "REASON_NOT_AUTHENTICATED" } else { "REASON_UNEXPECTED_ANSWER" };
        assert_eq!(result["reason"], expected, "{result}");
    }
    let told = seen.all().join("\n");
    for (what, secret) in
        PLANTED.iter().filter(|(_, secret)| !secret.contains("checks") && !secret.contains("proxy") && !secret.contains("in-a-file"))
    {
        assert!(told.contains(secret), "{what}: the target was never told");
    }
    assert!(results.iter().any(|line| line.contains("***")), "masked where it was sent back: {}", results[0]);

    let url = format!("http://{at}");
    let mut outputs = vec![("results on stdout", results.join("\n"))];
    for path in ["/", "/api/checks", "/api/results", "/metrics", "/readyz"] {
        outputs.push(("the manager's pages", get(manager_http, path)));
    }
    outputs.push(("events", events(manager_http)));
    outputs.push(("the monitor's figures", get(monitor_http, "/metrics")));
    for what in ["clients", "queues", "monitor"] {
        let ended = run(MONITOR, &[what, "--at", &url, "--output", "json"]).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        outputs.push(("the monitor's answers", ended.stdout));
    }
    let mut watching = Running::start(MONITOR, &["watch", "--at", &url, "--output", "json"]);
    outputs.push(("the watch stream", watching.line().await.unwrap()));
    drop(watching);
    for command in ["validate", "plan"] {
        let ended = run("env", &["PLANTED=planted-in-a-variable", MANAGER, command, &file]).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        outputs.push(("plan and validate", ended.stdout + &ended.stderr));
    }
    // A file that is wrong is quoted nowhere that is not a terminal.
    let wrong = fs::read_to_string(&file).unwrap().replace(r#"{"value":"planted-in-the-checks"}"#, r#""planted-in-the-checks""#);
    let wrong = write(folder.path(), "wrong.json", &wrong);
    let ended = run("env", &["PLANTED=planted-in-a-variable", MANAGER, "validate", &wrong]).await;
    assert_eq!(ended.code, Some(78), "{ended:?}");
    outputs.push(("what is wrong", ended.stdout + &ended.stderr));

    for running in [manager, monitor] {
        running.signal(Signal::SIGTERM);
        let ended = running.ended().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(ended.stderr.lines().count() > 20, "it said what it does: {}", ended.stderr);
        outputs.push(("logs and output", ended.stdout + &ended.stderr));
    }
    outputs.push(("the manager's store", kept(Path::new(&data("manager")))));
    for (output, text) in &outputs {
        for (what, secret) in PLANTED {
            assert!(
                !text.contains(secret),
                "{output} tells what is {what}: {}",
                text.lines().find(|line| line.contains(secret)).unwrap_or_default()
            );
        }
    }
    // Orders outlive the monitor: what it was sent is in its journal, which is nobody else's.
    assert!(kept(Path::new(&data("monitor"))).contains("planted-in-a-file"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_looks_up_its_own_and_a_changed_secret_touches_its_own_check_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (target, seen) = Server::scripted(|_, _| crate::lab::http::ok("in")).await;
    let at = place::own();
    let (own, secret) = (write(folder.path(), "own", OWN), write(folder.path(), "secret", "planted-first\n"));
    let policy = json!({ "policy": { "secrets": { "files": [own] } } });
    let settings = write(folder.path(), "monitor.json", &policy.to_string());
    let bearer = |token: Value| json!({ "url": target.url("/"), "auth": { "bearer": { "token": token } } });
    let check = |name: &str, token: Value, at: &str| json!({ "name": name, "interval": "100ms", "monitors": [at], "http": bearer(token) });

    let second = place::own();
    let checks = json!({
        "monitors": [{ "name": "told", "address": at.to_string() }, { "name": "self-reliant", "address": second.to_string(), "secrets": "monitor" }],
        "checks": [
            check("placed", json!({ "file": "secret" }), "told"),
            check("looked-up", json!({ "file": own }), "self-reliant"),
            check("denied", json!({ "file": secret }), "self-reliant"),
            json!({ "name": "plain", "interval": "100ms", "monitors": ["told"], "tcp": { "host": "127.0.0.1", "port": target.address.port() } }),
        ],
    });
    let file = write(folder.path(), "checks.json", &checks.to_string());
    let data = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let serve = |name: &str, at: SocketAddr| {
        let (at, data) = (at.to_string(), data(name));
        Running::silent(
            MONITOR,
            &["serve", "--config", &settings, "--name", name, "--listen", &at, "--http-listen", "off", "--data", &data],
        )
    };
    let (first, other) = (serve("told", at), serve("self-reliant", second));
    let stored = data("manager");
    let mut manager = Running::start(MANAGER, &["--config", &file, "--http", "off", "--data", &stored, "--output", "json"]);

    let saw = |token: &str| seen.all().iter().any(|request| request.contains(&format!("authorization: Bearer {token}\r\n")));
    eventually("both secrets at the target", || async { saw("planted-first") && saw(OWN) }).await;
    let next = async |manager: &mut Running, name: &str| loop {
        let result = manager.json().await;
        // A machine that has other things to do skips some.
        if result["check_name"] == name && result["outcome"] != "OUTCOME_SKIPPED" {
            return result;
        }
    };
    let denied = next(&mut manager, "denied").await;
    assert_eq!((&denied["reason"], &denied["outcome"]), (&json!("REASON_POLICY_DENIED"), &json!("OUTCOME_UNDETERMINED")), "{denied}");
    let before = (next(&mut manager, "placed").await, next(&mut manager, "plain").await);

    fs::write(&secret, "planted-second\n").unwrap();
    manager.says(r#""started":1,"stopped":0,"untouched":3"#).await;
    eventually("the new secret at the target", || async { saw("planted-second") }).await;
    // Results of the order before may still come.
    let placed = loop {
        let placed = next(&mut manager, "placed").await;
        if placed["revision"] != before.0["revision"] {
            break placed;
        }
    };
    let plain = next(&mut manager, "plain").await;
    assert_eq!((&placed["outcome"], &plain["revision"]), (&json!("OUTCOME_PASSED"), &before.1["revision"]));

    // Gone: the old ones stay in force, and it is said where.
    fs::remove_file(&secret).unwrap();
    manager.says("is not there").await;
    manager.says("go on as they were").await;
    assert!(manager.said().contains("checks.json:1:"), "{}", manager.said());
    next(&mut manager, "placed").await;

    for running in [manager, first, other] {
        running.signal(Signal::SIGTERM);
        assert_eq!(running.ended().await.code, Some(0));
    }
    assert!(!kept(Path::new(&data("self-reliant"))).contains(OWN), "a monitor that looks it up does not keep it");
    assert!(!kept(Path::new(&stored)).contains("planted-"));
}
