//! Results on standard output: a line of text for people, or a line of JSON for programs.

use std::{
    borrow::Borrow,
    io::{self, Write},
    thread,
};

use jiff::{Timestamp, tz::TimeZone};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use vantage_contract::{
    json,
    v1::{Outcome, ProbeResult},
};
use vantage_daemon::exit::{Exit, Fatal};

use crate::words;

/// Batches that wait for the thread that writes.
const WAITING: usize = 4;
/// The most characters of one field in a line of text.
const FIELD_WIDTH: usize = 400;

/// What a line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Output {
    /// One line of text for each result, for people.
    #[default]
    Text,
    /// One JSON object a line: the ProbeResult in canonical JSON, with the field names of the contract.
    Json,
}

/// How results become lines.
#[derive(Debug, Clone)]
pub struct Style {
    /// Text or JSON.
    pub output: Output,
    /// Whether the verdict is coloured; text only.
    pub colour: bool,
    /// The zone that times are told in; text only.
    pub zone: TimeZone,
}

impl Style {
    /// In the system's zone, coloured on a terminal unless `NO_COLOR` (<https://no-color.org>) is set to something.
    pub fn new(output: Output, is_terminal: bool) -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { output, colour: is_terminal && !no_colour, zone: TimeZone::system() }
    }

    /// The line of a result, with its end.
    pub fn line(&self, result: &ProbeResult) -> String {
        match self.output {
            Output::Text => self.text(result),
            Output::Json => format!("{}\n", json::to_json(result)),
        }
    }

    /// `[2026-11-22 08:19:05] [ping] [passed] [google@local: 142.250.72.164 71.3 ms]`. What has no bounded width comes last, so that nothing
    /// stands askew behind it.
    fn text(&self, result: &ProbeResult) -> String {
        let time = result.start_time.or(result.due_time).and_then(|time| Timestamp::new(time.seconds, time.nanos).ok());
        let time = time.map_or_else(|| "-".to_owned(), |time| time.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string());
        let kind = if result.kind.is_empty() { "unknown" } else { &result.kind };
        let (outcome, reason) = (words::outcome(result.outcome), words::reason(result.reason));
        let verdict = if reason.is_empty() { outcome } else { format!("{outcome}: {reason}") };
        let (on, off) = match (self.colour, result.outcome()) {
            (false, _) => ("", ""),
            (true, Outcome::Passed) => ("\x1b[32m", "\x1b[0m"),
            (true, Outcome::Failed) => ("\x1b[31m", "\x1b[0m"),
            (true, Outcome::Undetermined) => ("\x1b[33m", "\x1b[0m"),
            (true, Outcome::Skipped | Outcome::Unspecified) => ("\x1b[36m", "\x1b[0m"),
        };
        let mut seen = Vec::new();
        let whom = match (result.address_results.len(), result.outcome()) {
            // Where not enough passed, the summary counts them.
            (count @ 1.., Outcome::Passed) => {
                let passed = result.address_results.iter().filter(|result| result.outcome() == Outcome::Passed).count();
                format!("{passed} of {count} {}", if count == 1 { "address" } else { "addresses" })
            }
            _ if result.address.is_empty() => plain(&result.target),
            _ => plain(&result.address),
        };
        match result.latency.filter(|_| result.outcome() == Outcome::Passed) {
            Some(latency) => seen.push(format!("{whom} {}", length(latency))),
            None => seen.push(whom),
        }
        if result.run_count > 1 {
            seen.push(format!("{} runs from run {}", result.run_count, result.run));
        }
        if result.outcome() != Outcome::Passed {
            seen.push(plain(&result.summary));
        }
        seen.retain(|part| !part.is_empty());
        let seen = seen.join(", ");
        let (kind, name, monitor) = (plain(kind), plain(&result.check_name), plain(&result.monitor));
        format!("[{time}] [{kind}] {on}[{verdict}]{off} [{name}@{monitor}: {seen}]\n")
    }
}

/// A length of time in three digits, never more exact than it helps.
fn length(duration: prost_types::Duration) -> String {
    let ms = duration.seconds as f64 * 1e3 + f64::from(duration.nanos) / 1e6;
    match ms {
        10_000.0.. => format!("{:.1} s", ms / 1e3),
        100.0.. => format!("{ms:.0} ms"),
        10.0.. => format!("{ms:.1} ms"),
        1.0.. => format!("{ms:.2} ms"),
        _ => format!("{ms:.3} ms"),
    }
}

/// Text from elsewhere, made harmless for a terminal: what is invisible or steers shows as its escape, and what is endless ends.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len().min(FIELD_WIDTH));
    for (index, character) in text.chars().enumerate() {
        if index == FIELD_WIDTH {
            plain.push('…');
            break;
        }
        let steers = character.is_control()
            || matches!(character, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if steers {
            plain.extend(character.escape_default());
        } else {
            plain.push(character);
        }
    }
    plain
}

