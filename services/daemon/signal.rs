//! Signals: SIGINT and SIGTERM drain, a second one ends at once; SIGHUP reloads.

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use crate::exit::{Exit, Fatal};

/// What the process is told from outside.
#[derive(Debug)]
pub struct Signals {
    /// Cancelled by the first SIGINT or SIGTERM: stop taking work, deliver what is in flight.
    pub drain: CancellationToken,
    /// Cancelled by the second: end now.
    pub end: CancellationToken,
    /// Receives once for each SIGHUP; those that come while one waits are one.
    pub reload: mpsc::Receiver<()>,
}

impl Signals {
    /// Starts to listen. Needs a runtime.
    pub fn listen() -> Result<Self, Fatal> {
        let (mut interrupt, mut terminate, mut hangup) =
            (open(SignalKind::interrupt())?, open(SignalKind::terminate())?, open(SignalKind::hangup())?);
        let (drain, end) = (CancellationToken::new(), CancellationToken::new());
        let (reload_in, reload) = mpsc::channel(1);
        let (draining, ending) = (drain.clone(), end.clone());
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    _ = interrupt.recv() => "SIGINT",
                    _ = terminate.recv() => "SIGTERM",
                    _ = hangup.recv() => {
                        // A full channel means that a reload is already waiting: it will read the newest files.
                        let _ = reload_in.try_send(());
                        continue;
                    }
                };
                if draining.is_cancelled() {
                    tracing::warn!(signal = name, "ending at once");
                    ending.cancel();
                } else {
                    tracing::info!(signal = name, "draining; once more ends at once");
                    draining.cancel();
                }
            }
        });
        Ok(Self { drain, end, reload })
    }
}

fn open(kind: SignalKind) -> Result<Signal, Fatal> {
    signal(kind).map_err(|error| Fatal::new(Exit::OsError, format!("listen for signal {}: {error}", kind.as_raw_value())))
}
