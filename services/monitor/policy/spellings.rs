//! The IPv4 addresses behind IPv6 ones: where somebody on the way may translate or unpack a packet, it goes there in the end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;

/// The IPv4 addresses that an IPv6 address may lead to. `nat64`: prefixes of translators of the user's own.
///
/// - NAT64 with the well-known prefix 64:ff9b::/96 (RFC 6052), the local-use prefix 64:ff9b:1::/48 (RFC 8215; each of the prefix lengths of
///   RFC 6052 that lie within), and the user's;
/// - 6to4, 2002::/16 (RFC 3056); Teredo, 2001::/32: its server, and the client in its obfuscated form (RFC 4380);
/// - ISATAP, an interface identifier of ::0:5efe:a.b.c.d or ::200:5efe:a.b.c.d (RFC 5214);
/// - IPv4-mapped and IPv4-compatible (RFC 4291 section 2.5.5; `::` and `::1` are none), IPv4-translated ::ffff:0:a.b.c.d (RFC 2765).
pub(super) fn embedded(address: IpAddr, nat64: &[Ipv6Net]) -> Vec<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return Vec::new() };
    let bytes = address.octets();
    let at = |start: usize| Ipv4Addr::from([bytes[start], bytes[start + 1], bytes[start + 2], bytes[start + 3]]);
    let mut found = match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => vec![at(12)],
        [0, 0, 0, 0, 0, 0, high, _] if high != 0 => vec![at(12)],
        [0x2002, ..] => vec![at(2)],
        [0x2001, 0, ..] => vec![at(4), Ipv4Addr::from_bits(!at(12).to_bits())],
        [0x64, 0xff9b, 1, ..] => [48, 56, 64, 96].into_iter().filter_map(|length| translated(address, length)).collect(),
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => vec![at(12)],
        _ => Vec::new(),
    };
    found.extend(nat64.iter().filter(|prefix| prefix.contains(&address)).filter_map(|prefix| translated(address, prefix.prefix_len())));
    found
}

/// The prefix lengths that RFC 6052 section 2.2 knows.
pub(super) const NAT64_LENGTHS: [u8; 6] = [32, 40, 48, 56, 64, 96];

/// The address that a translator with a prefix of this length reads (RFC 6052 section 2.2): the bits after the prefix, but for those of
/// the octet `u`, 64 to 71, which are zero. None where that can't be: no translator sends to 0.0.0.0/8, and to take every zero for an
/// address would deny all of the prefix.
fn translated(address: Ipv6Addr, length: u8) -> Option<Ipv4Addr> {
    let bits = address.to_bits();
    let (before, after) = (bits >> 64, bits & (u128::MAX >> 64));
    let v4 = match length {
        96 => bits & 0xffff_ffff,
        32..=64 if after >> 56 == 0 => {
            // What is left of the first half, and then of the second, without `u`.
            let first = u32::from(64 - length);
            let high = before & ((1 << first) - 1);
            let low = (after << 8 >> (64 - (32 - first).min(64))) & ((1 << (32 - first)) - 1);
            high << (32 - first) | low
        }
        _ => return None,
    };
    u32::try_from(v4).ok().map(Ipv4Addr::from_bits).filter(|v4| v4.octets()[0] != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(address: &str, nat64: &[&str]) -> Vec<String> {
        let nat64: Vec<_> = nat64.iter().map(|prefix| prefix.parse().unwrap()).collect();
        embedded(address.parse().unwrap(), &nat64).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_way_to_carry_an_ipv4_address_is_known() {
        for (address, v4) in [
            ("64:ff9b::192.0.2.33", "192.0.2.33"),
            ("::ffff:192.0.2.33", "192.0.2.33"),
            ("::ffff:0:192.0.2.33", "192.0.2.33"),
            ("::192.0.2.33", "192.0.2.33"),
            ("2002:c000:221::1", "192.0.2.33"),
            ("2001:db8::5efe:192.0.2.33", "192.0.2.33"),
            ("fe80::200:5efe:192.0.2.33", "192.0.2.33"),
            ("64:ff9b:1::192.0.2.33", "192.0.2.33"),
            ("64:ff9b:1:c000:2:2100::", "192.0.2.33"),
        ] {
            assert!(of(address, &[]).contains(&v4.to_owned()), "{address}: {:?}", of(address, &[]));
        }
        // RFC 4380 section 4: the client of 192.0.2.45 behind the server 65.54.227.120.
        assert_eq!(of("2001:0:4136:e378:8000:63bf:3fff:fdd2", &[]), ["65.54.227.120", "192.0.2.45"]);
        for none in ["::", "::1", "2001:db8::1", "fd00::1", "192.0.2.33"] {
            assert!(of(none, &[]).is_empty(), "{none}");
        }
    }

    #[test]
    fn the_table_of_rfc_6052_is_read() {
        for (prefix, address) in [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
        ] {
            assert_eq!(of(address, &[prefix]), ["192.0.2.33"], "{prefix}");
            assert!(of(address, &[]).is_empty(), "{address}");
        }
    }
}
