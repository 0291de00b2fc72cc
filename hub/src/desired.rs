//! What the fleet shall be: the clusters that were added, their labels, the definitions, and what each cluster gets.
//!
//! One task owns it and makes one change after the other, each answered after its commit. The fleet's state learns of
//! changes by messages to the owner; sessions follow the set of their cluster on a watch.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

use active_monitor_core::definition::{FleetHealthCheck, parse};
use active_monitor_core::fleet::Change;
use active_monitor_core::session::frame::DefinitionStatus;
use active_monitor_core::view::{
    ClusterAdd, ClusterPatch, ClusterToken, DefinitionView, EnrolmentDecision, Event, PendingEnrolment, Restore,
};
use prometheus::IntGauge;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::expected::Expected;
use crate::owner::{ChangeError, DefinitionSet, Definitions, FleetHandle, Records, Terms};
use crate::store::{AgentKey, Store, StoreError};
use rendered::Rendered;

mod clusters;
mod definitions;
mod enrolment;
mod reload;
mod rendered;
mod replace;
mod restored;
mod statuses;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use clusters::cluster_version;
pub(crate) use enrolment::{Asks, Tested};
pub(crate) use reload::{Stale, Which};
pub(crate) use replace::Replacement;

/// Requests that share one round of storing statuses.
const BATCH: usize = 64;
/// What is said of each definition while none is given out.
const HELD_BACK: &str = "the hub came back from the past: it is held back until `fleetcheck hub confirm-restore`";

type Answer<T> = oneshot::Sender<Result<T, ChangeError>>;

/// What others ask of this task.
pub(crate) enum Request {
    AddCluster(ClusterAdd, Answer<ClusterToken>),
    PatchCluster(String, ClusterPatch, Expected, Answer<()>),
    RemoveCluster(String, Answer<()>),
    PutDefinition(Box<FleetHealthCheck>, Expected, Answer<(Arc<DefinitionView>, bool)>),
    DeleteDefinition(String, Expected, Answer<()>),
    Replace(Replacement, Answer<()>),
    /// What the agent of a cluster said of all its definitions, in the session with this epoch.
    Statuses {
        cluster: String,
        epoch: u64,
        statuses: Vec<DefinitionStatus>,
    },
    /// The definitions of a cluster.
    Subscribe(String, oneshot::Sender<watch::Receiver<Option<DefinitionSet>>>),
    /// Another replica may have changed this.
    Reload(Stale, Answer<()>),
    /// A cluster has enrolled.
    Bound {
        cluster: String,
        uid: String,
        key: AgentKey,
        answer: oneshot::Sender<()>,
    },
    /// A key asks to enrol where that takes a person's approval.
    AskApproval(Asks, Answer<PendingEnrolment>),
    /// A person decides upon the key with this fingerprint.
    Decide {
        cluster: String,
        key_fingerprint: String,
        decision: EnrolmentDecision,
        /// Who decides.
        who: String,
        answer: Answer<()>,
    },
    /// A self-test has ended.
    SelfTested(Tested, Answer<()>),
    /// A certificate is about to be given out for this key.
    Issued {
        cluster: String,
        key: AgentKey,
        answer: Answer<()>,
    },
    /// The store came back from the past.
    Restored(Restore, Answer<()>),
    /// A person knows of it.
    ConfirmRestore(Answer<()>),
    /// A new token for a cluster that is there.
    NewToken {
        name: String,
        rebind: bool,
        answer: Answer<ClusterToken>,
    },
}

/// A definition and its place in time.
struct Stored {
    generation: u64,
    /// Or why this version of the hub cannot read it.
    definition: Result<FleetHealthCheck, String>,
    /// As written.
    value: serde_json::Value,
}

/// The desired state.
pub(crate) struct Desired {
    store: Arc<dyn Store>,
    terms: Terms,
    records: Records,
    stored: BTreeMap<String, Stored>,
    rendered: Rendered,
    /// Cluster, then definition.
    statuses: BTreeMap<String, BTreeMap<String, DefinitionStatus>>,
    /// Clusters whose statuses the store may not have yet, and the epoch of the session in which they were said.
    unsaved: BTreeMap<String, u64>,
    sets: BTreeMap<String, watch::Sender<Option<DefinitionSet>>>,
    /// The store came back from the past and nobody has confirmed it: no set is given out.
    restore: Option<Restore>,
    unconfirmed: IntGauge,
    published_records: watch::Sender<Arc<Records>>,
    published: watch::Sender<Arc<Definitions>>,
}

