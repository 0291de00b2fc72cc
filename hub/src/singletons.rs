//! What is done once in a fleet, however many replicas the hub has: recording, pruning, incidents, alerts, remote write, and
//! keeping it as Git's folder and the resources of the hub's own cluster say.
//!
//! A hub that is alone does it from its start to its end. Of replicas it is the one that has the lease. It stops before
//! another can take the lease, and should it not, what it writes is refused by the lease's fence. A message that is under
//! way to a receiver of alerts or a remote store in that moment can still arrive.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::fleet::FleetView;
use active_monitor_runtime::tasks::{TaskError, Tasks};
use prometheus::Registry;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::alerts::{self, AlertMetrics, Alerts};
use crate::clock;
use crate::incidents::{self, IncidentMetrics, OpenIncidents};
use crate::owner::FleetHandle;
use crate::recorder;
use crate::remote_write::{RemoteWrite, RemoteWriteArgs, RemoteWriteMetrics};
use crate::resources::Resources;
use crate::retention::{self, Pruning, Retention};
use crate::serve::ServeError;
use crate::source::{self, Keeper, Source, Teller};
use crate::store::Store;
use crate::store::postgres::replicas::{Lease, Replicas};

/// Name of the lease.
const LEASE: &str = "singletons";
/// How long a lease is good without being prolonged.
const LIFE: Duration = Duration::from_secs(6);
/// So long before that its holder stops.
const MARGIN: Duration = Duration::from_secs(2);
/// Between two attempts to take it or to prolong it.
const PERIOD: Duration = Duration::from_secs(1);
/// Views that a candidate remembers: when it takes over, the oldest is from before the last word of the holder.
const VIEWS: usize = 10;
/// After so long it is said that a duty does not end.
const GRACE: Duration = Duration::from_secs(10);

/// What is done.
pub(crate) struct Duties {
    pub(crate) fleet: FleetHandle,
    pub(crate) source: Arc<Source>,
    pub(crate) resources: Option<Resources>,
    pub(crate) retention: Retention,
    pub(crate) pruning: Pruning,
    pub(crate) incidents: IncidentMetrics,
    pub(crate) routes_file: Option<PathBuf>,
    pub(crate) alerts: AlertMetrics,
    pub(crate) remote_write: RemoteWriteArgs,
    pub(crate) remote_write_metrics: RemoteWriteMetrics,
    pub(crate) registry: Registry,
}

impl Duties {
    /// Starts all of it; `recorded` is what the recorder takes for recorded, and whether it takes over from another replica,
    /// which `teller` tells of Git's folder.
    ///
    /// # Errors
    /// The store fails, or remote write cannot be set up.
    pub(crate) async fn start(
        &self,
        store: Arc<dyn Store>,
        (recorded, takes_over): (Arc<FleetView>, bool),
        teller: Option<Teller>,
        tasks: &Tasks,
    ) -> Result<OpenIncidents, ServeError> {
        self.source.release(store.as_ref()).await?;
        let (fleet, stop) = (&self.fleet, || tasks.stop_token());
        let record = recorder::run(Arc::clone(&store), fleet.watch(), recorded, (clock::now(), takes_over), stop());
        tasks.supervise("recorder", record);
        let open = incidents::start(Arc::clone(&store), fleet.clone(), self.incidents.clone(), tasks).await?;
        let alerts = Alerts {
            open: open.clone(),
            fleet: fleet.clone(),
            store: Arc::clone(&store),
            metrics: self.alerts.clone(),
        };
        alerts::start(self.routes_file.clone(), alerts, tasks).await?;
        if let Some(writer) =
            RemoteWrite::new(&self.remote_write, self.remote_write_metrics.clone(), self.registry.clone())?
        {
            tasks.supervise("remote-write", writer.run(fleet.clone(), stop()));
        }
        if self.source.has_folder() {
            let run = source::run(Arc::clone(&self.source), Arc::clone(&store), fleet.clone(), teller, stop());
            tasks.supervise("source", run);
        }
        if let Some(resources) = self.resources.clone() {
            let (source, store) = (Arc::clone(&self.source), Arc::clone(&store));
            tasks.supervise("resources", resources.run(Keeper { source, store, fleet: fleet.clone() }, stop()));
        }
        tasks
            .supervise("retention", retention::run(store, fleet.clone(), self.retention, self.pruning.clone(), stop()));
        Ok(open)
    }
}

