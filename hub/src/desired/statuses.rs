//! What agents say became of their definitions.

use std::collections::BTreeMap;

use active_monitor_core::session::frame::DefinitionStatus;

use super::{Desired, FleetHandle, Which};
use crate::store::StoreError;

impl Desired {
    /// Takes what an agent said of all its definitions; [`Desired::keep_statuses`] stores and publishes it. A session that
    /// another one replaced says nothing: what that one says comes after it was published.
    pub(super) fn put_statuses(
        &mut self,
        cluster: String,
        epoch: u64,
        statuses: Vec<DefinitionStatus>,
        fleet: &FleetHandle,
    ) {
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
    pub(super) async fn keep_statuses(&mut self, fleet: &FleetHandle) {
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
}
