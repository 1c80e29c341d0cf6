//! What a file must keep beyond the types of its fields, and what its defaults mean.
//!
//! The ranges of a probe's own fields are not known here: the package that runs probes judges them.

use std::collections::{BTreeMap, HashMap};

use prost_types::Duration;

use super::{
    descriptor,
    error::{Position, Problems, quote},
    monitor::Endpoint,
    node::{Member, Node, Value},
    places::Places,
    shape::kinds,
    words::{Place, either, suggestion},
};
use crate::{
    labels::{LONGEST, MOST, is_name},
    v1::{AddressSelection, Check, CheckDefaults, CheckFile, MonitorAddress, Probe},
};

/// The interval of a check where neither it nor the defaults name one.
const DEFAULT_INTERVAL: Duration = Duration { seconds: 60, nanos: 0 };
const LONGEST_NAME: usize = 128;

/// Fills in the defaults, and notes what is wrong. What has been noted before is not judged again.
pub(super) fn complete(root: &Node, file: &mut CheckFile, problems: &mut Problems) {
    let spoiled = problems.places();
    let places = Places { root };
    monitors(root, &mut file.monitors, &spoiled, problems);
    let known = Known { monitors: &file.monitors };
    let defaults = file.defaults.clone().unwrap_or_default();
    judge_defaults(root, &defaults, &known, problems);

    let nodes = root.get("checks").map_or(&[][..], |checks| match &checks.node.value {
        Value::List(items) => items.as_slice(),
        _ => &[],
    });
    if nodes.is_empty() && spoiled.is_empty() {
        let at = root.get("checks").map_or(root.at, |checks| checks.node.at);
        problems.push(at, "the file has no checks; give at least one");
    }
    unique(nodes.iter(), "checks", problems);
    // A list with an item of another type is shorter than its nodes: then numbers do not match, and nothing more can be said.
    if nodes.len() != file.checks.len() {
        return;
    }
    for (index, (check, node)) in file.checks.iter_mut().zip(nodes).enumerate() {
        let end = nodes.get(index + 1).map(|next| next.at);
        apply(&defaults, check, node);
        if !is_spoiled(&spoiled, node.at, end) {
            Judge { places, index, node, problems, known: &known }.judge(check);
        }
    }
}

/// Whether something was noted between two places.
fn is_spoiled(spoiled: &[Position], from: Position, to: Option<Position>) -> bool {
    let next = spoiled.partition_point(|at| *at < from);
    spoiled.get(next).is_some_and(|at| to.is_none_or(|to| *at < to))
}

/// What the check does not say, the defaults do. Where a check says which monitors it is for, by name or by label, the defaults say
/// nothing about it.
fn apply(defaults: &CheckDefaults, check: &mut Check, node: &Node) {
    let says = |field: &str| node.get(field).is_some();
    check.interval = check.interval.or(defaults.interval).or(Some(DEFAULT_INTERVAL));
    if !says("count") {
        check.count = defaults.count.unwrap_or_default();
    }
    for (name, value) in &defaults.labels {
        check.labels.entry(name.clone()).or_insert_with(|| value.clone());
    }
    if !says("monitors") && !says("monitor_labels") {
        check.monitors.clone_from(&defaults.monitors);
        check.monitor_labels.clone_from(&defaults.monitor_labels);
    }
    let options = node.get("probe").map(|probe| &probe.node);
    let says = |field: &str| options.is_some_and(|options| options.get(field).is_some());
    let Some(probe) = &mut check.probe else { return };
    probe.timeout = probe.timeout.or(defaults.timeout);
    if !says("address_family") {
        probe.address_family = defaults.address_family;
    }
    if !says("source_address") {
        probe.source_address.clone_from(&defaults.source_address);
    }
    if !says("resolver") {
        probe.resolver.clone_from(&defaults.resolver);
    }
    if !says("addresses") {
        probe.addresses = defaults.addresses;
    }
    // What is required of all addresses means nothing where the check asks for the first.
    if !says("require") && probe.addresses() == AddressSelection::All {
        probe.require.clone_from(&defaults.require);
    }
}

