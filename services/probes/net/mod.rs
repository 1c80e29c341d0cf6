//! The only folder that opens sockets.

pub(crate) mod dns;
pub mod errqueue;
pub(crate) mod random;
pub mod resolve;
mod settings;
pub mod stream;
pub mod tcp;
pub mod tls;
pub(crate) mod udp;
