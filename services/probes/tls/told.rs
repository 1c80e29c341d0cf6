//! What is told of a chain and of its staple, kept for the next run: servers present the same for months, and the staple for days.

use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, TrustAnchor, UnixTime},
};
use vantage_contract::v1::{Certificate, OcspStaple};

use super::{
    certificate,
    ocsp::{self, Force},
};

/// The most certificates of a chain that are reported.
const MAX_CHAIN: usize = 16;

/// What is told of a chain and of its staple.
pub(super) struct Told {
    chain: Vec<CertificateDer<'static>>,
    pub(super) certificates: Vec<Certificate>,
    /// The staple's bytes, what they say, and when that holds.
    staple: Option<(Vec<u8>, OcspStaple, Option<Force>)>,
}

impl Told {
    pub(super) fn of(chain: Vec<CertificateDer<'static>>) -> Self {
        let certificates = chain.iter().take(MAX_CHAIN).map(certificate::to_proto).collect();
        Self { chain, certificates, staple: None }
    }

    /// Whether it is about this chain.
    pub(super) fn is_of(&self, chain: &[CertificateDer<'_>]) -> bool {
        self.chain == chain
    }

    /// What the staple says at `now`; signatures that were found good are good for as long as what they are over is in force.
    pub(super) fn staple(&mut self, bytes: &[u8], roots: &[TrustAnchor<'_>], provider: &CryptoProvider, now: UnixTime) -> OcspStaple {
        if let Some((known, told, Some(force))) = &self.staple
            && known == bytes
            && force.holds(now)
        {
            return told.clone();
        }
        let (told, force) = ocsp::judge(bytes, &self.chain, roots, provider, now);
        self.staple = Some((bytes.to_vec(), told.clone(), force));
        told
    }
}
