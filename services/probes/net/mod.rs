//! The only folder that opens sockets.

pub mod errqueue;
pub mod resolve;
pub mod stream;
pub mod tcp;
pub mod tls;
