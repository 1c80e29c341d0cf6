use std::fs;

use super::*;
use crate::{
    json,
    v1::{
        Check, HttpAuth, HttpBasicAuth, HttpProbe, HttpProxy, Probe, Secret, Start, http_auth::Scheme, probe::Kind as Spec, secret::Source,
    },
};

fn secret(source: Source) -> Secret {
    Secret { source: Some(source) }
}

fn check() -> Check {
    let password = Some(secret(Source::File("/run/password".into())));
    let http = HttpProbe {
        url: "http://joe:hunter2@example.com/a@b".into(),
        headers: [("Authorization".into(), "hunter2".into())].into(),
        body_file: "body.json".into(),
        secret_headers: [("X-Key".into(), secret(Source::Env("KEY".into()))), ("X-Own".into(), secret(Source::Value("hunter2".into())))]
            .into(),
        auth: Some(HttpAuth { scheme: Some(Scheme::Basic(HttpBasicAuth { username: "joe".into(), password })) }),
        proxy: Some(HttpProxy { password: Some(secret(Source::Value("hunter2".into()))), ..HttpProxy::default() }),
        ..HttpProbe::default()
    };
    Check { name: "c".into(), probe: Some(Probe { kind: Some(Spec::Https(http)), ..Probe::default() }), ..Check::default() }
}

#[test]
fn all_places_are_found_by_the_descriptors() {
    let mut message = json::dynamic(&check());
    let mut found = Vec::new();
    visit(&mut message, &mut |place| found.push((place.path.clone(), place.place, place.named(), place.field())));
    found.sort_by(|one, other| one.0.cmp(&other.0));
    let https = |path: &str| format!("probe.https.{path}");
    let expected = [
        ("auth.basic.password", Place::Secret, Named::File("/run/password".into()), "auth.basic.password.file"),
        ("body_file", Place::Data, Named::File("body.json".into()), "body_file"),
        ("proxy.password", Place::Secret, Named::Nothing, "proxy.password"),
        ("secret_headers.X-Key", Place::Secret, Named::Variable("KEY".into()), "secret_headers.X-Key.env"),
        ("secret_headers.X-Own", Place::Secret, Named::Nothing, "secret_headers.X-Own"),
    ]
    .map(|(path, place, named, field)| (https(path), place, named, https(field)));
    assert_eq!(found, expected);
}

#[test]
fn what_is_named_gives_way_to_what_it_names_and_can_be_taken_out_again() {
    let mut message = json::dynamic(&check());
    visit(&mut message, &mut |mut place| {
        if place.named() != Named::Nothing {
            place.put(b"s3cret").unwrap();
        }
    });
    let filled: Check = message.transcode_to().unwrap();
    let Some(Spec::Https(http)) = filled.probe.as_ref().unwrap().kind.clone() else { panic!() };
    assert_eq!((http.body_file.as_str(), http.body_data.as_slice()), ("", b"s3cret".as_slice()));
    assert_eq!(http.secret_headers["X-Key"], secret(Source::Value("s3cret".into())));
    let mut stripped = 0;
    visit(&mut message, &mut |mut place| stripped += usize::from(place.strip()));
    assert_eq!(stripped, 5);
    let bytes = prost::Message::encode_to_vec(&message.transcode_to::<Check>().unwrap());
    assert!(!String::from_utf8_lossy(&bytes).contains("s3cret"));
}

#[test]
fn bytes_that_are_no_text_are_no_secret() {
    let mut message = json::dynamic(&secret(Source::File("a".into())));
    visit(&mut message, &mut |mut place| assert_eq!(place.put(&[0xff]), Err("is not UTF-8".into())));
}

#[test]
fn nothing_that_prints_a_message_prints_a_secret() {
    let start = Start { check: Some(check()), ..Start::default() };
    for shown in [format!("{start:?}"), format!("{start:#?}")] {
        assert!(!shown.contains("hunter2") && shown.contains("***") && shown.contains("/run/password"), "{shown}");
    }
    let body = HttpProbe { body: "hunter2".into(), body_data: b"hunter2".to_vec(), ..HttpProbe::default() };
    assert!(!format!("{body:?}").contains("hunter2") && !format!("{body:?}").contains("104, 117"));
    assert_eq!(shown::without_credentials("joe:a/b@x"), "joe:a/b@x");
    assert_eq!(shown::without_credentials("http://a:b@c@d/e@f?g"), "http://***@d/e@f?g");
}

#[test]
fn files_are_read_within_bounds_and_lose_one_line_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    fs::write(&path, "a\r\n").unwrap();
    assert_eq!(without_line_end(&read(&path, 3).unwrap()), b"a");
    assert_eq!(read(&path, 2).unwrap_err(), "is longer than 2 bytes");
    assert_eq!(without_line_end(b"a\n\n"), b"a\n");
    assert_eq!(read(&folder.path().join("none"), 9).unwrap_err(), "is not there");
    assert_eq!(read(folder.path(), 9).unwrap_err(), "is not a regular file");
}
