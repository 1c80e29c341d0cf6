//! OCSP responses (RFC 6960).

use super::der::{Malformed, Reader, tag};

/// id-pkix-ocsp-basic, the one type of response that there is (RFC 6960 section 4.2.1).
const BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];

/// A response about certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response<'d> {
    /// What the responder has signed.
    pub signed: &'d [u8],
    /// Who that is.
    pub responder: Responder<'d>,
    /// When it was signed, in seconds since 1970.
    pub produced: i64,
    /// What it says, of each certificate.
    pub answers: Vec<Answer<'d>>,
    /// The algorithm of the signature, without its tag.
    pub algorithm: &'d [u8],
    /// The signature.
    pub signature: &'d [u8],
    /// Certificates that help to check it.
    pub certificates: Vec<&'d [u8]>,
}

/// Who has signed a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Responder<'d> {
    /// The one with this name, which is without its tag.
    Name(&'d [u8]),
    /// The one whose key has this SHA-1.
    Key(&'d [u8]),
}

/// What a response says of one certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer<'d> {
    /// The object identifier of the algorithm of the hashes.
    pub hash: &'d [u8],
    /// Over the issuer's name.
    pub issuer_name_hash: &'d [u8],
    /// Over the issuer's key.
    pub issuer_key_hash: &'d [u8],
    /// The content of the serial number.
    pub serial: &'d [u8],
    /// What is the matter with it.
    pub status: Status,
    /// When that was known to be so, in seconds since 1970.
    pub this_update: i64,
    /// When more is known at the latest.
    pub next_update: Option<i64>,
}

/// What is the matter with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is not revoked.
    Good,
    /// It was revoked then, in seconds since 1970.
    Revoked(i64),
    /// The responder does not know it.
    Unknown,
}

/// Why a response says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It can't be decoded.
    #[error("it can't be decoded")]
    Malformed,
    /// The responder did not answer (RFC 6960 section 4.2.1, OCSPResponseStatus).
    #[error("the responder gave no answer: {}", unsuccessful(*.0))]
    Unsuccessful(u8),
    /// It is of another type than all others.
    #[error("it is of an unknown type")]
    OtherType,
    /// It has an extension that must be understood.
    #[error("it has a critical extension that is not understood")]
    CriticalExtension,
}

impl From<Malformed> for Refusal {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

fn unsuccessful(status: u8) -> String {
    match status {
        1 => "malformed request".to_owned(),
        2 => "internal error".to_owned(),
        3 => "try later".to_owned(),
        5 => "it wants a signed request".to_owned(),
        6 => "unauthorized".to_owned(),
        other => format!("status {other}"),
    }
}

impl<'d> Response<'d> {
    /// Reads an OCSPResponse.
    pub fn decode(der: &'d [u8]) -> Result<Self, Refusal> {
        let mut outside = Reader::new(der);
        let mut whole = outside.inside(tag::SEQUENCE)?;
        outside.end()?;
        let status = whole.enumerated()?;
        if status != 0 {
            return Err(Refusal::Unsuccessful(status));
        }
        let mut explicit = whole.inside(tag::context(0))?;
        whole.end()?;
        let mut bytes = explicit.inside(tag::SEQUENCE)?;
        explicit.end()?;
        if bytes.next(tag::OBJECT_IDENTIFIER)?.content != BASIC {
            return Err(Refusal::OtherType);
        }
        let basic = bytes.next(tag::OCTET_STRING)?.content;
        bytes.end()?;
        Self::decode_basic(basic)
    }

