//! What the monitor's own readers are fuzzed with, sister to the table of the probes' codecs (`vantage_probes::wire::fuzz`): files of settings
//! and policies, what `policy explain` is asked, certificates that strangers show before anybody knows them, and requests.
//!
//! `cargo test` feeds each with its seeds and thousands of their mutations; `.ci/fuzz` gives them to libFuzzer. A function panics where
//! something is wrong.

#![expect(clippy::expect_used, clippy::panic, reason = "a panic is how a fuzzer is told")]

use std::net::{IpAddr, Ipv6Addr};

use prost::Message as _;
use vantage_contract::{
    file::{self, Format},
    v1::{ExecuteRequest, Hello, Start, StoredSession, execute_request::Order},
};
use vantage_daemon::{clock, tls::certificate::Facts as Certificate};
use vantage_probes::{Destination, Gate as _};

use crate::{
    config::{Settings, parse},
    execute, holdings,
    order::{Facts, milliruns_per_second},
    policy::{Network, Policy, explained, parse_policy},
};

/// Something that reads bytes.
#[derive(Debug)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Good bytes to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Feeds it.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "settings",
        seeds: || vec![SETTINGS.into(), br#"{"policy_file": "p", "limits": {"in_flight_by_kind": {"dns": 7}}}"#.into()],
        run: settings,
    },
    Target { name: "policy", seeds: || vec![POLICY.into(), br#"{"networks": {"deny": ["::ffff:0.0.0.0/96"]}}"#.into()], run: policy },
    Target {
        name: "explain",
        seeds: || ["https://u:p@a.example:8443/x?y#z", "[64:ff9b::1.2.3.4]:80", "0x7f.1"].map(Into::into).into(),
        run: explain,
    },
    Target { name: "request", seeds: requests, run: request },
    Target { name: "shown_certificate", seeds: || vec![certificate_seed()], run: certificate },
];

const SETTINGS: &[u8] = include_bytes!("../../deploy/monitor.json");
const POLICY: &[u8] = include_bytes!("../../deploy/policy.json");
/// The probes' own: their table of targets is not there where this is tested.
const CERTIFICATE: &str = include_str!("../probes/wire/fuzz/certificate.hex");

fn certificate_seed() -> Vec<u8> {
    vantage_probes::wire::text::hex(CERTIFICATE).unwrap_or_default().to_vec()
}

/// A Hello, and each of the sample checks as an order.
fn requests() -> Vec<Vec<u8>> {
    let sample = file::parse(include_str!("../../deploy/checks.json"), "checks.json", Format::Json).expect("the sample checks");
    let orders =
        sample.file.checks.into_iter().map(|check| Order::Start(Start { check: Some(check), revision: "1".into(), ..Start::default() }));
    let stored = StoredSession { session: "5ac863a0799b8097".into(), sequence: 7 };
    let hello = Hello { client_id: "desk".into(), stored_sessions: vec![stored], ..Hello::default() };
    let all = orders.chain([Order::Hello(hello)]);
    all.map(|order| ExecuteRequest { order: Some(order) }.encode_to_vec()).collect()
}

fn settings(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(settings) = parse::<Settings>(text) {
        assert!(settings.limits.in_flight >= 1 && settings.name.len() <= 64);
        same_again(&settings.policy());
    }
}

fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(mut rules) = parse_policy(text) else { return };
    let policy = Policy::new(rules.clone()).expect("it was compiled before");
    same_again(&policy);
    // One more denial closes what it names, whatever else there is.
    let mut bytes = [0; 16];
    data.iter().zip(bytes.iter_mut()).for_each(|(from, to)| *to = *from);
    let address = IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical();
    let to = Destination { address, port: Some(443), packets: 1 };
    let before = policy.permit(to);
    rules.networks.deny.push(Network(address.into()));
    let after = Policy::new(rules).expect("one more network changes nothing else").permit(to);
    assert!(after.is_err(), "{address}: {before:?}");
    let _ = (policy.permit_name(&String::from_utf8_lossy(data)), policy.permit_method("GET"));
}

