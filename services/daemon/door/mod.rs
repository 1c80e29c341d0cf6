//! Where connections come in: accepted, brought over TLS, and handed on with who is on the other side.
//!
//! Everything that a stranger can have of us here is bounded: handshakes in number and time, connections in number.

mod connection;
mod handshakes;
mod peer;

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use rustls::{ProtocolVersion, pki_types::CertificateDer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::{AbortHandle, JoinSet},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;

use crate::{
    access::Access,
    audit::Event,
    clock,
    tls::{certificate::Facts, refused_by_us},
};
pub use connection::Connection;
use connection::Wire;
use handshakes::Handshakes;
pub use peer::Peer;

/// How long a handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// How long who was refused in the handshake has to read why.
const FAREWELL: Duration = Duration::from_secs(1);
/// What of its last words is read meanwhile, so that the answer is not lost with them.
const FAREWELL_BYTES: u64 = 64 * 1024;
/// Connections that wait to be served.
const DEPTH: usize = 16;
/// How long accepting pauses when the process has no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);
/// How often it is looked at least whether a client's certificate is in force still: clocks may be set.
const LOOK: Duration = Duration::from_secs(60);
/// How long who is no longer accepted has to read why before the connection is cut.
const GRACE: Duration = Duration::from_secs(2);

/// What is spoken at a listener, above TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC, over HTTP/2.
    Grpc,
    /// Pages, health and figures, over HTTP/1.1.
    Http,
}

/// How a listener is served.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// What the listener is called in logs and figures.
    pub name: &'static str,
    /// What is spoken.
    pub protocol: Protocol,
    /// Whether over TLS, with what the access has.
    pub tls: bool,
    /// Connections at once; further ones are closed at once.
    pub most_connections: usize,
}

/// The connections of a listener. Dropping it closes the listener, and ends handshakes that are under way.
#[derive(Debug)]
pub struct Incoming {
    connections: mpsc::Receiver<Connection>,
    accepting: AbortHandle,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Incoming {
    /// Begins to accept.
    pub fn open(listener: TcpListener, access: Access, settings: Settings) -> Self {
        let (to, connections) = mpsc::channel(DEPTH);
        let door =
            Arc::new(Door { access, settings, handshakes: Mutex::default(), places: Arc::new(Semaphore::new(settings.most_connections)) });
        let accepting = tokio::spawn(accept(listener, door, to)).abort_handle();
        Self { connections, accepting }
    }

    /// The next connection; none: the listener is gone.
    pub async fn next(&mut self) -> Option<Connection> {
        self.connections.recv().await
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connections.poll_recv(context).map(|connection| connection.map(Ok))
    }
}

struct Door {
    access: Access,
    settings: Settings,
    handshakes: Mutex<Handshakes<CancellationToken>>,
    places: Arc<Semaphore>,
}

async fn accept(listener: TcpListener, door: Arc<Door>, to: mpsc::Sender<Connection>) {
    let name = door.settings.name;
    // They end with the listener.
    let mut handshakes = JoinSet::new();
    loop {
        while handshakes.try_join_next().is_some() {}
        let (tcp, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(listener = name, %error, "accept");
                // What one peer did concerns only that one; want of descriptors passes.
                if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                    tokio::time::sleep(PAUSE).await;
                }
                continue;
            }
        };
        let Ok(place) = Arc::clone(&door.places).try_acquire_owned() else {
            let why = format!("there are {} connections already", door.settings.most_connections);
            refuse_wire(&door.access, &Peer::new(name, address, None, None), "too_many_connections", &why);
            continue;
        };
        // Small messages are not to wait for acknowledgements of those before.
        let _ = tcp.set_nodelay(true);
        if door.settings.tls {
            // It begins here and not in its task: which one is the oldest is decided by who came first.
            let evicted = CancellationToken::new();
            let handshake = Handshake::begin(Arc::clone(&door), address, evicted.clone());
            let (door, to) = (Arc::clone(&door), to.clone());
            handshakes.spawn(async move {
                door.shake_hands(tcp, address, place, to, evicted).await;
                drop(handshake);
            });
        } else {
            let peer = Peer::new(name, address, None, None);
            let connection = Connection::new(Wire::Plain(tcp, false), peer, door.access.clone(), None, place);
            // The server takes connections at once: waiting for it holds up nobody.
            if to.send(connection).await.is_err() {
                return;
            }
        }
    }
}

impl Door {
    async fn shake_hands(
        &self,
        tcp: TcpStream,
        address: SocketAddr,
        place: OwnedSemaphorePermit,
        to: mpsc::Sender<Connection>,
        evicted: CancellationToken,
    ) {
        let stranger = || Peer::new(self.settings.name, address, None, None);
        tokio::select! {
            opened = tokio::time::timeout(HANDSHAKE_TIME, self.open(tcp, address, place)) => match opened {
                Ok(Some(connection)) => drop(to.send(connection).await),
                Ok(None) => {}
                Err(_) => refuse_wire(&self.access, &stranger(), "handshake_timeout", &format!("no handshake within {HANDSHAKE_TIME:?}")),
            },
            () = evicted.cancelled() => refuse_wire(&self.access, &stranger(), "handshake_displaced", "too many handshakes at once, and this is the oldest"),
        }
    }

