//! The loop around the decision: a key wakes it, it observes, asks `decide`, takes the step, and asks again, until there
//! is nothing to do but wait. No worker ever waits for a workflow.

use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::check::{Check, Invalid};
use active_monitor_core::decide::{Observed, Step, ahead, decide, follow};
use active_monitor_core::healthcheck::{HealthCheck, HealthCheckStatus};
use active_monitor_core::ownership::{MANAGER, keep_writers};
use active_monitor_core::rbac::Account;
use active_monitor_core::run::{RunKey, RunKind};
use active_monitor_core::status;
use futures::{Stream, StreamExt, TryStreamExt};
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::capacity;
use crate::context::{Context, resource_version};
use crate::counters::AHEAD;
use crate::guard::{caught, caught_now};
use crate::journal::JournalError;
use crate::ownership;
use crate::request::{RequestError, request};
use crate::runs::Begun;
use crate::unreadable;
use crate::watches;

/// HealthChecks that a list page carries.
const PAGE: u32 = 50;
/// Steps that one check may need in a row; more is a fault of the decision, and must not hold a worker.
const MAX_STEPS: usize = 16;
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// After a pause that the API server asked for, those that waited come within half of its time, at least and at most this.
const LEAST_SPREAD: Duration = Duration::from_secs(1);
const MOST_SPREAD: Duration = Duration::from_secs(10);

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
    /// A fault of the agent's own, on this check.
    #[error("panic: {message}")]
    Panicked {
        /// The panic's.
        message: String,
    },
    /// A workflow cannot be created for the moment.
    #[error("cannot start the run yet: {message}")]
    NotYet {
        /// Why.
        message: String,
        /// What is left of a pause, where the API server asked for one.
        deferral: Option<Duration>,
    },
}

impl StepError {
    /// How long the API server asked to be left alone, where it is that for which the step waits.
    fn deferral(&self) -> Option<Duration> {
        match self {
            StepError::Request(error) => error.deferral(),
            StepError::NotYet { deferral, .. } => *deferral,
            StepError::Journal(_) | StepError::Restless | StepError::Panicked { .. } => None,
        }
    }
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
    let (listed, lists) = mpsc::channel(1);
    let apis = watches::apis(&context.scope, &context.client);
    let events = watches::watch::<Guarded>(apis, &watcher::Config::default().page_size(PAGE));
    let checks = changes(events, writer, vanished, listed);
    let woken = tokio_stream::wrappers::ReceiverStream::new(wake)
        .map(|key| ObjectRef::new(&key.name).within(key.namespace.as_deref().unwrap_or_default()));
    let prepare = prepare(context.clone(), store.clone(), workflows_ready, ready);
    let sweep = crate::sweep::run(context.clone(), store.clone(), vanishings);
    let (wake_again, woken_again) = mpsc::channel(1);
    let recovery = crate::recovery::run(context.clone(), store.clone(), wake_again);
    let controller = Controller::for_stream(checks, store)
        .with_config(Config::default().concurrency(workers))
        .reconcile_all_on(tokio_stream::wrappers::ReceiverStream::new(lists))
        .reconcile_on(woken)
        .reconcile_on(tokio_stream::wrappers::ReceiverStream::new(woken_again))
        .graceful_shutdown_on(cancel.clone().cancelled_owned())
        .run(reconcile, retry, context)
        .for_each(|_| std::future::ready(()));
    tokio::select! {
        () = controller => {}
        () = async { tokio::join!(prepare, sweep, recovery); } => {}
    }
}

