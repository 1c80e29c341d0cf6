//! Which check goes where. Pure: checks and monitors in, orders per monitor out.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use ring::digest::{SHA256, digest};
use vantage_contract::v1::{Check, MonitorAddress, Start};

use crate::{seal::Seal, secrets};

/// The orders of one monitor, by the name of their check.
pub type Orders = BTreeMap<String, Start>;

/// Which check goes where: the orders of each monitor, by the monitor's name in the file. A monitor without orders is there too.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// The orders of each monitor.
    pub monitors: BTreeMap<String, Orders>,
}

impl Plan {
    /// Completes the revisions of the orders that have secrets, so that a changed secret is a changed order.
    pub(crate) fn seal(&mut self, seal: &Seal) {
        let orders = self.monitors.values_mut().flat_map(Orders::values_mut);
        for Start { revision, check, .. } in orders {
            if let Some(check) = check.as_ref().filter(|check| secrets::are_in(check)) {
                revision.push('.');
                revision.push_str(&seal.of(check));
            }
        }
    }
}

/// A check that no monitor takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Unplaced {
    /// The place of the check in the file, from 0.
    pub check: usize,
    /// The field that says so: `monitors` or `monitor_labels`.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

/// What has to be said to a monitor so that its orders become others. What is in neither list goes on untouched.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// The names of the checks to stop.
    pub stops: Vec<String>,
    /// The orders to place, new ones and those that replace another.
    pub starts: Vec<Start>,
}

impl Changes {
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.stops.is_empty() && self.starts.is_empty()
    }
}

/// Places each check on the monitors that it names, or on all that have its labels; with both, on those that meet both.
pub fn place(checks: &[Check], monitors: &[MonitorAddress]) -> Result<Plan, Vec<Unplaced>> {
    let mut plan = Plan { monitors: monitors.iter().map(|monitor| (monitor.name.clone(), Orders::new())).collect() };
    let mut unplaced = Vec::new();
    for (index, check) in checks.iter().enumerate() {
        match takers(check, monitors) {
            Ok(names) => {
                let start = order(check);
                for name in names {
                    plan.monitors.entry(name.to_owned()).or_default().insert(check.name.clone(), start.clone());
                }
            }
            Err((field, problem)) => unplaced.push(Unplaced { check: index, field, problem }),
        }
    }
    if unplaced.is_empty() { Ok(plan) } else { Err(unplaced) }
}

/// What has to be said so that `old` becomes `new`. Orders of one check are told apart by their revision alone.
pub fn diff(old: &Orders, new: &Orders) -> Changes {
    Changes {
        stops: old.keys().filter(|name| !new.contains_key(*name)).cloned().collect(),
        starts: new
            .iter()
            .filter(|(name, start)| old.get(*name).is_none_or(|old| old.revision != start.revision))
            .map(|(_, start)| start.clone())
            .collect(),
    }
}

/// Runs per second that these orders ask for.
pub fn rate(orders: &Orders) -> f64 {
    orders.values().filter_map(|start| start.check.as_ref()).map(|check| 1.0 / interval_seconds(check)).sum()
}

/// The interval of a check in seconds, its default included.
pub fn interval_seconds(check: &Check) -> f64 {
    check
        .interval
        .map(|interval| interval.seconds as f64 + f64::from(interval.nanos) / 1e9)
        .filter(|seconds| *seconds > 0.0)
        .unwrap_or(60.0)
}

/// The same in nanoseconds, exactly.
pub fn interval_nanos(check: &Check) -> i64 {
    let nanos = |interval: prost_types::Duration| interval.seconds.saturating_mul(1_000_000_000).saturating_add(interval.nanos.into());
    check.interval.map(nanos).filter(|nanos| *nanos > 0).unwrap_or(60_000_000_000)
}

/// The order that runs a check: without the fields that say where, so that placing it elsewhere too changes nothing for those who have it.
/// Its revision is that of the check without its secrets: see `Plan::seal`.
pub fn order(check: &Check) -> Start {
    let check = Check { monitors: Vec::new(), monitor_labels: BTreeMap::new(), ..check.clone() };
    Start { revision: revision(&check), check: Some(check), ..Start::default() }
}

