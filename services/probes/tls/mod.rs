//! What is common to the kinds that speak TLS: the options, parsed; the handshake, judged; the report, filled in.

mod certificate;
mod words;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use rustls::{
    CertificateError, RootCertStore, SupportedProtocolVersion,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use tokio::{io::AsyncReadExt as _, net::TcpStream};
use tokio_rustls::client::TlsStream;
use vantage_contract::v1::{Reason, TlsOptions, TlsReport, TlsVersion};

use crate::{
    failure::{Failure, Invalid},
    net::tls::{HandshakeError, Judge, Presented, Settings, handshake},
    target::{self, Host},
};

pub(crate) use words::of_wire;

/// The most certificates of a chain that are reported.
const MAX_CHAIN: usize = 16;

/// The longest file of certificates or keys that is read.
const MAX_FILE: u64 = 4 << 20;

static FROM_12: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
static FROM_13: [&SupportedProtocolVersion; 1] = [&TLS13];

/// `TlsOptions`, parsed. The files they name are read in each run, so that a renewed certificate needs no new order.
pub(crate) struct Tls {
    /// The options' path within `Probe`: "https.tls".
    path: String,
    trust: Trust,
    identity: Option<(PathBuf, PathBuf)>,
    /// The name to ask for in place of the host.
    name: Option<ServerName<'static>>,
    min_remaining: Option<Duration>,
    versions: &'static [&'static SupportedProtocolVersion],
}

/// Whom a chain has to lead to.
enum Trust {
    /// One of the system's authorities.
    System(Arc<Judge>),
    /// One of the authorities in this file.
    File(PathBuf),
    /// Nobody.
    Anyone,
}

impl Tls {
    /// Parses the options in the field `field` ("tls") of the kind `kind`.
    pub(crate) fn parse(kind: &str, field: &str, options: Option<&TlsOptions>) -> Result<Self, Invalid> {
        let default = TlsOptions::default();
        let options = options.unwrap_or(&default);
        let inside = |name: &str| format!("{field}.{name}");
        let trust = match (options.insecure, options.ca_file.as_str()) {
            (true, "") => Trust::Anyone,
            (true, _) => return Err(Invalid::new(inside("ca_file"), "means nothing together with insecure")),
            (false, "") => {
                Trust::System(system().map_err(|error| Invalid::new(inside("ca_file"), format!("no authority to trust: {error}")))?)
            }
            (false, file) => Trust::File(file.into()),
        };
        let identity = match (options.certificate_file.as_str(), options.key_file.as_str()) {
            ("", "") => None,
            ("", _) => return Err(Invalid::new(inside("certificate_file"), "is missing: key_file needs it")),
            (_, "") => return Err(Invalid::new(inside("key_file"), "is missing: certificate_file needs it")),
            (certificate, key) => Some((certificate.into(), key.into())),
        };
        let name = match options.server_name.as_str() {
            "" => None,
            name => Some(server_name(&Host::parse(&inside("server_name"), name)?).map_err(|why| Invalid::new(inside("server_name"), why))?),
        };
        let min_remaining = match options.min_remaining_validity {
            None => None,
            some => Some(target::duration(
                &inside("min_remaining_validity"),
                some,
                Duration::ZERO,
                Duration::ZERO..=Duration::from_secs(100 * 366 * 86_400),
            )?),
        };
        let versions: &'static [_] = match TlsVersion::try_from(options.min_version) {
            Ok(TlsVersion::Unspecified | TlsVersion::TlsVersion12) => &FROM_12,
            Ok(TlsVersion::TlsVersion13) => &FROM_13,
            Err(_) => return Err(Invalid::new(inside("min_version"), format!("{} is not a version of TLS", options.min_version))),
        };
        Ok(Self { path: format!("{kind}.{field}"), trust, identity, name, min_remaining, versions })
    }

    /// Reads the files. One that is missing or broken makes the check invalid, naming the field.
    pub(crate) async fn load(&self) -> Result<Loaded, Failure> {
        let judge = match &self.trust {
            Trust::System(judge) => Some(judge.clone()),
            Trust::File(path) => Some(self.authorities(path).await?),
            Trust::Anyone => None,
        };
        let identity = match &self.identity {
            None => None,
            Some((certificate, key)) => {
                let chain = self.certificates("certificate_file", certificate).await?;
                let bytes = self.read("key_file", key).await?;
                let key = PrivateKeyDer::from_pem_slice(&bytes)
                    .map_err(|_| self.invalid("key_file", format!("{} has no private key in PEM form", key.display())))?;
                Some((chain, key))
            }
        };
        let settings = Settings { provider: provider(), versions: self.versions, judge, identity };
        Ok(Loaded { settings, path: self.path.clone(), min_remaining: self.min_remaining })
    }

    /// The name to ask for on a connection to `host`: the check's own, or the host.
    pub(crate) fn name_for(&self, host: &Host) -> Result<ServerName<'static>, Failure> {
        match &self.name {
            Some(name) => Ok(name.clone()),
            None => server_name_of(host),
        }
    }

    async fn authorities(&self, path: &Path) -> Result<Arc<Judge>, Failure> {
        let trusted = self.certificates("ca_file", path).await?;
        let mut roots = RootCertStore::empty();
        for certificate in &trusted {
            roots
                .add(certificate.clone())
                .map_err(|error| self.invalid("ca_file", format!("{} has an unusable certificate: {error}", path.display())))?;
        }
        let judge =
            Judge::new(roots, trusted, provider()).map_err(|error| self.invalid("ca_file", format!("{}: {error}", path.display())))?;
        Ok(Arc::new(judge))
    }

    async fn certificates(&self, field: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
        let bytes = self.read(field, path).await?;
        match CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>() {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            Ok(_) => Err(self.invalid(field, format!("{} has no certificate in PEM form", path.display()))),
            Err(error) => Err(self.invalid(field, format!("{} is not in PEM form: {error}", path.display()))),
        }
    }

    async fn read(&self, field: &str, path: &Path) -> Result<Vec<u8>, Failure> {
        let unreadable = |why: String| self.invalid(field, format!("can't read {}: {why}", path.display()));
        let metadata = tokio::fs::metadata(path).await.map_err(|error| unreadable(error.to_string()))?;
        // A pipe would be waited for, a device never ends.
        if !metadata.is_file() || metadata.len() > MAX_FILE {
            return Err(unreadable(format!("it is not a file of at most {} MiB", MAX_FILE >> 20)));
        }
        let file = tokio::fs::File::open(path).await.map_err(|error| unreadable(error.to_string()))?;
        let mut bytes = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut bytes).await.map_err(|error| unreadable(error.to_string()))?;
        Ok(bytes)
    }

    fn invalid(&self, field: &str, problem: String) -> Failure {
        Invalid::new(format!("{}.{field}", self.path), problem).into()
    }
}

