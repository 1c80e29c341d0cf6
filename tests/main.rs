//! The promises, kept: real sockets, real services, one program.

#![expect(unreachable_pub, reason = "the lab is public to all that is tested here, and to nobody else")]

mod command;
mod dns;
mod execute;
mod hostile;
mod lab;
mod names;
mod ntp;
mod udp;
