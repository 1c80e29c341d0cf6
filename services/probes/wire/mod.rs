//! Pure bytes: codecs that do no I/O and never panic, whatever they are given.

pub mod dns;
pub mod ntp;
pub(crate) mod rdata;
