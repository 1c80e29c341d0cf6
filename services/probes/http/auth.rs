//! Who is asking: what only the check's own host may see of a request, before it is sent and after a challenge.

pub(crate) mod digest;
pub(crate) mod oauth2;
mod options;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
    response,
};
use url::Url;
use vantage_contract::v1::HttpReport;
use zeroize::Zeroizing;

use super::request::{self, Request};
use crate::{
    Run,
    failure::{Failure, Invalid},
    net::random::random,
    secret::{Hidden, Secret},
};
use digest::User;
use oauth2::Oauth2;

/// What a check says of who is asking, parsed.
pub(super) struct Asker {
    /// The fields' beginning, for sentences: "https".
    kind: String,
    /// Headers whose values are secrets.
    headers: Vec<(HeaderName, Secret)>,
    scheme: Option<Scheme>,
}

enum Scheme {
    Basic { user: String, password: Secret },
    Digest { user: String, password: Secret },
    Bearer { token: Secret },
    Oauth2(Box<Oauth2>),
}

/// The same in a run, with all secrets looked up.
pub(super) struct Identity<'c> {
    /// The check's own URL.
    home: &'c Url,
    headers: HeaderMap,
    state: State<'c>,
    /// Challenges that this request has met.
    rounds: u32,
    /// The next request is the same one again.
    is_asked_again: bool,
    /// Whether a digest went with the last request.
    was_answered: bool,
}

enum State<'c> {
    /// Nothing but headers.
    Plain,
    Digest {
        user: &'c str,
        password: Hidden,
        session: Option<digest::Session>,
    },
    Token {
        source: &'c Oauth2,
        token: Hidden,
        /// It comes from an earlier run: the server may have forgotten it since.
        is_kept: bool,
        /// The server refused it.
        is_refused: bool,
    },
}

impl Asker {
    /// Looks up the secrets. What can't be is told by its field, and never the target's fault; nothing has been sent then.
    pub(super) async fn begin<'c>(&'c self, home: &'c Url, run: &mut Run<'_, HttpReport>) -> Result<Identity<'c>, Failure> {
        let mut headers = HeaderMap::new();
        for (name, secret) in &self.headers {
            let value = look_up(secret, run).await?;
            headers.insert(name, self.value(&format!("secret_headers.{name}"), value.expose())?);
        }
        let mut state = State::Plain;
        match &self.scheme {
            None => {}
            Some(Scheme::Basic { user, password }) => {
                let password = look_up(password, run).await?;
                let credentials = basic(user, &password);
                run.masks.add(&credentials);
                let value = Zeroizing::new(format!("Basic {}", credentials.expose()));
                headers.insert(AUTHORIZATION, self.value("auth.basic", &value)?);
            }
            Some(Scheme::Bearer { token }) => {
                let token = look_up(token, run).await?;
                headers.insert(AUTHORIZATION, self.bearer("auth.bearer.token", &token)?);
            }
            Some(Scheme::Digest { user, password }) => {
                state = State::Digest { user, password: look_up(password, run).await?, session: None };
            }
            Some(Scheme::Oauth2(source)) => {
                let (token, is_kept) = source.token(None, run).await?;
                headers.insert(AUTHORIZATION, self.bearer("auth.oauth2", &token)?);
                state = State::Token { source, token, is_kept, is_refused: false };
            }
        }
        Ok(Identity { home, headers, state, rounds: 0, is_asked_again: false, was_answered: false })
    }

    fn bearer(&self, field: &str, token: &Hidden) -> Result<HeaderValue, Failure> {
        self.value(field, &Zeroizing::new(format!("Bearer {}", token.expose())))
    }

    fn value(&self, field: &str, text: &str) -> Result<HeaderValue, Failure> {
        sendable(text).ok_or_else(|| Invalid::new(format!("{}.{field}", self.kind), UNSENDABLE).into())
    }
}

const UNSENDABLE: &str = "has a value that can't be sent: it has a line end, a control character, or nothing";

/// The value of a header that must not be shown.
fn sendable(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok().filter(|_| !text.is_empty())?;
    value.set_sensitive(true);
    Some(value)
}

async fn look_up(secret: &Secret, run: &mut Run<'_, HttpReport>) -> Result<Hidden, Failure> {
    let found = secret.look_up(&run.world.gate).await?;
    run.masks.add(&found);
    Ok(found)
}

/// The credentials of basic authentication (RFC 7617).
pub(super) fn basic(user: &str, password: &Hidden) -> Hidden {
    let pair = Zeroizing::new(format!("{user}:{}", password.expose()));
    Hidden::new(BASE64_STANDARD.encode(pair.as_bytes()))
}

impl Identity<'_> {
    /// The headers that go with a request to `url`, in place of its own: none, if it is for somebody else, or would be seen on the way.
    pub(super) async fn headers(&mut self, url: &Url, request: &Request, run: &mut Run<'_, HttpReport>) -> Result<HeaderMap, Failure> {
        if !std::mem::take(&mut self.is_asked_again) {
            self.rounds = 0;
        }
        self.was_answered = false;
        if !self.is_for(url) {
            return Ok(HeaderMap::new());
        }
        match &mut self.state {
            State::Plain | State::Digest { session: None, .. } | State::Token { is_refused: false, .. } => {}
            State::Digest { user, password, session: Some(session) } => {
                let target = request::path_of(url).map_err(Failure::internal)?;
                let asked = digest::Request { method: request.method.as_str(), target: target.as_str(), body: &request.body };
                let own: String = random::<16>()?.iter().map(|byte| format!("{byte:02x}")).collect();
                let answer = session.answer(&User { name: user, password }, &asked, &own);
                let answer = answer.ok_or_else(|| Failure::internal("a digest that is no header"))?;
                self.headers.insert(AUTHORIZATION, answer);
                self.was_answered = true;
            }
            State::Token { source, token, is_kept, is_refused } => {
                let (fresh, kept) = source.token(Some(token), run).await?;
                let value = sendable(&Zeroizing::new(format!("Bearer {}", fresh.expose())));
                self.headers.insert(AUTHORIZATION, value.ok_or_else(|| Failure::internal("a token that is no header"))?);
                (*token, *is_kept, *is_refused) = (fresh, kept, false);
            }
        }
        Ok(self.headers.clone())
    }

    /// Whether a URL is of the check's own host, and not in the clear where the check's own is not.
    fn is_for(&self, url: &Url) -> bool {
        url.host() == self.home.host() && (url.scheme() == "https" || self.home.scheme() == "http")
    }

    /// Looks at an answer of `url`. Whether it is a challenge that the same request, made again, answers: one more exchange.
    pub(super) fn meets(&mut self, url: &Url, head: &response::Parts) -> bool {
        if head.status != StatusCode::UNAUTHORIZED || !self.is_for(url) {
            return false;
        }
        let first = self.rounds == 0;
        let again = match &mut self.state {
            State::Plain => false,
            State::Digest { session, .. } => match digest::choose(head.headers.get_all(WWW_AUTHENTICATE).iter().map(HeaderValue::as_bytes))
            {
                // An answer that was not taken is not given twice, unless it was too old, or to a challenge of an earlier exchange.
                Some(met) if first || (self.rounds == 1 && (met.is_stale || !self.was_answered)) => {
                    *session = Some(met.session);
                    true
                }
                _ => false,
            },
            // A kept token may have been withdrawn; a fresh one that is refused is the answer.
            State::Token { is_kept, is_refused, .. } => {
                *is_refused = *is_kept && first;
                *is_refused
            }
        };
        if again {
            self.rounds += 1;
            self.is_asked_again = true;
        }
        again
    }
}
