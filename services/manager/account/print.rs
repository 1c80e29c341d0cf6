//! The account, as people and programs read it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{By, arithmetic::Tally, instant, ledger::Account};
use crate::words;

/// The account, by what is asked for.
#[derive(Debug)]
pub(super) struct Sheet {
    /// What the rows are about: their check, their monitor, or both.
    columns: &'static [&'static str],
    rows: BTreeMap<Vec<String>, Tally>,
    total: Tally,
    since: i64,
    until: i64,
    unordered: u64,
}

impl Sheet {
    pub(super) fn new(account: Account, until: i64, by: Option<By>) -> Self {
        let (mut rows, mut total) = (BTreeMap::<_, Tally>::new(), Tally::default());
        let columns: &[&str] = match by {
            None => &["check", "monitor"],
            Some(By::Check) => &["check"],
            Some(By::Monitor) => &["monitor"],
            Some(By::None) => &[],
        };
        for ((check, monitor), tally) in account.rows {
            total.add(&tally);
            let key = columns.iter().map(|column| if *column == "check" { check.clone() } else { monitor.clone() }).collect();
            if by != Some(By::None) {
                rows.entry(key).or_default().add(&tally);
            }
        }
        Self { columns, rows, total, since: account.since, until, unordered: account.unordered }
    }

    pub(super) fn is_sound(&self) -> bool {
        self.total.is_sound()
    }

    pub(super) fn text(&self) -> String {
        const COUNTS: [&str; 8] = ["PLANNED", "PASSED", "FAILED", "UNDETERMINED", "SKIPPED", "AWAITED", "MISSING", "DUPLICATES"];
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_header(self.columns.iter().map(|column| column.to_uppercase()).chain(COUNTS.map(str::to_owned)));
        let total = self.columns.iter().enumerate().map(|(place, _)| if place == 0 { "TOTAL".to_owned() } else { String::new() }).collect();
        for (key, tally) in self.rows.iter().chain([(&total, &self.total)]) {
            let skipped = match tally.skipped.len() {
                0 => "0".to_owned(),
                1 => reasons(tally),
                _ => format!("{} ({})", tally.skipped_count(), reasons(tally)),
            };
            let counts = [tally.planned, tally.passed, tally.failed, tally.undetermined].map(|count| count.to_string());
            let rest = [tally.awaited, tally.missing, tally.duplicates].map(|count| count.to_string());
            table.add_row(key.iter().map(|name| name.escape_debug().to_string()).chain(counts).chain([skipped]).chain(rest));
        }
        let since = instant(self.since).map(|since| format!("from {since} ")).unwrap_or_default();
        let until = instant(self.until).map(|until| until.to_string()).unwrap_or_default();
        let verdict = match (self.total.missing, self.total.duplicates) {
            (0, 0) if self.total.awaited == 0 => "each run has its one record".to_owned(),
            (0, 0) => "each run has its one record, or may still get it".to_owned(),
            (missing, 0) => format!("{missing} runs have no record and should have one"),
            (0, duplicates) => format!("{duplicates} records are of runs that have another one"),
            (missing, duplicates) => {
                format!("{missing} runs have no record and should have one; {duplicates} records are of runs that have another one")
            }
        };
        let mut text = format!("{table}\nRuns due {since}until {until}: {verdict}.\n");
        if self.unordered > 0 {
            text += &format!("Besides, there are records of {} runs of orders that are not in the ledger.\n", self.unordered);
        }
        text
    }

    pub(super) fn json(&self) -> Value {
        let row = |(key, tally): (&Vec<String>, &Tally)| {
            let mut value = counts(tally);
            for (column, name) in self.columns.iter().zip(key) {
                value[*column] = json!(name);
            }
            value
        };
        json!({
            "since": instant(self.since).map(|since| since.to_string()),
            "until": instant(self.until).map(|until| until.to_string()),
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
            "total": counts(&self.total),
            "unordered": self.unordered,
        })
    }
}

fn counts(tally: &Tally) -> Value {
    let skipped: serde_json::Map<_, _> = tally.skipped.iter().map(|(reason, count)| (words::reason(*reason), json!(count))).collect();
    json!({
        "planned": tally.planned,
        "passed": tally.passed,
        "failed": tally.failed,
        "undetermined": tally.undetermined,
        "skipped": skipped,
        "awaited": tally.awaited,
        "missing": tally.missing,
        "duplicates": tally.duplicates,
    })
}

fn reasons(tally: &Tally) -> String {
    tally.skipped.iter().map(|(reason, count)| format!("{count} {}", words::reason(*reason))).collect::<Vec<_>>().join(", ")
}
