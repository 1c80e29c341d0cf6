//! The part of the protocol of MySQL and MariaDB that leads to TLS.

/// The bit of the capabilities that says that TLS can be spoken (CLIENT_SSL).
const CLIENT_SSL: u32 = 0x800;

/// Asks for TLS (SSLRequest, Protocol::SSLRequest): packet 1, of 32 bytes; with the newer protocol and its way of proving passwords
/// (CLIENT_PROTOCOL_41, CLIENT_SECURE_CONNECTION), packets of 16 MiB at most and utf8mb4.
pub const SSL_REQUEST: [u8; 36] = {
    let mut packet = [0; 36];
    packet[0] = 32;
    packet[3] = 1;
    let capabilities = (0x8200 | CLIENT_SSL).to_le_bytes();
    packet[4] = capabilities[0];
    packet[5] = capabilities[1];
    packet[11] = 1;
    packet[12] = 45;
    packet
};

/// What a server says first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greeting<'d> {
    /// That it is one, and whether it can speak TLS.
    Welcome {
        /// The server's version.
        version: &'d [u8],
        /// Whether it can speak TLS.
        offers_tls: bool,
    },
    /// That it has nothing to say to us (ERR_Packet).
    Refusal {
        /// The number of the error.
        code: u16,
        /// And in words.
        words: &'d [u8],
    },
}

/// It is not the protocol of MySQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl<'d> Greeting<'d> {
    /// Reads the packet at the beginning of what came, and says how long it is. None: there has to come more.
    pub fn decode(bytes: &'d [u8]) -> Result<Option<(Self, usize)>, Malformed> {
        let Some(([l0, l1, l2, number], rest)) = bytes.split_first_chunk() else { return Ok(None) };
        // The first packet; and no greeting is that long.
        if *number != 0 || *l2 != 0 {
            return Err(Malformed);
        }
        let length = usize::from(u16::from_le_bytes([*l0, *l1]));
        let Some(packet) = rest.get(..length) else { return Ok(None) };
        let (kind, packet) = packet.split_first().ok_or(Malformed)?;
        let greeting = match kind {
            10 => Self::welcome(packet)?,
            0xff => {
                let (code, words) = packet.split_first_chunk().ok_or(Malformed)?;
                Self::Refusal { code: u16::from_le_bytes(*code), words }
            }
            _ => return Err(Malformed),
        };
        Ok(Some((greeting, 4 + length)))
    }

    /// Protocol::HandshakeV10, after its first byte.
    fn welcome(packet: &'d [u8]) -> Result<Self, Malformed> {
        let end = packet.iter().position(|byte| *byte == 0).ok_or(Malformed)?;
        let (version, rest) = packet.split_at(end);
        // After the zero: the thread (4), the beginning of the salt (8), a zero; then the lower half of the capabilities, the character set (1), the
        // status (2), and the upper half.
        let lower = rest.get(14..16).ok_or(Malformed)?;
        let upper = rest.get(19..21).unwrap_or_default();
        let capabilities = lower.iter().chain(upper).rev().fold(0, |number, byte| number << 8 | u32::from(*byte));
        Ok(Self::Welcome { version, offers_tls: capabilities & CLIENT_SSL != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{fuzz, text};

    #[test]
    fn the_greeting_of_a_real_server_is_read_as_it_comes() {
        let bytes = text::hex(fuzz::seeds::MARIADB).unwrap();
        let Ok(Some((greeting, length))) = Greeting::decode(&bytes) else { panic!("{:?}", Greeting::decode(&bytes)) };
        assert_eq!(length, bytes.len());
        assert!(matches!(greeting, Greeting::Welcome { version, offers_tls: false } if version.starts_with(b"5.5.5-10.")), "{greeting:?}");
        let mut able = bytes.to_vec();
        let flags = able.iter().skip(5).position(|byte| *byte == 0).unwrap() + 5 + 14;
        able[flags + 1] |= 8;
        assert!(matches!(Greeting::decode(&able), Ok(Some((Greeting::Welcome { offers_tls: true, .. }, _)))));
        for end in 0..bytes.len() {
            assert_eq!(Greeting::decode(&bytes[..end]), Ok(None));
        }
    }

    #[test]
    fn a_refusal_is_read_and_what_is_something_else_is_not() {
        let refusal = b"\x0b\0\0\0\xff\x10\x04Too many";
        assert_eq!(Greeting::decode(refusal), Ok(Some((Greeting::Refusal { code: 1040, words: b"Too many" }, 15))));
        for wrong in [&b"220 mail.example ESMTP\r\n"[..], b"\x01\0\0\0\x09", b"\x02\0\0\0\x0aa", b"\0\0\0\0"] {
            assert_eq!(Greeting::decode(wrong), Err(Malformed), "{wrong:?}");
        }
    }
}