/// Writes lines, on a thread of its own: a slow reader holds up those who print, and nobody else.
#[derive(Debug, Clone)]
pub struct Printer {
    style: Style,
    pages: mpsc::Sender<Page>,
    gone: CancellationToken,
}

#[derive(Debug)]
struct Page {
    bytes: Vec<u8>,
    written: oneshot::Sender<()>,
}

impl Printer {
    /// Starts the thread. It ends with the last clone of the printer.
    pub fn start(style: Style, mut to: Box<dyn Write + Send>) -> Result<Self, Fatal> {
        let (pages, mut waiting) = mpsc::channel::<Page>(WAITING);
        let gone = CancellationToken::new();
        let lost = gone.clone();
        let work = move || {
            while let Some(page) = waiting.blocking_recv() {
                if let Err(error) = to.write_all(&page.bytes).and_then(|()| to.flush()) {
                    match error.kind() {
                        // The reader had enough, as `head` has. That is its good right.
                        io::ErrorKind::BrokenPipe => tracing::info!("nobody reads the output any more"),
                        _ => tracing::error!(%error, "the output can't be written"),
                    }
                    lost.cancel();
                    return;
                }
                // Who asked may have left meanwhile.
                let _ = page.written.send(());
            }
        };
        thread::Builder::new()
            .name("print".into())
            .spawn(work)
            .map_err(|error| Fatal::new(Exit::OsError, format!("start the printing thread: {error}")))?;
        Ok(Self { style, pages, gone })
    }

    /// Prints results and waits until they are written. Once nobody reads the output, this does nothing.
    pub async fn print<R: Borrow<ProbeResult>>(&self, results: &[R]) {
        let text: String = results.iter().map(|result| self.style.line(result.borrow())).collect();
        if text.is_empty() {
            return;
        }
        let (written, done) = oneshot::channel();
        // Errors say that the thread has ended, which `gone` says too.
        if self.pages.send(Page { bytes: text.into_bytes(), written }).await.is_ok() {
            let _ = done.await;
        }
    }

    /// Cancelled when the output can't be written any more.
    pub fn gone(&self) -> &CancellationToken {
        &self.gone
    }
}

#[cfg(test)]
mod tests {
    use prost_types::{Duration, Timestamp};
    use vantage_contract::v1::{PingReport, Reason, probe_result::Report};

    use super::*;

    fn style(output: Output, colour: bool) -> Style {
        Style { output, colour, zone: TimeZone::UTC }
    }

    fn passed() -> ProbeResult {
        ProbeResult {
            check_name: "google".into(),
            kind: "ping".into(),
            target: "www.google.com".into(),
            monitor: "local".into(),
            run_count: 1,
            start_time: Some(Timestamp { seconds: 1_795_335_545, nanos: 999_000_000 }),
            outcome: Outcome::Passed.into(),
            address: "142.250.72.164".into(),
            latency: Some(Duration { seconds: 0, nanos: 71_340_000 }),
            ..ProbeResult::default()
        }
    }

    fn text(result: &ProbeResult) -> String {
        style(Output::Text, false).line(result)
    }

    #[test]
    #[expect(clippy::print_stderr, reason = "a skipped test is loud")]
    fn a_zone_that_tz_names_is_known() {
        // Where a zone is not known, times are told in UTC without a word.
        if !std::path::Path::new("/usr/share/zoneinfo/Europe/Berlin").exists() {
            assert!(std::env::var_os("VANTAGE_REQUIRE_PRIVILEGED").is_none(), "needs /usr/share/zoneinfo (tzdata)");
            eprintln!("SKIPPED: needs /usr/share/zoneinfo (tzdata)");
            return;
        }
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let line = Style { output: Output::Text, colour: false, zone }.line(&passed());
        assert!(line.starts_with("[2026-11-22 09:19:05]"), "{line}");
    }

    #[test]
    fn a_result_that_passed_is_a_line_of_four_brackets() {
        assert_eq!(text(&passed()), "[2026-11-22 08:19:05] [ping] [passed] [google@local: 142.250.72.164 71.3 ms]\n");
    }

    #[test]
    fn a_result_that_did_not_pass_says_why_in_a_word_and_in_a_sentence() {
        let refused = ProbeResult {
            outcome: Outcome::Failed.into(),
            reason: Reason::Refused.into(),
            summary: "connect to 192.0.2.1:80: connection refused".into(),
            address: String::new(),
            ..passed()
        };
        assert_eq!(
            text(&refused),
            "[2026-11-22 08:19:05] [ping] [failed: refused] [google@local: www.google.com, connect to 192.0.2.1:80: connection refused]\n"
        );
    }

