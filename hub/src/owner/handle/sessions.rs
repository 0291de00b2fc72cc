//! The sessions of agents: opened, given commands, cut.

use active_monitor_core::command::{Answer, Command};
use active_monitor_core::fleet::Refusal;
use active_monitor_core::session::frame::Hello;
use active_monitor_core::view::ClusterStatus;
use tokio::sync::oneshot;

use super::FleetHandle;
use crate::desired::Stale;
use crate::owner::{ChangeError, Given, Message, NotOpened, Opened, Undelivered};
use crate::replicas::Peers;

impl FleetHandle {
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
}
