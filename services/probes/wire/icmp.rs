//! ICMP (RFC 792, RFC 1812) and ICMPv6 (RFC 4443): echo messages, and what errors mean.

use std::net::IpAddr;

use vantage_contract::v1::{Attribution, Reason};

use super::{
    checksum, extension,
    ip::{Ipv4, Ipv6},
};

/// The length of the header of an echo message, and of what an error quotes at the least of one.
pub const HEADER: usize = 8;

/// Which of the two protocols: they number their types differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// ICMP, for IPv4.
    V4,
    /// ICMPv6.
    V6,
}

impl Version {
    /// The version that goes with an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The type number of an echo request.
    pub fn echo_request(self) -> u8 {
        match self {
            Self::V4 => 8,
            Self::V6 => 128,
        }
    }

    /// The type number of an echo reply.
    pub fn echo_reply(self) -> u8 {
        match self {
            Self::V4 => 0,
            Self::V6 => 129,
        }
    }
}

/// An echo request or reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo<'b> {
    /// The type number.
    pub kind: u8,
    /// Who asks; the kernel writes its own into requests of datagram sockets.
    pub identifier: u16,
    /// Which request it is.
    pub sequence: u16,
    /// What comes after the header.
    pub payload: &'b [u8],
}

impl<'b> Echo<'b> {
    /// Parses a message that begins with its ICMP header: an echo request or reply, or the quote of one in an error, which may end after
    /// the header. None where it is neither.
    pub fn parse(version: Version, message: &'b [u8]) -> Option<Self> {
        let (header, payload) = message.split_first_chunk::<HEADER>()?;
        let [kind, code, _, _, i0, i1, s0, s1] = *header;
        let known = (kind == version.echo_request() || kind == version.echo_reply()) && code == 0;
        known.then_some(Self { kind, identifier: u16::from_be_bytes([i0, i1]), sequence: u16::from_be_bytes([s0, s1]), payload })
    }

    /// The message's bytes, with its checksum for IPv4; that of ICMPv6 covers addresses which only the kernel knows, so it is the
    /// kernel's to fill in and zero here.
    pub fn encode(&self, version: Version) -> Vec<u8> {
        let mut message = Vec::with_capacity(HEADER + self.payload.len());
        message.extend([self.kind, 0, 0, 0]);
        message.extend(self.identifier.to_be_bytes());
        message.extend(self.sequence.to_be_bytes());
        message.extend(self.payload);
        if version == Version::V4 {
            let sum = checksum::internet(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        message
    }
}

/// An error about an echo request of somebody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EchoError<'b> {
    /// The type number.
    pub kind: u8,
    /// The code.
    pub code: u8,
    /// Where the request was sent.
    pub destination: IpAddr,
    /// What is quoted of the request, from its ICMP header on; padding and an extension may follow.
    pub quote: &'b [u8],
    /// Where the extension structure begins in `quote`, where the error tells (RFC 4884).
    pub extension_at: Option<usize>,
}

impl<'b> EchoError<'b> {
    /// Parses a message that begins with its ICMP header. None where it is not an error about an echo request.
    pub fn parse(version: Version, message: &'b [u8]) -> Option<Self> {
        let (header, datagram) = message.split_first_chunk::<HEADER>()?;
        let is_error = match version {
            Version::V4 => matches!(header[0], 3 | 4 | 11 | 12),
            Version::V6 => header[0] < 128,
        };
        let (destination, protocol, own, length) = match version {
            Version::V4 => {
                let ip = Ipv4::parse(datagram)?;
                // Its payload ends with the packet; what is behind belongs to the error.
                (ip.destination.into(), (ip.protocol, 1), ip.payload, usize::from(datagram[0] & 0x0f) * 4)
            }
            Version::V6 => {
                let ip = Ipv6::parse(datagram)?;
                (ip.destination.into(), (ip.next_header, 58), ip.payload, 40)
            }
        };
        let echo = Echo::parse(version, own)?;
        let is_request = protocol.0 == protocol.1 && echo.kind == version.echo_request();
        (is_error && is_request).then_some(Self {
            kind: header[0],
            code: header[1],
            destination,
            quote: datagram.get(length..)?,
            extension_at: extension::offset(version, *header).and_then(|offset| offset.checked_sub(length)),
        })
    }
}

/// What an ICMP error says, apart from who says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meaning {
    /// In words: "port unreachable".
    pub words: &'static str,
    /// What it makes of a run that it ends.
    pub reason: Reason,
}