fn judge_defaults(root: &Node, defaults: &CheckDefaults, known: &Known<'_>, problems: &mut Problems) {
    let Some(Member { node, .. }) = root.get("defaults") else { return };
    let mut refuse = |field: &str, problem: String| {
        let at = node.get(field).map_or(node.at, |member| member.node.at);
        problems.push(at, format!("{field:?} in defaults: {problem}"));
    };
    for (field, judged) in [("interval", interval(defaults.interval)), ("timeout", timeout(defaults.timeout))] {
        if let Err(problem) = judged {
            refuse(field, problem);
        }
    }
    known.judge(&defaults.monitors, &defaults.monitor_labels, |field, problem| refuse(field, problem));
    judge_labels(node, "labels", &defaults.labels, "defaults", problems);
    judge_labels(node, "monitor_labels", &defaults.monitor_labels, "defaults", problems);
}

/// Notes what is wrong with the monitors, and gives each its name.
fn monitors(root: &Node, monitors: &mut [MonitorAddress], spoiled: &[Position], problems: &mut Problems) {
    let Some(Member { node: Node { value: Value::List(nodes), .. }, .. }) = root.get("monitors") else { return };
    if nodes.len() != monitors.len() {
        return;
    }
    let mut seen: HashMap<String, Position> = HashMap::new();
    for (index, (monitor, node)) in monitors.iter_mut().zip(nodes).enumerate() {
        if is_spoiled(spoiled, node.at, nodes.get(index + 1).map_or_else(|| after(root, "monitors"), |next| Some(next.at))) {
            continue;
        }
        let place = Place::Monitor(node).to_string();
        let at = |field: &str| node.get(field).map_or(node.at, |member| member.node.at);
        judge_labels(node, "labels", &monitor.labels, &place, problems);
        let mut refuse = |field: &str, problem: &str| problems.push(at(field), format!("{field:?} in {place}: {problem}"));
        match Endpoint::parse(monitor) {
            Err(problem) => refuse("address", &problem),
            Ok(endpoint) => {
                if node.get("name").is_none() {
                    monitor.name = endpoint.to_string();
                }
                if !monitor.token_file.is_empty() && !endpoint.tls && !endpoint.is_loopback() {
                    refuse("token_file", "a token would go over the network in the clear; use an \"https://\" address");
                }
            }
        }
        if node.get("name").is_some()
            && let Err(problem) = name(&monitor.name)
        {
            refuse("name", problem);
        }
        if monitor.tls.as_ref().is_some_and(|tls| tls.certificate_file.is_empty() != tls.key_file.is_empty()) {
            refuse("tls", "\"certificate_file\" and \"key_file\" go together");
        }
        match seen.get(&monitor.name) {
            Some(first) => {
                let sentence = format!("two monitors have the name {}; the first is in line {}", quote(&monitor.name), first.line);
                problems.push(at("name"), sentence);
            }
            None if monitor.name.is_empty() => {}
            None => {
                seen.insert(monitor.name.clone(), at("name"));
            }
        }
    }
}

/// Where the member after this one begins.
fn after(root: &Node, name: &str) -> Option<Position> {
    root.members()?.iter().skip_while(|member| &*member.name != name).nth(1).map(|member| member.at)
}

/// The monitors that a check may be for: those of the file, or unknown where the file has none.
struct Known<'a> {
    monitors: &'a [MonitorAddress],
}

impl Known<'_> {
    /// Judges which monitors something is for, by name or by label.
    fn judge(&self, names: &[String], labels: &BTreeMap<String, String>, mut refuse: impl FnMut(&str, String)) {
        if self.monitors.is_empty() {
            return;
        }
        for name in names.iter().filter(|name| !self.monitors.iter().any(|monitor| monitor.name == **name)) {
            let mut known: Vec<&str> = self.monitors.iter().map(|monitor| monitor.name.as_str()).collect();
            known.sort_unstable();
            refuse("monitors", format!("unknown monitor {}; {}", quote(name), suggestion(name, &known)));
        }
        let selects = |monitor: &MonitorAddress| labels.iter().all(|(name, value)| monitor.labels.get(name) == Some(value));
        if !labels.is_empty() && !self.monitors.iter().any(selects) {
            refuse("monitor_labels", "no monitor of the file has these labels".into());
        }
    }
}

/// Notes the names that an earlier item has.
fn unique<'n>(nodes: impl Iterator<Item = &'n Node>, what: &str, problems: &mut Problems) {
    let mut seen: HashMap<&str, Position> = HashMap::new();
    for name in nodes.filter_map(|node| node.get("name")) {
        let Some(text) = name.node.text() else { continue };
        if let Some(first) = seen.get(text) {
            problems.push(name.node.at, format!("two {what} have the name {}; the first is in line {}", quote(text), first.line));
        } else {
            seen.insert(text, name.node.at);
        }
    }
}

