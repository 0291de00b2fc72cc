//! What changed in the fleet, as far as viewers may see it.

use active_monitor_core::view::{ChangeKind, ChangePage, ChangeSource, Position, Problem, merge};
use axum::extract::State;
use futures::future::try_join_all;
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::extract::{Limit, Query};
use super::problem::ApiError;
use crate::auth::Viewer;
use crate::store::ChangeQuery;

/// Which changes are asked for; all of them where nothing is given.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ChangeFilter {
    /// Those from here on.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Only those before.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// Those of this cluster, and those of the whole fleet.
    cluster: Option<String>,
    /// Only of this kind.
    kind: Option<ChangeKind>,
    /// Changes that are looked at for the page.
    #[serde(default)]
    #[param(value_type = u32, required = false, minimum = 1, maximum = 1000, default = 100)]
    limit: Limit,
    /// Only changes before this one: `next` of the page before.
    #[param(value_type = Option<String>)]
    before: Option<Before>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Before(Position);

impl TryFrom<String> for Before {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        text.parse().map(Before)
    }
}

/// What changed, newest first: definitions, clusters and their labels, commands, maintenance windows, acknowledgements,
/// the CA, the versions of agents, and what is shown of checks. As far back as each is kept.
#[utoipa::path(
    get, path = "/api/v1/changes", operation_id = "listChanges", tag = "changes", params(ChangeFilter),
    responses(
        (status = 200, body = ChangePage),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list(
    _: Viewer,
    State(api): State<Api>,
    Query(filter): Query<ChangeFilter>,
) -> Result<axum::Json<ChangePage>, ApiError> {
    let ChangeFilter { from, to, cluster, kind, limit, before } = filter;
    let wanted = ChangeSource::ALL.into_iter().filter(|source| kind.is_none_or(|kind| kind.source() == *source));
    let queries = wanted.map(|source| ChangeQuery {
        source,
        from: from.unwrap_or(Timestamp::MIN),
        to: to.unwrap_or(Timestamp::MAX),
        before: before.map(|Before(position)| position.bound(source)),
        cluster: cluster.clone(),
        action_prefix: kind.and_then(ChangeKind::action_prefix),
        limit: limit.0,
    });
    let store = &api.app.store;
    let read = queries.map(|query| async move { store.changes(&query).await });
    let (mut items, next) = merge(try_join_all(read).await?, limit.0 as usize);
    if let Some(cluster) = &cluster {
        items.retain(|change| change.concerns(cluster));
    }
    Ok(axum::Json(ChangePage { items, next: next.map(|next| next.to_string()) }))
}
