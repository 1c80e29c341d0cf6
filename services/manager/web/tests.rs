//! The routes, asked as a browser asks.

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, header},
    response::Response,
};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;
use vantage_contract::v1::{self, Attribution, Outcome, ProbeResult, Reason, probe::Kind, probe_result::Report};

use super::{Settings, routes};
use crate::{
    desk::{Desk, LinkState},
    fabric::{check, desk, duration, place, result},
};

/// A desk with a check that passes and one that fails with text that would like to be markup.
async fn furnished() -> Desk {
    let desk = desk();
    desk.expect(vec![
        place(check("good", Kind::Ping(v1::PingProbe::default())), &["a"]),
        place(check("evil", Kind::Tcp(v1::TcpProbe::default())), &["a"]),
        place(check("silent", Kind::Dns(v1::DnsProbe::default())), &["a"]),
    ]);
    let error = "<b>refused</b>".to_owned();
    desk.note_link("a", LinkState { connected: false, since: std::time::UNIX_EPOCH, announced: "m".into(), error });
    let good = ProbeResult {
        latency: Some(duration(0.0713)),
        report: Some(Report::Ping(Box::new(v1::PingReport { sent_count: 3, ..v1::PingReport::default() }))),
        ..result("good", 1, Outcome::Passed)
    };
    let evil = ProbeResult {
        target: "<script>alert(1)</script>".into(),
        summary: "\" onmouseover=\"alert(2)".into(),
        reason: Reason::Refused.into(),
        attribution: Attribution::Target.into(),
        ..result("evil", 2, Outcome::Failed)
    };
    desk.take(vec![good, evil]).await.unwrap();
    desk
}

