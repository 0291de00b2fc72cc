//! Uptime, as the API says it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::uptime::{Budget, Uptime};

/// Uptime of checks, clusters or groups of clusters over a time that ends now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UptimePage {
    /// Beginning of the time.
    #[schema(value_type = String, format = DateTime)]
    pub from: Timestamp,
    /// Its end.
    #[schema(value_type = String, format = DateTime)]
    pub to: Timestamp,
    /// The lowest uptime first; those of which nothing is known last.
    pub items: Vec<UptimeView>,
    /// How many there are, those beyond the limit included.
    pub total: u64,
}

/// Uptime of one check, or of all of a group: then the sum of theirs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UptimeView {
    /// Name of the cluster; absent in a roll-up over clusters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Namespace of the check; absent in a roll-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the check; absent in a roll-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Value of the label that clusters are rolled up by; empty where they lack it, absent without such a label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Checks that it is the sum of.
    pub checks: u64,
    /// The share of up in what is known, 0 to 1; absent where nothing is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// What an objective leaves; absent where none was given, or nothing is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// What it is made of.
    #[serde(flatten)]
    pub time: Uptime,
}
