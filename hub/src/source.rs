//! Keeps the fleet as a folder says, which git-sync or kubelet keeps as a repository or a ConfigMap says.
//!
//! All that is decided is decided by [`active_monitor_core::gitops`]; this reads the folder and asks. [`keep`] makes the
//! changes, for this folder and for the [resources](crate::resources) of the hub's own cluster.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::document::Finding;
use active_monitor_core::gitops::plan::{Owned, Owner, Ownership, plan};
use active_monitor_core::gitops::{Documents, Kind, read, whole};
use active_monitor_core::view::{GitOrigin, SourceState, SourceView};
use arc_swap::ArcSwap;
use clap::Args;
use jiff::Timestamp;
use prometheus::core::Collector;
use prometheus::{IntGauge, Opts};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::owner::{ChangeError, FleetHandle};
use crate::store::postgres::replicas::Replicas;
use crate::store::{Store, StoreError};
use folder::Listing;
pub(crate) use keep::{Failure, Keeper};
pub(crate) use shared::{Held, Teller};

mod folder;
mod keep;
mod shared;
#[cfg(test)]
mod tests;

/// How often the folder is looked at.
const POLL: Duration = Duration::from_secs(3);
/// Problems that are shown.
const SHOWN: usize = 100;

/// Where the desired state comes from.
#[derive(Clone, Debug, Default, Args)]
pub struct SourceArgs {
    /// Folder with FleetHealthChecks, FleetClusters and MaintenanceWindows that the hub keeps the fleet like: the link that
    /// git-sync swaps, a folder below it, a plain folder or a mounted ConfigMap.
    #[arg(long, env = "ACTIVE_MONITOR_GIT_FOLDER")]
    pub git_folder: Option<PathBuf>,
    /// Whether a folder without documents deletes all that came from it; else it is taken for a mistake.
    #[arg(long, env = "ACTIVE_MONITOR_GIT_ALLOW_EMPTY")]
    pub git_allow_empty: bool,
    /// Namespace of the hub's own cluster whose FleetHealthChecks, which are custom resources there, are definitions. The
    /// cluster is that of the pod, or of the file that KUBECONFIG names.
    #[arg(long, env = "ACTIVE_MONITOR_RESOURCES_NAMESPACE")]
    pub resources_namespace: Option<String>,
}

impl SourceArgs {
    /// What stays another's than people's: a source that is not followed any more owns nothing.
    fn kept(&self, ownership: &Ownership) -> Ownership {
        let git = if self.git_folder.is_some() { ownership.clone() } else { Ownership::default() };
        let is_followed = |owned: &&Owned| {
            let namespace = owned.file.split_once('/').map(|(namespace, _)| namespace);
            namespace.is_some() && namespace == self.resources_namespace.as_deref()
        };
        let resources = ownership.of(Owner::Resources).iter().filter(is_followed).cloned();
        git.with(Owner::Resources, resources.collect())
    }
}

/// What comes from the folder, and what became of it.
pub struct Source {
    args: SourceArgs,
    /// Held while something is changed that may be Git's, a resource's or a person's.
    ownership: Mutex<Ownership>,
    /// What the resources own, to be shown.
    resources: ArcSwap<Vec<Owned>>,
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
    /// Reads what is not people's.
    ///
    /// # Errors
    /// The store fails, or a metric's name is wrong.
    pub async fn load(args: SourceArgs, store: &dyn Store) -> Result<Source, StoreError> {
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
            resources: ArcSwap::from_pointee(ownership.resources.clone()),
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

    /// What came from a source that is not followed any more stays, and is people's. Of replicas the one with the lease says so
    /// for all of them, as it keeps the fleet as its sources say where it has some.
    ///
    /// # Errors
    /// The store fails.
    pub async fn release(&self, store: &dyn Store) -> Result<(), StoreError> {
        let mut ownership = self.ownership().await?;
        let kept = self.args.kept(&ownership);
        if kept != *ownership {
            let count = |ownership: &Ownership| ownership.objects.len() + ownership.resources.len();
            let objects = count(&ownership) - count(&kept);
            tracing::warn!(objects, "without the folder or the namespace that they came from they are people's now");
            store.put_ownership(Some(&kept).filter(|kept| **kept != Ownership::default())).await?;
            self.resources.store(Arc::new(kept.resources.clone()));
            *ownership = kept;
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

    /// The resources that definitions come from, by the definition's name.
    pub(crate) fn resources(&self) -> BTreeMap<String, String> {
        self.resources.load().iter().map(|owned| (owned.name.clone(), owned.file.clone())).collect()
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
    let syncer = Syncer { keeper: Keeper { source: Arc::clone(&source), store, fleet }, source };
    let mut records = syncer.keeper.fleet.watch_records();
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
    keeper: Keeper,
}

impl Syncer {
    fn is_awaited(&self) -> bool {
        let records = self.keeper.fleet.records();
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
        let allow_empty = self.source.args.git_allow_empty;
        let kept = self.keeper.keep(Owner::Git, revision, |owned, existing| {
            plan(owned, documents, existing, allow_empty).map(|plan| (plan, ()))
        });
        match kept.await {
            Ok((plan, ())) => Ok(plan.waiting),
            Err(Failure::Refused(findings)) => Err(findings),
            Err(Failure::Change(ChangeError::Store(error))) => {
                Err(vec![whole(format!("the store failed: {error}; it is tried again"))])
            }
            Err(Failure::Change(error)) => Err(vec![whole(error.to_string())]),
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
