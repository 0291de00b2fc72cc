//! The agent's loop as a function: from now, a check and what is observed of it, to the one step to take next.
//!
//! The shell takes the step, observes again and asks again, until there is nothing to do but wait. Each step is
//! idempotent, so a crash between any two of them is mended by asking again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use crate::check::{Check, Remedy, Timing};
use crate::healthcheck::HealthCheckStatus;
use crate::manifest::workflow_name;
use crate::run::{Outcome, Reason, Run, RunKey, RunKind, clean_message};
use crate::status;
use crate::workflow::{Seen, WorkflowPhase};

/// What a run gets beyond its timeout before the agent calls it off: Argo enforces the same deadline, and its own words
/// are better. Seconds.
const DEADLINE_GRACE: Duration = Duration::from_secs(10);
/// How long a failure is owed a remedy if the agent could not start it at once; at least.
const LEAST_FRESH: Duration = Duration::from_secs(60);
/// How far the clocks of the agent and of another writer of slots may be apart.
const MAX_SKEW: Duration = Duration::from_secs(60);

/// A run that the journal says was to be started, and whose end it does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// The run.
    pub key: RunKey,
    /// `namespace/name` of its Workflow.
    pub workflow: String,
    /// Whether the API server is known to have made it.
    pub created: bool,
}

/// What is known of a check's runs.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The HealthCheck's status.
    pub status: HealthCheckStatus,
    /// The check's workflows in the cluster.
    pub workflows: Vec<Seen>,
    /// Open intents of the journal.
    pub intents: Vec<Intent>,
    /// The newest settled run of the check and of its remedy in the journal.
    pub settled: Vec<Run>,
    /// Workflows, as `namespace/name`, that the API server itself said do not exist.
    pub gone: BTreeSet<String>,
    /// Workflows, as `namespace/name`, that the API server itself was asked about at this time, and had.
    pub asked: BTreeMap<String, Timestamp>,
    /// Whether the installed CRD keeps `status.conditions`.
    pub has_conditions: bool,
}

/// The next step.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Patch the status.
    WriteStatus(Box<HealthCheckStatus>),
    /// Journal the end of a run.
    Record {
        /// The run.
        run: Box<Run>,
        /// A workflow, `namespace/name`, to be terminated: nobody waits for it any more.
        terminate: Option<String>,
    },
    /// Journal the intent and create the workflow.
    Start(RunKey),
    /// Withdraw the intent: nothing was created, and a newer slot is due.
    Abandon(RunKey),
    /// Ask the API server whether this workflow, `namespace/name`, exists.
    Confirm(String),
    /// Nothing to do before this instant, or before something changes.
    Wait(Option<Timestamp>),
}

/// Decides the next step.
pub fn decide(now: Timestamp, check: &Check, observed: &Observed) -> Step {
    uncounted(now, check, observed)
        .or_else(|| in_flight(now, check, observed))
        .or_else(|| unconfirmed(now, check, observed))
        .unwrap_or_else(|| next_run(now, check, observed))
}

/// The slots at or before this are used up, by the status or by the journal.
pub fn floor(observed: &Observed) -> Option<Timestamp> {
    let settled = observed.settled.iter().filter(|run| run.key.kind == RunKind::HealthCheck);
    status::consumed(&observed.status).max(settled.map(|run| run.key.slot).max())
}

/// A settled run that the status has not counted.
fn uncounted(now: Timestamp, check: &Check, observed: &Observed) -> Option<Step> {
    let mut runs: Vec<&Run> = observed.settled.iter().filter(|run| !status::counted(&observed.status, run)).collect();
    runs.sort_by_key(|run| status::mark(run.key.slot, run.started_at));
    let run = runs.first()?;
    let next = status::fold(&observed.status, run, check.remedy.as_ref());
    Some(write(now, check, observed, next))
}

fn write(now: Timestamp, check: &Check, observed: &Observed, next: HealthCheckStatus) -> Step {
    let next = if observed.has_conditions { status::with_ready(next, check.generation, now) } else { next };
    Step::WriteStatus(Box::new(next))
}

