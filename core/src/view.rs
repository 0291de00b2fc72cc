//! What the hub's REST API says: the JSON that `fleetcheck` and the dashboard read. One definition for both sides.
//!
//! | call | body -> answer | role |
//! |---|---|---|
//! | `GET /api/v1/me` | [`Me`] | any |
//! | `POST /api/v1/login`, `/logout` | [`Login`] -> [`Me`] and a cookie | any |
//! | `GET /api/v1/fleet` | [`FleetSummary`] | viewer |
//! | `GET /api/v1/clusters` | `{items: [ClusterView]}` | viewer |
//! | `POST /api/v1/clusters` | [`ClusterAdd`] -> [`ClusterToken`]: 201; a new token where the name exists and never connected | admin |
//! | `GET /api/v1/clusters/{cluster}` | [`ClusterView`] | viewer |
//! | `PATCH /api/v1/clusters/{cluster}` | [`ClusterPatch`] -> [`ClusterView`] | operator |
//! | `DELETE /api/v1/clusters/{cluster}` | 204; its certificate is refused from then on | admin |
//! | `GET /api/v1/checks?cluster=&namespace=&name=&status=` | `{items: [CheckView]}`, worst first | viewer |
//! | `GET /api/v1/clusters/{cluster}/checks/{namespace}/{name}` | [`CheckView`] | viewer |
//! | `GET /api/v1/runs?cluster=&namespace=&name=&kind=&outcome=&limit=&before=` | [`RunPage`], newest first | viewer |
//! | `GET /api/v1/definitions` | `{items: [DefinitionView]}` | viewer |
//! | `GET /api/v1/definitions/{name}` | [`DefinitionView`] | viewer |
//! | `PUT /api/v1/definitions/{name}` | `FleetHealthCheck` -> [`DefinitionView`]: 201 or 200 | operator |
//! | `DELETE /api/v1/definitions/{name}` | 204 | operator |
//! | `POST /api/v1/definitions/preview` | `FleetHealthCheck` -> [`Preview`]: what PUT would do | viewer |
//! | `GET /api/v1/events` | server-sent events: [`Event`] | viewer |
//! | `GET /api/v1/openapi.json` | the OpenAPI document | any |
//! | `GET /metrics` | Prometheus text | viewer |
//!
//! Errors are `application/problem+json`: [`Problem`]. People and programs authenticate with `Authorization: Bearer
//! TOKEN`, the dashboard with the cookie that login sets. An answer that changes something comes after its commit.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::run::Run;
use crate::session::frame::DefinitionResult;
use crate::state::CheckState;

/// A list, in an object so that fields can be added beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct List<T> {
    /// The items.
    pub items: Vec<T>,
}

/// What a token may do; each role includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Read everything but secrets.
    Viewer,
    /// Also change definitions and labels.
    Operator,
    /// Also add and remove clusters and tokens.
    Admin,
}

/// Who the caller is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Me {
    /// Name of the token.
    pub name: String,
    /// Its role.
    pub role: Role,
}

/// Body of a login.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Login {
    /// The token's text.
    pub token: String,
}

/// State of a cluster's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub enum ClusterStatus {
    /// Silent for longer than the lease: nothing is known of its checks.
    Unreachable,
    /// The connection is closed, the lease not yet over.
    Reconnecting,
    /// Added, but no agent has connected yet.
    Pending,
    /// An agent is connected and talks.
    Connected,
}

impl ClusterStatus {
    /// Every status, worst first.
    pub const ALL: [ClusterStatus; 4] =
        [ClusterStatus::Unreachable, ClusterStatus::Reconnecting, ClusterStatus::Pending, ClusterStatus::Connected];

    /// The CamelCase text used in JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            ClusterStatus::Unreachable => "Unreachable",
            ClusterStatus::Reconnecting => "Reconnecting",
            ClusterStatus::Pending => "Pending",
            ClusterStatus::Connected => "Connected",
        }
    }
}

/// What the hub says of a check: what the agent said, unless that is too old to be believed. Worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub enum CheckStatus {
    /// The last run failed.
    Failed,
    /// The specification cannot be run.
    Invalid,
    /// The agent talks, but a run that was due did not happen.
    Overdue,
    /// The cluster is unreachable, so the last result says nothing about now.
    Stale,
    /// No run has ended yet.
    Pending,
    /// Paused on purpose.
    Stopped,
    /// The last run succeeded, and that is recent.
    Succeeded,
}

impl CheckStatus {
    /// Every status, worst first.
    pub const ALL: [CheckStatus; 7] = [
        CheckStatus::Failed,
        CheckStatus::Invalid,
        CheckStatus::Overdue,
        CheckStatus::Stale,
        CheckStatus::Pending,
        CheckStatus::Stopped,
        CheckStatus::Succeeded,
    ];

    /// The CamelCase text used in JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            CheckStatus::Failed => "Failed",
            CheckStatus::Invalid => "Invalid",
            CheckStatus::Overdue => "Overdue",
            CheckStatus::Stale => "Stale",
            CheckStatus::Pending => "Pending",
            CheckStatus::Stopped => "Stopped",
            CheckStatus::Succeeded => "Succeeded",
        }
    }

    /// Whether it belongs under "wrong now".
    pub fn is_wrong(self) -> bool {
        match self {
            CheckStatus::Failed | CheckStatus::Invalid | CheckStatus::Overdue | CheckStatus::Stale => true,
            CheckStatus::Pending | CheckStatus::Stopped | CheckStatus::Succeeded => false,
        }
    }
}

