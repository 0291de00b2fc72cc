//! What is wrong in the fleet, said once.

use active_monitor_core::view::{IncidentKind, IncidentPage, Problem};
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::extract::{Before, Limit, Query};
use super::problem::ApiError;
use crate::auth::Viewer;
use crate::store::IncidentQuery;

/// Which incidents are asked for; the open ones where nothing is given.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct IncidentFilter {
    /// Closed ones too, newest first and in pages.
    #[serde(default)]
    #[param(value_type = bool, required = false, default = false)]
    all: bool,
    /// Only of this kind.
    kind: Option<IncidentKind>,
    /// Incidents in the page, with `all`.
    #[serde(default)]
    #[param(value_type = u32, required = false, minimum = 1, maximum = 1000, default = 100)]
    limit: Limit,
    /// Only incidents before this one, with `all`: `next` of the page before.
    #[param(value_type = Option<i64>, minimum = 0)]
    before: Option<Before>,
}

/// The open incidents, worst first, or all incidents, newest first. Of each at most 100 members are shown.
#[utoipa::path(
    get, path = "/api/v1/incidents", operation_id = "listIncidents", tag = "incidents", params(IncidentFilter),
    responses(
        (status = 200, body = IncidentPage),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list(
    _: Viewer,
    State(api): State<Api>,
    Query(filter): Query<IncidentFilter>,
) -> Result<axum::Json<IncidentPage>, ApiError> {
    let IncidentFilter { all, kind, limit, before } = filter;
    if all {
        let query = IncidentQuery { kind, before: before.map(|Before(number)| number), limit: limit.0 };
        let IncidentPage { items, next } = api.app.store.incidents(&query).await?;
        return Ok(axum::Json(IncidentPage { items: items.iter().map(|incident| incident.shown()).collect(), next }));
    }
    let open = api.app.incidents.borrow().clone();
    let wanted = open.iter().filter(|incident| kind.is_none_or(|kind| incident.kind == kind));
    Ok(axum::Json(IncidentPage { items: wanted.map(|incident| incident.shown()).collect(), next: None }))
}
