//! Protocols of lines: smtp, imap, pop3, ftp.

use bytes::Buf as _;

use super::{Talk, excerpt};
use crate::failure::Failure;

/// The longest line that is read.
const MAX_LINE: usize = 4096;

impl Talk<'_, '_> {
    /// The next line of `what`, without its end.
    async fn line(&mut self, what: &'static str, protocol: &'static str) -> Result<Vec<u8>, Failure> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.came.iter().skip(searched).position(|byte| *byte == b'\n') {
                let line = self.came.split_to(searched + end);
                self.came.advance(1);
                return Ok(line.strip_suffix(b"\r").unwrap_or(&line).to_vec());
            }
            searched = self.came.len();
            if searched > MAX_LINE {
                return Err(self.malformed(what, protocol));
            }
            self.more(what).await?;
        }
    }

    /// A reply of three digits with its lines (RFC 5321 section 4.2.1, RFC 959 section 4.2): the code, and what stands in each line after it.
    async fn reply(&mut self, what: &'static str, protocol: &'static str) -> Result<Reply, Failure> {
        let mut lines: Vec<Vec<u8>> = Vec::new();
        let mut code = None;
        loop {
            let line = self.line(what, protocol).await?;
            let digits = line.first_chunk().and_then(number);
            let is_sound = match code {
                None => digits.is_some() && matches!(line.get(3), None | Some(b' ' | b'-')),
                // In between, ftp allows any line; the last one has the code and a blank.
                Some(_) => digits == code || protocol == "FTP",
            };
            if !is_sound {
                self.came = line.as_slice().into();
                return Err(self.malformed(what, protocol));
            }
            let begun = *code.get_or_insert(digits.unwrap_or_default());
            let is_last = digits == Some(begun) && line.get(3) != Some(&b'-');
            lines.push(line);
            if is_last {
                return Ok(Reply { code: begun, lines });
            }
        }
    }
}

/// A reply of one or more lines.
struct Reply {
    code: u16,
    /// With the code.
    lines: Vec<Vec<u8>>,
}

impl Reply {
    fn said(&self) -> String {
        format!("\"{}\"", excerpt(&self.lines.join(&b"\r\n"[..])))
    }

    /// Whether a line after the first begins with this word.
    fn offers(&self, word: &str) -> bool {
        self.lines.iter().skip(1).filter_map(|line| line.get(4..)).any(|line| begins(line, word))
    }
}

