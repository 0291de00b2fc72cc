//! The history of runs.

use active_monitor_core::run::{Outcome, RunKind};
use active_monitor_core::view::{Problem, RunPage};
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::extract::{Before, Limit, Query};
use super::problem::ApiError;
use crate::auth::Viewer;
use crate::store::RunQuery;

/// Which runs are asked for; all of them where nothing is given.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RunFilter {
    /// Name of the cluster.
    cluster: Option<String>,
    /// Namespace of the check.
    namespace: Option<String>,
    /// Name of the check.
    name: Option<String>,
    /// Check or remedy.
    kind: Option<RunKind>,
    /// How it ended.
    outcome: Option<Outcome>,
    /// Runs in the page.
    #[serde(default)]
    #[param(value_type = u32, required = false, minimum = 1, maximum = 1000, default = 100)]
    limit: Limit,
    /// Only runs before this one: `next` of the page before.
    #[param(value_type = Option<i64>, minimum = 0)]
    before: Option<Before>,
}

/// A page of the history, newest first.
#[utoipa::path(
    get, path = "/api/v1/runs", operation_id = "listRuns", tag = "runs", params(RunFilter),
    responses(
        (status = 200, body = RunPage),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list(
    _: Viewer,
    State(api): State<Api>,
    Query(filter): Query<RunFilter>,
) -> Result<axum::Json<RunPage>, ApiError> {
    let RunFilter { cluster, namespace, name, kind, outcome, limit, before } = filter;
    let before = before.map(|Before(id)| id);
    let query = RunQuery { cluster, namespace, name, kind, outcome, before, limit: limit.0 };
    Ok(axum::Json(api.app.store.runs(&query).await?))
}
