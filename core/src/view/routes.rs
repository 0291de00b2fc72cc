//! Routes of alerts, as the API says them: by their names alone.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Change;

/// A file of routes that may come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RoutesFile {
    /// What it says, as YAML.
    pub text: String,
}

/// What a file of routes would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoutesPreview {
    /// Whether the hub has a file of routes; where it has none, nobody is told by it whatever this one says.
    pub has_file: bool,
    /// Each route that there is or would be, by name.
    pub routes: Vec<RoutePreview>,
}

/// What would become of one route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoutePreview {
    /// Its name.
    pub name: String,
    /// What would happen.
    pub change: Change,
    /// Which of its fields would be others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
}
