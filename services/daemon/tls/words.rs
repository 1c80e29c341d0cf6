//! What errors of TLS mean, in a sentence without its cure: who calls knows which file or flag cures it.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

use super::expiry::instant_text;

/// Why we refused the peer.
pub fn refused_by_us(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => format!("its certificate {}", certificate(error)),
        Error::NoCertificatesPresented => "it showed no certificate".to_owned(),
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::ServerDoesNotSupportTls12Or13,
        ) => "it speaks no version of TLS that is allowed here".to_owned(),
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion | InvalidMessage::MessageTooLarge,
        ) => "what it says is not TLS".to_owned(),
        Error::NoApplicationProtocol => "it speaks another protocol than this listener (ALPN)".to_owned(),
        Error::AlertReceived(alert) => format!("it refused us: {}", told_by_peer(*alert)),
        error => error.to_string(),
    }
}

fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => "is by an authority that is not trusted here".to_owned(),
        CertificateError::Expired => "has expired".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => {
            let at = std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_secs(not_after.as_secs()));
            format!("has expired on {}", at.map(instant_text).unwrap_or_default())
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet: one of the two clocks may be wrong".to_owned()
        }
        CertificateError::Revoked => "was revoked".to_owned(),
        CertificateError::NotValidForName => "is for another name".to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let hosts = presented.iter().filter(|name| name.starts_with("DnsName") || name.starts_with("IpAddress"));
            let names = hosts.map(|name| bare(name)).collect::<Vec<_>>().join(", ");
            let names = if names.is_empty() { "no name at all".to_owned() } else { names };
            format!("is for {names}, and not for {}", expected.to_str())
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "is for another purpose (extended key usage): a server's does not serve a client, nor the other way round".to_owned()
        }
        CertificateError::BadSignature => "is by an authority that is not trusted here, though one of the same name is".to_owned(),
        CertificateError::BadEncoding => "can't be read".to_owned(),
        error => format!("is refused: {error}"),
    }
}

/// A name as rustls shows it: `DnsName("fra.example")`, `IpAddress(192.0.2.1)`.
fn bare(name: &str) -> String {
    let inside = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inside.trim_matches('"').chars().filter(|character| !character.is_control()).take(100).collect()
}

/// What a peer means by its alert (RFC 8446 section 6).
pub fn told_by_peer(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnknownCA => "the certificate is by an authority that it does not trust".to_owned(),
        AlertDescription::DecryptError => {
            "the certificate is by another authority of the same name as the one it trusts, or the key is not its own".to_owned()
        }
        AlertDescription::CertificateRequired => "it wants a certificate, and none was shown".to_owned(),
        AlertDescription::CertificateExpired => "the certificate has expired, or is not valid yet".to_owned(),
        AlertDescription::CertificateRevoked => "the certificate was revoked".to_owned(),
        AlertDescription::UnsupportedCertificate => "the certificate is for another purpose (extended key usage)".to_owned(),
        AlertDescription::BadCertificate => "the certificate can't be read, or is for another name".to_owned(),
        AlertDescription::CertificateUnknown => "it does not accept the certificate".to_owned(),
        AlertDescription::AccessDenied => "it does not let us in".to_owned(),
        AlertDescription::ProtocolVersion => "it speaks no version of TLS that we may speak".to_owned(),
        AlertDescription::NoApplicationProtocol => "what listens there speaks another protocol (ALPN)".to_owned(),
        AlertDescription::HandshakeFailure => "no cipher or key exchange suits both".to_owned(),
        AlertDescription::UnrecognisedName => "it is not known by the name that was asked for".to_owned(),
        alert => format!("alert {alert:?}"),
    }
}

/// Whether an alert is about the certificate that we showed, or did not show.
pub(crate) fn is_about_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::UnknownCA
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
    )
}
