//! The hub's CA, and its change for another.

use active_monitor_core::view::{CaRoll, CaStage, CaView, Problem};
use axum::extract::State;

use super::Api;
use super::extract::Json;
use super::problem::ApiError;
use crate::auth::{Admin, Viewer};
use crate::authority::{RollError, SharedError, Trust};

impl From<RollError> for ApiError {
    fn from(error: RollError) -> ApiError {
        match error {
            RollError::Stage { .. } | RollError::Waiting(_) => ApiError::Conflict(error.to_string()),
            RollError::Shared(SharedError::Store(error)) => error.into(),
            RollError::Stopping => ApiError::Stopping,
            RollError::Ca(error) | RollError::Shared(SharedError::Ca(error)) => {
                tracing::error!(?error, "CA not changed");
                ApiError::Internal
            }
        }
    }
}

fn view(api: &Api, trust: &Trust) -> CaView {
    CaView {
        stage: trust.stage(),
        fingerprint: trust.ca.fingerprint(),
        not_after: trust.ca.not_after(),
        other_fingerprint: trust.other_fingerprint(),
        waiting_for: trust.waiting_for(&api.app.fleet.records()),
        bundle: trust.bundle(),
    }
}

/// The hub's CA.
#[utoipa::path(
    get, path = "/api/v1/ca", operation_id = "readCa", tag = "access",
    responses(
        (status = 200, body = CaView),
        (status = 401, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn read(_: Viewer, State(api): State<Api>) -> axum::Json<CaView> {
    axum::Json(view(&api, &api.app.authority.trust()))
}

/// Goes one stage further in the change of the CA: `Stable` to `Introduced` to `Switched` to `Stable`.
#[utoipa::path(
    post, path = "/api/v1/ca/roll", operation_id = "rollCa", tag = "access", request_body = CaRoll,
    responses(
        (status = 200, body = CaView),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Another stage, or clusters would be locked out"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn roll(
    Admin(me): Admin,
    State(api): State<Api>,
    Json(CaRoll { from, force }): Json<CaRoll>,
) -> Result<axum::Json<CaView>, ApiError> {
    let trust = api.app.authority.roll(from, force, &api.app.fleet).await?;
    let action = match from {
        CaStage::Stable => "ca.introduce",
        CaStage::Introduced => "ca.switch",
        CaStage::Switched => "ca.end",
    };
    api.audit(&me.name, action, &trust.ca.fingerprint()).await?;
    Ok(axum::Json(view(&api, &trust)))
}
