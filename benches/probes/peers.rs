//! What the monitor is compared to: bare loops, fping, blackbox_exporter; and the processes that targets live in.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::{
        resource::{UsageWho, getrusage},
        time::TimeValLike as _,
    },
    time::clock_getcpuclockid,
    unistd::Pid,
};
use vantage_monitor::bench::{
    checks, datagram,
    targets::{self, Service},
    window::{Window, line},
};
use vantage_probes::net::bare::{self, Echo, Sockets, Stamps, Tally};

/// How long a bare loop runs: it is even, so that more tells no more.
pub(crate) const BARE: Duration = Duration::from_secs(3);

/// Somebody who does the same.
pub(crate) struct Peer {
    name: String,
    count: u64,
    lost: u64,
    busy: Duration,
}

impl Peer {
    /// Somebody who got so many answers for so much processor time, and waited for others in vain.
    pub(crate) fn new(name: &str, count: u64, lost: u64, busy: Duration) -> Self {
        Self { name: name.to_owned(), count, lost, busy }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// Answers per second of processor time.
    pub(crate) fn rate(&self) -> f64 {
        self.count as f64 / self.busy.as_secs_f64()
    }

    /// Prints it, with what part of it the monitor is.
    pub(crate) fn show(&self, window: &Window) {
        let (ours, unit) = window.figures().rate();
        println!("{}, {} lost; the monitor is {:.2} of it", line(&self.name, self.rate(), unit), self.lost, ours / self.rate());
    }

    /// The bare loop over an echo socket; with the stamps of "arrival" or "both".
    pub(crate) fn bare_echo(targets: &[Ipv4Addr], stamps: &str) -> Self {
        Self::bare(&format!("bare loop, stamps of {stamps}"), &["echo", stamps, &targets.len().to_string()])
    }

    /// The bare loop over UDP sockets: "fresh" ones, "shared" ones or a "kept" one.
    pub(crate) fn bare_udp(server: SocketAddr, name: &str, sockets: &str) -> Self {
        Self::bare(&format!("bare loop, {sockets} sockets"), &["udp", name, &server.to_string(), sockets])
    }

    /// A bare loop, in a process of its own.
    pub(crate) fn bare(name: &str, arguments: &[&str]) -> Self {
        let output = Command::new(std::env::current_exe().unwrap()).arg("child").args(arguments).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut words = text.split_whitespace();
        let style = words.next().unwrap();
        let [sent, count, nanos] = [(); 3].map(|()| words.next().unwrap().parse::<u64>().unwrap());
        Self { name: format!("{name} ({style})"), count, lost: sent - count, busy: Duration::from_nanos(nanos) }
    }

    /// fping's flood: `-q -i 0 -p 10`, its cheapest way; as many as its map of sequences takes (65,535 in 10 s). None where it is not installed.
    pub(crate) fn fping(targets: &[Ipv4Addr], time: Duration) -> Option<Self> {
        let count = (60_000 / targets.len()).max(1);
        let period = if targets.len() > 1000 { (time.as_millis() / count as u128).clamp(100, 1000) } else { 10 };
        Self::run_fping(targets, &["-i", "0", "-p", &period.to_string(), "-c", &count.to_string()])
    }

    /// fping at one a second for each target, its requests spread over the second.
    pub(crate) fn fping_paced(targets: &[Ipv4Addr]) -> Option<Self> {
        let spread = 1000.0 / targets.len() as f64;
        Self::run_fping(targets, &["-i", &format!("{spread:.3}"), "-p", "1000", "-c", &(60_000 / targets.len()).to_string()])
    }

    fn run_fping(targets: &[Ipv4Addr], flags: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("targets");
        fs::write(&file, targets.iter().fold(String::new(), |text, target| text + &format!("{target}\n"))).unwrap();
        let before = children();
        let Ok(output) = Command::new("fping").args(["-q", "-s"]).args(flags).arg("-f").arg(&file).output() else {
            println!("  fping is not installed: not compared");
            return None;
        };
        let busy = children() - before;
        let text = String::from_utf8_lossy(&output.stderr);
        let number = |what: &str| {
            let line = text.lines().find(|line| line.contains(what));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
        };
        let (Some(sent), Some(count)) = (number("ICMP Echos sent"), number("ICMP Echo Replies received")) else {
            println!("  fping {}: {}", flags.join(" "), text.lines().last().unwrap_or_default());
            return None;
        };
        Some(Self { name: format!("fping -q {}", flags.join(" ")), count, lost: sent.saturating_sub(count), busy })
    }

    /// blackbox_exporter's DNS probe.
    pub(crate) fn blackbox_dns(server: SocketAddr) -> Option<Self> {
        let module = "    prober: dns\n    timeout: 2s\n    dns:\n      query_name: www.example.com\n      query_type: A\n      preferred_ip_protocol: ip4\n";
        Self::blackbox(module, &server.to_string(), 2000)
    }

    /// A module of blackbox_exporter, asked so often over one HTTP connection. None where it is not installed.
    pub(crate) fn blackbox(module: &str, target: &str, runs: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("blackbox.yml");
        fs::write(&file, format!("modules:\n  it:\n{module}")).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let started = Command::new("prometheus-blackbox-exporter")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = started else {
            println!("  blackbox_exporter is not installed: not compared");
            return None;
        };
        let child = Killed(child);
        let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(child.0.id()).unwrap())).unwrap();
        let mut stream = loop {
            match TcpStream::connect(address) {
                Ok(stream) => break stream,
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        let request = format!("GET /probe?module=it&target={target} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        let busy = || Duration::from_nanos(u64::try_from(clock.now().unwrap().num_nanoseconds()).unwrap());
        let before = busy();
        let mut count = 0;
        for _ in 0..runs {
            stream.write_all(request.as_bytes()).unwrap();
            count += u64::from(answer(&mut stream).contains("\nprobe_success 1"));
        }
        Some(Self { name: "blackbox_exporter".into(), count, lost: runs - count, busy: busy() - before })
    }
}

/// One answer of an HTTP server that keeps the connection open.
fn answer(stream: &mut TcpStream) -> String {
    let (mut text, mut buffer) = (Vec::new(), [0; 16_384]);
    loop {
        let length = stream.read(&mut buffer).unwrap();
        assert!(length > 0, "the connection was closed");
        text.extend(&buffer[..length]);
        let seen = String::from_utf8_lossy(&text);
        let Some((head, body)) = seen.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
        if length.map_or(body.ends_with("0\r\n\r\n"), |length| body.len() >= length) {
            return seen.into_owned();
        }
    }
}

/// The processor time of all children that have ended.
pub(crate) fn children() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(u64::try_from(micros).unwrap())
}

/// A process that is killed when this is dropped.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // One that has ended already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A target in a process of its own.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    /// The file of the authority that certifies it, where it needs one.
    pub(crate) authority: Option<String>,
    _process: Killed,
}

