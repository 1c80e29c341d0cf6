//! What a benchmark saw within its time, and what that comes to.

use std::{collections::BTreeMap, fmt, fmt::Write as _, time::Duration};

use serde::Serialize;
use vantage_contract::v1::{Outcome, PingTiming, ProbeResult, probe_result::Report};

use crate::human;

/// What was seen within a time.
#[derive(Debug, Clone, Default)]
pub struct Window {
    /// How long it was looked at.
    pub wall: Duration,
    /// The processor time of the monitor's process meanwhile.
    pub busy: Duration,
    /// Runs that were measured.
    pub runs: u64,
    passed: u64,
    /// Why runs did not pass: how many, and the sentence of the first.
    troubles: BTreeMap<String, (u64, String)>,
    requests: Requests,
    stamps: BTreeMap<String, u64>,
    lateness: Vec<Duration>,
    durations: Vec<Duration>,
    round_trips: Vec<Duration>,
    checks: usize,
    /// Bytes resident before the checks were placed, at the end, and at most.
    pub empty: u64,
    /// See `empty`.
    pub resident: u64,
    /// See `empty`.
    pub peak: u64,
}

/// The echo requests of the runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Requests {
    /// That left.
    pub sent: u64,
    /// That were answered.
    pub answered: u64,
    /// Further replies to these.
    pub duplicates: u64,
    /// Replies that came too late.
    pub late: u64,
    /// Replies that were dropped at our own socket.
    pub dropped_here: u64,
}

/// The middle and the slow end of something that takes time, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Half of them took no longer.
    pub p50_us: f64,
    /// 99 of 100 took no longer.
    pub p99_us: f64,
}

impl Spread {
    fn of(taken: &[Duration]) -> Self {
        let mut sorted = taken.to_vec();
        sorted.sort_unstable();
        let at = |share: f64| {
            sorted.get((sorted.len() as f64 * share) as usize).or(sorted.last()).map_or(0.0, |taken| taken.as_secs_f64() * 1e6)
        };
        Self { p50_us: at(0.5), p99_us: at(0.99) }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:.1} µs, p99 {:.1} µs", self.p50_us, self.p99_us)
    }
}

/// What it comes to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// Checks that stood.
    pub checks: usize,
    /// Runs that were measured, whatever came out of them.
    pub runs: u64,
    /// Of these: passed.
    pub passed: u64,
    /// Why others did not, or were skipped.
    pub not_passed: BTreeMap<String, u64>,
    /// How long it was looked at, in seconds.
    pub seconds: f64,
    /// The processor time of the monitor's process meanwhile, in seconds.
    pub processor_seconds: f64,
    /// Runs per second of that.
    pub runs_per_processor_second: f64,
    /// Echo requests that were answered, per second of that. Ping alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pings_per_processor_second: Option<f64>,
    /// The echo requests. Ping alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<Requests>,
    /// Who stamped the round trips, and how many.
    pub stamps: BTreeMap<String, u64>,
    /// From due to started.
    pub lateness: Spread,
    /// Whole runs.
    pub duration: Spread,
    /// Round trips: of each echo request, or the latency of each run.
    pub round_trip: Spread,
    /// Bytes that the monitor's process has resident.
    pub resident_bytes: u64,
    /// The most it had.
    pub peak_bytes: u64,
    /// What it has more than before the checks were placed, for each of them.
    pub bytes_per_check: u64,
}

impl Window {
    /// One for so many checks.
    pub fn new(checks: usize) -> Self {
        Self { checks, ..Self::default() }
    }

