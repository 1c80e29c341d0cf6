//! Being let through by a proxy, on a connection to it: CONNECT (RFC 9110 section 9.3.6) and SOCKS 5 (RFC 1928).

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use vantage_contract::v1::{Attribution, Reason};
use zeroize::Zeroizing;

use crate::{
    failure::{Failure, Moment},
    wire::{
        socks::{self, Method},
        tunnel,
    },
};

/// Who is asking a proxy.
#[derive(Clone, Copy)]
pub(crate) struct Login<'a> {
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
}

/// Why a proxy does not let us through.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The connection to it broke.
    Broken(io::Error),
    /// It said so, or something that can't be understood.
    Said {
        /// What that means.
        reason: Reason,
        /// Whose fault it is.
        attribution: Attribution,
        /// In its words, and ours.
        words: String,
    },
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl Refusal {
    fn said(reason: Reason, words: impl Into<String>) -> Self {
        // What the check says of who is asking is wrong, or missing: nobody has asked the target.
        let attribution = if reason == Reason::NotAuthenticated { Attribution::Request } else { Attribution::Path };
        Self::Said { reason, attribution, words: words.into() }
    }

    fn malformed(words: impl Into<String>) -> Self {
        Self::said(Reason::MalformedAnswer, words)
    }

    /// The failure of a run that wanted to `act`.
    pub(crate) fn failure(self, act: &str) -> Failure {
        match self {
            Self::Broken(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Failure::new(Reason::Disconnected, Attribution::Path, format!("{act}: it closed the connection without an answer"))
            }
            Self::Broken(error) => {
                let failure = Failure::of_io(act, &error, Moment::Later);
                let attribution = if failure.attribution == Attribution::Target { Attribution::Path } else { failure.attribution };
                Failure { attribution, ..failure }
            }
            Self::Said { reason, attribution, words } => Failure::new(reason, attribution, format!("{act}: {words}")),
        }
    }
}

