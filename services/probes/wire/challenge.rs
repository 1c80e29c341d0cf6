//! Challenges of HTTP authentication (RFC 9110 section 11.6.1), as `WWW-Authenticate` has them: several in one header, or in many.

/// The most challenges of one header, and the most parameters of one challenge, that are read.
const MOST: usize = 32;

/// One challenge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Challenge {
    /// The scheme, in lower case: "digest".
    pub scheme: String,
    /// What some schemes have in place of parameters (token68). Empty: nothing.
    pub token: String,
    /// The parameters: names in lower case, values without their quotes.
    pub parameters: Vec<(String, Vec<u8>)>,
}

impl Challenge {
    /// The first parameter of that name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_slice())
    }

    /// The first parameter of that name, if it is plain text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// As a header has it, every value in quotes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.scheme.clone().into_bytes();
        if !self.token.is_empty() {
            bytes.push(b' ');
            bytes.extend(self.token.as_bytes());
        }
        for (index, (name, value)) in self.parameters.iter().enumerate() {
            bytes.extend(if index == 0 { " " } else { ", " }.as_bytes());
            bytes.extend(name.as_bytes());
            bytes.push(b'=');
            quote(value, &mut bytes);
        }
        bytes
    }
}

/// Writes a quoted string (RFC 9110 section 5.6.4).
pub fn quote(value: &[u8], to: &mut Vec<u8>) {
    to.push(b'"');
    for byte in value {
        if matches!(byte, b'"' | b'\\') {
            to.push(b'\\');
        }
        to.push(*byte);
    }
    to.push(b'"');
}

/// The challenges of one header, up to where it is none any more.
pub fn parse(value: &[u8]) -> Vec<Challenge> {
    let mut reader = Reader { rest: value };
    let mut challenges: Vec<Challenge> = Vec::new();
    while reader.item(&mut challenges).is_some() {}
    challenges
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Takes the next item of the list: a challenge with its first parameter, or one more parameter. None: there is no more, or it is none.
    fn item(&mut self, challenges: &mut Vec<Challenge>) -> Option<()> {
        self.skip(|byte| matches!(byte, b' ' | b'\t' | b','));
        let before = self.rest;
        if let Some(parameter) = self.parameter() {
            let challenge = challenges.last_mut().filter(|challenge| challenge.token.is_empty())?;
            if challenge.parameters.len() < MOST {
                challenge.parameters.push(parameter);
            }
            return Some(());
        }
        self.rest = before;
        let scheme = self.word()?;
        if challenges.len() == MOST {
            return None;
        }
        let mut challenge = Challenge { scheme, ..Challenge::default() };
        let before = self.rest;
        self.skip(|byte| byte == b' ');
        if self.rest.len() < before.len() && !matches!(self.rest.first(), None | Some(b',')) {
            let before = self.rest;
            match self.parameter() {
                Some(parameter) => challenge.parameters.push(parameter),
                None => {
                    self.rest = before;
                    challenge.token = self.token68()?;
                }
            }
        } else {
            self.end()?;
        }
        challenges.push(challenge);
        Some(())
    }

    /// `name = value`, up to the end of its item.
    fn parameter(&mut self) -> Option<(String, Vec<u8>)> {
        let name = self.word()?;
        self.skip(is_blank);
        self.rest = self.rest.strip_prefix(b"=")?;
        self.skip(is_blank);
        let value = match self.rest.strip_prefix(b"\"") {
            Some(quoted) => self.quoted(quoted)?,
            None => {
                let value = self.take(is_token);
                (!value.is_empty()).then(|| value.to_vec())?
            }
        };
        self.end()?;
        Some((name, value))
    }

    fn quoted(&mut self, text: &[u8]) -> Option<Vec<u8>> {
        let mut value = Vec::new();
        let mut bytes = text.iter();
        loop {
            match bytes.next()? {
                b'"' => break,
                b'\\' => value.push(*bytes.next()?),
                byte => value.push(*byte),
            }
        }
        let rest = bytes.as_slice().len();
        self.rest = self.rest.get(self.rest.len() - rest..)?;
        Some(value)
    }

    fn token68(&mut self) -> Option<String> {
        let before = self.rest;
        let body = self.take(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte)).len();
        let padding = self.take(|byte| byte == b'=').len();
        let text = before.get(..body + padding).filter(|_| body > 0)?;
        self.end()?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    /// A token (RFC 9110 section 5.6.2), in lower case.
    fn word(&mut self) -> Option<String> {
        let word = self.take(is_token);
        (!word.is_empty()).then(|| String::from_utf8_lossy(word).to_ascii_lowercase())
    }

    /// Whether the item ends here.
    fn end(&mut self) -> Option<()> {
        self.skip(is_blank);
        matches!(self.rest.first(), None | Some(b',')).then_some(())
    }

    fn skip(&mut self, which: impl Fn(u8) -> bool) {
        self.take(which);
    }

    fn take(&mut self, which: impl Fn(u8) -> bool) -> &'a [u8] {
        let length = self.rest.iter().position(|byte| !which(*byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(value: &str) -> Vec<String> {
        parse(value.as_bytes()).iter().map(|challenge| String::from_utf8(challenge.encode()).unwrap()).collect()
    }

    #[test]
    fn several_challenges_in_one_header_are_told_apart() {
        // RFC 9110 section 11.6.1.
        let value = r#"Basic realm="simple", Newauth realm="apps", type=1, title="Login to \"apps\"""#;
        assert_eq!(told(value), [r#"basic realm="simple""#, r#"newauth realm="apps", type="1", title="Login to \"apps\"""#]);
        assert_eq!(told("Negotiate, NTLM, Basic realm=a"), ["negotiate", "ntlm", r#"basic realm="a""#]);
        assert_eq!(told("Negotiate abc==, Basic realm = \"a, b=c\" "), ["negotiate abc==", r#"basic realm="a, b=c""#]);
        assert_eq!(told(", ,Digest\trealm=a"), Vec::<String>::new());
        assert_eq!(told(",, Digest   QOP=\"auth\" ,,nonce=x,"), [r#"digest qop="auth", nonce="x""#]);
    }

    #[test]
    fn what_is_no_challenge_ends_the_reading() {
        for (value, read) in [
            ("", 0),
            ("=", 0),
            ("realm=a", 0),
            ("Basic realm=\"open", 0),
            ("Basic realm=a\\", 0),
            ("Basic realm=a, b=\"c\" d", 1),
            ("Basic @", 0),
            ("Negotiate abc==, d=e, Basic realm=a", 1),
        ] {
            assert_eq!(parse(value.as_bytes()).len(), read, "{value}");
        }
    }

    #[test]
    fn numbers_are_bounded() {
        assert_eq!(parse("a,".repeat(1000).as_bytes()).len(), MOST);
        assert_eq!(parse(format!("d {}", "a=b,".repeat(1000)).as_bytes())[0].parameters.len(), MOST);
    }
}
