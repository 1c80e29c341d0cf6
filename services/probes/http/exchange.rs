//! One exchange: connect, ask, and read the answer, whatever the version.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Uri, header, response};
use url::Position;
use vantage_contract::v1::{HttpReport, Reason};

use super::{
    connection::Connection,
    dial::Way,
    request::{self, Request},
    unexpected,
    version::{self, Version},
};
use crate::{Run, failure::Failure, stopwatch::Phase};

/// How much of a body is kept where nothing is asked of it: enough for an excerpt.
const KEPT: usize = 4096;

/// What is asked of whom.
pub(super) struct Hop<'a> {
    /// Which exchange of the run it is, from 0.
    pub(super) number: usize,
    pub(super) way: Way<'a>,
    pub(super) request: &'a Request,
    pub(super) cookies: Option<String>,
    /// What only this one may see, in place of the request's own of the same name.
    pub(super) private: HeaderMap,
}

/// An answer whose head has come.
pub(super) struct Reply {
    /// What was asked: "GET http://example.com/".
    pub(super) act: String,
    pub(super) head: response::Parts,
    number: usize,
    connection: Connection,
}

/// Connects afresh, asks, and returns with the head of the answer. The report tells of this hop from here on.
pub(super) async fn exchange(hop: &Hop<'_>, run: &mut Run<'_, HttpReport>) -> Result<Reply, Failure> {
    let act = format!("{} {}", hop.request.method, hop.way.url);
    run.permit_method(hop.request.method.as_str())?;
    let dialled = hop.way.dial(run).await;
    if let (Some(hop), Some(address)) = (run.report.hops.get_mut(hop.number), run.address) {
        hop.address = address.to_string();
    }
    let line = dialled?;
    run.enter(Phase::Send);
    hop.way.url.as_str().clone_into(&mut run.report.final_url);
    let mut connection = Connection::begin(line, &act, run).await?;
    let request = hop.request(connection.version()).map_err(|why| unexpected(&act, &why))?;
    let head = connection.ask(request, &act, run).await?;
    tell(&head, hop.number, &mut run.report);
    Ok(Reply { act, head, number: hop.number, connection })
}

/// Writes the head of an answer into the report.
fn tell(head: &response::Parts, number: usize, report: &mut HttpReport) {
    report.status = head.status.as_u16().into();
    version::name(head.version).clone_into(&mut report.version);
    report.header_size_bytes = head.headers.iter().map(|(name, value)| (name.as_str().len() + value.len()) as u64).sum();
    let content_type = head.headers.get(header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    report.content_type = content_type.unwrap_or_default();
    report.body_size_bytes = 0;
    if let Some(hop) = report.hops.get_mut(number) {
        hop.status = report.status;
        hop.version.clone_from(&report.version);
    }
}

impl Hop<'_> {
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

impl Reply {
    /// Reads the body to its end, at most `limit` bytes of it. Returns all of it, or, where it is not `wanted`, its beginning.
    pub(super) async fn body(&mut self, limit: u64, wanted: bool, run: &mut Run<'_, HttpReport>) -> Result<Vec<u8>, Failure> {
        let too_large = || Failure::target(Reason::TooLarge, format!("{}: the body is longer than {limit} bytes", self.act));
        if self.connection.promised() > limit {
            return Err(too_large());
        }
        self.connection.allow(limit);
        let keep = if wanted { usize::try_from(limit).unwrap_or(usize::MAX) } else { KEPT };
        let mut kept = Vec::new();
        while let Some(chunk) = self.connection.data(&self.act, run).await? {
            let size = (run.report.body_size_bytes + chunk.len() as u64).min(limit + 1);
            run.report.body_size_bytes = size;
            if let Some(hop) = run.report.hops.get_mut(self.number) {
                hop.body_size_bytes = size;
            }
            if size > limit {
                return Err(too_large());
            }
            let room = keep.saturating_sub(kept.len()).min(chunk.len());
            kept.extend_from_slice(chunk.get(..room).unwrap_or_default());
        }
        Ok(kept)
    }
}
