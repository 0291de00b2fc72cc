//! What each cluster gets: every definition, filled in for every cluster that it selects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use active_monitor_core::definition::FleetHealthCheck;
use active_monitor_core::definition::render::{ClusterFacts, render};
use active_monitor_core::definition::select::matches;
use active_monitor_core::names;
use active_monitor_core::session::frame::{Definition, DefinitionStatus, MAX_HUB_FRAME_BYTES};
use active_monitor_core::view::DefinitionClusterStatus;

use crate::owner::DefinitionSet;
use crate::store::ClusterRecord;

/// What each cluster gets, and the definitions that cannot be read.
#[derive(Clone, Default)]
pub(super) struct Rendered {
    clusters: BTreeMap<String, OfCluster>,
    /// Definitions that this version of the hub cannot read: whom they select is not known, so every cluster keeps what
    /// it has of them.
    unreadable: BTreeSet<String>,
}

/// What one cluster gets.
#[derive(Clone, Default)]
struct OfCluster {
    /// By definition: what it gets, or why it cannot get it. A definition that does not select it is absent.
    made: BTreeMap<String, Result<Definition, String>>,
    /// Of all that can be sent.
    bytes: usize,
    /// Why nothing is sent; absent where the cluster is not cordoned.
    cordon: Option<String>,
}

impl OfCluster {
    fn set(&mut self, name: &str, made: Option<Result<Definition, String>>) {
        let size = |made: Option<&Result<Definition, String>>| match made {
            Some(Ok(definition)) => definition.size_bytes(),
            Some(Err(_)) | None => 0,
        };
        self.bytes += size(made.as_ref());
        let old = match made {
            Some(made) => self.made.insert(name.to_owned(), made),
            None => self.made.remove(name),
        };
        self.bytes -= size(old.as_ref());
    }

    fn is_too_large(&self) -> bool {
        self.bytes > MAX_HUB_FRAME_BYTES
    }
}

fn one(
    name: &str,
    generation: u64,
    definition: &FleetHealthCheck,
    record: &ClusterRecord,
) -> Option<Result<Definition, String>> {
    if !matches(&definition.spec.cluster_selector, &record.labels) {
        return None;
    }
    let facts = ClusterFacts { name: &record.name, labels: &record.labels, annotations: &record.annotations };
    let made = render(definition, &facts).map_err(|error| error.to_string());
    let name = name.to_owned();
    Some(made.map(|value| Definition { name, generation, health_check: value.to_string() }))
}

impl Rendered {
    /// Fills a new or changed definition in for every cluster.
    pub(super) fn put<'a>(
        &mut self,
        name: &str,
        generation: u64,
        definition: &FleetHealthCheck,
        records: impl Iterator<Item = &'a ClusterRecord>,
    ) {
        self.unreadable.remove(name);
        for record in records {
            let made = one(name, generation, definition, record);
            self.clusters.entry(record.name.clone()).or_default().set(name, made);
        }
    }

    /// A definition that cannot be read.
    pub(super) fn put_unreadable(&mut self, name: &str) {
        self.unreadable.insert(name.to_owned());
    }

    /// Fills every definition in for a new or changed cluster.
    pub(super) fn put_cluster<'a>(
        &mut self,
        record: &ClusterRecord,
        definitions: impl Iterator<Item = (&'a String, u64, &'a FleetHealthCheck)>,
    ) {
        let cordon = record.annotations.get(names::CORDON_ANNOTATION).cloned();
        let mut of_cluster = OfCluster { cordon, ..OfCluster::default() };
        for (name, generation, definition) in definitions {
            of_cluster.set(name, one(name, generation, definition, record));
        }
        self.clusters.insert(record.name.clone(), of_cluster);
    }

    pub(super) fn remove_cluster(&mut self, cluster: &str) {
        self.clusters.remove(cluster);
    }

    pub(super) fn remove_definition(&mut self, name: &str) {
        self.unreadable.remove(name);
        for of_cluster in self.clusters.values_mut() {
            of_cluster.set(name, None);
        }
    }

    /// Whether nothing is sent to a cluster: it keeps what it has.
    pub(super) fn is_cordoned(&self, cluster: &str) -> bool {
        self.clusters.get(cluster).is_some_and(|of_cluster| of_cluster.cordon.is_some())
    }

    /// The set of a cluster. What cannot be filled in, read or sent is in it without a HealthCheck: the cluster keeps
    /// what it has.
    pub(super) fn set(&self, cluster: &str) -> DefinitionSet {
        let hold = |name: &String| Definition { name: name.clone(), generation: 0, health_check: String::new() };
        let mut set: Vec<Definition> = self.unreadable.iter().map(hold).collect();
        if let Some(of_cluster) = self.clusters.get(cluster) {
            let too_large = of_cluster.is_too_large();
            set.extend(of_cluster.made.iter().map(|(name, made)| match made {
                Ok(definition) if !too_large => definition.clone(),
                Ok(_) | Err(_) => hold(name),
            }));
        }
        Arc::new(set)
    }

    /// A cluster whose set is too large and was not so, or not by so much, in `before`; with its size in bytes.
    pub(super) fn outgrown(&self, before: &Rendered) -> Option<(&str, usize)> {
        let size = |cluster: &str| before.clusters.get(cluster).map_or(0, |of_cluster| of_cluster.bytes);
        let grown = |(cluster, of_cluster): &(&String, &OfCluster)| {
            of_cluster.is_too_large() && of_cluster.bytes > size(cluster)
        };
        self.clusters.iter().find(grown).map(|(cluster, of_cluster)| (cluster.as_str(), of_cluster.bytes))
    }

    /// What became of a definition, for each cluster that it is meant for or whose agent last spoke of it.
    pub(super) fn statuses(
        &self,
        name: &str,
        generation: u64,
        said: &BTreeMap<String, BTreeMap<String, DefinitionStatus>>,
    ) -> Vec<DefinitionClusterStatus> {
        let is_unreadable = self.unreadable.contains(name);
        let clusters = self.clusters.iter().filter_map(|(cluster, of_cluster)| {
            let said = said.get(cluster).and_then(|statuses| statuses.get(name));
            let is_current = said.is_some_and(|said| said.generation == generation);
            let (result, message) = match (of_cluster.made.get(name), said) {
                (None, None) => return None,
                (_, _) if is_unreadable => (None, "the hub cannot read it; what is there stays".to_owned()),
                (Some(Err(why)), _) => (None, why.clone()),
                (Some(Ok(_)), _) if of_cluster.is_too_large() => (None, too_large(of_cluster.bytes)),
                (Some(Ok(_)), Some(said)) if is_current => (Some(said.result), said.message.clone()),
                (_, _) if of_cluster.cordon.is_some() => (None, cordoned(of_cluster.cordon.as_deref())),
                (None, Some(_)) => (None, "no longer selected; it is being withdrawn".to_owned()),
                (Some(Ok(_)), _) => (None, String::new()),
            };
            let observed_generation = said.map_or(0, |said| said.generation);
            Some(DefinitionClusterStatus { cluster: cluster.clone(), result, observed_generation, message })
        });
        clusters.collect()
    }
}

fn cordoned(why: Option<&str>) -> String {
    let why = why.filter(|why| !why.is_empty()).map(|why| format!(" ({why})")).unwrap_or_default();
    format!("the cluster is cordoned{why}: it keeps what it has")
}

fn too_large(bytes: usize) -> String {
    format!(
        "all definitions of this cluster are {bytes} bytes together, the limit is {MAX_HUB_FRAME_BYTES}; it keeps what \
         it has until its labels select less"
    )
}
