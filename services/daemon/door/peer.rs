//! Who is on the other side of a connection.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio_util::sync::CancellationToken;

use crate::{
    access::Role,
    audit::{Audit, Event},
    tls::certificate::Facts,
};

/// Who is on the other side of a connection. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Peer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    listener: &'static str,
    address: SocketAddr,
    /// The version of TLS; none: in the clear.
    tls: Option<&'static str>,
    certificate: Option<Facts>,
    ended: CancellationToken,
    why: OnceLock<String>,
    admitted: AtomicBool,
}

impl Peer {
    pub(crate) fn new(listener: &'static str, address: SocketAddr, tls: Option<&'static str>, certificate: Option<Facts>) -> Self {
        let (ended, why, admitted) = Default::default();
        Self(Arc::new(Inner { listener, address, tls, certificate, ended, why, admitted }))
    }

    /// The listener that it came to.
    pub fn listener(&self) -> &'static str {
        self.0.listener
    }

    /// Where it comes from.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The version of TLS that it speaks: "1.3", "1.2" or "none".
    pub fn tls_version(&self) -> &'static str {
        self.0.tls.unwrap_or("none")
    }

    /// The certificate that it showed, if it did; judged already.
    pub fn certificate(&self) -> Option<&Facts> {
        self.0.certificate.as_ref()
    }

    /// What it is known by, for logs: the subject of its certificate; empty where there is none.
    pub fn identity(&self) -> &str {
        self.0.certificate.as_ref().map(|facts| facts.subject.as_str()).unwrap_or_default()
    }

    /// Why it is no longer accepted, if it is not.
    pub fn why_ended(&self) -> Option<String> {
        self.0.ended.is_cancelled().then(|| self.0.why.get().cloned().unwrap_or_default())
    }

    /// Ends when it is no longer accepted, and says why.
    pub async fn ended(&self) -> String {
        self.0.ended.cancelled().await;
        self.0.why.get().cloned().unwrap_or_default()
    }

    /// It is no longer accepted.
    pub(crate) fn end(&self, why: String) {
        // What was said first stays said.
        let _ = self.0.why.set(why);
        self.0.ended.cancel();
    }

    /// It was let in; told once for each connection.
    pub(crate) fn note_admitted(&self, role: Role, audit: &Audit) {
        if self.0.admitted.swap(true, Ordering::Relaxed) {
            return;
        }
        let fingerprint = self.certificate().map(|facts| facts.fingerprint.as_str()).unwrap_or_default();
        audit.tell(Event::Connected, |event| {
            let (listener, address, identity, tls) = (self.listener(), self.address(), self.identity(), self.tls_version());
            tracing::info!(target: "audit", event, listener, %address, identity, certificate = fingerprint, role = role.word(), tls, "connected");
        });
    }
}
