//! PostgreSQL, MySQL and MariaDB.

use bytes::Buf as _;

use super::{MAX_EXCERPT, Talk};
use crate::{
    failure::Failure,
    wire::{
        mysql::{Greeting, SSL_REQUEST},
        text::escape,
    },
};

/// SSLRequest (PostgreSQL, "Message Formats"): 8 bytes in all, and the number 80877103.
const POSTGRES_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// The longest message of an error that is read.
const MAX_ERROR: usize = 16 << 10;

pub(super) async fn postgres(talk: &mut Talk<'_, '_>) -> Result<(), Failure> {
    let what = "the answer to SSLRequest";
    talk.send(&POSTGRES_REQUEST, "SSLRequest").await?;
    talk.more(what).await?;
    match talk.came.first() {
        Some(b'S') => {
            talk.came.advance(1);
            Ok(())
        }
        Some(b'N') => Err(talk.unexpected("the server does not offer TLS")),
        // Servers that are too old to know the question, or too busy for any.
        Some(b'E') => loop {
            if let Some(message) = error(&talk.came) {
                return Err(talk.unexpected(format!("the answer to SSLRequest is an error: \"{message}\"")));
            }
            if talk.came.len() > MAX_ERROR {
                return Err(talk.malformed(what, "PostgreSQL"));
            }
            talk.more(what).await?;
        },
        _ => Err(talk.malformed(what, "PostgreSQL")),
    }
}

/// The words of an ErrorResponse, once it is whole: fields of a letter and a text, that of the words is M. Those before 7.4 had the text alone.
fn error(message: &[u8]) -> Option<String> {
    let (length, rest) = message.get(1..)?.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let shown = |text: &[u8]| escape(text.get(..text.len().min(MAX_EXCERPT)).unwrap_or_default());
    if (5..MAX_ERROR).contains(&length) {
        let mut fields = rest.get(..length - 4)?.split(|byte| *byte == 0);
        return Some(shown(fields.find_map(|field| field.strip_prefix(b"M")).unwrap_or_default()));
    }
    let text = message.get(1..)?;
    Some(shown(text.get(..text.iter().position(|byte| *byte == 0)?)?))
}

pub(super) async fn mysql(talk: &mut Talk<'_, '_>) -> Result<(), Failure> {
    let what = "the greeting";
    let offers_tls = loop {
        match Greeting::decode(&talk.came) {
            Err(_) => return Err(talk.malformed(what, "MySQL")),
            Ok(None) => talk.more(what).await?,
            Ok(Some((Greeting::Refusal { code, words }, _))) => {
                let words = escape(words.get(..words.len().min(MAX_EXCERPT)).unwrap_or_default());
                return Err(talk.unexpected(format!("the greeting is the error {code}: \"{words}\"")));
            }
            Ok(Some((Greeting::Welcome { offers_tls, .. }, length))) => {
                talk.came.advance(length);
                break offers_tls;
            }
        }
    };
    if !offers_tls {
        return Err(talk.unexpected("the server does not offer TLS"));
    }
    if talk.came.has_remaining() {
        // It waits for our word now; `Talk::end` says so.
        return Ok(());
    }
    talk.send(&SSL_REQUEST, "SSLRequest").await
}
