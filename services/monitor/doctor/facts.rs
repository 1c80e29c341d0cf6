//! Facts about this machine that probes depend on. Gathering them sends no packet.

use std::{
    fs,
    net::{Ipv6Addr, UdpSocket},
};

use vantage_probes::net::capability::echo_capability;

/// What was found.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Datagram echo sockets, of IPv4 and IPv6.
    pub(super) datagram: [bool; 2],
    /// Raw echo sockets, of IPv4 and IPv6.
    pub(super) raw: [bool; 2],
    /// Whether there is a route to the world over IPv6.
    pub(super) ipv6_route: bool,
    /// The servers that /etc/resolv.conf names.
    pub(super) name_servers: Vec<String>,
    /// How many descriptors this process may have open.
    pub(super) open_files: Option<u64>,
    /// net.core.rmem_max, in bytes.
    pub(super) receive_buffer: Option<u64>,
    /// What the kernel reads the time from.
    pub(super) clock_source: Option<String>,
}

impl Facts {
    /// Looks around.
    pub(super) fn gather() -> Self {
        let echo = echo_capability();
        Self {
            datagram: [echo.datagram_v4, echo.datagram_v6],
            raw: [echo.raw_v4, echo.raw_v6],
            ipv6_route: ipv6_route(),
            name_servers: name_servers(&read("/etc/resolv.conf").unwrap_or_default()),
            open_files: read("/proc/self/limits").and_then(|limits| open_files(&limits)),
            receive_buffer: read("/proc/sys/net/core/rmem_max").and_then(|bytes| bytes.trim().parse().ok()),
            clock_source: read("/sys/devices/system/clocksource/clocksource0/current_clocksource").map(|source| source.trim().to_owned()),
        }
    }

    /// Whether targets of IPv4 can be pinged.
    pub(super) fn echo_v4(&self) -> bool {
        self.datagram[0] || self.raw[0]
    }

    /// Whether targets of IPv6 can be pinged.
    pub(super) fn echo_v6(&self) -> bool {
        self.datagram[1] || self.raw[1]
    }

    /// Which echo sockets there are, in words.
    pub(super) fn echo_words(&self) -> String {
        let family = |name, index: usize| match (self.datagram.get(index), self.raw.get(index)) {
            (Some(true), _) => format!("{name} datagram"),
            (_, Some(true)) => format!("{name} raw"),
            _ => format!("{name} none"),
        };
        format!("{}, {}", family("IPv4", 0), family("IPv6", 1))
    }
}

/// Connecting a UDP socket asks the routing table and sends nothing. The address is of the network for documentation, which default
/// routes cover and nobody has (RFC 3849).
fn ipv6_route() -> bool {
    let somewhere = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok_and(|socket| socket.connect((somewhere, 53)).is_ok())
}

fn name_servers(resolv_conf: &str) -> Vec<String> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next().map(str::to_owned)).flatten()
    };
    resolv_conf.lines().filter_map(server).collect()
}

/// The soft limit, of a table as "Max open files   1024   524288   files".
fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files\n";
        assert_eq!(open_files(limits), Some(1024));
        assert_eq!(open_files("Max open files unlimited unlimited files"), Some(u64::MAX));
        assert_eq!(open_files(""), None);
        assert_eq!(name_servers("# nameserver 1.1.1.1\nnameserver 9.9.9.9\nsearch a\nnameserver ::1\n"), ["9.9.9.9", "::1"]);
    }
}
