//! Fetches texts over HTTPS, within limits of time, size and place.

use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::manifest::MAX_SOURCE_BYTES;
use futures::StreamExt;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, StatusCode};

use super::address::{Addresses, Lookup, Resolver};

const MAX_REDIRECTS: usize = 3;

/// How much a fetch may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For the name, the connection and TLS.
    pub(super) connect: Duration,
    /// For everything, redirects included.
    pub(super) total: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { connect: Duration::from_secs(5), total: Duration::from_secs(10) }
    }
}

/// Why a text could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// An address that is not open to sources.
    #[error("the agent may not fetch from {host}: a private address, or one that its flags deny")]
    Denied {
        /// The host in the URL.
        host: String,
    },
    /// No connection in time.
    #[error("no connection within {} s", .limit.as_secs_f32())]
    Connect {
        /// The limit.
        limit: Duration,
    },
    /// Not done in time.
    #[error("not complete within {} s", .limit.as_secs_f32())]
    Timeout {
        /// The limit.
        limit: Duration,
    },
    /// An answer that is no document.
    #[error("the server answered {0}")]
    Status(StatusCode),
    /// Larger than a source may be, once it is unpacked.
    #[error("it is larger than {MAX_SOURCE_BYTES} bytes")]
    TooLarge,
    /// No text.
    #[error("it is not UTF-8")]
    NotText,
    /// No answer, or a broken one.
    #[error("{}", cause(.0))]
    Http(#[source] reqwest::Error),
}

impl FetchError {
    /// Whether the server was away, and so has said nothing about the document.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            FetchError::Denied { .. } | FetchError::TooLarge | FetchError::NotText => false,
            FetchError::Connect { .. } | FetchError::Timeout { .. } => true,
            FetchError::Status(status) => {
                let passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
                status.is_server_error() || passing.contains(status)
            }
            FetchError::Http(error) => !error.is_builder() && !error.is_redirect(),
        }
    }
}

/// The innermost cause: the ones around it repeat the address and say that it failed.
fn cause(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(next) = inner.source() {
        inner = next;
    }
    inner.to_string()
}

/// Two clients: one that looks at certificates, and one that does not.
#[derive(Clone)]
pub(super) struct Fetcher {
    verifying: Client,
    trusting: Client,
    addresses: Arc<Addresses>,
    limits: Limits,
}

impl Fetcher {
    pub(super) fn new(
        addresses: Addresses,
        authorities: &[Certificate],
        limits: Limits,
        lookup: Lookup,
    ) -> Result<Fetcher, reqwest::Error> {
        let addresses = Arc::new(addresses);
        let builder = || {
            Client::builder()
                .https_only(true)
                .connect_timeout(limits.connect)
                .timeout(limits.total)
                .redirect(redirects(addresses.clone()))
                .dns_resolver(Arc::new(Resolver { addresses: addresses.clone(), lookup: lookup.clone() }))
                // A kept connection may be closed by the server in the moment of the next request.
                .pool_max_idle_per_host(0)
                // A proxy would resolve the name itself.
                .no_proxy()
                .user_agent(concat!("active-monitor-agent/", env!("CARGO_PKG_VERSION")))
        };
        let verifying = builder().tls_certs_merge(authorities.iter().cloned()).build()?;
        let trusting = builder().tls_danger_accept_invalid_certs(true).build()?;
        Ok(Fetcher { verifying, trusting, addresses, limits })
    }

    pub(super) async fn fetch(&self, url: &str, verify: bool) -> Result<String, FetchError> {
        let client = if verify { &self.verifying } else { &self.trusting };
        let request = client.get(url).build().map_err(|error| self.sorted(error))?;
        if let Some(host) = request.url().host_str().filter(|host| !self.addresses.permit_host(host)) {
            return Err(FetchError::Denied { host: host.to_owned() });
        }
        let answer = client.execute(request).await.map_err(|error| self.sorted(error))?;
        if !answer.status().is_success() {
            return Err(FetchError::Status(answer.status()));
        }
        let mut text = Vec::new();
        // Unpacked as it comes, so that a small answer cannot become a large one unseen.
        let mut chunks = answer.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            text.extend_from_slice(&chunk.map_err(|error| self.sorted(error))?);
            if text.len() > MAX_SOURCE_BYTES {
                return Err(FetchError::TooLarge);
            }
        }
        String::from_utf8(text).map_err(|_| FetchError::NotText)
    }

    fn sorted(&self, error: reqwest::Error) -> FetchError {
        // An address in an error is the URL's again, with whatever is secret in it.
        let error = error.without_url();
        if !error.is_timeout() {
            FetchError::Http(error)
        } else if error.is_connect() {
            FetchError::Connect { limit: self.limits.connect }
        } else {
            FetchError::Timeout { limit: self.limits.total }
        }
    }
}

fn redirects(addresses: Arc<Addresses>) -> Policy {
    Policy::custom(move |attempt| {
        let host = attempt.url().host_str().unwrap_or_default();
        if attempt.previous().len() > MAX_REDIRECTS {
            attempt.error(format!("more than {MAX_REDIRECTS} redirects"))
        } else if attempt.url().scheme() != "https" {
            attempt.error("redirected away from https")
        } else if !addresses.permit_host(host) {
            let message = format!("redirected to {host}, which the agent may not fetch from");
            attempt.error(message)
        } else {
            attempt.follow()
        }
    })
}
