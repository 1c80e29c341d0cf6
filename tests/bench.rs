//! `vantage-monitor bench`: figures that make sense, in small numbers.

use serde_json::Value;
use tokio::task::JoinSet;

use crate::lab::process::{Ended, MONITOR, run};

/// A benchmark of one second, as JSON.
async fn bench(line: &str) -> Value {
    let words = format!("bench {line} --seconds 1 --output json");
    let Ended { code, stdout, stderr } = run(MONITOR, &words.split(' ').collect::<Vec<_>>()).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.is_empty(), "{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// What holds for each kind: about as many runs as were asked for passed, at a cost and in a time that there are.
fn sound(told: &Value, checks: u64, rate: f64) {
    let figures = &told["figures"];
    assert_eq!(figures["checks"], checks);
    assert_eq!(figures["runs"], figures["passed"], "{told}");
    let (runs, seconds, busy) = (number(&figures["runs"]), number(&figures["seconds"]), number(&figures["processor_seconds"]));
    assert!(runs >= rate * seconds * 0.3 && runs <= rate * seconds * 3.0, "{told}");
    assert!(busy > 0.0 && busy < seconds * 64.0, "{told}");
    let rate = number(&figures["runs_per_processor_second"]);
    assert!((rate * busy / runs - 1.0).abs() < 0.01, "{told}");
    for spread in ["lateness", "duration", "round_trip"] {
        let (middle, slow) = (number(&figures[spread]["p50_us"]), number(&figures[spread]["p99_us"]));
        assert!(middle > 0.0 && middle <= slow && slow < 5e6, "{spread}: {told}");
    }
    // Not read at the same moment.
    let (resident, peak) = (number(&figures["resident_bytes"]), number(&figures["peak_bytes"]));
    assert!(resident > 1e6 && peak > resident * 0.9, "{told}");
}

#[tokio::test]
async fn a_benchmark_of_ping_counts_requests_and_stands_beside_the_bare_loop() {
    let told = bench("ping --targets 20 --rate 100 --count 3").await;
    let figures = &told["figures"];
    if figures["not_passed"]["not_permitted"].is_number() {
        return crate::lab::privilege::skipped("echo sockets");
    }
    sound(&told, 20, 100.0);
    assert_eq!(number(&figures["requests"]["sent"]), 3.0 * number(&figures["runs"]), "{told}");
    assert_eq!(figures["requests"]["sent"], figures["requests"]["answered"], "{told}");
    let bare = told["bare"].as_array().unwrap();
    assert_eq!(bare.len(), 2);
    for bare in bare {
        assert!(number(&bare["per_processor_second"]) > 1000.0 && number(&bare["ours"]) > 0.0, "{told}");
        assert!(number(&bare["round_trip_us"]) > 0.0, "{told}");
    }
}

#[tokio::test]
async fn each_kind_with_a_target_here_can_be_measured() {
    let mut kinds = JoinSet::new();
    for (kind, bare) in [("udp", 2), ("dns", 3), ("ntp", 2), ("tcp", 0), ("http", 1), ("https", 2)] {
        kinds.spawn(async move {
            let told = bench(&format!("{kind} --targets 10 --rate 50")).await;
            sound(&told, 10, 50.0);
            assert_eq!(told["bare"].as_array().unwrap().len(), bare, "{kind}");
        });
    }
    kinds.join_all().await;
}

#[tokio::test]
async fn a_benchmark_is_told_to_people_too_and_slips_are_refused() {
    let told = run(MONITOR, &["bench", "tcp", "--targets", "1", "--rate", "10", "--seconds", "1"]).await;
    assert_eq!(told.code, Some(0), "{told:?}");
    for words in ["runs per CPU-second", "lateness p50", "memory", "a check"] {
        assert!(told.stdout.contains(words), "{words}: {told:?}");
    }
    for slip in [&["bench"][..], &["bench", "smtp"], &["bench", "ping", "--targets", "0"], &["bench", "ping", "--seconds", "0"]] {
        assert_eq!(run(MONITOR, slip).await.code, Some(64), "{slip:?}");
    }
}
