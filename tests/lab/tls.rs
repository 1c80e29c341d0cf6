//! Certificates of every kind of wrongness, and servers that present them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::{
    NamedGroup, RootCertStore, ServerConfig, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use vantage_contract::v1::TlsOptions;

use super::http::Server;

const DAY: Duration = Duration::from_secs(86_400);

/// A root, an intermediate below it, and a folder with the root's file.
pub(crate) struct Authority {
    root: CertifiedIssuer<'static, KeyPair>,
    intermediate: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// A certificate to be made. Days are from now.
pub(crate) struct Leaf<'a> {
    pub(crate) names: &'a [&'a str],
    pub(crate) from_day: i32,
    pub(crate) to_day: i32,
    /// Whether the intermediate is sent with it.
    pub(crate) whole_chain: bool,
}

impl Default for Leaf<'_> {
    fn default() -> Self {
        Self { names: &["127.0.0.1"], from_day: -1, to_day: 90, whole_chain: true }
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn day(days: i32) -> impl Fn(&mut CertificateParams, bool) {
    move |params, is_end| {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let at = epoch + now + DAY * days.max(0).unsigned_abs() - DAY * days.min(0).unsigned_abs();
        if is_end { params.not_after = at } else { params.not_before = at }
    }
}

impl Authority {
    pub(crate) fn new() -> Self {
        Self::named("Lab Root")
    }

    /// An authority whose root has this name.
    pub(crate) fn named(root: &str) -> Self {
        let ca = |name: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            params
        };
        let root = CertifiedIssuer::self_signed(ca(root), KeyPair::generate().unwrap()).unwrap();
        let intermediate = CertifiedIssuer::signed_by(ca("Lab Intermediate"), KeyPair::generate().unwrap(), &root).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("root.pem"), root.pem()).unwrap();
        Self { root, intermediate, folder }
    }

    /// Options that trust it.
    pub(crate) fn options(&self) -> TlsOptions {
        TlsOptions { ca_file: self.path("root.pem").display().to_string(), ..TlsOptions::default() }
    }

    /// Who signs leaves.
    pub(crate) fn intermediate(&self) -> &CertifiedIssuer<'static, KeyPair> {
        &self.intermediate
    }

    /// The root's certificate.
    pub(crate) fn root(&self) -> CertificateDer<'static> {
        self.root.as_ref().der().clone()
    }

    /// A certificate and its chain signed by the intermediate, with whatever is changed in it, and its key.
    pub(crate) fn issue_with(&self, change: impl FnOnce(&mut CertificateParams)) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.intermediate).unwrap();
        let chain = vec![certificate.der().clone(), self.intermediate.as_ref().der().clone()];
        (chain, PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a client's certificate and key: their files.
    pub(crate) fn client(&self) -> (String, String) {
        let mut params = CertificateParams::new(["client".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.root).unwrap();
        std::fs::write(self.path("client.pem"), certificate.pem()).unwrap();
        std::fs::write(self.path("client.key"), key.serialize_pem()).unwrap();
        (self.path("client.pem").display().to_string(), self.path("client.key").display().to_string())
    }

    fn certify(&self, leaf: &Leaf<'_>) -> (Certificate, KeyPair) {
        let names: Vec<String> = leaf.names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        day(leaf.from_day)(&mut params, false);
        day(leaf.to_day)(&mut params, true);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.intermediate).unwrap(), key)
    }

    /// A certificate, its chain and its key.
    pub(crate) fn issue(&self, leaf: &Leaf<'_>) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let (certificate, key) = self.certify(leaf);
        let mut chain = vec![certificate.der().clone()];
        if leaf.whole_chain {
            chain.push(self.intermediate.as_ref().der().clone());
        }
        (chain, PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())))
    }

    /// Writes a certificate with its chain, its key, and the issuer with its key, for programs of others: `chain.pem`, `key.pem`, `issuer.pem` and
    /// `issuer.key` in this folder.
    pub(crate) fn write(&self, leaf: &Leaf<'_>, folder: &Path) {
        let (certificate, key) = self.certify(leaf);
        let write = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
        write("chain.pem", certificate.pem() + &self.intermediate.pem());
        write("key.pem", key.serialize_pem());
        write("issuer.pem", self.intermediate.pem());
        write("issuer.key", self.intermediate.key().serialize_pem());
    }

    /// A server's side of TLS with this certificate, offering these protocols.
    pub(crate) fn acceptor(&self, leaf: &Leaf<'_>, alpn: &[&str]) -> TlsAcceptor {
        self.acceptor_of(leaf, alpn, &[&TLS13, &TLS12], false)
    }

    /// The same, with these versions of TLS, and asking for a client's certificate.
    pub(crate) fn acceptor_of(
        &self,
        leaf: &Leaf<'_>,
        alpn: &[&str],
        versions: &[&'static SupportedProtocolVersion],
        ask_client: bool,
    ) -> TlsAcceptor {
        let (chain, key) = self.issue(leaf);
        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
        let builder = if ask_client {
            let mut roots = RootCertStore::empty();
            roots.add(self.root.as_ref().der().clone()).unwrap();
            builder.with_client_cert_verifier(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Versions of TLS.
pub(crate) type Versions = &'static [&'static SupportedProtocolVersion];

pub(crate) static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
pub(crate) static ONLY_12: [&SupportedProtocolVersion; 1] = [&TLS12];
pub(crate) static ONLY_13: [&SupportedProtocolVersion; 1] = [&TLS13];

/// Each for itself.
pub(crate) const EACH: [Versions; 2] = [&ONLY_13, &ONLY_12];

/// How a server does TLS.
pub(crate) struct Terms {
    pub(crate) versions: Versions,
    /// The one group for key exchanges. None: all.
    pub(crate) group: Option<NamedGroup>,
    pub(crate) alpn: &'static [&'static str],
    /// The OCSP response to staple. Empty: none.
    pub(crate) staple: Vec<u8>,
    /// How many sessions are offered after a handshake of TLS 1.3.
    pub(crate) tickets: usize,
}

impl Default for Terms {
    fn default() -> Self {
        Self { versions: &BOTH, group: None, alpn: &[], staple: Vec::new(), tickets: 2 }
    }
}

/// A server's side of TLS that presents whatever chain it is given.
pub(crate) fn presenting((chain, key): (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), terms: Terms) -> TlsAcceptor {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.kx_groups.retain(|group| terms.group.is_none_or(|only| group.name() == only));
    let signer = provider.key_provider.load_private_key(key).unwrap();
    let mut certified = CertifiedKey::new(chain, signer);
    certified.ocsp = Some(terms.staple).filter(|staple| !staple.is_empty());
    let builder = ServerConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(terms.versions).unwrap();
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.send_tls13_tickets = terms.tickets;
    config.alpn_protocols = terms.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// A self-signed certificate for 127.0.0.1 that calls itself an authority, as `openssl req -x509` makes them: a server's side of TLS with
/// it, and its file.
pub(crate) fn self_signed() -> (TlsAcceptor, tempfile::NamedTempFile) {
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), certificate.pem()).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
    (TlsAcceptor::from(Arc::new(config)), file)
}

/// A server whose script comes after the handshake.
pub(crate) async fn serve<S, F>(acceptor: TlsAcceptor, script: S) -> Server
where
    S: Fn(TlsStream<TcpStream>, usize) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let script = Arc::new(script);
    Server::start(move |stream, number| {
        let (acceptor, script) = (acceptor.clone(), script.clone());
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                script(stream, number).await;
            }
        }
    })
    .await
}
