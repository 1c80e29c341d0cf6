//! Why a record is not secure, in words.

use std::time::SystemTime;

use hickory_proto::{
    dnssec::{
        Proof,
        rdata::{DNSSECRData, RRSIG},
    },
    rr::{RData, Record, SerialNumber},
};

use crate::wire::name;

/// What a proof is called (RFC 4035 section 4.3).
pub(super) fn of_proof(proof: Proof) -> &'static str {
    match proof {
        Proof::Secure => "secure",
        Proof::Insecure => "insecure",
        Proof::Bogus => "bogus",
        Proof::Indeterminate => "indeterminate",
    }
}

/// Why this record of a section is not secure.
pub(super) fn of_record(record: &Record, section: &[Record], now: SystemTime) -> String {
    let whose = format!("{} {}", name::show(&record.name), record.record_type());
    if record.proof.is_insecure() {
        return format!("{whose} is in a zone that is not signed, as its parent proves");
    }
    let mut signatures: Vec<&RRSIG> = Vec::new();
    for other in section.iter().filter(|other| other.name == record.name) {
        match &other.data {
            RData::DNSSEC(DNSSECRData::RRSIG(signature)) if signature.input().type_covered == record.record_type() => {
                signatures.push(signature)
            }
            _ => {}
        }
    }
    let now = serial(now);
    if signatures.is_empty() {
        format!("{whose} has no signature, though its zone has to sign it")
    } else if signatures.iter().all(|signature| signature.input().sig_expiration < now) {
        format!("the signature of {whose} has expired")
    } else if signatures.iter().all(|signature| now < signature.input().sig_inception) {
        format!("the signature of {whose} is not valid yet")
    } else {
        format!("no signature of {whose} fits a key that is trusted")
    }
}

/// An instant as signatures have it: seconds since 1970 that go round (RFC 4034 section 3.1.5).
pub(super) fn serial(at: SystemTime) -> SerialNumber {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default();
    SerialNumber::new(u32::try_from(seconds & u64::from(u32::MAX)).unwrap_or_default())
}
