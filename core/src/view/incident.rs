//! Incidents, as the API says them and the store keeps them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Members that an answer of the API names; `counts` has the number.
pub const MAX_SHOWN_MEMBERS: usize = 100;

/// What an incident is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub enum IncidentKind {
    /// A check fails, in one cluster or in many.
    Check,
    /// A cluster, or several with a label in common, cannot be reached.
    Unreachable,
}

impl IncidentKind {
    /// Every kind.
    pub const ALL: [IncidentKind; 2] = [IncidentKind::Check, IncidentKind::Unreachable];

    /// The CamelCase text used in JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            IncidentKind::Check => "Check",
            IncidentKind::Unreachable => "Unreachable",
        }
    }
}

/// How an incident ends. Missing data is none of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum Closed {
    /// Every member has shown that it is well.
    Recovered,
    /// Nothing is left that could fail: checks were stopped or removed, or the cluster was.
    Withdrawn,
    /// It is a part of another incident.
    Merged,
}

/// Clusters in numbers: those that have the check or, for unreachable clusters, all that ever connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct IncidentCounts {
    /// Where it fails.
    pub failing: u32,
    /// Where it is well.
    pub healthy: u32,
    /// Of which nothing is known now; never taken for well.
    pub unknown: u32,
    /// Where it fails, within `scope`; all where there is none.
    pub failing_in_scope: u32,
    /// Failing and healthy ones within `scope`; all where there is none.
    pub in_scope: u32,
}

/// A label that clusters share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct LabelValue {
    /// A label of the clusters, or `kubernetesVersion`, `agentVersion` or `definitionGeneration`.
    pub label: String,
    /// Its value.
    pub value: String,
}

/// How clusters with a label fare beside those without it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The label.
    #[serde(flatten)]
    pub is: LabelValue,
    /// It is a version or a generation, not a label of the clusters.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub built_in: bool,
    /// Failing clusters with it.
    pub failing: u32,
    /// Failing and healthy clusters with it.
    pub of: u32,
    /// Failing clusters without it.
    pub failing_outside: u32,
    /// Failing and healthy clusters without it.
    pub of_outside: u32,
}

/// What kind of change came before an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum PriorKind {
    /// A definition was put or deleted.
    Definition,
    /// A command was given.
    Command,
    /// A maintenance window was put or deleted.
    Window,
    /// A cluster was added, removed or labelled.
    Cluster,
    /// A cluster has another version of the agent.
    AgentVersion,
    /// A cluster has another version of Kubernetes.
    KubernetesVersion,
    /// A remedy ended.
    Remedy,
}

/// Something that changed before an incident began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Prior {
    /// When, by the hub's clock.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// What it was.
    pub kind: PriorKind,
    /// Name of the API token; empty where nobody did it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub who: String,
    /// For people: `definition.put`, `0.1.0 -> 0.2.0`.
    pub what: String,
    /// The definition, check, window or cluster.
    pub object: String,
}

/// Why nobody is called for a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum SilencedBy {
    /// It is in a maintenance window.
    Maintenance,
    /// Somebody has acknowledged it.
    Acknowledgement,
    /// What it depends on fails.
    Dependency,
}

/// A cluster where it fails, or that has not yet shown that it is well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Name of the cluster.
    pub cluster: String,
    /// A `CheckStatus`, or for unreachable clusters a `ClusterStatus`.
    pub status: String,
    /// Since when it has this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// For people; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// It fails and succeeds in turns.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flapping: bool,
    /// Why nobody is called for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silenced_by: Option<SilencedBy>,
}

/// Something is wrong in one cluster or in many, for one reason as far as the hub can tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Incident {
    /// First 16 hex digits of the SHA-256 of `subject`: the same whenever it comes back.
    pub id: String,
    /// What kind of thing is wrong.
    pub kind: IncidentKind,
    /// `check/NAMESPACE/NAME`, `definition/NAME`, `cluster/NAME`, `label/KEY=VALUE` or `fleet`.
    pub subject: String,
    /// For people, in one line.
    pub title: String,
    /// Namespace of the check, where it has the same everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the check, where it has the same everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The definition that the check is made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
    /// It fails, or failed since it began, in at least 3 clusters and in at least half of those that tell, within `scope`
    /// where there is one.
    pub widespread: bool,
    /// Nobody is called: every failing member is in maintenance, acknowledged or explained.
    pub silenced: bool,
    /// Some member fails and succeeds in turns.
    pub flapping: bool,
    /// When it began, by the hub's clock.
    #[schema(value_type = String, format = DateTime)]
    pub first_seen: Timestamp,
    /// When something of it changed last.
    #[schema(value_type = String, format = DateTime)]
    pub last_change: Timestamp,
    /// Nothing of it is wrong since then; it closes 60 s later unless that changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub recovered_at: Option<Timestamp>,
    /// When it was closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub closed_at: Option<Timestamp>,
    /// How it ends; there as soon as `recoveredAt` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Closed>,
    /// The incident that it is a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged_into: Option<String>,
    /// Clusters in numbers.
    pub counts: IncidentCounts,
    /// The label that explains best where it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<LabelValue>,
    /// What sets failing clusters apart from healthy ones, the strongest first, at most 10.
    #[serde(default)]
    pub differences: Vec<Difference>,
    /// What changed in the hour before it began, newest first, at most 20.
    #[serde(default)]
    pub changes: Vec<Prior>,
    /// Clusters where it fails or that have not yet shown that they are well, by name; the API shows at most 100.
    #[serde(default)]
    pub members: Vec<Member>,
}

impl Incident {
    /// With as many members as the API shows.
    pub fn shown(&self) -> Incident {
        let members = self.members.iter().take(MAX_SHOWN_MEMBERS).cloned().collect();
        Incident { members, ..self.clone() }
    }
}

/// A page of incidents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct IncidentPage {
    /// The incidents.
    pub items: Vec<Incident>,
    /// Give this as `before` for the next page; absent on the last, and where only open ones are asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
}
