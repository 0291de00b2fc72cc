//! Who may do what: API tokens, roles, the dashboard's cookie, and the guard against forged requests.
//!
//! Reads tokens from the store; writes none. Where there is an OpenID provider, its people count too ([`oidc`]). A handler says what it needs by its first argument: [`Viewer`],
//! [`Operator`] or [`Admin`]. A refused request never reaches the handler, and nothing says whether a path it asked for
//! names something that exists.

pub mod limit;
pub mod oidc;
pub mod sessions;

use std::sync::Arc;
use std::time::{Duration, Instant};

use active_monitor_core::view::{Me, Role};
use arc_swap::ArcSwap;
use axum::extract::{FromRef, FromRequestParts};
use axum_extra::extract::cookie::{Cookie, CookieJar, SameSite};
use http::request::Parts;
use http::{HeaderMap, Method, header};
use jiff::Timestamp;
use prometheus::{IntCounter, Registry};
use rand::RngCore;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use limit::CallLimit;
use oidc::Oidc;
use sessions::{Ended, Session};

use crate::api::problem::ApiError;
use crate::store::{ApiToken, Store};

/// Name of the dashboard's cookie. It carries the token itself, or a session.
pub const COOKIE: &str = "amf_token";
/// How every token's text begins, so that a leaked one is recognized.
const PREFIX: &str = "amf_";
/// A token that was deleted works at most this much longer.
const TOKENS_MAX_AGE: Duration = Duration::from_secs(2);

