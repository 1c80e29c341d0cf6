//! Runs orders for clients: sessions, schedules, admission, the journal, and the two gRPC services.

pub mod client;
pub mod config;
pub mod figures;
mod human;
pub mod policy;
pub mod tables;
