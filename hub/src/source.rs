//! Keeps the fleet as a folder says, which git-sync or kubelet keeps as a repository or a ConfigMap says.
//!
//! All that is decided is decided by [`active_monitor_core::gitops`]; this reads the folder, asks, and makes the changes.
//! What Git owns is in the store before the first change that it leads to, so a crash leaves nothing behind that would be
//! taken for a person's.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::definition::DefinitionMeta;
use active_monitor_core::document::Finding;
use active_monitor_core::fleet::Change;
use active_monitor_core::gitops::plan::{Existing, Ownership, Plan, plan};
use active_monitor_core::gitops::{Documents, Kind, read, whole};
use active_monitor_core::view::{GitOrigin, SourceState, SourceView};
use arc_swap::ArcSwap;
use clap::Args;
use jiff::Timestamp;
use prometheus::core::Collector;
use prometheus::{IntGauge, Opts};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::desired::{Replacement, Stale};
use crate::owner::{self, ChangeError, FleetHandle};
use crate::store::postgres::replicas::Replicas;
use crate::store::{AuditEntry, Store, StoreError};
use folder::Listing;
pub(crate) use shared::{Held, Teller};

mod folder;
mod shared;
#[cfg(test)]
mod tests;

/// How often the folder is looked at.
const POLL: Duration = Duration::from_secs(3);
/// Problems that are shown.
const SHOWN: usize = 100;

/// Where the desired state comes from.
#[derive(Clone, Debug, Default, Args)]
pub struct GitArgs {
    /// Folder with FleetHealthChecks, FleetClusters and MaintenanceWindows that the hub keeps the fleet like: the link that
    /// git-sync swaps, a folder below it, a plain folder or a mounted ConfigMap.
    #[arg(long, env = "ACTIVE_MONITOR_GIT_FOLDER")]
    pub git_folder: Option<PathBuf>,
    /// Whether a folder without documents deletes all that came from it; else it is taken for a mistake.
    #[arg(long, env = "ACTIVE_MONITOR_GIT_ALLOW_EMPTY")]
    pub git_allow_empty: bool,
}

/// What comes from the folder, and what became of it.
pub struct Source {
    args: GitArgs,
    /// Held while something is changed that may be Git's or a person's.
    ownership: Mutex<Ownership>,
    view: ArcSwap<Option<SourceView>>,
    error: IntGauge,
    synced: IntGauge,
    /// None where the hub is alone.
    replicas: Option<Arc<Replicas>>,
}

/// What is known of the folder from the last look.
#[derive(Default)]
struct Seen {
    listing: Option<Listing>,
    documents: Documents,
    /// Why it is refused.
    findings: Vec<Finding>,
}

impl Source {
    /// Reads what Git owns.
    ///
    /// # Errors
    /// The store fails, or a metric's name is wrong.
    pub async fn load(args: GitArgs, store: &dyn Store) -> Result<Source, StoreError> {
        let ownership = store.ownership().await?.unwrap_or_default();
        let gauge = |name: &str, help: &str| {
            IntGauge::with_opts(Opts::new(name, help)).map_err(|error| StoreError::Metrics(error.to_string()))
        };
        let view = args.git_folder.as_ref().map(|folder| SourceView {
            folder: folder.display().to_string(),
            state: SourceState::Pending,
            revision: ownership.revision.clone(),
            refused_revision: None,
            synced_at: None,
            problems: Vec::new(),
            waiting: Vec::new(),
            objects: ownership.objects.clone(),
        });
        Ok(Source {
            args,
            ownership: Mutex::new(ownership),
            view: ArcSwap::from_pointee(view),
            error: gauge("activemonitor_hub_source_error", "1 while what --git-folder says is refused.")?,
            synced: gauge(
                "activemonitor_hub_source_synced_timestamp_seconds",
                "When what --git-folder says was last found to be in force, in Unix time.",
            )?,
            replicas: None,
        })
    }

    /// Without a folder nothing is Git's any more: what came from it stays, and is people's. Of replicas the one with the lease
    /// says so for all of them, as it keeps the fleet as its folder says where it has one.
    ///
    /// # Errors
    /// The store fails.
    pub async fn release(&self, store: &dyn Store) -> Result<(), StoreError> {
        if self.has_folder() {
            return Ok(());
        }
        let mut ownership = self.ownership().await?;
        if *ownership != Ownership::default() {
            tracing::warn!(objects = ownership.objects.len(), "no --git-folder: what came from Git is people's now");
            store.put_ownership(None).await?;
            *ownership = Ownership::default();
        }
        Ok(())
    }

