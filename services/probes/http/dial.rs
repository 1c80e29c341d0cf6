//! The way to a server: from a URL and the check's options to a line on which a version of HTTP can be spoken.

use url::Url;
use vantage_contract::v1::{HttpReport, TlsReport};

use super::{kept::Server, proxy, request, unexpected, version::Version};
use crate::{
    Run,
    connect::Connection,
    failure::Failure,
    net::stream::Stream,
    stopwatch::Phase,
    target::Host,
    tls::{self, Loaded, Tls},
};

/// How many streams of its own a server of HTTP/3 may have open: it needs three (RFC 9114 section 6.2), and some open one more that means nothing.
#[cfg(feature = "http3")]
const SERVER_STREAMS: u8 = 8;

/// The code of HTTP/3 for an end without an error, H3_NO_ERROR (RFC 9114 section 8.1).
#[cfg(feature = "http3")]
const NO_ERROR: u32 = 0x100;

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
    /// A QUIC connection.
    #[cfg(feature = "http3")]
    Quic(Box<crate::quic::Link>),
}

impl Way<'_> {
    /// Whether it leads to the check's own host.
    pub(super) fn is_home(&self) -> bool {
        self.url.host() == self.home.host()
    }

    /// Whom it leads to.
    pub(super) fn server(&self, run: &Run<'_, HttpReport>) -> Result<Server, Failure> {
        let host = request::host_of(self.url).map_err(Failure::internal)?;
        let port = self.url.port_or_known_default().ok_or_else(|| Failure::internal("a URL without a port"))?;
        let pinned = run.pinned.filter(|_| host == *run.home);
        Ok(Server { is_tls: self.url.scheme() == "https", host, port, pinned })
    }

    /// Dials (phases `resolve`, `connect`, `proxy`, `tls`): over TLS where the scheme says so. The report tells of this connection from here on.
    pub(super) async fn dial(&self, server: &Server, run: &mut Run<'_, HttpReport>) -> Result<Line, Failure> {
        let Server { host, port, .. } = server;
        forget(&mut run.report);
        #[cfg(feature = "http3")]
        if self.version == Some(Version::Three) {
            return self.over_quic(host, *port, run).await;
        }
        let stream = self.reach(host, *port, run).await?;
        if server.is_tls {
            return self.secure(stream, host, run).await;
        }
        Ok(Line::Stream(Stream::Plain(stream), self.version.unwrap_or(Version::One)))
    }

    /// Connects to a port of `host`, directly or through the proxy.
    async fn reach(&self, host: &Host, port: u16, run: &mut Run<'_, HttpReport>) -> Result<tokio::net::TcpStream, Failure> {
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
            #[cfg(feature = "http3")]
            Some(Version::Three) => &[b"h3"],
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

    /// Connects by QUIC, which has its TLS in its handshake: both are phase `connect`.
    #[cfg(feature = "http3")]
    async fn over_quic(&self, host: &Host, port: u16, run: &mut Run<'_, HttpReport>) -> Result<Line, Failure> {
        if self.url.scheme() != "https" {
            return Err(unexpected(self.url.as_str(), "HTTP/3 is asked for, which is spoken to https:// alone"));
        }
        let server = run.resolve_port(host, port).await?;
        run.report.remote_address = server.to_string();
        run.enter(Phase::Connect);
        let (loaded, name) = if self.is_home() {
            (self.loaded, self.tls.name_for(host)?)
        } else {
            (self.loaded.without_identity(), tls::server_name_of(host)?)
        };
        let act = format!("QUIC with {host} ({server})");
        let plan = crate::quic::Plan {
            server,
            source: run.options.source,
            name,
            alpn: b"h3",
            server_streams: SERVER_STREAMS,
            farewell: NO_ERROR,
            act: act.clone(),
        };
        // A handshake's room is not that of every hop.
        let connecting = Box::pin(crate::quic::Link::connect(plan, loaded, run.report.tls.insert(TlsReport::default())));
        let link = connecting.await?;
        run.report.local_address = link.local_address().map(|local| local.to_string()).unwrap_or_default();
        if run.report.tls.as_ref().is_none_or(|tls| tls.alpn != "h3") {
            return Err(unexpected(&act, "the server does not agree to HTTP/3 by ALPN"));
        }
        Ok(Line::Quic(link))
    }
}

/// Forgets the connection before in the report.
fn forget(report: &mut HttpReport) {
    report.tls = None;
    report.proxy.clear();
    report.remote_address.clear();
    report.local_address.clear();
    report.kernel_round_trip = None;
    (report.sent_bytes, report.received_bytes) = (0, 0);
    report.attempts.clear();
}

/// Connects to a port of `host`.
async fn reach(host: &Host, port: u16, run: &mut Run<'_, HttpReport>) -> Result<tokio::net::TcpStream, Failure> {
    let Connection { stream, remote, .. } = run.connect(host, port).await?;
    run.report.remote_address = remote.to_string();
    run.report.local_address = stream.local.to_string();
    stream.speak()
}
