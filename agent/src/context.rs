//! What every reconciliation shares: the caches, the journal, and what the agent remembers of each check between two
//! looks at it. Nothing here must survive a restart.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use active_monitor_core::check::{Check, Invalid};
use active_monitor_core::command::Pause;
use active_monitor_core::decide::{Intent, Observed, run_now};
use active_monitor_core::healthcheck::{HealthCheck, HealthCheckStatus};
use active_monitor_core::manifest::policy::SourcePolicy;
use active_monitor_core::ownership::{Hold, Remedies};
use active_monitor_core::report::{RemedyCounts, state};
use active_monitor_core::run::{RunKey, RunKind};
use active_monitor_core::samples::{self, Samples};
use active_monitor_core::scope::Scope;
use active_monitor_core::status::conditions::Argo;
use active_monitor_core::workflow::Seen;
use jiff::Timestamp;
use kube::{Client, Resource};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::accounts::Accounts;
use crate::capacity::Capacity;
use crate::clock::Clock;
use crate::commands::Paused;
use crate::events::Events;
use crate::journal::Journal;
use crate::logs::Logs;
use crate::looks::Looks;
use crate::metrics::Counters;
use crate::ownership::Contested;
use crate::schema::StatusFields;
use crate::source::Sources;
use crate::states::States;
use crate::workflows::{WATCH_LAG, Workflows};

/// What every reconciliation shares.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// Whether it answers as it should.
    pub answers: watch::Receiver<bool>,
    /// Intents and results, on disk.
    pub journal: Journal,
    /// What is told of the checks.
    pub states: States,
    /// The watched workflows.
    pub workflows: Workflows,
    /// The status fields that the installed CRD keeps.
    pub fields: StatusFields,
    /// Accounts and roles.
    pub accounts: Accounts,
    /// Places for runs in flight.
    pub capacity: Capacity,
    /// Fetches workflows' texts.
    pub sources: Sources,
    /// What those may be.
    pub source_policy: SourcePolicy,
    /// Where the agent works.
    pub scope: Scope,
    /// Reads what failed pods wrote; absent where logs may not leave the cluster.
    pub logs: Option<Logs>,
    /// What the agent counts.
    pub counters: Counters,
    /// Kubernetes events.
    pub events: Events,
    /// True once the caches are complete: before that, nothing is decided.
    pub ready: watch::Receiver<bool>,
    /// What time it is, for every decision.
    pub clock: Clock,
    /// When this agent began: what another controller wrote before is its past.
    pub since: Timestamp,
    /// Checks that another controller writes.
    pub contested: Contested,
    /// Whether remedies may run.
    pub remedies: Remedies,
    /// Checks that had a run in flight at the start with rights that nothing names.
    pub(crate) unknown_rights: Mutex<BTreeSet<String>>,
    /// What the hub has paused.
    pub paused: Paused,
    /// What is looked at.
    pub looks: Looks,
    pub(crate) memory: Mutex<HashMap<String, Box<Memory>>>,
}

/// What the agent remembers of one check.
#[derive(Default)]
pub(crate) struct Memory {
    /// The check as parsed from this generation: its source is parsed once, not at each look.
    parsed: Option<(i64, Arc<Result<Check, Invalid>>)>,
    /// The last version that could be run, where the newest cannot: a run in flight is followed by it.
    pub(crate) last_valid: Option<Arc<Result<Check, Invalid>>>,
    /// Its used-up slots reach beyond the clock.
    pub(crate) is_ahead: bool,
    /// The generation whose fields were last compared with the installed CRD.
    pub(crate) compared: Option<i64>,
    /// The status as it was last written, until the watch has caught up with its resourceVersion.
    pub(crate) written: Option<(u64, Box<HealthCheckStatus>)>,
    /// Workflows that the API server said do not exist.
    pub(crate) gone: BTreeSet<String>,
    /// Workflows whose creation once had no clear answer: a request that was sent may still land.
    pub(crate) unclear: BTreeSet<String>,
    /// Workflows that the API server was asked about at this time, and had.
    pub(crate) asked: BTreeMap<String, Timestamp>,
    /// Workflows just created or confirmed, until the watch shows them.
    pub(crate) created: Vec<(Seen, Timestamp)>,
    /// The run being started and when that was first tried.
    pub(crate) trying: Option<(RunKey, Timestamp)>,
    /// What the last run said of Argo.
    pub(crate) argo: Option<Argo>,
    /// What the last run published.
    pub(crate) samples: Samples,
    pub(crate) remedies: Option<RemedyCounts>,
    /// Another controller writes the check.
    pub(crate) hold: Option<Hold>,
    /// Start of the failed run whose remedy was last said to be withheld.
    pub(crate) withheld: Option<Timestamp>,
    /// Reconciliations that failed in a row. One that was held back, since the API server had asked for a pause, counts as
    /// the first at most.
    pub(crate) failures: u32,
}

impl Memory {
    /// A workflow that was just created or confirmed, in place of what was known of it.
    pub(crate) fn has_created(&mut self, seen: Seen, now: Timestamp) {
        self.has_ended(&seen.workflow);
        self.created.push((seen, now));
    }

    /// A workflow of which nothing is to be expected any more.
    pub(crate) fn has_ended(&mut self, workflow: &str) {
        self.created.retain(|(seen, _)| seen.workflow != workflow);
    }

    /// Nothing is asked or said of this workflow any more.
    pub(crate) fn forget(&mut self, workflow: &str) {
        self.gone.remove(workflow);
        self.unclear.remove(workflow);
        self.asked.remove(workflow);
    }
}

