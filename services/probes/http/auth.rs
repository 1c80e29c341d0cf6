//! Who is asking: what goes into a request before it is sent, and what answers a challenge.

use http::{HeaderValue, response};
use url::Url;
use vantage_contract::v1::HttpReport;

use super::request::Request;
use crate::{Run, failure::Failure};

/// What a run knows of who is asking: a token that it got, a challenge that it met.
pub(super) struct Identity;

impl Identity {
    /// Gets what is needed before the first request: asking somebody else for a token is phase `authenticate`.
    pub(super) async fn begin(_run: &mut Run<'_, HttpReport>) -> Result<Self, Failure> {
        Ok(Self)
    }

    /// The `Authorization` of a request to `url`. None: what the request has of its own.
    pub(super) fn header(&mut self, _url: &Url, _request: &Request) -> Result<Option<HeaderValue>, Failure> {
        Ok(None)
    }

    /// Looks at an answer of `url`. Whether it is a challenge that the same request, made again, answers: one more exchange.
    pub(super) fn meets(&mut self, _url: &Url, _head: &response::Parts) -> bool {
        false
    }
}
