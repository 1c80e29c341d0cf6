//! What a check may say of who is asking.

use http::{
    HeaderName,
    header::{AUTHORIZATION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
};
use vantage_contract::v1::{HttpProbe, http_auth::Scheme as Spec};

use super::{super::request::MAX_HEADERS, Asker, Scheme, UNSENDABLE, oauth2::Oauth2, sendable};
use crate::{failure::Invalid, secret::Secret};

/// The longest user name.
const MAX_USER: usize = 1024;

impl Asker {
    /// Parses `auth` and `secret_headers`.
    pub(in crate::http) fn parse(kind: &str, spec: &HttpProbe, has_credentials: bool) -> Result<Self, Invalid> {
        let scheme = match &spec.auth {
            None => None,
            Some(auth) => {
                if has_credentials {
                    return Err(Invalid::new("auth", "goes with no credentials in the URL"));
                }
                let own = |name: &String| name.eq_ignore_ascii_case(AUTHORIZATION.as_str());
                if spec.headers.keys().chain(spec.secret_headers.keys()).any(own) {
                    return Err(Invalid::new("auth", "goes with no header Authorization"));
                }
                let none = || Invalid::new("auth", "says nothing: give \"basic\", \"digest\", \"bearer\" or \"oauth2\"");
                Some(scheme(kind, auth.scheme.as_ref().ok_or_else(none)?)?)
            }
        };
        Ok(Self { kind: kind.to_owned(), headers: headers(kind, spec)?, scheme })
    }
}

fn scheme(kind: &str, spec: &Spec) -> Result<Scheme, Invalid> {
    match spec {
        Spec::Basic(basic) => {
            let user = user("auth.basic.username", &basic.username)?;
            if user.contains(':') {
                return Err(Invalid::new("auth.basic.username", "must not have a colon (RFC 7617)"));
            }
            let password = Secret::required(kind, "auth.basic.password", basic.password.as_ref())?;
            if password.here().is_some_and(|password| password.expose().contains(char::is_control)) {
                return Err(Invalid::new("auth.basic.password", "has a control character (RFC 7617)"));
            }
            Ok(Scheme::Basic { user, password })
        }
        Spec::Digest(digest) => Ok(Scheme::Digest {
            user: user("auth.digest.username", &digest.username)?,
            password: Secret::required(kind, "auth.digest.password", digest.password.as_ref())?,
        }),
        Spec::Bearer(bearer) => {
            let token = Secret::required(kind, "auth.bearer.token", bearer.token.as_ref())?;
            refuse_unsendable("auth.bearer.token", &token)?;
            Ok(Scheme::Bearer { token })
        }
        Spec::Oauth2(oauth2) => Ok(Scheme::Oauth2(Box::new(Oauth2::parse(kind, oauth2)?))),
    }
}

fn user(field: &str, name: &str) -> Result<String, Invalid> {
    if name.is_empty() || name.len() > MAX_USER || name.contains(char::is_control) {
        return Err(Invalid::new(field, format!("must be 1 to {MAX_USER} bytes without control characters")));
    }
    Ok(name.to_owned())
}

fn headers(kind: &str, spec: &HttpProbe) -> Result<Vec<(HeaderName, Secret)>, Invalid> {
    if spec.headers.len() + spec.secret_headers.len() > MAX_HEADERS {
        let sum = format!("must be at most {MAX_HEADERS} together with headers");
        return Err(Invalid::new("secret_headers", sum));
    }
    let mut parsed: Vec<(HeaderName, Secret)> = Vec::new();
    for (name, secret) in &spec.secret_headers {
        let field = format!("secret_headers.{name}");
        let invalid = |problem: &str| Invalid::new(field.clone(), problem);
        let header = HeaderName::try_from(name.as_str()).map_err(|_| invalid("is not the name of a header"))?;
        if [CONTENT_LENGTH, TRANSFER_ENCODING, HOST].contains(&header) {
            return Err(invalid("can't be a secret"));
        }
        let is_there = spec.headers.keys().any(|own| own.eq_ignore_ascii_case(header.as_str()));
        if is_there || parsed.iter().any(|(known, _)| *known == header) {
            return Err(invalid("is there twice"));
        }
        let secret = Secret::required(kind, &field, Some(secret))?;
        refuse_unsendable(&field, &secret)?;
        parsed.push((header, secret));
    }
    Ok(parsed)
}

fn refuse_unsendable(field: &str, secret: &Secret) -> Result<(), Invalid> {
    match secret.here() {
        Some(here) if sendable(here.expose()).is_none() => Err(Invalid::new(field, UNSENDABLE)),
        _ => Ok(()),
    }
}
