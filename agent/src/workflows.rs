//! The workflows of this cluster's checks, from a watch: one slim entry each, found by their check.

mod kept;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use active_monitor_core::decide::run_now;
use active_monitor_core::healthcheck::HealthCheck;
use active_monitor_core::manifest::{CHECK_ANNOTATION, CHECK_UID_LABEL, WARNING_ANNOTATION};
use active_monitor_core::scope::Scope;
use active_monitor_core::workflow::{Seen, WorkflowPhase, WorkflowStatus, key_of_labels};
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use kube::Client;
use kube::api::ObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::{self, Event};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::mpsc;

use self::kept::Kept;
use crate::watches;

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
        let annotation = |name: &str| self.metadata.annotations.as_ref()?.get(name).cloned();
        Some(Seen {
            key: key_of_labels(self.metadata.labels.as_ref()?)?,
            workflow: self.full_name(),
            created: self.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
            run_now: self.metadata.annotations.as_ref().and_then(run_now),
            deadline_seconds: deadline.and_then(|seconds| u32::try_from(seconds).ok()),
            warning: annotation(WARNING_ANNOTATION).unwrap_or_default(),
            status: self.status(),
        })
    }

    /// As Argo says it; empty where it has not begun.
    pub(crate) fn status(&self) -> WorkflowStatus {
        self.status.clone().unwrap_or_default()
    }

    /// Whether Argo says that it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.phase != WorkflowPhase::Active)
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
    missing: Arc<AtomicBool>,
    /// The last run that ended was taken up by nobody.
    ignored: Arc<AtomicBool>,
}

/// How long a workflow may wait for an Argo controller before it counts as one that nobody takes up.
const TAKEN_UP_WITHIN: Duration = Duration::from_secs(10);

/// Answers in a row that there is no such kind, before that is believed.
const MISSING_AFTER: u32 = 2;

/// By check uid.
type ByCheck = HashMap<String, OfCheck>;

#[derive(Default)]
struct OfCheck {
    /// The check, as its workflows name it.
    check: Option<ObjectRef<HealthCheck>>,
    /// In the order of their `namespace/name`.
    workflows: Vec<Kept>,
}

impl OfCheck {
    /// Where the workflow of this name is, or belongs.
    fn find(&self, workflow: &str) -> Result<usize, usize> {
        self.workflows.binary_search_by(|kept| (*kept.workflow).cmp(workflow))
    }
}

/// Workflows that no garbage collector takes with their check: they are in another namespace.
pub(crate) struct Strays {
    /// The check, as they name it.
    pub(crate) check: ObjectRef<HealthCheck>,
    /// Its `metadata.uid`.
    pub(crate) uid: String,
    /// Their `namespace/name`s.
    pub(crate) workflows: Vec<String>,
}

impl Workflows {
    /// The workflows of a check.
    pub fn of_check(&self, uid: &str) -> Vec<Seen> {
        let all = self.by_check.lock();
        all.get(uid).map(|known| known.workflows.iter().map(|kept| kept.seen(uid)).collect()).unwrap_or_default()
    }

    /// The workflows in other namespaces than their check's, of every check that is not among `live`.
    pub(crate) fn strays(&self, live: &BTreeSet<String>) -> Vec<Strays> {
        let all = self.by_check.lock();
        let dead = all.iter().filter(|(uid, _)| !live.contains(*uid));
        let strays = dead.filter_map(|(uid, known)| {
            let check = known.check.clone()?;
            let home = format!("{}/", check.namespace.as_deref().unwrap_or_default());
            let names = known.workflows.iter().map(|kept| &kept.workflow);
            let workflows: Vec<_> = names.filter(|name| !name.starts_with(&home)).map(ToString::to_string).collect();
            (!workflows.is_empty()).then(|| Strays { check, uid: uid.clone(), workflows })
        });
        strays.collect()
    }

    /// How many wait for an Argo controller for longer than one should take.
    pub fn waiting(&self, now: Timestamp) -> usize {
        let all = self.by_check.lock();
        let workflows = all.values().flat_map(|known| &known.workflows);
        let active = workflows.filter(|kept| kept.phase == WorkflowPhase::Active);
        let untouched = active.filter(|kept| kept.started_at.is_none());
        untouched.filter(|kept| kept.created + TAKEN_UP_WITHIN < now).count()
    }

    /// Whether Argo does its part, as far as is known: it is installed, and the last run that ended had a controller.
    pub fn is_served(&self) -> bool {
        !self.is_missing() && !self.ignored.load(Ordering::Relaxed)
    }

