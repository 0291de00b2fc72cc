//! How runs are counted into a HealthCheck's durable status, and what the status says of the past.
//!
//! Everything durable fits active-monitor's own fields, so that nothing is lost where its CRD is the one installed:
//! `startedAt` says which slots are used up, `remedyTriggeredAt` which failure has been answered.

pub mod conditions;

use std::time::Duration;

use jiff::Timestamp;

use crate::check::{Check, Invalid, Remedy, Thresholds};
use crate::healthcheck::{HealthCheckStatus, instant, time, whole_seconds};
use crate::run::{Outcome, Reason, Run, RunKind, clean_message};
use crate::state::RemedyBudget;

/// `status.status` of a paused check.
pub const STOPPED: &str = "Stopped";
/// `status.status` of a check that cannot be run.
pub const INVALID: &str = "Invalid";
/// `status.status` of a check whose last run failed.
pub const FAILED: &str = "Failed";
/// `status.status` of a check whose last run succeeded.
pub const SUCCEEDED: &str = "Succeeded";

/// The slots at or before this instant are used up: they ran, or the check was paused.
pub fn consumed(status: &HealthCheckStatus) -> Option<Timestamp> {
    let paused = if status.status.as_deref() == Some(STOPPED) { instant(&status.finished_at) } else { None };
    instant(&status.started_at).max(paused)
}

/// The instant that a run of this kind leaves in the status: its start, but never before its slot.
pub fn mark(slot: Timestamp, started_at: Timestamp) -> Timestamp {
    whole_seconds(slot.max(started_at))
}

/// Whether the status has counted this run.
pub fn counted(status: &HealthCheckStatus, run: &Run) -> bool {
    match run.key.kind {
        RunKind::HealthCheck => consumed(status).is_some_and(|consumed| run.key.slot <= consumed),
        RunKind::Remedy => instant(&status.remedy_triggered_at)
            .is_some_and(|triggered| mark(run.key.slot, run.started_at) <= triggered),
    }
}

/// Whether another remedy may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// It may.
    Open,
    /// It may, and the counters start anew: the reset interval has passed.
    OpenAfterReset,
    /// The limit is reached.
    Closed,
}

/// Decides by the status alone, at the instant when the check failed, so that the answer is the same whenever it is
/// asked: before the remedy, after a restart, and when the remedy is counted.
pub fn gate(status: &HealthCheckStatus, remedy: &Remedy) -> Gate {
    let Some(limit) = remedy.limit else { return Gate::Open };
    if status.remedy_total_runs.unwrap_or(0) < i64::from(limit) {
        return Gate::Open;
    }
    let (Some(reset), Some(failed), Some(last)) =
        (remedy.reset_seconds, instant(&status.finished_at), instant(&status.remedy_finished_at))
    else {
        return Gate::Closed;
    };
    let passed = failed.duration_since(last).as_secs() >= i64::from(reset);
    if passed && limit > 0 { Gate::OpenAfterReset } else { Gate::Closed }
}

/// How often a remedy may still run, by the same counters as [`gate`]; `None` where it has no limit.
pub fn budget(status: &HealthCheckStatus, remedy: &Remedy) -> Option<RemedyBudget> {
    let limit = remedy.limit?;
    let used = u32::try_from(status.remedy_total_runs.unwrap_or(0)).unwrap_or(u32::MAX);
    let left = limit.saturating_sub(used);
    let last = instant(&status.remedy_finished_at).filter(|_| left == 0 && limit > 0);
    let resets_at = last
        .zip(remedy.reset_seconds)
        .and_then(|(last, reset)| last.checked_add(Duration::from_secs(reset.into())).ok());
    Some(RemedyBudget { limit, left, resets_at })
}

