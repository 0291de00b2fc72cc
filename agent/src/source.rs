//! Reads the text of a workflow: from the HealthCheck itself, or over HTTPS within limits.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::check::Source;
use active_monitor_core::manifest::MAX_SOURCE_BYTES;
use futures::StreamExt;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TOTAL_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_REDIRECTS: usize = 3;

/// Why a text could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No answer, a broken one, or an address that is not allowed.
    #[error("cannot fetch {url}: {}", cause(.source))]
    Fetch {
        /// The address.
        url: String,
        /// What reqwest says.
        #[source]
        source: reqwest::Error,
    },
    /// An answer that is no document.
    #[error("cannot fetch {url}: the server answered {status}")]
    Status {
        /// The address.
        url: String,
        /// HTTP status.
        status: reqwest::StatusCode,
    },
    /// Larger than a source may be.
    #[error("cannot fetch {url}: it is larger than {MAX_SOURCE_BYTES} bytes")]
    TooLarge {
        /// The address.
        url: String,
    },
    /// An address inside the cluster or the host.
    #[error("cannot fetch {url}: {address} is a private address, which the agent is not allowed to fetch from")]
    Private {
        /// The address.
        url: String,
        /// The host in it.
        address: String,
    },
    /// No text.
    #[error("cannot fetch {url}: it is not UTF-8")]
    NotText {
        /// The address.
        url: String,
    },
}

/// The innermost cause: the ones around it repeat the address and say that it failed.
fn cause(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(next) = inner.source() {
        inner = next;
    }
    inner.to_string()
}

/// Fetches sources.
#[derive(Clone)]
pub struct Sources {
    verifying: reqwest::Client,
    trusting: reqwest::Client,
    allow_private: bool,
}

impl Sources {
    /// `allow_private` lets sources come from loopback, link-local and private addresses.
    ///
    /// # Errors
    /// When the TLS machinery cannot be set up.
    pub fn new(allow_private: bool) -> Result<Sources, reqwest::Error> {
        let client = |verify: bool| {
            reqwest::Client::builder()
                .https_only(true)
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(TOTAL_TIMEOUT)
                .redirect(redirects(allow_private))
                .dns_resolver(Arc::new(PublicOnly { allow_private }))
                .no_proxy()
                .tls_danger_accept_invalid_certs(!verify)
                .build()
        };
        Ok(Sources { verifying: client(true)?, trusting: client(false)?, allow_private })
    }

    /// The text of a workflow.
    ///
    /// # Errors
    /// When it has to be fetched and is not there, too large, too slow, or somewhere it must not be.
    pub async fn text(&self, source: &Source) -> Result<String, SourceError> {
        match source {
            Source::Inline(text) => Ok(text.clone()),
            Source::Url { url, verify_cert } => {
                self.fetch(url, if *verify_cert { &self.verifying } else { &self.trusting }).await
            }
        }
    }

    async fn fetch(&self, url: &str, client: &reqwest::Client) -> Result<String, SourceError> {
        let failed = |source| SourceError::Fetch { url: url.to_owned(), source };
        let request = client.get(url).build().map_err(failed)?;
        if let Some(address) = request.url().host_str().filter(|host| !self.allow_private && is_private_literal(host)) {
            return Err(SourceError::Private { url: url.to_owned(), address: address.to_owned() });
        }
        let answer = client.execute(request).await.map_err(failed)?;
        if !answer.status().is_success() {
            return Err(SourceError::Status { url: url.to_owned(), status: answer.status() });
        }
        let mut text = Vec::new();
        let mut chunks = answer.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            text.extend_from_slice(&chunk.map_err(failed)?);
            if text.len() > MAX_SOURCE_BYTES {
                return Err(SourceError::TooLarge { url: url.to_owned() });
            }
        }
        String::from_utf8(text).map_err(|_| SourceError::NotText { url: url.to_owned() })
    }
}

fn redirects(allow_private: bool) -> Policy {
    Policy::custom(move |attempt| {
        let private = attempt.url().host_str().is_some_and(is_private_literal);
        if attempt.previous().len() > MAX_REDIRECTS {
            attempt.error("too many redirects")
        } else if private && !allow_private {
            attempt.error("redirected to a private address")
        } else {
            attempt.follow()
        }
    })
}

fn is_private_literal(host: &str) -> bool {
    host.trim_matches(['[', ']']).parse().is_ok_and(is_private)
}

/// Addresses that a workflow's text must not come from: this host, this network, and the metadata services of clouds.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || a == 0
                || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_private(IpAddr::V4(v4)),
            None => {
                let first = v6.segments()[0];
                v6.is_loopback()
                    || v6.is_unspecified()
                    || v6.is_multicast()
                    || first & 0xfe00 == 0xfc00
                    || first & 0xffc0 == 0xfe80
                    // 64:ff9b::/96 and 2002::/16 carry an IPv4 address that the check above would not see.
                    || first == 0x0064
                    || first == 0x2002
            }
        },
    }
}

/// Resolves names as the host does, and refuses the private addresses among the answers: the connection then goes to
/// exactly the addresses that were looked at.
struct PublicOnly {
    allow_private: bool,
}

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found.filter(|a| allow_private || !is_private(a.ip())).collect();
            if allowed.is_empty() {
                return Err("it resolves to no public address".into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_known_in_every_spelling() {
        for address in [
            "127.0.0.1",
            "10.0.0.1",
            "169.254.169.254",
            "192.168.1.1",
            "172.16.0.1",
            "100.64.0.1",
            "0.0.0.0",
            "::1",
            "::",
            "fc00::1",
            "fe80::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
        ] {
            assert!(is_private(address.parse().unwrap()), "{address}");
        }
        for address in ["1.1.1.1", "2606:4700::1", "172.32.0.1"] {
            assert!(!is_private(address.parse().unwrap()), "{address}");
        }
    }

    #[tokio::test]
    async fn a_private_literal_and_a_name_of_this_host_are_refused() {
        let sources = Sources::new(false).unwrap();
        for url in
            ["https://127.0.0.1:1/x", "https://[::1]:1/x", "https://169.254.169.254/latest", "https://localhost:1/"]
        {
            let source = Source::Url { url: url.into(), verify_cert: true };
            let error = sources.text(&source).await.unwrap_err().to_string();
            assert!(error.contains("private address") || error.contains("no public address"), "{error}");
        }
    }
}
