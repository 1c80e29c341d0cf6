//! Whom an HTTPS target of a benchmark is certified by: an authority made for it, known to nobody else.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::AsRawFd as _,
    path::PathBuf,
    sync::Arc,
};

use nix::sys::memfd::{MFdFlags, memfd_create};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use rustls::{
    ServerConfig,
    crypto::ring::{Ticketer, default_provider},
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

/// The authority's certificate in a file that is nowhere in the file system, and ends with this process.
#[derive(Debug)]
pub(super) struct Authority(File);

impl Authority {
    /// Where processes of the same user read the certificate, in PEM form.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }
}

/// An authority, and a server's side of TLS with a certificate for 127.0.0.1 below it: ECDSA on P-256, with an intermediate in between, as
/// most of the web has it. Sessions can be resumed. Errors: no memory, no random numbers.
pub(super) fn certify() -> io::Result<(Authority, Arc<ServerConfig>)> {
    let (root, config) = certified().map_err(io::Error::other)?;
    let mut file = File::from(memfd_create("authority", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(root.as_bytes())?;
    Ok((Authority(file), Arc::new(config)))
}

fn certified() -> Result<(String, ServerConfig), Box<dyn std::error::Error + Send + Sync>> {
    let authority = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
    };
    let root = CertifiedIssuer::self_signed(authority("Benchmark Root"), KeyPair::generate()?)?;
    let intermediate = CertifiedIssuer::signed_by(authority("Benchmark Intermediate"), KeyPair::generate()?, &root)?;
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()])?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let chain = vec![params.signed_by(&key, &intermediate)?.der().clone(), intermediate.as_ref().der().clone()];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions()?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key)?;
    config.ticketer = Ticketer::new()?;
    Ok((root.pem(), config))
}