    pub(crate) fn has_folder(&self) -> bool {
        self.args.git_folder.is_some()
    }

    /// To be registered where they shall be seen; none without a folder.
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        match self.args.git_folder {
            Some(_) => vec![Box::new(self.error.clone()), Box::new(self.synced.clone())],
            None => Vec::new(),
        }
    }

    /// The folder and what became of it; `None` without one.
    pub fn view(&self) -> Option<SourceView> {
        self.view.load().as_ref().clone()
    }

    fn show(&self, change: impl FnOnce(SourceView) -> SourceView) {
        let Some(view) = self.view().map(change) else { return };
        self.error.set((view.state == SourceState::Refused).into());
        if let Some(synced_at) = view.synced_at {
            self.synced.set(synced_at.as_second());
        }
        self.view.store(Arc::new(Some(view)));
    }

    /// Where the objects of a kind that are Git's are written, by name.
    pub(crate) fn origins(&self, kind: Kind) -> BTreeMap<String, GitOrigin> {
        let view = self.view.load();
        let Some(SourceView { objects, revision, .. }) = view.as_ref() else { return BTreeMap::new() };
        let origin = |file: &str| GitOrigin { file: file.to_owned(), revision: revision.clone() };
        let of_kind = objects.iter().filter(|owned| owned.kind == kind);
        of_kind.map(|owned| (owned.name.clone(), origin(&owned.file))).collect()
    }
}

/// Keeps the fleet as the folder says, until `stop`. Other replicas are told what became of it.
pub(crate) async fn run(
    source: Arc<Source>,
    store: Arc<dyn Store>,
    fleet: FleetHandle,
    mut teller: Option<Teller>,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let syncer = Syncer { source, store, fleet };
    let mut records = syncer.fleet.watch_records();
    let mut seen = Seen::default();
    loop {
        syncer.look(&mut seen).await;
        if let Some(teller) = &mut teller {
            teller.tell(syncer.source.view()).await;
        }
        records.mark_unchanged();
        let poll = tokio::time::sleep(POLL);
        tokio::pin!(poll);
        loop {
            tokio::select! {
                () = &mut poll => break,
                changed = records.changed() => if changed.is_err() { return Ok(()) },
                () = stop.cancelled() => return Ok(()),
            }
            // A cluster gets the labels that wait for it before its agent can have enrolled.
            if syncer.is_awaited() {
                break;
            }
        }
    }
}

struct Syncer {
    source: Arc<Source>,
    store: Arc<dyn Store>,
    fleet: FleetHandle,
}

impl Syncer {
    fn is_awaited(&self) -> bool {
        let records = self.fleet.records();
        let view = self.source.view.load();
        view.as_ref().as_ref().is_some_and(|view| view.waiting.iter().any(|name| records.contains_key(name)))
    }

    /// Reads the folder where it changed, and does what it says.
    async fn look(&self, seen: &mut Seen) {
        let Some(folder) = self.source.args.git_folder.clone() else { return };
        let known = seen.listing.take();
        let looked = tokio::task::spawn_blocking(move || {
            let listing = folder::list(&folder)?;
            if known.as_ref() == Some(&listing) {
                return Ok((listing, None));
            }
            let inputs = listing.read()?;
            Ok((listing, Some(read(&inputs))))
        });
        match looked.await {
            Err(_) => seen.findings = vec![whole("could not be read: an internal error")],
            Ok(Err(findings)) => seen.findings = findings,
            Ok(Ok((listing, None))) => seen.listing = Some(listing),
            Ok(Ok((listing, Some(Ok(documents))))) => {
                *seen = Seen { listing: Some(listing), documents, findings: Vec::new() };
            }
            Ok(Ok((listing, Some(Err(findings))))) => {
                (seen.listing, seen.findings) = (Some(listing), findings);
            }
        }
        let revision = seen.listing.as_ref().and_then(Listing::revision);
        if !seen.findings.is_empty() {
            return self.refused(revision, seen.findings.clone());
        }
        match self.sync(&seen.documents, revision.clone()).await {
            Ok(waiting) => self.in_force(revision, waiting).await,
            Err(findings) => self.refused(revision, findings),
        }
    }

