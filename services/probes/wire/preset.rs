//! Questions of known protocols, small and harmless, and what is an answer to them. Each question carries random bytes that its answer has to repeat,
//! so what comes too late for one run is never taken for the answer to another.

use std::net::SocketAddr;

use super::ntp;

mod sip;
mod snmp;

/// The random bytes that a question is made from.
pub const SEED: usize = 32;

/// Declares the presets by their names in the contract.
macro_rules! presets {
    ($($variant:ident $name:literal),* $(,)?) => {
        /// A known protocol.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Preset {
            $(
                #[doc = $name]
                $variant,
            )*
        }

        impl Preset {
            /// Their names, as checks spell them.
            pub const NAMES: &[&str] = &[$($name),*];

            /// The one with this name.
            pub fn named(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// Its name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

presets! {
    Dns "dns",
    Ntp "ntp",
    Snmp "snmp",
    Sip "sip",
    Stun "stun",
    Coap "coap",
    Memcached "memcached",
    Quic "quic",
}

/// What a datagram is to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Its answer, whatever it says: a refusal or an error, too, is said by somebody who speaks the protocol.
    Ours,
    /// Of that protocol, but to another question.
    Stranger,
    /// Of no or another protocol.
    Foreign,
}

/// The least size of a datagram that QUIC servers answer (RFC 9000 section 14.1), in bytes.
const QUIC_SIZE: usize = 1200;
/// The longest question of all.
pub const MAX_SIZE: usize = QUIC_SIZE;
/// The magic cookie of STUN (RFC 8489 section 5).
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// The question for the name servers (2) of the root, class IN (1).
const ROOT_SERVERS: [u8; 5] = [0, 0, 2, 0, 1];

impl Preset {
    /// The bytes of a question. `seed` is random; `local` and `remote` are where it comes from and goes to, which SIP writes down.
    pub fn question(self, seed: &[u8; SEED], local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
        let [a, b, ..] = *seed;
        match self {
            // RFC 1035: one question, and no recursion desired: what the server has at hand, or that it refuses, is answer enough, and nobody else
            // need be asked.
            Self::Dns => [&[a, b, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &ROOT_SERVERS].concat(),
            Self::Ntp => ntp::request(4, ntp::Stamp(u64::from_be_bytes(seed.first_chunk().copied().unwrap_or_default()))).to_vec(),
            Self::Snmp => snmp::question(seed),
            Self::Sip => sip::question(seed, local, remote),
            // RFC 8489 section 5: a binding request without attributes.
            Self::Stun => [&[0, 1, 0, 0][..], &COOKIE, &seed[..12]].concat(),
            // RFC 7252 section 4.3: an empty confirmable message, which is rejected with a reset, as a ping is.
            Self::Coap => vec![0x40, 0, a, b],
            // The frame of memcached's protocol.txt: request id, datagram 0 of 1, reserved.
            Self::Memcached => [&[a, b, 0, 0, 0, 1, 0, 0][..], b"version\r\n"].concat(),
            Self::Quic => quic(seed),
        }
    }

    /// What a datagram is to that question of this preset.
    pub fn judge(self, question: &[u8], answer: &[u8]) -> Answer {
        // Is it of that protocol, and then, does it repeat what is ours?
        let (is_of_it, is_ours) = match self {
            Self::Dns => dns(question, answer),
            Self::Ntp => (answer.len() >= ntp::LENGTH && answer[0] & 7 == 4, same(question, 40..48, answer, 24..32)),
            Self::Snmp => snmp::judge(question, answer),
            Self::Sip => sip::judge(question, answer),
            Self::Stun => {
                let length = answer.get(2..4).map(|length| usize::from(u16::from_be_bytes([length[0], length[1]])));
                // A success or an error, of the method binding.
                let is_of_it = matches!(answer, [1, 1 | 0x11, ..]) && length.map(|length| length + 20) == Some(answer.len());
                (is_of_it && answer.get(4..8) == Some(&COOKIE), same(question, 8..20, answer, 8..20))
            }
            // A reset or an acknowledgement, version 1, no token, empty.
            Self::Coap => (matches!(answer, [0x60 | 0x70, 0, _, _]), same(question, 2..4, answer, 2..4)),
            Self::Memcached => {
                let is_of_it =
                    matches!(answer, [_, _, 0, 0, 0, 1, _, _, text @ ..] if text.starts_with(b"VERSION ") && text.ends_with(b"\r\n"));
                (is_of_it, same(question, 0..2, answer, 0..2))
            }
            Self::Quic => judge_quic(question, answer),
        };
        match (is_of_it, is_ours) {
            (true, true) => Answer::Ours,
            (true, false) => Answer::Stranger,
            (false, _) => Answer::Foreign,
        }
    }
}

fn same(question: &[u8], ours: std::ops::Range<usize>, answer: &[u8], theirs: std::ops::Range<usize>) -> bool {
    matches!((question.get(ours), answer.get(theirs)), (Some(ours), Some(theirs)) if ours == theirs)
}

/// A response, of opcode 0, to the question for the root's servers; where an error comes without a question, the id alone has to do.
fn dns(question: &[u8], answer: &[u8]) -> (bool, bool) {
    let is_response = answer.len() >= 12 && answer[2] & 0xf8 == 0x80;
    let (is_of_it, is_repeated) = match answer.get(4..6) {
        Some([0, 0]) => (is_response && answer[3] & 0xf != 0, true),
        Some([0, 1]) => (is_response, same(&ROOT_SERVERS, 0..5, answer, 12..17)),
        _ => (false, false),
    };
    (is_of_it, is_repeated && same(question, 0..2, answer, 0..2))
}

/// A long header of a version that is reserved to be unknown (RFC 9000 sections 15 and 17.2), with two connection ids of ours, 8 bytes each, filled up
/// to the size of an initial packet.
fn quic(seed: &[u8; SEED]) -> Vec<u8> {
    let version = [0, 1, 2, 3].map(|byte: usize| seed[byte] & 0xf0 | 0x0a);
    let mut bytes = [&[0xc0][..], &version, &[8], &seed[4..12], &[8], &seed[12..20]].concat();
    bytes.resize(QUIC_SIZE, 0);
    bytes
}

/// A version negotiation (RFC 9000 section 17.2.1): version 0, our connection ids the other way round, and at least one version.
fn judge_quic(question: &[u8], answer: &[u8]) -> (bool, bool) {
    let is_of_it = answer.first().is_some_and(|first| first & 0x80 != 0) && answer.get(1..5) == Some(&[0; 4]);
    let has_versions = answer.len() > 23 && (answer.len() - 23).is_multiple_of(4);
    (is_of_it, has_versions && same(question, 14..23, answer, 5..14) && same(question, 5..14, answer, 14..23))
}

#[cfg(test)]
mod tests;
