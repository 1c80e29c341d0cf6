//! Reading certificates, keys and tokens. Each error names the file and says what is wrong with it.

use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tonic::metadata::{Ascii, MetadataValue};

use crate::exit::{Exit, Fatal};

/// More than any of these files has: the bundle of a whole system's roots is a quarter of it.
const MAX_BYTES: u64 = 1 << 20;
/// A token has at least so many characters.
const MIN_TOKEN: usize = 16;

fn wrong(path: &Path, why: impl std::fmt::Display) -> Fatal {
    Fatal::new(Exit::Config, format!("{}: {why}", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>, Fatal> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|error| Fatal::new(Exit::Config, format!("read {}: {error}", path.display())))?;
    if bytes.len() as u64 > MAX_BYTES { Err(wrong(path, "has more than 1 MiB")) } else { Ok(bytes) }
}

/// The certificates of a PEM file, at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Fatal> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(wrong(path, "there is no certificate in it (PEM, \"BEGIN CERTIFICATE\")")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(wrong(path, format!("is not sound PEM: {error}"))),
    }
}

/// The private key of a PEM file, of whatever format.
pub fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Fatal> {
    // What the error would quote stays unsaid: it is a key.
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|_| wrong(path, "there is no private key in it (PEM, \"BEGIN PRIVATE KEY\")"))
}

/// The authorities of a PEM file.
pub fn authorities(path: &Path) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), Fatal> {
    let (mut store, certificates) = (RootCertStore::empty(), certificates(path)?);
    for certificate in &certificates {
        store.add(certificate.clone()).map_err(|error| wrong(path, format!("is no authority's certificate: {error}")))?;
    }
    Ok((store, certificates))
}

/// The tokens of a file, one on each line that is not empty: two while one takes the other's place.
pub fn tokens(path: &Path) -> Result<Vec<String>, Fatal> {
    let text = String::from_utf8(read(path)?).map_err(|_| wrong(path, "the token is not text"))?;
    let tokens: Vec<String> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if tokens.is_empty() || tokens.iter().any(|token| token.len() < MIN_TOKEN) {
        return Err(wrong(path, "a token has at least 16 characters"));
    }
    if !tokens.iter().all(|token| token.bytes().all(|byte| byte.is_ascii_graphic())) {
        return Err(wrong(path, "the token is not printable ASCII without spaces"));
    }
    Ok(tokens)
}

/// The token of a file as the value of the `authorization` header, marked so that it is never shown. Of several it is the first.
pub fn bearer(path: &Path) -> Result<MetadataValue<Ascii>, Fatal> {
    let token = tokens(path)?.swap_remove(0);
    let mut value = MetadataValue::try_from(format!("Bearer {token}")).map_err(|_| wrong(path, "the token is not printable ASCII"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Whether everybody on this machine may read a file that should be its owner's, or its group's.
pub fn is_open_to_all(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

/// Says so where a key or a token can be read by everybody on this machine.
pub(crate) fn warn_if_open(path: &Path) {
    if is_open_to_all(path) {
        tracing::warn!(file = %path.display(), "everybody on this machine can read this secret: chmod o= {}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn a_token_loses_its_line_end_and_is_never_shown() {
        let file = file("0123456789abcdef\r\n\n");
        let value = bearer(file.path()).unwrap();
        assert_eq!(value.to_str().unwrap(), "Bearer 0123456789abcdef");
        assert!(!format!("{value:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn two_tokens_are_two_lines() {
        assert_eq!(tokens(file("0123456789abcdef\nfedcba9876543210\n").path()).unwrap().len(), 2);
        assert!(tokens(file("0123456789abcdef\nshort\n").path()).is_err());
        assert!(tokens(file("0123456789 abcdef\n").path()).unwrap_err().message.contains("without spaces"));
    }

    #[test]
    fn what_is_missing_too_long_or_something_else_is_named() {
        assert!(bearer(Path::new("/nonexistent/token")).unwrap_err().message.starts_with("read /nonexistent/token:"));
        assert!(bearer(file("short").path()).unwrap_err().message.ends_with("at least 16 characters"));
        assert!(certificates(file("hello").path()).unwrap_err().message.contains("no certificate in it"));
        assert!(key(file("hello").path()).unwrap_err().message.contains("no private key in it"));
        assert!(certificates(file(&"x".repeat(2 << 20)).path()).unwrap_err().message.contains("more than 1 MiB"));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(authorities(file(broken).path()).unwrap_err().message.contains("no authority's certificate"));
    }
}
