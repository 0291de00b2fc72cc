//! How runs are counted into a HealthCheck's durable status, and what the status says of the past.
//!
//! Everything durable fits active-monitor's own fields, so that nothing is lost where its CRD is the one installed:
//! `startedAt` says which slots are used up, `remedyTriggeredAt` which failure has been answered.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::check::{Invalid, Remedy};
use crate::healthcheck::{HealthCheckStatus, instant, time, whole_seconds};
use crate::run::{Outcome, Reason, Run, RunKind, clean_message};

/// `status.status` of a paused check.
pub const STOPPED: &str = "Stopped";
/// `status.status` of a check that cannot be run.
pub const INVALID: &str = "Invalid";
/// `status.status` of a check whose last run failed.
pub const FAILED: &str = "Failed";
/// `status.status` of a check whose last run succeeded.
pub const SUCCEEDED: &str = "Succeeded";

const STOPPED_MESSAGE: &str = "paused: neither spec.repeatAfterSec above 0 nor spec.schedule.cron is given";

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

/// The failure that a remedy is still owed for: the instant `startedAt` of the failed run, which is the remedy's slot.
/// None once it has been answered, where no workflow ran that could have said what is broken, and when the failure is
/// older than `fresh`: then the check speaks first.
pub fn unanswered_failure(status: &HealthCheckStatus, now: Timestamp, fresh: Duration) -> Option<Timestamp> {
    let failed = status.status.as_deref() == Some(FAILED) && status.last_failed_workflow.is_some();
    let started = instant(&status.started_at).filter(|_| failed)?;
    let answered = instant(&status.remedy_triggered_at).is_some_and(|triggered| triggered >= started);
    let age = now.duration_since(instant(&status.finished_at)?);
    let is_fresh = Duration::try_from(age).map_or(true, |age| age <= fresh);
    (!answered && is_fresh).then_some(whole_seconds(started))
}

/// The status with this run counted.
pub fn fold(status: &HealthCheckStatus, run: &Run, remedy: Option<&Remedy>) -> HealthCheckStatus {
    match run.key.kind {
        RunKind::HealthCheck => fold_check(status, run),
        RunKind::Remedy => fold_remedy(status, run, remedy),
    }
}

fn fold_check(status: &HealthCheckStatus, run: &Run) -> HealthCheckStatus {
    let mut next = status.clone();
    next.started_at = Some(time(mark(run.key.slot, run.started_at)));
    next.finished_at = Some(time(run.finished_at));
    next.status = Some(run.outcome.as_str().to_owned());
    match run.outcome {
        Outcome::Succeeded => {
            increment(&mut next.success_count);
            next.error_message = None;
            next.last_successful_workflow = workflow_name(run);
            // A success of the check resets the remedy.
            for counter in [&mut next.remedy_total_runs, &mut next.remedy_success_count, &mut next.remedy_failed_count]
            {
                if counter.is_some() {
                    *counter = Some(0);
                }
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
pub fn stopped(status: &HealthCheckStatus, now: Timestamp) -> HealthCheckStatus {
    if status.status.as_deref() == Some(STOPPED) {
        return status.clone();
    }
    HealthCheckStatus {
        status: Some(STOPPED.into()),
        error_message: Some(STOPPED_MESSAGE.into()),
        finished_at: Some(time(now)),
        ..status.clone()
    }
}

/// The status of a check that is not paused or invalid any more, until its first run ends. What passed while it was
/// paused is used up.
pub fn resumed(status: &HealthCheckStatus, now: Timestamp) -> HealthCheckStatus {
    let started_at = match status.status.as_deref() {
        Some(STOPPED) => Some(time(now)),
        Some(INVALID) => status.started_at.clone(),
        _ => return status.clone(),
    };
    HealthCheckStatus { status: None, error_message: None, started_at, ..status.clone() }
}

/// The status of a check that cannot be run.
pub fn invalid(status: &HealthCheckStatus, invalid: &Invalid) -> HealthCheckStatus {
    HealthCheckStatus {
        status: Some(INVALID.into()),
        error_message: Some(clean_message(&invalid.to_string())),
        ..status.clone()
    }
}

/// The status with the condition `Ready`, for a CRD that knows conditions.
pub fn with_ready(status: HealthCheckStatus, generation: i64, now: Timestamp) -> HealthCheckStatus {
    let (ready, reason) = match status.status.as_deref() {
        Some(INVALID) => ("False", "Invalid"),
        Some(STOPPED) => ("False", "Stopped"),
        _ => ("True", "Scheduled"),
    };
    let message = if ready == "True" { String::new() } else { status.error_message.clone().unwrap_or_default() };
    let mut conditions = status.conditions.clone().unwrap_or_default();
    let known = conditions.iter().position(|condition| condition.type_ == "Ready");
    let since = known.map(|i| conditions.swap_remove(i)).filter(|known| known.status == ready);
    conditions.push(Condition {
        type_: "Ready".into(),
        status: ready.into(),
        reason: reason.into(),
        message,
        observed_generation: Some(generation),
        last_transition_time: since.map_or_else(|| time(now), |known| known.last_transition_time),
    });
    HealthCheckStatus { observed_generation: Some(generation), conditions: Some(conditions), ..status }
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
