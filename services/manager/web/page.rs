//! The page: one table, made here and kept fresh by a few lines of script (`page.js`). Without script it reloads itself.

use std::sync::Arc;

use axum::{
    http::header,
    response::{Html as HtmlBody, IntoResponse},
};
use vantage_contract::v1::ProbeResult;

use super::{
    html::Html,
    strip,
    words::{age, plural},
};
use crate::{
    desk::{CheckView, Desk, LineView, LinkView, Snapshot},
    state::{self, State},
    store::Query,
    words,
};

/// The longest text shown in a cell, in characters. The whole is in the API.
const CELL: usize = 300;

/// The most addresses shown of one result; the contract has no more.
const ADDRESSES: usize = 64;

/// The order of the table: what needs somebody comes first.
const ORDER: [State; 4] = [State::Down, State::Degraded, State::Unknown, State::Up];

/// `/`
pub(super) async fn show(desk: &Desk) -> impl IntoResponse + use<> {
    let mut snapshot = desk.snapshot();
    snapshot.checks.sort_by_key(|view| ORDER.iter().position(|state| *state == view.state));
    let lines = snapshot.checks.iter().flat_map(|view| view.lines.iter().map(|line| (&view.check.name, &line.monitor)));
    let queries = lines.map(|(check, monitor)| Query { check: Some(check.clone()), monitor: Some(monitor.clone()), limit: strip::LENGTH });
    // A page without strips is better than none; the store's error is in the log and in the figures.
    let histories = desk.recent_each(queries.collect()).await.unwrap_or_default();
    HtmlBody(render(&snapshot, &histories))
}

/// `/page.css`
pub(super) async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("page.css"))
}

/// `/page.js`
pub(super) async fn script() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("page.js"))
}

/// The page. `histories` has the newest results of each line, in the order of checks and lines.
fn render(snapshot: &Snapshot, histories: &[Vec<Arc<ProbeResult>>]) -> String {
    let mut html = Html::default();
    html.markup(concat!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Vantage</title>\n",
        "<link rel=\"stylesheet\" href=\"/page.css\">\n<script src=\"/page.js\" defer></script>\n",
        "<noscript><meta http-equiv=\"refresh\" content=\"10\"></noscript>\n</head>\n<body>\n",
        "<header><h1>Vantage</h1><p id=\"live\" role=\"status\"></p>",
        "<label id=\"filter\" hidden>Filter <input type=\"search\" autocomplete=\"off\" spellcheck=\"false\"></label></header>\n<main>\n",
    ));
    summary(&mut html, snapshot);
    html.markup("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Checks\"><table id=\"checks\">\n<caption>Checks</caption>\n<thead><tr>");
    html.markup("<th scope=\"col\">State</th><th scope=\"col\">Check</th><th scope=\"col\">Monitor</th><th scope=\"col\">Last result</th>");
    html.markup("<th scope=\"col\" class=\"number\">Latency</th><th scope=\"col\">Recent</th><th scope=\"col\" class=\"number\">Age</th></tr></thead>\n");
    let mut histories = histories.iter();
    for view in &snapshot.checks {
        check(&mut html, view, &mut histories);
    }
    html.markup("</table></div>\n");
    if snapshot.checks.is_empty() {
        html.markup("<p class=\"empty\">No checks are configured.</p>\n");
    }
    monitors(&mut html, &snapshot.links);
    html.markup("</main>\n<footer><a href=\"/api/checks\">/api/checks</a> <a href=\"/api/results?limit=100\">/api/results</a> ");
    html.markup("<a href=\"/metrics\">/metrics</a> <a href=\"/readyz\">/readyz</a></footer>\n</body>\n</html>\n");
    html.finish()
}

fn summary(html: &mut Html, snapshot: &Snapshot) {
    html.markup("<ul id=\"summary\">");
    for state in ORDER {
        let count = snapshot.checks.iter().filter(|view| view.state == state).count();
        html.markup("<li class=\"").text(state.word()).markup(if count == 0 { " none" } else { "" }).markup("\"><b>");
        html.text(&count.to_string()).markup("</b> ").text(state.word()).markup("</li>");
    }
    html.markup("</ul>\n");
}

