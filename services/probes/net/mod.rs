//! The only folder that opens sockets.

pub mod capability;
pub mod errqueue;
pub(crate) mod icmp;
pub mod resolve;
pub(crate) mod stamp;
pub(crate) mod stamped;
pub mod tcp;
