//! HTTP service discovery for Prometheus: one target for each cluster, and one for the hub itself.

use std::collections::BTreeMap;

use active_monitor_core::view::Problem;
use axum::Json;
use axum::extract::State;
use http::header;
use http::request::Parts;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::problem::ApiError;
use crate::auth::Viewer;

/// A group of targets, in the form that Prometheus reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TargetGroup {
    /// `host:port`.
    targets: Vec<String>,
    /// `cluster`, what to ask for, and what relabelling can use: `__meta_activemonitor_cluster` and
    /// `__meta_activemonitor_label_KEY` for each label of the cluster.
    labels: BTreeMap<String, String>,
}

/// What a central Prometheus scrapes to have each series of the fleet once: one target for each cluster, and one for the
/// hub itself. They are all at the address that this was asked at.
#[utoipa::path(
    get, path = "/api/v1/sd/prometheus", operation_id = "discoverTargets", tag = "metrics",
    responses(
        (status = 200, body = Vec<TargetGroup>),
        (status = 401, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn prometheus(_: Viewer, State(api): State<Api>, parts: Parts) -> Result<Json<Vec<TargetGroup>>, ApiError> {
    let named = parts.uri.authority().map(|authority| authority.as_str());
    let named = named.or_else(|| parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()));
    let Some(host) = named else {
        return Err(ApiError::Invalid("the header Host must say where the hub is reached".to_owned()));
    };
    let scheme = if api.app.secure_cookies { "https" } else { "http" };
    let group = |labels: BTreeMap<String, String>| {
        let fixed = [("__scheme__", scheme), ("__metrics_path__", "/metrics")];
        let fixed = fixed.map(|(label, value)| (label.to_owned(), value.to_owned()));
        TargetGroup { targets: vec![host.to_owned()], labels: fixed.into_iter().chain(labels).collect() }
    };
    let view = api.app.fleet.view();
    let clusters = view.clusters.iter().map(|(name, entry)| {
        // A label of its own, or the targets would be one when those that begin with __ are gone.
        let own = ["cluster", "__param_cluster", "__meta_activemonitor_cluster"];
        let own = own.map(|label| (label.to_owned(), name.clone()));
        let labels = entry.view.labels.iter();
        let labels =
            labels.map(|(key, value)| (format!("__meta_activemonitor_label_{}", sanitized(key)), value.clone()));
        group(own.into_iter().chain(labels).collect())
    });
    let hub = group([("__param_only".to_owned(), "hub".to_owned())].into());
    Ok(Json(clusters.chain([hub]).collect()))
}

/// As Prometheus does for the labels of Kubernetes.
fn sanitized(key: &str) -> String {
    key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}
