//! The monitor's own figures, as Prometheus reads them: taken from one snapshot at each scrape, so that they fit together.

use std::{collections::BTreeMap, fmt, ops::AddAssign, time::Duration};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet},
    metrics::{MetricType, exemplar::Exemplar},
    registry::{Registry, Unit},
};
use vantage_contract::v1::{Outcome, Reason};

use crate::{
    admission::{Bound, Load, Pace},
    journal::Condition,
};

/// The monitor at one moment, in plain numbers.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// One for each client that is known.
    pub clients: Vec<ClientFigures>,
    /// Runs started since the process began, by kind.
    pub started: BTreeMap<&'static str, u64>,
    /// Results since the process began, by outcome and reason. A `skipped` record counts once, whatever range it covers.
    pub results: BTreeMap<(Outcome, Reason), u64>,
    /// Runs skipped since the process began, by reason, with all of each range.
    pub skipped: BTreeMap<Reason, u64>,
    /// Runs in flight and waiting, and how many may be.
    pub load: Load,
    /// From due to started.
    pub lateness: Lateness,
    /// How the journal's disk is.
    pub journal: Condition,
    /// How often the policy's file was read anew and put in force, and how often it was wrong.
    pub policy_reloads: (u64, u64),
    /// Whether it is wrong now, so that an older policy is in force.
    pub policy_is_stale: bool,
    /// Whether the monitor is stopping.
    pub draining: bool,
}

/// One client and its queue.
#[derive(Debug, Clone, Default)]
pub struct ClientFigures {
    /// Its id.
    pub client_id: String,
    /// Whether its stream is open.
    pub connected: bool,
    /// Orders that stand.
    pub orders: usize,
    /// Runs due and not started.
    pub due: usize,
    /// Runs in flight.
    pub in_flight: usize,
    /// Results not yet acknowledged.
    pub unacknowledged: u64,
    /// What they take up.
    pub journal_bytes: u64,
    /// What they may take up.
    pub journal_limit_bytes: u64,
    /// What of them is not yet on the disk.
    pub unwritten_bytes: u64,
    /// What that may be.
    pub unwritten_limit_bytes: u64,
}

/// How late runs started, as a histogram.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lateness {
    /// How many fell into each bucket; the last one is for all beyond the bounds.
    counts: [u64; LATENESS_BOUNDS.len() + 1],
    sum: Duration,
}

/// The upper bounds of lateness, in seconds: from what a timer costs to what nobody should bear.
const LATENESS_BOUNDS: [f64; 12] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

impl Lateness {
    /// Counts one run that started `late` after it was due.
    pub fn observe(&mut self, late: Duration) {
        let seconds = late.as_secs_f64();
        let bucket = LATENESS_BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(LATENESS_BOUNDS.len());
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(late);
    }

    fn buckets(&self) -> Vec<(f64, u64)> {
        LATENESS_BOUNDS.iter().copied().chain([f64::INFINITY]).zip(self.counts).collect()
    }
}

impl AddAssign<&Self> for Lateness {
    fn add_assign(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }
}

/// What a monitor of this name shows at one scrape.
pub fn registry(name: &str, snapshot: Snapshot) -> Registry {
    let mut registry = Registry::with_prefix("vantage_monitor");
    registry.register_collector(Box::new(Figures { name: name.to_owned(), snapshot }));
    registry
}

struct Figures {
    name: String,
    snapshot: Snapshot,
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Figures").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Page(encoder);
        page.0
            .encode_descriptor("build", "Who this is.", None, MetricType::Info)?
            .encode_info(&[("monitor", self.name.as_str()), ("version", env!("CARGO_PKG_VERSION"))])?;
        page.process(&self.snapshot)?;
        page.queues(&self.snapshot.clients)
    }
}

