//! The only folder that opens sockets.

pub mod resolve;
pub mod tcp;
