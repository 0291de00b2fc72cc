//! What another replica of the hub changed, read again from the store and made known here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use active_monitor_core::definition::parse;
use active_monitor_core::fleet::Change;

use super::{ChangeError, Desired, FleetHandle, Records, Request, Stored, readable};
use crate::store::StoreError;
use crate::store::postgres::replicas::Alone;

/// What is to be read again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stale {
    /// The records of clusters.
    pub(crate) clusters: bool,
    /// The definitions.
    pub(crate) definitions: bool,
    /// What the agents of these clusters said of them.
    pub(crate) statuses: Which,
    /// Whether the store came back from the past.
    pub(crate) restore: bool,
}

/// Some clusters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    All,
    /// By name.
    Named(BTreeSet<String>),
}

impl Default for Which {
    fn default() -> Which {
        Which::Named(BTreeSet::new())
    }
}

impl Request {
    /// Whether it changes what all replicas share, after a look at what is there.
    fn is_change(&self) -> bool {
        match self {
            Request::AddCluster(..)
            | Request::PatchCluster(..)
            | Request::RemoveCluster(..)
            | Request::PutDefinition(..)
            | Request::DeleteDefinition(..)
            | Request::Replace(..)
            | Request::Bound { .. }
            | Request::AskApproval(..)
            | Request::Decide { .. }
            | Request::SelfTested(..)
            | Request::Issued { .. }
            | Request::Restored(..)
            | Request::ConfirmRestore(..)
            | Request::NewToken { .. } => true,
            Request::Statuses { .. } | Request::Subscribe(..) | Request::Reload(..) => false,
        }
    }
}

impl Desired {
    /// Where there are other replicas: keeps them from changing anything, and reads what they changed, so that changes are
    /// made one after the other as in a hub that is alone.
    pub(super) async fn alone(&mut self, requests: &[Request], fleet: &FleetHandle) -> Option<Alone> {
        let peers = self.terms.peers.clone()?;
        if !requests.iter().any(Request::is_change) {
            return None;
        }
        let all = Stale { clusters: true, definitions: true, statuses: Which::default(), restore: true };
        let alone = peers.store.alone().await;
        match (&alone, self.reload(all, fleet).await) {
            (Ok(_), Ok(())) => {}
            // A replica that hangs must not keep the others from changes; where the data base fails, the change does too.
            (Err(error), _) => tracing::warn!(%error, "changes of other replicas are not waited for"),
            (Ok(_), Err(error)) => tracing::warn!(%error, "changes of other replicas are not read"),
        }
        // When a cluster is added depends on when its namesake was removed.
        if let Err(error) = self.terms.revocations.learn().await {
            tracing::warn!(error = format!("{:#}", anyhow::Error::from(error)), "revocations of others are not read");
        }
        alone.ok()
    }

    pub(super) async fn reload(&mut self, stale: Stale, fleet: &FleetHandle) -> Result<(), ChangeError> {
        let Stale { clusters, definitions, statuses, restore } = stale;
        let mut is_news = false;
        if definitions {
            is_news |= self.reload_definitions().await.map_err(ChangeError::Store)?;
        }
        if clusters {
            is_news |= self.reload_clusters(fleet).await?;
        }
        is_news |= self.reload_statuses(statuses).await.map_err(ChangeError::Store)?;
        if restore {
            let stored = self.store.restore().await.map_err(ChangeError::Store)?;
            if stored != self.restore {
                self.restore = stored;
                self.publish_restore(fleet).await?;
            }
        }
        if is_news {
            self.republish(fleet).await;
        }
        Ok(())
    }

    async fn reload_clusters(&mut self, fleet: &FleetHandle) -> Result<bool, ChangeError> {
        let stored = self.store.clusters().await.map_err(ChangeError::Store)?;
        let stored: Records = stored.into_iter().map(|record| (record.name.clone(), record)).collect();
        // One that was removed and added again is another one.
        let is_same =
            |name: &String, created_at| stored.get(name).is_some_and(|record| record.created_at == created_at);
        let gone = self.records.values().filter(|known| !is_same(&known.name, known.created_at));
        let gone: Vec<String> = gone.map(|known| known.name.clone()).collect();
        for name in &gone {
            self.forget_cluster(name, fleet).await?;
        }
        let mut is_news = !gone.is_empty();
        for (name, record) in stored {
            let known = self.records.get(&name);
            if known == Some(&record) {
                continue;
            }
            is_news = true;
            if known.is_some_and(|known| known.cluster_uid.is_some() && known.cluster_uid != record.cluster_uid) {
                fleet.cut(&name, "the cluster was bound anew").await?;
            }
            self.rendered.put_cluster(&record, readable(&self.stored));
            self.records.insert(name, record.clone());
            self.publish_record(&record, fleet).await;
        }
        Ok(is_news)
    }

    async fn reload_definitions(&mut self) -> Result<bool, StoreError> {
        let stored = self.store.definitions().await?;
        let names: BTreeSet<&String> = stored.iter().map(|record| &record.name).collect();
        let gone: Vec<String> = self.stored.keys().filter(|name| !names.contains(name)).cloned().collect();
        let mut is_news = !gone.is_empty();
        for name in &gone {
            self.forget(name);
        }
        for record in stored {
            if self.stored.get(&record.name).is_some_and(|known| known.generation == record.generation) {
                continue;
            }
            is_news = true;
            let definition = parse::from_value(record.definition.clone()).map_err(|error| error.to_string());
            match &definition {
                Ok(readable) => self.rendered.put(&record.name, record.generation, readable, self.records.values()),
                Err(error) => {
                    tracing::error!(definition = record.name, error, "stored definition not read");
                    self.rendered.put_unreadable(&record.name);
                }
            }
            let entry = Stored { generation: record.generation, definition, value: record.definition };
            self.stored.insert(record.name, entry);
        }
        Ok(is_news)
    }

    /// What agents said at this replica and is not stored yet stays.
    pub(super) async fn reload_statuses(&mut self, which: Which) -> Result<bool, StoreError> {
        let rows = match (&which, &self.terms.peers) {
            (Which::Named(names), _) if names.is_empty() => return Ok(false),
            (Which::Named(names), Some(peers)) => peers.store.definition_statuses(names).await?,
            (Which::Named(_) | Which::All, _) => self.store.definition_statuses().await?,
        };
        let mut stored = BTreeMap::<String, BTreeMap<_, _>>::new();
        for (cluster, status) in rows {
            stored.entry(cluster).or_default().insert(status.name.clone(), status);
        }
        let names = match which {
            Which::Named(names) => names,
            Which::All => self.statuses.keys().chain(stored.keys()).cloned().collect(),
        };
        let mut is_news = false;
        for name in names.into_iter().filter(|name| !self.unsaved.contains_key(name) && self.records.contains_key(name))
        {
            let new = stored.remove(&name);
            is_news |= self.statuses.get(&name) != new.as_ref();
            match new {
                Some(new) => drop(self.statuses.insert(name, new)),
                None => drop(self.statuses.remove(&name)),
            }
        }
        Ok(is_news)
    }

    /// What is known of a cluster that is no more goes.
    pub(super) async fn forget_cluster(&mut self, name: &str, fleet: &FleetHandle) -> Result<(), ChangeError> {
        self.records.remove(name);
        self.statuses.remove(name);
        self.unsaved.remove(name);
        self.sets.remove(name);
        self.rendered.remove_cluster(name);
        self.published_records.send_replace(Arc::new(self.records.clone()));
        fleet.change(Change::ClusterRemoved { name: name.to_owned() }).await
    }
}
