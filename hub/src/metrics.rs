//! `GET /metrics`: the whole fleet, or a part of it, as Prometheus text, then the hub's own process; `GET /federate`: the
//! series that are asked for.
//!
//! The text is written straight from the published view, a chunk at a time: a fleet of a million series is never one
//! string in memory. The view is read as the text gets to it, so that the first bytes need not wait for the last cluster.
//! The fleet's series have no registry, because what is published is the only truth there is.

mod custom;
mod families;
mod rows;
mod scribe;
mod selection;
mod text;

use active_monitor_core::fleet::{ClusterEntry, FleetView};
use active_monitor_core::view::Problem;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures::stream;
use http::{StatusCode, header};
use jiff::Timestamp;
use prometheus::proto::{LabelPair, MetricFamily, MetricType};
use prometheus::{IntCounterVec, Opts, Registry};
use serde::Deserialize;
use tokio::sync::oneshot::error::RecvError;
use utoipa::{IntoParams, ToSchema};

use crate::api::Api;
use crate::api::extract::{Query, Selector};
use crate::api::problem::ApiError;
use crate::auth::Viewer;
use custom::{Custom, CustomFamily};
use families::FAMILIES;
use rows::Rows;
pub(crate) use scribe::Scribe;
pub use selection::Selection;
use text::Text;

/// Bytes after which a chunk is sent.
const CHUNK_BYTES: usize = 256 * 1024;
/// Rows that are looked at for a chunk at most: who picks little must not hold up the others. Where all are picked, a chunk
/// is full after some 2,400.
const CHUNK_ROWS: usize = 4096;

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

    /// Shows the same, and counts nothing: what it drops is counted where people and Prometheus ask.
    pub(crate) fn uncounted(registry: Registry) -> HubMetrics {
        HubMetrics { registry, dropped: None }
    }

    /// The series of `view` at `now` that are wanted, as chunks.
    pub fn exposition(&self, view: &FleetView, now: Timestamp, wanted: Wanted) -> Exposition {
        let Wanted { clusters, own, series } = wanted;
        let families = FAMILIES.iter().filter(|family| series.picks_family(family.name));
        let reserved = self.registry.gather().iter().map(|family| family.name().to_owned()).collect();
        let rows = Rows::new(view, now, families, Custom::new(reserved), |entry| clusters.picks(entry));
        Exposition {
            rows,
            custom: Vec::new(),
            own: own.then(|| self.registry.clone()),
            dropped: self.dropped.clone(),
            wanted: series,
            position: Position::Family(0, 0),
        }
    }
}

/// Which part of the exposition is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    clusters: Clusters,
    /// The metrics of the hub itself.
    own: bool,
    series: Selection,
}

/// Which clusters.
#[derive(Clone, Debug)]
enum Clusters {
    All,
    None,
    Picked { name: Option<String>, selector: Option<Selector> },
}

impl Clusters {
    fn picks(&self, entry: &ClusterEntry) -> bool {
        match self {
            Clusters::All => true,
            Clusters::None => false,
            Clusters::Picked { name, selector } => {
                name.as_ref().is_none_or(|name| *name == entry.view.name)
                    && selector.as_ref().is_none_or(|selector| selector.picks(&entry.view.labels))
            }
        }
    }
}

impl Wanted {
    /// The whole fleet and the hub itself.
    pub fn all() -> Wanted {
        Wanted { clusters: Clusters::All, own: true, series: Selection::All }
    }
}

/// Leaves what is wanted in a family of the hub itself; false where that is nothing. The parts of a histogram are picked
/// by their own names too, and then come together.
fn pick_own(family: &mut MetricFamily, wanted: &Selection) -> bool {
    let base = family.name().to_owned();
    let parts = ["", "_bucket", "_sum", "_count"].map(|part| format!("{base}{part}"));
    let parts = if family.get_field_type() == MetricType::HISTOGRAM { &parts[..] } else { &parts[..1] };
    family.mut_metric().retain(|metric| {
        let label =
            |name: &str| metric.get_label().iter().find(|pair| pair.name() == name).map_or("", LabelPair::value);
        parts.iter().any(|part| wanted.picks(part, label))
    });
    !family.get_metric().is_empty()
}

/// A collector that is there already, because the hub's main made it, is no error.
fn register(registry: &Registry, collector: Box<dyn prometheus::core::Collector>) {
    if let Err(error) = registry.register(collector) {
        tracing::debug!(%error, "a metric is registered already");
    }
}

/// An exposition under way: an iterator over the chunks of its text. A chunk may be empty: it took time and is not the end.
pub struct Exposition {
    rows: Rows,
    /// Empty until all clusters are read.
    custom: Vec<(String, CustomFamily)>,
    /// The metrics of the hub itself, where they are wanted.
    own: Option<Registry>,
    dropped: Option<IntCounterVec>,
    wanted: Selection,
    position: Position,
}

/// What is written next: a family and the row in it.
#[derive(Clone, Copy)]
enum Position {
    Family(usize, usize),
    /// The clusters that no family has come to.
    Rest,
    Custom(usize, usize),
    Process,
    End,
}

impl Iterator for Exposition {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut text = Text::with_capacity(CHUNK_BYTES + 4096);
        for _ in 0..CHUNK_ROWS {
            if text.len() >= CHUNK_BYTES {
                break;
            }
            self.position = match self.position {
                Position::Family(family, row) => self.family(&mut text, family, row),
                Position::Rest if self.rows.read_cluster() => break,
                Position::Rest => {
                    self.custom = self.rows.custom.take();
                    Position::Custom(0, 0)
                }
                Position::Custom(family, series) => self.custom(&mut text, family, series),
                Position::Process => {
                    self.process(&mut text);
                    Position::End
                }
                Position::End if text.len() == 0 => return None,
                Position::End => break,
            };
        }
        Some(text.into_bytes())
    }
}