fn check<'a>(html: &mut Html, view: &CheckView, histories: &mut impl Iterator<Item = &'a Vec<Arc<ProbeResult>>>) {
    html.markup("<tbody data-check=\"").text(&view.check.name).markup("\" data-version=\"").text(&version(view)).markup("\">\n<tr>");
    let span = view.lines.len().max(1).to_string();
    html.markup("<td rowspan=\"").text(&span).markup("\"><span class=\"state ").text(view.state.word()).markup("\">");
    html.text(view.state.word()).markup("</span><small class=\"age\">for ").text(&age(view.state_age)).markup("</small></td>");
    html.markup("<th scope=\"row\" rowspan=\"").text(&span).markup("\"><bdi>").short(&view.check.name, CELL).markup("</bdi><small>");
    html.text(&view.kind);
    if let Some(line) = view.lines.first().filter(|line| !line.last.target.is_empty()) {
        html.markup(" · <bdi>").short(&line.last.target, CELL).markup("</bdi>");
    }
    html.markup("</small></th>");
    if view.lines.is_empty() {
        html.markup("<td><bdi>").short(&view.monitors.join(", "), CELL);
        html.markup("</bdi></td><td colspan=\"4\" class=\"quiet\">no result yet</td></tr>\n");
    }
    for (number, line) in view.lines.iter().enumerate() {
        if number > 0 {
            html.markup("<tr>");
        }
        result(html, line, histories.next().map(Vec::as_slice).unwrap_or_default());
        html.markup("</tr>\n");
    }
    html.markup("</tbody>\n");
}

fn result(html: &mut Html, line: &LineView, history: &[Arc<ProbeResult>]) {
    let last = &*line.last;
    let (outcome, reason, attribution) = (words::outcome(last.outcome), words::reason(last.reason), words::attribution(last.attribution));
    html.markup("<td><bdi>").short(&line.monitor, CELL).markup("</bdi></td>");
    html.markup("<td><span class=\"outcome ").text(&outcome).markup("\">").text(&outcome).markup("</span>");
    if !reason.is_empty() {
        html.markup(" <code>").text(&reason).markup("</code>");
    }
    if !attribution.is_empty() {
        html.markup(" <span class=\"quiet\">").text(&attribution).markup("</span>");
    }
    html.markup("<small title=\"").short(&last.summary, CELL).markup("\"><bdi>").short(&last.summary, CELL).markup("</bdi></small>");
    addresses(html, &last.address_results);
    html.markup("</td><td class=\"number\">").text(&latency(last)).markup("</td><td>");
    strip::draw(html, history);
    // A result that says nothing about the target is not old, it just has no say.
    let old = !line.fresh && state::say(last.outcome).is_some();
    html.markup("</td><td class=\"number age\">").text(&age(line.age)).markup(if old { " (old)" } else { "" }).markup("</td>");
}

/// The sub-results of the addresses of a name, where all were probed.
fn addresses(html: &mut Html, results: &[ProbeResult]) {
    if results.is_empty() {
        return;
    }
    html.markup("<ul class=\"addresses\">");
    for result in results.iter().take(ADDRESSES) {
        let (outcome, reason) = (words::outcome(result.outcome), words::reason(result.reason));
        html.markup("<li title=\"").short(&result.summary, CELL).markup("\"><span class=\"outcome ").text(&outcome).markup("\">");
        html.text(&outcome).markup("</span> <bdi>").short(&result.address, CELL).markup("</bdi> ");
        match reason.is_empty() {
            true => html.markup("<span class=\"quiet\">").text(&latency(result)).markup("</span></li>"),
            false => html.markup("<code>").text(&reason).markup("</code></li>"),
        };
    }
    html.markup("</ul>");
}

fn latency(result: &ProbeResult) -> String {
    let latency = result.latency.and_then(|latency| latency.try_into().ok());
    latency.map(super::words::precise).unwrap_or_else(|| "–".to_owned())
}

fn monitors(html: &mut Html, links: &[LinkView]) {
    html.markup("<section id=\"monitors\">");
    if !links.is_empty() {
        html.markup("<h2>Monitors</h2><ul>");
    }
    for link in links {
        let state = if link.state.connected { "connected" } else { "away" };
        html.markup("<li><span class=\"link ").text(state).markup("\">").text(state).markup("</span> <b><bdi>").short(&link.monitor, CELL);
        html.markup("</bdi></b>");
        if !link.state.announced.is_empty() && link.state.announced != link.monitor {
            html.markup(" <span class=\"quiet\">calls itself <bdi>").short(&link.state.announced, CELL).markup("</bdi></span>");
        }
        html.markup(" <span class=\"quiet\">for ").text(&age(link.age));
        if link.connected_count > 1 {
            html.markup(", ").text(&plural(link.connected_count - 1, "reconnect"));
        }
        html.markup("</span>");
        if !link.state.error.is_empty() {
            html.markup("<small><bdi>").short(&link.state.error, CELL).markup("</bdi></small>");
        }
        html.markup("</li>");
    }
    html.markup(if links.is_empty() { "</section>\n" } else { "</ul></section>\n" });
}

/// Changes whenever the check's rows do, but for their ages.
fn version(view: &CheckView) -> String {
    let lines = view.lines.iter().map(|line| format!("{}/{}/{}", line.last.session, line.last.sequence, line.fresh));
    format!("{} {}", view.state, lines.collect::<Vec<_>>().join(" "))
}
