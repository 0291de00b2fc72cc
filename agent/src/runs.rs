//! Takes the steps that concern a run: starting it, asking whether its workflow exists, recording its end.

use std::time::Duration;

use active_monitor_core::check::{Check, Invalid, Job};
use active_monitor_core::decide::{Observed, RUN_NOW_ANNOTATION, ended_without_workflow};
use active_monitor_core::manifest::{CHECK_UID_LABEL, KIND_LABEL, Manifest, WARNING_ANNOTATION, workflow_name};
use active_monitor_core::rbac::{Account, Layer};
use active_monitor_core::run::{Outcome, Reason, Run, RunKey, RunKind, clean_message};
use active_monitor_core::samples;
use active_monitor_core::status::conditions::Argo;
use active_monitor_core::workflow::{Seen, WorkflowPhase, key_of_labels};
use jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};

use crate::accounts::AccountError;
use crate::context::Context;
use crate::controller::{StepError, release};
use crate::journal::Intent;
use crate::request::{RequestError, request};
use crate::workflows::SlimWorkflow;

/// Seconds that what is not allowed is asked for again: after an install or its own restart the API server knows the
/// agent's rights only by and by.
const RBAC_PATIENCE_SECONDS: i64 = 15;

/// Remedies of a check that are looked at before another one: more than Argo's time to live leaves there.
const MOST_REMEDIES: u32 = 100;

/// A run that cannot be started, now or at all.
enum Refused {
    /// It has failed, for this reason.
    Run(Reason, String),
    /// It is not allowed; it has failed, for this reason, if it is not allowed a while later either.
    Denied(Reason, String),
    /// It is tried again; where the API server asked for a pause, with what is left of that.
    Later(String, Option<Duration>),
}

/// What became of a run that was to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    /// It is in flight, or has failed.
    Yes,
    /// As many as allowed are in flight: it waits.
    NoRoom,
}

/// Starts a run: its rights, its intent in the journal, its workflow. A run that cannot be started is recorded as
/// failed, once trying again is no use.
///
/// # Errors
/// When it shall be tried again.
pub(crate) async fn start(
    context: &Context,
    check: &Check,
    key: &RunKey,
    run_now: Option<&str>,
) -> Result<Begun, StepError> {
    let Some(job) = check.job(key.kind) else { return Ok(Begun::Yes) };
    let now = context.clock.now();
    let Some(_place) = context.capacity.ask(now, check, key) else { return Ok(Begun::NoRoom) };
    let since = context.remember(&check.uid, |memory| match &memory.trying {
        // The slot may pass while it is tried: for a short interval each try is of another one.
        Some((trying, since)) if trying.kind == key.kind => *since,
        Some(_) | None => {
            memory.trying = Some((key.clone(), now));
            now
        }
    });
    let (reason, message) = match try_start(context, check, job, key, run_now).await? {
        Ok(()) => {
            context.remember(&check.uid, |memory| memory.trying = None);
            return Ok(Begun::Yes);
        }
        Err(Refused::Denied(_, message)) if waited(now, since) < RBAC_PATIENCE_SECONDS => {
            return Err(StepError::NotYet { message, deferral: None });
        }
        Err(Refused::Run(reason, message) | Refused::Denied(reason, message)) => (reason, message),
        Err(Refused::Later(message, deferral)) => {
            if waited(now, since) < i64::from(check.timeout_seconds(key.kind, key.slot)) {
                return Err(StepError::NotYet { message, deferral });
            }
            (Reason::CreateRefused, message)
        }
    };
    let message = clean_message(&message);
    let workflow = full_name(job, key);
    tracing::warn!(check = %check.key(), kind = %key.kind, reason = reason.as_str(), message, "run cannot be started");
    let run = ended_without_workflow(context.clock.now(), check, key, None, reason, message);
    context.remember(&check.uid, |memory| {
        memory.trying = None;
        memory.forget(&workflow);
    });
    settle(context, run).await.map(|()| Begun::Yes)
}