impl Exposition {
    fn family(&mut self, text: &mut Text, index: usize, row: usize) -> Position {
        let Some((family, _)) = self.rows.families.get(index) else { return Position::Rest };
        let family = *family;
        if row == 0 {
            text.head(family.name, family.help, family.kind);
        }
        if family.is_of_checks() && self.rows.reach(row) {
            let column = &self.rows.families[index].1;
            family.write_check(&self.rows, row, column, &self.wanted, text);
        } else if !family.is_of_checks() && row < self.rows.clusters.len() {
            family.write_cluster(&self.rows, &self.rows.clusters[row], &self.wanted, text);
        } else {
            return Position::Family(index + 1, 0);
        }
        Position::Family(index, row + 1)
    }

    fn custom(&self, text: &mut Text, index: usize, series: usize) -> Position {
        let Some((name, family)) = self.custom.get(index) else { return Position::Process };
        if !self.wanted.picks_family(name) {
            return Position::Custom(index + 1, 0);
        }
        if series == 0 {
            text.head(name, &family.help, "gauge");
        }
        let Some(number) = family.series.get(series) else { return Position::Custom(index + 1, 0) };
        let sample = &self.rows.samples[*number as usize];
        let check = &self.rows.checks[sample.check as usize];
        if self.wanted.picks(name, |label| check.label(label)) {
            text.series(name, self.rows.labels_of_check(check), sample.value);
        }
        Position::Custom(index, series + 1)
    }

    /// What this exposition drops is counted by now, and in it.
    fn process(&self, text: &mut Text) {
        for (cluster, count) in &self.rows.dropped {
            if let Some(dropped) = &self.dropped {
                dropped.with_label_values(&[cluster]).inc_by(*count);
            }
        }
        let mut own = self.own.as_ref().map(Registry::gather).unwrap_or_default();
        own.retain_mut(|family| pick_own(family, &self.wanted));
        text.process(&own);
    }
}

/// Which part of the fleet; all of it, and the hub itself, where nothing is given.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Part {
    /// Only this cluster, without the hub's own metrics.
    cluster: Option<String>,
    /// Only clusters with these labels, as kubectl writes them, without the hub's own metrics.
    #[param(value_type = Option<String>)]
    selector: Option<Selector>,
    /// `hub`: only the hub's own metrics.
    only: Option<Only>,
}

/// What stands alone.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Only {
    /// The hub's own metrics.
    Hub,
}

/// The fleet's health for Prometheus. A cluster that there is not is not found, so that its scrape fails.
#[utoipa::path(
    get, path = "/metrics", operation_id = "metrics", tag = "metrics", params(Part),
    responses(
        (status = 200, body = String, content_type = "text/plain; version=0.0.4"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn scrape(_: Viewer, State(api): State<Api>, Query(part): Query<Part>) -> Result<Response, ApiError> {
    let Part { cluster, selector, only } = part;
    if let Some(name) = &cluster {
        api.known(name)?;
    }
    let wanted = match (only, &cluster, &selector) {
        (Some(Only::Hub), None, None) => Wanted { clusters: Clusters::None, ..Wanted::all() },
        (Some(Only::Hub), _, _) => {
            return Err(ApiError::Unreadable(StatusCode::BAD_REQUEST, "only=hub goes with no other part".to_owned()));
        }
        (None, None, None) => Wanted::all(),
        (None, _, _) => Wanted { clusters: Clusters::Picked { name: cluster, selector }, own: false, ..Wanted::all() },
    };
    Ok(answer(api.metrics_scribe(), api.exposition(wanted)))
}

/// The series that any `match[]`, a PromQL vector selector such as `{cluster="prod-eu-1"}`, picks, for the federation of
/// a central Prometheus.
#[utoipa::path(
    get, path = "/federate", operation_id = "federate", tag = "metrics",
    params(("match[]" = Vec<String>, Query, description = "Vector selectors; at least one")),
    responses(
        (status = 200, body = String, content_type = "text/plain; version=0.0.4"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn federate(
    _: Viewer,
    State(api): State<Api>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    let refused = |why| ApiError::Unreadable(StatusCode::BAD_REQUEST, why);
    if let Some((other, _)) = pairs.iter().find(|(name, _)| name != "match[]") {
        return Err(refused(format!("unknown field `{other}`, expected `match[]`")));
    }
    let texts: Vec<String> = pairs.into_iter().map(|(_, text)| text).collect();
    let series = Selection::parse(&texts).map_err(refused)?;
    Ok(answer(api.federate_scribe(), api.exposition(Wanted { series, ..Wanted::all() })))
}

/// The next chunk is made while the one before is sent. No thread waits for a slow reader.
fn answer(scribe: &Scribe, exposition: Exposition) -> Response {
    let first = scribe.next(exposition);
    let chunks = stream::try_unfold((scribe.clone(), first), async |(scribe, chunk)| {
        let Some((chunk, rest)) = chunk.await? else { return Ok::<_, RecvError>(None) };
        let next = scribe.next(rest);
        Ok(Some((chunk, (scribe, next))))
    });
    ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], Body::from_stream(chunks)).into_response()
}

#[cfg(test)]
pub(crate) mod tests;
