//! Sends the series of `/metrics` to a Prometheus-compatible store, again and again: remote write, version 1.
//!
//! A round goes through the exposition in batches, so that a million series are never in memory together. Batches wait in
//! a short queue and leave it in order, each when the store has taken it or has refused it for good. A store that is
//! slow or away fills the queue; then whole rounds are left out, and counted. A series that was in the last round and is
//! not in this one is ended by a stale marker.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use prometheus::core::Collector;
use prometheus::{IntCounter, IntGauge, Registry};
use reqwest::Url;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::metrics::HubMetrics;
use crate::owner::FleetHandle;
use round::{Batch, Previous, round};
use send::Sender;

mod message;
mod round;
mod send;
#[cfg(test)]
mod tests;

pub use send::SenderError;

/// Batches that wait for the store.
const QUEUE: usize = 64;

/// Where the fleet's series go.
#[derive(Clone, Debug, Args)]
pub struct RemoteWriteArgs {
    /// Where the series of /metrics are sent by Prometheus' remote write: http(s)://host/api/v1/write.
    #[arg(long, env = "ACTIVE_MONITOR_REMOTE_WRITE_URL", hide_env_values = true)]
    pub remote_write_url: Option<RemoteUrl>,
    /// Seconds from one sample of a series to the next.
    #[arg(long, env = "ACTIVE_MONITOR_REMOTE_WRITE_INTERVAL_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub remote_write_interval_seconds: u64,
    /// File with the bearer token for it; read anew for each request.
    #[arg(long, env = "ACTIVE_MONITOR_REMOTE_WRITE_TOKEN_FILE")]
    pub remote_write_token_file: Option<PathBuf>,
    /// File with the certificates (PEM) by which it is known, read anew for each request; those of the system where it is not given.
    #[arg(long, env = "ACTIVE_MONITOR_REMOTE_WRITE_CA_FILE")]
    pub remote_write_ca_file: Option<PathBuf>,
}

/// An address as it was given; it may have a password in it.
#[derive(Clone)]
pub struct RemoteUrl(String);

impl FromStr for RemoteUrl {
    // A refusal by the command line would repeat the text, and with it the password.
    type Err = Infallible;

    fn from_str(text: &str) -> Result<RemoteUrl, Infallible> {
        Ok(RemoteUrl(text.to_owned()))
    }
}

impl fmt::Debug for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RemoteUrl")
    }
}

/// Why a text is no address of a remote store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It is no URL.
    #[error("must be a URL: {0}")]
    Form(String),
    /// It is not of HTTP.
    #[error("must begin with http:// or https://")]
    Scheme,
    /// All can read the arguments of a process.
    #[error("must have no credentials in it: --remote-write-token-file names a file")]
    Credentials,
}

impl RemoteWriteArgs {
    /// Where the series go; nowhere where it is not given.
    ///
    /// # Errors
    /// See [`UrlError`].
    pub fn url(&self) -> Result<Option<Url>, UrlError> {
        let Some(RemoteUrl(text)) = &self.remote_write_url else { return Ok(None) };
        let url = Url::parse(text).map_err(|error| UrlError::Form(error.to_string()))?;
        match url.scheme() {
            "http" | "https" if url.username().is_empty() && url.password().is_none() => Ok(Some(url)),
            "http" | "https" => Err(UrlError::Credentials),
            _ => Err(UrlError::Scheme),
        }
    }
}

/// What became of the samples.
#[derive(Clone, Debug)]
pub struct RemoteWriteMetrics {
    sent: IntCounter,
    rejected: IntCounter,
    retries: IntCounter,
    skipped: IntCounter,
    queued: IntGauge,
    last_success: IntGauge,
}

