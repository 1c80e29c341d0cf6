//! One exchange: connect, ask, and read the answer, whatever the version.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Uri, header, response};
use url::Position;
use vantage_contract::v1::{Attribution, HttpReport, Reason};

use super::{
    coding::{Decoder, Fault, Said, coded_limit},
    connection::{Again, Connection, MAX_HEAD, Unanswered, failure},
    dial::Way,
    kept::{Idle, Kept, Origin, Server},
    request::{self, Request},
    unexpected,
    version::{self, Version},
};
use crate::{
    Run,
    failure::Failure,
    stopwatch::{self, Phase},
};

/// How much of a body is kept where nothing is asked of it: enough for an excerpt.
const KEPT: usize = 4096;

/// The longest body of an answer on the way that is read so that its connection can be kept, and how long that may take.
const DRAINED: u64 = 64 << 10;
const DRAINING: Duration = Duration::from_millis(500);

/// How much of a coded body is decoded at once, and how long that may go on without a pause.
const CODED_PIECE: usize = 4096;
const TURN: Duration = Duration::from_millis(1);

/// The longest media type that is reported: twice what a registered one can have (RFC 6838 section 4.2), and its parameters.
const MAX_CONTENT_TYPE: usize = 512;

/// What is asked of whom.
pub(super) struct Hop<'a> {
    /// Which exchange of the run it is, from 0.
    pub(super) number: usize,
    pub(super) way: Way<'a>,
    pub(super) request: &'a Request,
    pub(super) cookies: Option<String>,
    /// What only this one may see, in place of the request's own of the same name.
    pub(super) private: HeaderMap,
    /// Where connections are kept. None: they are not.
    pub(super) kept: Option<&'a Kept>,
    /// Whether it has to be on a fresh connection: the same request has met one that was closed.
    pub(super) is_again: bool,
}

/// An answer whose head has come.
pub(super) struct Reply {
    /// What was asked: "GET http://example.com/".
    pub(super) act: String,
    pub(super) head: response::Parts,
    number: usize,
    connection: Connection,
    /// None: the connection is not kept.
    origin: Option<Origin>,
}

/// An exchange without an answer.
pub(super) struct Lost {
    pub(super) failure: Failure,
    /// Whether it is to be made again on a fresh connection.
    pub(super) again: bool,
}

impl From<Failure> for Lost {
    fn from(failure: Failure) -> Self {
        Self { failure, again: false }
    }
}

/// Connects afresh, or takes a connection that was kept; asks; and returns with the head of the answer. The report tells of this hop from
/// here on.
pub(super) async fn exchange(hop: &Hop<'_>, run: &mut Run<'_, HttpReport>) -> Result<Reply, Lost> {
    let act = format!("{} {}", hop.request.method, hop.way.url);
    run.permit_method(hop.request.method.as_str()).inspect_err(|_| run.enter(Phase::Resolve))?;
    let server = hop.way.server(run)?;
    let idle = match hop.kept {
        Some(kept) if !hop.is_again => free(kept, &server).await,
        _ => None,
    };
    let is_reused = idle.is_some();
    let (mut connection, origin) = match idle {
        Some(Idle { connection, origin }) => {
            run.enter(Phase::Send);
            let told = origin.tell(run);
            hop.tell_address(is_reused, run);
            told?;
            (connection, Some(origin))
        }
        None => {
            let dialled = hop.way.dial(&server, run).await;
            hop.tell_address(is_reused, run);
            let line = dialled?;
            run.enter(Phase::Send);
            let connection = Connection::begin(line, &act, run).await?;
            (connection, hop.kept.map(|_| Origin::of(server, run)))
        }
    };
    hop.way.url.as_str().clone_into(&mut run.report.final_url);
    let request = hop.request(connection.version()).map_err(|why| unexpected(&act, &why))?;
    match connection.ask(request, &act, run).await {
        Ok(head) => {
            tell(&head, hop.number, &mut run.report);
            // Buffers may have had room for more.
            if run.report.header_size_bytes > MAX_HEAD as u64 {
                return Err(failure::long_head(&act).into());
            }
            Ok(Reply { act, head, number: hop.number, connection, origin })
        }
        Err(Unanswered { failure, .. }) if !is_reused => Err(failure.into()),
        Err(Unanswered { failure, again: Again::Always }) => Err(Lost { failure, again: true }),
        Err(Unanswered { failure, again: Again::IfIdempotent }) if hop.request.method.is_idempotent() => Err(Lost { failure, again: true }),
        Err(Unanswered { mut failure, again }) => {
            failure.sentence.push_str("; the connection was one that was kept");
            if again == Again::IfIdempotent {
                failure.sentence.push_str(", but this method is not to be tried twice");
            }
            Err(failure.into())
        }
    }
}

