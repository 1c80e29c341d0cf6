//! Names and methods, as rules are about them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use vantage_probes::Host;

/// A name, and all that is below it, in lower case and in its A-label form (RFC 5890), without a final dot. `.example.com` and
/// `*.example.com` are other spellings of `example.com`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Suffix(String);

impl Suffix {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Suffix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('*').unwrap_or(text);
        let bare = bare.strip_prefix('.').unwrap_or(bare);
        let bare = bare.strip_suffix('.').unwrap_or(bare);
        match Host::parse("", bare) {
            Ok(Host::Name(name)) if !name.contains('*') => Ok(Self(name)),
            Ok(Host::Address(_)) => Err(format!("{text:?} is an address: rules about addresses are in networks")),
            _ => Err(format!("{text:?} is not a name, as \"example.com\"")),
        }
    }
}

impl TryFrom<String> for Suffix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Suffix> for String {
    fn from(suffix: Suffix) -> Self {
        suffix.0
    }
}

impl fmt::Display for Suffix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A method of HTTP (RFC 9110 section 9): 1 to 32 letters and hyphens, in capitals as methods are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Method(String);

impl Method {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Method {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_method = (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
        if is_method { Ok(Self(text)) } else { Err(format!("{text:?} is not a method of HTTP, as \"GET\"")) }
    }
}

impl From<Method> for String {
    fn from(method: Method) -> Self {
        method.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffix_is_read_in_its_spellings() {
        let read = |text: &str| text.parse::<Suffix>().map(String::from);
        for spelled in ["example.com", "*.example.com", ".example.com", "EXAMPLE.com.", "ｅxample.com"] {
            assert_eq!(read(spelled).as_deref(), Ok("example.com"), "{spelled}");
        }
        assert_eq!(read("bücher.example").as_deref(), Ok("xn--bcher-kva.example"));
        assert_eq!(read("internal").as_deref(), Ok("internal"));
        assert!(read("10.0.0.1").unwrap_err().contains("in networks"));
        for wrong in ["", "*", ".", "a b", "a..b", "exa*mple.com"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn methods_are_in_capitals() {
        assert!(Method::try_from("GET".to_owned()).is_ok());
        for wrong in ["get", "", "A B", "GET\n"] {
            assert!(Method::try_from(wrong.to_owned()).is_err(), "{wrong:?}");
        }
    }
}
