//! A token by the client credentials grant of OAuth 2 (RFC 6749 section 4.4): got once, and kept until it expires.
//!
//! The token endpoint is asked by the same exchange as any target, so that the gate is asked for each address that is dialled, and the
//! deadline of the run holds. It is never followed elsewhere: it is told a secret.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use form_urlencoded::{Serializer, byte_serialize};
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT},
};
use serde_json::Value;
use tokio::{sync::Mutex, time::Instant};
use url::Url;
use vantage_contract::v1::{Attribution, HttpOauth2Auth, HttpReport, Outcome, Reason};
use zeroize::Zeroizing;

use super::super::{
    dial::Way,
    exchange::{Hop, exchange},
    request::{self, Request},
};
use crate::{
    Run,
    failure::{Failure, Invalid, outcome_of},
    gate::Demand,
    secret::{Hidden, Masks, Secret},
    stopwatch::{self, Phase, Stopwatch},
    target::{Family, Host, Options, Selection},
    tls::Tls,
    wire::text::escape,
};

const MAX_SCOPES: usize = 64;
const MAX_PARAMETERS: usize = 16;
const MAX_TEXT: usize = 1024;
/// The longest answer of a token endpoint, and the longest token, in bytes.
const MAX_ANSWER: u64 = 64 << 10;
const MAX_TOKEN: usize = 16 << 10;
/// How much of what the endpoint says of an error is told, in bytes.
const MAX_WORDS: usize = 200;

/// How long a token is kept whose lifetime nobody tells.
const UNTOLD: Duration = Duration::from_secs(300);
/// How long before its end a token is not used any more; at most half of its life.
const MARGIN: Duration = Duration::from_secs(30);
/// The longest that a token is kept, whatever its lifetime.
const LONGEST: Duration = Duration::from_secs(86_400);

/// The client credentials grant, parsed, with the token that is kept.
pub(crate) struct Oauth2 {
    url: Url,
    host: Host,
    client_id: String,
    client_secret: Secret,
    scopes: String,
    parameters: Vec<(String, String)>,
    in_body: bool,
    tls: Tls,
    kept: Mutex<Kept>,
    /// How often a token was asked for.
    tries: AtomicU64,
}

#[derive(Default)]
struct Kept {
    token: Option<(Hidden, Instant)>,
    /// Why there is none, since the last try.
    failure: Option<Failure>,
}

impl Oauth2 {
    pub(super) fn parse(kind: &str, spec: &HttpOauth2Auth) -> Result<Self, Invalid> {
        let inside = |field: &str| format!("auth.oauth2.{field}");
        let invalid = |field: &str, problem: String| Invalid::new(inside(field), problem);
        let scheme = if spec.token_url.starts_with("http://") { "http" } else { "https" };
        let (url, credentials) = request::parse_url(scheme, &spec.token_url).map_err(|wrong| invalid("token_url", wrong.problem))?;
        if credentials.is_some() {
            return Err(invalid("token_url", "must not have credentials: they are client_id and client_secret".to_owned()));
        }
        let text = |field: &str, text: &str| {
            let fits = text.len() <= MAX_TEXT && !text.contains(char::is_control);
            if fits { Ok(()) } else { Err(invalid(field, format!("must be at most {MAX_TEXT} bytes without control characters"))) }
        };
        if spec.client_id.is_empty() {
            return Err(invalid("client_id", "is missing".to_owned()));
        }
        text("client_id", &spec.client_id)?;
        // RFC 6749 section 3.3.
        let is_scope = |scope: &String| !scope.is_empty() && scope.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
        if spec.scopes.len() > MAX_SCOPES || spec.scopes.iter().any(|scope| scope.len() > MAX_TEXT) {
            return Err(invalid("scopes", format!("must be at most {MAX_SCOPES}, each of at most {MAX_TEXT} bytes")));
        }
        if let Some(at) = spec.scopes.iter().position(|scope| !is_scope(scope)) {
            return Err(invalid(&format!("scopes[{at}]"), "is not a scope (RFC 6749 section 3.3): one word, without quotes".to_owned()));
        }
        if spec.parameters.len() > MAX_PARAMETERS {
            return Err(invalid("parameters", format!("must be at most {MAX_PARAMETERS}, are {}", spec.parameters.len())));
        }
        for (name, value) in &spec.parameters {
            if name.is_empty() || ["grant_type", "scope", "client_id", "client_secret"].contains(&name.as_str()) {
                return Err(invalid("parameters", format!("{name:?} follows from the other fields")));
            }
            text("parameters", name)?;
            text("parameters", value)?;
        }
        Ok(Self {
            host: request::host_of(&url).map_err(|problem| invalid("token_url", problem))?,
            url,
            client_id: spec.client_id.clone(),
            client_secret: Secret::required(kind, &inside("client_secret"), spec.client_secret.as_ref())?,
            scopes: spec.scopes.join(" "),
            parameters: spec.parameters.clone().into_iter().collect(),
            in_body: spec.credentials_in_body,
            tls: Tls::parse(kind, &inside("tls"), spec.tls.as_ref())?,
            kept: Mutex::default(),
            tries: AtomicU64::new(0),
        })
    }

