//! Connections that are kept for the next exchange with the same server, of this run or a later one.
//!
//! Nothing polls a connection while it is idle: what the server says meanwhile (that it closes, a PING of HTTP/2) lies in the kernel until
//! the next run takes the connection up. A server that wants its PING answered sooner closes the connection, and the next run makes a
//! fresh one.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use vantage_contract::v1::{Attribution, HttpReport, Reason, TlsReport};

use super::connection::Connection;
use crate::{Run, failure::Failure, stopwatch, target::Host};

/// The most connections that one check keeps: some hops of each of some addresses. Beyond it the oldest goes.
const MAX_KEPT: usize = 32;

/// How long a connection is kept at most, since it was made: then the name is resolved and the certificate judged anew.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// Whom a connection leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) is_tls: bool,
    pub(super) host: Host,
    pub(super) port: u16,
    /// The one address of it that the run is for.
    pub(super) pinned: Option<IpAddr>,
}

/// The connections that a check keeps. They go with it.
#[derive(Default)]
pub(super) struct Kept(Mutex<Vec<Idle>>);

/// A connection that nobody uses.
pub(super) struct Idle {
    pub(super) connection: Connection,
    pub(super) origin: Origin,
}

/// What a connection has to tell of itself in each run.
pub(super) struct Origin {
    server: Server,
    made: Instant,
    address: Option<IpAddr>,
    tls: Option<TlsReport>,
    /// The proxy's, where there is one.
    remote: String,
    local: String,
    proxy: String,
}

impl Origin {
    /// That of the connection that a run has just made.
    pub(super) fn of(server: Server, run: &Run<'_, HttpReport>) -> Self {
        let HttpReport { tls, remote_address, local_address, proxy, .. } = &*run.report;
        Self {
            server,
            made: stopwatch::now(),
            address: run.address,
            tls: tls.clone(),
            remote: remote_address.clone(),
            local: local_address.clone(),
            proxy: proxy.clone(),
        }
    }

    /// Tells a run of a connection that was made in another. The gate is asked again: what it allows may have changed.
    pub(super) fn tell(&self, run: &mut Run<'_, HttpReport>) -> Result<(), Failure> {
        run.address = self.address;
        self.permit(run)?;
        run.report.tls = self.tls.clone();
        if let Some(left) = run.report.tls.as_mut().and_then(|tls| tls.remaining_validity.as_mut()) {
            left.seconds = left.seconds.saturating_sub_unsigned((stopwatch::now() - self.made).as_secs());
        }
        self.remote.clone_into(&mut run.report.remote_address);
        self.local.clone_into(&mut run.report.local_address);
        self.proxy.clone_into(&mut run.report.proxy);
        run.report.attempts.clear();
        Ok(())
    }

    fn permit(&self, run: &Run<'_, HttpReport>) -> Result<(), Failure> {
        if let Host::Name(name) = &self.server.host {
            run.permit_name(name)?;
        }
        let remote = self.remote.parse::<SocketAddr>().ok();
        if let Some(proxy) = remote.filter(|_| !self.proxy.is_empty()) {
            run.permit(proxy.ip(), Some(proxy.port()))?;
            if self.address == Some(proxy.ip()) {
                // Where the proxy goes is not known here.
                return run
                    .world
                    .gate
                    .permit_names_at_proxies()
                    .map_err(|rule| Failure::new(Reason::PolicyDenied, Attribution::Vantage, rule));
            }
        }
        self.address.map_or(Ok(()), |address| run.permit(address, Some(self.server.port)))
    }
}

impl Kept {
    /// Takes the connection to a server that was used last.
    pub(super) fn take(&self, server: &Server) -> Option<Idle> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stopwatch::now();
        all.retain(|idle| now - idle.origin.made < MAX_AGE);
        let at = all.iter().rposition(|idle| idle.origin.server == *server)?;
        Some(all.remove(at))
    }

    /// Keeps a connection.
    pub(super) fn put(&self, idle: Idle) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_KEPT {
            all.remove(0);
        }
        all.push(idle);
    }
}