/// What is being written.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn process(&mut self, snapshot: &Snapshot) -> fmt::Result {
        let connected = snapshot.clients.iter().filter(|client| client.connected).count();
        let states = [([("state", "connected")], connected), ([("state", "away")], snapshot.clients.len() - connected)];
        self.gauges("clients", "Clients known, by whether their stream is open.", None, states)?;
        let started = snapshot.started.iter().map(|(kind, count)| ([("kind", *kind)], *count));
        self.counters("runs_started", "Runs started, by kind.", started)?;
        let results = snapshot.results.iter().map(|((outcome, reason), count)| {
            let labels = [("outcome", label(outcome.as_str_name(), "OUTCOME_")), ("reason", label(reason.as_str_name(), "REASON_"))];
            (labels, *count)
        });
        self.counters("results", "Results, by outcome and reason; a skipped record counts once.", results)?;
        let skipped = snapshot.skipped.iter().map(|(reason, count)| ([("reason", label(reason.as_str_name(), "REASON_"))], *count));
        self.counters("runs_skipped", "Runs that did not happen, by reason.", skipped)?;
        self.load(&snapshot.load)?;
        self.journal(&snapshot.journal)?;
        let (done, failed) = snapshot.policy_reloads;
        let reloads = [([("result", "done")], done), ([("result", "failed")], failed)];
        self.counters("policy_reloads", "How often the policy's file was read anew, by what came of it.", reloads)?;
        let help = "Whether the policy's file is wrong as it is now (1), so that an older policy is in force.";
        self.gauge("policy_stale", help, usize::from(snapshot.policy_is_stale))?;
        self.gauge("draining", "Whether the monitor is stopping (1).", usize::from(snapshot.draining))?;
        let lateness = &snapshot.lateness;
        self.0
            .encode_descriptor("lateness", "From due to started.", Some(&Unit::Seconds), MetricType::Histogram)?
            .encode_histogram::<Nothing>(lateness.sum.as_secs_f64(), lateness.counts.iter().sum(), &lateness.buckets(), None)
    }

    fn load(&mut self, load: &Load) -> fmt::Result {
        let Load { places, kinds, waiting } = load;
        self.gauge("in_flight", "Runs in flight.", places.taken(Pace::Prompt))?;
        self.gauge("in_flight_limit", "Runs that may be in flight at once.", places.limit(Pace::Prompt))?;
        let by_kind =
            |number: fn(&Bound, Pace) -> usize| kinds.iter().map(move |(kind, bound)| ([("kind", *kind)], number(bound, Pace::Prompt)));
        self.gauges("kind_in_flight", "Runs in flight, by kind.", None, by_kind(Bound::taken))?;
        self.gauges("kind_in_flight_limit", "Runs that may be in flight at once, by kind.", None, by_kind(Bound::limit))?;
        self.gauge("slow_in_flight", "Runs in flight of orders whose last two took long.", places.taken(Pace::Slow))?;
        self.gauge("slow_in_flight_limit", "How many of these may be at once.", places.limit(Pace::Slow))?;
        let help = "Runs in flight of orders that are slow, new, or took long for the first time.";
        self.gauge("slow_or_unproven_in_flight", help, places.taken(Pace::Unproven))?;
        self.gauge("slow_or_unproven_in_flight_limit", "How many of these may be at once.", places.limit(Pace::Unproven))?;
        self.gauge("waiting", "Runs due that wait for their turn.", waiting.taken(Pace::Prompt))?;
        self.gauge("waiting_limit", "Runs that may wait at once.", waiting.limit(Pace::Prompt))
    }

    fn journal(&mut self, journal: &Condition) -> fmt::Result {
        self.0
            .encode_descriptor("journal_commits", "Commits of the journal.", None, MetricType::Counter)?
            .encode_counter(&journal.commits, None::<&Exemplar<Nothing, f64>>)?;
        self.gauge("journal_refused", "Whether the journal's disk takes nothing just now (1).", usize::from(!journal.error.is_empty()))?;
        let help = "What the journal takes up on the disk, free pages included.";
        self.0.encode_descriptor("journal_file", help, Some(&Unit::Bytes), MetricType::Gauge)?.encode_gauge(&journal.file_bytes)
    }

    fn queues(&mut self, clients: &[ClientFigures]) -> fmt::Result {
        fn of<N>(clients: &[ClientFigures], number: fn(&ClientFigures) -> N) -> impl Iterator<Item = ([(&str, &str); 1], N)> {
            clients.iter().map(move |client| ([("client", client.client_id.as_str())], number(client)))
        }
        self.gauges("orders", "Orders that stand, by client.", None, of(clients, |client| client.orders))?;
        self.gauges("runs_due", "Runs due and not started, by client.", None, of(clients, |client| client.due))?;
        self.gauges("runs_in_flight", "Runs in flight, by client.", None, of(clients, |client| client.in_flight))?;
        let unacknowledged = of(clients, |client| client.unacknowledged);
        self.gauges("results_unacknowledged", "Results not yet acknowledged, by client.", None, unacknowledged)?;
        let bytes = Some(&Unit::Bytes);
        self.gauges("journal", "What these results take up, by client.", bytes, of(clients, |client| client.journal_bytes))?;
        self.gauges("journal_limit", "What they may take up, by client.", bytes, of(clients, |client| client.journal_limit_bytes))?;
        let unwritten = of(clients, |client| client.unwritten_bytes);
        self.gauges("journal_unwritten", "What of them the disk has not taken yet, by client.", bytes, unwritten)?;
        let limit = of(clients, |client| client.unwritten_limit_bytes);
        self.gauges("journal_unwritten_limit", "What that may be, by client.", bytes, limit)
    }

    fn gauge(&mut self, name: &str, help: &str, value: usize) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn gauges<L: EncodeLabelSet, N: TryInto<u64>>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        rows: impl IntoIterator<Item = (L, N)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in rows {
            metric.encode_family(&labels)?.encode_gauge(&value.try_into().unwrap_or(u64::MAX))?;
        }
        Ok(())
    }

    fn counters<L: EncodeLabelSet>(&mut self, name: &str, help: &str, rows: impl IntoIterator<Item = (L, u64)>) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in rows {
            metric.encode_family(&labels)?.encode_counter(&value, None::<&Exemplar<Nothing, f64>>)?;
        }
        Ok(())
    }
}

