//! The checks as they are known last.

use active_monitor_core::fleet::{ClusterEntry, overdue_seconds};
use active_monitor_core::view::{CheckStatus, CheckView, List, Problem};
use axum::extract::State;
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::clusters::no_cluster;
use super::extract::{Path, Query};
use super::problem::ApiError;
use crate::auth::Viewer;

/// Which checks are asked for; all of them where nothing is given.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CheckFilter {
    /// Name of the cluster.
    cluster: Option<String>,
    /// Namespace of the check.
    namespace: Option<String>,
    /// Name of the check.
    name: Option<String>,
    /// What the hub says of it.
    status: Option<CheckStatus>,
}

impl CheckFilter {
    fn picks(&self, check: &CheckView) -> bool {
        let CheckFilter { cluster: _, namespace, name, status } = self;
        namespace.as_ref().is_none_or(|namespace| *namespace == check.state.namespace)
            && name.as_ref().is_none_or(|name| *name == check.state.name)
            && status.is_none_or(|status| status == check.status)
    }
}

/// Checks, worst first, then by cluster, namespace and name.
#[utoipa::path(
    get, path = "/api/v1/checks", operation_id = "listChecks", tag = "checks", params(CheckFilter),
    responses(
        (status = 200, body = List<CheckView>),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list(_: Viewer, State(api): State<Api>, Query(filter): Query<CheckFilter>) -> axum::Json<List<CheckView>> {
    let view = api.app.fleet.view();
    let now = Timestamp::now();
    let clusters: Vec<&ClusterEntry> = match &filter.cluster {
        Some(cluster) => view.clusters.get(cluster).map(|entry| &**entry).into_iter().collect(),
        None => view.clusters.values().map(|entry| &**entry).collect(),
    };
    let picked = clusters.iter().flat_map(|entry| entry.checks.values()).filter(|check| filter.picks(check));
    let mut items: Vec<CheckView> = picked.map(|check| at(check, now)).collect();
    // The order within a status is that of the maps.
    items.sort_by_key(|check| check.status);
    axum::Json(List { items })
}

/// One check.
#[utoipa::path(
    get, path = "/api/v1/clusters/{cluster}/checks/{namespace}/{name}", operation_id = "readCheck", tag = "checks",
    params(
        ("cluster", description = "Name of the cluster"),
        ("namespace", description = "Namespace of the check"),
        ("name", description = "Name of the check"),
    ),
    responses(
        (status = 200, body = CheckView),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn read(
    _: Viewer,
    State(api): State<Api>,
    Path((cluster, namespace, name)): Path<(String, String, String)>,
) -> Result<axum::Json<CheckView>, ApiError> {
    let view = api.app.fleet.view();
    let entry = view.clusters.get(&cluster).ok_or_else(|| no_cluster(&cluster))?;
    let key = (namespace, name);
    let check = entry.checks.get(&key).ok_or_else(|| {
        ApiError::NotFound(format!("cluster {cluster} has no check {} in namespace {}", key.1, key.0))
    })?;
    Ok(axum::Json(at(check, Timestamp::now())))
}

fn at(check: &CheckView, now: Timestamp) -> CheckView {
    CheckView { overdue_seconds: overdue_seconds(check, now), ..check.clone() }
}
