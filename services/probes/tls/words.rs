//! Why a chain was rejected, and why a handshake failed: in words.

use std::{fmt::Display, io};

use rustls::{AlertDescription, CertificateError, Error, pki_types::UnixTime};
use vantage_contract::v1::{Certificate, Reason};
use x509_parser::time::ASN1Time;

use crate::failure::{Failure, Moment};

/// What is wrong with a chain.
pub(super) fn of_verdict(error: &CertificateError, chain: &[Certificate]) -> String {
    match error {
        CertificateError::ExpiredContext { not_after, .. } => {
            let whose = bearer(chain, |certificate| certificate.not_after_time, *not_after);
            format!("{whose} expired on {}", date(*not_after))
        }
        CertificateError::Expired => "a certificate has expired".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            let whose = bearer(chain, |certificate| certificate.not_before_time, *not_before);
            format!("{whose} is not valid before {}", date(*not_before))
        }
        CertificateError::NotValidYet => "a certificate is not valid yet".to_owned(),
        CertificateError::NotValidForNameContext { expected, .. } => {
            let names = chain.first().map(|leaf| listed(&leaf.names)).unwrap_or_default();
            format!("the certificate is not valid for {}, only for {names}", expected.to_str())
        }
        CertificateError::NotValidForName => "the certificate is not valid for the name asked for".to_owned(),
        CertificateError::UnknownIssuer => unknown_issuer(chain),
        CertificateError::BadSignature => {
            "a signature in the chain is wrong: it was changed, or the trusted authority of that name has another key".to_owned()
        }
        CertificateError::BadEncoding => "a certificate can't be decoded".to_owned(),
        CertificateError::Revoked => "a certificate has been revoked".to_owned(),
        CertificateError::UnhandledCriticalExtension => "a certificate has a critical extension that is not understood".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the certificate is not meant for servers (extended key usage)".to_owned()
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "a signature in the chain uses an algorithm that is not accepted".to_owned()
        }
        CertificateError::Other(other) if format!("{other}").contains("CaUsedAsEndEntity") => {
            if chain.first().is_some_and(|leaf| leaf.subject == leaf.issuer) {
                return unknown_issuer(chain);
            }
            "the certificate is that of an authority, not of a server".to_owned()
        }
        other => other.to_string(),
    }
}

/// Webpki says the same of all of these; who runs the server wants to know which it is.
fn unknown_issuer(chain: &[Certificate]) -> String {
    let (Some(leaf), Some(last)) = (chain.first(), chain.last()) else { return "the issuer is unknown".to_owned() };
    if leaf.subject == leaf.issuer {
        return "the certificate is self-signed, and not trusted".to_owned();
    }
    if last.subject == last.issuer {
        return format!("the chain ends in the authority {:?}, which is not trusted", last.subject);
    }
    format!(
        "the issuer {:?} is unknown: it is not trusted, and its certificate was not sent (an unknown authority or a missing intermediate)",
        last.issuer
    )
}

/// Which certificate of the chain has that instant.
fn bearer(chain: &[Certificate], instant: impl Fn(&Certificate) -> Option<prost_types::Timestamp>, wanted: UnixTime) -> String {
    let seconds = i64::try_from(wanted.as_secs()).unwrap_or(i64::MAX);
    match chain.iter().position(|certificate| instant(certificate).is_some_and(|at| at.seconds == seconds)) {
        None | Some(0) => "the certificate".to_owned(),
        Some(at) => {
            format!("the issuer's certificate {:?}", chain.get(at).map(|certificate| certificate.subject.as_str()).unwrap_or_default())
        }
    }
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "no name at all".to_owned(),
        [first, second, third, _, rest @ ..] => format!("{first}, {second}, {third} and {} more", rest.len() + 1),
        names => names.join(", "),
    }
}

/// An instant as people write it: "2026-11-22 08:19:05 UTC".
fn date(at: UnixTime) -> String {
    let seconds = i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
    match ASN1Time::from_timestamp(seconds) {
        Ok(time) => {
            let at = time.to_datetime();
            format!(
                "{:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC",
                at.year(),
                u8::from(at.month()),
                at.day(),
                at.hour(),
                at.minute(),
                at.second()
            )
        }
        Err(_) => format!("second {seconds} of the epoch"),
    }
}

/// An error of a connection that speaks TLS, in the handshake or later. `act` as in [`Failure::of_io`].
pub(crate) fn of_wire(act: impl Display, error: &io::Error) -> Failure {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>().or_else(|| inner.source()?.downcast_ref())) {
        Some(inner) => of_protocol(act, inner),
        None if error.raw_os_error().is_none() && error.kind() == io::ErrorKind::UnexpectedEof => {
            Failure::target(Reason::Disconnected, format!("{act}: the connection was closed"))
        }
        None => Failure::of_io(act, error, Moment::Later),
    }
}

fn of_protocol(act: impl Display, error: &Error) -> Failure {
    let what = match error {
        Error::InvalidCertificate(CertificateError::BadSignature) => {
            let sentence = format!("{act}: the server could not prove that it has the certificate's key");
            return Failure::target(Reason::CertificateInvalid, sentence);
        }
        Error::InvalidCertificate(error) => {
            return Failure::target(Reason::CertificateInvalid, format!("{act}: {}", of_verdict(error, &[])));
        }
        Error::AlertReceived(alert) => format!("the server ended it with the alert {}", alert_name(*alert)),
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            "the answer is not TLS".to_owned()
        }
        Error::PeerIncompatible(why) => format!("nothing in common with the server ({why:?})"),
        Error::PeerMisbehaved(why) => format!("the server breaks the protocol ({why:?})"),
        Error::NoCertificatesPresented => "the server presented no certificate".to_owned(),
        Error::NoApplicationProtocol => "the server speaks none of the application protocols offered".to_owned(),
        other => other.to_string(),
    };
    Failure::target(Reason::TlsFailed, format!("{act}: {what}"))
}

/// The alert's name as RFC 8446 section 6 spells it, near enough: "handshake failure (40)".
fn alert_name(alert: AlertDescription) -> String {
    let mut words = String::new();
    for letter in format!("{alert:?}").chars() {
        if letter.is_uppercase() && !words.is_empty() && !words.ends_with(|last: char| last.is_uppercase()) {
            words.push(' ');
        }
        words.push(letter);
    }
    format!("{:?} ({})", words.to_lowercase(), u8::from(alert))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(subject: &str, issuer: &str) -> Certificate {
        Certificate { subject: subject.into(), issuer: issuer.into(), ..Certificate::default() }
    }

    #[test]
    fn an_unknown_issuer_says_which_kind_of_unknown_it_is() {
        let words = |chain: &[Certificate]| of_verdict(&CertificateError::UnknownIssuer, chain);
        assert_eq!(words(&[certificate("CN=a", "CN=a")]), "the certificate is self-signed, and not trusted");
        assert!(words(&[certificate("CN=a", "CN=b")]).contains("missing intermediate"));
        assert!(words(&[certificate("CN=a", "CN=b"), certificate("CN=b", "CN=b")]).contains("ends in the authority \"CN=b\""));
    }

    #[test]
    fn dates_and_alerts_are_written_for_people() {
        assert_eq!(date(UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_795_335_545))), "2026-11-22 08:19:05 UTC");
        assert_eq!(alert_name(AlertDescription::HandshakeFailure), "\"handshake failure\" (40)");
    }

    #[test]
    fn many_names_are_counted_not_listed() {
        let names: Vec<String> = (0..9).map(|number| format!("n{number}.example")).collect();
        assert_eq!(listed(&names), "n0.example, n1.example, n2.example and 6 more");
    }
}
