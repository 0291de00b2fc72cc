//! What must hold of every step that the agent takes and of every status that it writes: asked by the simulation of the
//! agent's loop. Pure, and cheap beside the step.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::capacity::Limits;
use crate::check::{Check, Thresholds};
use crate::command::stopping;
use crate::decide::{Observed, Step, ahead, floor};
use crate::healthcheck::{HealthCheckStatus, instant};
use crate::run::{RunKey, RunKind};
use crate::status::{self, Gate};
use crate::workflow::WorkflowPhase;

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{invariant}: {detail}")]
pub struct Broken {
    /// Which one.
    pub invariant: &'static str,
    /// What was found.
    pub detail: String,
}

fn hold(holds: bool, invariant: &'static str, detail: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken { invariant, detail: detail() }) }
}

/// Asks whether `step` may be taken.
///
/// # Errors
/// The first invariant that it would break.
pub fn of_step(now: Timestamp, check: &Check, observed: &Observed, step: &Step) -> Result<(), Broken> {
    match step {
        Step::Start(key) => {
            let paused = check.stopped_because().is_some() || stopping(&observed.pauses, key.kind).is_some();
            hold(!paused, "nothing runs while paused", || format!("{key:?}"))?;
            of_start(now, check, observed, key, false)
        }
        // Somebody asked for this one: a check that its owner paused runs it too, once.
        Step::RunNow { key, token } => {
            let paused = stopping(&observed.pauses, key.kind).is_some();
            hold(!paused, "nothing runs while paused", || format!("{key:?}"))?;
            let asked = observed.run_now.as_ref() == Some(token) && observed.ran_now.as_ref() != Some(token);
            let again =
                observed.intents.iter().any(|intent| intent.key == *key && intent.run_now.as_ref() == Some(token));
            hold(asked || again, "a run out of schedule is asked for, and made once", || format!("{key:?}, {token}"))?;
            // It takes the first slot that is free.
            let is_next = floor(observed).is_some_and(|floor| key.slot <= floor + Duration::from_secs(1));
            of_start(now, check, observed, key, is_next)
        }
        Step::WriteStatus(next) => {
            of_status(&observed.status, next)?;
            of_judgement(check.thresholds, &observed.status, next)
        }
        Step::Record { run, terminate } => {
            hold(run.key.check_uid == check.uid, "a check records its own runs", || format!("{:?}", run.key))?;
            hold(run.finished_at >= run.started_at, "a run ends after its start", || format!("{run:?}"))?;
            let settled = observed.settled.iter().any(|known| known.key == run.key);
            hold(!settled, "each run is recorded once", || format!("{:?}", run.key))?;
            let of_run = |name: &String| observed.workflows.iter().any(|w| w.workflow == *name && w.key == run.key);
            hold(terminate.as_ref().is_none_or(of_run), "only a run's own workflow is stopped", || {
                format!("{terminate:?}")
            })
        }
        Step::Abandon(key) => {
            let open = observed.intents.iter().any(|intent| intent.key == *key);
            hold(open, "only an open intent is withdrawn", || format!("{key:?}"))
        }
        Step::Confirm(_) | Step::Wait(_) => Ok(()),
    }
}

fn of_start(now: Timestamp, check: &Check, observed: &Observed, key: &RunKey, is_next: bool) -> Result<(), Broken> {
    let found = || format!("{key:?} at {now}, floor {:?}", floor(observed));
    hold(key.check_uid == check.uid, "a check starts its own runs", found)?;
    let live = |kind| {
        let there = observed.workflows.iter().filter(|seen| !observed.gone.contains(&seen.workflow));
        let mut alive = there.filter(|seen| seen.status.phase == WorkflowPhase::Active);
        alive.any(|seen| seen.key == RunKey { kind, ..key.clone() })
    };
    hold(!live(key.kind), "one live workflow a check and slot", found)?;
    let other = observed.intents.iter().any(|intent| intent.key != *key);
    hold(!other, "one run of a check at a time", found)?;
    match key.kind {
        RunKind::HealthCheck => {
            hold(floor(observed).is_none_or(|floor| key.slot > floor), "no slot twice", found)?;
            hold(key.slot <= now || is_next || ahead(now, observed).is_some(), "no run before its slot", found)
        }
        RunKind::Remedy => {
            let Some(remedy) = &check.remedy else { return hold(false, "a remedy is the check's", found) };
            hold(status::gate(&observed.status, remedy) != Gate::Closed, "remedies within their limit", found)?;
            let failed = observed.status.status.as_deref() == Some(status::FAILED);
            hold(failed, "a remedy answers a failure", found)
        }
    }
}

/// Asks whether so many runs in a row have ended alike as the check wants before that is said of it.
fn of_judgement(thresholds: Thresholds, before: &HealthCheckStatus, after: &HealthCheckStatus) -> Result<(), Broken> {
    let rows = [
        (status::FAILED, after.consecutive_failures, thresholds.failure),
        (status::SUCCEEDED, after.consecutive_successes, thresholds.success),
    ];
    for (said, row, threshold) in rows {
        let is_news = after.status.as_deref() == Some(said) && before.status.as_deref() != Some(said);
        let enough = row.unwrap_or(0) >= i64::from(threshold);
        hold(!is_news || enough, "a status is said after as many runs as the check wants", || {
            format!("{said} after {row:?} of {threshold}")
        })?;
    }
    Ok(())
}

/// Asks whether a run may begin beside those in flight, by the namespaces of their checks, this one included.
///
/// # Errors
/// The limit that is exceeded.
pub fn of_capacity(limits: Limits, in_flight: &BTreeMap<String, usize>, namespace: &str) -> Result<(), Broken> {
    let all: usize = in_flight.values().sum();
    let own = in_flight.get(namespace).copied().unwrap_or(0);
    let found = || format!("{all} in flight, {own} of {namespace}, limits {limits:?}");
    hold(limits.cluster.is_none_or(|limit| all <= limit), "no more runs in flight than the cluster may have", found)?;
    hold(limits.namespace.is_none_or(|limit| own <= limit), "no more runs in flight than a namespace may have", found)
}

/// Asks whether a status may follow another: counters go up, by one run at a time, and no slot comes back.
///
/// # Errors
/// The first invariant that it would break.
pub fn of_status(before: &HealthCheckStatus, after: &HealthCheckStatus) -> Result<(), Broken> {
    let found = || format!("{before:?} -> {after:?}");
    let grown = |before: Option<i64>, after: Option<i64>| after.unwrap_or(0) - before.unwrap_or(0);
    let (succeeded, failed) =
        (grown(before.success_count, after.success_count), grown(before.failed_count, after.failed_count));
    hold(succeeded >= 0 && failed >= 0, "counters never go back", found)?;
    hold(succeeded + failed <= 1, "a run is counted once", found)?;
    if succeeded + failed == 1 {
        let all = after.success_count.unwrap_or(0) + after.failed_count.unwrap_or(0);
        hold(after.total_health_check_runs == Some(all), "all runs are successes and failures", found)?;
        hold(instant(&after.started_at) > instant(&before.started_at), "a counted run uses up its slot", found)?;
    }
    hold(instant(&after.started_at) >= instant(&before.started_at), "no slot comes back", found)?;
    let triggered = instant(&after.remedy_triggered_at) >= instant(&before.remedy_triggered_at);
    hold(triggered, "no remedy comes back", found)?;
    let remedies = grown(before.remedy_total_runs, after.remedy_total_runs);
    hold(remedies <= 1, "a remedy is counted once", found)
}
