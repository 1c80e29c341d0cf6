//! The link to one monitor, for ever: it dials, restates the orders, takes results, acknowledges what is stored, and comes back after
//! each cut. tonic retries nothing, so all of that is here.

mod endpoint;
mod outgoing;
mod session;
mod stream;
#[cfg(test)]
mod tests;
mod trouble;

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use vantage_contract::v1::{Hello, MonitorAddress, ProbeResult, StoredSession};
use vantage_daemon::{backoff::Backoff, clock, exit::Fatal, readiness::Readiness, tls::client::Fault};

use crate::{
    plan::{Changes, Orders},
    store::Standing,
};
pub(crate) use endpoint::{client_files, dial, trouble};
use session::{Ending, Session};
pub(crate) use stream::{Stream, ask, open};
use trouble::Place;

/// How links behave. One for all links of a manager.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names this manager for ever; see `Hello.client_id`.
    pub client_id: String,
    /// For people; see `Hello.client_name`.
    pub client_name: String,
    /// How long a connection may take to come up, TLS included. Default 5 s.
    pub connect_timeout: Duration,
    /// How long a monitor may take to answer Hello. Default 10 s.
    pub answer_timeout: Duration,
    /// How long the connection may be silent before it is asked for a sign of life. Default 10 s.
    pub keepalive_interval: Duration,
    /// How long that sign may take. Default 5 s.
    pub keepalive_timeout: Duration,
    /// The first wait before dialling again. Default 200 ms.
    pub first_delay: Duration,
    /// The longest wait before dialling again, without its random part. Default 10 s.
    pub most_delay: Duration,
    /// The wait after a refusal that only a person can cure. Default 60 s.
    pub refused_delay: Duration,
    /// How long a stream has to live to make the waits begin anew. Default 60 s.
    pub healthy_after: Duration,
    /// How long a link that ends waits for what is in flight. Default 5 s.
    pub drain_timeout: Duration,
}

impl Settings {
    /// The defaults.
    pub fn new(client_id: impl Into<String>, client_name: impl Into<String>) -> Self {
        Self {
            client_id: client_id.into(),
            client_name: client_name.into(),
            connect_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(5),
            first_delay: Duration::from_millis(200),
            most_delay: Duration::from_secs(10),
            refused_delay: Duration::from_secs(60),
            healthy_after: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(5),
        }
    }

    pub(crate) fn hello(&self, stored_sessions: Vec<StoredSession>) -> Hello {
        Hello {
            client_id: self.client_id.clone(),
            client_name: self.client_name.clone(),
            client_version: env!("CARGO_PKG_VERSION").to_owned(),
            stored_sessions,
        }
    }
}

/// What stands behind a link: where its results go, and who knows how its orders stand. Monitors are named as they call themselves.
///
/// An error of what is asked here is told, and the same is asked again, until the link is told to drain.
pub trait Intake: Send + Sync + 'static {
    /// How far the results of this monitor's sessions are stored, of at most a hundred that were used last. Empty is never wrong: it costs
    /// results that are sent again.
    fn stored_sessions(&self, monitor: &str) -> impl Future<Output = Vec<StoredSession>> + Send;

    /// Whether this link may serve a monitor of that name; asked when it has answered, and before anything is stated. An error says who
    /// has that name already, and what helps; nothing is noted then. The name is the link's until its next state that is not
    /// [`State::Connected`].
    fn admit(&self, link: &str, monitor: &str) -> Result<(), String>;

    /// Enters in the ledger, durably, that exactly these orders are going to stand on the monitor. `closed` are the sessions that it says are
    /// still to come, with their last sequences. Ok: how each stands, in their order; then they are stated.
    fn restate(
        &self,
        link: &str,
        monitor: &str,
        closed: &[StoredSession],
        orders: &Orders,
    ) -> impl Future<Output = Result<Vec<Standing>, String>> + Send;

    /// Enters in the ledger, durably, what is going to change while the stream is open. Ok: how each of the orders to place stands, in their
    /// order; then it is said.
    fn change(&self, link: &str, monitor: &str, changes: &Changes) -> impl Future<Output = Result<Vec<Standing>, String>> + Send;

    /// Stores results durably and shows those that are new. Ok: they may be acknowledged.
    fn take(&self, link: &str, results: &[ProbeResult]) -> impl Future<Output = Result<(), String>> + Send;

    /// Hears of each change.
    fn note(&self, link: &str, state: &State);
}

/// How a link is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It dials.
    Connecting,
    /// Its stream is open.
    Connected {
        /// What the monitor calls itself.
        monitor: String,
        /// The session that serves us.
        session: String,
    },
    /// Its stream is down, and why; it dials again soon.
    Down(String),
    /// The monitor refuses us, or can't be served, for a reason that only a person can cure; it dials again now and then.
    Refused(String),
    /// Another manager with our client id took our place; it does not come back by itself.
    TakenOver,
    /// It was told to end, and did.
    Ended,
}

