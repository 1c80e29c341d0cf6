//! The only folder that opens sockets.

pub mod errqueue;
pub mod resolve;
pub mod tcp;
