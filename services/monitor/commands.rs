//! `monitor` and `watch`: one answer, and answers without end.

use clap::Args;
use jiff::tz::TimeZone;
use vantage_contract::{
    json,
    v1::{GetMonitorRequest, GetMonitorResponse, JournalStatus, Outcome, PolicyStatus, ProbeResult, WatchResultsRequest},
};
use vantage_daemon::exit::{Exit, Fatal};

use crate::{
    client::Link,
    human,
    output::{AskArgs, Output, print},
    tables::{plain, printable, text},
};

/// Which results to watch.
#[derive(Debug, Clone, Args)]
pub(crate) struct WatchArgs {
    /// Only those of this client
    #[arg(long, value_name = "ID")]
    client: Option<String>,
    /// Only those of the check with this name
    #[arg(long, value_name = "NAME")]
    check: Option<String>,
    #[command(flatten)]
    ask: AskArgs,
}

/// Describes the monitor.
pub(crate) async fn monitor(args: &AskArgs) -> Result<Exit, Fatal> {
    let link = Link::connect(&args.at, &args.trust).await?;
    let answer = link.admin().get_monitor(GetMonitorRequest {}).await.map_err(|status| link.fatal(&status))?.into_inner();
    print(&match args.output {
        Output::Text => description(&answer, &TimeZone::system()),
        Output::Json => format!("{}\n", json::to_json(&answer)),
    })
}

/// Shows results until the monitor stops or the reader leaves.
pub(crate) async fn watch(args: &WatchArgs) -> Result<Exit, Fatal> {
    let WatchArgs { client, check, ask } = args;
    let link = Link::connect(&ask.at, &ask.trust).await?;
    let request = WatchResultsRequest { client_id: client.clone().unwrap_or_default(), check_name: check.clone().unwrap_or_default() };
    let mut results = link.admin().watch_results(request).await.map_err(|status| link.fatal(&status))?.into_inner();
    let zone = TimeZone::system();
    while let Some(watched) = results.message().await.map_err(|status| link.fatal(&status))? {
        if watched.missed_count > 0 {
            tracing::warn!(missed = watched.missed_count, "results came faster than they could be shown");
        }
        let Some(result) = &watched.result else { continue };
        print(&match ask.output {
            Output::Text => line(result, &zone) + "\n",
            Output::Json => format!("{}\n", json::to_json(result)),
        })?;
    }
    Ok(Exit::Ok)
}

fn description(monitor: &GetMonitorResponse, zone: &TimeZone) -> String {
    let mut table = plain(&["", ""], &[]);
    let since = monitor.start_time.as_ref().map(|at| human::instant(at, zone)).unwrap_or_default();
    let mut rows = vec![
        ("name", printable(&monitor.name)),
        ("version", printable(&monitor.version)),
        ("started", since),
        ("state", if monitor.draining { "draining" } else { "serving" }.to_owned()),
        ("clients", monitor.client_count.to_string()),
        ("orders", monitor.order_count.to_string()),
        ("in flight", format!("{} of {}", monitor.in_flight_count, monitor.in_flight_limit)),
        ("waiting", format!("{} of {}", monitor.waiting_count, monitor.waiting_limit)),
    ];
    if let Some(journal) = &monitor.journal {
        rows.push(("journal", kept(journal)));
    }
    if let Some(policy) = &monitor.policy {
        rows.push(("policy", in_force(policy)));
    }
    table.add_rows(rows.into_iter().map(|(name, value)| [name.to_owned(), value]));
    for capability in &monitor.capabilities {
        let can = if capability.available { "can run" } else { "can't run" };
        let load = monitor.kinds.iter().find(|load| load.kind == capability.kind);
        let load = load.map(|load| format!("{} of {} in flight; ", load.in_flight_count, load.in_flight_limit)).unwrap_or_default();
        table.add_row([printable(&capability.kind), format!("{load}{can}: {}", printable(&capability.detail))]);
    }
    text(&table).lines().skip(1).map(|line| format!("{line}\n")).collect()
}

/// Where the journal is and how it is: "/var/lib/vantage, 1.5 MiB, sync full".
fn kept(journal: &JournalStatus) -> String {
    if journal.folder.is_empty() {
        return "in memory: it ends with the process".to_owned();
    }
    let mut words = vec![printable(&journal.folder), human::bytes(journal.file_bytes)];
    let told = [("sync ", &journal.sync), ("takes nothing: ", &journal.error), ("a damaged one was set aside: ", &journal.set_aside)];
    words.extend(told.iter().filter(|(_, what)| !what.is_empty()).map(|(name, what)| format!("{name}{}", printable(what))));
    words.join(", ")
}

