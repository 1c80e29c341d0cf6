//! What is common to the kinds that speak TLS: the options, parsed; the handshake, judged; the report, filled in.

mod certificate;
mod files;
mod loaded;
mod ocsp;
mod told;
mod words;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use ring::digest::Digest;
use rustls::{
    RootCertStore, SupportedProtocolVersion,
    crypto::CryptoProvider,
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use vantage_contract::v1::{Reason, TlsOptions, TlsVersion};

use crate::{
    failure::{Failure, Invalid},
    net::tls::{Client, Judge, Settings},
    target::{self, Host},
};
use files::{Content, Stamp};

pub(crate) use loaded::{Loaded, rejected};
pub(crate) use words::of_wire;

/// The most protocols that are offered by ALPN.
const MAX_ALPN: usize = 16;

static FROM_12: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
static ONLY_12: [&SupportedProtocolVersion; 1] = [&TLS12];
static ONLY_13: [&SupportedProtocolVersion; 1] = [&TLS13];

/// `TlsOptions`, parsed. The files they name are looked at in each run, so that a renewed certificate needs no new order.
pub(crate) struct Tls {
    /// The options' path within `Probe`: "https.tls".
    path: String,
    trust: Trust,
    identity: Option<(PathBuf, PathBuf)>,
    /// The name to ask for in place of the host.
    name: Option<ServerName<'static>>,
    versions: &'static [&'static SupportedProtocolVersion],
    wishes: Wishes,
    /// What came of the files when they were last read.
    last: Mutex<Option<Last>>,
}

/// What the files said when they were last read: authorities, certificates, key. None: no such file is named.
struct Last {
    stamps: [Option<Stamp>; 3],
    /// Whether files of the same stamps say the same.
    is_settled: bool,
    digest: [Option<Digest>; 3],
    loaded: Arc<Loaded>,
}

impl Last {
    fn says(&self, digest: &[Option<Digest>; 3]) -> bool {
        self.digest.iter().zip(digest).all(|(one, other)| one.as_ref().map(AsRef::as_ref) == other.as_ref().map(AsRef::as_ref))
    }
}

/// What is asked beyond a good chain.
#[derive(Debug, Clone, Default)]
struct Wishes {
    min_remaining: Option<Duration>,
    /// The check's own, for kinds that have none.
    alpn: Vec<Vec<u8>>,
    require_alpn: bool,
    require_staple: bool,
    resume: bool,
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
    /// Parses the options in the field `field` ("tls") of the kind `kind`, which has its own application protocols.
    pub(crate) fn parse(kind: &str, field: &str, options: Option<&TlsOptions>) -> Result<Self, Invalid> {
        let default = TlsOptions::default();
        let options = options.unwrap_or(&default);
        if !options.alpn.is_empty() {
            return Err(Invalid::new(format!("{field}.alpn"), format!("is not the check's to say: {kind} offers what it speaks")));
        }
        if options.require_alpn {
            return Err(Invalid::new(format!("{field}.require_alpn"), format!("means nothing: {kind} knows what it has to agree on")));
        }
        Self::parse_bare(kind, field, options)
    }

    /// The same, of a kind that speaks whatever the check says.
    pub(crate) fn parse_bare(kind: &str, field: &str, options: &TlsOptions) -> Result<Self, Invalid> {
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
        if options.require_staple && options.insecure {
            return Err(Invalid::new(inside("require_staple"), "means nothing together with insecure"));
        }
        let wishes = Wishes {
            min_remaining,
            alpn: parse_alpn(&inside, options)?,
            require_alpn: options.require_alpn,
            require_staple: options.require_staple,
            resume: options.resume,
        };
        let versions = parse_versions(&inside, options)?;
        Ok(Self { path: format!("{kind}.{field}"), trust, identity, name, versions, wishes, last: Mutex::default() })
    }

    /// What the files say, read where they have changed. One that is missing or broken makes the check invalid, naming the field.
    pub(crate) async fn load(&self) -> Result<Arc<Loaded>, Failure> {
        let stamps = self.files().map(|file| file.and_then(|(_, path)| Stamp::of(path)));
        if let Some(last) = &*self.last()
            && last.is_settled
            && last.stamps == stamps
        {
            return Ok(last.loaded.clone());
        }
        let mut contents = [None, None, None];
        for (content, file) in contents.iter_mut().zip(self.files()) {
            if let Some((field, path)) = file {
                *content = Some(Content::of(path).await.map_err(|why| self.invalid(field, why))?);
            }
        }
        let digest = contents.each_ref().map(|content| content.as_ref().map(Content::digest));
        let known = self.last().as_ref().filter(|last| last.says(&digest)).map(|last| last.loaded.clone());
        let loaded = match known {
            // Only touched: sessions are kept.
            Some(loaded) => loaded,
            None => Arc::new(self.build(&contents, &stamps)?),
        };
        let is_settled = stamps.iter().flatten().all(Stamp::is_settled);
        *self.last() = Some(Last { stamps, is_settled, digest, loaded: loaded.clone() });
        Ok(loaded)
    }

