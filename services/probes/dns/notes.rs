//! What is written down while questions are asked, so that a timeout keeps what was seen.

use std::time::Duration;

use tokio::time::Instant;
use vantage_contract::v1::{DnsRecord, DnsReport, DnsTry};

use super::expect::soa_serial;
use crate::{
    stopwatch::{self, Phase, Stopwatch},
    wire::{
        dns::{Answer, Record},
        name, rdata, text,
    },
};

/// Records shown of each section.
const MAX_RECORDS: usize = 100;
/// Characters shown of a record's data.
const MAX_DATA: usize = 1024;
/// Questions shown.
const MAX_TRIES: usize = 64;

/// Where questions leave their traces: a report, and the phases of the run where they are its own.
pub(super) struct Notes<'n> {
    pub(super) report: &'n mut DnsReport,
    pub(super) watch: Option<&'n mut Stopwatch>,
    /// When the run began.
    pub(super) started: Instant,
}

/// A question that left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Departure {
    place: usize,
    pub(super) at: Instant,
}

impl Notes<'_> {
    /// Enters a phase, where phases are kept.
    pub(super) fn enter(&mut self, phase: Phase) {
        if let Some(watch) = &mut self.watch {
            watch.enter(phase, stopwatch::now());
        }
    }

    /// The answer came at this instant, by the kernel.
    pub(super) fn came(&mut self, at: Instant) {
        if let Some(watch) = &mut self.watch {
            watch.came(at);
        }
    }

    /// A question leaves at `at`.
    pub(super) fn depart(&mut self, transport: &str, at: Instant) -> Departure {
        self.report.sent_count += 1;
        let place = self.report.tries.len();
        if place >= MAX_TRIES {
            return Departure { place: usize::MAX, at };
        }
        let sent_after = Some(stopwatch::to_proto(at.saturating_duration_since(self.started)));
        self.report.tries.push(DnsTry { transport: transport.to_owned(), sent_after, ..DnsTry::default() });
        Departure { place, at }
    }

    /// It was answered, or came to another end, after `wait`.
    pub(super) fn settle(&mut self, departure: Departure, wait: Duration, fate: &str) {
        if let Some(asked) = self.report.tries.get_mut(departure.place) {
            asked.wait = Some(stopwatch::to_proto(wait));
            fate.clone_into(&mut asked.fate);
        }
    }

    /// Nobody waits for the others any longer, from `now` on; `fate` is what became of the last of them.
    pub(super) fn settle_rest(&mut self, now: Instant, fate: &str) {
        let passed = now.saturating_duration_since(self.started);
        let mut fate = fate;
        for asked in self.report.tries.iter_mut().rev().filter(|asked| asked.wait.is_none()) {
            let after = asked.sent_after.and_then(|after| Duration::try_from(after).ok()).unwrap_or_default();
            asked.wait = Some(stopwatch::to_proto(passed.saturating_sub(after)));
            std::mem::replace(&mut fate, "silent").clone_into(&mut asked.fate);
        }
    }

    /// Takes over what parts of the work wrote down.
    pub(super) fn merge(&mut self, parts: Vec<DnsReport>) {
        for part in parts {
            self.report.sent_count += part.sent_count;
            self.report.ignored_count += part.ignored_count;
            self.report.tries.extend(part.tries);
        }
        self.report.tries.sort_by_key(|asked| asked.sent_after.map(|after| (after.seconds, after.nanos)));
        self.report.tries.truncate(MAX_TRIES);
    }

    /// Shows an answer.
    pub(super) fn show(&mut self, answer: &Answer, transport: &str) {
        let shown = |records: &[Record]| records.iter().take(MAX_RECORDS).map(|record| show_record(answer, record)).collect();
        let report = &mut *self.report;
        report.rcode = rdata::rcode_name(answer.rcode).into_owned();
        report.authoritative = answer.authoritative;
        report.authenticated = answer.authenticated;
        report.recursion_available = answer.recursion_available;
        transport.clone_into(&mut report.transport);
        report.answer_size_bytes = answer.bytes().len() as u64;
        report.answers = shown(&answer.answers);
        report.authorities = shown(&answer.authorities);
        report.additionals = shown(&answer.additionals);
        report.answer_count = answer.answers.len().try_into().unwrap_or(u32::MAX);
        report.soa_serial = soa_serial(answer);
        report.nsid = answer.nsid().map(text::escape).unwrap_or_default();
        report.nsid.truncate(floor(&report.nsid, MAX_DATA));
    }
}

/// The last place at or before `at` where a character begins.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default()
}

fn show_record(answer: &Answer, record: &Record) -> DnsRecord {
    let mut data = rdata::present(answer, record);
    // Presentation forms are ASCII.
    data.truncate(MAX_DATA);
    DnsRecord {
        name: name::show(&record.name),
        r#type: rdata::type_name(record.record_type).into_owned(),
        ttl: Some(stopwatch::to_proto(Duration::from_secs(record.ttl.into()))),
        data,
    }
}
