//! A hub that came back from the past: what it lacks, and a person's word that this is known.

use std::collections::BTreeMap;

use active_monitor_core::fleet::FleetView;
use active_monitor_core::view::{Problem, RestoreDifference, RestoreView};
use axum::extract::State;

use super::Api;
use super::problem::ApiError;
use crate::auth::{Admin, Viewer};
use crate::owner::Definitions;

/// Whether the hub came back from the past, and what it lacks.
#[utoipa::path(
    get, path = "/api/v1/restore", operation_id = "readRestore", tag = "definitions",
    responses(
        (status = 200, body = RestoreView),
        (status = 401, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn read(_: Viewer, State(api): State<Api>) -> axum::Json<RestoreView> {
    let view = api.app.fleet.view();
    let restore = view.summary.restore.clone();
    let differences = restore.as_ref().map(|_| differences(&view, &api.app.fleet.definitions())).unwrap_or_default();
    axum::Json(RestoreView { restore, differences })
}

/// Lets the hub push and withdraw definitions again.
#[utoipa::path(
    post, path = "/api/v1/restore/confirm", operation_id = "confirmRestore", tag = "definitions",
    responses(
        (status = 200, body = RestoreView),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "There is nothing to confirm"),
    )
)]
pub async fn confirm(Admin(me): Admin, State(api): State<Api>) -> Result<axum::Json<RestoreView>, ApiError> {
    api.app.fleet.confirm_restore().await?;
    api.audit(&me.name, "restore.confirm", "").await?;
    Ok(axum::Json(RestoreView::default()))
}

/// What clusters have in a later generation than the hub, or the hub does not know.
fn differences(view: &FleetView, definitions: &Definitions) -> Vec<RestoreDifference> {
    let mut found = BTreeMap::<&str, RestoreDifference>::new();
    for entry in view.clusters.values() {
        for made in entry.checks.values().filter_map(|check| check.state.definition.as_ref()) {
            let hub_generation = definitions.get(&made.name).map(|definition| definition.generation);
            if hub_generation.is_some_and(|known| made.generation <= known) {
                continue;
            }
            let difference = found.entry(&made.name).or_insert_with(|| RestoreDifference {
                definition: made.name.clone(),
                hub_generation,
                newest_generation: made.generation,
                clusters: Vec::new(),
            });
            difference.newest_generation = difference.newest_generation.max(made.generation);
            difference.clusters.push(entry.view.name.clone());
        }
    }
    found.into_values().collect()
}
