//! Pure bytes: codecs that do no I/O and never panic, whatever they are given.

pub mod checksum;
pub mod icmp;
pub mod ip;
pub mod text;
