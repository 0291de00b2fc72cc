//! Tells people of incidents: a task for each route of the file ([`follow`]), which asks `active_monitor_core::alert` what is due and
//! delivers it. There is no queue: what could not be delivered is due again, as it is then.
//!
//! [`start`] is called by one replica at a time: two that both told would call people twice.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::alert::{Notice, Receiver, Route, Routes, Teller};
use active_monitor_core::fleet::FleetView;
use active_monitor_core::view::{Closed, Incident, IncidentPage};
use active_monitor_runtime::tasks::Tasks;
use backon::{BackoffBuilder, ExponentialBuilder};
use jiff::{SignedDuration, Timestamp};
use prometheus::core::Collector;
use prometheus::{IntCounterVec, IntGauge, Opts};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::incidents::OpenIncidents;
use crate::owner::FleetHandle;
use crate::store::{IncidentQuery, MAX_PAGE, Store, StoreError};

mod follow;
mod post;
mod sign;
#[cfg(test)]
mod tests;

use follow::Follower;
use post::{Fault, Post, PostError};

/// Time between two looks at what is due.
const PERIOD: Duration = Duration::from_secs(1);
/// Time after which an Alertmanager hears again of what goes on.
const RESEND: SignedDuration = SignedDuration::from_secs(60);
/// Time after which a webhook does.
const REMIND: SignedDuration = SignedDuration::from_hours(1);
/// Time between two signs of life.
const ALIVE: SignedDuration = SignedDuration::from_secs(60);
/// Incidents closed so lately may be open at an Alertmanager still.
const CLOSED_LATELY: SignedDuration = SignedDuration::from_hours(24);

/// Why the routes cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RoutesError {
    /// The file cannot be read.
    #[error("--routes-file: {path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file says something that makes no sense.
    #[error("--routes-file: {path}: {why}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Which field, and what is allowed.
        why: String,
    },
    /// What was closed of late cannot be read.
    #[error("the incidents of the last day cannot be read")]
    Store(#[from] StoreError),
}

/// Reads the file of routes.
///
/// # Errors
/// It cannot be read, or makes no sense.
pub fn read(path: &Path) -> Result<Routes, RoutesError> {
    let text = std::fs::read_to_string(path).map_err(|source| RoutesError::Read { path: path.to_owned(), source })?;
    Routes::parse(&text).map_err(|why| RoutesError::Wrong { path: path.to_owned(), why })
}

/// What is counted of the notices. Clones count together.
#[derive(Clone, Debug)]
pub struct AlertMetrics {
    sent: IntCounterVec,
    failed: IntCounterVec,
    abandoned: IntCounterVec,
    routes_error: IntGauge,
}

impl AlertMetrics {
    /// No counter is there before there is a route.
    ///
    /// # Errors
    /// A name is wrong.
    pub fn new() -> Result<AlertMetrics, prometheus::Error> {
        let sent = Opts::new("activemonitor_hub_notifications_total", "Notices that a receiver of alerts has taken.");
        let failed = Opts::new(
            "activemonitor_hub_failed_notifications_total",
            "Requests to a receiver of alerts that failed; what they said is said again.",
        );
        let abandoned = Opts::new(
            "activemonitor_hub_abandoned_notifications_total",
            "Ends of incidents that a receiver of alerts refused so often that they are said no more.",
        );
        let counter = |opts: Opts| IntCounterVec::new(opts, &["route"]);
        let help = "1 while the file of routes makes no sense; the routes before stay in force.";
        Ok(AlertMetrics {
            sent: counter(sent)?,
            failed: counter(failed)?,
            abandoned: counter(abandoned)?,
            routes_error: IntGauge::new("activemonitor_hub_routes_error", help)?,
        })
    }

    /// To be registered where they shall be seen.
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let mut all: Vec<Box<dyn Collector>> = vec![Box::new(self.routes_error.clone())];
        all.extend(self.counters().map(|counter| Box::new(counter.clone()) as Box<dyn Collector>));
        all
    }

    fn counters(&self) -> [&IntCounterVec; 3] {
        [&self.sent, &self.failed, &self.abandoned]
    }

    fn know(&self, route: &str) {
        for counter in self.counters() {
            counter.with_label_values(&[route]);
        }
    }

    fn forget(&self, route: &str) {
        for counter in self.counters() {
            // It is there only where it was known.
            let _ = counter.remove_label_values(&[route]);
        }
    }
}

