//! What the agent keeps of an Argo Workflow: the slim type that its watch cache deserializes into.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Deserializer};

use crate::manifest::{CHECK_UID_LABEL, KIND_LABEL, SLOT_LABEL, parse_slot_label};
use crate::run::{RunKey, RunKind, clean_message};

/// Failed nodes that are kept of a workflow: enough to say why it failed.
const MAX_NODES: usize = 3;

/// Phase of a workflow, as Argo spells it; an unknown or absent one has not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WorkflowPhase {
    /// Not ended.
    #[default]
    Active,
    /// Ended well.
    Succeeded,
    /// Ended because a step failed or the deadline passed.
    Failed,
    /// Ended because Argo could not carry it out.
    Error,
}

impl<'de> Deserialize<'de> for WorkflowPhase {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(match text.as_str() {
            "Succeeded" => WorkflowPhase::Succeeded,
            "Failed" => WorkflowPhase::Failed,
            "Error" => WorkflowPhase::Error,
            _ => WorkflowPhase::Active,
        })
    }
}

/// Status of a workflow, without what the agent has no use for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkflowStatus {
    /// Phase.
    pub phase: WorkflowPhase,
    /// Argo's message.
    pub message: Option<String>,
    /// When Argo began.
    pub started_at: Option<Time>,
    /// When it ended.
    pub finished_at: Option<Time>,
    /// Global outputs.
    pub outputs: Outputs,
    /// Nodes that did not succeed and have a message, at most three.
    #[serde(deserialize_with = "telling_nodes")]
    pub nodes: Vec<Node>,
}

/// Global outputs of a workflow.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Outputs {
    /// Its output parameters.
    pub parameters: Vec<Parameter>,
}

/// An output parameter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Its value, where there is one.
    pub value: Option<String>,
}

/// A node of a workflow: a pod or a step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Node {
    /// Name for people.
    pub display_name: String,
    /// `Pod`, `Steps`, `Retry`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// Its phase.
    pub phase: String,
    /// Why.
    pub message: String,
}

/// Keeps, of what may be thousands of nodes, the few that say why it failed: pods first.
fn telling_nodes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Node>, D::Error> {
    let nodes = Option::<BTreeMap<String, Node>>::deserialize(deserializer)?.unwrap_or_default();
    let mut kept: Vec<Node> =
        nodes.into_values().filter(|node| node.phase != "Succeeded" && !node.message.is_empty()).collect();
    // An exit code says more than that the deadline ended what came after it.
    kept.sort_by_key(|node| (node.kind != "Pod", !node.message.contains("exit code")));
    kept.truncate(MAX_NODES);
    Ok(kept)
}

/// A workflow of a check, as seen in the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The run it belongs to.
    pub key: RunKey,
    /// `namespace/name`.
    pub workflow: String,
    /// When the API server made it.
    pub created: Timestamp,
    /// The request that it obeys, where it is no scheduled run.
    pub run_now: Option<String>,
    /// `spec.activeDeadlineSeconds`.
    pub deadline_seconds: Option<u32>,
    /// What was not as it should be when it was made; empty as a rule.
    pub warning: String,
    /// Its status.
    pub status: WorkflowStatus,
}

impl Seen {
    /// Why it is not well, in one line: Argo's message, and the first telling node's where it says more.
    pub fn message(&self) -> String {
        let own = self.status.message.as_deref().unwrap_or("");
        let node = self.status.nodes.first();
        let text = match node {
            Some(node) if node.message != own => {
                let separator = if own.is_empty() { "" } else { "; " };
                format!("{own}{separator}{}: {}", node.display_name, node.message)
            }
            Some(_) | None => own.to_owned(),
        };
        clean_message(&text)
    }
}

/// The run that a workflow's labels name; `None` where they are not the agent's.
pub fn key_of_labels(labels: &BTreeMap<String, String>) -> Option<RunKey> {
    Some(RunKey {
        check_uid: labels.get(CHECK_UID_LABEL)?.clone(),
        kind: RunKind::from_label(labels.get(KIND_LABEL)?)?,
        slot: parse_slot_label(labels.get(SLOT_LABEL)?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_with_nulls_and_unknown_phases() {
        let status: WorkflowStatus = serde_json::from_str(
            r#"{"phase": "Failed", "startedAt": null, "finishedAt": "2026-01-01T00:00:00Z", "nodes": {
                "a": {"type": "Retry", "phase": "Failed", "message": "No more retries left", "displayName": "w"},
                "b": {"type": "Pod", "phase": "Failed", "message": "Error (exit code 127)", "displayName": "w(0)"},
                "c": {"type": "Pod", "phase": "Succeeded"}}}"#,
        )
        .unwrap();
        assert_eq!(status.nodes.len(), 2);
        assert_eq!(status.nodes[0].message, "Error (exit code 127)");
        let odd: WorkflowStatus = serde_json::from_str(r#"{"phase": "Sleeping", "nodes": null}"#).unwrap();
        assert_eq!(odd.phase, WorkflowPhase::Active);
    }
}