/// Tells versions of a check apart: 16 hex digits of SHA-256 over its bytes, secrets apart. Maps are sorted, so equal checks have equal bytes.
fn revision(check: &Check) -> String {
    digest(&SHA256, &secrets::without(check).encode_to_vec()).as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn takers<'m>(check: &Check, monitors: &'m [MonitorAddress]) -> Result<BTreeSet<&'m str>, (&'static str, String)> {
    let known = || monitors.iter().map(|monitor| monitor.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(stranger) = check.monitors.iter().find(|name| monitors.iter().all(|monitor| monitor.name != **name)) {
        return Err(("monitors", format!("there is no monitor {stranger:?}; there is {}", known())));
    }
    let named = |monitor: &&MonitorAddress| check.monitors.is_empty() || check.monitors.contains(&monitor.name);
    let labelled = |monitor: &&MonitorAddress| check.monitor_labels.iter().all(|(label, value)| monitor.labels.get(label) == Some(value));
    let names: BTreeSet<_> = monitors.iter().filter(named).filter(labelled).map(|monitor| monitor.name.as_str()).collect();
    if names.is_empty() {
        let wanted: Vec<_> = check.monitor_labels.iter().map(|(label, value)| format!("{label}={value}")).collect();
        let whose = if check.monitors.is_empty() { "" } else { " among those it names" };
        return Err(("monitor_labels", format!("no monitor{whose} has {}", wanted.join(" and "))));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn monitor(name: &str, labels: &[(&str, &str)]) -> MonitorAddress {
        MonitorAddress { name: name.into(), labels: pairs(labels), ..MonitorAddress::default() }
    }

    fn check(name: &str) -> Check {
        Check { name: name.into(), ..Check::default() }
    }

    fn pairs(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
        labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect()
    }

    fn names(plan: &Plan, monitor: &str) -> Vec<String> {
        plan.monitors[monitor].keys().cloned().collect()
    }

    #[test]
    fn a_check_goes_to_all_monitors_unless_it_says_otherwise() {
        let monitors = [monitor("a", &[("site", "x")]), monitor("b", &[("site", "y")]), monitor("c", &[("site", "y"), ("rack", "1")])];
        let checks = [
            check("everywhere"),
            Check { monitors: vec!["a".into(), "b".into()], ..check("named") },
            Check { monitor_labels: pairs(&[("site", "y")]), ..check("labelled") },
            Check { monitor_labels: pairs(&[("site", "y"), ("rack", "1")]), ..check("all labels") },
            Check { monitors: vec!["a".into(), "b".into()], monitor_labels: pairs(&[("site", "y")]), ..check("both") },
        ];
        let plan = place(&checks, &monitors).unwrap();
        assert_eq!(names(&plan, "a"), ["everywhere", "named"]);
        assert_eq!(names(&plan, "b"), ["both", "everywhere", "labelled", "named"]);
        assert_eq!(names(&plan, "c"), ["all labels", "everywhere", "labelled"]);
    }

    #[test]
    fn a_check_that_no_monitor_takes_is_refused_by_place_and_field() {
        let monitors = [monitor("a", &[("site", "x")])];
        let checks = [
            check("fine"),
            Check { monitors: vec!["b".into()], ..check("stranger") },
            Check { monitor_labels: pairs(&[("site", "y")]), ..check("nowhere") },
        ];
        let unplaced = place(&checks, &monitors).unwrap_err();
        assert_eq!(unplaced.iter().map(|unplaced| unplaced.check).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(unplaced[0].to_string(), r#"monitors: there is no monitor "b"; there is a"#);
        assert_eq!(unplaced[1].to_string(), "monitor_labels: no monitor has site=y");
    }

    #[test]
    fn the_revision_is_of_what_is_measured_and_not_of_where() {
        let before = order(&check("one"));
        assert_eq!(before.revision.len(), 16);
        assert!(before.anchor.is_none());
        let moved = order(&Check { monitors: vec!["a".into()], monitor_labels: pairs(&[("site", "x")]), ..check("one") });
        assert_eq!(moved, before);
        let faster = order(&Check { interval: Some(prost_types::Duration { seconds: 1, nanos: 0 }), ..check("one") });
        assert_ne!(faster.revision, before.revision);
    }

    #[test]
    fn a_change_of_one_check_leaves_the_others_alone() {
        let orders = |checks: &[Check]| checks.iter().map(|check| (check.name.clone(), order(check))).collect::<Orders>();
        let counted = Check { count: 7, ..check("b") };
        let changes = diff(&orders(&[check("a"), check("b"), check("c")]), &orders(&[check("a"), counted.clone(), check("d")]));
        assert_eq!(changes, Changes { stops: vec!["c".into()], starts: vec![order(&counted), order(&check("d"))] });
        assert_eq!(diff(&orders(&[check("a")]), &orders(&[check("a")])), Changes::default());
    }

    #[test]
    fn the_rate_is_the_sum_over_all_orders() {
        let every = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
        let checks = [
            Check { interval: every(10, 0), ..check("a") },
            Check { interval: every(0, 500_000_000), ..check("b") },
            check("by default once a minute"),
        ];
        let plan = place(&checks, &[monitor("m", &[])]).unwrap();
        assert!((rate(&plan.monitors["m"]) - (0.1 + 2.0 + 1.0 / 60.0)).abs() < 1e-9);
    }
}