/// A workflow that belongs to a run not yet settled: its end, its deadline, or the wait for either. The remedy first:
/// while it runs the check waits.
fn in_flight(now: Timestamp, check: &Check, observed: &Observed) -> Option<Step> {
    let floor = floor(observed);
    let settled = |seen: &Seen| observed.settled.iter().any(|run| run.key == seen.key);
    let open = |seen: &&Seen| match seen.key.kind {
        RunKind::HealthCheck => floor.is_none_or(|floor| seen.key.slot > floor),
        RunKind::Remedy => {
            let marked = observed.status.remedy_triggered_at.as_ref().map(|t| t.0);
            !settled(seen) && marked.is_none_or(|marked| status::mark(seen.key.slot, seen.created) > marked)
        }
    };
    let open = observed.workflows.iter().filter(|seen| is_ours(now, check, observed, seen)).filter(open);
    let seen = open.min_by_key(|seen| (seen.key.kind != RunKind::Remedy, seen.key.slot))?;
    let asked_at = observed.asked.get(&seen.workflow).copied();
    Some(judge(now, check, seen, asked_at))
}

/// Labels can be written by anybody who may create workflows: a workflow speaks for a run only under the name and in the
/// namespace that the agent gives it, and for no slot that is yet to come.
fn is_ours(now: Timestamp, check: &Check, observed: &Observed, seen: &Seen) -> bool {
    if observed.intents.iter().any(|intent| intent.key == seen.key && intent.workflow == seen.workflow) {
        return true;
    }
    let Some(job) = check.job(seen.key.kind) else { return false };
    let named = format!("{}/{}", job.namespace, workflow_name(&job.prefix, &seen.key)) == seen.workflow;
    named && seen.key.check_uid == check.uid && seen.key.slot <= now + MAX_SKEW
}

/// Whether a workflow has ended, in its own words or by its deadline.
fn judge(now: Timestamp, check: &Check, seen: &Seen, asked_at: Option<Timestamp>) -> Step {
    let timeout = check.timeout_seconds(seen.key.kind, seen.key.slot).max(seen.deadline_seconds.unwrap_or(0));
    // The later of two clocks: a run must not be late because the agent's clock is ahead of the API server's.
    let started = seen.created.max(seen.key.slot);
    let deadline = started + Duration::from_secs(timeout.into()) + DEADLINE_GRACE;
    let (outcome, reason) = match seen.status.phase {
        WorkflowPhase::Succeeded => (Outcome::Succeeded, None),
        WorkflowPhase::Error => (Outcome::Failed, Some(Reason::WorkflowError)),
        WorkflowPhase::Failed if ran_out(seen) => (Outcome::Failed, Some(Reason::DeadlineExceeded)),
        WorkflowPhase::Failed => (Outcome::Failed, Some(Reason::WorkflowFailed)),
        WorkflowPhase::Active if now < deadline => return Step::Wait(Some(deadline)),
        // The watch may lag, or be cut: a run is not called off on its word alone.
        WorkflowPhase::Active if asked_at.is_none_or(|at| at < deadline) => {
            return Step::Confirm(seen.workflow.clone());
        }
        WorkflowPhase::Active => (Outcome::Failed, Some(Reason::DeadlineExceeded)),
    };
    let ended = seen.status.phase != WorkflowPhase::Active;
    let finished_at = seen.status.finished_at.as_ref().filter(|_| ended).map_or(now, |t| t.0);
    let run = Run {
        key: seen.key.clone(),
        namespace: check.namespace.clone(),
        name: check.name.clone(),
        workflow: Some(seen.workflow.clone()),
        outcome,
        reason,
        message: message(seen, reason, if ended { seen.deadline_seconds.unwrap_or(timeout) } else { timeout }),
        // A start in the agent's future, by an API server whose clock is ahead, would use up slots that are yet to come.
        started_at: seen.created.min(now),
        finished_at: finished_at.max(seen.created),
    };
    Step::Record { run: Box::new(run), terminate: (!ended).then(|| seen.workflow.clone()) }
}

/// Whether Argo ended the workflow because of its deadline.
fn ran_out(seen: &Seen) -> bool {
    let started = seen.status.started_at.as_ref().map_or(seen.created, |t| t.0);
    let (Some(limit), Some(finished)) = (seen.deadline_seconds, &seen.status.finished_at) else { return false };
    finished.0.duration_since(started).as_secs() >= i64::from(limit)
}

