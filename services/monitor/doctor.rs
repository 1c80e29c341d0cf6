//! What can run here: facts about the machine, what they mean, and the command that changes them.

mod facts;

use std::fmt::Write as _;

use clap::Args;
use serde::Serialize;
use serde_json::json;
use vantage_contract::v1::Capability;
use vantage_daemon::exit::{Exit, Fatal};
use vantage_probes::KINDS;

use crate::{
    config::Settings,
    output::{Output, print},
    policy::Policy,
};
use facts::Facts;

/// What enables echo sockets, either way.
const ECHO_CURE: &str =
    "sysctl -w net.ipv4.ping_group_range=\"0 2147483647\"   (for IPv6 too; or: setcap cap_net_raw+ep $(command -v vantage-monitor))";

/// The receive buffer that the echo sockets would like to have: some ten thousand replies.
const RECEIVE_BUFFER: u64 = 4 << 20;

/// Descriptors that each run in flight may need: its socket, and that of its resolver. (A traceroute by TCP needs one for each SYN under
/// way; those that find none are undetermined.)
const FILES_PER_RUN: u64 = 2;

/// Descriptors that the process needs besides: listeners, clients, epoll.
const FILES_BESIDES: u64 = 256;

/// How the diagnosis is shown.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// What to print: text for people, or one JSON document
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    output: Output,
    /// How many runs are to be in flight at once, as in the settings' limits.in_flight
    #[arg(long, value_name = "NUMBER", default_value_t = Settings::default().limits.in_flight)]
    in_flight: usize,
}

/// How a thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// All is well.
    Ok,
    /// Everything runs, but not all of it well, or not for every target.
    Limited,
    /// A kind of probe can't run.
    Missing,
}

/// One thing, how it stands, and what would change it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    name: &'static str,
    state: State,
    detail: String,
    cure: Option<String>,
}

/// Examines this machine and tells what it found. Exits 0 if every kind of probe can run, else 1; what is merely limited does not count.
pub fn run(args: &DoctorArgs) -> Result<Exit, Fatal> {
    let facts = Facts::gather();
    let findings = diagnose(&facts, args.in_flight);
    print(&match args.output {
        Output::Text => text(&findings),
        Output::Json => {
            let capabilities: Vec<_> = capabilities_of(&facts).iter().map(vantage_contract::json::to_json).collect();
            format!("{}\n", json!({ "findings": findings, "capabilities": capabilities }))
        }
    })?;
    let sick = findings.iter().any(|finding| finding.state == State::Missing);
    Ok(if sick { Exit::SomeFailed } else { Exit::Ok })
}

/// Which kinds of probe can run here, for `GetMonitor`.
pub fn capabilities() -> Vec<Capability> {
    capabilities_of(&Facts::gather())
}

/// The same under a policy, which may deny a kind that could run.
pub fn under(policy: &Policy, capabilities: &[Capability]) -> Vec<Capability> {
    let judged = |capability: &Capability| match policy.permit_kind(&capability.kind) {
        Ok(()) => capability.clone(),
        Err(rule) => Capability { available: false, detail: rule, ..capability.clone() },
    };
    capabilities.iter().map(judged).collect()
}

fn capabilities_of(facts: &Facts) -> Vec<Capability> {
    let capability = |kind: &&str| {
        let (available, detail) = match *kind {
            "ping" if facts.echo_v4() || facts.echo_v6() => (true, facts.echo_words()),
            "ping" => (false, format!("no echo sockets; {ECHO_CURE}, or CAP_NET_RAW")),
            "traceroute" if facts.echo_v4() || facts.echo_v6() => (true, "by icmp, udp and tcp".to_owned()),
            "traceroute" => (true, format!("by udp and tcp; for icmp: {ECHO_CURE}, or CAP_NET_RAW")),
            _ => (true, "needs no privilege".to_owned()),
        };
        Capability { kind: (*kind).to_owned(), available, detail }
    };
    KINDS.iter().map(capability).collect()
}

/// What the facts mean.
fn diagnose(facts: &Facts, in_flight: usize) -> Vec<Finding> {
    vec![echo(facts), ipv6(facts), resolver(facts), files(facts, in_flight), buffer(facts), clock(facts)]
}

fn found(name: &'static str, state: State, detail: impl Into<String>, cure: Option<&str>) -> Finding {
    Finding { name, state, detail: detail.into(), cure: cure.map(str::to_owned) }
}

fn echo(facts: &Facts) -> Finding {
    let name = "echo sockets (ping, traceroute by icmp)";
    match (facts.echo_v4(), facts.echo_v6()) {
        (true, true) => found(name, State::Ok, facts.echo_words(), None),
        (true, false) | (false, true) => found(name, State::Limited, facts.echo_words(), Some(ECHO_CURE)),
        (false, false) => {
            found(name, State::Missing, "neither datagram nor raw ones are allowed (CAP_NET_RAW allows raw ones)", Some(ECHO_CURE))
        }
    }
}

fn ipv6(facts: &Facts) -> Finding {
    if facts.ipv6_route {
        return found("IPv6", State::Ok, "there is a route to the world", None);
    }
    found("IPv6", State::Limited, "no route to the world: probes of targets there will be undetermined, LOCAL_NETWORK", None)
}

fn resolver(facts: &Facts) -> Finding {
    match facts.name_servers.as_slice() {
        [] => {
            let cure = "echo \"nameserver ADDRESS\" >> /etc/resolv.conf";
            found(
                "DNS settings",
                State::Limited,
                "/etc/resolv.conf names no server: targets go by address, or checks name a resolver of their own",
                Some(cure),
            )
        }
        servers => found("DNS settings", State::Ok, servers.join(", "), None),
    }
}

