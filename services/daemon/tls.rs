//! TLS of our own links, from files. The one provider in the tree is ring.

use std::{fs, path::Path};

use tonic::{
    metadata::{Ascii, MetadataValue},
    transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig},
};

use crate::exit::{Exit, Fatal};

/// Makes ring the process's provider of cryptography. To be called first thing in `main`; calling it again changes nothing.
pub fn install_provider() {
    // An error says that one is installed already, and ring is the only one in the tree.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The server's side: `certificate` and `key` are PEM files; with `client_ca`, clients have to show a certificate of that authority.
pub fn server(certificate: &Path, key: &Path, client_ca: Option<&Path>) -> Result<ServerTlsConfig, Fatal> {
    let mut config = ServerTlsConfig::new().identity(identity(certificate, key)?);
    if let Some(path) = client_ca {
        config = config.client_ca_root(Certificate::from_pem(read(path)?));
    }
    Ok(config)
}

/// The client's side: trusts `ca` in place of the system's roots, expects `server_name` in place of the address's host, and shows
/// `identity` (certificate, key) where given.
pub fn client(ca: Option<&Path>, server_name: Option<&str>, own: Option<(&Path, &Path)>) -> Result<ClientTlsConfig, Fatal> {
    let mut config = match ca {
        Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(path)?)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    if let Some(name) = server_name {
        config = config.domain_name(name);
    }
    if let Some((certificate, key)) = own {
        config = config.identity(identity(certificate, key)?);
    }
    Ok(config)
}

/// A bearer token from a file, as the value of the `authorization` header, marked so that it is never shown.
pub fn bearer(path: &Path) -> Result<MetadataValue<Ascii>, Fatal> {
    let text =
        String::from_utf8(read(path)?).map_err(|_| Fatal::new(Exit::Config, format!("{}: the token is not text", path.display())))?;
    let token = text.trim_end_matches(['\r', '\n']);
    if token.len() < 16 {
        return Err(Fatal::new(Exit::Config, format!("{}: a token has at least 16 characters", path.display())));
    }
    let mut value = MetadataValue::try_from(format!("Bearer {token}"))
        .map_err(|_| Fatal::new(Exit::Config, format!("{}: the token is not printable ASCII", path.display())))?;
    value.set_sensitive(true);
    Ok(value)
}

fn identity(certificate: &Path, key: &Path) -> Result<Identity, Fatal> {
    Ok(Identity::from_pem(read(certificate)?, read(key)?))
}

fn read(path: &Path) -> Result<Vec<u8>, Fatal> {
    fs::read(path).map_err(|error| Fatal::new(Exit::Config, format!("read {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_loses_its_line_end_and_is_never_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "0123456789abcdef\n").unwrap();
        let value = bearer(file.path()).unwrap();
        assert_eq!(value.to_str().unwrap(), "Bearer 0123456789abcdef");
        assert!(!format!("{value:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn a_missing_file_and_a_short_token_are_named() {
        assert!(bearer(Path::new("/nonexistent/token")).unwrap_err().message.starts_with("read /nonexistent/token:"));
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "short").unwrap();
        assert!(bearer(file.path()).unwrap_err().message.ends_with("at least 16 characters"));
    }
}