/// The text of a new token. Shown once: only its [`hash`] is kept.
pub fn new_token() -> String {
    let mut bytes = [0u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    format!("{PREFIX}{}", hex::encode(bytes))
}

/// Whether a text can be a token: nothing weaker than what [`new_token`] makes.
pub fn is_token(text: &str) -> bool {
    let digits = text.strip_prefix(PREFIX).unwrap_or_default();
    digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What is kept of a token. A plain hash is enough: nobody guesses 32 random bytes.
pub fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Knows the tokens.
pub struct Auth {
    store: Arc<dyn Store>,
    oidc: Option<Arc<Oidc>>,
    known: ArcSwap<Known>,
    secure_cookies: bool,
    calls: CallLimit,
    limited: Option<IntCounter>,
}

#[derive(Default)]
struct Known {
    tokens: Vec<ApiToken>,
    ended: Ended,
    read_at: Option<Instant>,
}

impl Auth {
    /// Reads the tokens from `store` when they are first needed. The calls that are one too many
    /// are counted in `registry`.
    pub fn new(store: Arc<dyn Store>, oidc: Option<Arc<Oidc>>, secure_cookies: bool, registry: &Registry) -> Auth {
        let help = "Calls of the API that were one too many for their token.";
        let limited = IntCounter::new("activemonitor_hub_calls_limited_total", help).ok();
        if let Some(limited) = &limited
            && let Err(error) = registry.register(Box::new(limited.clone()))
        {
            tracing::debug!(%error, "a metric is registered already");
        }
        let known = ArcSwap::from_pointee(Known::default());
        Auth { store, oidc, known, secure_cookies, calls: CallLimit::default(), limited }
    }

    /// Whose token or session this is; `None` when nobody's.
    pub async fn identify(&self, token: &str) -> Result<Option<Me>, ApiError> {
        match &self.oidc {
            Some(oidc) if !is_token(token) => Ok(oidc.identify(token, &self.known().await?.ended).await),
            Some(_) | None => self.identify_token(token).await,
        }
    }

    /// Whose API token this is; `None` when nobody's.
    pub async fn identify_token(&self, token: &str) -> Result<Option<Me>, ApiError> {
        let hash = hash(token);
        let known = self.known().await?;
        // No early end: the time taken says nothing of which token was nearly right.
        let mut found = None;
        for token in &known.tokens {
            if bool::from(token.hash.ct_eq(&hash)) {
                found = Some(Me { name: token.name.clone(), role: token.role });
            }
        }
        Ok(found)
    }

    /// Counts a call, and refuses one too many.
    fn allow(&self, me: &Me) -> Result<(), ApiError> {
        self.calls.call(&me.name, Instant::now()).map_err(|wait| {
            self.limited.iter().for_each(IntCounter::inc);
            ApiError::TooManyCalls(wait)
        })
    }

    /// Ends the session that a cookie carries, and says whose it was; nothing where it carries none.
    ///
    /// # Errors
    /// The store fails: it goes on.
    pub async fn end_session(&self, cookie: &str) -> Result<Option<Me>, ApiError> {
        let Some(Session { id, me, .. }) = self.oidc.as_ref().and_then(|oidc| oidc.session(cookie)) else {
            return Ok(None);
        };
        // One that an earlier version sealed has no name of its own.
        let subject = if id.is_empty() { &me.name } else { &id };
        self.end(subject).await.map(|()| Some(me))
    }

    /// Ends every session of a person.
    ///
    /// # Errors
    /// There are no sessions of that name, or the store fails.
    pub async fn end_sessions_of(&self, person: &str) -> Result<(), ApiError> {
        if self.oidc.is_none() || !person.starts_with(oidc::NAME_PREFIX) {
            let text = format!(
                "{person} has no sessions: only people whom a provider vouches for have, and their names begin with {}",
                oidc::NAME_PREFIX
            );
            return Err(ApiError::NotFound(text));
        }
        self.end(person).await
    }

    async fn end(&self, subject: &str) -> Result<(), ApiError> {
        let now = Timestamp::now();
        let over = now.saturating_sub(sessions::LIFE).unwrap_or(Timestamp::MIN);
        self.store.end_sessions(subject, now, over).await?;
        self.forget();
        Ok(())
    }

    /// The tokens or the ended sessions have changed: they are read again with the next request.
    pub fn forget(&self) {
        self.known.store(Arc::default());
    }

    async fn known(&self) -> Result<Arc<Known>, ApiError> {
        let known = self.known.load_full();
        if known.read_at.is_some_and(|at| at.elapsed() < TOKENS_MAX_AGE) {
            return Ok(known);
        }
        let read_at = Some(Instant::now());
        let (tokens, ended) = tokio::try_join!(self.store.api_tokens(), self.store.ended_sessions())?;
        let fresh = Arc::new(Known { tokens, ended: ended.into_iter().collect(), read_at });
        self.keep(&known, &fresh);
        Ok(fresh)
    }

    /// Keeps what was read, unless the tokens have changed since `seen` was what is known: it may be from before.
    fn keep(&self, seen: &Arc<Known>, fresh: &Arc<Known>) {
        self.known.compare_and_swap(seen, Arc::clone(fresh));
    }

    /// The cookie that a login sets; it ends with the browser's session.
    pub fn cookie(&self, token: String) -> Cookie<'static> {
        Cookie::build((COOKIE, token))
            .path("/")
            .http_only(true)
            .same_site(SameSite::Strict)
            .secure(self.secure_cookies)
            .build()
    }
}

/// A caller who may read.
pub struct Viewer(pub Me);
/// A caller who may also change definitions and labels, and give commands.
pub struct Operator(pub Me);
/// A caller who may also add and remove clusters.
pub struct Admin(pub Me);

macro_rules! extractor {
    ($name:ident, $role:expr) => {
        impl<S> FromRequestParts<S> for $name
        where
            S: Send + Sync,
            Arc<Auth>: FromRef<S>,
        {
            type Rejection = ApiError;

            async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
                let auth = Arc::<Auth>::from_ref(state);
                caller(parts, &auth, $role).await.map($name)
            }
        }
    };
}

extractor!(Viewer, Role::Viewer);
extractor!(Operator, Role::Operator);
extractor!(Admin, Role::Admin);

/// What a caller shows to say who it is: a token, or a session. Whoever answers for long asks again whether it still is anybody's.
pub struct Credential(String);

impl Credential {
    /// Whether a long answer must end. A store that cannot be asked ends nothing.
    pub async fn is_void(&self, auth: &Auth) -> bool {
        matches!(auth.identify(&self.0).await, Ok(None))
    }
}

impl<S: Sync> FromRequestParts<S> for Credential {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        credential(parts)
    }
}