/// No labels.
type Nothing = [(&'static str, &'static str); 0];

/// A value of an enum as a label: "REASON_TIMED_OUT" is "timed_out"; what is unspecified is "none".
fn label(name: &str, prefix: &str) -> String {
    match name.strip_prefix(prefix).unwrap_or(name) {
        "UNSPECIFIED" => "none".to_owned(),
        value => value.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;

    use super::*;
    use crate::{admission::Admission, config::Limits};

    fn page(snapshot: &Snapshot) -> String {
        let mut page = String::new();
        text::encode(&mut page, &registry("fra-1", snapshot.clone())).unwrap();
        page
    }

    #[test]
    fn a_snapshot_is_written_whole() {
        let mut lateness = Lateness::default();
        for micros in [100, 900, 1500, 60_000_000] {
            lateness.observe(Duration::from_micros(micros));
        }
        let client = |id: &str, connected| ClientFigures {
            client_id: id.to_owned(),
            connected,
            orders: 3,
            journal_bytes: 512,
            journal_limit_bytes: 1024,
            ..ClientFigures::default()
        };
        let page = page(&Snapshot {
            clients: vec![client("desk", true), client("lab \"two\"", false), client("old", false)],
            started: BTreeMap::from([("ping", 7)]),
            results: BTreeMap::from([((Outcome::Passed, Reason::Unspecified), 6), ((Outcome::Failed, Reason::TimedOut), 1)]),
            skipped: BTreeMap::from([(Reason::Overloaded, 40)]),
            load: Admission::new(Limits::default()).load(),
            lateness,
            journal: Condition { file_bytes: 8192, commits: 5, ..Condition::default() },
            policy_reloads: (2, 1),
            policy_is_stale: true,
            draining: false,
        });
        for line in [
            r#"vantage_monitor_build_info{monitor="fra-1",version="0.1.0"} 1"#,
            r#"vantage_monitor_clients{state="connected"} 1"#,
            r#"vantage_monitor_clients{state="away"} 2"#,
            r#"vantage_monitor_runs_started_total{kind="ping"} 7"#,
            r#"vantage_monitor_results_total{outcome="passed",reason="none"} 6"#,
            r#"vantage_monitor_results_total{outcome="failed",reason="timed_out"} 1"#,
            r#"vantage_monitor_runs_skipped_total{reason="overloaded"} 40"#,
            "vantage_monitor_in_flight 0",
            "vantage_monitor_in_flight_limit 1000",
            r#"vantage_monitor_kind_in_flight{kind="tcp"} 0"#,
            r#"vantage_monitor_kind_in_flight_limit{kind="tcp"} 750"#,
            "vantage_monitor_slow_in_flight 0",
            "vantage_monitor_slow_in_flight_limit 500",
            "vantage_monitor_slow_or_unproven_in_flight 0",
            "vantage_monitor_slow_or_unproven_in_flight_limit 750",
            "vantage_monitor_waiting 0",
            "vantage_monitor_waiting_limit 10000",
            "vantage_monitor_draining 0",
            r#"vantage_monitor_policy_reloads_total{result="failed"} 1"#,
            "vantage_monitor_policy_stale 1",
            "vantage_monitor_journal_file_bytes 8192",
            "vantage_monitor_journal_refused 0",
            "vantage_monitor_journal_commits_total 5",
            r#"vantage_monitor_journal_unwritten_bytes{client="desk"} 0"#,
            r#"vantage_monitor_lateness_seconds_bucket{le="0.001"} 2"#,
            r#"vantage_monitor_lateness_seconds_bucket{le="30.0"} 3"#,
            r#"vantage_monitor_lateness_seconds_bucket{le="+Inf"} 4"#,
            "vantage_monitor_lateness_seconds_count 4",
            r#"vantage_monitor_orders{client="desk"} 3"#,
            r#"vantage_monitor_journal_bytes{client="lab \"two\""} 512"#,
            r#"vantage_monitor_journal_limit_bytes{client="old"} 1024"#,
        ] {
            assert!(page.lines().any(|written| written == line), "{line}\n{page}");
        }
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn a_monitor_without_clients_has_figures_too() {
        let page = page(&Snapshot::default());
        assert!(page.contains("vantage_monitor_clients{state=\"connected\"} 0\n"), "{page}");
        assert!(page.contains("vantage_monitor_lateness_seconds_count 0\n"), "{page}");
    }
}
