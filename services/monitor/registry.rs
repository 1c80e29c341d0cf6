//! Which clients there are.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    runtime,
    sync::{mpsc, oneshot},
};
use tokio_util::task::TaskTracker;
use tonic::Status;
use vantage_contract::v1::Hello;

use crate::{
    figures::Snapshot,
    journal::StoredClient,
    session::{self, Attached, Command, Shared, View},
    tally::Tally,
};

/// The sessions of a monitor, by client id. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Registry {
    /// What all sessions share.
    pub shared: Shared,
    sessions: Arc<Mutex<BTreeMap<String, Handle>>>,
    tasks: TaskTracker,
    /// Where sessions live.
    home: runtime::Handle,
    /// What sessions that have ended had counted.
    past: Arc<Mutex<Tally>>,
}

/// A session, from outside.
#[derive(Clone)]
struct Handle {
    commands: mpsc::Sender<Command>,
    expendable: Arc<AtomicBool>,
}

impl Registry {
    /// No clients yet; sessions are to live at `home`.
    pub fn new(shared: Shared, home: runtime::Handle) -> Self {
        Self { shared, sessions: Arc::default(), tasks: TaskTracker::new(), home, past: Arc::default() }
    }

    /// Opens a stream for the client, in its session or in a new one.
    pub(crate) async fn attach(&self, hello: Hello, address: String) -> Result<(mpsc::Sender<Command>, Attached), Status> {
        loop {
            let commands = self.session(&hello.client_id)?;
            let (reply, answer) = oneshot::channel();
            let command = Command::Attach { hello: hello.clone(), address: address.clone(), reply };
            if commands.send(command).await.is_ok()
                && let Ok(attached) = answer.await
            {
                return Ok((commands, attached?));
            }
            if self.shared.drain.is_cancelled() {
                return Err(session::draining());
            }
            // That session was just ending, for want of anything to do: the next one is new.
            self.forget(&hello.client_id, &commands);
        }
    }

    /// How all sessions are going, by client id.
    pub async fn views(&self) -> Vec<View> {
        let sessions: Vec<_> = self.lock().values().cloned().collect();
        let mut views = Vec::with_capacity(sessions.len());
        for Handle { commands, .. } in sessions {
            let (reply, answer) = oneshot::channel();
            // A session that ends just now has nothing to show.
            if commands.send(Command::Inspect(reply)).await.is_ok()
                && let Ok(view) = answer.await
            {
                views.push(view);
            }
        }
        views
    }

    /// The monitor at this moment, in plain numbers.
    pub async fn snapshot(&self) -> Snapshot {
        let mut tally = self.past.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let views = self.views().await;
        for view in &views {
            tally += &view.tally;
        }
        let Shared { admission, drain, policy, .. } = &self.shared;
        let policy = policy.status();
        Snapshot {
            clients: views.iter().map(View::figures).collect(),
            skipped: tally.skipped(),
            started: tally.started,
            results: tally.records,
            load: admission.load(),
            lateness: tally.lateness,
            journal: self.shared.keeper.condition(),
            policy_reloads: (policy.reloads, policy.failed_reloads),
            policy_is_stale: policy.trouble.is_some(),
            draining: drain.is_cancelled(),
        }
    }

    /// Waits until all sessions have ended, once the monitor is stopping.
    pub async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn session(&self, client_id: &str) -> Result<mpsc::Sender<Command>, Status> {
        let mut sessions = self.lock();
        if let Some(handle) = sessions.get(client_id) {
            return Ok(handle.commands.clone());
        }
        if self.shared.drain.is_cancelled() {
            return Err(session::draining());
        }
        let limit = self.shared.settings.limits.clients;
        if sessions.len() >= limit && !make_room(&mut sessions) {
            return Err(session::limit(client_id, "limits.clients", limit, "clients that a monitor knows"));
        }
        Ok(self.begin(client_id.to_owned(), None, &mut sessions))
    }

    /// Goes on with clients that the journal knows; to be called once, before there are others.
    pub fn resume(&self, stored: Vec<StoredClient>) {
        for client in stored {
            let mut sessions = self.lock();
            let (orders, results) = (client.orders.len(), client.lanes.iter().map(|lane| lane.records).sum::<u64>());
            tracing::info!(client = client.client_id, orders, results, "client found in the journal: its orders go on");
            self.begin(client.client_id.clone(), Some(client), &mut sessions);
        }
    }

    fn begin(&self, client_id: String, stored: Option<StoredClient>, sessions: &mut BTreeMap<String, Handle>) -> mpsc::Sender<Command> {
        let expendable = Arc::new(AtomicBool::new(false));
        let (commands, task) = session::spawn(client_id.clone(), stored, self.shared.clone(), Arc::clone(&expendable));
        let (registry, id, sender) = (self.clone(), client_id.clone(), commands.downgrade());
        let session = async move {
            let tally = task.await;
            *registry.past.lock().unwrap_or_else(PoisonError::into_inner) += &tally;
            if let Some(sender) = sender.upgrade() {
                registry.forget(&id, &sender);
            }
        };
        self.tasks.spawn_on(session, &self.home);
        sessions.insert(client_id, Handle { commands: commands.clone(), expendable });
        commands
    }

    fn forget(&self, client_id: &str, ended: &mpsc::Sender<Command>) {
        let mut sessions = self.lock();
        if sessions.get(client_id).is_some_and(|current| current.commands.same_channel(ended)) {
            sessions.remove(client_id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Handle>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Parts with a client that has left for good, as far as can be told: those who came once, as grpcurl does, must not lock others out.
/// False: there is none.
fn make_room(sessions: &mut BTreeMap<String, Handle>) -> bool {
    let expendable = |(id, handle): (&String, &Handle)| handle.expendable.load(Ordering::Relaxed).then(|| id.clone());
    let Some(handle) = sessions.iter().find_map(expendable).and_then(|id| sessions.remove(&id)) else { return false };
    // A full queue of commands means that its client is just coming back: it will find a new session.
    let _ = handle.commands.try_send(Command::Forget);
    true
}
