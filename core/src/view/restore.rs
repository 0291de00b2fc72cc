//! A hub that is back from the past, as the API says it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The hub was restored from the past, and nobody has confirmed it: it pushes and withdraws no definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Restore {
    /// When it was restored, or when it noticed.
    #[schema(value_type = String, format = DateTime)]
    pub noticed_at: Timestamp,
    /// By what.
    pub reason: String,
}

/// Answer to `GET /api/v1/restore`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreView {
    /// Absent where there is nothing to confirm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Restore>,
    /// Definitions that clusters have in a later generation than the hub, or that the hub does not know: what a
    /// confirmation would push back or withdraw, as far as connected clusters show it.
    pub differences: Vec<RestoreDifference>,
}

/// A definition that the hub knows less of than the clusters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoreDifference {
    /// Its name.
    pub definition: String,
    /// The hub's generation; absent where the hub does not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub_generation: Option<u64>,
    /// The latest that a cluster has.
    pub newest_generation: u64,
    /// Which clusters have it.
    pub clusters: Vec<String>,
}