/// Asks for a tunnel to `target`, which is host:port. `basic` are the credentials of basic authentication.
pub(crate) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, target: &str, basic: Option<&str>) -> Result<(), Refusal> {
    let login = Zeroizing::new(basic.map(|basic| format!("Proxy-Authorization: Basic {basic}\r\n")).unwrap_or_default());
    let agent = concat!("User-Agent: vantage/", env!("CARGO_PKG_VERSION"));
    let request = Zeroizing::new(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{agent}\r\n{}\r\n", *login));
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut came = Vec::with_capacity(1024);
    loop {
        match tunnel::head(&came).map_err(Refusal::malformed)? {
            // Interim answers are as long as their heads; all together are bounded as one.
            Some(head) if (100..200).contains(&head.status) => {
                came.drain(..head.length);
                if came.is_empty() {
                    read_more(stream, &mut came).await?;
                }
            }
            Some(head) if (200..300).contains(&head.status) => {
                if came.len() > head.length {
                    return Err(Refusal::malformed("it sends more than an answer, and nobody has said anything to the target yet"));
                }
                return Ok(());
            }
            Some(head) => return Err(refused(&head, basic.is_some())),
            None => read_more(stream, &mut came).await?,
        }
    }
}

async fn read_more<S: AsyncRead + Unpin>(stream: &mut S, came: &mut Vec<u8>) -> Result<(), Refusal> {
    let room = (tunnel::MAX_HEAD + 1).saturating_sub(came.len()).min(4096);
    let mut chunk = [0; 4096];
    let read = stream.read(chunk.get_mut(..room).unwrap_or_default()).await?;
    if read == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    came.extend_from_slice(chunk.get(..read).unwrap_or_default());
    Ok(())
}

/// What a status means, unless the proxy says it better (RFC 9209 section 2.3).
fn refused(head: &tunnel::Head, was_named: bool) -> Refusal {
    let reason = match (head.error.as_str(), head.status) {
        ("dns_error" | "dns_timeout", _) => Reason::NameNotResolved,
        ("connection_refused", _) => Reason::Refused,
        ("connection_timeout" | "http_response_timeout", _) => Reason::TimedOut,
        ("destination_ip_prohibited" | "http_request_denied", _) => Reason::Prohibited,
        ("destination_ip_unroutable" | "destination_not_found" | "destination_unavailable", _) => Reason::Unreachable,
        (_, 407) => Reason::NotAuthenticated,
        (_, 403 | 405 | 451) => Reason::Prohibited,
        (_, 504) => Reason::TimedOut,
        (_, 502 | 503) => Reason::Unreachable,
        _ => Reason::UnexpectedAnswer,
    };
    let mut words = format!("it answers with status {}", head.status);
    if !head.words.is_empty() {
        words.push_str(&format!(" ({})", head.words));
    }
    if reason == Reason::NotAuthenticated {
        words.push_str(if was_named { ": it does not accept user and password" } else { ": it wants to know who is asking" });
    }
    Refusal::said(reason, words)
}

/// Asks for a connection to `target`.
pub(crate) async fn socks<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    target: socks::Target<'_>,
    login: Option<Login<'_>>,
) -> Result<(), Refusal> {
    stream.write_all(&socks::greeting(login.is_some())).await?;
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await?;
    match (socks::method(answer).map_err(Refusal::malformed)?, login) {
        (Method::Open, _) => {}
        (Method::Login, Some(Login { user, password })) => {
            stream.write_all(&Zeroizing::new(socks::login(user, password))).await?;
            stream.read_exact(&mut answer).await?;
            if !socks::is_accepted(answer) {
                return Err(Refusal::said(Reason::NotAuthenticated, "it does not accept user and password"));
            }
        }
        (Method::Login, None) => return Err(Refusal::malformed("it chose method 2, which was not offered")),
        (Method::None, Some(_)) => return Err(Refusal::said(Reason::NotAuthenticated, "it takes neither user and password nor nobody")),
        (Method::None, None) => return Err(Refusal::said(Reason::NotAuthenticated, "it wants to know who is asking")),
    }
    stream.write_all(&socks::request(target)).await?;
    let mut head = [0; socks::HEAD];
    stream.read_exact(&mut head).await?;
    let (code, rest) = socks::answer(head).map_err(Refusal::malformed)?;
    // Some cut the answer short where it is a refusal.
    if code == 0 {
        let mut address = [0; 255 + 2];
        stream.read_exact(address.get_mut(..rest).unwrap_or_default()).await?;
        return Ok(());
    }
    let reason = match code {
        2 => Reason::Prohibited,
        // Also the general failure, which is all that many say when they can't get there.
        1 | 3 | 4 | 6 => Reason::Unreachable,
        5 => Reason::Refused,
        _ => Reason::UnexpectedAnswer,
    };
    Err(Refusal::said(reason, format!("it answers: {}", socks::words(code))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a request that is answered with these bytes, and then with silence or the end.
    async fn answered(protocol: &str, bytes: &[u8]) -> Result<(), (Reason, Attribution, String)> {
        let (mut near, mut far) = tokio::io::duplex(64 << 10);
        far.write_all(bytes).await.unwrap();
        // The end of what it says, though it still listens.
        far.shutdown().await.unwrap();
        let login = Login { user: "joe", password: "hunter2" };
        let result = match protocol {
            "connect" => connect(&mut near, "192.0.2.1:443", None).await,
            "socks" => socks(&mut near, socks::Target::Name("a.example", 443), None).await,
            _ => socks(&mut near, socks::Target::Name("a.example", 443), Some(login)).await,
        };
        result.map_err(|refusal| refusal.failure("act")).map_err(|failure| (failure.reason, failure.attribution, failure.sentence))
    }

    #[tokio::test]
    async fn a_status_of_connect_means_what_it_says() {
        assert_eq!(answered("connect", b"HTTP/1.1 200 OK\r\n\r\n").await, Ok(()));
        assert_eq!(answered("connect", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 Fine\r\n\r\n").await, Ok(()));
        for (answer, reason, attribution) in [
            ("HTTP/1.1 403 Forbidden\r\n\r\n", Reason::Prohibited, Attribution::Path),
            ("HTTP/1.1 407 Who\r\n\r\n", Reason::NotAuthenticated, Attribution::Request),
            ("HTTP/1.1 502 Bad\r\n\r\n", Reason::Unreachable, Attribution::Path),
            ("HTTP/1.1 502 Bad\r\nProxy-Status: p; error=connection_refused\r\n\r\n", Reason::Refused, Attribution::Path),
            ("HTTP/1.1 504 Late\r\n\r\n", Reason::TimedOut, Attribution::Path),
            ("HTTP/1.1 302 There\r\n\r\n", Reason::UnexpectedAnswer, Attribution::Path),
            ("HTTP/1.1 200 OK\r\n\r\nhello", Reason::MalformedAnswer, Attribution::Path),
            ("SSH-2.0-x\r\n", Reason::MalformedAnswer, Attribution::Path),
            ("HTTP/1.1 200", Reason::Disconnected, Attribution::Path),
            ("", Reason::Disconnected, Attribution::Path),
        ] {
            let (seen, whose, sentence) = answered("connect", answer.as_bytes()).await.unwrap_err();
            assert_eq!((seen, whose), (reason, attribution), "{answer:?}: {sentence}");
        }
    }

    #[tokio::test]
    async fn a_code_of_socks_means_what_it_says() {
        let granted = [5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(answered("socks", &granted).await, Ok(()));
        assert_eq!(answered("login", &[&[5, 2, 1, 0], &granted[2..]].concat()).await, Ok(()));
        let codes = [
            (1, Reason::Unreachable),
            (2, Reason::Prohibited),
            (3, Reason::Unreachable),
            (4, Reason::Unreachable),
            (5, Reason::Refused),
            (6, Reason::Unreachable),
            (7, Reason::UnexpectedAnswer),
            (99, Reason::UnexpectedAnswer),
        ];
        for (code, reason) in codes {
            let (seen, whose, sentence) = answered("socks", &[5, 0, 5, code, 0, 1, 0]).await.unwrap_err();
            assert_eq!((seen, whose), (reason, Attribution::Path), "{sentence}");
        }
        for (protocol, bytes, reason) in [
            ("login", &[5, 2, 1, 1][..], Reason::NotAuthenticated),
            ("login", &[5, 255], Reason::NotAuthenticated),
            ("socks", &[5, 255], Reason::NotAuthenticated),
            ("socks", &[5, 2], Reason::MalformedAnswer),
            ("socks", b"HTTP/1.1 400 Bad\r\n", Reason::MalformedAnswer),
            ("socks", &[5, 0, 5, 0, 0, 9, 0], Reason::MalformedAnswer),
            ("socks", &[5, 0, 5, 0], Reason::Disconnected),
        ] {
            let (seen, _, sentence) = answered(protocol, bytes).await.unwrap_err();
            assert_eq!(seen, reason, "{bytes:?}: {sentence}");
            assert!(!sentence.contains("hunter2"));
        }
    }

    #[tokio::test]
    async fn an_endless_head_is_cut_off() {
        let endless = format!("HTTP/1.1 200 OK\r\n{}", "a: b\r\n".repeat(8000));
        let (reason, _, sentence) = answered("connect", endless.as_bytes()).await.unwrap_err();
        assert_eq!(reason, Reason::MalformedAnswer);
        assert!(sentence.contains("longer than 16 KiB"), "{sentence}");
    }
}
