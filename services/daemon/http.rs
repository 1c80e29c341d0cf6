//! The HTTP listener that both services have: `/livez`, `/readyz`, `/metrics`, and what a service adds; with TLS and tokens where asked for.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::{body::Incoming as HyperBody, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use prometheus_client::{encoding::text, registry::Registry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::{
    access::{Access, Leased, Refusal, Role},
    door::{Connection, Incoming, Peer},
    exit::{Exit, Fatal},
    readiness::Readiness,
};

/// How long a stopping listener waits for answers that are under way.
const LINGER: Duration = Duration::from_secs(1);
/// How long the head of a request may take, counted from the end of the one before: who asks for figures every 15 s keeps its connection.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// Connections at once.
pub const MOST_CONNECTIONS: usize = 512;

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
        .route("/readyz", get(async move |request: Request| ready(&readiness, request.extensions().get::<Stranger>().is_some())))
        .route("/metrics", get(async move || metrics(figures().await.as_ref())))
}

/// Serves `routes` to those whom `access` lets in, and to everybody without one, until `stop`, and then for at most a second more.
pub async fn serve(mut incoming: Incoming, access: Option<Access>, routes: Router, stop: CancellationToken) {
    let routes = match access {
        Some(access) => routes.layer(middleware::from_fn_with_state(access, gate)),
        None => routes,
    };
    let graceful = GracefulShutdown::new();
    loop {
        let connection = tokio::select! {
            connection = incoming.next() => connection,
            () = stop.cancelled() => None,
        };
        let Some(connection) = connection else { break };
        let served = graceful.watcher();
        tokio::spawn(converse(connection, routes.clone(), served));
    }
    drop(incoming);
    let _ = tokio::time::timeout(LINGER, graceful.shutdown()).await;
}

async fn converse(connection: Connection, routes: Router, served: hyper_util::server::graceful::Watcher) {
    let peer = connection.peer().clone();
    let service = hyper::service::service_fn(move |mut request: http::Request<HyperBody>| {
        request.extensions_mut().insert(peer.clone());
        let answering = routes.clone().oneshot(request.map(Body::new));
        async move { Ok::<_, Infallible>(answering.await.unwrap_or_else(|never| match never {})) }
    });
    let conversation =
        http1::Builder::new().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).serve_connection(TokioIo::new(connection), service);
    if let Err(error) = served.watch(conversation).await {
        tracing::debug!(%error, "an HTTP connection ended");
    }
}

/// Marks a request of whom nobody knows: it is told whether all is well, and not what is not.
#[derive(Debug, Clone, Copy)]
struct Stranger;

/// Lets through who may read, and health for everybody.
async fn gate(State(access): State<Access>, mut request: Request, next: Next) -> Response {
    let Some(peer) = request.extensions().get::<Peer>().cloned().filter(|_| access.asks()) else { return next.run(request).await };
    let authorization = request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes().to_vec());
    let path = request.uri().path().to_owned();
    match access.admit(&peer, authorization.as_deref(), Role::Admin) {
        Ok(pass) => next.run(request).await.map(|body| Body::new(Leased::new(body, Some(pass), &path, |_| None))),
        Err(_) if matches!(path.as_str(), "/livez" | "/readyz") => {
            request.extensions_mut().insert(Stranger);
            next.run(request).await
        }
        Err(refusal) => refused(&access, &peer, &refusal, &path),
    }
}

fn refused(access: &Access, peer: &Peer, refusal: &Refusal, path: &str) -> Response {
    let status = if refusal.is_unknown() { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN };
    access.refuse(peer, refusal, path, status.as_str());
    let mut answer = (status, format!("{refusal}\n")).into_response();
    if matches!(refusal, Refusal::NoToken | Refusal::WrongToken) {
        // Browsers ask for a name, which may be any, and a password, which is the token.
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"vantage\""));
    }
    answer
}

fn ready(readiness: &Readiness, to_stranger: bool) -> (StatusCode, String) {
    let complaints = readiness.complaints();
    let (status, mut lines) =
        if complaints.is_empty() { (StatusCode::OK, vec!["ready".to_owned()]) } else { (StatusCode::SERVICE_UNAVAILABLE, complaints) };
    lines.extend(readiness.cautions().into_iter().map(|caution| format!("soon: {caution}")));
    if to_stranger {
        lines = vec![if status == StatusCode::OK { "ready" } else { "not ready; who shows a certificate or token is told why" }.to_owned()];
    }
    (status, lines.join("\n") + "\n")
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
