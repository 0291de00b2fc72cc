//! The agent's loop as a function: from now, a check and what is observed of it, to the one step to take next.
//!
//! The shell takes the step, observes again and asks again, until there is nothing to do but wait. Each step is
//! idempotent, so a crash between any two of them is mended by asking again.

mod asked;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use crate::check::{Check, Invalid, Remedy, Timing};
use crate::command::{Pause, stopping};
use crate::healthcheck::{HealthCheckStatus, instant, whole_seconds};
use crate::manifest::workflow_name;
use crate::ownership::{Hold, Remedies};
use crate::run::{Outcome, Reason, Run, RunKey, RunKind, clean_message};
use crate::status;
use crate::status::conditions::{self, ARGO_READY, Argo, RBAC_READY, Rights, Scheduled};
use crate::workflow::{Seen, WorkflowPhase};

pub use self::asked::{RUN_NOW_ANNOTATION, run_now};

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
    /// The request that it obeys, where it is no scheduled run: value of [`RUN_NOW_ANNOTATION`].
    pub run_now: Option<String>,
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
    /// What the last run said of Argo, where that is known.
    pub argo: Option<Argo>,
    /// Since when a run that is due waits because as many as allowed are in flight.
    pub waits_since: Option<Timestamp>,
    /// Another controller writes the check: runs in flight are followed, nothing else happens.
    pub hold: Option<Hold>,
    /// Whether remedies may run in this cluster.
    pub remedies: Remedies,
    /// What [`RUN_NOW_ANNOTATION`] asks for.
    pub run_now: Option<String>,
    /// The last such request that the journal knows as obeyed.
    pub ran_now: Option<String>,
    /// Pauses in force that concern the check, by a command of the hub.
    pub pauses: Vec<Pause>,
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
    /// The same out of schedule. That the request is obeyed is journaled with the intent, before anything else.
    RunNow {
        /// The run.
        key: RunKey,
        /// The request.
        token: String,
    },
    /// Withdraw the intent: nothing was created, and a newer slot is due.
    Abandon(RunKey),
    /// Ask the API server whether this workflow, `namespace/name`, exists.
    Confirm(String),
    /// Nothing to do before this instant, or before something changes.
    Wait(Option<Timestamp>),
}

/// Decides the next step.
pub fn decide(now: Timestamp, check: &Check, observed: &Observed) -> Step {
    if let Some(hold) = &observed.hold {
        return held(now, check, observed, hold);
    }
    uncounted(check, observed)
        .map(|counted| write(now, check, observed, counted, true))
        .or_else(|| {
            let step = in_flight(now, check, observed)?;
            Some(if let Step::Wait(_) = step { noticed(now, check, observed).unwrap_or(step) } else { step })
        })
        .or_else(|| unconfirmed(now, check, observed))
        .unwrap_or_else(|| next_run(now, check, observed))
}

/// What a new version of the check means for its status while a run is in flight: its conditions, and that it is not
/// invalid any more. No slot is used up by that, or the run in flight would not be counted.
fn noticed(now: Timestamp, check: &Check, observed: &Observed) -> Option<Step> {
    let status = &observed.status;
    let is_new = status.observed_generation.is_some_and(|seen| seen < check.generation);
    let next = if status.status.as_deref() == Some(status::INVALID) {
        status::resumed(status, now)
    } else if is_new {
        status.clone()
    } else {
        return None;
    };
    let then = match check.stopped_because() {
        Some(why) => status::stopped(&next, why, now),
        None => status::resumed(&next, now),
    };
    let Step::WriteStatus(then) = write(now, check, observed, then, false) else { return None };
    let (conditions, observed_generation) = (then.conditions, then.observed_generation);
    let next = HealthCheckStatus { conditions, observed_generation, ..next };
    (next != *status).then(|| Step::WriteStatus(Box::new(next)))
}

/// Another controller writes the check: the end of a run in flight is still recorded, since nobody else will.
fn held(now: Timestamp, check: &Check, observed: &Observed, hold: &Hold) -> Step {
    match in_flight(now, check, observed) {
        Some(Step::Wait(until)) => Step::Wait(Some(until.map_or(hold.until, |until| until.min(hold.until)))),
        Some(step) => step,
        None => Step::Wait(Some(hold.until)),
    }
}