/// Whether the API server has a remedy of this check that is news: the watch does not show it yet, or the API server itself
/// had said that there is none, and the request to create it came after that. It is known from here on, and counts against
/// the limit. Checks are repeated anyway; a remedy is rare, and worth the question.
async fn finds_another(context: &Context, check: &Check, job: &Job) -> Result<bool, RequestError> {
    let api: Api<SlimWorkflow> = Api::namespaced(context.client.clone(), &job.namespace);
    let labels = format!("{CHECK_UID_LABEL}={},{KIND_LABEL}={}", check.uid, RunKind::Remedy.as_str());
    let listed = request(api.list(&ListParams::default().labels(&labels).limit(MOST_REMEDIES))).await?;
    let known = context.workflows.of_check(&check.uid);
    let gone = context.remember(&check.uid, |memory| memory.gone.clone());
    let is_known =
        |seen: &Seen| known.iter().any(|known| known.workflow == seen.workflow) && !gone.contains(&seen.workflow);
    let mut is_news = false;
    for slim in &listed.items {
        if let Some(seen) = slim.seen().filter(|seen| !is_known(seen)) {
            is_news = true;
            context.workflows.insert(slim);
            context.journal.created(&seen.key);
            remember(context, &check.uid, seen);
        }
    }
    Ok(is_news)
}

/// `namespace/name` of a run's workflow.
fn full_name(job: &Job, key: &RunKey) -> String {
    format!("{}/{}", job.namespace, workflow_name(&job.prefix, key))
}

fn waited(now: Timestamp, since: Timestamp) -> i64 {
    now.duration_since(since).as_secs()
}

async fn try_start(
    context: &Context,
    check: &Check,
    job: &Job,
    key: &RunKey,
    run_now: Option<&str>,
) -> Result<Result<(), Refused>, StepError> {
    if key.kind == RunKind::Remedy {
        match finds_another(context, check, job).await {
            Ok(true) => return Ok(Ok(())),
            Ok(false) => {}
            // Without the kind there is none, and the request to create one says so.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Ok(Err(later("cannot ask which remedies there are", &error))),
        }
    }
    let full_name = full_name(job, key);
    let intent = || Intent {
        key: key.clone(),
        namespace: check.namespace.clone(),
        name: check.name.clone(),
        workflow: full_name.clone(),
        run_now: run_now.map(str::to_owned),
    };
    if run_now.is_some() {
        // A request is obeyed once, whatever becomes of it.
        context.journal.intend(intent()).await?;
    }
    let text = match context.sources.text(&job.source).await {
        Ok(text) => text,
        Err(error) => {
            context.counters.source("failed");
            return Ok(Err(Refused::Run(Reason::SourceUnavailable, error.to_string())));
        }
    };
    context.counters.source(if text.warning.is_some() { "copy" } else { "read" });
    let manifest = match looked_at(context, job, &text.text) {
        Ok(manifest) => manifest,
        Err(message) => return Ok(Err(Refused::Run(Reason::SourceInvalid, message))),
    };
    context.sources.keep(&job.source, &text).await;
    release(context, context.accounts.enter(check, key.kind)).await;
    match context.accounts.ensure(check, key.kind).await {
        Ok(()) => {}
        // A namespace may be made after the check that names it.
        Err(AccountError::Refused(refusal)) if refusal.layer == Layer::Namespace => {
            return Ok(Err(Refused::Later(refusal.to_string(), None)));
        }
        Err(AccountError::Refused(refusal)) => {
            return Ok(Err(Refused::Denied(Reason::RbacRefused, refusal.to_string())));
        }
        Err(AccountError::Request(error)) => {
            let what = format!("cannot give account {}/{} its rights", job.namespace, job.account);
            return Ok(Err(later(&what, &error)));
        }
    }
    let mut workflow: DynamicObject = match serde_json::from_value(manifest.workflow(check, job, key)) {
        Ok(workflow) => workflow,
        Err(error) => return Ok(Err(Refused::Run(Reason::SourceInvalid, error.to_string()))),
    };
    if let Some(warning) = &text.warning {
        let warning = clean_message(warning);
        tracing::warn!(check = %check.key(), warning, "run is not what its source says");
        workflow.metadata.annotations.get_or_insert_default().insert(WARNING_ANNOTATION.into(), warning);
    }
    if let Some(token) = run_now {
        let annotations = workflow.metadata.annotations.get_or_insert_default();
        annotations.insert(RUN_NOW_ANNOTATION.into(), token.to_owned());
    }
    context.journal.intend(intent()).await?;
    create(context, check, key, &full_name, &workflow).await
}

