//! Folders that the hub takes the desired state from, as the API says them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::document::Finding;
use crate::gitops::plan::Owned;

/// Whether what a source says is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum SourceState {
    /// It was not read since the hub started; what it said before is in force.
    Pending,
    /// It is.
    InForce,
    /// It is not: what it said before is in force.
    Refused,
}

impl SourceState {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            SourceState::Pending => "Pending",
            SourceState::InForce => "InForce",
            SourceState::Refused => "Refused",
        }
    }
}

/// Where in the watched folder something is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GitOrigin {
    /// The file, from the folder on.
    pub file: String,
    /// The commit that is in force, where the folder's name tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

impl GitOrigin {
    /// `dns.yaml at 0a1b2c3`, for people.
    pub fn in_words(&self) -> String {
        let commit = self.revision.as_ref().map(|revision| format!(" at {revision}")).unwrap_or_default();
        format!("{}{commit}", self.file)
    }
}

/// A folder that the hub takes definitions, labels and windows from, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceView {
    /// The folder.
    pub folder: String,
    /// Whether what it says is in force.
    pub state: SourceState,
    /// The commit that is in force, where the folder's name tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The commit that was refused, where the folder's name tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_revision: Option<String>,
    /// When the folder was last found to be in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub synced_at: Option<Timestamp>,
    /// Why it is refused; the first hundred.
    pub problems: Vec<Finding>,
    /// Clusters that were not added yet, whose labels wait for them.
    pub waiting: Vec<String>,
    /// What is Git's, with its file.
    pub objects: Vec<Owned>,
}
