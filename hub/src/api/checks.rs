//! The checks as they are known last.

use std::sync::Arc;

use active_monitor_core::fleet::{ClusterEntry, overdue_seconds};
use active_monitor_core::view::{CheckStatus, CheckView, Page, Problem};
use axum::extract::State;
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::clusters::no_cluster;
use super::extract::{PageSize, Path, Query, Selector, page};
use super::problem::ApiError;
use crate::auth::Viewer;
use crate::store::CheckKey;

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
    /// Only of clusters with these labels, as kubectl writes them: `env=prod,region in (eu,us)`.
    #[param(value_type = Option<String>)]
    selector: Option<Selector>,
    /// Checks in the page.
    #[serde(default)]
    #[param(value_type = u32, required = false, minimum = 1, maximum = 10000, default = 1000)]
    limit: PageSize,
    /// Only checks after this one, `CLUSTER/NAMESPACE/NAME`: `next` of the page before.
    #[param(value_type = Option<String>)]
    after: Option<After>,
}

/// A check by its names.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct After(Names);

type Names = (String, String, String);

impl TryFrom<String> for After {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let mut parts = text.splitn(3, '/').map(str::to_owned);
        match (parts.next(), parts.next(), parts.next()) {
            (Some(cluster), Some(namespace), Some(name)) => Ok(After((cluster, namespace, name))),
            _ => Err("must be CLUSTER/NAMESPACE/NAME, the `next` of another page"),
        }
    }
}

impl CheckFilter {
    fn picks(&self, check: &CheckView) -> bool {
        let CheckFilter { cluster: _, selector: _, limit: _, after: _, namespace, name, status } = self;
        namespace.as_ref().is_none_or(|namespace| *namespace == check.state.namespace)
            && name.as_ref().is_none_or(|name| *name == check.state.name)
            && status.is_none_or(|status| status == check.status)
    }
}

/// Checks by cluster, namespace and name, page by page.
#[utoipa::path(
    get, path = "/api/v1/checks", operation_id = "listChecks", tag = "checks", params(CheckFilter),
    responses(
        (status = 200, body = Page<CheckView>),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list(_: Viewer, State(api): State<Api>, Query(filter): Query<CheckFilter>) -> axum::Json<Page<CheckView>> {
    let view = api.app.fleet.view();
    let now = Timestamp::now();
    let is_wanted = |entry: &&Arc<ClusterEntry>| {
        let has_name = filter.cluster.as_ref().is_none_or(|cluster| *cluster == entry.view.name);
        has_name && filter.selector.as_ref().is_none_or(|selector| selector.picks(&entry.view.labels))
    };
    let entries = view.clusters.values().filter(is_wanted);
    let checks = entries.flat_map(|entry| entry.checks.values().map(move |check| (entry, check)));
    let picked = checks.filter(|(_, check)| filter.picks(check)).map(|(entry, check)| (names(check), (entry, check)));
    let (picked, next) = page(picked, filter.after.as_ref().map(|After(names)| names), filter.limit);
    let items = picked.into_iter().map(|(entry, check)| at(entry, check, now)).collect();
    let next = next.map(|(cluster, namespace, name)| format!("{cluster}/{namespace}/{name}"));
    axum::Json(Page { items, next })
}

fn names(check: &CheckView) -> Names {
    (check.cluster.clone(), check.state.namespace.clone(), check.state.name.clone())
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
    Ok(axum::Json(read_check(&api, &CheckKey { cluster, namespace, name })?))
}

pub(super) fn read_check(api: &Api, key: &CheckKey) -> Result<CheckView, ApiError> {
    let CheckKey { cluster, namespace, name } = key;
    let view = api.app.fleet.view();
    let entry = view.clusters.get(cluster).ok_or_else(|| no_cluster(cluster))?;
    let check = entry
        .checks
        .get(&(namespace.clone(), name.clone()))
        .ok_or_else(|| ApiError::NotFound(format!("cluster {cluster} has no check {name} in namespace {namespace}")))?;
    Ok(at(entry, check, Timestamp::now()))
}

fn at(entry: &ClusterEntry, check: &CheckView, now: Timestamp) -> CheckView {
    CheckView { overdue_seconds: overdue_seconds(check, entry.their_time(now)), ..check.clone() }
}
