//! Cookies that are set on the way and sent on the way (RFC 6265), for the length of one run.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, header::SET_COOKIE};
use url::Url;

/// The most cookies kept, and the longest one: what is beyond is dropped, which the run then shows by what the target answers.
const MAX_COOKIES: usize = 50;
const MAX_COOKIE: usize = 4096;

/// The cookies of one run.
#[derive(Debug, Default)]
pub(super) struct Jar(Vec<Cookie>);

#[derive(Debug, PartialEq, Eq)]
struct Cookie {
    name: String,
    value: String,
    domain: String,
    /// Only for `domain` itself, not for names below it.
    host_only: bool,
    path: String,
    secure: bool,
}

impl Jar {
    /// Keeps what an answer of `url` sets, and forgets what it takes back.
    pub(super) fn keep(&mut self, url: &Url, headers: &HeaderMap, now: SystemTime) {
        for line in headers.get_all(SET_COOKIE) {
            let Some((cookie, expired)) = line.to_str().ok().and_then(|line| parse(url, line, now)) else { continue };
            self.0.retain(|old| (&old.name, &old.domain, &old.path) != (&cookie.name, &cookie.domain, &cookie.path));
            if !expired && self.0.len() < MAX_COOKIES {
                self.0.push(cookie);
            }
        }
    }

    /// The `Cookie` header for a request of `url`; longer paths first (RFC 6265 section 5.4). None: there is none to send.
    pub(super) fn header(&self, url: &Url) -> Option<String> {
        let host = url.host_str()?;
        let mut fitting: Vec<_> = self.0.iter().filter(|cookie| cookie.fits(url, host)).collect();
        fitting.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        let pairs: Vec<_> = fitting.iter().map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }
}

impl Cookie {
    fn fits(&self, url: &Url, host: &str) -> bool {
        let host_fits = if self.host_only { self.domain == host } else { is_within(host, &self.domain) };
        let path_fits = url
            .path()
            .strip_prefix(self.path.as_str())
            .is_some_and(|rest| rest.is_empty() || self.path.ends_with('/') || rest.starts_with('/'));
        host_fits && path_fits && (!self.secure || url.scheme() == "https")
    }
}

