//! API tokens and the audit log, as the API says them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Role;

/// An API token, without its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenView {
    /// Unique.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// Body of `POST /api/v1/tokens`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenAdd {
    /// 1 to 63 letters, digits, `-`, `_` or `.`; for people and the audit log.
    pub name: String,
    /// What it may do.
    pub role: Role,
}

/// A new API token. Shown once: the hub keeps only its hash.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenSecret {
    /// Its name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// What a program sends as `Authorization: Bearer TOKEN`.
    pub token: String,
}

/// A line of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditView {
    /// When, by the hub's clock.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Name of the API token, or the part of the hub that did it.
    pub who: String,
    /// What was done: `cluster.add`, `definition.put`, ...
    pub action: String,
    /// To what.
    pub object: String,
}
