//! What the provider says of itself, and its answers: bounded in size and time, and never asked in a storm.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arc_swap::ArcSwapOption;
use jsonwebtoken::jwk::JwkSet;
use reqwest::{Certificate, Client, RequestBuilder, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use super::OidcError;
use super::args::{OidcArgs, is_private};

/// The longest that a request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer, bytes.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// Keys are read again after so long: one that the provider took back counts at most so much longer.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// The least time between two readings, whoever asks.
const PAUSE: Duration = Duration::from_secs(5);

/// The provider's documents, and how it is asked.
pub(super) struct Provider {
    issuer: String,
    client: Client,
    known: ArcSwapOption<Known>,
    /// When it was asked last. Whoever asks holds it, so that others wait for the same answer.
    asked: Mutex<Option<Instant>>,
}

/// What is known of the provider.
pub(super) struct Known {
    pub(super) endpoints: Endpoints,
    pub(super) keys: JwkSet,
    read_at: Instant,
}

/// Where the provider is asked for what.
pub(super) struct Endpoints {
    pub(super) authorization: Url,
    token: Url,
    keys: Url,
    /// Whether the token's endpoint takes the secret in the header.
    takes_header: bool,
}

/// The provider's configuration: OpenID Connect Discovery 1.0, section 3.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    #[serde(default = "by_header")]
    token_endpoint_auth_methods_supported: Vec<String>,
}

const BY_HEADER: &str = "client_secret_basic";

fn by_header() -> Vec<String> {
    vec![BY_HEADER.to_owned()]
}

#[derive(Deserialize)]
struct Tokens {
    id_token: String,
}

impl Provider {
    pub(super) fn new(issuer: &str, args: &OidcArgs) -> anyhow::Result<Provider> {
        let client = Client::builder()
            .timeout(TIMEOUT)
            .user_agent(concat!("active-monitor-hub/", env!("CARGO_PKG_VERSION")))
            // Code and secret are for the provider and for no other.
            .redirect(reqwest::redirect::Policy::none());
        let is_plain = issuer.starts_with("http://");
        let client = match &args.oidc_ca_file {
            // Without TLS no certificate is looked at, so a machine without any of its own is no obstacle.
            None if is_plain => client.tls_certs_only([]),
            None => client,
            Some(path) => {
                let pem = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
                client.tls_certs_merge(Certificate::from_pem_bundle(&pem).context("it holds no certificates")?)
            }
        };
        Ok(Provider {
            issuer: issuer.to_owned(),
            client: client.build()?,
            known: ArcSwapOption::empty(),
            asked: Mutex::new(None),
        })
    }

    /// What is known, read where there is nothing or it is old.
    pub(super) async fn known(&self) -> Result<Arc<Known>, OidcError> {
        match self.known.load_full() {
            Some(known) if known.read_at.elapsed() < MAX_AGE => Ok(known),
            old => self.read(old.as_ref()).await,
        }
    }

    /// What is known after `old`, read where that is still the latest.
    pub(super) async fn newer(&self, old: &Arc<Known>) -> Result<Arc<Known>, OidcError> {
        self.read(Some(old)).await
    }

    async fn read(&self, old: Option<&Arc<Known>>) -> Result<Arc<Known>, OidcError> {
        let mut asked = self.asked.lock().await;
        if let Some(known) = self.known.load_full()
            && old.is_none_or(|old| !Arc::ptr_eq(old, &known))
        {
            return Ok(known);
        }
        if asked.is_some_and(|at| at.elapsed() < PAUSE) {
            return Err(OidcError::Provider("it was asked a moment ago".to_owned()));
        }
        *asked = Some(Instant::now());
        let endpoints = self.endpoints().await?;
        let keys = answer(self.client.get(endpoints.keys.clone())).await?;
        let known = Arc::new(Known { endpoints, keys, read_at: Instant::now() });
        self.known.store(Some(Arc::clone(&known)));
        Ok(known)
    }

    async fn endpoints(&self) -> Result<Endpoints, OidcError> {
        let url = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let discovery: Discovery = answer(self.client.get(url)).await?;
        if discovery.issuer != self.issuer {
            let said = format!("it calls itself {:?}, which is not --oidc-issuer", discovery.issuer);
            return Err(OidcError::Provider(said));
        }
        let url = |text: &str| {
            let url = Url::parse(text).ok().filter(is_private);
            url.ok_or_else(|| OidcError::Provider(format!("its address {text:?} is not one of https")))
        };
        Ok(Endpoints {
            authorization: url(&discovery.authorization_endpoint)?,
            token: url(&discovery.token_endpoint)?,
            keys: url(&discovery.jwks_uri)?,
            takes_header: discovery.token_endpoint_auth_methods_supported.iter().any(|method| method == BY_HEADER),
        })
    }

    /// The ID token for a code.
    pub(super) async fn exchange(
        &self,
        args: &OidcArgs,
        endpoints: &Endpoints,
        code: &str,
        verifier: &str,
    ) -> Result<String, OidcError> {
        let id = args.oidc_client_id.as_deref().unwrap_or_default();
        let redirect = args.oidc_redirect_url.as_ref().map_or("", Url::as_str);
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect),
            ("client_id", id),
            ("code_verifier", verifier),
        ];
        let secret = secret(args)?;
        let request = self.client.post(endpoints.token.clone());
        let request = match &secret {
            Some(secret) if endpoints.takes_header => request.basic_auth(form_encoded(id), Some(form_encoded(secret))),
            Some(secret) => {
                form.push(("client_secret", secret));
                request
            }
            None => request,
        };
        Ok(answer::<Tokens>(request.form(&form)).await?.id_token)
    }
}

fn secret(args: &OidcArgs) -> Result<Option<String>, OidcError> {
    let Some(path) = &args.oidc_client_secret_file else { return Ok(None) };
    let text = std::fs::read_to_string(path).map_err(|error| {
        OidcError::Provider(format!("--oidc-client-secret-file: {} cannot be read: {error}", path.display()))
    })?;
    Ok(Some(text.trim().to_owned()))
}

/// As RFC 6749, section 2.3.1, wants a name and a secret in the header.
pub(super) fn form_encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// The answer to a request, as JSON.
async fn answer<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, OidcError> {
    // The text of a body is in no message: it may hold a token.
    let failed = |error: reqwest::Error| OidcError::Provider(format!("{:#}", anyhow::Error::from(error.without_url())));
    let mut response = request.send().await.map_err(failed)?;
    let (status, path) = (response.status(), response.url().path().to_owned());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(OidcError::Provider(format!("{path} answers with more than {MAX_ANSWER_BYTES} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    if !status.is_success() {
        return Err(OidcError::Provider(format!("{path} answers {status}{}", code_of(&body))));
    }
    let place = |error: serde_json::Error| format!("{path}: line {}, column {}", error.line(), error.column());
    serde_json::from_slice(&body)
        .map_err(|error| OidcError::Provider(format!("no sense in the answer of {}", place(error))))
}

/// The code of an error, RFC 6749, section 5.2, where there is one.
fn code_of(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }
    let is_code = |text: &str| text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    match serde_json::from_slice(body) {
        Ok(Refusal { error }) if is_code(&error) => format!(": {error}"),
        Ok(_) | Err(_) => String::new(),
    }
}
