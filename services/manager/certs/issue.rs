//! Making certificates (RFC 5280).

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, SanType,
};
use vantage_daemon::{
    exit::{Exit, Fatal},
    tls::certificate::{Facts, Name, fingerprint},
};

const DAY: Duration = Duration::from_secs(86_400);
/// How long an authority is in force: whoever trusts it has to be told of the next one.
const AUTHORITY_LIFE: Duration = Duration::from_secs(3650 * 86_400);
/// How long a certificate is in force. Renewing is one command, and nothing is restarted for it.
const LEAF_LIFE: Duration = Duration::from_secs(365 * 86_400);
/// How far the clocks of others may be behind.
const CLOCKS: Duration = Duration::from_secs(3600);

/// A certificate and its key, as PEM.
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

fn failed(error: &rcgen::Error) -> Fatal {
    Fatal::new(Exit::Software, format!("make a certificate: {error}"))
}

/// Whether less than a third of its life is left.
pub(super) fn is_old(facts: &Facts, now: SystemTime) -> bool {
    let life = facts.not_after.duration_since(facts.not_before).unwrap_or_default();
    facts.not_after.duration_since(now).unwrap_or_default() < life / 3
}

fn params(name: &str, life: Duration, now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Vantage");
    params.distinguished_name.push(DnType::CommonName, name);
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // To the second, as certificates count.
    let (epoch, now) = (rcgen::date_time_ymd(1970, 1, 1), Duration::from_secs(since.as_secs()));
    params.not_before = epoch + now - CLOCKS;
    params.not_after = epoch + now + life;
    params
}

/// An authority made on this host, which signs itself.
pub(super) fn authority(host: &str, now: SystemTime) -> Result<Pair, Fatal> {
    let key = KeyPair::generate().map_err(|error| failed(&error))?;
    // Two authorities of one name would be taken for each other, and what one signed for a forgery of the other's.
    let mark = fingerprint(&key.subject_public_key_info());
    let name = format!("Vantage CA {} of {host}", mark.get(..8).unwrap_or_default());
    let mut params = params(&name, AUTHORITY_LIFE, now);
    // It signs holders, and no further authorities.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let text = key.serialize_pem();
    let made = CertifiedIssuer::self_signed(params, key).map_err(|error| failed(&error))?;
    Ok(Pair { certificate: made.pem(), key: text })
}

/// A certificate with a new key, for whoever has these names; a server's, a client's, or both. It ends no later than its authority.
pub(super) fn leaf(
    name: &str,
    names: &[Name],
    (for_servers, for_clients): (bool, bool),
    authority: (&str, &str, SystemTime),
    now: SystemTime,
) -> Result<Pair, Fatal> {
    let (certificate, key, end) = authority;
    let left = end.duration_since(now).unwrap_or_default();
    if left < DAY {
        return Err(Fatal::new(Exit::Config, "ca.pem ends within a day, or has ended: begin a new folder by `certs init`"));
    }
    let key = KeyPair::from_pem(key).map_err(|error| Fatal::new(Exit::Config, format!("ca.key: {error}")))?;
    let issuer = Issuer::from_ca_cert_pem(certificate, key).map_err(|error| Fatal::new(Exit::Config, format!("ca.pem: {error}")))?;
    let mut params = params(name, LEAF_LIFE.min(left), now);
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let usages = [(for_servers, ExtendedKeyUsagePurpose::ServerAuth), (for_clients, ExtendedKeyUsagePurpose::ClientAuth)];
    params.extended_key_usages = usages.into_iter().filter_map(|(wanted, usage)| wanted.then_some(usage)).collect();
    params.subject_alt_names = names.iter().map(alternative).collect::<Result<_, _>>().map_err(|error| failed(&error))?;
    let key = KeyPair::generate().map_err(|error| failed(&error))?;
    let made = params.signed_by(&key, &issuer).map_err(|error| failed(&error))?;
    Ok(Pair { certificate: made.pem(), key: key.serialize_pem() })
}

fn alternative(name: &Name) -> Result<SanType, rcgen::Error> {
    Ok(match name {
        Name::Dns(name) => SanType::DnsName(name.as_str().try_into()?),
        Name::Address(address) => SanType::IpAddress(*address),
        Name::Uri(uri) => SanType::URI(uri.as_str().try_into()?),
        Name::Email(email) => SanType::Rfc822Name(email.as_str().try_into()?),
    })
}
