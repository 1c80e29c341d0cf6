//! Scripted targets and networks of our own.

pub(crate) mod dns;
pub(crate) mod echo;
pub(crate) mod http;
pub(crate) mod monitor;
pub(crate) mod netns;
pub(crate) mod ntp;
pub(crate) mod privilege;
pub(crate) mod probe;
pub(crate) mod process;
pub(crate) mod relay;
pub(crate) mod servers;
pub(crate) mod tls;
pub(crate) mod udp;

use std::net::IpAddr;

use vantage_contract::v1::{Probe, probe::Kind};
use vantage_probes::{OpenGate, Plan, Sight, World};

/// Runs one probe here, with everything allowed.
pub(crate) async fn probe(probe: Probe) -> Sight {
    let plan = Plan::parse(&probe).unwrap_or_else(|invalid| panic!("the probe can be parsed: {invalid}"));
    plan.run(&World::new(std::sync::Arc::new(OpenGate))).await
}

/// A probe of that kind with a timeout in milliseconds.
pub(crate) fn within(millis: u64, kind: Kind) -> Probe {
    let timeout = prost_types::Duration::try_from(std::time::Duration::from_millis(millis)).ok();
    Probe { timeout, kind: Some(kind), ..Probe::default() }
}

/// What every kind is held to: the phases add up to the duration, which is at most the timeout and 50 ms.
pub(crate) fn assert_sound(sight: &Sight, timeout_millis: u64) {
    let sum: std::time::Duration = sight.phases.iter().map(|(_, taken)| *taken).sum();
    assert_eq!(sum, sight.duration, "{sight:?}");
    assert!(sight.duration <= std::time::Duration::from_millis(timeout_millis + 50), "{sight:?}");
}

/// An address, from its text.
pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}
