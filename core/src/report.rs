//! What the agent tells of a check: the [`CheckState`] made of its resource, its runs and what it published.

use jiff::Timestamp;

use crate::check::{Check, Invalid};
use crate::command::stopping;
use crate::decide::{self, Observed};
use crate::dependency;
use crate::healthcheck::{HealthCheck, HealthCheckStatus, instant};
use crate::names::DEFINITION_LABEL;
use crate::ownership;
use crate::run::{RunKind, clean_message};
use crate::samples::Samples;
use crate::state::{CheckState, DefinitionRef, Phase, Running, Totals};
use crate::status;

/// Annotation beside [`DEFINITION_LABEL`]: the definition's generation.
pub const DEFINITION_GENERATION_ANNOTATION: &str = "activemonitor.keikoproj.io/definition-generation";

/// How what is said of a check begins that is due and waits because as many runs as allowed are in flight.
pub const WAITING: &str = "waiting for capacity";

/// Counts of a check's remedies. The status resets its own with each success of the check; these never go back while the
/// agent runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemedyCounts {
    /// Remedies.
    pub succeeded: u64,
    /// Remedies.
    pub failed: u64,
}

impl RemedyCounts {
    /// What the status of a HealthCheck starts with.
    pub fn of(status: &HealthCheckStatus) -> RemedyCounts {
        RemedyCounts { succeeded: count(status.remedy_success_count), failed: count(status.remedy_failed_count) }
    }
}

/// The state of a check.
pub fn state(
    now: Timestamp,
    resource: &HealthCheck,
    parsed: &Result<Check, Invalid>,
    observed: &Observed,
    samples: &Samples,
    remedies: RemedyCounts,
) -> CheckState {
    let check = parsed.as_ref().ok();
    let status = &observed.status;
    let running = running(observed);
    let phase = phase(parsed, status);
    let mut state = CheckState {
        uid: resource.metadata.uid.clone().unwrap_or_default(),
        namespace: resource.metadata.namespace.clone().unwrap_or_default(),
        name: resource.metadata.name.clone().unwrap_or_default(),
        description: clean_message(resource.spec.description.as_deref().unwrap_or("")),
        phase,
        message: with_wait(observed.waits_since, message(phase, parsed, status)),
        schedule: String::new(),
        running,
        next_slot: None,
        timeout_seconds: 0,
        check: Totals {
            succeeded: count(status.success_count),
            failed: count(status.failed_count),
            ..Totals::default()
        },
        remedy: None,
        remedy_status: status.remedy_status.clone().unwrap_or_default(),
        samples: samples.samples.clone(),
        refused_samples: samples.refused,
        pauses: observed.pauses.clone(),
        remedy_budget: check.and_then(|check| status::budget(status, check.remedy.as_ref()?)),
        depends_on: dependency::declared(resource),
        definition: definition(resource),
    };
    (state.check.started_at, state.check.finished_at) = times(observed, RunKind::HealthCheck);
    if check.is_some_and(|check| check.remedy.is_some()) {
        let (started_at, finished_at) = times(observed, RunKind::Remedy);
        let RemedyCounts { succeeded, failed } = remedies;
        state.remedy = Some(Totals { succeeded, failed, started_at, finished_at });
    }
    if let Some(check) = check {
        schedule(now, check, observed, &mut state);
        if let Some(withheld) = ownership::withheld(check, observed) {
            state.message = clean_message(&format!("{withheld}; {}", state.message));
        }
    }
    // What is wrong with a check that cannot be run is not better for its being paused.
    if let Some(pause) = stopping(&observed.pauses, RunKind::HealthCheck).filter(|_| check.is_some()) {
        let last = if state.message.is_empty() { String::new() } else { format!("; last: {}", state.message) };
        let message = clean_message(&format!("{pause}{last}"));
        (state.phase, state.message, state.next_slot) = (Phase::Stopped, message, None);
    }
    if let Some(hold) = &observed.hold {
        (state.phase, state.message, state.next_slot) = (Phase::Stopped, hold.to_string(), None);
    }
    state
}

