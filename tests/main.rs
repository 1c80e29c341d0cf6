//! The promises, kept.

mod lab;
mod ping;
mod traceroute;
