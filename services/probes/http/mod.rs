//! HTTP: a request on a fresh connection, its redirects, and what is expected of the last answer.

mod connection;
mod cookies;
mod exchange;
mod expect;
mod redirect;
mod request;
mod watched;

use std::time::Duration;

use tokio::time::timeout_at;
use url::Url;
use vantage_contract::v1::{HttpProbe, HttpReport, HttpVersion, Reason, TimingSource};

use crate::{
    Probe, Run,
    failure::{Failure, Invalid},
    stopwatch::{self, Phase},
    target::{self, Host, Options},
    tls::Tls,
};
use cookies::Jar;
use expect::Expectations;
use request::Request;

/// An HTTP probe, parsed.
pub(crate) struct Http {
    /// Without credentials and fragment.
    url: Url,
    /// That of the URL.
    host: Host,
    request: Request,
    max_redirects: u32,
    version: Version,
    max_body: u64,
    tls: Tls,
    expect: Expectations,
}

/// Which version of HTTP to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    /// 2 or 1.1 by ALPN over TLS, 1.1 in the clear.
    Negotiated,
    One,
    Two,
}

impl Http {
    /// Parses the probe of a kind: the kind's name is the scheme that the URL must have.
    pub(crate) fn parse_as(kind: &str, spec: &HttpProbe) -> Result<Self, Invalid> {
        let (url, credentials) = request::parse_url(kind, &spec.url)?;
        let max_redirects = spec.max_redirects.unwrap_or(10);
        if max_redirects > 20 {
            return Err(Invalid::new("max_redirects", format!("must be 0 to 20, is {max_redirects}")));
        }
        let version = match HttpVersion::try_from(spec.version) {
            Ok(HttpVersion::Unspecified) => Version::Negotiated,
            Ok(HttpVersion::HttpVersion11) => Version::One,
            Ok(HttpVersion::HttpVersion2) => Version::Two,
            Ok(HttpVersion::HttpVersion3) => return Err(Invalid::new("version", "3 can't be run yet")),
            Err(_) => return Err(Invalid::new("version", format!("{} is not a version of HTTP", spec.version))),
        };
        Ok(Self {
            request: Request::parse(spec, credentials)?,
            host: request::host_of(&url).map_err(|problem| Invalid::new("url", problem))?,
            url,
            max_redirects,
            version,
            max_body: target::number("max_body_size_bytes", spec.max_body_size_bytes, 10 << 20, 1..=64 << 20)?,
            tls: Tls::parse(kind, "tls", spec.tls.as_ref())?,
            expect: Expectations::parse(spec.expect.as_ref())?,
        })
    }
}

impl Probe for Http {
    type Spec = HttpProbe;
    type Report = HttpReport;

    fn parse(spec: &HttpProbe, _: &Options) -> Result<Self, Invalid> {
        Self::parse_as("http", spec)
    }

    fn is_light(&self) -> bool {
        false
    }

    fn target(&self) -> String {
        self.url.to_string()
    }

    fn host(&self) -> &Host {
        &self.host
    }

    async fn run(&self, run: &mut Run<'_, HttpReport>) -> Result<String, Failure> {
        // Files first: what they cost is not the target's.
        let tls = self.tls.load().await.inspect_err(|_| run.enter(Phase::Resolve))?;
        let mut url = self.url.clone();
        let mut request = self.request.clone();
        let mut jar = Jar::default();
        let (act, mut reply) = loop {
            let act = format!("{} {url}", request.method);
            let hop = exchange::Hop { url: &url, home: &self.url, request: &request, cookies: jar.header(&url), version: self.version };
            let reply = exchange::exchange(&hop, &self.tls, &tls, &act, run).await?;
            if self.max_redirects == 0 {
                break (act, reply);
            }
            let Some(next) = redirect::next(&url, &reply.head).map_err(|why| unexpected(&act, &why))? else { break (act, reply) };
            if run.report.redirect_count == self.max_redirects {
                return Err(unexpected(&act, &format!("redirected to {next} after {} redirects already", self.max_redirects)));
            }
            run.report.redirect_count += 1;
            jar.keep(&url, &reply.head.headers, stopwatch::wall());
            request.redirect(reply.head.status, &url, &next);
            url = next;
        };

        let status = self.expect.judge_status(reply.head.status);
        let body = match &status {
            Ok(()) => reply.body(self.max_body, self.expect.wants_body(), &act, run).await?,
            Err(_) => {
                // The status is the better reason, whatever becomes of the body; a millisecond, the timer's tick, before time is up.
                let deadline = run.deadline - Duration::from_millis(1);
                let read = timeout_at(deadline, reply.body(self.max_body, false, &act, run)).await;
                read.unwrap_or(Ok(Vec::new())).unwrap_or_default()
            }
        };
        let taken = stopwatch::now() - run.watch.started();
        run.latency = Some((taken, TimingSource::User));
        if let Err(why) = status {
            run.report.excerpt = expect::excerpt(&reply.head, &body);
            return Err(unexpected(&act, &why));
        }
        self.expect.judge_headers(&reply.head.headers).map_err(|why| unexpected(&act, &why))?;
        self.expect.judge_body(&body).map_err(|why| unexpected(&act, &why))?;
        self.expect.judge_duration(taken).map_err(|why| Failure::target(Reason::TooSlow, format!("{act}: {why}")))?;

        let redirects = match run.report.redirect_count {
            0 => String::new(),
            1 => " after 1 redirect".to_owned(),
            many => format!(" after {many} redirects"),
        };
        Ok(format!("{act}: {}, {} bytes{redirects}", expect::status_line(reply.head.status), run.report.body_size_bytes))
    }
}

