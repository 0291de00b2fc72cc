//! A store that came back from the past: nothing is given out before a person confirms it.

use active_monitor_core::fleet::Change;
use active_monitor_core::view::Restore;

use super::{ChangeError, Desired, FleetHandle};
use crate::clock;

impl Desired {
    pub(super) async fn restored(&mut self, restore: Restore, fleet: &FleetHandle) -> Result<(), ChangeError> {
        if self.restore.is_some() {
            return Ok(());
        }
        tracing::error!(reason = restore.reason, "this hub came back from the past: definitions are held back");
        // Held back whether or not that can be stored: the next agent tells it again.
        let stored = self.store.put_restore(&restore).await.map_err(ChangeError::Store);
        self.restore = Some(restore);
        self.publish_restore(fleet).await?;
        stored
    }

    pub(super) async fn confirm_restore(&mut self, fleet: &FleetHandle) -> Result<(), ChangeError> {
        if self.restore.is_none() {
            return Err(ChangeError::Conflict("there is no restore to confirm".to_owned()));
        }
        self.store.confirm_restore(clock::now()).await.map_err(ChangeError::Store)?;
        self.restore = None;
        self.publish_restore(fleet).await
    }

    pub(super) async fn publish_restore(&mut self, fleet: &FleetHandle) -> Result<(), ChangeError> {
        self.unconfirmed.set(self.restore.is_some().into());
        fleet.change(Change::Restore(self.restore.clone())).await?;
        self.republish(fleet).await;
        Ok(())
    }
}
