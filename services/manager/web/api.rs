//! The JSON API. Results are the contract's canonical JSON; what the manager adds has the same style.
//!
//! Checks are shown without their probes: those may hold secrets (headers, bodies), and results name the target without any.

use axum::{
    Json,
    extract::RawQuery,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use vantage_contract::json::to_json;

use super::query;
use crate::desk::{CheckView, Desk, LineView, LinkView};

/// `/api/checks`: all checks with their states and last results, the links, and how full the store is.
pub(super) fn checks(desk: &Desk) -> Json<Value> {
    let (snapshot, usage) = (desk.snapshot(), desk.usage());
    Json(json!({
        "checks": snapshot.checks.iter().map(check).collect::<Vec<_>>(),
        "monitors": snapshot.links.iter().map(link).collect::<Vec<_>>(),
        "store": { "result_count": usage.result_count, "bytes": usage.bytes, "limit_bytes": usage.limit_bytes, "evicted_count": usage.evicted_count },
    }))
}

/// `/api/results?check=&monitor=&limit=`: stored results, newest first.
pub(super) async fn results(desk: &Desk, RawQuery(text): RawQuery) -> Response {
    let query = match query::read(text.as_deref().unwrap_or_default()) {
        Ok(query) => query,
        Err(error) => return (StatusCode::BAD_REQUEST, Json(json!({ "error": error }))).into_response(),
    };
    match desk.recent(query).await {
        Ok(results) => Json(json!({ "results": results.iter().map(|result| to_json(&**result)).collect::<Vec<_>>() })).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "error": error.to_string() }))).into_response(),
    }
}

fn check(view: &CheckView) -> Value {
    json!({
        "name": view.check.name,
        "kind": view.kind,
        "labels": view.check.labels,
        "state": view.state.word(),
        "state_age_seconds": view.state_age.as_secs_f64(),
        "monitors": view.monitors,
        "last_results": view.lines.iter().map(line).collect::<Vec<_>>(),
    })
}

fn line(line: &LineView) -> Value {
    let runs = line.totals.iter().map(|((outcome, reason), count)| json!({ "outcome": outcome, "reason": reason, "count": count }));
    json!({
        "monitor": line.monitor,
        "age_seconds": line.age.as_secs_f64(),
        "fresh": line.fresh,
        "runs": runs.collect::<Vec<_>>(),
        "result": to_json(&*line.last),
    })
}

fn link(link: &LinkView) -> Value {
    json!({
        "name": link.monitor,
        "announced_name": link.state.announced,
        "connected": link.state.connected,
        "since_time": Timestamp::try_from(link.state.since).ok().map(|since| since.to_string()),
        "age_seconds": link.age.as_secs_f64(),
        "error": link.state.error,
        "connected_count": link.connected_count,
    })
}
