//! The one task that owns the fleet's state, and the handle by which everything else reaches it.
//!
//! Sessions and the desired state send messages; the owner applies what waits, publishes one view for all of it and then
//! the events. It never waits for the disk or for a peer, so its queue empties as fast as the processor allows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::care::{Window, WindowSpec};
use active_monitor_core::command::{Answer, Command};
use active_monitor_core::definition::FleetHealthCheck;
use active_monitor_core::fleet::{Change, Fleet, FleetView, KnownCluster, Refusal, Said};
use active_monitor_core::session::frame::{Definition, DefinitionStatus, Hello};
use active_monitor_core::view::{
    ClusterAdd, ClusterPatch, ClusterStatus, ClusterToken, ClusterView, DefinitionView, EnrolmentDecision, Event,
    PendingEnrolment, Restore,
};
use active_monitor_runtime::tasks::Tasks;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::authority::Authority;
use crate::clock;
use crate::desired::{self, Asks, Desired, Replacement, Request, Stale, Tested};
use crate::expected::Expected;
use crate::replicas::{self, Peers};
use crate::revocations::{RevocationError, Revocations, Subject as Revoked};
use crate::saver;
use crate::store::{AgentKey, CheckKey, ClusterRecord, Store, StoreError};

mod run;
#[cfg(test)]
mod tests;

/// Messages that may wait for the owner; senders beyond that wait, which slows the sessions down and nothing else.
const QUEUE: usize = 4096;
/// Requests that may wait for the desired state.
const REQUESTS: usize = 64;
/// Events that a slow receiver may lag behind before it must read the view again.
const EVENTS: usize = 4096;
/// How long an agent has for its answer to a command, however many replicas are between.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is no such object.
    #[error("there is no {kind} {name}")]
    NotFound {
        /// `cluster` or `definition`.
        kind: &'static str,
        /// The name that was asked for.
        name: String,
    },
    /// It clashes with what is there.
    #[error("{0}")]
    Conflict(String),
    /// There is not what the caller expects.
    #[error("{0}")]
    Unexpected(String),
    /// The request makes no sense; says which field and what is allowed.
    #[error("{0}")]
    Invalid(String),
    /// The store failed: nothing was changed.
    #[error("the change could not be stored")]
    Store(#[source] StoreError),
    /// It could not be kept that something is revoked: nothing was changed.
    #[error("the revocation could not be kept")]
    Revocation(#[source] RevocationError),
    /// The hub is stopping.
    #[error("the hub is stopping")]
    Stopping,
}

/// Definitions by name.
pub type Definitions = BTreeMap<String, Arc<DefinitionView>>;
/// The durable half of the clusters, by name.
pub type Records = BTreeMap<String, ClusterRecord>;
/// All definitions meant for one cluster, rendered.
pub type DefinitionSet = Arc<Vec<Definition>>;
/// An event and the revision of the published view that has it.
pub type Published = (u64, Arc<Event>);

/// What the hub promises and offers.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Silence after which a cluster is Unreachable.
    pub lease: Duration,
    /// Its CA, whose fingerprint is in tokens.
    pub authority: Arc<Authority>,
    /// `host:port` that agents dial for the session.
    pub agent_address: String,
    /// `host:port` that agents dial to enrol.
    pub enrolment_address: String,
    /// What was revoked.
    pub revocations: Arc<Revocations>,
    /// Shows whether the hub came back from the past and nobody has confirmed it.
    pub restore_unconfirmed: prometheus::IntGauge,
    /// The other replicas; none where the hub is alone.
    pub peers: Option<Arc<Peers>>,
}

#[cfg(test)]
impl Terms {
    /// Those of a hub whose data directory is this one.
    pub(crate) fn of_a_test(data: &std::path::Path) -> Terms {
        let authority = Authority::load(data, crate::ca::AGENT_LIFE, Timestamp::now()).unwrap();
        let revocations = Revocations::load(&data.join(crate::revocations::FILE_NAME)).unwrap();
        Terms {
            lease: Duration::from_secs(15),
            authority: Arc::new(authority),
            agent_address: "hub:7443".to_owned(),
            enrolment_address: "hub:7444".to_owned(),
            restore_unconfirmed: prometheus::IntGauge::new("unconfirmed", "1 or 0").unwrap(),
            revocations: Arc::new(revocations),
            peers: None,
        }
    }
}

