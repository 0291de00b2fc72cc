//! Makes the changes that a plan asks for, and keeps whose the objects are.
//!
//! What Git or a resource owns is in the store before the first change that it leads to, so a crash leaves nothing behind
//! that would be taken for a person's.

use std::collections::BTreeMap;
use std::sync::Arc;

use active_monitor_core::definition::DefinitionMeta;
use active_monitor_core::document::Finding;
use active_monitor_core::fleet::Change;
use active_monitor_core::gitops::Kind;
use active_monitor_core::gitops::plan::{Existing, Owned, Owner, Ownership, Plan};
use jiff::Timestamp;

use super::Source;
use crate::desired::{Replacement, Stale};
use crate::owner::{self, ChangeError, FleetHandle};
use crate::store::{AuditEntry, Store, StoreError};

/// Why what shall be is not.
pub(crate) enum Failure {
    /// What stands against it; nothing was changed.
    Refused(Vec<Finding>),
    /// The change failed; nothing was changed, unless it was the store that failed.
    Change(ChangeError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Change(ChangeError::Store(error))
    }
}

/// Makes the changes.
pub(crate) struct Keeper {
    pub(crate) source: Arc<Source>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) fleet: FleetHandle,
}

impl Keeper {
    /// Makes what `plan` says is to be changed, of what the owner has and what there is. Git's `revision` is the one in force
    /// afterwards. Gives the plan, and what it came with.
    pub(crate) async fn keep<T>(
        &self,
        owner: Owner,
        revision: Option<String>,
        plan: impl Fn(&[Owned], &Existing) -> Result<(Plan, T), Vec<Finding>>,
    ) -> Result<(Plan, T), Failure> {
        let mut ownership = self.source.ownership().await?;
        let before = ownership.clone();
        let ask = async || {
            let existing = self.existing(before.taken(owner)).await?;
            plan(before.of(owner), &existing).map_err(Failure::Refused)
        };
        let mut planned = ask().await?;
        if (!planned.0.is_empty() || planned.0.owned != before.of(owner)) && self.source.replicas.is_some() {
            // What people changed at other replicas a moment ago may not be known here.
            let all = Stale { clusters: true, definitions: true, ..Stale::default() };
            self.fleet.reload(all).await.map_err(Failure::Change)?;
            planned = ask().await?;
        }
        let plan = &planned.0;
        let revision = match owner {
            Owner::Git => revision,
            Owner::Resources => before.revision.clone(),
        };
        let after = Ownership { revision, ..before.with(owner, plan.owned.clone()) };
        if after == before && plan.is_empty() {
            return Ok(planned);
        }
        self.own(&mut ownership, before.with(owner, plan.claim(before.of(owner)))).await?;
        match self.make(plan).await {
            Ok(()) => {}
            Err(error @ ChangeError::Store(_)) => return Err(Failure::Change(error)),
            Err(error) => {
                // Nothing was changed.
                self.own(&mut ownership, before).await?;
                return Err(Failure::Change(error));
            }
        }
        let who = match (owner, &after.revision) {
            (Owner::Git, Some(revision)) => format!("git@{revision}"),
            (Owner::Git, None) => "git".to_owned(),
            (Owner::Resources, _) => "resources".to_owned(),
        };
        self.own(&mut ownership, after).await?;
        self.audit(plan, &who).await;
        Ok(planned)
    }

    async fn own(&self, ownership: &mut Ownership, new: Ownership) -> Result<(), StoreError> {
        if *ownership != new {
            self.store.put_ownership(Some(&new)).await?;
            self.source.learn(&new);
            *ownership = new;
        }
        Ok(())
    }

    async fn existing(&self, taken: BTreeMap<(Kind, String), String>) -> Result<Existing, StoreError> {
        let definitions = self.fleet.definitions();
        let definitions = definitions.iter().map(|(name, view)| (name.clone(), view.definition.clone())).collect();
        let records = self.fleet.records();
        let clusters = records.values().map(|record| {
            let (labels, annotations) = (record.labels.clone(), record.annotations.clone());
            (record.name.clone(), DefinitionMeta { name: record.name.clone(), labels, annotations })
        });
        let windows = self.store.windows().await?.into_iter().map(|spec| (spec.name.clone(), spec)).collect();
        Ok(Existing { definitions, clusters: clusters.collect(), windows, taken })
    }

    async fn make(&self, plan: &Plan) -> Result<(), ChangeError> {
        let (put, delete, patches) = (plan.put.clone(), plan.delete.clone(), plan.patches.clone());
        self.fleet.replace(Replacement { put, delete, patches }).await?;
        for (name, spec) in &plan.windows {
            self.store.put_window(name, spec.as_ref()).await.map_err(ChangeError::Store)?;
        }
        if !plan.windows.is_empty() {
            let windows = owner::windows(self.store.as_ref()).await.map_err(ChangeError::Store)?;
            self.fleet.apply(Change::Windows(windows)).await?;
        }
        Ok(())
    }

    /// A line for each change, as if a person called after the commit had made it.
    async fn audit(&self, plan: &Plan, who: &str) {
        let put = plan.put.iter().map(|definition| ("definition.put", definition.metadata.name.as_str()));
        let delete = plan.delete.iter().map(|name| ("definition.delete", name.as_str()));
        let patches = plan.patches.iter().map(|(name, _)| ("cluster.patch", name.as_str()));
        let windows = plan
            .windows
            .iter()
            .map(|(name, spec)| (if spec.is_some() { "window.put" } else { "window.delete" }, name.as_str()));
        let adopted = plan.adopted.iter().map(|(kind, name)| {
            let action = match kind {
                Kind::FleetHealthCheck => "definition.adopt",
                Kind::FleetCluster => "cluster.adopt",
                Kind::MaintenanceWindow => "window.adopt",
            };
            (action, name.as_str())
        });
        for (action, object) in patches.chain(put).chain(delete).chain(windows).chain(adopted) {
            tracing::info!(who, action, object, "changed");
            let (action, object) = (action.to_owned(), object.to_owned());
            let entry = AuditEntry { at: Timestamp::now(), who: who.to_owned(), action, object };
            if let Err(error) = self.store.audit(&entry).await {
                tracing::error!(%error, "the audit log could not be written");
            }
        }
    }
}
