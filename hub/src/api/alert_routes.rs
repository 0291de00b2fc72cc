//! What another file of alert routes would change.

use active_monitor_core::alert::{Routes, preview};
use active_monitor_core::view::{Problem, RoutesFile, RoutesPreview};
use axum::extract::State;

use super::Api;
use super::extract::Json;
use super::problem::ApiError;
use crate::alerts;
use crate::auth::Viewer;

/// What another file of alert routes would change, beside the one that the hub has now. Changes nothing, and says of no route
/// where it goes.
#[utoipa::path(
    post, path = "/api/v1/routes/preview", operation_id = "previewRoutes", tag = "routes", request_body = RoutesFile,
    responses(
        (status = 200, body = RoutesPreview),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "The hub's own file makes no sense now"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn preview_routes(
    _: Viewer,
    State(api): State<Api>,
    Json(RoutesFile { text }): Json<RoutesFile>,
) -> Result<axum::Json<RoutesPreview>, ApiError> {
    let next = Routes::parse(&text).map_err(ApiError::Invalid)?;
    let now = match api.app.routes_file.clone() {
        None => None,
        Some(file) => {
            let read = tokio::task::spawn_blocking(move || alerts::read(&file)).await;
            let read = read.map_err(|_| ApiError::Internal)?;
            // Why it makes no sense may quote what it says.
            Some(read.map_err(|error| {
                tracing::warn!(%error, "routes cannot be compared");
                ApiError::Conflict("the hub's own file of routes makes no sense now: its log says why".to_owned())
            })?)
        }
    };
    let has_file = now.is_some();
    Ok(axum::Json(RoutesPreview { has_file, routes: preview(&now.unwrap_or_default(), &next) }))
}