/// A session that the owner has opened.
#[derive(Debug)]
pub struct Opened {
    /// Carried by everything that the session says.
    pub epoch: u64,
    /// Answers when the session must end, with the reason.
    pub cut: oneshot::Receiver<&'static str>,
    /// What people ask of the cluster.
    pub commands: mpsc::Receiver<Given>,
}

/// A command on its way, and who waits for the answer.
#[derive(Debug)]
pub struct Given {
    /// The command.
    pub command: Command,
    /// For the answer; dropped where none will come.
    pub answer: oneshot::Sender<Answer>,
}

/// Why a session is not opened.
#[derive(Debug)]
pub(crate) enum NotOpened {
    /// The agent is refused.
    Refused(Refusal),
    /// The store failed: no replica has the session.
    Store(StoreError),
    /// The hub is stopping.
    Stopping,
}

/// Why an agent gave no answer to a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Undelivered {
    /// There is no session: nothing was sent.
    #[error("its agent is not connected")]
    NotConnected,
    /// The session ended first.
    #[error("the connection closed before the answer; it may be done all the same")]
    Closed,
    /// It did not reach the replica of the hub that has the session.
    #[error("it could not be passed on to the replica of the hub that its agent is connected to")]
    NotPassedOn,
}

enum Message {
    /// Under the epoch that the store gave out, where it did.
    Open(Box<Hello>, Option<u64>, oneshot::Sender<Result<Opened, Refusal>>),
    Change(Change),
    /// Hands a command to the open session of a cluster.
    Command(String, Given),
    /// Ends the open session of a cluster, for this reason.
    Cut(String, &'static str),
    Announce(Event),
    /// Answered when everything before it is published.
    Settle(oneshot::Sender<()>),
}

/// Reaches the owner. Cheap to clone.
#[derive(Clone)]
pub struct FleetHandle {
    messages: mpsc::Sender<Message>,
    requests: mpsc::Sender<Request>,
    view: watch::Receiver<Arc<FleetView>>,
    definitions: watch::Receiver<Arc<Definitions>>,
    records: watch::Receiver<Arc<Records>>,
    events: broadcast::Sender<Published>,
    revocations: Arc<Revocations>,
    peers: Option<Arc<Peers>>,
}

/// Reads what is stored and starts the tasks that own the fleet from here on.
///
/// # Errors
/// The store cannot be read.
pub async fn start(store: Arc<dyn Store>, terms: Terms, tasks: &Tasks) -> Result<FleetHandle, StoreError> {
    let now = clock::now();
    let (revocations, peers, lease) = (Arc::clone(&terms.revocations), terms.peers.clone(), terms.lease);
    let mut fleet = Fleet::new(now, terms.lease, env!("CARGO_PKG_VERSION"));
    for record in store.clusters().await? {
        let checks = store.check_states(&record.name).await?;
        fleet.restore(now, known(&record), checks);
    }
    for (key, acknowledgement) in store.acknowledgements().await? {
        let CheckKey { cluster, namespace, name } = key;
        let acknowledgement = Some(acknowledgement);
        fleet.apply(now, Change::Acknowledge { cluster, namespace, name, acknowledgement });
    }
    fleet.apply(now, Change::Windows(windows(store.as_ref()).await?));
    let (messages, queue) = mpsc::channel(QUEUE);
    let (requests, wanted) = mpsc::channel(REQUESTS);
    let (events, _) = broadcast::channel(EVENTS);
    let desired = Desired::load(Arc::clone(&store), terms).await?;
    fleet.apply(now, Change::Definitions(desired.count()));
    fleet.apply(now, Change::Restore(desired.restore().cloned()));
    let (view_sender, view) = watch::channel(fleet.publish());
    let (definitions, records) = (desired.definitions(), desired.records());
    let handle = FleetHandle {
        messages,
        requests,
        view: view.clone(),
        definitions,
        records,
        events: events.clone(),
        revocations,
        peers: peers.clone(),
    };
    tasks.supervise("owner", run::run(fleet, queue, view_sender, events, tasks.stop_token()));
    tasks.supervise("desired", desired::run(desired, wanted, handle.clone(), tasks.stop_token()));
    match peers {
        Some(peers) => replicas::start(&peers, store, handle.clone(), lease, tasks).await?,
        None => tasks.supervise("saver", saver::run(store, view, tasks.stop_token())),
    }
    Ok(handle)
}

/// The maintenance windows as they are stored. One that cannot be read any more opens for nobody, and is in the log.
pub(crate) async fn windows(store: &dyn Store) -> Result<Vec<Window>, StoreError> {
    let parse = |spec: WindowSpec| {
        let name = spec.name.clone();
        Window::parse(spec).inspect_err(|why| tracing::error!(name, why, "maintenance window left out")).ok()
    };
    Ok(store.windows().await?.into_iter().filter_map(parse).collect())
}

/// What the fleet's state takes from a record.
pub(crate) fn known(record: &ClusterRecord) -> KnownCluster {
    let ClusterRecord {
        name,
        labels,
        annotations,
        cluster_uid,
        created_at: _,
        valid_from: _,
        agent_keys: _,
        self_test,
        pending_enrolment,
    } = record.clone();
    KnownCluster { name, labels, annotations, cluster_uid, self_test, pending_enrolment }
}

impl FleetHandle {
    /// The fleet as it was published last.
    pub fn view(&self) -> Arc<FleetView> {
        self.view.borrow().clone()
    }

