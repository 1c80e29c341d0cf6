//! A monitor in the manager's process: the one place where the two meet.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use vantage_daemon::{data::Data, exit::Fatal};
use vantage_manager::config::EMBEDDED;
use vantage_monitor::Settings;

/// Longer than any probe may take. The manager, which knows its checks, ends the drain before.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(330);

/// Serves gRPC, with its journal in `data`, until `drain`, health and figures being the manager's; and then until what is in flight is delivered.
pub(crate) async fn serve(listener: TcpListener, data: Data, drain: CancellationToken) -> Result<(), Fatal> {
    let settings = Settings { name: EMBEDDED.into(), http_listen: None, drain_timeout: DRAIN_TIMEOUT, data, ..Settings::default() };
    vantage_monitor::files::provide(settings.limits.in_flight);
    vantage_monitor::serve(settings, listener, drain).await
}
