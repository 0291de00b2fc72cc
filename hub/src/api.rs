//! The people's side of the hub: the REST API, `/metrics`, and the dashboard's files behind them.
//!
//! Which calls there are, and what they say: `active_monitor_core::view`. This module only reads what the owner
//! publishes and hands changes to it; it keeps no state of the fleet itself.

pub mod access;
pub mod alert_routes;
pub mod ca;
pub mod care;
pub mod changes;
pub mod checks;
pub mod clusters;
pub mod commands;
pub mod definitions;
pub mod discovery;
mod document;
pub mod enrolment;
pub mod events;
pub mod extract;
pub mod feed;
pub mod incidents;
pub mod oidc;
pub mod problem;
pub mod restore;
pub mod runs;
pub mod session;
pub mod sources;
pub mod unchanged;
pub mod uptime;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::view::Problem;
use axum::extract::{DefaultBodyLimit, FromRef, MatchedPath, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use http::{HeaderValue, header};
use jiff::Timestamp;
use tower_http::CompressionLevel;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::trace::TraceLayer;
use utoipa::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::AppState;
use crate::auth::limit::LoginLimit;
use crate::auth::{Auth, COOKIE};
use crate::metrics::{Exposition, HubMetrics, Scribe, Wanted};
use crate::store::AuditEntry;
use crate::uptime::Recent;
use problem::ApiError;

/// The most bytes that a request's body may have.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// The longest that a request may take until its answer begins. A stream may then last.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Only the dashboard's own files run, and nobody shows the dashboard in a frame.
const CONTENT_SECURITY_POLICY: &str =
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// What the handlers work with.
#[derive(Clone)]
pub struct Api {
    app: AppState,
    auth: Arc<Auth>,
    logins: Arc<LoginLimit>,
    feed: Arc<feed::Feed>,
    metrics: Arc<HubMetrics>,
    metrics_scribe: Scribe,
    federate_scribe: Scribe,
    uptime: Arc<Recent>,
    /// Held while windows or acknowledgements are changed.
    care: Arc<tokio::sync::Mutex<()>>,
}

impl FromRef<Api> for Arc<Auth> {
    fn from_ref(api: &Api) -> Self {
        api.auth.clone()
    }
}

impl Api {
    /// The metrics of the fleet as it is published, as far as they are wanted.
    pub fn exposition(&self, wanted: Wanted) -> Exposition {
        self.metrics.exposition(&self.app.fleet.view(), Timestamp::now(), wanted)
    }

    /// Who writes `/metrics`.
    pub(crate) fn metrics_scribe(&self) -> &Scribe {
        &self.metrics_scribe
    }

    /// Who writes `/federate`.
    pub(crate) fn federate_scribe(&self) -> &Scribe {
        &self.federate_scribe
    }

    /// Whether there is such a cluster.
    pub(crate) fn known(&self, cluster: &str) -> Result<(), ApiError> {
        if self.app.fleet.view().clusters.contains_key(cluster) { Ok(()) } else { Err(clusters::no_cluster(cluster)) }
    }

    /// Writes a change that was made to the audit log.
    async fn audit(&self, who: &str, action: &str, object: &str) -> Result<(), ApiError> {
        let entry = AuditEntry {
            at: Timestamp::now(),
            who: who.to_owned(),
            action: action.to_owned(),
            object: object.to_owned(),
        };
        tracing::info!(who, action, object, "changed");
        self.app.store.audit(&entry).await.map_err(ApiError::Audit)
    }
}

/// Everything that people and their programs reach. Must be called inside a tokio runtime: one task follows the fleet's
/// events and ends when the router is dropped.
pub fn router(app: AppState) -> Router {
    let overlap = if app.fleet.peers().is_some() { feed::OVERLAP } else { Duration::ZERO };
    let api = Api {
        auth: Arc::new(Auth::new(app.store.clone(), app.oidc.clone(), app.secure_cookies, &app.registry)),
        logins: Arc::default(),
        feed: Arc::new(feed::Feed::start(app.fleet.events(), app.fleet.watch(), overlap)),
        metrics: Arc::new(HubMetrics::new(app.registry.clone())),
        metrics_scribe: Scribe::start("metrics"),
        federate_scribe: Scribe::start("federate"),
        uptime: Arc::default(),
        care: Arc::default(),
        app,
    };
    let (routes, document) = documented().split_for_parts();
    routes
        .route("/api/v1/openapi.json", get(async || Json(document)))
        .route("/api", any(no_such_path))
        .route("/api/{*path}", any(no_such_path))
        .fallback_service(crate::dashboard::router())
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(bound_time))
        .layer(middleware::from_fn(unchanged::unchanged))
        .layer(TraceLayer::new_for_http().make_span_with(span))
        .layer(CatchPanicLayer::custom(panicked))
        // Prometheus asks for gzip, and a large fleet's text is long: time counts for more than the last tenth of its size.
        .layer(CompressionLayer::new().quality(CompressionLevel::Fastest))
        .layer(middleware::from_fn(protect))
        .with_state(api)
}

