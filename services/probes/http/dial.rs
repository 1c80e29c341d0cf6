//! The way to a server: from a URL and the check's options to a line on which a version of HTTP can be spoken.

use url::Url;
use vantage_contract::v1::{HttpReport, TlsReport};

use super::{proxy, request, unexpected, version::Version};
use crate::{
    Run,
    connect::Connection,
    failure::Failure,
    net::stream::Stream,
    stopwatch::Phase,
    target::Host,
    tls::{self, Loaded, Tls},
};

/// Where to, and how.
pub(super) struct Way<'a> {
    pub(super) url: &'a Url,
    /// The check's own URL: its server name and client certificate are for its own host.
    pub(super) home: &'a Url,
    /// The version to speak. None: 2 or 1.1 by ALPN over TLS, 1.1 in the clear.
    pub(super) version: Option<Version>,
    pub(super) tls: &'a Tls,
    pub(super) loaded: &'a Loaded,
    /// Whom to ask for a way to those that are not asked directly.
    pub(super) proxy: Option<&'a proxy::Loaded<'a>>,
}

/// What leads to the server, and nothing has been said on it yet.
pub(super) enum Line {
    /// A stream of bytes, in the clear or over TLS.
    Stream(Stream, Version),
}

impl Way<'_> {
    /// Whether it leads to the check's own host.
    pub(super) fn is_home(&self) -> bool {
        self.url.host() == self.home.host()
    }

    /// Dials (phases `resolve`, `connect`, `proxy`, `tls`): over TLS where the scheme says so. The report tells of this connection from here on.
    pub(super) async fn dial(&self, run: &mut Run<'_, HttpReport>) -> Result<Line, Failure> {
        let host = request::host_of(self.url).map_err(Failure::internal)?;
        let port = self.url.port_or_known_default().ok_or_else(|| Failure::internal("a URL without a port"))?;
        let stream = self.reach(&host, port, run).await?;
        if self.url.scheme() == "https" {
            return self.secure(stream, &host, run).await;
        }
        Ok(Line::Stream(Stream::Plain(stream), self.version.unwrap_or(Version::One)))
    }

    /// Connects to a port of `host`, directly or through the proxy.
    async fn reach(&self, host: &Host, port: u16, run: &mut Run<'_, HttpReport>) -> Result<tokio::net::TcpStream, Failure> {
        run.report.tls = None;
        run.report.proxy.clear();
        run.report.remote_address.clear();
        run.report.local_address.clear();
        run.report.kernel_round_trip = None;
        (run.report.sent_bytes, run.report.received_bytes) = (0, 0);
        match self.proxy.filter(|proxy| proxy.is_for(host)) {
            Some(proxy) => Box::pin(proxy.reach(host, port, run)).await,
            None => reach(host, port, run).await,
        }
    }

    /// Shakes hands on `stream` and finds out by ALPN which version the server speaks.
    async fn secure(&self, stream: tokio::net::TcpStream, host: &Host, run: &mut Run<'_, HttpReport>) -> Result<Line, Failure> {
        run.enter(Phase::Tls);
        let act = format!("TLS with {host} ({})", run.report.remote_address);
        let report = run.report.tls.insert(TlsReport::default());
        let alpn: &[&[u8]] = match self.version {
            None => &[b"h2", b"http/1.1"],
            Some(Version::One) => &[b"http/1.1"],
            Some(Version::Two) => &[b"h2"],
        };
        let stream = if self.is_home() {
            self.loaded.connect(stream, self.tls.name_for(host)?, alpn, &act, report).await?
        } else {
            self.loaded.without_identity().connect(stream, tls::server_name_of(host)?, alpn, &act, report).await?
        };
        let version = if report.alpn == "h2" { Version::Two } else { Version::One };
        if self.version == Some(Version::Two) && version != Version::Two {
            return Err(unexpected(&act, "the server does not agree to HTTP/2 by ALPN"));
        }
        Ok(Line::Stream(Stream::Tls(Box::new(stream)), version))
    }
}

/// Connects to a port of `host`.
async fn reach(host: &Host, port: u16, run: &mut Run<'_, HttpReport>) -> Result<tokio::net::TcpStream, Failure> {
    let Connection { stream, remote, .. } = run.connect(host, port).await?;
    run.report.remote_address = remote.to_string();
    run.report.local_address = stream.local_addr().map(|local| local.to_string()).unwrap_or_default();
    Ok(stream)
}
