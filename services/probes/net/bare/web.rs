//! Bare loops of web requests: connect, ask, read the answer, close, one after the other over blocking sockets. Nothing is judged but
//! the certificate.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    client::Resumption,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    version::TLS13,
};

use super::{PATIENCE, Tally, repeat};

/// How long an answer is waited for: whoever answers may be short of processor time.
const ANSWER: Duration = PATIENCE.saturating_mul(25);

/// The request of the loops, as the probes send it.
fn request(server: SocketAddr) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nuser-agent: bare\r\naccept: */*\r\nhost: {server}\r\n\r\n").into_bytes()
}

/// Asks an HTTP server (RFC 9112) for `time`, on a connection of its own each time. What is answered with 200 counts.
pub fn http(server: SocketAddr, time: Duration) -> io::Result<Tally> {
    let request = request(server);
    repeat(time, |tally| ask(connect(server)?, &request, tally))
}

/// How the TLS of a loop is done: version 1.3 alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshakes {
    /// A full one each time.
    Full,
    /// Each one resumes the session before (RFC 8446 section 2.2).
    Resumed,
}

/// Asks an HTTPS server in the same way; its certificate is judged by the authority in `root`, in PEM form.
pub fn https(server: SocketAddr, root: &[u8], handshakes: Handshakes, time: Duration) -> io::Result<Tally> {
    let (config, request) = (Arc::new(configure(root, handshakes)?), request(server));
    repeat(time, |tally| {
        let name = ServerName::from(server.ip());
        let session = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        ask(StreamOwned::new(session, connect(server)?), &request, tally)
    })
}

fn configure(root: &[u8], handshakes: Handshakes) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root).map_err(io::Error::other)?).map_err(io::Error::other)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_protocol_versions(&[&TLS13]).map_err(io::Error::other)?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    if handshakes == Handshakes::Full {
        config.resumption = Resumption::disabled();
    }
    Ok(config)
}

fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER))?;
    Ok(stream)
}

fn ask(mut stream: impl Read + Write, request: &[u8], tally: &mut Tally) -> io::Result<()> {
    tally.sent += 1;
    stream.write_all(request)?;
    let (mut answer, mut length) = ([0; 4096], 0);
    while !is_whole(answer.get(..length).unwrap_or_default()) {
        match stream.read(answer.get_mut(length..).unwrap_or_default()) {
            Ok(0) => return Ok(()),
            Ok(more) => length += more,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    tally.answered += u64::from(answer.starts_with(b"HTTP/1.1 200"));
    Ok(())
}

/// Whether a head and as much of a body as it says are there.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(answer.get(..end).unwrap_or_default());
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse::<usize>().ok());
    answer.len() >= end + 4 + length.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_head_and_as_much_of_a_body_as_that_says() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";
        assert!(is_whole(answer));
        assert!((0..answer.len()).all(|cut| !is_whole(&answer[..cut])));
        assert!(is_whole(b"HTTP/1.1 204 No Content\r\n\r\n"));
    }
}
