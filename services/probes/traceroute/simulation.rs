//! Simulated paths, in virtual time: each file of `paths/` is one, with what a trace over it has to see. The core is driven as
//! [`exchange`](Traceroute::exchange) drives it, with a network that is data and a clock that is a number.

use std::{fs, net::IpAddr, path::Path as File, time::Duration};

use nix::errno::Errno;
use serde::Deserialize;
use tokio::time::Instant;
use vantage_contract::v1::{Attribution, Outcome, Reason, TimingSource, TracerouteHop, TracerouteProbe, TracerouteReport};

use super::{
    Probe, Traceroute,
    flight::Heard,
    report,
    trace::{Next, Trace},
};
use crate::{
    net::errqueue::{Origin, SocketError},
    stopwatch,
    target::Options,
    wire::icmp::Version,
};

/// A path, and what a trace over it sees.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Path {
    /// What the check asks.
    #[serde(default)]
    ask: Ask,
    /// The routers.
    #[serde(default, rename = "hop")]
    hops: Vec<Node>,
    /// Beyond the last router it goes on with this one: a loop.
    loops_to: Option<usize>,
    target: Node,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Ask {
    method: String,
    max_hops: u32,
    attempts: u32,
    attempt_timeout_ms: u64,
    timeout_ms: u64,
}

impl Default for Ask {
    fn default() -> Self {
        Self { method: "icmp".into(), max_hops: 30, attempts: 3, attempt_timeout_ms: 1000, timeout_ms: 30_000 }
    }
}

/// A router, or the target. Lists are gone through again and again, an entry for each packet that ends there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    /// Its addresses; several are those of systems among which packets are balanced.
    from: Vec<IpAddr>,
    /// When an answer of it is back.
    rtt_ms: Vec<f64>,
    /// Whether it answers.
    #[serde(default = "always")]
    answers: Vec<bool>,
    /// How many answers it sends in a burst, and in a second after that.
    limit: Option<[f64; 2]>,
    /// How often each answer comes.
    #[serde(default = "once")]
    copies: u32,
    /// ICMP type and code with which it refuses what should go on from there.
    refuses: Option<[u8; 2]>,
    /// Whether its errors quote enough to say which packet they are about.
    #[serde(default = "yes")]
    quotes: bool,
    /// The label stack in its errors: bytes as they are on the wire.
    #[serde(default)]
    extension: Vec<u8>,
}

fn always() -> Vec<bool> {
    vec![true]
}

fn once() -> u32 {
    1
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    /// "passed", or the reason and whose fault it is: "timed_out target".
    verdict: String,
    /// What the sentence says, among other things.
    #[serde(default)]
    summary: String,
    /// The addresses of each hop, in the order of the first answers; "*" is silence.
    path: Vec<String>,
    /// Answers at each hop.
    answered: Vec<u32>,
    /// Packets to each hop; every attempt, where it is not said.
    sent: Option<Vec<u32>>,
    /// Labels of the first answer of each hop: "16001 5 false 1" is label, traffic class, bottom of stack, time to live.
    labels: Option<Vec<Vec<String>>>,
    /// From when to when it may end, in ms.
    ends_ms: [f64; 2],
    /// How many packets it may take in all.
    packets_at_most: usize,
}

/// What is known of a node while packets come.
#[derive(Default, Clone)]
struct Count {
    arrived: usize,
    answered: f64,
}

/// An answer under way.
struct Coming {
    at: Instant,
    number: u16,
    heard: Heard,
    quotes: bool,
}

impl Path {
    /// Who answers a packet with that hop limit: its place, and with which ICMP error. The target's is after all others.
    fn end_of(&self, hop: u8) -> (usize, Option<[u8; 2]>) {
        let hop = usize::from(hop);
        let refusing = self.hops.iter().take(hop - 1).enumerate().find_map(|(index, node)| node.refuses.map(|error| (index, error)));
        match (refusing, self.loops_to) {
            (Some((index, error)), _) => (index, Some(error)),
            (None, _) if hop <= self.hops.len() => (hop - 1, Some([11, 0])),
            (None, Some(first)) => (first - 1 + (hop - first) % (self.hops.len() + 1 - first), Some([11, 0])),
            (None, None) => (self.hops.len(), (self.ask.method == "udp").then_some([3, 3])),
        }
    }

    fn node(&self, index: usize) -> &Node {
        self.hops.get(index).unwrap_or(&self.target)
    }

    /// What becomes of a packet.
    fn answers(&self, counts: &mut [Count], start: Instant, now: Instant, hop: u8, number: u16) -> Vec<Coming> {
        let (index, error) = self.end_of(hop);
        let (node, count) = (self.node(index), &mut counts[index]);
        let turn = count.arrived;
        count.arrived += 1;
        let allowed = node.limit.is_none_or(|[burst, rate]| count.answered < burst + rate * (now - start).as_secs_f64());
        if !node.answers[turn % node.answers.len()] || !allowed {
            return Vec::new();
        }
        count.answered += 1.0;
        let taken = Duration::from_secs_f64(node.rtt_ms[turn % node.rtt_ms.len()] / 1000.0);
        let from = node.from[turn % node.from.len()];
        let error = error.map(|[kind, code]| SocketError {
            origin: Origin::Icmp(Version::V4),
            from: Some(from),
            kind,
            code,
            errno: Errno::EHOSTUNREACH,
            info: 0,
            arrived: None,
            // What is left of 128 bytes without the IP header.
            quote: [&[0; 108], node.extension.as_slice()].concat(),
            extension_at: None,
        });
        let round_trip = Some((taken, TimingSource::Kernel));
        let coming = || Coming {
            at: now + taken,
            number,
            heard: Heard { number: Some(number), from, round_trip, error: error.clone() },
            quotes: node.quotes,
        };
        (0..node.copies).map(|_| coming()).collect()
    }

