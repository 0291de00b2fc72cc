//! Many changes as one: either none is begun, or the clusters see all of them at once.

use std::collections::BTreeSet;

use active_monitor_core::definition::FleetHealthCheck;
use active_monitor_core::session::frame::MAX_HUB_FRAME_BYTES;
use active_monitor_core::view::ClusterPatch;

use super::clusters::{apply_patch, check_metadata};
use super::{ChangeError, Desired, FleetHandle, Stored, not_found, readable};
use crate::store::ClusterRecord;

/// What to change.
#[derive(Debug, Default)]
pub(crate) struct Replacement {
    /// Definitions to add or replace.
    pub(crate) put: Vec<FleetHealthCheck>,
    /// Definitions to delete; one that there is not is no error.
    pub(crate) delete: Vec<String>,
    /// Labels and annotations of clusters.
    pub(crate) patches: Vec<(String, ClusterPatch)>,
}

impl Desired {
    /// An error other than the store's means that nothing was changed.
    pub(super) async fn replace(&mut self, replacement: Replacement, fleet: &FleetHandle) -> Result<(), ChangeError> {
        let Replacement { put, delete, patches } = replacement;
        let records = patches.into_iter().map(|(name, patch)| self.patched(&name, patch));
        let records = records.collect::<Result<Vec<ClusterRecord>, ChangeError>>()?;
        self.fits(&put, &delete, &records)?;
        let written = self.write(put, delete, records, fleet).await;
        self.republish(fleet).await;
        written
    }

    fn patched(&self, name: &str, patch: ClusterPatch) -> Result<ClusterRecord, ChangeError> {
        let mut record = self.records.get(name).cloned().ok_or_else(|| not_found("cluster", name))?;
        let ClusterPatch { labels, annotations } = patch;
        apply_patch(&mut record.labels, labels);
        apply_patch(&mut record.annotations, annotations);
        check_metadata(&record)?;
        Ok(record)
    }

    /// Whether the set of every cluster could be sent afterwards.
    fn fits(&self, put: &[FleetHealthCheck], delete: &[String], records: &[ClusterRecord]) -> Result<(), ChangeError> {
        let deleted: BTreeSet<&String> = delete.iter().collect();
        let mut rendered = self.rendered.clone();
        let mut all = self.records.clone();
        for name in delete {
            rendered.remove_definition(name);
        }
        for record in records {
            rendered.put_cluster(record, readable(&self.stored).filter(|(name, ..)| !deleted.contains(name)));
            all.insert(record.name.clone(), record.clone());
        }
        for definition in put {
            rendered.put(&definition.metadata.name, 0, definition, all.values());
        }
        match rendered.outgrown(&self.rendered) {
            Some((cluster, bytes)) => Err(ChangeError::Invalid(format!(
                "the definitions of cluster {cluster} would be {bytes} bytes together, the limit is \
                 {MAX_HUB_FRAME_BYTES}"
            ))),
            None => Ok(()),
        }
    }

    /// What the store took before it failed is kept.
    async fn write(
        &mut self,
        put: Vec<FleetHealthCheck>,
        delete: Vec<String>,
        records: Vec<ClusterRecord>,
        fleet: &FleetHandle,
    ) -> Result<(), ChangeError> {
        for record in records {
            self.store.put_cluster(&record).await.map_err(ChangeError::Store)?;
            self.rendered.put_cluster(&record, readable(&self.stored));
            self.records.insert(record.name.clone(), record.clone());
            self.publish_record(&record, fleet).await;
        }
        for definition in put {
            let name = definition.metadata.name.clone();
            let value = serde_json::to_value(&definition).map_err(|error| ChangeError::Invalid(error.to_string()))?;
            let generation = self.store.put_definition(&name, &value).await.map_err(ChangeError::Store)?;
            self.rendered.put(&name, generation, &definition, self.records.values());
            self.stored.insert(name, Stored { generation, definition: Ok(definition), value });
        }
        for name in delete {
            self.store.delete_definition(&name).await.map_err(ChangeError::Store)?;
            self.forget(&name);
        }
        Ok(())
    }
}