/// Answers requests until `stop`.
pub(crate) async fn run(
    mut desired: Desired,
    mut requests: mpsc::Receiver<Request>,
    fleet: FleetHandle,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            count = requests.recv_many(&mut batch, BATCH) => if count == 0 { return Ok(()) },
            () = stop.cancelled() => return Ok(()),
        }
        let alone = desired.alone(&batch, &fleet).await;
        for request in batch.drain(..) {
            desired.handle(request, &fleet).await;
        }
        if let Some(alone) = alone {
            alone.end().await;
        }
        desired.keep_statuses(&fleet).await;
    }
}

impl Desired {
    /// Reads what is stored. A definition that this version cannot read is kept and shown; the clusters keep what they
    /// have of it.
    pub(crate) async fn load(store: Arc<dyn Store>, terms: Terms) -> Result<Desired, StoreError> {
        let records: Records =
            store.clusters().await?.into_iter().map(|record| (record.name.clone(), record)).collect();
        let mut stored = BTreeMap::new();
        for record in store.definitions().await? {
            let definition = parse::from_value(record.definition.clone()).map_err(|error| error.to_string());
            if let Err(error) = &definition {
                tracing::error!(definition = record.name, error, "stored definition not read");
            }
            let entry = Stored { generation: record.generation, definition, value: record.definition };
            stored.insert(record.name, entry);
        }
        let mut statuses = BTreeMap::<String, BTreeMap<_, _>>::new();
        for (cluster, status) in store.definition_statuses().await? {
            statuses.entry(cluster).or_default().insert(status.name.clone(), status);
        }
        let restore = store.restore().await?;
        let unconfirmed = terms.restore_unconfirmed.clone();
        unconfirmed.set(restore.is_some().into());
        let mut desired = Desired {
            store,
            restore,
            unconfirmed,
            terms,
            published_records: watch::Sender::new(Arc::new(records.clone())),
            records,
            stored,
            rendered: Rendered::default(),
            statuses,
            unsaved: BTreeMap::new(),
            sets: BTreeMap::new(),
            published: watch::Sender::default(),
        };
        for (name, stored) in &desired.stored {
            if stored.definition.is_err() {
                desired.rendered.put_unreadable(name);
            }
        }
        for record in desired.records.values() {
            desired.rendered.put_cluster(record, readable(&desired.stored));
        }
        let views = desired.stored.keys().filter_map(|name| Some((name.clone(), desired.view(name)?)));
        let views: Definitions = views.map(|(name, view)| (name, Arc::new(view))).collect();
        desired.published.send_replace(Arc::new(views));
        Ok(desired)
    }

    /// How many definitions there are.
    pub(crate) fn count(&self) -> u64 {
        self.stored.len() as u64
    }

    /// That the store came back from the past, where nobody has confirmed it.
    pub(crate) fn restore(&self) -> Option<&Restore> {
        self.restore.as_ref()
    }

    /// What a cluster gets; nothing while that is held back, from it or from all.
    fn set(&self, cluster: &str) -> Option<DefinitionSet> {
        let is_held_back = self.restore.is_some() || self.rendered.is_cordoned(cluster);
        (!is_held_back).then(|| self.rendered.set(cluster))
    }

    /// The published definitions.
    pub(crate) fn definitions(&self) -> watch::Receiver<Arc<Definitions>> {
        self.published.subscribe()
    }

    /// The published records of the clusters.
    pub(crate) fn records(&self) -> watch::Receiver<Arc<Records>> {
        self.published_records.subscribe()
    }

