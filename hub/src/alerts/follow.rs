//! Follows the file of routes: what is changed there is in force within seconds, and a file that makes no sense changes
//! nothing.
//!
//! A route that stays as it is goes on undisturbed; one that is changed begins anew, as after a restart of the hub.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use active_monitor_core::alert::{Route, Routes};
use jiff::Timestamp;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::{Alerts, Task, read};
use crate::store::StoreError;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(3);

/// What the file says, or why it makes no sense.
fn said(file: &Path) -> Result<Routes, String> {
    read(file).map_err(|error| format!("{:#}", anyhow::Error::from(error)))
}

/// The routes that are in force.
pub(super) struct Follower {
    alerts: Alerts,
    file: Option<PathBuf>,
    /// What the file said last, right or wrong.
    said: Result<Routes, String>,
    running: BTreeMap<String, Running>,
    tasks: JoinSet<()>,
}

struct Running {
    route: Route,
    stop: CancellationToken,
}

/// Why the routes are followed no more.
#[derive(Debug, thiserror::Error)]
pub(super) enum FollowError {
    /// A route's task has panicked.
    #[error("a route has ended")]
    Route(#[from] JoinError),
}

impl Follower {
    /// Reads the file and starts its routes. One that makes no sense starts none and is looked at again: the hub refuses it
    /// at its own start, but a replica that takes over has other duties too.
    ///
    /// # Errors
    /// The store fails.
    pub(super) async fn start(alerts: Alerts, file: Option<PathBuf>) -> Result<Follower, StoreError> {
        let (running, tasks) = (BTreeMap::new(), JoinSet::new());
        let mut follower = Follower { alerts, file, said: Ok(Routes::default()), running, tasks };
        follower.alerts.metrics.routes_error.set(0);
        if let Some(file) = &follower.file {
            let said = said(file);
            match &said {
                Ok(routes) => follower.put_in_force(&routes.clone()).await?,
                Err(error) => tracing::error!(error, "no routes are in force"),
            }
            follower.alerts.metrics.routes_error.set(i64::from(said.is_err()));
            follower.said = said;
        }
        Ok(follower)
    }

    /// Until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), FollowError> {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => self.look().await,
                Some(ended) = self.tasks.join_next() => ended?,
                () = stop.cancelled() => break,
            }
        }
        self.running.values().for_each(|running| running.stop.cancel());
        while let Some(ended) = self.tasks.join_next().await {
            ended?;
        }
        Ok(())
    }

    async fn look(&mut self) {
        let Some(file) = &self.file else { return };
        let said = said(file);
        if said == self.said {
            return;
        }
        match &said {
            Ok(routes) => match self.put_in_force(routes).await {
                Ok(()) => tracing::info!(routes = routes.routes.len(), "routes are in force"),
                // It is read again.
                Err(error) => return tracing::warn!(error = %error, "routes are not in force yet"),
            },
            Err(error) => tracing::error!(error, "the routes before stay in force"),
        }
        self.alerts.metrics.routes_error.set(i64::from(said.is_err()));
        self.said = said;
    }

    /// Ends what is no more wanted as it is, and starts what is new.
    async fn put_in_force(&mut self, routes: &Routes) -> Result<(), StoreError> {
        let mut fresh = Vec::new();
        for route in &routes.routes {
            if self.running.get(&route.name).is_none_or(|running| running.route != *route) {
                fresh.push(self.alerts.task(route.clone(), Timestamp::now()).await?);
            }
        }
        self.running.retain(|name, running| {
            let stays = routes.routes.contains(&running.route);
            if !stays {
                running.stop.cancel();
            }
            if routes.routes.iter().all(|route| route.name != *name) {
                self.alerts.metrics.forget(name);
            }
            stays
        });
        for task in fresh {
            self.begin(task);
        }
        Ok(())
    }

    fn begin(&mut self, task: Task) {
        self.alerts.metrics.know(&task.route.name);
        let (route, stop) = (task.route.clone(), CancellationToken::new());
        self.running.insert(route.name.clone(), Running { route, stop: stop.clone() });
        self.tasks.spawn(task.run(stop));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use active_monitor_runtime::tasks::Tasks;
    use prometheus::core::Collector;
    use tokio::sync::watch;

    use super::super::AlertMetrics;
    use super::*;
    use crate::owner::{self, Terms};
    use crate::store::sqlite::SqliteStore;

    /// The routes whose counters are shown.
    fn counted(metrics: &AlertMetrics) -> Vec<String> {
        let families = metrics.sent.collect();
        let series = families.iter().flat_map(|family| family.get_metric());
        let mut names: Vec<String> = series.map(|metric| metric.get_label()[0].value().to_owned()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn what_is_changed_in_the_file_is_in_force_and_a_mistake_in_it_changes_nothing() {
        let data = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(data.path()).await.unwrap());
        let tasks = Tasks::new();
        let fleet = owner::start(store.clone(), Terms::of_a_test(data.path()), &tasks).await.unwrap();
        let (_open, open) = watch::channel(Arc::new(Vec::new()));
        let metrics = AlertMetrics::new().unwrap();
        let alerts = Alerts { open, fleet, store, metrics: metrics.clone() };
        let file = data.path().join("routes.yaml");
        let write = |routes: &[&str]| std::fs::write(&file, format!("routes: [{}]\n", routes.join(", "))).unwrap();
        let (a, b, c) =
            ("{name: a, webhook: 'http://x'}", "{name: b, webhook: 'http://x'}", "{name: b, webhook: 'http://y'}");
        write(&[a, b]);
        let mut follower = Follower::start(alerts.clone(), Some(file.clone())).await.unwrap();
        let stops = |follower: &Follower, name: &str| follower.running[name].stop.clone();
        let (first_a, first_b) = (stops(&follower, "a"), stops(&follower, "b"));
        metrics.sent.with_label_values(&["a"]).inc();

        write(&[a, c, "{name: d}"]);
        follower.look().await;
        assert_eq!((metrics.routes_error.get(), counted(&metrics)), (1, vec!["a".to_owned(), "b".to_owned()]));
        assert!(!first_a.is_cancelled() && !first_b.is_cancelled());

        write(&[a, c]);
        follower.look().await;
        assert_eq!(metrics.routes_error.get(), 0);
        assert!(!first_a.is_cancelled() && first_b.is_cancelled() && !stops(&follower, "b").is_cancelled());
        assert_eq!(metrics.sent.with_label_values(&["a"]).get(), 1);

        write(&[c]);
        follower.look().await;
        assert!(first_a.is_cancelled());
        assert_eq!(counted(&metrics), ["b"]);

        std::fs::remove_file(&file).unwrap();
        follower.look().await;
        assert_eq!((metrics.routes_error.get(), counted(&metrics)), (1, vec!["b".to_owned()]));
        // A replica that takes over begins without routes, and takes them up once the file makes sense.
        let mut next = Follower::start(alerts, Some(file.clone())).await.unwrap();
        assert_eq!((metrics.routes_error.get(), next.running.len()), (1, 0));
        write(&[a]);
        next.look().await;
        assert_eq!((metrics.routes_error.get(), next.running.len()), (0, 1));
        tasks.stop();
    }
}
