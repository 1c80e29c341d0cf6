//! TLS handshakes that keep what was presented, whatever comes of them.

mod judge;
mod known;
mod session;

use std::{
    future::poll_fn,
    io, mem,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme, SupportedProtocolVersion,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

pub use judge::Judge;
use session::Sessions;

/// How handshakes are done.
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
    /// The stapled OCSP response. Empty: none.
    pub staple: Vec<u8>,
    /// When it was judged.
    pub at: UnixTime,
    /// The judgement; good also where there is no judge.
    pub verdict: Result<(), CertificateError>,
}

/// What a handshake has presented so far.
#[derive(Debug)]
pub struct Witness(Arc<Recorder>);

impl Witness {
    /// What the server has presented since this was last asked: once, as soon as it has shown its chain.
    pub fn take(&self) -> Option<Presented> {
        self.0.take()
    }
}

/// The client's side of TLS with settings that are made once for many handshakes.
#[derive(Debug)]
pub struct Client {
    template: ClientConfig,
    judge: Option<Arc<Judge>>,
    /// Whether a rejection ends the handshake, before a certificate of ours is shown to a stranger.
    aborts: bool,
}

impl Client {
    /// A client with these settings; an error says that they don't fit together: the key is not that of the certificate.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let Settings { provider, versions, judge, identity } = settings;
        let aborts = identity.is_some();
        let recorder = Recorder::new(provider.clone(), judge.clone(), aborts, None);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .dangerous()
            .with_custom_certificate_verifier(recorder);
        let mut template = match identity {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
            None => builder.with_no_client_auth(),
        };
        // An abbreviated handshake would be a faster one, and show no certificate.
        template.resumption = Resumption::disabled();
        Ok(Self { template, judge, aborts })
    }

    /// Who judges the chains. None: nobody does.
    pub fn judge(&self) -> Option<&Judge> {
        self.judge.as_deref()
    }

    /// The implementation of the algorithms.
    pub fn provider(&self) -> &CryptoProvider {
        self.template.crypto_provider()
    }

    /// For handshakes one after the other that have nothing to do with those before; with `keeps`, the sessions that the server offers are kept,
    /// and the next handshake asks to resume the last.
    pub fn lane(&self, keeps: bool) -> Lane {
        let sessions = keeps.then(Arc::<Sessions>::default);
        let recorder = Recorder::new(self.template.crypto_provider().clone(), self.judge.clone(), self.aborts, sessions.clone());
        let mut config = self.template.clone();
        config.dangerous().set_certificate_verifier(recorder.clone());
        if let Some(sessions) = &sessions {
            config.resumption = Resumption::store(sessions.clone());
        }
        Lane { config: Arc::new(config), recorder, sessions }
    }

    /// A configuration that offers `alpn`, for protocols that carry TLS in their own way, and the witness of its one handshake.
    pub fn configure(&self, alpn: &[&[u8]]) -> (ClientConfig, Witness) {
        let Lane { config, recorder, .. } = self.lane(false);
        let mut config = Arc::unwrap_or_clone(config);
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        (config, Witness(recorder))
    }
}

/// Where handshakes are done, one after the other.
#[derive(Debug)]
pub struct Lane {
    config: Arc<ClientConfig>,
    recorder: Arc<Recorder>,
    /// Those that are kept, if they are to be.
    sessions: Option<Arc<Sessions>>,
}

impl Lane {
    /// Shakes hands on `stream` as a client that asks for `name` (a bare address is not sent as SNI, RFC 6066 section 3) and offers `alpn`.
    /// `presented` is called once, as soon as the server has shown its chain, so that it is kept even where the handshake stalls after it; not
    /// where a session is resumed. A rejected chain does not end the handshake, so that version and cipher become known: **the caller must look at
    /// the verdict**. Only where there is a client certificate to protect does the rejection end it. A [`rustls::Error`] is inside the error
    /// where the protocol was at fault.
    pub async fn handshake(
        &self,
        stream: TcpStream,
        name: ServerName<'static>,
        alpn: Vec<Vec<u8>>,
        mut presented: impl FnMut(Presented),
    ) -> io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(self.config.clone());
        let mut shaking = pin!(connector.with_alpn(alpn).connect(name, stream));
        poll_fn(|cx| {
            let polled = shaking.as_mut().poll(cx);
            if let Some(seen) = self.recorder.take() {
                presented(seen);
            }
            polled
        })
        .await
    }

    /// Forgets the sessions.
    pub fn forget(&self) {
        if let Some(sessions) = &self.sessions {
            sessions.forget();
        }
    }

    /// Sees whether there is a session to resume.
    pub fn sessions(&self) -> Option<Arc<Sessions>> {
        self.sessions.clone()
    }
}

/// Writes down the chain, and what the judge says.
#[derive(Debug)]
struct Recorder {
    provider: Arc<CryptoProvider>,
    judge: Option<Arc<Judge>>,
    /// Whether a rejection ends the handshake.
    aborts: bool,
    /// Those that the server has offered before: one that shows its chain has none of them any more.
    sessions: Option<Arc<Sessions>>,
    presented: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    fresh: Option<Presented>,
    trusted: bool,
}

impl Recorder {
    fn new(provider: Arc<CryptoProvider>, judge: Option<Arc<Judge>>, aborts: bool, sessions: Option<Arc<Sessions>>) -> Arc<Self> {
        Arc::new(Self { provider, judge, aborts, sessions, presented: Mutex::default() })
    }

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
        staple: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(sessions) = &self.sessions {
            sessions.forget();
        }
        let judgement = self.judge.as_ref().map(|judge| judge.judge(leaf, intermediates, name, now));
        let verdict = match &judgement {
            None | Some(Ok(())) => Ok(()),
            Some(Err(Error::InvalidCertificate(error))) => Err(error.clone()),
            Some(Err(_)) => Err(CertificateError::BadEncoding),
        };
        let chain = std::iter::once(leaf).chain(intermediates).map(|certificate| certificate.clone().into_owned()).collect();
        {
            let mut record = self.presented.lock().unwrap_or_else(PoisonError::into_inner);
            record.trusted = matches!(judgement, Some(Ok(())));
            record.fresh = Some(Presented { chain, staple: staple.to_vec(), at: now, verdict });
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
