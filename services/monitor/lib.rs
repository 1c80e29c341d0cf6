//! The monitor: runs orders for clients, and keeps their results until they are taken.
//!
//! `schedule`, `order`, `book` and `journal` decide and take the time as an argument; `session` owns one client's share of them and acts;
//! `execute` and `admin` are the two gRPC services; `serve` is the whole.

pub mod admission;
pub mod bench;
pub mod book;
pub mod cli;
pub mod client;
mod commands;
pub mod config;
mod console;
pub mod doctor;
pub mod figures;
pub mod files;
mod front;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod holdings;
mod human;
pub mod journal;
pub mod ledger;
pub mod order;
mod output;
mod pacer;
pub mod policy;
mod probe;
mod record;
pub mod registry;
pub mod schedule;
pub mod serve;
pub mod session;
mod start;
mod strangers;
pub mod tables;
pub mod tally;

mod admin;
mod execute;
mod guard;

pub use config::Settings;
pub use serve::serve;
