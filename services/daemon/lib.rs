//! What every long-running process of Vantage needs, and nothing about probing.
//!
//! Telemetry to stderr, signals, readiness, backoff, privileges given up, folders of data and databases in them, TLS from files, the plain HTTP listener for health and figures, exit codes, wall time.

pub mod backoff;
pub mod clock;
pub mod data;
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
