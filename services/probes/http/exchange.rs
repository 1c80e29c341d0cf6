//! One hop: connect, ask, and read the answer.

use std::{error::Error, io};

use bytes::Bytes;
use http::{HeaderValue, Uri, Version as Spoken, header, response};
use hyper::body::{Body as _, Incoming};
use url::{Position, Url};
use vantage_contract::v1::{HttpReport, Reason, TlsReport};

use super::{
    Version,
    connection::{Connection, Life, MAX_FIELDS, MAX_HEAD, MAX_INTERIM, poll_data},
    request::{self, Request},
    unexpected,
    watched::End,
};
use crate::{
    Run,
    failure::Failure,
    net::{self, stream::Stream},
    stopwatch::Phase,
    tls::{self, Loaded, Tls},
    wire::text::escape,
};

/// How much of a body is kept where nothing is asked of it: enough for an excerpt.
const KEPT: usize = 4096;

/// How much may come before the answer's head is whole: the head, interim answers, the chatter of HTTP/2.
const BUDGET: u64 = 256 << 10;

/// What is asked of whom.
pub(super) struct Hop<'a> {
    pub(super) url: &'a Url,
    /// The check's own URL: its `Host`, server name and client certificate are for its own host.
    pub(super) home: &'a Url,
    pub(super) request: &'a Request,
    pub(super) cookies: Option<String>,
    pub(super) version: Version,
}

/// An answer whose head has come.
pub(super) struct Reply {
    pub(super) head: response::Parts,
    body: Incoming,
    life: Life,
}

/// Connects afresh, asks, and returns with the head of the answer. The report tells of this hop from here on.
pub(super) async fn exchange(
    hop: &Hop<'_>,
    tls: &Tls,
    loaded: &Loaded,
    act: &str,
    run: &mut Run<'_, HttpReport>,
) -> Result<Reply, Failure> {
    let (stream, two) = dial(hop, tls, loaded, run).await?;
    let request = hop.request(two).map_err(|why| unexpected(act, &why))?;
    run.enter(Phase::Send);
    hop.url.as_str().clone_into(&mut run.report.final_url);
    let begun = Connection::begin(stream, two, &mut run.watch, BUDGET).await;
    let mut connection = begun.map_err(|(error, life)| failure(act, &error, &life))?;
    let answer = connection.send(request, &mut run.watch).await.map_err(|error| failure(act, &error, &connection.life))?;
    let (head, body) = answer.into_parts();
    run.report.status = head.status.as_u16().into();
    run.report.version = match head.version {
        Spoken::HTTP_10 => "1.0",
        Spoken::HTTP_2 => "2",
        _ => "1.1",
    }
    .to_owned();
    run.report.header_size_bytes = head.headers.iter().map(|(name, value)| (name.as_str().len() + value.len()) as u64).sum();
    let content_type = head.headers.get(header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    run.report.content_type = content_type.unwrap_or_default();
    run.report.body_size_bytes = 0;
    Ok(Reply { head, body, life: connection.life })
}

/// Connects, over TLS where the scheme says so; whether HTTP/2 is to be spoken.
async fn dial(hop: &Hop<'_>, tls: &Tls, loaded: &Loaded, run: &mut Run<'_, HttpReport>) -> Result<(Stream, bool), Failure> {
    let host = request::host_of(hop.url).map_err(Failure::internal)?;
    let port = hop.url.port_or_known_default().ok_or_else(|| Failure::internal("a URL without a port"))?;
    let remote = run.resolve_port(&host, port).await?;
    run.enter(Phase::Connect);
    run.report.tls = None;
    let stream = net::tcp::connect(remote, run.options.source).await?;
    if hop.url.scheme() != "https" {
        return Ok((Stream::Plain(stream), hop.version == Version::Two));
    }

    run.enter(Phase::Tls);
    let act = format!("TLS with {host} ({remote})");
    let report = run.report.tls.insert(TlsReport::default());
    let alpn: &[&[u8]] = match hop.version {
        Version::Negotiated => &[b"h2", b"http/1.1"],
        Version::One => &[b"http/1.1"],
        Version::Two => &[b"h2"],
    };
    let stream = if hop.is_home() {
        loaded.connect(stream, tls.name_for(&host)?, alpn, &act, report).await?
    } else {
        loaded.without_identity().connect(stream, tls::server_name_of(&host)?, alpn, &act, report).await?
    };
    let two = report.alpn == "h2";
    if hop.version == Version::Two && !two {
        return Err(unexpected(&act, "the server does not agree to HTTP/2 by ALPN"));
    }
    Ok((Stream::Tls(Box::new(stream)), two))
}

impl Hop<'_> {
    fn is_home(&self) -> bool {
        self.url.host() == self.home.host()
    }

    /// The request for the wire: HTTP/1.1 wants a path and `Host`, HTTP/2 the whole URI and none.
    fn request(&self, two: bool) -> Result<http::Request<Bytes>, String> {
        let path = request::path_of(self.url)?;
        let own = || self.url[Position::BeforeHost..Position::AfterPort].to_owned();
        let authority = match &self.request.authority {
            Some(authority) if self.is_home() => authority.to_string(),
            _ => own(),
        };
        let mut request = http::Request::new(self.request.body.clone());
        *request.method_mut() = self.request.method.clone();
        *request.headers_mut() = self.request.headers.clone();
        if let Some(cookies) = &self.cookies {
            let cookies = match self.request.headers.get(header::COOKIE) {
                Some(own) => [own.as_bytes(), b"; ", cookies.as_bytes()].concat(),
                None => cookies.as_bytes().to_vec(),
            };
            let cookies = HeaderValue::from_bytes(&cookies).map_err(|_| "set a cookie that can't be sent back".to_owned())?;
            request.headers_mut().insert(header::COOKIE, cookies);
        }
        if two {
            *request.version_mut() = Spoken::HTTP_2;
            *request.uri_mut() = Uri::builder()
                .scheme(self.url.scheme())
                .authority(authority)
                .path_and_query(path)
                .build()
                .map_err(|error| format!("can't be asked for: {error}"))?;
        } else {
            let host = HeaderValue::try_from(authority).map_err(|_| "can't be asked for: the host is no header".to_owned())?;
            request.headers_mut().insert(header::HOST, host);
            *request.uri_mut() = Uri::from(path);
        }
        Ok(request)
    }
}

