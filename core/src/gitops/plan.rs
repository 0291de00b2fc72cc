//! What to change so that the fleet is what the documents say: of what was Git's, what it says now, and what there is.
//!
//! Git changes and deletes only what is its own. What people made is never overwritten: a document that wants it
//! otherwise is refused, and with it the set. One that wants exactly what is there takes it over.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{Document, Documents, Kind, Wanted, whole};
use crate::care::{MAX_WINDOWS, WindowSpec};
use crate::definition::{DefinitionMeta, FleetHealthCheck};
use crate::document::{Finding, Object};
use crate::view::ClusterPatch;

/// What people may not change, since it is another's: Git's, and of which commit, or a resource's of the hub's own cluster.
/// Kept by the hub.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ownership {
    /// The commit, where the folder's name tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// What is Git's, by kind and name.
    pub objects: Vec<Owned>,
    /// Definitions that are resources', by name; each one's file is its `NAMESPACE/NAME`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Owned>,
}

/// Who owns what people may not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The folder.
    Git,
    /// The resources of the hub's own cluster.
    Resources,
}

impl Owner {
    /// The one that is not this one.
    pub fn other(self) -> Owner {
        match self {
            Owner::Git => Owner::Resources,
            Owner::Resources => Owner::Git,
        }
    }
}

/// Something that Git or a resource owns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Owned {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The file that it is in, from the folder on.
    pub file: String,
    /// Of a cluster: keys of the labels that are Git's; the others are people's.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub labels: BTreeSet<String>,
    /// Of a cluster: keys of the annotations that are Git's.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub annotations: BTreeSet<String>,
}

impl Ownership {
    /// What one of them owns.
    pub fn of(&self, owner: Owner) -> &[Owned] {
        match owner {
            Owner::Git => &self.objects,
            Owner::Resources => &self.resources,
        }
    }

    /// The same, with other things that are this owner's.
    pub fn with(&self, owner: Owner, owned: Vec<Owned>) -> Ownership {
        let same = self.clone();
        match owner {
            Owner::Git => Ownership { objects: owned, ..same },
            Owner::Resources => Ownership { resources: owned, ..same },
        }
    }

    /// What is under this name, and whose it is.
    fn find(&self, kind: Kind, name: &str) -> Option<(Owner, &Owned)> {
        let of = |owner| self.of(owner).iter().map(move |owned| (owner, owned));
        of(Owner::Git).chain(of(Owner::Resources)).find(|(_, owned)| owned.kind == kind && owned.name == name)
    }

    /// Why a person may not change it; `None` where it is people's.
    pub fn refuses(&self, kind: Kind, name: &str) -> Option<String> {
        let (owner, Owned { file, .. }) = self.find(kind, name)?;
        let kind = kind.as_str();
        Some(match owner {
            Owner::Git => format!("the {kind} {name} is Git's: change {file} in the repository"),
            Owner::Resources => format!("the {kind} {name} is a resource's: change {file} in the hub's own cluster"),
        })
    }

    /// Why one of them cannot have what the other one has, by kind and name.
    pub fn taken(&self, owner: Owner) -> BTreeMap<(Kind, String), String> {
        let others = self.of(owner.other()).iter().map(|owned| (owned.kind, owned.name.clone()));
        others.filter_map(|(kind, name)| self.refuses(kind, &name).map(|why| ((kind, name), why))).collect()
    }

    /// Why a person may not change one of these labels and annotations of a cluster.
    pub fn refuses_keys<'a>(
        &self,
        cluster: &str,
        mut labels: impl Iterator<Item = &'a String>,
        mut annotations: impl Iterator<Item = &'a String>,
    ) -> Option<String> {
        let (_, owned) = self.find(Kind::FleetCluster, cluster)?;
        let label = labels.find(|key| owned.labels.contains(*key)).map(|key| ("label", key));
        let annotation = || annotations.find(|key| owned.annotations.contains(*key)).map(|key| ("annotation", key));
        let (what, key) = label.or_else(annotation)?;
        Some(format!("the {what} {key} of cluster {cluster} is Git's: change {} in the repository", owned.file))
    }
}

/// What there is.
#[derive(Clone, Debug, Default)]
pub struct Existing {
    /// Definitions as they are stored, by name.
    pub definitions: BTreeMap<String, Value>,
    /// Labels and annotations of the clusters; the name is in it too.
    pub clusters: BTreeMap<String, DefinitionMeta>,
    /// Maintenance windows by name.
    pub windows: BTreeMap<String, WindowSpec>,
    /// What another than the one who plans has, and why it stays so.
    pub taken: BTreeMap<(Kind, String), String>,
}