/// The next step for a resource that cannot be run: nothing is started, and what is in flight is followed to its end.
/// `last` is the check as it was when it could be run, or [`Check::unrunnable`].
pub fn follow(now: Timestamp, last: &Check, invalid: &Invalid, observed: &Observed) -> Step {
    if let Some(hold) = &observed.hold {
        return held(now, last, observed, hold);
    }
    let counted = uncounted(last, observed);
    let is_counted = counted.is_some();
    let next = status::invalid(&counted.unwrap_or_else(|| observed.status.clone()), invalid);
    settle(now, last, observed, next, is_counted)
        .or_else(|| in_flight(now, last, observed))
        .or_else(|| match unconfirmed(now, last, observed)? {
            Step::Start(key) | Step::RunNow { key, .. } => Some(Step::Abandon(key)),
            step @ (Step::WriteStatus(_)
            | Step::Record { .. }
            | Step::Abandon(_)
            | Step::Confirm(_)
            | Step::Wait(_)) => Some(step),
        })
        .unwrap_or(Step::Wait(None))
}

/// The slots at or before this are used up, by the status or by the journal.
pub fn floor(observed: &Observed) -> Option<Timestamp> {
    let settled = observed.settled.iter().filter(|run| run.key.kind == RunKind::HealthCheck);
    status::consumed(&observed.status).max(settled.map(|run| run.key.slot).max())
}

/// The runs that have ended and that the status has counted, as far as their workflows are still there, oldest first: an
/// agent that takes over may lack them in its journal, and so the hub.
pub fn counted_before(now: Timestamp, check: &Check, observed: &Observed) -> Vec<Run> {
    let ended = observed.workflows.iter().filter(|seen| seen.status.phase != WorkflowPhase::Active);
    let ours = ended.filter(|seen| is_ours(now, check, observed, seen));
    let mut runs: Vec<Run> = ours
        .filter_map(|seen| match judge(now, check, seen, None) {
            Step::Record { run, terminate: _ } => Some(*run),
            Step::WriteStatus(_)
            | Step::Start(_)
            | Step::RunNow { .. }
            | Step::Abandon(_)
            | Step::Confirm(_)
            | Step::Wait(_) => None,
        })
        .filter(|run| status::counted(&observed.status, run))
        .collect();
    runs.sort_by_key(|run| (run.key.kind, run.key.slot));
    runs
}

/// The last slot that is used up, where it is yet to come: the clock was ahead, and was put right. Slots after it are
/// free, times before it are not over: runs go on at their times, and take the slots that follow, one second apart.
pub fn ahead(now: Timestamp, observed: &Observed) -> Option<Timestamp> {
    floor(observed).filter(|floor| *floor > now + MAX_SKEW)
}

/// The first slot after `floor`; `None` at the end of time.
fn following(floor: Timestamp) -> Option<Timestamp> {
    floor.checked_add(Duration::from_secs(1)).ok().map(whole_seconds)
}

/// A run that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its scheduled time.
    pub time: Timestamp,
    /// Its slot: that time, unless [`ahead`].
    pub slot: Timestamp,
    /// Whether it is later than the check lets it start: then it is skipped.
    pub missed: bool,
}

/// The run that is due; `None` also while the check is paused.
pub fn due(now: Timestamp, check: &Check, observed: &Observed) -> Option<Due> {
    let slots = check.slots()?;
    let (time, slot) = match ahead(now, observed) {
        None => slots.due(now, floor(observed)).map(|slot| (slot, slot))?,
        Some(ahead) => (slots.due(now, last_heard_of(now, observed))?, following(ahead)?),
    };
    let late = |deadline: u32| now.duration_since(slots.start(time)).as_secs() > i64::from(deadline);
    Some(Due { time, slot, missed: check.starting_deadline_seconds.is_some_and(late) })
}

