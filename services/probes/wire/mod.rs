//! Pure bytes: codecs that do no I/O and never panic, whatever they are given.

pub mod challenge;
pub mod checksum;
pub mod der;
pub mod dns;
pub mod extension;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod icmp;
pub mod ip;
pub mod ldap;
pub mod mysql;
pub mod name;
pub mod ntp;
pub mod ocsp;
pub mod preset;
pub(crate) mod rdata;
pub mod socks;
pub mod text;
pub mod tunnel;
pub mod x509;
pub mod xmpp;