/// The fleet in numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetSummary {
    /// Semantic version of the hub.
    pub hub_version: String,
    /// Clusters by status; every status is there.
    pub clusters: BTreeMap<String, u64>,
    /// Checks by status; every status is there.
    pub checks: BTreeMap<String, u64>,
    /// Definitions.
    pub definitions: u64,
}

/// A cluster as the hub knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterView {
    /// Its name: a DNS label.
    pub name: String,
    /// Labels, which selectors match.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Annotations, which definitions may take values from.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// State of its link.
    pub status: ClusterStatus,
    /// For people: why it is not connected, or what is odd.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When the agent was last heard, by the hub's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_heard_at: Option<Timestamp>,
    /// Semantic version of the agent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub agent_version: String,
    /// Version of Kubernetes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kubernetes_version: String,
    /// Reports waiting at the agent.
    pub backlog: u64,
    /// Reports that the agent's journal dropped before the hub had them: a gap in the history.
    pub dropped_reports: u64,
    /// The agent's clock minus the hub's, milliseconds, at the last heartbeat.
    pub clock_skew_ms: i64,
    /// Checks by status; every status is there.
    pub checks: BTreeMap<String, u64>,
}

/// A check of a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckView {
    /// Name of the cluster.
    pub cluster: String,
    /// What the hub says of it.
    pub status: CheckStatus,
    /// Seconds past the time when its next result was due at the latest; 0 when it is in time.
    pub overdue_seconds: u64,
    /// What the agent said last.
    #[serde(flatten)]
    pub state: CheckState,
}

/// A run in the history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunView {
    /// Position in the history: grows with the order in which runs were recorded.
    pub id: i64,
    /// Name of the cluster.
    pub cluster: String,
    /// When the hub recorded it.
    #[schema(value_type = String, format = DateTime)]
    pub recorded_at: Timestamp,
    /// The run.
    #[serde(flatten)]
    pub run: Run,
}

/// A page of the history, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunPage {
    /// The runs.
    pub items: Vec<RunView>,
    /// Give this as `before` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
}

/// Body of `POST /api/v1/clusters`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterAdd {
    /// A DNS label of at most 63 characters.
    pub name: String,
    /// Labels, as in Kubernetes.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// Body of `PATCH /api/v1/clusters/{cluster}`: `null` removes a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterPatch {
    /// Labels to set or remove.
    #[serde(default)]
    pub labels: BTreeMap<String, Option<String>>,
    /// Annotations to set or remove.
    #[serde(default)]
    pub annotations: BTreeMap<String, Option<String>>,
}

/// A one-time token for a cluster. Shown once: the hub keeps only its hash.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterToken {
    /// The cluster that it is for.
    pub cluster: String,
    /// `CLUSTER.SECRET.FINGERPRINT`: the fingerprint is the SHA-256 of the hub's CA certificate (DER), in hex.
    pub token: String,
    /// When it ends.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// `host:port` that agents dial for the session.
    pub agent_address: String,
    /// `host:port` that agents dial to enrol.
    pub enrolment_address: String,
}

/// A definition and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DefinitionView {
    /// Its name.
    pub name: String,
    /// Grows with each change of it.
    pub generation: u64,
    /// The FleetHealthCheck as written.
    #[schema(value_type = Object)]
    pub definition: serde_json::Value,
    /// One for each cluster that it is or was meant for, by name.
    pub clusters: Vec<DefinitionClusterStatus>,
}

/// What became of a definition in one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DefinitionClusterStatus {
    /// Name of the cluster.
    pub cluster: String,
    /// What the agent said; absent until it says something of this generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<DefinitionResult>,
    /// Generation that the agent last spoke of; 0 when never.
    pub observed_generation: u64,
    /// Why it is not applied: the agent's words, or a value that the cluster lacks.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// What a PUT of a definition would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Preview {
    /// The FleetHealthCheck as the hub has it; absent where it has none of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub current: Option<serde_json::Value>,
    /// One for each cluster that is or would be concerned, by name.
    pub clusters: Vec<PreviewCluster>,
}

/// What a PUT of a definition would do in one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreviewCluster {
    /// Name of the cluster.
    pub cluster: String,
    /// What would happen.
    pub change: Change,
    /// Why it cannot be rendered for this cluster; empty when it can.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// What would happen to a HealthCheck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It would be made.
    Create,
    /// It would be changed.
    Update,
    /// It would stay as it is.
    Unchanged,
    /// It would be withdrawn.
    Withdraw,
}

/// A server-sent event: `event:` is the tag, `data:` this as JSON. A client that is new, or was too slow, first gets
/// `reset`: read the lists again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Event {
    /// Read everything again.
    Reset,
    /// A cluster is new or changed.
    Cluster(Box<ClusterView>),
    /// A cluster is gone, and its checks with it.
    #[serde(rename_all = "camelCase")]
    ClusterRemoved {
        /// Its name.
        name: String,
    },
    /// A check is new or changed.
    Check(Box<CheckView>),
    /// A check is gone.
    #[serde(rename_all = "camelCase")]
    CheckRemoved {
        /// Name of its cluster.
        cluster: String,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A definition, or its status in some cluster, changed.
    #[serde(rename_all = "camelCase")]
    Definition {
        /// Its name.
        name: String,
    },
}

/// An error answer, RFC 9457.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Short and the same for each error of this kind.
    pub title: String,
    /// HTTP status code.
    pub status: u16,
    /// What is wrong here, which field, and what is allowed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}
