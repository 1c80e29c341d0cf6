//! The part of XML that XMPP (RFC 6120) leads to TLS with: one tag after the other.

/// The namespace of TLS in XMPP (RFC 6120 section 5.4).
pub const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";

/// A tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag<'d> {
    /// The name, without its prefix.
    pub name: &'d str,
    /// Whether it begins an element, ends one, or is one.
    pub form: Form,
    /// All between the angle brackets.
    pub text: &'d str,
    /// How many bytes it takes, with what stands before it.
    pub length: usize,
}

/// What a tag does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Begins an element.
    Begins,
    /// Ends one.
    Ends,
    /// Is one, without content.
    Whole,
}

/// It is not XML as XMPP allows it (RFC 6120 section 11.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl<'d> Tag<'d> {
    /// Reads the next tag of what came; declarations and text before it are passed over. None: there has to come more.
    pub fn decode(bytes: &'d [u8]) -> Result<Option<Self>, Malformed> {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let Some(begin) = rest.iter().position(|byte| *byte == b'<') else { return Ok(None) };
            let rest = rest.get(begin + 1..).unwrap_or_default();
            let Some(end) = end(rest) else { return Ok(None) };
            let text = std::str::from_utf8(rest.get(..end).unwrap_or_default()).map_err(|_| Malformed)?;
            at += begin + end + 2;
            // Comments, and what else begins so, are not allowed.
            match text.as_bytes() {
                [b'?', .., b'?'] => {}
                [b'!' | b'?', ..] | [] => return Err(Malformed),
                _ => return Self::of(text, at).map(Some),
            }
        }
    }

    fn of(text: &'d str, length: usize) -> Result<Self, Malformed> {
        let (form, inner) = match (text.strip_prefix('/'), text.strip_suffix('/')) {
            (Some(inner), None) => (Form::Ends, inner),
            (None, Some(inner)) => (Form::Whole, inner),
            (None, None) => (Form::Begins, text),
            (Some(_), Some(_)) => return Err(Malformed),
        };
        let name = inner.split_ascii_whitespace().next().filter(|name| inner.starts_with(name)).ok_or(Malformed)?;
        let name = name.rsplit_once(':').map_or(name, |(_, name)| name);
        if name.is_empty() { Err(Malformed) } else { Ok(Self { name, form, text, length }) }
    }
}

/// Where a tag ends: at the first angle bracket that is in no quotes.
fn end(bytes: &[u8]) -> Option<usize> {
    let mut quote = None;
    bytes.iter().position(|byte| {
        match (quote, byte) {
            (None, b'\'' | b'"') => quote = Some(*byte),
            (Some(begun), byte) if begun == *byte => quote = None,
            _ => {}
        }
        quote.is_none() && *byte == b'>'
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(mut bytes: &[u8]) -> Vec<(&str, Form)> {
        let mut tags = Vec::new();
        while let Some(tag) = Tag::decode(bytes).unwrap() {
            tags.push((tag.name, tag.form));
            bytes = &bytes[tag.length..];
        }
        tags
    }

    #[test]
    fn what_a_real_server_says_is_read_tag_by_tag() {
        // prosody 0.12.
        let said = "<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' version='1.0' from='a' id='x>y' \
            xml:lang='en' xmlns='jabber:client'><stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>\
            </stream:features>";
        let expected = [
            ("stream", Form::Begins),
            ("features", Form::Begins),
            ("starttls", Form::Begins),
            ("required", Form::Whole),
            ("starttls", Form::Ends),
            ("features", Form::Ends),
        ];
        assert_eq!(tags(said.as_bytes()), expected);
        for end in 0..said.len() {
            assert!(expected.starts_with(&tags(&said.as_bytes()[..end])));
        }
    }

    #[test]
    fn what_xmpp_does_not_allow_is_refused() {
        for wrong in
            ["<!-- x -->", "<!DOCTYPE x>", "<>", "</a/>", "<a:>", "< a>", "<\u{fffd}".as_bytes().escape_ascii().to_string().as_str()]
        {
            let is_refused = Tag::decode(wrong.as_bytes()) == Err(Malformed);
            assert!(is_refused || !wrong.ends_with('>'), "{wrong}");
        }
        assert_eq!(Tag::decode(b"<a\xff>"), Err(Malformed));
    }
}