/// What every route works with.
#[derive(Clone)]
pub struct Alerts {
    /// The open incidents.
    pub open: OpenIncidents,
    /// Reads the fleet.
    pub fleet: FleetHandle,
    /// Where closed incidents are.
    pub store: Arc<dyn Store>,
    /// What is counted.
    pub metrics: AlertMetrics,
}

impl Alerts {
    async fn task(&self, route: Route, now: Timestamp) -> Result<Task, StoreError> {
        let Alerts { open, fleet, store, metrics } = self.clone();
        let now_open = open.borrow().clone();
        let teller = teller(&route, &now_open, &fleet.view(), store.as_ref(), now).await?;
        Ok(Task { route, teller, began: now, alive_at: None, open, fleet, metrics })
    }
}

/// Tells of incidents by the routes of the file, which is followed; nobody without one.
///
/// # Errors
/// The file cannot be used, or the store fails.
pub async fn start(file: Option<PathBuf>, alerts: Alerts, tasks: &Tasks) -> Result<(), RoutesError> {
    let follower = Follower::start(alerts, file).await?;
    tasks.supervise("alerts", follower.run(tasks.stop_token()));
    Ok(())
}

async fn teller(
    route: &Route,
    open: &[Arc<Incident>],
    view: &FleetView,
    store: &dyn Store,
    now: Timestamp,
) -> Result<Teller, StoreError> {
    match route.receiver() {
        Receiver::Alertmanager(_) => {
            let closed = closed_lately(store, now).await?;
            Ok(Teller::new(RESEND).closed_before(closed, open, |incident| picks(route, incident, view)))
        }
        // A webhook is not asked to know what it heard twice.
        Receiver::Webhook(_) => Ok(Teller::new(REMIND)),
    }
}

fn picks(route: &Route, incident: &Incident, view: &FleetView) -> bool {
    route.matches.picks(incident, |cluster| view.clusters.get(cluster).map(|entry| &entry.view.labels))
}

async fn closed_lately(store: &dyn Store, now: Timestamp) -> Result<Vec<Incident>, StoreError> {
    let query = IncidentQuery { limit: MAX_PAGE, ..IncidentQuery::default() };
    let IncidentPage { items, next: _ } = store.incidents(&query).await?;
    let lately = |at: Timestamp| now.duration_since(at) <= CLOSED_LATELY;
    Ok(items.into_iter().filter(|incident| incident.closed_at.is_some_and(lately)).collect())
}

struct Task {
    route: Route,
    teller: Teller,
    began: Timestamp,
    /// When the last sign of life was given.
    alive_at: Option<Timestamp>,
    open: OpenIncidents,
    fleet: FleetHandle,
    metrics: AlertMetrics,
}

