//! HTTP: a request on a fresh connection, its redirects, and what is expected of the last answer.

pub(crate) mod auth;
pub(crate) mod coding;
mod connection;
mod cookies;
mod dial;
mod exchange;
mod expect;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod hops;
mod json;
mod kept;
mod proxy;
mod redirect;
mod request;
mod version;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::header::ACCEPT_ENCODING;
use tokio::time::timeout_at;
use url::Url;
use vantage_contract::v1::{HttpProbe, HttpReport, HttpVersion, Reason, TimingSource};

use crate::{
    Probe, Run,
    failure::{Failure, Invalid},
    gate::Demand,
    secret::Masks,
    stopwatch::{self, Phase, Times},
    target::{self, Host, Options},
    tls::Tls,
};
use auth::Asker;
use cookies::Jar;
use dial::Way;
use exchange::{Body, Hop, Reply, exchange};
use expect::Expectations;
use json::Wrong;
use kept::Kept;
use proxy::Proxy;
use request::Request;
use version::Version;

/// A body that takes a while to be judged.
const LONG: usize = 256 << 10;

/// An HTTP probe, parsed.
pub(crate) struct Http {
    /// Without credentials and fragment.
    url: Url,
    /// That of the URL.
    host: Host,
    request: Request,
    asker: Asker,
    proxy: Option<Proxy>,
    max_redirects: u32,
    /// The version to speak. None: 2 or 1.1 by ALPN over TLS, 1.1 in the clear.
    version: Option<Version>,
    max_body: u64,
    tls: Tls,
    expect: Arc<Expectations>,
    /// The connections that are kept. None: each exchange has its own.
    kept: Option<Kept>,
    /// Whether the run before this one did no more than wait for the network. Of the first, nothing is known.
    was_light: AtomicBool,
}

/// Who reads more than this has some work with it.
const LIGHT: u64 = 256 << 10;

impl Http {
    /// Parses the probe of a kind: the kind's name is the scheme that the URL must have.
    pub(crate) fn parse_as(kind: &str, spec: &HttpProbe, options: &Options) -> Result<Self, Invalid> {
        let (url, credentials) = request::parse_url(kind, &spec.url)?;
        let max_redirects = spec.max_redirects.unwrap_or(10);
        if max_redirects > 20 {
            return Err(Invalid::new("max_redirects", format!("must be 0 to 20, is {max_redirects}")));
        }
        if spec.version == i32::from(HttpVersion::HttpVersion3) && spec.tls.as_ref().is_some_and(|tls| tls.resume) {
            return Err(Invalid::new("tls.resume", "can't be done over QUIC"));
        }
        if spec.proxy.is_some() && spec.version == i32::from(HttpVersion::HttpVersion3) {
            return Err(Invalid::new("proxy", "leads TCP alone: it goes with no version 3"));
        }
        let has_credentials = credentials.is_some();
        let mut request = Request::parse(kind, spec, credentials)?;
        if let Some(codings) = coding::accept(&spec.content_codings)? {
            // A header of the check's own says more.
            request.headers.entry(ACCEPT_ENCODING).or_insert(codings);
        }
        Ok(Self {
            asker: Asker::parse(kind, spec, has_credentials)?,
            proxy: spec.proxy.as_ref().map(|proxy| Proxy::parse(kind, proxy, options)).transpose()?,
            request,
            host: request::host_of(&url).map_err(|problem| Invalid::new("url", problem))?,
            url,
            max_redirects,
            version: Version::parse(spec.version)?,
            max_body: target::number("max_body_size_bytes", spec.max_body_size_bytes, 10 << 20, 1..=64 << 20)?,
            tls: Tls::parse(kind, "tls", spec.tls.as_ref())?,
            expect: Arc::new(Expectations::parse(spec.expect.as_ref())?),
            kept: spec.reuse.then(Kept::default),
            was_light: AtomicBool::new(false),
        })
    }

    /// Asks, and asks again where an answer leads elsewhere or wants to know who is asking, until there is a last answer.
    async fn ask(&self, run: &mut Run<'_, HttpReport>) -> Result<Reply, Failure> {
        // Files first: what they cost is not the target's.
        let loaded = self.tls.load().await?;
        let mut request = self.request.load(run).await?;
        run.packets = Demand { payload_bytes: request.body.len(), ..Demand::default() }.packets();
        let proxy = match &self.proxy {
            Some(proxy) => Some(proxy.load(run).await?),
            None => None,
        };
        let mut identity = self.asker.begin(&self.url, run).await?;
        let mut url = self.url.clone();
        let mut jar = Jar::default();
        let mut number = 0;
        let mut is_again = false;
        loop {
            if number > 0 {
                run.watch.lap();
            }
            hops::begin(&mut run.report, number, url.as_str());
            let hop = Hop {
                number,
                way: Way { url: &url, home: &self.url, version: self.version, tls: &self.tls, loaded: &loaded, proxy: proxy.as_ref() },
                request: &request,
                cookies: jar.header(&url),
                private: identity.headers(&url, &request, run).await?,
                kept: self.kept.as_ref(),
                is_again,
            };
            let exchanged = exchange(&hop, run).await;
            number += 1;
            is_again = matches!(&exchanged, Err(lost) if lost.again);
            let mut reply = match exchanged {
                Err(_) if is_again => continue,
                exchanged => exchanged.map_err(|lost| lost.failure)?,
            };
            if identity.meets(&url, &reply.head) {
                jar.keep(&url, &reply.head.headers, stopwatch::wall());
            } else {
                if self.max_redirects == 0 {
                    return Ok(reply);
                }
                let next = redirect::next(&url, &reply.head).map_err(|why| unexpected(&reply.act, &why))?;
                let Some(next) = next else { return Ok(reply) };
                if run.report.redirect_count == self.max_redirects {
                    let why = format!("redirected to {next} after {} redirects already", self.max_redirects);
                    return Err(unexpected(&reply.act, &why));
                }
                run.report.redirect_count += 1;
                jar.keep(&url, &reply.head.headers, stopwatch::wall());
                request.redirect(reply.head.status, &url, &next);
                url = next;
            }
            if self.kept.is_some() {
                reply.drain(run).await;
                reply.keep(self.kept.as_ref()).await;
            }
        }
    }
}

