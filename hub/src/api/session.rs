//! Login, logout, and who the caller is.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use active_monitor_core::view::{Login, Me, Problem};
use axum::Extension;
use axum::extract::{ConnectInfo, FromRequestParts, State};
use axum_extra::extract::cookie::{Cookie, CookieJar};
use http::StatusCode;
use http::header::ORIGIN;
use http::request::Parts;

use super::Api;
use super::extract::Json;
use super::problem::ApiError;
use crate::auth::{COOKIE, Viewer, is_same_origin};

/// Who the caller is.
#[utoipa::path(
    get, path = "/api/v1/me", operation_id = "me", tag = "session",
    responses((status = 200, body = Me), (status = 401, body = Problem, content_type = "application/problem+json"))
)]
pub async fn me(Viewer(me): Viewer) -> axum::Json<Me> {
    axum::Json(me)
}

/// Sets the dashboard's cookie.
#[utoipa::path(
    post, path = "/api/v1/login", operation_id = "login", tag = "session", request_body = Login, security(()),
    responses(
        (status = 200, body = Me, headers(("Set-Cookie", description = "Carries the token"))),
        (status = 401, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 429, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn login(
    State(api): State<Api>,
    _: OwnOrigin,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    jar: CookieJar,
    Json(login): Json<Login>,
) -> Result<(CookieJar, axum::Json<Me>), ApiError> {
    let (address, now) = (address(peer), Instant::now());
    if let Some(wait) = api.logins.wait(address, now) {
        return Err(ApiError::TooManyLogins(wait));
    }
    let token = login.token.trim();
    match api.auth.identify_token(token).await? {
        Some(me) => Ok((jar.add(api.auth.cookie(token.to_owned())), axum::Json(me))),
        None => {
            api.logins.failed(address, now);
            tracing::warn!(%address, "login failed");
            Err(ApiError::Unauthenticated("the token is not known"))
        }
    }
}

/// Who calls. Where the server does not say, all callers wait together.
pub(super) fn address(peer: Option<Extension<ConnectInfo<SocketAddr>>>) -> IpAddr {
    peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |Extension(ConnectInfo(peer))| peer.ip())
}

/// Removes the dashboard's cookie, and ends the session of a person whom a provider vouched for: whoever has a copy of it is
/// logged out too.
#[utoipa::path(post, path = "/api/v1/logout", operation_id = "logout", tag = "session", security(()), responses((status = 204)))]
pub async fn logout(_: OwnOrigin, State(api): State<Api>, jar: CookieJar) -> (CookieJar, Result<StatusCode, ApiError>) {
    let ended = match jar.get(COOKIE) {
        Some(cookie) => api.auth.end_session(cookie.value()).await,
        None => Ok(None),
    };
    let answer = ended.map(|me| {
        me.iter().for_each(|me| tracing::info!(who = me.name, "logged out"));
        StatusCode::NO_CONTENT
    });
    (jar.remove(Cookie::build(COOKIE).path("/")), answer)
}

/// A request that no page of another origin sent: nobody is logged in or out by a foreign page. A program sends no
/// `Origin`.
pub struct OwnOrigin;

impl<S: Sync> FromRequestParts<S> for OwnOrigin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        if parts.headers.contains_key(ORIGIN) && !is_same_origin(parts) {
            return Err(ApiError::Forbidden("the request comes from another origin".to_owned()));
        }
        Ok(OwnOrigin)
    }
}