/// What it takes to judge one check. What the defaults have given is judged there.
struct Judge<'a> {
    places: Places<'a>,
    index: usize,
    node: &'a Node,
    problems: &'a mut Problems,
    known: &'a Known<'a>,
}

impl Judge<'_> {
    fn refuse(&mut self, field: &str, problem: impl AsRef<str>) {
        let at = self.places.locate(self.index, field);
        self.problems.push(at, format!("{field:?} in {}: {}", Place::Check(self.node), problem.as_ref()));
    }

    fn says(&self, field: &str) -> bool {
        self.node.get(field).is_some()
    }

    fn judge(&mut self, check: &Check) {
        if !self.says("name") {
            self.problems.push(self.node.at, "a check has no \"name\"");
        } else if let Err(problem) = name(&check.name) {
            self.refuse("name", problem);
        }
        if self.says("interval")
            && let Err(problem) = interval(check.interval)
        {
            self.refuse("interval", problem);
        }
        let known = self.known;
        if self.says("monitors") || self.says("monitor_labels") {
            known.judge(&check.monitors, &check.monitor_labels, |field, problem| self.refuse(field, problem));
        }
        let place = Place::Check(self.node).to_string();
        judge_labels(self.node, "labels", &check.labels, &place, self.problems);
        judge_labels(self.node, "monitor_labels", &check.monitor_labels, &place, self.problems);
        match &check.probe {
            Some(probe) if probe.kind.is_some() => {
                let says_timeout = self.node.get("probe").is_some_and(|options| options.node.get("timeout").is_some());
                if says_timeout && let Err(problem) = timeout(probe.timeout) {
                    self.refuse("timeout", problem);
                }
            }
            _ => {
                let kinds = kinds(&descriptor::<Probe>());
                let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
                self.problems.push(self.node.at, format!("{place} has no kind; give one of {}", either(&kinds)));
            }
        }
    }
}

/// 1 to 128 bytes without control characters.
fn name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        Err("must not be empty")
    } else if name.len() > LONGEST_NAME {
        Err("must not be longer than 128 bytes")
    } else if name.chars().any(char::is_control) {
        Err("must not have control characters")
    } else {
        Ok(())
    }
}

fn interval(interval: Option<Duration>) -> Result<(), String> {
    within(interval, 100_000_000, 7 * 86_400_000_000_000, "must be 100 ms to 7 days")
}

fn timeout(timeout: Option<Duration>) -> Result<(), String> {
    within(timeout, 1_000_000, 300_000_000_000, "must be 1 ms to 5 minutes")
}

fn within(duration: Option<Duration>, least: i128, most: i128, problem: &str) -> Result<(), String> {
    let nanos = duration.map(|duration| i128::from(duration.seconds) * 1_000_000_000 + i128::from(duration.nanos));
    match (duration, nanos) {
        (Some(duration), Some(nanos)) if !(least..=most).contains(&nanos) => Err(format!("{problem}, is {duration}")),
        _ => Ok(()),
    }
}

/// At most 32, with names as in Prometheus, names and values up to 256 bytes. Those that come from elsewhere are judged there, but count.
fn judge_labels(node: &Node, field: &str, labels: &BTreeMap<String, String>, place: &str, problems: &mut Problems) {
    if labels.len() > MOST {
        let at = node.get(field).map_or(node.at, |member| member.at);
        problems.push(at, format!("{field:?} in {place}: {} are too many, at most {MOST} are allowed", labels.len()));
    }
    let Some(members) = node.get(field).and_then(|member| member.node.members()) else { return };
    for Member { name, at, node } in members {
        if !is_name(name) {
            let sentence = format!("{field:?} in {place}: {} must have letters, digits and \"_\" only, and no digit first", quote(name));
            problems.push(*at, sentence);
        } else if name.len() > LONGEST {
            problems.push(*at, format!("{field:?} in {place}: {} must not be longer than {LONGEST} bytes", quote(name)));
        } else if labels.get(&**name).is_some_and(|value| value.len() > LONGEST) {
            let sentence = format!("{field:?} in {place}: the value of {} must not be longer than {LONGEST} bytes", quote(name));
            problems.push(node.at, sentence);
        }
    }
}
