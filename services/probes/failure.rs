//! Everything that can go wrong with a run, told as reason, attribution and one sentence.
//!
//! The rule behind the table: our own faults are never the target's.

use std::{fmt, io};

use nix::errno::Errno;
use vantage_contract::v1::{Attribution, Outcome, Reason};

/// Why a run did not pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct Failure {
    /// The reason; it decides the outcome (see [`outcome_of`]).
    pub reason: Reason,
    /// Whose fault it is.
    pub attribution: Attribution,
    /// One sentence for people, without a full stop: "connect to 192.0.2.1:80: connection refused".
    pub sentence: String,
}

/// A check that can't be run as written: the field, by its name in the contract, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    /// The field, as a path within `Probe`: "ping.count".
    pub field: String,
    /// What is wrong: "must be 1 to 1000, is 0".
    pub problem: String,
}

impl Invalid {
    /// An invalid field.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

impl From<Invalid> for Failure {
    fn from(invalid: Invalid) -> Self {
        Self::new(Reason::InvalidCheck, Attribution::Request, invalid.to_string())
    }
}

/// When an error showed, which decides whose it is: the same number means "I have no route" at once and "a router said so" later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The call itself failed, before anything could have come back.
    AtOnce,
    /// It came back from the network.
    Later,
}

impl Failure {
    /// A failure told in the caller's own words.
    pub fn new(reason: Reason, attribution: Attribution, sentence: impl Into<String>) -> Self {
        Self { reason, attribution, sentence: sentence.into() }
    }

    /// The target did not do as expected.
    pub fn target(reason: Reason, sentence: impl Into<String>) -> Self {
        Self::new(reason, Attribution::Target, sentence)
    }

    /// A fault of ours that should not be.
    pub fn internal(sentence: impl Into<String>) -> Self {
        Self::new(Reason::Internal, Attribution::Vantage, sentence)
    }

    /// Nothing came while `doing` ("connecting to 192.0.2.1:80").
    pub fn timed_out(doing: impl fmt::Display) -> Self {
        Self::target(Reason::TimedOut, format!("timed out {doing}"))
    }

    /// An error of a socket: `act` is what was being done, with its subject ("connect to 192.0.2.1:80").
    pub fn of_io(act: impl fmt::Display, error: &io::Error, moment: Moment) -> Self {
        let (reason, attribution) = classify(error, moment);
        Self::new(reason, attribution, format!("{act}: {}", plain(error)))
    }

    /// The outcome that the reason stands for.
    pub fn outcome(&self) -> Outcome {
        outcome_of(self.reason)
    }
}

/// The operating system's words without its "(os error 111)", in lower case.
fn plain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}

fn classify(error: &io::Error, moment: Moment) -> (Reason, Attribution) {
    use Attribution::{Path, Target, Vantage};
    if let Some(number) = error.raw_os_error() {
        return match (Errno::from_raw(number), moment) {
            (Errno::ECONNREFUSED, _) => (Reason::Refused, Target),
            (Errno::ECONNRESET | Errno::EPIPE | Errno::ECONNABORTED | Errno::ENOTCONN, _) => (Reason::Disconnected, Target),
            (Errno::ETIMEDOUT, _) => (Reason::TimedOut, Target),
            (Errno::EHOSTUNREACH | Errno::EHOSTDOWN | Errno::ENONET | Errno::ENOPROTOOPT, _) => (Reason::Unreachable, Path),
            (Errno::ENETUNREACH, Moment::Later) => (Reason::Unreachable, Path),
            // A firewall of ours answers with EPERM at once; ICMPv6 "administratively prohibited" comes back as EACCES.
            (Errno::EACCES, Moment::Later) => (Reason::Prohibited, Path),
            (Errno::EACCES | Errno::EPERM, _) => (Reason::NotPermitted, Vantage),
            (Errno::ENETUNREACH | Errno::ENETDOWN | Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL | Errno::ENODEV, _) => {
                (Reason::LocalNetwork, Vantage)
            }
            (Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM | Errno::EADDRINUSE, _) => (Reason::ResourceExhausted, Vantage),
            // The kernel answers a packet larger than a known path MTU where fragmenting is forbidden.
            (Errno::EMSGSIZE, _) => (Reason::Unreachable, Path),
            _ => (Reason::Internal, Vantage),
        };
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::WriteZero => (Reason::Disconnected, Target),
        io::ErrorKind::TimedOut => (Reason::TimedOut, Target),
        io::ErrorKind::InvalidData => (Reason::MalformedAnswer, Target),
        _ => (Reason::Internal, Vantage),
    }
}

/// The outcome that a reason stands for; the numbers' ranges are part of the contract.
pub fn outcome_of(reason: Reason) -> Outcome {
    match reason {
        Reason::Unspecified => Outcome::Passed,
        Reason::NameNotResolved
        | Reason::TimedOut
        | Reason::Refused
        | Reason::Unreachable
        | Reason::Prohibited
        | Reason::Disconnected
        | Reason::TlsFailed
        | Reason::CertificateInvalid
        | Reason::MalformedAnswer
        | Reason::UnexpectedAnswer
        | Reason::TooSlow
        | Reason::TooLossy
        | Reason::TooLarge
        | Reason::Unsynchronized
        | Reason::KissOfDeath => Outcome::Failed,
        Reason::InvalidCheck
        | Reason::Unsupported
        | Reason::NotPermitted
        | Reason::PolicyDenied
        | Reason::NoAnswer
        | Reason::ResourceExhausted
        | Reason::LocalNetwork
        | Reason::Internal
        | Reason::NotAuthenticated => Outcome::Undetermined,
        Reason::Overloaded
        | Reason::StillRunning
        | Reason::MonitorDown
        | Reason::JournalFull
        | Reason::Expired
        | Reason::Draining
        | Reason::ClockJump
        | Reason::HeldOff => Outcome::Skipped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(errno: Errno, moment: Moment) -> Failure {
        Failure::of_io("connect to 192.0.2.1:80", &io::Error::from_raw_os_error(errno as i32), moment)
    }

    #[test]
    fn a_refused_port_is_the_targets_fault() {
        let failure = of(Errno::ECONNREFUSED, Moment::Later);
        assert_eq!((failure.reason, failure.attribution), (Reason::Refused, Attribution::Target));
        assert_eq!(failure.sentence, "connect to 192.0.2.1:80: connection refused");
        assert_eq!(failure.outcome(), Outcome::Failed);
    }

    #[test]
    fn no_route_is_ours_at_once_and_the_paths_later() {
        assert_eq!(of(Errno::ENETUNREACH, Moment::AtOnce).reason, Reason::LocalNetwork);
        assert_eq!(of(Errno::ENETUNREACH, Moment::AtOnce).outcome(), Outcome::Undetermined);
        assert_eq!(of(Errno::ENETUNREACH, Moment::Later).reason, Reason::Unreachable);
    }

    #[test]
    fn running_out_of_descriptors_never_counts_against_the_target() {
        let failure = of(Errno::EMFILE, Moment::AtOnce);
        assert_eq!((failure.reason, failure.attribution), (Reason::ResourceExhausted, Attribution::Vantage));
        assert_eq!(failure.outcome(), Outcome::Undetermined);
    }

    #[test]
    fn the_outcome_of_a_reason_follows_the_contracts_ranges() {
        for number in 1..=80 {
            let Ok(reason) = Reason::try_from(number) else { continue };
            let expected = match number {
                1..=31 => Outcome::Failed,
                32..=63 => Outcome::Undetermined,
                _ => Outcome::Skipped,
            };
            assert_eq!(outcome_of(reason), expected, "{reason:?}");
        }
    }
}
