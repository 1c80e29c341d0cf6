//! Everything at once, for as long as is asked for: checks at a high rate, programs killed at random moments, the link between them cut.
//! In the end the account has to be sound: each run that was planned has its one record.
//!
//! `VANTAGE_CHAOS_KILLS` says how many kills it takes (default 40), `VANTAGE_CHAOS_SECONDS` how long it goes on at least (default 0):
//! `VANTAGE_CHAOS_SECONDS=600 cargo test --test promises chaos -- --nocapture` is the long soak. Chance is reproducible: `VANTAGE_CHAOS_SEED`.

use std::{collections::BTreeMap, env, time::Duration};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use vantage_daemon::clock;

use crate::lab::{
    monitor::silent_port,
    place,
    process::{MANAGER, MONITOR, Running, run, write},
    relay::Relay,
};

/// How many checks, and how often each.
const CHECKS: usize = 100;
const INTERVAL: &str = "200ms";
/// How long the end may take: the last runs, their way, and what the account needs to know that nothing more will come.
const END: Duration = Duration::from_secs(60);

fn setting(name: &str, default: u64) -> u64 {
    env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Numbers by chance, the same for the same seed (splitmix64, Steele et al. 2014).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    async fn pause(&mut self, most_millis: u64) {
        tokio::time::sleep(Duration::from_millis(self.below(most_millis))).await;
    }
}

/// Manager and monitor with their data, and the link between them.
struct Stage {
    folder: TempDir,
    at: String,
    through: String,
    checks: String,
    relay: Relay,
    monitor: Option<Running>,
    manager: Option<Running>,
}

impl Stage {
    async fn set(target: u16) -> Self {
        let (folder, at) = (tempfile::tempdir().unwrap(), place::own());
        let checks: Vec<Value> = (0..CHECKS)
            .map(|number| json!({ "name": format!("check-{number}"), "interval": INTERVAL, "timeout": "1s", "tcp": { "host": "127.0.0.1", "port": target } }))
            .collect();
        let checks = write(folder.path(), "checks.json", &json!(checks).to_string());
        let relay = Relay::to(at).await;
        let (at, through) = (at.to_string(), format!("127.0.0.1:{}", relay.port));
        let mut stage = Self { folder, at, through, checks, relay, monitor: None, manager: None };
        stage.start_monitor();
        stage.start_manager();
        stage
    }

    fn data(&self, of: &str) -> String {
        self.folder.path().join(of).to_str().unwrap().to_owned()
    }

    fn start_monitor(&mut self) {
        let data = self.data("monitor");
        let arguments = ["serve", "--name", "chaos", "--listen", &self.at, "--http-listen", "off", "--data", &data, "--log", "warn"];
        self.monitor = Some(Running::silent(MONITOR, &arguments));
    }

    fn start_manager(&mut self) {
        let data = self.data("manager");
        let quick = ["--keepalive-interval", "1s", "--keepalive-timeout", "1s", "--client-id", "chaos", "--http", "off", "--log", "error"];
        let arguments = [&["--config", &self.checks, "--monitor", &self.through, "--data", &data][..], &quick].concat();
        self.manager = Some(Running::silent(MANAGER, &arguments));
    }

    async fn kill(running: &mut Option<Running>) {
        let running = running.take().expect("it runs");
        running.signal(Signal::SIGKILL);
        running.ended().await;
    }

    /// One mishap. Returns how many programs it killed.
    async fn mishap(&mut self, chance: &mut Chance) -> u64 {
        match chance.below(10) {
            0..4 => {
                Self::kill(&mut self.monitor).await;
                chance.pause(400).await;
                self.start_monitor();
                1
            }
            4..8 => {
                Self::kill(&mut self.manager).await;
                chance.pause(400).await;
                self.start_manager();
                1
            }
            8 => {
                self.relay.cut();
                chance.pause(4000).await;
                self.relay.mend();
                0
            }
            _ => {
                let stopped = if chance.below(2) == 0 { &self.monitor } else { &self.manager };
                let stopped = stopped.as_ref().expect("it runs");
                stopped.signal(Signal::SIGSTOP);
                chance.pause(1500).await;
                stopped.signal(Signal::SIGCONT);
                0
            }
        }
    }

    /// The account of all runs due until an instant; the total.
    async fn account(&self, until: &str) -> Value {
        let ended = run(MANAGER, &["account", "--data", &self.data("manager"), "--until", until, "--by", "none", "--output", "json"]).await;
        let account: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
        assert_eq!(account["unordered"], 0, "{account}");
        account["total"].clone()
    }
}

fn now() -> String {
    prost_types::Timestamp::from(clock::wall()).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_and_cut_each_run_has_its_one_record() {
    let (kills_wanted, least) = (setting("VANTAGE_CHAOS_KILLS", 40), Duration::from_secs(setting("VANTAGE_CHAOS_SECONDS", 0)));
    let seed = setting("VANTAGE_CHAOS_SEED", u64::from(std::process::id()));
    let (mut chance, begin) = (Chance(seed), clock::monotonic());
    let (_target, port) = silent_port().await;
    let mut stage = Stage::set(port).await;
    let (mut kills, mut mishaps) = (0, 0);
    while kills < kills_wanted || begin.elapsed() < least {
        chance.pause(800).await;
        kills += stage.mishap(&mut chance).await;
        mishaps += 1;
    }
    let until = now();
    let deadline = clock::monotonic() + END;
    let mut account = stage.account(&until).await;
    while account["awaited"] != 0 && clock::monotonic() < deadline {
        tokio::time::sleep(Duration::from_millis(500)).await;
        account = stage.account(&until).await;
    }
    #[expect(clippy::print_stdout, reason = "the figures are what a soak is run for")]
    {
        println!("chaos: seed {seed}, {:?}, {kills} kills in {mishaps} mishaps: {account}", begin.elapsed());
    }
    let count = |what: &str| account[what].as_u64().unwrap();
    assert_eq!((count("missing"), count("duplicates"), count("awaited")), (0, 0, 0), "seed {seed}: {account}");
    let skipped: BTreeMap<String, u64> = serde_json::from_value(account["skipped"].clone()).unwrap();
    assert_eq!(count("planned"), count("passed") + count("failed") + count("undetermined") + skipped.values().sum::<u64>(), "{account}");
    // It was our own doing, not the target's.
    assert_eq!(count("failed"), 0, "seed {seed}: {account}");
    assert!(count("passed") > CHECKS as u64 && skipped.contains_key("monitor_down"), "seed {seed}: {account}");
}
