//! What is asked: the URL, the method, the headers, the body; and what becomes of them on a redirect.

use std::path::{Path, PathBuf};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header,
    header::{
        ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_TYPE, COOKIE, HOST,
        PROXY_AUTHORIZATION, TRANSFER_ENCODING,
    },
    uri::Authority,
};
use url::{Position, Url};
use vantage_contract::{
    secret::{LONGEST_BYTES, LONGEST_DATA_BYTES},
    v1::{HttpProbe, HttpReport},
};

use crate::{
    Run,
    failure::{Failure, Invalid},
    secret::{self, Hidden},
    target::Host,
};

/// The longest URL.
pub(super) const MAX_URL: usize = 8 << 10;

/// The most headers of the check's own.
pub(super) const MAX_HEADERS: usize = 64;
const MAX_HEADER: usize = 16 << 10;
const MAX_BODY: usize = LONGEST_DATA_BYTES;

/// What we call ourselves.
pub(super) const USER_AGENT: &str = concat!("vantage/", env!("CARGO_PKG_VERSION"));

/// A request, but for its URL.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    /// All but `Host`, which is `authority`.
    pub(super) headers: HeaderMap,
    /// What the check's own `Host` header asks for, on the check's own host.
    pub(super) authority: Option<Authority>,
    pub(super) body: Bytes,
    /// The file that has the body, and the field that names it, until it is read.
    pub(super) body_file: Option<(String, PathBuf)>,
    /// Whether the body comes from a file, of the monitor or of the manager: like a secret, it is not to be told.
    pub(super) is_body_hidden: bool,
}

/// Parses a URL whose scheme is `kind`, or none. Credentials come apart, as an `Authorization`.
pub(super) fn parse_url(kind: &str, text: &str) -> Result<(Url, Option<HeaderValue>), Invalid> {
    let invalid = |problem: String| Invalid::new("url", problem);
    if text.is_empty() {
        return Err(invalid("is missing".to_owned()));
    }
    if text.len() > MAX_URL {
        return Err(invalid(format!("must be at most {MAX_URL} bytes, is {}", text.len())));
    }
    // Parsers of URLs drop line ends in silence.
    if text.contains(|letter: char| letter.is_control() || letter == ' ') {
        return Err(invalid("has a space or a control character in it".to_owned()));
    }
    let whole = if text.contains("://") { text.to_owned() } else { format!("{kind}://{text}") };
    let mut url = Url::parse(&whole).map_err(|error| invalid(error.to_string()))?;
    if url.scheme() != kind {
        return Err(invalid(format!("must begin with {kind}://, has the scheme {:?}", url.scheme())));
    }
    host_of(&url).map_err(invalid)?;
    let credentials = match (url.username(), url.password()) {
        ("", None) => None,
        (user, password) => {
            let mut pair = decode(user);
            pair.push(b':');
            pair.extend(decode(password.unwrap_or_default()));
            let mut value =
                HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(pair))).map_err(|error| invalid(error.to_string()))?;
            value.set_sensitive(true);
            Some(value)
        }
    };
    strip(&mut url);
    path_of(&url).map_err(invalid)?;
    Ok((url, credentials))
}

/// Takes credentials and fragment out of a URL: neither is for the wire, nor for people.
pub(super) fn strip(url: &mut Url) {
    // These fail only for URLs without a host, which have no credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_fragment(None);
}

/// The host of a URL.
pub(super) fn host_of(url: &Url) -> Result<Host, String> {
    Host::parse("host", url.host_str().unwrap_or_default()).map_err(|invalid| invalid.problem)
}

/// Path and query, as HTTP/1.1 sends them.
pub(super) fn path_of(url: &Url) -> Result<http::uri::PathAndQuery, String> {
    url[Position::BeforePath..Position::AfterQuery].parse().map_err(|error| format!("can't be sent: {error}"))
}

