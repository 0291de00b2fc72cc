//! The fleet in numbers, and the clusters.

use active_monitor_core::view::{ClusterAdd, ClusterPatch, ClusterToken, ClusterView, FleetSummary, List, Problem};
use axum::extract::State;
use http::{HeaderName, StatusCode, header};

use super::Api;
use super::extract::{Json, Path};
use super::problem::ApiError;
use crate::auth::{Admin, Operator, Viewer};

/// The fleet in numbers.
#[utoipa::path(
    get, path = "/api/v1/fleet", operation_id = "fleet", tag = "fleet",
    responses((status = 200, body = FleetSummary), (status = 401, body = Problem, content_type = "application/problem+json"))
)]
pub async fn fleet(_: Viewer, State(api): State<Api>) -> axum::Json<FleetSummary> {
    axum::Json(api.app.fleet.view().summary.clone())
}

/// Every cluster, by name.
#[utoipa::path(
    get, path = "/api/v1/clusters", operation_id = "listClusters", tag = "clusters",
    responses(
        (status = 200, body = List<ClusterView>),
        (status = 401, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list(_: Viewer, State(api): State<Api>) -> axum::Json<List<ClusterView>> {
    let view = api.app.fleet.view();
    axum::Json(List { items: view.clusters.values().map(|entry| entry.view.clone()).collect() })
}

/// One cluster.
#[utoipa::path(
    get, path = "/api/v1/clusters/{cluster}", operation_id = "readCluster", tag = "clusters", params(("cluster", description = "Its name")),
    responses(
        (status = 200, body = ClusterView),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn read(
    _: Viewer,
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<axum::Json<ClusterView>, ApiError> {
    match api.app.fleet.view().clusters.get(&name) {
        Some(entry) => Ok(axum::Json(entry.view.clone())),
        None => Err(no_cluster(&name)),
    }
}

/// Adds a cluster, or makes a new token for one that never connected.
#[utoipa::path(
    post, path = "/api/v1/clusters", operation_id = "addCluster", tag = "clusters", request_body = ClusterAdd,
    responses(
        (status = 201, body = ClusterToken, headers(("Location", description = "Path of the cluster"))),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It has connected before"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn add(
    Admin(me): Admin,
    State(api): State<Api>,
    Json(add): Json<ClusterAdd>,
) -> Result<(StatusCode, [(HeaderName, String); 1], axum::Json<ClusterToken>), ApiError> {
    let token = api.app.fleet.add_cluster(add).await?;
    api.audit(&me.name, "cluster.add", &token.cluster).await?;
    let location = [(header::LOCATION, format!("/api/v1/clusters/{}", token.cluster))];
    Ok((StatusCode::CREATED, location, axum::Json(token)))
}

/// Sets or removes labels and annotations.
#[utoipa::path(
    patch, path = "/api/v1/clusters/{cluster}", operation_id = "patchCluster", tag = "clusters", params(("cluster", description = "Its name")),
    request_body = ClusterPatch,
    responses(
        (status = 200, body = ClusterView),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn patch(
    Operator(me): Operator,
    State(api): State<Api>,
    Path(name): Path<String>,
    Json(patch): Json<ClusterPatch>,
) -> Result<axum::Json<ClusterView>, ApiError> {
    let after = api.app.fleet.patch_cluster(&name, patch).await?;
    api.audit(&me.name, "cluster.patch", &name).await?;
    Ok(axum::Json(after))
}

/// Removes a cluster. Its certificate is refused from then on.
#[utoipa::path(
    delete, path = "/api/v1/clusters/{cluster}", operation_id = "removeCluster", tag = "clusters", params(("cluster", description = "Its name")),
    responses(
        (status = 204),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn remove(
    Admin(me): Admin,
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    api.app.fleet.remove_cluster(&name).await?;
    api.audit(&me.name, "cluster.remove", &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn no_cluster(name: &str) -> ApiError {
    ApiError::NotFound(format!("there is no cluster {name}"))
}