/// Keeps the cache, and gives the checks that change. What a list shows is in the cache only once the list is complete: then
/// `listed` is told, and all are looked at. `vanished` is told when some may have gone.
///
/// The watch's errors stay here, and so do its pauses: of an error the Controller would make one of its own, of up to a
/// minute, for all that wakes it.
fn changes(
    events: impl Stream<Item = watcher::Result<watcher::Event<Guarded>>>,
    writer: reflector::store::Writer<Guarded>,
    vanished: mpsc::Sender<()>,
    listed: mpsc::Sender<()>,
) -> impl Stream<Item = watcher::Result<Guarded>> {
    let kept = events.modify(|check| keep_writers(check.meta_mut())).reflect(writer);
    let changed = kept.inspect_err(|error| tracing::debug!(%error, "watch of HealthChecks failed, trying again"));
    let changed = changed.try_filter_map(move |event| {
        let changed = match event {
            watcher::Event::Apply(check) => Some(check),
            watcher::Event::Delete(_) => {
                let _ = vanished.try_send(());
                None
            }
            watcher::Event::Init | watcher::Event::InitApply(_) => None,
            watcher::Event::InitDone => {
                let _ = vanished.try_send(());
                let _ = listed.try_send(());
                None
            }
        };
        std::future::ready(Ok(changed))
    });
    changed.filter(|change| std::future::ready(change.is_ok()))
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
    let unknown: Vec<_> = checks.iter().filter(|check| !enter(&context, check)).collect();
    context.unknown_rights.lock().extend(unknown.iter().filter_map(|check| check.uid()));
    context.states.expect(checks.iter().filter_map(|check| check.uid()));
    let readable = checks.iter().filter_map(|guarded| guarded.0.as_ref().ok());
    let parsed: Vec<_> = readable.filter_map(|c| Some((c, caught_now(|| context.parse(c)).ok()?))).collect();
    let by_uid = parsed.iter().filter_map(|(_, parsed)| parsed.as_ref().as_ref().ok());
    ownership::adopt(&context, &by_uid.map(|check| (check.uid.as_str(), check)).collect()).await;
    let valid = parsed.iter().filter_map(|(resource, parsed)| Some((*resource, parsed.as_ref().as_ref().ok()?)));
    let rebuilt = crate::rebuild::rebuild(&context, valid).await;
    tracing::info!(checks = checks.len(), rebuilt, "caches are complete, running checks");
    let runs = unknown.len();
    let _ = ready.send(true);
    if runs > 0 {
        tracing::info!(runs, "runs in flight may use rights that no valid check names: they are looked at afterwards");
        return;
    }
    release_orphans(&context).await;
}

/// Takes back the rights that an earlier life of the agent gave and no check uses.
async fn release_orphans(context: &Context) {
    match context.accounts.orphans().await {
        Ok(orphans) => {
            for account in orphans {
                release(context, Some(account)).await;
            }
        }
        Err(error) => tracing::warn!(%error, "cannot look for rights that no check uses any more"),
    }
}

/// A check has no run in flight. Was it the last one of which nobody knew with which rights, it can be said now which are
/// unused.
pub(crate) async fn is_idle(context: &Context, uid: &str) {
    let is_last = {
        let mut unknown = context.unknown_rights.lock();
        unknown.remove(uid) && unknown.is_empty()
    };
    if is_last {
        release_orphans(context).await;
    }
}

/// Makes a check's rights known; false where it has a run in flight and nothing says with which rights.
fn enter(context: &Context, guarded: &Guarded) -> bool {
    let idle = guarded.meta().uid.as_deref().is_none_or(|uid| context.journal.intents(uid).is_empty());
    let Ok(resource) = &guarded.0 else { return idle };
    let entered = caught_now(|| match context.parse(resource).as_ref() {
        Ok(check) => {
            context.accounts.enter(check, RunKind::HealthCheck);
            if context.journal.intents(&check.uid).iter().any(|open| open.intent.key.kind == RunKind::Remedy) {
                context.accounts.enter(check, RunKind::Remedy);
            }
            true
        }
        Err(_) => idle,
    });
    entered.unwrap_or(idle)
}

async fn reconcile(guarded: Arc<Guarded>, context: Arc<Context>) -> Result<Action, StepError> {
    let span = tracing::info_span!("check", check = %ObjectRef::from_obj(&*guarded));
    caught(look(guarded, context)).instrument(span).await.unwrap_or_else(|message| Err(StepError::Panicked { message }))
}

async fn look(guarded: Arc<Guarded>, context: Arc<Context>) -> Result<Action, StepError> {
    let _look = context.looks.begin(guarded.meta().uid.as_deref().unwrap_or_default());
    if context.ready.clone().wait_for(|ready| *ready).await.is_err() {
        return Ok(Action::await_change());
    }
    let resource = match &guarded.0 {
        Ok(resource) => resource,
        Err(error) => {
            tracing::warn!(check = %ObjectRef::from_obj(&*guarded), %error, "object is no HealthCheck");
            let Some(resource) = unreadable::stand_in(&context, guarded.meta()).await? else {
                return Ok(Action::await_change());
            };
            return judge(&context, &resource, &Err(unreadable::problem(error))).await;
        }
    };
    tell_dropped(&context, resource);
    judge(&context, resource, &context.parse(resource)).await
}

