//! The loop around the decision: a key wakes it, it observes, asks `decide`, takes the step, and asks again, until there
//! is nothing to do but wait. No worker ever waits for a workflow.

use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::check::{Check, Invalid};
use active_monitor_core::decide::{Step, decide};
use active_monitor_core::healthcheck::{HealthCheck, HealthCheckStatus};
use active_monitor_core::rbac::Account;
use active_monitor_core::run::RunKind;
use active_monitor_core::status;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::events::{Event, EventType};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::context::{Context, resource_version};
use crate::journal::JournalError;
use crate::request::{RequestError, request};

/// HealthChecks that a list page carries.
const PAGE: u32 = 50;
/// Steps that one check may need in a row; more is a fault of the decision, and must not hold a worker.
const MAX_STEPS: usize = 16;
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// A HealthCheck, or what could not be read as one: a single bad object must not stop the stream.
pub(crate) type Guarded = DeserializeGuard<HealthCheck>;

/// Why a step could not be taken. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The API server.
    #[error("request to the API server failed")]
    Request(#[from] RequestError),
    /// The journal.
    #[error("journal failed")]
    Journal(#[from] JournalError),
    /// The decision found no rest.
    #[error("no rest after {MAX_STEPS} steps")]
    Restless,
    /// A workflow cannot be created for the moment.
    #[error("cannot start the run yet: {message}")]
    NotYet {
        /// Why.
        message: String,
    },
}

/// Runs the checks of the cluster until `cancel`. `workers` checks are looked at side by side.
pub async fn run(
    context: Arc<Context>,
    wake: mpsc::Receiver<ObjectRef<HealthCheck>>,
    workflows_ready: mpsc::Receiver<()>,
    ready: watch::Sender<bool>,
    workers: u16,
    cancel: CancellationToken,
) {
    let (store, writer) = reflector::store::<Guarded>();
    let (vanished, vanishings) = mpsc::channel(1);
    let api: Api<Guarded> = Api::all(context.client.clone());
    let config = watcher::Config::default().page_size(PAGE);
    let checks = watcher(api, config)
        .modify(|check| check.meta_mut().managed_fields = None)
        .default_backoff()
        .reflect(writer)
        .inspect_err(|error| tracing::warn!(%error, "watch of HealthChecks failed, trying again"))
        .inspect_ok(move |event| {
            if matches!(event, watcher::Event::Delete(_) | watcher::Event::InitDone) {
                let _ = vanished.try_send(());
            }
        })
        .applied_objects();
    let woken = tokio_stream::wrappers::ReceiverStream::new(wake)
        .map(|key| ObjectRef::new(&key.name).within(key.namespace.as_deref().unwrap_or_default()));
    let prepare = prepare(context.clone(), store.clone(), workflows_ready, ready);
    let sweep = crate::sweep::run(context.clone(), store.clone(), vanishings);
    let controller = Controller::for_stream(checks, store)
        .with_config(Config::default().concurrency(workers))
        .reconcile_on(woken)
        .graceful_shutdown_on(cancel.clone().cancelled_owned())
        .run(reconcile, retry, context)
        .for_each(|_| std::future::ready(()));
    tokio::select! {
        () = controller => {}
        () = async { tokio::join!(prepare, sweep); } => {}
    }
}

/// Opens the gate once the caches are complete, with every check's rights known: a role must not shrink to what the
/// first check asks for.
async fn prepare(
    context: Arc<Context>,
    store: Store<Guarded>,
    mut workflows_ready: mpsc::Receiver<()>,
    ready: watch::Sender<bool>,
) {
    if store.wait_until_ready().await.is_err() || workflows_ready.recv().await.is_none() {
        return;
    }
    let checks = store.state();
    for check in checks.iter().filter_map(|guarded| guarded.0.as_ref().ok()) {
        if let Ok(check) = context.parse(check).as_ref() {
            context.accounts.enter(check, RunKind::HealthCheck);
            if context.journal.intents(&check.uid).iter().any(|open| open.intent.key.kind == RunKind::Remedy) {
                context.accounts.enter(check, RunKind::Remedy);
            }
        }
    }
    let readable = checks.iter().filter(|guarded| guarded.0.is_ok());
    context.states.expect(readable.filter_map(|check| check.uid()));
    tracing::info!(checks = checks.len(), "caches are complete, running checks");
    let _ = ready.send(true);
    match context.accounts.orphans().await {
        Ok(orphans) => {
            for account in orphans {
                release(&context, Some(account)).await;
            }
        }
        Err(error) => tracing::warn!(%error, "cannot look for rights that no check uses any more"),
    }
}

async fn reconcile(guarded: Arc<Guarded>, context: Arc<Context>) -> Result<Action, StepError> {
    if context.ready.clone().wait_for(|ready| *ready).await.is_err() {
        return Ok(Action::await_change());
    }
    let resource = match &guarded.0 {
        Ok(resource) => resource,
        Err(error) => {
            tracing::warn!(check = %ObjectRef::from_obj(&*guarded), %error, "object is no HealthCheck, left alone");
            return Ok(Action::await_change());
        }
    };
    let parsed = context.parse(resource);
    let action = match parsed.as_ref() {
        Ok(check) => run_check(&context, resource, &parsed, check).await?,
        Err(invalid) => report_invalid(&context, resource, &parsed, invalid).await?,
    };
    context.remember(&uid(resource), |memory| memory.failures = 0);
    Ok(action)
}

fn retry(guarded: Arc<Guarded>, error: &StepError, context: Arc<Context>) -> Action {
    let failures = context.remember(guarded.meta().uid.as_deref().unwrap_or_default(), |memory| {
        memory.failures = memory.failures.saturating_add(1);
        memory.failures
    });
    let wait = FIRST_RETRY.saturating_mul(1 << failures.min(10).saturating_sub(1)).min(LAST_RETRY);
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    let check = ObjectRef::from_obj(&*guarded);
    if failures == 1 {
        tracing::debug!(%check, %error, %cause, "trying again");
    } else {
        tracing::warn!(%check, %error, %cause, failures, retry_ms = wait.as_millis(), "trying again");
    }
    Action::requeue(wait)
}

fn uid(resource: &HealthCheck) -> String {
    resource.metadata.uid.clone().unwrap_or_default()
}

async fn report_invalid(
    context: &Context,
    resource: &HealthCheck,
    parsed: &Result<Check, Invalid>,
    invalid: &Invalid,
) -> Result<Action, StepError> {
    let now = Timestamp::now();
    let before = context.status(resource);
    let generation = resource.metadata.generation.unwrap_or_default();
    let mut next = status::invalid(&before, invalid);
    if context.fields.has_conditions() {
        next = status::with_ready(next, generation, now);
    }
    let status = write_status(context, resource, &before, next).await?;
    context.publish(now, resource, parsed, &context.observe(now, &uid(resource), status));
    Ok(Action::await_change())
}

async fn run_check(
    context: &Context,
    resource: &HealthCheck,
    parsed: &Result<Check, Invalid>,
    check: &Check,
) -> Result<Action, StepError> {
    // A run in flight keeps the rights it was started with.
    if context.journal.intents(&check.uid).is_empty() {
        release(context, context.accounts.enter(check, RunKind::HealthCheck)).await;
    }
    let mut status = context.status(resource);
    for _ in 0..MAX_STEPS {
        let now = Timestamp::now();
        let observed = context.observe(now, &check.uid, status.clone());
        match decide(now, check, &observed) {
            Step::Wait(until) => {
                context.publish(now, resource, parsed, &observed);
                // A remedy that was given up before it started has rights, and no end that takes them back.
                if observed.intents.is_empty() {
                    release(context, context.accounts.leave(&check.uid, RunKind::Remedy)).await;
                }
                return Ok(wait(now, until));
            }
            Step::WriteStatus(next) => status = write_status(context, resource, &status, *next).await?,
            Step::Record { run, terminate } => {
                crate::runs::record(context, check, &observed, *run, terminate).await?;
            }
            Step::Start(key) => {
                let started = crate::runs::start(context, check, &key).await;
                context.publish(now, resource, parsed, &context.observe(now, &check.uid, status.clone()));
                started?;
            }
            Step::Abandon(key) => context.journal.abandon(&key),
            Step::Confirm(workflow) => crate::runs::confirm(context, &check.uid, &workflow).await?,
        }
    }
    Err(StepError::Restless)
}

fn wait(now: Timestamp, until: Option<Timestamp>) -> Action {
    match until {
        Some(until) => Action::requeue(Duration::try_from(until.duration_since(now)).unwrap_or_default()),
        None => Action::await_change(),
    }
}

/// Makes an account that fewer checks use agree with that. A failure is not the check's: it is logged, and the
/// next one that uses or leaves the account tries again.
pub(crate) async fn release(context: &Context, account: Option<Account>) {
    if let Some(account) = account
        && let Err(error) = context.accounts.release(&account).await
    {
        tracing::warn!(?account, %error, "cannot take back the rights of an account");
    }
}

/// Patches what changes and is kept; gives the status to go on with.
async fn write_status(
    context: &Context,
    resource: &HealthCheck,
    before: &HealthCheckStatus,
    next: HealthCheckStatus,
) -> Result<HealthCheckStatus, StepError> {
    let patch = context.fields.patch(before, &next);
    if patch.is_empty() {
        return Ok(next);
    }
    let meta = &resource.metadata;
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let api: Api<HealthCheck> = Api::namespaced(context.client.clone(), namespace);
    let written = context.remember(&uid(resource), |memory| memory.written.as_ref().map(|(version, _)| *version));
    let version = written.map_or_else(|| meta.resource_version.clone().unwrap_or_default(), |v| v.to_string());
    let body = serde_json::json!({ "metadata": { "resourceVersion": version, "uid": meta.uid }, "status": patch });
    let name = meta.name.as_deref().unwrap_or_default();
    let answer = request(api.patch_status(name, &PatchParams::default(), &Patch::Merge(&body))).await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            // What was written before is not the newest any more, or never came to be.
            context.remember(&uid(resource), |memory| memory.written = None);
            return Err(error.into());
        }
    };
    tell(context, resource, before, &next);
    context.remember(&uid(resource), |memory| memory.written = Some((resource_version(&answer), next.clone())));
    Ok(next)
}

/// Kubernetes events for what changed. They are news, not the record: one that gets lost is not sent again.
fn tell(context: &Context, resource: &HealthCheck, before: &HealthCheckStatus, after: &HealthCheckStatus) {
    let reference = resource.object_ref(&());
    for note in status::notes(before, after) {
        let (recorder, reference) = (context.recorder.clone(), reference.clone());
        let event = Event {
            type_: if note.warning { EventType::Warning } else { EventType::Normal },
            reason: note.reason.into(),
            note: Some(note.text.chars().take(900).collect()),
            action: "Check".into(),
            secondary: None,
        };
        tokio::spawn(async move {
            if let Err(error) = request(recorder.publish(&event, &reference)).await {
                tracing::debug!(%error, "cannot publish an event");
            }
        });
    }
}
