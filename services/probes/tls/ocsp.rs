//! Stapled OCSP responses (RFC 6960), judged.

use ring::digest;
use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, TrustAnchor, UnixTime},
};
use vantage_contract::v1::{OcspStaple, OcspStatus};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::words::date;
use crate::wire::{
    der::{Malformed, tag, wrap},
    ocsp::{Answer, Responder, Response, Status},
    x509::{Certificate, Key},
};

/// How far a responder's clock may be ahead of ours, in seconds.
const MAX_AHEAD: i64 = 300;

/// How long, in seconds, a response counts that does not say itself how long: new ones are made each week at least.
const MAX_AGE: i64 = 7 * 86_400;

/// The most certificates that are looked at to find an issuer, or a responder's own.
const MAX_TRIED: usize = 16;

/// id-sha1, id-sha256, id-sha384, id-sha512.
const HASHES: [(&[u8], &digest::Algorithm); 4] = [
    (&[0x2b, 0x0e, 3, 2, 0x1a], &digest::SHA1_FOR_LEGACY_USE_ONLY),
    (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1], &digest::SHA256),
    (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2], &digest::SHA384),
    (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3], &digest::SHA512),
];

/// Somebody who signs: a name and a key, as certificates and trust anchors have them.
#[derive(Debug, Clone, Copy)]
struct Signer<'d> {
    name: &'d [u8],
    key: Key<'d>,
}

/// When a response counts, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Force {
    from: i64,
    until: i64,
}

impl Force {
    pub(super) fn holds(&self, now: UnixTime) -> bool {
        (self.from..=self.until).contains(&i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
    }
}

/// Says what a staple says of the first certificate of the chain, whether that counts at `now`, and, if so, for how long. Its issuer is looked for
/// in the chain and among the `roots`.
pub(super) fn judge(
    staple: &[u8],
    chain: &[CertificateDer<'_>],
    roots: &[TrustAnchor<'_>],
    provider: &CryptoProvider,
    now: UnixTime,
) -> (OcspStaple, Option<Force>) {
    let mut told = OcspStaple::default();
    match look(staple, chain, roots, provider, now, &mut told) {
        Ok(force) => {
            told.verified = true;
            (told, Some(force))
        }
        Err(why) => {
            told.error = why;
            (told, None)
        }
    }
}

fn look(
    staple: &[u8],
    chain: &[CertificateDer<'_>],
    roots: &[TrustAnchor<'_>],
    provider: &CryptoProvider,
    now: UnixTime,
    told: &mut OcspStaple,
) -> Result<Force, String> {
    let response = Response::decode(staple).map_err(|refusal| refusal.to_string())?;
    let leaf = chain.first().and_then(|leaf| Certificate::decode(leaf).ok()).ok_or("the certificate can't be decoded")?;
    let answer = response.answers.iter().find(|answer| is_about(answer, &leaf)).ok_or("it is not about this certificate")?;
    tell(answer, told);

    let issuers = issuers(&leaf, chain, roots);
    if issuers.is_empty() {
        return Err("the issuer's key is not known: its certificate was not sent, and it is not trusted".to_owned());
    }
    let issuer =
        issuers.iter().find(|issuer| is_key_of(answer, issuer)).ok_or("it is about a certificate of an issuer with another key")?;
    verify(provider, issuer.key, leaf.algorithm, leaf.signed, leaf.signature)
        .map_err(|why| format!("the certificate is not its issuer's: {why}"))?;
    let responder = verify_response(&response, issuer, provider, now)?;
    let answer = in_force(answer, i64::try_from(now.as_secs()).unwrap_or(i64::MAX))?;
    Ok(Force { from: answer.from, until: answer.until.min(responder) })
}

/// The certificate's serial number and the name of its issuer.
fn is_about(answer: &Answer<'_>, leaf: &Certificate<'_>) -> bool {
    answer.serial == leaf.serial && hashes_to(answer.hash, &wrap(tag::SEQUENCE, leaf.issuer), answer.issuer_name_hash)
}

fn is_key_of(answer: &Answer<'_>, issuer: &Signer<'_>) -> bool {
    hashes_to(answer.hash, issuer.key.bits, answer.issuer_key_hash)
}

fn hashes_to(algorithm: &[u8], bytes: &[u8], hash: &[u8]) -> bool {
    let known = HASHES.iter().find(|(identifier, _)| *identifier == algorithm);
    known.is_some_and(|(_, algorithm)| digest::digest(algorithm, bytes).as_ref() == hash)
}

fn tell(answer: &Answer<'_>, told: &mut OcspStaple) {
    let instant = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    told.status = match answer.status {
        Status::Good => OcspStatus::Good,
        Status::Revoked(_) => OcspStatus::Revoked,
        Status::Unknown => OcspStatus::Unknown,
    }
    .into();
    told.this_update_time = instant(answer.this_update);
    told.next_update_time = answer.next_update.and_then(instant);
    if let Status::Revoked(at) = answer.status {
        told.revocation_time = instant(at);
    }
}

/// All who have the name of the leaf's issuer.
fn issuers<'d>(leaf: &Certificate<'_>, chain: &'d [CertificateDer<'_>], roots: &'d [TrustAnchor<'_>]) -> Vec<Signer<'d>> {
    let sent = chain.iter().skip(1).take(MAX_TRIED).filter_map(|certificate| signer(certificate).ok());
    let trusted = roots.iter().filter_map(|root| {
        let key = Key::decode(&root.subject_public_key_info).ok()?;
        Some(Signer { name: &root.subject, key })
    });
    sent.chain(trusted).filter(|signer| signer.name == leaf.issuer).collect()
}

fn signer(der: &[u8]) -> Result<Signer<'_>, Malformed> {
    let certificate = Certificate::decode(der)?;
    Ok(Signer { name: certificate.subject, key: Key::decode(certificate.key)? })
}