impl Context {
    /// Everything that is known of a check's runs. `status` is the cached one, unless a newer one was written.
    pub(crate) fn observe(&self, now: Timestamp, resource: &HealthCheck, status: HealthCheckStatus) -> Observed {
        let uid = resource.metadata.uid.as_deref().unwrap_or_default();
        let mut workflows = self.workflows.of_check(uid);
        let mut memory = self.memory.lock();
        let memory = memory.entry(uid.to_owned()).or_default();
        memory.created.retain(|(created, since)| {
            let lagging = now.duration_since(*since).unsigned_abs() < WATCH_LAG;
            lagging && !workflows.iter().any(|seen| seen.workflow == created.workflow)
        });
        // Nearly always empty, and there are many checks.
        memory.created.shrink_to_fit();
        workflows.extend(memory.created.iter().map(|(seen, _)| seen.clone()));
        let intents = self.journal.intents(uid).into_iter().map(|open| Intent {
            key: open.intent.key,
            workflow: open.intent.workflow,
            created: open.created,
            run_now: open.intent.run_now,
        });
        let kinds = [RunKind::HealthCheck, RunKind::Remedy];
        Observed {
            status,
            workflows,
            intents: intents.collect(),
            settled: kinds.into_iter().filter_map(|kind| self.journal.last_run(uid, kind)).collect(),
            gone: memory.gone.clone(),
            asked: memory.asked.clone(),
            has_conditions: self.fields.has_conditions(),
            argo: memory.argo,
            waits_since: self.capacity.waits_since(uid),
            hold: memory.hold.clone(),
            remedies: self.remedies,
            run_now: resource.metadata.annotations.as_ref().and_then(run_now),
            ran_now: self.journal.ran_now(uid),
            pauses: self.pauses(now, resource),
        }
    }

    fn pauses(&self, now: Timestamp, resource: &HealthCheck) -> Vec<Pause> {
        let (namespace, name) = (&resource.metadata.namespace, &resource.metadata.name);
        self.paused.of(now, namespace.as_deref().unwrap_or_default(), name.as_deref().unwrap_or_default())
    }

    /// The check of a resource, parsed once per generation.
    pub(crate) fn parse(&self, resource: &HealthCheck) -> Arc<Result<Check, Invalid>> {
        let uid = resource.metadata.uid.clone().unwrap_or_default();
        let generation = resource.metadata.generation.unwrap_or_default();
        if let Some((known, parsed)) = self.remember(&uid, |memory| memory.parsed.clone())
            && known == generation
        {
            return parsed;
        }
        let parsed = Check::parse(resource).and_then(|check| self.source_policy.admit(check));
        let parsed = parsed.and_then(|check| self.scope.admit(check));
        let parsed = Arc::new(parsed);
        self.remember(&uid, |memory| {
            let before = memory.parsed.replace((generation, parsed.clone())).map(|(_, before)| before);
            memory.last_valid = before.filter(|before| before.is_ok()).or(memory.last_valid.take());
            if parsed.is_ok() {
                memory.last_valid = None;
            }
        });
        parsed
    }

    /// The check as it was when it could last be run, where this agent saw that; else what stands in for it.
    pub(crate) fn last_valid(&self, resource: &HealthCheck) -> Check {
        let uid = resource.metadata.uid.clone().unwrap_or_default();
        let generation = resource.metadata.generation.unwrap_or_default();
        let known = self.remember(&uid, |memory| {
            let parsed = memory.parsed.as_ref().map(|(_, parsed)| parsed.clone()).filter(|parsed| parsed.is_ok());
            parsed.or_else(|| memory.last_valid.clone())
        });
        match known.as_deref() {
            Some(Ok(check)) => Check { generation, ..check.clone() },
            Some(Err(_)) | None => Check::unrunnable(resource),
        }
    }

    /// The status to go by: the cached one, or the one written since.
    pub(crate) fn status(&self, resource: &HealthCheck) -> HealthCheckStatus {
        let uid = resource.metadata.uid.clone().unwrap_or_default();
        let cached = resource_version(resource);
        let written = self.remember(&uid, |memory| {
            memory.written.take_if(|(version, _)| *version <= cached);
            memory.written.as_ref().map(|(_, status)| HealthCheckStatus::clone(status))
        });
        written.or_else(|| resource.status.clone()).unwrap_or_default()
    }

    /// Tells the check's state to the metrics and the hub.
    pub(crate) fn publish(
        &self,
        now: Timestamp,
        resource: &HealthCheck,
        parsed: &Result<Check, Invalid>,
        observed: &Observed,
    ) {
        let uid = resource.metadata.uid.clone().unwrap_or_default();
        let (samples, remedies) = self.remember(&uid, |memory| {
            if memory.samples == Samples::default() {
                memory.samples = last_published(&observed.workflows);
            }
            let counts = *memory.remedies.get_or_insert_with(|| RemedyCounts::of(&observed.status));
            (memory.samples.clone(), counts)
        });
        self.states.upsert(state(now, resource, parsed, observed, &samples, remedies));
    }

    pub(crate) fn remember<T>(&self, uid: &str, f: impl FnOnce(&mut Memory) -> T) -> T {
        f(self.memory.lock().entry(uid.to_owned()).or_default())
    }
}

/// `metadata.resourceVersion` as a number, which the API server promises to grow; 0 where there is none.
pub(crate) fn resource_version(resource: &impl Resource) -> u64 {
    resource.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// What the newest workflow that published anything did publish: after a restart of the agent, nothing else knows.
fn last_published(workflows: &[Seen]) -> Samples {
    let published = workflows.iter().map(|seen| (seen.key.slot, samples::read(&seen.status.outputs.parameters)));
    let published = published.filter(|(_, read)| *read != Samples::default());
    published.max_by_key(|(slot, _)| *slot).map(|(_, read)| read).unwrap_or_default()
}
