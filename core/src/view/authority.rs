//! The hub's CA, as the API says it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where the change of the CA stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum CaStage {
    /// One CA, and no other.
    Stable,
    /// A next CA is there: agents hear of it with their next certificates. It signs nothing yet.
    Introduced,
    /// The next CA signs; agents' certificates of the previous one are still taken.
    Switched,
}

impl CaStage {
    /// The CamelCase text used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            CaStage::Stable => "Stable",
            CaStage::Introduced => "Introduced",
            CaStage::Switched => "Switched",
        }
    }
}

/// The hub's CA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaView {
    /// Where its change stands.
    pub stage: CaStage,
    /// SHA-256 of the CA that signs, in hex.
    pub fingerprint: String,
    /// When it ends.
    #[schema(value_type = String, format = DateTime)]
    pub not_after: Timestamp,
    /// SHA-256 of the other one, in hex: the next CA, or after the switch the previous one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_fingerprint: Option<String>,
    /// Clusters whose agents have not heard of the present stage; they would be locked out by the next one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_for: Vec<String>,
    /// PEM of every CA to trust for the hub.
    pub bundle: String,
}

/// Body of `POST /api/v1/ca/roll`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CaRoll {
    /// The stage to leave: a repeated request changes nothing.
    pub from: CaStage,
    /// Leave it although clusters are waited for; their agents must then be enrolled anew.
    #[serde(default)]
    pub force: bool,
}
