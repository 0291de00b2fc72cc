//! The task that keeps the incidents: it evaluates the published view, keeps what changed in the store, and publishes
//! what is open. The decisions are `active_monitor_core::incident`'s.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::incident::{Incidents, LOOK_BACK};
use active_monitor_core::view::{Event, Incident, Prior, PriorKind};
use active_monitor_runtime::tasks::Tasks;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::owner::FleetHandle;
use crate::store::{AuditEntry, Store, StoreError};

mod metrics;

pub use metrics::IncidentMetrics;

/// The open incidents, worst first, as they were published last.
pub type OpenIncidents = watch::Receiver<Arc<Vec<Arc<Incident>>>>;

/// Time between two evaluations.
const PERIOD: Duration = Duration::from_secs(1);
/// Time between two looks at what another replica keeps.
const FOLLOW: Duration = Duration::from_millis(500);
/// Lines of the audit log that are looked through for what came before an incident.
const AUDIT_LINES: u32 = 500;
/// Incidents that may wait for a store that fails; the oldest ones go then.
const MAX_UNSAVED: usize = 10_000;

struct Keeper {
    incidents: Incidents,
    /// What the store does not have yet, by id and beginning.
    unsaved: BTreeMap<(Timestamp, String), Arc<Incident>>,
    store: Arc<dyn Store>,
    fleet: FleetHandle,
    open: watch::Sender<Arc<Vec<Arc<Incident>>>>,
    metrics: IncidentMetrics,
}

/// Takes up the incidents that the store has and starts the task.
///
/// # Errors
/// The store cannot be read.
pub async fn start(
    store: Arc<dyn Store>,
    fleet: FleetHandle,
    metrics: IncidentMetrics,
    tasks: &Tasks,
) -> Result<OpenIncidents, StoreError> {
    let incidents = Incidents::restore(store.open_incidents().await?);
    let (open, receiver) = watch::channel(Arc::new(incidents.open()));
    let keeper = Keeper { incidents, unsaved: BTreeMap::new(), store, fleet, open, metrics };
    tasks.supervise("incidents", keeper.run(tasks.stop_token()));
    Ok(receiver)
}

/// Shows the open incidents that another replica, or this one, keeps in the store.
///
/// # Errors
/// The store cannot be read.
pub async fn follow(
    store: Arc<dyn Store>,
    fleet: FleetHandle,
    mut metrics: IncidentMetrics,
    tasks: &Tasks,
) -> Result<OpenIncidents, StoreError> {
    let (open, receiver) = watch::channel(Arc::new(Incidents::restore(store.open_incidents().await?).open()));
    let stop = tasks.stop_token();
    tasks.supervise("open incidents", async move {
        loop {
            match store.open_incidents().await.map(Incidents::restore) {
                Ok(incidents) => {
                    metrics.show(&incidents);
                    let now = incidents.open();
                    if *open.borrow().as_ref() != now {
                        open.send_replace(Arc::new(now));
                        // Err means that the hub stops.
                        let _ = fleet.announce(Event::Incidents).await;
                    }
                }
                Err(error) => tracing::warn!(%error, "the open incidents are shown as they were"),
            }
            tokio::select! {
                () = tokio::time::sleep(FOLLOW) => {}
                () = stop.cancelled() => return Ok::<(), Infallible>(()),
            }
        }
    });
    Ok(receiver)
}

impl Keeper {
    async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut watch = clock::Watch::new();
        loop {
            let (now, step) = watch.look();
            if let Some(by) = step {
                self.incidents.stepped(by);
            }
            self.round(now).await;
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    async fn round(&mut self, now: Timestamp) {
        let mut changed = self.incidents.evaluate(now, &self.fleet.view());
        if changed.iter().any(|incident| incident.first_seen == now) {
            let told = self.told(now).await;
            for incident in changed.iter_mut().filter(|incident| incident.first_seen == now) {
                if let Some(explained) = self.incidents.explain(&incident.subject, &told) {
                    *incident = explained;
                }
            }
        }
        self.metrics.show(&self.incidents);
        if !changed.is_empty() {
            self.open.send_replace(Arc::new(self.incidents.open()));
            // Err means that the hub stops.
            let _ = self.fleet.announce(Event::Incidents).await;
        }
        for incident in changed {
            self.unsaved.insert((incident.first_seen, incident.id.clone()), incident);
        }
        self.save().await;
    }

    /// What people changed of late.
    async fn told(&self, now: Timestamp) -> Vec<Prior> {
        match self.store.audit_log(AUDIT_LINES).await {
            Ok(lines) => {
                let recent = lines.into_iter().filter(|line| now.duration_since(line.at) <= LOOK_BACK);
                recent.filter_map(prior).collect()
            }
            Err(error) => {
                tracing::warn!(%error, "an incident is shown without what changed before it");
                Vec::new()
            }
        }
    }

    async fn save(&mut self) {
        if self.unsaved.is_empty() {
            return;
        }
        let waiting: Vec<Arc<Incident>> = self.unsaved.values().cloned().collect();
        match self.store.put_incidents(&waiting).await {
            Ok(()) => self.unsaved.clear(),
            // The next round tries again.
            Err(error) => tracing::warn!(%error, "incidents not stored"),
        }
        while self.unsaved.len() > MAX_UNSAVED {
            self.unsaved.pop_first();
            self.metrics.lost();
        }
    }
}

/// A line of the audit log, if it may have to do with an incident. Of a command the line that tells what became of it in a
/// cluster counts.
fn prior(line: AuditEntry) -> Option<Prior> {
    let AuditEntry { at, who, action, object } = line;
    let kind = match action.split_once('.')? {
        ("definition", _) => PriorKind::Definition,
        ("window", _) => PriorKind::Window,
        ("cluster", _) => PriorKind::Cluster,
        ("command", what) if what.ends_with(".result") => PriorKind::Command,
        _ => return None,
    };
    Some(Prior { at, kind, who, what: action, object })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_audit_log_only_what_can_break_something_is_taken() {
        let line = |action: &str| AuditEntry { action: action.into(), ..AuditEntry::default() };
        let kind = |action| prior(line(action)).map(|prior| prior.kind);
        assert_eq!(kind("definition.put"), Some(PriorKind::Definition));
        assert_eq!(kind("command.pause.result"), Some(PriorKind::Command));
        assert_eq!((kind("command.pause"), kind("token.create"), kind("odd")), (None, None, None));
    }
}
