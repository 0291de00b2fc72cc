//! What an agent may do with a check that is not its alone: whether another controller writes it, whether its remedies
//! may run, which workflow of active-monitor's is its run in flight, and what is told of a check that is only observed.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};

use crate::check::{Check, Invalid, Timing};
use crate::command::stopping;
use crate::decide::Observed;
use crate::healthcheck::{HealthCheck, HealthCheckStatus, instant, whole_seconds};
use crate::manifest::workflow_name;
use crate::report::{self, RemedyCounts};
use crate::run::{RunKey, RunKind, clean_message};
use crate::samples::Samples;
use crate::state::{CheckState, Phase};
use crate::status;
use crate::workflow::Seen;

/// Who the API server's managed fields say wrote a status that an agent wrote.
pub const MANAGER: &str = "active-monitor-agent";
/// Annotation of a HealthCheck whose value is a time, RFC 3339: what another controller wrote up to then does not stop
/// the agent.
pub const TAKE_OVER_ANNOTATION: &str = "activemonitor.keikoproj.io/take-over";

/// How what is said of a [`Hold`] begins.
pub const HELD: &str = "another controller writes this check";

/// Writers of a status that are kept of a check: its controllers are one or two.
const MAX_WRITERS: usize = 8;
/// What another controller may be late beyond its schedule and timeout before it counts as gone.
const QUIET_GRACE: Duration = Duration::from_secs(60);
/// How long another controller counts as there where a check has no schedule to measure it by.
const QUIET_WITHOUT_SCHEDULE: Duration = Duration::from_secs(600);

/// Whether the remedies of a cluster's checks may run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Remedies {
    /// None is started.
    Off,
    /// None is started; what would have run is said.
    Observe,
    /// They run.
    #[default]
    On,
}

/// Another controller writes the check: nothing is started and nothing written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The other's name in the managed fields.
    pub manager: String,
    /// Its last write of the status.
    pub wrote: Timestamp,
    /// It counts as gone from then on, unless it writes again.
    pub until: Timestamp,
}

impl std::fmt::Display for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Hold { manager, wrote, until } = self;
        write!(
            f,
            "{HELD}: {manager:?}, last at {wrote}; the agent starts nothing before \
             {until}, or until the annotation {TAKE_OVER_ANNOTATION} has a later time than that write"
        )
    }
}

/// Leaves of the managed fields who wrote the status and when: the fields themselves are most of a cached object.
pub fn keep_writers(metadata: &mut ObjectMeta) {
    let Some(entries) = metadata.managed_fields.take() else { return };
    let mut writers: Vec<_> =
        entries.into_iter().filter(|entry| entry.subresource.as_deref() == Some("status")).collect();
    writers.sort_by_key(|entry| std::cmp::Reverse(entry.time.as_ref().map(|time| time.0)));
    writers.truncate(MAX_WRITERS);
    let slim = |entry: ManagedFieldsEntry| ManagedFieldsEntry {
        manager: entry.manager,
        time: entry.time,
        ..ManagedFieldsEntry::default()
    };
    metadata.managed_fields = (!writers.is_empty()).then(|| writers.into_iter().map(slim).collect());
}

/// Whether another controller writes the check, by what [`keep_writers`] left. `since` is when this agent came to the
/// check at the latest: its start, or the end of the last run that it knows of.
pub fn hold(now: Timestamp, metadata: &ObjectMeta, check: Option<&Check>, since: Timestamp) -> Option<Hold> {
    let writers = || {
        let entries = metadata.managed_fields.iter().flatten();
        entries.filter_map(|entry| Some((entry.manager.as_deref()?, instant(&entry.time)?)))
    };
    let ours = writers().filter(|(manager, _)| *manager == MANAGER).map(|(_, at)| at).max();
    let ours = ours.map_or(since, |ours| ours.max(since));
    let (manager, wrote) = writers().filter(|(manager, _)| is_controller(manager)).max_by_key(|(_, at)| *at)?;
    let forgiven = metadata.annotations.as_ref().and_then(|all| all.get(TAKE_OVER_ANNOTATION)?.parse().ok());
    let until = gone_at(check, wrote);
    let newer = wrote > whole_seconds(ours) && forgiven.is_none_or(|forgiven: Timestamp| wrote > forgiven);
    (newer && now < until).then(|| Hold { manager: clean_message(manager), wrote, until })
}

/// What the last run that the status counts left in it ([`status::mark`]), where an agent counted it: by what
/// [`keep_writers`] left an agent wrote last, and a row of results is there. Without a row the start may be that of
/// active-monitor's last run, or the moment when the check was resumed ([`status::resumed`]).
pub fn counted_by_agents(resource: &HealthCheck) -> Option<Timestamp> {
    let newest = resource.metadata.managed_fields.iter().flatten().max_by_key(|entry| instant(&entry.time));
    newest.filter(|entry| entry.manager.as_deref() == Some(MANAGER))?;
    let status = resource.status.as_ref()?;
    let rows = [status.consecutive_failures, status.consecutive_successes];
    rows.into_iter().flatten().any(|row| row > 0).then(|| instant(&status.started_at))?
}

/// People with kubectl are no controller; who gives no name cannot be told from anybody.
pub fn is_controller(manager: &str) -> bool {
    manager != MANAGER && manager != "unknown" && !manager.starts_with("kubectl")
}

