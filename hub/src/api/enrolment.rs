//! A person decides upon an agent that waits for approval. By the fingerprint of its key, so that nobody approves another
//! one than he has looked at.

use active_monitor_core::view::{ClusterView, EnrolmentDecision, EnrolmentKey, Problem};
use axum::extract::State;

use super::Api;
use super::extract::{Json, Path};
use super::problem::ApiError;
use crate::auth::Admin;

/// Lets the agent that waits under this name have its certificate, when it asks again.
#[utoipa::path(
    post, path = "/api/v1/clusters/{cluster}/approve", operation_id = "approveEnrolment", tag = "clusters", params(("cluster", description = "Its name")),
    request_body = EnrolmentKey,
    responses(
        (status = 200, body = ClusterView),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "None waits, another key waits, or it was denied"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn approve(
    Admin(me): Admin,
    State(api): State<Api>,
    Path(name): Path<String>,
    Json(key): Json<EnrolmentKey>,
) -> Result<axum::Json<ClusterView>, ApiError> {
    api.decide(&name, &key, EnrolmentDecision::Approved, &me.name).await
}

/// Refuses the agent that waits under this name, and whoever else comes with its token.
#[utoipa::path(
    post, path = "/api/v1/clusters/{cluster}/deny", operation_id = "denyEnrolment", tag = "clusters", params(("cluster", description = "Its name")),
    request_body = EnrolmentKey,
    responses(
        (status = 200, body = ClusterView),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "None waits, or another key waits"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn deny(
    Admin(me): Admin,
    State(api): State<Api>,
    Path(name): Path<String>,
    Json(key): Json<EnrolmentKey>,
) -> Result<axum::Json<ClusterView>, ApiError> {
    api.decide(&name, &key, EnrolmentDecision::Denied, &me.name).await
}

impl Api {
    async fn decide(
        &self,
        name: &str,
        key: &EnrolmentKey,
        decision: EnrolmentDecision,
        who: &str,
    ) -> Result<axum::Json<ClusterView>, ApiError> {
        Ok(axum::Json(self.app.fleet.decide_enrolment(name, &key.key_fingerprint, decision, who).await?))
    }
}
