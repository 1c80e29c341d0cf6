//! Two namespaces with some distance between: a third one carries each frame from one to the other, so much later. The kernel's own delays
//! (`tc netem`) are a module that few machines have.

use std::{
    io::Read as _,
    os::fd::AsRawFd,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use nix::sys::socket::AddressFamily;
use socket2::{Domain, Protocol, Socket, Type};

use super::{netns, privilege};

/// Every frame, whatever its protocol (packet(7)).
const ALL: u16 = 0x0003;

/// A near and a far end. It is gone when this is dropped.
pub(crate) struct Distance {
    names: [String; 3],
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// The address of the far end.
pub(crate) const FAR: &str = "10.8.0.2";

impl Distance {
    /// Two ends between which a packet takes so long, one way. None, loudly, without the privilege or the tools.
    pub(crate) fn of(one_way: Duration) -> Option<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let names = ["near", "link", "far"].map(|node| format!("vantage-{}-d{number}-{node}", std::process::id()));
        let mut distance = Self { names, stop: Arc::default(), threads: Vec::new() };
        if !succeeds("ethtool", &["--version"]) {
            privilege::skipped("ethtool from Debian's packages");
            return None;
        }
        if !succeeds("ip", &["netns", "add", &distance.names[0]]) {
            privilege::skipped("root, to make network namespaces");
            return None;
        }
        let [near, link, far] = &distance.names;
        assert!(succeeds("ip", &["netns", "add", link]) && succeeds("ip", &["netns", "add", far]));
        // What goes over the link must be whole: no sum left to be made later, no segment longer than a frame.
        exec(link, "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
        for (end, name, address) in [(near, "near", "10.8.0.1/24"), (far, "far", "10.8.0.2/24")] {
            assert!(succeeds("ip", &["link", "add", "name", "out", "netns", end, "type", "veth", "peer", "name", name, "netns", link]));
            exec(end, "sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
            exec(end, "ethtool -K out tx off sg off tso off gso off gro off");
            exec(end, &format!("ip addr add {address} dev out"));
            exec(end, "ip link set lo up");
            exec(end, "ip link set out up");
            exec(link, &format!("ip link set {name} up"));
        }
        for (from, to) in [("near", "far"), ("far", "near")] {
            let (name, stop) = (distance.names[1].clone(), distance.stop.clone());
            distance.threads.push(std::thread::spawn(move || {
                netns::enter(&name);
                carry(tap(from), tap(to), one_way, &stop);
            }));
        }
        exec(&distance.names[0], &format!("ping -q -c 1 -w 10 {FAR}"));
        Some(distance)
    }

    /// The namespace of the near end.
    pub(crate) fn near(&self) -> &str {
        &self.names[0]
    }

    /// The namespace of the far end.
    pub(crate) fn far(&self) -> &str {
        &self.names[2]
    }
}

impl Drop for Distance {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        for name in &self.names {
            succeeds("ip", &["netns", "del", name]);
        }
    }
}

/// Carries frames from one link to another, each so much later, until it is told to stop.
fn carry(from: Socket, to: Socket, one_way: Duration, stop: &AtomicBool) {
    from.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let now = || vantage_daemon::clock::monotonic().into_std();
    let (late, due) = mpsc::channel::<(std::time::Instant, Vec<u8>)>();
    let sending = std::thread::spawn(move || {
        while let Ok((at, frame)) = due.recv() {
            std::thread::sleep(at.saturating_duration_since(now()));
            let _ = to.send(&frame);
        }
    });
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        if let Ok(length) = (&from).read(&mut buffer) {
            late.send((now() + one_way, buffer[..length].to_vec())).unwrap();
        }
    }
    drop(late);
    sending.join().unwrap();
}

/// A socket that sees and sends whole frames on one link.
fn tap(link: &str) -> Socket {
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(ALL.to_be())))).unwrap();
    let address = nix::ifaddrs::getifaddrs().unwrap().filter(|address| address.interface_name == link).find_map(|address| {
        address.address.filter(|address| nix::sys::socket::SockaddrLike::family(address) == Some(AddressFamily::Packet))
    });
    nix::sys::socket::bind(socket.as_raw_fd(), address.unwrap().as_link_addr().unwrap()).unwrap();
    socket
}

fn exec(name: &str, line: &str) {
    let output = Command::new("ip").args(["netns", "exec", name]).args(line.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}
