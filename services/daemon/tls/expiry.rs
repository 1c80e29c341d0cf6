//! When certificates that we depend on end: told in the log 30, 7 and 1 days before, in health, and in the figures.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use super::certificate::Facts;
use crate::readiness::Readiness;

const DAY: Duration = Duration::from_secs(86_400);

/// How near the end is. The later, the worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Fine,
    Month,
    Week,
    Day,
    Over,
    /// It has not begun.
    Early,
}

impl Stage {
    fn of(not_before: SystemTime, not_after: SystemTime, now: SystemTime) -> Self {
        if now < not_before {
            return Self::Early;
        }
        match not_after.duration_since(now) {
            Err(_) => Self::Over,
            Ok(left) if left < DAY => Self::Day,
            Ok(left) if left < DAY * 7 => Self::Week,
            Ok(left) if left < DAY * 30 => Self::Month,
            Ok(_) => Self::Fine,
        }
    }
}

/// Which certificate it is, for people and as labels: what it is for, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    /// What it is for: "server", "client_ca", "client", "ca".
    pub usage: &'static str,
    /// The monitor that it is shown to, or that it judges; empty where there is none.
    pub monitor: String,
    /// Whose it is.
    pub subject: String,
}

#[derive(Debug)]
struct Entry {
    not_before: SystemTime,
    not_after: SystemTime,
    told: Stage,
}

/// The certificates that we depend on. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Expiry {
    readiness: Readiness,
    entries: Arc<Mutex<BTreeMap<Label, Entry>>>,
}

impl Expiry {
    /// None yet; `readiness` is told of those that end.
    pub fn new(readiness: Readiness) -> Self {
        Self { readiness, entries: Arc::default() }
    }

