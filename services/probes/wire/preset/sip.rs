//! SIP (RFC 3261): OPTIONS, which asks what a server can do, and makes no call.

use std::net::SocketAddr;

use super::SEED;

/// An OPTIONS request outside of any dialog (section 11). `rport` (RFC 3581) has the answer come back to where the request came from.
pub(super) fn question(seed: &[u8; SEED], local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let token = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (branch, call, tag) = (token(&seed[..8]), token(&seed[8..16]), token(&seed[16..20]));
    format!(
        "OPTIONS sip:{remote} SIP/2.0\r\n\
         Via: SIP/2.0/UDP {local};branch=z9hG4bK{branch};rport\r\n\
         Max-Forwards: 70\r\n\
         From: <sip:probe@{local}>;tag={tag}\r\n\
         To: <sip:{remote}>\r\n\
         Call-ID: {call}\r\n\
         CSeq: 1 OPTIONS\r\n\
         Contact: <sip:probe@{local}>\r\n\
         Accept: application/sdp\r\n\
         Content-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// A response, of any status, with our call's id, our number and our branch (section 17.1.3).
pub(super) fn judge(question: &[u8], answer: &[u8]) -> (bool, bool) {
    let (Ok(question), Some(answer)) = (std::str::from_utf8(question), head(answer)) else { return (false, false) };
    let is_of_it =
        answer.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3)).is_some_and(|code| code.bytes().all(|b| b.is_ascii_digit()));
    let branch = |text| {
        let via = header(text, "Via", "v")?;
        // Of several the first is ours: each hop on the way back takes off its own.
        let via = via.split(',').next().unwrap_or(via);
        via.split(';').find_map(|part| part.trim().strip_prefix("branch="))
    };
    let number = |text| header(text, "CSeq", "CSeq").map(|value| value.split_whitespace().collect::<Vec<_>>());
    let call = |text| header(text, "Call-ID", "i");
    let is_ours = branch(question) == branch(answer) && call(question) == call(answer) && number(question) == number(answer);
    (is_of_it, is_ours)
}

/// What comes before the body.
fn head(bytes: &[u8]) -> Option<&str> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    std::str::from_utf8(&bytes[..end]).ok()
}

/// The first value of a header, by its name or its short form, without case (section 7.3). Folded lines are none that a server of today writes.
fn header<'t>(text: &'t str, name: &str, short: &str) -> Option<&'t str> {
    text.split("\r\n").skip(1).find_map(|line| {
        let (said, value) = line.split_once(':')?;
        let said = said.trim_end();
        (said.eq_ignore_ascii_case(name) || said.eq_ignore_ascii_case(short)).then(|| value.trim())
    })
}