/// Options whose files have been read.
pub(crate) struct Loaded {
    settings: Settings,
    path: String,
    min_remaining: Option<Duration>,
}

impl Loaded {
    /// The same without the client's certificate, for hosts that it is not meant for.
    pub(crate) fn without_identity(&self) -> Self {
        let Settings { provider, versions, judge, .. } = &self.settings;
        let settings = Settings { provider: provider.clone(), versions, judge: judge.clone(), identity: None };
        Self { settings, path: self.path.clone(), min_remaining: self.min_remaining }
    }

    /// Shakes hands and judges. The report is filled in as things become known, whatever comes of it. `act` is what is being done, with
    /// its subject: "TLS with example.com (192.0.2.1:443)".
    pub(crate) async fn connect(
        &self,
        stream: TcpStream,
        name: ServerName<'static>,
        alpn: &[&[u8]],
        act: &str,
        report: &mut TlsReport,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        if let ServerName::DnsName(name) = &name {
            name.as_ref().clone_into(&mut report.server_name);
        }
        let mut verdict = Ok(());
        let shaken = handshake(stream, &self.settings, name, alpn, |presented| verdict = self.note(presented, report)).await;
        if let Ok(stream) = &shaken {
            let session = stream.get_ref().1;
            report.version = match session.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_2) => "1.2".to_owned(),
                Some(rustls::ProtocolVersion::TLSv1_3) => "1.3".to_owned(),
                _ => String::new(),
            };
            // Rustls has its own spelling of the suites of TLS 1.3.
            let suite = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str().map(str::to_owned)).unwrap_or_default();
            report.cipher_suite = suite.strip_prefix("TLS13_").map(|rest| format!("TLS_{rest}")).unwrap_or(suite);
            report.alpn = session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default();
        }
        // The chain comes first: a handshake that failed because of it says less.
        verdict.map_err(|words| rejected(act, words, report))?;
        shaken.map_err(|error| self.unshaken(act, &error))
    }

    fn unshaken(&self, act: &str, error: &HandshakeError) -> Failure {
        match error {
            HandshakeError::Wire(error) => of_wire(act, error),
            HandshakeError::Settings(error) => {
                Invalid::new(format!("{}.key_file", self.path), format!("does not fit certificate_file: {error}")).into()
            }
        }
    }

    /// The client's side for protocols that carry TLS in their own way, and the witness of its one handshake, whose findings go to
    /// [`note`](Self::note).
    #[cfg(feature = "quic")]
    pub(crate) fn configure(&self, alpn: &[&[u8]], act: &str) -> Result<(rustls::ClientConfig, crate::net::tls::Witness), Failure> {
        crate::net::tls::configure(&self.settings, alpn).map_err(|error| self.unshaken(act, &error))
    }

    /// Writes the chain into the report. Says in words what is wrong with it.
    pub(crate) fn note(&self, presented: Presented, report: &mut TlsReport) -> Result<(), String> {
        let Presented { chain, at, verdict } = presented;
        report.certificates = chain.iter().take(MAX_CHAIN).map(certificate::to_proto).collect();
        report.verified = self.settings.judge.is_some() && verdict.is_ok();
        report.remaining_validity = report.certificates.first().and_then(|leaf| certificate::remaining(leaf, at));
        verdict.map_err(|error: CertificateError| words::of_verdict(&error, &report.certificates))?;
        match (self.min_remaining, report.remaining_validity) {
            (Some(min), Some(left)) if i128::from(left.seconds) < i128::from(min.as_secs()) => {
                let (left, min) = (spell(left.seconds), spell(i64::try_from(min.as_secs()).unwrap_or(i64::MAX)));
                Err(format!("the certificate is valid for {left} more, at least {min} are asked for"))
            }
            _ => Ok(()),
        }
    }
}

