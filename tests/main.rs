//! The promises, kept: scripted targets on loopback and in networks of our own, real sockets, real services, one program.
#![expect(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that can't go on says why and ends")]

<<<<<<< HEAD
mod command;
mod dns;
mod execute;
mod hostile;
mod http;
mod https;
mod lab;
mod names;
mod ntp;
mod pair;
mod ping;
mod real;
mod tcp;
=======
// `cfg(test)` tells the lints that all of it is test.
#[cfg(test)]
mod lab;
#[cfg(test)]
mod ping;
#[cfg(test)]
>>>>>>> w/icmp
mod traceroute;
mod udp;
