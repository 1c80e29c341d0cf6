//! The promises, kept: real sockets, real services, one program.

mod dns;
mod execute;
mod lab;
mod names;
mod ntp;
mod udp;