/// When another controller that wrote at this time counts as gone: it has let the second slot after that pass.
fn gone_at(check: Option<&Check>, wrote: Timestamp) -> Timestamp {
    let slots = match check.map(|check| (check, &check.timing)) {
        Some((check, Timing::Slots(slots))) => slots.next(wrote).and_then(|next| Some((check, slots.next(next)?))),
        Some((_, Timing::Stopped)) | None => None,
    };
    let Some((check, slot)) = slots else {
        return wrote.saturating_add(QUIET_WITHOUT_SCHEDULE).unwrap_or(Timestamp::MAX);
    };
    let timeout = Duration::from_secs(check.timeout_seconds(RunKind::HealthCheck, wrote).into());
    slot.saturating_add(timeout + QUIET_GRACE).unwrap_or(Timestamp::MAX)
}

/// What is said of a failure whose remedy may not run here; `None` where none is owed, or remedies run.
pub fn withheld(check: &Check, observed: &Observed) -> Option<String> {
    let remedy = check.remedy.as_ref()?;
    // However old it is: it stays owed until the check speaks again.
    status::unanswered_failure(&observed.status, check.thresholds.failure, Timestamp::MIN, Duration::MAX)?;
    if status::gate(&observed.status, remedy) == status::Gate::Closed {
        return None;
    }
    match observed.remedies {
        Remedies::On => {
            let pause = stopping(&observed.pauses, RunKind::Remedy)?;
            Some(format!("a remedy is owed and not started: {pause}"))
        }
        Remedies::Off => Some("a remedy is owed and not started: remedies are off in this cluster".to_owned()),
        Remedies::Observe => {
            let job = &remedy.job;
            let (namespace, account, rules) = (&job.namespace, &job.account, job.rules.len());
            Some(format!(
                "a remedy would run now: workflow {}... in namespace {namespace} as account {account} with {rules} rules; \
                 remedies are only observed in this cluster",
                job.prefix
            ))
        }
    }
}

/// A workflow that active-monitor made for a check and that has not ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Foreign {
    /// uid of the HealthCheck that owns it.
    pub check_uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// When the API server made it.
    pub created: Timestamp,
}

/// Reads a workflow without the agent's labels: `None` where no HealthCheck owns it.
pub fn foreign(metadata: &ObjectMeta) -> Option<Foreign> {
    let owner = metadata.owner_references.iter().flatten().find(|owner| {
        owner.kind == "HealthCheck" && owner.api_version.starts_with(&format!("{}/", crate::healthcheck::GROUP))
    })?;
    Some(Foreign {
        check_uid: owner.uid.clone(),
        namespace: metadata.namespace.clone()?,
        name: metadata.name.clone()?,
        created: metadata.creation_timestamp.as_ref()?.0,
    })
}

/// The run that such a workflow is for this check: its slot is the second of its creation. A check and its remedy are
/// told apart by the prefix of their names, the longer one first.
pub fn adopted(check: &Check, foreign: &Foreign) -> Option<RunKey> {
    let jobs = [Some(&check.workflow), check.remedy.as_ref().map(|remedy| &remedy.job)].into_iter().flatten();
    let named = jobs.filter(|job| job.namespace == foreign.namespace && foreign.name.starts_with(&job.prefix));
    let job = named.max_by_key(|job| (job.prefix.len(), job.kind == RunKind::HealthCheck))?;
    let slot = whole_seconds(foreign.created);
    Some(RunKey { check_uid: check.uid.clone(), kind: job.kind, slot })
}

/// Whether a workflow with the agent's labels may be one of active-monitor's that was [`adopted`] earlier and whose end
/// the status has not: its name is not the one that the agent gives.
pub fn was_adopted(status: &HealthCheckStatus, seen: &Seen) -> bool {
    let is_ours = seen.workflow.ends_with(&workflow_name("", &seen.key));
    let is_counted = match seen.key.kind {
        RunKind::HealthCheck => status::consumed(status).is_some_and(|consumed| seen.key.slot <= consumed),
        RunKind::Remedy => instant(&status.remedy_triggered_at)
            .is_some_and(|triggered| status::mark(seen.key.slot, seen.created) <= triggered),
    };
    !is_ours && !is_counted
}

/// The state of a check that another controller runs, by its status alone. Its next slot is when that controller, which
/// counts its interval from the end of a run, is to run it: past it and the timeout it is overdue.
pub fn observed(now: Timestamp, resource: &HealthCheck, parsed: &Result<Check, Invalid>) -> CheckState {
    let status = resource.status.clone().unwrap_or_default();
    let remedies = RemedyCounts::of(&status);
    let known = Observed { status: status.clone(), ..Observed::default() };
    let mut state = report::state(now, resource, parsed, &known, &Samples::default(), remedies);
    match parsed {
        Ok(check) => state.next_slot = next_of_other(check, &status),
        // It may run there all the same.
        Err(invalid) => {
            state.phase = match status.status.as_deref() {
                Some(status::SUCCEEDED) => Phase::Succeeded,
                Some(status::FAILED) => Phase::Failed,
                Some(status::STOPPED) => Phase::Stopped,
                _ => Phase::Pending,
            };
            state.message = clean_message(&format!("with this agent it would be Invalid: {invalid}"));
        }
    }
    state
}

fn next_of_other(check: &Check, status: &HealthCheckStatus) -> Option<Timestamp> {
    let Timing::Slots(slots) = &check.timing else { return None };
    let Some(ended) = instant(&status.finished_at).max(instant(&status.started_at)) else {
        return match slots.schedule().period() {
            Some(_) => Some(check.created),
            None => slots.next(check.created),
        };
    };
    match slots.schedule().period() {
        Some(period) => ended.saturating_add(period).ok(),
        None => slots.next(ended),
    }
}

#[cfg(test)]
mod tests;