    /// A token other than `refused`, and whether it was there already. Of runs that need one at the same time, one gets it for all.
    pub(super) async fn token(&self, refused: Option<&Hidden>, run: &mut Run<'_, HttpReport>) -> Result<(Hidden, bool), Failure> {
        run.enter(Phase::Authenticate);
        let tries = self.tries.load(Ordering::Acquire);
        let mut kept = self.kept.lock().await;
        if let Some((token, until)) = &kept.token
            && stopwatch::now() < *until
            && refused != Some(token)
        {
            run.masks.add(token);
            return Ok((token.clone(), true));
        }
        // Whoever had the turn meanwhile has asked for us, too.
        if let (Some(failure), true) = (&kept.failure, self.tries.load(Ordering::Acquire) > tries) {
            return Err(failure.clone());
        }
        kept.token = None;
        kept.failure = None;
        let got = Box::pin(self.ask(run)).await;
        self.tries.fetch_add(1, Ordering::AcqRel);
        match got {
            Ok(granted) => {
                run.masks.add(&granted.token);
                kept.token = Some((granted.token.clone(), stopwatch::now() + granted.kept_for()));
                Ok((granted.token, false))
            }
            Err(failure) => {
                kept.failure = Some(failure.clone());
                Err(failure)
            }
        }
    }

    async fn ask(&self, run: &mut Run<'_, HttpReport>) -> Result<Granted, Failure> {
        let secret = self.client_secret.look_up(&run.world.gate).await?;
        run.masks.add(&secret);
        let loaded = self.tls.load().await?;
        let request = self.request(&secret, &mut run.masks)?;
        // The target's family and addresses are not the endpoint's; a source address decides the family of both.
        let family = if run.options.source.is_some() { run.options.family } else { Family::Any };
        let options = Options { family, selection: Selection::First, ..run.options.clone() };
        let mut asking = Run {
            world: run.world,
            options: &options,
            deadline: run.deadline,
            watch: Stopwatch::start(stopwatch::now()),
            pinned: None,
            home: &self.host,
            address: None,
            latency: None,
            report: Box::default(),
            owed_by: run.owed_by,
            packets: Demand::default().packets(),
            masks: run.masks.clone(),
        };
        let way = Way { url: &self.url, home: &self.url, version: None, tls: &self.tls, loaded: &loaded, proxy: None };
        let hop = Hop { number: 0, way, request: &request, cookies: None, private: HeaderMap::new(), kept: None, is_again: false };
        let last_call = run.last_call();
        let answer = async {
            let mut reply = exchange(&hop, &mut asking).await.map_err(|lost| lost.failure)?;
            let body = reply.body(MAX_ANSWER, true, &mut asking).await?;
            Ok((reply.head.status, body))
        };
        let answered = tokio::time::timeout_at(last_call, answer).await;
        let late = || Failure::timed_out(format!("after {:?}", run.options.timeout));
        let (status, body) = answered.unwrap_or_else(|_| Err(late())).map_err(|failure| self.missed(failure))?;
        let body = Zeroizing::new(body.bytes);
        read(status, &body).map_err(|refusal| {
            let attribution = if refusal.is_ours { Attribution::Request } else { Attribution::Path };
            let sentence = format!("get a token from {}: status {}: {}", self.url, status.as_u16(), refusal.words);
            Failure::new(Reason::NotAuthenticated, attribution, sentence)
        })
    }

    /// What keeps us from a token is never the target's fault; what is ours stays so.
    fn missed(&self, failure: Failure) -> Failure {
        let sentence = format!("get a token from {}: {}", self.url, failure.sentence);
        if outcome_of(failure.reason) != Outcome::Failed {
            return Failure::new(failure.reason, failure.attribution, sentence);
        }
        let attribution = if failure.attribution == Attribution::Target { Attribution::Path } else { failure.attribution };
        Failure::new(Reason::NotAuthenticated, attribution, sentence)
    }

    fn request(&self, secret: &Hidden, masks: &mut Masks) -> Result<Request, Failure> {
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if !self.scopes.is_empty() {
            form.append_pair("scope", &self.scopes);
        }
        form.extend_pairs(&self.parameters);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(request::USER_AGENT));
        if self.in_body {
            form.append_pair("client_id", &self.client_id).append_pair("client_secret", secret.expose());
        } else {
            // RFC 6749 section 2.3.1 has both encoded as in forms first.
            let encode = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
            let credentials = super::basic(&encode(&self.client_id), &Hidden::new(encode(secret.expose())));
            masks.add(&credentials);
            let value = super::sendable(&Zeroizing::new(format!("Basic {}", credentials.expose())));
            headers.insert(AUTHORIZATION, value.ok_or_else(|| Failure::internal("base64 that is no header"))?);
        }
        Ok(Request { method: Method::POST, headers, authority: None, body: form.finish().into(), body_file: None, is_body_hidden: false })
    }
}

