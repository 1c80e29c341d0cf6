//! Runs orders for clients: sessions, schedules, admission, the journal, and the two gRPC services.

pub mod config;
pub mod figures;
pub mod policy;