/// Percent-decodes (RFC 3986 section 2.1); what is no escape stays as it is.
fn decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = match (first, after) {
            (b'%', [high, low, ..]) => char::from(*high).to_digit(16).zip(char::from(*low).to_digit(16)),
            _ => None,
        };
        match escaped.and_then(|(high, low)| u8::try_from(high << 4 | low).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

impl Request {
    /// Parses what is to be sent.
    pub(super) fn parse(kind: &str, spec: &HttpProbe, credentials: Option<HeaderValue>) -> Result<Self, Invalid> {
        let method = method(&spec.method)?;
        if spec.headers.len() > MAX_HEADERS {
            return Err(Invalid::new("headers", format!("must be at most {MAX_HEADERS}, are {}", spec.headers.len())));
        }
        let mut headers = HeaderMap::new();
        let mut authority = None;
        for (name, value) in &spec.headers {
            // The value may be a secret: it is never told.
            let invalid = |problem: &str| Invalid::new("headers", format!("{name:?} {problem}"));
            let parsed = HeaderName::try_from(name.as_str()).map_err(|_| invalid("is not a name"))?;
            if name.len() + value.len() > MAX_HEADER {
                return Err(invalid("is longer than 16 KiB"));
            }
            let mut value = HeaderValue::try_from(value.as_str()).map_err(|_| invalid("has a value that can't be sent"))?;
            value.set_sensitive([AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION].contains(&parsed));
            if parsed == CONTENT_LENGTH || parsed == TRANSFER_ENCODING {
                return Err(invalid("can't be set: it follows from the body"));
            }
            if parsed == HOST {
                let parsed = value.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
                let parsed =
                    parsed.filter(|authority| !authority.as_str().contains('@')).ok_or_else(|| invalid("is not host or host:port"))?;
                if authority.replace(parsed).is_some() {
                    return Err(invalid("is there twice"));
                }
            } else if headers.insert(parsed, value).is_some() {
                return Err(invalid("is there twice"));
            }
        }
        if let Some(credentials) = credentials {
            headers.entry(AUTHORIZATION).or_insert(credentials);
        }
        headers.entry(header::USER_AGENT).or_insert(HeaderValue::from_static(USER_AGENT));
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        let body = body(spec)?;
        let body_file = Some(&spec.body_file).filter(|file| !file.is_empty()).map(|file| (format!("{kind}.body_file"), file.into()));
        let is_body_hidden = !spec.body_data.is_empty() || body_file.is_some();
        Ok(Self { method, headers, authority, body, body_file, is_body_hidden })
    }

    /// The same in a run, with the body read from its file.
    pub(super) async fn load(&self, run: &mut Run<'_, HttpReport>) -> Result<Self, Failure> {
        let mut loaded = self.clone();
        if let Some((field, file)) = loaded.body_file.take() {
            let bytes = secret::read(&field, Path::new(&file), MAX_BODY, &run.world.gate).await?;
            loaded.body = Bytes::copy_from_slice(&bytes);
        }
        // What a server sends back of it in one piece, at least.
        if self.is_body_hidden
            && let Ok(text) = std::str::from_utf8(&loaded.body)
            && text.len() <= LONGEST_BYTES
        {
            run.masks.add(&Hidden::new(text.trim().to_owned()));
        }
        Ok(loaded)
    }

    /// Changes it as a redirect with `status` from one URL to another asks for (RFC 9110 section 15.4): 303 makes it a GET, and so do 301
    /// and 302 of a POST, as everybody does; then there is no body. Secrets stay with the host they are meant for, and under TLS.
    pub(super) fn redirect(&mut self, status: StatusCode, from: &Url, to: &Url) {
        let becomes_get = match status {
            StatusCode::SEE_OTHER => self.method != Method::HEAD,
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => self.method == Method::POST,
            _ => false,
        };
        if becomes_get {
            self.method = Method::GET;
            self.body = Bytes::new();
            for about_the_body in [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LOCATION] {
                self.headers.remove(about_the_body);
            }
        }
        if from.host() != to.host() || (from.scheme() == "https" && to.scheme() == "http") {
            for secret in [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION] {
                self.headers.remove(secret);
            }
        }
    }
}

/// The body that the check has itself.
fn body(spec: &HttpProbe) -> Result<Bytes, Invalid> {
    let given = [("body", spec.body.is_empty()), ("body_file", spec.body_file.is_empty()), ("body_data", spec.body_data.is_empty())];
    let mut given = given.iter().filter(|(_, is_empty)| !is_empty).map(|(field, _)| *field);
    if let (Some(first), Some(second)) = (given.next(), given.next()) {
        return Err(Invalid::new(second, format!("means nothing beside {first}: give one of them")));
    }
    if spec.body_file.contains('\0') {
        return Err(Invalid::new("body_file", "is not the name of a file"));
    }
    let (field, bytes) = if spec.body.is_empty() { ("body_data", &spec.body_data[..]) } else { ("body", spec.body.as_bytes()) };
    if bytes.len() > MAX_BODY {
        return Err(Invalid::new(field, format!("must be at most {MAX_BODY} bytes, is {}", bytes.len())));
    }
    Ok(Bytes::copy_from_slice(bytes))
}

fn method(text: &str) -> Result<Method, Invalid> {
    let method = match text {
        "" => Method::GET,
        text => Method::from_bytes(text.as_bytes()).map_err(|_| Invalid::new("method", format!("{text:?} is not a method")))?,
    };
    if method == Method::CONNECT {
        return Err(Invalid::new("method", "CONNECT is for proxies"));
    }
    let upper = text.to_ascii_uppercase();
    if upper != text && ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "CONNECT"].contains(&upper.as_str()) {
        return Err(Invalid::new("method", format!("{text:?} is not {upper:?}: methods have a case")));
    }
    Ok(method)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str) -> Request {
        let headers = [("Authorization".into(), "Bearer x".into()), ("Content-Type".into(), "text/plain".into())].into();
        let spec = HttpProbe { method: method.into(), headers, body: "body".into(), ..HttpProbe::default() };
        Request::parse("http", &spec, None).unwrap()
    }

    fn redirected(method: &str, status: u16, to: &str) -> Request {
        let mut request = request(method);
        let from = Url::parse("https://a.example/x").unwrap();
        request.redirect(StatusCode::from_u16(status).unwrap(), &from, &from.join(to).unwrap());
        request
    }

    #[test]
    fn redirects_keep_or_change_the_method_as_their_status_says() {
        assert_eq!(redirected("POST", 302, "/y").method, Method::GET);
        assert_eq!(redirected("PUT", 302, "/y").method, Method::PUT);
        assert_eq!(redirected("PUT", 303, "/y").method, Method::GET);
        assert_eq!(redirected("HEAD", 303, "/y").method, Method::HEAD);
        let kept = redirected("POST", 308, "/y");
        assert_eq!((kept.method, kept.body.as_ref()), (Method::POST, b"body".as_slice()));
        let changed = redirected("POST", 301, "/y");
        assert!(changed.body.is_empty() && !changed.headers.contains_key(CONTENT_TYPE));
    }

    #[test]
    fn secrets_stay_with_their_host_and_under_tls() {
        assert!(redirected("GET", 302, "/y").headers.contains_key(AUTHORIZATION));
        assert!(!redirected("GET", 302, "https://b.example/").headers.contains_key(AUTHORIZATION));
        assert!(!redirected("GET", 302, "http://a.example/").headers.contains_key(AUTHORIZATION));
    }

    #[test]
    fn credentials_of_the_url_become_basic_authentication_unless_a_header_says_otherwise() {
        let (url, credentials) = parse_url("http", "http://joe:pass%20word@example.com/").unwrap();
        assert_eq!(url.as_str(), "http://example.com/");
        let expected = format!("Basic {}", BASE64_STANDARD.encode("joe:pass word"));
        assert_eq!(credentials.as_ref().unwrap().to_str().unwrap(), expected);
        let spec = HttpProbe { headers: [("authorization".into(), "Bearer x".into())].into(), ..HttpProbe::default() };
        assert_eq!(Request::parse("http", &spec, credentials).unwrap().headers[AUTHORIZATION], "Bearer x");
    }
}
