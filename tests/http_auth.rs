//! Who is asking: secrets in headers, basic, digest, bearer and OAuth 2; and that nobody else gets to see them.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::io::AsyncWriteExt as _;
use vantage_contract::v1::{
    Attribution, HttpAuth, HttpBasicAuth, HttpBearerAuth, HttpDigestAuth, HttpOauth2Auth, HttpProbe, HttpReport, Outcome, Probe, Reason,
    Secret, http_auth::Scheme, probe::Kind, probe_result::Report, secret::Source,
};
use vantage_probes::{Destination, Gate, OpenGate, Plan, Sight, World, stopwatch::Phase};

use crate::lab::{
    http::{Requests, Server, finish, ok, read_request, redirect},
    place::Closed,
    probe::{Verdict as _, assert_ended_by_the_timeout, hasty, invalid, probe, run, run_behind, run_in},
    servers,
    tls::{Authority, Leaf, serve},
};

const PASSWORD: &str = "hunter2-hunter2";

fn here(text: &str) -> Option<Secret> {
    Some(Secret { source: Some(Source::Value(text.into())) })
}

fn file(path: &Path) -> Option<Secret> {
    Some(Secret { source: Some(Source::File(path.to_str().unwrap().into())) })
}

fn basic(password: Option<Secret>) -> Scheme {
    Scheme::Basic(HttpBasicAuth { username: "joe".into(), password })
}

fn digest() -> Scheme {
    Scheme::Digest(HttpDigestAuth { username: "joe".into(), password: here(PASSWORD) })
}

fn oauth2(token_url: String) -> HttpOauth2Auth {
    HttpOauth2Auth { token_url, client_id: "me".into(), client_secret: here(PASSWORD), ..HttpOauth2Auth::default() }
}

fn asking(url: String, scheme: Scheme) -> HttpProbe {
    HttpProbe { url, auth: Some(HttpAuth { scheme: Some(scheme) }), ..HttpProbe::default() }
}

async fn ask(spec: HttpProbe) -> Sight {
    let sight = run(&probe(Kind::Http(spec))).await;
    assert!(!format!("{sight:?}").contains(PASSWORD), "{sight:?}");
    sight
}

fn report(report: Option<Report>) -> HttpReport {
    match report {
        Some(Report::Http(report) | Report::Https(report)) => *report,
        other => panic!("a report of http, not {other:?}"),
    }
}

fn passed(sight: Sight) -> HttpReport {
    report(Some(sight.passed()))
}

/// The values of a header of a request.
fn header<'r>(request: &'r str, name: &str) -> Vec<&'r str> {
    request.lines().filter_map(|line| line.split_once(": ")).filter(|(known, _)| *known == name).map(|(_, value)| value).collect()
}

fn challenged(challenges: &[&str]) -> String {
    let headers: String = challenges.iter().map(|challenge| format!("WWW-Authenticate: {challenge}\r\n")).collect();
    format!("HTTP/1.1 401 Who?\r\n{headers}Content-Length: 4\r\n\r\nwho?")
}

#[tokio::test]
async fn basic_and_bearer_go_with_the_first_request() {
    let (server, requests) = Server::scripted(|_, _| ok("")).await;
    passed(ask(asking(server.url("/"), basic(here("pass word")))).await);
    passed(ask(asking(server.url("/"), Scheme::Bearer(HttpBearerAuth { token: here("t0ken") }))).await);
    let seen: Vec<_> = requests.all().iter().map(|request| header(request, "authorization").join(",")).collect();
    assert_eq!(seen, ["Basic am9lOnBhc3Mgd29yZA==", "Bearer t0ken"]);
}

