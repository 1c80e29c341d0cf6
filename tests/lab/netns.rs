//! Networks of our own: namespaces in a row, joined by veth pairs, the inner ones routing. They vanish with the value.

use std::{
    fs::File,
    path::Path,
    process::Command,
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::sched::{CloneFlags, setns};

use super::privilege;

/// A row of namespaces: node 0 is where the test is, the last one is the target, those between are routers. The link between node `n` and
/// node `n + 1` has the networks 10.9.n.0/24 and fd09:n::/64, in which the former is 1 and the latter is 2.
pub(crate) struct Row {
    names: Vec<String>,
}

impl Row {
    /// Builds one of `nodes`. None, loudly, without the privilege; a panic where it is required.
    pub(crate) fn of(nodes: usize) -> Option<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = |node| format!("vantage-{}-{number}-{node}", std::process::id());
        // Made before the first command, so that a row that fails half-way is removed, too.
        let row = Self { names: (0..nodes).map(name).collect() };
        if !ip(&["netns", "add", &row.names[0]]) {
            privilege::skipped("root, to make network namespaces");
            return None;
        }
        for name in &row.names[1..] {
            assert!(ip(&["netns", "add", name]));
        }
        for node in 0..nodes {
            row.exec(node, "ip link set lo up");
            // The kernel's limits on ICMP errors look like loss.
            row.exec(
                node,
                "sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv4.icmp_msgs_per_sec=1000000 net.ipv4.icmp_msgs_burst=100000 net.ipv6.icmp.ratelimit=0 \
                 net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0",
            );
        }
        for near in 0..nodes - 1 {
            let (a, b) = (&row.names[near], &row.names[near + 1]);
            assert!(ip(&["link", "add", "name", "right", "netns", a, "type", "veth", "peer", "name", "left", "netns", b]));
            for (node, link, last) in [(near, "right", 1), (near + 1, "left", 2)] {
                row.exec(node, &format!("ip addr add 10.9.{near}.{last}/24 dev {link}"));
                row.exec(node, &format!("ip addr add fd09:{near}::{last}/64 dev {link} nodad"));
                row.exec(node, &format!("ip link set {link} up"));
            }
        }
        // Only now: an address that goes up later takes its routes with it.
        for node in 0..nodes {
            if node + 1 < nodes {
                row.exec(node, &format!("ip route add default via 10.9.{node}.2"));
                row.exec(node, &format!("ip route add default via fd09:{node}::2"));
            }
            for behind in 0..node.saturating_sub(1) {
                row.exec(node, &format!("ip route add 10.9.{behind}.0/24 via 10.9.{}.1", node - 1));
                row.exec(node, &format!("ip route add fd09:{behind}::/64 via fd09:{}::1", node - 1));
            }
        }
        // A link that has just come up loses its first packets: wait for an answer from the far end, by somebody else's means.
        for target in row.target() {
            row.exec(0, &format!("ping -q -c 1 -w 10 {target}"));
        }
        Some(row)
    }

    /// The target's addresses, of IPv4 and IPv6.
    pub(crate) fn target(&self) -> [String; 2] {
        let link = self.names.len() - 2;
        [format!("10.9.{link}.2"), format!("fd09:{link}::2")]
    }

    /// Runs a command line in the namespace of a node; its words are separated by blanks.
    pub(crate) fn exec(&self, node: usize, line: &str) -> String {
        let output = Command::new("ip").args(["netns", "exec", &self.names[node]]).args(line.split_whitespace()).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a test inside the namespace of a node, on a thread and a runtime of its own: the sockets it opens belong there.
    pub(crate) fn inside<T: Send>(&self, node: usize, test: impl AsyncFnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter(node);
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into the namespace of a node.
    pub(crate) fn enter(&self, node: usize) {
        enter(&self.names[node]);
    }

    /// The name of a node's namespace.
    pub(crate) fn name(&self, node: usize) -> &str {
        &self.names[node]
    }
}

/// Removes what test programs that were killed have left: another with the same process id would find its names taken.
fn sweep() {
    let names = std::fs::read_dir("/run/netns").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    for name in names {
        let process = name.strip_prefix("vantage-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if process.is_some_and(|process| process == std::process::id() || !Path::new(&format!("/proc/{process}")).exists()) {
            ip(&["netns", "del", &name]);
        }
    }
}

/// Moves the calling thread into a namespace.
pub(crate) fn enter(name: &str) {
    setns(File::open(format!("/run/netns/{name}")).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
}

impl Drop for Row {
    fn drop(&mut self) {
        for name in &self.names {
            ip(&["netns", "del", name]);
        }
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).output().is_ok_and(|output| output.status.success())
}
