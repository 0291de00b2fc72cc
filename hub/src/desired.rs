//! What the fleet shall be: the clusters that were added, their labels, the definitions, and what each cluster gets.
//!
//! One task owns it and makes one change after the other, each answered after its commit. The fleet's state learns of
//! changes by messages to the owner; sessions follow the set of their cluster on a watch.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::definition::{FleetHealthCheck, parse, validate};
use active_monitor_core::fleet::Change;
use active_monitor_core::names;
use active_monitor_core::session::frame::{DefinitionStatus, MAX_HUB_FRAME_BYTES};
use active_monitor_core::view::{
    ClusterAdd, ClusterPatch, ClusterStatus, ClusterToken, DefinitionView, EnrolmentDecision, Event, PendingEnrolment,
    Restore,
};
use jiff::Timestamp;
use prometheus::IntGauge;
use rand::RngCore;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::expected::{Expected, version};
use crate::owner::{ChangeError, DefinitionSet, Definitions, FleetHandle, Records, Terms, known};
use crate::revocations::{Subject, later};
use crate::store::{AgentKey, ClusterRecord, EnrolmentToken, Store, StoreError};
use crate::trust;
use rendered::Rendered;

mod enrolment;
mod reload;
mod rendered;
mod replace;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use enrolment::{Asks, Tested};
pub(crate) use reload::{Stale, Which};
pub(crate) use replace::Replacement;

