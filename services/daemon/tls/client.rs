//! The client's side: a connector that reads its files when it is made, says truthfully why TLS failed, and ends a connection whose server is no
//! longer trusted.

use std::{
    path::PathBuf,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use http::Uri;
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, InvalidMessage, PeerIncompatible, RootCertStore,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier as _},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::{MinVersion, certificate::Facts, files, provider, refused_by_us, told_by_peer, wire::Wire, words::is_about_certificate};
use crate::{
    clock,
    exit::{Exit, Fatal},
};

/// How often it is looked whether the server of an open connection is trusted still.
const LOOK: Duration = Duration::from_secs(30);

/// Where a client's certificates are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// The authorities that servers are judged by; none: the system's.
    pub ca: Option<PathBuf>,
    /// Our own certificate chain and its key, for servers that want to know who asks.
    pub own: Option<(PathBuf, PathBuf)>,
    /// The name that the server's certificate must have; none: the host that is dialled.
    pub server_name: Option<String>,
    /// The lowest version that is spoken.
    pub min_version: MinVersion,
}

impl ClientFiles {
    /// What the files have now, with what each certificate is for; what can't be read is left out.
    pub fn certificates(&self) -> Vec<(&'static str, Facts)> {
        let own = self.own.iter().flat_map(|(path, _)| files::certificates(path)).flat_map(|chain| chain.into_iter().take(1));
        let ca = self.ca.iter().flat_map(|path| files::certificates(path)).flatten();
        let named = own.map(|der| ("client", der)).chain(ca.map(|der| ("ca", der)));
        named.filter_map(|(usage, der)| Some((usage, Facts::read(&der).ok()?))).collect()
    }
}

/// What was read from them.
#[derive(Debug, Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    verifier: Arc<WebPkiServerVerifier>,
    name: ServerName<'static>,
    ca: Option<PathBuf>,
}

impl ClientTls {
    /// Reads the files, for a server at this host.
    pub fn load(of: &ClientFiles, host: &str) -> Result<Self, Fatal> {
        let wrong = |why: String| Fatal::new(Exit::Config, why);
        let roots = match &of.ca {
            Some(path) => files::authorities(path)?.0,
            None => system_roots()?,
        };
        let verifier = verifier(roots)?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(of.min_version.versions())
            .map_err(|error| wrong(error.to_string()))?
            .with_webpki_verifier(Arc::clone(&verifier));
        let mut config = match &of.own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = files::certificates(certificate)?;
                files::warn_if_open(key);
                let misfit = |error: Error| wrong(format!("{} and {}: {error}", certificate.display(), key.display()));
                builder.with_client_auth_cert(chain, files::key(key)?).map_err(misfit)?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session would show the certificate of long ago.
        config.resumption = Resumption::disabled();
        let name = of.server_name.as_deref().unwrap_or(host).trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(name.clone()).map_err(|_| wrong(format!("{name:?} is no name that a certificate can have")))?;
        Ok(Self { config: Arc::new(config), verifier, name, ca: of.ca.clone() })
    }
}

fn verifier(roots: RootCertStore) -> Result<Arc<WebPkiServerVerifier>, Fatal> {
    let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    built.map_err(|error| Fatal::new(Exit::Config, format!("the authorities: {error}")))
}

fn system_roots() -> Result<RootCertStore, Fatal> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(Fatal::new(Exit::Config, "this system has no authorities' certificates: give a file with the one to trust"));
    }
    Ok(roots)
}

/// What went wrong with TLS, as far as that is for people to cure.
#[derive(Debug, Clone, PartialEq)]
pub enum Trouble {
    /// We did not accept the server's certificate.
    Refused(Box<CertificateError>),
    /// The server did not accept us.
    RefusedUs(AlertDescription),
    /// There is no version or cipher that both speak.
    Incompatible(String),
    /// What listens there does not speak TLS, and we do.
    NotTls,
    /// What listens there speaks TLS, and we don't.
    OnlyTls,
    /// What listens there speaks no HTTP/2 above TLS.
    NotGrpc,
}

/// How the cures are called where somebody is told of a trouble.
#[derive(Debug, Clone, Copy)]
pub struct Cures {
    /// Who was refused: "this manager".
    pub who: &'static str,
    /// What names the authorities.
    pub ca: &'static str,
    /// What names our certificate and key.
    pub own: &'static str,
    /// What names the server's name.
    pub server_name: &'static str,
    /// What allows older versions of TLS here; none: nothing does.
    pub min_version: Option<&'static str>,
}

