//! Where a redirect leads (RFC 9110 section 10.2.2).

use http::{StatusCode, header::LOCATION, response};
use url::Url;

use super::request::{self, MAX_URL};

/// The URL that an answer redirects to. None: it does not redirect. A place where this probe can't go is an error in words.
pub(super) fn next(from: &Url, head: &response::Parts) -> Result<Option<Url>, String> {
    let redirects = [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::FOUND,
        StatusCode::SEE_OTHER,
        StatusCode::TEMPORARY_REDIRECT,
        StatusCode::PERMANENT_REDIRECT,
    ];
    if !redirects.contains(&head.status) {
        return Ok(None);
    }
    // Without a place to go to, it is the last answer.
    let Some(location) = head.headers.get(LOCATION) else { return Ok(None) };
    if location.len() > MAX_URL {
        return Err(format!("redirected to a URL of {} bytes, more than {MAX_URL}", location.len()));
    }
    let location = String::from_utf8_lossy(location.as_bytes());
    let mut to = from.join(&location).map_err(|error| format!("redirected to {location:?}: {error}"))?;
    // Credentials in a redirect are the redirecting server's idea, not the check's (RFC 9110 section 4.2.4).
    request::strip(&mut to);
    if !matches!(to.scheme(), "http" | "https") {
        return Err(format!("redirected to the scheme {:?}, which is not followed", to.scheme()));
    }
    request::host_of(&to).and_then(|_| request::path_of(&to)).map_err(|why| format!("redirected to {location:?}: {why}"))?;
    Ok(Some(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next_of(status: u16, location: Option<&str>) -> Result<Option<String>, String> {
        let mut answer = http::Response::builder().status(status);
        if let Some(location) = location {
            answer = answer.header(LOCATION, location);
        }
        let (head, ()) = answer.body(()).unwrap().into_parts();
        next(&Url::parse("http://a.example/b/c?d").unwrap(), &head).map(|url| url.map(String::from))
    }

    #[test]
    fn relative_and_absolute_places_are_found() {
        assert_eq!(next_of(302, Some("e")), Ok(Some("http://a.example/b/e".into())));
        assert_eq!(next_of(308, Some("//b.example")), Ok(Some("http://b.example/".into())));
        assert_eq!(next_of(301, Some("https://joe:pw@b.example/#f")), Ok(Some("https://b.example/".into())));
    }

    #[test]
    fn what_does_not_redirect_is_the_last_answer() {
        assert_eq!(next_of(302, None), Ok(None));
        assert_eq!(next_of(304, Some("/x")), Ok(None));
        assert_eq!(next_of(200, Some("/x")), Ok(None));
    }

    #[test]
    fn other_schemes_are_not_followed() {
        for place in ["file:///etc/passwd", "ftp://a.example/", "javascript:alert(1)", "http://", "http://a b/"] {
            assert!(next_of(302, Some(place)).is_err(), "{place}");
        }
    }
}
