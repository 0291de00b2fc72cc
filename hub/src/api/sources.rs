//! Where the desired state comes from, beside what people do.

use active_monitor_core::gitops::Kind;
use active_monitor_core::view::{List, Problem, SourceView};
use axum::extract::State;

use super::Api;
use super::problem::ApiError;
use crate::auth::Viewer;
use crate::owner::ChangeError;
use crate::source::Held;

/// The folder that the hub keeps the fleet like, and what became of it; none where the hub has no such folder.
#[utoipa::path(
    get, path = "/api/v1/sources", operation_id = "listSources", tag = "sources",
    responses(
        (status = 200, body = List<SourceView>),
        (status = 401, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list(_: Viewer, State(api): State<Api>) -> axum::Json<List<SourceView>> {
    axum::Json(List { items: api.app.source.view().into_iter().collect() })
}

impl Api {
    /// Lets a person change an object that is people's. It stays so for as long as the answer is held.
    pub(super) async fn unowned(&self, kind: Kind, name: &str) -> Result<Held<'_>, ApiError> {
        let ownership = self.app.source.ownership().await.map_err(ChangeError::Store)?;
        match ownership.refuses(kind, name) {
            Some(why) => Err(ApiError::Conflict(why)),
            None => Ok(ownership),
        }
    }

    /// Lets a person change labels and annotations of a cluster that are not Git's.
    pub(super) async fn unowned_keys<'a>(
        &self,
        cluster: &str,
        labels: impl Iterator<Item = &'a String>,
        annotations: impl Iterator<Item = &'a String>,
    ) -> Result<Held<'_>, ApiError> {
        let ownership = self.app.source.ownership().await.map_err(ChangeError::Store)?;
        match ownership.refuses_keys(cluster, labels, annotations) {
            Some(why) => Err(ApiError::Conflict(why)),
            None => Ok(ownership),
        }
    }
}
