//! Logs go to stderr: text on a terminal, one JSON object a line otherwise.

use std::{
    io::{self, IsTerminal, Write},
    sync::Arc,
};

use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

use crate::exit::{Exit, Fatal};

/// Starts telemetry for the process, once. `filter` is a level ("info") or directives as tracing-subscriber's `EnvFilter` reads them
/// ("info,vantage_monitor=debug").
pub fn start(filter: &str) -> Result<(), Fatal> {
    let registry = tracing_subscriber::registry().with(parse(filter)?);
    let started = if io::stderr().is_terminal() {
        registry.with(tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false)).try_init()
    } else {
        registry.with(tracing_subscriber::fmt::layer().with_writer(io::stderr).json().flatten_event(true)).try_init()
    };
    started.map_err(broken)
}

/// Like [`start`], with text lines handed to `print` in place of stderr: for a terminal that has a prompt on it. Each call is a whole
/// event with its line end. `print` must not log.
pub fn start_onto(filter: &str, print: impl Fn(&str) + Send + Sync + 'static) -> Result<(), Fatal> {
    let print: Arc<dyn Fn(&str) + Send + Sync> = Arc::new(print);
    let writer = move || Lines(Arc::clone(&print));
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false);
    tracing_subscriber::registry().with(parse(filter)?).with(layer).try_init().map_err(broken)
}

/// A filter that shows the audit log too, whatever else it leaves out; unless it speaks of the audit log itself.
pub fn with_audit(filter: &str) -> String {
    if filter.split(',').any(|directive| directive.trim().starts_with("audit")) {
        filter.to_owned()
    } else {
        format!("{filter},audit=info")
    }
}

fn parse(filter: &str) -> Result<EnvFilter, Fatal> {
    EnvFilter::try_new(filter).map_err(|error| Fatal::new(Exit::Usage, format!("--log {filter:?}: {error}")))
}

fn broken(error: impl std::fmt::Display) -> Fatal {
    Fatal::new(Exit::Software, format!("start telemetry: {error}"))
}

/// The subscriber writes each event at once.
struct Lines(Arc<dyn Fn(&str) + Send + Sync>);

impl Write for Lines {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        (self.0)(&String::from_utf8_lossy(event));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audit_log_is_shown_unless_the_filter_says_otherwise() {
        assert_eq!(with_audit("warn"), "warn,audit=info");
        assert_eq!(with_audit("info, audit=off"), "info, audit=off");
        parse(&with_audit("info,vantage_monitor=debug")).unwrap();
    }
}
