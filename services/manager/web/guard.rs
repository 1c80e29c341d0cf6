//! Who may ask, and what a browser is told to refuse.
//!
//! The page has no password, so it must not answer other people's pages. Against DNS rebinding (a foreign name that suddenly
//! resolves to this machine) it answers only to names that are its own; a plain address can't be rebound. Against foreign pages that
//! ask directly, it answers the API only where the browser does not say "cross-site".

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

/// The names that are our own.
#[derive(Debug, Clone)]
pub(super) struct Hosts(Arc<[String]>);

impl Hosts {
    pub(super) fn new(names: Vec<String>) -> Self {
        Self(names.into_iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    /// Whether a `Host` header names us: `localhost`, any plain address, or a name of ours; with or without a port.
    fn allow(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, _)) => address,
            None => host.split_once(':').map_or(host, |(name, _)| name),
        };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok() || self.0.contains(&name)
    }
}

/// The headers of every answer: the browser runs our own script, loads our own style, talks to us, and nothing else.
const HEADERS: [(header::HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

/// Turns away whom we don't know, and adds the headers.
pub(super) async fn watch(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    let mut answer = match refusal(&hosts, request.uri().path(), request.headers()) {
        Some(refusal) => refusal.into_response(),
        None => next.run(request).await,
    };
    for (name, value) in HEADERS {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

fn refusal(hosts: &Hosts, path: &str, headers: &HeaderMap) -> Option<(StatusCode, &'static str)> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    if !host.is_some_and(|host| hosts.allow(host)) {
        return Some((StatusCode::MISDIRECTED_REQUEST, "this is not the host you asked for\n"));
    }
    let foreign = headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    (foreign && path.starts_with("/api/")).then_some((StatusCode::FORBIDDEN, "not for other sites\n"))
}

#[cfg(test)]
mod tests {
    use super::Hosts;

    #[test]
    fn plain_addresses_localhost_and_our_own_names_are_us_and_other_names_are_not() {
        let hosts = Hosts::new(vec!["Vantage.Example".into()]);
        for host in
            ["localhost", "LOCALHOST:8080", "a.localhost", "127.0.0.1:8080", "192.0.2.1", "[::1]:8080", "[::1]", "vantage.example.:80"]
        {
            assert!(hosts.allow(host), "{host}");
        }
        for host in
            ["", "evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "[evil", "xvantage.example"]
        {
            assert!(!hosts.allow(host), "{host}");
        }
    }
}
