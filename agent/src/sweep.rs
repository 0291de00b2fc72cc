//! Forgets checks that are gone: their runs in flight are recorded, their rights taken back, and their workflows in other
//! namespaces deleted, which no garbage collector takes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::healthcheck::HealthCheck;
use active_monitor_core::run::{Outcome, Reason, Run, RunKind};
use kube::runtime::reflector::Store;
use kube::{Api, ResourceExt};
use tokio::sync::mpsc;

use crate::context::Context;
use crate::controller::{Guarded, StepError, is_idle, release};
use crate::counters::AHEAD;
use crate::request::request;
use crate::workflows::Strays;

/// What could not be forgotten is tried again after this time.
const AGAIN: Duration = Duration::from_secs(60);
/// What was looked at when it was to be forgotten is gone after this time.
const SOON: Duration = Duration::from_secs(1);

/// Forgets what is gone each time something has vanished, and from time to time, until the channel's end.
pub(crate) async fn run(context: Arc<Context>, store: Store<Guarded>, mut vanishings: mpsc::Receiver<()>) {
    let mut again = AGAIN;
    loop {
        tokio::select! {
            vanished = vanishings.recv() => if vanished.is_none() { return },
            () = tokio::time::sleep(again) => {}
        }
        again = AGAIN;
        if context.ready.clone().wait_for(|ready| *ready).await.is_err() {
            return;
        }
        let live: BTreeSet<String> = store.state().iter().filter_map(|check| check.uid()).collect();
        let mut known: BTreeSet<String> = context.journal.check_uids().into_iter().collect();
        known.extend(context.memory.lock().keys().cloned());
        for uid in known.difference(&live) {
            // It would begin anew what is forgotten here. Of a check that is gone there is no other look after it.
            if context.looks.contains(uid) {
                again = SOON;
                continue;
            }
            if let Err(error) = forget(&context, uid).await {
                tracing::warn!(uid, %error, "cannot record the end of a deleted check's run");
            }
        }
        for strays in context.workflows.strays(&live) {
            if let Err(error) = collect(&context, &strays).await {
                tracing::warn!(check = %strays.check, %error, "cannot delete the workflows of a deleted check");
            }
        }
    }
}

/// Deletes what a check has left in other namespaces, once the API server itself says that the check is gone: the cache
/// may not know yet what another agent has just begun.
async fn collect(context: &Context, strays: &Strays) -> Result<(), StepError> {
    let namespace = strays.check.namespace.as_deref().unwrap_or_default();
    if !context.scope.includes(namespace) {
        // Another agent's.
        return Ok(());
    }
    let api: Api<HealthCheck> = Api::namespaced(context.client.clone(), namespace);
    let found = request(api.get_metadata_opt(&strays.check.name)).await?;
    if found.is_some_and(|check| check.metadata.uid.as_deref() == Some(&strays.uid)) {
        return Ok(());
    }
    for workflow in &strays.workflows {
        crate::runs::delete(context, &strays.uid, workflow).await;
    }
    Ok(())
}

async fn forget(context: &Context, uid: &str) -> Result<(), StepError> {
    for open in context.journal.intents(uid) {
        // Whether it was created may not be known, and its name may be another's by now.
        if !open.created && !crate::runs::exists(context, &open.intent).await? {
            context.journal.abandon(&open.intent.key).await?;
            continue;
        }
        crate::runs::terminate(context, &open.intent.workflow).await;
        let now = context.clock.now();
        let slot = open.intent.key.slot;
        let run = Run {
            key: open.intent.key,
            namespace: open.intent.namespace,
            name: open.intent.name,
            workflow: Some(open.intent.workflow),
            outcome: Outcome::Failed,
            reason: Some(Reason::WorkflowVanished),
            message: "the check was deleted while it ran".into(),
            started_at: slot,
            finished_at: now.max(slot),
            warning: String::new(),
            log_tail: String::new(),
        };
        context.journal.settle(run).await?;
    }
    for kind in [RunKind::HealthCheck, RunKind::Remedy] {
        release(context, context.accounts.leave(uid, kind)).await;
    }
    is_idle(context, uid).await;
    context.journal.forget(uid);
    if context.memory.lock().remove(uid).is_some_and(|memory| memory.is_ahead)
        && let Some(ahead) = AHEAD.as_ref()
    {
        ahead.dec();
    }
    context.states.remove(uid);
    context.contested.remove(uid);
    Ok(())
}