#[tokio::test]
async fn secrets_are_looked_up_anew_in_each_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let (server, requests) = Server::scripted(|_, _| ok("")).await;
    let body = folder.path().join("body.json");
    let spec = HttpProbe {
        method: "POST".into(),
        url: server.url("/"),
        secret_headers: [("X-Key".to_owned(), file(&path).unwrap())].into(),
        body_file: body.to_str().unwrap().into(),
        ..HttpProbe::default()
    };
    let plan = Plan::parse(&probe(Kind::Http(spec))).unwrap();
    let world = World::new(Arc::new(OpenGate));
    for key in ["first", "second"] {
        fs::write(&path, format!("{key}\n")).unwrap();
        fs::write(&body, format!("body of {key}\n")).unwrap();
        plan.run(&world).await.passed();
        let request = requests.all().pop().unwrap();
        assert_eq!(header(&request, "x-key"), [key]);
        // Bodies go as they are, to the last byte.
        assert!(request.ends_with(&format!("\r\n\r\nbody of {key}\n")), "{request}");
    }
    fs::remove_file(&path).unwrap();
    let sight = plan.run(&world).await;
    assert_eq!((sight.outcome, sight.attribution), (Outcome::Undetermined, Attribution::Request), "{sight:?}");
    assert!(sight.summary.contains("http.secret_headers.X-Key: ") && sight.summary.ends_with("key is not there"), "{}", sight.summary);
    sight.because(Reason::InvalidCheck);
    assert_eq!(requests.all().len(), 2, "nothing was sent without it");
}

/// Allows what lies in a folder.
struct Folder(PathBuf);

impl Gate for Folder {
    fn permit(&self, _: Destination) -> Result<(), String> {
        Ok(())
    }

    fn permit_file(&self, file: &Path) -> Result<(), String> {
        if file.starts_with(&self.0) { Ok(()) } else { Err("not that one".into()) }
    }
}