/// What to change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What Git owns afterwards.
    pub owned: Vec<Owned>,
    /// Definitions to add or replace.
    pub put: Vec<FleetHealthCheck>,
    /// Definitions to delete.
    pub delete: Vec<String>,
    /// Labels and annotations to change.
    pub patches: Vec<(String, ClusterPatch)>,
    /// Windows to add or replace, or to delete where there is none.
    pub windows: Vec<(String, Option<WindowSpec>)>,
    /// Clusters that were not added yet: their labels wait for them.
    pub waiting: Vec<String>,
    /// What people made exactly as Git has it, and is Git's from now on.
    pub adopted: Vec<(Kind, String)>,
}

impl Plan {
    /// Whether nothing is to be changed, but perhaps who owns it.
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.delete.is_empty() && self.patches.is_empty() && self.windows.is_empty()
    }

    /// What Git must own before the first change, so that what a crash leaves half done is known as its own.
    pub fn claim(&self, before: &[Owned]) -> Vec<Owned> {
        let mut claims: BTreeMap<(Kind, String), Owned> = BTreeMap::new();
        for owned in self.owned.iter().chain(before) {
            let claim = claims.entry((owned.kind, owned.name.clone())).or_insert_with(|| owned.clone());
            claim.labels.extend(owned.labels.iter().cloned());
            claim.annotations.extend(owned.annotations.iter().cloned());
        }
        claims.into_values().collect()
    }
}

/// What to change so that `existing` becomes what `documents` say. Without `allow_empty` no documents at all are taken
/// for a mistake where Git owns something.
///
/// # Errors
/// Everything that stands against it; nothing is to be changed then.
pub fn plan(
    owned: &[Owned],
    documents: &Documents,
    existing: &Existing,
    allow_empty: bool,
) -> Result<Plan, Vec<Finding>> {
    if documents.is_empty() && !owned.is_empty() && !allow_empty {
        let text = "there are no documents, and all that Git made would be deleted; --git-allow-empty allows that";
        return Err(vec![whole(text)]);
    }
    let mut planner = Planner {
        owned: owned.iter().map(|owned| ((owned.kind, owned.name.as_str()), owned)).collect(),
        existing,
        plan: Plan::default(),
        findings: Vec::new(),
    };
    for Document { object, wanted } in documents.values() {
        match wanted {
            Wanted::Definition(definition) => planner.definition(object, definition),
            Wanted::Cluster(metadata) => planner.cluster(object, metadata),
            Wanted::Window(spec) => planner.window(object, spec),
        }
    }
    for owned in owned.iter().filter(|owned| !documents.contains_key(&(owned.kind, owned.name.clone()))) {
        planner.gone(owned);
    }
    planner.bound_windows();
    if planner.findings.is_empty() { Ok(planner.plan) } else { Err(planner.findings) }
}

struct Planner<'a> {
    owned: BTreeMap<(Kind, &'a str), &'a Owned>,
    existing: &'a Existing,
    plan: Plan,
    findings: Vec<Finding>,
}