impl Task {
    async fn run(mut self, stop: CancellationToken) {
        let pauses =
            || ExponentialBuilder::new().with_jitter().with_max_delay(Duration::from_secs(60)).without_max_times();
        let mut failures = pauses().build();
        let mut watch = clock::Watch::new();
        loop {
            let (now, step) = watch.look();
            if let Some(by) = step {
                self.stepped(by);
            }
            let pause = match self.round(now).await {
                Ok(()) => {
                    failures = pauses().build();
                    PERIOD
                }
                Err(error) => {
                    tracing::warn!(route = self.route.name, error = format!("{error:#}"), "alerts not delivered");
                    failures.next().unwrap_or(PERIOD)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// The hub's clock was set by `by`: what goes by periods goes on as before.
    fn stepped(&mut self, by: SignedDuration) {
        self.teller.stepped(by);
        self.alive_at = self.alive_at.map(|at| at.saturating_add(by).unwrap_or(at));
    }

    /// Delivers what is due. Where that fails it is due again; what a receiver refuses holds back nothing else. Returns the
    /// first failure that is the receiver's.
    async fn round(&mut self, now: Timestamp) -> anyhow::Result<()> {
        let is_late = self.alive_at.is_none_or(|at| now.duration_since(at) >= ALIVE);
        let sign_of_life = self.route.watchdog && is_late;
        let due = self.due(now);
        if due.is_empty() && !sign_of_life {
            return Ok(());
        }
        let (route, failed) = (self.route.clone(), self.metrics.failed.with_label_values(&[&self.route.name]));
        let post = Post::new(&route, self.began).inspect_err(|_| failed.inc())?;
        let mut first = None;
        if sign_of_life {
            match post.alive(now, self.alive_at).await {
                Ok(()) => self.alive_at = Some(now),
                Err(error) => {
                    failed.inc();
                    first = Some(error);
                }
            }
        }
        let is_stuck = first.as_ref().is_some_and(PostError::is_timeout);
        let (is_well, failures) = if is_stuck { (false, Vec::new()) } else { self.deliver(&post, now, &due).await };
        failed.inc_by(failures.len() as u64);
        for (batch, error) in failures {
            match batch {
                [notice] if self.is_refusal(notice, &error, is_well) => self.put_off(now, notice, &error),
                _ => {
                    first.get_or_insert(error);
                }
            }
        }
        first.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Tells batch by batch; whether the receiver took one, and which it did not take.
    async fn deliver<'n>(
        &mut self,
        post: &Post<'_>,
        now: Timestamp,
        due: &'n [Notice],
    ) -> (bool, Vec<(&'n [Notice], PostError)>) {
        let (mut is_well, mut failures) = (false, Vec::new());
        let mut batches: VecDeque<&[Notice]> = post.batches(due).collect();
        while let Some(batch) = batches.pop_front() {
            match post.tell(now, batch, &self.teller).await {
                Ok(()) => {
                    is_well = true;
                    self.teller.delivered(now, batch);
                    self.metrics.sent.with_label_values(&[&self.route.name]).inc_by(batch.len() as u64);
                }
                // One by one it shows which of them it is.
                Err(error) if batch.len() > 1 && error.fault() == Fault::Notice => {
                    batch.chunks(1).rev().for_each(|one| batches.push_front(one));
                }
                Err(error) => {
                    let is_stuck = error.is_timeout();
                    failures.push((batch, error));
                    // Each of the others would wait as long.
                    if is_stuck {
                        break;
                    }
                }
            }
        }
        (is_well, failures)
    }

    /// Whether it is this notice that the receiver does not take.
    fn is_refusal(&self, notice: &Notice, error: &PostError, is_well: bool) -> bool {
        match error.fault() {
            Fault::Notice => true,
            Fault::Either => is_well || self.teller.refusals(notice) > 0,
            Fault::Receiver => false,
        }
    }

    /// The notice waits for itself: the route goes on.
    fn put_off(&mut self, now: Timestamp, notice: &Notice, error: &PostError) {
        let (route, incident, status) = (&self.route.name, &notice.incident.id, notice.status.as_str());
        let is_given_up = self.teller.refused(now, notice);
        let times = self.teller.refusals(notice);
        tracing::warn!(route, incident, status, %error, times, is_given_up, "an alert is refused");
        if is_given_up {
            self.metrics.abandoned.with_label_values(&[route]).inc();
        }
    }

    fn due(&mut self, now: Timestamp) -> Vec<Notice> {
        let (open, view) = (self.open.borrow().clone(), self.fleet.view());
        self.teller.forget_over(&open);
        let mut due = self.teller.due(now, &open, |incident| picks(&self.route, incident, &view));
        for notice in &mut due {
            self.say_how_it_ended(notice, now);
        }
        due
    }

    /// What was told last of an incident does not have its end.
    fn say_how_it_ended(&self, notice: &mut Notice, now: Timestamp) {
        if notice.status == active_monitor_core::alert::NoticeStatus::Resolved {
            let incident = Arc::make_mut(&mut notice.incident);
            incident.closed.get_or_insert(Closed::Recovered);
            incident.closed_at.get_or_insert(now);
        }
    }
}
