//! Who judges chains.

use std::{sync::Arc, time::Duration};

use rustls::{
    CertificateError, Error, OtherError, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _, verify_server_name},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime},
    server::ParsedCertificate,
};
use x509_parser::{
    prelude::{FromDer as _, X509Certificate},
    time::ASN1Time,
};

use super::known::remembering;
use crate::wire::x509;

/// How many certificates of one name may be sent: each way through them is tried, and what hundreds cost is seconds.
const MAX_NAMESAKES: usize = 8;

/// There are more. Spelt as webpki spells its own bounds.
#[derive(Debug, thiserror::Error)]
#[error("MaximumNamesakesExceeded")]
struct TooManyNamesakes;

/// Judges chains.
#[derive(Debug)]
pub struct Judge {
    verifier: Arc<WebPkiServerVerifier>,
    roots: Arc<RootCertStore>,
    /// Certificates that are trusted as they are, also as a server's own: one made with `openssl req -x509` calls itself an authority,
    /// and webpki takes no authority for a server.
    trusted: Vec<CertificateDer<'static>>,
}

impl Judge {
    /// A judge who trusts these authorities. An error says what is wrong with them.
    pub fn new(roots: RootCertStore, trusted: Vec<CertificateDer<'static>>, provider: Arc<CryptoProvider>) -> Result<Self, String> {
        let roots = Arc::new(roots);
        let algorithms = remembering(provider.signature_verification_algorithms);
        let provider = Arc::new(CryptoProvider { signature_verification_algorithms: algorithms, ..CryptoProvider::clone(&provider) });
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider).build().map_err(|error| error.to_string())?;
        Ok(Self { verifier, roots, trusted })
    }

    /// The authorities.
    pub fn roots(&self) -> &[TrustAnchor<'static>] {
        &self.roots.roots
    }

    pub(super) fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        if most_namesakes(intermediates) > MAX_NAMESAKES {
            return Err(CertificateError::Other(OtherError(Arc::new(TooManyNamesakes))).into());
        }
        let error = match self.verifier.verify_server_cert(leaf, intermediates, name, &[], now) {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let is_other = matches!(error, Error::InvalidCertificate(CertificateError::Other(_) | CertificateError::UnknownIssuer));
        if !is_other || !self.trusted.iter().any(|trusted| trusted.as_ref() == leaf.as_ref()) {
            return Err(error);
        }
        verify_server_name(&ParsedCertificate::try_from(leaf)?, name)?;
        let Ok((_, parsed)) = X509Certificate::from_der(leaf) else { return Err(error) };
        let seconds = |time: ASN1Time| UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0)));
        let (not_before, not_after) = (seconds(parsed.validity().not_before), seconds(parsed.validity().not_after));
        if now < not_before {
            return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
        }
        if now > not_after {
            return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
        }
        Ok(())
    }
}

/// How many certificates have the name that most have.
fn most_namesakes(certificates: &[CertificateDer<'_>]) -> usize {
    if certificates.len() <= MAX_NAMESAKES {
        return certificates.len();
    }
    let mut names: Vec<_> = certificates.iter().filter_map(|der| x509::Certificate::decode(der).ok()).map(|one| one.subject).collect();
    names.sort_unstable();
    names.chunk_by(|one, other| one == other).map(<[_]>::len).max().unwrap_or(0)
}
