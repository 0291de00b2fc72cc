//! What handlers take from a request. axum's own extractors, their refusals as problems.

use active_monitor_core::definition::FleetHealthCheck;
use active_monitor_core::definition::parse::parse;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use http::{StatusCode, header};

use super::problem::ApiError;

/// A JSON body.
#[derive(FromRequest)]
#[from_request(via(axum::Json), rejection(ApiError))]
pub struct Json<T>(pub T);

/// Values from the query.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(ApiError))]
pub struct Query<T>(pub T);

/// Values from the path.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(ApiError))]
pub struct Path<T>(pub T);

/// A definition, as JSON or YAML.
pub struct DefinitionBody(pub FleetHealthCheck);

impl<S: Send + Sync> FromRequest<S> for DefinitionBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let kind =
            request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if !matches!(kind.as_str(), "application/json" | "application/yaml" | "application/x-yaml" | "text/yaml") {
            return Err(ApiError::Unreadable(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "Content-Type must be application/json or application/yaml".to_owned(),
            ));
        }
        let bytes = Bytes::from_request(request, state).await?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| ApiError::Unreadable(StatusCode::BAD_REQUEST, "the body is not UTF-8".to_owned()))?;
        Ok(DefinitionBody(parse(text)?))
    }
}
