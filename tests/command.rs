//! The monitor's command line, as scripts use it: exit codes, what is on stdout, and what is not.

use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::net::{TcpListener, UdpSocket};

use crate::lab::{
    monitor::{PATIENCE, silent_port},
    place::{self, Closed},
    process::{Ended, MONITOR, Running, run, write},
};

/// Runs the monitor's program with these words.
async fn monitor(line: &str) -> Ended {
    run(MONITOR, &line.split(' ').collect::<Vec<_>>()).await
}

/// A monitor that serves on the URL returned; `more` are further words.
async fn serving(more: &[&str]) -> (Running, String) {
    let listen = place::own().to_string();
    let mut words = vec!["serve", "--listen", &listen, "--http-listen", "off", "--name", "served"];
    words.extend(more);
    let running = Running::start(MONITOR, &words);
    let question = format!("monitor --at {listen}");
    let answered = async { while monitor(&question).await.code != Some(0) {} };
    tokio::time::timeout(PATIENCE, answered).await.unwrap_or_else(|_| panic!("no monitor on {listen}"));
    (running, listen)
}

#[tokio::test]
async fn a_probe_exits_with_its_verdict() {
    let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let passed = monitor(&format!("probe tcp {}", tcp.local_addr().unwrap())).await;
    assert_eq!(passed.code, Some(0), "{passed:?}");
    assert!(passed.stdout.starts_with("passed: ") && passed.stderr.is_empty(), "{passed:?}");
    let closed = Closed::find();
    let failed = monitor(&format!("probe tcp {}", closed.address)).await;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stdout.starts_with("failed: "), "{failed:?}");
    let silent = monitor(&format!("probe udp {} --text hello --timeout 100ms", udp.local_addr().unwrap())).await;
    assert_eq!(silent.code, Some(2), "{silent:?}");
    assert!(silent.stdout.starts_with("undetermined: "), "{silent:?}");
}

#[tokio::test]
async fn json_is_the_result_and_nothing_else() {
    let closed = Closed::find();
    let failed = monitor(&format!("probe tcp {} --output json", closed.address)).await;
    let [result] = failed.json_lines().try_into().unwrap();
    assert_eq!(result["outcome"], "OUTCOME_FAILED");
    assert_eq!(result["reason"], "REASON_REFUSED");
    assert_eq!(result["kind"], "tcp");
    assert_eq!(result["run_count"], "1");
}

#[tokio::test]
async fn slips_faults_and_absence_have_their_own_codes() {
    let (folder, closed) = (tempfile::tempdir().unwrap(), Closed::find());
    let broken = write(folder.path(), "broken.json", "{\n  \"limits\": {\"in_flight\": 0}\n}");
    for (line, code, said) in [
        ("", 64, "Usage: vantage-monitor"),
        ("probe ping 127.0.0.1 --count 0x5", 64, "expected a whole number"),
        ("probe ping 127.0.0.1 --count 5000", 64, "ping.count: must be 1 to 1000, is 5000"),
        ("probe tcp 127.0.0.1", 64, "tcp.port: is missing"),
        ("serve --listen 0.0.0.0:0", 64, "--certificate-file, --key-file and --client-ca-file"),
        (&format!("clients --at {}", closed.address), 69, "`vantage-monitor serve`"),
        (&format!("serve --config {broken}"), 78, "broken.json: limits.in_flight: must be 1 to 100000, is 0 at line 2 column"),
        ("serve --config /nonexistent/monitor.json", 78, "read /nonexistent/monitor.json: "),
    ] {
        let words: Vec<_> = line.split_whitespace().collect();
        let ended = run(MONITOR, &words).await;
        assert_eq!(ended.code, Some(code), "{line}: {ended:?}");
        assert!(ended.stderr.contains(said) && ended.stdout.is_empty(), "{line}: {ended:?}");
    }
}

#[tokio::test]
async fn a_served_monitor_probes_for_others_lists_them_and_ends_well() {
    let (served, at) = serving(&[]).await;
    let (_target, port) = silent_port().await;
    let probed = monitor(&format!("probe tcp 127.0.0.1:{port} --at http://{at} --output json")).await;
    assert_eq!(probed.code, Some(0), "{probed:?}");
    assert_eq!(probed.json_lines()[0]["monitor"], "served");
    let clients = monitor(&format!("clients --at {at} --output json")).await.json_lines().remove(0);
    assert_eq!(clients["clients"][0]["name"], "vantage-monitor probe", "{clients}");
    let queues = monitor(&format!("queues --at {at}")).await.stdout;
    assert!(queues.starts_with("CLIENT") && queues.lines().count() == 2, "{queues}");

    served.signal(Signal::SIGTERM);
    let ended = served.ended().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""), "{ended:?}");
    for line in ended.stderr.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(event["message"].is_string(), "{line}");
    }
}

#[tokio::test]
async fn a_changed_policy_holds_after_sighup() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "monitor.json", "{}");
    let (served, at) = serving(&["--config", &config]).await;
    let (_target, port) = silent_port().await;
    let probe = format!("probe tcp 127.0.0.1:{port} --at {at} --output json");
    assert_eq!(monitor(&probe).await.code, Some(0));
    write(folder.path(), "monitor.json", r#"{"policy": {"networks": {"deny": ["127.0.0.0/8"]}}}"#);
    served.signal(Signal::SIGHUP);
    let reloaded = async { while monitor(&probe).await.json_lines()[0]["reason"] != "REASON_POLICY_DENIED" {} };
    tokio::time::timeout(PATIENCE, reloaded).await.expect("the new policy within the patience of a test");
}
