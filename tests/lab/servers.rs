//! Real servers, from Debian's packages, each at an address of its own on loopback.

use std::{
    fs,
    net::{SocketAddr, TcpStream, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{monitor::PATIENCE, privilege};

/// A server that runs. It is killed when this is dropped.
pub(crate) struct Server {
    child: Child,
    folder: TempDir,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM first: nginx's workers end with their master, not without it.
        let id = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM);
        let deadline = now() + Duration::from_secs(5);
        while matches!(self.child.try_wait(), Ok(None)) && now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn now() -> Instant {
    vantage_daemon::clock::monotonic().into_std()
}

impl Server {
    /// A file that the server was given.
    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// nginx: 200 on `/`, 500 on `/broken`, 204 on `/empty`, a redirect to `/` on `/moved`, `/private` for user joe with password "lab" alone, and
    /// a page of JSON of 2000-01-01 on `/page.json`, which it compresses for those who ask; with TLS where `certificate` (chain and key, PEM) is
    /// given.
    pub(crate) fn nginx(certificate: Option<(&str, &str)>) -> Option<Self> {
        let (folder, address) = (tempfile::tempdir().unwrap(), super::place::own());
        let path = folder.path().display();
        let tls = certificate.map(|(chain, key)| {
            fs::write(folder.path().join("chain.pem"), chain).unwrap();
            fs::write(folder.path().join("key.pem"), key).unwrap();
            format!("ssl_certificate {path}/chain.pem; ssl_certificate_key {path}/key.pem;")
        });
        fs::write(folder.path().join("index.html"), "private").unwrap();
        // User joe, password "lab".
        fs::write(folder.path().join("users"), "joe:{PLAIN}lab\n").unwrap();
        let listen = if tls.is_some() { "ssl http2" } else { "" };
        let configuration = format!(
            "daemon off; master_process off; pid {path}/pid; error_log {path}/error.log;
            events {{}}
            http {{
                access_log off;
                client_body_temp_path {path}/body; proxy_temp_path {path}/proxy; fastcgi_temp_path {path}/fastcgi;
                uwsgi_temp_path {path}/uwsgi; scgi_temp_path {path}/scgi;
                server {{
                    listen {address} {listen}; {tls}
                    location = / {{ default_type text/plain; return 200 'all is well'; }}
                    location = /broken {{ return 500; }}
                    location = /moved {{ return 302 /; }}
                    location = /private {{ auth_basic lab; auth_basic_user_file {path}/users; try_files /index.html =404; root {path}; }}
                    location = /empty {{ return 204; }}
                    location = /page.json {{ root {path}; gzip on; gzip_types *; gzip_min_length 1; }}
                }}
            }}",
            tls = tls.unwrap_or_default(),
        );
        let page = write(folder.path(), "page.json", &format!("{{\"nodes\": [{}]}}", ["{\"up\": true}"; 100].join(", ")));
        let of_2000 = std::time::UNIX_EPOCH + Duration::from_secs(946_684_800);
        fs::File::options().write(true).open(page).unwrap().set_modified(of_2000).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let file = write(folder.path(), "nginx.conf", &configuration);
        let error_log = format!("{path}/error.log");
        Self::start("nginx", &["-e", &error_log, "-c", &file], folder, address, tcp_answers)
    }

    /// lighttpd: `/` for those alone who answer a digest challenge with this algorithm.
    pub(crate) fn lighttpd(algorithm: &str, user: &str, password: &str) -> Option<Self> {
        let (folder, address) = (tempfile::tempdir().unwrap(), super::place::own());
        let (path, host, port) = (folder.path().display(), address.ip(), address.port());
        fs::write(folder.path().join("index.html"), "private").unwrap();
        fs::write(folder.path().join("users"), format!("{user}:{password}\n")).unwrap();
        let configuration = format!(
            "server.modules = (\"mod_auth\", \"mod_authn_file\")
            server.document-root = \"{path}\"
            server.bind = \"{host}\"
            server.port = {port}
            index-file.names = (\"index.html\")
            auth.backend = \"plain\"
            auth.backend.plain.userfile = \"{path}/users\"
            auth.require = (\"/\" => (\"method\" => \"digest\", \"realm\" => \"the lab\", \"require\" => \"valid-user\", \"algorithm\" => \"{algorithm}\"))
            "
        );
        let file = write(folder.path(), "lighttpd.conf", &configuration);
        Self::start("lighttpd", &["-D", "-f", &file], folder, address, tcp_answers)
    }

    /// squid: CONNECT to any port of this process's own address and of 127.0.0.1, to nobody else.
    pub(crate) fn squid() -> Option<Self> {
        let (folder, address) = (tempfile::tempdir().unwrap(), super::place::own());
        let (path, host) = (folder.path().display(), address.ip());
        // It gives up its rights where it is started with them.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let configuration = format!(
            "http_port {address}
            pid_filename none
            cache_log {path}/cache.log
            access_log none
            cache deny all
            cache_mem 8 MB
            netdb_filename none
            pinger_enable off
            shutdown_lifetime 0 seconds
            acl lab dst {host} 127.0.0.1
            http_access allow lab
            http_access deny all
            "
        );
        let file = write(folder.path(), "squid.conf", &configuration);
        Self::start("squid", &["-N", "-f", &file], folder, address, tcp_answers)
    }

    /// microsocks: SOCKS 5 for this user and password.
    pub(crate) fn microsocks(user: &str, password: &str) -> Option<Self> {
        let (folder, address) = (tempfile::tempdir().unwrap(), super::place::own());
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        Self::start("microsocks", &["-i", &host, "-p", &port, "-u", user, "-P", password], folder, address, tcp_answers)
    }

    /// unbound: `web.lab.` is 192.0.2.80, `here.lab.` is where all servers of this process listen, and there are no other names in `lab.`.
    pub(crate) fn unbound() -> Option<Self> {
        let (folder, address) = (tempfile::tempdir().unwrap(), super::place::own());
        let (path, host, port) = (folder.path().display(), address.ip(), address.port());
        let configuration = format!(
            "server:
                directory: \"{path}\"
                pidfile: \"{path}/pid\"
                chroot: \"\"
                username: \"\"
                use-syslog: no
                do-daemonize: no
                interface: {host}@{port}
                access-control: 127.0.0.0/8 allow
                num-threads: 1
                module-config: \"iterator\"
                local-zone: \"lab.\" static
                local-data: \"lab. 60 IN SOA ns.lab. admin.lab. 2026112201 3600 600 86400 60\"
                local-data: \"web.lab. 60 IN A 192.0.2.80\"
                local-data: \"here.lab. 60 IN A {host}\"
            remote-control:
                control-enable: no
            "
        );
        let file = write(folder.path(), "unbound.conf", &configuration);
        Self::start("unbound", &["-d", "-c", &file], folder, address, tcp_answers)
    }

    /// chronyd, which leaves this machine's clock alone (so anybody may run it): in step with itself at stratum 3, or not synchronized at all.
    pub(crate) fn chronyd(synchronized: bool) -> Option<Self> {
        let (folder, address) = (tempfile::tempdir().unwrap(), super::place::own());
        let (path, host, port) = (folder.path().display(), address.ip(), address.port());
        let local = if synchronized { "local stratum 3" } else { "" };
        let configuration =
            format!("port {port}\nbindaddress {host}\nallow 127.0.0.0/8\ncmdport 0\npidfile {path}/pid\nbindcmdaddress /\n{local}\n");
        let file = write(folder.path(), "chrony.conf", &configuration);
        Self::start("chronyd", &["-4", "-x", "-d", "-U", "-u", "root", "-f", &file], folder, address, ntp_answers)
    }

    /// chronyd, in step with another server, and telling what it makes of it ([`tracking`](Self::tracking)).
    pub(crate) fn chronyd_behind(source: SocketAddr) -> Option<Self> {
        let (folder, address) = (tempfile::tempdir().unwrap(), super::place::own());
        let (path, host, port) = (folder.path().display(), address.ip(), address.port());
        // chronyd wants the folder of its command socket to be nobody else's.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let configuration = format!(
            "server {} port {} iburst minpoll -4 maxpoll -4\nport {port}\nbindaddress {host}\nallow 127.0.0.0/8\ncmdport 0\n\
             pidfile {path}/pid\nbindcmdaddress {path}/command\n",
            source.ip(),
            source.port()
        );
        let file = write(folder.path(), "chrony.conf", &configuration);
        let server = Self::start("chronyd", &["-4", "-x", "-d", "-U", "-u", "root", "-f", &file], folder, address, ntp_answers)?;
        let deadline = now() + PATIENCE;
        // Not synchronized yet: no stratum.
        while server.tracking().stratum == 0 {
            assert!(now() < deadline, "chronyd is not in step: {}", fs::read_to_string(server.file("log")).unwrap());
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(server)
    }

    /// What chronyd says of itself.
    pub(crate) fn tracking(&self) -> Tracking {
        let output = Command::new("chronyc").args(["-h", &self.file("command"), "-n", "-c", "tracking"]).output().unwrap();
        let line = String::from_utf8(output.stdout).unwrap();
        let column = |number: usize| line.trim().split(',').nth(number).and_then(|value| value.parse::<f64>().ok()).unwrap_or_default();
        Tracking { stratum: column(2) as u32, root_delay: column(10), root_dispersion: column(11) }
    }

    pub(super) fn start(
        program: &str,
        arguments: &[&str],
        folder: TempDir,
        address: SocketAddr,
        answers: fn(SocketAddr) -> bool,
    ) -> Option<Self> {
        let Some(path) = installed(program) else {
            privilege::skipped(&format!("{program} from Debian's packages"));
            return None;
        };
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(path).args(arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut server = Self { child, folder, address };
        let deadline = now() + PATIENCE;
        while !answers(address) {
            if let Some(status) = server.child.try_wait().unwrap() {
                panic!("{program} ended with {status}: {}", fs::read_to_string(server.file("log")).unwrap());
            }
            assert!(now() < deadline, "{program} does not answer: {}", fs::read_to_string(server.file("log")).unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(server)
    }
}

/// Where a program is, if it is.
pub(super) fn installed(program: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/usr/bin"].map(|place| Path::new(place).join(program)).into_iter().find(|path| path.exists())
}

/// What chronyd says of itself, in seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tracking {
    pub(crate) stratum: u32,
    pub(crate) root_delay: f64,
    pub(crate) root_dispersion: f64,
}

/// By how much this machine's clock is behind a server's, in seconds, as chronyd measures it; it leaves the clock alone.
pub(crate) fn chronyd_measures(server: SocketAddr) -> Option<f64> {
    if !Path::new("/usr/sbin/chronyd").exists() {
        privilege::skipped("chronyd from Debian's packages");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let source = format!("server {} port {} iburst minpoll -4 maxpoll -4", server.ip(), server.port());
    let pid = format!("pidfile {}/pid", folder.path().display());
    let output = Command::new("/usr/sbin/chronyd")
        .args(["-Q", "-t", "20", "-f", "/dev/null", "-U", "-u", "root", &source, &pid, "cmdport 0", "bindcmdaddress /"])
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    let wrong = said.split_once("System clock wrong by ").unwrap_or_else(|| panic!("{said}")).1;
    Some(wrong.split(' ').next().unwrap().parse().unwrap())
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    super::process::write(folder, name, text)
}

pub(super) fn tcp_answers(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok()
}

fn ntp_answers(address: SocketAddr) -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut request = [0; 48];
    request[0] = 0x23;
    socket.send_to(&request, address).is_ok() && socket.recv(&mut [0; 128]).is_ok()
}