/// A connection that was kept, if there is one that still lives.
async fn free(kept: &Kept, server: &Server) -> Option<Idle> {
    while let Some(mut idle) = kept.take(server) {
        if idle.connection.is_free().await {
            return Some(idle);
        }
    }
    None
}

/// Writes the head of an answer into the report.
fn tell(head: &response::Parts, number: usize, report: &mut HttpReport) {
    report.status = head.status.as_u16().into();
    version::name(head.version).clone_into(&mut report.version);
    report.header_size_bytes = head.headers.iter().map(|(name, value)| (name.as_str().len() + value.len()) as u64).sum();
    let content_type = head.headers.get(header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    report.content_type = content_type.unwrap_or_default();
    report.content_type.truncate(report.content_type.floor_char_boundary(MAX_CONTENT_TYPE));
    report.body_size_bytes = 0;
    report.decoded_body_size_bytes = 0;
    report.content_coding.clear();
    let modified = head.headers.get(header::LAST_MODIFIED).and_then(|value| httpdate::parse_http_date(value.to_str().ok()?).ok());
    report.last_modified_time = modified.map(prost_types::Timestamp::from);
    if let Some(hop) = report.hops.get_mut(number) {
        hop.status = report.status;
        hop.version.clone_from(&report.version);
    }
}

impl Hop<'_> {
    fn tell_address(&self, is_reused: bool, run: &mut Run<'_, HttpReport>) {
        if let Some(told) = run.report.hops.get_mut(self.number) {
            told.reused = is_reused;
            told.address = run.address.map(|address| address.to_string()).unwrap_or_default();
        }
    }

    /// The request for the wire: HTTP/1.1 wants a path and `Host`, later versions the whole URI and none.
    fn request(&self, version: Version) -> Result<http::Request<Bytes>, String> {
        let url = self.way.url;
        let path = request::path_of(url)?;
        let own = || url[Position::BeforeHost..Position::AfterPort].to_owned();
        let authority = match &self.request.authority {
            Some(authority) if self.way.is_home() => authority.to_string(),
            _ => own(),
        };
        let mut request = http::Request::new(self.request.body.clone());
        *request.method_mut() = self.request.method.clone();
        *request.headers_mut() = self.request.headers.clone();
        for (name, value) in &self.private {
            request.headers_mut().insert(name, value.clone());
        }
        if let Some(cookies) = &self.cookies {
            let cookies = match request.headers().get(header::COOKIE) {
                Some(own) => [own.as_bytes(), b"; ", cookies.as_bytes()].concat(),
                None => cookies.as_bytes().to_vec(),
            };
            let cookies = HeaderValue::from_bytes(&cookies).map_err(|_| "set a cookie that can't be sent back".to_owned())?;
            request.headers_mut().insert(header::COOKIE, cookies);
        }
        match version {
            Version::One => {
                let host = HeaderValue::try_from(authority).map_err(|_| "can't be asked for: the host is no header".to_owned())?;
                request.headers_mut().insert(header::HOST, host);
                *request.uri_mut() = Uri::from(path);
            }
            _ => {
                *request.version_mut() = if version == Version::Two { http::Version::HTTP_2 } else { http::Version::HTTP_3 };
                *request.uri_mut() = Uri::builder()
                    .scheme(url.scheme())
                    .authority(authority)
                    .path_and_query(path)
                    .build()
                    .map_err(|error| format!("can't be asked for: {error}"))?;
            }
        }
        Ok(request)
    }
}

/// The body of an answer.
pub(super) struct Body {
    /// All of it, decoded, or, where it was not wanted, its beginning.
    pub(super) bytes: Vec<u8>,
    /// Why it is still coded, in words. None: it is not.
    pub(super) coded: Option<String>,
}