/// Requests that share one round of storing statuses.
const BATCH: usize = 64;
/// What is said of each definition while none is given out.
const HELD_BACK: &str = "the hub came back from the past: it is held back until `fleetcheck hub confirm-restore`";
/// How long a token may be used.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

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

    async fn restored(&mut self, restore: Restore, fleet: &FleetHandle) -> Result<(), ChangeError> {
        if self.restore.is_some() {
            return Ok(());
        }
        tracing::error!(reason = restore.reason, "this hub came back from the past: definitions are held back");
        // Held back whether or not that can be stored: the next agent tells it again.
        let stored = self.store.put_restore(&restore).await.map_err(ChangeError::Store);
        self.restore = Some(restore);
        self.publish_restore(fleet).await?;
        stored
    }

    async fn confirm_restore(&mut self, fleet: &FleetHandle) -> Result<(), ChangeError> {
        if self.restore.is_none() {
            return Err(ChangeError::Conflict("there is no restore to confirm".to_owned()));
        }
        self.store.confirm_restore(clock::now()).await.map_err(ChangeError::Store)?;
        self.restore = None;
        self.publish_restore(fleet).await
    }

    async fn publish_restore(&mut self, fleet: &FleetHandle) -> Result<(), ChangeError> {
        self.unconfirmed.set(self.restore.is_some().into());
        fleet.change(Change::Restore(self.restore.clone())).await?;
        self.republish(fleet).await;
        Ok(())
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
                if let Some(record) = self.records.get_mut(&cluster) {
                    record.cluster_uid = Some(uid);
                    record.valid_from = record.valid_from.max(Some(key.issued_at));
                    record.agent_keys = vec![key];
                    record.self_test = None;
                    record.pending_enrolment = None;
                    let record = record.clone();
                    self.publish_record(&record, fleet).await;
                }
                let _ = answer.send(());
            }
        }
    }

    async fn add_cluster(&mut self, add: ClusterAdd, fleet: &FleetHandle) -> Result<ClusterToken, ChangeError> {
        let ClusterAdd { name, labels, annotations } = add;
        names::dns_label(&name).map_err(|rule| ChangeError::Invalid(format!("name {rule}")))?;
        let now = clock::now();
        let mut record = match self.records.get(&name) {
            None => {
                let created_at = self.terms.revocations.addition(&name, now);
                ClusterRecord { name: name.clone(), created_at, ..ClusterRecord::default() }
            }
            Some(record) => {
                let view = fleet.view();
                let pending = view.clusters.get(&name).is_some_and(|entry| entry.view.status == ClusterStatus::Pending);
                if !pending {
                    let text = format!(
                        "the cluster {name} is there and has connected; `fleetcheck cluster token {name}` makes a new \
                         token for it"
                    );
                    return Err(ChangeError::Conflict(text));
                }
                record.clone()
            }
        };
        record.labels.extend(labels);
        record.annotations.extend(annotations);
        check_metadata(&record)?;
        self.store.put_cluster(&record).await.map_err(ChangeError::Store)?;
        let token = self.make_token(&name, now).await?;
        record.pending_enrolment = None;
        self.set_record(record, fleet).await;
        Ok(token)
    }

    async fn new_token(&mut self, name: &str, rebind: bool, fleet: &FleetHandle) -> Result<ClusterToken, ChangeError> {
        let mut record = self.records.get(name).cloned().ok_or_else(|| not_found("cluster", name))?;
        let now = clock::now();
        if rebind {
            let at = later(now, last_told(&record));
            let unbound = self.store.unbind_cluster(name, at);
            self.terms.revocations.revoke(Subject::Binding(name), at, unbound).await?;
            record.cluster_uid = None;
            record.agent_keys = Vec::new();
            record.self_test = None;
            record.valid_from = Some(at);
            self.records.insert(name.to_owned(), record.clone());
            self.publish_record(&record, fleet).await;
            fleet.cut(name, "the cluster was bound anew").await?;
        }
        let token = self.make_token(name, now).await?;
        record.pending_enrolment = None;
        self.records.insert(name.to_owned(), record.clone());
        self.publish_record(&record, fleet).await;
        Ok(token)
    }

    async fn make_token(&self, name: &str, now: Timestamp) -> Result<ClusterToken, ChangeError> {
        let mut secret = [0_u8; 32];
        rand::rng().fill_bytes(&mut secret);
        let secret = hex::encode(secret);
        let expires_at = now.checked_add(TOKEN_LIFE).unwrap_or(Timestamp::MAX);
        let token = EnrolmentToken { hash: Sha256::digest(secret.as_bytes()).into(), expires_at, spent_by: None };
        self.store.put_enrolment_token(name, &token).await.map_err(ChangeError::Store)?;
        Ok(ClusterToken {
            token: format!("{name}.{secret}.{}", self.terms.authority.trust().ca.fingerprint()),
            cluster: name.to_owned(),
            expires_at,
            agent_address: self.terms.agent_address.clone(),
            enrolment_address: self.terms.enrolment_address.clone(),
        })
    }

    /// Keeps the key of the newest certificate.
    async fn issued(&mut self, cluster: &str, key: AgentKey) -> Result<(), ChangeError> {
        let record = self.records.get_mut(cluster).ok_or_else(|| not_found("cluster", cluster))?;
        let keys = trust::keys_with(record, key);
        self.store.put_agent_keys(cluster, &keys).await.map_err(ChangeError::Store)?;
        record.agent_keys = keys;
        self.published_records.send_replace(Arc::new(self.records.clone()));
        Ok(())
    }

    async fn patch_cluster(
        &mut self,
        name: &str,
        patch: ClusterPatch,
        expected: &Expected,
        fleet: &FleetHandle,
    ) -> Result<(), ChangeError> {
        let mut record = self.records.get(name).cloned().ok_or_else(|| not_found("cluster", name))?;
        expected.check("cluster", name, Some(&cluster_version(&record.labels, &record.annotations)))?;
        let ClusterPatch { labels, annotations } = patch;
        apply_patch(&mut record.labels, labels);
        apply_patch(&mut record.annotations, annotations);
        check_metadata(&record)?;
        self.store.put_cluster(&record).await.map_err(ChangeError::Store)?;
        self.set_record(record, fleet).await;
        Ok(())
    }

    async fn remove_cluster(&mut self, name: &str, fleet: &FleetHandle) -> Result<(), ChangeError> {
        let record = self.records.get(name).ok_or_else(|| not_found("cluster", name))?;
        let at = later(clock::now(), last_told(record));
        let removed = self.store.remove_cluster(name);
        self.terms.revocations.revoke(Subject::Cluster(name), at, removed).await?;
        let removed = self.forget_cluster(name, fleet).await;
        self.republish(fleet).await;
        removed
    }

    async fn put_definition(
        &mut self,
        definition: FleetHealthCheck,
        expected: &Expected,
        fleet: &FleetHandle,
    ) -> Result<(Arc<DefinitionView>, bool), ChangeError> {
        let name = definition.metadata.name.clone();
        let there = self.stored.get(&name).map(|stored| version(&stored.value));
        expected.check("definition", &name, there.as_deref())?;
        let value = serde_json::to_value(&definition).map_err(|error| ChangeError::Invalid(error.to_string()))?;
        let is_new = !self.stored.contains_key(&name);
        if self.stored.get(&name).is_none_or(|stored| stored.value != value) {
            let mut rendered = self.rendered.clone();
            rendered.put(&name, 0, &definition, self.records.values());
            if let Some((cluster, bytes)) = rendered.outgrown(&self.rendered) {
                let text = format!(
                    "the definitions of cluster {cluster} would be {bytes} bytes together, the limit is \
                     {MAX_HUB_FRAME_BYTES}"
                );
                return Err(ChangeError::Invalid(text));
            }
            let generation = self.store.put_definition(&name, &value).await.map_err(ChangeError::Store)?;
            self.rendered.put(&name, generation, &definition, self.records.values());
            self.stored.insert(name.clone(), Stored { generation, definition: Ok(definition), value });
            self.republish(fleet).await;
        }
        match self.published.borrow().get(&name) {
            Some(view) => Ok((Arc::clone(view), is_new)),
            None => Err(not_found("definition", &name)),
        }
    }

    async fn delete_definition(
        &mut self,
        name: &str,
        expected: &Expected,
        fleet: &FleetHandle,
    ) -> Result<(), ChangeError> {
        let stored = self.stored.get(name).ok_or_else(|| not_found("definition", name))?;
        expected.check("definition", name, Some(&version(&stored.value)))?;
        self.store.delete_definition(name).await.map_err(ChangeError::Store)?;
        self.forget(name);
        self.republish(fleet).await;
        Ok(())
    }

    fn forget(&mut self, name: &str) {
        self.stored.remove(name);
        self.rendered.remove_definition(name);
        for statuses in self.statuses.values_mut() {
            statuses.remove(name);
        }
    }

    /// Takes what an agent said of all its definitions; [`Desired::keep_statuses`] stores and publishes it. A session that
    /// another one replaced says nothing: what that one says comes after it was published.
    fn put_statuses(&mut self, cluster: String, epoch: u64, statuses: Vec<DefinitionStatus>, fleet: &FleetHandle) {
        let view = fleet.view();
        let newest = view.clusters.get(&cluster).and_then(|entry| entry.own.as_ref());
        if newest.is_none_or(|own| own.epoch != epoch) || !self.records.contains_key(&cluster) {
            return;
        }
        let old = self.statuses.get(&cluster);
        let mut known = BTreeMap::new();
        for status in statuses {
            let status = match self.stored.get(&status.name) {
                None => continue,
                // Of what the hub did not send, the answer to what it did send once says more.
                Some(stored) if stored.definition.is_err() => old.and_then(|old| old.get(&status.name)).cloned(),
                Some(_) => Some(status),
            };
            known.extend(status.map(|status| (status.name.clone(), status)));
        }
        // What another replica stored of the session before may not have come here yet.
        if old != Some(&known) || self.terms.peers.is_some() || self.unsaved.contains_key(&cluster) {
            self.statuses.insert(cluster.clone(), known);
            self.unsaved.insert(cluster, epoch);
        }
    }

    /// Stores the statuses that changed, all in one commit or few, and publishes them. What cannot be stored is tried
    /// again with the next request; what was said in a session that moved to another replica is as it is there.
    async fn keep_statuses(&mut self, fleet: &FleetHandle) {
        if self.unsaved.is_empty() {
            return;
        }
        let unsaved = std::mem::take(&mut self.unsaved);
        let this = &*self;
        let writes = unsaved.into_iter().map(async |(cluster, epoch)| {
            let written = this.write_statuses(&cluster, epoch).await;
            (cluster, epoch, written)
        });
        let all: Vec<_> = futures::future::join_all(writes).await;
        let mut moved = BTreeMap::new();
        for (cluster, epoch, written) in all {
            match written {
                Ok(true) => {}
                Ok(false) => drop(moved.insert(cluster, epoch)),
                Err(error) => {
                    tracing::warn!(cluster, %error, "definition statuses not stored");
                    self.unsaved.insert(cluster, epoch);
                }
            }
        }
        if let Err(error) = self.reload_statuses(Which::Named(moved.keys().cloned().collect())).await {
            tracing::warn!(%error, "definition statuses of another replica not read");
            self.unsaved.extend(moved);
        }
        self.republish(fleet).await;
    }

    /// False where the session is at another replica by now.
    async fn write_statuses(&self, cluster: &str, epoch: u64) -> Result<bool, StoreError> {
        let known = self.statuses.get(cluster).into_iter().flat_map(BTreeMap::values);
        let statuses: Vec<DefinitionStatus> = known.cloned().collect();
        match &self.terms.peers {
            Some(peers) => peers.store.put_definition_statuses(cluster, epoch, &statuses).await,
            None => self.store.put_definition_statuses(cluster, statuses).await.map(|()| true),
        }
    }

    async fn set_record(&mut self, record: ClusterRecord, fleet: &FleetHandle) {
        self.rendered.put_cluster(&record, readable(&self.stored));
        self.records.insert(record.name.clone(), record.clone());
        self.publish_record(&record, fleet).await;
        self.republish(fleet).await;
    }

    async fn publish_record(&mut self, record: &ClusterRecord, fleet: &FleetHandle) {
        self.published_records.send_replace(Arc::new(self.records.clone()));
        if let Err(error) = fleet.change(Change::Cluster(known(record))).await {
            tracing::debug!(%error, "cluster not published");
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

/// The version of what people set of a cluster.
pub(crate) fn cluster_version(labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> String {
    version(&(labels, annotations))
}

/// The latest that a clock said of a cluster, perhaps one that was ahead: what is revoked of it is revoked later than that.
fn last_told(record: &ClusterRecord) -> Timestamp {
    let issued = record.agent_keys.iter().map(|key| key.issued_at);
    issued.chain(record.valid_from).fold(record.created_at, Timestamp::max)
}

fn apply_patch(values: &mut BTreeMap<String, String>, patch: BTreeMap<String, Option<String>>) {
    for (key, value) in patch {
        match value {
            Some(value) => drop(values.insert(key, value)),
            None => drop(values.remove(&key)),
        }
    }
}

fn check_metadata(record: &ClusterRecord) -> Result<(), ChangeError> {
    let say = |problems: Vec<validate::Problem>| {
        let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
        ChangeError::Invalid(texts.join("; "))
    };
    validate::labels("labels", &record.labels).map_err(say)?;
    validate::annotations("annotations", &record.annotations).map_err(say)
}