/// What is in force can be written down, and means the same when it is read again.
fn same_again(policy: &Policy) {
    let written = policy.to_proto().rules_json;
    let again = parse_policy(&written).unwrap_or_else(|error| panic!("{error}: {written}"));
    assert_eq!(again, policy.settings(), "{written}");
}

fn explain(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = explained(text);
}

fn request(data: &[u8]) {
    let Ok(request) = ExecuteRequest::decode(data) else { return };
    match request.order {
        Some(Order::Hello(hello)) => drop(execute::validate(&hello)),
        Some(Order::Start(start)) => {
            let facts = Facts::new(&start.check.clone().unwrap_or_default(), &start.revision, "m");
            assert!(facts.name().len() <= 128 && milliruns_per_second(&start) >= 1);
            assert!(facts.weight(&start) >= holdings::weight(&start, 0));
            let record = facts.skipped(0, 1, clock::wall(), vantage_contract::v1::Reason::Overloaded);
            assert!(record.whole().encoded_len() <= 4 * data.len() + 1024, "{} of {}", record.whole().encoded_len(), data.len());
            if let Ok(plan) = &facts.plan {
                assert!(plan.demand().packets() >= 1);
                let _ = Policy::default().permit_plan(plan);
            }
        }
        _ => {}
    }
}

fn certificate(data: &[u8]) {
    if let Ok(facts) = Certificate::read(data) {
        let _ = facts.is_valid(clock::wall());
    }
}

#[cfg(test)]
mod tests {
    use std::panic;

    use super::*;

    /// How many mutations each target gets; `VANTAGE_FUZZ_RUNS` sets another number.
    const RUNS: u64 = 20_000;
    /// What is put in here and there: what these files are made of.
    const WORDS: &[&[u8]] =
        &[b"\"", b"{", b"}", b"[", b"]", b",", b":", b"-1", b"1e9", b"null", b"\\u0000", b"/0", b"/129", b"::", b"*.", b"\xff", b"\x00"];

    /// The same numbers each time: what fails once fails always (xorshift, Marsaglia, 2003).
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, end: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % end as u64).unwrap()
        }

        fn mutation(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
            let mut bytes = seeds[self.below(seeds.len())].clone();
            for _ in 0..=self.below(5) {
                let at = self.below(bytes.len() + 1);
                let end = at + self.below((bytes.len() - at + 1).min(40));
                match self.below(5) {
                    0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                    1 => drop(bytes.drain(at..end)),
                    2 => drop(bytes.splice(at..at, WORDS[self.below(WORDS.len())].iter().copied())),
                    3 => {
                        let other = &seeds[self.below(seeds.len())];
                        let from = self.below(other.len());
                        let piece = other[from..(from + 30).min(other.len())].to_vec();
                        drop(bytes.splice(at..end, piece));
                    }
                    _ => bytes.truncate(at.max(bytes.len() / 2)),
                }
            }
            bytes
        }
    }

    #[test]
    fn each_reader_survives_what_is_near_to_good() {
        let runs = std::env::var("VANTAGE_FUZZ_RUNS").ok().map_or(RUNS, |runs| runs.parse().unwrap());
        for target in TARGETS {
            let (seeds, mut numbers) = ((target.seeds)(), Numbers(0x9e37_79b9_7f4a_7c15));
            let mutations: Vec<_> = (0..runs).map(|_| numbers.mutation(&seeds)).collect();
            for bytes in seeds.iter().chain(&mutations) {
                if panic::catch_unwind(|| (target.run)(bytes)).is_err() {
                    panic!("{}: {}", target.name, String::from_utf8_lossy(bytes));
                }
            }
        }
    }

    #[test]
    fn the_seeds_are_good() {
        for target in TARGETS {
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty() && seeds.iter().all(|seed| !seed.is_empty()), "{}", target.name);
        }
        assert!(parse::<Settings>(std::str::from_utf8(SETTINGS).unwrap()).is_ok());
        assert!(parse_policy(std::str::from_utf8(POLICY).unwrap()).is_ok());
        assert!(Certificate::read(&certificate_seed()).is_ok());
    }
}
