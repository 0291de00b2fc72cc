//! The endpoints for whoever runs the process: `/healthz`, `/readyz` and `/metrics` (of this process).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{Encoder, TextEncoder};

/// Whether the process is ready for work. Clones share it; it starts as not ready.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    ready: Arc<AtomicBool>,
    notes: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl Readiness {
    /// Says whether the process is ready.
    pub fn set(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// Says something about one topic to whoever asks `/readyz`, until it is taken back with `None`.
    pub fn note(&self, topic: &'static str, text: Option<String>) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        match text {
            Some(text) => drop(notes.insert(topic, text)),
            None => drop(notes.remove(topic)),
        }
    }

    fn notes(&self) -> String {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.iter().map(|(topic, text)| format!("{topic}: {text}\n")).collect()
    }

    /// Whether it is.
    pub fn get(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }
}

/// All of them, for a process with one listener: [`probes`] and [`metrics`].
pub fn router(readiness: Readiness) -> Router {
    probes(readiness).merge(metrics())
}

/// `/healthz` answers 200 while the process can answer at all, `/readyz` 200 or 503 with the notes.
pub fn probes(readiness: Readiness) -> Router {
    Router::new().route("/healthz", get(|| async { "ok\n" })).route("/readyz", get(ready)).with_state(readiness)
}

/// `/metrics` answers with the default registry.
pub fn metrics() -> Router {
    Router::new().route("/metrics", get(|| async { exposition() }))
}

async fn ready(State(readiness): State<Readiness>) -> Response {
    let notes = readiness.notes();
    if readiness.get() {
        format!("ready\n{notes}").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{notes}")).into_response()
    }
}

fn exposition() -> Response {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&prometheus::gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
