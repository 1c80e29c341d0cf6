//! The monitor: runs orders for clients.

pub mod book;
pub mod client;
pub mod config;
pub mod figures;
mod human;
pub mod journal;
pub mod order;
pub mod policy;
pub mod schedule;
pub mod tables;