impl Meaning {
    /// What type and code of an error stand for. Numbers that no standard names are told as what their type is for.
    pub fn of(version: Version, kind: u8, code: u8) -> Self {
        let (words, reason) = match version {
            Version::V4 => meaning_v4(kind, code),
            Version::V6 => meaning_v6(kind, code),
        };
        Self { words, reason }
    }
}

/// Whose word an error is: the target's own, or somebody's on the path to it.
pub fn attribution(from: Option<IpAddr>, target: IpAddr) -> Attribution {
    if from == Some(target) { Attribution::Target } else { Attribution::Path }
}

/// Whether the error says that the hop limit ran out on the way, which is what a traceroute asks for.
pub fn is_hop_limit_exceeded(version: Version, kind: u8, code: u8) -> bool {
    (version, kind, code) == (Version::V4, 11, 0) || (version, kind, code) == (Version::V6, 3, 0)
}

/// Whether the error says that nobody listens on the port.
pub fn is_port_unreachable(version: Version, kind: u8, code: u8) -> bool {
    (version, kind, code) == (Version::V4, 3, 3) || (version, kind, code) == (Version::V6, 1, 4)
}

fn meaning_v4(kind: u8, code: u8) -> (&'static str, Reason) {
    use Reason::{Prohibited, Refused, Unreachable};
    match (kind, code) {
        (3, 0) => ("network unreachable", Unreachable),
        (3, 1) => ("host unreachable", Unreachable),
        (3, 2) => ("protocol unreachable", Refused),
        (3, 3) => ("port unreachable", Refused),
        (3, 4) => ("fragmentation needed and forbidden", Unreachable),
        (3, 5) => ("source route failed", Unreachable),
        (3, 6) => ("destination network unknown", Unreachable),
        (3, 7) => ("destination host unknown", Unreachable),
        (3, 8) => ("source host isolated", Unreachable),
        (3, 9) => ("network administratively prohibited", Prohibited),
        (3, 10) => ("host administratively prohibited", Prohibited),
        (3, 11) => ("network unreachable for this type of service", Unreachable),
        (3, 12) => ("host unreachable for this type of service", Unreachable),
        (3, 13) => ("communication administratively prohibited", Prohibited),
        (3, 14) => ("host precedence violation", Prohibited),
        (3, 15) => ("precedence cutoff in effect", Prohibited),
        (3, _) => ("destination unreachable", Unreachable),
        (4, _) => ("source quench", Unreachable),
        (5, _) => ("redirect", Unreachable),
        (11, 0) => ("hop limit exceeded", Unreachable),
        (11, 1) => ("fragment reassembly time exceeded", Unreachable),
        (11, _) => ("time exceeded", Unreachable),
        (12, _) => ("parameter problem", Unreachable),
        _ => ("ICMP error", Unreachable),
    }
}

