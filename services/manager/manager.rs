//! The manager at work: its links, its reloads, its drain.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vantage_contract::v1::MonitorAddress;
use vantage_daemon::{
    exit::{Exit, Fatal},
    readiness::Readiness,
    signal::Signals,
    watch::Watch,
};

use crate::{
    config::{Additions, EMBEDDED, Judge, Setup},
    desk::{Desk, Placement},
    link::{Link, Settings},
    plan::{self, Orders},
    print::Printer,
    reception::Reception,
    run::Embedded,
    seal::Seal,
};

/// What a drain may take beyond the longest run that may be in flight.
const DRAIN_MARGIN: Duration = Duration::from_secs(10);
/// The condition of readiness that a bad file leaves unmet.
const CONFIG: &str = "config";

/// Where setups come from.
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) additions: Additions,
    pub(crate) judge: Arc<Judge>,
    pub(crate) embedded_address: Option<SocketAddr>,
    pub(crate) seal: Seal,
}

impl Source {
    /// Reads the file again; or says, line by line, what is wrong with it.
    pub(crate) fn load(&self) -> Result<Setup, Vec<String>> {
        if self.path == Path::new("-") {
            return Err(vec!["the checks came from the standard input, which can't be read again".into()]);
        }
        let mut setup = Setup::load(&self.path, &self.additions, self.judge.as_ref()).map_err(|wrong| wrong.lines())?;
        if setup.embeds() != self.embedded_address.is_some() {
            return Err(vec!["the embedded monitor can't come or go while the manager runs: restart it, or give --embedded".into()]);
        }
        setup.complete(self.embedded_address);
        setup.plan.seal(&self.seal);
        Ok(setup)
    }

    /// Watches the file, and what the setup that it gave was put together from.
    pub(crate) fn watch(&self, setup: &Setup) -> Watch {
        Watch::start(setup.files.iter().chain([&self.path]).cloned())
    }
}

pub(crate) struct Manager {
    source: Source,
    settings: Arc<Settings>,
    readiness: Readiness,
    desk: Desk,
    reception: Arc<Reception>,
    setup: Setup,
    links: BTreeMap<String, Link>,
    /// Links that were taken out and have not ended yet.
    leaving: BTreeMap<String, Link>,
    /// The monitors, for whoever looks after their certificates.
    monitors: watch::Sender<Vec<MonitorAddress>>,
}

impl Manager {
    pub(crate) fn new(
        source: Source,
        settings: Arc<Settings>,
        readiness: Readiness,
        desk: Desk,
        printer: Printer,
        monitors: watch::Sender<Vec<MonitorAddress>>,
    ) -> Self {
        let reception = Arc::new(Reception::new(desk.clone(), printer));
        let (setup, links, leaving) = Default::default();
        Self { source, settings, readiness, desk, reception, setup, links, leaving, monitors }
    }

    /// Lives until it is told to stop, nobody reads the output, or every check is counted out; then drains.
    pub(crate) async fn live(
        mut self,
        setup: Setup,
        mut watch: Option<Watch>,
        mut embedded: Option<Embedded>,
        mut signals: Signals,
        gone: &CancellationToken,
    ) -> Result<Exit, Fatal> {
        self.apply(setup);
        self.readiness.met(CONFIG);
        let reception = Arc::clone(&self.reception);
        let ended = loop {
            tokio::select! {
                () = signals.drain.cancelled() => break Ok(Exit::Ok),
                () = gone.cancelled() => break Ok(Exit::Ok),
                () = reception.done() => {
                    tracing::info!("every check is counted out: done");
                    break Ok(Exit::Ok);
                }
                fault = fault(&mut embedded) => {
                    embedded = None;
                    break Err(fault);
                }
                Some(()) = signals.reload.recv() => self.reload("SIGHUP", &mut watch),
                () = changed(&mut watch) => self.reload("a file changed", &mut watch),
            }
        };
        tokio::select! {
            () = self.drain(embedded) => {}
            () = signals.end.cancelled() => tracing::warn!("ended before everything was delivered"),
        }
        ended
    }

    /// Reads the file again: all of it counts, or nothing.
    fn reload(&mut self, why: &str, watch: &mut Option<Watch>) {
        let path = self.source.path.display().to_string();
        let mut loaded = self.source.load();
        if let (Ok(setup), Some(watch)) = (&loaded, watch)
            && setup.files != self.setup.files
        {
            // Read once more under the new watch: what changed in between would be seen by neither.
            *watch = self.source.watch(setup);
            loaded = self.source.load();
        }
        match loaded {
            Ok(setup) => {
                tracing::info!(path, why, "the checks were read again");
                self.apply(setup);
                self.readiness.met(CONFIG);
            }
            Err(lines) => {
                for line in &lines {
                    tracing::error!(why, "{line}");
                }
                tracing::error!(path, "the checks go on as they were, because the new ones are wrong");
                self.readiness.unmet(CONFIG, lines.join("; "));
            }
        }
    }

