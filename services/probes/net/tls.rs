//! TLS handshakes that keep what was presented, whatever comes of them.

use std::{
    future::poll_fn,
    io, mem,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, SupportedProtocolVersion,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use x509_parser::{
    prelude::{FromDer as _, X509Certificate},
    time::ASN1Time,
};

/// How a handshake is done.
#[derive(Debug)]
pub struct Settings {
    /// The implementation of the algorithms.
    pub provider: Arc<CryptoProvider>,
    /// The versions to offer.
    pub versions: &'static [&'static SupportedProtocolVersion],
    /// Who judges the chain. None: nobody does.
    pub judge: Option<Arc<Judge>>,
    /// The client's own chain and key.
    pub identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

/// What the server presented, and what the judge made of it.
#[derive(Debug)]
pub struct Presented {
    /// The chain as sent, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// When it was judged.
    pub at: UnixTime,
    /// The judgement; good also where there is no judge.
    pub verdict: Result<(), CertificateError>,
}

/// What a handshake with these settings has presented so far.
#[derive(Debug)]
pub struct Witness(Arc<Recorder>);

impl Witness {
    /// What the server has presented since this was last asked: once, as soon as it has shown its chain.
    pub fn take(&self) -> Option<Presented> {
        self.0.take()
    }
}

/// A client's side of TLS that offers `alpn`, and a witness of its one handshake. A rejected chain does not end it, so that version and cipher
/// become known: **the caller must look at the verdict**. Only where there is a client certificate to protect does the rejection end the
/// handshake.
pub fn configure(settings: &Settings, alpn: &[&[u8]]) -> Result<(ClientConfig, Witness), HandshakeError> {
    let recorder = Arc::new(Recorder {
        provider: settings.provider.clone(),
        judge: settings.judge.clone(),
        aborts: settings.identity.is_some(),
        presented: Mutex::default(),
    });
    let builder = ClientConfig::builder_with_provider(settings.provider.clone())
        .with_protocol_versions(settings.versions)
        .map_err(HandshakeError::Settings)?
        .dangerous()
        .with_custom_certificate_verifier(recorder.clone());
    let mut config = match &settings.identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(HandshakeError::Settings)?,
        None => builder.with_no_client_auth(),
    };
    // An abbreviated handshake would be a faster one, and show no certificate.
    config.resumption = Resumption::disabled();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok((config, Witness(recorder)))
}

/// Shakes hands on `stream` as a client that asks for `name` (a bare address is not sent as SNI, RFC 6066 section 3) and offers `alpn`, as
/// [`configure`] says. `presented` is called once, as soon as the server has shown its chain, so that it is kept even where the handshake stalls
/// after it.
pub async fn handshake(
    stream: TcpStream,
    settings: &Settings,
    name: ServerName<'static>,
    alpn: &[&[u8]],
    mut presented: impl FnMut(Presented),
) -> Result<TlsStream<TcpStream>, HandshakeError> {
    let (config, witness) = configure(settings, alpn)?;
    let mut shaking = pin!(TlsConnector::from(Arc::new(config)).connect(name, stream));
    poll_fn(|cx| {
        let polled = shaking.as_mut().poll(cx);
        if let Some(seen) = witness.take() {
            presented(seen);
        }
        polled
    })
    .await
    .map_err(HandshakeError::Wire)
}

/// Judges chains.
#[derive(Debug)]
pub struct Judge {
    verifier: Arc<WebPkiServerVerifier>,
    /// Certificates that are trusted as they are, also as a server's own: one made with `openssl req -x509` calls itself an authority,
    /// and webpki takes no authority for a server.
    trusted: Vec<CertificateDer<'static>>,
}

impl Judge {
    /// A judge who trusts these authorities. An error says what is wrong with them.
    pub fn new(roots: RootCertStore, trusted: Vec<CertificateDer<'static>>, provider: Arc<CryptoProvider>) -> Result<Self, String> {
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(|error| error.to_string())?;
        Ok(Self { verifier, trusted })
    }

    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<(), Error> {
        let error = match self.verifier.verify_server_cert(leaf, intermediates, name, ocsp, now) {
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

/// Why there was no handshake.
#[derive(Debug)]
pub enum HandshakeError {
    /// The settings don't fit together: the client's key is not that of its certificate.
    Settings(Error),
    /// The server, or the way to it; a [`rustls::Error`] is inside where the protocol was at fault.
    Wire(io::Error),
}

/// Writes down the chain, and what the judge says.
#[derive(Debug)]
struct Recorder {
    provider: Arc<CryptoProvider>,
    judge: Option<Arc<Judge>>,
    /// Whether a rejection ends the handshake, before a certificate of ours is shown to a stranger.
    aborts: bool,
    presented: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    fresh: Option<Presented>,
    trusted: bool,
}

impl Recorder {
    fn take(&self) -> Option<Presented> {
        mem::take(&mut self.presented.lock().unwrap_or_else(PoisonError::into_inner).fresh)
    }

    /// Whether signatures of the handshake count: a key that nobody trusts, or that can't be read, proves nothing.
    fn is_trusted(&self) -> bool {
        self.presented.lock().unwrap_or_else(PoisonError::into_inner).trusted
    }
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judgement = self.judge.as_ref().map(|judge| judge.judge(leaf, intermediates, name, ocsp, now));
        let verdict = match &judgement {
            None | Some(Ok(())) => Ok(()),
            Some(Err(Error::InvalidCertificate(error))) => Err(error.clone()),
            Some(Err(_)) => Err(CertificateError::BadEncoding),
        };
        let chain = std::iter::once(leaf).chain(intermediates).map(|certificate| certificate.clone().into_owned()).collect();
        {
            let mut record = self.presented.lock().unwrap_or_else(PoisonError::into_inner);
            record.trusted = matches!(judgement, Some(Ok(())));
            record.fresh = Some(Presented { chain, at: now, verdict });
        }
        match judgement {
            Some(Err(error)) if self.aborts => Err(error),
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if !self.is_trusted() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls12_signature(message, leaf, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if !self.is_trusted() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls13_signature(message, leaf, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