/// The latest instant, not yet to come, that a run of the check is known to have had.
fn last_heard_of(now: Timestamp, observed: &Observed) -> Option<Timestamp> {
    let settled = observed.settled.iter().filter(|run| run.key.kind == RunKind::HealthCheck);
    let known = settled.flat_map(|run| [run.started_at, run.finished_at]);
    known.chain(instant(&observed.status.finished_at)).filter(|known| *known <= now + MAX_SKEW).max()
}

/// The status with a settled run that it had not counted.
fn uncounted(check: &Check, observed: &Observed) -> Option<HealthCheckStatus> {
    let mut runs: Vec<&Run> = observed.settled.iter().filter(|run| !status::counted(&observed.status, run)).collect();
    runs.sort_by_key(|run| status::mark(run.key.slot, run.started_at));
    Some(status::fold(&observed.status, runs.first()?, check))
}

/// Writes `next` with what a CRD of ours keeps beside active-monitor's fields. `counted`: a run was counted into it.
fn write(now: Timestamp, check: &Check, observed: &Observed, next: HealthCheckStatus, counted: bool) -> Step {
    if !observed.has_conditions {
        return Step::WriteStatus(Box::new(next));
    }
    let scheduled = if next == observed.status {
        scheduled(now, check, observed)
    } else {
        scheduled(now, check, &Observed { status: next.clone(), ..observed.clone() })
    };
    let argo = observed.argo.filter(|_| counted || !conditions::speaks_of(&observed.status, ARGO_READY));
    let mut next = conditions::with(next, check.generation, now, scheduled, rights(observed, counted), argo);
    next.last_run_now = asked::obeyed(now, check, observed).or(next.last_run_now);
    Step::WriteStatus(Box::new(next))
}

/// What keeps the check from its schedule without stopping it.
fn scheduled(now: Timestamp, check: &Check, observed: &Observed) -> Scheduled {
    if let Some(pause) = stopping(&observed.pauses, RunKind::HealthCheck) {
        return Scheduled::Paused(pause.until);
    }
    if ahead(now, observed).is_some() {
        return Scheduled::Ahead;
    }
    match (due(now, check, observed), check.starting_deadline_seconds) {
        (Some(due), Some(deadline)) if due.missed => Scheduled::Missed(due.time, deadline),
        (Some(_) | None, _) => Scheduled::OnTime,
    }
}

/// What the last runs say of the accounts' rights; `None` where they say nothing new.
fn rights(observed: &Observed, counted: bool) -> Option<Rights> {
    let refused = observed.settled.iter().find(|run| run.reason == Some(Reason::RbacRefused));
    let granted = observed.settled.iter().any(|run| run.workflow.is_some());
    let known = refused.map(|run| Rights::Refused(run.message.clone())).or(granted.then_some(Rights::Granted))?;
    Some(known).filter(|_| counted || !conditions::speaks_of(&observed.status, RBAC_READY))
}

/// A workflow that belongs to a run not yet settled: its end, its deadline, or the wait for either. The remedy first:
/// while it runs the check waits.
fn in_flight(now: Timestamp, check: &Check, observed: &Observed) -> Option<Step> {
    let floor = floor(observed);
    let settled = |seen: &Seen| observed.settled.iter().any(|run| run.key == seen.key);
    let open = |seen: &&Seen| {
        // An open intent has no end yet, whatever another writer of the status says of its slot.
        is_open(observed, &seen.key)
            || match seen.key.kind {
                RunKind::HealthCheck => {
                    floor.is_none_or(|floor| seen.key.slot > floor) && !is_superseded(now, check, observed, &seen.key)
                }
                RunKind::Remedy => {
                    let marked = observed.status.remedy_triggered_at.as_ref().map(|t| t.0);
                    !settled(seen) && marked.is_none_or(|marked| status::mark(seen.key.slot, seen.created) > marked)
                }
            }
    };
    let seen =
        ours(now, check, observed).filter(open).min_by_key(|seen| (seen.key.kind != RunKind::Remedy, seen.key.slot))?;
    let asked_at = observed.asked.get(&seen.workflow).copied();
    Some(judge(now, check, seen, asked_at))
}