impl Reply {
    /// Reads the body to its end, at most `limit` bytes of it. Returns all of it, or, where it is not `wanted`, its beginning.
    pub(super) async fn body(&mut self, limit: u64, wanted: bool, act: &str, run: &mut Run<'_, HttpReport>) -> Result<Vec<u8>, Failure> {
        let too_large = || Failure::target(Reason::TooLarge, format!("{act}: the body is longer than {limit} bytes"));
        if self.body.size_hint().lower() > limit {
            return Err(too_large());
        }
        {
            // Chunks of one byte are five times as long on the wire.
            let mut notes = self.life.notes.lock();
            notes.budget = notes.read + limit.saturating_mul(8) + BUDGET;
        }
        let keep = if wanted { usize::try_from(limit).unwrap_or(usize::MAX) } else { KEPT };
        let mut kept = Vec::new();
        loop {
            let chunk = std::future::poll_fn(|cx| poll_data(&mut self.body, cx));
            match self.life.beside(&mut run.watch, chunk).await {
                None => return Ok(kept),
                Some(Err(error)) => return Err(failure(act, &error, &self.life)),
                Some(Ok(chunk)) => {
                    run.report.body_size_bytes += chunk.len() as u64;
                    if run.report.body_size_bytes > limit {
                        run.report.body_size_bytes = limit + 1;
                        return Err(too_large());
                    }
                    let room = keep.saturating_sub(kept.len()).min(chunk.len());
                    kept.extend_from_slice(chunk.get(..room).unwrap_or_default());
                }
            }
        }
    }
}

/// What an error of hyper means, together with how the connection ended.
fn failure(act: &str, error: &hyper::Error, life: &Life) -> Failure {
    let notes = life.notes.lock();
    let malformed = |why: String| Failure::target(Reason::MalformedAnswer, format!("{act}: {why}"));
    if notes.interim > MAX_INTERIM {
        return malformed(format!("{} interim answers (1xx) and no final one", notes.interim));
    }
    match &notes.end {
        Some(End::OverBudget) => return Failure::target(Reason::TooLarge, format!("{act}: {} bytes came and no end of it", notes.read)),
        Some(End::Broken(error)) => return tls::of_wire(act, error),
        Some(End::Closed) | None => {}
    }
    if error.is_parse_too_large() {
        return Failure::target(
            Reason::TooLarge,
            format!("{act}: the header section is longer than {} KiB or {MAX_FIELDS} fields", MAX_HEAD >> 10),
        );
    }
    let is_http = |beginning: &[u8]| beginning.iter().zip(b"HTTP/1.").all(|(came, expected)| came == expected);
    if life.two && notes.beginning.starts_with(b"HTTP/1.") {
        return malformed("the server answers in HTTP/1, not in HTTP/2".to_owned());
    }
    if let Some(protocol) = find::<h2::Error>(error) {
        if protocol.is_remote() && (protocol.is_reset() || protocol.is_go_away()) {
            return Failure::target(Reason::Disconnected, format!("{act}: {protocol}"));
        }
        if !protocol.is_io() {
            return malformed(protocol.to_string());
        }
    } else if !life.two && !is_http(&notes.beginning) {
        let shown = escape(notes.beginning.get(..notes.beginning.len().min(32)).unwrap_or_default());
        return malformed(format!("the answer is not HTTP, it begins with \"{shown}\""));
    }
    if error.is_parse() {
        return malformed(format!("the answer is not HTTP: {}", innermost(error)));
    }
    let kind = find::<io::Error>(error).map(io::Error::kind);
    if matches!(kind, Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)) {
        return malformed(innermost(error));
    }
    if error.is_user() {
        return Failure::internal(format!("{act}: {error}"));
    }
    if matches!(notes.end, Some(End::Closed)) || error.is_incomplete_message() {
        let when = if notes.answered.is_some() { "in the middle of the answer" } else { "without an answer" };
        return Failure::target(Reason::Disconnected, format!("{act}: the connection was closed {when}"));
    }
    malformed(innermost(error))
}

/// The first error of that type in the chain of causes.
fn find<E: Error + 'static>(error: &hyper::Error) -> Option<&E> {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(found) = inner.downcast_ref() {
            return Some(found);
        }
        cause = inner.source();
    }
    None
}

fn innermost(error: &hyper::Error) -> String {
    let mut innermost: &dyn Error = error;
    while let Some(inner) = innermost.source() {
        innermost = inner;
    }
    innermost.to_string()
}
