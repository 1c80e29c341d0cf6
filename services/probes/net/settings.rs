//! The system's resolver settings: resolv.conf and the hosts file, read again when they change.

use std::{
    fs,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use hickory_proto::rr::Name;
use hickory_resolver::{Hosts, system_conf::parse_resolv_conf};
use nix::net::if_::if_nametoindex;

/// How many servers are asked, as in the C library (MAXNS).
const MAX_SERVERS: usize = 3;

/// Whom to ask, and how (resolv.conf(5)).
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The servers, in the order of asking; at least one.
    pub(crate) servers: Vec<SocketAddr>,
    /// How often each is asked; at least once.
    pub(crate) attempts: usize,
    /// The longest wait before asking again or elsewhere.
    pub(crate) timeout: Duration,
    /// EDNS payload size, if there is to be EDNS.
    pub(crate) edns_size: Option<u16>,
    search: Vec<Name>,
    ndots: usize,
}

impl Settings {
    /// One server, asked for names as they stand.
    pub(crate) fn of_server(server: SocketAddr) -> Self {
        Self { servers: vec![server], attempts: 2, timeout: Duration::from_secs(5), edns_size: None, search: Vec::new(), ndots: 1 }
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let (config, options) = parse_resolv_conf(text).map_err(|error| error.to_string())?;
        let servers = config.name_servers().iter().take(MAX_SERVERS).map(|server| with_scope(server.ip, text)).collect();
        let mut search = config.search().to_vec();
        if search.is_empty() {
            search.extend(config.domain().cloned());
        }
        Ok(Self {
            servers,
            attempts: options.attempts.clamp(1, 5),
            timeout: options.timeout.clamp(Duration::from_millis(100), Duration::from_secs(30)),
            edns_size: options.edns0.then_some(1232),
            search,
            ndots: options.ndots,
        })
    }

    /// The names to ask for, in order: with the search domains before it where it has fewer dots than `ndots`, after it otherwise. A name
    /// with a final dot is asked for as it stands.
    pub(crate) fn candidates(&self, name: &Name) -> Vec<Name> {
        let mut itself = name.clone();
        itself.set_fqdn(true);
        if name.is_fqdn() {
            return vec![itself];
        }
        let dots = name.iter().count().saturating_sub(1);
        let mut found: Vec<_> = self
            .search
            .iter()
            .filter_map(|domain| name.clone().append_domain(domain).ok())
            .map(|mut name| {
                name.set_fqdn(true);
                name
            })
            .collect();
        found.retain(|candidate| *candidate != itself);
        if dots >= self.ndots {
            found.insert(0, itself)
        } else {
            found.push(itself)
        }
        found
    }
}

/// The server at port 53. A link-local address needs the interface that resolv.conf names after a "%" (RFC 4007) and hickory leaves out.
fn with_scope(server: IpAddr, text: &[u8]) -> SocketAddr {
    let IpAddr::V6(address) = server else { return SocketAddr::new(server, 53) };
    let interface = text.split(|byte| *byte == b'\n').find_map(|line| {
        let mut words = std::str::from_utf8(line).ok()?.split_whitespace();
        let (written, interface) = words.nth(1).filter(|_| line.trim_ascii_start().starts_with(b"nameserver"))?.split_once('%')?;
        (written.parse() == Ok(address)).then_some(interface)
    });
    let index = interface.and_then(|name| name.parse().or_else(|_| if_nametoindex(name)).ok());
    SocketAddrV6::new(address, 53, 0, index.unwrap_or_default()).into()
}

/// The files, and what they said when they were last read.
pub(crate) struct System {
    resolv_conf: File<Result<Arc<Settings>, String>>,
    hosts: File<Option<Arc<Hosts>>>,
}

impl System {
    pub(crate) fn new(resolv_conf: PathBuf, hosts: PathBuf) -> Self {
        Self { resolv_conf: File::new(resolv_conf), hosts: File::new(hosts) }
    }

    /// The settings, or in one sentence why there are none.
    pub(crate) fn settings(&self) -> Result<Arc<Settings>, String> {
        self.resolv_conf.current(|path| {
            let text = fs::read(path).map_err(|error| format!("read {}: {}", path.display(), error.kind()))?;
            Settings::parse(&text).map(Arc::new).map_err(|error| format!("{}: {error}", path.display()))
        })
    }

    /// The hosts file; none where it can't be read, which is as good as empty.
    pub(crate) fn hosts(&self) -> Option<Arc<Hosts>> {
        self.hosts.current(|path| {
            let mut hosts = Hosts::default();
            hosts.read_hosts_conf(fs::File::open(path).ok()?).ok()?;
            Some(Arc::new(hosts))
        })
    }
}

/// A small file that is read again when it changes. Looking whether it did is one `stat`, without the disk.
struct File<T> {
    path: PathBuf,
    known: Mutex<Option<(Option<Stamp>, T)>>,
}

type Stamp = (SystemTime, u64);

impl<T: Clone> File<T> {
    fn new(path: PathBuf) -> Self {
        Self { path, known: Mutex::new(None) }
    }

    fn current(&self, read: impl FnOnce(&Path) -> T) -> T {
        let stamp = fs::metadata(&self.path).and_then(|found| Ok((found.modified()?, found.len()))).ok();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((at, value)) if *at == stamp => value.clone(),
            _ => {
                let value = read(&self.path);
                *known = Some((stamp, value.clone()));
                value
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(resolv_conf: &str, name: &str) -> Vec<String> {
        let settings = Settings::parse(resolv_conf.as_bytes()).unwrap();
        settings.candidates(&Name::from_ascii(name).unwrap()).iter().map(Name::to_ascii).collect()
    }

    #[test]
    fn search_domains_come_before_a_short_name_and_after_a_long_one() {
        let conf = "nameserver 192.0.2.53\nsearch a.test b.test\noptions ndots:2";
        assert_eq!(candidates(conf, "www"), ["www.a.test.", "www.b.test.", "www."]);
        assert_eq!(candidates(conf, "www.x"), ["www.x.a.test.", "www.x.b.test.", "www.x."]);
        assert_eq!(candidates(conf, "www.x.y"), ["www.x.y.", "www.x.y.a.test.", "www.x.y.b.test."]);
        assert_eq!(candidates(conf, "www.x."), ["www.x."]);
    }

    #[test]
    fn a_link_local_server_keeps_its_interface() {
        let settings = Settings::parse(b"nameserver 2001:db8::1\n nameserver fe80::1%lo # home\nnameserver fe80::2%7\n").unwrap();
        let scopes: Vec<_> =
            settings.servers.iter().map(|server| if let SocketAddr::V6(server) = server { server.scope_id() } else { 0 }).collect();
        assert_eq!(scopes, [0, if_nametoindex("lo").unwrap(), 7]);
    }

    #[test]
    fn settings_follow_their_file() {
        let directory = std::env::temp_dir().join(format!("vantage-settings-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("resolv.conf");
        let system = System::new(path.clone(), directory.join("hosts"));
        assert!(system.settings().unwrap_err().contains("resolv.conf"));
        fs::write(&path, "nameserver 192.0.2.53").unwrap();
        assert_eq!(system.settings().unwrap().servers, ["192.0.2.53:53".parse().unwrap()]);
        fs::write(&path, "nameserver 192.0.2.53\nnameserver 2001:db8::53").unwrap();
        assert_eq!(system.settings().unwrap().servers.len(), 2);
        fs::write(&path, "# nothing").unwrap();
        assert!(system.settings().unwrap_err().contains("no nameservers found"));
        assert!(system.hosts().is_none());
        fs::remove_dir_all(&directory).unwrap();
    }
}
