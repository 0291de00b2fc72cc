//! What the hub's replicas tell each other through their data base: who is there, who may do what only one may do, which
//! replica has a cluster's session and what it shows, and commands on their way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::gitops::plan::Ownership;
use active_monitor_core::health::Health;
use active_monitor_core::session::frame::DefinitionStatus;
use active_monitor_core::state::CheckState;
use active_monitor_core::view::CheckStatus;
use futures::stream::BoxStream;
use uuid::Uuid;

use super::{PostgresStore, within};
use crate::store::{Store, StoreError};

mod alone;
pub(super) mod changes;
mod commands;
mod files;
mod follow;
mod foreign;
mod lease;
mod publish;
mod revocations;
mod sources;

pub use alone::Alone;
pub use changes::Topic;
pub use commands::Command;
pub use follow::{Followed, FollowedCluster};
pub use lease::Lease;
pub(super) use lease::fence;
pub use revocations::Revocation;

/// A check as the replica with its session shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// What the agent said.
    pub state: CheckState,
    /// What is remembered of it.
    pub health: Health,
    /// What is shown.
    pub status: CheckStatus,
}

/// What changed of a cluster whose session is, or was, at this replica.
#[derive(Clone, Debug, PartialEq)]
pub struct Publication {
    /// Name of the cluster.
    pub cluster: String,
    /// Of the session.
    pub epoch: u64,
    /// What is shown of the link, as JSON; absent where that is as before.
    pub link: Option<String>,
    /// Checks that changed.
    pub checks: Vec<Shown>,
    /// uids of checks that are gone.
    pub removed: Vec<String>,
    /// Whether these are all checks of the cluster: others are forgotten.
    pub is_whole: bool,
}

/// Reaches the other replicas. Every method that changes something returns after the commit.
pub struct Replicas {
    store: PostgresStore,
    id: String,
}

