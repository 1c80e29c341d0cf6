//! Scripted targets: servers on loopback that misbehave in each way a probe has to tell.

pub(crate) mod dns;
pub(crate) mod ntp;
pub(crate) mod probe;
pub(crate) mod udp;