fn schedule(now: Timestamp, check: &Check, observed: &Observed, state: &mut CheckState) {
    let Some(slots) = check.slots() else { return };
    state.schedule = slots.schedule().to_string();
    let due = decide::due(now, check, observed).filter(|due| !due.missed).map(|due| due.time);
    state.next_slot = match &state.running {
        // A slot that is far ahead of the clock says nothing of the time.
        Some(running) if running.kind == RunKind::HealthCheck && decide::ahead(now, observed).is_some() => {
            slots.next(now)
        }
        Some(running) if running.kind == RunKind::HealthCheck => slots.next(running.slot.max(now)),
        Some(_) | None => due.or_else(|| slots.next(now)),
    };
    let slot = state.next_slot.unwrap_or(now);
    let deadline = observed.workflows.iter().filter_map(|seen| seen.deadline_seconds).max().unwrap_or(0);
    state.timeout_seconds = check.timeout_seconds(RunKind::HealthCheck, slot).max(deadline).into();
}

fn running(observed: &Observed) -> Option<Running> {
    let intent = observed.intents.first()?;
    let (kind, slot) = (intent.key.kind, intent.key.slot);
    Some(Running { kind, slot, workflow: intent.workflow.clone() })
}

fn phase(parsed: &Result<Check, Invalid>, status: &HealthCheckStatus) -> Phase {
    match parsed {
        Err(_) => Phase::Invalid,
        Ok(check) if check.stopped_because().is_some() => Phase::Stopped,
        Ok(_) => match status.status.as_deref() {
            Some(status::SUCCEEDED) => Phase::Succeeded,
            Some(status::FAILED) => Phase::Failed,
            _ => Phase::Pending,
        },
    }
}

fn message(phase: Phase, parsed: &Result<Check, Invalid>, status: &HealthCheckStatus) -> String {
    match (phase, parsed) {
        (_, Err(invalid)) => clean_message(&invalid.to_string()),
        (Phase::Failed | Phase::Stopped, Ok(_)) => clean_message(status.error_message.as_deref().unwrap_or("")),
        (Phase::Succeeded | Phase::Pending | Phase::Invalid, Ok(_)) => String::new(),
    }
}

/// What keeps a check from running comes before what it said last.
fn with_wait(since: Option<Timestamp>, message: String) -> String {
    match since {
        None => message,
        Some(since) if message.is_empty() => format!("{WAITING} since {since:.0}"),
        Some(since) => clean_message(&format!("{WAITING} since {since:.0}; last: {message}")),
    }
}

/// Start and end of the last run: from the journal, or where it knows none from the status.
fn times(observed: &Observed, kind: RunKind) -> (Option<Timestamp>, Option<Timestamp>) {
    if let Some(run) = observed.settled.iter().find(|run| run.key.kind == kind) {
        return (Some(run.started_at), Some(run.finished_at));
    }
    let status = &observed.status;
    match kind {
        // A paused check's finishedAt is when it was paused.
        RunKind::HealthCheck if status.status.as_deref() == Some(status::STOPPED) => (None, None),
        RunKind::HealthCheck => (instant(&status.started_at), instant(&status.finished_at)),
        RunKind::Remedy => (instant(&status.remedy_triggered_at), instant(&status.remedy_finished_at)),
    }
}

fn definition(resource: &HealthCheck) -> Option<DefinitionRef> {
    let name = resource.metadata.labels.as_ref()?.get(DEFINITION_LABEL)?.clone();
    let annotations = resource.metadata.annotations.as_ref();
    let generation = annotations.and_then(|all| all.get(DEFINITION_GENERATION_ANNOTATION)?.parse().ok());
    Some(DefinitionRef { name, generation: generation.unwrap_or(0) })
}

fn count(counter: Option<i64>) -> u64 {
    counter.and_then(|n| u64::try_from(n).ok()).unwrap_or(0)
}
