//! Why a chain was rejected, and why a handshake failed: in words.

use std::{fmt::Display, io};

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, pki_types::UnixTime};
use vantage_contract::v1::{Certificate, CertificateProblem as Problem, Reason};
use x509_parser::time::ASN1Time;

use crate::failure::{Failure, Moment};

/// What is wrong with a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flaw {
    /// Of which kind it is.
    pub(super) problem: Problem,
    /// In words.
    pub(super) words: String,
}

impl Flaw {
    pub(super) fn new(problem: Problem, words: impl Into<String>) -> Self {
        Self { problem, words: words.into() }
    }
}

/// What is wrong with a chain that was judged.
pub(super) fn of_verdict(error: &CertificateError, chain: &[Certificate]) -> Flaw {
    let (problem, words) = match error {
        CertificateError::ExpiredContext { not_after, .. } => {
            let whose = bearer(chain, |certificate| certificate.not_after_time, *not_after);
            (Problem::Expired, format!("{whose} expired on {}", date(*not_after)))
        }
        CertificateError::Expired => (Problem::Expired, "a certificate has expired".to_owned()),
        CertificateError::NotValidYetContext { not_before, .. } => {
            let whose = bearer(chain, |certificate| certificate.not_before_time, *not_before);
            (Problem::NotYetValid, format!("{whose} is not valid before {}", date(*not_before)))
        }
        CertificateError::NotValidYet => (Problem::NotYetValid, "a certificate is not valid yet".to_owned()),
        CertificateError::NotValidForNameContext { expected, .. } => {
            let names = chain.first().map(|leaf| listed(&leaf.names)).unwrap_or_default();
            (Problem::WrongName, format!("the certificate is not valid for {}, only for {names}", expected.to_str()))
        }
        CertificateError::NotValidForName => (Problem::WrongName, "the certificate is not valid for the name asked for".to_owned()),
        CertificateError::UnknownIssuer => return unknown_issuer(chain),
        CertificateError::BadSignature => {
            let words = "a signature in the chain is wrong: it was changed, or the trusted authority of that name has another key";
            (Problem::BadSignature, words.to_owned())
        }
        CertificateError::BadEncoding => (Problem::Malformed, "a certificate can't be decoded".to_owned()),
        CertificateError::Revoked => (Problem::Revoked, "a certificate has been revoked".to_owned()),
        CertificateError::UnhandledCriticalExtension => {
            (Problem::Malformed, "a certificate has a critical extension that is not understood".to_owned())
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            (Problem::WrongPurpose, "the certificate is not meant for servers (extended key usage)".to_owned())
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            (Problem::Other, "a signature in the chain uses an algorithm that is not accepted".to_owned())
        }
        CertificateError::Other(other) => return of_other(&other.to_string(), chain),
        other => (Problem::Other, other.to_string()),
    };
    Flaw { problem, words }
}

/// What webpki says that rustls has no word for, by the names of webpki's errors.
fn of_other(name: &str, chain: &[Certificate]) -> Flaw {
    let is = |names: &[&str]| names.iter().any(|known| name.contains(known));
    if is(&["CaUsedAsEndEntity"]) {
        if chain.first().is_some_and(|leaf| leaf.subject == leaf.issuer) {
            return unknown_issuer(chain);
        }
        return Flaw::new(Problem::WrongPurpose, "the certificate is that of an authority, not of a server");
    }
    if is(&["UnsupportedCertVersion"]) {
        return Flaw::new(Problem::Malformed, "a certificate is not of version 3 (RFC 5280 section 4.1.2.1)");
    }
    if is(&[
        "EmptyEku",
        "ExtensionValueInvalid",
        "InvalidSerialNumber",
        "Malformed",
        "SignatureAlgorithmMismatch",
        "UnsupportedCriticalExtension",
    ]) {
        return Flaw::new(Problem::Malformed, format!("a certificate can't be decoded ({name})"));
    }
    let words = if is(&["EndEntityUsedAsCa"]) {
        "a certificate in the chain has signed another and is not that of an authority".to_owned()
    } else if is(&["PathLenConstraint"]) {
        "the chain is longer than one of its authorities allows (path length constraint)".to_owned()
    } else if is(&["NameConstraintViolation"]) {
        "an authority in the chain may not issue certificates for these names (name constraints)".to_owned()
    } else if is(&["Maximum"]) {
        format!("the chain takes too much work to judge ({name})")
    } else {
        format!("the chain is not acceptable ({name})")
    };
    Flaw::new(Problem::Other, words)
}