/// Does the duties whenever this replica has the lease, until `stop`.
///
/// # Errors
/// A duty ended by itself.
pub(crate) async fn run(replicas: Arc<Replicas>, duties: Duties, stop: CancellationToken) -> Result<(), TaskError> {
    loop {
        let (lease, asked, recorded) = tokio::select! {
            taken = take(&replicas, &duties.fleet) => taken,
            () = stop.cancelled() => return Ok(()),
        };
        tracing::info!(fence = lease.fence, "this replica records, prunes and tells from now on");
        for collector in duties.pruning.collectors() {
            if let Err(error) = duties.registry.register(collector) {
                tracing::debug!(%error, "metric not registered");
            }
        }
        let tasks = Tasks::new();
        // However long the start of the duties takes, the lease is prolonged meanwhile.
        tokio::select! {
            () = hold(&replicas, &lease, asked) => tracing::warn!("the lease is lost"),
            () = work(&duties, &replicas, &lease, recorded, &tasks) => {}
            () = stop.cancelled() => {}
        }
        tasks.stop();
        ended(&tasks).await?;
        for collector in duties.pruning.collectors() {
            // Err means that it is not registered.
            let _ = duties.registry.unregister(collector);
        }
        give_back(&replicas, &lease).await;
        tokio::select! {
            () = sleep(PERIOD) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// Returns once some duty does not begin, or ended.
async fn work(duties: &Duties, replicas: &Arc<Replicas>, lease: &Lease, recorded: Arc<FleetView>, tasks: &Tasks) {
    let teller = Teller::new(Arc::clone(replicas), lease.clone());
    match duties.start(replicas.fenced(lease), (recorded, true), Some(teller), tasks).await {
        Ok(_) => tasks.stop_token().cancelled().await,
        Err(error) => tracing::error!(error = format!("{:#}", anyhow::Error::from(error)), "not begun; again soon"),
    }
}

/// What is done with a lease that was got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Got {
    Begin,
    Prolong,
    GiveUp,
}

/// Who gets it late has waited for what the holder before was writing: it is not good for long and is prolonged first. Where
/// that is late as well (`is_again`), this replica's data base is too slow to hold it: another one may be nearer to it.
fn got(took: Duration, is_again: bool) -> Got {
    match (took < MARGIN, is_again) {
        (true, _) => Got::Begin,
        (false, false) => Got::Prolong,
        (false, true) => Got::GiveUp,
    }
}

/// Waits for the lease. Gives with it when it was asked for, and the oldest of the views that were seen meanwhile.
async fn take(replicas: &Replicas, fleet: &FleetHandle) -> (Lease, Instant, Arc<FleetView>) {
    let mut views = VecDeque::new();
    let mut is_again = false;
    loop {
        let asked = Instant::now();
        views.push_back(fleet.view());
        let mut pause = PERIOD;
        match replicas.take_lease(LEASE, LIFE).await {
            Ok(Some(lease)) => match got(asked.elapsed(), is_again) {
                Got::Begin => return (lease, asked, views.pop_front().unwrap_or_else(|| fleet.view())),
                Got::Prolong => {
                    is_again = true;
                    continue;
                }
                Got::GiveUp => {
                    tracing::warn!("the data base is too slow to hold the lease: it is left to another replica");
                    give_back(replicas, &lease).await;
                    pause = LIFE;
                }
            },
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "whether another replica has the lease is not known"),
        }
        is_again = false;
        views.drain(..views.len().saturating_sub(VIEWS));
        sleep(pause).await;
    }
}

async fn give_back(replicas: &Replicas, lease: &Lease) {
    if let Err(error) = replicas.end_lease(lease).await {
        tracing::warn!(%error, "the others wait for the end of the lease");
    }
}

/// Prolongs the lease; returns once it is another's, or could be soon.
async fn hold(replicas: &Replicas, lease: &Lease, asked: Instant) {
    let mut until = asked + LIFE - MARGIN;
    loop {
        sleep(PERIOD).await;
        let asked = Instant::now();
        match timeout_at(until, replicas.take_lease(LEASE, LIFE)).await {
            Ok(Ok(Some(again))) if again == *lease => until = asked + LIFE - MARGIN,
            Ok(Ok(_)) | Err(_) => return,
            Ok(Err(error)) => tracing::warn!(%error, "the lease is not prolonged"),
        }
        if Instant::now() >= until {
            return;
        }
    }
}

/// Waits for the end of all duties, however long the data base is away.
async fn ended(tasks: &Tasks) -> Result<(), TaskError> {
    loop {
        match tasks.clone().run(GRACE).await {
            Err(error @ TaskError::Stuck { .. }) => tracing::warn!(%error, "duties of another replica go on"),
            ended => return ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_is_late_is_prolonged_once_and_then_given_up() {
        let soon = MARGIN - Duration::from_millis(1);
        assert_eq!([got(soon, false), got(soon, true)], [Got::Begin; 2]);
        for late in [MARGIN, LIFE, LIFE * 10] {
            assert_eq!([got(late, false), got(late, true)], [Got::Prolong, Got::GiveUp]);
        }
    }
}
