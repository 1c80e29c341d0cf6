//! The monitor: runs orders for clients.

pub mod book;
pub mod journal;
pub mod order;
pub mod schedule;