/// What to say of a chain that was rejected.
pub(crate) fn rejected(act: &str, words: String, report: &mut TlsReport) -> Failure {
    let failure = Failure::target(Reason::CertificateInvalid, format!("{act}: {words}"));
    report.certificate_error = words;
    failure
}

/// A time in days, or in hours where it is short.
fn spell(seconds: i64) -> String {
    if seconds.abs() >= 2 * 86_400 { format!("{} days", seconds / 86_400) } else { format!("{:.1} hours", seconds as f64 / 3600.0) }
}

/// Reads bytes as a certificate, for fuzzing: whatever they are, what is told of them is bounded.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_certificate(der: &[u8]) {
    let told = certificate::to_proto(&CertificateDer::from(der));
    assert_eq!(told.fingerprint_sha256.len(), 64);
    assert!(told.names.len() <= 100 && told.serial_number.len() <= 2 * der.len());
}

/// The name to ask for on a connection to `host`, where the check names none.
pub(crate) fn server_name_of(host: &Host) -> Result<ServerName<'static>, Failure> {
    server_name(host).map_err(|why| Failure::target(Reason::TlsFailed, why))
}

/// The name of a host as certificates have it: without the final dot (RFC 6066 section 3).
fn server_name(host: &Host) -> Result<ServerName<'static>, String> {
    match host {
        Host::Address(address) => Ok(ServerName::from(*address)),
        Host::Name(name) => {
            let bare = name.strip_suffix('.').unwrap_or(name);
            ServerName::try_from(bare.to_owned()).map_err(|_| format!("{bare:?} is not a name that a certificate can have"))
        }
    }
}

/// The implementation of the algorithms, chosen here and nowhere else.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())).clone()
}

/// The judge who trusts the system's authorities, or, where there are none (as in an empty container), those of Mozilla's list as they
/// were when this was built. Read once for the process, at the first check that needs it and not in its first run.
fn system() -> Result<Arc<Judge>, String> {
    static JUDGE: OnceLock<Result<Arc<Judge>, String>> = OnceLock::new();
    let judge = JUDGE.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            tracing::warn!("this system has no certificate authorities: using those that were built in");
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        Judge::new(roots, Vec::new(), provider()).map(Arc::new)
    });
    judge.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &TlsOptions) -> Result<Tls, Invalid> {
        Tls::parse("https", "tls", Some(options))
    }

    #[test]
    fn half_an_identity_is_refused() {
        let half = TlsOptions { key_file: "key.pem".into(), ..TlsOptions::default() };
        assert_eq!(parse(&half).err().unwrap().field, "tls.certificate_file");
        let half = TlsOptions { certificate_file: "chain.pem".into(), ..TlsOptions::default() };
        assert_eq!(parse(&half).err().unwrap().field, "tls.key_file");
    }

    #[test]
    fn options_that_contradict_each_other_or_are_unknown_are_refused() {
        let both = TlsOptions { insecure: true, ca_file: "ca.pem".into(), ..TlsOptions::default() };
        assert_eq!(parse(&both).err().unwrap().field, "tls.ca_file");
        let version = TlsOptions { min_version: 10, ..TlsOptions::default() };
        assert_eq!(parse(&version).err().unwrap().field, "tls.min_version");
    }

    #[tokio::test]
    async fn a_missing_file_makes_the_check_invalid_and_names_the_field() {
        let tls = parse(&TlsOptions { ca_file: "/nowhere/ca.pem".into(), ..TlsOptions::default() }).unwrap();
        let failure = tls.load().await.err().unwrap();
        assert_eq!(failure.reason, Reason::InvalidCheck);
        assert!(failure.sentence.starts_with("https.tls.ca_file: can't read /nowhere/ca.pem"), "{failure}");
        let tls = parse(&TlsOptions { ca_file: "/dev/zero".into(), ..TlsOptions::default() }).unwrap();
        assert_eq!(tls.load().await.err().unwrap().reason, Reason::InvalidCheck);
    }

    #[test]
    fn a_bare_address_is_judged_as_an_address() {
        let tls = parse(&TlsOptions::default()).unwrap();
        let host = Host::parse("host", "192.0.2.1").unwrap();
        assert!(matches!(tls.name_for(&host).unwrap(), ServerName::IpAddress(_)));
        let tls = parse(&TlsOptions { server_name: "example.com.".into(), ..TlsOptions::default() }).unwrap();
        assert_eq!(tls.name_for(&host).unwrap().to_str(), "example.com");
    }
}
