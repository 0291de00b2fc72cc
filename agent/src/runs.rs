//! Takes the steps that concern a run: starting it, asking whether its workflow exists, recording its end.

use active_monitor_core::check::{Check, Job};
use active_monitor_core::decide::{Observed, ended_without_workflow};
use active_monitor_core::manifest::Manifest;
use active_monitor_core::rbac::Account;
use active_monitor_core::run::{Outcome, Reason, Run, RunKey, RunKind};
use active_monitor_core::samples;
use active_monitor_core::workflow::{Seen, key_of_labels};
use jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};

use crate::context::Context;
use crate::controller::{StepError, release};
use crate::journal::Intent;
use crate::request::{RequestError, request};
use crate::workflows::SlimWorkflow;

/// Seconds that a refused right is asked for again: after an install the API server aggregates the agent's own rights
/// only by and by.
const RBAC_PATIENCE_SECONDS: i64 = 15;

/// A run that cannot be started, now or at all.
enum Refused {
    /// It has failed, for this reason.
    Run(Reason, String),
    /// It is tried again.
    Later(String),
}

/// Starts a run: its rights, its intent in the journal, its workflow. A run that cannot be started is recorded as
/// failed, once trying again is no use.
///
/// # Errors
/// When it shall be tried again.
pub(crate) async fn start(context: &Context, check: &Check, key: &RunKey) -> Result<(), StepError> {
    let Some(job) = check.job(key.kind) else { return Ok(()) };
    let now = Timestamp::now();
    let since = context.remember(&check.uid, |memory| match &memory.trying {
        Some((trying, since)) if trying == key => *since,
        Some(_) | None => {
            memory.trying = Some((key.clone(), now));
            now
        }
    });
    let (reason, message) = match try_start(context, check, job, key).await? {
        Ok(()) => {
            context.remember(&check.uid, |memory| memory.trying = None);
            return Ok(());
        }
        Err(Refused::Run(reason, message)) => {
            let patient = reason == Reason::RbacRefused && waited(now, since) < RBAC_PATIENCE_SECONDS;
            if patient {
                return Err(StepError::NotYet { message });
            }
            (reason, message)
        }
        Err(Refused::Later(message)) => {
            if waited(now, since) < i64::from(check.timeout_seconds(key.kind, key.slot)) {
                return Err(StepError::NotYet { message });
            }
            (Reason::CreateRefused, message)
        }
    };
    tracing::warn!(check = %check.key(), kind = %key.kind, reason = reason.as_str(), message, "run cannot be started");
    let run = ended_without_workflow(Timestamp::now(), check, key, None, reason, message);
    context.remember(&check.uid, |memory| memory.trying = None);
    settle(context, run).await
}

fn waited(now: Timestamp, since: Timestamp) -> i64 {
    now.duration_since(since).as_secs()
}

async fn try_start(
    context: &Context,
    check: &Check,
    job: &Job,
    key: &RunKey,
) -> Result<Result<(), Refused>, StepError> {
    let text = match context.sources.text(&job.source).await {
        Ok(text) => text,
        Err(error) => return Ok(Err(Refused::Run(Reason::SourceUnavailable, error.to_string()))),
    };
    let manifest = match Manifest::parse(&text) {
        Ok(manifest) => manifest,
        Err(error) => return Ok(Err(Refused::Run(Reason::SourceInvalid, error.to_string()))),
    };
    release(context, context.accounts.enter(check, key.kind)).await;
    if let Err(error) = context.accounts.ensure(&Account::of(check, job)).await {
        let message = format!("cannot give account {}/{} its rights: {error}", job.namespace, job.account);
        let refused = error.is_final() && !error.is_not_found();
        return Ok(Err(if refused { Refused::Run(Reason::RbacRefused, message) } else { Refused::Later(message) }));
    }
    let workflow: DynamicObject = match serde_json::from_value(manifest.workflow(check, job, key)) {
        Ok(workflow) => workflow,
        Err(error) => return Ok(Err(Refused::Run(Reason::SourceInvalid, error.to_string()))),
    };
    let full_name = format!("{}/{}", job.namespace, workflow.metadata.name.clone().unwrap_or_default());
    let (namespace, name) = (check.namespace.clone(), check.name.clone());
    context.journal.intend(Intent { key: key.clone(), namespace, name, workflow: full_name.clone() }).await?;
    create(context, check, key, &full_name, &workflow).await
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
    let created = match request(api.create(&PostParams::default(), workflow)).await {
        Ok(created) => created,
        Err(error) if error.is_conflict() => {
            let existing = request(api.get(workflow.metadata.name.as_deref().unwrap_or_default())).await?;
            if existing.metadata.labels.as_ref().and_then(key_of_labels).as_ref() != Some(key) {
                context.journal.abandon(key);
                let message = format!("workflow {full_name} exists and is another's");
                return Ok(Err(Refused::Run(Reason::CreateRefused, message)));
            }
            existing
        }
        Err(error) => return Ok(Err(refused(context, key, full_name, &error))),
    };
    context.journal.created(key);
    if !context.journal.intents(&check.uid).iter().any(|open| open.intent.key == *key) {
        // The check was deleted, and its intents withdrawn, while the request was under way.
        let message = "the check was deleted while it ran".to_owned();
        let workflow = Some(full_name.to_owned());
        let run = ended_without_workflow(Timestamp::now(), check, key, workflow, Reason::WorkflowVanished, message);
        context.journal.settle(run).await?;
        return Ok(Ok(()));
    }
    let seen = serde_json::to_value(&created).ok().and_then(|v| serde_json::from_value::<SlimWorkflow>(v).ok());
    if let Some(seen) = seen.and_then(|slim| slim.seen()) {
        remember(context, &check.uid, seen);
    }
    Ok(Ok(()))
}

