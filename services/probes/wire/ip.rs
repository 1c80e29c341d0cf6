//! The headers of IPv4 (RFC 791), as raw sockets hand it over with each packet, and of IPv6 (RFC 8200), as errors quote it.

use std::net::{Ipv4Addr, Ipv6Addr};

/// What matters of an IPv4 header, and what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4<'b> {
    /// The hop limit (TTL) with which it arrived.
    pub hop_limit: u8,
    /// The protocol number: 1 is ICMP.
    pub protocol: u8,
    /// Who sent it, by its own account.
    pub source: Ipv4Addr,
    /// To whom.
    pub destination: Ipv4Addr,
    /// What follows the header and its options, as far as it is there, without what is beyond the total length.
    pub payload: &'b [u8],
}

impl<'b> Ipv4<'b> {
    /// Parses a packet that begins with its IPv4 header. None where it is not one: too short, another version, a header length that
    /// leaves no room for the header.
    pub fn parse(packet: &'b [u8]) -> Option<Self> {
        let header = packet.first_chunk::<20>()?;
        let [first, _, length_high, length_low, _, _, _, _, hop_limit, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *header;
        let header_length = usize::from(first & 0x0f) * 4;
        if first >> 4 != 4 || header_length < 20 || header_length > packet.len() {
            return None;
        }
        let total_length = usize::from(u16::from_be_bytes([length_high, length_low])).min(packet.len());
        Some(Self {
            hop_limit,
            protocol,
            source: Ipv4Addr::new(s0, s1, s2, s3),
            destination: Ipv4Addr::new(d0, d1, d2, d3),
            payload: packet.get(header_length..total_length)?,
        })
    }
}

/// What matters of an IPv6 header, and what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6<'b> {
    /// The next header: 58 is ICMPv6.
    pub next_header: u8,
    /// To whom.
    pub destination: Ipv6Addr,
    /// What follows the header, as far as it is there.
    pub payload: &'b [u8],
}

impl<'b> Ipv6<'b> {
    /// Parses what begins with an IPv6 header. None where it is too short for one, or has another version.
    pub fn parse(packet: &'b [u8]) -> Option<Self> {
        let (header, payload) = packet.split_first_chunk::<40>()?;
        let destination: [u8; 16] = header[24..].try_into().ok()?;
        (header[0] >> 4 == 6).then_some(Self { next_header: header[6], destination: destination.into(), payload })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_captured_packet_is_read() {
        let packet = [
            0x45, 0x00, 0x00, 0x1c, 0x4a, 0x3c, 0x00, 0x00, 0x3d, 0x01, 0x00, 0x00, 10, 9, 2, 2, 10, 9, 0, 1, 0, 0, 0xff, 0xff, 0, 0, 0, 0,
            0xee,
        ];
        let ip = Ipv4::parse(&packet).unwrap();
        assert_eq!((ip.hop_limit, ip.protocol), (61, 1));
        assert_eq!((ip.source, ip.destination), (Ipv4Addr::new(10, 9, 2, 2), Ipv4Addr::new(10, 9, 0, 1)));
        assert_eq!(ip.payload, [0, 0, 0xff, 0xff, 0, 0, 0, 0], "what is beyond the total length is not the packet's");
    }

    #[test]
    fn what_is_no_ipv4_packet_is_refused() {
        let mut packet = [0_u8; 24];
        assert_eq!(Ipv4::parse(&packet), None);
        packet[0] = 0x44;
        assert_eq!(Ipv4::parse(&packet), None, "a header length below 20");
        packet[0] = 0x4f;
        assert_eq!(Ipv4::parse(&packet), None, "a header length beyond the packet");
        packet[0] = 0x45;
        packet[3] = 10;
        assert_eq!(Ipv4::parse(&packet), None, "a total length within the header");
    }

    #[test]
    fn an_ipv6_header_is_read_and_nothing_else() {
        let mut packet = [0_u8; 44];
        (packet[0], packet[6], packet[7]) = (0x60, 58, 1);
        packet[24..40].copy_from_slice(&Ipv6Addr::LOCALHOST.octets());
        packet[40] = 128;
        let ip = Ipv6::parse(&packet).unwrap();
        assert_eq!((ip.next_header, ip.destination, ip.payload), (58, Ipv6Addr::LOCALHOST, &[128, 0, 0, 0][..]));
        assert_eq!(Ipv6::parse(&packet[..39]), None);
        packet[0] = 0x45;
        assert_eq!(Ipv6::parse(&packet), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Ipv6::parse(&bytes);
            if let Some(ip) = Ipv4::parse(&bytes) {
                prop_assert!(ip.payload.len() + 20 <= bytes.len());
            }
        }
    }
}