    /// Follows the published view.
    pub fn watch(&self) -> watch::Receiver<Arc<FleetView>> {
        self.view.clone()
    }

    /// Every definition and what became of it, as published last.
    pub fn definitions(&self) -> Arc<Definitions> {
        self.definitions.borrow().clone()
    }

    /// Follows the definitions and what became of them.
    pub(crate) fn watch_definitions(&self) -> watch::Receiver<Arc<Definitions>> {
        self.definitions.clone()
    }

    /// The durable half of the clusters.
    pub fn records(&self) -> Arc<Records> {
        self.records.borrow().clone()
    }

    /// Follows the durable half of the clusters.
    pub(crate) fn watch_records(&self) -> watch::Receiver<Arc<Records>> {
        self.records.clone()
    }

    /// What changes from here on. An event is sent after the view that has it was published. A receiver that lags must
    /// read the view again.
    pub fn events(&self) -> broadcast::Receiver<Published> {
        self.events.subscribe()
    }

    /// Adds a cluster, or makes a new token for one that never connected.
    ///
    /// # Errors
    /// The name or a label is not allowed, or the cluster is there and has connected.
    pub async fn add_cluster(&self, add: ClusterAdd) -> Result<ClusterToken, ChangeError> {
        let token = self.request(|answer| Request::AddCluster(add, answer)).await??;
        self.settled().await?;
        Ok(token)
    }

    /// Changes labels and annotations.
    ///
    /// # Errors
    /// There is no such cluster, or a label is not allowed.
    pub async fn patch_cluster(&self, name: &str, patch: ClusterPatch) -> Result<ClusterView, ChangeError> {
        self.patch_cluster_if(name, patch, Expected::Anything).await
    }

    /// Changes labels and annotations where they are as expected.
    ///
    /// # Errors
    /// There is no such cluster, they are others, or a label is not allowed.
    pub async fn patch_cluster_if(
        &self,
        name: &str,
        patch: ClusterPatch,
        expected: Expected,
    ) -> Result<ClusterView, ChangeError> {
        let () = self.request(|answer| Request::PatchCluster(name.to_owned(), patch, expected, answer)).await??;
        self.settled().await?;
        self.cluster(name)
    }

    /// A cluster as it is published.
    fn cluster(&self, name: &str) -> Result<ClusterView, ChangeError> {
        match self.view().clusters.get(name) {
            Some(entry) => Ok(entry.view.clone()),
            None => Err(ChangeError::NotFound { kind: "cluster", name: name.to_owned() }),
        }
    }