async fn ask(routes: Router, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = Request::builder().uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    routes.oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

async fn get(desk: &Desk, path: &str) -> Response {
    ask(routes(desk.clone(), Settings::default()), path, &[("host", "127.0.0.1:8080")]).await
}

async fn text(answer: Response) -> String {
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

async fn json(answer: Response) -> Value {
    serde_json::from_str(&text(answer).await).unwrap()
}

#[tokio::test]
async fn the_page_shows_each_check_and_hostile_text_as_text() {
    let page = text(get(&furnished().await, "/").await).await;
    assert!(page.contains("71.3 ms") && page.contains("no result yet") && page.contains("1 of 1 recent result passed"), "{page}");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && !page.contains("<script>alert"), "{page}");
    assert!(page.contains("title=\"&quot; onmouseover=&quot;alert(2)\""), "{page}");
    assert!(page.contains("&lt;b&gt;refused&lt;/b&gt;"), "{page}");
    let at = |name: &str| page.find(&format!("data-check=\"{name}\"")).unwrap();
    assert!(at("evil") < at("silent") && at("silent") < at("good"), "what needs somebody comes first");
}

#[tokio::test]
async fn sub_results_are_on_the_page_and_in_the_api() {
    let desk = desk();
    desk.expect(vec![place(check("all", Kind::Ping(v1::PingProbe::default())), &["a"])]);
    let sub = |address: &str| ProbeResult {
        address: address.into(),
        outcome: Outcome::Passed.into(),
        latency: Some(duration(0.0123)),
        report: Some(Report::Ping(Box::new(v1::PingReport { sent_count: 3, ..v1::PingReport::default() }))),
        ..ProbeResult::default()
    };
    let refused = ProbeResult {
        outcome: Outcome::Failed.into(),
        reason: Reason::Refused.into(),
        summary: "<i>refused</i>".into(),
        ..sub("2001:db8::1")
    };
    let all = ProbeResult { address_results: vec![sub("192.0.2.1"), refused], ..result("all", 1, Outcome::Passed) };
    desk.take(vec![all]).await.unwrap();
    let page = text(get(&desk, "/").await).await;
    for expected in [
        "<span class=\"outcome passed\">passed</span> <bdi>192.0.2.1</bdi> <span class=\"quiet\">12.3 ms</span>",
        "<li title=\"&lt;i&gt;refused&lt;/i&gt;\"><span class=\"outcome failed\">failed</span> <bdi>2001:db8::1</bdi> <code>refused</code>",
    ] {
        assert!(page.contains(expected), "{expected}\n{page}");
    }
    let results = json(get(&desk, "/api/results?check=all").await).await;
    let [first, second] = results["results"][0]["address_results"].as_array().unwrap().as_slice() else { panic!("{results}") };
    assert_eq!((&first["address"], &first["ping"]["sent_count"]), (&"192.0.2.1".into(), &3.into()));
    assert_eq!(second["reason"], "REASON_REFUSED");
}

#[tokio::test]
async fn the_page_may_run_our_own_script_and_nothing_else() {
    let desk = furnished().await;
    for path in ["/", "/page.js", "/page.css", "/api/checks", "/nowhere"] {
        let answer = get(&desk, path).await;
        let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    }
    let page = text(get(&desk, "/").await).await;
    assert!(!page.contains("style=") && !page.contains("http://") && !page.contains("https://"), "nothing inline, nothing from elsewhere");
    assert_eq!(get(&desk, "/page.js").await.headers()[header::CONTENT_TYPE], "text/javascript; charset=utf-8");
    assert_eq!(get(&desk, "/page.css").await.headers()[header::CONTENT_TYPE], "text/css; charset=utf-8");
}

#[tokio::test]
async fn other_hosts_names_and_other_sites_scripts_are_turned_away() {
    let desk = furnished().await;
    let ours = || routes(desk.clone(), Settings { host_names: vec!["vantage.example".into()], ..Settings::default() });
    assert_eq!(ask(ours(), "/", &[("host", "evil.example")]).await.status(), StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(ask(ours(), "/", &[]).await.status(), StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(ask(ours(), "/", &[("host", "vantage.example:8080")]).await.status(), StatusCode::OK);
    let foreign = [("host", "localhost:8080"), ("sec-fetch-site", "cross-site")];
    assert_eq!(ask(ours(), "/api/checks", &foreign).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(ask(ours(), "/", &foreign).await.status(), StatusCode::OK, "a link from elsewhere is no harm");
}

#[tokio::test]
async fn the_api_has_states_last_results_and_no_probes() {
    let desk = furnished().await;
    let checks = json(get(&desk, "/api/checks").await).await;
    let good = checks["checks"].as_array().unwrap().iter().find(|check| check["name"] == "good").unwrap();
    assert_eq!((&good["state"], &good["kind"]), (&"up".into(), &"ping".into()));
    assert_eq!(good["last_results"][0]["result"]["ping"]["sent_count"], 3);
    assert_eq!(good["last_results"][0]["result"]["latency"], "0.071300s");
    assert_eq!(good["last_results"][0]["runs"][0]["count"], 1);
    assert!(good.get("probe").is_none());
    assert_eq!(checks["monitors"][0]["announced_name"], "m");
    assert_eq!(checks["monitors"][0]["connected"], false);
}

#[tokio::test]
async fn results_are_selected_and_what_is_not_understood_is_refused() {
    let desk = furnished().await;
    let results = json(get(&desk, "/api/results?check=evil&monitor=m").await).await;
    assert_eq!(results["results"].as_array().unwrap().len(), 1);
    assert_eq!(results["results"][0]["reason"], "REASON_REFUSED");
    assert_eq!(json(get(&desk, "/api/results?limit=1").await).await["results"][0]["check_name"], "evil", "the newest first");
    let refused = get(&desk, "/api/results?chekc=evil").await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert!(json(refused).await["error"].as_str().unwrap().contains("chekc"));
}

/// The next event of a stream that is not a comment.
async fn event(body: &mut Body) -> String {
    loop {
        let frame = body.frame().await.unwrap().unwrap();
        let text = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
        if !text.starts_with(':') {
            return text;
        }
    }
}

#[tokio::test]
async fn each_result_is_an_event_and_a_slow_reader_is_told_what_it_missed() {
    let desk = desk();
    let answer = get(&desk, "/api/events").await;
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/event-stream");
    let mut body = answer.into_body();
    desk.take(vec![result("good", 1, Outcome::Passed)]).await.unwrap();
    let first = event(&mut body).await;
    assert!(first.starts_with("event: result\ndata: {") && first.contains("\"check_name\":\"good\""), "{first}");
    desk.take((2..=2000).map(|sequence| result("good", sequence, Outcome::Passed)).collect()).await.unwrap();
    let missed = event(&mut body).await;
    assert_eq!(missed.trim_end(), "event: missed\ndata: {\"count\":975}");
    assert!(event(&mut body).await.contains("\"sequence\":\"977\""), "and it goes on with the oldest that is left");
    assert_eq!(desk.counts().missed_events.get(), 975);
}

#[tokio::test]
async fn readers_of_events_are_bounded_and_a_place_is_free_again_when_one_leaves() {
    let desk = desk();
    let routes = routes(desk.clone(), Settings { event_readers: 1, ..Settings::default() });
    let host = [("host", "localhost")];
    let first = ask(routes.clone(), "/api/events", &host).await;
    assert_eq!(first.status(), StatusCode::OK);
    assert_eq!(ask(routes.clone(), "/api/events", &host).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(desk.counts().refused_events.get(), 1);
    drop(first);
    assert_eq!(ask(routes, "/api/events", &host).await.status(), StatusCode::OK);
}
