//! Enrolments that take a person's approval, as the API says them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An agent that has shown a good token and gets no certificate before a person has approved its key. It is forgotten when
/// the token ends, is used, or is replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PendingEnrolment {
    /// SHA-256 of its public key, in hex, as the agent's log and `/readyz` say it.
    pub key_fingerprint: String,
    /// uid of its kube-system namespace.
    pub cluster_uid: String,
    /// When it asked first.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// When its token ends.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// What a person decided; absent until then. An agent hears of it when it asks again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<EnrolmentDecision>,
}

impl PendingEnrolment {
    /// Whether a person still has to decide.
    pub fn is_undecided(&self) -> bool {
        self.decision.is_none()
    }
}

/// What a person decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum EnrolmentDecision {
    /// The key gets a certificate.
    Approved,
    /// Nobody gets one with this token.
    Denied,
}

/// Body of `POST /api/v1/clusters/{cluster}/approve` and `/deny`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnrolmentKey {
    /// The fingerprint of the key that is meant: another one is not decided upon by mistake.
    pub key_fingerprint: String,
}
