//! `/api/events`: each new result as a server-sent event (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! The event `result` carries the result as canonical JSON. A reader that is too slow misses the oldest, is told how many by the event `missed`
//! (`{"count": n}`), and goes on. The number of readers is bounded; one more is answered with 503.

use std::{convert::Infallible, sync::Arc};

use axum::{
    http::{StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_stream::{
    StreamExt as _,
    wrappers::{BroadcastStream, errors::BroadcastStreamRecvError},
};
use vantage_contract::json::to_json;

use crate::desk::Desk;

/// The places for readers.
#[derive(Debug, Clone)]
pub(super) struct Readers(Arc<Semaphore>);

impl Readers {
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Semaphore::new(most)))
    }
}

pub(super) fn stream(desk: &Desk, readers: &Readers) -> Response {
    let Ok(place) = Arc::clone(&readers.0).try_acquire_owned() else {
        desk.counts().refused_events.add(1);
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "30")], "too many readers of events\n").into_response();
    };
    let counting = desk.clone();
    let events = BroadcastStream::new(desk.subscribe()).map(move |received| {
        // The place is free again when the stream ends.
        let _ = &place;
        let event = match received {
            Ok(result) => Event::default().event("result").data(to_json(&*result).to_string()),
            Err(BroadcastStreamRecvError::Lagged(count)) => {
                counting.counts().missed_events.add(count);
                Event::default().event("missed").data(json!({ "count": count }).to_string())
            }
        };
        Ok::<_, Infallible>(event)
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}
