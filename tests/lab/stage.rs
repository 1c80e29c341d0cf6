//! Manager and monitor as processes with data that outlives them, and the link between them.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use vantage_daemon::clock;

use super::{
    place,
    process::{MANAGER, MONITOR, Running, run, write},
    relay::Relay,
};

/// How long the end may take: the last runs, their way, and what the account needs to know that nothing more will come.
const END: Duration = Duration::from_secs(60);

/// Both programs and what is theirs. They are killed, and their data is removed, when this is dropped.
pub(crate) struct Stage {
    /// Where gRPC of the monitor is.
    pub(crate) at: String,
    pub(crate) relay: Relay,
    pub(crate) monitor: Option<Running>,
    pub(crate) manager: Option<Running>,
    /// The folders of their data.
    pub(crate) monitor_data: PathBuf,
    pub(crate) manager_data: PathBuf,
    /// The monitor, as the manager is told it.
    pub(crate) through: String,
    /// What stands before the programs on their command lines: another network, another clock.
    pub(crate) monitor_in: Vec<String>,
    pub(crate) manager_in: Vec<String>,
    checks: String,
    settings: String,
    // The last to go.
    _folder: TempDir,
}

impl Stage {
    /// Neither program runs yet.
    pub(crate) async fn set(checks: &Value, settings: &Value) -> Self {
        let (folder, at) = (tempfile::tempdir().unwrap(), place::own());
        let relay = Relay::to(at).await;
        Self {
            at: at.to_string(),
            through: format!("127.0.0.1:{}", relay.port),
            relay,
            monitor_in: Vec::new(),
            manager_in: Vec::new(),
            monitor: None,
            manager: None,
            monitor_data: folder.path().join("monitor"),
            manager_data: folder.path().join("manager"),
            checks: write(folder.path(), "checks.json", &checks.to_string()),
            settings: write(folder.path(), "monitor.json", &settings.to_string()),
            _folder: folder,
        }
    }

    /// With both running.
    pub(crate) async fn play(checks: &Value, settings: &Value) -> Self {
        let mut stage = Self::set(checks, settings).await;
        stage.start_monitor();
        stage.start_manager();
        stage
    }

    pub(crate) fn start_monitor(&mut self) {
        let data = self.monitor_data.to_str().unwrap();
        let arguments =
            ["serve", "--config", &self.settings, "--name", "stage", "--listen", &self.at, "--http-listen", "off", "--data", data];
        self.monitor = Some(start(&self.monitor_in, MONITOR, &arguments));
    }

    pub(crate) fn start_manager(&mut self) {
        let quick = ["--keepalive-interval", "1s", "--keepalive-timeout", "1s", "--client-id", "stage", "--http", "off"];
        let data = self.manager_data.to_str().unwrap();
        let arguments = [&["--config", &self.checks, "--monitor", &self.through, "--data", data][..], &quick].concat();
        self.manager = Some(start(&self.manager_in, MANAGER, &arguments));
    }

    pub(crate) fn change_checks(&self, checks: &Value) {
        let path = Path::new(&self.checks);
        write(path.parent().unwrap(), "checks.json", &checks.to_string());
    }

    pub(crate) async fn kill(running: &mut Option<Running>) {
        let running = running.take().expect("it runs");
        running.signal(Signal::SIGKILL);
        running.ended().await;
    }

    pub(crate) async fn drain(running: &mut Option<Running>) {
        let running = running.take().expect("it runs");
        running.signal(Signal::SIGTERM);
        let ended = running.ended().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }

    /// All results that are stored, oldest first.
    pub(crate) async fn results(&self) -> Vec<Value> {
        let data = self.manager_data.to_str().unwrap();
        run(MANAGER, &["results", "--data", data, "--limit", "0", "--oldest-first", "--output", "json"]).await.json_lines()
    }

    /// What the monitor says of itself, of its clients, or of its queues.
    pub(crate) async fn ask(&self, what: &str) -> Value {
        let ended = run(MONITOR, &[what, "--output", "json", "--at", &format!("http://{}", self.at)]).await;
        serde_json::from_str(&ended.stdout).unwrap_or(Value::Null)
    }

    /// Runs skipped for a reason since the monitor started.
    pub(crate) async fn skipped(&self, reason: &str) -> u64 {
        let queues = self.ask("queues").await;
        let skipped = queues["queues"][0]["skipped"].as_array().cloned().unwrap_or_default();
        let count = skipped.iter().find(|skipped| skipped["reason"] == reason).map(|skipped| skipped["count"].as_str().unwrap().to_owned());
        count.map_or(0, |count| count.parse().unwrap())
    }

    /// Results that are not acknowledged.
    pub(crate) async fn unacknowledged(&self) -> u64 {
        let queues = self.ask("queues").await;
        queues["queues"][0]["unacknowledged_count"].as_str().map_or(0, |count| count.parse().unwrap())
    }

    /// The account of all runs due until an instant: the total.
    pub(crate) async fn account(&self, until: &str) -> Value {
        let data = self.manager_data.to_str().unwrap();
        let ended = run(MANAGER, &["account", "--data", data, "--until", until, "--by", "none", "--output", "json"]).await;
        if ended.code == Some(78) {
            // The manager has only just been started.
            return json!({ "planned": 0, "passed": 0, "awaited": 0 });
        }
        let account: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        let total = &account["total"];
        assert_eq!(account["unordered"], 0, "{account}");
        let is_sound = total["missing"] == 0 && total["duplicates"] == 0;
        assert_eq!(ended.code, Some(if is_sound { 0 } else { 1 }), "{account}");
        total.clone()
    }

    /// The account of all runs due until now, once nothing more is awaited.
    pub(crate) async fn settled(&self) -> Value {
        let until = prost_types::Timestamp::from(clock::wall()).to_string();
        let deadline = clock::monotonic() + END;
        let mut account = self.account(&until).await;
        while account["awaited"] != 0 && clock::monotonic() < deadline {
            tokio::time::sleep(Duration::from_millis(500)).await;
            account = self.account(&until).await;
        }
        account
    }

    /// The same, which has to be sound: each run that was planned has its one record, and no target is blamed.
    pub(crate) async fn sound(&self) -> Value {
        let account = self.settled().await;
        let wrong = ["missing", "duplicates", "awaited", "failed"].map(|what| &account[what]);
        let said = |program: &Option<Running>| program.as_ref().map(Running::said).unwrap_or_default();
        assert!(
            wrong.iter().all(|count| **count == json!(0)),
            "{account}\nmonitor: {}\nmanager: {}",
            said(&self.monitor),
            said(&self.manager)
        );
        account
    }
}

fn start(before: &[String], program: &str, arguments: &[&str]) -> Running {
    let words: Vec<&str> = before.iter().map(String::as_str).chain([program]).chain(arguments.iter().copied()).collect();
    Running::silent(words[0], &words[1..])
}