/// Where the policy is and how it is: "/etc/vantage/policy.json". The rules themselves are in the JSON.
fn in_force(policy: &PolicyStatus) -> String {
    let file = if policy.file.is_empty() { "the default".to_owned() } else { printable(&policy.file) };
    match policy.error.as_str() {
        "" => file,
        error => format!("{file}, which is wrong now, so that the one before is in force: {}", printable(error)),
    }
}

/// One result on one line: "[2026-11-22 08:19:05] [ping] [passed] [google@fra-1: 142.250.72.164 71.3 ms]". Where it did not pass, the
/// summary follows.
fn line(result: &ProbeResult, zone: &TimeZone) -> String {
    let at = result.start_time.as_ref().or(result.due_time.as_ref()).map(|at| human::instant(at, zone)).unwrap_or_default();
    let outcome = human::words(result.outcome().as_str_name(), "OUTCOME_");
    let mut facts = format!("{}@{}:", printable(&result.check_name), printable(&result.monitor));
    let measured = result.latency.as_ref().map(human::duration).unwrap_or_default();
    let runs = if result.run_count > 1 { format!("{} runs", result.run_count) } else { String::new() };
    let addresses = match result.address_results.len() {
        0 => String::new(),
        count => {
            let passed = result.address_results.iter().filter(|result| result.outcome() == Outcome::Passed).count();
            format!("{passed} of {count} {}", if count == 1 { "address" } else { "addresses" })
        }
    };
    for fact in [printable(&result.address), addresses, measured, runs] {
        if !fact.is_empty() {
            facts = facts + " " + &fact;
        }
    }
    let line = format!("[{at}] [{}] [{outcome}] [{}]", printable(&result.kind), facts.trim_end_matches(':'));
    if result.reason == 0 {
        return line;
    }
    format!("{line} {}: {}", human::words(result.reason().as_str_name(), "REASON_"), printable(&result.summary))
}

#[cfg(test)]
mod tests {
    use prost_types::{Duration, Timestamp};
    use vantage_contract::v1::{Capability, KindLoad, Reason};

    use super::*;

    #[test]
    fn a_result_has_one_line() {
        let mut result = ProbeResult {
            check_name: "google".into(),
            kind: "ping".into(),
            monitor: "local".into(),
            run_count: 1,
            start_time: Some(Timestamp { seconds: 1_795_335_545, nanos: 0 }),
            outcome: Outcome::Passed.into(),
            address: "142.250.72.164".into(),
            latency: Some(Duration { seconds: 0, nanos: 71_300_000 }),
            ..ProbeResult::default()
        };
        let shown = |result: &ProbeResult| line(result, &TimeZone::UTC);
        assert_eq!(shown(&result), "[2026-11-22 08:19:05] [ping] [passed] [google@local: 142.250.72.164 71.3 ms]");
        let one = ProbeResult { outcome: Outcome::Passed.into(), ..ProbeResult::default() };
        let all = ProbeResult { address: String::new(), address_results: vec![one.clone(), one], ..result.clone() };
        assert_eq!(shown(&all), "[2026-11-22 08:19:05] [ping] [passed] [google@local: 2 of 2 addresses 71.3 ms]");
        result.outcome = Outcome::Skipped.into();
        result.reason = Reason::Overloaded.into();
        result.summary = "too much\nto do".into();
        (result.run_count, result.latency, result.address) = (3, None, String::new());
        let expected = "[2026-11-22 08:19:05] [ping] [skipped] [google@local: 3 runs] overloaded: too much\u{fffd}to do";
        assert_eq!(shown(&result), expected);
    }

    #[test]
    fn a_monitor_is_described_with_what_it_can_run() {
        let ping = Capability { kind: "ping".into(), available: false, detail: "no echo sockets".into() };
        let mut monitor = GetMonitorResponse {
            name: "fra-1".into(),
            in_flight_limit: 1000,
            waiting_count: 3,
            waiting_limit: 10_000,
            kinds: vec![KindLoad { kind: "ping".into(), in_flight_count: 2, in_flight_limit: 750 }],
            capabilities: vec![ping],
            ..Default::default()
        };
        let expected = "\
name       fra-1
version
started
state      serving
clients    0
orders     0
in flight  0 of 1000
waiting    3 of 10000
ping       2 of 750 in flight; can't run: no echo sockets
";
        assert_eq!(description(&monitor, &TimeZone::UTC), expected);
        monitor.journal = Some(JournalStatus::default());
        assert!(description(&monitor, &TimeZone::UTC).contains("\njournal    in memory: it ends with the process\n"));
        monitor.journal = Some(JournalStatus {
            folder: "/data".into(),
            sync: "full".into(),
            file_bytes: 4096,
            error: "the disk is full".into(),
            set_aside: "/data/damaged\n1".into(),
        });
        let expected =
            "journal    /data, 4.0 KiB, sync full, takes nothing: the disk is full, a damaged one was set aside: /data/damaged\u{fffd}1\n";
        assert!(description(&monitor, &TimeZone::UTC).contains(expected));
    }
}