/// A running link.
#[derive(Debug)]
pub struct Link {
    address: MonitorAddress,
    orders: watch::Sender<Arc<Orders>>,
    drain: CancellationToken,
    release: CancellationToken,
    task: JoinHandle<()>,
}

impl Link {
    /// Starts a link. It lives until it is told to [`drain`](Self::drain). It begins when `before` has ended: the link of the same
    /// name that it takes the place of, and that was told to drain.
    pub fn start<I: Intake>(
        address: MonitorAddress,
        orders: Orders,
        settings: Arc<Settings>,
        intake: Arc<I>,
        readiness: Readiness,
        before: Option<Self>,
    ) -> Self {
        let (to, from) = watch::channel(Arc::new(orders));
        let (drain, release) = (CancellationToken::new(), CancellationToken::new());
        let worker = Worker {
            condition: format!("monitor {}", address.name),
            address: address.clone(),
            settings,
            intake,
            readiness,
            drain: drain.clone(),
            release: release.clone(),
            orders: from,
            complaint: None,
        };
        let task = tokio::spawn(async move {
            if let Some(before) = before {
                before.ended().await;
            }
            worker.run().await;
        });
        Self { address, orders: to, drain, release, task }
    }

    /// Where it leads.
    pub fn address(&self) -> &MonitorAddress {
        &self.address
    }

    /// Changes the orders. An open stream is told the difference; a link that waits dials now.
    pub fn order(&self, orders: Orders) {
        self.orders.send_replace(Arc::new(orders));
    }