/// The failure that a remedy is still owed for: the instant `startedAt` of the failed run, which is the remedy's slot.
/// None before so many runs in a row have failed as `threshold` says, once it has been answered, where no workflow ran
/// that could have said what is broken, and when the failure is older than `fresh`: then the check speaks first.
pub fn unanswered_failure(
    status: &HealthCheckStatus,
    threshold: u32,
    now: Timestamp,
    fresh: Duration,
) -> Option<Timestamp> {
    // Without a count, which active-monitor's CRD does not keep, the last run decides.
    let enough = status.consecutive_failures.is_none_or(|failures| failures >= i64::from(threshold));
    let failed = status.status.as_deref() == Some(FAILED) && status.last_failed_workflow.is_some() && enough;
    let started = instant(&status.started_at).filter(|_| failed)?;
    let answered = instant(&status.remedy_triggered_at).is_some_and(|triggered| triggered >= started);
    let age = now.duration_since(instant(&status.finished_at)?);
    let is_fresh = Duration::try_from(age).map_or(true, |age| age <= fresh);
    (!answered && is_fresh).then_some(whole_seconds(started))
}

/// The status with this run counted.
pub fn fold(status: &HealthCheckStatus, run: &Run, check: &Check) -> HealthCheckStatus {
    match run.key.kind {
        RunKind::HealthCheck => fold_check(status, run, check.thresholds),
        RunKind::Remedy => fold_remedy(status, run, check.remedy.as_ref()),
    }
}

fn fold_check(status: &HealthCheckStatus, run: &Run, thresholds: Thresholds) -> HealthCheckStatus {
    let mut next = status.clone();
    next.started_at = Some(time(mark(run.key.slot, run.started_at)));
    next.finished_at = Some(time(run.finished_at));
    next.status = judgement(&mut next, run.outcome, thresholds);
    match run.outcome {
        Outcome::Succeeded => {
            increment(&mut next.success_count);
            next.error_message = None;
            next.last_successful_workflow = workflow_name(run);
            if next.status.as_deref() == Some(SUCCEEDED) {
                reset_remedies(&mut next);
            }
        }
        Outcome::Failed => {
            increment(&mut next.failed_count);
            next.error_message = Some(run.message.clone());
            next.last_failed_at = Some(time(run.finished_at));
            // Only a workflow that ended can have said what is broken: without one, no remedy is owed.
            next.last_failed_workflow = workflow_name(run).filter(|_| run.reason != Some(Reason::WorkflowVanished));
        }
    }
    let all = next.success_count.unwrap_or(0).saturating_add(next.failed_count.unwrap_or(0));
    next.total_health_check_runs = Some(all);
    next
}

/// Counts the run into its row; gives what is then said of the check. One outcome is enough unless the check asks for
/// more, and a check of which nothing was said yet stays so until then.
fn judgement(next: &mut HealthCheckStatus, outcome: Outcome, thresholds: Thresholds) -> Option<String> {
    let (row, other, threshold) = match outcome {
        Outcome::Succeeded => (&mut next.consecutive_successes, &mut next.consecutive_failures, thresholds.success),
        Outcome::Failed => (&mut next.consecutive_failures, &mut next.consecutive_successes, thresholds.failure),
    };
    increment(row);
    *other = Some(0);
    let was = next.status.clone().filter(|was| [SUCCEEDED, FAILED].contains(&was.as_str()));
    if row.unwrap_or(0) >= i64::from(threshold) { Some(outcome.as_str().to_owned()) } else { was }
}

/// A success of the check resets the remedy.
fn reset_remedies(next: &mut HealthCheckStatus) {
    for counter in [&mut next.remedy_total_runs, &mut next.remedy_success_count, &mut next.remedy_failed_count] {
        if counter.is_some() {
            *counter = Some(0);
        }
    }
}

fn fold_remedy(status: &HealthCheckStatus, run: &Run, remedy: Option<&Remedy>) -> HealthCheckStatus {
    let mut next = status.clone();
    if remedy.is_some_and(|remedy| gate(status, remedy) == Gate::OpenAfterReset) {
        next.remedy_total_runs = Some(0);
        next.remedy_success_count = Some(0);
        next.remedy_failed_count = Some(0);
    }
    next.remedy_triggered_at = Some(time(mark(run.key.slot, run.started_at)));
    next.remedy_finished_at = Some(time(run.finished_at));
    next.remedy_status = Some(run.outcome.as_str().to_owned());
    increment(&mut next.remedy_total_runs);
    match run.outcome {
        Outcome::Succeeded => {
            increment(&mut next.remedy_success_count);
            next.remedy_error_message = None;
        }
        Outcome::Failed => {
            increment(&mut next.remedy_failed_count);
            next.remedy_error_message = Some(run.message.clone());
            next.remedy_last_failed_at = Some(time(run.finished_at));
        }
    }
    next
}

