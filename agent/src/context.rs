//! What every reconciliation shares: the caches, the journal, and what the agent remembers of each check between two
//! looks at it. Nothing here must survive a restart.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use active_monitor_core::check::{Check, Invalid};
use active_monitor_core::decide::{Intent, Observed};
use active_monitor_core::healthcheck::{HealthCheck, HealthCheckStatus};
use active_monitor_core::report::{RemedyCounts, state};
use active_monitor_core::run::{RunKey, RunKind};
use active_monitor_core::samples;
use active_monitor_core::state::Sample;
use active_monitor_core::workflow::Seen;
use jiff::Timestamp;
use kube::Client;
use kube::runtime::events::Recorder;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::accounts::Accounts;
use crate::journal::Journal;
use crate::schema::StatusFields;
use crate::source::Sources;
use crate::states::States;
use crate::workflows::{WATCH_LAG, Workflows};

/// What every reconciliation shares.
pub struct Context {
    /// The API server.
    pub client: Client,
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
    /// Fetches workflows' texts.
    pub sources: Sources,
    /// Kubernetes events.
    pub recorder: Recorder,
    /// True once the caches are complete: before that, nothing is decided.
    pub ready: watch::Receiver<bool>,
    pub(crate) memory: Mutex<HashMap<String, Memory>>,
}

/// What the agent remembers of one check.
#[derive(Default)]
pub(crate) struct Memory {
    /// The check as parsed from this generation: its source is parsed once, not at each look.
    parsed: Option<(i64, Arc<Result<Check, Invalid>>)>,
    /// The status as it was last written, until the watch has caught up with its resourceVersion.
    pub(crate) written: Option<(u64, HealthCheckStatus)>,
    /// Workflows that the API server said do not exist.
    pub(crate) gone: BTreeSet<String>,
    /// Workflows that the API server was asked about at this time, and had.
    pub(crate) asked: BTreeMap<String, Timestamp>,
    /// Workflows just created or confirmed, until the watch shows them.
    pub(crate) created: BTreeMap<String, (Seen, Timestamp)>,
    /// The run being started and when that was first tried.
    pub(crate) trying: Option<(RunKey, Timestamp)>,
    /// What the last run published.
    pub(crate) samples: Vec<Sample>,
    pub(crate) remedies: Option<RemedyCounts>,
    /// Reconciliations that failed in a row.
    pub(crate) failures: u32,
}

impl Context {
    /// Everything that is known of a check's runs. `status` is the cached one, unless a newer one was written.
    pub(crate) fn observe(&self, now: Timestamp, uid: &str, status: HealthCheckStatus) -> Observed {
        let mut workflows = self.workflows.of_check(uid);
        let mut memory = self.memory.lock();
        let memory = memory.entry(uid.to_owned()).or_default();
        memory.created.retain(|name, (_, since)| {
            let lagging = now.duration_since(*since).unsigned_abs() < WATCH_LAG;
            lagging && !workflows.iter().any(|seen| seen.workflow == *name)
        });
        workflows.extend(memory.created.values().map(|(seen, _)| seen.clone()));
        let intents = self.journal.intents(uid).into_iter().map(|open| Intent {
            key: open.intent.key,
            workflow: open.intent.workflow,
            created: open.created,
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
        }
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
        let parsed = Arc::new(Check::parse(resource));
        self.remember(&uid, |memory| memory.parsed = Some((generation, parsed.clone())));
        parsed
    }

    /// The status to go by: the cached one, or the one written since.
    pub(crate) fn status(&self, resource: &HealthCheck) -> HealthCheckStatus {
        let uid = resource.metadata.uid.clone().unwrap_or_default();
        let cached = resource_version(resource);
        let written = self.remember(&uid, |memory| {
            memory.written.take_if(|(version, _)| *version <= cached);
            memory.written.as_ref().map(|(_, status)| status.clone())
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
            if memory.samples.is_empty() {
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
pub(crate) fn resource_version(resource: &HealthCheck) -> u64 {
    resource.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// What the newest workflow that published anything did publish: after a restart of the agent, nothing else knows.
fn last_published(workflows: &[Seen]) -> Vec<Sample> {
    let published =
        workflows.iter().map(|seen| (seen.key.slot, samples::read(&seen.status.outputs.parameters).samples));
    published
        .filter(|(_, samples)| !samples.is_empty())
        .max_by_key(|(slot, _)| *slot)
        .map(|(_, s)| s)
        .unwrap_or_default()
}