fn message(seen: &Seen, reason: Option<Reason>, timeout: u32) -> String {
    let own = seen.message();
    match reason {
        None => String::new(),
        Some(Reason::DeadlineExceeded) if own.is_empty() => format!("not done after {timeout} s"),
        Some(Reason::DeadlineExceeded) => clean_message(&format!("not done after {timeout} s: {own}")),
        Some(reason) if own.is_empty() => reason.as_str().to_owned(),
        Some(_) => own,
    }
}

/// An open intent whose workflow is not in the cluster.
fn unconfirmed(now: Timestamp, check: &Check, observed: &Observed) -> Option<Step> {
    let seen = |intent: &Intent| observed.workflows.iter().any(|seen| seen.key == intent.key);
    let intent = observed.intents.iter().find(|intent| !seen(intent))?;
    if !observed.gone.contains(&intent.workflow) {
        return Some(Step::Confirm(intent.workflow.clone()));
    }
    if intent.created {
        return Some(Step::Record { run: Box::new(vanished(now, check, intent)), terminate: None });
    }
    // The name protects: creating it a second time answers 409, and the first one is adopted.
    let again = Step::Start(intent.key.clone());
    Some(if next_run(now, check, observed) == again { again } else { Step::Abandon(intent.key.clone()) })
}

fn vanished(now: Timestamp, check: &Check, intent: &Intent) -> Run {
    let message = "the workflow was deleted before its end was seen".to_owned();
    ended_without_workflow(now, check, &intent.key, Some(intent.workflow.clone()), Reason::WorkflowVanished, message)
}

/// The record of a run that no workflow can speak for.
pub fn ended_without_workflow(
    now: Timestamp,
    check: &Check,
    key: &RunKey,
    workflow: Option<String>,
    reason: Reason,
    message: String,
) -> Run {
    Run {
        key: key.clone(),
        namespace: check.namespace.clone(),
        name: check.name.clone(),
        workflow,
        outcome: Outcome::Failed,
        reason: Some(reason),
        message: clean_message(&message),
        started_at: key.slot,
        finished_at: now.max(key.slot),
    }
}

/// Nothing runs: a remedy that is owed, the slot that is due, or the wait for the next one.
fn next_run(now: Timestamp, check: &Check, observed: &Observed) -> Step {
    let Timing::Slots(slots) = &check.timing else {
        let stopped = status::stopped(&observed.status, now);
        return settle_ready(now, check, observed, stopped).unwrap_or(Step::Wait(None));
    };
    let resumed = status::resumed(&observed.status, now);
    if resumed != observed.status {
        return write(now, check, observed, resumed);
    }
    if let Some(slot) = owed_remedy(now, check, observed) {
        return Step::Start(RunKey { check_uid: check.uid.clone(), kind: RunKind::Remedy, slot });
    }
    if let Some(slot) = slots.due(now, floor(observed)) {
        return Step::Start(RunKey { check_uid: check.uid.clone(), kind: RunKind::HealthCheck, slot });
    }
    let wait = Step::Wait(slots.next(now));
    settle_ready(now, check, observed, observed.status.clone()).unwrap_or(wait)
}

fn settle_ready(now: Timestamp, check: &Check, observed: &Observed, next: HealthCheckStatus) -> Option<Step> {
    let step = write(now, check, observed, next);
    let same = matches!(&step, Step::WriteStatus(next) if **next == observed.status);
    (!same).then_some(step)
}

fn owed_remedy(now: Timestamp, check: &Check, observed: &Observed) -> Option<Timestamp> {
    let remedy: &Remedy = check.remedy.as_ref()?;
    let Timing::Slots(slots) = &check.timing else { return None };
    let fresh = slots.gap(now).max(LEAST_FRESH);
    let slot = status::unanswered_failure(&observed.status, now, fresh)?;
    let settled = observed.settled.iter().any(|run| run.key.kind == RunKind::Remedy && run.key.slot >= slot);
    (!settled && status::gate(&observed.status, remedy) != status::Gate::Closed).then_some(slot)
}

#[cfg(test)]
mod tests;
