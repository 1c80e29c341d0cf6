//! What is this machine's own among the addresses.

use std::{
    collections::HashSet,
    fs, io,
    net::{IpAddr, Ipv4Addr, UdpSocket},
};

use nix::ifaddrs::getifaddrs;

/// Whether packets to the address stay on this machine: those of its interfaces, all of 127.0.0.0/8, and what routes say is local
/// besides. Asked of the kernel each time, for addresses come and go.
pub fn is_local(address: IpAddr) -> bool {
    if address.is_loopback() {
        return true;
    }
    if may_bind_any(address) {
        return addresses().is_ok_and(|own| own.contains(&address));
    }
    // Only what is local can be bound to.
    UdpSocket::bind((address, 0)).is_ok()
}

/// Whether this machine is set up to bind to addresses that it does not have.
fn may_bind_any(address: IpAddr) -> bool {
    let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
    fs::read_to_string(format!("/proc/sys/net/{family}/ip_nonlocal_bind")).is_ok_and(|value| value.trim() != "0")
}

fn addresses() -> io::Result<HashSet<IpAddr>> {
    let storage = getifaddrs()?.filter_map(|interface| interface.address);
    let address = |storage: nix::sys::socket::SockaddrStorage| {
        let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    };
    Ok(storage.filter_map(address).collect())
}

/// The directed broadcast addresses of this machine's networks (RFC 919): as the interfaces have them, and as the prefixes say.
pub fn broadcasts() -> io::Result<HashSet<Ipv4Addr>> {
    let v4 = |storage: Option<nix::sys::socket::SockaddrStorage>| Some(storage?.as_sockaddr_in()?.ip());
    let mut found = HashSet::new();
    for interface in getifaddrs()? {
        let (address, mask, told) = (v4(interface.address), v4(interface.netmask), v4(interface.broadcast));
        if let (Some(address), Some(mask)) = (address, mask) {
            found.extend(directed(address, mask));
            // An interface that has none tells its own address.
            found.extend(told.filter(|told| *told != address && !told.is_unspecified() && !told.is_loopback()));
        }
    }
    Ok(found)
}

/// The last address of a network; none of one that has no more than two (RFC 3021), or that is not shared with anybody.
fn directed(address: Ipv4Addr, mask: Ipv4Addr) -> Option<Ipv4Addr> {
    let hosts = !mask.to_bits();
    (hosts > 1 && !address.is_loopback()).then(|| Ipv4Addr::from_bits(address.to_bits() | hosts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_local_in_all_its_length_and_documentation_is_not() {
        for local in ["127.0.0.1", "127.9.8.7", "::1"] {
            assert!(is_local(local.parse().unwrap()), "{local}");
        }
        for other in ["192.0.2.1", "2001:db8::1"] {
            assert!(!is_local(other.parse().unwrap()), "{other}");
        }
        assert!(addresses().unwrap().iter().all(|address| address.is_unspecified() || is_local(*address) || address.is_ipv6()));
    }

    #[test]
    fn a_network_of_more_than_two_has_a_broadcast_address() {
        let of = |address: &str, mask: &str| directed(address.parse().unwrap(), mask.parse().unwrap());
        assert_eq!(of("192.0.2.77", "255.255.255.0"), Some(Ipv4Addr::new(192, 0, 2, 255)));
        assert_eq!(of("10.1.2.3", "255.255.252.0"), Some(Ipv4Addr::new(10, 1, 3, 255)));
        assert_eq!(of("192.0.2.4", "255.255.255.254"), None);
        assert_eq!(of("192.0.2.4", "255.255.255.255"), None);
        assert_eq!(of("127.0.0.1", "255.0.0.0"), None);
        assert!(broadcasts().is_ok());
    }
}
