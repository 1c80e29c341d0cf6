//! Digest authentication (RFC 7616, and RFC 2069 for servers that know nothing newer): the strongest of the challenges, and its answer. Pure.

use http::HeaderValue;
use md5::{Digest as _, Md5};
use ring::digest::{SHA256, SHA512_256, digest};

use crate::{
    secret::Hidden,
    wire::challenge::{self, Challenge},
};

/// The longest realm, nonce and opaque data that are answered.
const MAX_PART: usize = 4096;

/// How it is hashed, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Hash {
    Md5,
    Sha256,
    Sha512256,
}

/// What is protected besides the password, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Quality {
    /// Nothing (RFC 2069).
    None,
    /// The body, too. Some servers offer it and get it wrong: `auth` is taken where both are offered.
    AuthInt,
    Auth,
}

/// A challenge that can be answered, and how often it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    hash: Hash,
    /// The `-sess` forms.
    is_session: bool,
    quality: Quality,
    /// The algorithm as the server spells it. None: it names none.
    algorithm: Option<String>,
    realm: Vec<u8>,
    nonce: Vec<u8>,
    opaque: Option<Vec<u8>>,
    hides_user: bool,
    /// Requests that this nonce has answered.
    count: u32,
    /// The client's nonce, of which the `-sess` forms need the first for good.
    own: Option<String>,
}

/// Who is asking.
pub(super) struct User<'a> {
    pub(super) name: &'a str,
    pub(super) password: &'a Hidden,
}

/// What is asked.
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    /// As the request line has it: path and query.
    pub(super) target: &'a str,
    pub(super) body: &'a [u8],
}

/// What a server says of an answer that it does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Met {
    pub(super) session: Session,
    /// The answer was right, the nonce too old (RFC 7616 section 3.3).
    pub(super) is_stale: bool,
}

/// The strongest challenge of those in these headers. None: none of them is digest, or none that can be answered.
pub(super) fn choose<'a>(headers: impl Iterator<Item = &'a [u8]>) -> Option<Met> {
    let challenges = headers.flat_map(challenge::parse).filter(|challenge| challenge.scheme == "digest");
    let met = challenges.filter_map(|challenge| {
        let is_stale = challenge.text("stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true"));
        Session::of(&challenge).map(|session| Met { session, is_stale })
    });
    // Of equals the first, as the server prefers it.
    met.reduce(|best, next| if next.session.strength() > best.session.strength() { next } else { best })
}

