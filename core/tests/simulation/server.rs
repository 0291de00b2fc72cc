//! The API server with what is stored in it, and Argo, which works through the workflows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::healthcheck::{HealthCheck, HealthCheckStatus};
use active_monitor_core::run::RunKey;
use active_monitor_core::workflow::{Seen, WorkflowPhase, WorkflowStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Milliseconds since the world began.
pub(crate) type Millis = i64;

/// The world begins at this second.
const EPOCH: i64 = 1_800_000_007;
/// As the agent's manifests ask for, in milliseconds.
const KEEP_FINISHED: Millis = 600_000;

pub(crate) fn instant(at: Millis) -> Timestamp {
    Timestamp::from_millisecond(EPOCH * 1000 + at).unwrap()
}

/// As a monotonic clock says it.
pub(crate) fn elapsed(at: Millis) -> Duration {
    Duration::from_millis(at.unsigned_abs())
}

/// As the API server writes it.
pub(crate) fn whole(at: Millis) -> Timestamp {
    Timestamp::from_second(instant(at).as_second()).unwrap()
}

/// What Argo will make of a workflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fate {
    Succeeds,
    Fails,
    Errs,
    /// Runs until its deadline.
    Hangs,
    /// Is not looked at.
    Waits,
}

#[derive(Clone, Debug)]
pub(crate) struct Workflow {
    pub(crate) seen: Seen,
    /// Name of the check, from the annotation.
    pub(crate) check: String,
    /// The run that its labels name; what has none is not watched.
    pub(crate) key: Option<RunKey>,
    pub(crate) by_agent: bool,
    pub(crate) owned: bool,
    pub(crate) fate: Fate,
    pub(crate) ends_at: Millis,
    pub(crate) done_at: Option<Millis>,
    pub(crate) shutdown: bool,
}

/// What a watch says.
#[derive(Clone)]
pub(crate) enum Change {
    Check { name: String, object: Option<Arc<HealthCheck>> },
    Workflow { name: String, seen: Box<Seen>, check: String, exists: bool },
}

/// Why a request is answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Refusal {
    Conflict,
    NotFound,
    Forbidden,
    /// No answer, or a 5xx: nobody knows whether it was done.
    Unknown,
    /// It was not sent.
    NotSent,
}

#[derive(Default)]
pub(crate) struct Server {
    pub(crate) checks: BTreeMap<String, Arc<HealthCheck>>,
    /// Their uids.
    live: BTreeSet<String>,
    /// By `namespace/name`.
    pub(crate) workflows: BTreeMap<String, Workflow>,
    pub(crate) log: Vec<Change>,
    /// How workflows ended, also of those that are gone.
    pub(crate) ended: BTreeMap<String, WorkflowPhase>,
    /// Workflows that were deleted.
    pub(crate) gone: BTreeSet<String>,
}

impl Server {
    pub(crate) fn put_check(&mut self, mut check: HealthCheck) {
        let name = check.metadata.name.clone().unwrap();
        check.metadata.resource_version = Some((self.log.len() + 1).to_string());
        self.live.extend(check.metadata.uid.clone());
        let object = Arc::new(check);
        self.checks.insert(name.clone(), Arc::clone(&object));
        self.log.push(Change::Check { name, object: Some(object) });
    }

    pub(crate) fn delete_check(&mut self, name: &str) {
        if let Some(check) = self.checks.remove(name) {
            self.live.retain(|uid| check.metadata.uid.as_ref() != Some(uid));
            self.log.push(Change::Check { name: name.to_owned(), object: None });
        }
    }

    /// Writes a status over the one of this resourceVersion and uid; gives the new resourceVersion.
    pub(crate) fn patch_status(
        &mut self,
        name: &str,
        uid: &str,
        version: u64,
        status: HealthCheckStatus,
    ) -> Result<u64, Refusal> {
        let Some(known) = self.checks.get(name) else { return Err(Refusal::NotFound) };
        let found = known.metadata.resource_version.as_deref() == Some(&version.to_string());
        if !found || known.metadata.uid.as_deref() != Some(uid) {
            return Err(Refusal::Conflict);
        }
        let mut next = (**known).clone();
        next.status = Some(status);
        self.put_check(next);
        Ok(self.log.len() as u64)
    }

    pub(crate) fn create(&mut self, workflow: Workflow) -> Result<Seen, Refusal> {
        let name = workflow.seen.workflow.clone();
        if self.workflows.contains_key(&name) {
            return Err(Refusal::Conflict);
        }
        let seen = workflow.seen.clone();
        self.workflows.insert(name.clone(), workflow);
        self.tell(&name);
        Ok(seen)
    }

    pub(crate) fn delete(&mut self, name: &str) {
        let Some(workflow) = self.workflows.remove(name) else { return };
        self.gone.insert(name.to_owned());
        if workflow.key.is_none() {
            return;
        }
        let (seen, check) = (Box::new(workflow.seen), workflow.check);
        self.log.push(Change::Workflow { name: name.to_owned(), seen, check, exists: false });
    }

    fn tell(&mut self, name: &str) {
        let Workflow { seen, check, key, .. } = &self.workflows[name];
        if key.is_none() {
            return;
        }
        let (seen, check) = (Box::new(seen.clone()), check.clone());
        self.log.push(Change::Workflow { name: name.to_owned(), seen, check, exists: true });
    }

    /// Whether a check of this uid is there.
    pub(crate) fn lives(&self, uid: &str) -> bool {
        self.live.contains(uid)
    }

    /// Argo at work: ends what is to end, and removes what ended long ago.
    pub(crate) fn argo(&mut self, now: Millis) {
        let names: Vec<String> = self.workflows.keys().cloned().collect();
        for name in names {
            let workflow = self.workflows.get_mut(&name).unwrap();
            match workflow.done_at {
                Some(done) if now >= done + KEEP_FINISHED => self.delete(&name),
                Some(_) => {}
                None => {
                    if let Some(phase) = workflow.end(now) {
                        workflow.done_at = Some(now);
                        self.ended.insert(name.clone(), phase);
                        let started_at = Some(Time(workflow.seen.created));
                        let finished_at = Some(Time(whole(now)));
                        workflow.seen.status =
                            WorkflowStatus { phase, started_at, finished_at, ..WorkflowStatus::default() };
                        self.tell(&name);
                    }
                }
            }
        }
    }

    /// The garbage collector: what a check owned goes with it.
    pub(crate) fn collect(&mut self) {
        let orphan = |workflow: &Workflow| workflow.owned && !self.lives(&workflow.seen.key.check_uid);
        let orphans = self.workflows.iter().filter(|(_, workflow)| orphan(workflow));
        let orphans: Vec<String> = orphans.map(|(name, _)| name.clone()).collect();
        orphans.iter().for_each(|name| self.delete(name));
    }
}

impl Workflow {
    fn end(&self, now: Millis) -> Option<WorkflowPhase> {
        if self.shutdown {
            return Some(WorkflowPhase::Failed);
        }
        let limit = self.seen.deadline_seconds.unwrap_or(0);
        let ran = whole(now).duration_since(self.seen.created).as_secs();
        match self.fate {
            Fate::Waits => None,
            _ if ran >= i64::from(limit) => Some(WorkflowPhase::Failed),
            Fate::Hangs => None,
            Fate::Succeeds => (now >= self.ends_at).then_some(WorkflowPhase::Succeeded),
            Fate::Fails => (now >= self.ends_at).then_some(WorkflowPhase::Failed),
            Fate::Errs => (now >= self.ends_at).then_some(WorkflowPhase::Error),
        }
    }
}
