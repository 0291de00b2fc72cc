//! A run: one execution of a check's workflow or of its remedy, and the record that is kept of it.
//!
//! A run's identity is (cluster, check uid, kind, slot), everywhere: in the workflow's name, the agent's journal and the
//! hub's history. The cluster is not part of the key here because an agent knows only its own; the hub adds it.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::redact;

/// What a run executes. The texts are active-monitor's own values of the metric label `workflow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum RunKind {
    /// The check itself, `spec.workflow`.
    HealthCheck,
    /// The remedy of a failed check, `spec.remedyworkflow`.
    Remedy,
}

impl RunKind {
    /// The text used in labels, metrics and JSON: `healthCheck` or `remedy`.
    pub fn as_str(self) -> &'static str {
        match self {
            RunKind::HealthCheck => "healthCheck",
            RunKind::Remedy => "remedy",
        }
    }

    /// The inverse of [`RunKind::as_str`].
    pub fn from_label(text: &str) -> Option<RunKind> {
        match text {
            "healthCheck" => Some(RunKind::HealthCheck),
            "remedy" => Some(RunKind::Remedy),
            _ => None,
        }
    }
}

impl fmt::Display for RunKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Identifies a run within its cluster. A remedy's slot is the start of the failed run that it answers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunKey {
    /// `metadata.uid` of the HealthCheck.
    pub check_uid: String,
    /// Check or remedy.
    pub kind: RunKind,
    /// The scheduled time, whole seconds, UTC.
    #[schema(value_type = String, format = DateTime)]
    pub slot: Timestamp,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum Outcome {
    /// The workflow succeeded.
    Succeeded,
    /// Anything else; [`Reason`] says what.
    Failed,
}

impl Outcome {
    /// `Succeeded` or `Failed`, as in `status.status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Succeeded => "Succeeded",
            Outcome::Failed => "Failed",
        }
    }
}

/// Why a run failed: a closed set, so that it can be counted and used as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub enum Reason {
    /// The workflow ended in phase Failed.
    WorkflowFailed,
    /// The workflow ended in phase Error: Argo could not carry it out.
    WorkflowError,
    /// The workflow was not done at its deadline.
    DeadlineExceeded,
    /// The workflow was deleted before its end was seen.
    WorkflowVanished,
    /// The source (URL) could not be read.
    SourceUnavailable,
    /// The source is no workflow that may be created.
    SourceInvalid,
    /// The API server refused to create the workflow.
    CreateRefused,
    /// The account, role or binding that the workflow needs could not be made.
    RbacRefused,
}

impl Reason {
    /// Every reason, in the order of declaration.
    pub const ALL: [Reason; 8] = [
        Reason::WorkflowFailed,
        Reason::WorkflowError,
        Reason::DeadlineExceeded,
        Reason::WorkflowVanished,
        Reason::SourceUnavailable,
        Reason::SourceInvalid,
        Reason::CreateRefused,
        Reason::RbacRefused,
    ];

    /// The CamelCase text used in events, JSON and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::WorkflowFailed => "WorkflowFailed",
            Reason::WorkflowError => "WorkflowError",
            Reason::DeadlineExceeded => "DeadlineExceeded",
            Reason::WorkflowVanished => "WorkflowVanished",
            Reason::SourceUnavailable => "SourceUnavailable",
            Reason::SourceInvalid => "SourceInvalid",
            Reason::CreateRefused => "CreateRefused",
            Reason::RbacRefused => "RbacRefused",
        }
    }
}

/// The record of a run that has ended. Written once, counted once, never changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Identity within the cluster.
    #[serde(flatten)]
    pub key: RunKey,
    /// Namespace of the HealthCheck.
    pub namespace: String,
    /// Name of the HealthCheck.
    pub name: String,
    /// `namespace/name` of the Workflow; absent where none could be created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it failed; absent when it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// For people: Argo's message or the error, at most [`MAX_MESSAGE_BYTES`], without control characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When the run started, by the API server's clock; the slot where nothing could be started.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// When it ended: Argo's time where there is one, else the agent's.
    #[schema(value_type = String, format = DateTime)]
    pub finished_at: Timestamp,
    /// For people: what was not as it should be although the run went on; at most [`MAX_MESSAGE_BYTES`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub warning: String,
    /// The last lines of the failed pods' logs, redacted, at most [`MAX_LOG_TAIL_BYTES`]; empty where there are none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log_tail: String,
}

/// The longest message that a run, status or event carries.
pub const MAX_MESSAGE_BYTES: usize = 1024;
/// The longest log tail that a run carries.
pub const MAX_LOG_TAIL_BYTES: usize = 4096;

/// Makes a text from outside safe to show: secrets are redacted, control sequences dropped, line ends become spaces, and
/// the length is bounded to [`MAX_MESSAGE_BYTES`] at a character's boundary, `…` marking the cut.
pub fn clean_message(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(MAX_MESSAGE_BYTES));
    for c in redact::clean(text).trim().chars() {
        if out.len() + c.len_utf8() > MAX_MESSAGE_BYTES - '…'.len_utf8() {
            out.push('…');
            break;
        }
        out.push(if c == '\n' { ' ' } else { c });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_bounded_and_has_no_control_characters() {
        assert_eq!(clean_message("a\x1b[31mb\nc "), "ab c");
        assert_eq!(clean_message("401: Bearer abcdefghijkl"), "401: Bearer ***");
        let long = clean_message(&"ä".repeat(4000));
        assert!(long.len() <= MAX_MESSAGE_BYTES && long.ends_with('…'));
    }

    #[test]
    fn kinds_round_trip_through_their_label() {
        for kind in [RunKind::HealthCheck, RunKind::Remedy] {
            assert_eq!(RunKind::from_label(kind.as_str()), Some(kind));
        }
        assert_eq!(RunKind::from_label("other"), None);
    }
}
