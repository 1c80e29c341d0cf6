//! What was allowed once is allowed no longer than its reasons hold.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::{Access, Force, Refusal, Role, tokens::Hash};
use crate::door::Peer;

/// That somebody was allowed something.
#[derive(Debug, Clone)]
pub struct Pass {
    pub(super) access: Access,
    pub(super) peer: Peer,
    pub(super) token: Option<Hash>,
    pub(super) has_header: bool,
    pub(super) needs: Role,
}

impl Pass {
    /// Who has it.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Whether they are allowed it by what is in force: the role that they have.
    pub(super) fn check(&self, force: &Force) -> Result<Role, Refusal> {
        if let Some(why) = self.peer.why_ended() {
            return Err(Refusal::NoLonger(why));
        }
        let mut has = Role::Manager;
        if force.wants_certificates() {
            let facts = self.peer.certificate().ok_or(Refusal::NoCertificate)?;
            has = force.roles.of(facts).ok_or_else(|| Refusal::NoRole { subject: facts.subject.clone() })?;
        }
        if !force.tokens.is_empty() {
            let role = self.token.as_ref().and_then(|token| force.tokens.role_of(token));
            has = has.min(role.ok_or(if self.has_header { Refusal::WrongToken } else { Refusal::NoToken })?);
        }
        if has < self.needs { Err(Refusal::Role { has, needs: self.needs }) } else { Ok(has) }
    }

    /// Ends when they are allowed it no more, and says why.
    pub async fn ended(self) -> Refusal {
        let mut changes = self.access.subscribe();
        // What changed since it was given.
        changes.mark_changed();
        loop {
            tokio::select! {
                why = self.peer.ended() => return Refusal::NoLonger(why),
                changed = changes.changed() => {
                    if changed.is_err() {
                        return Refusal::NoLonger("the process ends".to_owned());
                    }
                    let force = Arc::clone(&changes.borrow_and_update());
                    if let Err(refusal) = self.check(&force) {
                        return match refusal {
                            Refusal::NoLonger(_) => refusal,
                            other => Refusal::NoLonger(other.to_string()),
                        };
                    }
                }
            }
        }
    }

    /// Tells that what went on for them was ended.
    fn tell_end(&self, refusal: &Refusal, what: &str) {
        self.access.audit().tell(crate::audit::Event::Ended, |event| {
            let (peer, identity) = (&self.peer, self.peer.identity());
            tracing::warn!(target: "audit", event, listener = peer.listener(), address = %peer.address(), identity, what, why = %refusal, "ended");
        });
    }
}

type Ended = Pin<Box<dyn Future<Output = Refusal> + Send>>;

/// The body of an answer that ends when whoever gets it is allowed it no more.
pub struct Leased<B> {
    body: B,
    lease: Option<(Ended, Pass, String)>,
    /// What to say at the end: trailers, or nothing.
    farewell: fn(&Refusal) -> Option<HeaderMap>,
    over: bool,
}

impl<B> Leased<B> {
    /// A body for as long as `pass` holds; without one, to its own end.
    pub fn new(body: B, pass: Option<Pass>, what: &str, farewell: fn(&Refusal) -> Option<HeaderMap>) -> Self {
        let lease = pass.map(|pass| {
            let ended: Ended = Box::pin(pass.clone().ended());
            (ended, pass, what.to_owned())
        });
        Self { body, lease, farewell, over: false }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Leased<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        if this.over {
            return Poll::Ready(None);
        }
        if let Some((ended, pass, what)) = &mut this.lease
            && let Poll::Ready(refusal) = ended.as_mut().poll(context)
        {
            pass.tell_end(&refusal, what);
            this.over = true;
            return Poll::Ready((this.farewell)(&refusal).map(|trailers| Ok(Frame::trailers(trailers))));
        }
        Pin::new(&mut this.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