fn meaning_v6(kind: u8, code: u8) -> (&'static str, Reason) {
    use Reason::{Prohibited, Refused, Unreachable};
    match (kind, code) {
        (1, 0) => ("no route to destination", Unreachable),
        (1, 1) => ("communication administratively prohibited", Prohibited),
        (1, 2) => ("beyond the scope of the source address", Unreachable),
        (1, 3) => ("address unreachable", Unreachable),
        (1, 4) => ("port unreachable", Refused),
        (1, 5) => ("source address failed ingress or egress policy", Prohibited),
        (1, 6) => ("route to destination rejected", Prohibited),
        (1, 7) => ("error in source routing header", Unreachable),
        (1, _) => ("destination unreachable", Unreachable),
        (2, _) => ("packet too big", Unreachable),
        (3, 0) => ("hop limit exceeded", Unreachable),
        (3, 1) => ("fragment reassembly time exceeded", Unreachable),
        (3, _) => ("time exceeded", Unreachable),
        (4, 1) => ("unrecognized next header", Refused),
        (4, _) => ("parameter problem", Unreachable),
        _ => ("ICMPv6 error", Unreachable),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_echo_request_has_its_checksum_over_ipv4_and_leaves_it_to_the_kernel_over_ipv6() {
        let echo = Echo { kind: 8, identifier: 0x1234, sequence: 1, payload: b"abc" };
        let bytes = echo.encode(Version::V4);
        assert_eq!(checksum::internet(&bytes), 0);
        assert_eq!(bytes[4..], [0x12, 0x34, 0, 1, b'a', b'b', b'c']);
        let echo = Echo { kind: 128, ..echo };
        assert_eq!(echo.encode(Version::V6)[..4], [128, 0, 0, 0]);
    }

    #[test]
    fn captured_replies_are_read() {
        // iputils ping -s 16 to a Linux host, one router away.
        let packet = [
            0x45, 0x00, 0x00, 0x2c, 0x8e, 0x93, 0x00, 0x00, 0x3f, 0x01, 0xd8, 0x29, 0x0a, 0x09, 0x01, 0x02, 0x0a, 0x09, 0x00, 0x01, 0x00,
            0x00, 0x39, 0xd8, 0x31, 0x4a, 0x00, 0x01, 0x81, 0xe9, 0x02, 0x6b, 0x00, 0x00, 0x00, 0x00, 0x02, 0x88, 0x0e, 0x00, 0x00, 0x00,
            0x00, 0x00,
        ];
        let ip = Ipv4::parse(&packet).unwrap();
        assert_eq!((ip.hop_limit, ip.protocol, ip.source), (63, 1, [10, 9, 1, 2].into()));
        assert_eq!(checksum::internet(ip.payload), 0);
        let echo = Echo::parse(Version::V4, ip.payload).unwrap();
        assert_eq!((echo.kind, echo.identifier, echo.sequence, echo.payload.len()), (0, 12618, 1, 16));
        assert_eq!(echo.encode(Version::V4), ip.payload);

        let message = [
            0x81, 0x00, 0x1a, 0x07, 0x31, 0x4c, 0x00, 0x01, 0x81, 0xe9, 0x02, 0x6b, 0x00, 0x00, 0x00, 0x00, 0xa6, 0xec, 0x0e, 0x00, 0x00,
            0x00, 0x00, 0x00,
        ];
        let echo = Echo::parse(Version::V6, &message).unwrap();
        assert_eq!((echo.kind, echo.identifier, echo.sequence), (129, 12620, 1));
        assert_eq!(Echo::parse(Version::V4, &message), None, "it is another type there");
    }

    #[test]
    fn the_quote_of_a_captured_error_is_read() {
        // What a Linux router's "time exceeded" (type 11) to traceroute -I carries after its own 8 bytes.
        let quote = [
            0x45, 0x00, 0x00, 0x24, 0x98, 0x6c, 0x00, 0x00, 0x01, 0x01, 0x0c, 0x59, 0x0a, 0x09, 0x00, 0x01, 0x0a, 0x09, 0x01, 0x02, 0x08,
            0x00, 0x99, 0x7e, 0x31, 0x4f, 0x00, 0x01, 0x48, 0x49, 0x4a, 0x4b, 0x4c, 0x4d, 0x4e, 0x4f,
        ];
        let ip = Ipv4::parse(&quote).unwrap();
        assert_eq!((ip.hop_limit, ip.destination), (1, [10, 9, 1, 2].into()));
        let echo = Echo::parse(Version::V4, ip.payload).unwrap();
        assert_eq!((echo.kind, echo.identifier, echo.sequence), (8, 12623, 1));
        let shortest = Echo::parse(Version::V4, &ip.payload[..8]).unwrap();
        assert_eq!((shortest.sequence, shortest.payload), (1, &[][..]), "a router need not quote more than the header");
    }

    #[test]
    fn an_error_about_an_echo_request_is_read_with_its_quote() {
        let own = Echo { kind: 8, identifier: 7, sequence: 3, payload: b"mine" }.encode(Version::V4);
        let ip = [0x45, 0, 0, 32, 0, 0, 0, 0, 1, 1, 0, 0, 10, 9, 0, 1, 10, 9, 2, 2];
        let padding = [0; extension::SHORTEST_QUOTE - 32];
        let message = [&[11, 0, 0, 0, 0, 32, 0, 0][..], &ip, &own, &padding, &[0x20, 0, 0, 0]].concat();
        let error = EchoError::parse(Version::V4, &message).unwrap();
        assert_eq!((error.kind, error.code, error.destination), (11, 0, IpAddr::from([10, 9, 2, 2])));
        assert_eq!(&error.quote[..own.len()], own);
        assert_eq!(error.extension_at.map(|at| &error.quote[at..]), Some(&[0x20, 0, 0, 0][..]));
        let mut other = message.clone();
        other[8 + 9] = 17;
        assert_eq!(EchoError::parse(Version::V4, &other), None, "it is about a datagram");
        let mut other = message.clone();
        other[8 + 20] = 0;
        assert_eq!(EchoError::parse(Version::V4, &other), None, "it is about a reply");
        assert_eq!(EchoError::parse(Version::V6, &message), None);
        assert_eq!(EchoError::parse(Version::V4, &message[..35]), None, "it quotes too little");
    }

    #[test]
    fn the_same_numbers_mean_other_things_in_icmpv6() {
        assert_eq!(Meaning::of(Version::V4, 3, 3), Meaning { words: "port unreachable", reason: Reason::Refused });
        assert_eq!(Meaning::of(Version::V6, 1, 4), Meaning { words: "port unreachable", reason: Reason::Refused });
        assert_eq!(Meaning::of(Version::V6, 3, 0).words, "hop limit exceeded");
        assert_eq!(Meaning::of(Version::V4, 3, 13).reason, Reason::Prohibited);
        assert_eq!(Meaning::of(Version::V6, 1, 1).reason, Reason::Prohibited);
        assert_eq!(Meaning::of(Version::V4, 3, 200).words, "destination unreachable");
    }

    #[test]
    fn an_error_is_the_targets_word_only_if_it_comes_from_the_target() {
        let target = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(attribution(Some(target), target), Attribution::Target);
        assert_eq!(attribution(Some(IpAddr::from([192, 0, 2, 2])), target), Attribution::Path);
        assert_eq!(attribution(None, target), Attribution::Path);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_parsed(identifier: u16, sequence: u16, payload in proptest::collection::vec(any::<u8>(), 0..100), six: bool) {
            let version = if six { Version::V6 } else { Version::V4 };
            let echo = Echo { kind: version.echo_request(), identifier, sequence, payload: &payload };
            let message = echo.encode(version);
            prop_assert_eq!(Echo::parse(version, &message), Some(echo));
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), six: bool) {
            let version = if six { Version::V6 } else { Version::V4 };
            let _ = (Echo::parse(version, &bytes), EchoError::parse(version, &bytes));
        }

        #[test]
        fn every_error_has_words_and_fails(kind: u8, code: u8, six: bool) {
            let meaning = Meaning::of(if six { Version::V6 } else { Version::V4 }, kind, code);
            prop_assert!(!meaning.words.is_empty());
            prop_assert_eq!(crate::failure::outcome_of(meaning.reason), vantage_contract::v1::Outcome::Failed);
        }
    }
}
