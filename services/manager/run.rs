//! The whole manager: build, run, drain.

use std::{io::Write, net::SocketAddr, path::Path, pin::Pin, sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use vantage_daemon::{
    access::Access,
    audit::Audit,
    data::Data,
    door::{self, Incoming, Protocol},
    exit::{Exit, Fatal},
    exposure::{self, Protection},
    http,
    readiness::Readiness,
    signal::Signals,
    watch::Watch,
};

use crate::{
    alert, certificates,
    cli::RunArgs,
    config::{self, Additions, Judge, Setup},
    desk::Desk,
    link::Settings,
    manager::{Manager, Source},
    metrics, once,
    print::{Printer, Style},
    seal::Seal,
    store::{self, SqliteStore},
    web,
};

/// Starts a monitor in this process, on a listener and with a place for its journal, until it is told to drain; it ends when it has
/// delivered what was in flight.
pub type Embed = dyn Fn(TcpListener, Data, CancellationToken) -> Pin<Box<dyn Future<Output = Result<(), Fatal>> + Send>> + Send + Sync;

/// What a manager lives in.
pub struct World {
    /// The command line.
    pub arguments: RunArgs,
    /// Who knows the fields of probes.
    pub judge: Arc<Judge>,
    /// Who makes embedded monitors.
    pub embed: Box<Embed>,
    /// What it is told from outside.
    pub signals: Signals,
    /// Where results are printed.
    pub stdout: Box<dyn Write + Send>,
    /// Whether people read them there.
    pub stdout_is_terminal: bool,
}

/// Runs a manager until it is told to stop, or is done.
pub async fn run(world: World) -> Result<Exit, Fatal> {
    let World { arguments, judge, embed, signals, stdout, stdout_is_terminal } = world;
    let path = arguments.config.clone().ok_or_else(|| Fatal::new(Exit::Usage, "give --config FILE"))?;
    let additions = Additions { monitors: arguments.monitors.clone(), embedded: arguments.embedded };
    let mut watch = (!arguments.once && path != Path::new("-")).then(|| Watch::start([path.clone()]));
    let mut setup = Setup::load(&path, &additions, judge.as_ref())?;

    let client_id = match arguments.client_id.clone() {
        Some(id) => id,
        None => config::client_id(&path, arguments.once)?,
    };
    // Before anything listens: nobody can be served without the store.
    let mut journal = Data::Memory;
    let mut seal = Seal::kept_in(None)?;
    let store = if arguments.once {
        None
    } else {
        let folder = arguments.data.clone().unwrap_or_default().open("manager")?;
        if let Some(folder) = &folder {
            // Orders of another file, which has another client id, must not go on in there unseen.
            journal = Data::Folder(folder.path().join(format!("monitor-{}", client_id.replace('/', "_"))));
        }
        seal = Seal::kept_in(folder.as_ref())?;
        let keeping = store::Settings { keep: arguments.keep(), ..store::Settings::new(client_id.clone()) };
        Some(SqliteStore::open(folder, keeping)?)
    };
    let settings = Arc::new(Settings {
        keepalive_interval: arguments.keepalive_interval,
        keepalive_timeout: arguments.keepalive_timeout,
        ..Settings::new(client_id, arguments.name.clone().unwrap_or_else(config::host_name))
    });
    let printer = Printer::start(Style::new(arguments.output, stdout_is_terminal), stdout)?;
    let embedded = if setup.embeds() { Some(Embedded::start(&arguments, &embed, journal).await?) } else { None };
    let embedded_address = embedded.as_ref().map(|embedded| embedded.address);
    setup.complete(embedded_address);

    let Some(store) = store else {
        return ask_once(&setup, settings, &printer, embedded, &signals).await;
    };

    let readiness = Readiness::default();
    let desk = Desk::new(Arc::new(store), alert::Settings::default());
    let stop = CancellationToken::new();
    let services = TaskTracker::new();
    let access = Access::open(arguments.http_access()?, Audit::default(), readiness.clone())?;
    let (monitors, configured) = watch::channel(Vec::new());
    services.spawn(access.clone().watch(stop.clone()));
    services.spawn(certificates::watch(access.expiry().clone(), configured, stop.clone()));
    if let Some(address) = arguments.http.0 {
        let shown = access.asks();
        exposure::check("--http", address, http_protection(&arguments), "see all checks and results", HTTP_CURE)?;
        let listener = http::bind("HTTP", address).await?;
        let address = listener.local_addr().map_or(address, |bound| bound);
        tracing::info!(%address, tls = access.has_tls(), "serving HTTP");
        let mut figures = Registry::default();
        metrics::register(desk.clone(), &mut figures);
        access.register(figures.sub_registry_with_prefix("vantage_manager"));
        let page = web::Settings { host_names: arguments.http_hosts.clone(), ..web::Settings::default() };
        let routes = http::routes(readiness.clone(), Arc::new(figures)).merge(web::routes(desk.clone(), page));
        let door = door::Settings {
            name: HTTP_LISTENER,
            protocol: Protocol::Http,
            tls: access.has_tls(),
            most_connections: http::MOST_CONNECTIONS,
        };
        let incoming = Incoming::open(listener, access.clone(), door);
        services.spawn(http::serve(incoming, shown.then(|| access.clone()), routes, stop.clone()));
    }
    let watched = desk.clone();
    let stopped = stop.clone();
    services.spawn(async move { watched.watch(stopped).await });
    services.close();

    let source = Source { path, additions, judge, embedded_address, seal };
    if let Some(watch) = watch.as_mut().filter(|_| !setup.files.is_empty()) {
        // Read once more under the watch of all that it is put together from: what changed in between would not be seen.
        *watch = source.watch(&setup);
        setup = source.load().map_err(|lines| Fatal::new(Exit::Config, lines.join("\n")))?;
    } else {
        setup.plan.seal(&source.seal);
    }
    let manager = Manager::new(source, settings, readiness, desk, printer.clone(), monitors);
    let ended = manager.live(setup, watch, embedded, signals, printer.gone()).await;
    stop.cancel();
    services.wait().await;
    ended
}

/// What --http needs beyond loopback, as the flags are called.
const HTTP_CURE: [&str; 3] = [
    "--http-certificate-file, --http-key-file and --http-client-ca-file",
    "--http-certificate-file, --http-key-file and --http-token-file",
    "--insecure-http",
];
/// What the listener of page and figures is called in the audit log and in the figures.
const HTTP_LISTENER: &str = "web";

/// How page and figures are protected.
fn http_protection(arguments: &RunArgs) -> Protection {
    Protection {
        tls: arguments.http_certificate_file.is_some(),
        client_certificates: arguments.http_client_ca_file.is_some(),
        token: arguments.http_token_file.is_some(),
        overridden: arguments.insecure_http,
    }
}

async fn ask_once(
    setup: &Setup,
    settings: Arc<Settings>,
    printer: &Printer,
    embedded: Option<Embedded>,
    signals: &Signals,
) -> Result<Exit, Fatal> {
    let asked = tokio::select! {
        asked = once::run(setup, settings, printer, &signals.drain) => asked,
        () = signals.end.cancelled() => Ok(Exit::SomeUndetermined),
    };
    if let Some(embedded) = embedded {
        // Everything is delivered: what it may still do is of no use to anybody.
        embedded.drain.cancel();
        let _ = tokio::time::timeout(Duration::from_secs(1), embedded.task).await;
    }
    asked
}

/// A monitor in this process.
pub(crate) struct Embedded {
    address: SocketAddr,
    pub(crate) drain: CancellationToken,
    pub(crate) task: JoinHandle<Result<(), Fatal>>,
}

impl Embedded {
    async fn start(arguments: &RunArgs, embed: &Embed, journal: Data) -> Result<Self, Fatal> {
        let mut address = arguments.embedded_listen;
        if !address.ip().to_canonical().is_loopback() {
            return Err(Fatal::new(
                Exit::Usage,
                format!("--embedded-listen {address}: the embedded monitor serves this machine only; run vantage-monitor for others"),
            ));
        }
        if arguments.once {
            address.set_port(0);
        }
        let listener = http::bind("the embedded monitor", address).await.map_err(|error| {
            let cure = "if a monitor serves there already, use it by --monitor; else choose another address by --embedded-listen";
            Fatal::new(error.exit, format!("{error}; {cure}"))
        })?;
        let address =
            listener.local_addr().map_err(|error| Fatal::new(Exit::OsError, format!("ask for the listener's address: {error}")))?;
        let drain = CancellationToken::new();
        if !arguments.once {
            tracing::info!(%address, "serving gRPC of the embedded monitor");
        }
        Ok(Self { address, task: tokio::spawn(embed(listener, journal, drain.clone())), drain })
    }
}
