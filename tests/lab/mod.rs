//! Scripted targets: servers on loopback that misbehave in each way a probe has to tell.

pub mod dns;
pub mod monitor;
pub mod ntp;
pub mod probe;
pub mod process;
pub mod udp;
