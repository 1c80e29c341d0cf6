//! SNMP version 2c (RFC 3416, RFC 1901): the system's description, asked of "public".

use super::SEED;

const COMMUNITY: &[u8] = b"public";
/// Where the request's id is.
const ID: std::ops::Range<usize> = 17..21;
const INTEGER: u8 = 2;
const OCTETS: u8 = 4;
const SEQUENCE: u8 = 0x30;
const GET: u8 = 0xa0;
const RESPONSE: u8 = 0xa2;

/// GetRequest of sysDescr.0 (1.3.6.1.2.1.1.1.0).
pub(super) fn question(seed: &[u8; SEED]) -> Vec<u8> {
    let variable = [&[SEQUENCE, 12, 6, 8, 0x2b, 6, 1, 2, 1, 1, 1, 0][..], &[5, 0]].concat();
    // Four bytes as BER writes them: positive, and no fewer would do.
    let id = [seed[0] & 0x3f | 0x40, seed[1], seed[2], seed[3]];
    let mut bytes = vec![SEQUENCE, 41, INTEGER, 1, 1, OCTETS, 6];
    bytes.extend(COMMUNITY);
    bytes.extend([GET, 28, INTEGER, 4]);
    bytes.extend(id);
    // No error status, no error index.
    bytes.extend([INTEGER, 1, 0, INTEGER, 1, 0, SEQUENCE, 14]);
    bytes.extend(variable);
    bytes
}

/// A Response of the same version, with the request's id.
pub(super) fn judge(question: &[u8], answer: &[u8]) -> (bool, bool) {
    match response_id(answer) {
        Some(id) => (true, question.get(ID) == Some(id)),
        None => (false, false),
    }
}

fn response_id(answer: &[u8]) -> Option<&[u8]> {
    let (message, rest) = element(answer, SEQUENCE)?;
    let (version, message) = element(message, INTEGER)?;
    let (_community, message) = element(message, OCTETS)?;
    let (response, _) = element(message, RESPONSE)?;
    let (id, _) = element(response, INTEGER)?;
    (rest.is_empty() && version == [1]).then_some(id)
}

/// The first element's content, if it has this tag, and what follows it (BER, X.690: lengths of one byte, or of up to four behind a count).
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (length, rest) = match bytes {
        [first, short @ 0..=0x7f, rest @ ..] if *first == tag => (usize::from(*short), rest),
        [first, count @ 0x81..=0x84, rest @ ..] if *first == tag => {
            let (length, rest) = rest.split_at_checked(usize::from(count & 0x7f))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}
