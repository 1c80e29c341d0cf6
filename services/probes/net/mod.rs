//! The only folder that opens sockets.

pub mod bare;
pub mod capability;
pub(crate) mod dns;
pub mod echo;
pub mod errqueue;
mod filter;
pub(crate) mod icmp;
pub mod local;
mod names;
pub(crate) mod ports;
pub(crate) mod proxy;
pub(crate) mod race;
pub(crate) mod random;
pub mod resolve;
mod settings;
pub(crate) mod shelf;
pub(crate) mod stamp;
pub(crate) mod stamped;
pub mod stream;
pub mod tcp;
pub mod tls;
pub(crate) mod udp;
