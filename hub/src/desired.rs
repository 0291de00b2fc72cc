//! What the fleet shall be: the clusters that were added, their labels, the definitions, and what each cluster gets.
//!
//! One task owns it and makes one change after the other, each answered after its commit. The fleet's state learns of
//! changes by messages to the owner; sessions follow the set of their cluster on a watch.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::definition::{FleetHealthCheck, names, parse, validate};
use active_monitor_core::fleet::Change;
use active_monitor_core::session::frame::{DefinitionStatus, MAX_HUB_FRAME_BYTES};
use active_monitor_core::view::{ClusterAdd, ClusterPatch, ClusterStatus, ClusterToken, DefinitionView, Event};
use jiff::Timestamp;
use rand::RngCore;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::owner::{ChangeError, DefinitionSet, Definitions, FleetHandle, Records, Terms, known};
use crate::store::{ClusterRecord, EnrolmentToken, Store, StoreError};
use rendered::Rendered;

mod rendered;

/// How long a token may be used.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

type Answer<T> = oneshot::Sender<Result<T, ChangeError>>;

/// What others ask of this task.
pub(crate) enum Request {
    AddCluster(ClusterAdd, Answer<ClusterToken>),
    PatchCluster(String, ClusterPatch, Answer<()>),
    RemoveCluster(String, Answer<()>),
    PutDefinition(Box<FleetHealthCheck>, Answer<(Arc<DefinitionView>, bool)>),
    DeleteDefinition(String, Answer<()>),
    /// What the agent of a cluster said of all its definitions.
    Statuses(String, Vec<DefinitionStatus>),
    /// The definitions of a cluster.
    Subscribe(String, oneshot::Sender<watch::Receiver<DefinitionSet>>),
    /// A cluster has enrolled.
    Bound {
        cluster: String,
        uid: String,
        answer: oneshot::Sender<()>,
    },
}

/// A definition and its place in time.
struct Stored {
    generation: u64,
    definition: FleetHealthCheck,
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
    sets: BTreeMap<String, watch::Sender<DefinitionSet>>,
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
    loop {
        tokio::select! {
            request = requests.recv() => match request {
                Some(request) => desired.handle(request, &fleet).await,
                None => return Ok(()),
            },
            () = stop.cancelled() => return Ok(()),
        }
    }
}