async fn judge(
    context: &Context,
    resource: &HealthCheck,
    parsed: &Result<Check, Invalid>,
) -> Result<Action, StepError> {
    let action = match parsed {
        Ok(check) => run_check(context, resource, parsed, check).await?,
        Err(_) => {
            let now = context.clock.now();
            // The hub hears of it even where the status cannot be written.
            context.publish(now, resource, parsed, &context.observe(now, resource, context.status(resource)));
            run_check(context, resource, parsed, &context.last_valid(resource)).await?
        }
    };
    context.remember(&uid(resource), |memory| memory.failures = 0);
    Ok(action)
}

fn retry(guarded: Arc<Guarded>, error: &StepError, context: Arc<Context>) -> Action {
    Action::requeue(pause_after(&guarded, error, &context))
}

/// How long a check waits until it is tried again. Spread: what failed together must not come back together.
fn pause_after(guarded: &Guarded, error: &StepError, context: &Context) -> Duration {
    let deferral = error.deferral();
    let failures = context.remember(guarded.meta().uid.as_deref().unwrap_or_default(), |memory| {
        memory.failures = match deferral {
            // The check has not failed; it is one of those that wait.
            Some(_) => memory.failures.max(1),
            None => memory.failures.saturating_add(1),
        };
        memory.failures
    });
    let wait = match deferral {
        Some(left) => left + (left / 2).clamp(LEAST_SPREAD, MOST_SPREAD).mul_f64(rand::random::<f64>()),
        None => {
            let backoff = FIRST_RETRY.saturating_mul(1 << failures.min(10).saturating_sub(1)).min(LAST_RETRY);
            backoff.mul_f64(0.5 + 0.5 * rand::random::<f64>())
        }
    };
    let is_outage = match error {
        StepError::Request(error) => error.is_outage(),
        StepError::Journal(_) | StepError::Restless | StepError::Panicked { .. } | StepError::NotYet { .. } => false,
    };
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    let check = ObjectRef::from_obj(guarded);
    if failures == 1 || is_outage || deferral.is_some() {
        tracing::debug!(%check, %error, %cause, "trying again");
    } else {
        tracing::warn!(%check, %error, %cause, failures, retry_ms = wait.as_millis(), "trying again");
    }
    wait
}

fn uid(resource: &HealthCheck) -> String {
    resource.metadata.uid.clone().unwrap_or_default()
}

/// Takes steps until there is nothing to do but wait. `check` is what was parsed, or where that is invalid what a run in
/// flight is followed by.
async fn run_check(
    context: &Context,
    resource: &HealthCheck,
    parsed: &Result<Check, Invalid>,
    check: &Check,
) -> Result<Action, StepError> {
    ownership::look(context, resource, parsed.is_ok().then_some(check));
    // A run in flight keeps the rights it was started with.
    if parsed.is_ok() && context.journal.intents(&check.uid).is_empty() {
        release(context, context.accounts.enter(check, RunKind::HealthCheck)).await;
    }
    let mut status = context.status(resource);
    for _ in 0..MAX_STEPS {
        let now = context.clock.now();
        let observed = context.observe(now, resource, status.clone());
        let step = match parsed {
            Ok(_) => decide(now, check, &observed),
            Err(invalid) => follow(now, check, invalid, &observed),
        };
        match step {
            Step::Wait(until) => {
                context.publish(now, resource, parsed, &observed);
                context.remember(&check.uid, |memory| memory.trying = None);
                ownership::tell_withheld(context, resource, check, &observed);
                tell_ahead(context, now, resource, &observed);
                // A remedy that was given up before it started has rights, and no end that takes them back.
                if observed.intents.is_empty() {
                    release(context, context.accounts.leave(&check.uid, RunKind::Remedy)).await;
                    is_idle(context, &check.uid).await;
                }
                return Ok(wait(now, until));
            }
            Step::WriteStatus(next) => status = write_status(context, resource, &status, *next).await?,
            Step::Record { run, terminate } => {
                crate::runs::record(context, check, &observed, *run, terminate).await?;
            }
            Step::Start(key) => {
                if let Some(again) = begin(context, resource, parsed, check, status.clone(), (&key, None)).await? {
                    return Ok(again);
                }
            }
            Step::RunNow { key, token } => {
                let run = (&key, Some(token.as_str()));
                if let Some(again) = begin(context, resource, parsed, check, status.clone(), run).await? {
                    return Ok(again);
                }
            }
            Step::Abandon(key) => crate::runs::abandon(context, &check.uid, &key).await?,
            Step::Confirm(workflow) => crate::runs::confirm(context, &check.uid, &workflow).await?,
        }
    }
    Err(StepError::Restless)
}

