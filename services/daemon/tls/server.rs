//! The server's side, read from files.

use std::{path::PathBuf, sync::Arc, time::SystemTime};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, UnixTime},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::{MinVersion, certificate::Facts, files, provider};
use crate::exit::{Exit, Fatal};

/// Where a server's certificates are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFiles {
    /// Our certificate chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities whose certificates callers have to show; none: they need none.
    pub client_ca: Option<PathBuf>,
    /// The lowest version that is spoken.
    pub min_version: MinVersion,
}

impl ServerFiles {
    /// All of them.
    pub(crate) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()].into_iter().flatten().cloned().collect::<Vec<_>>().into_iter()
    }
}

/// What was read from them.
#[derive(Debug)]
pub(crate) struct ServerTls {
    /// For gRPC: who does not show a certificate of the authorities is refused in the handshake.
    pub(crate) grpc: Arc<ServerConfig>,
    /// For pages, health and figures: who shows none is let in, to ask whether the process is alive.
    pub(crate) http: Arc<ServerConfig>,
    /// Who judges callers; none: they need no certificate.
    pub(crate) verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// Our own certificate.
    pub(crate) own: Facts,
    /// The authorities.
    pub(crate) authorities: Vec<Facts>,
}

impl ServerTls {
    pub(crate) fn load(of: &ServerFiles) -> Result<Self, Fatal> {
        let wrong = |why: String| Fatal::new(Exit::Config, why);
        let chain = files::certificates(&of.certificate)?;
        let facts = |der: &CertificateDer<'_>, path: &PathBuf| Facts::read(der).map_err(|why| wrong(format!("{}: {why}", path.display())));
        let own = facts(&chain[0], &of.certificate)?;
        if !own.for_servers {
            return Err(wrong(format!("{}: this certificate is not one for servers (extended key usage)", of.certificate.display())));
        }
        files::warn_if_open(&of.key);
        let key = files::key(&of.key)?;
        let (strict, open, authorities) = match &of.client_ca {
            None => (None, None, Vec::new()),
            Some(path) => {
                let (roots, certificates) = files::authorities(path)?;
                let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                let broken = |error| wrong(format!("{}: {error}", path.display()));
                let strict = builder.clone().build().map_err(broken)?;
                let open = builder.allow_unauthenticated().build().map_err(broken)?;
                let authorities = certificates.iter().map(|der| facts(der, path)).collect::<Result<_, _>>()?;
                (Some(strict), Some(open), authorities)
            }
        };
        let build = |verifier: Option<Arc<dyn ClientCertVerifier>>, protocol: &[u8]| {
            let versions = ServerConfig::builder_with_provider(provider()).with_protocol_versions(of.min_version.versions());
            let builder = versions.map_err(|error| error.to_string())?;
            let builder = match verifier {
                Some(verifier) => builder.with_client_cert_verifier(verifier),
                None => builder.with_no_client_auth(),
            };
            let mut config = builder.with_single_cert(chain.clone(), key.clone_key()).map_err(|error| error.to_string())?;
            config.alpn_protocols = vec![protocol.to_vec()];
            // A resumed session would be judged by the certificate of long ago.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            Ok(Arc::new(config))
        };
        let misfit = |why: String| wrong(format!("{} and {}: {why}", of.certificate.display(), of.key.display()));
        Ok(Self {
            grpc: build(strict.clone(), b"h2").map_err(misfit)?,
            http: build(open, b"http/1.1").map_err(misfit)?,
            verifier: strict,
            own,
            authorities,
        })
    }

    /// Whether a client's chain is accepted at this time. The error says why not.
    pub(crate) fn verify(&self, chain: &[CertificateDer<'static>], now: SystemTime) -> Result<(), String> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        let Some((end, between)) = chain.split_first() else { return Err("there is no certificate".into()) };
        let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        verifier.verify_client_cert(end, between, now).map(drop).map_err(|error| super::refused_by_us(&error))
    }
}
