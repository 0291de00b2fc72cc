//! The fleet in numbers, and the clusters.

use active_monitor_core::view::{
    ClusterAdd, ClusterPatch, ClusterStatus, ClusterToken, ClusterView, FleetSummary, Page, Problem,
};
use axum::Extension;
use axum::extract::State;
use http::{HeaderName, StatusCode, header};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::extract::{Expects, Json, PageSize, Path, Query, Selector, page};
use super::problem::ApiError;
use super::unchanged::Version;
use crate::auth::{Admin, Operator, Viewer};
use crate::desired::cluster_version;
use crate::owner::Records;

/// The fleet in numbers.
#[utoipa::path(
    get, path = "/api/v1/fleet", operation_id = "fleet", tag = "fleet",
    responses((status = 200, body = FleetSummary), (status = 401, body = Problem, content_type = "application/problem+json"))
)]
pub async fn fleet(_: Viewer, State(api): State<Api>) -> axum::Json<FleetSummary> {
    axum::Json(api.app.fleet.view().summary.clone())
}

/// Which clusters are asked for; all of them where nothing is given.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ClusterFilter {
    /// Only those with these labels, as kubectl writes them: `env=prod,region in (eu,us)`.
    #[param(value_type = Option<String>)]
    selector: Option<Selector>,
    /// State of the link.
    status: Option<ClusterStatus>,
    /// Clusters in the page.
    #[serde(default)]
    #[param(value_type = u32, required = false, minimum = 1, maximum = 10000, default = 1000)]
    limit: PageSize,
    /// Only clusters after the one with this name: `next` of the page before.
    after: Option<String>,
}

/// Clusters by name, page by page.
#[utoipa::path(
    get, path = "/api/v1/clusters", operation_id = "listClusters", tag = "clusters", params(ClusterFilter),
    responses(
        (status = 200, body = Page<ClusterView>),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list(
    _: Viewer,
    State(api): State<Api>,
    Query(filter): Query<ClusterFilter>,
) -> axum::Json<Page<ClusterView>> {
    let (view, records) = (api.app.fleet.view(), api.app.fleet.records());
    let ClusterFilter { selector, status, limit, after } = filter;
    let is_wanted = |view: &ClusterView| {
        selector.as_ref().is_none_or(|selector| selector.picks(&view.labels))
            && status.is_none_or(|status| status == view.status)
    };
    let wanted = view.clusters.values().map(|entry| &entry.view).filter(|view| is_wanted(view));
    let (items, next) = page(wanted.map(|view| (view.name.clone(), view)), after.as_ref(), limit);
    axum::Json(Page { items: items.into_iter().map(|view| with_certificate(view, &records)).collect(), next })
}

fn with_certificate(view: &ClusterView, records: &Records) -> ClusterView {
    let newest = records.get(&view.name).and_then(|record| record.agent_keys.last());
    ClusterView { certificate_ends_at: newest.map(|key| key.not_after), ..view.clone() }
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
pub async fn read(_: Viewer, State(api): State<Api>, Path(name): Path<String>) -> Result<Shown, ApiError> {
    match api.app.fleet.view().clusters.get(&name) {
        Some(entry) => Ok(shown(&api, &entry.view)),
        None => Err(no_cluster(&name)),
    }
}

/// A cluster with the version of its labels and annotations.
type Shown = (Extension<Version>, axum::Json<ClusterView>);

fn shown(api: &Api, view: &ClusterView) -> Shown {
    let version = cluster_version(&view.labels, &view.annotations);
    (Extension(Version(version)), axum::Json(with_certificate(view, &api.app.fleet.records())))
}

/// Adds a cluster, or makes a new token for one that never connected.
#[utoipa::path(
    post, path = "/api/v1/clusters", operation_id = "addCluster", tag = "clusters", request_body = ClusterAdd,
    responses(
        (status = 201, body = ClusterToken, headers(("Location", description = "Path of the cluster"))),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It has connected before, or a label is Git's"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn add(
    Admin(me): Admin,
    State(api): State<Api>,
    Json(add): Json<ClusterAdd>,
) -> Result<(StatusCode, [(HeaderName, String); 1], axum::Json<ClusterToken>), ApiError> {
    let _held = api.unowned_keys(&add.name, add.labels.keys(), add.annotations.keys()).await?;
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
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It is Git's"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn patch(
    Operator(me): Operator,
    State(api): State<Api>,
    Path(name): Path<String>,
    Expects(expected): Expects,
    Json(patch): Json<ClusterPatch>,
) -> Result<Shown, ApiError> {
    let _held = api.unowned_keys(&name, patch.labels.keys(), patch.annotations.keys()).await?;
    let after = api.app.fleet.patch_cluster_if(&name, patch, expected).await?;
    api.audit(&me.name, "cluster.patch", &name).await?;
    Ok(shown(&api, &after))
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

/// Makes a new one-time token for the agent of a cluster that is there. What it has stays good until the token is used.
#[utoipa::path(
    post, path = "/api/v1/clusters/{cluster}/token", operation_id = "newClusterToken", tag = "clusters", params(("cluster", description = "Its name")),
    responses(
        (status = 201, body = ClusterToken),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn token(
    Admin(me): Admin,
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<(StatusCode, axum::Json<ClusterToken>), ApiError> {
    let token = api.app.fleet.new_token(&name, false).await?;
    api.audit(&me.name, "cluster.token", &name).await?;
    Ok((StatusCode::CREATED, axum::Json(token)))
}

/// Frees the name for a rebuilt cluster: cuts its session, refuses every certificate that was issued for it, and makes a
/// token that any cluster may enrol with.
#[utoipa::path(
    post, path = "/api/v1/clusters/{cluster}/rebind", operation_id = "rebindCluster", tag = "clusters", params(("cluster", description = "Its name")),
    responses(
        (status = 201, body = ClusterToken),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn rebind(
    Admin(me): Admin,
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<(StatusCode, axum::Json<ClusterToken>), ApiError> {
    let token = api.app.fleet.new_token(&name, true).await?;
    api.audit(&me.name, "cluster.rebind", &name).await?;
    Ok((StatusCode::CREATED, axum::Json(token)))
}

pub(super) fn no_cluster(name: &str) -> ApiError {
    ApiError::NotFound(format!("there is no cluster {name}"))
}