    /// Removes a cluster and cuts its session.
    ///
    /// # Errors
    /// There is no such cluster.
    pub async fn remove_cluster(&self, name: &str) -> Result<(), ChangeError> {
        self.request(|answer| Request::RemoveCluster(name.to_owned(), answer)).await??;
        self.settled().await
    }

    /// Adds or replaces a definition; true when it is new. The same content again changes nothing.
    ///
    /// # Errors
    /// The set of a cluster would become larger than a frame may be.
    pub async fn put_definition(
        &self,
        definition: FleetHealthCheck,
    ) -> Result<(Arc<DefinitionView>, bool), ChangeError> {
        self.put_definition_if(definition, Expected::Anything).await
    }

    /// Adds or replaces a definition where there is what is expected. True: it is new.
    ///
    /// # Errors
    /// There is something else, or the set of a cluster would become larger than a frame may be.
    pub async fn put_definition_if(
        &self,
        definition: FleetHealthCheck,
        expected: Expected,
    ) -> Result<(Arc<DefinitionView>, bool), ChangeError> {
        let put = self.request(|answer| Request::PutDefinition(Box::new(definition), expected, answer)).await??;
        self.settled().await?;
        Ok(put)
    }

    /// Deletes a definition and withdraws it from the clusters.
    ///
    /// # Errors
    /// There is no such definition.
    pub async fn delete_definition(&self, name: &str) -> Result<(), ChangeError> {
        self.delete_definition_if(name, Expected::Anything).await
    }

    /// Deletes a definition where it is as expected.
    ///
    /// # Errors
    /// There is no such definition, or it is another one.
    pub async fn delete_definition_if(&self, name: &str, expected: Expected) -> Result<(), ChangeError> {
        self.request(|answer| Request::DeleteDefinition(name.to_owned(), expected, answer)).await??;
        self.settled().await
    }

    /// Makes many changes as one.
    ///
    /// # Errors
    /// Other than the store's: nothing was changed.
    pub(crate) async fn replace(&self, replacement: Replacement) -> Result<(), ChangeError> {
        self.request(|answer| Request::Replace(replacement, answer)).await??;
        self.settled().await
    }

    /// Opens a session; the one before it is cut.
    ///
    /// # Errors
    /// See [`NotOpened`].
    pub(crate) async fn open(&self, hello: Hello) -> Result<Opened, NotOpened> {
        let epoch = match &self.peers {
            Some(peers) => Some(self.epoch(peers, &hello).await?),
            None => None,
        };
        let (answer, answered) = oneshot::channel();
        let message = Message::Open(Box::new(hello), epoch, answer);
        self.messages.send(message).await.map_err(|_| NotOpened::Stopping)?;
        let opened = answered.await.map_err(|_| NotOpened::Stopping)?;
        if let Err(Refusal::OtherUid { name, given, .. }) = &opened {
            self.tell_of_foreign(name.clone(), given.clone()).await;
        }
        opened.map_err(NotOpened::Refused)
    }

    /// Where there are other replicas, they show too that an agent of another cluster was refused.
    async fn tell_of_foreign(&self, cluster: String, cluster_uid: String) {
        let Some(peers) = &self.peers else { return };
        if let Err(error) = peers.store.note_foreign(&cluster, &cluster_uid).await {
            tracing::warn!(cluster, %error, "other replicas do not show that an agent was refused");
        }
    }

