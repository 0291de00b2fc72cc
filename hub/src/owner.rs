//! The one task that owns the fleet's state, and the handle by which everything else reaches it.
//!
//! Sessions and the desired state send messages; the owner applies what waits, publishes one view for all of it and then
//! the events. It never waits for the disk or for a peer, so its queue empties as fast as the processor allows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::care::{Window, WindowSpec};
use active_monitor_core::command::{Answer, Command};
use active_monitor_core::fleet::{Change, Fleet, KnownCluster, Refusal};
use active_monitor_core::session::frame::{Definition, Hello};
use active_monitor_core::view::{DefinitionView, Event};
use active_monitor_runtime::tasks::Tasks;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::clock;
use crate::desired::{self, Desired};
use crate::replicas;
use crate::saver;
use crate::store::{CheckKey, ClusterRecord, Store, StoreError};

mod errors;
mod handle;
mod run;
mod terms;
#[cfg(test)]
mod tests;

pub(crate) use errors::NotOpened;
pub use errors::{ChangeError, Undelivered};
pub use handle::FleetHandle;
pub use terms::Terms;

/// Messages that may wait for the owner; senders beyond that wait, which slows the sessions down and nothing else.
const QUEUE: usize = 4096;
/// Requests that may wait for the desired state.
const REQUESTS: usize = 64;
/// Events that a slow receiver may lag behind before it must read the view again.
const EVENTS: usize = 4096;
/// How long an agent has for its answer to a command, however many replicas are between.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Definitions by name.
pub type Definitions = BTreeMap<String, Arc<DefinitionView>>;
/// The durable half of the clusters, by name.
pub type Records = BTreeMap<String, ClusterRecord>;
/// All definitions meant for one cluster, rendered.
pub type DefinitionSet = Arc<Vec<Definition>>;
/// An event and the revision of the published view that has it.
pub type Published = (u64, Arc<Event>);

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