    /// Takes what the end of a run says of Argo.
    pub(crate) fn served(&self, served: bool) {
        self.ignored.store(!served, Ordering::Relaxed);
    }

    /// Whether the cluster has no kind Workflow: Argo is not installed. It is looked for all the time.
    pub fn is_missing(&self) -> bool {
        self.missing.load(Ordering::Relaxed)
    }

    /// Takes what the API server itself said of a workflow; the watch goes on from there.
    pub(crate) fn insert(&self, workflow: &SlimWorkflow) {
        insert(&mut self.by_check.lock(), workflow);
    }

    fn remove(&self, seen: &Seen) {
        let mut all = self.by_check.lock();
        if let Some(of_check) = all.get_mut(&seen.key.check_uid) {
            if let Ok(at) = of_check.find(&seen.workflow) {
                of_check.workflows.remove(at);
            }
            if of_check.workflows.is_empty() {
                all.remove(&seen.key.check_uid);
            }
        }
    }

    /// Takes a complete list in place of what was known. Gives the checks that it may concern, which are those of what was
    /// there and of what is: only from here on a look at them sees it.
    fn replace(&self, listed: ByCheck) -> Vec<ObjectRef<HealthCheck>> {
        let mut known = self.by_check.lock();
        let before = std::mem::replace(&mut *known, listed);
        let vanished =
            before.into_iter().filter(|(uid, _)| !known.contains_key(uid)).map(|(_, of_check)| of_check.check);
        known.values().map(|of_check| of_check.check.clone()).chain(vanished).flatten().collect()
    }

