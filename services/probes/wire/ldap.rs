//! The part of LDAP (RFC 4511) that leads to TLS, in BER, whose lengths may be longer than they have to be.

/// Asks for TLS (section 4.14.1): the extended request 1.3.6.1.4.1.1466.20037, as message 1.
pub const START_TLS: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";

/// The longest answer that is read.
const MAX_ANSWER: usize = 64 << 10;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 2;
const ENUMERATED: u8 = 10;
const OCTET_STRING: u8 = 4;
/// [APPLICATION 24]
const EXTENDED_RESPONSE: u8 = 0x78;

/// What a server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer<'d> {
    /// To which message; 0 is the server's own word (section 4.4).
    pub message: u32,
    /// The result (section 4.1.9): 0 is success.
    pub code: u32,
    /// The diagnostic message.
    pub words: &'d [u8],
    /// How many bytes it takes.
    pub length: usize,
}

/// It is not LDAP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl<'d> Answer<'d> {
    /// Reads the answer at the beginning of what came. None: there has to come more.
    pub fn decode(bytes: &'d [u8]) -> Result<Option<Self>, Malformed> {
        let Some((content, length)) = element(SEQUENCE, bytes)? else { return Ok(None) };
        let mut rest = content;
        let message = number(next(INTEGER, &mut rest)?)?;
        let mut operation = next(EXTENDED_RESPONSE, &mut rest)?;
        let code = number(next(ENUMERATED, &mut operation)?)?;
        next(OCTET_STRING, &mut operation)?;
        let words = next(OCTET_STRING, &mut operation)?;
        Ok(Some(Self { message, code, words, length }))
    }
}

/// The element with this tag at the beginning, and the length of all of it. None: there has to come more.
fn element(tag: u8, bytes: &[u8]) -> Result<Option<(&[u8], usize)>, Malformed> {
    let Some((first, rest)) = bytes.split_first() else { return Ok(None) };
    if *first != tag {
        return Err(Malformed);
    }
    let Some((short, rest)) = rest.split_first() else { return Ok(None) };
    let (length, rest) = match *short {
        short @ ..=0x7f => (usize::from(short), rest),
        long @ 0x81..=0x84 => {
            let Some((digits, rest)) = rest.split_at_checked(usize::from(long & 0x7f)) else { return Ok(None) };
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return Err(Malformed),
    };
    if length > MAX_ANSWER {
        return Err(Malformed);
    }
    Ok(rest.get(..length).map(|content| (content, bytes.len() - rest.len() + length)))
}

/// The next element, which has this tag and is whole.
fn next<'d>(tag: u8, rest: &mut &'d [u8]) -> Result<&'d [u8], Malformed> {
    let (content, length) = element(tag, rest)?.ok_or(Malformed)?;
    *rest = rest.get(length..).ok_or(Malformed)?;
    Ok(content)
}

fn number(content: &[u8]) -> Result<u32, Malformed> {
    match content {
        [0..0x80, ..] if content.len() <= 4 => Ok(content.iter().fold(0, |number, digit| number << 8 | u32::from(*digit))),
        _ => Err(Malformed),
    }
}

/// The name of a result (RFC 4511 section 4.1.9). None: it is not one of those that a server has for this.
pub fn code_name(code: u32) -> Option<&'static str> {
    Some(match code {
        0 => "success",
        1 => "operationsError",
        2 => "protocolError",
        8 => "strongerAuthRequired",
        10 => "referral",
        13 => "confidentialityRequired",
        50 => "insufficientAccessRights",
        51 => "busy",
        52 => "unavailable",
        53 => "unwillingToPerform",
        80 => "other",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::text;

    #[test]
    fn answers_of_real_servers_are_read_with_short_and_long_lengths() {
        // slapd 2.5: success; and a server whose lengths all have four bytes: unavailable, with words.
        let short = text::hex("300c02010178070a010004000400").unwrap();
        assert_eq!(Answer::decode(&short), Ok(Some(Answer { message: 1, code: 0, words: b"", length: 14 })));
        let long = text::hex("3084000000150201017884 0000000c 0a01340400 0405736f727279").unwrap();
        let Ok(Some(answer)) = Answer::decode(&long) else { panic!("{:?}", Answer::decode(&long)) };
        assert_eq!((answer.code, answer.words, answer.length), (52, &b"sorry"[..], long.len()));
        for end in 0..short.len() {
            assert_eq!(Answer::decode(&short[..end]), Ok(None), "{end}");
        }
    }

    #[test]
    fn what_is_not_an_extended_response_is_refused() {
        for wrong in ["48545450", "300c02010161070a010004000400", "30800201", "3084ffffffff", "30050201017800"] {
            assert_eq!(Answer::decode(&text::hex(wrong).unwrap()), Err(Malformed), "{wrong}");
        }
    }
}
