//! What every long-running process of Vantage needs, and nothing about probing.
//!
//! Telemetry to stderr, the audit log, signals, readiness, backoff, privileges given up, folders of data and databases in them, files that change,
//! TLS and who may talk to us, listeners, health and figures over HTTP, exit codes, wall time.

pub mod access;
pub mod audit;
pub mod backoff;
pub mod clock;
pub mod data;
pub mod door;
pub mod exit;
pub mod exposure;
pub mod http;
pub mod privilege;
pub mod readiness;
pub mod signal;
pub mod sqlite;
pub mod telemetry;
pub mod tls;
pub mod watch;
