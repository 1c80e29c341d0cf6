//! Logs go to stderr: text on a terminal, one JSON object a line otherwise.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

use crate::exit::{Exit, Fatal};

/// Starts telemetry for the process, once. `filter` is a level ("info") or directives as tracing-subscriber's `EnvFilter` reads them
/// ("info,vantage_monitor=debug").
pub fn start(filter: &str) -> Result<(), Fatal> {
    let filter = EnvFilter::try_new(filter).map_err(|error| Fatal::new(Exit::Usage, format!("--log {filter:?}: {error}")))?;
    let registry = tracing_subscriber::registry().with(filter);
    let started = if io::stderr().is_terminal() {
        registry.with(tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false)).try_init()
    } else {
        registry.with(tracing_subscriber::fmt::layer().with_writer(io::stderr).json().flatten_event(true)).try_init()
    };
    started.map_err(|error| Fatal::new(Exit::Software, format!("start telemetry: {error}")))
}