    async fn handle(&mut self, request: Request, fleet: &FleetHandle) {
        // An answer that nobody waits for is dropped: the change is made all the same.
        match request {
            Request::AddCluster(add, answer) => drop(answer.send(self.add_cluster(add, fleet).await)),
            Request::PatchCluster(name, patch, expected, answer) => {
                drop(answer.send(self.patch_cluster(&name, patch, &expected, fleet).await));
            }
            Request::RemoveCluster(name, answer) => drop(answer.send(self.remove_cluster(&name, fleet).await)),
            Request::PutDefinition(definition, expected, answer) => {
                drop(answer.send(self.put_definition(*definition, &expected, fleet).await));
            }
            Request::DeleteDefinition(name, expected, answer) => {
                drop(answer.send(self.delete_definition(&name, &expected, fleet).await));
            }
            Request::Reload(stale, answer) => drop(answer.send(self.reload(stale, fleet).await)),
            Request::Replace(replacement, answer) => drop(answer.send(self.replace(replacement, fleet).await)),
            Request::Statuses { cluster, epoch, statuses } => self.put_statuses(cluster, epoch, statuses, fleet),
            Request::Subscribe(cluster, answer) => {
                let set = self.set(&cluster);
                let sender = self.sets.entry(cluster).or_insert_with(|| watch::Sender::new(set));
                drop(answer.send(sender.subscribe()));
            }
            Request::Restored(restore, answer) => drop(answer.send(self.restored(restore, fleet).await)),
            Request::ConfirmRestore(answer) => drop(answer.send(self.confirm_restore(fleet).await)),
            Request::Issued { cluster, key, answer } => drop(answer.send(self.issued(&cluster, key).await)),
            Request::NewToken { name, rebind, answer } => {
                drop(answer.send(self.new_token(&name, rebind, fleet).await));
            }
            Request::AskApproval(asks, answer) => drop(answer.send(self.ask_approval(asks, fleet).await)),
            Request::Decide { cluster, key_fingerprint, decision, who, answer } => {
                drop(answer.send(self.decide(&cluster, &key_fingerprint, decision, &who, fleet).await));
            }
            Request::SelfTested(tested, answer) => drop(answer.send(self.self_tested(tested, fleet).await)),
            Request::Bound { cluster, uid, key, answer } => {
                self.bound(&cluster, uid, key, fleet).await;
                let _ = answer.send(());
            }
        }
    }

    /// Publishes what changed: the sets to the sessions, the definitions to people.
    async fn republish(&mut self, fleet: &FleetHandle) {
        for (cluster, sender) in &self.sets {
            let set = self.set(cluster);
            sender.send_if_modified(|current| {
                let changed = *current != set;
                *current = set;
                changed
            });
        }
        let old = self.published.borrow().clone();
        let mut new = Definitions::new();
        let mut changed = BTreeSet::new();
        for name in self.stored.keys() {
            let Some(view) = self.view(name) else { continue };
            let same = old.get(name).filter(|old| ***old == view).cloned();
            if same.is_none() {
                changed.insert(name.clone());
            }
            new.insert(name.clone(), same.unwrap_or_else(|| Arc::new(view)));
        }
        changed.extend(old.keys().filter(|name| !new.contains_key(*name)).cloned());
        let count = new.len() as u64;
        self.published.send_replace(Arc::new(new));
        let mut sent = fleet.change(Change::Definitions(count)).await;
        for name in changed {
            sent = sent.and(fleet.announce(Event::Definition { name }).await);
        }
        if let Err(error) = sent {
            tracing::debug!(%error, "definitions not announced");
        }
    }

    fn view(&self, name: &str) -> Option<DefinitionView> {
        let stored = self.stored.get(name)?;
        Some(DefinitionView {
            name: name.to_owned(),
            generation: stored.generation,
            definition: stored.value.clone(),
            message: match &stored.definition {
                Ok(_) if self.restore.is_some() => HELD_BACK.to_owned(),
                Ok(_) => String::new(),
                Err(why) => format!("this hub cannot read it, the clusters keep what they have: {why}"),
            },
            // Who owns it is the source's to say.
            git: None,
            resource: None,
            clusters: self.rendered.statuses(name, stored.generation, &self.statuses),
        })
    }
}

/// Name, generation and definition of each that can be read.
fn readable(stored: &BTreeMap<String, Stored>) -> impl Iterator<Item = (&String, u64, &FleetHealthCheck)> {
    stored.iter().filter_map(|(name, stored)| Some((name, stored.generation, stored.definition.as_ref().ok()?)))
}

fn not_found(kind: &'static str, name: &str) -> ChangeError {
    ChangeError::NotFound { kind, name: name.to_owned() }
}
