//! What may be seen of messages that hold secrets, wherever they are printed for people who look for a fault.

use std::{borrow::Cow, fmt};

use super::MASK;
use crate::v1::{HttpProbe, Secret, secret::Source};

/// Stands for something that is not shown.
struct Masked;

impl fmt::Debug for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("source", &self.source).finish()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => f.debug_tuple("Value").field(&Masked).finish(),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Env(name) => f.debug_tuple("Env").field(name).finish(),
        }
    }
}

impl fmt::Debug for HttpProbe {
    /// Without credentials in the URL, values of headers, and bodies.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // All by name, so that a new field has to be thought of.
        let Self {
            url,
            method,
            headers,
            body,
            max_redirects,
            version,
            max_body_size_bytes,
            tls,
            expect,
            body_file,
            body_data,
            secret_headers,
            auth,
            proxy,
            content_codings,
            reuse,
        } = self;
        f.debug_struct("HttpProbe")
            .field("url", &without_credentials(url))
            .field("method", method)
            .field("headers", &headers.keys().map(|name| (name, Masked)).collect::<Vec<_>>())
            .field("body", &format_args!("{} bytes", body.len()))
            .field("max_redirects", max_redirects)
            .field("version", version)
            .field("max_body_size_bytes", max_body_size_bytes)
            .field("tls", tls)
            .field("expect", expect)
            .field("body_file", body_file)
            .field("body_data", &format_args!("{} bytes", body_data.len()))
            .field("secret_headers", secret_headers)
            .field("auth", auth)
            .field("proxy", proxy)
            .field("content_codings", content_codings)
            .field("reuse", reuse)
            .finish()
    }
}

/// A URL as it may be shown, whether it is one or not.
pub(super) fn without_credentials(url: &str) -> Cow<'_, str> {
    let begin = url.find("://").map_or(0, |at| at + 3);
    let (scheme, rest) = url.split_at(begin);
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((_, host)) => Cow::Owned(format!("{scheme}{MASK}@{host}{path}")),
        None => Cow::Borrowed(url),
    }
}