    /// The epoch of a session that is at this replica from now on. Where the store refuses one, 0: the fleet, which then
    /// knows what the store does, says why.
    async fn epoch(&self, peers: &Peers, hello: &Hello) -> Result<u64, NotOpened> {
        let (cluster, uid) = (&hello.cluster, &hello.cluster_uid);
        let epoch = peers.store.open_session(cluster, uid).await.map_err(NotOpened::Store)?;
        let records = self.records();
        let is_known = records.get(cluster).is_some_and(|record| record.cluster_uid.as_ref() == Some(uid));
        if epoch.is_none() || !is_known {
            let reloaded = self.reload(Stale { clusters: true, ..Stale::default() }).await;
            reloaded.map_err(|error| match error {
                ChangeError::Store(error) => NotOpened::Store(error),
                ChangeError::NotFound { .. }
                | ChangeError::Conflict(_)
                | ChangeError::Unexpected(_)
                | ChangeError::Invalid(_)
                | ChangeError::Revocation(_)
                | ChangeError::Stopping => NotOpened::Stopping,
            })?;
        }
        Ok(epoch.unwrap_or(0))
    }

    /// Reads again what another replica may have changed.
    ///
    /// # Errors
    /// The store fails.
    pub(crate) async fn reload(&self, stale: Stale) -> Result<(), ChangeError> {
        self.request(|answer| Request::Reload(stale, answer)).await??;
        self.settled().await
    }

    /// The other replicas; none where the hub is alone.
    pub fn peers(&self) -> Option<&Arc<Peers>> {
        self.peers.as_ref()
    }

    /// Passes on what an agent said in a session.
    pub(crate) async fn said(&self, cluster: &str, epoch: u64, what: Said) -> Result<(), ChangeError> {
        self.change(Change::Said { cluster: cluster.to_owned(), epoch, what }).await
    }

    /// Applies a change to the fleet's state, soon.
    pub(crate) async fn change(&self, change: Change) -> Result<(), ChangeError> {
        self.messages.send(Message::Change(change)).await.map_err(|_| ChangeError::Stopping)
    }

    /// Applies a change to the fleet's state; it is in the published view when this returns.
    ///
    /// # Errors
    /// The hub is stopping.
    pub(crate) async fn apply(&self, change: Change) -> Result<(), ChangeError> {
        self.change(change).await?;
        self.settled().await
    }

    /// Publishes an event of a state that is not in the view.
    pub(crate) async fn announce(&self, event: Event) -> Result<(), ChangeError> {
        self.messages.send(Message::Announce(event)).await.map_err(|_| ChangeError::Stopping)
    }

    /// The definitions meant for a cluster, from here on; nothing while they are held back.
    pub(crate) async fn definition_set(
        &self,
        cluster: &str,
    ) -> Result<watch::Receiver<Option<DefinitionSet>>, ChangeError> {
        self.request(|answer| Request::Subscribe(cluster.to_owned(), answer)).await
    }

    /// Keeps what an agent said, in the session with this epoch, of all its definitions.
    pub(crate) async fn definition_statuses(
        &self,
        cluster: &str,
        epoch: u64,
        statuses: Vec<DefinitionStatus>,
    ) -> Result<(), ChangeError> {
        let request = Request::Statuses { cluster: cluster.to_owned(), epoch, statuses };
        self.requests.send(request).await.map_err(|_| ChangeError::Stopping)
    }

    /// Makes a new token for a cluster that is there. With `rebind` the name is free for a rebuilt cluster: its session
    /// is cut, and what was issued for it is void.
    ///
    /// # Errors
    /// There is no such cluster.
    pub async fn new_token(&self, name: &str, rebind: bool) -> Result<ClusterToken, ChangeError> {
        let token = self.request(|answer| Request::NewToken { name: name.to_owned(), rebind, answer }).await??;
        self.settled().await?;
        Ok(token)
    }

    /// A cluster has enrolled: the store has bound it to this uid and this key.
    pub(crate) async fn bound(&self, cluster: &str, cluster_uid: &str, key: AgentKey) -> Result<(), ChangeError> {
        let (cluster, uid) = (cluster.to_owned(), cluster_uid.to_owned());
        self.request(|answer| Request::Bound { cluster, uid, key, answer }).await?;
        self.settled().await
    }

    /// A key asks to enrol where that takes a person's approval: gives back who waits with this token, which may be
    /// another one, and what was decided.
    pub(crate) async fn ask_approval(&self, asks: Asks) -> Result<PendingEnrolment, ChangeError> {
        self.request(|answer| Request::AskApproval(asks, answer)).await?
    }

