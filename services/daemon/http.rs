//! The plain HTTP listener that both services have: `/livez`, `/readyz`, `/metrics`, and what a service adds.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use prometheus_client::{encoding::text, registry::Registry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    exit::{Exit, Fatal},
    readiness::Readiness,
};

/// How long a stopping listener waits for answers that are under way.
const LINGER: Duration = Duration::from_secs(1);

/// Opens a listener. Port 0 takes any free one.
pub async fn bind(what: &str, address: SocketAddr) -> Result<TcpListener, Fatal> {
    TcpListener::bind(address).await.map_err(|error| Fatal::new(Exit::OsError, format!("listen for {what} on {address}: {error}")))
}

/// The routes of health and figures. `/livez` answers as long as the process does; `/readyz` answers 503 with the reasons while a
/// condition is unmet; `/metrics` is OpenMetrics text, which Prometheus reads.
pub fn routes(readiness: Readiness, figures: Arc<Registry>) -> Router {
    routes_of(readiness, move || std::future::ready(Arc::clone(&figures)))
}

/// Like [`routes`], with figures that are gathered anew at each scrape.
pub fn routes_of<F, G>(readiness: Readiness, figures: G) -> Router
where
    F: Future<Output = Arc<Registry>> + Send,
    G: Fn() -> F + Clone + Send + Sync + 'static,
{
    Router::new()
        .route("/livez", get(async || "live\n"))
        .route("/readyz", get(async move || ready(&readiness)))
        .route("/metrics", get(async move || metrics(figures().await.as_ref())))
}

/// Serves `routes` until `stop`, and then for at most a second more.
pub async fn serve(listener: TcpListener, routes: Router, stop: CancellationToken) {
    let stopped = stop.clone();
    let served = axum::serve(listener, routes).with_graceful_shutdown(async move { stopped.cancelled().await });
    tokio::select! {
        ended = served => if let Err(error) = ended {
            tracing::error!(%error, "the HTTP listener ended");
        },
        () = async { stop.cancelled().await; tokio::time::sleep(LINGER).await } => {}
    }
}

fn ready(readiness: &Readiness) -> (StatusCode, String) {
    let complaints = readiness.complaints();
    if complaints.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, complaints.join("\n") + "\n")
    }
}

fn metrics(figures: &Registry) -> impl IntoResponse + use<> {
    let mut body = String::new();
    match text::encode(&mut body, figures) {
        Ok(()) => (StatusCode::OK, [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], body),
        Err(error) => {
            let body = format!("encode the figures: {error}\n");
            (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body)
        }
    }
}