    /// These are the certificates now, in place of all that were told for the same uses and monitor.
    pub fn set(&self, monitor: &str, certificates: impl IntoIterator<Item = (&'static str, Facts)>) {
        let mut entries = self.lock();
        let mut former = BTreeMap::new();
        let (gone, kept) = std::mem::take(&mut *entries).into_iter().partition(|(label, _): &(Label, Entry)| label.monitor == monitor);
        *entries = kept;
        let gone: BTreeMap<Label, Entry> = gone;
        former.extend(gone);
        for (usage, facts) in certificates {
            let label = Label { usage, monitor: monitor.to_owned(), subject: facts.subject };
            let told = former.remove(&label).filter(|entry| entry.not_after == facts.not_after).map_or(Stage::Fine, |entry| entry.told);
            let entry = Entry { not_before: facts.not_before, not_after: facts.not_after, told };
            // Two of one name, as while an authority is replaced: the one that lasts longer counts.
            match entries.get(&label) {
                Some(other) if other.not_after >= entry.not_after => {}
                _ => drop(entries.insert(label, entry)),
            }
        }
        for label in former.keys().filter(|label| !entries.contains_key(label)) {
            self.readiness.caution(&condition(label), None);
            self.readiness.forget(&condition(label));
        }
    }

    /// Looks how near the ends are, and tells what has not been told.
    pub fn look(&self, now: SystemTime) {
        for (label, entry) in self.lock().iter_mut() {
            let stage = Stage::of(entry.not_before, entry.not_after, now);
            let why = sentence(stage, entry, now);
            if stage > entry.told {
                let Label { usage, monitor, subject } = label;
                let why = why.as_deref().unwrap_or_default();
                match stage {
                    Stage::Over | Stage::Early => tracing::error!(usage, monitor, subject, "this certificate is not valid: {why}"),
                    _ => tracing::warn!(
                        usage,
                        monitor,
                        subject,
                        "a certificate is about to end: {why}; `vantage-manager certs renew` makes a new one"
                    ),
                }
            }
            entry.told = stage;
            // Others may take the place of an authority; nobody takes that of what we show ourselves.
            let is_ours = matches!(label.usage, "server" | "client");
            let is_over = matches!(stage, Stage::Over | Stage::Early);
            match why {
                Some(why) if is_ours && is_over => {
                    self.readiness.caution(&condition(label), None);
                    self.readiness.unmet(condition(label), why);
                }
                why => {
                    self.readiness.forget(&condition(label));
                    self.readiness.caution(&condition(label), why);
                }
            }
        }
    }

    /// When each ends, in seconds since 1970.
    pub fn ends(&self) -> Vec<(Label, f64)> {
        let seconds = |instant: SystemTime| match instant.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => since.as_secs_f64(),
            Err(before) => -before.duration().as_secs_f64(),
        };
        self.lock().iter().map(|(label, entry)| (label.clone(), seconds(entry.not_after))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Label, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name of the condition of readiness.
fn condition(label: &Label) -> String {
    let Label { usage, monitor, subject } = label;
    let of = if monitor.is_empty() { String::new() } else { format!(" for monitor {monitor}") };
    format!("certificate {subject} ({usage}{of})")
}

fn sentence(stage: Stage, entry: &Entry, now: SystemTime) -> Option<String> {
    let at = |instant: SystemTime| instant_text(instant);
    let days = |left: Duration| left.as_secs() / DAY.as_secs();
    Some(match stage {
        Stage::Fine => return None,
        Stage::Early => format!("valid from {} only: is the clock right?", at(entry.not_before)),
        Stage::Over => format!("expired on {}", at(entry.not_after)),
        Stage::Month | Stage::Week | Stage::Day => {
            let left = entry.not_after.duration_since(now).unwrap_or_default();
            let left = match days(left) {
                0 => format!("{} hours", left.as_secs() / 3600),
                days => format!("{days} days"),
            };
            format!("expires in {left}, on {}", at(entry.not_after))
        }
    })
}

/// An instant for people, to the second, in UTC.
pub fn instant_text(instant: SystemTime) -> String {
    jiff::Timestamp::try_from(instant).map(|instant| format!("{instant:.0}")).unwrap_or_else(|_| "a time beyond all calendars".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(from: SystemTime, to: SystemTime) -> Facts {
        Facts {
            subject: "fra".into(),
            common_names: Vec::new(),
            issuer: String::new(),
            names: Vec::new(),
            not_before: from,
            not_after: to,
            fingerprint: String::new(),
            is_authority: false,
            for_servers: true,
            for_clients: true,
        }
    }

    #[test]
    fn the_end_is_told_in_health_thirty_days_before_and_is_a_fault_only_when_it_has_come() {
        let start = SystemTime::UNIX_EPOCH + DAY * 20_000;
        let (readiness, end) = (Readiness::default(), start + DAY * 90);
        let expiry = Expiry::new(readiness.clone());
        expiry.set("", [("server", facts(start, end))]);
        let mut seen = Vec::new();
        for day in [0, 59, 61, 84, 89] {
            expiry.look(start + DAY * day + Duration::from_secs(1));
            assert!(readiness.complaints().is_empty());
            seen.push(readiness.cautions().first().map(|told| told.split(", on").next().unwrap_or_default().to_owned()));
        }
        let told = |left: &str| Some(format!("certificate fra (server): expires in {left}"));
        assert_eq!(seen, [None, None, told("28 days"), told("5 days"), told("23 hours")]);
        expiry.look(end + DAY);
        assert_eq!(readiness.cautions(), Vec::<String>::new());
        assert_eq!(
            readiness.complaints(),
            ["certificate fra (server): expired on 2024-12-31T00:00:00Z".to_owned()].map(|text| {
                // The date is that of the test's arithmetic.
                let date = instant_text(end);
                format!("{}{date}", text.split("2024").next().unwrap_or_default())
            })
        );
        assert_eq!(expiry.ends(), [(Label { usage: "server", monitor: String::new(), subject: "fra".into() }, (20_090 * 86_400) as f64)]);
        expiry.set("", [("server", facts(start, end + DAY * 365))]);
        expiry.look(end + DAY);
        assert!(readiness.complaints().is_empty() && readiness.cautions().is_empty());
    }

    #[test]
    fn what_is_no_longer_depended_on_is_forgotten_and_an_old_authority_is_no_fault() {
        let start = SystemTime::UNIX_EPOCH + DAY * 20_000;
        let (readiness, now) = (Readiness::default(), start + DAY * 100);
        let expiry = Expiry::new(readiness.clone());
        expiry.set("fra", [("client", facts(start, start + DAY))]);
        expiry.set("", [("client_ca", facts(start, start + DAY))]);
        expiry.look(now);
        assert_eq!((readiness.complaints().len(), readiness.cautions().len()), (1, 1));
        expiry.set("fra", []);
        assert!(readiness.complaints().is_empty());
        expiry.set("", [("server", facts(now + DAY, now + DAY * 9))]);
        expiry.look(now);
        assert!(readiness.complaints()[0].contains("is the clock right?"), "{:?}", readiness.complaints());
    }
}
