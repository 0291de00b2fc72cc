//! Hands batches to the remote store, each until it is taken or refused for good.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use rand::Rng;
use reqwest::{Certificate, Client, StatusCode, Url, header};

use super::round::Batch;
use super::{RemoteWriteMetrics, UrlError};

/// The first pause after a failure; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause of our own.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest pause that the store may ask for.
const LONGEST_WISH: Duration = Duration::from_secs(300);
/// The longest that a request may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why nothing can be sent.
#[derive(Debug, thiserror::Error)]
pub enum SenderError {
    /// It is not told where to.
    #[error("--remote-write-url {0}")]
    Url(#[from] UrlError),
    /// The file with certificates cannot be read.
    #[error("--remote-write-ca-file: {path} cannot be read")]
    Read {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It holds no certificates.
    #[error("--remote-write-ca-file: {path} holds no certificate (PEM)")]
    NoCertificate {
        /// Its path.
        path: PathBuf,
    },
    /// TLS cannot be set up.
    #[error("the client of --remote-write-url cannot be made")]
    Client(#[source] reqwest::Error),
}

/// What the store said to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Taken,
    /// It will never take this.
    Refused(StatusCode),
    /// Perhaps later, and not before.
    Later(Option<Duration>),
}

/// Knows where the store is.
pub(super) struct Sender {
    known: Mutex<Known>,
    url: Url,
    token: Option<PathBuf>,
    /// Where the store is known by certificates of its own.
    ca: Option<PathBuf>,
    metrics: RemoteWriteMetrics,
}

/// What the store is known by now.
struct Known {
    pem: Option<Vec<u8>>,
    client: Client,
}

/// Trusts these certificates, which are the file's, or those of the system.
fn client(url: &Url, file: Option<(&Path, &[u8])>) -> Result<Client, SenderError> {
    let mut builder = Client::builder()
        .user_agent(concat!("active-monitor-hub/", env!("CARGO_PKG_VERSION")))
        .timeout(TIMEOUT)
        // The token is for this store and for no other.
        .redirect(reqwest::redirect::Policy::none());
    if url.scheme() == "http" {
        // No certificate will be looked at, so a machine without any of its own is no obstacle.
        builder = builder.tls_certs_only([]);
    } else if let Some((path, pem)) = file {
        let certificates = Certificate::from_pem_bundle(pem).unwrap_or_default();
        if certificates.is_empty() {
            return Err(SenderError::NoCertificate { path: path.to_owned() });
        }
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().map_err(SenderError::Client)
}

impl Sender {
    pub(super) fn new(
        url: Url,
        token: Option<PathBuf>,
        ca: Option<&Path>,
        metrics: RemoteWriteMetrics,
    ) -> Result<Sender, SenderError> {
        let ca = ca.filter(|_| url.scheme() == "https").map(Path::to_owned);
        let read =
            |path: &PathBuf| std::fs::read(path).map_err(|source| SenderError::Read { path: path.clone(), source });
        let pem = ca.as_ref().map(read).transpose()?;
        let client = client(&url, ca.as_deref().zip(pem.as_deref()))?;
        Ok(Sender { known: Mutex::new(Known { pem, client }), url, token, ca, metrics })
    }

    /// Trusts what the file says now. While that makes no sense, what it said before.
    async fn client(&self, is_first: bool) -> Client {
        if let Some(path) = &self.ca {
            let read = tokio::fs::read(path).await;
            let read = read.map_err(|source| SenderError::Read { path: path.clone(), source });
            let changed = |pem: &Vec<u8>| self.known.lock().pem.as_ref() != Some(pem);
            match read.map(|pem| Some(pem).filter(changed)) {
                Ok(None) => {}
                Ok(Some(pem)) => match client(&self.url, Some((path, &pem))) {
                    Ok(client) => *self.known.lock() = Known { pem: Some(pem), client },
                    Err(error) => Self::stays(is_first, &error),
                },
                Err(error) => Self::stays(is_first, &error),
            }
        }
        self.known.lock().client.clone()
    }

    fn stays(is_first: bool, error: &SenderError) {
        if is_first {
            tracing::warn!(%error, "the remote store is known by the certificates before");
        }
    }

    /// Returns when the store has taken the batch or refused it for good.
    pub(super) async fn send(&self, batch: Batch) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.attempt(&batch, pause == FIRST_PAUSE).await {
                Answer::Taken => {
                    self.metrics.sent.inc_by(batch.samples);
                    self.metrics.last_success.set(Timestamp::now().as_second());
                    return;
                }
                Answer::Refused(status) => {
                    tracing::error!(%status, samples = batch.samples, "the remote store refuses a batch");
                    self.metrics.rejected.inc_by(batch.samples);
                    return;
                }
                Answer::Later(wish) => {
                    self.metrics.retries.inc();
                    let jittered = pause.mul_f64(rand::rng().random_range(0.5..1.0));
                    tokio::time::sleep(jittered.max(wish.unwrap_or_default())).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn attempt(&self, batch: &Batch, is_first: bool) -> Answer {
        let client = self.client(is_first).await;
        let mut request = client
            .post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .header(header::CONTENT_ENCODING, "snappy")
            .header("X-Prometheus-Remote-Write-Version", "0.1.0")
            .body(batch.body.clone());
        if let Some(path) = &self.token {
            match tokio::fs::read_to_string(path).await {
                Ok(token) => request = request.bearer_auth(token.trim()),
                Err(error) => {
                    if is_first {
                        tracing::warn!(%error, path = %path.display(), "--remote-write-token-file cannot be read");
                    }
                    return Answer::Later(None);
                }
            }
        }
        match request.send().await {
            Ok(response) => {
                let answer = answer(response.status(), response.headers().get(header::RETRY_AFTER));
                if is_first && matches!(answer, Answer::Later(_)) {
                    tracing::warn!(status = %response.status(), "the remote store takes nothing now");
                }
                answer
            }
            Err(error) => {
                if is_first {
                    tracing::warn!(error = %error.without_url(), "the remote store is not reached");
                }
                Answer::Later(None)
            }
        }
    }
}

fn answer(status: StatusCode, retry_after: Option<&header::HeaderValue>) -> Answer {
    if status.is_success() {
        return Answer::Taken;
    }
    if status != StatusCode::TOO_MANY_REQUESTS && !status.is_server_error() {
        return Answer::Refused(status);
    }
    let seconds = retry_after.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Answer::Later(seconds.map(|seconds| Duration::from_secs(seconds).min(LONGEST_WISH)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_mended_by_waiting_is_tried_again_and_nothing_else() {
        let wish = |text: &'static str| Some(header::HeaderValue::from_static(text));
        for (status, retry_after, expected) in [
            (200, None, Answer::Taken),
            (204, None, Answer::Taken),
            (400, None, Answer::Refused(StatusCode::BAD_REQUEST)),
            (401, None, Answer::Refused(StatusCode::UNAUTHORIZED)),
            (302, None, Answer::Refused(StatusCode::FOUND)),
            (429, wish("7"), Answer::Later(Some(Duration::from_secs(7)))),
            (429, wish("999999"), Answer::Later(Some(LONGEST_WISH))),
            (503, wish("soon"), Answer::Later(None)),
            (500, None, Answer::Later(None)),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(answer(status, retry_after.as_ref()), expected, "{status}");
        }
    }
}
