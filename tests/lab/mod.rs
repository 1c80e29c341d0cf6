//! Scripted targets and networks of our own.

pub(crate) mod distance;
pub(crate) mod dns;
pub(crate) mod echo;
pub(crate) mod http;
pub(crate) mod http3;
pub(crate) mod monitor;
pub(crate) mod named;
pub(crate) mod netns;
pub(crate) mod ntp;
pub(crate) mod ocsp;
pub(crate) mod peers;
pub(crate) mod pki;
pub(crate) mod place;
pub(crate) mod privilege;
pub(crate) mod probe;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod relay;
pub(crate) mod servers;
pub(crate) mod signed;
pub(crate) mod stage;
pub(crate) mod tap;
pub(crate) mod tls;
pub(crate) mod tunnel;
pub(crate) mod udp;
