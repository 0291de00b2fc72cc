//! Fleet definitions: a HealthCheck that the hub pushes to every cluster that a selector picks.

pub mod parse;
pub mod placeholder;
pub mod render;
pub mod select;
pub mod validate;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `apiVersion` of a FleetHealthCheck.
pub const API_VERSION: &str = "fleet.activemonitor.keikoproj.io/v1alpha1";
/// `kind` of a FleetHealthCheck.
pub const KIND: &str = "FleetHealthCheck";
/// The most that a definition, or what it renders to for one cluster, may have as JSON, bytes.
pub const MAX_BYTES: usize = 256 * 1024;

/// A definition as people write it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FleetHealthCheck {
    /// [`API_VERSION`].
    pub api_version: String,
    /// [`KIND`].
    pub kind: String,
    /// Name, labels and annotations of the definition itself.
    pub metadata: DefinitionMeta,
    /// What goes where.
    pub spec: FleetHealthCheckSpec,
}

/// Metadata of a definition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DefinitionMeta {
    /// Unique in the fleet; a DNS label of at most 63 characters.
    pub name: String,
    /// For people and filters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// For people.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What goes where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FleetHealthCheckSpec {
    /// Which clusters get it, by their labels at the hub. An empty selector matches every cluster, as in Kubernetes.
    #[schema(value_type = Object)]
    pub cluster_selector: LabelSelector,
    /// The HealthCheck, with `${cluster.name}`, `${cluster.labels.KEY}` and `${cluster.annotations.KEY}` in any string.
    pub template: HealthCheckTemplate,
}

/// The HealthCheck that a cluster gets, before the cluster's values are filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthCheckTemplate {
    /// Where it is made and under which name.
    pub metadata: TemplateMeta,
    /// A HealthCheck's `spec`, kept as written: fields that this hub does not know reach the agents unharmed.
    #[schema(value_type = Object)]
    pub spec: serde_json::Value,
}

/// Metadata of the HealthCheck that a cluster gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TemplateMeta {
    /// Namespace in the cluster; it must exist there.
    pub namespace: String,
    /// Name in the cluster; the definition's own where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Labels of the HealthCheck.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the HealthCheck.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}