#[tokio::test]
async fn a_file_that_may_not_be_named_is_not_read_and_nothing_is_sent() {
    let folder = tempfile::tempdir().unwrap().keep();
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::write(outside.path(), PASSWORD).unwrap();
    std::os::unix::fs::symlink(outside.path(), folder.join("link")).unwrap();
    let server = Server::answering(ok("")).await;
    for path in [outside.path().to_owned(), folder.join("link"), folder.join("../etc/hostname")] {
        let spec = asking(server.url("/"), basic(file(&path)));
        let sight = run_behind(&probe(Kind::Http(spec)), Arc::new(Folder(folder.clone()))).await;
        assert_eq!((sight.outcome, sight.attribution), (Outcome::Undetermined, Attribution::Vantage));
        assert_eq!(sight.summary, "http.auth.basic.password: not that one");
        sight.because(Reason::PolicyDenied);
    }
    let spec = HttpProbe { url: server.url("/"), body_file: outside.path().to_str().unwrap().into(), ..HttpProbe::default() };
    run_behind(&probe(Kind::Http(spec)), Arc::new(Folder(folder.clone()))).await.because(Reason::PolicyDenied);
    assert_eq!(server.connections(), 0);
    fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn nobody_but_the_checks_own_host_sees_who_is_asking() {
    let (other, others) = Server::scripted(|_, _| ok("")).await;
    let elsewhere = format!("http://localhost:{}/", other.address.port());
    let (server, requests) =
        Server::scripted(
            move |request, _| {
                if request.starts_with("GET /away ") { redirect(302, &elsewhere) } else { redirect(302, "/away") }
            },
        )
        .await;
    let mut spec = asking(server.url("/"), basic(here(PASSWORD)));
    spec.secret_headers = [("X-Key".to_owned(), here("k3y-k3y").unwrap())].into();
    passed(ask(spec).await);
    for request in requests.all() {
        assert_eq!((header(&request, "authorization").len(), header(&request, "x-key")), (1, vec!["k3y-k3y"]), "{request}");
    }
    let [request] = &others.all()[..] else { panic!() };
    assert!(!request.to_lowercase().contains("authorization") && !request.to_lowercase().contains("x-key"), "{request}");
}

#[tokio::test]
async fn nothing_is_told_in_the_clear_after_tls() {
    let (plain, requests) = Server::scripted(|_, _| ok("")).await;
    let authority = Authority::new();
    let place = plain.url("/");
    let secure = serve(authority.acceptor(&Leaf::default(), &[]), move |mut stream, _| {
        let place = place.clone();
        async move {
            let request = read_request(&mut stream).await;
            assert_eq!(header(&request, "authorization").len(), 1);
            let _ = stream.write_all(redirect(302, &place).as_bytes()).await;
            finish(stream).await;
        }
    })
    .await;
    for scheme in [basic(here(PASSWORD)), Scheme::Bearer(HttpBearerAuth { token: here(PASSWORD) })] {
        let spec = asking(format!("https://{}/", secure.address), scheme);
        passed(run(&probe(Kind::Https(HttpProbe { tls: Some(authority.options()), ..spec }))).await);
    }
    assert!(requests.all().iter().all(|request| !request.contains("uthorization")), "{:?}", requests.all());
}

#[tokio::test]
async fn what_a_server_sends_back_of_a_secret_is_masked() {
    let answer = format!("HTTP/1.1 403 No\r\nContent-Type: x/{PASSWORD}\r\nContent-Length: 33\r\n\r\nyou said joe and {PASSWORD} ");
    let (server, _) =
        Server::scripted(
            move |request, _| {
                if request.starts_with("GET /x") { answer.clone() } else { redirect(302, &format!("/x?token={PASSWORD}")) }
            },
        )
        .await;
    let sight = ask(asking(server.url("/"), basic(here(PASSWORD)))).await;
    assert!(sight.summary.contains("/x?token=***"), "{}", sight.summary);
    let report = report(sight.because(Reason::UnexpectedAnswer));
    assert_eq!((report.excerpt.as_str(), report.content_type.as_str()), ("you said joe and ***", "x/***"));
    assert!(report.final_url.ends_with("/x?token=***") && report.hops[1].url.ends_with("/x?token=***"), "{report:?}");
}

#[tokio::test]
async fn digest_meets_the_challenge_and_answers_it_once() {
    let (server, requests) = Server::scripted(|request, _| {
        let strongest = "Digest realm=\"r\", nonce=\"n2\", algorithm=SHA-512-256, qop=\"auth\", opaque=\"o\"";
        match header(request, "authorization")[..] {
            [answer] if answer.contains("nonce=\"n2\"") => ok("in"),
            _ => challenged(&["Basic realm=\"r\", Digest realm=\"r\", nonce=\"n1\"", strongest]),
        }
    })
    .await;
    let spec = HttpProbe { method: "POST".into(), body: "hello".into(), ..asking(server.url("/a?b"), digest()) };
    let sight = ask(spec).await;
    let report = passed(sight);
    assert_eq!(
        report.hops.iter().map(|hop| (hop.status, hop.url.clone())).collect::<Vec<_>>(),
        [401, 200].map(|status| (status, server.url("/a?b")))
    );
    assert_eq!(report.redirect_count, 0);
    let [first, second] = &requests.all()[..] else { panic!("{:?}", requests.all()) };
    assert_eq!(header(first, "authorization").len(), 0);
    let [answer] = header(second, "authorization")[..] else { panic!("{second}") };
    for part in ["Digest username=\"joe\", ", "uri=\"/a?b\"", "opaque=\"o\"", "algorithm=SHA-512-256, qop=auth, nc=00000001"] {
        assert!(answer.contains(part), "{answer}");
    }
    assert!(first.ends_with("\r\n\r\nhello") && second.ends_with("\r\n\r\nhello"), "the body goes again");
}

#[tokio::test]
async fn a_wrong_password_is_the_answer_and_a_stale_nonce_is_renewed_once() {
    let (server, requests) = Server::scripted(|_, number| challenged(&[&format!("Digest realm=r, nonce=n{number}, qop=auth")])).await;
    let seen = report(ask(asking(server.url("/"), digest())).await.because(Reason::UnexpectedAnswer));
    assert_eq!((seen.status, requests.all().len()), (401, 2));

    let (server, requests) =
        Server::scripted(|_, number| challenged(&[&format!("Digest realm=r, nonce=n{number}, stale=true, qop=auth")])).await;
    let seen = report(ask(asking(server.url("/"), digest())).await.because(Reason::UnexpectedAnswer));
    assert_eq!((seen.status, requests.all().len()), (401, 3));
    assert!(requests.all()[2].contains("nonce=\"n1\""), "{:?}", requests.all());

    let (server, requests) = Server::scripted(|_, _| challenged(&["Basic realm=x", "Digest nonce=n, algorithm=FOO"])).await;
    ask(asking(server.url("/"), digest())).await.because(Reason::UnexpectedAnswer);
    assert_eq!(requests.all().len(), 1, "nothing there that can be answered");
}

#[tokio::test]
async fn a_redirect_on_the_same_host_is_answered_at_once_with_the_next_count() {
    let (server, requests) = Server::scripted(|request, _| {
        if header(request, "authorization").is_empty() {
            challenged(&["Digest realm=r, nonce=n, qop=auth"])
        } else if request.starts_with("GET / ") {
            redirect(302, "/next")
        } else {
            ok("in")
        }
    })
    .await;
    assert_eq!(passed(ask(asking(server.url("/"), digest())).await).hops.len(), 3);
    let [_, second, third] = &requests.all()[..] else { panic!("{:?}", requests.all()) };
    assert!(second.contains("nc=00000001") && third.contains("nc=00000002") && third.contains("uri=\"/next\""), "{third}");
}

#[tokio::test]
async fn a_real_server_accepts_every_algorithm() {
    for algorithm in ["MD5", "SHA-256", "SHA-512-256"] {
        let Some(server) = servers::Server::lighttpd(algorithm, "joe", PASSWORD) else { return };
        let url = format!("http://{}/", server.address);
        let seen = passed(ask(asking(url.clone(), digest())).await);
        assert_eq!(seen.hops.iter().map(|hop| hop.status).collect::<Vec<_>>(), [401, 200], "{algorithm}");
        let wrong = Scheme::Digest(HttpDigestAuth { username: "joe".into(), password: here("wrong") });
        assert_eq!(report(ask(asking(url, wrong)).await.because(Reason::UnexpectedAnswer)).status, 401);
    }
    let Some(nginx) = servers::Server::nginx(None) else { return };
    let url = format!("http://{}/private", nginx.address);
    passed(ask(asking(url.clone(), basic(here("lab")))).await);
    assert_eq!(report(ask(asking(url, basic(here(PASSWORD)))).await.because(Reason::UnexpectedAnswer)).status, 401);
}

/// A token endpoint: tokens `t0ken-0`, `t0ken-1`, …; and a target that takes those that `is_good`.
async fn issuer(lifetime: u64) -> (Server, Requests) {
    Server::scripted(move |_, number| {
        let body = format!(r#"{{"access_token":"t0ken-{number}","token_type":"Bearer","expires_in":{lifetime}}}"#);
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    })
    .await
}

async fn target(is_good: fn(&str) -> bool) -> (Server, Requests) {
    Server::scripted(move |request, _| match header(request, "authorization")[..] {
        [token] if is_good(token) => ok("in"),
        _ => "HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer error=\"invalid_token\"\r\nContent-Length: 0\r\n\r\n".into(),
    })
    .await
}

#[tokio::test]
async fn a_token_is_got_once_and_kept_until_it_expires() {
    let (issuer, asked) = issuer(3600).await;
    let (target, seen) = target(|token| token == "Bearer t0ken-0").await;
    let mut options = oauth2(issuer.url("/token"));
    options.scopes = vec!["read".into(), "write".into()];
    options.parameters = [("audience".to_owned(), "a b".to_owned())].into();
    let plan = Plan::parse(&probe(Kind::Http(asking(target.url("/"), Scheme::Oauth2(options))))).unwrap();
    let world = World::new(Arc::new(OpenGate));
    let first = plan.run(&world).await;
    assert_eq!(first.phases[0].0, Phase::Authenticate);
    assert!(passed(first).hops[0].phases.as_ref().unwrap().authenticate.is_some());
    passed(plan.run(&world).await);
    assert_eq!((asked.all().len(), seen.all().len()), (1, 2));
    let request = &asked.all()[0];
    assert!(request.starts_with("POST /token HTTP/1.1\r\n"), "{request}");
    // "me:hunter2-hunter2"
    assert_eq!(header(request, "authorization"), ["Basic bWU6aHVudGVyMi1odW50ZXIy"]);
    assert!(request.ends_with("\r\n\r\ngrant_type=client_credentials&scope=read+write&audience=a+b"), "{request}");
}

#[tokio::test]
async fn credentials_go_into_the_body_where_the_check_says_so() {
    let (issuer, asked) = issuer(3600).await;
    let (target, _) = target(|_| true).await;
    let options = HttpOauth2Auth { credentials_in_body: true, ..oauth2(issuer.url("/")) };
    passed(ask(asking(target.url("/"), Scheme::Oauth2(options))).await);
    let request = &asked.all()[0];
    assert!(request.ends_with("&client_id=me&client_secret=hunter2-hunter2") && header(request, "authorization").is_empty(), "{request}");
}

#[tokio::test]
async fn a_kept_token_that_is_refused_is_renewed_once_and_a_fresh_one_is_not() {
    let (issuer_, asked) = issuer(3600).await;
    let withdrawn = Arc::new(AtomicUsize::new(0));
    let bad = withdrawn.clone();
    let (target_, _) = Server::scripted(move |request, _| {
        let good = format!("Bearer t0ken-{}", bad.load(Ordering::SeqCst));
        if header(request, "authorization") == [good] { ok("in") } else { challenged(&["Bearer"]) }
    })
    .await;
    let plan = Plan::parse(&probe(Kind::Http(asking(target_.url("/"), Scheme::Oauth2(oauth2(issuer_.url("/"))))))).unwrap();
    let world = World::new(Arc::new(OpenGate));
    passed(plan.run(&world).await);
    withdrawn.store(1, Ordering::SeqCst);
    let seen = passed(plan.run(&world).await);
    assert_eq!(seen.hops.iter().map(|hop| hop.status).collect::<Vec<_>>(), [401, 200]);
    assert_eq!(asked.all().len(), 2);
    withdrawn.store(99, Ordering::SeqCst);
    let seen = report(plan.run(&world).await.because(Reason::UnexpectedAnswer));
    assert_eq!((seen.hops.len(), asked.all().len()), (2, 3), "one more token, and no more than that");

    let (issuer, asked) = issuer(3600).await;
    let (target, _) = target(|_| false).await;
    let seen = report(ask(asking(target.url("/"), Scheme::Oauth2(oauth2(issuer.url("/"))))).await.because(Reason::UnexpectedAnswer));
    assert_eq!((seen.status, seen.hops.len(), asked.all().len()), (401, 1, 1));
}

#[tokio::test]
async fn runs_at_the_same_time_share_one_request_for_a_token_and_its_failure() {
    let count = Arc::new(AtomicUsize::new(0));
    for (status, expected) in [(200, Reason::Unspecified), (503, Reason::NotAuthenticated)] {
        count.store(0, Ordering::SeqCst);
        let counter = count.clone();
        let issuer = Server::start(move |mut stream, _| {
            let counter = counter.clone();
            async move {
                read_request(&mut stream).await;
                counter.fetch_add(1, Ordering::SeqCst);
                // Until all the others wait for it.
                tokio::time::sleep(Duration::from_millis(200)).await;
                let body = r#"{"access_token":"t0ken-0","expires_in":60}"#;
                let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                let _ = stream.write_all(answer.as_bytes()).await;
                finish(stream).await;
            }
        })
        .await;
        let (target, _) = target(|token| token == "Bearer t0ken-0").await;
        let plan = Arc::new(Plan::parse(&probe(Kind::Http(asking(target.url("/"), Scheme::Oauth2(oauth2(issuer.url("/"))))))).unwrap());
        let world = World::new(Arc::new(OpenGate));
        let runs = (0..8).map(|_| {
            let (plan, world) = (plan.clone(), world.clone());
            tokio::spawn(async move { plan.run(&world).await })
        });
        for run in runs.collect::<Vec<_>>() {
            assert_eq!(run.await.unwrap().reason, expected);
        }
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_got_is_never_the_targets_fault() {
    let target = Server::answering(ok("")).await;
    let closed = Closed::find();
    let answering = |status: &str, body: &str| format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let refused =
        Server::answering(answering("401 No", r#"{"error":"invalid_client","error_description":"no hunter2-hunter2 here"}"#)).await;
    let broken = Server::answering(answering("502 Bad", "oops")).await;
    let moved = Server::answering(redirect(302, "/elsewhere")).await;
    let large = Server::answering(answering("200 OK", &"x".repeat(70 << 10))).await;
    let strange = Server::answering("SSH-2.0-x\r\n").await;
    for (url, attribution, words) in [
        (refused.url("/"), Attribution::Request, "status 401: invalid_client (no *** here)"),
        (broken.url("/"), Attribution::Path, "status 502: the answer is not a JSON object"),
        (moved.url("/"), Attribution::Path, "status 302: the answer is not a JSON object"),
        (large.url("/"), Attribution::Path, "the body is longer than 65536 bytes"),
        (strange.url("/"), Attribution::Path, "the answer is not HTTP"),
        (format!("http://{}/", closed.address), Attribution::Path, "connection refused"),
        ("http://169.254.169.254/".to_owned(), Attribution::Vantage, "metadata"),
    ] {
        let spec = asking(target.url("/"), Scheme::Oauth2(oauth2(url.clone())));
        let sight = run_behind(&probe(Kind::Http(spec)), Arc::new(NoMetadata)).await;
        assert_eq!((sight.outcome, sight.attribution), (Outcome::Undetermined, attribution), "{sight:?}");
        assert!(sight.summary.starts_with(&format!("get a token from {url}: ")) && sight.summary.contains(words), "{}", sight.summary);
        assert!(!sight.summary.contains(PASSWORD));
        assert_eq!(sight.phases.iter().map(|(phase, _)| *phase).collect::<Vec<_>>(), [Phase::Authenticate]);
        let reason = if attribution == Attribution::Vantage { Reason::PolicyDenied } else { Reason::NotAuthenticated };
        sight.because(reason);
    }
    assert_eq!((target.connections(), moved.connections()), (0, 7 - 6), "a secret is not taken elsewhere");
}

struct NoMetadata;

impl Gate for NoMetadata {
    fn permit(&self, destination: Destination) -> Result<(), String> {
        if destination.address.is_loopback() { Ok(()) } else { Err("metadata".into()) }
    }
}

#[tokio::test]
async fn a_silent_token_endpoint_ends_by_the_deadline_of_the_run() {
    let target = Server::answering(ok("")).await;
    for silent in [Server::stalling_after("").await, Server::stalling_after("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{").await] {
        let sight = run(&hasty(Kind::Http(asking(target.url("/"), Scheme::Oauth2(oauth2(silent.url("/"))))))).await;
        assert_ended_by_the_timeout(&sight);
        assert_eq!((sight.outcome, sight.attribution), (Outcome::Undetermined, Attribution::Path), "{sight:?}");
        sight.because(Reason::NotAuthenticated);
    }
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn all_addresses_of_a_name_share_one_token() {
    let (issuer, asked) = issuer(3600).await;
    let spec = asking("http://127.0.0.1:1/".into(), Scheme::Oauth2(oauth2(issuer.url("/"))));
    let all = Probe { addresses: vantage_contract::v1::AddressSelection::All.into(), ..probe(Kind::Http(spec)) };
    let sight = run_in(&all, &World::new(Arc::new(OpenGate))).await;
    sight.because(Reason::Refused);
    assert_eq!(asked.all().len(), 1);
}

#[test]
fn what_does_not_go_together_is_refused_by_field() {
    let of = |spec: HttpProbe| {
        invalid(&probe(Kind::Http(HttpProbe { url: if spec.url.is_empty() { "a".into() } else { spec.url.clone() }, ..spec })))
    };
    let auth = |scheme| HttpProbe { auth: Some(HttpAuth { scheme: Some(scheme) }), ..HttpProbe::default() };
    assert_eq!(of(HttpProbe { url: "http://joe:pw@a".into(), ..auth(digest()) }), "http.auth");
    assert_eq!(of(HttpProbe { headers: [("AUTHORIZATION".into(), "x".into())].into(), ..auth(digest()) }), "http.auth");
    assert_eq!(of(HttpProbe { auth: Some(HttpAuth { scheme: None }), ..HttpProbe::default() }), "http.auth");
    assert_eq!(of(auth(basic(None))), "http.auth.basic.password");
    assert_eq!(of(auth(Scheme::Basic(HttpBasicAuth { username: "a:b".into(), password: here("x") }))), "http.auth.basic.username");
    assert_eq!(of(auth(Scheme::Digest(HttpDigestAuth { username: String::new(), password: here("x") }))), "http.auth.digest.username");
    assert_eq!(of(auth(Scheme::Bearer(HttpBearerAuth { token: here("a\nb") }))), "http.auth.bearer.token");
    let oauth = |change: fn(&mut HttpOauth2Auth)| {
        let mut options = oauth2("https://a/".into());
        change(&mut options);
        of(auth(Scheme::Oauth2(options)))
    };
    assert_eq!(oauth(|options| options.token_url = "ftp://a/".into()), "http.auth.oauth2.token_url");
    assert_eq!(oauth(|options| options.token_url = "https://a:b@c/".into()), "http.auth.oauth2.token_url");
    assert_eq!(oauth(|options| options.client_id.clear()), "http.auth.oauth2.client_id");
    assert_eq!(oauth(|options| options.client_secret = None), "http.auth.oauth2.client_secret");
    assert_eq!(oauth(|options| options.scopes = vec!["a b".into()]), "http.auth.oauth2.scopes[0]");
    assert_eq!(oauth(|options| drop(options.parameters.insert("scope".into(), "x".into()))), "http.auth.oauth2.parameters");
    let secret =
        |name: &str, value: &str| HttpProbe { secret_headers: [(name.to_owned(), here(value).unwrap())].into(), ..HttpProbe::default() };
    assert_eq!(of(secret("a b", "x")), "http.secret_headers.a b");
    assert_eq!(of(secret("Host", "x")), "http.secret_headers.Host");
    assert_eq!(of(secret("X", "a\nb")), "http.secret_headers.X");
    assert_eq!(of(HttpProbe { headers: [("x".into(), "y".into())].into(), ..secret("X", "a") }), "http.secret_headers.X");
    assert_eq!(of(HttpProbe { body: "a".into(), body_data: b"b".to_vec(), ..HttpProbe::default() }), "http.body_data");
    assert_eq!(of(HttpProbe { body_file: "a".into(), body_data: b"b".to_vec(), ..HttpProbe::default() }), "http.body_data");
    let problem = Plan::parse(&probe(Kind::Http(HttpProbe { url: "a".into(), ..secret("X", "hunter2\n") }))).unwrap_err().to_string();
    assert!(!problem.contains("hunter2"), "{problem}");
}
