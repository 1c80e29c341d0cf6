//! Certificates as the contract carries them.

use std::{net::IpAddr, sync::LazyLock};

use ring::digest;
use rustls::pki_types::{CertificateDer, UnixTime};
use vantage_contract::v1::Certificate;
use x509_parser::{
    extensions::GeneralName,
    objects::oid2sn,
    oid_registry::OidRegistry,
    prelude::{FromDer as _, X509Certificate},
    public_key::PublicKey,
    time::ASN1Time,
    x509::{SubjectPublicKeyInfo, X509Name},
};

/// The most names of one certificate that are kept.
const MAX_NAMES: usize = 100;

/// The most bytes of one name that are kept.
const MAX_NAME: usize = 1024;

/// A certificate as the contract carries it. Of one that can't be decoded only the fingerprint is known.
pub(super) fn to_proto(der: &CertificateDer<'_>) -> Certificate {
    let fingerprint_sha256 = hex(digest::digest(&digest::SHA256, der).as_ref());
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return Certificate { fingerprint_sha256, ..Certificate::default() };
    };
    let serial = certificate.raw_serial();
    Certificate {
        subject: distinguished(certificate.subject()),
        issuer: distinguished(certificate.issuer()),
        names: names(&certificate),
        not_before_time: Some(instant(certificate.validity().not_before)),
        not_after_time: Some(instant(certificate.validity().not_after)),
        fingerprint_sha256,
        // DER puts a zero before a number whose first bit is set.
        serial_number: hex(serial.strip_prefix(&[0]).filter(|rest| !rest.is_empty()).unwrap_or(serial)),
        key: key(certificate.public_key()),
        signature_algorithm: signature_algorithm(&certificate),
        is_authority: certificate.basic_constraints().is_ok_and(|constraints| constraints.is_some_and(|constraints| constraints.value.ca)),
    }
}

/// How long a certificate is still valid at `now`; negative where it has expired. None where that can't be said.
pub(super) fn remaining(certificate: &Certificate, now: UnixTime) -> Option<prost_types::Duration> {
    let end = certificate.not_after_time?;
    Some(prost_types::Duration { seconds: end.seconds.checked_sub(i64::try_from(now.as_secs()).ok()?)?, nanos: 0 })
}

fn distinguished(name: &X509Name<'_>) -> String {
    cut(name.to_string())
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_NAME));
    text
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = extension.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(cut((*name).to_owned())),
        GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
            Ok(four) => Some(IpAddr::from(four).to_string()),
            Err(_) => <[u8; 16]>::try_from(*bytes).ok().map(|sixteen| IpAddr::from(sixteen).to_string()),
        },
        _ => None,
    });
    names.take(MAX_NAMES).collect()
}

fn instant(time: ASN1Time) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.timestamp(), nanos: 0 }
}

/// The key's algorithm and size; for curves that we know the curve's size, for unknown algorithms their object identifier.
fn key(info: &SubjectPublicKeyInfo<'_>) -> String {
    let algorithm = info.algorithm.algorithm.to_id_string();
    match algorithm.as_str() {
        "1.3.101.112" => return "Ed25519".to_owned(),
        "1.3.101.113" => return "Ed448".to_owned(),
        _ => {}
    }
    match info.parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        Ok(PublicKey::EC(point)) => {
            let curve = info.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok()).map(|curve| curve.to_id_string());
            match curve.as_deref() {
                Some("1.2.840.10045.3.1.7") => "ECDSA 256".to_owned(),
                Some("1.3.132.0.34") => "ECDSA 384".to_owned(),
                Some("1.3.132.0.35") => "ECDSA 521".to_owned(),
                _ => format!("ECDSA {}", point.key_size()),
            }
        }
        _ => algorithm,
    }
}

/// By its short name, where it has one, or as object identifier.
fn signature_algorithm(certificate: &X509Certificate<'_>) -> String {
    static REGISTRY: LazyLock<OidRegistry<'static>> = LazyLock::new(|| OidRegistry::default().with_crypto().with_x509());
    let identifier = &certificate.signature_algorithm.algorithm;
    oid2sn(identifier, &REGISTRY).map_or_else(|_| cut(identifier.to_id_string()), str::to_owned)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(digit.into(), 16));
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SerialNumber};

    use super::*;

    #[test]
    fn a_certificate_shows_its_names_dates_serial_and_key() {
        let mut params = CertificateParams::new(["one.example".to_owned(), "192.0.2.1".to_owned(), "2001:db8::1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "One");
        params.serial_number = Some(SerialNumber::from_slice(&[0x80, 1]));
        params.not_before = rcgen::date_time_ymd(2026, 1, 2);
        params.not_after = rcgen::date_time_ymd(2027, 1, 2);
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let certificate = to_proto(params.self_signed(&pair).unwrap().der());
        assert!(certificate.subject.contains("CN=One"), "{}", certificate.subject);
        assert_eq!(certificate.subject, certificate.issuer);
        assert_eq!(certificate.names, ["one.example", "192.0.2.1", "2001:db8::1"]);
        assert_eq!(certificate.serial_number, "8001");
        assert_eq!((certificate.key.as_str(), certificate.signature_algorithm.as_str()), ("ECDSA 384", "ecdsa-with-SHA384"));
        assert!(!certificate.is_authority);
        assert_eq!(certificate.not_before_time.unwrap().seconds, 1_767_312_000);
        assert_eq!(certificate.fingerprint_sha256.len(), 64);
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_798_848_000 + 5));
        assert_eq!(remaining(&certificate, now).unwrap().seconds, -5);

        let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = to_proto(params.self_signed(&pair).unwrap().der());
        assert_eq!((authority.key.as_str(), authority.signature_algorithm.as_str(), authority.is_authority), ("Ed25519", "ed25519", true));
    }

    #[test]
    fn bytes_that_are_no_certificate_have_at_least_a_fingerprint() {
        let certificate = to_proto(&CertificateDer::from(b"nonsense".to_vec()));
        assert_eq!(certificate, Certificate { fingerprint_sha256: certificate.fingerprint_sha256.clone(), ..Certificate::default() });
    }
}