/// The text as a workflow that this cluster lets run.
fn looked_at(context: &Context, job: &Job, text: &str) -> Result<Manifest, String> {
    let manifest = Manifest::parse(text).map_err(|error| error.to_string())?;
    let refused = context.source_policy.refusals(&manifest, job);
    if refused.is_empty() { Ok(manifest) } else { Err(Invalid { problems: refused }.to_string()) }
}

/// Creates the workflow, or adopts the one that an earlier try left under the same name.
async fn create(
    context: &Context,
    check: &Check,
    key: &RunKey,
    full_name: &str,
    workflow: &DynamicObject,
) -> Result<Result<(), Refused>, StepError> {
    let namespace = workflow.metadata.namespace.as_deref().unwrap_or_default();
    let gvk = GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Workflow");
    let resource = ApiResource::from_gvk_with_plural(&gvk, "workflows");
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), namespace, &resource);
    // Whatever was said before of a workflow of this name, from here on it may exist.
    context.remember(&check.uid, |memory| memory.gone.remove(full_name));
    let created = match request(api.create(&PostParams::default(), workflow)).await {
        Ok(created) => created,
        Err(error) if error.is_conflict() => {
            let existing = request(api.get(workflow.metadata.name.as_deref().unwrap_or_default())).await?;
            if existing.metadata.labels.as_ref().and_then(key_of_labels).as_ref() != Some(key) {
                let message = format!("workflow {full_name} exists and is another's");
                return Ok(Err(Refused::Run(Reason::CreateRefused, message)));
            }
            existing
        }
        Err(error) => {
            if is_absence(context, &error) {
                context.remember(&check.uid, |memory| memory.argo = Some(Argo::NotInstalled));
            }
            context.remember(&check.uid, |memory| {
                if !error.is_undone() {
                    memory.unclear.insert(full_name.to_owned());
                } else if !memory.unclear.contains(full_name) {
                    // As it was before: the next try need not ask.
                    memory.gone.insert(full_name.to_owned());
                }
            });
            return Ok(Err(refused(context, full_name, &error)));
        }
    };
    context.journal.created(key);
    if !context.journal.intents(&check.uid).iter().any(|open| open.intent.key == *key) {
        // The check was deleted, and its intents withdrawn, while the request was under way.
        let message = "the check was deleted while it ran".to_owned();
        let workflow = Some(full_name.to_owned());
        let run = ended_without_workflow(context.clock.now(), check, key, workflow, Reason::WorkflowVanished, message);
        context.journal.settle(run).await?;
        return Ok(Ok(()));
    }
    let seen = serde_json::to_value(&created).ok().and_then(|v| serde_json::from_value::<SlimWorkflow>(v).ok());
    if let Some(seen) = seen.and_then(|slim| slim.seen()) {
        remember(context, &check.uid, seen);
    }
    Ok(Ok(()))
}

/// Whether the cluster has no kind Workflow, which a missing namespace could be taken for.
fn is_absence(context: &Context, error: &RequestError) -> bool {
    error.is_not_found() && context.workflows.is_missing()
}