fn files(facts: &Facts, in_flight: usize) -> Finding {
    let needed = files_needed(in_flight);
    match facts.open_files {
        None => found("open files", State::Limited, "the limit is not known here", Some("ulimit -n")),
        Some(limit) if limit >= needed => {
            found("open files", State::Ok, format!("{limit}, {needed} are enough for {in_flight} runs in flight"), None)
        }
        Some(limit) => {
            let cure = format!("ulimit -n {needed}");
            found(
                "open files",
                State::Limited,
                format!("{limit}, but {in_flight} runs in flight may need {needed} (systemd: LimitNOFILE={needed})"),
                Some(&cure),
            )
        }
    }
}

/// How many descriptors a monitor may need with so many runs in flight.
pub(crate) fn files_needed(in_flight: usize) -> u64 {
    u64::try_from(in_flight).unwrap_or(u64::MAX).saturating_mul(FILES_PER_RUN).saturating_add(FILES_BESIDES)
}

/// How many runs may be in flight with so many descriptors.
pub(crate) fn runs_within(files: u64) -> usize {
    usize::try_from(files.saturating_sub(FILES_BESIDES) / FILES_PER_RUN).unwrap_or(usize::MAX)
}

fn buffer(facts: &Facts) -> Finding {
    let name = "receive buffers";
    match facts.receive_buffer {
        Some(bytes) if bytes >= RECEIVE_BUFFER => found(name, State::Ok, format!("net.core.rmem_max is {bytes}"), None),
        bytes => {
            let detail = match bytes {
                Some(bytes) => format!("net.core.rmem_max is {bytes}: bursts of replies may be dropped here, and counted"),
                None => "net.core.rmem_max can't be read here".to_owned(),
            };
            found(name, State::Limited, detail, Some(&format!("sysctl -w net.core.rmem_max={RECEIVE_BUFFER}")))
        }
    }
}

fn clock(facts: &Facts) -> Finding {
    let name = "clock source";
    match facts.clock_source.as_deref() {
        // Those that need a system call or a slow device for each reading.
        Some(source @ ("hpet" | "acpi_pm" | "jiffies" | "pit" | "refined-jiffies")) => {
            let cure = "cat /sys/devices/system/clocksource/clocksource0/available_clocksource";
            found(name, State::Limited, format!("{source} is slow or coarse: round trips below a millisecond are blurred"), Some(cure))
        }
        Some(source) => found(name, State::Ok, source, None),
        None => found(name, State::Ok, "not known here", None),
    }
}

fn text(findings: &[Finding]) -> String {
    let mut out = String::new();
    for finding in findings {
        let mark = match finding.state {
            State::Ok => "ok     ",
            State::Limited => "limited",
            State::Missing => "missing",
        };
        let _ = writeln!(out, "{mark}  {}: {}", finding.name, finding.detail);
        if let Some(cure) = &finding.cure {
            let _ = writeln!(out, "         -> {cure}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Facts {
        Facts {
            datagram: [true, true],
            raw: [false, false],
            ipv6_route: true,
            name_servers: vec!["127.0.0.53".into()],
            open_files: Some(1 << 20),
            receive_buffer: Some(RECEIVE_BUFFER),
            clock_source: Some("tsc".into()),
        }
    }

    #[test]
    fn a_machine_that_is_well_needs_no_cure() {
        assert!(diagnose(&well(), 1000).iter().all(|finding| finding.state == State::Ok && finding.cure.is_none()));
        assert!(capabilities_of(&well()).iter().all(|capability| capability.available));
    }

    #[test]
    fn without_echo_sockets_ping_is_missing_and_the_cure_is_a_command() {
        let facts = Facts { datagram: [false, false], ..well() };
        let findings = diagnose(&facts, 1000);
        let missing: Vec<_> = findings.iter().filter(|finding| finding.state == State::Missing).collect();
        assert_eq!(missing.len(), 1);
        assert!(missing[0].cure.as_ref().unwrap().starts_with("sysctl -w net.ipv4.ping_group_range="));
        let ping = |kind: &str| capabilities_of(&facts).into_iter().find(|capability| capability.kind == kind).unwrap();
        assert!(!ping("ping").available && ping("traceroute").available && ping("dns").available);
        assert!(text(&findings).starts_with("missing  echo sockets"));
    }

    #[test]
    fn few_descriptors_limit_and_the_cure_says_how_many_are_needed() {
        let finding = files(&Facts { open_files: Some(1024), ..well() }, 1000);
        assert_eq!(finding.state, State::Limited);
        assert_eq!(finding.cure.as_deref(), Some("ulimit -n 2256"));
    }

    #[test]
    fn a_kind_that_the_policy_denies_is_not_available() {
        let policy: Policy = serde_json::from_str(r#"{"kinds": {"deny": ["dns"]}}"#).unwrap();
        let judged = under(&policy, &capabilities_of(&well()));
        let denied: Vec<_> = judged.iter().filter(|capability| !capability.available).collect();
        assert_eq!(denied.len(), 1);
        assert_eq!((denied[0].kind.as_str(), denied[0].detail.as_str()), ("dns", "policy: the kind dns is denied (kinds.deny)"));
    }

    #[test]
    fn every_kind_has_a_capability() {
        let kinds: Vec<_> = capabilities().into_iter().map(|capability| capability.kind).collect();
        assert_eq!(kinds, KINDS);
    }
}