    /// A person decides upon the agent that waits under this name. It is in the audit log before it is in force.
    ///
    /// # Errors
    /// There is no such cluster, none waits, it waits with another key, or it was denied before.
    pub async fn decide_enrolment(
        &self,
        cluster: &str,
        key_fingerprint: &str,
        decision: EnrolmentDecision,
        who: &str,
    ) -> Result<ClusterView, ChangeError> {
        let (name, key_fingerprint, who) = (cluster.to_owned(), key_fingerprint.to_owned(), who.to_owned());
        self.request(|answer| Request::Decide { cluster: name, key_fingerprint, decision, who, answer }).await??;
        self.settled().await?;
        self.cluster(cluster)
    }

    /// Keeps what came of a self-test.
    pub(crate) async fn self_tested(&self, tested: Tested) -> Result<(), ChangeError> {
        self.request(|answer| Request::SelfTested(tested, answer)).await?
    }

    /// Keeps the key of a certificate that is about to be given out.
    pub(crate) async fn issued(&self, cluster: &str, key: AgentKey) -> Result<(), ChangeError> {
        self.request(|answer| Request::Issued { cluster: cluster.to_owned(), key, answer }).await?
    }

    /// The store came back from the past: definitions are held back until [`FleetHandle::confirm_restore`].
    pub(crate) async fn restored(&self, restore: Restore) -> Result<(), ChangeError> {
        self.request(|answer| Request::Restored(restore, answer)).await??;
        self.settled().await
    }

    /// Definitions are pushed and withdrawn again.
    ///
    /// # Errors
    /// There is nothing to confirm.
    pub async fn confirm_restore(&self) -> Result<(), ChangeError> {
        self.request(Request::ConfirmRestore).await??;
        self.settled().await
    }

    /// Deletes or replaces an API token, and keeps it from coming back with an older store.
    ///
    /// # Errors
    /// It cannot be kept, or the store fails.
    pub(crate) async fn revoke_token<T>(
        &self,
        hash: [u8; 32],
        deed: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, ChangeError> {
        self.revocations.revoke(Revoked::Token(hash), Timestamp::now(), deed).await
    }

    /// Gives a command to the agent of a cluster, whichever replica it is connected to, and waits for its answer, however
    /// long that takes.
    ///
    /// # Errors
    /// No answer will come.
    pub async fn command(&self, cluster: &str, command: Command) -> Result<Answer, Undelivered> {
        let view = self.view();
        let entry = view.clusters.get(cluster).filter(|entry| entry.view.status == ClusterStatus::Connected);
        match (entry, &self.peers) {
            (None, _) => Err(Undelivered::NotConnected),
            (Some(entry), Some(peers)) if entry.own.is_none() => peers.ask(cluster, &command).await,
            (Some(_), _) => self.command_here(cluster, command).await,
        }
    }

    /// Gives a command to the session that this replica has.
    pub(crate) async fn command_here(&self, cluster: &str, command: Command) -> Result<Answer, Undelivered> {
        let (answer, answered) = oneshot::channel();
        let message = Message::Command(cluster.to_owned(), Given { command, answer });
        self.messages.send(message).await.map_err(|_| Undelivered::NotConnected)?;
        answered.await.map_err(|_| Undelivered::Closed)
    }

    /// Ends the open session of a cluster.
    pub(crate) async fn cut(&self, cluster: &str, reason: &'static str) -> Result<(), ChangeError> {
        self.messages.send(Message::Cut(cluster.to_owned(), reason)).await.map_err(|_| ChangeError::Stopping)
    }

    async fn request<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, ChangeError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.map_err(|_| ChangeError::Stopping)?;
        answered.await.map_err(|_| ChangeError::Stopping)
    }

    /// Returns when what was sent to the owner before is in the published view.
    async fn settled(&self) -> Result<(), ChangeError> {
        let (answer, answered) = oneshot::channel();
        self.messages.send(Message::Settle(answer)).await.map_err(|_| ChangeError::Stopping)?;
        answered.await.map_err(|_| ChangeError::Stopping)
    }
}