fn refused(context: &Context, key: &RunKey, full_name: &str, error: &RequestError) -> Refused {
    let message = format!("cannot create workflow {full_name}: {error}");
    if error.is_final() {
        // The API server has said that it did not create it.
        context.journal.abandon(key);
        return Refused::Run(Reason::CreateRefused, message);
    }
    Refused::Later(message)
}

fn remember(context: &Context, uid: &str, seen: Seen) {
    context.remember(uid, |memory| {
        memory.gone.remove(&seen.workflow);
        memory.created.insert(seen.workflow.clone(), (seen, Timestamp::now()));
    });
}

/// Asks the API server whether a workflow exists, and remembers the answer.
///
/// # Errors
/// When it cannot be asked.
pub(crate) async fn confirm(context: &Context, uid: &str, workflow: &str) -> Result<(), StepError> {
    let (namespace, name) = workflow.split_once('/').unwrap_or_default();
    let api: Api<SlimWorkflow> = Api::namespaced(context.client.clone(), namespace);
    let found = request(api.get_opt(name)).await?.and_then(|slim| slim.seen());
    match found.filter(|seen| seen.key.check_uid == uid) {
        Some(seen) => {
            context.journal.created(&seen.key);
            context.remember(uid, |memory| memory.asked.insert(workflow.to_owned(), Timestamp::now()));
            context.workflows.insert(seen.clone());
            remember(context, uid, seen);
        }
        // Gone, or another's: either way no workflow speaks for the run.
        None => context.remember(uid, |memory| {
            memory.created.remove(workflow);
            memory.gone.insert(workflow.to_owned());
        }),
    }
    Ok(())
}

/// Records the end of a run: in the journal, and so for the hub.
///
/// # Errors
/// When the journal cannot be written.
pub(crate) async fn record(
    context: &Context,
    check: &Check,
    observed: &Observed,
    run: Run,
    terminate: Option<String>,
) -> Result<(), StepError> {
    let workflow = observed.workflows.iter().find(|seen| seen.key == run.key);
    let published = workflow.map(|seen| samples::read(&seen.status.outputs.parameters)).unwrap_or_default();
    if published.refused > 0 {
        let check = format!("{}/{}", run.namespace, run.name);
        tracing::warn!(check, refused = published.refused, "custom metrics are out of bounds");
    }
    if !published.samples.is_empty() {
        context.remember(&run.key.check_uid, |memory| memory.samples = published.samples);
    }
    // Rights that somebody took away make runs fail: the next run looks at them again.
    if let (Outcome::Failed, Some(job)) = (run.outcome, check.job(run.key.kind)) {
        context.accounts.doubt(&Account::of(check, job));
    }
    settle(context, run).await?;
    if let Some(workflow) = terminate {
        self::terminate(context, &workflow).await;
    }
    Ok(())
}

async fn settle(context: &Context, run: Run) -> Result<(), StepError> {
    let (uid, kind, outcome) = (run.key.check_uid.clone(), run.key.kind, run.outcome);
    let workflow = run.workflow.clone().unwrap_or_default();
    let is_new = context.journal.settle(run).await?;
    context.remember(&uid, |memory| {
        memory.created.remove(&workflow);
        memory.gone.remove(&workflow);
        memory.asked.remove(&workflow);
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