/// Signed by the issuer, or by whom it lets sign (RFC 6960 section 4.2.2.2): until when.
fn verify_response(response: &Response<'_>, issuer: &Signer<'_>, provider: &CryptoProvider, now: UnixTime) -> Result<i64, String> {
    let is_responder = |signer: &Signer<'_>| match response.responder {
        Responder::Name(name) => signer.name == name,
        Responder::Key(hash) => digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, signer.key.bits).as_ref() == hash,
    };
    let check =
        |key| verify(provider, key, response.algorithm, response.signed, response.signature).map_err(|why| format!("its signature: {why}"));
    if is_responder(issuer) {
        return check(issuer.key).map(|()| i64::MAX);
    }
    let sent = response.certificates.iter().take(MAX_TRIED);
    let (der, delegate) = sent
        .filter_map(|der| Some((*der, signer(der).ok()?)))
        .find(|(_, signer)| is_responder(signer))
        .ok_or("it is signed neither by the issuer nor by one whose certificate comes with it")?;
    let until = may_sign(der, issuer, provider, now)?;
    check(delegate.key).map(|()| until)
}

/// Whether the issuer lets this certificate's key sign responses, and until when.
fn may_sign(der: &[u8], issuer: &Signer<'_>, provider: &CryptoProvider, now: UnixTime) -> Result<i64, String> {
    let parts = Certificate::decode(der).map_err(|_| "the responder's certificate can't be decoded")?;
    if parts.issuer != issuer.name {
        return Err("the responder's certificate is of another issuer".to_owned());
    }
    verify(provider, issuer.key, parts.algorithm, parts.signed, parts.signature)
        .map_err(|why| format!("the responder's certificate: {why}"))?;
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| "the responder's certificate can't be decoded")?;
    if !certificate.extended_key_usage().is_ok_and(|usage| usage.is_some_and(|usage| usage.value.ocsp_signing)) {
        return Err("the responder's certificate is not meant for signing OCSP responses".to_owned());
    }
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    if !(validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now) {
        return Err("the responder's certificate has expired, or is not valid yet".to_owned());
    }
    Ok(validity.not_after.timestamp())
}

/// In seconds since 1970.
fn in_force(answer: &Answer<'_>, now: i64) -> Result<Force, String> {
    let spell = |at: i64| date(UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(at).unwrap_or(0))));
    let from = answer.this_update.saturating_sub(MAX_AHEAD);
    let until = answer.next_update.unwrap_or(answer.this_update.saturating_add(MAX_AGE));
    if now < from {
        return Err(format!("it is in force only from {}", spell(answer.this_update)));
    }
    match answer.next_update {
        _ if now <= until => Ok(Force { from, until }),
        Some(end) => Err(format!("it was in force until {}", spell(end))),
        None => Err(format!("it is of {} and does not say until when it is in force", spell(answer.this_update))),
    }
}

/// Checks a signature over `message`, with one of the algorithms that handshakes may use.
fn verify(provider: &CryptoProvider, key: Key<'_>, algorithm: &[u8], message: &[u8], signature: &[u8]) -> Result<(), &'static str> {
    let known = provider.signature_verification_algorithms.all.iter();
    let fitting =
        known.filter(|known| known.signature_alg_id().as_ref() == algorithm && known.public_key_alg_id().as_ref() == key.algorithm);
    let mut tried = fitting.map(|known| known.verify_signature(key.bits, message, signature)).peekable();
    if tried.peek().is_none() {
        return Err("it is made with an algorithm that is not accepted");
    }
    if tried.any(|verdict| verdict.is_ok()) { Ok(()) } else { Err("it is wrong") }
}
