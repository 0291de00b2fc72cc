//! Errors as `application/problem+json`, RFC 9457. Every answer of the API that is not a success is made here.

use std::time::Duration;

use active_monitor_core::definition::parse::ParseError;
use active_monitor_core::definition::validate;
use active_monitor_core::view::Problem;
use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use crate::owner::ChangeError;
use crate::store::StoreError;

/// Why a request has no other answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No token, or none that is known.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// The token may not do this.
    #[error("{0}")]
    Forbidden(String),
    /// Too many failed logins.
    #[error("too many failed logins: try again in {} seconds", .0.as_secs() + 1)]
    TooManyLogins(Duration),
    /// More calls than a token may make.
    #[error("too many calls with this token: try again in {} seconds", .0.as_secs() + 1)]
    TooManyCalls(Duration),
    /// No such path or object.
    #[error("{0}")]
    NotFound(String),
    /// The path exists, the method does not.
    #[error("this path has no method of that name: the header Allow says which there are")]
    MethodNotAllowed,
    /// The request cannot be read.
    #[error("{1}")]
    Unreadable(StatusCode, String),
    /// The request can be read and makes no sense: which fields, and what is allowed.
    #[error("{0}")]
    Invalid(String),
    /// It clashes with what is there.
    #[error("{0}")]
    Conflict(String),
    /// There is not what `If-Match` or `If-None-Match` expects.
    #[error("{0}")]
    Unexpected(String),
    /// The request took too long.
    #[error("the request took longer than {} seconds", .0.as_secs())]
    Timeout(Duration),
    /// The hub is stopping.
    #[error("the hub is stopping")]
    Stopping,
    /// Another replica changes what this call would change: which, and how long this one waited.
    #[error("another replica was changing {what} for {} seconds: nothing was changed, try again", .waited.as_secs())]
    Busy {
        /// What it changes.
        what: &'static str,
        /// How long this one waited.
        waited: Duration,
    },
    /// The store failed. The caller hears no detail.
    #[error("the store failed")]
    Store(#[source] StoreError),
    /// The change was made, but the audit log does not have it.
    #[error("the change was made, but the audit log could not be written")]
    Audit(#[source] StoreError),
    /// A defect of the hub.
    #[error("an internal error: the hub's log has more")]
    Internal,
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            ApiError::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            ApiError::Forbidden(_) => StatusCode::FORBIDDEN,
            ApiError::TooManyLogins(_) | ApiError::TooManyCalls(_) => StatusCode::TOO_MANY_REQUESTS,
            ApiError::NotFound(_) => StatusCode::NOT_FOUND,
            ApiError::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            ApiError::Unreadable(status, _) => *status,
            ApiError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            ApiError::Conflict(_) => StatusCode::CONFLICT,
            ApiError::Unexpected(_) => StatusCode::PRECONDITION_FAILED,
            ApiError::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            ApiError::Stopping | ApiError::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
            ApiError::Store(_) | ApiError::Audit(_) | ApiError::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// How long who asks again should wait.
    fn retry_after(&self) -> Option<Duration> {
        if let ApiError::TooManyLogins(wait) | ApiError::TooManyCalls(wait) = self {
            return Some(*wait);
        }
        // It has waited already.
        matches!(self, ApiError::Busy { .. }).then_some(Duration::ZERO)
    }

    fn title(&self) -> &'static str {
        match self {
            ApiError::Unauthenticated(_) => "Not authenticated",
            ApiError::Forbidden(_) => "Not allowed",
            ApiError::TooManyLogins(_) => "Too many failed logins",
            ApiError::TooManyCalls(_) => "Too many calls",
            ApiError::NotFound(_) => "Not found",
            ApiError::MethodNotAllowed => "Method not allowed",
            ApiError::Unreadable(..) => "The request cannot be read",
            ApiError::Invalid(_) => "The request is not valid",
            ApiError::Conflict(_) => "Conflict",
            ApiError::Unexpected(_) => "Not as expected",
            ApiError::Timeout(_) => "Timeout",
            ApiError::Stopping => "Stopping",
            ApiError::Busy { .. } => "Busy",
            ApiError::Store(_) | ApiError::Audit(_) | ApiError::Internal => "Internal error",
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if let ApiError::Store(source) | ApiError::Audit(source) = &self {
            let chain = std::error::Error::source(source).map(|error| error.to_string()).unwrap_or_default();
            tracing::error!(error = %self, cause = %source, detail = chain, "request failed");
        }
        let status = self.status();
        let problem = Problem { title: self.title().to_owned(), status: status.as_u16(), detail: self.to_string() };
        let mut response = (status, axum::Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let ApiError::Unauthenticated(_) = self {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if let StoreError::Busy { what, waited } = error {
            return ApiError::Busy { what, waited };
        }
        ApiError::Store(error)
    }
}

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::NotFound { kind, name } => ApiError::NotFound(format!("there is no {kind} {name}")),
            ChangeError::Conflict(message) => ApiError::Conflict(message),
            ChangeError::Unexpected(message) => ApiError::Unexpected(message),
            ChangeError::Invalid(message) => ApiError::Invalid(message),
            ChangeError::Store(source) => source.into(),
            ChangeError::Revocation(error) => {
                tracing::error!(?error, "nothing changed");
                ApiError::Internal
            }
            ChangeError::Stopping => ApiError::Stopping,
        }
    }
}

impl From<Vec<validate::Problem>> for ApiError {
    fn from(problems: Vec<validate::Problem>) -> Self {
        let texts: Vec<String> = problems.iter().map(|problem| problem.to_string()).collect();
        ApiError::Invalid(texts.join("; "))
    }
}

impl From<ParseError> for ApiError {
    fn from(error: ParseError) -> Self {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        let text = format!("{error}{source}");
        match error {
            ParseError::TooLarge { .. } => ApiError::Unreadable(StatusCode::PAYLOAD_TOO_LARGE, text),
            ParseError::Json(_) | ParseError::Yaml(_) => ApiError::Unreadable(StatusCode::BAD_REQUEST, text),
            ParseError::UnknownField { .. } | ParseError::Shape(_) => ApiError::Invalid(text),
        }
    }
}

macro_rules! unreadable {
    ($($rejection:ty),*) => {$(
        impl From<$rejection> for ApiError {
            fn from(rejection: $rejection) -> Self {
                ApiError::Unreadable(rejection.status(), rejection.body_text())
            }
        }
    )*};
}

unreadable!(BytesRejection, JsonRejection, PathRejection, QueryRejection);
