//! LDAP (RFC 4511 section 4.14).

use bytes::Buf as _;

use super::Talk;
use crate::{
    failure::Failure,
    wire::{
        ldap::{Answer, START_TLS, code_name},
        text::escape,
    },
};

const WHAT: &str = "the answer to StartTLS";

pub(super) async fn ask(talk: &mut Talk<'_, '_>) -> Result<(), Failure> {
    talk.send(START_TLS, "StartTLS").await?;
    loop {
        match Answer::decode(&talk.came) {
            Err(_) => return Err(talk.malformed(WHAT, "LDAP")),
            Ok(None) => talk.more(WHAT).await?,
            Ok(Some(Answer { message: 1, code: 0, length, .. })) => {
                talk.came.advance(length);
                return Ok(());
            }
            Ok(Some(answer)) => {
                let name = code_name(answer.code).map(|name| format!(" ({name})")).unwrap_or_default();
                let words = escape(answer.words.get(..answer.words.len().min(super::MAX_EXCERPT)).unwrap_or_default());
                let whose = if answer.message == 1 { WHAT } else { "what the server says by itself" };
                return Err(talk.unexpected(format!("{whose} is result {}{name}: \"{words}\"", answer.code)));
            }
        }
    }
}
