//! What a certificate says (RFC 5280).

use std::{
    fmt,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use ring::digest::{SHA256, digest};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// More of a subject is not shown.
const MAX_SHOWN: usize = 200;

/// A name by which a certificate is known (subject alternative name).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// Of a host.
    Dns(String),
    /// Of a host without a name.
    Address(IpAddr),
    /// Of anything: ours say the role, those of SPIFFE the workload.
    Uri(String),
    /// Of a person.
    Email(String),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) | Self::Uri(name) | Self::Email(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// What is known of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Whose it is: the common name, or the whole subject where there is none. For people: without control characters, and not endless.
    pub subject: String,
    /// The common names of the subject, as they are.
    pub common_names: Vec<String>,
    /// Whose signature it carries, for people.
    pub issuer: String,
    /// By what else it is known.
    pub names: Vec<Name>,
    /// From when it is valid.
    pub not_before: SystemTime,
    /// Until when it is valid.
    pub not_after: SystemTime,
    /// SHA-256 over the whole of it, in lower-case hexadecimal.
    pub fingerprint: String,
    /// Whether it may sign others.
    pub is_authority: bool,
    /// Whether servers, and whether clients, may use it; both where it does not say (RFC 5280 section 4.2.1.12).
    pub for_servers: bool,
    /// See `for_servers`.
    pub for_clients: bool,
}

impl Facts {
    /// Reads a certificate. The error says that it is none.
    pub fn read(der: &[u8]) -> Result<Self, String> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| format!("not a certificate: {error}"))?;
        let common_names: Vec<String> =
            certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()).map(str::to_owned).collect();
        let mut names = Vec::new();
        if let Ok(Some(extension)) = certificate.subject_alternative_name() {
            names.extend(extension.value.general_names.iter().filter_map(name));
        }
        let usage = certificate.extended_key_usage().ok().flatten().map(|extension| extension.value);
        Ok(Self {
            subject: shown(common_names.first().map_or(&certificate.subject().to_string(), |name| name)),
            issuer: shown(&certificate.issuer().to_string()),
            common_names,
            names,
            not_before: instant(certificate.validity().not_before.timestamp()),
            not_after: instant(certificate.validity().not_after.timestamp()),
            fingerprint: fingerprint(der),
            is_authority: certificate.is_ca(),
            for_servers: usage.is_none_or(|usage| usage.any || usage.server_auth),
            for_clients: usage.is_none_or(|usage| usage.any || usage.client_auth),
        })
    }

    /// Whether it is in force.
    pub fn is_valid(&self, now: SystemTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

/// The public key of a certificate, as DER (SubjectPublicKeyInfo).
pub fn public_key(der: &[u8]) -> Result<Vec<u8>, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| format!("not a certificate: {error}"))?;
    Ok(certificate.public_key().raw.to_vec())
}

/// SHA-256 in lower-case hexadecimal.
pub fn fingerprint(der: &[u8]) -> String {
    digest(&SHA256, der).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn name(name: &GeneralName<'_>) -> Option<Name> {
    Some(match name {
        GeneralName::DNSName(name) => Name::Dns((*name).to_owned()),
        GeneralName::URI(uri) => Name::Uri((*uri).to_owned()),
        GeneralName::RFC822Name(email) => Name::Email((*email).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => Name::Address(<[u8; 4]>::try_from(*bytes).ok()?.into()),
            _ => Name::Address(<[u8; 16]>::try_from(*bytes).ok()?.into()),
        },
        _ => return None,
    })
}

/// Seconds since 1970, which may be before.
fn instant(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let instant = if seconds < 0 { SystemTime::UNIX_EPOCH.checked_sub(distance) } else { SystemTime::UNIX_EPOCH.checked_add(distance) };
    instant.unwrap_or(SystemTime::UNIX_EPOCH)
}

fn shown(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).take(MAX_SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType};

    use super::*;

    fn made() -> Vec<u8> {
        let mut params = CertificateParams::new(["fra.example".to_owned(), "192.0.2.1".to_owned(), "2001:db8::1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "fra\u{1b}[31m");
        params.subject_alt_names.push(SanType::URI("vantage:role:monitor".try_into().unwrap()));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_after = rcgen::date_time_ymd(2031, 2, 3);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_is_read_and_what_it_says_can_not_move_a_cursor() {
        let facts = Facts::read(&made()).unwrap();
        assert_eq!(facts.subject, "fra\u{fffd}[31m");
        let names: Vec<_> = facts.names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["fra.example", "192.0.2.1", "2001:db8::1", "vantage:role:monitor"]);
        assert_eq!(facts.not_after, SystemTime::UNIX_EPOCH + Duration::from_secs(1_927_843_200));
        assert!(facts.for_servers && !facts.for_clients && facts.fingerprint.len() == 64);
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_they_are_read_or_refused(at: prop::sample::Index, byte: u8, length: prop::sample::Index) {
            let mut der = made();
            let at = at.index(der.len());
            der[at] = byte;
            der.truncate(length.index(der.len()) + 1);
            let _ = Facts::read(&der);
        }
    }
}
