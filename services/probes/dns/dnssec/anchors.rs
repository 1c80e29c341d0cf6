//! The keys that DNSSEC begins with.

use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use hickory_proto::{
    dnssec::{
        Algorithm, PublicKeyBuf, TrustAnchors, Verifier as _,
        rdata::{DNSKEY, DNSSECRData, RRSIG},
    },
    rr::{DNSClass, LowerName, Name, RData, Record, RecordType, SerialNumber},
};
use tokio::io::AsyncReadExt as _;

use crate::{
    failure::{Failure, Invalid},
    wire::name,
};

/// The longest file that is read.
const MAX_FILE: u64 = 64 << 10;

/// Signatures that are tried, and keys for each: a server could make it thousands, and each costs time.
const MAX_TRIES: usize = 4;

/// Whose keys are trusted.
pub(in super::super) enum Anchors {
    /// The root's.
    Root,
    /// Those in a file of DNSKEY records.
    File(PathBuf),
}

impl Anchors {
    /// Reads the file: the keys, and whose they are, without the root. One that is missing or broken makes the check invalid.
    pub(super) async fn load(&self) -> Result<(TrustAnchors, Vec<Name>), Failure> {
        let Self::File(path) = self else { return Ok((TrustAnchors::default(), Vec::new())) };
        let text = read(path).await.map_err(|error| invalid(format!("can't read {}: {error}", path.display())))?;
        parse(&text).map_err(|problem| invalid(format!("{}: {problem}", path.display())).into())
    }
}

fn invalid(problem: String) -> Invalid {
    Invalid::new("dns.trust_anchor_file", problem)
}

async fn read(path: &Path) -> std::io::Result<String> {
    // A pipe would be waited for, a device never ends.
    let metadata = tokio::fs::metadata(path).await?;
    if !metadata.is_file() || metadata.len() > MAX_FILE {
        return Err(std::io::Error::other(format!("it is not a file of at most {} KiB", MAX_FILE >> 10)));
    }
    let mut text = String::new();
    tokio::fs::File::open(path).await?.take(MAX_FILE).read_to_string(&mut text).await?;
    Ok(text)
}

/// Reads DNSKEY records: `lab. [3600] [IN] DNSKEY 257 3 13 <base 64>`, the rest of a line after ";" not counting.
fn parse(text: &str) -> Result<(TrustAnchors, Vec<Name>), String> {
    let mut anchors = TrustAnchors::empty();
    let mut owners = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut words = line.split(';').next().unwrap_or_default().split_whitespace();
        let Some(owner) = words.next() else { continue };
        let wrong = |what: &str| format!("line {}: {what}", number + 1);
        let mut words = words.skip_while(|word| word.bytes().all(|byte| byte.is_ascii_digit()) || word.eq_ignore_ascii_case("IN"));
        if !words.next().is_some_and(|word| word.eq_ignore_ascii_case("DNSKEY")) {
            return Err(wrong("is not a DNSKEY record"));
        }
        let mut small =
            || words.next().and_then(|word| word.parse::<u16>().ok()).ok_or_else(|| wrong("lacks flags, protocol or algorithm"));
        let (flags, protocol, algorithm) = (small()?, small()?, small()?);
        // A key of a zone (RFC 4034 section 2.1) that is not revoked (RFC 5011 section 7).
        if flags & 0x100 == 0 || flags & 0x80 != 0 || protocol != 3 {
            return Err(wrong("is not the key of a zone, or is revoked"));
        }
        let algorithm = u8::try_from(algorithm).map(Algorithm::from_u8).ok().filter(Algorithm::is_supported);
        let algorithm = algorithm.ok_or_else(|| wrong("is of an algorithm that is not known"))?;
        let key = STANDARD.decode(words.collect::<String>()).ok().filter(|key| !key.is_empty());
        let key = key.ok_or_else(|| wrong("has a key that is not base 64"))?;
        let mut owner = name::parse(owner).ok_or_else(|| wrong("begins with no name"))?;
        owner.set_fqdn(true);
        anchors.insert_with_name(&PublicKeyBuf::new(key, algorithm), LowerName::new(&owner));
        if !owners.contains(&owner) {
            owners.push(owner);
        }
    }
    if owners.is_empty() {
        return Err("it has no DNSKEY record".to_owned());
    }
    owners.retain(|owner| !owner.is_root());
    Ok((anchors, owners))
}