    /// Traces it: the report, the verdict in one word or two, its sentence, how long it took and how many packets.
    fn trace(&self) -> (TracerouteReport, String, String, Duration, usize) {
        let duration = |millis| prost_types::Duration::try_from(Duration::from_millis(millis)).ok();
        let method = format!("TRACEROUTE_METHOD_{}", self.ask.method.to_uppercase());
        let spec = TracerouteProbe {
            host: self.target.from[0].to_string(),
            method: vantage_contract::v1::TracerouteMethod::from_str_name(&method).unwrap().into(),
            max_hops: self.ask.max_hops,
            attempts: self.ask.attempts,
            attempt_timeout: duration(self.ask.attempt_timeout_ms),
            ..TracerouteProbe::default()
        };
        let timeout = Duration::from_millis(self.ask.timeout_ms);
        let options = Options { timeout, family: Default::default(), source: None, resolver: None, selection: Default::default() };
        let probe = Traceroute::parse(&spec, &options).unwrap();
        let target = self.target.from[0];

        let start = stopwatch::now();
        let mut now = start;
        let mut trace = Trace::new(probe.limits);
        let mut counts = vec![Count::default(); self.hops.len() + 1];
        let (mut coming, mut number): (Vec<Coming>, u16) = (Vec::new(), 0);
        let is_complete = loop {
            coming.sort_by_key(|answer| std::cmp::Reverse(answer.at));
            while let Some(answer) = coming.pop_if(|answer| answer.at <= now) {
                let number = if answer.quotes { Some(answer.number) } else { trace.only_open() };
                probe.hear(&mut trace, Heard { number, ..answer.heard }, target);
            }
            if now >= start + timeout {
                break false;
            }
            match trace.next(now) {
                Next::Send { hop, attempt } => {
                    coming.extend(self.answers(&mut counts, start, now, hop, number));
                    trace.sent(hop, attempt, now);
                    number += 1;
                }
                Next::Wait(until) => {
                    assert!(until > now, "it waits for what is over");
                    now = coming.iter().map(|answer| answer.at).chain([until, start + timeout]).min().unwrap().max(now);
                }
                Next::Done => break true,
            }
        };
        let mut seen = TracerouteReport::default();
        report(&mut seen, &trace);
        let verdict = probe.judge(&trace, target, (!is_complete).then_some(timeout));
        let (verdict, summary) = match verdict {
            Ok(summary) => ("passed".to_owned(), summary),
            Err(failure) => (words(failure.outcome(), failure.reason, failure.attribution), failure.sentence),
        };
        (seen, verdict, summary, now - start, number.into())
    }
}

fn words(outcome: Outcome, reason: Reason, attribution: Attribution) -> String {
    assert_eq!(outcome, Outcome::Failed);
    let word = |name: &str, prefix| name.trim_start_matches(prefix).to_lowercase();
    format!("{} {}", word(reason.as_str_name(), "REASON_"), word(attribution.as_str_name(), "ATTRIBUTION_"))
}

fn addresses(hop: &TracerouteHop) -> String {
    let mut seen: Vec<&str> = Vec::new();
    for answer in &hop.answers {
        if !seen.contains(&answer.address.as_str()) {
            seen.push(&answer.address);
        }
    }
    if seen.is_empty() { "*".to_owned() } else { seen.join(" ") }
}

fn labels(hop: &TracerouteHop) -> Vec<String> {
    let first = hop.answers.first().map(|answer| answer.mpls_labels.as_slice()).unwrap_or_default();
    first.iter().map(|label| format!("{} {} {} {}", label.label, label.traffic_class, label.bottom_of_stack, label.ttl)).collect()
}

#[test]
fn every_simulated_path_is_seen_as_its_file_says() {
    let folder = File::new(env!("CARGO_MANIFEST_DIR")).join("traceroute/paths");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let path: Path = toml::from_str(&fs::read_to_string(&file).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (report, verdict, summary, taken, packets) = path.trace();
        let (expect, hops) = (&path.expect, &report.hops);
        assert_eq!(verdict, expect.verdict, "{name}: {summary}");
        assert!(summary.contains(&expect.summary), "{name}: {summary}");
        assert_eq!(report.reached, verdict == "passed", "{name}");
        assert_eq!(hops.iter().map(addresses).collect::<Vec<_>>(), expect.path, "{name}");
        assert_eq!(hops.iter().map(|hop| hop.answered_count).collect::<Vec<_>>(), expect.answered, "{name}");
        let sent = expect.sent.clone().unwrap_or_else(|| vec![path.ask.attempts; hops.len()]);
        assert_eq!(hops.iter().map(|hop| hop.sent_count).collect::<Vec<_>>(), sent, "{name}");
        if let Some(expected) = &expect.labels {
            assert_eq!(&hops.iter().map(labels).collect::<Vec<_>>(), expected, "{name}");
        }
        let (taken, [from, to]) = (taken.as_secs_f64() * 1000.0, expect.ends_ms);
        assert!((from..=to).contains(&taken), "{name}: it ends after {taken} ms");
        assert!(packets <= expect.packets_at_most, "{name}: {packets} packets");
        count += 1;
    }
    assert!(count >= 10, "{count} paths");
}