/// A request's span: its route, since a path names what is asked for, and never a query or a header.
fn span(request: &Request) -> tracing::Span {
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str);
    tracing::info_span!("request", method = %request.method(), route)
}

/// The OpenAPI document of the API.
pub fn document() -> utoipa::openapi::OpenApi {
    documented().into_openapi()
}

fn documented() -> OpenApiRouter<Api> {
    let mut router = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(session::me))
        .routes(routes!(oidc::options, session::login))
        .routes(routes!(oidc::login))
        .routes(routes!(oidc::callback))
        .routes(routes!(session::logout))
        .routes(routes!(clusters::fleet))
        .routes(routes!(clusters::list, clusters::add))
        .routes(routes!(clusters::read, clusters::patch, clusters::remove))
        .routes(routes!(clusters::token))
        .routes(routes!(clusters::rebind))
        .routes(routes!(enrolment::approve))
        .routes(routes!(enrolment::deny))
        .routes(routes!(checks::list))
        .routes(routes!(checks::read))
        .routes(routes!(care::acknowledge, care::unacknowledge))
        .routes(routes!(care::windows))
        .routes(routes!(care::read_window, care::put_window, care::remove_window))
        .routes(routes!(incidents::list))
        .routes(routes!(runs::list))
        .routes(routes!(commands::command))
        .routes(routes!(uptime::uptime))
        .routes(routes!(changes::list))
        .routes(routes!(definitions::list))
        .routes(routes!(restore::read))
        .routes(routes!(restore::confirm))
        .routes(routes!(definitions::preview))
        .routes(routes!(definitions::read, definitions::put, definitions::delete))
        .routes(routes!(sources::list))
        .routes(routes!(alert_routes::preview_routes))
        .routes(routes!(access::tokens, access::add_token))
        .routes(routes!(access::remove_token))
        .routes(routes!(access::end_sessions))
        .routes(routes!(access::audit))
        .routes(routes!(ca::read))
        .routes(routes!(ca::roll))
        .routes(routes!(events::stream))
        .routes(routes!(crate::metrics::scrape))
        .routes(routes!(crate::metrics::federate))
        .routes(routes!(discovery::prometheus));
    document::complete(router.get_openapi_mut());
    router
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Active-Monitor Fleet",
        description = "The health of a fleet of Kubernetes clusters. Every error is a `Problem` (RFC 9457) and says \
                       which field is wrong and what is allowed."
    ),
    components(schemas(Problem, active_monitor_core::view::Event, crate::metrics::Only)),
    modifiers(&Security),
    security(("token" = []), ("cookie" = []))
)]
struct Document;

struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An API token")).build();
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
        let cookie = ApiKeyValue::with_description(COOKIE, "Set by login, for the dashboard");
        components.add_security_scheme("cookie", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    }
}

async fn no_such_path(request: Request) -> ApiError {
    ApiError::NotFound(format!("there is no path {}", request.uri().path()))
}

async fn bound_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::Timeout(TIMEOUT).into_response(),
    }
}

fn panicked(_: Box<dyn Any + Send>) -> Response {
    tracing::error!("a request's handler panicked");
    ApiError::Internal.into_response()
}

/// Headers that keep a browser from doing what the dashboard does not need.
async fn protect(request: Request, next: Next) -> Response {
    let is_api = request.uri().path().starts_with("/api") || ["/metrics", "/federate"].contains(&request.uri().path());
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if is_api {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `UPDATE=1` writes the file anew.
    #[test]
    fn the_checked_in_document_is_that_of_the_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        let document = format!("{}\n", document().to_pretty_json().unwrap());
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, &document).unwrap();
        }
        let checked_in = std::fs::read_to_string(path).unwrap_or_default();
        assert!(checked_in == document, "hub/openapi.json is old: run this test with UPDATE=1");
    }
}
