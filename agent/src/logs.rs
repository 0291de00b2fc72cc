//! The last lines that the failed pods of a workflow wrote: read while the pods are still there, redacted, and bounded in
//! lines, bytes and time. They may only help: a run is recorded without them rather than late.

use std::sync::{Arc, Once};
use std::time::Duration;

use active_monitor_core::redact::clean;
use active_monitor_core::run::MAX_LOG_TAIL_BYTES;
use futures::{AsyncReadExt, future};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use prometheus::IntCounterVec;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// What all of it may take, waiting for others included.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Workflows that are asked for side by side.
const CONCURRENT: usize = 16;
/// Pods of one workflow.
const MAX_PODS: usize = 3;
/// Lines of each pod.
const MAX_LINES: usize = 20;
/// Bytes that are kept of each pod.
const MAX_POD_BYTES: usize = 2048;
/// Bytes that are read of each pod.
const MAX_READ_BYTES: u64 = 64 * 1024;
/// Failed pods that a list answers with.
const PAGE: u32 = 50;
/// Argo's label on a workflow's pods.
const WORKFLOW_LABEL: &str = "workflows.argoproj.io/workflow";
/// Argo's name for the container that does the work.
const CONTAINER: &str = "main";

/// What pods wrote, by their number.
type Tails = Mutex<Vec<(usize, String)>>;

static REFUSED: Once = Once::new();

/// Reads log tails; clones share the limits.
#[derive(Clone)]
pub struct Logs {
    client: Client,
    concurrent: Arc<Semaphore>,
    /// By `result`: read, none, refused, failed, late.
    results: IntCounterVec,
}

impl Logs {
    /// `results` has one label.
    pub fn new(client: Client, results: IntCounterVec) -> Logs {
        Logs { client, concurrent: Arc::new(Semaphore::new(CONCURRENT)), results }
    }

    /// The last lines of at most three failed pods of a workflow, `namespace/name`, the newest pod first; at most
    /// [`MAX_LOG_TAIL_BYTES`], after at most 2 s. Empty where there is nothing to be had.
    pub async fn tail(&self, workflow: &str) -> String {
        let Some((namespace, name)) = workflow.split_once('/') else { return String::new() };
        let tails = Mutex::new(Vec::new());
        let result = match timeout(TIMEOUT, self.read(namespace, name, &tails)).await {
            Ok(Ok(())) if tails.lock().is_empty() => "none",
            Ok(Ok(())) => "read",
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                REFUSED
                    .call_once(|| tracing::warn!(namespace, "may not read the logs of failed pods, goes on without"));
                "refused"
            }
            Ok(Err(error)) => {
                tracing::debug!(workflow, %error, "cannot read the logs of failed pods");
                "failed"
            }
            Err(_) => "late",
        };
        self.results.with_label_values(&[result]).inc();
        let mut tails = tails.into_inner();
        tails.sort();
        tails.into_iter().map(|(_, tail)| tail).collect::<Vec<_>>().join("\n")
    }

    /// What one pod said is there even if another one's log is not to be had in time.
    async fn read(&self, namespace: &str, name: &str, tails: &Tails) -> kube::Result<()> {
        let Ok(_turn) = self.concurrent.acquire().await else { return Ok(()) };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let failed = ListParams::default().labels(&format!("{WORKFLOW_LABEL}={name}")).fields("status.phase=Failed");
        let mut pods = api.list_metadata(&failed.limit(PAGE)).await?.items;
        pods.sort_by_key(|pod| std::cmp::Reverse(pod.creation_timestamp().map(|created| created.0)));
        pods.truncate(MAX_PODS);
        let share = MAX_POD_BYTES.min(MAX_LOG_TAIL_BYTES / pods.len().max(1) - 1);
        let names: Vec<String> = pods.iter().map(ResourceExt::name_any).collect();
        let reads = names.into_iter().enumerate().map(|(number, pod)| read_pod(&api, number, pod, share, tails));
        let reads: Vec<kube::Result<()>> = future::join_all(reads).await;
        reads.into_iter().collect()
    }
}

/// Adds the last lines of a pod to `tails`, under its name and with its number.
async fn read_pod(api: &Api<Pod>, number: usize, pod: String, share: usize, tails: &Tails) -> kube::Result<()> {
    let text = read_log(api, &pod).await?;
    let head = format!("{pod}:\n");
    let lines = last_lines(&text, MAX_LINES, share.saturating_sub(head.len()));
    if !lines.is_empty() {
        tails.lock().push((number, head + &lines));
    }
    Ok(())
}

async fn read_log(api: &Api<Pod>, pod: &str) -> kube::Result<String> {
    let params = LogParams {
        container: Some(CONTAINER.to_owned()),
        tail_lines: Some(MAX_LINES as i64),
        limit_bytes: Some(MAX_READ_BYTES as i64),
        ..LogParams::default()
    };
    let stream = api.log_stream(pod, &params).await?;
    let mut text = Vec::new();
    // The API server is asked for no more, and believed no more either.
    let mut stream = std::pin::pin!(stream.take(MAX_READ_BYTES));
    stream.read_to_end(&mut text).await.map_err(kube::Error::ReadEvents)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The end of a log, made safe: at most `lines` lines and `bytes` bytes, `…` marking a cut within a line.
fn last_lines(text: &str, lines: usize, bytes: usize) -> String {
    let text = clean(text);
    let mut kept: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    kept.drain(..kept.len().saturating_sub(lines));
    let text = kept.join("\n");
    if text.len() <= bytes {
        return text;
    }
    let from = text.ceil_char_boundary(text.len() - bytes.saturating_sub('…'.len_utf8()).min(text.len()));
    format!("…{}", &text[from..])
}

#[cfg(test)]
mod tests;
