//! The parts of a certificate (RFC 5280) that signatures and hashes are made over, as they are in it.

use super::der::{Malformed, Reader, tag};

/// A certificate's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Certificate<'d> {
    /// What the issuer has signed.
    pub signed: &'d [u8],
    /// The algorithm of that, without its tag.
    pub algorithm: &'d [u8],
    /// The signature.
    pub signature: &'d [u8],
    /// The content of the serial number.
    pub serial: &'d [u8],
    /// The issuer's name, without its tag.
    pub issuer: &'d [u8],
    /// The subject's name, without its tag.
    pub subject: &'d [u8],
    /// The subject's key, without its tag.
    pub key: &'d [u8],
}

impl<'d> Certificate<'d> {
    /// Takes a certificate apart.
    pub fn decode(der: &'d [u8]) -> Result<Self, Malformed> {
        let mut outside = Reader::new(der);
        let mut whole = outside.inside(tag::SEQUENCE)?;
        outside.end()?;
        let signed = whole.next(tag::SEQUENCE)?;
        let algorithm = whole.next(tag::SEQUENCE)?.content;
        let signature = whole.bytes_of_bits()?;
        whole.end()?;
        let mut parts = Reader::new(signed.content);
        parts.next_if(tag::context(0))?;
        let serial = parts.next(tag::INTEGER)?.content;
        parts.next(tag::SEQUENCE)?;
        let issuer = parts.next(tag::SEQUENCE)?.content;
        parts.next(tag::SEQUENCE)?;
        let subject = parts.next(tag::SEQUENCE)?.content;
        let key = parts.next(tag::SEQUENCE)?.content;
        Ok(Self { signed: signed.whole, algorithm, signature, serial, issuer, subject, key })
    }
}

/// A key (SubjectPublicKeyInfo).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<'d> {
    /// Its algorithm, without its tag.
    pub algorithm: &'d [u8],
    /// The key itself.
    pub bits: &'d [u8],
}

impl<'d> Key<'d> {
    /// Takes the content of a SubjectPublicKeyInfo apart.
    pub fn decode(content: &'d [u8]) -> Result<Self, Malformed> {
        let mut parts = Reader::new(content);
        let algorithm = parts.next(tag::SEQUENCE)?.content;
        let bits = parts.bytes_of_bits()?;
        parts.end()?;
        Ok(Self { algorithm, bits })
    }
}
