//! Who may call what: one table, asked before any service is.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderMap, Request, Response, header};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use vantage_daemon::{
    access::{Access, Leased, Refusal, Role},
    door::Peer,
};

/// What a call needs, by its path (`/package.Service/Method`). None: nothing. What is not named here is for whoever has a role.
fn needs(path: &str) -> Option<Role> {
    match path.trim_start_matches('/').split('/').next().unwrap_or_default() {
        // Those who ask for health have no secrets, and learn none.
        "grpc.health.v1.Health" => None,
        "vantage.v1.MonitorService" => Some(Role::Manager),
        _ => Some(Role::Admin),
    }
}

/// Puts the guard before services.
#[derive(Clone)]
pub(crate) struct Guarding(pub(crate) Access);

impl<S> Layer<S> for Guarding {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard { access: self.0.clone(), inner }
    }
}

/// Lets through whom the access lets, for as long as it does.
#[derive(Clone)]
pub(crate) struct Guard<S> {
    access: Access,
    inner: S,
}

impl<S> Service<Request<Body>> for Guard<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Leased<Body>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let admitted = match (needs(&path), request.extensions().get::<Peer>()) {
            (None, _) => Ok(None),
            (Some(role), Some(peer)) => {
                let authorization = request.headers().get(header::AUTHORIZATION).map(http::HeaderValue::as_bytes);
                self.access.admit(peer, authorization, role).map(Some).inspect_err(|refusal| {
                    self.access.refuse(peer, refusal, &path, &code_name(code(refusal)));
                })
            }
            // Every connection of ours has one.
            (Some(_), None) => Err(Refusal::NoCertificate),
        };
        match admitted {
            Ok(pass) => {
                // Where nobody is asked, nobody is put out.
                let pass = pass.filter(|_| self.access.asks());
                let answering = self.inner.call(request);
                Box::pin(async move { Ok(answering.await?.map(|body| Leased::new(body, pass, &path, farewell))) })
            }
            Err(refusal) => {
                let answer = status(&refusal).into_http::<Body>().map(|body| Leased::new(body, None, "", farewell));
                Box::pin(async move { Ok(answer) })
            }
        }
    }
}

fn code(refusal: &Refusal) -> Code {
    if refusal.is_unknown() { Code::Unauthenticated } else { Code::PermissionDenied }
}

/// A code as the specification of gRPC spells it: "PERMISSION_DENIED".
pub(crate) fn code_name(code: Code) -> String {
    let mut name = String::new();
    for character in format!("{code:?}").chars() {
        if character.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(character.to_ascii_uppercase());
    }
    name
}

fn status(refusal: &Refusal) -> Status {
    let cure = match refusal {
        Refusal::NoToken | Refusal::WrongToken => " (--token-file, token_file)",
        Refusal::NoCertificate => " (--certificate-file and --key-file, tls.certificate_file and tls.key_file)",
        Refusal::NoRole { .. } | Refusal::Role { .. } | Refusal::NoLonger(_) => "",
    };
    Status::new(code(refusal), format!("{refusal}{cure}"))
}

/// The end of a stream whose caller is no longer accepted.
fn farewell(refusal: &Refusal) -> Option<HeaderMap> {
    let mut trailers = HeaderMap::new();
    // What can't be written as a header is left out: then the stream ends without a status, which clients take for an error.
    status(refusal).add_header(&mut trailers).ok().map(|()| trailers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_spelled_as_in_the_specification() {
        assert_eq!(
            [Code::PermissionDenied, Code::Ok, Code::Unauthenticated].map(code_name),
            ["PERMISSION_DENIED", "OK", "UNAUTHENTICATED"]
        );
    }

    #[test]
    fn to_order_a_manager_is_needed_to_ask_any_role_and_health_is_free() {
        assert_eq!(needs("/vantage.v1.MonitorService/Execute"), Some(Role::Manager));
        assert_eq!(needs("//vantage.v1.MonitorService/Execute"), Some(Role::Manager));
        assert_eq!(needs("/vantage.v1.AdminService/ListClients"), Some(Role::Admin));
        assert_eq!(needs("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"), Some(Role::Admin));
        assert_eq!(needs("/grpc.health.v1.Health/Check"), None);
        for other in ["", "/", "/grpc.health.v1.Healthy/Check", "/x/grpc.health.v1.Health/Check", "/grpc.health.v1.Health%2fx/y"] {
            assert_eq!(needs(other), Some(Role::Admin), "{other}");
        }
    }
}