impl Session {
    fn of(challenge: &Challenge) -> Option<Self> {
        let algorithm = challenge.text("algorithm").map(str::to_owned);
        if algorithm.is_none() && challenge.get("algorithm").is_some() {
            return None;
        }
        let lower = algorithm.as_deref().unwrap_or("MD5").to_ascii_lowercase();
        let (name, is_session) = lower.strip_suffix("-sess").map_or((lower.as_str(), false), |name| (name, true));
        let hash = match name {
            "md5" => Hash::Md5,
            "sha-256" => Hash::Sha256,
            "sha-512-256" => Hash::Sha512256,
            _ => return None,
        };
        let quality = match challenge.text("qop") {
            None if challenge.get("qop").is_some() => return None,
            None => Quality::None,
            Some(offered) => offered
                .split(',')
                .filter_map(|quality| match quality.trim().to_ascii_lowercase().as_str() {
                    "auth" => Some(Quality::Auth),
                    "auth-int" => Some(Quality::AuthInt),
                    _ => None,
                })
                .max()?,
        };
        let part = |name: &str| challenge.get(name).filter(|value| value.len() <= MAX_PART).map(<[u8]>::to_vec);
        Some(Self {
            hash,
            is_session,
            quality,
            // It goes back as it came, and not in quotes.
            algorithm: algorithm.filter(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')),
            realm: part("realm").unwrap_or_default(),
            nonce: part("nonce")?,
            opaque: challenge.get("opaque").is_some().then(|| part("opaque")).flatten(),
            hides_user: challenge.text("userhash").is_some_and(|hides| hides.eq_ignore_ascii_case("true")),
            count: 0,
            own: None,
        })
    }

    fn strength(&self) -> (Hash, Quality) {
        (self.hash, self.quality)
    }

    /// The `Authorization` that answers for a request. `own` is a fresh nonce of ours; None: it can't be sent.
    pub(super) fn answer(&mut self, user: &User<'_>, request: &Request<'_>, own: &str) -> Option<HeaderValue> {
        self.count = self.count.saturating_add(1);
        let hash = self.hash;
        let own = if self.is_session { self.own.get_or_insert_with(|| own.to_owned()).clone() } else { own.to_owned() };
        let (nonce, realm) = (self.nonce.as_slice(), self.realm.as_slice());
        let mut secret = hash.of(&[user.name.as_bytes(), realm, user.password.expose().as_bytes()]);
        if self.is_session {
            secret = hash.of(&[secret.as_bytes(), nonce, own.as_bytes()]);
        }
        let (method, uri) = (request.method.as_bytes(), request.target.as_bytes());
        let what = match self.quality {
            Quality::AuthInt => hash.of(&[method, uri, hash.of(&[request.body]).as_bytes()]),
            Quality::None | Quality::Auth => hash.of(&[method, uri]),
        };
        let count = format!("{:08x}", self.count);
        let quality = match self.quality {
            Quality::None => None,
            Quality::Auth => Some("auth"),
            Quality::AuthInt => Some("auth-int"),
        };
        let response = match quality {
            None => hash.of(&[secret.as_bytes(), nonce, what.as_bytes()]),
            Some(quality) => hash.of(&[secret.as_bytes(), nonce, count.as_bytes(), own.as_bytes(), quality.as_bytes(), what.as_bytes()]),
        };

        let mut header = b"Digest ".to_vec();
        if self.hides_user {
            header.extend(b"username=");
            challenge::quote(hash.of(&[user.name.as_bytes(), realm]).as_bytes(), &mut header);
        } else if user.name.is_ascii() {
            header.extend(b"username=");
            challenge::quote(user.name.as_bytes(), &mut header);
        } else {
            // RFC 5987, as RFC 7616 section 3.4 has it.
            header.extend(b"username*=UTF-8''");
            header.extend(user.name.bytes().flat_map(|byte| format!("%{byte:02X}").into_bytes()));
        }
        let mut add = |name: &str, value: &[u8]| {
            header.extend(format!(", {name}=").into_bytes());
            challenge::quote(value, &mut header);
        };
        add("realm", realm);
        add("nonce", nonce);
        add("uri", uri);
        add("response", response.as_bytes());
        if let Some(opaque) = &self.opaque {
            add("opaque", opaque);
        }
        if quality.is_some() || self.is_session {
            add("cnonce", own.as_bytes());
        }
        if let Some(algorithm) = &self.algorithm {
            header.extend(format!(", algorithm={algorithm}").into_bytes());
        }
        if let Some(quality) = quality {
            header.extend(format!(", qop={quality}, nc={count}").into_bytes());
        }
        if self.hides_user {
            header.extend(b", userhash=true");
        }
        let mut value = HeaderValue::from_bytes(&header).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl Hash {
    /// The hash of the parts with colons between, in hexadecimal.
    fn of(self, parts: &[&[u8]]) -> String {
        let whole = zeroize::Zeroizing::new(parts.join(&b':'));
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Self::Md5 => hex(&Md5::digest(whole.as_slice())),
            Self::Sha256 => hex(digest(&SHA256, &whole).as_ref()),
            Self::Sha512256 => hex(digest(&SHA512_256, &whole).as_ref()),
        }
    }
}

/// What may be made of whatever a server sends: for the fuzzer.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    let Some(mut met) = choose(data.split(|byte| *byte == b'\n')) else { return };
    let password = Hidden::new("secret".into());
    let request = Request { method: "GET", target: "/", body: b"" };
    if let Some(answer) = met.session.answer(&User { name: "joe", password: &password }, &request, "0123") {
        let bytes = answer.as_bytes();
        assert!(bytes.len() <= 3 * 2 * MAX_PART + 1024, "{} bytes", bytes.len());
        assert!(!bytes.windows(6).any(|part| part == b"secret") || data.windows(6).any(|part| part == b"secret"));
        let Some(again) = challenge::parse(bytes).into_iter().next() else { return };
        assert_eq!(again.get("nonce"), Some(met.session.nonce.as_slice()));
        assert_eq!(again.get("realm"), Some(met.session.realm.as_slice()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(headers: &[&str]) -> Option<Met> {
        choose(headers.iter().map(|header| header.as_bytes()))
    }

    fn answered(header: &str, user: &str, password: &str, own: &str) -> String {
        let mut session = met(&[header]).unwrap().session;
        let request = Request { method: "GET", target: "/dir/index.html", body: b"" };
        let answer = session.answer(&User { name: user, password: &Hidden::new(password.into()) }, &request, own).unwrap();
        answer.to_str().unwrap().to_owned()
    }

    fn response(answer: &str) -> &str {
        answer.split_once("response=\"").unwrap().1.split_once('"').unwrap().0
    }

    const RFC: &str = "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", \
                       opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"";
    const OWN: &str = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";

    #[test]
    fn the_examples_of_the_rfc_are_answered_as_it_says() {
        // RFC 7616 section 3.9.1.
        let md5 = answered(&format!("{RFC}, algorithm=MD5"), "Mufasa", "Circle of Life", OWN);
        assert_eq!(response(&md5), "8ca523f5e9506fed4657c9700eebdbec");
        let sha = answered(&format!("{RFC}, algorithm=SHA-256"), "Mufasa", "Circle of Life", OWN);
        assert_eq!(response(&sha), "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1");
        for part in ["opaque=\"FQhe/", ", algorithm=SHA-256, qop=auth, nc=00000001", "cnonce=\"f2/", "uri=\"/dir/index.html\""] {
            assert!(sha.contains(part), "{sha}");
        }
        // RFC 2617 section 3.5.
        let old = r#"Digest realm="testrealm@host.com", qop="auth,auth-int", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41""#;
        let old = answered(old, "Mufasa", "Circle Of Life", "0a4f113b");
        assert_eq!(response(&old), "6629fae49393a05397450978507c4ef1");
        assert!(!old.contains("algorithm"));
    }

    #[test]
    fn the_other_forms_are_hashed_as_others_hash_them() {
        // By Python's hashlib: see each formula in RFC 7616 section 3.4 and RFC 2069 section 2.1.2.
        let base = r#"Digest realm="r", nonce="n""#;
        for (more, expected) in [
            ("", "bb5aadad224076edd640de04fc5ee0b1"),
            (", algorithm=MD5-sess, qop=auth", "169bb3122dee07b1e6ee2f87819ee10c"),
            (", algorithm=SHA-256-sess, qop=\"auth\"", "96144cdc570160a739ad2f6dafd536d30eda9c78ad3bff6712e0ab3198ae4221"),
            (", algorithm=SHA-512-256, qop=auth, userhash=true", "25fec07f9e4505aebf8254e1b1066daa4e654e2e4c02ea48db44dc410882ee45"),
            (", algorithm=SHA-512-256-sess, qop=auth", "f911132bab46b245fb58b4ede977868a346c4d49cd25dc0fc6877e4e33035e3f"),
            (", algorithm=SHA-256, qop=auth-int", "c3be05120da6fee0792d3ad4cea6435ee4c93acd58168fe16c4ececcc1f9d657"),
        ] {
            assert_eq!(response(&answered(&format!("{base}{more}"), "joe", "pw", "c")), expected, "{more}");
        }
        let hidden = answered(&format!("{base}, algorithm=SHA-512-256, qop=auth, userhash=true"), "joe", "pw", "c");
        assert!(
            hidden.starts_with("Digest username=\"e46ac96716c6ea45aa4fa4669350167058fd38d106a5a0f7dea7fb624a949066\"")
                && hidden.ends_with(", userhash=true"),
            "{hidden}"
        );
        let named = answered(base, "Jäsøn", "pw", "c");
        assert!(named.starts_with("Digest username*=UTF-8''%4A%C3%A4%73%C3%B8%6E, realm="), "{named}");
    }

    #[test]
    fn the_strongest_challenge_that_can_be_answered_is_chosen() {
        let nonce = |header: &[&str]| met(header).map(|met| String::from_utf8(met.session.nonce).unwrap());
        let (md5, sha, long) = ("Digest nonce=a", "Digest nonce=b, algorithm=SHA-256, qop=auth", "Digest nonce=c, algorithm=SHA-512-256");
        assert_eq!(nonce(&[md5, sha, long]).as_deref(), Some("c"));
        assert_eq!(nonce(&[&format!("Basic realm=x, {sha}, {md5}")]).as_deref(), Some("b"));
        assert_eq!(
            nonce(&["Digest nonce=d, algorithm=SHA-384", "Digest nonce=e, qop=other", "Digest qop=auth", md5]).as_deref(),
            Some("a")
        );
        assert_eq!(nonce(&["Basic realm=x", "Bearer"]), None);
        assert_eq!(nonce(&["Digest nonce=1, qop=auth", "Digest nonce=2, qop=auth"]).as_deref(), Some("1"), "of equals the first");
    }

    #[test]
    fn the_count_goes_up_and_a_session_keeps_its_nonces() {
        let mut session = met(&["Digest nonce=n, algorithm=MD5-sess, qop=auth"]).unwrap().session;
        let password = Hidden::new("pw".into());
        let request = Request { method: "GET", target: "/", body: b"" };
        let user = User { name: "joe", password: &password };
        let answers = ["first", "second"].map(|own| session.answer(&user, &request, own).unwrap().to_str().unwrap().to_owned());
        assert!(answers[0].contains("nc=00000001") && answers[1].contains("nc=00000002"), "{answers:?}");
        assert!(answers.iter().all(|answer| answer.contains("cnonce=\"first\"")), "{answers:?}");
        assert!(met(&["Digest nonce=n, stale=TRUE"]).unwrap().is_stale);
    }

    #[test]
    fn what_would_break_the_header_is_not_sent() {
        let quoted = answered(r#"Digest realm="a\"b\\c", nonce="n\"""#, r#"j"oe"#, "pw", "c");
        assert!(quoted.contains(r#"username="j\"oe", realm="a\"b\\c", nonce="n\"""#), "{quoted}");
        assert!(met(&[&format!("Digest nonce=\"{}\"", "n".repeat(5000))]).is_none());
    }
}