fn credential(parts: &Parts) -> Result<Credential, ApiError> {
    if let Some(token) = bearer(&parts.headers)? {
        return Ok(Credential(token.to_owned()));
    }
    let jar = CookieJar::from_headers(&parts.headers);
    let Some(cookie) = jar.get(COOKIE) else { return Err(ApiError::Unauthenticated("a token is required")) };
    if !is_safe(&parts.method) && !is_same_origin(parts) {
        return Err(ApiError::Forbidden("the request comes from another origin".to_owned()));
    }
    Ok(Credential(cookie.value().to_owned()))
}

async fn caller(parts: &Parts, auth: &Auth, needed: Role) -> Result<Me, ApiError> {
    let Credential(shown) = credential(parts)?;
    let me = auth.identify(&shown).await?;
    let me = me.ok_or(ApiError::Unauthenticated("the token is not known"))?;
    auth.allow(&me)?;
    if me.role < needed {
        return Err(ApiError::Forbidden(format!(
            "this needs the role {}, the token has {}",
            text(needed),
            text(me.role)
        )));
    }
    Ok(me)
}

fn text(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Admin => "admin",
    }
}

fn bearer(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let token = value.to_str().ok().and_then(|value| value.split_once(' '));
    match token {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim())),
        _ => Err(ApiError::Unauthenticated("the header Authorization must be: Bearer TOKEN")),
    }
}

fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether the browser says that the request was made by a page of this hub. `Sec-Fetch-Site` cannot be set by a script;
/// where it is missing, the host of `Origin` must be the one that was asked.
pub fn is_same_origin(parts: &Parts) -> bool {
    let text = |name| parts.headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    if let Some(site) = text("sec-fetch-site") {
        return site == "same-origin";
    }
    let host = parts.uri.authority().map(|authority| authority.as_str()).or_else(|| text("host"));
    let origin = text("origin").and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    origin.is_some() && origin == host
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::SqliteStore;

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::post("/api/v1/clusters");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[tokio::test]
    async fn a_token_that_is_deleted_while_the_tokens_are_read_is_not_known_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(dir.path()).await.unwrap());
        let auth = Auth::new(store, None, false, &Registry::new());
        let token = ApiToken { name: "ann".into(), role: Role::Admin, hash: hash("x"), created_at: Timestamp::now() };
        let read =
            || Arc::new(Known { tokens: vec![token.clone()], read_at: Some(Instant::now()), ..Known::default() });
        let seen = auth.known.load_full();
        auth.keep(&seen, &read());
        assert!(auth.identify("x").await.unwrap().is_some());

        let seen = auth.known.load_full();
        auth.forget();
        auth.keep(&seen, &read());
        assert_eq!(auth.identify("x").await.unwrap(), None);
    }

    #[test]
    fn tokens_are_long_and_differ() {
        let (a, b) = (new_token(), new_token());
        assert!(a.starts_with("amf_") && a.len() == 4 + 64 && a != b);
        assert_ne!(hash(&a), hash(&b));
    }

    #[test]
    fn only_a_page_of_the_hub_is_of_the_same_origin() {
        for (headers, expected) in [
            (vec![], false),
            (vec![("host", "hub:8443")], false),
            (vec![("host", "hub:8443"), ("origin", "https://hub:8443")], true),
            (vec![("host", "hub:8443"), ("origin", "https://hub")], false),
            (vec![("host", "hub:8443"), ("origin", "null")], false),
            (vec![("host", "hub"), ("origin", "https://evil"), ("sec-fetch-site", "same-origin")], true),
            (vec![("host", "hub"), ("origin", "https://hub"), ("sec-fetch-site", "same-site")], false),
        ] {
            assert_eq!(is_same_origin(&parts(&headers)), expected, "{headers:?}");
        }
    }

    #[test]
    fn the_header_must_be_bearer() {
        let headers = |value: &str| HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
        assert_eq!(bearer(&headers("Bearer x")).unwrap(), Some("x"));
        assert_eq!(bearer(&headers("bearer x")).unwrap(), Some("x"));
        assert!(bearer(&headers("Basic x")).is_err());
        assert!(bearer(&headers("x")).is_err());
        assert_eq!(bearer(&HeaderMap::new()).unwrap(), None);
    }
}