    /// Counts a result.
    pub fn add(&mut self, result: &ProbeResult) {
        let time = |taken: &Option<prost_types::Duration>| taken.and_then(|taken| Duration::try_from(taken).ok());
        if result.outcome() == Outcome::Passed {
            self.passed += 1;
        } else {
            let reason = human::words(result.reason().as_str_name(), "REASON_");
            let trouble = self.troubles.entry(reason).or_insert_with(|| (0, result.summary.clone()));
            trouble.0 += result.run_count;
        }
        if result.outcome() == Outcome::Skipped {
            return;
        }
        self.runs += 1;
        self.lateness.extend(time(&result.lateness));
        self.durations.extend(time(&result.duration));
        let Some(Report::Ping(report)) = &result.report else {
            self.round_trips.extend(time(&result.latency));
            *self.stamps.entry(human::words(result.timing_source().as_str_name(), "TIMING_SOURCE_")).or_default() += 1;
            return;
        };
        self.requests.sent += u64::from(report.sent_count);
        self.requests.answered += u64::from(report.answered_count);
        self.requests.duplicates += u64::from(report.duplicate_count);
        self.requests.late += u64::from(report.late_count);
        self.requests.dropped_here += u64::from(report.local_drop_count);
        for request in report.requests.iter().filter(|request| request.timing() != PingTiming::Unspecified) {
            self.round_trips.extend(time(&request.round_trip));
            *self.stamps.entry(human::words(request.timing().as_str_name(), "PING_TIMING_")).or_default() += 1;
        }
    }

    /// What it comes to.
    pub fn figures(&self) -> Figures {
        // A clock that did not move says nothing; as long as a nanosecond is never true and never divides by zero.
        let busy = self.busy.max(Duration::from_nanos(1)).as_secs_f64();
        let ping = self.requests.sent > 0;
        Figures {
            checks: self.checks,
            runs: self.runs,
            passed: self.passed,
            not_passed: self.troubles.iter().map(|(reason, (count, _))| (reason.clone(), *count)).collect(),
            seconds: self.wall.as_secs_f64(),
            processor_seconds: self.busy.as_secs_f64(),
            runs_per_processor_second: self.runs as f64 / busy,
            pings_per_processor_second: ping.then_some(self.requests.answered as f64 / busy),
            requests: ping.then_some(self.requests),
            stamps: self.stamps.clone(),
            lateness: Spread::of(&self.lateness),
            duration: Spread::of(&self.durations),
            round_trip: Spread::of(&self.round_trips),
            resident_bytes: self.resident,
            peak_bytes: self.peak,
            bytes_per_check: self.resident.saturating_sub(self.empty) / (self.checks.max(1) as u64),
        }
    }

    /// Why runs did not pass, with the sentence of the first of each.
    pub fn troubles(&self) -> impl Iterator<Item = (&str, u64, &str)> {
        self.troubles.iter().map(|(reason, (count, sentence))| (reason.as_str(), *count, sentence.as_str()))
    }

    /// For people: the rate, and the facts below it.
    pub fn text(&self) -> String {
        let figures = self.figures();
        let (rate, unit) = figures.rate();
        let mut text = line("vantage-monitor", rate, unit);
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "\n    {} runs in {:.1} s, {} passed; {:.2} of a core",
            figures.runs,
            figures.seconds,
            figures.passed,
            figures.processor_seconds / figures.seconds.max(1e-9),
        );
        for (reason, count, sentence) in self.troubles() {
            let _ = writeln!(text, "    {count} {reason}: {sentence}");
        }
        if let Some(requests) = figures.requests {
            let Requests { sent, answered, duplicates, late, dropped_here } = requests;
            let lost = sent.saturating_sub(answered);
            let _ = writeln!(
                text,
                "    {sent} requests, {lost} not answered, {late} late, {duplicates} duplicates, {dropped_here} dropped here"
            );
        }
        let stamps: Vec<_> = figures.stamps.iter().map(|(who, count)| format!("{count} {who}")).collect();
        let _ = writeln!(text, "    round trip {} (stamps: {})", figures.round_trip, stamps.join(", "));
        let _ = writeln!(text, "    lateness {}; run {}", figures.lateness, figures.duration);
        let [resident, peak, each] = [figures.resident_bytes, figures.peak_bytes, figures.bytes_per_check].map(human::bytes);
        let _ = writeln!(text, "    memory {resident}, at most {peak}; {each} a check");
        text
    }
}

impl Figures {
    /// What counts, per second of processor time, and what it is called.
    pub fn rate(&self) -> (f64, &'static str) {
        self.pings_per_processor_second.map_or((self.runs_per_processor_second, "runs"), |pings| (pings, "pings"))
    }
}

/// A rate with its name, in columns.
pub fn line(name: &str, rate: f64, unit: &str) -> String {
    format!("  {name:<40} {rate:>9.0} {unit} per CPU-second, {:.1} µs each", 1e6 / rate.max(1e-9))
}
