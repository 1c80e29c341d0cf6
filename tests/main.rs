//! The promises, kept.

mod lab;
mod ping;
