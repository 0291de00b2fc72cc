//! Maintenance windows and acknowledgements, as the API says them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::GitOrigin;
use crate::care::WindowSpec;

/// A maintenance window, and when it is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WindowView {
    /// As it was written.
    #[serde(flatten)]
    pub spec: WindowSpec,
    /// Until when it is open; absent where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub open_until: Option<Timestamp>,
    /// When it begins or ends next; absent where it never does again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub changes_at: Option<Timestamp>,
    /// Where it is written; absent where it is a person's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitOrigin>,
}

/// Body of `PUT .../acknowledgement`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AcknowledgementAdd {
    /// For people.
    #[serde(default)]
    pub comment: String,
    /// Seconds after which it ends, if the check has not succeeded before; at most 31 days.
    pub expires_in_seconds: u64,
}
