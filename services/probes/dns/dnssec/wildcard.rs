//! Answers that a wildcard has made (RFC 4035 section 5.3.4).
//!
//! Hickory 0.26 takes them for bogus where the NSEC record that proves that nothing is closer is the wildcard's own, as it mostly is; so its
//! refusal is looked at again here. Signatures are not: what counts is what hickory has found secure.

use hickory_proto::{
    dnssec::rdata::{DNSSECRData, NSEC, RRSIG},
    op::{DnsResponse, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType},
};

/// Whether the answer to `query` was made by a wildcard, rightly: a secure NSEC record of the same zone proves that neither the name itself nor
/// anything between it and the wildcard's parent is there.
pub(super) fn is_proven(query: &Query, response: &DnsResponse) -> bool {
    let name = query.name();
    let records = response.answers.iter().filter(|record| record.record_type() != RecordType::RRSIG);
    let fits = |record: &Record| record.name == *name && [query.query_type(), RecordType::CNAME].contains(&record.record_type());
    let mut found = false;
    for record in records {
        found |= fits(record);
        // Other names in the answer may be a wildcard's, too: they are asked for by themselves.
        if !record.proof.is_secure() || record.name != *name {
            return false;
        }
    }
    if !found || response.metadata.response_code != ResponseCode::NoError {
        return false;
    }
    let mut signatures = secure_signatures(&response.answers).filter(|(owner, _)| *owner == name).peekable();
    signatures.peek().is_some() && signatures.all(|(_, signature)| is_expansion_proven(name, signature, &response.authorities))
}

/// Whether no record in the answer was made by a wildcard, but rightly.
pub(super) fn may_lead_on(response: &DnsResponse) -> bool {
    let made = |(owner, signature): &(&Name, &RRSIG)| signature.input().num_labels < owner.num_labels();
    secure_signatures(&response.answers).filter(made).all(|(owner, signature)| is_expansion_proven(owner, signature, &response.authorities))
}

fn is_expansion_proven(name: &Name, signature: &RRSIG, authorities: &[Record]) -> bool {
    let (labels, zone) = (signature.input().num_labels, &signature.input().signer_name);
    if labels >= name.num_labels() || !zone.zone_of(name) {
        return false;
    }
    let parent = name.trim_to(labels.into());
    let mut denials = authorities.iter().filter(|record| record.proof.is_secure()).filter_map(|record| match &record.data {
        RData::DNSSEC(DNSSECRData::NSEC(denial)) => Some((&record.name, denial)),
        _ => None,
    });
    denials.any(|(owner, denial)| {
        let of_zone = secure_signatures(authorities).any(|(signed, signature)| {
            signed == owner && signature.input().type_covered == RecordType::NSEC && signature.input().signer_name == *zone
        });
        of_zone && covers(owner, denial, zone, name) && closest_encloser(name, owner, denial) == parent
    })
}

fn secure_signatures(records: &[Record]) -> impl Iterator<Item = (&Name, &RRSIG)> {
    records.iter().filter(|record| record.proof.is_secure()).filter_map(|record| match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(signature)) => Some((&record.name, signature)),
        _ => None,
    })
}

/// Whether the record proves that `name` is not there: it lies between owner and next name in the canonical order (RFC 4034 section 6.1), where
/// the last record of a zone leads to its apex; and not below a delegation or a DNAME record, of whose inside the record knows nothing.
fn covers(owner: &Name, denial: &NSEC, zone: &Name, name: &Name) -> bool {
    let next = denial.next_domain_name();
    let types = denial.type_set();
    let is_cut = types.contains(RecordType::DNAME) || types.contains(RecordType::NS) && !types.contains(RecordType::SOA);
    // A next name below the name would make it an empty one that is there.
    owner < name && (name < next || next == zone) && !name.zone_of(next) && !(is_cut && owner.zone_of(name))
}

/// The longest name above `name` that is there, as the record shows.
fn closest_encloser(name: &Name, owner: &Name, denial: &NSEC) -> Name {
    let shared = |other: &Name| {
        let mut above = name.base_name();
        while !above.zone_of(other) {
            above = above.base_name();
        }
        above
    };
    let (one, other) = (shared(owner), shared(denial.next_domain_name()));
    if one.num_labels() >= other.num_labels() { one } else { other }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        let mut name = crate::wire::name::parse(text).unwrap();
        name.set_fqdn(true);
        name
    }

    #[test]
    fn a_denial_covers_what_lies_between_its_names_and_nothing_else() {
        let covers = |owner: &str, next: &str, types: &[RecordType], text: &str| {
            covers(&name(owner), &NSEC::new(name(next), types.iter().copied()), &name("lab"), &name(text))
        };
        let a = &[RecordType::A][..];
        assert!(covers("*.wild.lab", "www.lab", a, "any.wild.lab"));
        assert!(covers("www.lab", "lab", a, "zzz.lab"));
        assert!(!covers("*.wild.lab", "b.wild.lab", a, "c.wild.lab"));
        assert!(!covers("any.wild.lab", "www.lab", a, "any.wild.lab"));
        assert!(!covers("a.lab", "x.b.lab", a, "b.lab"), "an empty name");
        assert!(!covers("sub.lab", "www.lab", &[RecordType::NS], "any.sub.lab"), "beyond a delegation");
        assert!(!covers("sub.lab", "www.lab", &[RecordType::DNAME], "any.sub.lab"));
    }

    #[test]
    fn the_closest_encloser_is_what_the_denial_shares_with_the_name() {
        let closest =
            |text: &str, owner: &str, next: &str| closest_encloser(&name(text), &name(owner), &NSEC::new(name(next), [RecordType::A]));
        assert_eq!(closest("any.wild.lab", "*.wild.lab", "www.lab"), name("wild.lab"));
        assert_eq!(closest("a.b.wild.lab", "*.wild.lab", "c.b.wild.lab"), name("b.wild.lab"));
        assert_eq!(closest("any.lab", "alias.lab", "lab"), name("lab"));
    }
}
