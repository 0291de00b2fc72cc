//! Login at an OpenID provider: the authorization code flow with PKCE, and ID tokens that programs show as bearers.
//!
//! What a token must say is in [`claims`]; the provider's own documents are read in [`provider`]. The provider vouches once,
//! then a session of the hub ([`super::sessions`]) stands for it.
//!
//! Sources: OpenID Connect Core 1.0, RFC 7636 (PKCE), RFC 9207 (the issuer in the answer).

use std::sync::Arc;

use active_monitor_core::view::Me;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use rand::RngCore;
use reqwest::Url;
use subtle::ConstantTimeEq;

use super::sessions::{Ended, Session, Sessions};
use crate::store::{Store, StoreError};
use provider::{Known, Provider};

mod args;
mod claims;
mod provider;
#[cfg(test)]
mod tests;

pub use args::{OidcArgs, OidcArgsError};
pub use claims::{ClaimsError, NAME_PREFIX, person};

/// Why nobody was logged in.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    /// The provider cannot be asked, or its answer makes no sense.
    #[error("the provider: {0}")]
    Provider(String),
    /// The browser did not begin this login here, or too long ago.
    #[error("the login was not begun here, or is too old")]
    NotBegun,
    /// The provider let nobody in: its code for why.
    #[error("the provider refused: {0}")]
    Refused(String),
    /// The ID token lets nobody in.
    #[error(transparent)]
    Claims(#[from] ClaimsError),
}

/// Why the login at a provider cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum OidcSetupError {
    /// The certificates, or the client made of them.
    #[error("--oidc-ca-file: {0}")]
    Client(String),
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Knows the provider.
pub struct Oidc {
    args: OidcArgs,
    provider: Provider,
    sessions: Sessions,
}

/// A login that was begun: what the browser keeps of it until it is back.
#[derive(Debug, PartialEq, Eq)]
pub struct Begun {
    state: String,
    nonce: String,
    verifier: String,
}

impl Begun {
    fn new() -> Begun {
        Begun { state: random(), nonce: random(), verifier: random() }
    }

    /// As the browser's cookie has it.
    pub fn to_cookie(&self) -> String {
        format!("{}.{}.{}", self.state, self.nonce, self.verifier)
    }

    /// What the cookie says.
    pub fn of_cookie(text: &str) -> Option<Begun> {
        let [state, nonce, verifier] = text.split('.').map(str::to_owned).collect::<Vec<_>>().try_into().ok()?;
        Some(Begun { state, nonce, verifier })
    }
}

/// 32 random bytes, 43 characters: the least that PKCE wants.
fn random() -> String {
    let mut bytes = [0_u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Oidc {
    /// `None` where no provider is named. The provider is not asked yet: the hub starts without it.
    ///
    /// # Errors
    /// See [`OidcSetupError`].
    pub async fn load(args: &OidcArgs, store: &dyn Store) -> Result<Option<Oidc>, OidcSetupError> {
        let Some(issuer) = &args.oidc_issuer else { return Ok(None) };
        let provider = Provider::new(issuer, args).map_err(|error| OidcSetupError::Client(format!("{error:#}")))?;
        Ok(Some(Oidc { args: args.clone(), provider, sessions: Sessions::load(store).await? }))
    }

    /// The provider's name, for people.
    pub fn issuer(&self) -> &str {
        self.args.oidc_issuer.as_deref().unwrap_or_default()
    }

    /// Where the browser goes, and what it keeps meanwhile.
    ///
    /// # Errors
    /// [`OidcError::Provider`].
    pub async fn begin(&self) -> Result<(Url, Begun), OidcError> {
        let known = self.provider.known().await?;
        let begun = Begun::new();
        let mut scopes = vec!["openid"];
        scopes.extend(self.args.oidc_scope.iter().map(String::as_str));
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, begun.verifier.as_bytes()));
        let mut url = known.endpoints.authorization.clone();
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", self.args.oidc_client_id.as_deref().unwrap_or_default())
            .append_pair("redirect_uri", self.args.oidc_redirect_url.as_ref().map_or("", Url::as_str))
            .append_pair("scope", &scopes.join(" "))
            .append_pair("state", &begun.state)
            .append_pair("nonce", &begun.nonce)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        Ok((url, begun))
    }

    /// The browser is back with a code: the text of a session for whom the provider vouches.
    ///
    /// # Errors
    /// See [`OidcError`].
    pub async fn finish(&self, begun: &Begun, answer: &Answer) -> Result<(Me, String), OidcError> {
        if !bool::from(begun.state.as_bytes().ct_eq(answer.state.as_bytes())) {
            return Err(OidcError::NotBegun);
        }
        if answer.iss.as_deref().is_some_and(|iss| iss != self.issuer()) {
            return Err(OidcError::Provider("another one has answered".to_owned()));
        }
        let known = self.provider.known().await?;
        let token = self.provider.exchange(&self.args, &known.endpoints, &answer.code, &begun.verifier).await?;
        let me = self.person(known, &token, Some(&begun.nonce)).await?;
        let session = self.sessions.seal(&me, Timestamp::now());
        let session = session.map_err(|error| OidcError::Provider(error.to_string()))?;
        Ok((me, session))
    }

    /// The session that this is, where its time is not over.
    pub fn session(&self, text: &str) -> Option<Session> {
        self.sessions.open(text, Timestamp::now())
    }

    /// Whose session or ID token this is; `None` when nobody's, or when the session was ended.
    pub async fn identify(&self, text: &str, ended: &Ended) -> Option<Me> {
        if let Some(session) = self.session(text) {
            return (!ended.has(&session)).then_some(session.me);
        }
        // Three parts: the form of a signed token. For anything else nobody is asked.
        if text.split('.').count() != 3 {
            return None;
        }
        let known = self.provider.known().await;
        let me = match known {
            Ok(known) => self.person(known, text, None).await,
            Err(error) => Err(error),
        };
        me.inspect_err(|error| tracing::debug!(%error, "an ID token lets nobody in")).ok()
    }

    /// A key that is not known may be a new one: the keys are then read again, once.
    async fn person(&self, known: Arc<Known>, token: &str, nonce: Option<&str>) -> Result<Me, OidcError> {
        let keys = match claims::person(&self.args, &known.keys, token, nonce) {
            Err(ClaimsError::UnknownKey) => self.provider.newer(&known).await?,
            judged => return Ok(judged?),
        };
        Ok(claims::person(&self.args, &keys.keys, token, nonce)?)
    }
}

/// What the provider gave the browser to bring.
#[derive(Debug)]
pub struct Answer {
    /// What the hub gave the browser.
    pub state: String,
    /// The provider's code for the person.
    pub code: String,
    /// Who answers.
    pub iss: Option<String>,
}
