//! The workflows of this cluster's checks, from a watch: one slim entry each, found by their check.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::healthcheck::HealthCheck;
use active_monitor_core::manifest::{CHECK_ANNOTATION, CHECK_UID_LABEL};
use active_monitor_core::workflow::{Seen, WorkflowStatus, key_of_labels};
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use kube::api::ObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::mpsc;

/// Objects a list page carries: a fleet of finished workflows never stands in memory at once.
const PAGE: u32 = 50;
/// The agent's own requests time out long before this; a watch that says nothing for so long is opened anew.
const WATCH_SECONDS: u32 = 240;

/// A Workflow without what the agent has no use for.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct SlimWorkflow {
    /// Name, labels, times.
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(default)]
    spec: SlimSpec,
    #[serde(default)]
    status: Option<WorkflowStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimSpec {
    active_deadline_seconds: Option<serde_json::Value>,
}

impl kube::Resource for SlimWorkflow {
    type DynamicType = ();
    type Scope = kube::core::NamespaceResourceScope;

    fn kind((): &()) -> std::borrow::Cow<'_, str> {
        "Workflow".into()
    }
    fn group((): &()) -> std::borrow::Cow<'_, str> {
        "argoproj.io".into()
    }
    fn version((): &()) -> std::borrow::Cow<'_, str> {
        "v1alpha1".into()
    }
    fn plural((): &()) -> std::borrow::Cow<'_, str> {
        "workflows".into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl SlimWorkflow {
    /// `namespace/name`.
    pub fn full_name(&self) -> String {
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        format!("{}/{}", part(&self.metadata.namespace), part(&self.metadata.name))
    }

    /// As the decision sees it; `None` where the labels are not the agent's.
    pub fn seen(&self) -> Option<Seen> {
        let deadline = self.spec.active_deadline_seconds.as_ref();
        let deadline = deadline.and_then(|v| v.as_u64().or_else(|| v.as_str()?.parse().ok()));
        Some(Seen {
            key: key_of_labels(self.metadata.labels.as_ref()?)?,
            workflow: self.full_name(),
            created: self.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
            deadline_seconds: deadline.and_then(|seconds| u32::try_from(seconds).ok()),
            status: self.status.clone().unwrap_or_default(),
        })
    }

    fn check(&self) -> Option<ObjectRef<HealthCheck>> {
        let (namespace, name) = self.metadata.annotations.as_ref()?.get(CHECK_ANNOTATION)?.split_once('/')?;
        Some(ObjectRef::new(name).within(namespace))
    }
}

/// The cache; clones share it.
#[derive(Clone, Default)]
pub struct Workflows {
    by_check: Arc<Mutex<ByCheck>>,
}

/// check uid -> `namespace/name` of the workflow -> the workflow
type ByCheck = HashMap<String, BTreeMap<String, Seen>>;

impl Workflows {
    /// The workflows of a check.
    pub fn of_check(&self, uid: &str) -> Vec<Seen> {
        self.by_check.lock().get(uid).map(|known| known.values().cloned().collect()).unwrap_or_default()
    }

    /// Takes what the API server itself said of a workflow; the watch goes on from there.
    pub(crate) fn insert(&self, seen: Seen) {
        let mut all = self.by_check.lock();
        all.entry(seen.key.check_uid.clone()).or_default().insert(seen.workflow.clone(), seen);
    }

    fn remove(&self, seen: &Seen) {
        let mut all = self.by_check.lock();
        if let Some(of_check) = all.get_mut(&seen.key.check_uid) {
            of_check.remove(&seen.workflow);
            if of_check.is_empty() {
                all.remove(&seen.key.check_uid);
            }
        }
    }

    /// Follows the cluster until the stream's end; tells which check each change concerns. `ready` is told when the
    /// first list is complete.
    pub async fn follow(self, client: Client, wake: mpsc::Sender<ObjectRef<HealthCheck>>, ready: mpsc::Sender<()>) {
        let api: Api<SlimWorkflow> = Api::all(client);
        let config = watcher::Config::default().labels(CHECK_UID_LABEL).page_size(PAGE).timeout(WATCH_SECONDS);
        let events = watch(api, config).default_backoff();
        self.apply(events, wake, ready).await;
    }

    async fn apply(
        &self,
        events: impl Stream<Item = watcher::Result<Event<SlimWorkflow>>>,
        wake: mpsc::Sender<ObjectRef<HealthCheck>>,
        ready: mpsc::Sender<()>,
    ) {
        let mut events = std::pin::pin!(events);
        let mut listed = ByCheck::new();
        while let Some(event) = events.next().await {
            let changed = match event {
                Ok(Event::Init) => {
                    listed.clear();
                    None
                }
                Ok(Event::InitApply(workflow)) => {
                    if let Some(seen) = workflow.seen() {
                        listed.entry(seen.key.check_uid.clone()).or_default().insert(seen.workflow.clone(), seen);
                    }
                    workflow.check()
                }
                Ok(Event::InitDone) => {
                    *self.by_check.lock() = std::mem::take(&mut listed);
                    let _ = ready.try_send(());
                    None
                }
                Ok(Event::Apply(workflow)) => {
                    workflow.seen().into_iter().for_each(|seen| self.insert(seen));
                    workflow.check()
                }
                Ok(Event::Delete(workflow)) => {
                    workflow.seen().iter().for_each(|seen| self.remove(seen));
                    workflow.check()
                }
                Err(error) => {
                    tracing::warn!(%error, "watch of workflows failed, trying again");
                    None
                }
            };
            if let Some(check) = changed
                && wake.send(check).await.is_err()
            {
                return;
            }
        }
    }
}

/// How long a workflow that was just created may be missing from the watch before the API server is asked.
pub const WATCH_LAG: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn workflow(name: &str, slot: &str) -> SlimWorkflow {
        serde_json::from_value(serde_json::json!({
            "metadata": {
                "name": name, "namespace": "health", "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"activemonitor.keikoproj.io/check-uid": "u", "activemonitor.keikoproj.io/kind": "healthCheck",
                    "activemonitor.keikoproj.io/slot": slot},
                "annotations": {"activemonitor.keikoproj.io/check": "health/dns"},
            },
            "spec": {"activeDeadlineSeconds": "65"},
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn a_relist_replaces_what_was_known_and_names_the_checks_it_concerns() {
        let workflows = Workflows::default();
        let (wake, mut woken) = mpsc::channel(16);
        let (ready, mut is_ready) = mpsc::channel(1);
        let events = vec![
            Ok(Event::Apply(workflow("old", "20260101T000000Z"))),
            Ok(Event::Init),
            Ok(Event::InitApply(workflow("new", "20260101T000100Z"))),
            Ok(Event::InitDone),
        ];
        workflows.apply(futures::stream::iter(events), wake, ready).await;
        let of_check = workflows.of_check("u");
        assert_eq!(of_check.len(), 1);
        assert_eq!((of_check[0].workflow.as_str(), of_check[0].deadline_seconds), ("health/new", Some(65)));
        assert_eq!(woken.recv().await.unwrap().name, "dns");
        assert!(is_ready.recv().await.is_some());
    }
}
