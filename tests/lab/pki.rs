//! An authority of our own, as `vantage-manager certs init` makes it, and certificates of every kind of wrongness below it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use vantage_daemon::tls::{
    MinVersion,
    client::{ClientFiles, ClientTls, Connector, Fault},
};

use super::{
    place,
    process::{MANAGER, run},
};

/// A folder of `certs init`, with a monitor "fra" at the address that is this process's own.
pub(crate) struct Pki {
    folder: TempDir,
}

/// A certificate to be made. Seconds are from now.
pub(crate) struct Leaf<'l> {
    /// None: the address that is this process's own.
    pub(crate) names: &'l [&'l str],
    pub(crate) role: Option<&'l str>,
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) usages: &'l [ExtendedKeyUsagePurpose],
}

impl Default for Leaf<'_> {
    fn default() -> Self {
        let usages = &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Self { names: &[], role: Some("manager"), from: -3600, to: 86_400, usages }
    }
}

impl Pki {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = folder.path().join("pki");
        let monitor = format!("fra,{}", place::own().ip());
        let made = run(MANAGER, &["certs", "init", pki.to_str().unwrap(), "--monitor", &monitor]).await;
        assert_eq!(made.code, Some(0), "{made:?}");
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("pki").join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Makes a pair with this name of its files, signed by this authority.
    pub(crate) fn make(&self, file: &str, leaf: &Leaf<'_>) {
        let read = |name: &str| std::fs::read_to_string(self.path(name)).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&read("ca.pem"), KeyPair::from_pem(&read("ca.key")).unwrap()).unwrap();
        let mut names: Vec<String> = leaf.names.iter().map(|name| (*name).to_owned()).collect();
        if names.is_empty() {
            names.push(place::own().ip().to_string());
        }
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, file);
        if let Some(role) = leaf.role {
            params.subject_alt_names.push(SanType::URI(format!("vantage:role:{role}").try_into().unwrap()));
        }
        params.extended_key_usages = leaf.usages.to_vec();
        let at = |seconds: i64| {
            let now = rcgen::date_time_ymd(1970, 1, 1) + std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
            let distance = Duration::from_secs(seconds.unsigned_abs());
            if seconds < 0 { now - distance } else { now + distance }
        };
        (params.not_before, params.not_after) = (at(leaf.from), at(leaf.to));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        replace(&self.path(&format!("{file}.key")), &key.serialize_pem());
        replace(&self.path(&format!("{file}.pem")), &certificate.pem());
    }

    /// The files of a client that trusts this authority and shows this pair, if one is named.
    pub(crate) fn client(&self, own: Option<&str>) -> ClientFiles {
        ClientFiles {
            ca: Some(self.path("ca.pem")),
            own: own.map(|own| (self.path(&format!("{own}.pem")), self.path(&format!("{own}.key")))),
            server_name: None,
            min_version: MinVersion::default(),
        }
    }

    /// A channel to a monitor, as this client.
    pub(crate) fn channel(files: &ClientFiles, at: std::net::SocketAddr) -> Channel {
        let tls = ClientTls::load(files, &at.ip().to_string()).unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{at}")).unwrap().origin(format!("https://{at}").parse().unwrap());
        endpoint.connect_with_connector_lazy(Connector::new(Some(tls), Fault::default()))
    }
}

/// Puts a file in the place of another, at once.
pub(crate) fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("fresh");
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(&fresh, path).unwrap();
}
