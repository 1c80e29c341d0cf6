//! Decides what runs where, keeps it, judges it, tells people.
//!
//! The manager has never heard of any kind of probe: it reads the fields of a result before `report`, and shows the rest by the
//! contract's descriptors.

pub mod account;
pub mod alert;
mod border;
mod certificates;
pub mod certs;
pub mod cli;
pub mod config;
pub mod desk;
pub mod link;
mod manager;
pub mod metrics;
mod once;
pub mod plan;
pub mod print;
mod reception;
pub mod results;
mod run;
mod seal;
mod secrets;
pub mod state;
pub mod store;
mod tally;
pub mod web;
pub mod words;

#[cfg(test)]
mod fabric;
#[cfg(test)]
mod ignorance;
#[cfg(test)]
mod script;
#[cfg(test)]
mod tests;

pub use run::{Embed, World, run};
