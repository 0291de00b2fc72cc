//! The handle by which everything else reaches the owner.

use std::sync::Arc;

use active_monitor_core::fleet::{Change, FleetView, Said};
use active_monitor_core::session::frame::DefinitionStatus;
use active_monitor_core::view::Event;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::{ChangeError, DefinitionSet, Definitions, Message, Published, Records};
use crate::desired::{Request, Stale};
use crate::replicas::Peers;
use crate::revocations::Revocations;

mod people;
mod sessions;

/// Reaches the owner. Cheap to clone.
#[derive(Clone)]
pub struct FleetHandle {
    pub(super) messages: mpsc::Sender<Message>,
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) view: watch::Receiver<Arc<FleetView>>,
    pub(super) definitions: watch::Receiver<Arc<Definitions>>,
    pub(super) records: watch::Receiver<Arc<Records>>,
    pub(super) events: broadcast::Sender<Published>,
    pub(super) revocations: Arc<Revocations>,
    pub(super) peers: Option<Arc<Peers>>,
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

    pub(super) async fn request<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, ChangeError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.map_err(|_| ChangeError::Stopping)?;
        answered.await.map_err(|_| ChangeError::Stopping)
    }

    /// Returns when what was sent to the owner before is in the published view.
    pub(super) async fn settled(&self) -> Result<(), ChangeError> {
        let (answer, answered) = oneshot::channel();
        self.messages.send(Message::Settle(answer)).await.map_err(|_| ChangeError::Stopping)?;
        answered.await.map_err(|_| ChangeError::Stopping)
    }
}