impl Trouble {
    fn of(error: &Error) -> Option<Self> {
        Some(match error {
            Error::InvalidCertificate(error) => Self::Refused(Box::new(error.clone())),
            Error::AlertReceived(alert) if is_about_certificate(*alert) => Self::RefusedUs(*alert),
            Error::AlertReceived(AlertDescription::NoApplicationProtocol) | Error::NoApplicationProtocol => Self::NotGrpc,
            Error::AlertReceived(alert @ (AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure)) => {
                Self::Incompatible(told_by_peer(*alert))
            }
            Error::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13 | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            ) => Self::Incompatible("it speaks no version of TLS that is allowed here".to_owned()),
            Error::PeerIncompatible(_) => Self::Incompatible(error.to_string()),
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion | InvalidMessage::MessageTooLarge,
            ) => Self::NotTls,
            _ => return None,
        })
    }

    /// What went wrong and what cures it.
    pub fn sentence(&self, cures: &Cures) -> String {
        let Cures { who, ca, own, server_name, min_version } = cures;
        match self {
            Self::Refused(error) => {
                let told = refused_by_us(&Error::InvalidCertificate((**error).clone()));
                let told = told.trim_start_matches("its certificate ");
                let cure = match **error {
                    CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                        format!("give the authority that signed it by {ca}")
                    }
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                        format!("dial it by a name that it has, or say which that is by {server_name}")
                    }
                    CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                        "renew it there (`vantage-manager certs renew`, and its --certificate-file and --key-file)".to_owned()
                    }
                    CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                        "set the clock right, here or there".to_owned()
                    }
                    _ => "look at its --certificate-file".to_owned(),
                };
                format!("the monitor's certificate {told}: {cure}")
            }
            Self::RefusedUs(alert) => {
                let cure = match alert {
                    AlertDescription::CertificateRequired => {
                        return format!("the monitor wants a certificate, and {who} shows none: give {own}");
                    }
                    AlertDescription::UnknownCA | AlertDescription::DecryptError => {
                        format!("give one by {own} that an authority of its --client-ca-file has signed, or add our authority there")
                    }
                    AlertDescription::CertificateExpired => {
                        format!("renew the one of {own} (`vantage-manager certs renew`), or set the clocks right")
                    }
                    AlertDescription::UnsupportedCertificate => {
                        format!("give one for clients by {own}, as `vantage-manager certs init` makes manager.pem and admin.pem")
                    }
                    _ => format!("see its log, and what {own} gives"),
                };
                format!("the monitor refused the certificate of {who}: {}: {cure}", told_by_peer(*alert))
            }
            Self::Incompatible(why) => {
                let allowed =
                    min_version.map(|here| format!(", or allow 1.2 by {here} here and tls.min_version there")).unwrap_or_default();
                format!("the handshake of TLS failed: {why}: let both speak TLS 1.3{allowed}")
            }
            Self::NotTls => {
                "what listens there does not speak TLS: write http://, or give that monitor --certificate-file and --key-file".to_owned()
            }
            Self::OnlyTls => "what listens there speaks TLS: write https://".to_owned(),
            Self::NotGrpc => "what listens there speaks TLS, and no HTTP/2: it is not a monitor's gRPC listener".to_owned(),
        }
    }
}

/// Where it is left what went wrong with TLS. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Fault(Arc<OnceLock<Trouble>>);

impl Fault {
    /// What went wrong first, if anything did.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.0.get()
    }

    pub(super) fn note(&self, trouble: Trouble) {
        // The first is the cause, what follows are its consequences.
        let _ = self.0.set(trouble);
    }

    pub(super) fn note_error(&self, error: &std::io::Error) {
        if let Some(trouble) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).and_then(Trouble::of) {
            self.note(trouble);
        }
    }
}

/// Connects to a monitor, over TLS where there is any to be had.
#[derive(Debug, Clone)]
pub struct Connector {
    tcp: HttpConnector,
    tls: Option<ClientTls>,
    fault: Fault,
}

impl Connector {
    /// A connector that leaves word in `fault`.
    pub fn new(tls: Option<ClientTls>, fault: Fault) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        Self { tcp, tls, fault }
    }
}

type Connecting = Pin<Box<dyn Future<Output = Result<TokioIo<Wire>, Box<dyn std::error::Error + Send + Sync>>> + Send>>;

impl Service<Uri> for Connector {
    type Response = TokioIo<Wire>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Connecting;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        let (connecting, tls, fault) = (self.tcp.call(uri), self.tls.clone(), self.fault.clone());
        Box::pin(async move {
            let tcp = connecting.await?.into_inner();
            let wire = match tls {
                None => Wire::plain(tcp, fault),
                Some(tls) => secure(tcp, tls, fault).await?,
            };
            Ok(TokioIo::new(wire))
        })
    }
}

async fn secure(tcp: TcpStream, tls: ClientTls, fault: Fault) -> std::io::Result<Wire> {
    let connected = TlsConnector::from(Arc::clone(&tls.config)).connect(tls.name.clone(), tcp).await;
    let stream = connected.inspect_err(|error| fault.note_error(error))?;
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        fault.note(Trouble::NotGrpc);
        return Err(std::io::Error::other("HTTP/2 was not agreed on"));
    }
    let chain = stream.get_ref().1.peer_certificates().map(<[_]>::to_vec).unwrap_or_default();
    let cut = CancellationToken::new();
    let judge = tokio::spawn(judge(tls, chain, fault.clone(), cut.clone())).abort_handle();
    Ok(Wire::tls(stream, fault, cut, judge))
}

/// Judges the server's certificate again and again, by the file of authorities as it is then.
async fn judge(tls: ClientTls, chain: Vec<CertificateDer<'static>>, fault: Fault, cut: CancellationToken) {
    let (mut verifier, mut known) = (Arc::clone(&tls.verifier), Vec::new());
    let until = chain.first().and_then(|der| Facts::read(der).ok()).map_or(SystemTime::UNIX_EPOCH, |facts| facts.not_after);
    loop {
        let left = until.duration_since(clock::wall()).unwrap_or_default() + Duration::from_secs(1);
        tokio::time::sleep(left.min(LOOK)).await;
        // A file that can't be read now changes nothing.
        let fresh = match tls.ca.clone() {
            Some(ca) => tokio::task::spawn_blocking(move || files::authorities(&ca).ok()).await.ok().flatten(),
            None => None,
        };
        if let Some((roots, certificates)) = fresh
            && certificates != known
            && let Ok(other) = self::verifier(roots)
        {
            (verifier, known) = (other, certificates);
        }
        let Some((end, between)) = chain.split_first() else { return };
        let now = UnixTime::since_unix_epoch(clock::wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        if let Err(error) = verifier.verify_server_cert(end, between, &tls.name, &[], now) {
            if let Some(trouble) = Trouble::of(&error) {
                fault.note(trouble);
            }
            cut.cancel();
            return;
        }
    }
}
