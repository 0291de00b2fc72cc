//! Definitions as custom resources of the hub's own cluster: what is applied there is pushed to the fleet, and each one's
//! status says what became of it.
//!
//! Whose a definition is, and what is to be changed, is decided by [`active_monitor_core::gitops::resources`]; the changes
//! are made as those of Git's folder are. Nothing is done but when something changed, and then at most once a second.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::definition::select::matches;
use active_monitor_core::gitops::plan::{Existing, Owned, Owner};
use active_monitor_core::gitops::resources::{self, Refusal, Refusals};
use backon::{BackoffBuilder, ExponentialBuilder};
use futures::StreamExt;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use prometheus::IntGauge;
use prometheus::core::Collector;
use serde_json::json;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::owner::{ChangeError, Records};
use crate::source::{Failure, Keeper};
use crd::{FleetHealthCheck, FleetHealthCheckStatus};
use listed::{Item, Listed};
use status::{Known, status};

pub mod crd;
mod listed;
mod status;

/// The shortest time between two looks.
const PACE: Duration = Duration::from_secs(1);
/// After so long it is tried again to change or write what could not be.
const RETRY: Duration = Duration::from_secs(5);
/// What a write of a status may take.
const WRITE_LIMIT: Duration = Duration::from_secs(5);
/// A connection on which nothing comes for so long is dead: a watch is opened anew before.
const READ_LIMIT: Duration = Duration::from_secs(330);
/// The pauses of a watch that fails.
const FIRST_PAUSE: Duration = Duration::from_millis(800);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Why the resources cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum ResourcesError {
    /// It is not told where the API server is.
    #[error("the hub runs in no pod with an account, and KUBECONFIG names no file")]
    Config(#[from] kube::config::InferConfigError),
    /// The client cannot be set up.
    #[error("the client cannot be set up")]
    Client(#[from] kube::Error),
    /// The metric cannot be made.
    #[error("the metric cannot be made")]
    Metric(#[from] prometheus::Error),
}

/// The resources of a namespace.
#[derive(Clone)]
pub(crate) struct Resources {
    client: Client,
    namespace: String,
    error: IntGauge,
}

impl Resources {
    /// # Errors
    /// It is not told where the API server is, or how it is asked. Whether it answers is seen later.
    pub(crate) async fn new(namespace: &str) -> Result<Resources, ResourcesError> {
        let mut config = kube::Config::infer().await?;
        config.read_timeout = Some(READ_LIMIT);
        // The environment's is for the way to others, and kube would not ask whether `NO_PROXY` has the API server.
        config.proxy_url = None;
        Ok(Resources {
            client: Client::try_from(config)?,
            namespace: namespace.to_owned(),
            error: IntGauge::new(
                "activemonitor_hub_resources_error",
                "1 while the FleetHealthChecks of --resources-namespace cannot be followed: what they said stays in force.",
            )?,
        })
    }

    /// To be registered where it shall be seen.
    pub(crate) fn collector(&self) -> Box<dyn Collector> {
        Box::new(self.error.clone())
    }

    /// Keeps the definitions as the resources say, until `stop`. Who does not follow them says nothing of them.
    pub(crate) async fn run(self, keeper: Keeper, stop: CancellationToken) -> Result<(), Infallible> {
        let error = self.error.clone();
        let ended = self.follow(keeper, stop).await;
        error.set(0);
        ended
    }

    async fn follow(self, keeper: Keeper, stop: CancellationToken) -> Result<(), Infallible> {
        let Resources { client, namespace, error } = self;
        let api: Api<FleetHealthCheck> = Api::namespaced(client, &namespace);
        let growing = ExponentialBuilder::default().with_min_delay(FIRST_PAUSE).with_max_delay(LONGEST_PAUSE);
        let growing = growing.with_jitter().without_max_times();
        let watch = || kube::runtime::watcher(api.clone(), watcher::Config::default()).boxed();
        let (mut events, mut pauses) = (watch(), growing.build());
        // When to list all of them anew, after an error: a list that ends shows that they are followed again.
        let mut again = None;
        let mut definitions = keeper.fleet.watch_definitions();
        let mut records = keeper.fleet.watch_records();
        let mut follower = Follower { keeper, api: api.clone(), error, listed: Listed::default(), done: None };
        // When to look, where there is something to look at.
        let (mut due, mut last) = (None, Instant::now());
        loop {
            let (next, anew) = (sleep_until(due.unwrap_or(last)), sleep_until(again.unwrap_or(last)));
            tokio::select! {
                event = events.next(), if again.is_none() => match event {
                    Some(Ok(event)) => {
                        if !matches!(event, Event::Init) {
                            pauses = growing.build();
                        }
                        follower.take(event);
                    }
                    Some(Err(error)) => {
                        follower.fails(&format!("{:#}", anyhow::Error::from(error)));
                        again = Some(Instant::now() + pauses.next().unwrap_or(LONGEST_PAUSE));
                        continue;
                    }
                    None => return Ok(()),
                },
                () = anew, if again.is_some() => {
                    (events, again) = (watch(), None);
                    continue;
                }
                changed = definitions.changed() => if changed.is_err() { return Ok(()) },
                changed = records.changed() => if changed.is_err() { return Ok(()) },
                () = next, if due.is_some() => {
                    last = Instant::now();
                    due = if follower.look(&stop).await { None } else { Some(last + RETRY) };
                    continue;
                }
                () = stop.cancelled() => return Ok(()),
            }
            due.get_or_insert(last + PACE);
        }
    }
}

/// What was last done. While it is of the same, there is nothing to do.
struct Done {
    lists: u64,
    resources: resources::Resources,
    /// The definitions' generations.
    definitions: BTreeMap<String, u64>,
    records: Arc<Records>,
    refusals: Refusals,
}

struct Follower {
    keeper: Keeper,
    api: Api<FleetHealthCheck>,
    error: IntGauge,
    listed: Listed,
    done: Option<Done>,
}

impl Follower {
    fn take(&mut self, event: Event<FleetHealthCheck>) {
        // The first word of a list is said before it is asked for.
        let is_answer = !matches!(event, Event::Init);
        self.listed.take(event);
        if is_answer && !self.doubts() {
            self.error.set(0);
        }
    }

    /// Whether the API server shows less than there was, and it was not seen to go.
    fn doubts(&self) -> bool {
        let is_missing = |name: &String| !self.listed.items().contains_key(name) && !self.listed.is_gone(name);
        self.listed.is_doubtful() || self.keeper.source.resources().keys().any(is_missing)
    }

    /// What they said stays in force; it is logged once.
    fn fails(&self, why: &str) {
        if self.error.get() == 0 {
            tracing::error!(why, "resources are not followed, what they said stays in force");
        }
        self.error.set(1);
    }

    /// Makes what they say, and says of each what became of it. False: something is to be tried again.
    async fn look(&mut self, stop: &CancellationToken) -> bool {
        if self.listed.lists() == 0 {
            return true;
        }
        if self.doubts() {
            self.fails(
                "the API server shows none any more, which is not believed: what is gone while the hub watches, is",
            );
        }
        match self.refusals().await {
            Ok(refusals) => self.say(&refusals, stop).await,
            Err(error) => {
                tracing::warn!(error = format!("{:#}", anyhow::Error::from(error)), "resources not done; again soon");
                false
            }
        }
    }

    /// Makes what is to be changed; gives the resources that are not done.
    async fn refusals(&mut self) -> Result<Refusals, ChangeError> {
        let fleet = &self.keeper.fleet;
        let generations = fleet.definitions().iter().map(|(name, view)| (name.clone(), view.generation)).collect();
        let (resources, definitions, records) = (self.listed.resources(), generations, fleet.records());
        if let Some(done) = &self.done
            && done.lists == self.listed.lists()
            && done.resources == resources
            && done.definitions == definitions
            && Arc::ptr_eq(&done.records, &records)
        {
            return Ok(done.refusals.clone());
        }
        let refusals = match self.keep(&resources, None).await {
            Err(ChangeError::Invalid(_)) => self.one_by_one(&resources).await?,
            kept => kept?,
        };
        self.done =
            Some(Done { lists: self.listed.lists(), resources, definitions, records, refusals: refusals.clone() });
        Ok(refusals)
    }

    /// One that the hub does not take hinders no other.
    async fn one_by_one(&self, resources: &resources::Resources) -> Result<Refusals, ChangeError> {
        let mut rejected = Refusals::new();
        // What is to be withdrawn is, also where none of the others is taken: no resource has the empty name.
        let mut refusals = self.keep(resources, Some("")).await?;
        for name in resources.keys() {
            match self.keep(resources, Some(name)).await {
                Ok(known) => refusals = known,
                Err(ChangeError::Invalid(why)) => drop(rejected.insert(name.clone(), Refusal::Rejected(why))),
                Err(error) => return Err(error),
            }
        }
        refusals.extend(rejected);
        Ok(refusals)
    }

    /// Makes what is to be changed; of what is to be put only what has this name, where there is one.
    async fn keep(&self, resources: &resources::Resources, only: Option<&str>) -> Result<Refusals, ChangeError> {
        let plan = |owned: &[Owned], existing: &Existing| {
            let (plan, refusals) = resources::plan(owned, resources, |name| self.listed.is_gone(name), existing);
            let plan = match only {
                Some(name) => resources::put_only(plan, name, owned),
                None => plan,
            };
            Ok((plan, refusals))
        };
        match self.keeper.keep(Owner::Resources, None, plan).await {
            Ok((_, refusals)) => Ok(refusals),
            Err(Failure::Change(error)) => Err(error),
            Err(Failure::Refused(findings)) => {
                Err(ChangeError::Invalid(findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))
            }
        }
    }

    /// Writes the statuses that changed. False: not all of them could be written.
    async fn say(&mut self, refusals: &Refusals, stop: &CancellationToken) -> bool {
        let (definitions, records, now) = (self.keeper.fleet.definitions(), self.keeper.fleet.records(), clock::now());
        let new = |name: &String, item: &Item| {
            let view = definitions.get(name).map(Arc::as_ref);
            let known = Known { generation: item.generation, refusal: refusals.get(name), view };
            status(&known, |cluster| selects(item, cluster, &records), &item.status, now)
        };
        let all = self.listed.items().iter().map(|(name, item)| (name.clone(), new(name, item), &item.status));
        let changed: Vec<_> = all.filter(|(_, new, old)| new != *old).map(|(name, new, _)| (name, new)).collect();
        let mut all_written = true;
        for (name, new) in changed {
            if stop.is_cancelled() {
                return true;
            }
            match self.write(&name, &new).await {
                Ok(()) => self.listed.written(&name, new),
                Err(NotWritten::ThisOne) => all_written = false,
                Err(NotWritten::Any) => return false,
            }
        }
        all_written
    }

    async fn write(&self, name: &str, status: &FleetHealthCheckStatus) -> Result<(), NotWritten> {
        let patch = Patch::Merge(json!({ "status": status }));
        let params = PatchParams::default();
        let (failed, why) = match timeout(WRITE_LIMIT, self.api.patch_status(name, &params, &patch)).await {
            Ok(Ok(_)) => return Ok(()),
            // It was deleted meanwhile: the watch will say so.
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => return Ok(()),
            Ok(Err(error @ kube::Error::Api(_))) if is_of_one(&error) => (NotWritten::ThisOne, error.to_string()),
            Ok(Err(error)) => (NotWritten::Any, format!("{:#}", anyhow::Error::from(error))),
            Err(_) => (NotWritten::Any, "no answer".to_owned()),
        };
        tracing::warn!(resource = name, why, "the status of a resource is not written");
        Err(failed)
    }
}

/// Why a status is not written.
enum NotWritten {
    /// The API server does not take this one.
    ThisOne,
    /// It takes none for now.
    Any,
}

fn is_of_one(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409 || status.code == 422)
}

fn selects(item: &Item, cluster: &str, records: &Records) -> bool {
    let selector = item.resource.wanted.as_ref().ok().map(|wanted| &wanted.spec.cluster_selector);
    selector.zip(records.get(cluster)).is_some_and(|(selector, record)| matches(selector, &record.labels))
}

#[cfg(test)]
mod tests;