fn workflow_name(run: &Run) -> Option<String> {
    let (_, name) = run.workflow.as_deref()?.split_once('/')?;
    Some(name.to_owned())
}

fn increment(counter: &mut Option<i64>) {
    *counter = Some(counter.unwrap_or(0).saturating_add(1));
}

/// The status of a paused check. Slots that pass while it is paused are used up, so `finishedAt` moves.
pub fn stopped(status: &HealthCheckStatus, why: &str, now: Timestamp) -> HealthCheckStatus {
    let was = status.status.as_deref() == Some(STOPPED);
    let finished_at = if was { status.finished_at.clone() } else { Some(time(now)) };
    HealthCheckStatus { status: Some(STOPPED.into()), error_message: Some(why.into()), finished_at, ..status.clone() }
}

/// The status of a check that is not paused or invalid any more, until its first run ends. What passed while it was
/// paused is used up, and no row goes on.
pub fn resumed(status: &HealthCheckStatus, now: Timestamp) -> HealthCheckStatus {
    let started_at = match status.status.as_deref() {
        // Never back: what is used up stays so.
        Some(STOPPED) => instant(&status.started_at).max(Some(now)).map(time),
        Some(INVALID) => status.started_at.clone(),
        _ => return status.clone(),
    };
    HealthCheckStatus {
        status: None,
        error_message: None,
        started_at,
        consecutive_failures: status.consecutive_failures.map(|_| 0),
        consecutive_successes: status.consecutive_successes.map(|_| 0),
        ..status.clone()
    }
}

/// The status of a check that cannot be run.
pub fn invalid(status: &HealthCheckStatus, invalid: &Invalid) -> HealthCheckStatus {
    HealthCheckStatus {
        status: Some(INVALID.into()),
        error_message: Some(clean_message(&invalid.to_string())),
        ..status.clone()
    }
}

/// A change worth a Kubernetes event: its reason and note, and whether it is a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// CamelCase.
    pub reason: &'static str,
    /// For people.
    pub text: String,
    /// Warning or Normal.
    pub warning: bool,
}

/// What changed between two statuses that people would want to hear of. Every success is not news; the first is.
pub fn notes(before: &HealthCheckStatus, after: &HealthCheckStatus) -> Vec<Note> {
    let mut notes = Vec::new();
    let message = after.error_message.clone().unwrap_or_default();
    let changed = before.status != after.status;
    match after.status.as_deref() {
        Some(FAILED) if before.failed_count != after.failed_count => {
            notes.push(Note { reason: "Failed", text: message, warning: true });
        }
        Some(INVALID) if changed || before.error_message != after.error_message => {
            notes.push(Note { reason: "Invalid", text: message, warning: true });
        }
        Some(STOPPED) if changed => notes.push(Note { reason: "Stopped", text: message, warning: false }),
        Some(SUCCEEDED) if changed => {
            notes.push(Note { reason: "Succeeded", text: "the check succeeds".into(), warning: false });
        }
        _ => {}
    }
    if let Some(missed) = conditions::missed(after).filter(|missed| conditions::missed(before) != Some(*missed)) {
        notes.push(Note { reason: "SlotMissed", text: missed.to_owned(), warning: true });
    }
    if before.remedy_triggered_at != after.remedy_triggered_at {
        let failed = after.remedy_status.as_deref() == Some(FAILED);
        let (reason, text) = if failed {
            ("RemedyFailed", after.remedy_error_message.clone().unwrap_or_default())
        } else {
            ("RemedySucceeded", "the remedy succeeded".into())
        };
        notes.push(Note { reason, text, warning: failed });
    }
    notes
}
