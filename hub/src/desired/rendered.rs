//! What each cluster gets: every definition, filled in for every cluster that it selects.

use std::collections::BTreeMap;
use std::sync::Arc;

use active_monitor_core::definition::FleetHealthCheck;
use active_monitor_core::definition::render::{ClusterFacts, render};
use active_monitor_core::definition::select::matches;
use active_monitor_core::session::frame::{Definition, DefinitionStatus};
use active_monitor_core::view::DefinitionClusterStatus;

use crate::owner::DefinitionSet;
use crate::store::ClusterRecord;

/// Cluster, then definition: what it gets, or why it cannot get it. A definition that does not select it is absent.
#[derive(Clone, Default)]
pub(super) struct Rendered(BTreeMap<String, BTreeMap<String, Result<Definition, String>>>);

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
        for record in records {
            let of_cluster = self.0.entry(record.name.clone()).or_default();
            match one(name, generation, definition, record) {
                Some(made) => drop(of_cluster.insert(name.to_owned(), made)),
                None => drop(of_cluster.remove(name)),
            }
        }
    }

    /// Fills every definition in for a new or changed cluster.
    pub(super) fn put_cluster<'a>(
        &mut self,
        record: &ClusterRecord,
        definitions: impl Iterator<Item = (&'a String, u64, &'a FleetHealthCheck)>,
    ) {
        let made = definitions.filter_map(|(name, generation, definition)| {
            Some((name.clone(), one(name, generation, definition, record)?))
        });
        self.0.insert(record.name.clone(), made.collect());
    }

    pub(super) fn remove_cluster(&mut self, cluster: &str) {
        self.0.remove(cluster);
    }

    pub(super) fn remove_definition(&mut self, name: &str) {
        for of_cluster in self.0.values_mut() {
            of_cluster.remove(name);
        }
    }

    /// The set of a cluster. What cannot be filled in is in it without a HealthCheck: the cluster keeps what it has.
    pub(super) fn set(&self, cluster: &str) -> DefinitionSet {
        let hold = |name: &str| Definition { name: name.to_owned(), generation: 0, health_check: String::new() };
        let made = self.0.get(cluster).into_iter().flatten();
        Arc::new(made.map(|(name, made)| made.clone().unwrap_or_else(|_| hold(name))).collect())
    }

    /// The largest set: its cluster and its size in bytes.
    pub(super) fn largest(&self) -> Option<(&str, usize)> {
        let size = |of_cluster: &BTreeMap<String, Result<Definition, String>>| {
            of_cluster.values().filter_map(|made| made.as_ref().ok()).map(Definition::size_bytes).sum()
        };
        self.0.iter().map(|(cluster, of_cluster)| (cluster.as_str(), size(of_cluster))).max_by_key(|(_, bytes)| *bytes)
    }

    /// What became of a definition, for each cluster that it is meant for or whose agent last spoke of it.
    pub(super) fn statuses(
        &self,
        name: &str,
        generation: u64,
        said: &BTreeMap<String, BTreeMap<String, DefinitionStatus>>,
    ) -> Vec<DefinitionClusterStatus> {
        let clusters = self.0.iter().filter_map(|(cluster, of_cluster)| {
            let made = of_cluster.get(name);
            let said = said.get(cluster).and_then(|statuses| statuses.get(name));
            let (result, message) = match (made, said) {
                (None, None) => return None,
                (None, Some(_)) => (None, "no longer selected; it is being withdrawn".to_owned()),
                (Some(Err(why)), _) => (None, why.clone()),
                (Some(Ok(_)), None) => (None, String::new()),
                (Some(Ok(_)), Some(said)) if said.generation != generation => (None, String::new()),
                (Some(Ok(_)), Some(said)) => (Some(said.result), said.message.clone()),
            };
            let observed_generation = said.map_or(0, |said| said.generation);
            Some(DefinitionClusterStatus { cluster: cluster.clone(), result, observed_generation, message })
        });
        clusters.collect()
    }
}
