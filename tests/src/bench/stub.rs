//! What stands in for Argo's workflow controller where that would be the measure: it begins some twenty workflows a second.
//!
//! It carries out no template. Each workflow of the instance id is written twice, as Argo does for one that waits: Running
//! with a node, and after the time for which its template waits Succeeded; later it is deleted by its own `ttlStrategy`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cluster::{INSTANCE_ID, INSTANCE_ID_LABEL};

/// Requests at the same time; Argo's own `--workflow-workers` is 32 too.
const WORKERS: usize = 32;
/// How long a workflow stays that does not say so.
const KEEP_SECONDS: u64 = 600;

/// A controller that works until it is dropped.
pub struct Stub {
    _stop: DropGuard,
}

impl Stub {
    /// Takes up each workflow that nobody has taken up.
    pub fn start(client: Client) -> Stub {
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(follow(client, stop.clone())));
        Stub { _stop: stop.drop_guard() }
    }
}

async fn follow(client: Client, stop: CancellationToken) {
    let resource =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Workflow"), "workflows");
    let all: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let ours = watcher::Config::default().labels(&format!("{INSTANCE_ID_LABEL}={INSTANCE_ID}"));
    let mut events = std::pin::pin!(watcher(all, ours).default_backoff());
    let mut known = HashSet::new();
    let workers = Arc::new(Semaphore::new(WORKERS));
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(workflow) | Event::InitApply(workflow)) => {
                if workflow.data["status"]["phase"].is_null() && known.insert(workflow.name_any()) {
                    let api =
                        Api::namespaced_with(client.clone(), &workflow.namespace().unwrap_or_default(), &resource);
                    let work = Work { api, workflow, workers: Arc::clone(&workers) };
                    tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
                        if let Err(error) = work.carry_out().await {
                            eprintln!("stub of the workflow controller: {error:#}");
                        }
                    }));
                }
            }
            Ok(Event::Delete(workflow)) => drop(known.remove(&workflow.name_any())),
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => eprintln!("stub of the workflow controller: {error}"),
        }
    }
}

/// One workflow.
struct Work {
    api: Api<DynamicObject>,
    workflow: DynamicObject,
    workers: Arc<Semaphore>,
}

impl Work {
    async fn carry_out(self) -> anyhow::Result<()> {
        let started = Timestamp::now();
        let takes = takes(&self.workflow)?;
        self.write(state(&self.workflow, started, None)).await?;
        tokio::time::sleep(takes).await;
        self.write(state(&self.workflow, started, Some(Timestamp::now()))).await?;
        let keep = self.workflow.data["spec"]["ttlStrategy"]["secondsAfterCompletion"].as_u64().unwrap_or(KEEP_SECONDS);
        tokio::time::sleep(Duration::from_secs(keep)).await;
        let _worker = self.workers.acquire().await?;
        let name = self.workflow.name_any();
        self.api.delete(&name, &DeleteParams::default()).await.context(name)?;
        Ok(())
    }

    async fn write(&self, body: Value) -> anyhow::Result<()> {
        let _worker = self.workers.acquire().await?;
        let name = self.workflow.name_any();
        self.api.patch(&name, &PatchParams::default(), &Patch::Merge(&body)).await.context(name)?;
        Ok(())
    }
}

/// How long its first template waits.
fn takes(workflow: &DynamicObject) -> anyhow::Result<Duration> {
    let said = workflow.data["spec"]["templates"][0]["suspend"]["duration"].as_str().unwrap_or_default();
    let seconds = said.strip_suffix('s').and_then(|seconds| seconds.parse().ok());
    Ok(Duration::from_secs(seconds.with_context(|| format!("{} waits for {said:?}", workflow.name_any()))?))
}

/// Labels and status as Argo 3.7 writes them for a workflow with one node that waits.
fn state(workflow: &DynamicObject, started: Timestamp, finished: Option<Timestamp>) -> Value {
    let time = |at: Timestamp| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let name = workflow.name_any();
    let phase = if finished.is_some() { "Succeeded" } else { "Running" };
    let progress = if finished.is_some() { "1/1" } else { "0/1" };
    let finished = finished.map(time);
    let node = json!({
        "id": name, "name": name, "displayName": name, "type": "Suspend", "templateName": "wait",
        "templateScope": format!("local/{name}"), "phase": phase, "progress": progress,
        "startedAt": time(started), "finishedAt": finished,
    });
    let mut labels = json!({"workflows.argoproj.io/phase": phase});
    if finished.is_some() {
        labels["workflows.argoproj.io/completed"] = "true".into();
    }
    json!({
        "metadata": {
            "labels": labels,
            "annotations": {"workflows.argoproj.io/pod-name-format": "v2"},
        },
        "status": {
            "phase": phase, "progress": progress, "startedAt": time(started), "finishedAt": finished,
            "estimatedDuration": 1,
            "artifactRepositoryRef": {"default": true, "artifactRepository": {}},
            "artifactGCStatus": {"notSpecified": true},
            "conditions": [{"type": "PodRunning", "status": "False"}],
            "nodes": {name.as_str(): node},
            "taskResultsCompletionStatus": {},
        },
    })
}
