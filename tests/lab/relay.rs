//! A link that can be cut in silence: a relay on loopback that stops passing bytes on, and keeps its connections.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// A relay to one address. It is gone when this is dropped.
pub(crate) struct Relay {
    pub(crate) port: u16,
    passing: Arc<watch::Sender<bool>>,
    accepting: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Relay {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let passing = Arc::new(watch::Sender::new(true));
        let watched = Arc::clone(&passing);
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let watched = Arc::clone(&watched);
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(target).await else { return };
                    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                    tokio::spawn(pass(near_in, far_out, watched.subscribe()));
                    pass(far_in, near_out, watched.subscribe()).await;
                });
            }
        });
        Self { port, passing, accepting }
    }

    /// Passes nothing on any more, and says nothing about it.
    pub(crate) fn cut(&self) {
        self.passing.send_replace(false);
    }

    /// Passes on again, in old connections too.
    pub(crate) fn mend(&self) {
        self.passing.send_replace(true);
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut passing: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if passing.wait_for(|passing| *passing).await.is_err() || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
