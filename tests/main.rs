//! The promises, kept: scripted targets on loopback and in networks of our own, real sockets, real services, one program.
#![expect(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that can't go on says why and ends")]

mod addresses;
mod bench;
mod chaos;
mod command;
mod dns;
mod durable;
mod echoes;
mod execute;
mod hostile;
mod http;
mod http3;
mod http_auth;
mod http_hostile;
mod http_proxy;
mod https;
mod identity;
mod lab;
mod leaks;
mod limits;
mod names;
mod ntp;
mod overload;
mod pair;
mod ping;
mod privilege;
mod race;
mod real;
mod secrets;
mod siege;
mod tcp;
mod threats;
mod tls;
mod traceroute;
mod udp;