    fn decode_basic(der: &'d [u8]) -> Result<Self, Refusal> {
        let mut outside = Reader::new(der);
        let mut whole = outside.inside(tag::SEQUENCE)?;
        outside.end()?;
        let signed = whole.next(tag::SEQUENCE)?;
        let algorithm = whole.next(tag::SEQUENCE)?.content;
        let signature = whole.bytes_of_bits()?;
        let mut certificates = Vec::new();
        if let Some(mut explicit) = whole.inside_if(tag::context(0))? {
            let mut list = explicit.inside(tag::SEQUENCE)?;
            explicit.end()?;
            while !list.is_empty() {
                certificates.push(list.next(tag::SEQUENCE)?.whole);
            }
        }
        whole.end()?;

        let mut data = Reader::new(signed.content);
        // Version 1 is the default, which DER leaves out; there is no other.
        if data.next_if(tag::context(0))?.is_some() {
            return Err(Refusal::Malformed);
        }
        let responder = data.any()?;
        let mut explicit = Reader::new(responder.content);
        let responder = match responder.tag {
            NAME => Responder::Name(explicit.next(tag::SEQUENCE)?.content),
            KEY => Responder::Key(explicit.next(tag::OCTET_STRING)?.content),
            _ => return Err(Refusal::Malformed),
        };
        explicit.end()?;
        let produced = data.instant()?;
        let mut list = data.inside(tag::SEQUENCE)?;
        let mut answers = Vec::new();
        while !list.is_empty() {
            answers.push(Answer::decode(list.inside(tag::SEQUENCE)?)?);
        }
        extensions(&mut data)?;
        data.end()?;
        Ok(Self { signed: signed.whole, responder, produced, answers, algorithm, signature, certificates })
    }
}

const NAME: u8 = tag::context(1);
const KEY: u8 = tag::context(2);
const REVOKED: u8 = tag::context(1);
/// Tags of elements without content.
const GOOD: u8 = 0x80;
const UNKNOWN: u8 = 0x82;

impl<'d> Answer<'d> {
    fn decode(mut parts: Reader<'d>) -> Result<Self, Refusal> {
        let mut id = parts.inside(tag::SEQUENCE)?;
        // Parameters of hashes are NULL or nothing, and say nothing.
        let hash = id.inside(tag::SEQUENCE)?.next(tag::OBJECT_IDENTIFIER)?.content;
        let issuer_name_hash = id.next(tag::OCTET_STRING)?.content;
        let issuer_key_hash = id.next(tag::OCTET_STRING)?.content;
        let serial = id.next(tag::INTEGER)?.content;
        id.end()?;
        let status = parts.any()?;
        let status = match (status.tag, status.content) {
            (GOOD, []) => Status::Good,
            (UNKNOWN, []) => Status::Unknown,
            (REVOKED, content) => {
                let mut revoked = Reader::new(content);
                let at = revoked.instant()?;
                if let Some(mut reason) = revoked.inside_if(tag::context(0))? {
                    reason.enumerated()?;
                    reason.end()?;
                }
                revoked.end()?;
                Status::Revoked(at)
            }
            _ => return Err(Refusal::Malformed),
        };
        let this_update = parts.instant()?;
        let next_update = match parts.inside_if(tag::context(0))? {
            None => None,
            Some(mut explicit) => {
                let at = explicit.instant()?;
                explicit.end()?;
                Some(at)
            }
        };
        extensions(&mut parts)?;
        parts.end()?;
        Ok(Self { hash, issuer_name_hash, issuer_key_hash, serial, status, this_update, next_update })
    }
}

/// Passes over extensions. None is understood, so none may be critical.
fn extensions(reader: &mut Reader<'_>) -> Result<(), Refusal> {
    let Some(mut explicit) = reader.inside_if(tag::context(1))? else { return Ok(()) };
    let mut list = explicit.inside(tag::SEQUENCE)?;
    explicit.end()?;
    while !list.is_empty() {
        let mut extension = list.inside(tag::SEQUENCE)?;
        extension.next(tag::OBJECT_IDENTIFIER)?;
        let is_critical = extension.boolean_or_false()?;
        extension.next(tag::OCTET_STRING)?;
        extension.end()?;
        if is_critical {
            return Err(Refusal::CriticalExtension);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{fuzz, text};

    #[test]
    fn what_openssl_says_of_a_good_and_of_a_revoked_certificate_is_read() {
        let bytes = text::hex(fuzz::seeds::OCSP_GOOD).unwrap();
        let good = Response::decode(&bytes).unwrap();
        assert_eq!((good.produced, good.certificates.len()), (1_795_828_446, 0));
        assert!(matches!(good.responder, Responder::Name(name) if name.ends_with(b"t")), "{:?}", good.responder);
        let [answer] = good.answers.as_slice() else { panic!("{:?}", good.answers) };
        assert_eq!((answer.status, answer.serial), (Status::Good, &[0x12, 0x34][..]));
        assert_eq!((answer.this_update, answer.next_update), (1_795_828_446, Some(1_795_828_446 + 7 * 86_400)));
        assert_eq!((answer.hash.len(), answer.issuer_name_hash.len(), answer.issuer_key_hash.len()), (5, 20, 20));

        let bytes = text::hex(fuzz::seeds::OCSP_REVOKED).unwrap();
        let revoked = Response::decode(&bytes).unwrap();
        assert!(matches!(revoked.responder, Responder::Key(hash) if hash.len() == 20), "{:?}", revoked.responder);
        assert_eq!((revoked.answers[0].status, revoked.answers[0].next_update), (Status::Revoked(1_795_132_800), None));
    }

    #[test]
    fn a_responder_that_gives_no_answer_says_why() {
        assert_eq!(Response::decode(&[0x30, 3, 0x0a, 1, 3]), Err(Refusal::Unsuccessful(3)));
        assert_eq!(Refusal::Unsuccessful(3).to_string(), "the responder gave no answer: try later");
        assert_eq!(Response::decode(&[0x30, 3, 0x0a, 1, 3, 0]), Err(Refusal::Malformed), "something after the end");
    }
}
