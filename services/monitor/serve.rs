//! The whole monitor: build, run, drain.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    runtime::Handle,
    sync::{broadcast, mpsc},
    task,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_reflection::server::{v1, v1alpha};
use vantage_contract::{DESCRIPTOR_BYTES, v1::admin_service_server::AdminServiceServer};
use vantage_daemon::{
    access::Access,
    audit::Audit,
    clock,
    door::{self, Incoming, Protocol},
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
    execute::{Execute, ExecuteServer},
    figures,
    front::Front,
    guard::Guarding,
    holdings::Holdings,
    journal::{Common, Disk, Keeper},
    policy::{OwnListener, Policy},
    registry::Registry,
    session::{Load, SessionThread, Shared},
    strangers::Strangers,
};

/// Records kept for a watcher that is slow; beyond, it misses some and is told how many.
const WATCH_DEPTH: usize = 1024;
/// What a client may send before it is read: of one stream, and of one connection. Fixed, as h2 gives each connection a budget of unread
/// small frames in proportion to its window, and an adaptive one begins so small that a burst of orders ends the connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Streams that a peer may reset before they were served; more ends its connection (CVE-2023-44487).
const MAX_RESET_STREAMS: usize = 32;
/// How long a question may be, of an operator or about health and descriptors.
const QUESTION_BYTES: usize = 64 * 1024;
/// How often it is looked which networks this machine is in.
const SURROUNDINGS: Duration = Duration::from_secs(5);
/// Connections at each listener of gRPC beyond one for each client that may be known: for those who ask, and those who are not let in.
const SPARE_CONNECTIONS: usize = 256;
/// How long connections may take to close once all sessions have ended.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves gRPC on `grpc` until `drain`; then stops starting runs, delivers what is in flight within the settings' `drain_timeout`, and returns.
pub async fn serve(settings: Settings, grpc: TcpListener, drain: CancellationToken) -> Result<(), Fatal> {
    serve_from(settings, None, grpc, drain).await
}

