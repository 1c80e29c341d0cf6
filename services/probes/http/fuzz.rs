//! What our own parsers of HTTP are fuzzed with; the table is `wire::fuzz`.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a fuzzer is told")]

use std::time::{Duration, UNIX_EPOCH};

use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{LOCATION, SET_COOKIE},
};
use url::Url;

use super::{cookies, cookies::Jar, redirect};

pub(crate) use super::connection::fuzz_frames as frames;

/// Where all of it comes from.
fn home() -> Url {
    Url::parse("https://shop.example/a/b?c").unwrap()
}

/// `Set-Cookie` headers, a line each: what they set is sent back to none but whom it is for, in a header that can be sent.
pub(crate) fn cookies(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        headers.extend(HeaderValue::from_bytes(line).ok().map(|value| (SET_COOKIE, value)));
    }
    let (mut jar, now) = (Jar::default(), UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    jar.keep(&home(), &headers, now);
    for url in ["https://shop.example/a/b", "https://www.shop.example/a/", "http://shop.example/", "https://example/", "https://192.0.2.1/"]
    {
        let sent = jar.header(&Url::parse(url).unwrap());
        let Some(sent) = sent else { continue };
        let host = &url[url.find("//").unwrap()..];
        assert!(host.contains("shop.example"), "{url} is nobody's whom {sent:?} is for");
        assert!(HeaderValue::try_from(&sent).is_ok(), "{sent:?}");
        assert!(sent.len() <= data.len() * 2 + 2, "{sent:?}");
    }
    // What was kept once is replaced by the same, not doubled.
    let before = jar.header(&home());
    jar.keep(&home(), &headers, now);
    assert_eq!(before.map(|sent| sent.len()), jar.header(&home()).map(|sent| sent.len()));
}

/// A date of a cookie: what is understood is understood again as HTTP writes it (RFC 9110 section 5.6.7).
pub(crate) fn date(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(at) = cookies::date(text) else { return };
    let seconds = at.duration_since(UNIX_EPOCH).expect("none is before 1970").as_secs();
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // The civil date of a number of days, by looking.
    let year = (1970..=9999).rev().find(|year| cookies::days_since_1970(*year, 1, 1) <= days.cast_signed()).expect("since 1970");
    let month = (1..=12).rev().find(|month| cookies::days_since_1970(year, *month, 1) <= days.cast_signed()).expect("since January");
    let day = days.cast_signed() - cookies::days_since_1970(year, month, 1) + 1;
    let name = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][usize::try_from(month).unwrap() - 1];
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let again = format!("Thu, {day:02} {name} {year:04} {hour:02}:{minute:02}:{second:02} GMT");
    assert_eq!(cookies::date(&again), Some(at), "{again}");
}

/// A `Location`: it leads to the web, without credentials, to a host and a path that can be asked for, or is an error that is not long.
pub(crate) fn location(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let answer = http::Response::builder().status(StatusCode::FOUND).header(LOCATION, value).body(()).expect("a head");
    match redirect::next(&home(), &answer.into_parts().0) {
        Ok(next) => {
            let next = next.expect("302 with a place to go");
            assert!(matches!(next.scheme(), "http" | "https"), "{next}");
            assert!(next.username().is_empty() && next.password().is_none() && next.fragment().is_none(), "{next}");
            assert!(next.port_or_known_default().is_some(), "{next}");
            let again = redirect::next(
                &next,
                &http::Response::builder().status(302).header(LOCATION, next.as_str()).body(()).unwrap().into_parts().0,
            );
            assert_eq!(again, Ok(Some(next)));
        }
        Err(why) => assert!(why.len() <= 8 * data.len() + 500, "{why}"),
    }
}
