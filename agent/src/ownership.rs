//! Moving over from active-monitor: whether another controller still writes a check, and which of its workflows are in
//! flight when this agent comes. The decisions are in `active_monitor_core::ownership`. Labels workflows of
//! active-monitor's that it adopts, and publishes events; touches nothing else in the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::check::Check;
use active_monitor_core::healthcheck::HealthCheck;
use active_monitor_core::manifest::{CHECK_ANNOTATION, CHECK_UID_LABEL, KIND_LABEL, SLOT_LABEL, slot_label};
use active_monitor_core::ownership::{self, Foreign, Hold};
use active_monitor_core::run::{RunKey, RunKind};
use active_monitor_core::workflow::Seen;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use parking_lot::Mutex;

use crate::context::Context;
use crate::journal::Intent;
use crate::request::request;
use crate::watches;
use crate::workflows::SlimWorkflow;

/// Workflows that a list page carries.
const PAGE: u32 = 50;
/// Pages of one list: what lies beyond 100,000 workflows that never ended is not looked at.
const MAX_PAGES: usize = 2000;
/// Tries to list or label before the checks run without it.
const TRIES: u32 = 5;
const RETRY: Duration = Duration::from_secs(2);

/// Whether this agent runs checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// It runs them.
    #[default]
    Act,
    /// It changes nothing in the cluster, and reports what another controller writes.
    Observe,
}

/// Whether remedies may run in this cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Remedies {
    /// None is started; the check's state says that one is owed.
    Off,
    /// None is started; the check's state says what would have run.
    Observe,
    /// They run.
    #[default]
    On,
}

impl From<Remedies> for ownership::Remedies {
    fn from(remedies: Remedies) -> Self {
        match remedies {
            Remedies::Off => Self::Off,
            Remedies::Observe => Self::Observe,
            Remedies::On => Self::On,
        }
    }
}

/// The checks that another controller writes; clones share it.
#[derive(Clone, Default)]
pub struct Contested(Arc<Mutex<BTreeMap<String, (String, String)>>>);

impl Contested {
    /// Namespace and name of each, for the metrics.
    pub fn all(&self) -> BTreeSet<(String, String)> {
        self.0.lock().values().cloned().collect()
    }

    /// Says whether a check is held; gives what it was before.
    fn set(&self, check: &HealthCheck, is_held: bool) -> bool {
        let metadata = check.metadata.clone();
        let uid = metadata.uid.unwrap_or_default();
        let key = (metadata.namespace.unwrap_or_default(), metadata.name.unwrap_or_default());
        let mut all = self.0.lock();
        if is_held { all.insert(uid, key).is_some() } else { all.remove(&uid).is_some() }
    }

    /// Forgets a check.
    pub fn remove(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

/// Looks whether another controller writes the check, and says so once, loudly, when that changes. What it finds is
/// remembered for the decision.
pub(crate) fn look(context: &Context, resource: &HealthCheck, check: Option<&Check>) -> Option<Hold> {
    let now = context.clock.now();
    let uid = resource.metadata.uid.as_deref().unwrap_or_default();
    let last = context.journal.last_run(uid, RunKind::HealthCheck).map(|run| run.finished_at);
    let since = last.map_or(context.since, |last| last.min(now));
    let found = ownership::hold(now, &resource.metadata, check, since);
    context.remember(uid, |memory| memory.hold = found.clone());
    let was_held = context.contested.set(resource, found.is_some());
    match (&found, was_held) {
        (Some(hold), false) => {
            let check = reference(resource);
            tracing::warn!(check, manager = hold.manager, wrote = %hold.wrote, until = %hold.until,
                "another controller writes this check: the agent stops on it");
            context.events.say(resource, true, "AnotherController", &hold.to_string());
        }
        (None, true) => {
            tracing::info!(check = reference(resource), "no other controller writes this check any more");
            let text = "the other controller is gone: the agent goes on";
            context.events.say(resource, false, "TakenOver", text);
        }
        (Some(_), true) | (None, false) => {}
    }
    found
}

fn reference(resource: &HealthCheck) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", part(&resource.metadata.namespace), part(&resource.metadata.name))
}

/// Says once for each failure that its remedy may not run here.
pub(crate) fn tell_withheld(
    context: &Context,
    resource: &HealthCheck,
    check: &Check,
    observed: &active_monitor_core::decide::Observed,
) {
    let failed = observed.status.started_at.as_ref().map(|time| time.0);
    let withheld = ownership::withheld(check, observed);
    let is_told = context.remember(&check.uid, |memory| {
        let is_told = memory.withheld == failed;
        if withheld.is_some() {
            memory.withheld = failed;
        }
        is_told
    });
    if let Some(text) = withheld.filter(|_| !is_told) {
        context.events.say(resource, true, "RemedyWithheld", &text);
    }
}

/// Makes the workflows that active-monitor left in flight the runs of their checks, so that none runs twice at once.
/// Called once, before any check is looked at.
pub(crate) async fn adopt(context: &Context, checks: &BTreeMap<&str, &Check>) {
    let found = match again(|| list(context)).await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "cannot look for workflows that another controller left in flight");
            return;
        }
    };
    for foreign in found {
        let check = checks.get(foreign.check_uid.as_str()).copied();
        let Some((check, key)) = check.and_then(|check| Some((check, ownership::adopted(check, &foreign)?))) else {
            continue;
        };
        let workflow = format!("{}/{}", foreign.namespace, foreign.name);
        match take(context, check, &key, &foreign, &workflow).await {
            Ok(()) => tracing::info!(check = check.key(), workflow, "run of another controller adopted"),
            Err(error) => tracing::warn!(check = check.key(), workflow, %error, "cannot adopt a run; it may overlap"),
        }
    }
}

