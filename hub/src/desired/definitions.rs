//! Definitions that people or Git put and delete.

use std::sync::Arc;

use active_monitor_core::definition::FleetHealthCheck;
use active_monitor_core::session::frame::MAX_HUB_FRAME_BYTES;
use active_monitor_core::view::DefinitionView;

use super::{ChangeError, Desired, FleetHandle, Stored, not_found};
use crate::expected::{Expected, version};

impl Desired {
    pub(super) async fn put_definition(
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

    pub(super) async fn delete_definition(
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

    pub(super) fn forget(&mut self, name: &str) {
        self.stored.remove(name);
        self.rendered.remove_definition(name);
        for statuses in self.statuses.values_mut() {
            statuses.remove(name);
        }
    }
}
