//! Scripted servers over TCP: each connection is handed to a script.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

/// A server, until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Server {
    /// Serves on a port of its own on `address`; each connection is handed to the script, with its number from 0.
    pub(crate) async fn on<S, F>(address: &str, script: S) -> Self
    where
        S: Fn(TcpStream, usize) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = connections.clone();
        let serving = async move {
            let mut scripts = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                scripts.spawn(script(stream, counter.fetch_add(1, Ordering::SeqCst)));
            }
        };
        Self { address, connections, task: tokio::spawn(serving).abort_handle() }
    }

    /// Serves on 127.0.0.1.
    pub(crate) async fn start<S, F>(script: S) -> Self
    where
        S: Fn(TcpStream, usize) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Self::on("127.0.0.1", script).await
    }

    /// Reads a request, answers with these bytes, and closes.
    pub(crate) async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = Arc::new(answer.into());
        Self::start(move |mut stream, _| {
            let answer = answer.clone();
            async move {
                read_request(&mut stream).await;
                let _ = stream.write_all(&answer).await;
                finish(stream).await;
            }
        })
        .await
    }

    /// Reads a request, answers with these bytes, and then keeps the connection open in silence.
    pub(crate) async fn stalling_after(answer: impl Into<Vec<u8>>) -> Self {
        let answer = Arc::new(answer.into());
        Self::start(move |mut stream, _| {
            let answer = answer.clone();
            async move {
                read_request(&mut stream).await;
                let _ = stream.write_all(&answer).await;
                std::future::pending::<()>().await;
            }
        })
        .await
    }

    /// Answers each request, as head and body, with what the script makes of it and its number from 0; keeps the requests.
    pub(crate) async fn scripted<S>(script: S) -> (Self, Requests)
    where
        S: Fn(&str, usize) -> String + Send + Sync + 'static,
    {
        let requests = Requests::default();
        let kept = requests.clone();
        let script = Arc::new(script);
        let server = Self::start(move |mut stream, number| {
            let (kept, script) = (kept.clone(), script.clone());
            async move {
                let request = read_request(&mut stream).await;
                let answer = script(&request, number);
                kept.push(request);
                let _ = stream.write_all(answer.as_bytes()).await;
                finish(stream).await;
            }
        })
        .await;
        (server, requests)
    }

    /// Answers the requests of each connection, one after the other, with what the script makes of them: a request with its body, the number of
    /// its connection and its number on that, both from 0. None closes the connection without an answer.
    pub(crate) async fn keeping<S>(script: S) -> (Self, Requests)
    where
        S: Fn(&str, usize, usize) -> Option<Vec<u8>> + Send + Sync + 'static,
    {
        let requests = Requests::default();
        let kept = requests.clone();
        let script = Arc::new(script);
        let server = Self::start(move |mut stream, connection| {
            let (kept, script) = (kept.clone(), script.clone());
            async move {
                for number in 0.. {
                    let request = read_request(&mut stream).await;
                    if request.is_empty() {
                        return;
                    }
                    let answer = script(&request, connection, number);
                    kept.push(request);
                    match answer {
                        Some(answer) => drop(stream.write_all(&answer).await),
                        None => return,
                    }
                }
            }
        })
        .await;
        (server, requests)
    }

    /// The URL of a path on it.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The requests that a server has read.
#[derive(Clone, Default)]
pub(crate) struct Requests(Arc<Mutex<Vec<String>>>);

impl Requests {
    pub(crate) fn push(&self, request: String) {
        self.0.lock().unwrap().push(request);
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// Reads a request with its body, as its Content-Length says. What came so far where the client leaves.
pub(crate) async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return text;
        }
    }
}

/// Ends in good order, and waits for the client to do the same.
pub(crate) async fn finish(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let _ = stream.shutdown().await;
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
}

/// Ends with a reset.
pub(crate) fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// An answer with this body.
pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// An answer with this body in a content coding.
pub(crate) fn coded(coding: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A redirect.
pub(crate) fn redirect(status: u16, location: &str) -> String {
    format!("HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
}
