//! BIND's named, which answers over every transport but QUIC, and names itself.

use std::{fmt::Write as _, fs, net::SocketAddr};

use rcgen::{CertificateParams, KeyPair};
use vantage_contract::v1::TlsOptions;

use super::{
    place,
    servers::{Server, tcp_answers},
};

/// An authoritative server on addresses of its own.
pub(crate) struct Named {
    server: Server,
    /// Where it answers over UDP and TCP.
    pub(crate) address: SocketAddr,
    /// Where it answers over TLS.
    pub(crate) tls: SocketAddr,
    /// Where it answers over HTTPS.
    pub(crate) https: SocketAddr,
}

impl Named {
    /// The name by which it calls itself (NSID), and for which its certificate is.
    pub(crate) const NAME: &str = "ns1.lab";

    /// Serves these zones, each a name and the text of its file, which begins without a TTL or an origin.
    pub(crate) fn start(zones: &[(&str, String)]) -> Option<Self> {
        Self::start_at(place::on_interface("127.0.0.1"), zones)
    }

    /// The same at this address.
    pub(crate) fn start_at(address: SocketAddr, zones: &[(&str, String)]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let host = address.ip().to_string();
        let (tls, https) = (place::on_interface(&host), place::on_interface(&host));
        let (family, listen) = if address.is_ipv4() { ("-4", "listen-on") } else { ("-6", "listen-on-v6") };
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([Self::NAME.to_owned()]).unwrap().self_signed(&key).unwrap();
        fs::write(folder.path().join("chain.pem"), certificate.pem()).unwrap();
        fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
        let (path, name) = (folder.path().display(), Self::NAME);
        let mut configuration = format!(
            "tls lab {{ cert-file \"{path}/chain.pem\"; key-file \"{path}/key.pem\"; }};
            options {{
                directory \"{path}\"; pid-file \"{path}/pid\"; session-keyfile \"{path}/session.key\";
                {listen} port {} {{ {host}; }};
                {listen} port {} tls lab {{ {host}; }};
                {listen} port {} tls lab http default {{ {host}; }};
                server-id \"{name}\"; recursion no; dnssec-validation no; minimal-responses no; notify no;
                // Else each of many tests on many processors takes memory for all of them.
                max-cache-size 8M;
            }};
            controls {{ }};
            ",
            address.port(),
            tls.port(),
            https.port(),
        );
        for (number, (name, text)) in zones.iter().enumerate() {
            let file = super::process::write(folder.path(), &format!("zone-{number}"), text);
            let _ = writeln!(configuration, "zone \"{name}\" {{ type primary; file \"{file}\"; }};");
        }
        let file = super::process::write(folder.path(), "named.conf", &configuration);
        let server = Server::start("named", &[family, "-g", "-n", "1", "-c", &file], folder, address, tcp_answers)?;
        Some(Self { server, address, tls, https })
    }

    /// Options that trust its certificate and expect its name.
    pub(crate) fn trusted(&self) -> TlsOptions {
        TlsOptions { ca_file: self.server.file("chain.pem"), server_name: Self::NAME.to_owned(), ..TlsOptions::default() }
    }
}
