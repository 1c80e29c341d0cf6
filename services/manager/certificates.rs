//! The certificates that links depend on: ours, and those that monitors are judged by. When they end is told in time.

use std::time::Duration;

use tokio::{sync::watch, task};
use tokio_util::sync::CancellationToken;
use vantage_contract::v1::MonitorAddress;
use vantage_daemon::{clock, tls::expiry::Expiry};

use crate::link;

/// How often the files are read again.
const LOOK: Duration = Duration::from_secs(60);

/// Keeps `expiry` in step with the files of these monitors, until `stop`.
pub(crate) async fn watch(expiry: Expiry, mut monitors: watch::Receiver<Vec<MonitorAddress>>, stop: CancellationToken) {
    let mut known: Vec<String> = Vec::new();
    loop {
        let now = monitors.borrow_and_update().clone();
        for gone in known.iter().filter(|name| !now.iter().any(|monitor| monitor.name == **name)) {
            expiry.set(gone, []);
        }
        known = now.iter().map(|monitor| monitor.name.clone()).collect();
        let (looked, expiry) = (expiry.clone(), expiry.clone());
        let read = task::spawn_blocking(move || {
            for monitor in now {
                expiry.set(&monitor.name, link::client_files(&monitor).certificates());
            }
        });
        if let Err(error) = read.await {
            tracing::error!(%error, "look at the certificates of links");
        }
        looked.look(clock::wall());
        tokio::select! {
            changed = monitors.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => return,
        }
    }
}
