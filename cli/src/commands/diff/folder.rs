//! What the hub's watched folder has beside definitions: labels of clusters, and windows. And what would go with it.

use std::collections::{BTreeMap, BTreeSet};

use active_monitor_core::care::WindowSpec;
use active_monitor_core::definition::{API_VERSION, DefinitionMeta};
use active_monitor_core::gitops::plan::Owned;
use active_monitor_core::gitops::{Documents, Kind};
use active_monitor_core::view::{Change, ClusterView, Preview, PreviewCluster, SourceView, WindowView};
use serde_json::{Value, json};

use super::{Difference, unified};
use crate::client::Client;
use crate::{Error, output};

/// What is Git's at the hub.
#[derive(Default)]
pub(super) struct Git {
    objects: Vec<Owned>,
    /// Clusters that were not added yet and whose labels Git has.
    waiting: BTreeSet<String>,
    pub(super) is_watched: bool,
}

impl Git {
    pub(super) async fn read(hub: &Client) -> Result<Git, Error> {
        let mut git = Git::default();
        for SourceView { objects, waiting, .. } in hub.sources().await? {
            git.objects.extend(objects);
            git.waiting.extend(waiting);
            git.is_watched = true;
        }
        Ok(git)
    }

    fn find(&self, kind: Kind, name: &str) -> Option<&Owned> {
        self.objects.iter().find(|owned| owned.kind == kind && owned.name == name)
    }

    /// What is Git's and in none of the documents.
    fn rest<'a>(&'a self, documents: &'a Documents) -> impl Iterator<Item = &'a Owned> {
        self.objects.iter().filter(|owned| !documents.contains_key(&(owned.kind, owned.name.clone())))
    }
}

/// Labels and annotations of a cluster, as far as they are the document's or Git's: the others are people's.
pub(super) async fn cluster(hub: &Client, git: &Git, wanted: &DefinitionMeta) -> Result<Difference, Error> {
    let name = &wanted.name;
    let before = match hub.cluster(name).await {
        Ok(view) => Some(view),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error.into()),
    };
    let Some(before) = before else {
        let is_known = git.waiting.contains(name);
        let diff =
            if is_known { String::new() } else { unified("", &cluster_text(wanted)?, &path(Kind::FleetCluster, name)) };
        let message = format!("the cluster {name} was not added yet: its labels wait for it");
        return Ok(Difference { message, ..Difference::new(Kind::FleetCluster.as_str(), name, diff) });
    };
    let old = cluster_text(&ours(&before, wanted, git.find(Kind::FleetCluster, name)))?;
    let diff = unified(&old, &cluster_text(wanted)?, &path(Kind::FleetCluster, name));
    Ok(Difference::new(Kind::FleetCluster.as_str(), name, diff))
}

fn ours(before: &ClusterView, wanted: &DefinitionMeta, owned: Option<&Owned>) -> DefinitionMeta {
    let pick =
        |there: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>, owned: Option<&BTreeSet<String>>| {
            let is_ours = |key: &String| wanted.contains_key(key) || owned.is_some_and(|keys| keys.contains(key));
            there.iter().filter(|(key, _)| is_ours(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
        };
    DefinitionMeta {
        name: wanted.name.clone(),
        labels: pick(&before.labels, &wanted.labels, owned.map(|owned| &owned.labels)),
        annotations: pick(&before.annotations, &wanted.annotations, owned.map(|owned| &owned.annotations)),
    }
}

fn cluster_text(metadata: &DefinitionMeta) -> Result<String, Error> {
    output::yaml(&json!({"apiVersion": API_VERSION, "kind": Kind::FleetCluster.as_str(), "metadata": metadata}))
}

pub(super) fn window(windows: &[WindowView], wanted: &WindowSpec) -> Result<Difference, Error> {
    let name = &wanted.name;
    let before = windows.iter().find(|view| view.spec.name == *name);
    let old = before.map_or_else(|| Ok(String::new()), |view| window_text(&view.spec))?;
    let diff = unified(&old, &window_text(wanted)?, &path(Kind::MaintenanceWindow, name));
    Ok(Difference::new(Kind::MaintenanceWindow.as_str(), name, diff))
}

/// As a document has it: the name is that of the object.
fn window_text(spec: &WindowSpec) -> Result<String, Error> {
    let mut fields = serde_json::to_value(spec)?;
    if let Value::Object(fields) = &mut fields {
        fields.remove("name");
    }
    let kind = Kind::MaintenanceWindow.as_str();
    output::yaml(&json!({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": spec.name}, "spec": fields}))
}

fn path(kind: Kind, name: &str) -> String {
    format!("{}/{name}", kind.as_str())
}

/// What the hub would delete if these documents were all of its folder.
pub(super) async fn pruned(
    hub: &Client,
    git: &Git,
    documents: &Documents,
    windows: &[WindowView],
) -> Result<Vec<Difference>, Error> {
    let mut differences = Vec::new();
    for Owned { kind, name, .. } in git.rest(documents) {
        let found = match kind {
            Kind::FleetHealthCheck => withdrawn(hub, name).await?,
            Kind::FleetCluster => unlabelled(hub, git, name).await?,
            Kind::MaintenanceWindow => match windows.iter().find(|view| view.spec.name == *name) {
                Some(view) => {
                    let diff = unified(&window_text(&view.spec)?, "", &path(*kind, name));
                    Some(Difference::new(kind.as_str(), name, diff))
                }
                None => None,
            },
        };
        differences.extend(found);
    }
    Ok(differences)
}

/// A cluster that loses what is Git's of it. None where it is not in the fleet.
async fn unlabelled(hub: &Client, git: &Git, name: &str) -> Result<Option<Difference>, Error> {
    match hub.cluster(name).await {
        Ok(_) => {
            let nothing =
                DefinitionMeta { name: name.to_owned(), labels: BTreeMap::new(), annotations: BTreeMap::new() };
            Ok(Some(cluster(hub, git, &nothing).await?).filter(Difference::is_some))
        }
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A definition that goes, and the clusters that withdraw it. None where it is gone already.
async fn withdrawn(hub: &Client, name: &str) -> Result<Option<Difference>, Error> {
    let view = match hub.definition(name).await {
        Ok(view) => view,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let of = |cluster: String| PreviewCluster { cluster, change: Change::Withdraw, message: String::new() };
    let clusters = view.clusters.into_iter().map(|status| of(status.cluster)).collect();
    let diff = unified(&output::yaml(&view.definition)?, "", name);
    let preview = Some(Preview { current: Some(view.definition), clusters });
    Ok(Some(Difference { preview, ..Difference::new(Kind::FleetHealthCheck.as_str(), name, diff) }))
}
