//! What the operating system lets this process send: for `doctor` and for a monitor that says what it can do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use socket2::Type;

use super::icmp;

/// How echo sockets are allowed, either way.
pub const CURE: &str = "allow datagram ones with `sysctl -w net.ipv4.ping_group_range=\"0 2147483647\"` (it covers IPv6, too), or raw ones \
                        with `setcap cap_net_raw+ep` on this program (CAP_NET_RAW in a container or unit)";

/// Which echo sockets this process may open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EchoCapability {
    /// Datagram echo sockets over IPv4: `net.ipv4.ping_group_range` covers a group of this process.
    pub datagram_v4: bool,
    /// Datagram echo sockets over IPv6: the same setting.
    pub datagram_v6: bool,
    /// Raw sockets over IPv4: CAP_NET_RAW.
    pub raw_v4: bool,
    /// Raw sockets over IPv6: CAP_NET_RAW.
    pub raw_v6: bool,
}

impl EchoCapability {
    /// Whether targets of IPv4 can be pinged.
    pub fn v4(&self) -> bool {
        self.datagram_v4 || self.raw_v4
    }

    /// Whether targets of IPv6 can be pinged.
    pub fn v6(&self) -> bool {
        self.datagram_v6 || self.raw_v6
    }

    /// The command that enables what can't be done: None where IPv4 targets can be pinged. (Where only IPv6 can't, the machine has no
    /// IPv6: the same privileges count for both.)
    pub fn cure(&self) -> Option<&'static str> {
        (!self.v4()).then_some(CURE)
    }

    /// The traceroute methods that work here, as the contract spells them: UDP and TCP need no privilege, ICMP an echo socket.
    pub fn traceroute_methods(&self) -> &'static [&'static str] {
        if self.v4() { &["icmp", "udp", "tcp"] } else { &["udp", "tcp"] }
    }
}

/// Tries each kind of echo socket. Sends nothing.
pub fn echo_capability() -> EchoCapability {
    let may = |target: IpAddr, kind| icmp::open(target, kind).is_ok();
    EchoCapability {
        datagram_v4: may(Ipv4Addr::LOCALHOST.into(), Type::DGRAM),
        datagram_v6: may(Ipv6Addr::LOCALHOST.into(), Type::DGRAM),
        raw_v4: may(Ipv4Addr::LOCALHOST.into(), Type::RAW),
        raw_v6: may(Ipv6Addr::LOCALHOST.into(), Type::RAW),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_echo_sockets_the_cure_is_named_and_two_methods_of_traceroute_are_left() {
        let none = EchoCapability { datagram_v4: false, datagram_v6: false, raw_v4: false, raw_v6: false };
        assert!(none.cure().is_some_and(|cure| cure.contains("ping_group_range") && cure.contains("cap_net_raw")));
        assert_eq!(none.traceroute_methods(), ["udp", "tcp"]);
        let raw = EchoCapability { raw_v4: true, ..none };
        assert_eq!((raw.cure(), raw.traceroute_methods().len()), (None, 3));
    }
}