    fn last(&self) -> MutexGuard<'_, Option<Last>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The files that the options name, with their fields: authorities, certificates, key.
    fn files(&self) -> [Option<(&'static str, &Path)>; 3] {
        let authorities = match &self.trust {
            Trust::File(path) => Some(("ca_file", path.as_path())),
            Trust::System(_) | Trust::Anyone => None,
        };
        let identity = self.identity.as_ref();
        let certificate = identity.map(|(path, _)| ("certificate_file", path.as_path()));
        [authorities, certificate, identity.map(|(_, path)| ("key_file", path.as_path()))]
    }

    fn build(&self, contents: &[Option<Content<'_>>; 3], stamps: &[Option<Stamp>; 3]) -> Result<Loaded, Failure> {
        let [authorities, certificate, key] = contents;
        let judge = match (&self.trust, authorities) {
            (Trust::System(judge), _) => Some(judge.clone()),
            (Trust::File(_), Some(content)) => Some(content.judge(stamps[0]).map_err(|why| self.invalid("ca_file", why))?),
            (Trust::File(_), None) | (Trust::Anyone, _) => None,
        };
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => {
                let chain = certificate.certificates().map_err(|why| self.invalid("certificate_file", why))?;
                Some((chain, key.key().map_err(|why| self.invalid("key_file", why))?))
            }
            _ => None,
        };
        let client = |judge, identity| {
            let settings = Settings { provider: provider(), versions: self.versions, judge, identity };
            Client::new(settings).map_err(|error| self.invalid("key_file", format!("does not fit certificate_file: {error}")))
        };
        // For hosts that the client's certificate is not meant for.
        let stranger = if identity.is_some() { Some(client(judge.clone(), None)?) } else { None };
        Ok(Loaded::new(client(judge, identity)?, stranger, self.wishes.clone()))
    }

    /// The name to ask for on a connection to `host`: the check's own, or the host.
    pub(crate) fn name_for(&self, host: &Host) -> Result<ServerName<'static>, Failure> {
        match &self.name {
            Some(name) => Ok(name.clone()),
            None => server_name_of(host),
        }
    }

    fn invalid(&self, field: &str, problem: String) -> Failure {
        Invalid::new(format!("{}.{field}", self.path), problem).into()
    }
}

fn parse_versions(inside: &impl Fn(&str) -> String, options: &TlsOptions) -> Result<&'static [&'static SupportedProtocolVersion], Invalid> {
    let parse = |field: &str, value: i32, default| match TlsVersion::try_from(value) {
        Ok(TlsVersion::Unspecified) => Ok(default),
        Ok(version) => Ok(version),
        Err(_) => Err(Invalid::new(inside(field), format!("{value} is not a version of TLS"))),
    };
    let min = parse("min_version", options.min_version, TlsVersion::TlsVersion12)?;
    match (min, parse("max_version", options.max_version, TlsVersion::TlsVersion13)?) {
        (TlsVersion::TlsVersion13, TlsVersion::TlsVersion12) => Err(Invalid::new(inside("max_version"), "is below min_version")),
        (TlsVersion::TlsVersion13, _) => Ok(&ONLY_13),
        (_, TlsVersion::TlsVersion12) => Ok(&ONLY_12),
        _ => Ok(&FROM_12),
    }
}

fn parse_alpn(inside: &impl Fn(&str) -> String, options: &TlsOptions) -> Result<Vec<Vec<u8>>, Invalid> {
    if options.alpn.len() > MAX_ALPN {
        return Err(Invalid::new(inside("alpn"), format!("must be at most {MAX_ALPN}, are {}", options.alpn.len())));
    }
    for (at, protocol) in options.alpn.iter().enumerate() {
        if !(1..=255).contains(&protocol.len()) {
            return Err(Invalid::new(inside(&format!("alpn[{at}]")), format!("must have 1 to 255 bytes, has {}", protocol.len())));
        }
    }
    if options.require_alpn && options.alpn.is_empty() {
        return Err(Invalid::new(inside("require_alpn"), "means nothing without alpn"));
    }
    Ok(options.alpn.iter().map(|protocol| protocol.clone().into_bytes()).collect())
}

/// Reads bytes as a certificate, for fuzzing: whatever they are, what is told of them is bounded.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_certificate(der: &[u8]) {
    let told = certificate::to_proto(&rustls::pki_types::CertificateDer::from(der));
    assert_eq!(told.fingerprint_sha256.len(), 64);
    assert!(told.names.len() <= 100 && told.serial_number.len() <= 2 * der.len());
}

/// Judges bytes as a staple about a certificate that is its own issuer, for fuzzing: why it does not count.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_staple(staple: &[u8]) -> String {
    let certificate = crate::wire::fuzz::certificate();
    let now = rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(1_795_828_500));
    ocsp::judge(staple, &[certificate.into(), certificate.into()], &[], &provider(), now).0.error
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
        let (min_version, max_version) = (TlsVersion::TlsVersion13.into(), TlsVersion::TlsVersion12.into());
        let none = TlsOptions { min_version, max_version, ..TlsOptions::default() };
        assert_eq!(parse(&none).err().unwrap().field, "tls.max_version");
        let staple = TlsOptions { insecure: true, require_staple: true, ..TlsOptions::default() };
        assert_eq!(parse(&staple).err().unwrap().field, "tls.require_staple");
    }

    #[test]
    fn application_protocols_are_the_checks_to_say_only_where_the_kind_has_none() {
        let of = |alpn: &[&str], require_alpn| TlsOptions {
            alpn: alpn.iter().map(|protocol| (*protocol).to_owned()).collect(),
            require_alpn,
            ..TlsOptions::default()
        };
        let bare = |options: TlsOptions| Tls::parse_bare("tcp", "tls", &options).err().map(|invalid| invalid.field).unwrap_or_default();
        assert_eq!(parse(&of(&["imap"], false)).err().unwrap().field, "tls.alpn");
        assert_eq!(parse(&of(&[], true)).err().unwrap().field, "tls.require_alpn");
        assert_eq!(bare(of(&["imap", "x"], true)), "");
        assert_eq!(bare(of(&[], true)), "tls.require_alpn");
        assert_eq!(bare(of(&["imap", ""], false)), "tls.alpn[1]");
        assert_eq!(bare(of(&[&"x".repeat(256)], false)), "tls.alpn[0]");
        assert_eq!(bare(of(&["x"; 17], false)), "tls.alpn");
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