impl Served {
    /// Web servers let each request wait for `delay`.
    pub(crate) fn start(name: &str, delay: Duration) -> Self {
        let delay = delay.as_millis().to_string();
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.args(["child", "serve", name, &delay]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mut words = line.split_whitespace();
        let address = words.next().unwrap().parse().unwrap();
        Self { address, authority: words.next().map(str::to_owned), _process: Killed(child) }
    }
}

/// What a process of this program does that was started by another.
pub(crate) fn child(arguments: &[String]) {
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let (style, tally) = match words.as_slice() {
        ["serve", name, delay] => {
            let service = match *name {
                "dns" => Service::Dns,
                "ntp" => Service::Ntp,
                "tcp" => Service::Tcp,
                "http" => Service::Http,
                "https" => Service::Https,
                _ => Service::Udp,
            };
            let target = targets::start_slow(service, Duration::from_millis(delay.parse().unwrap())).unwrap();
            println!("{} {}", target.address, target.authority().unwrap_or_default().display());
            loop {
                std::thread::park();
            }
        }
        ["echo", stamps, count] => {
            let echo = Echo::open(if *stamps == "both" { Stamps::Both } else { Stamps::Arrival }).unwrap();
            let tally = echo.run(&checks::addresses(count.parse().unwrap()), BARE).unwrap();
            if *stamps == "both" {
                assert!(tally.stamped_both * 10 > tally.answered * 9, "{tally:?}");
            }
            (echo.style(), tally)
        }
        ["udp", name, server, sockets] => {
            let request = datagram(if *name == "dns" { Service::Dns } else { Service::Udp }).unwrap();
            let server = server.parse().unwrap();
            let sockets = match *sockets {
                "kept" => Sockets::Kept,
                "shared" => Sockets::Shared,
                _ => Sockets::Fresh,
            };
            ("datagram", bare::udp(server, &request, sockets, BARE).unwrap())
        }
        ["web", manner, server, authority] => ("blocking", crate::web::child(manner, server.parse().unwrap(), authority)),
        ["tcp", server] => ("blocking", bare::tcp(server.parse().unwrap(), BARE).unwrap()),
        other => return println!("unknown: {other:?}"),
    };
    let Tally { sent, answered, busy, .. } = tally;
    println!("{style} {sent} {answered} {}", busy.as_nanos());
}
