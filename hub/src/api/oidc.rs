//! The browser's way to the OpenID provider and back.
//!
//! What goes wrong is told to the person by one word in the address, which the login page knows, and to the operator by the
//! hub's log.

use std::net::SocketAddr;
use std::time::Instant;

use active_monitor_core::view::{LoginOptions, Me, Problem};
use axum::Extension;
use axum::extract::{ConnectInfo, State};
use axum::response::Redirect;
use axum_extra::extract::cookie::{Cookie, CookieJar, SameSite};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::extract::Query;
use super::problem::ApiError;
use super::session::address;
use crate::auth::oidc::{Answer, Begun, ClaimsError, Oidc, OidcError};

/// Name of the cookie that a login leaves until the browser is back.
const BEGUN: &str = "amf_login";
/// Where that cookie is sent.
const PATH: &str = "/api/v1/oidc";

/// How people can log in.
#[utoipa::path(
    get, path = "/api/v1/login", operation_id = "loginOptions", tag = "session", security(()),
    responses((status = 200, body = LoginOptions))
)]
pub async fn options(State(api): State<Api>) -> axum::Json<LoginOptions> {
    axum::Json(LoginOptions { issuer: api.app.oidc.as_ref().map(|oidc| oidc.issuer().to_owned()) })
}

/// Sends the browser to the OpenID provider.
#[utoipa::path(
    get, path = "/api/v1/oidc/login", operation_id = "oidcLogin", tag = "session", security(()),
    responses(
        (status = 303, description = "To the provider; or to the login page, where it cannot be asked"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "The hub has no provider"),
    )
)]
pub async fn login(State(api): State<Api>, jar: CookieJar) -> Result<(CookieJar, Redirect), ApiError> {
    match provider(&api)?.begin().await {
        Ok((url, begun)) => Ok((jar.add(cookie(&api, begun.to_cookie())), Redirect::to(url.as_str()))),
        Err(error) => Ok((jar, refused(&error))),
    }
}

/// What the provider sends the browser back with.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Returned {
    /// The provider's code for the person.
    code: Option<String>,
    /// What the hub gave the browser.
    state: Option<String>,
    /// Who answers.
    iss: Option<String>,
    /// Why there is no code.
    error: Option<String>,
}

/// The browser is back from the OpenID provider.
#[utoipa::path(
    get, path = "/api/v1/oidc/callback", operation_id = "oidcCallback", tag = "session", security(()), params(Returned),
    responses(
        (status = 303, description = "To the dashboard, with its cookie; or to the login page", headers(("Set-Cookie", description = "Carries the session"))),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "The hub has no provider"),
        (status = 429, body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn callback(
    State(api): State<Api>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    jar: CookieJar,
    Query(returned): Query<Returned>,
) -> Result<(CookieJar, Redirect), ApiError> {
    let oidc = provider(&api)?;
    let (address, now) = (address(peer), Instant::now());
    if let Some(wait) = api.logins.wait(address, now) {
        return Err(ApiError::TooManyLogins(wait));
    }
    let finished = finish(oidc, jar.get(BEGUN).map(Cookie::value), returned).await;
    // One login, one try.
    let jar = jar.remove(Cookie::build(BEGUN).path(PATH));
    match finished {
        Ok((me, session)) => {
            tracing::info!(who = me.name, role = me.role.as_str(), "logged in at the provider");
            Ok((jar.add(api.auth.cookie(session)), Redirect::to("/")))
        }
        Err(error) => {
            // A page elsewhere can send people here: only what the provider vouched for counts as a try.
            if matches!(error, OidcError::Claims(_)) {
                api.logins.failed(address, now);
            }
            Ok((jar, refused(&error)))
        }
    }
}

async fn finish(oidc: &Oidc, begun: Option<&str>, returned: Returned) -> Result<(Me, String), OidcError> {
    let begun = begun.and_then(Begun::of_cookie).ok_or(OidcError::NotBegun)?;
    match returned {
        Returned { code: Some(code), state: Some(state), iss, error: None } => {
            oidc.finish(&begun, &Answer { state, code, iss }).await
        }
        Returned { error: Some(error), .. } => Err(OidcError::Refused(error.chars().take(64).collect())),
        Returned { .. } => Err(OidcError::NotBegun),
    }
}

fn provider(api: &Api) -> Result<&Oidc, ApiError> {
    api.app.oidc.as_deref().ok_or_else(|| ApiError::NotFound("this hub has no OpenID provider".to_owned()))
}

/// Back to the login page, which knows these words.
fn refused(error: &OidcError) -> Redirect {
    let error_text = error.to_string();
    tracing::warn!(error = ?error_text, "login at the provider failed");
    Redirect::to(match error {
        OidcError::Provider(_) => "/?login=unavailable",
        OidcError::NotBegun => "/?login=again",
        OidcError::Refused(_) => "/?login=refused",
        OidcError::Claims(ClaimsError::NoRole { .. }) => "/?login=no-role",
        OidcError::Claims(_) => "/?login=failed",
    })
}

/// The browser comes back from another site, so the cookie cannot be strict.
fn cookie(api: &Api, value: String) -> Cookie<'static> {
    Cookie::build((BEGUN, value))
        .path(PATH)
        .http_only(true)
        .same_site(SameSite::Lax)
        .secure(api.app.secure_cookies)
        .build()
}
