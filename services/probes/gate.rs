//! Who may forbid what a probe is about to do, and what is asked of them.

use std::{net::IpAddr, path::Path, time::Duration};

/// What fits into one packet of an ordinary network, in bytes, without the headers of IP (RFC 894).
const PACKET: usize = 1480;

/// Where packets are about to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// The address that is really dialled.
    pub address: IpAddr,
    /// The port, where the protocol has one.
    pub port: Option<u16>,
    /// The most packets that are about to be sent there: see [`Demand::packets`].
    pub packets: u32,
}

/// Says what is allowed.
pub trait Gate: Send + Sync {
    /// Permits the destination, or says in one sentence which rule forbids it. Asked for each address that is really dialled, after every
    /// resolution and redirect, for resolvers, proxies and token endpoints too; what is permitted counts towards the rates of the policy.
    fn permit(&self, destination: Destination) -> Result<(), String>;

    /// Permits a name in its A-label form, with or without its final dot, or says which rule forbids it. Asked before anybody is asked for
    /// it, and for each name that it turns out to be an alias of (CNAME).
    fn permit_name(&self, name: &str) -> Result<(), String> {
        let _ = name;
        Ok(())
    }

    /// Permits a method of HTTP, or says which rule forbids it. Asked for each request.
    fn permit_method(&self, method: &str) -> Result<(), String> {
        let _ = method;
        Ok(())
    }

    /// Permits the reading of a file that a check names for a secret or a body, or says which rule forbids it. `file` is where its path
    /// really leads. By default none may be read.
    fn permit_file(&self, file: &Path) -> Result<(), String> {
        Err(format!("policy: {} may not be named by a check", file.display()))
    }

    /// Permits the reading of an environment variable that a check names for a secret. By default none may be read.
    fn permit_variable(&self, name: &str) -> Result<(), String> {
        Err(format!("policy: the variable {name} may not be named by a check"))
    }

    /// Permits that a proxy is given a name rather than an address, so that nobody here can judge where it goes. By default it may not.
    fn permit_names_at_proxies(&self) -> Result<(), String> {
        Err("policy: names may not be given to proxies".to_owned())
    }
}

/// Permits everything: for a probe that its own user runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenGate;

impl Gate for OpenGate {
    fn permit(&self, _: Destination) -> Result<(), String> {
        Ok(())
    }

    fn permit_file(&self, _: &Path) -> Result<(), String> {
        Ok(())
    }

    fn permit_variable(&self, _: &str) -> Result<(), String> {
        Ok(())
    }

    fn permit_names_at_proxies(&self) -> Result<(), String> {
        Ok(())
    }
}

/// The most that one run does to one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand<'p> {
    /// Echo requests, packets with a limited number of hops, datagrams, questions, attempts to connect.
    pub requests: u32,
    /// What one of them carries beyond the headers of its protocol, in bytes; of a connection, what is said on it.
    pub payload_bytes: usize,
    /// From one request to the next, where they follow a clock of their own.
    pub spacing: Option<Duration>,
    /// How many routers they pass, where that is limited on purpose.
    pub max_hops: Option<u8>,
    /// The method, where they are requests of HTTP.
    pub method: Option<&'p str>,
}

impl Default for Demand<'_> {
    /// A connection on which nothing is said.
    fn default() -> Self {
        Self { requests: 1, payload_bytes: 0, spacing: None, max_hops: None, method: None }
    }
}

impl Demand<'_> {
    /// How many packets of an ordinary network that is: a payload of more than 1472 bytes goes in several. What TCP and TLS need
    /// beside it does not count.
    pub fn packets(&self) -> u32 {
        /// Of ICMP and UDP.
        const HEADER: usize = 8;
        let each = self.payload_bytes.saturating_add(HEADER).div_ceil(PACKET);
        self.requests.saturating_mul(u32::try_from(each).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_counts_as_the_packets_that_it_takes() {
        let of = |requests, payload_bytes| Demand { requests, payload_bytes, ..Demand::default() }.packets();
        assert_eq!((of(1, 0), of(3, 56), of(3, 1472)), (1, 3, 3));
        assert_eq!((of(1, 1473), of(10, 65_000), of(u32::MAX, usize::MAX)), (2, 440, u32::MAX));
    }
}
