//! A monitor in the manager's process: the one place where the two meet.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use vantage_daemon::{
    data::Data,
    exit::{Exit, Fatal},
};
use vantage_manager::config::EMBEDDED;
use vantage_monitor::{
    Settings,
    policy::{OwnListener, OwnListeners, Policy, PolicySettings},
};

/// Longer than any probe may take. The manager, which knows its checks, ends the drain before.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(330);

/// Serves gRPC, with its journal in `data`, until `drain`, health and figures being the manager's; and then until what is in flight is delivered.
pub(crate) async fn serve(listener: TcpListener, data: Data, drain: CancellationToken) -> Result<(), Fatal> {
    // The sample checks look whether the monitor's own port is open. It is on loopback, and whoever orders is in this process.
    let rules = PolicySettings { own_listeners: OwnListeners { allow: vec![OwnListener::Grpc] }, ..PolicySettings::default() };
    let policy = Policy::new(rules).map_err(|why| Fatal::new(Exit::Software, why))?;
    let settings = Settings {
        name: EMBEDDED.into(),
        http_listen: None,
        is_embedded: true,
        drain_timeout: DRAIN_TIMEOUT,
        data,
        policy,
        ..Settings::default()
    };
    vantage_monitor::files::provide(settings.limits.in_flight);
    vantage_monitor::serve(settings, listener, drain).await
}
