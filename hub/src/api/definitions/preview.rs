//! What a PUT of a definition would do. Pure.

use active_monitor_core::definition::render::{ClusterFacts, RenderError, render};
use active_monitor_core::definition::{FleetHealthCheck, parse, select};
use active_monitor_core::fleet::FleetView;
use active_monitor_core::view::{Change, ClusterView, DefinitionView, Preview, PreviewCluster};
use serde_json::Value;

/// What a definition is in a cluster: nothing where its selector does not pick the cluster.
type Rendered = Option<Result<Value, RenderError>>;

/// Compares `definition` with what the hub has of that name, cluster by cluster.
pub fn preview(definition: &FleetHealthCheck, current: Option<&DefinitionView>, fleet: &FleetView) -> Preview {
    let before = current.and_then(|current| parse::from_value(current.definition.clone()).ok());
    let clusters = fleet.clusters.values().filter_map(|entry| {
        let cluster = &entry.view;
        let before = before.as_ref().and_then(|before| rendered(before, cluster));
        let (change, message) = change(before, rendered(definition, cluster))?;
        Some(PreviewCluster { cluster: cluster.name.clone(), change, message })
    });
    Preview { clusters: clusters.collect(), current: current.map(|current| current.definition.clone()) }
}

fn rendered(definition: &FleetHealthCheck, cluster: &ClusterView) -> Rendered {
    let facts = ClusterFacts { name: &cluster.name, labels: &cluster.labels, annotations: &cluster.annotations };
    select::matches(&definition.spec.cluster_selector, &cluster.labels).then(|| render(definition, &facts))
}

/// What cannot be rendered is not part of what a cluster gets, so there it is withdrawn, or never made.
fn change(before: Rendered, after: Rendered) -> Option<(Change, String)> {
    let before = before.and_then(Result::ok);
    match (before, after) {
        (None, None) => None,
        (Some(_), None) => Some((Change::Withdraw, String::new())),
        (None, Some(Ok(_))) => Some((Change::Create, String::new())),
        (Some(before), Some(Ok(after))) if before == after => Some((Change::Unchanged, String::new())),
        (Some(_), Some(Ok(_))) => Some((Change::Update, String::new())),
        (Some(_), Some(Err(error))) => Some((Change::Unchanged, text(&error))),
        (None, Some(Err(error))) => Some((Change::Unchanged, text(&error))),
    }
}

fn text(error: &RenderError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use active_monitor_core::definition::{API_VERSION, KIND};
    use active_monitor_core::fleet::{Checks, ClusterEntry};
    use active_monitor_core::view::{ClusterStatus, FleetSummary};
    use serde_json::json;

    use super::*;

    fn definition(env: &str, seconds: u32, text: &str) -> FleetHealthCheck {
        parse::from_value(json!({
            "apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "dns"},
            "spec": {
                "clusterSelector": {"matchLabels": {"env": env}},
                "template": {"metadata": {"namespace": "health"}, "spec": {"repeatAfterSec": seconds, "text": text}},
            },
        }))
        .unwrap()
    }

    fn fleet(clusters: &[(&str, &str)]) -> FleetView {
        let entry = |name: &str, env: &str| {
            let view = ClusterView {
                name: name.to_owned(),
                labels: BTreeMap::from([("env".to_owned(), env.to_owned())]),
                annotations: BTreeMap::from([(format!("only-{name}"), "x".to_owned())]),
                status: ClusterStatus::Pending,
                message: String::new(),
                last_heard_at: None,
                agent_version: String::new(),
                kubernetes_version: String::new(),
                backlog: 0,
                dropped_reports: 0,
                refused_checks: 0,
                clock_skew_ms: 0,
                certificate_ends_at: None,
                self_test: None,
                pending_enrolment: None,
                policy: Vec::new(),
                checks: BTreeMap::new(),
            };
            (name.to_owned(), Arc::new(ClusterEntry::new(view, Checks::default())))
        };
        let (hub_version, checks) = (String::new(), BTreeMap::new());
        let summary = FleetSummary { hub_version, clusters: BTreeMap::new(), checks, definitions: 0, restore: None };
        FleetView { revision: 1, summary, clusters: clusters.iter().map(|(name, env)| entry(name, env)).collect() }
    }

    #[test]
    fn each_cluster_that_is_concerned_is_listed_with_its_change() {
        let fleet = fleet(&[("a", "prod"), ("b", "dev"), ("c", "test")]);
        let old = definition("prod", 60, "");
        let stored = |definition: &FleetHealthCheck| DefinitionView {
            name: "dns".to_owned(),
            generation: 1,
            definition: serde_json::to_value(definition).unwrap(),
            message: String::new(),
            git: None,
            resource: None,
            clusters: Vec::new(),
        };
        let stored = stored(&old);
        let missing = "spec.template.spec.text: the cluster has no annotation \"only-b\"";
        for (definition, current, expected) in [
            (definition("prod", 60, ""), None, vec![("a", Change::Create, "")]),
            (definition("prod", 60, ""), Some(&stored), vec![("a", Change::Unchanged, "")]),
            (definition("prod", 90, ""), Some(&stored), vec![("a", Change::Update, "")]),
            (definition("dev", 60, ""), Some(&stored), vec![("a", Change::Withdraw, ""), ("b", Change::Create, "")]),
            (
                definition("prod", 60, "${cluster.annotations.only-b}"),
                Some(&stored),
                vec![("a", Change::Unchanged, missing)],
            ),
            (definition("prod", 60, "${cluster.annotations.only-b}"), None, vec![("a", Change::Unchanged, missing)]),
        ] {
            let preview = preview(&definition, current, &fleet);
            let found: Vec<(&str, Change, &str)> = preview
                .clusters
                .iter()
                .map(|item| (item.cluster.as_str(), item.change, item.message.as_str()))
                .collect();
            assert_eq!(found, expected);
            assert_eq!(preview.current.is_some(), current.is_some());
        }
    }
}