fn refused(context: &Context, full_name: &str, error: &RequestError) -> Refused {
    let message = if is_absence(context, error) {
        "Argo Workflows is not installed: the cluster has no kind Workflow in argoproj.io/v1alpha1".to_owned()
    } else {
        format!("cannot create workflow {full_name}: {error}")
    };
    if error.is_forbidden() {
        return Refused::Denied(Reason::CreateRefused, message);
    }
    if error.is_final() {
        return Refused::Run(Reason::CreateRefused, message);
    }
    Refused::Later(message, error.deferral())
}

fn later(what: &str, error: &RequestError) -> Refused {
    Refused::Later(format!("{what}: {error}"), error.deferral())
}

fn remember(context: &Context, uid: &str, seen: Seen) {
    context.remember(uid, |memory| {
        memory.gone.remove(&seen.workflow);
        memory.unclear.remove(&seen.workflow);
        memory.has_created(seen, context.clock.now());
    });
}

/// Withdraws an intent. What was known of its workflow goes along, or it would be kept for as long as its check.
///
/// # Errors
/// The journal fails.
pub(crate) async fn abandon(context: &Context, uid: &str, key: &RunKey) -> Result<(), StepError> {
    let open = context.journal.intents(uid).into_iter().find(|open| open.intent.key == *key);
    context.journal.abandon(key).await?;
    if let Some(open) = open {
        context.remember(uid, |memory| memory.forget(&open.intent.workflow));
    }
    Ok(())
}

/// Asks the API server whether a workflow exists, and remembers the answer.
///
/// # Errors
/// When it cannot be asked.
pub(crate) async fn confirm(context: &Context, uid: &str, workflow: &str) -> Result<(), StepError> {
    let (namespace, name) = workflow.split_once('/').unwrap_or_default();
    let api: Api<SlimWorkflow> = Api::namespaced(context.client.clone(), namespace);
    let found = request(api.get_opt(name)).await?;
    match found.and_then(|slim| Some((slim.seen()?, slim))).filter(|(seen, _)| seen.key.check_uid == uid) {
        Some((seen, slim)) => {
            context.journal.created(&seen.key);
            context.remember(uid, |memory| memory.asked.insert(workflow.to_owned(), context.clock.now()));
            context.workflows.insert(&slim);
            remember(context, uid, seen);
        }
        // Gone, or another's: either way no workflow speaks for the run.
        None => context.remember(uid, |memory| {
            memory.has_ended(workflow);
            memory.gone.insert(workflow.to_owned());
        }),
    }
    Ok(())
}

/// Whether the workflow of an intent exists.
///
/// # Errors
/// When the API server cannot be asked.
pub(crate) async fn exists(context: &Context, intent: &Intent) -> Result<bool, StepError> {
    let (namespace, name) = intent.workflow.split_once('/').unwrap_or_default();
    let api: Api<SlimWorkflow> = Api::namespaced(context.client.clone(), namespace);
    let found = request(api.get_opt(name)).await?.and_then(|slim| slim.seen());
    Ok(found.is_some_and(|seen| seen.key == intent.key))
}

/// Records the end of a run: in the journal, and so for the hub.
///
/// # Errors
/// When the journal cannot be written.
pub(crate) async fn record(
    context: &Context,
    check: &Check,
    observed: &Observed,
    mut run: Run,
    terminate: Option<String>,
) -> Result<(), StepError> {
    let workflow = observed.workflows.iter().find(|seen| seen.key == run.key);
    let published = workflow.map(|seen| samples::read(&seen.status.outputs.parameters)).unwrap_or_default();
    if published.refused > 0 {
        context.counters.refused_metrics.inc_by(published.refused);
        let check = format!("{}/{}", run.namespace, run.name);
        tracing::warn!(check, refused = published.refused, "custom metrics are out of bounds");
    }
    let argo = workflow.map(|seen| if is_untouched(seen) { Argo::NotTakenUp } else { Argo::Serves });
    if let Some(argo) = argo {
        context.workflows.served(argo == Argo::Serves);
    }
    context.remember(&run.key.check_uid, |memory| {
        memory.samples.replace_by(published);
        memory.argo = argo.or(memory.argo);
    });
    // Rights that somebody took away make runs fail: the next run looks at them again.
    if let (Outcome::Failed, Some(job)) = (run.outcome, check.job(run.key.kind)) {
        context.accounts.doubt(&Account::of(check, job));
    }
    if let (Outcome::Failed, Some(workflow), Some(logs)) = (run.outcome, &run.workflow, &context.logs)
        && run.reason != Some(Reason::WorkflowVanished)
    {
        run.log_tail = logs.tail(workflow).await;
    }
    let uid = run.key.check_uid.clone();
    settle(context, run).await?;
    match terminate {
        // Nobody would ever end it, nor take it away: without a controller they would pile up.
        Some(workflow) if argo == Some(Argo::NotTakenUp) && delete(context, &uid, &workflow).await => {}
        Some(workflow) => self::terminate(context, &workflow).await,
        None => {}
    }
    Ok(())
}