impl Reply {
    /// Reads the body to its end, at most `limit` decoded bytes of it. Keeps all of it, or, where it is not `wanted`, its beginning.
    pub(super) async fn body(&mut self, limit: u64, wanted: bool, run: &mut Run<'_, HttpReport>) -> Result<Body, Failure> {
        let said = Said::by(&self.head.headers);
        run.report.content_coding.clone_from(&said.names);
        let mut decoder = said.decoder(limit);
        let most = if decoder.is_some() { coded_limit(limit) } else { limit };
        let too_large = |size: u64| Failure::target(Reason::TooLarge, format!("{}: the body is longer than {size} bytes", self.act));
        if self.connection.promised() > most {
            return Err(too_large(most));
        }
        self.connection.allow(most);
        let keep = if wanted { usize::try_from(limit).unwrap_or(usize::MAX) } else { KEPT };
        let mut kept = Vec::new();
        let mut keep = |bytes: &[u8]| {
            let room = keep.saturating_sub(kept.len()).min(bytes.len());
            kept.extend_from_slice(bytes.get(..room).unwrap_or_default());
        };
        while let Some(chunk) = self.connection.data(&self.act, run).await? {
            let size = (run.report.body_size_bytes + chunk.len() as u64).min(most + 1);
            run.report.body_size_bytes = size;
            if let Some(hop) = run.report.hops.get_mut(self.number) {
                hop.body_size_bytes = size;
            }
            match &mut decoder {
                None => {
                    run.report.decoded_body_size_bytes = size.min(limit);
                    keep(&chunk);
                }
                Some(decoder) => decode(decoder, &chunk, &mut keep, &mut run.report.decoded_body_size_bytes)
                    .await
                    .map_err(|fault| undecoded(&self.act, fault, limit))?,
            }
            if size > most {
                return Err(too_large(most));
            }
        }
        if let Some(decoder) = decoder {
            decoder.finish().map_err(|fault| undecoded(&self.act, fault, limit))?;
        }
        Ok(Body { bytes: kept, coded: said.unknown().map(str::to_owned) })
    }

    /// Reads what is left of a body that nobody looks at, so that the connection can be kept: only a short one, and one that comes soon.
    pub(super) async fn drain(&mut self, run: &mut Run<'_, HttpReport>) {
        self.connection.allow(DRAINED);
        let number = self.number;
        let reading = async {
            while let Ok(Some(chunk)) = self.connection.data(&self.act, run).await {
                let Some(hop) = run.report.hops.get_mut(number) else { continue };
                hop.body_size_bytes += chunk.len() as u64;
                if hop.body_size_bytes > DRAINED {
                    break;
                }
            }
        };
        // What has not come by then costs the connection and nothing else.
        let _ = tokio::time::timeout(DRAINING, reading).await;
    }

    /// Keeps the connection, if that is asked for and the server lets us. Gives back what was asked, and the head of the answer.
    pub(super) async fn keep(mut self, kept: Option<&Kept>) -> (String, response::Parts) {
        if let (Some(kept), Some(origin)) = (kept, self.origin)
            && self.connection.is_free().await
        {
            kept.put(Idle { connection: self.connection, origin });
        }
        (self.act, self.head)
    }
}

/// Decodes a chunk in pieces, and lets others have their turn where that takes long: then a timeout can come, too.
async fn decode(decoder: &mut Decoder, chunk: &[u8], keep: &mut (dyn FnMut(&[u8]) + Send), decoded: &mut u64) -> Result<(), Fault> {
    let mut since = stopwatch::now();
    for piece in chunk.chunks(CODED_PIECE) {
        let pushed = decoder.push(piece, keep);
        *decoded = decoder.decoded();
        pushed?;
        if stopwatch::now() - since > TURN {
            tokio::task::yield_now().await;
            since = stopwatch::now();
        }
    }
    Ok(())
}

fn undecoded(act: &str, fault: Fault, limit: u64) -> Failure {
    match fault {
        Fault::Malformed(why) => Failure::target(Reason::MalformedAnswer, format!("{act}: the body is not what its coding says: {why}")),
        Fault::TooLarge => Failure::target(Reason::TooLarge, format!("{act}: the body is longer than {limit} bytes when it is decoded")),
        Fault::Ours(why) => Failure::new(Reason::ResourceExhausted, Attribution::Vantage, format!("{act}: {why}")),
    }
}