impl RemoteWriteMetrics {
    /// All at nothing.
    ///
    /// # Errors
    /// A name is wrong.
    pub fn new() -> Result<RemoteWriteMetrics, prometheus::Error> {
        let name = |name: &str| format!("activemonitor_hub_remote_write_{name}");
        let counter = |of: &str, help: &str| IntCounter::new(name(of), help);
        let gauge = |of: &str, help: &str| IntGauge::new(name(of), help);
        Ok(RemoteWriteMetrics {
            sent: counter("sent_samples_total", "Samples that the remote store has taken.")?,
            rejected: counter(
                "rejected_samples_total",
                "Samples that the remote store refused for good: they are lost.",
            )?,
            retries: counter("retries_total", "Requests to the remote store that failed and were made again.")?,
            skipped: counter(
                "skipped_rounds_total",
                "Rounds that were left out because the one before was still waiting.",
            )?,
            queued: gauge("queued_batches", "Batches that wait for the remote store.")?,
            last_success: gauge(
                "last_success_timestamp_seconds",
                "When the remote store last took a batch, in Unix time; 0 before the first.",
            )?,
        })
    }

    /// To be registered where they shall be seen.
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let RemoteWriteMetrics { sent, rejected, retries, skipped, queued, last_success } = self.clone();
        vec![
            Box::new(sent),
            Box::new(rejected),
            Box::new(retries),
            Box::new(skipped),
            Box::new(queued),
            Box::new(last_success),
        ]
    }
}

/// Sends rounds to where it was told.
pub(crate) struct RemoteWrite {
    interval: Duration,
    sender: Sender,
    metrics: RemoteWriteMetrics,
    exposition: Arc<HubMetrics>,
}

impl RemoteWrite {
    /// Nothing is sent yet; `None` where nothing is to be sent.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(crate) fn new(
        args: &RemoteWriteArgs,
        metrics: RemoteWriteMetrics,
        registry: Registry,
    ) -> Result<Option<RemoteWrite>, SenderError> {
        let Some(url) = args.url()? else { return Ok(None) };
        let ca = args.remote_write_ca_file.as_deref();
        let sender = Sender::new(url, args.remote_write_token_file.clone(), ca, metrics.clone())?;
        let exposition = Arc::new(HubMetrics::uncounted(registry));
        let interval = Duration::from_secs(args.remote_write_interval_seconds);
        Ok(Some(RemoteWrite { interval, sender, metrics, exposition }))
    }

    /// Sends rounds until `stop`.
    pub(crate) async fn run(self, fleet: FleetHandle, stop: CancellationToken) -> Result<(), Infallible> {
        let (batches, queue) = mpsc::channel(QUEUE);
        tokio::select! {
            () = self.produce(&fleet, &batches) => {}
            () = self.deliver(queue) => {}
            () = stop.cancelled() => {}
        }
        Ok(())
    }

    async fn produce(&self, fleet: &FleetHandle, batches: &mpsc::Sender<Batch>) {
        let mut previous = None;
        let mut next = Instant::now();
        loop {
            tokio::time::sleep_until(next).await;
            next += self.interval;
            if batches.capacity() == 0 {
                self.metrics.skipped.inc();
                continue;
            }
            previous = self.one(fleet, previous, batches).await;
            while next < Instant::now() {
                self.metrics.skipped.inc();
                next += self.interval;
            }
        }
    }

    /// One round. It takes a processor's time, and waits where the queue is full, so it has a thread of its own.
    async fn one(
        &self,
        fleet: &FleetHandle,
        previous: Option<Previous>,
        batches: &mpsc::Sender<Batch>,
    ) -> Option<Previous> {
        let (exposition, view, batches) = (Arc::clone(&self.exposition), fleet.view(), batches.clone());
        let queued = self.metrics.queued.clone();
        let made = tokio::task::spawn_blocking(move || {
            round(&exposition, view, Timestamp::now(), previous, |batch| {
                let sent = batches.blocking_send(batch).is_ok();
                queued.set(i64::try_from(batches.max_capacity() - batches.capacity()).unwrap_or(i64::MAX));
                sent
            })
        });
        made.await.ok()
    }

    async fn deliver(&self, mut queue: mpsc::Receiver<Batch>) {
        while let Some(batch) = queue.recv().await {
            self.sender.send(batch).await;
            self.metrics.queued.set(i64::try_from(queue.len()).unwrap_or(i64::MAX));
        }
    }
}
