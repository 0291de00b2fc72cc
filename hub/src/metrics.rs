//! `GET /metrics`: the whole fleet as Prometheus text, then the hub's own process.
//!
//! The text is written straight from the published view, a chunk at a time: a fleet of a million series is never one
//! string in memory. The fleet's series have no registry, because what is published is the only truth there is.

mod custom;
mod families;
mod text;

use std::convert::Infallible;

use active_monitor_core::fleet::FleetView;
use active_monitor_core::view::Problem;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::stream;
use http::header;
use jiff::Timestamp;
use prometheus::{IntCounterVec, Opts, Registry};

use crate::api::Api;
use crate::api::problem::ApiError;
use crate::auth::Viewer;
use custom::Custom;
use families::{FAMILIES, Rows};
use text::Text;

/// Bytes after which a chunk is sent.
const CHUNK_BYTES: usize = 64 * 1024;

/// Writes expositions.
pub struct HubMetrics {
    registry: Registry,
    dropped: Option<IntCounterVec>,
}

impl HubMetrics {
    /// Shows what is in `registry` too. The metrics of the process are added to it.
    pub fn new(registry: Registry) -> HubMetrics {
        #[cfg(target_os = "linux")]
        register(&registry, Box::new(prometheus::process_collector::ProcessCollector::for_self()));
        let opts = Opts::new(
            "activemonitor_hub_dropped_samples_total",
            "Custom samples that were left out of an exposition: no valid name or value, a name that is taken, or too many.",
        );
        let dropped = IntCounterVec::new(opts, &["cluster"]).ok();
        if let Some(dropped) = &dropped {
            register(&registry, Box::new(dropped.clone()));
        }
        HubMetrics { registry, dropped }
    }

    /// The series of `view` at `now`, as chunks.
    pub fn exposition(&self, view: &FleetView, now: Timestamp) -> Exposition {
        let own = self.registry.gather();
        let is_taken = |name: &str| families::is_built_in(name) || own.iter().any(|family| family.name() == name);
        let rows = Rows::new(view, now);
        let custom = Custom::new(&rows, is_taken);
        for (cluster, count) in rows.dropped.iter().chain(&custom.dropped) {
            if let Some(dropped) = &self.dropped {
                dropped.with_label_values(&[cluster]).inc_by(*count);
            }
        }
        Exposition { rows, custom, registry: self.registry.clone(), position: Position::Family(0, 0) }
    }
}

/// A collector that is there already, because the hub's main made it, is no error.
fn register(registry: &Registry, collector: Box<dyn prometheus::core::Collector>) {
    if let Err(error) = registry.register(collector) {
        tracing::debug!(%error, "a metric is registered already");
    }
}

/// An exposition under way: an iterator over the chunks of its text.
pub struct Exposition {
    rows: Rows,
    custom: Custom,
    registry: Registry,
    position: Position,
}

/// What is written next: a family and the row in it.
#[derive(Clone, Copy)]
enum Position {
    Family(usize, usize),
    Custom(usize, usize),
    Process,
    End,
}

impl Iterator for Exposition {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut text = Text::with_capacity(CHUNK_BYTES + 4096);
        while text.len() < CHUNK_BYTES {
            self.position = match self.position {
                Position::Family(family, row) => self.family(&mut text, family, row),
                Position::Custom(family, series) => self.custom(&mut text, family, series),
                Position::Process => {
                    text.process(&self.registry);
                    Position::End
                }
                Position::End => break,
            };
        }
        (text.len() > 0).then(|| text.into_bytes())
    }
}

impl Exposition {
    fn family(&self, text: &mut Text, index: usize, row: usize) -> Position {
        let Some(family) = FAMILIES.get(index) else { return Position::Custom(0, 0) };
        if row == 0 {
            text.head(family.name, family.help, family.kind);
        }
        if family.write_row(&self.rows, row, text) {
            Position::Family(index, row + 1)
        } else {
            Position::Family(index + 1, 0)
        }
    }

    fn custom(&self, text: &mut Text, index: usize, series: usize) -> Position {
        let Some((name, family)) = self.custom.families.get(index) else { return Position::Process };
        if series == 0 {
            text.head(name, &family.help, "gauge");
        }
        match family.series.get(series) {
            Some(at) => {
                let (labels, sample) = self.rows.sample(*at);
                text.series(name, labels, sample.value);
                Position::Custom(index, series + 1)
            }
            None => Position::Custom(index + 1, 0),
        }
    }
}

/// The fleet's health for Prometheus.
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "metrics",
    responses(
        (status = 200, body = String, content_type = "text/plain; version=0.0.4"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn scrape(_: Viewer, State(api): State<Api>) -> Result<Response, ApiError> {
    // Grouping the samples of a large fleet takes long enough to be in the way of other requests.
    let exposition = tokio::task::spawn_blocking(move || api.exposition()).await.map_err(|_| ApiError::Internal)?;
    let chunks = stream::iter(exposition.map(Ok::<Bytes, Infallible>));
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], Body::from_stream(chunks)).into_response())
}

#[cfg(test)]
mod tests;