/// Webpki says the same of all of these; who runs the server wants to know which it is.
fn unknown_issuer(chain: &[Certificate]) -> Flaw {
    let Some(leaf) = chain.first() else { return Flaw::new(Problem::UnknownIssuer, "the issuer is unknown") };
    if leaf.subject == leaf.issuer {
        return Flaw::new(Problem::SelfSigned, "the certificate is self-signed, and not trusted");
    }
    // As far as each has its issuer in what was sent, in whatever order that came; not longer than there are certificates.
    let last = (1..chain.len()).fold(leaf, |last, _| {
        let issuer = chain.iter().find(|certificate| certificate.subject == last.issuer);
        issuer.filter(|_| last.subject != last.issuer).unwrap_or(last)
    });
    if last.subject == last.issuer {
        return Flaw::new(Problem::UnknownIssuer, format!("the chain ends in the authority {:?}, which is not trusted", last.subject));
    }
    let words = format!(
        "the issuer {:?} is unknown: it is not trusted, and its certificate was not sent (an unknown authority or a missing intermediate)",
        last.issuer
    );
    Flaw::new(Problem::IncompleteChain, words)
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
pub(super) fn date(at: UnixTime) -> String {
    date_of(i64::try_from(at.as_secs()).unwrap_or(i64::MAX))
}

/// The same of an instant in seconds since 1970.
pub(super) fn date_of(seconds: i64) -> String {
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
            return Failure::target(Reason::CertificateInvalid, format!("{act}: {}", of_verdict(error, &[]).words));
        }
        Error::AlertReceived(alert) => format!("the server ended it with the alert {}", alert_name(*alert)),
        Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
            "the answer is not TLS".to_owned()
        }
        Error::InvalidMessage(InvalidMessage::CertificatePayloadTooLarge | InvalidMessage::HandshakePayloadTooLarge) => {
            "the server sends a message of more than 64 KiB".to_owned()
        }
        Error::InvalidMessage(why) => format!("a message of the server can't be decoded ({why:?})"),
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            "the server breaks the protocol: the message is not one that may come now".to_owned()
        }
        Error::DecryptError => {
            "what came can't be decrypted: it was changed on the way, or the server broke off to speak in the clear".to_owned()
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
        let of = |chain: &[(&str, &str)]| {
            let chain: Vec<_> = chain.iter().map(|(subject, issuer)| certificate(subject, issuer)).collect();
            let Flaw { problem, words } = of_verdict(&CertificateError::UnknownIssuer, &chain);
            (problem, words)
        };
        assert_eq!(of(&[("CN=a", "CN=a")]), (Problem::SelfSigned, "the certificate is self-signed, and not trusted".to_owned()));
        let (problem, words) = of(&[("CN=a", "CN=b")]);
        assert!(problem == Problem::IncompleteChain && words.contains("missing intermediate"), "{words}");
        // Neither the order nor a stranger among them misleads; nor two who vouch for each other.
        for chain in [&[("CN=a", "CN=b"), ("CN=b", "CN=b")][..], &[("CN=a", "CN=b"), ("CN=c", "CN=c"), ("CN=d", "CN=d"), ("CN=b", "CN=d")]]
        {
            let (problem, words) = of(chain);
            assert!(problem == Problem::UnknownIssuer && words.contains("ends in the authority"), "{words}");
        }
        for chain in [&[("CN=a", "CN=b"), ("CN=c", "CN=c")][..], &[("CN=a", "CN=b"), ("CN=b", "CN=a")]] {
            assert_eq!(of(chain).0, Problem::IncompleteChain);
        }
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