    /// Makes what is to be changed, and says for which clusters something waits.
    async fn sync(&self, documents: &Documents, revision: Option<String>) -> Result<Vec<String>, Vec<Finding>> {
        let mut ownership = self.source.ownership().await.map_err(stored)?;
        let before = ownership.clone();
        let mut plan = self.plan(&before, documents).await?;
        if (!plan.is_empty() || plan.owned != before.objects) && self.source.replicas.is_some() {
            // What people changed at other replicas a moment ago may not be known here.
            let all = Stale { clusters: true, definitions: true, ..Stale::default() };
            self.fleet.reload(all).await.map_err(|error| vec![whole(error.to_string())])?;
            plan = self.plan(&before, documents).await?;
        }
        let after = Ownership { revision, objects: plan.owned.clone() };
        if after == before && plan.is_empty() {
            return Ok(plan.waiting);
        }
        let claim = Ownership { revision: before.revision.clone(), objects: plan.claim(&before.objects) };
        self.own(&mut ownership, claim).await?;
        match self.make(&plan).await {
            Ok(()) => {}
            Err(ChangeError::Store(error)) => return Err(stored(error)),
            Err(error) => {
                // Nothing was changed.
                self.own(&mut ownership, before).await?;
                return Err(vec![whole(error.to_string())]);
            }
        }
        self.own(&mut ownership, after.clone()).await?;
        self.audit(&plan, after.revision.as_deref()).await;
        Ok(plan.waiting)
    }

    async fn plan(&self, before: &Ownership, documents: &Documents) -> Result<Plan, Vec<Finding>> {
        let existing = self.existing().await.map_err(stored)?;
        plan(&before.objects, documents, &existing, self.source.args.git_allow_empty)
    }

    async fn own(&self, ownership: &mut Ownership, new: Ownership) -> Result<(), Vec<Finding>> {
        if *ownership != new {
            self.store.put_ownership(Some(&new)).await.map_err(stored)?;
            *ownership = new;
        }
        Ok(())
    }

    async fn existing(&self) -> Result<Existing, StoreError> {
        let definitions = self.fleet.definitions();
        let definitions = definitions.iter().map(|(name, view)| (name.clone(), view.definition.clone())).collect();
        let records = self.fleet.records();
        let clusters = records.values().map(|record| {
            let (labels, annotations) = (record.labels.clone(), record.annotations.clone());
            (record.name.clone(), DefinitionMeta { name: record.name.clone(), labels, annotations })
        });
        let windows = self.store.windows().await?.into_iter().map(|spec| (spec.name.clone(), spec)).collect();
        Ok(Existing { definitions, clusters: clusters.collect(), windows })
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
    async fn audit(&self, plan: &Plan, revision: Option<&str>) {
        let who = revision.map_or_else(|| "git".to_owned(), |revision| format!("git@{revision}"));
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
            let entry = AuditEntry { at: Timestamp::now(), who: who.clone(), action, object };
            if let Err(error) = self.store.audit(&entry).await {
                tracing::error!(%error, "the audit log could not be written");
            }
        }
    }

    async fn in_force(&self, revision: Option<String>, waiting: Vec<String>) {
        let now = Timestamp::now();
        let objects = self.source.ownership.lock().await.objects.clone();
        self.source.show(|view| SourceView {
            state: SourceState::InForce,
            revision,
            refused_revision: None,
            synced_at: Some(now),
            problems: Vec::new(),
            waiting,
            objects,
            folder: view.folder,
        });
    }

    fn refused(&self, revision: Option<String>, mut problems: Vec<Finding>) {
        problems.truncate(SHOWN);
        self.source.show(|view| {
            if view.problems != problems {
                let first = problems.first().map(ToString::to_string).unwrap_or_default();
                tracing::error!(problems = problems.len(), first, "what the folder says is refused");
            }
            SourceView { state: SourceState::Refused, refused_revision: revision, problems, ..view }
        });
    }
}

fn stored(error: StoreError) -> Vec<Finding> {
    vec![whole(format!("the store failed: {error}; it is tried again"))]
}