fn number(digits: &[u8; 3]) -> Option<u16> {
    let is_reply = digits.iter().all(u8::is_ascii_digit);
    is_reply.then(|| digits.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0')))
}

/// Whether the first word of the line is this one, in any case.
fn begins(line: &[u8], word: &str) -> bool {
    line.split(|byte| byte.is_ascii_whitespace()).next().is_some_and(|first| first.eq_ignore_ascii_case(word.as_bytes()))
}

/// RFC 3207.
pub(super) async fn smtp(talk: &mut Talk<'_, '_>, name: &str) -> Result<(), Failure> {
    let greeting = talk.reply("the greeting", "SMTP").await?;
    if greeting.code != 220 {
        return Err(talk.unexpected(format!("the greeting is {}", greeting.said())));
    }
    talk.send(format!("EHLO {name}\r\n").as_bytes(), "EHLO").await?;
    let hello = talk.reply("the answer to EHLO", "SMTP").await?;
    if hello.code != 250 {
        return Err(talk.unexpected(format!("the answer to EHLO is {}", hello.said())));
    }
    if !hello.offers("STARTTLS") {
        return Err(talk.unexpected("the server does not offer STARTTLS"));
    }
    talk.send(b"STARTTLS\r\n", "STARTTLS").await?;
    let answer = talk.reply("the answer to STARTTLS", "SMTP").await?;
    if answer.code != 220 {
        return Err(talk.unexpected(format!("the answer to STARTTLS is {}", answer.said())));
    }
    Ok(())
}

/// RFC 4217.
pub(super) async fn ftp(talk: &mut Talk<'_, '_>) -> Result<(), Failure> {
    let mut greeting = talk.reply("the greeting", "FTP").await?;
    // Not ready yet, and says so.
    while greeting.code == 120 {
        greeting = talk.reply("the greeting", "FTP").await?;
    }
    if greeting.code != 220 {
        return Err(talk.unexpected(format!("the greeting is {}", greeting.said())));
    }
    talk.send(b"AUTH TLS\r\n", "AUTH TLS").await?;
    let answer = talk.reply("the answer to AUTH TLS", "FTP").await?;
    if answer.code != 234 {
        return Err(talk.unexpected(format!("the answer to AUTH TLS is {}", answer.said())));
    }
    Ok(())
}

/// RFC 9051 section 6.2.1.
pub(super) async fn imap(talk: &mut Talk<'_, '_>) -> Result<(), Failure> {
    let greeting = talk.line("the greeting", "IMAP").await?;
    match greeting.strip_prefix(b"* ") {
        Some(rest) if begins(rest, "OK") => {}
        // Who is logged in already can't ask for TLS any more.
        Some(rest) if begins(rest, "PREAUTH") || begins(rest, "BYE") => {
            return Err(talk.unexpected(format!("the greeting is \"{}\"", excerpt(&greeting))));
        }
        _ => {
            talk.came = greeting.as_slice().into();
            return Err(talk.malformed("the greeting", "IMAP"));
        }
    }
    talk.send(b"v1 CAPABILITY\r\n", "CAPABILITY").await?;
    let mut is_offered = false;
    tagged(talk, b"v1 ", "the answer to CAPABILITY", |line| {
        let mut words = line.split(u8::is_ascii_whitespace);
        let is_capability = words.next() == Some(b"*") && words.next().is_some_and(|word| word.eq_ignore_ascii_case(b"CAPABILITY"));
        is_offered |= is_capability && words.any(|word| word.eq_ignore_ascii_case(b"STARTTLS"));
    })
    .await?;
    if !is_offered {
        return Err(talk.unexpected("the server does not offer STARTTLS"));
    }
    talk.send(b"v2 STARTTLS\r\n", "STARTTLS").await?;
    tagged(talk, b"v2 ", "the answer to STARTTLS", |_| {}).await
}

/// Reads lines up to the one that completes the command of this tag, which has to say OK.
async fn tagged(talk: &mut Talk<'_, '_>, tag: &[u8], what: &'static str, mut see: impl FnMut(&[u8])) -> Result<(), Failure> {
    loop {
        let line = talk.line(what, "IMAP").await?;
        if let Some(rest) = line.strip_prefix(tag) {
            return if begins(rest, "OK") { Ok(()) } else { Err(talk.unexpected(format!("{what} is \"{}\"", excerpt(&line)))) };
        }
        match line.strip_prefix(b"* ") {
            Some(rest) if begins(rest, "BYE") => return Err(talk.unexpected(format!("{what} is \"{}\"", excerpt(&line)))),
            Some(_) => see(&line),
            None => {
                talk.came = line.as_slice().into();
                return Err(talk.malformed(what, "IMAP"));
            }
        }
    }
}

/// RFC 2595 section 4, RFC 2449.
pub(super) async fn pop3(talk: &mut Talk<'_, '_>) -> Result<(), Failure> {
    let greeting = status(talk, "the greeting").await?;
    if !greeting.starts_with(b"+OK") {
        return Err(talk.unexpected(format!("the greeting is \"{}\"", excerpt(&greeting))));
    }
    talk.send(b"CAPA\r\n", "CAPA").await?;
    // A server that does not know the question may know TLS all the same.
    if status(talk, "the answer to CAPA").await?.starts_with(b"+OK") {
        let mut is_offered = false;
        loop {
            let line = talk.line("the answer to CAPA", "POP3").await?;
            if line == b"." {
                break;
            }
            is_offered |= begins(&line, "STLS");
        }
        if !is_offered {
            return Err(talk.unexpected("the server does not offer STLS"));
        }
    }
    talk.send(b"STLS\r\n", "STLS").await?;
    let answer = status(talk, "the answer to STLS").await?;
    if !answer.starts_with(b"+OK") {
        return Err(talk.unexpected(format!("the answer to STLS is \"{}\"", excerpt(&answer))));
    }
    Ok(())
}

async fn status(talk: &mut Talk<'_, '_>, what: &'static str) -> Result<Vec<u8>, Failure> {
    let line = talk.line(what, "POP3").await?;
    if line.starts_with(b"+OK") || line.starts_with(b"-ERR") {
        return Ok(line);
    }
    talk.came = line.as_slice().into();
    Err(talk.malformed(what, "POP3"))
}
