//! What a proxy answers to CONNECT (RFC 9110 section 9.3.6): a head, and then it is a tunnel.

use super::text::escape;

/// The longest head, and the most fields in it.
pub const MAX_HEAD: usize = 16 << 10;
const MAX_FIELDS: usize = 100;
/// How much of what the proxy says for itself is told.
const MAX_WORDS: usize = 120;

/// The head of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The status.
    pub status: u16,
    /// Why, as the proxy says it: by `Proxy-Status` (RFC 9209), squid's `X-Squid-Error`, or the reason phrase. Escaped; may be empty.
    pub words: String,
    /// The type of error that `Proxy-Status` names (RFC 9209 section 2.3). Empty: none.
    pub error: String,
    /// How long the head is.
    pub length: usize,
}

/// Reads the head from the beginning of what came. `Ok(None)`: it is not whole yet. The error says what is wrong with it.
pub fn head(bytes: &[u8]) -> Result<Option<Head>, String> {
    let begin = b"HTTP/1.";
    if bytes.iter().zip(begin).any(|(came, expected)| came != expected) {
        let shown = bytes.get(..bytes.len().min(32)).unwrap_or_default();
        return Err(format!("its answer is not HTTP, it begins with \"{}\"", escape(shown)));
    }
    let end = bytes.windows(2).position(|pair| pair == b"\n\n").map(|at| at + 2);
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4).into_iter().chain(end).min();
    let Some(end) = end else {
        return if bytes.len() < MAX_HEAD {
            Ok(None)
        } else {
            Err(format!("the head of its answer is longer than {} KiB", MAX_HEAD >> 10))
        };
    };
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let bytes = bytes.get(..end).unwrap_or_default();
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => {
            let field = |name: &str| {
                let found = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value);
                found.filter(|value| !value.is_empty())
            };
            let status = field("proxy-status");
            let reason = response.reason.map(str::as_bytes);
            let words = status.or_else(|| field("x-squid-error")).or(reason).unwrap_or_default();
            Ok(Some(Head {
                status: response.code.unwrap_or_default(),
                words: escape(words.get(..words.len().min(MAX_WORDS)).unwrap_or_default()),
                error: status.and_then(error).unwrap_or_default(),
                length,
            }))
        }
        Ok(httparse::Status::Partial) => Err("the head of its answer is broken".to_owned()),
        Err(error) => Err(format!("its answer is not HTTP: {error}")),
    }
}

/// The token after `error=`.
fn error(status: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(status).ok()?;
    let (_, rest) = text.split_once("error=")?;
    let token: String = rest.chars().take_while(|letter| letter.is_ascii_lowercase() || *letter == '_').take(40).collect();
    (!token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<(u16, String, String)>, String> {
        head(text.as_bytes()).map(|head| head.map(|head| (head.status, head.words, head.error)))
    }

    #[test]
    fn a_head_is_read_when_it_is_whole() {
        // squid 5.7.
        let whole = "HTTP/1.1 503 Service Unavailable\r\nServer: squid/5.7\r\nX-Squid-Error: ERR_CONNECT_FAIL 111\r\nContent-Length: 5\r\n\r\nhello";
        for cut in 0..whole.len() - 5 {
            assert_eq!(read(&whole[..cut]), Ok(None), "{cut}");
        }
        assert_eq!(read(whole), Ok(Some((503, "ERR_CONNECT_FAIL 111".into(), String::new()))));
        assert_eq!(head(whole.as_bytes()).unwrap().unwrap().length, whole.len() - 5);
        assert_eq!(read("HTTP/1.0 200 Connection established\r\n\r\n"), Ok(Some((200, "Connection established".into(), String::new()))));
        let said = "HTTP/1.1 502 Bad Gateway\r\nProxy-Status: edge; error=connection_refused\r\n\r\n";
        assert_eq!(read(said), Ok(Some((502, "edge; error=connection_refused".into(), "connection_refused".into()))));
    }

    #[test]
    fn what_is_not_http_is_known_by_its_first_byte_and_an_endless_head_by_its_length() {
        assert!(read("S").unwrap_err().contains("begins with \"S\""));
        assert!(read("HTTP/2 200\r\n\r\n").unwrap_err().contains("not HTTP"));
        assert!(read("HTTP/1.1 abc\r\n\r\n").unwrap_err().contains("not HTTP"));
        assert!(read(&format!("HTTP/1.1 200 OK\r\n{}", "a: b\r\n".repeat(4000))).unwrap_err().contains("longer than 16 KiB"));
        assert!(read(&format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(200))).is_err());
    }
}