    #[test]
    fn a_result_of_several_addresses_counts_them() {
        let sub = |outcome: Outcome| ProbeResult { outcome: outcome.into(), ..ProbeResult::default() };
        let all = ProbeResult { address: String::new(), address_results: vec![sub(Outcome::Passed), sub(Outcome::Failed)], ..passed() };
        assert_eq!(text(&all), "[2026-11-22 08:19:05] [ping] [passed] [google@local: 1 of 2 addresses 71.3 ms]\n");
        let one = ProbeResult { address_results: vec![sub(Outcome::Passed)], latency: None, ..all.clone() };
        assert_eq!(text(&one), "[2026-11-22 08:19:05] [ping] [passed] [google@local: 1 of 1 address]\n");
        let summary = "1 of 2 addresses passed, all required; 192.0.2.2: no reply to 3 requests";
        let reason = Reason::TimedOut.into();
        let failed = ProbeResult { outcome: Outcome::Failed.into(), reason, summary: summary.into(), latency: None, ..all };
        assert_eq!(text(&failed), format!("[2026-11-22 08:19:05] [ping] [failed: timed_out] [google@local: www.google.com, {summary}]\n"));
    }

    #[test]
    fn runs_that_did_not_happen_are_told_by_when_they_were_due_and_how_many() {
        let skipped = ProbeResult {
            outcome: Outcome::Skipped.into(),
            reason: Reason::MonitorDown.into(),
            run: 5,
            run_count: 8,
            start_time: None,
            due_time: Some(Timestamp { seconds: 1_795_335_545, nanos: 0 }),
            summary: "the monitor was not running".into(),
            address: String::new(),
            latency: None,
            ..passed()
        };
        assert_eq!(
            text(&skipped),
            "[2026-11-22 08:19:05] [ping] [skipped: monitor_down] [google@local: www.google.com, 8 runs from run 5, the monitor was not running]\n"
        );
    }

    #[test]
    fn a_hostile_target_cannot_steer_the_terminal_nor_fill_it() {
        let hostile = ProbeResult {
            outcome: Outcome::Failed.into(),
            check_name: "a\x1b[2Jb\u{202e}c\n[x".into(),
            summary: "y".repeat(5000),
            start_time: Some(Timestamp { seconds: i64::MAX, nanos: -1 }),
            latency: Some(Duration { seconds: i64::MAX, nanos: -1 }),
            ..passed()
        };
        let line = text(&hostile);
        assert!(line.starts_with(r"[-] [ping] [failed] [a\u{1b}[2Jb\u{202e}c\n[x@local"), "{line}");
        assert!(line.ends_with("…]\n") && line.chars().count() < 600);
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn only_the_verdict_is_coloured() {
        let line = style(Output::Text, true).line(&passed());
        assert_eq!(line, "[2026-11-22 08:19:05] [ping] \x1b[32m[passed]\x1b[0m [google@local: 142.250.72.164 71.3 ms]\n");
    }

    #[test]
    fn lengths_have_three_digits_that_count() {
        let told = |nanos: i64| length(Duration { seconds: nanos / 1_000_000_000, nanos: (nanos % 1_000_000_000) as i32 });
        assert_eq!(told(3_400), "0.003 ms");
        assert_eq!(told(1_234_000), "1.23 ms");
        assert_eq!(told(71_340_000), "71.3 ms");
        assert_eq!(told(1_234_000_000), "1234 ms");
        assert_eq!(told(12_340_000_000), "12.3 s");
    }

    #[test]
    fn json_is_one_object_a_line_with_the_report() {
        let result =
            ProbeResult { report: Some(Report::Ping(Box::new(PingReport { sent_count: 3, ..PingReport::default() }))), ..passed() };
        let line = style(Output::Json, true).line(&result);
        assert!(line.starts_with('{') && line.ends_with("}\n") && line.matches('\n').count() == 1, "{line}");
        assert!(line.contains(r#""outcome":"OUTCOME_PASSED""#) && line.contains(r#""sent_count":3"#), "{line}");
    }

    #[tokio::test]
    async fn a_reader_that_leaves_is_noticed_and_printing_goes_on_to_nowhere() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let printer = Printer::start(style(Output::Text, false), Box::new(Closed)).unwrap();
        printer.print(&[passed()]).await;
        printer.gone().cancelled().await;
        printer.print(&[passed()]).await;
    }

    #[tokio::test]
    async fn a_slow_reader_holds_up_those_who_print() {
        struct Slow(std::sync::mpsc::Receiver<()>, std::sync::mpsc::Sender<usize>);
        impl Write for Slow {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.recv().unwrap();
                self.1.send(bytes.len()).unwrap();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let ((go, wait), (wrote, written)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
        let printer = Printer::start(style(Output::Text, false), Box::new(Slow(wait, wrote))).unwrap();
        let task = tokio::spawn(async move { printer.print(&[passed()]).await });
        assert!(written.try_recv().is_err() && !task.is_finished());
        go.send(()).unwrap();
        task.await.unwrap();
        assert_eq!(written.recv().unwrap(), text(&passed()).len());
    }
}