impl fmt::Debug for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replicas").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Replicas {
    /// This replica, under a name that is drawn now.
    pub fn new(store: &PostgresStore) -> Replicas {
        Replicas { store: store.clone(), id: Uuid::new_v4().to_string() }
    }

    /// The name of this replica, which it keeps until it ends.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Opens a session of a cluster here, and so ends the one that it has elsewhere. Its epoch is larger than that of every
    /// session before; none where the cluster is not there or is bound to another kube-system uid.
    ///
    /// # Errors
    /// The data base fails.
    pub async fn open_session(&self, cluster: &str, cluster_uid: &str) -> Result<Option<u64>, StoreError> {
        within(publish::open(&self.store.pool, &self.id, cluster, cluster_uid)).await
    }

    /// Publishes what changed, all of it at once, and says that this replica is alive. Of a session that is no more the
    /// newest of its cluster nothing is written; returns these clusters.
    ///
    /// # Errors
    /// The data base fails.
    pub async fn publish(&self, all: &[Publication]) -> Result<Vec<String>, StoreError> {
        within(publish::publish(&self.store.pool, &self.id, all)).await
    }

    /// Keeps what an agent said, in a session here, of all its definitions. False, and nothing is written, where that is no
    /// more the newest of its cluster. What is there already wakes nobody.
    ///
    /// # Errors
    /// The data base fails.
    pub async fn put_definition_statuses(
        &self,
        cluster: &str,
        epoch: u64,
        statuses: &[DefinitionStatus],
    ) -> Result<bool, StoreError> {
        within(publish::put_definition_statuses(&self.store.pool, &self.id, cluster, epoch, statuses)).await
    }

    /// What was written after a revision, and which replicas are alive, as it was in one moment; after 0 it is everything.
    ///
    /// # Errors
    /// The data base fails.
    pub async fn follow(&self, after: u64) -> Result<Followed, StoreError> {
        within(follow::follow(&self.store.pool, &self.id, after)).await
    }

    /// Yields when something was written; several times may be one. It ends when its connection does, and what is written
    /// while there is none wakes nobody.
    ///
    /// # Errors
    /// The data base fails.
    pub async fn wakes(&self) -> Result<BoxStream<'static, ()>, StoreError> {
        within(changes::wakes(&self.store.pool)).await
    }

    /// The store, for what only the holder of this lease may write.
    pub fn fenced(&self, lease: &Lease) -> Arc<dyn Store> {
        Arc::new(self.store.fenced(lease))
    }

    /// Takes a lease for `life` from now on, or prolongs it; none where another replica has it.
    ///
    /// # Errors
    /// The data base fails.
    pub async fn take_lease(&self, name: &'static str, life: Duration) -> Result<Option<Lease>, StoreError> {
        within(lease::take(&self.store.pool, name, &self.id, life)).await
    }

    /// Takes a lease, as soon as nobody else has it.
    ///
    /// # Errors
    /// The data base fails.
    pub async fn wait_for_lease(&self, name: &'static str, life: Duration) -> Result<Lease, StoreError> {
        loop {
            if let Some(lease) = self.take_lease(name, life).await? {
                return Ok(lease);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Ends a lease early. One that another has by now stays.
    ///
    /// # Errors
    /// The data base fails.
    pub async fn end_lease(&self, lease: &Lease) -> Result<(), StoreError> {
        within(lease::end(&self.store.pool, lease)).await
    }

    /// Waits until no other replica changes what all of them share, and keeps them from it until that is ended.
    ///
    /// # Errors
    /// The data base fails, or another replica is too long about it.
    pub async fn alone(&self) -> Result<Alone, StoreError> {
        within(alone::alone(&self.store.pool, alone::CHANGES)).await
    }

    /// Waits until at no other replica Git or a person changes what may be the other's, and keeps them from it until that is
    /// ended. [`Replicas::alone`] is asked for after it, never before.
    ///
    /// # Errors
    /// The data base fails, or another replica is too long about it.
    pub async fn hold_ownership(&self) -> Result<Alone, StoreError> {
        within(alone::alone(&self.store.pool, alone::OWNERSHIP)).await
    }

    /// What Git owns.
    ///
    /// # Errors
    /// The data base fails.
    pub async fn ownership(&self) -> Result<Option<Ownership>, StoreError> {
        self.store.ownership().await
    }

    /// What the agents of these clusters said of their definitions, each with its cluster.
    ///
    /// # Errors
    /// The data base fails.
    pub async fn definition_statuses(
        &self,
        clusters: &BTreeSet<String>,
    ) -> Result<Vec<(String, DefinitionStatus)>, StoreError> {
        within(super::definitions::statuses(&self.store.pool, Some(clusters))).await
    }

    /// Notes that an agent of the cluster with this kube-system uid was refused under the identity of another.
    ///
    /// # Errors
    /// The data base fails.
    pub async fn note_foreign(&self, cluster: &str, cluster_uid: &str) -> Result<(), StoreError> {
        within(foreign::note(&self.store.pool, cluster, cluster_uid)).await
    }

    /// The clusters among these, or among all, under whose identity an agent was refused in the last ten minutes, the
    /// kube-system uid that it named, and how long ago it was.
    ///
    /// # Errors
    /// The data base fails.
    pub async fn foreign(
        &self,
        clusters: Option<&BTreeSet<String>>,
    ) -> Result<Vec<(String, String, Duration)>, StoreError> {
        within(foreign::told(&self.store.pool, clusters)).await
    }

    /// What was told last of Git's folder: by which replica, and JSON.
    ///
    /// # Errors
    /// The data base fails.
    pub async fn source(&self) -> Result<Option<(String, String)>, StoreError> {
        within(sources::told(&self.store.pool)).await
    }

    /// Tells what became of Git's folder, as JSON.
    ///
    /// # Errors
    /// The data base fails, or the lease is another's.
    pub async fn tell_source(&self, lease: &Lease, view: &str) -> Result<(), StoreError> {
        within(sources::tell(&self.store.pool, lease, view)).await
    }

    /// The files that replicas share, by name.
    ///
    /// # Errors
    /// The data base fails.
    pub async fn files(&self) -> Result<BTreeMap<String, String>, StoreError> {
        within(files::all(&self.store.pool)).await
    }

    /// Replaces them all, where they are still those of `before`; returns whether they were.
    ///
    /// # Errors
    /// The data base fails.
    pub async fn put_files(
        &self,
        before: &BTreeMap<String, String>,
        files: &BTreeMap<String, String>,
    ) -> Result<bool, StoreError> {
        within(files::put(&self.store.pool, before, files)).await
    }

    /// What was revoked, as the replicas have told it.
    ///
    /// # Errors
    /// The data base fails.
    pub async fn revocations(&self) -> Result<Vec<Revocation>, StoreError> {
        within(revocations::all(&self.store.pool)).await
    }

    /// Tells what was revoked. Of two times the later stays.
    ///
    /// # Errors
    /// The data base fails.
    pub async fn put_revocations(&self, revoked: &[Revocation]) -> Result<(), StoreError> {
        within(revocations::put(&self.store.pool, revoked)).await
    }

    /// Leaves a command for the replica that has the session of its cluster, for `life`; the same again changes nothing.
    ///
    /// # Errors
    /// The data base fails.
    pub async fn put_command(&self, command: &Command, life: Duration) -> Result<(), StoreError> {
        within(commands::put(&self.store.pool, command, life)).await
    }

    /// The commands for clusters whose session is here, each of them once.
    ///
    /// # Errors
    /// The data base fails.
    pub async fn take_commands(&self) -> Result<Vec<Command>, StoreError> {
        within(commands::take(&self.store.pool, &self.id)).await
    }

    /// Answers a command, with JSON.
    ///
    /// # Errors
    /// The data base fails.
    pub async fn answer_command(&self, cluster: &str, id: &str, answer: &str) -> Result<(), StoreError> {
        within(commands::answer(&self.store.pool, cluster, id, answer)).await
    }

    /// Those answers to commands (cluster, id) that are there.
    ///
    /// # Errors
    /// The data base fails.
    pub async fn answers(&self, asked: &[(String, String)]) -> Result<Vec<(String, String, String)>, StoreError> {
        within(commands::answers(&self.store.pool, asked)).await
    }
}
