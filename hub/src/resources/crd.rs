//! The FleetHealthCheck as a custom resource, from which the CRD is generated: what `fleetcheck apply` takes, and a status.
//!
//! Its spec is kept as written, whatever is in it, and judged by the code that judges every other definition: the API server
//! would drop a field with a typing mistake, and a selector without it picks more clusters.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, ValidationRule};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, CustomResourceExt};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Which clusters get which HealthCheck, as written.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "fleet.activemonitor.keikoproj.io",
    version = "v1alpha1",
    kind = "FleetHealthCheck",
    plural = "fleethealthchecks",
    singular = "fleethealthcheck",
    shortname = "fhc",
    namespaced,
    status = "FleetHealthCheckStatus",
    derive = "PartialEq",
    doc = "A HealthCheck that the hub puts into every cluster that a selector picks.",
    printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Accepted')].status"}"#,
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].status"}"#,
    printcolumn = r#"{"name": "Clusters", "type": "integer", "jsonPath": ".status.clusters.matched"}"#,
    printcolumn = r#"{"name": "Applied", "type": "integer", "jsonPath": ".status.clusters.applied"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(transparent)]
pub struct FleetHealthCheckSpec(pub Value);

impl JsonSchema for FleetHealthCheckSpec {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "FleetHealthCheckSpec".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": true,
            // Applied as one thing: merged by server-side apply, a selector that lost its last field would be null.
            "x-kubernetes-map-type": "atomic",
            "required": ["clusterSelector", "template"],
            "properties": {
                "clusterSelector": {
                    "description": "Which clusters get it, by their labels at the hub: matchLabels and matchExpressions. \
                                    {} is every cluster.",
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": true
                },
                "template": {
                    "description": "The HealthCheck, with ${cluster.name}, ${cluster.labels.KEY} and \
                                    ${cluster.annotations.KEY} in any string.",
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": true,
                    "required": ["metadata", "spec"],
                    "properties": {
                        "metadata": {
                            "description": "Its namespace in the clusters; name, labels and annotations are optional.",
                            "type": "object",
                            "x-kubernetes-preserve-unknown-fields": true,
                            "required": ["namespace"],
                            "properties": {"namespace": {"type": "string"}}
                        },
                        "spec": {
                            "description": "A HealthCheck's spec.",
                            "type": "object",
                            "x-kubernetes-preserve-unknown-fields": true
                        }
                    }
                }
            }
        })
    }
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetHealthCheckStatus {
    /// `metadata.generation` that all of this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`: the hub has taken it. `Ready`: every cluster that it selects has it.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How many clusters there are of which kind.
    #[serde(default)]
    pub clusters: ClusterCounts,
    /// The first ten clusters that do not have it and say why.
    #[serde(default)]
    pub problems: Vec<ClusterProblem>,
}

/// Clusters that a definition selects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterCounts {
    /// All of them.
    #[serde(default)]
    pub matched: i64,
    /// Those that have it.
    #[serde(default)]
    pub applied: i64,
    /// Those whose agent does not take it.
    #[serde(default)]
    pub refused: i64,
    /// Those whose answer is awaited, or where it is tried again.
    #[serde(default)]
    pub pending: i64,
}

/// Why a cluster does not have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterProblem {
    /// The cluster's name at the hub.
    pub cluster: String,
    /// Refused, Conflict, Failed or Pending.
    pub reason: String,
    /// In words.
    #[serde(default)]
    pub message: String,
}

/// The CustomResourceDefinition.
pub fn crd() -> CustomResourceDefinition {
    let mut crd = FleetHealthCheck::crd();
    for version in &mut crd.spec.versions {
        if let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            root.x_kubernetes_validations = Some(vec![name_rule()]);
        }
    }
    crd
}

/// The API server's own rule allows dots and 253 characters.
fn name_rule() -> ValidationRule {
    ValidationRule {
        rule: "self.metadata.name.size() <= 63 && !self.metadata.name.contains('.')".to_owned(),
        message: Some("metadata.name must be a DNS label: at most 63 characters, and no dot".to_owned()),
        ..ValidationRule::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For kubectl, and for Helm, whose charts hold no files of others.
    const CHECKED_IN: [&str; 2] = [
        concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/hub-resources/crd.yaml"),
        concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/charts/hub/files/fleethealthchecks.yaml"),
    ];

    #[test]
    fn the_checked_in_crd_is_the_one_of_these_types() {
        let generated = serde_saphyr::to_string(&crd()).unwrap();
        for path in CHECKED_IN {
            if std::env::var_os("UPDATE").is_some() {
                std::fs::write(path, &generated).unwrap();
            }
            let checked_in = std::fs::read_to_string(path).unwrap_or_default();
            assert_eq!(checked_in, generated, "run the test with UPDATE=1 and commit {path}");
        }
    }
}
