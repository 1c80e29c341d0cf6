//! The promises, kept: scripted targets on loopback, real sockets, one program.
#![expect(clippy::expect_used, clippy::panic, reason = "a test that can't go on says why and ends")]

mod dns;
mod lab;
mod names;
mod ntp;
mod udp;