    /// Tells it to end; see [`ended`](Self::ended). Orders stand on the monitor.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Tells it that this stream is its last: it takes what comes until the monitor ends the stream, and then does not dial again.
    pub fn release(&self) {
        self.release.cancel();
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits for its end.
    pub async fn ended(self) {
        if let Err(error) = self.task.await {
            tracing::error!(link = self.address.name, %error, "the link's task ended badly");
        }
    }
}

/// Whether an address can be dialled: what it says, and that the files it names are there and sound. Nobody is asked anything.
pub fn check(address: &MonitorAddress, settings: &Settings) -> Result<(), Fatal> {
    dial(address, settings).map(drop)
}

/// What to do after a stream has ended.
enum Next {
    Retry {
        why: String,
        after: Option<Duration>,
    },
    Refused(String),
    /// TLS failed, on either side; somebody may put other files in place at any moment.
    Distrusted(String),
    TakenOver,
    Drained,
}

struct Worker<I> {
    address: MonitorAddress,
    condition: String,
    settings: Arc<Settings>,
    intake: Arc<I>,
    readiness: Readiness,
    drain: CancellationToken,
    release: CancellationToken,
    orders: watch::Receiver<Arc<Orders>>,
    /// What was last complained about, and how often it was not said again.
    complaint: Option<(String, u64)>,
}

impl<I: Intake> Worker<I> {
    async fn run(mut self) {
        let settings = Arc::clone(&self.settings);
        let mut backoff = Backoff::new(settings.first_delay, settings.most_delay);
        let mut monitor = String::new();
        self.readiness.unmet(self.condition.clone(), "not yet connected");
        loop {
            self.intake.note(&self.address.name, &State::Connecting);
            let began = clock::monotonic();
            let next = self.attempt(&mut monitor).await;
            if clock::monotonic().duration_since(began) >= settings.healthy_after {
                backoff.reset();
            }
            let wait = match next {
                Next::Drained => break,
                _ if self.release.is_cancelled() => break,
                Next::TakenOver => {
                    self.give_up();
                    tokio::select! {
                        () = self.drain.cancelled() => {}
                        () = self.release.cancelled() => {}
                    }
                    break;
                }
                Next::Retry { why, after } => {
                    self.complain(&why, None);
                    self.intake.note(&self.address.name, &State::Down(why));
                    // A monitor may say when to come back, but not "never".
                    backoff.next_delay().max(after.unwrap_or_default().min(settings.refused_delay))
                }
                Next::Refused(why) => {
                    self.complain(&why, Some(settings.refused_delay));
                    self.intake.note(&self.address.name, &State::Refused(why));
                    settings.refused_delay
                }
                Next::Distrusted(why) => {
                    self.complain(&why, Some(settings.most_delay));
                    self.intake.note(&self.address.name, &State::Refused(why));
                    settings.most_delay
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // A reload: perhaps it cured what was wrong.
                changed = self.orders.changed() => if changed.is_err() { break },
                () = self.drain.cancelled() => break,
                () = self.release.cancelled() => break,
            }
        }
        self.readiness.forget(&self.condition);
        self.intake.note(&self.address.name, &State::Ended);
        tracing::info!(link = self.address.name, "link ended");
    }

    /// One stream, from dialling to its end.
    async fn attempt(&mut self, monitor: &mut String) -> Next {
        let dial = match dial(&self.address, &self.settings) {
            Ok(dial) => dial,
            Err(Fatal { message, .. }) => return Next::Refused(message),
        };
        // The name is known once the monitor has answered. On the first connection of this process it is told then what is stored.
        let stored = if monitor.is_empty() { Vec::new() } else { self.intake.stored_sessions(monitor).await };
        let hello = self.settings.hello(stored);
        let fault = dial.fault.clone();
        let opened = tokio::select! {
            opened = open(dial, hello, &self.settings) => opened,
            () = self.drain.cancelled() => return Next::Drained,
            () = self.release.cancelled() => return Next::Drained,
        };
        let stream = match opened {
            Ok(stream) => stream,
            Err(status) => return judge(&status, &fault),
        };
        if let Err(why) = self.intake.admit(&self.address.name, &stream.monitor) {
            return Next::Refused(why);
        }
        let mut untold = Vec::new();
        if *monitor != stream.monitor {
            monitor.clone_from(&stream.monitor);
            untold = self.intake.stored_sessions(monitor).await;
            let is_due = |session: &str| session == stream.session || stream.closed.iter().any(|closed| closed.session == session);
            untold.retain(|stored| is_due(&stored.session));
        }
        let unsaid = self.complaint.take().map_or(0, |(_, unsaid)| unsaid);
        tracing::info!(
            link = self.address.name,
            address = self.address.address,
            monitor = stream.monitor,
            session = stream.session,
            unsaid_failures = unsaid,
            "connected"
        );
        self.readiness.met(self.condition.clone());
        self.intake.note(&self.address.name, &State::Connected { monitor: stream.monitor.clone(), session: stream.session.clone() });
        let session = Session {
            intake: &self.intake,
            orders: &mut self.orders,
            monitor: stream.monitor.clone(),
            place: Place {
                link: &self.address.name,
                settings: &self.settings,
                readiness: &self.readiness,
                condition: &self.condition,
                drain: &self.drain,
            },
        };
        match session.serve(stream, untold).await {
            Ending::Drained => Next::Drained,
            Ending::Closed => Next::Retry { why: "the monitor ended the stream: it is stopping".into(), after: None },
            Ending::Failed(status) => judge(&status, &fault),
        }
    }

    /// Says what is wrong once, and again when it is something else.
    fn complain(&mut self, why: &str, slowly: Option<Duration>) {
        self.readiness.unmet(self.condition.clone(), why);
        match &mut self.complaint {
            Some((said, unsaid)) if said == why => *unsaid += 1,
            _ => {
                let (link, address) = (&self.address.name, &self.address.address);
                match slowly {
                    None => tracing::warn!(link, address, error = why, "link down; trying again until it is up"),
                    Some(wait) => {
                        tracing::error!(link, address, error = why, "this monitor needs a person's help; trying again every {wait:?}")
                    }
                }
                self.complaint = Some((why.to_owned(), 0));
            }
        }
    }

    fn give_up(&self) {
        let id = &self.settings.client_id;
        let why = format!("another manager took over with the same client id {id:?}; this link stays down until this manager is restarted");
        tracing::error!(
            link = self.address.name,
            address = self.address.address,
            "{why}. Stop one of the two, or give them different ids by --client-id"
        );
        self.readiness.unmet(self.condition.clone(), why);
        self.intake.note(&self.address.name, &State::TakenOver);
    }
}

/// What a status means for the link. A lost connection shows as `Unknown`, so everything is worth another try but what only a person can cure.
fn judge(status: &Status, fault: &Fault) -> Next {
    if let Some(why) = trouble(fault) {
        return Next::Distrusted(why);
    }
    let why = explain(status);
    match status.code() {
        Code::Aborted => Next::TakenOver,
        code => match cure(code) {
            Some(cure) => Next::Refused(format!("{why} ({cure})")),
            None => Next::Retry { why, after: status.get_details_retry_info().and_then(|info| info.retry_delay) },
        },
    }
}

/// What helps where trying again does not.
pub(crate) fn cure(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::Unauthenticated => "give this monitor's token_file, or its tls with a certificate it trusts, in the file of checks",
        Code::PermissionDenied => {
            "give a manager's certificate or token in the file of checks (tls.certificate_file, token_file), or see the monitor's tls.roles"
        }
        Code::InvalidArgument => "the monitor does not accept this manager's Hello: see --client-id",
        Code::Unimplemented => "what listens there is not a monitor, or one of another version",
        Code::FailedPrecondition => "see the monitor's log",
        _ => return None,
    })
}

/// A status as a sentence: what tonic says, and what was behind it.
pub(crate) fn explain(status: &Status) -> String {
    let mut told = match status.code() {
        // How tonic shows a connection that went away, or went silent.
        Code::Unknown => "the connection was lost: ".to_owned(),
        Code::Unavailable => String::new(),
        code => format!("{code:?}: ").to_lowercase(),
    };
    told.push_str(status.message());
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let text = error.to_string();
        // "transport error" says nothing that what caused it does not say better.
        if !told.contains(&text) && text != "transport error" {
            told = format!("{told}: {text}");
        }
        cause = error.source();
    }
    told
}
