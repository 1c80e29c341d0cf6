//! The whole monitor: build, run, drain.

use std::{sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    sync::{broadcast, mpsc},
    task,
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
    transport::{Server, server::TcpIncoming},
};
use vantage_contract::{
    DESCRIPTOR_BYTES,
    v1::{admin_service_server::AdminServiceServer, monitor_service_server::MonitorServiceServer},
};
use vantage_daemon::{
    clock,
    exit::{Exit, Fatal},
    http,
    readiness::Readiness,
};
use vantage_probes::World;

use crate::{
    admin::Admin,
    admission::Admission,
    config::Settings,
    doctor,
    execute::Execute,
    figures,
    journal::{Disk, Keeper},
    policy::{OwnListener, Policy},
    registry::Registry,
    session::Shared,
};

/// Records kept for a watcher that is slow; beyond, it misses some and is told how many.
const WATCH_DEPTH: usize = 1024;
/// What a client may send before it is read: of one stream, and of one connection. Fixed, as h2 gives each connection a budget of unread
/// small frames in proportion to its window, and an adaptive one begins so small that a burst of orders ends the connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Streams that one connection may have open at once.
const MAX_STREAMS: u32 = 128;
/// Bytes of headers that a request may have.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// Streams that a peer may reset before they were served; more ends its connection (CVE-2023-44487).
const MAX_RESET_STREAMS: usize = 32;
/// How often it is looked which networks this machine is in.
const SURROUNDINGS: Duration = Duration::from_secs(5);
/// How long connections may take to close once all sessions have ended.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves gRPC on `grpc` until `drain`; then stops starting runs, delivers what is in flight within the settings' `drain_timeout`, and returns.
pub async fn serve(settings: Settings, grpc: TcpListener, drain: CancellationToken) -> Result<(), Fatal> {
    let tls = settings.server_tls()?;
    let bearer = settings.bearer()?;
    let settings = Arc::new(settings);
    let policy = settings.policy();
    let mut own: Vec<_> = grpc.local_addr().ok().map(|address| (OwnListener::Grpc, address)).into_iter().collect();
    let end = CancellationToken::new();
    let readiness = Readiness::default();
    policy.report_to(&readiness);
    policy.look_around();
    let (broken, mut breakage) = mpsc::unbounded_channel();
    let (keeper, stored) = {
        let (settings, readiness) = (Arc::clone(&settings), readiness.clone());
        // Opening may read a large file through.
        let opened = task::spawn_blocking(move || open_journal(&settings, readiness, broken)).await;
        opened.map_err(|error| Fatal::new(Exit::Software, format!("open the journal: {error}")))??
    };
    let registry = Registry::new(Shared {
        keeper: keeper.clone(),
        world: World::new(Arc::new(policy.clone())),
        policy: policy.clone(),
        admission: Admission::new(settings.limits),
        watchers: broadcast::channel(WATCH_DEPTH).0,
        drain: drain.clone(),
        end: end.clone(),
        settings: Arc::clone(&settings),
    });
    let admin = Admin { registry: registry.clone(), started: clock::wall(), capabilities: doctor::capabilities() };
    let execute = Execute { registry: registry.clone() };
    let guard = Guard { bearer };

    let (health_reporter, health) = tonic_health::server::health_reporter();
    health_reporter.set_serving::<MonitorServiceServer<Execute>>().await;
    health_reporter.set_serving::<AdminServiceServer<Admin>>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTOR_BYTES)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let broken = |error: tonic_reflection::server::Error| Fatal::new(Exit::Software, format!("build reflection: {error}"));
    let (v1, v1alpha) = (reflection().build_v1().map_err(broken)?, reflection().build_v1alpha().map_err(broken)?);

    let mut server = Server::builder()
        .http2_keepalive_interval(Some(settings.keepalive.interval))
        .http2_keepalive_timeout(Some(settings.keepalive.timeout))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .http2_max_pending_accept_reset_streams(Some(MAX_RESET_STREAMS))
        .max_concurrent_streams(MAX_STREAMS);
    if let Some(tls) = tls {
        server = server.tls_config(tls).map_err(|error| Fatal::new(Exit::Config, format!("tls: {error}")))?;
    }
    let closed = CancellationToken::new();
    let figures = match settings.http_listen {
        Some(address) => {
            let listener = http::bind("health and figures", address).await?;
            let address = listener.local_addr().unwrap_or(address);
            own.push((OwnListener::Http, address));
            tracing::info!(%address, "health and figures");
            let (registry, name) = (registry.clone(), settings.name.clone());
            let routes = http::routes_of(readiness.clone(), move || {
                let (registry, name) = (registry.clone(), name.clone());
                async move { Arc::new(figures::registry(&name, registry.snapshot().await)) }
            });
            Some(tokio::spawn(http::serve(listener, routes, closed.clone())))
        }
        None => None,
    };
    policy.note_own(own);
    let looks = tokio::spawn(look_around(policy));
    registry.resume(stored);
    tracing::info!(name = settings.name, address = %grpc.local_addr().unwrap_or(settings.listen), "serving");
    let serving = server
        .add_service(health)
        .add_service(MonitorServiceServer::with_interceptor(execute, guard.clone()))
        .add_service(AdminServiceServer::with_interceptor(admin, guard.clone()))
        .add_service(tonic::service::interceptor::InterceptedService::new(v1, guard.clone()))
        .add_service(tonic::service::interceptor::InterceptedService::new(v1alpha, guard))
        .serve_with_incoming_shutdown(TcpIncoming::from(grpc).with_nodelay(Some(true)), closed.clone().cancelled_owned());

    let drained = async {
        drain.cancelled().await;
        readiness.unmet("monitor", "it is stopping");
        health_reporter.set_not_serving::<MonitorServiceServer<Execute>>().await;
        if tokio::time::timeout(settings.drain_timeout, registry.ended()).await.is_err() {
            tracing::warn!(drain_timeout = ?settings.drain_timeout, "ending runs in flight: they took longer than drain_timeout");
            end.cancel();
            // Each session's last words are bounded too.
            let _ = tokio::time::timeout(CLOSE_TIMEOUT * 5, registry.ended()).await;
        }
        closed.cancel();
        tokio::time::sleep(CLOSE_TIMEOUT).await;
    };
    let served = tokio::select! {
        served = serving => served.map_err(|error| Fatal::new(Exit::OsError, format!("serve gRPC: {error}"))),
        () = drained => Ok(()),
        Some(fatal) = breakage.recv() => Err(fatal),
    };
    closed.cancel();
    looks.abort();
    // The folder is free for another process when this one says that it has ended.
    if let Err(error) = task::spawn_blocking(move || keeper.end()).await {
        tracing::error!(%error, "end the journal");
    }
    if let Some(figures) = figures {
        // It ends within a second of `closed`; a panic in it is no reason to end otherwise.
        let _ = figures.await;
    }
    served
}

