//! Versions of HTTP.

use vantage_contract::v1::HttpVersion;

use crate::failure::Invalid;

/// A version that can be spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// HTTP/1.1, where a server may answer in HTTP/1.0.
    One,
    /// HTTP/2.
    Two,
    /// HTTP/3.
    #[cfg(feature = "http3")]
    Three,
}

impl Version {
    /// Parses the version to speak. None: 2 or 1.1 by ALPN over TLS, 1.1 in the clear.
    pub(super) fn parse(number: i32) -> Result<Option<Self>, Invalid> {
        match HttpVersion::try_from(number) {
            Ok(HttpVersion::Unspecified) => Ok(None),
            Ok(HttpVersion::HttpVersion11) => Ok(Some(Self::One)),
            Ok(HttpVersion::HttpVersion2) => Ok(Some(Self::Two)),
            #[cfg(feature = "http3")]
            Ok(HttpVersion::HttpVersion3) => Ok(Some(Self::Three)),
            #[cfg(not(feature = "http3"))]
            Ok(HttpVersion::HttpVersion3) => {
                Err(Invalid::new("version", "3 is not known to this monitor: it was built without the feature \"http3\""))
            }
            Err(_) => Err(Invalid::new("version", format!("{number} is not a version of HTTP"))),
        }
    }
}

/// The version of an answer, as the report says it.
pub(super) fn name(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "1.0",
        http::Version::HTTP_2 => "2",
        http::Version::HTTP_3 => "3",
        _ => "1.1",
    }
}
