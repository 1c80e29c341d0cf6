//! What people see in a browser: a page, a JSON API and a stream of events. It only reads.
//!
//! Everything shown comes from monitors and their targets, so all of it is hostile: `html` can't write text unescaped, and the browser is told
//! to run nothing but our own file (`guard`).

use axum::{Router, middleware, routing::get};

use crate::desk::Desk;

mod api;
mod events;
mod guard;
mod html;
mod page;
mod query;
mod strip;
mod words;

/// How the page is served.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names under which browsers may ask for the page, beside `localhost` and plain addresses. Without a port.
    pub host_names: Vec<String>,
    /// The most readers of the event stream at once; more are answered with 503. Default 64.
    pub event_readers: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { host_names: Vec::new(), event_readers: 64 }
    }
}

/// The routes: `/` and its two files, `/api/checks`, `/api/results`, `/api/events`. To be merged with those of health and figures.
pub fn routes(desk: Desk, settings: Settings) -> Router {
    let readers = events::Readers::new(settings.event_readers);
    let (page, checks, results, events) = (desk.clone(), desk.clone(), desk.clone(), desk);
    Router::new()
        .route("/", get(async move || page::show(&page).await))
        .route("/page.css", get(page::style))
        .route("/page.js", get(page::script))
        .route("/api/checks", get(async move || api::checks(&checks)))
        .route("/api/results", get(async move |query| api::results(&results, query).await))
        .route("/api/events", get(async move || events::stream(&events, &readers)))
        .layer(middleware::from_fn_with_state(guard::Hosts::new(settings.host_names), guard::watch))
}

#[cfg(test)]
mod tests;