/// Interfaces come and go, and with them what is a broadcast. (What the policy does not know yet, the kernel refuses: no socket asks for
/// leave to broadcast.)
async fn look_around(policy: Policy) {
    let mut ticks = tokio::time::interval(SURROUNDINGS);
    loop {
        ticks.tick().await;
        policy.look_around();
    }
}

type Found = (Keeper, Vec<crate::journal::StoredClient>);

/// Opens the journal, and what is in it.
fn open_journal(settings: &Settings, readiness: Readiness, broken: mpsc::UnboundedSender<Fatal>) -> Result<Found, Fatal> {
    let folder = settings.data.open(&format!("monitor-{}", settings.name.replace('/', "_")))?;
    if let Some(folder) = &folder {
        tracing::info!(folder = %folder.path().display(), sync = settings.journal.sync.name(), "the journal");
    }
    let (mut disk, set_aside) = Disk::open(folder, &settings.name, settings.journal.sync, clock::wall())?;
    if let Some(set_aside) = &set_aside {
        tracing::error!(
            set_aside,
            "the journal was damaged and set aside: its orders and results are lost; clients will place theirs again"
        );
    }
    let stored = disk.load(settings.journal.sync).map_err(|error| Fatal::new(Exit::OsError, format!("read the journal: {error}")))?;
    Ok((Keeper::start(disk, set_aside, readiness, broken)?, stored))
}

/// Lets in who shows the token, or everybody where there is none. Health stays open: those who ask have no secrets.
#[derive(Clone)]
struct Guard {
    bearer: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Guard {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let Some(expected) = &self.bearer else { return Ok(request) };
        let is_same = request.metadata().get("authorization").is_some_and(|shown| {
            // Both are hashed first, so that the time taken tells nothing of the token.
            let hash = |value: &MetadataValue<Ascii>| ring::digest::digest(&ring::digest::SHA256, value.as_encoded_bytes());
            hash(shown).as_ref() == hash(expected).as_ref()
        });
        if is_same {
            Ok(request)
        } else {
            Err(Status::unauthenticated("this monitor needs its token: send `authorization: Bearer TOKEN` (--token-file)"))
        }
    }
}
