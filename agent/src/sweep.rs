//! Forgets checks that are gone: their runs in flight are recorded, their rights taken back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::run::{Outcome, Reason, Run, RunKind};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::reflector::Store;
use tokio::sync::mpsc;

use crate::context::Context;
use crate::controller::{Guarded, release};
use crate::journal::JournalError;

/// What could not be forgotten, or came back from a look that was under way, is gone after this time.
const AGAIN: Duration = Duration::from_secs(60);

/// Forgets what is gone each time something has vanished, and from time to time, until the channel's end.
pub(crate) async fn run(context: Arc<Context>, store: Store<Guarded>, mut vanishings: mpsc::Receiver<()>) {
    loop {
        tokio::select! {
            vanished = vanishings.recv() => if vanished.is_none() { return },
            () = tokio::time::sleep(AGAIN) => {}
        }
        if context.ready.clone().wait_for(|ready| *ready).await.is_err() {
            return;
        }
        let live: BTreeSet<String> = store.state().iter().filter_map(|check| check.uid()).collect();
        let mut known: BTreeSet<String> = context.journal.check_uids().into_iter().collect();
        known.extend(context.memory.lock().keys().cloned());
        for uid in known.difference(&live) {
            if let Err(error) = forget(&context, uid).await {
                tracing::warn!(uid, %error, "cannot record the end of a deleted check's run");
            }
        }
    }
}

async fn forget(context: &Context, uid: &str) -> Result<(), JournalError> {
    for open in context.journal.intents(uid) {
        if !open.created {
            context.journal.abandon(&open.intent.key);
            continue;
        }
        crate::runs::terminate(context, &open.intent.workflow).await;
        let now = Timestamp::now();
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
        };
        context.journal.settle(run).await?;
    }
    for kind in [RunKind::HealthCheck, RunKind::Remedy] {
        release(context, context.accounts.leave(uid, kind)).await;
    }
    context.journal.forget(uid);
    context.memory.lock().remove(uid);
    context.states.remove(uid);
    Ok(())
}