/// Whether no Argo controller has begun it.
fn is_untouched(seen: &Seen) -> bool {
    seen.status.phase == WorkflowPhase::Active && seen.status.started_at.is_none() && seen.status.message.is_none()
}

async fn settle(context: &Context, run: Run) -> Result<(), StepError> {
    let (uid, kind, outcome) = (run.key.check_uid.clone(), run.key.kind, run.outcome);
    let workflow = run.workflow.clone().unwrap_or_default();
    let is_new = context.journal.settle(run).await?;
    context.capacity.freed(context.clock.now());
    context.remember(&uid, |memory| {
        memory.has_ended(&workflow);
        memory.forget(&workflow);
        if let (RunKind::Remedy, true, Some(counts)) = (kind, is_new, memory.remedies.as_mut()) {
            match outcome {
                Outcome::Succeeded => counts.succeeded += 1,
                Outcome::Failed => counts.failed += 1,
            }
        }
    });
    // A remedy's rights last as long as the remedy.
    if kind == RunKind::Remedy {
        release(context, context.accounts.leave(&uid, kind)).await;
    }
    Ok(())
}

/// Tells Argo to stop a workflow that nobody waits for any more. It has its own deadline too, so that this fails is only
/// logged.
pub(crate) async fn terminate(context: &Context, workflow: &str) {
    let (namespace, name) = workflow.split_once('/').unwrap_or_default();
    let api: Api<SlimWorkflow> = Api::namespaced(context.client.clone(), namespace);
    let body = serde_json::json!({ "spec": { "shutdown": "Terminate" } });
    match request(api.patch(name, &PatchParams::default(), &Patch::Merge(&body))).await {
        Ok(_) => {}
        Err(error) if error.is_not_found() => {}
        Err(error) => tracing::warn!(workflow, %error, "cannot terminate a workflow that is past its deadline"),
    }
}

/// Deletes a workflow of this check. What the API server has under this name by now may be another's, and stays. False
/// where it is still there, which is only logged.
pub(crate) async fn delete(context: &Context, uid: &str, workflow: &str) -> bool {
    match try_delete(context, uid, workflow).await {
        Ok(()) => true,
        Err(error) if error.is_not_found() || error.is_conflict() => true,
        Err(error) => {
            tracing::warn!(workflow, %error, "cannot delete a workflow that nobody waits for");
            false
        }
    }
}

async fn try_delete(context: &Context, uid: &str, workflow: &str) -> Result<(), RequestError> {
    let (namespace, name) = workflow.split_once('/').unwrap_or_default();
    let api: Api<SlimWorkflow> = Api::namespaced(context.client.clone(), namespace);
    let Some(found) = request(api.get_opt(name)).await? else { return Ok(()) };
    if found.seen().is_none_or(|seen| seen.key.check_uid != uid) {
        return Ok(());
    }
    let preconditions = Preconditions { uid: found.metadata.uid, resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
    request(api.delete(name, &params)).await.map(drop)
}