    /// The connection, if there is one to be had.
    async fn open(&self, tcp: TcpStream, address: SocketAddr, place: OwnedSemaphorePermit) -> Option<Connection> {
        let force = self.access.force();
        let tls = force.tls.as_ref()?;
        let config = match self.settings.protocol {
            Protocol::Grpc => &tls.grpc,
            Protocol::Http => &tls.http,
        };
        let stranger = || Peer::new(self.settings.name, address, None, None);
        let stream = match TlsAcceptor::from(Arc::clone(config)).accept(tcp).into_fallible().await {
            Ok(stream) => stream,
            Err((error, tcp)) => {
                let why = match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                    Some(error) => refused_by_us(error),
                    None => format!("the handshake broke off: {error}"),
                };
                refuse_wire(&self.access, &stranger(), "handshake", &why);
                part(tcp).await;
                return None;
            }
        };
        let version = version(&stream);
        let chain: Option<Vec<CertificateDer<'static>>> = stream.get_ref().1.peer_certificates().map(<[_]>::to_vec);
        let Some(chain) = chain else {
            let peer = Peer::new(self.settings.name, address, Some(version), None);
            return Some(Connection::new(Wire::Tls(Box::new(stream)), peer, self.access.clone(), None, place));
        };
        let facts = match chain.first().map(|der| Facts::read(der)) {
            Some(Ok(facts)) => facts,
            // It was accepted, so another reader could read it: whoever that is, we don't know.
            Some(Err(why)) => {
                refuse_wire(&self.access, &stranger(), "handshake", &why);
                return None;
            }
            None => return None,
        };
        let until = facts.not_after;
        let peer = Peer::new(self.settings.name, address, Some(version), Some(facts));
        let cut = CancellationToken::new();
        let judge = tokio::spawn(judge(self.access.clone(), peer.clone(), chain, until, cut.clone())).abort_handle();
        Some(Connection::new(Wire::Tls(Box::new(stream)), peer, self.access.clone(), Some((judge, cut.cancelled_owned())), place))
    }
}

/// Judges a client's certificate again whenever others are in force and when it ends; one that is no longer accepted is put out.
async fn judge(access: Access, peer: Peer, chain: Vec<CertificateDer<'static>>, until: SystemTime, cut: CancellationToken) {
    let mut changes = access.subscribe();
    // What changed during the handshake.
    changes.mark_changed();
    let why = loop {
        let left = until.duration_since(clock::wall()).unwrap_or_default() + Duration::from_secs(1);
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(left.min(LOOK)) => {}
        }
        let force = Arc::clone(&changes.borrow_and_update());
        let verdict = force.tls.as_ref().map_or(Ok(()), |tls| tls.verify(&chain, clock::wall()));
        if let Err(why) = verdict {
            break why;
        }
    };
    access.audit().tell(Event::Ended, |event| {
        let (listener, address, identity) = (peer.listener(), peer.address(), peer.identity());
        tracing::warn!(target: "audit", event, listener, %address, identity, what = "connection", why, "ended");
    });
    peer.end(why);
    tokio::time::sleep(GRACE).await;
    cut.cancel();
}

/// Tells of somebody who did not come as far as to ask for anything.
fn refuse_wire(access: &Access, peer: &Peer, word: &'static str, why: &str) {
    access.counts().refused(peer.listener(), word);
    access.audit().tell(Event::Refused, |event| {
        let (listener, address) = (peer.listener(), peer.address());
        tracing::warn!(target: "audit", event, listener, %address, what = "connection", code = word, why, "refused");
    });
}

/// Lets the peer read why it was refused: a connection that is closed with something unread loses what was sent.
async fn part(mut tcp: TcpStream) {
    let _ = tokio::time::timeout(FAREWELL, async {
        tcp.shutdown().await?;
        tokio::io::copy(&mut (&mut tcp).take(FAREWELL_BYTES), &mut tokio::io::sink()).await
    })
    .await;
}

fn version(stream: &TlsStream<TcpStream>) -> &'static str {
    match stream.get_ref().1.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "1.2",
        _ => "1.3",
    }
}

/// A handshake in progress, for as long as it lives.
struct Handshake {
    door: Arc<Door>,
    number: u64,
}

impl Handshake {
    fn begin(door: Arc<Door>, address: SocketAddr, end: CancellationToken) -> Self {
        door.access.counts().handshakes(door.settings.name, 1);
        let (number, evicted) = door.handshakes.lock().unwrap_or_else(PoisonError::into_inner).enter(address.ip(), end);
        if let Some(evicted) = evicted {
            evicted.cancel();
        }
        Self { door, number }
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.door.access.counts().handshakes(self.door.settings.name, -1);
        self.door.handshakes.lock().unwrap_or_else(PoisonError::into_inner).leave(self.number);
    }
}

#[cfg(test)]
mod tests;
