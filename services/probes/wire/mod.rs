//! Pure bytes: codecs that do no I/O and never panic, whatever they are given.

pub mod checksum;
pub mod dns;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod icmp;
pub mod ip;
pub mod name;
pub mod ntp;
pub(crate) mod rdata;
pub mod text;