impl Desired {
    /// Reads what is stored. A definition that this version cannot read is left out, and said so.
    pub(crate) async fn load(store: Arc<dyn Store>, terms: Terms) -> Result<Desired, StoreError> {
        let records: Records =
            store.clusters().await?.into_iter().map(|record| (record.name.clone(), record)).collect();
        let mut stored = BTreeMap::new();
        for record in store.definitions().await? {
            match parse::from_value(record.definition.clone()) {
                Ok(definition) => {
                    let entry = Stored { generation: record.generation, definition, value: record.definition };
                    stored.insert(record.name, entry);
                }
                Err(error) => tracing::error!(definition = record.name, %error, "stored definition not read"),
            }
        }
        let mut statuses = BTreeMap::<String, BTreeMap<_, _>>::new();
        for (cluster, status) in store.definition_statuses().await? {
            statuses.entry(cluster).or_default().insert(status.name.clone(), status);
        }
        let mut desired = Desired {
            store,
            terms,
            published_records: watch::Sender::new(Arc::new(records.clone())),
            records,
            stored,
            rendered: Rendered::default(),
            statuses,
            sets: BTreeMap::new(),
            published: watch::Sender::default(),
        };
        for (name, stored) in &desired.stored {
            desired.rendered.put(name, stored.generation, &stored.definition, desired.records.values());
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
            Request::PatchCluster(name, patch, answer) => {
                drop(answer.send(self.patch_cluster(&name, patch, fleet).await));
            }
            Request::RemoveCluster(name, answer) => drop(answer.send(self.remove_cluster(&name, fleet).await)),
            Request::PutDefinition(definition, answer) => {
                drop(answer.send(self.put_definition(*definition, fleet).await));
            }
            Request::DeleteDefinition(name, answer) => drop(answer.send(self.delete_definition(&name, fleet).await)),
            Request::Statuses(cluster, statuses) => self.put_statuses(cluster, statuses, fleet).await,
            Request::Subscribe(cluster, answer) => {
                let set = self.rendered.set(&cluster);
                let sender = self.sets.entry(cluster).or_insert_with(|| watch::Sender::new(set));
                drop(answer.send(sender.subscribe()));
            }
            Request::Bound { cluster, uid, answer } => {
                if let Some(record) = self.records.get_mut(&cluster) {
                    record.cluster_uid = Some(uid);
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
        let now = Timestamp::now();
        let mut record = match self.records.get(&name) {
            None => ClusterRecord { name: name.clone(), created_at: now, ..ClusterRecord::default() },
            Some(record) => {
                let view = fleet.view();
                let pending = view.clusters.get(&name).is_some_and(|entry| entry.view.status == ClusterStatus::Pending);
                if !pending {
                    let text = format!("the cluster {name} has connected; remove it first to add it again");
                    return Err(ChangeError::Conflict(text));
                }
                record.clone()
            }
        };
        record.labels.extend(labels);
        record.annotations.extend(annotations);
        check_metadata(&record)?;
        let mut secret = [0_u8; 32];
        rand::rng().fill_bytes(&mut secret);
        let secret = hex::encode(secret);
        let expires_at = now.checked_add(TOKEN_LIFE).unwrap_or(Timestamp::MAX);
        let token = EnrolmentToken { hash: Sha256::digest(secret.as_bytes()).into(), expires_at, spent_by: None };
        self.store.put_cluster(&record).await.map_err(ChangeError::Store)?;
        self.store.put_enrolment_token(&name, &token).await.map_err(ChangeError::Store)?;
        self.set_record(record, fleet).await;
        Ok(ClusterToken {
            token: format!("{name}.{secret}.{}", self.terms.ca_fingerprint),
            cluster: name,
            expires_at,
            agent_address: self.terms.agent_address.clone(),
            enrolment_address: self.terms.enrolment_address.clone(),
        })
    }

    async fn patch_cluster(&mut self, name: &str, patch: ClusterPatch, fleet: &FleetHandle) -> Result<(), ChangeError> {
        let mut record = self.records.get(name).cloned().ok_or_else(|| not_found("cluster", name))?;
        let ClusterPatch { labels, annotations } = patch;
        apply_patch(&mut record.labels, labels);
        apply_patch(&mut record.annotations, annotations);
        check_metadata(&record)?;
        self.store.put_cluster(&record).await.map_err(ChangeError::Store)?;
        self.set_record(record, fleet).await;
        Ok(())
    }

    async fn remove_cluster(&mut self, name: &str, fleet: &FleetHandle) -> Result<(), ChangeError> {
        if !self.records.contains_key(name) {
            return Err(not_found("cluster", name));
        }
        self.store.remove_cluster(name).await.map_err(ChangeError::Store)?;
        self.records.remove(name);
        self.statuses.remove(name);
        self.sets.remove(name);
        self.rendered.remove_cluster(name);
        self.published_records.send_replace(Arc::new(self.records.clone()));
        let removed = fleet.change(Change::ClusterRemoved { name: name.to_owned() }).await;
        self.republish(fleet).await;
        removed
    }

    async fn put_definition(
        &mut self,
        definition: FleetHealthCheck,
        fleet: &FleetHandle,
    ) -> Result<(Arc<DefinitionView>, bool), ChangeError> {
        let name = definition.metadata.name.clone();
        let value = serde_json::to_value(&definition).map_err(|error| ChangeError::Invalid(error.to_string()))?;
        let is_new = !self.stored.contains_key(&name);
        if self.stored.get(&name).is_none_or(|stored| stored.value != value) {
            let mut rendered = self.rendered.clone();
            rendered.put(&name, 0, &definition, self.records.values());
            if let Some((cluster, bytes)) = rendered.largest().filter(|(_, bytes)| *bytes > MAX_HUB_FRAME_BYTES) {
                let text = format!(
                    "the definitions of cluster {cluster} would be {bytes} bytes together, the limit is \
                     {MAX_HUB_FRAME_BYTES}"
                );
                return Err(ChangeError::Invalid(text));
            }
            let generation = self.store.put_definition(&name, &value).await.map_err(ChangeError::Store)?;
            self.rendered.put(&name, generation, &definition, self.records.values());
            self.stored.insert(name.clone(), Stored { generation, definition, value });
            self.republish(fleet).await;
        }
        match self.published.borrow().get(&name) {
            Some(view) => Ok((Arc::clone(view), is_new)),
            None => Err(not_found("definition", &name)),
        }
    }

    async fn delete_definition(&mut self, name: &str, fleet: &FleetHandle) -> Result<(), ChangeError> {
        if !self.stored.contains_key(name) {
            return Err(not_found("definition", name));
        }
        self.store.delete_definition(name).await.map_err(ChangeError::Store)?;
        self.stored.remove(name);
        self.rendered.remove_definition(name);
        for statuses in self.statuses.values_mut() {
            statuses.remove(name);
        }
        self.republish(fleet).await;
        Ok(())
    }

    async fn put_statuses(&mut self, cluster: String, statuses: Vec<DefinitionStatus>, fleet: &FleetHandle) {
        if !self.records.contains_key(&cluster) {
            return;
        }
        let known: BTreeMap<_, _> = statuses
            .into_iter()
            .filter(|status| self.stored.contains_key(&status.name))
            .map(|status| (status.name.clone(), status))
            .collect();
        if self.statuses.get(&cluster) == Some(&known) {
            return;
        }
        if let Err(error) = self.store.put_definition_statuses(&cluster, known.values().cloned().collect()).await {
            tracing::warn!(cluster, %error, "definition statuses not stored");
        }
        self.statuses.insert(cluster, known);
        self.republish(fleet).await;
    }

    async fn set_record(&mut self, record: ClusterRecord, fleet: &FleetHandle) {
        self.rendered.put_cluster(&record, self.stored.iter().map(|(name, s)| (name, s.generation, &s.definition)));
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
            let set = self.rendered.set(cluster);
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
            clusters: self.rendered.statuses(name, stored.generation, &self.statuses),
        })
    }
}

fn not_found(kind: &'static str, name: &str) -> ChangeError {
    ChangeError::NotFound { kind, name: name.to_owned() }
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
