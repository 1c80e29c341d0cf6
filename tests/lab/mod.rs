//! Scripted targets: servers on loopback that misbehave in each way a probe has to tell.

pub(crate) mod http;
pub(crate) mod netns;
pub(crate) mod probe;
pub(crate) mod tls;
