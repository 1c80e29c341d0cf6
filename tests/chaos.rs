//! Everything at once, for as long as is asked for: checks at a high rate, programs killed at random moments, the link between them cut.
//! In the end the account has to be sound: each run that was planned has its one record.
//!
//! `VANTAGE_CHAOS_KILLS` says how many kills it takes (default 40), `VANTAGE_CHAOS_SECONDS` how long it goes on at least (default 0):
//! `VANTAGE_CHAOS_SECONDS=600 cargo test --test promises chaos -- --nocapture` is the long soak. Chance is reproducible: `VANTAGE_CHAOS_SEED`.

use std::{collections::BTreeMap, env, time::Duration};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use vantage_daemon::clock;

use crate::lab::{monitor::silent_port, stage::Stage};

/// How many checks, and how often each.
const CHECKS: usize = 100;
const INTERVAL: &str = "200ms";

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

/// One mishap. Returns how many programs it killed.
async fn mishap(stage: &mut Stage, chance: &mut Chance) -> u64 {
    match chance.below(10) {
        0..4 => {
            Stage::kill(&mut stage.monitor).await;
            chance.pause(400).await;
            stage.start_monitor();
            1
        }
        4..8 => {
            Stage::kill(&mut stage.manager).await;
            chance.pause(400).await;
            stage.start_manager();
            1
        }
        8 => {
            stage.relay.cut();
            chance.pause(4000).await;
            stage.relay.mend();
            0
        }
        _ => {
            let stopped = if chance.below(2) == 0 { &stage.monitor } else { &stage.manager };
            let stopped = stopped.as_ref().expect("it runs");
            stopped.signal(Signal::SIGSTOP);
            chance.pause(1500).await;
            stopped.signal(Signal::SIGCONT);
            0
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_and_cut_each_run_has_its_one_record() {
    let (kills_wanted, least) = (setting("VANTAGE_CHAOS_KILLS", 40), Duration::from_secs(setting("VANTAGE_CHAOS_SECONDS", 0)));
    let seed = setting("VANTAGE_CHAOS_SEED", u64::from(std::process::id()));
    let (mut chance, begin) = (Chance(seed), clock::monotonic());
    let (_target, port) = silent_port().await;
    let check = |number| json!({ "name": format!("check-{number}"), "interval": INTERVAL, "timeout": "1s", "tcp": { "host": "127.0.0.1", "port": port } });
    let checks: Vec<Value> = (0..CHECKS).map(check).collect();
    let mut stage = Stage::play(&json!(checks), &json!({})).await;
    let (mut kills, mut mishaps) = (0, 0);
    while kills < kills_wanted || begin.elapsed() < least {
        chance.pause(800).await;
        kills += mishap(&mut stage, &mut chance).await;
        mishaps += 1;
    }
    let account = stage.settled().await;
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