/// Takes up a workflow that an earlier leader adopted, where this one's journal knows nothing of it. Its labels can be
/// written by anybody: its owner and name decide, as they did then.
pub(crate) async fn adopt_again(context: &Context, check: &Check, seen: &Seen) {
    let is_open = context.journal.intents(&check.uid).iter().any(|open| open.intent.key == seen.key);
    let last = context.journal.last_run(&check.uid, seen.key.kind);
    if is_open || last.is_some_and(|last| last.key.slot >= seen.key.slot) {
        return;
    }
    let (namespace, name) = seen.workflow.split_once('/').unwrap_or_default();
    let api: Api<SlimWorkflow> = Api::namespaced(context.client.clone(), namespace);
    let found = match again(|| async { Ok(request(api.get_opt(name)).await?) }).await {
        Ok(found) => found.and_then(|workflow| ownership::foreign(&workflow.metadata)),
        Err(error) => {
            tracing::warn!(check = check.key(), workflow = seen.workflow, %error, "cannot ask for an adopted run");
            return;
        }
    };
    let is_adopted = |foreign: &Foreign| {
        foreign.check_uid == check.uid && ownership::adopted(check, foreign).as_ref() == Some(&seen.key)
    };
    if !found.as_ref().is_some_and(is_adopted) {
        return;
    }
    let (namespace, name, workflow) = (check.namespace.clone(), check.name.clone(), seen.workflow.clone());
    let intent = Intent { key: seen.key.clone(), namespace, name, workflow, run_now: None };
    match context.journal.intend(intent).await {
        Ok(()) => {
            context.journal.created(&seen.key);
            tracing::info!(check = check.key(), workflow = seen.workflow, "adopted run of an earlier leader taken up");
        }
        Err(error) => {
            tracing::warn!(check = check.key(), workflow = seen.workflow, %error, "cannot take up an adopted run");
        }
    }
}

async fn list(context: &Context) -> Result<Vec<Foreign>, AdoptError> {
    let mut found = Vec::new();
    for api in watches::apis(&context.scope, &context.client) {
        list_of(&api, &mut found).await?;
    }
    Ok(found)
}

async fn list_of(api: &Api<SlimWorkflow>, found: &mut Vec<Foreign>) -> Result<(), AdoptError> {
    let open = format!("!{CHECK_UID_LABEL},workflows.argoproj.io/completed!=true");
    let mut params = ListParams::default().labels(&open).limit(PAGE);
    for _ in 0..MAX_PAGES {
        let page = request(api.list(&params)).await?;
        let open = page.items.iter().filter(|workflow| !workflow.has_ended());
        found.extend(open.filter_map(|workflow| ownership::foreign(&workflow.metadata)));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    Ok(())
}

/// The intent first: a crash in between finds the workflow again, under the same key.
async fn take(
    context: &Context,
    check: &Check,
    key: &RunKey,
    foreign: &Foreign,
    workflow: &str,
) -> Result<(), AdoptError> {
    let (namespace, name) = (check.namespace.clone(), check.name.clone());
    context
        .journal
        .intend(Intent { key: key.clone(), namespace, name, workflow: workflow.to_owned(), run_now: None })
        .await?;
    let body = serde_json::json!({ "metadata": {
        "labels": { CHECK_UID_LABEL: key.check_uid, KIND_LABEL: key.kind.as_str(), SLOT_LABEL: slot_label(key.slot) },
        "annotations": { CHECK_ANNOTATION: check.key() },
    }});
    let api: Api<SlimWorkflow> = Api::namespaced(context.client.clone(), &foreign.namespace);
    let labelled =
        again(|| async { Ok(request(api.patch(&foreign.name, &PatchParams::default(), &Patch::Merge(&body))).await?) });
    match labelled.await {
        Ok(labelled) => {
            context.journal.created(key);
            context.workflows.insert(&labelled);
            Ok(())
        }
        Err(error) => {
            context.journal.abandon(key).await?;
            Err(error)
        }
    }
}

/// Why a workflow was not adopted.
#[derive(Debug, thiserror::Error)]
enum AdoptError {
    #[error(transparent)]
    Request(#[from] crate::request::RequestError),
    #[error(transparent)]
    Journal(#[from] crate::journal::JournalError),
}

/// Tries a few times: right after an install the API server aggregates the agent's rights only by and by.
async fn again<T, F>(mut what: impl FnMut() -> F) -> Result<T, AdoptError>
where
    F: Future<Output = Result<T, AdoptError>>,
{
    let mut tries = 1;
    loop {
        match what().await {
            Ok(done) => return Ok(done),
            Err(AdoptError::Request(error)) if tries < TRIES && !error.is_not_found() => tries += 1,
            Err(error) => return Err(error),
        }
        tokio::time::sleep(RETRY).await;
    }
}