/// Whether `host` is `domain` or a name below it.
fn is_within(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Parses a `Set-Cookie` of `url`, and whether it has expired. None: it is not for that host, or nothing that could be sent back.
fn parse(url: &Url, line: &str, now: SystemTime) -> Option<(Cookie, bool)> {
    if line.len() > MAX_COOKIE {
        return None;
    }
    let host = url.host_str()?;
    let mut parts = line.split(';');
    let (name, value) = parts.next()?.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    if name.is_empty() {
        return None;
    }
    let default_path = url.path().rsplit_once('/').map(|(folder, _)| folder).filter(|folder| !folder.is_empty()).unwrap_or("/");
    let mut cookie = Cookie {
        name: name.to_owned(),
        value: value.to_owned(),
        domain: host.to_owned(),
        host_only: true,
        path: default_path.to_owned(),
        secure: false,
    };
    let mut expires = None;
    let mut max_age = None;
    for attribute in parts {
        let (name, value) = attribute.split_once('=').unwrap_or((attribute, ""));
        let value = value.trim();
        match name.trim().to_ascii_lowercase().as_str() {
            "domain" => {
                let domain = value.strip_prefix('.').unwrap_or(value).to_ascii_lowercase();
                // Addresses have no names below them, and a domain without a dot is everybody's.
                let is_name = url.domain().is_some();
                if domain == host {
                    cookie.host_only = !is_name;
                } else if is_name && domain.contains('.') && is_within(host, &domain) {
                    cookie.domain = domain;
                    cookie.host_only = false;
                } else if !domain.is_empty() {
                    return None;
                }
            }
            "path" if value.starts_with('/') => value.clone_into(&mut cookie.path),
            "secure" => cookie.secure = true,
            "max-age" => max_age = value.parse::<i64>().ok().or(max_age),
            "expires" => expires = date(value).or(expires),
            _ => {}
        }
    }
    // Only a connection that nobody reads may set what only such connections may carry (RFC 6265bis section 5.7).
    if cookie.secure && url.scheme() != "https" {
        return None;
    }
    let expired = match (max_age, expires) {
        (Some(age), _) => age <= 0,
        (None, Some(end)) => end <= now,
        (None, None) => false,
    };
    Some((cookie, expired))
}

/// A date in any of the forms that servers write (RFC 6265 section 5.1.1).
pub(super) fn date(text: &str) -> Option<SystemTime> {
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    for token in text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != ':').filter(|token| !token.is_empty()) {
        let number = token.parse::<i64>().ok();
        if let (None, Some(parsed)) = (time, clock(token)) {
            time = Some(parsed);
        } else if let (None, Some(number @ 1..=31), 1..=2) = (day, number, token.len()) {
            day = Some(number);
        } else if let (None, Some(parsed)) = (month, month_of(token)) {
            month = Some(parsed);
        } else if let (None, Some(number), 2 | 4) = (year, number, token.len()) {
            year = Some(match number {
                70..=99 => number + 1900,
                0..=69 => number + 2000,
                number => number,
            });
        }
    }
    let seconds = days_since_1970(year?, month?, day?) * 86_400 + time?;
    // Before 1970 is as long ago as anything.
    Some(UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// Seconds since midnight of "08:49:37".
fn clock(token: &str) -> Option<i64> {
    let mut parts = token.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    ((0..24).contains(&hour) && (0..60).contains(&minute) && (0..60).contains(&second)).then_some(hour * 3600 + minute * 60 + second)
}

fn month_of(token: &str) -> Option<i64> {
    let start = token.get(..3)?.to_ascii_lowercase();
    let months = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    months.iter().position(|month| *month == start).and_then(|at| i64::try_from(at + 1).ok())
}

/// Days since 1970-01-01 in the Gregorian calendar: years are counted from March, so that the leap day comes last.
pub(super) fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn jar(from: &str, lines: &[&'static str]) -> Jar {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(SET_COOKIE, HeaderValue::from_static(line));
        }
        let mut jar = Jar::default();
        jar.keep(&url(from), &headers, UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        jar
    }

    #[test]
    fn a_cookie_goes_back_to_its_own_host_and_path() {
        let jar = jar("http://a.example/one/two", &["x=1", "y=2; Path=/", "z=3; Path=/other"]);
        assert_eq!(jar.header(&url("http://a.example/one/three")).as_deref(), Some("x=1; y=2"));
        assert_eq!(jar.header(&url("http://a.example/oneself")).as_deref(), Some("y=2"));
        assert_eq!(jar.header(&url("http://b.a.example/one")), None);
        assert_eq!(jar.header(&url("http://b.example/one")), None);
    }

    #[test]
    fn a_domain_includes_the_names_below_it_but_is_never_a_strangers() {
        let jar = jar("http://www.a.example/", &["x=1; Domain=.a.example", "y=2; Domain=b.example", "z=3; Domain=example"]);
        assert_eq!(jar.header(&url("http://api.a.example/")).as_deref(), Some("x=1"));
        assert_eq!(jar.header(&url("http://bada.example/")), None);
        assert_eq!(jar.0.len(), 1);
    }

    #[test]
    fn secure_cookies_need_tls_both_ways() {
        let over_tls = jar("https://a.example/", &["x=1; Secure"]);
        assert_eq!(over_tls.header(&url("https://a.example/")).as_deref(), Some("x=1"));
        assert_eq!(over_tls.header(&url("http://a.example/")), None);
        assert!(jar("http://a.example/", &["x=1; Secure"]).0.is_empty());
    }

    #[test]
    fn expired_cookies_take_the_old_ones_back() {
        assert!(jar("http://a.example/", &["x=1", "x=; Max-Age=0"]).0.is_empty());
        assert!(jar("http://a.example/", &["x=1", "x=; Expires=Thu, 01 Jan 1970 00:00:00 GMT"]).0.is_empty());
        assert_eq!(jar("http://a.example/", &["x=1; Expires=Thu, 01-Jan-2099 00:00:00 GMT"]).0.len(), 1);
    }

    #[test]
    fn the_number_of_cookies_is_bounded() {
        let mut headers = HeaderMap::new();
        for number in 0..1000 {
            headers.append(SET_COOKIE, HeaderValue::try_from(format!("c{number}=1")).unwrap());
        }
        let mut jar = Jar::default();
        jar.keep(&url("http://a.example/"), &headers, UNIX_EPOCH);
        assert_eq!(jar.0.len(), MAX_COOKIES);
    }

    #[test]
    fn dates_are_read_in_all_their_forms() {
        let expected = UNIX_EPOCH + Duration::from_secs(784_111_777);
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(date(text), Some(expected), "{text}");
        }
        assert_eq!(date("soon"), None);
    }
}
