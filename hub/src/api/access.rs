//! API tokens, made and deleted while the hub runs, and the audit log.

use active_monitor_core::view::{AuditView, List, Page, Problem, Role, TokenAdd, TokenSecret, TokenView};
use axum::extract::State;
use http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::extract::{Before, Json, Limit, Path, Query};
use super::problem::ApiError;
use crate::auth::Admin;
use crate::owner::ChangeError;
use crate::serve;
use crate::store::{AuditEntry, AuditQuery};

/// The longest name of a token.
const MAX_NAME_BYTES: usize = 63;
/// The most tokens that there can be: each request looks at all of them.
const MAX_TOKENS: usize = 1000;

/// Every API token, by name. Their texts are not kept.
#[utoipa::path(
    get, path = "/api/v1/tokens", operation_id = "listTokens", tag = "access",
    responses(
        (status = 200, body = List<TokenView>),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn tokens(_: Admin, State(api): State<Api>) -> Result<axum::Json<List<TokenView>>, ApiError> {
    let tokens = api.app.store.api_tokens().await?.into_iter();
    let items = tokens.map(|token| TokenView { name: token.name, role: token.role, created_at: token.created_at });
    Ok(axum::Json(List { items: items.collect() }))
}

/// Makes an API token; one of that name is replaced.
#[utoipa::path(
    post, path = "/api/v1/tokens", operation_id = "addToken", tag = "access", request_body = TokenAdd,
    responses(
        (status = 201, body = TokenSecret),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn add_token(
    Admin(me): Admin,
    State(api): State<Api>,
    Json(TokenAdd { name, role }): Json<TokenAdd>,
) -> Result<(StatusCode, axum::Json<TokenSecret>), ApiError> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(is_allowed) {
        let text = format!("name must have 1 to {MAX_NAME_BYTES} letters, digits, '-', '_' or '.'");
        return Err(ChangeError::Invalid(text).into());
    }
    let known = api.app.store.api_tokens().await?;
    if known.len() >= MAX_TOKENS && known.iter().all(|token| token.name != name) {
        return Err(ChangeError::Conflict(format!("there are {MAX_TOKENS} tokens, which is the limit")).into());
    }
    if role != Role::Admin {
        refuse_last_admin(&known, &name)?;
    }
    let created = serve::create_token(api.app.store.as_ref(), &name, role);
    let token = match known.iter().find(|token| token.name == name) {
        Some(replaced) => api.app.fleet.revoke_token(replaced.hash, created).await?,
        None => created.await?,
    };
    api.auth.forget();
    api.audit(&me.name, "token.create", &format!("{name} ({})", role.as_str())).await?;
    Ok((StatusCode::CREATED, axum::Json(TokenSecret { name, role, token })))
}

/// Deletes an API token; it works no more when this answers.
#[utoipa::path(
    delete, path = "/api/v1/tokens/{name}", operation_id = "removeToken", tag = "access", params(("name", description = "Its name")),
    responses(
        (status = 204),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It is the last admin's"),
    )
)]
pub async fn remove_token(
    Admin(me): Admin,
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    let known = api.app.store.api_tokens().await?;
    let Some(token) = known.iter().find(|token| token.name == name) else {
        return Err(ApiError::NotFound(format!("there is no token {name}")));
    };
    refuse_last_admin(&known, &name)?;
    api.app.fleet.revoke_token(token.hash, api.app.store.delete_api_token(&name)).await?;
    api.auth.forget();
    api.audit(&me.name, "token.delete", &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends every session of a person whom a provider vouched for. Who may still log in there may do so again.
#[utoipa::path(
    delete, path = "/api/v1/sessions/{person}", operation_id = "endSessions", tag = "access",
    params(("person", description = "As `me` and the audit log name them: `oidc:ann@example.com`")),
    responses(
        (status = 204),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "Nobody of that name can have any"),
    )
)]
pub async fn end_sessions(
    Admin(me): Admin,
    State(api): State<Api>,
    Path(person): Path<String>,
) -> Result<StatusCode, ApiError> {
    api.auth.end_sessions_of(&person).await?;
    api.audit(&me.name, "session.end", &person).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Without an admin's token nobody could make another one while the hub runs.
fn refuse_last_admin(known: &[crate::store::ApiToken], name: &str) -> Result<(), ApiError> {
    let mut admins = known.iter().filter(|token| token.role == Role::Admin);
    if admins.any(|token| token.name == name) && known.iter().filter(|token| token.role == Role::Admin).count() == 1 {
        return Err(
            ChangeError::Conflict(format!("{name} is the last token of an admin; make another one first")).into()
        );
    }
    Ok(())
}

/// Which part of the audit log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditFilter {
    /// Lines from here on.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Only lines before.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// Who did it: the name of an API token, or a part of the hub.
    who: Option<String>,
    /// How the action begins: `token.`, `command.pause`, ...
    action: Option<String>,
    /// Lines in the page.
    #[serde(default)]
    #[param(value_type = u32, required = false, minimum = 1, maximum = 1000, default = 100)]
    limit: Limit,
    /// Only lines before this one: `next` of the page before.
    #[param(value_type = Option<i64>, minimum = 0)]
    before: Option<Before>,
}

/// Lines of the audit log, newest first.
#[utoipa::path(
    get, path = "/api/v1/audit", operation_id = "listAudit", tag = "access", params(AuditFilter),
    responses(
        (status = 200, body = Page<AuditView>),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn audit(
    _: Admin,
    State(api): State<Api>,
    Query(filter): Query<AuditFilter>,
) -> Result<axum::Json<Page<AuditView>>, ApiError> {
    let AuditFilter { from, to, who, action, limit, before } = filter;
    let (from, to) = (from.unwrap_or(Timestamp::MIN), to.unwrap_or(Timestamp::MAX));
    let query = AuditQuery { from, to, who, action, before: before.map(|Before(id)| id), limit: limit.0 };
    let lines = api.app.store.audit_page(&query).await?;
    let is_full = lines.len() >= limit.0 as usize;
    let next = lines.last().filter(|_| is_full).map(|(id, _)| id.to_string());
    let view =
        |entry: AuditEntry| AuditView { at: entry.at, who: entry.who, action: entry.action, object: entry.object };
    Ok(axum::Json(Page { items: lines.into_iter().map(|(_, entry)| view(entry)).collect(), next }))
}