fn unexpected(act: &str, why: &str) -> Failure {
    Failure::target(Reason::UnexpectedAnswer, format!("{act}: {why}"))
}

#[cfg(test)]
mod tests {
    use vantage_contract::v1::{HttpExpectations, HttpHeaderExpectation};

    use super::*;

    fn parse(kind: &str, spec: HttpProbe) -> Result<Http, Invalid> {
        Http::parse_as(kind, &spec)
    }

    fn url(kind: &str, url: &str) -> Result<String, String> {
        parse(kind, HttpProbe { url: url.into(), ..HttpProbe::default() }).map(|http| http.target()).map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn a_url_without_a_scheme_has_the_kinds_own() {
        assert_eq!(url("http", "example.com"), Ok("http://example.com/".into()));
        assert_eq!(url("https", "example.com:8443/a?b#c"), Ok("https://example.com:8443/a?b".into()));
        assert_eq!(url("http", "[::1]:8080"), Ok("http://[::1]:8080/".into()));
        assert_eq!(url("http", "http://EXAMPLE.com:80/"), Ok("http://example.com/".into()));
    }

    #[test]
    fn credentials_are_never_part_of_the_target() {
        assert_eq!(url("http", "http://joe:secret@example.com/x"), Ok("http://example.com/x".into()));
    }

    #[test]
    fn a_url_of_another_scheme_or_of_none_at_all_is_refused() {
        assert!(url("http", "https://example.com/").unwrap_err().contains("must begin with http://"));
        assert!(url("https", "ftp://example.com/").unwrap_err().contains("must begin with https://"));
        for wrong in ["", "http://", "http://a b/", "http://example.com:99999/", "http://x\n/", &format!("http://a/{}", "b".repeat(8192))] {
            let error = url("http", wrong).unwrap_err();
            assert!(error.starts_with("url: "), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_sent_or_expected_is_refused_by_field() {
        let field = |spec: HttpProbe| parse("http", HttpProbe { url: "a".into(), ..spec }).err().map(|invalid| invalid.field);
        let headers = |name: &str, value: &str| HttpProbe { headers: [(name.into(), value.into())].into(), ..HttpProbe::default() };
        let expect = |expect: HttpExpectations| HttpProbe { expect: Some(expect), ..HttpProbe::default() };
        assert_eq!(field(HttpProbe { method: "get".into(), ..HttpProbe::default() }).as_deref(), Some("method"));
        assert_eq!(field(HttpProbe { method: "CONNECT".into(), ..HttpProbe::default() }).as_deref(), Some("method"));
        assert_eq!(field(HttpProbe { method: "a b".into(), ..HttpProbe::default() }).as_deref(), Some("method"));
        assert_eq!(field(headers("a b", "c")).as_deref(), Some("headers"));
        assert_eq!(field(headers("a", "b\r\nc: d")).as_deref(), Some("headers"));
        assert_eq!(field(headers("Content-Length", "5")).as_deref(), Some("headers"));
        assert_eq!(field(headers("Host", "user@example.com")).as_deref(), Some("headers"));
        assert_eq!(field(headers("Host", "example.com")), None);
        assert_eq!(field(HttpProbe { body: "x".repeat((1 << 20) + 1), ..HttpProbe::default() }).as_deref(), Some("body"));
        assert_eq!(field(HttpProbe { max_redirects: Some(21), ..HttpProbe::default() }).as_deref(), Some("max_redirects"));
        assert_eq!(field(HttpProbe { version: 3, ..HttpProbe::default() }).as_deref(), Some("version"));
        assert_eq!(
            field(HttpProbe { max_body_size_bytes: (64 << 20) + 1, ..HttpProbe::default() }).as_deref(),
            Some("max_body_size_bytes")
        );
        assert_eq!(field(expect(HttpExpectations { status: vec![200, 99], ..Default::default() })).as_deref(), Some("expect.status[1]"));
        assert_eq!(
            field(expect(HttpExpectations { body_matches: vec!["(".into()], ..Default::default() })).as_deref(),
            Some("expect.body_matches[0]")
        );
        assert_eq!(
            field(expect(HttpExpectations { body_lacks: vec![String::new()], ..Default::default() })).as_deref(),
            Some("expect.body_lacks[0]")
        );
        let header = HttpHeaderExpectation { name: "a b".into(), ..Default::default() };
        assert_eq!(
            field(expect(HttpExpectations { headers: vec![header], ..Default::default() })).as_deref(),
            Some("expect.headers[0].name")
        );
    }
}