impl Http {
    /// Judges a body, aside where it is a long one: others have their turn meanwhile.
    async fn judge_body(&self, body: Body, size: u64) -> Result<Result<(), Wrong>, Failure> {
        if body.bytes.len() < LONG {
            return Ok(self.expect.judge_body(&body, size));
        }
        let expect = self.expect.clone();
        let judged = tokio::task::spawn_blocking(move || expect.judge_body(&body, size)).await;
        judged.map_err(|error| Failure::internal(format!("judge a body: {error}")))
    }
}

impl Probe for Http {
    type Spec = HttpProbe;
    type Report = HttpReport;

    const CONNECTS: bool = true;

    fn parse(spec: &HttpProbe, options: &Options) -> Result<Self, Invalid> {
        if spec.version == i32::from(HttpVersion::HttpVersion3) {
            return Err(Invalid::new("version", "3 is for https: HTTP/3 is not spoken in the clear"));
        }
        Self::parse_as("http", spec, options)
    }

    fn is_light(&self) -> bool {
        // TLS computes, and so may who looks for something in a body. Where a redirect leads is not known before it has done so.
        self.was_light.load(Ordering::Relaxed) && !self.expect.wants_body()
    }

    fn target(&self) -> String {
        self.url.to_string()
    }

    fn host(&self) -> &Host {
        &self.host
    }

    fn demand(&self) -> Demand<'_> {
        Demand { payload_bytes: self.request.body.len(), method: Some(self.request.method.as_str()), ..Demand::default() }
    }

    async fn run(&self, run: &mut Run<'_, HttpReport>) -> Result<String, Failure> {
        // A run that is ended from outside was not.
        self.was_light.store(false, Ordering::Relaxed);
        let verdict = self.ask_and_judge(run).await;
        let is_secure = run.report.tls.is_some() || run.watch.taken(Phase::Tls).is_some();
        let size = run.report.received_bytes.max(run.report.decoded_body_size_bytes);
        let is_light = size < LIGHT && !is_secure;
        self.was_light.store(is_light, Ordering::Relaxed);
        verdict
    }

    fn settle(report: &mut HttpReport, times: &Times, masks: &Masks) {
        hops::settle(report, times);
        hops::mask(report, masks);
    }
}

impl Http {
    async fn ask_and_judge(&self, run: &mut Run<'_, HttpReport>) -> Result<String, Failure> {
        let asked = self.ask(run).await;
        if asked.is_err() && run.watch.phase().is_none() {
            // Nothing was begun, and took its time all the same.
            run.enter(Phase::Resolve);
        }
        let mut reply = asked?;
        let status = self.expect.judge_status(reply.head.status);
        let body = match &status {
            Ok(()) => reply.body(self.max_body, self.expect.wants_body(), run).await?,
            Err(_) => {
                // The status is the better reason, whatever becomes of the body; a millisecond, the timer's tick, before time is up.
                let deadline = run.deadline - Duration::from_millis(1);
                let read = timeout_at(deadline, reply.body(self.max_body, false, run)).await;
                read.ok().and_then(Result::ok).unwrap_or(Body { bytes: Vec::new(), coded: None })
            }
        };
        let taken = stopwatch::now() - run.watch.started();
        run.latency = Some((taken, TimingSource::User));
        let (act, head) = reply.keep(self.kept.as_ref()).await;
        let unmet = |why: String| unexpected(&act, &why);
        if let Err(why) = status {
            run.report.excerpt = expect::excerpt(&head, &body.bytes);
            return Err(unmet(why));
        }
        self.expect.judge_head(&head, &run.report, stopwatch::wall()).map_err(unmet)?;
        match self.judge_body(body, run.report.decoded_body_size_bytes).await? {
            Ok(()) => {}
            Err(Wrong::Unexpected(why)) => return Err(unmet(why)),
            Err(Wrong::TooLarge(why)) => return Err(Failure::target(Reason::TooLarge, format!("{act}: {why}"))),
        }
        let in_time = self.expect.judge_times(taken, &run.watch);
        in_time.map_err(|why| Failure::target(Reason::TooSlow, format!("{act}: {why}")))?;

        let redirects = match run.report.redirect_count {
            0 => String::new(),
            1 => " after 1 redirect".to_owned(),
            many => format!(" after {many} redirects"),
        };
        Ok(format!("{act}: {}, {} bytes{redirects}", expect::status_line(head.status), run.report.body_size_bytes))
    }
}

fn unexpected(act: &str, why: &str) -> Failure {
    Failure::target(Reason::UnexpectedAnswer, format!("{act}: {why}"))
}

#[cfg(test)]
mod tests;
