//! Servers of HTTP/3: honest ones by h3, and others by hand.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::{Buf as _, Bytes};
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream, ServerConfig, VarInt, crypto::rustls::QuicServerConfig};
use tokio::task::{AbortHandle, JoinSet};
use vantage_contract::v1::HttpProbe;

use super::tls::{Authority, Leaf};

/// A server, until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    endpoint: Endpoint,
    task: AbortHandle,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) head: http::Request<()>,
    pub(crate) body: Vec<u8>,
    /// The name that was asked for in the handshake.
    pub(crate) server_name: Option<String>,
    /// Where it came from, and to which local address.
    pub(crate) from: SocketAddr,
}

impl Server {
    /// Answers each request with what the script makes of it.
    pub(crate) async fn answering<S>(authority: &Authority, script: S) -> Self
    where
        S: Fn(&Asked) -> http::Response<Vec<u8>> + Send + Sync + 'static,
    {
        Self::answering_at("127.0.0.1:0", authority, &Leaf::default(), script).await
    }

    /// The same, at an address and with a certificate.
    pub(crate) async fn answering_at<S>(at: &str, authority: &Authority, leaf: &Leaf<'_>, script: S) -> Self
    where
        S: Fn(&Asked) -> http::Response<Vec<u8>> + Send + Sync + 'static,
    {
        let script = Arc::new(script);
        Self::at(at, config(authority, leaf, "h3"), move |incoming| {
            let script = script.clone();
            async move {
                // Whoever does not like the certificate leaves.
                let Ok(connection) = incoming.await else { return };
                let _ = answer_all(connection, &*script).await;
            }
        })
        .await
    }

    /// Hands each established connection to a script.
    pub(crate) async fn scripted<S, F>(authority: &Authority, script: S) -> Self
    where
        S: Fn(Connection) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let script = Arc::new(script);
        Self::at("127.0.0.1:0", config(authority, &Leaf::default(), "h3"), move |incoming| {
            let script = script.clone();
            async move {
                if let Ok(connection) = incoming.await {
                    script(connection).await;
                }
            }
        })
        .await
    }

    /// Sends these bytes on the stream of the first request, once it has read it, after settings and before the script for what follows.
    pub(crate) async fn saying<S, F>(authority: &Authority, answer: Vec<u8>, then: S) -> Self
    where
        S: Fn(SendStream, RecvStream, Connection) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (answer, then) = (Arc::new(answer), Arc::new(then));
        Self::scripted(authority, move |connection| {
            let (answer, then) = (answer.clone(), then.clone());
            async move {
                let _control = settle(&connection).await;
                let Ok((mut sender, mut receiver)) = connection.accept_bi().await else { return };
                let _ = receiver.read_to_end(1 << 20).await;
                let _ = sender.write_all(&answer).await;
                then(sender, receiver, connection.clone()).await;
                connection.closed().await;
            }
        })
        .await
    }

    /// Hands each connection that begins to a script.
    pub(crate) async fn at<S, F>(at: &str, config: ServerConfig, script: S) -> Self
    where
        S: Fn(Incoming) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let endpoint = Endpoint::server(config, at.parse().unwrap()).unwrap();
        let address = endpoint.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (counter, accepting) = (connections.clone(), endpoint.clone());
        let task = tokio::spawn(async move {
            let mut scripts = JoinSet::new();
            while let Some(incoming) = accepting.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                scripts.spawn(script(incoming));
            }
        });
        Self { address, connections, endpoint, task: task.abort_handle() }
    }

    /// A probe of `/` on it.
    pub(crate) fn get(&self, authority: &Authority) -> HttpProbe {
        HttpProbe { url: format!("https://{}/", self.address), version: 30, tls: Some(authority.options()), ..HttpProbe::default() }
    }

    /// How many connections were begun.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        self.endpoint.close(VarInt::from_u32(0), b"");
    }
}

/// A server's side of QUIC with this certificate, offering one protocol.
pub(crate) fn config(authority: &Authority, leaf: &Leaf<'_>, alpn: &str) -> ServerConfig {
    let acceptor = authority.acceptor(leaf, &[alpn]);
    ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(acceptor.config().clone()).unwrap()))
}

async fn answer_all<S>(connection: Connection, script: &S) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    S: Fn(&Asked) -> http::Response<Vec<u8>>,
{
    let from = connection.remote_address();
    let data = connection.handshake_data().and_then(|data| data.downcast::<quinn::crypto::rustls::HandshakeData>().ok());
    let server_name = data.and_then(|data| data.server_name);
    let mut requests = h3::server::Connection::<_, Bytes>::new(h3_quinn::Connection::new(connection)).await?;
    while let Some(request) = requests.accept().await? {
        let (head, mut stream) = request.resolve_request().await?;
        let mut body = Vec::new();
        while let Some(mut chunk) = stream.recv_data().await? {
            body.extend_from_slice(&chunk.copy_to_bytes(chunk.remaining()));
        }
        let (head, body) = script(&Asked { head, body, server_name: server_name.clone(), from }).into_parts();
        stream.send_response(http::Response::from_parts(head, ())).await?;
        if !body.is_empty() {
            stream.send_data(body.into()).await?;
        }
        stream.finish().await?;
    }
    Ok(())
}

/// Opens the control stream with empty settings. It has to be kept.
pub(crate) async fn settle(connection: &Connection) -> Option<SendStream> {
    let mut control = connection.open_uni().await.ok()?;
    control.write_all(&[0, 4, 0]).await.ok()?;
    Some(control)
}

/// An answer with a body, without further ado.
pub(crate) fn ok(body: impl Into<Vec<u8>>) -> http::Response<Vec<u8>> {
    http::Response::new(body.into())
}

/// A redirect.
pub(crate) fn redirect(location: &str) -> http::Response<Vec<u8>> {
    http::Response::builder().status(302).header("location", location).body(Vec::new()).unwrap()
}

/// A frame (RFC 9114 section 7.1).
pub(crate) fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    [&integer(kind), &integer(payload.len() as u64), payload].concat()
}

/// A frame of HEADERS with these fields, the status among them.
pub(crate) fn headers(fields: &[(&str, &str)]) -> Vec<u8> {
    // No reference to a dynamic table (RFC 9204 section 4.5.1).
    let mut block = vec![0, 0];
    for (name, value) in fields {
        // A literal field line with a literal name (section 4.5.6), nothing compressed.
        prefixed(&mut block, 0x20, 3, name.len());
        block.extend_from_slice(name.as_bytes());
        prefixed(&mut block, 0, 7, value.len());
        block.extend_from_slice(value.as_bytes());
    }
    frame(1, &block)
}

/// A frame of DATA.
pub(crate) fn data(payload: &[u8]) -> Vec<u8> {
    frame(0, payload)
}

/// An integer of QUIC (RFC 9000 section 16), in eight bytes where one is too few.
pub(crate) fn integer(value: u64) -> Vec<u8> {
    if value < 64 { vec![u8::try_from(value).unwrap()] } else { (value | 0xc000_0000_0000_0000).to_be_bytes().to_vec() }
}

/// An integer that begins within a byte (RFC 7541 section 5.1).
fn prefixed(block: &mut Vec<u8>, above: u8, bits: u32, value: usize) {
    let most = (1 << bits) - 1;
    if value < most {
        block.push(above | u8::try_from(value).unwrap());
        return;
    }
    block.push(above | u8::try_from(most).unwrap());
    let mut rest = value - most;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
}
