//! OCSP responses of every kind of wrongness (RFC 6960).

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SigningKey as _};
use rustls::pki_types::CertificateDer;
use vantage_probes::wire::{
    der::{tag, wrap},
    x509,
};

use super::tls::Authority;

/// A response to be made.
pub(crate) struct Staple<'a> {
    pub(crate) authority: &'a Authority,
    /// The certificate it is about.
    pub(crate) leaf: &'a CertificateDer<'static>,
    pub(crate) status: Status,
    /// From now, in seconds.
    pub(crate) this_update: i64,
    pub(crate) next_update: Option<i64>,
    pub(crate) signer: Signer,
}

#[derive(Clone, Copy)]
pub(crate) enum Status {
    Good,
    Revoked,
    Unknown,
}

/// Who signs it.
#[derive(Clone, Copy)]
pub(crate) enum Signer {
    Issuer,
    /// One whom the issuer lets sign.
    Delegate,
    /// One who has a certificate of the issuer for something else.
    Servant,
    /// One who calls himself as the issuer does.
    Impostor,
}

/// id-sha1 and ecdsa-with-SHA256, without their tags.
const SHA1: &[u8] = &[6, 5, 0x2b, 0x0e, 3, 2, 0x1a, 5, 0];
const ECDSA_SHA256: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
const BASIC: &[u8] = &[6, 9, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];

impl<'a> Staple<'a> {
    /// A good one.
    pub(crate) fn about(authority: &'a Authority, leaf: &'a CertificateDer<'static>) -> Self {
        Self { authority, leaf, status: Status::Good, this_update: -60, next_update: Some(3600), signer: Signer::Issuer }
    }

    pub(crate) fn make(&self) -> Vec<u8> {
        let sequence = |parts: &[&[u8]]| wrap(tag::SEQUENCE, &parts.concat());
        let explicit = |number, content: &[u8]| wrap(tag::context(number), content);
        let issuer = self.authority.intermediate();
        let issuer_der = issuer.der().clone();
        let parts = x509::Certificate::decode(&issuer_der).unwrap();
        let sha1 = |bytes: &[u8]| wrap(tag::OCTET_STRING, ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref());
        let serial = x509::Certificate::decode(self.leaf).unwrap().serial;
        let id = sequence(&[
            &sequence(&[SHA1]),
            &sha1(&wrap(tag::SEQUENCE, parts.subject)),
            &sha1(x509::Key::decode(parts.key).unwrap().bits),
            &wrap(tag::INTEGER, serial),
        ]);
        let status = match self.status {
            Status::Good => vec![0x80, 0],
            Status::Unknown => vec![0x82, 0],
            // Because of a compromised key.
            Status::Revoked => explicit(1, &[instant(-5000), explicit(0, &[tag::ENUMERATED, 1, 1])].concat()),
        };
        let next = self.next_update.map(|at| explicit(0, &instant(at))).unwrap_or_default();
        let answer = sequence(&[&id, &status, &instant(self.this_update), &next]);

        let delegated = |purpose| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(rcgen::DnType::CommonName, "Lab Responder");
            params.extended_key_usages = vec![purpose];
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, issuer).unwrap().der().clone();
            (key, certificate)
        };
        let purpose = match self.signer {
            Signer::Issuer | Signer::Impostor => None,
            Signer::Delegate => Some(ExtendedKeyUsagePurpose::OcspSigning),
            Signer::Servant => Some(ExtendedKeyUsagePurpose::ServerAuth),
        };
        let (mut key, certificate) = purpose.map(delegated).unzip();
        if matches!(self.signer, Signer::Impostor) {
            key = Some(KeyPair::generate().unwrap());
        }
        let name = certificate.as_ref().map_or(parts.subject, |own| x509::Certificate::decode(own).unwrap().subject);
        let signed = sequence(&[&explicit(1, &wrap(tag::SEQUENCE, name)), &instant(self.this_update), &sequence(&[&answer])]);
        let signature = key.as_ref().unwrap_or(issuer.key()).sign(&signed).unwrap();
        let certificates = certificate.map(|own| explicit(0, &sequence(&[&own]))).unwrap_or_default();
        let basic = sequence(&[&signed, &sequence(&[ECDSA_SHA256]), &wrap(tag::BIT_STRING, &[&[0], &*signature].concat()), &certificates]);
        let bytes = sequence(&[BASIC, &wrap(tag::OCTET_STRING, &basic)]);
        sequence(&[&[tag::ENUMERATED, 1, 0], &explicit(0, &bytes)])
    }
}

/// An instant, in seconds from now.
fn instant(from_now: i64) -> Vec<u8> {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let at = prost_types::Timestamp { seconds: i64::try_from(now).unwrap() + from_now, nanos: 0 };
    let mut text: String = at.to_string().chars().filter(char::is_ascii_digit).collect();
    text.push('Z');
    wrap(tag::GENERALIZED_TIME, text.as_bytes())
}