/// The same, with settings that came from a file: what counts anew when it changes is read there.
pub(crate) async fn serve_from(settings: Settings, file: Option<&Path>, grpc: TcpListener, drain: CancellationToken) -> Result<(), Fatal> {
    let readiness = Readiness::default();
    let audit = Audit::default();
    let access = Access::open(settings.access(file), audit.clone(), readiness.clone())?;
    let settings = Arc::new(settings);
    let policy = settings.policy();
    let mut own: Vec<_> = grpc.local_addr().ok().map(|address| (OwnListener::Grpc, address)).into_iter().collect();
    let end = CancellationToken::new();
    policy.report_to(&readiness);
    policy.audit_by(&audit);
    policy.look_around();
    let (broken, mut breakage) = mpsc::unbounded_channel();
    let (keeper, stored) = {
        let (settings, readiness) = (Arc::clone(&settings), readiness.clone());
        // Opening may read a large file through.
        let opened = task::spawn_blocking(move || open_journal(&settings, readiness, broken)).await;
        opened.map_err(|error| Fatal::new(Exit::Software, format!("open the journal: {error}")))??
    };
    let world = World::new(Arc::new(policy.clone()));
    let load = Load::new(world.hurry().clone());
    let sessions =
        SessionThread::start(load.clone()).map_err(|error| Fatal::new(Exit::OsError, format!("start the sessions' thread: {error}")))?;
    let shared = Shared {
        keeper: keeper.clone(),
        world,
        load,
        workers: Handle::current(),
        policy: policy.clone(),
        admission: Admission::new(settings.limits),
        holdings: Holdings::default(),
        common: Common::new(settings.total_bytes()),
        pacer: Arc::new(settings.limits.common_pacer()),
        watchers: broadcast::channel(WATCH_DEPTH).0,
        drain: drain.clone(),
        end: end.clone(),
        settings: Arc::clone(&settings),
        audit,
    };
    let registry = Registry::new(shared, sessions.handle().clone());
    let admin = Admin { registry: registry.clone(), started: clock::wall(), capabilities: doctor::capabilities() };
    let execute = Execute { registry: registry.clone(), strangers: Strangers::default() };

    let (health_reporter, health) = tonic_health::server::health_reporter();
    let health = health.max_decoding_message_size(QUESTION_BYTES);
    health_reporter.set_serving::<ExecuteServer>().await;
    health_reporter.set_serving::<AdminServiceServer<Admin>>().await;
    let server = || {
        Server::builder()
            .http2_keepalive_interval(Some(settings.keepalive.interval))
            .http2_keepalive_timeout(Some(settings.keepalive.timeout))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_max_header_list_size(settings.limits.header_bytes)
            .http2_max_pending_accept_reset_streams(Some(MAX_RESET_STREAMS))
            .max_concurrent_streams(settings.limits.streams_per_connection)
            .layer(Guarding(access.clone()))
    };
    let door = |name, protocol, tls, most_connections| door::Settings { name, protocol, tls, most_connections };
    let most_connections = settings.limits.clients + SPARE_CONNECTIONS;
    let admin_listener = match settings.admin_listen {
        Some(address) => {
            let listener = http::bind("AdminService", address).await?;
            own.extend(listener.local_addr().ok().map(|address| (OwnListener::Grpc, address)));
            Some(listener)
        }
        None => None,
    };
    let closed = CancellationToken::new();
    let front = Front::start().map_err(|error| Fatal::new(Exit::OsError, format!("start threads for connections: {error}")))?;
    let figures = match settings.http_listen {
        Some(address) => {
            let listener = http::bind("health and figures", address).await?;
            let address = listener.local_addr().unwrap_or(address);
            own.push((OwnListener::Http, address));
            tracing::info!(%address, "health and figures");
            let (registry, name, shown) = (registry.clone(), settings.name.clone(), access.clone());
            let routes = http::routes_of(readiness.clone(), move || {
                let (registry, name, shown) = (registry.clone(), name.clone(), shown.clone());
                async move {
                    let mut figures = figures::registry(&name, registry.snapshot().await);
                    shown.register(&mut figures);
                    Arc::new(figures)
                }
            });
            let is_protected = settings.protects_http();
            let door = door("http", Protocol::Http, is_protected && access.has_tls(), http::MOST_CONNECTIONS);
            let incoming = front.within(|| Incoming::open(listener, access.clone(), door));
            let asked = is_protected.then(|| access.clone());
            front.spawn(http::serve(incoming, asked, routes, closed.clone()))
        }
        None => None,
    };
    policy.note_own(own);
    let looks = tokio::spawn(look_around(policy));
    registry.resume(stored);
    tracing::info!(name = settings.name, address = %grpc.local_addr().unwrap_or(settings.listen), "serving");
    let watching = tokio::spawn(access.clone().watch(closed.clone()));
    let tls = access.has_tls();
    let mut services = vec![MONITOR_SERVICE];
    let mut main = server().add_service(health.clone()).add_service(ExecuteServer::new(execute));
    let admin = AdminServiceServer::new(admin).max_decoding_message_size(QUESTION_BYTES);
    let asking = match admin_listener {
        None => {
            main = main.add_service(admin);
            services.push(ADMIN_SERVICE);
            None
        }
        Some(listener) => {
            tracing::info!(address = ?listener.local_addr().ok(), "serving AdminService");
            let (v1, v1alpha) = reflection(&[ADMIN_SERVICE])?;
            let router = server().add_service(health).add_service(admin).add_service(v1).add_service(v1alpha);
            let door = door("admin", Protocol::Grpc, tls, most_connections);
            let incoming = front.within(|| Incoming::open(listener, access.clone(), door));
            Some(router.serve_with_incoming_shutdown(incoming, closed.clone().cancelled_owned()))
        }
    };
    let (v1, v1alpha) = reflection(&services)?;
    let door = door("grpc", Protocol::Grpc, tls, most_connections);
    let incoming = front.within(|| Incoming::open(grpc, access.clone(), door));
    let main = main.add_service(v1).add_service(v1alpha).serve_with_incoming_shutdown(incoming, closed.clone().cancelled_owned());
    let answering = async move {
        match asking {
            Some(asking) => tokio::try_join!(main, asking).map(drop),
            None => main.await,
        }
    };

    let serving = async {
        match front.spawn(answering) {
            Some(serving) => serving.await.map_err(|error| format!("serve gRPC: {error}"))?.map_err(|error| format!("serve gRPC: {error}")),
            None => Ok(()),
        }
    };

    let drained = async {
        drain.cancelled().await;
        readiness.unmet("monitor", "it is stopping");
        health_reporter.set_not_serving::<ExecuteServer>().await;
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
        served = serving => served.map_err(|why| Fatal::new(Exit::OsError, why)),
        () = drained => Ok(()),
        Some(fatal) = breakage.recv() => Err(fatal),
    };
    closed.cancel();
    looks.abort();
    watching.abort();
    // The folder is free for another process when this one says that it has ended.
    let end = move || {
        sessions.end();
        keeper.end();
    };
    if let Err(error) = task::spawn_blocking(end).await {
        tracing::error!(%error, "end the sessions and the journal");
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

const MONITOR_SERVICE: &str = vantage_contract::v1::monitor_service_server::SERVICE_NAME;
const HEALTH_SERVICE: &str = "grpc.health.v1.Health";
const ADMIN_SERVICE: &str = vantage_contract::v1::admin_service_server::SERVICE_NAME;

/// Reflection of a listener, in both versions: of these services and health.
fn reflection(
    services: &[&'static str],
) -> Result<(v1::ServerReflectionServer<impl v1::ServerReflection>, v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection>), Fatal>
{
    let builder = |own: &'static str| {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTOR_BYTES)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name(HEALTH_SERVICE)
            .with_service_name(own);
        services.iter().fold(builder, |builder, service| builder.with_service_name(*service))
    };
    let broken = |error: tonic_reflection::server::Error| Fatal::new(Exit::Software, format!("build reflection: {error}"));
    let v1 = builder("grpc.reflection.v1.ServerReflection").build_v1().map_err(broken)?.max_decoding_message_size(QUESTION_BYTES);
    let v1alpha =
        builder("grpc.reflection.v1alpha.ServerReflection").build_v1alpha().map_err(broken)?.max_decoding_message_size(QUESTION_BYTES);
    Ok((v1, v1alpha))
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