/// Whether the check has gone on to a later slot, by the journal or, where that is another replica's, by a later run's
/// workflow: the request to create this one's came late, after it was given up.
fn is_superseded(now: Timestamp, check: &Check, observed: &Observed, key: &RunKey) -> bool {
    let is_later = |other: &RunKey| other.kind == key.kind && other.slot > key.slot;
    let by_journal = observed.intents.iter().any(|intent| is_later(&intent.key));
    let by_workflow = || ours(now, check, observed).any(|seen| is_later(&seen.key));
    !is_open(observed, key) && (by_journal || by_workflow())
}

/// Whether the journal waits for the end of this run.
fn is_open(observed: &Observed, key: &RunKey) -> bool {
    observed.intents.iter().any(|intent| intent.key == *key)
}

/// The workflows that speak for the check's runs. The API server's own word that one is gone counts more than a watch
/// that lags.
fn ours<'a>(now: Timestamp, check: &'a Check, observed: &'a Observed) -> impl Iterator<Item = &'a Seen> {
    let there = observed.workflows.iter().filter(|seen| !observed.gone.contains(&seen.workflow));
    there.filter(move |seen| is_ours(now, check, observed, seen))
}

/// Labels can be written by anybody who may create workflows: a workflow speaks for a run only under the name and in the
/// namespace that the agent gives it, and for no slot that is yet to come.
fn is_ours(now: Timestamp, check: &Check, observed: &Observed, seen: &Seen) -> bool {
    if is_intended(observed, seen) {
        return true;
    }
    let Some(job) = check.job(seen.key.kind) else { return false };
    let Some(name) = seen.workflow.strip_prefix(&format!("{}/", job.namespace)) else { return false };
    // generateName may have been edited since, by a check whose journal is another replica's: what no edit changes is the
    // hash of the run.
    let named = match is_open(observed, &seen.key) {
        true => name == workflow_name(&job.prefix, &seen.key),
        false => name.ends_with(&workflow_name("", &seen.key)),
    };
    let after = ahead(now, observed).and_then(following);
    named && seen.key.check_uid == check.uid && (seen.key.slot <= now + MAX_SKEW || Some(seen.key.slot) == after)
}

fn is_intended(observed: &Observed, seen: &Seen) -> bool {
    observed.intents.iter().any(|intent| intent.key == seen.key && intent.workflow == seen.workflow)
}

/// Whether a workflow has ended, in its own words or by its deadline.
fn judge(now: Timestamp, check: &Check, seen: &Seen, asked_at: Option<Timestamp>) -> Step {
    let timeout = check.timeout_seconds(seen.key.kind, seen.key.slot);
    let timeout = match (&check.timing, seen.deadline_seconds) {
        // A paused check has no interval to take a timeout from: what the run was started with counts.
        (Timing::Stopped, Some(deadline)) => deadline,
        (Timing::Stopped, None) => timeout,
        (Timing::Slots(_), deadline) => timeout.max(deadline.unwrap_or(0)),
    };
    // The later of two clocks: a run must not be late because the agent's clock is ahead of the API server's. A slot that
    // is yet to come says nothing of when its run began.
    let slot = if seen.key.slot <= now + MAX_SKEW { seen.key.slot } else { seen.created };
    let started = seen.created.max(slot);
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
        warning: clean_message(&seen.warning),
        log_tail: String::new(),
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
        Some(Reason::DeadlineExceeded) if own.is_empty() && seen.status.started_at.is_none() => {
            format!("not done after {timeout} s: no Argo controller has taken it up")
        }
        Some(Reason::DeadlineExceeded) if own.is_empty() => format!("not done after {timeout} s"),
        Some(Reason::DeadlineExceeded) => clean_message(&format!("not done after {timeout} s: {own}")),
        Some(reason) if own.is_empty() => reason.as_str().to_owned(),
        Some(_) => own,
    }
}