/// Starts a run, and says how the check is then. Gives when to ask again where there is no room for it.
async fn begin(
    context: &Context,
    resource: &HealthCheck,
    parsed: &Result<Check, Invalid>,
    check: &Check,
    status: HealthCheckStatus,
    (key, run_now): (&RunKey, Option<&str>),
) -> Result<Option<Action>, StepError> {
    let now = context.clock.now();
    let started = crate::runs::start(context, check, key, run_now).await;
    context.publish(now, resource, parsed, &context.observe(now, resource, status));
    let again = || Action::requeue(capacity::ASK_AGAIN.mul_f64(0.75 + 0.25 * rand::random::<f64>()));
    Ok((started? == Begun::NoRoom).then(again))
}

/// Says, once in this agent's life, that a clock was ahead when the check's last runs were started.
fn tell_ahead(context: &Context, now: Timestamp, resource: &HealthCheck, observed: &Observed) {
    let until = ahead(now, observed);
    let was = context.remember(&uid(resource), |memory| std::mem::replace(&mut memory.is_ahead, until.is_some()));
    if was == until.is_some() {
        return;
    }
    if let Some(gauge) = AHEAD.as_ref() {
        gauge.add(if was { -1 } else { 1 });
    }
    if let Some(until) = until {
        let check = ObjectRef::from_obj(resource);
        tracing::warn!(%check, %until, "slots are used up beyond the clock: a clock was ahead");
        let text = format!(
            "slots up to {until} are used up, which is yet to come: a clock was ahead. Runs go on at their times, and \
             take the slots that follow"
        );
        send(context, resource, status::Note { reason: "ClockWasAhead", text, warning: true });
    }
}

/// Says, once for each generation, which fields of the check the installed CRD dropped.
fn tell_dropped(context: &Context, resource: &HealthCheck) {
    let generation = resource.metadata.generation;
    let compared = context.remember(&uid(resource), |memory| std::mem::replace(&mut memory.compared, generation));
    let dropped = if compared == generation { Vec::new() } else { context.fields.dropped_of(resource) };
    if !dropped.is_empty() {
        let dropped = dropped.join(", ");
        let text = format!("the installed HealthCheck CRD does not know and dropped: {dropped}; install deploy/crds");
        send(context, resource, status::Note { reason: "FieldsDropped", text, warning: true });
    }
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
    let api: Api<PartialObjectMeta<HealthCheck>> = Api::namespaced(context.client.clone(), namespace);
    let written = context.remember(&uid(resource), |memory| memory.written.as_ref().map(|(version, _)| *version));
    let version = written.map_or_else(|| meta.resource_version.clone().unwrap_or_default(), |v| v.to_string());
    let body = serde_json::json!({ "metadata": { "resourceVersion": version, "uid": meta.uid }, "status": patch });
    let name = meta.name.as_deref().unwrap_or_default();
    let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    let answer = request(api.patch_status(name, &params, &Patch::Merge(&body))).await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            // What was written before is not the newest any more, or never came to be.
            context.remember(&uid(resource), |memory| memory.written = None);
            return Err(error.into());
        }
    };
    tell(context, resource, before, &next);
    context
        .remember(&uid(resource), |memory| memory.written = Some((resource_version(&answer), Box::new(next.clone()))));
    Ok(next)
}

/// Kubernetes events for what changed.
fn tell(context: &Context, resource: &HealthCheck, before: &HealthCheckStatus, after: &HealthCheckStatus) {
    for note in status::notes(before, after) {
        send(context, resource, note);
    }
}

fn send(context: &Context, resource: &HealthCheck, note: status::Note) {
    context.events.say(resource, note.warning, note.reason, &note.text);
}

#[cfg(test)]
mod tests;