/// Trusts all keys of `zone` in these records if one that is trusted already has signed them (RFC 4035 section 5.2); else says what is wrong.
///
/// Hickory does this for the root alone: of other names it trusts what is an anchor itself, or has a DS record, and an anchor need not have one.
pub(super) fn extend(anchors: &mut TrustAnchors, zone: &Name, records: &[Record], now: SerialNumber) -> Result<(), String> {
    let owner = LowerName::new(zone);
    let set: Vec<&Record> = records.iter().filter(|record| record.record_type() == RecordType::DNSKEY && record.name == *zone).collect();
    let of_zone = |key: &&DNSKEY| key.zone_key() && !key.revoke();
    let keys: Vec<_> = set.iter().filter_map(|record| key_of(record)).filter(of_zone).collect();
    let signatures = records.iter().filter(|record| record.name == *zone).filter_map(signature_of);
    let is_signed = signatures.filter(|signature| covers(signature, zone, now)).take(MAX_TRIES).any(|signature| {
        let signer = |key: &&&DNSKEY| {
            key.algorithm() == signature.input().algorithm && key.calculate_key_tag().is_ok_and(|tag| tag == signature.input().key_tag)
        };
        let mut trusted = keys.iter().filter(signer).filter(|key| anchors.contains_with_name(key.public_key(), &owner));
        trusted.by_ref().take(MAX_TRIES).any(|key| key.verify_rrsig(zone, DNSClass::IN, signature, set.iter().copied()).is_ok())
    });
    if !is_signed {
        return Err(format!("the keys of {} are not signed by one that is trusted", name::show(zone)));
    }
    for key in keys {
        anchors.insert_with_name(key.public_key(), owner.clone());
    }
    Ok(())
}

fn key_of(record: &Record) -> Option<&DNSKEY> {
    match &record.data {
        RData::DNSSEC(DNSSECRData::DNSKEY(key)) => Some(key),
        _ => None,
    }
}

fn signature_of(record: &Record) -> Option<&RRSIG> {
    match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(signature)) => Some(signature),
        _ => None,
    }
}

/// Whether a signature is one of the zone's keys, by the zone, now (RFC 4035 section 5.3.1).
fn covers(signature: &RRSIG, zone: &Name, now: SerialNumber) -> bool {
    let input = signature.input();
    input.type_covered == RecordType::DNSKEY
        && input.signer_name == *zone
        && input.num_labels == zone.num_labels()
        && input.sig_inception <= now
        && now <= input.sig_expiration
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_zone_files_and_key_tools_write_them() {
        let text = "; a key-signing key\nlab. IN DNSKEY 257 3 13 AwEA AQ== ; and more\n\n. 3600 IN DNSKEY 257 3 8 AwEAAQ==\nb.lab 60 dnskey 256 3 15 AwEAAQ==\n";
        let (anchors, owners) = parse(text).unwrap();
        assert_eq!(owners.iter().map(name::show).collect::<Vec<_>>(), ["lab.", "b.lab."]);
        let key = |algorithm| PublicKeyBuf::new(vec![3, 1, 0, 1], algorithm);
        let named = |text: &str| {
            let mut name = name::parse(text).unwrap();
            name.set_fqdn(true);
            LowerName::new(&name)
        };
        assert!(anchors.contains_with_name(&key(Algorithm::ECDSAP256SHA256), &named("lab")));
        assert!(anchors.contains_with_name(&key(Algorithm::RSASHA256), &named(".")));
        assert!(anchors.contains_with_name(&key(Algorithm::ED25519), &named("b.lab")));
        assert!(!anchors.contains_with_name(&key(Algorithm::ED25519), &named("lab")));
    }

    #[test]
    fn what_is_no_key_is_refused_with_its_line() {
        for bad in [
            "lab. IN DS 1 13 2 ABCD",
            "lab. IN DNSKEY 257 3",
            "lab. IN DNSKEY 0 3 13 AwEAAQ==",
            "lab. IN DNSKEY 385 3 13 AwEAAQ==",
            "lab. IN DNSKEY 257 3 200 AwEAAQ==",
            "lab. IN DNSKEY 257 3 13 !",
            "lab. IN DNSKEY 257 3 13",
            "a..b IN DNSKEY 257 3 13 AwEAAQ==",
        ] {
            assert!(parse(&format!("; nothing\n{bad}\n")).is_err_and(|problem| problem.starts_with("line 2: ")), "{bad}");
        }
        assert!(parse("; nothing\n").is_err());
    }
}