/// An open intent whose workflow is not in the cluster.
fn unconfirmed(now: Timestamp, check: &Check, observed: &Observed) -> Option<Step> {
    let seen = |intent: &Intent| ours(now, check, observed).any(|seen| seen.key == intent.key);
    let intent = observed.intents.iter().find(|intent| !seen(intent))?;
    if !observed.gone.contains(&intent.workflow) {
        return Some(Step::Confirm(intent.workflow.clone()));
    }
    if intent.created {
        let run = vanished(now, check, intent);
        // Overtaken: another replica, or active-monitor, has counted the run and knows how it ended. Here nothing is
        // left to say of it, and that it vanished would be the wrong thing.
        return Some(if status::counted(&observed.status, &run) {
            Step::Abandon(intent.key.clone())
        } else {
            Step::Record { run: Box::new(run), terminate: None }
        });
    }
    // The name protects: creating it a second time answers 409, and the first one is adopted.
    if let Some(token) = &intent.run_now
        && !is_paused(observed, intent.key.kind)
        && floor(observed).is_none_or(|floor| intent.key.slot > floor)
    {
        return Some(Step::RunNow { key: intent.key.clone(), token: token.clone() });
    }
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
        started_at: key.slot.min(now),
        finished_at: now,
        warning: String::new(),
        log_tail: String::new(),
    }
}

/// Nothing runs: a remedy that is owed, the run that is asked for, the slot that is due, or the wait for the next one.
fn next_run(now: Timestamp, check: &Check, observed: &Observed) -> Step {
    if let Some(why) = check.stopped_because() {
        let stopped = status::stopped(&observed.status, why, now);
        return asked::next(now, check, observed)
            .or_else(|| settle(now, check, observed, stopped, false))
            .unwrap_or(Step::Wait(end_of_pause(observed)));
    }
    let resumed = status::resumed(&observed.status, now);
    if resumed != observed.status {
        return write(now, check, observed, resumed, false);
    }
    if let Some(slot) = owed_remedy(now, check, observed) {
        return Step::Start(RunKey { check_uid: check.uid.clone(), kind: RunKind::Remedy, slot });
    }
    if let Some(step) = asked::next(now, check, observed) {
        return step;
    }
    let may_start = !is_paused(observed, RunKind::HealthCheck);
    if let Some(due) = due(now, check, observed).filter(|due| may_start && !due.missed) {
        return Step::Start(RunKey { check_uid: check.uid.clone(), kind: RunKind::HealthCheck, slot: due.slot });
    }
    let next = check.slots().filter(|_| may_start).and_then(|slots| slots.next(now).map(|slot| slots.start(slot)));
    let wait = Step::Wait(next.into_iter().chain(end_of_pause(observed)).min());
    settle(now, check, observed, observed.status.clone(), false).unwrap_or(wait)
}

/// Whether a command of the hub keeps runs of this kind from starting.
fn is_paused(observed: &Observed, kind: RunKind) -> bool {
    stopping(&observed.pauses, kind).is_some()
}

/// When the first of the pauses in force ends: then the check is looked at again.
fn end_of_pause(observed: &Observed) -> Option<Timestamp> {
    observed.pauses.iter().map(|pause| pause.until).min()
}

/// Writes `next` where that changes anything.
fn settle(now: Timestamp, check: &Check, observed: &Observed, next: HealthCheckStatus, counted: bool) -> Option<Step> {
    let step = write(now, check, observed, next, counted);
    let same = matches!(&step, Step::WriteStatus(next) if **next == observed.status);
    (!same).then_some(step)
}

fn owed_remedy(now: Timestamp, check: &Check, observed: &Observed) -> Option<Timestamp> {
    let may_start = observed.remedies == Remedies::On && !is_paused(observed, RunKind::Remedy);
    let remedy: &Remedy = check.remedy.as_ref().filter(|_| may_start)?;
    let fresh = check.slots()?.gap(now).max(LEAST_FRESH);
    let slot = status::unanswered_failure(&observed.status, check.thresholds.failure, now, fresh)?;
    let settled = observed.settled.iter().any(|run| run.key.kind == RunKind::Remedy && run.key.slot >= slot);
    (!settled && status::gate(&observed.status, remedy) != status::Gate::Closed).then_some(slot)
}

#[cfg(test)]
mod tests;