/// A token that was granted.
#[derive(Debug, PartialEq, Eq)]
struct Granted {
    token: Hidden,
    /// In seconds; none: it was not told.
    lifetime: Option<u64>,
}

/// Why there is none.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    words: String,
    /// What we asked for is wrong, and not the endpoint.
    is_ours: bool,
}

impl Granted {
    fn kept_for(&self) -> Duration {
        let lifetime = self.lifetime.map_or(UNTOLD, Duration::from_secs).min(LONGEST);
        lifetime.saturating_sub(MARGIN.min(lifetime / 2))
    }
}

/// Reads the answer of a token endpoint (RFC 6749 sections 5.1 and 5.2).
fn read(status: StatusCode, body: &[u8]) -> Result<Granted, Refusal> {
    let other = |words: &str| Refusal { words: words.to_owned(), is_ours: false };
    let Ok(Value::Object(answer)) = serde_json::from_slice(body) else { return Err(other("the answer is not a JSON object")) };
    let text = |name: &str| answer.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    if status != StatusCode::OK || answer.contains_key("error") {
        let error = text("error").unwrap_or("the answer has no token and no error");
        let is_ours = [
            "invalid_request",
            "invalid_client",
            "invalid_grant",
            "unauthorized_client",
            "unsupported_grant_type",
            "invalid_scope",
            "invalid_target",
        ]
        .contains(&error);
        let shown = |text: &str| escape(text.as_bytes().get(..text.len().min(MAX_WORDS)).unwrap_or_default());
        let words = match text("error_description") {
            Some(description) => format!("{} ({})", shown(error), shown(description)),
            None => shown(error),
        };
        return Err(Refusal { words, is_ours });
    }
    let token = text("access_token").ok_or_else(|| other("the answer has no access_token"))?;
    if token.len() > MAX_TOKEN || !token.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
        return Err(other("the access_token can't be sent in a header"));
    }
    // Some leave it out, though they must not.
    if let Some(kind) = text("token_type").filter(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(other(&format!("the token is of the type {:?}, and not a bearer token", kind.chars().take(40).collect::<String>())));
    }
    let lifetime = match answer.get("expires_in") {
        Some(Value::Number(number)) => {
            number.as_u64().or_else(|| number.as_f64().filter(|seconds| *seconds >= 0.0).map(|_| LONGEST.as_secs()))
        }
        // Some write it as text.
        Some(Value::String(text)) => text.parse().ok(),
        _ => None,
    };
    Ok(Granted { token: Hidden::new(token.to_owned()), lifetime })
}

/// Whatever an endpoint answers is read without harm: for the fuzzer.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    for status in [StatusCode::OK, StatusCode::BAD_REQUEST] {
        match read(status, data) {
            Ok(granted) => {
                assert!(status == StatusCode::OK && granted.kept_for() <= LONGEST);
                assert!(super::sendable(granted.token.expose()).is_some());
            }
            Err(refusal) => assert!(refusal.words.len() <= 9 * MAX_WORDS && !refusal.words.contains(char::is_control)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(body: &str) -> Result<(String, Duration), String> {
        let read = read(StatusCode::OK, body.as_bytes());
        read.map(|granted| (granted.token.expose().to_owned(), granted.kept_for())).map_err(|refusal| refusal.words)
    }

    #[test]
    fn a_token_is_kept_until_shortly_before_its_end() {
        for (lifetime, seconds) in [("3600", 3570), ("40", 20), ("\"3600\"", 3570), ("0", 0), ("1e30", 86_370), ("null", 270), ("-1", 270)]
        {
            let body = format!(r#"{{"access_token":"abc","token_type":"Bearer","expires_in":{lifetime}}}"#);
            assert_eq!(granted(&body), Ok(("abc".into(), Duration::from_secs(seconds))), "{lifetime}");
        }
        assert!(granted(r#"{"access_token":"abc"}"#).is_ok());
    }

    #[test]
    fn what_is_no_token_is_told_in_words_and_never_shown() {
        for (body, words) in [
            ("", "the answer is not a JSON object"),
            ("[1]", "the answer is not a JSON object"),
            ("{}", "the answer has no access_token"),
            (r#"{"access_token":"a\r\nb"}"#, "the access_token can't be sent in a header"),
            (r#"{"access_token":"a","token_type":"mac"}"#, "the token is of the type \"mac\", and not a bearer token"),
            (r#"{"error":"invalid_scope","error_description":"no\nsuch"}"#, "invalid_scope (no\\x0asuch)"),
        ] {
            assert_eq!(granted(body), Err(words.into()), "{body}");
        }
        let refused = |status: u16, body: &str| read(StatusCode::from_u16(status).unwrap(), body.as_bytes()).unwrap_err();
        assert_eq!(refused(401, r#"{"error":"invalid_client"}"#), Refusal { words: "invalid_client".into(), is_ours: true });
        assert!(!refused(503, r#"{"error":"temporarily_unavailable"}"#).is_ours);
        assert_eq!(refused(302, r#"{"access_token":"a"}"#).words, "the answer has no token and no error");
    }
}