    /// Makes links and orders those of a setup. What did not change is not touched.
    fn apply(&mut self, setup: Setup) {
        // Who counts and who judges know of an order before its first result can come.
        self.reception.expect(setup.plan.clone(), setup.timeouts.clone());
        self.desk.expect(placements(&setup));

        let none = Orders::new();
        let orders_of = |setup: &Setup, name: &str| setup.plan.monitors.get(name).cloned().unwrap_or_default();
        let (mut started, mut stopped, mut untouched) = (0, 0, 0);
        for name in self.setup.plan.monitors.keys().filter(|name| !setup.plan.monitors.contains_key(*name)) {
            stopped += self.setup.plan.monitors.get(name).map_or(0, BTreeMap::len);
        }
        for (name, orders) in &setup.plan.monitors {
            let changes = plan::diff(self.setup.plan.monitors.get(name).unwrap_or(&none), orders);
            started += changes.starts.len();
            stopped += changes.stops.len();
            untouched += orders.len() - changes.starts.len();
        }

        self.leaving.retain(|_, link| !link.is_finished());
        for (name, link) in std::mem::take(&mut self.links) {
            let monitor = setup.monitors.iter().find(|monitor| monitor.name == name);
            if monitor.is_some_and(|monitor| monitor == link.address()) {
                self.links.insert(name, link);
                continue;
            }
            // The same place by other means, or by another name, goes on with its orders; a place that is given up is told so.
            if setup.monitors.iter().all(|monitor| monitor.address != link.address().address) {
                link.order(Orders::new());
            }
            link.drain();
            self.leaving.insert(name, link);
        }
        for monitor in &setup.monitors {
            let orders = orders_of(&setup, &monitor.name);
            if let Some(link) = self.links.get(&monitor.name) {
                link.order(orders);
                continue;
            }
            let before = self.predecessor(monitor);
            let (settings, reception) = (Arc::clone(&self.settings), Arc::clone(&self.reception));
            let link = Link::start(monitor.clone(), orders, settings, reception, self.readiness.clone(), before);
            self.links.insert(monitor.name.clone(), link);
        }
        self.monitors.send_replace(setup.monitors.clone());
        let (monitors, checks) = (setup.monitors.len(), setup.checks.len());
        tracing::info!(client = self.settings.client_id, monitors, checks, started, stopped, untouched, "checks are placed");
        self.setup = setup;
    }

    /// The leaving link that has to end before one to this monitor begins: it has the same name, or leads to the same place. Two streams to
    /// one monitor would replace each other there, and enter in turns what stands on it.
    fn predecessor(&mut self, monitor: &MonitorAddress) -> Option<Link> {
        let same_place = |(name, link): (&String, &Link)| (link.address().address == monitor.address).then(|| name.clone());
        let name =
            self.leaving.contains_key(&monitor.name).then(|| monitor.name.clone()).or_else(|| self.leaving.iter().find_map(same_place));
        self.leaving.remove(&name?)
    }

    /// Ends everything in the order that loses nothing: the embedded monitor delivers, its link takes that, the other links take what is in
    /// flight; orders stand on the other monitors.
    async fn drain(mut self, embedded: Option<Embedded>) {
        if let Some(Embedded { drain, task, .. }) = embedded {
            let link = self.links.remove(EMBEDDED);
            if let Some(link) = &link {
                link.release();
            }
            drain.cancel();
            let longest = self.setup.timeouts.values().max().copied().unwrap_or_default();
            let delivered = async {
                let served = task.await;
                if let Ok(Err(fatal)) = served {
                    tracing::error!(error = %fatal, "the embedded monitor ended badly");
                }
                if let Some(link) = link {
                    link.ended().await;
                }
            };
            let limit = longest + DRAIN_MARGIN;
            if tokio::time::timeout(limit, delivered).await.is_err() {
                tracing::warn!("the embedded monitor did not deliver everything within {limit:?}");
            }
        }
        self.links.values().for_each(Link::drain);
        // Each link bounds its own end, but for a store or an output that takes nothing.
        let limit = self.settings.drain_timeout + DRAIN_MARGIN;
        let links = self.links.into_values().chain(self.leaving.into_values());
        let ended = async {
            for link in links {
                link.ended().await;
            }
        };
        if tokio::time::timeout(limit, ended).await.is_err() {
            tracing::warn!("the links did not end within {limit:?}");
        }
    }
}

/// Which check runs where, as the desk wants to know it.
fn placements(setup: &Setup) -> Vec<Placement> {
    let placement = |check: &vantage_contract::v1::Check| {
        let holds = |orders: &Orders| orders.contains_key(&check.name);
        let monitors = setup.plan.monitors.iter().filter(|(_, orders)| holds(orders)).map(|(name, _)| name.clone()).collect();
        let orders = setup.plan.monitors.values().filter_map(|orders| orders.get(&check.name));
        Placement { check: check.clone(), revisions: orders.map(|order| order.revision.clone()).collect(), monitors }
    };
    setup.checks.iter().map(placement).collect()
}

/// Ends with the file's next change.
async fn changed(watch: &mut Option<Watch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

/// Ends when an embedded monitor ends that nobody told to.
async fn fault(embedded: &mut Option<Embedded>) -> Fatal {
    let Some(embedded) = embedded else { return std::future::pending().await };
    match (&mut embedded.task).await {
        Ok(Err(fatal)) => fatal,
        Ok(Ok(())) => Fatal::new(Exit::Software, "the embedded monitor ended by itself"),
        Err(error) => Fatal::new(Exit::Software, format!("the embedded monitor: {error}")),
    }
}