impl Planner<'_> {
    fn definition(&mut self, object: &Object, definition: &FleetHealthCheck) {
        let name = &definition.metadata.name;
        let there = self.existing.definitions.get(name);
        let is_same = there.is_some_and(|there| serde_json::to_value(definition).is_ok_and(|value| value == *there));
        if self.take(object, Kind::FleetHealthCheck, name, there.is_some(), is_same) {
            self.plan.put.push(definition.clone());
        }
    }

    fn window(&mut self, object: &Object, spec: &WindowSpec) {
        let there = self.existing.windows.get(&spec.name);
        let is_same = there == Some(spec);
        if self.take(object, Kind::MaintenanceWindow, &spec.name, there.is_some(), is_same) {
            self.plan.windows.push((spec.name.clone(), Some(spec.clone())));
        }
    }

    /// Whether the object is to be written. It is Git's from now on, unless it is another's.
    fn take(&mut self, object: &Object, kind: Kind, name: &str, is_there: bool, is_same: bool) -> bool {
        let is_owned = self.owned.contains_key(&(kind, name));
        if let Some(why) = self.existing.taken.get(&(kind, name.to_owned())) {
            self.findings.push(object.error("metadata.name", why));
            return false;
        }
        if is_there && !is_owned {
            if !is_same {
                let text = "is there and was not made by Git; delete it, or make the document the same";
                self.findings.push(object.error("metadata.name", text));
                return false;
            }
            self.plan.adopted.push((kind, name.to_owned()));
        }
        let (name, file) = (name.to_owned(), object.file().to_owned());
        self.plan.owned.push(Owned { kind, name, file, labels: BTreeSet::new(), annotations: BTreeSet::new() });
        !is_same
    }

    fn cluster(&mut self, object: &Object, wanted: &DefinitionMeta) {
        let (kind, name) = (Kind::FleetCluster, &wanted.name);
        let file = object.file().to_owned();
        let mut owned = Owned { kind, name: name.clone(), file, labels: BTreeSet::new(), annotations: BTreeSet::new() };
        let Some(there) = self.existing.clusters.get(name) else {
            self.plan.waiting.push(name.clone());
            self.plan.owned.push(owned);
            return;
        };
        let before = self.owned.get(&(kind, name.as_str()));
        let mut keys = |what: &str, wanted: &BTreeMap<_, _>, there: &BTreeMap<_, _>, before: Option<&BTreeSet<_>>| {
            let (changes, clashes) = merge(wanted, there, before);
            let text = |key: &str| {
                let field = format!("metadata.{what}[{key}]");
                object
                    .error(&field, "has another value that was not set by Git; remove it from the cluster or from here")
            };
            self.findings.extend(clashes.iter().map(|key| text(key)));
            changes
        };
        let labels = keys("labels", &wanted.labels, &there.labels, before.map(|owned| &owned.labels));
        let annotations =
            keys("annotations", &wanted.annotations, &there.annotations, before.map(|owned| &owned.annotations));
        owned.labels = wanted.labels.keys().cloned().collect();
        owned.annotations = wanted.annotations.keys().cloned().collect();
        self.plan.owned.push(owned);
        self.patch(name, ClusterPatch { labels, annotations });
    }

    fn patch(&mut self, cluster: &str, patch: ClusterPatch) {
        if patch != ClusterPatch::default() {
            self.plan.patches.push((cluster.to_owned(), patch));
        }
    }

    /// What Git had and no longer has.
    fn gone(&mut self, owned: &Owned) {
        let name = &owned.name;
        match owned.kind {
            Kind::FleetHealthCheck if self.existing.definitions.contains_key(name) => {
                self.plan.delete.push(name.clone())
            }
            Kind::MaintenanceWindow if self.existing.windows.contains_key(name) => {
                self.plan.windows.push((name.clone(), None));
            }
            Kind::FleetCluster => {
                let Some(there) = self.existing.clusters.get(name) else { return };
                let nothing = BTreeMap::new();
                let (labels, _) = merge(&nothing, &there.labels, Some(&owned.labels));
                let (annotations, _) = merge(&nothing, &there.annotations, Some(&owned.annotations));
                self.patch(name, ClusterPatch { labels, annotations });
            }
            Kind::FleetHealthCheck | Kind::MaintenanceWindow => {}
        }
    }

    fn bound_windows(&mut self) {
        let mut names: BTreeSet<&String> = self.existing.windows.keys().collect();
        for (name, spec) in &self.plan.windows {
            if spec.is_some() {
                names.insert(name)
            } else {
                names.remove(name)
            };
        }
        if names.len() > MAX_WINDOWS {
            let text = format!("there would be {} maintenance windows, {MAX_WINDOWS} are allowed", names.len());
            self.findings.push(whole(text));
        }
    }
}

/// What to change in a map of which only the keys in `before` are ours, and the keys that are another's.
fn merge(
    wanted: &BTreeMap<String, String>,
    there: &BTreeMap<String, String>,
    before: Option<&BTreeSet<String>>,
) -> (BTreeMap<String, Option<String>>, Vec<String>) {
    let is_ours = |key: &String| before.is_some_and(|before| before.contains(key));
    let mut changes = BTreeMap::new();
    let mut clashes = Vec::new();
    for (key, value) in wanted {
        match there.get(key) {
            Some(same) if same == value => {}
            Some(_) if !is_ours(key) => clashes.push(key.clone()),
            Some(_) | None => drop(changes.insert(key.clone(), Some(value.clone()))),
        }
    }
    let removed = there.keys().filter(|key| is_ours(key) && !wanted.contains_key(*key));
    changes.extend(removed.map(|key| (key.clone(), None)));
    (changes, clashes)
}

#[cfg(test)]
mod tests;