    /// Follows the cluster until the stream's end; tells which check each change concerns. `ready` is told when the
    /// first list is complete.
    pub async fn follow(
        self,
        client: Client,
        scope: Scope,
        wake: mpsc::Sender<ObjectRef<HealthCheck>>,
        ready: mpsc::Sender<()>,
    ) {
        let config = watcher::Config::default().labels(CHECK_UID_LABEL).page_size(PAGE).timeout(WATCH_SECONDS);
        let events = watches::watch(watches::apis(&scope, &client), &config);
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
        let mut absences = 0;
        while let Some(event) = events.next().await {
            let changed = match event {
                Ok(Event::Init) => {
                    listed.clear();
                    Vec::new()
                }
                Ok(Event::InitApply(workflow)) => {
                    insert(&mut listed, &workflow);
                    Vec::new()
                }
                Ok(Event::InitDone) => {
                    absences = 0;
                    if self.missing.swap(false, Ordering::Relaxed) {
                        tracing::info!("Argo Workflows is installed by now");
                    }
                    let changed = self.replace(std::mem::take(&mut listed));
                    // Only now: whoever waits for it goes by what is known.
                    let _ = ready.try_send(());
                    changed
                }
                Ok(Event::Apply(workflow)) => {
                    self.insert(&workflow);
                    workflow.check().into_iter().collect()
                }
                Ok(Event::Delete(workflow)) => {
                    workflow.seen().iter().for_each(|seen| self.remove(seen));
                    workflow.check().into_iter().collect()
                }
                Err(error) if is_absence(&error) => {
                    absences += 1;
                    if absences >= MISSING_AFTER && !self.missing.swap(true, Ordering::Relaxed) {
                        tracing::warn!("Argo Workflows is not installed: no kind Workflow in argoproj.io/v1alpha1");
                        // Without the kind there are no workflows, and each run shall say why it cannot start.
                        self.by_check.lock().clear();
                        let _ = ready.try_send(());
                    }
                    Vec::new()
                }
                Err(error) => {
                    tracing::debug!(%error, "watch of workflows failed, trying again");
                    Vec::new()
                }
            };
            for check in changed {
                if wake.send(check).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn insert(all: &mut ByCheck, workflow: &SlimWorkflow) {
    let Some(seen) = workflow.seen() else { return };
    let (uid, kept) = Kept::of(seen);
    let of_check = all.entry(uid).or_default();
    of_check.check = workflow.check().or(of_check.check.take());
    match of_check.find(&kept.workflow) {
        Ok(at) => of_check.workflows[at] = kept,
        Err(at) => of_check.workflows.insert(at, kept),
    }
}

/// Whether the API server says that it has no such kind.
fn is_absence(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => {
            matches!(error, kube::Error::Api(status) if status.code == 404)
        }
        watcher::Error::WatchError(_) | watcher::Error::WatchFailed(_) | watcher::Error::NoResourceVersion => false,
    }
}

/// How long a workflow that was just created may be missing from the watch before the API server is asked.
pub const WATCH_LAG: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

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

    #[tokio::test(start_paused = true)]
    async fn a_relist_replaces_what_was_known_and_wakes_its_checks_once_it_is_complete() {
        let workflows = Workflows::default();
        let (wake, mut woken) = mpsc::channel(16);
        let (ready, mut is_ready) = mpsc::channel(1);
        let (events, received) = futures::channel::mpsc::unbounded();
        let follower = workflows.clone();
        let task = tokio::spawn(async move { follower.apply(received, wake, ready).await });
        let mut vanished = workflow("vanished", "20260101T000000Z");
        vanished.metadata.labels.as_mut().unwrap().insert(CHECK_UID_LABEL.into(), "v".into());
        vanished.metadata.annotations.as_mut().unwrap().insert(CHECK_ANNOTATION.into(), "health/gone".into());
        for event in [Event::Apply(workflow("old", "20260101T000000Z")), Event::Apply(vanished)] {
            events.unbounded_send(Ok(event)).unwrap();
            woken.recv().await.unwrap();
        }
        for event in [Event::Init, Event::InitApply(workflow("new", "20260101T000100Z"))] {
            events.unbounded_send(Ok(event)).unwrap();
        }
        // Whoever is woken looks: by then what he sees must be the new list.
        assert!(timeout(Duration::from_secs(60), woken.recv()).await.is_err(), "the list is not complete");
        assert_eq!(workflows.of_check("u")[0].workflow, "health/old");
        events.unbounded_send(Ok(Event::InitDone)).unwrap();
        let mut names = Vec::new();
        for _ in 0..2 {
            names.push(woken.recv().await.unwrap().name);
            let of_check = workflows.of_check("u");
            assert_eq!((of_check.len(), of_check[0].workflow.as_str()), (1, "health/new"));
            assert_eq!((of_check[0].deadline_seconds, workflows.of_check("v").len()), (Some(65), 0));
        }
        names.sort();
        assert_eq!(names, ["dns", "gone"], "what vanished is looked at too");
        assert!(is_ready.recv().await.is_some());
        drop(events);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_cluster_without_argo_is_ready_and_known_and_one_odd_answer_is_not_believed() {
        let absent = || {
            let status = kube::core::Status { code: 404, ..kube::core::Status::default() };
            Err(watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status))))
        };
        let workflows = Workflows::default();
        let (wake, _woken) = mpsc::channel(16);
        let (ready, mut is_ready) = mpsc::channel(1);
        workflows.apply(futures::stream::iter([absent()]), wake.clone(), ready.clone()).await;
        assert!(!workflows.is_missing() && is_ready.try_recv().is_err());
        workflows.apply(futures::stream::iter([absent(), absent()]), wake.clone(), ready.clone()).await;
        assert!(workflows.is_missing() && is_ready.try_recv().is_ok());
        let appears = [Ok(Event::Init), Ok(Event::InitApply(workflow("new", "20260101T000100Z"))), Ok(Event::InitDone)];
        workflows.apply(futures::stream::iter(appears), wake, ready).await;
        assert!(!workflows.is_missing() && workflows.of_check("u").len() == 1);
    }

    #[test]
    fn what_no_garbage_collector_takes_is_named_and_what_nobody_takes_up_is_counted() {
        let workflows = Workflows::default();
        workflows.insert(&workflow("beside", "20260101T000000Z"));
        let mut elsewhere = workflow("elsewhere", "20260101T000100Z");
        elsewhere.metadata.namespace = Some("shop".into());
        elsewhere.status = Some(WorkflowStatus {
            started_at: elsewhere.metadata.creation_timestamp.clone(),
            ..WorkflowStatus::default()
        });
        workflows.insert(&elsewhere);
        assert!(workflows.strays(&BTreeSet::from(["u".to_owned()])).is_empty(), "the check lives");
        let strays = workflows.strays(&BTreeSet::new());
        assert_eq!((strays.len(), strays[0].check.name.as_str(), strays[0].uid.as_str()), (1, "dns", "u"));
        assert_eq!(strays[0].workflows, ["shop/elsewhere"]);

        let created: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(workflows.waiting(created + TAKEN_UP_WITHIN), 0);
        assert_eq!(workflows.waiting(created + TAKEN_UP_WITHIN + Duration::from_secs(1)), 1);
        assert!(workflows.is_served());
        workflows.served(false);
        assert!(!workflows.is_served());
    }
}
