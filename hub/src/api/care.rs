//! Maintenance windows, and acknowledgements of what is wrong.

use active_monitor_core::care::{Acknowledgement, MAX_COMMENT_BYTES, MAX_WINDOWS, Window, WindowSpec};
use active_monitor_core::fleet::Change;
use active_monitor_core::gitops::Kind;
use active_monitor_core::view::{AcknowledgementAdd, CheckView, List, Problem, WindowView};
use axum::Extension;
use axum::extract::State;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};

use super::Api;
use super::checks::read_check;
use super::extract::{Expects, Json, Path};
use super::problem::ApiError;
use super::unchanged::Version;
use crate::auth::{Operator, Viewer};
use crate::expected::version;
use crate::owner::{self, ChangeError};
use crate::store::CheckKey;

/// The longest that an acknowledgement lasts.
const MAX_ACKNOWLEDGED_SECONDS: u64 = 31 * 24 * 3600;

/// Every maintenance window, by name.
#[utoipa::path(
    get, path = "/api/v1/windows", operation_id = "listWindows", tag = "care",
    responses(
        (status = 200, body = List<WindowView>),
        (status = 401, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn windows(_: Viewer, State(api): State<Api>) -> Result<axum::Json<List<WindowView>>, ApiError> {
    let now = Timestamp::now();
    let windows = owner::windows(api.app.store.as_ref()).await?.into_iter();
    let mut origins = api.app.source.origins(Kind::MaintenanceWindow);
    let shown = windows.map(|window| {
        let git = origins.remove(&window.spec.name);
        WindowView { git, ..view(window, now) }
    });
    Ok(axum::Json(List { items: shown.collect() }))
}

/// One maintenance window.
#[utoipa::path(
    get, path = "/api/v1/windows/{name}", operation_id = "readWindow", tag = "care", params(("name", description = "Its name")),
    responses(
        (status = 200, body = WindowView),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn read_window(_: Viewer, State(api): State<Api>, Path(name): Path<String>) -> Result<Shown, ApiError> {
    let windows = owner::windows(api.app.store.as_ref()).await?;
    let window = windows.into_iter().find(|window| window.spec.name == name);
    Ok(shown(&api, window.ok_or_else(|| no_window(&name))?))
}

fn no_window(name: &str) -> ApiError {
    ApiError::NotFound(format!("there is no window {name}"))
}

/// A window with its version.
type Shown = (Extension<Version>, axum::Json<WindowView>);

fn shown(api: &Api, window: Window) -> Shown {
    let git = api.app.source.origins(Kind::MaintenanceWindow).remove(&window.spec.name);
    let version = version(&window.spec);
    (Extension(Version(version)), axum::Json(WindowView { git, ..view(window, Timestamp::now()) }))
}

fn view(window: Window, now: Timestamp) -> WindowView {
    let (open_until, changes_at) = (window.ends(now), window.changes(now));
    WindowView { spec: window.spec, open_until, changes_at, git: None }
}

/// Adds or replaces a maintenance window.
#[utoipa::path(
    put, path = "/api/v1/windows/{name}", operation_id = "putWindow", tag = "care", params(("name", description = "Its name")),
    request_body = WindowSpec,
    responses(
        (status = 200, body = WindowView),
        (status = 201, body = WindowView),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn put_window(
    Operator(me): Operator,
    State(api): State<Api>,
    Path(name): Path<String>,
    Expects(expected): Expects,
    Json(spec): Json<WindowSpec>,
) -> Result<(StatusCode, Shown), ApiError> {
    if spec.name != name {
        return Err(ApiError::Invalid(format!("name must be {name:?}, as in the path")));
    }
    let window = Window::parse(spec).map_err(ApiError::Invalid)?;
    let _held = api.unowned(Kind::MaintenanceWindow, &name).await?;
    // One change after the other, so that the fleet has what the store has.
    let _one = api.care.lock().await;
    let known = api.app.store.windows().await?;
    let there = known.iter().find(|spec| spec.name == name);
    expected.check("window", &name, there.map(version).as_deref())?;
    let is_new = there.is_none();
    if is_new && known.len() >= MAX_WINDOWS {
        return Err(ChangeError::Conflict(format!("there are {MAX_WINDOWS} windows, which is the limit")).into());
    }
    api.app.store.put_window(&name, Some(&window.spec)).await?;
    apply(&api).await?;
    api.audit(&me.name, "window.put", &name).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, shown(&api, window)))
}

/// Deletes a maintenance window; where it is open, it ends now.
#[utoipa::path(
    delete, path = "/api/v1/windows/{name}", operation_id = "removeWindow", tag = "care", params(("name", description = "Its name")),
    responses(
        (status = 204),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It is Git's"),
    )
)]
pub async fn remove_window(
    Operator(me): Operator,
    State(api): State<Api>,
    Path(name): Path<String>,
    Expects(expected): Expects,
) -> Result<StatusCode, ApiError> {
    let _held = api.unowned(Kind::MaintenanceWindow, &name).await?;
    let _one = api.care.lock().await;
    let known = api.app.store.windows().await?;
    let there = known.iter().find(|spec| spec.name == name).ok_or_else(|| no_window(&name))?;
    expected.check("window", &name, Some(&version(there)))?;
    api.app.store.put_window(&name, None).await?;
    apply(&api).await?;
    api.audit(&me.name, "window.delete", &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn apply(api: &Api) -> Result<(), ApiError> {
    let windows = owner::windows(api.app.store.as_ref()).await?;
    Ok(api.app.fleet.apply(Change::Windows(windows)).await?)
}

/// Says that somebody knows what is wrong with a check: it raises no alert until it succeeds again, or the time is over.
#[utoipa::path(
    put, path = "/api/v1/clusters/{cluster}/checks/{namespace}/{name}/acknowledgement", operation_id = "acknowledge", tag = "care",
    params(
        ("cluster", description = "Name of the cluster"),
        ("namespace", description = "Namespace of the check"),
        ("name", description = "Name of the check"),
    ),
    request_body = AcknowledgementAdd,
    responses(
        (status = 200, body = CheckView),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Nothing is wrong with it"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn acknowledge(
    Operator(me): Operator,
    State(api): State<Api>,
    Path((cluster, namespace, name)): Path<(String, String, String)>,
    Json(AcknowledgementAdd { comment, expires_in_seconds }): Json<AcknowledgementAdd>,
) -> Result<axum::Json<CheckView>, ApiError> {
    if comment.len() > MAX_COMMENT_BYTES {
        return Err(ApiError::Invalid(format!("comment must have at most {MAX_COMMENT_BYTES} bytes")));
    }
    if !(1..=MAX_ACKNOWLEDGED_SECONDS).contains(&expires_in_seconds) {
        let text = format!("expiresInSeconds must be from 1 to {MAX_ACKNOWLEDGED_SECONDS}");
        return Err(ApiError::Invalid(text));
    }
    let key = CheckKey { cluster, namespace, name };
    let _one = api.care.lock().await;
    if !read_check(&api, &key)?.status.is_wrong() {
        return Err(ChangeError::Conflict(format!("nothing is wrong with {}", path(&key))).into());
    }
    let at = Timestamp::now();
    let expires_at = at.saturating_add(SignedDuration::from_secs(expires_in_seconds.cast_signed())).unwrap_or(at);
    let acknowledgement = Acknowledgement { by: me.name.clone(), comment, at, expires_at };
    api.app.store.put_acknowledgement(&key, Some(&acknowledgement)).await?;
    api.app.fleet.apply(change(&key, Some(acknowledgement))).await?;
    api.audit(&me.name, "check.acknowledge", &path(&key)).await?;
    Ok(axum::Json(read_check(&api, &key)?))
}

/// Takes an acknowledgement back.
#[utoipa::path(
    delete, path = "/api/v1/clusters/{cluster}/checks/{namespace}/{name}/acknowledgement", operation_id = "unacknowledge", tag = "care",
    params(
        ("cluster", description = "Name of the cluster"),
        ("namespace", description = "Namespace of the check"),
        ("name", description = "Name of the check"),
    ),
    responses(
        (status = 204),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn unacknowledge(
    Operator(me): Operator,
    State(api): State<Api>,
    Path((cluster, namespace, name)): Path<(String, String, String)>,
) -> Result<StatusCode, ApiError> {
    let key = CheckKey { cluster, namespace, name };
    let _one = api.care.lock().await;
    if read_check(&api, &key)?.care.acknowledgement.is_none() {
        return Err(ApiError::NotFound(format!("{} is not acknowledged", path(&key))));
    }
    api.app.store.put_acknowledgement(&key, None).await?;
    api.app.fleet.apply(change(&key, None)).await?;
    api.audit(&me.name, "check.unacknowledge", &path(&key)).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn change(key: &CheckKey, acknowledgement: Option<Acknowledgement>) -> Change {
    let CheckKey { cluster, namespace, name } = key.clone();
    Change::Acknowledge { cluster, namespace, name, acknowledgement }
}

fn path(CheckKey { cluster, namespace, name }: &CheckKey) -> String {
    format!("{cluster}/{namespace}/{name}")
}
