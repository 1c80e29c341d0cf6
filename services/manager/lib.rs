//! Decides what runs where, keeps it, judges it, tells people.
//!
//! The manager has never heard of any kind of probe: it reads the fields of a result before `report`, and shows the rest by the
//! contract's descriptors.

#[cfg(test)]
mod ignorance;

pub mod alert;
pub mod desk;
pub mod metrics;
pub mod state;
pub mod store;
pub mod web;
pub mod words;

#[cfg(test)]
mod fabric;
