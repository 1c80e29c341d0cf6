//! What a monitor started by root may still do of root's powers, and that it measures without them.

use std::fs;

use crate::lab::{
    netns::Row,
    process::{MONITOR, Running, run},
};

/// CAP_NET_BIND_SERVICE and CAP_NET_RAW, as capabilities(7) numbers them.
const BIND_SERVICE: u64 = 1 << 10;
const NET_RAW: u64 = 1 << 13;

/// A field of the status of each thread of a process, as a number in hexadecimal.
fn of_threads(process: u32, field: &str) -> Vec<u64> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let status = |task: fs::DirEntry| fs::read_to_string(task.path().join("status")).unwrap();
    let value = |status: String| status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(":\t").map(str::to_owned)).unwrap();
    tasks.map(|task| u64::from_str_radix(&value(status(task.unwrap())), 16).unwrap()).collect()
}

/// Starts a monitor where groups of this range may ping by datagram sockets, and has it probe the target.
async fn measures_with(row: &Row, groups: &str, capabilities: u64) {
    // This thread is in the namespace, whose setting this then is.
    fs::write("/proc/sys/net/ipv4/ping_group_range", groups).unwrap();
    let mut monitor = Running::start(MONITOR, &["serve", "--listen", "127.0.0.1:54399", "--http-listen", "off", "--data", "memory"]);
    monitor.says("serving").await;
    for field in ["CapEff", "CapPrm", "CapBnd"] {
        let threads = of_threads(monitor.id(), field);
        assert!(threads.len() > 1 && threads.iter().all(|held| *held == capabilities), "{groups}: {field} {threads:x?}");
    }
    assert!(of_threads(monitor.id(), "NoNewPrivs").iter().all(|set| *set == 1));
    let [target, _] = row.target();
    for kind in ["ping", "traceroute"] {
        let probed = run(MONITOR, &["probe", kind, &target, "--at", "http://127.0.0.1:54399"]).await;
        assert_eq!(probed.code, Some(0), "{groups}: {} {}", probed.stdout, probed.stderr);
    }
}

#[test]
fn a_monitor_gives_up_all_capabilities_but_those_that_its_sockets_need() {
    let Some(row) = Row::of(3) else { return };
    row.inside(0, async || {
        measures_with(&row, "0 2147483647", BIND_SERVICE).await;
        measures_with(&row, "1 0", BIND_SERVICE | NET_RAW).await;
    });
}
