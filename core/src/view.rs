//! What the hub's REST API says: the JSON that `fleetcheck` and the dashboard read. One definition for both sides.
//!
//! | call | body -> answer | role |
//! |---|---|---|
//! | `GET /api/v1/me` | [`Me`] | any |
//! | `POST /api/v1/login`, `/logout` | [`Login`] -> [`Me`] and a cookie | any |
//! | `GET /api/v1/fleet` | [`FleetSummary`] | viewer |
//! | `GET /api/v1/clusters?selector=&status=&limit=&after=` | `{items: [ClusterView], next?}`, by name | viewer |
//! | `POST /api/v1/clusters` | [`ClusterAdd`] -> [`ClusterToken`]: 201; a new token where the name exists and never connected | admin |
//! | `GET /api/v1/clusters/{cluster}` | [`ClusterView`] | viewer |
//! | `PATCH /api/v1/clusters/{cluster}` | [`ClusterPatch`] -> [`ClusterView`] | operator |
//! | `DELETE /api/v1/clusters/{cluster}` | 204; its certificate is refused from then on | admin |
//! | `POST /api/v1/clusters/{cluster}/token` | [`ClusterToken`]: a new token for a cluster that is there | admin |
//! | `POST /api/v1/clusters/{cluster}/rebind` | [`ClusterToken`]: cuts its session, voids its certificates, frees its uid | admin |
//! | `POST /api/v1/clusters/{cluster}/approve`, `/deny` | [`EnrolmentKey`] -> [`ClusterView`]: decides upon an agent that waits | admin |
//! | `GET /api/v1/checks?cluster=&selector=&namespace=&name=&status=&limit=&after=` | `{items: [CheckView], next?}`, by name | viewer |
//! | `GET /api/v1/clusters/{cluster}/checks/{namespace}/{name}` | [`CheckView`] | viewer |
//! | `PUT`, `DELETE /api/v1/clusters/{cluster}/checks/{namespace}/{name}/acknowledgement` | [`AcknowledgementAdd`] -> [`CheckView`]; 204 | operator |
//! | `GET /api/v1/incidents?all=&kind=&limit=&before=` | [`IncidentPage`]: the open ones, worst first; all of them newest first | viewer |
//! | `GET /api/v1/windows` | `{items: [WindowView]}` | viewer |
//! | `GET /api/v1/windows/{name}` | [`WindowView`] | viewer |
//! | `PUT`, `DELETE /api/v1/windows/{name}` | [`WindowSpec`](crate::care::WindowSpec) -> [`WindowView`]: 201 or 200; 204 | operator |
//! | `GET /api/v1/runs?cluster=&namespace=&name=&kind=&outcome=&limit=&before=` | [`RunPage`], newest first | viewer |
//! | `POST /api/v1/commands` | [`CommandRequest`] -> [`CommandReport`]: one result a cluster | operator |
//! | `GET /api/v1/changes?from=&to=&cluster=&kind=&limit=&before=` | [`ChangePage`], newest first | viewer |
//! | `GET /api/v1/uptime?cluster=&namespace=&name=&selector=&window=&by=&limit=` | [`UptimePage`], lowest first | viewer |
//! | `GET /api/v1/definitions?limit=&after=` | `{items: [DefinitionView], next?}`, by name | viewer |
//! | `GET /api/v1/definitions/{name}` | [`DefinitionView`] | viewer |
//! | `PUT /api/v1/definitions/{name}` | `FleetHealthCheck` -> [`DefinitionView`]: 201 or 200 | operator |
//! | `DELETE /api/v1/definitions/{name}` | 204 | operator |
//! | `POST /api/v1/definitions/preview` | `FleetHealthCheck` -> [`Preview`]: what PUT would do | viewer |
//! | `POST /api/v1/routes/preview` | [`RoutesFile`] -> [`RoutesPreview`]: which routes of alerts would be others | viewer |
//! | `GET /api/v1/sources` | `{items: [SourceView]}`: the watched folder, or none | viewer |
//! | `GET /api/v1/tokens` | `{items: [TokenView]}` | admin |
//! | `POST /api/v1/tokens` | [`TokenAdd`] -> [`TokenSecret`]: 201; replaces one of that name | admin |
//! | `DELETE /api/v1/tokens/{name}` | 204 | admin |
//! | `DELETE /api/v1/sessions/{person}` | 204; ends every session of a person whom a provider vouched for | admin |
//! | `GET /api/v1/audit?from=&to=&who=&action=&limit=&before=` | `{items: [AuditView], next?}`, newest first | admin |
//! | `GET /api/v1/ca` | [`CaView`] | viewer |
//! | `POST /api/v1/ca/roll` | [`CaRoll`] -> [`CaView`]: the stage after this one | admin |
//! | `GET /api/v1/restore` | [`RestoreView`]: whether the hub came back from the past, and what it lacks | viewer |
//! | `POST /api/v1/restore/confirm` | [`RestoreView`]; definitions are pushed again | admin |
//! | `GET /api/v1/events` | server-sent events: [`Event`] | viewer |
//! | `GET /api/v1/openapi.json` | the OpenAPI document | any |
//! | `GET /metrics?cluster=&selector=&only=` | Prometheus text of all or a part | viewer |
//! | `GET /federate?match[]=` | Prometheus text of the series that vector selectors pick | viewer |
//! | `GET /api/v1/sd/prometheus` | targets for Prometheus | viewer |
//!
//! Errors are `application/problem+json`: [`Problem`]. People and programs authenticate with `Authorization: Bearer
//! TOKEN`, the dashboard with the cookie that login sets. An answer that changes something comes after its commit.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

mod access;
mod authority;
mod care;
mod changes;
mod commands;
mod enrolment;
mod incident;
mod restore;
mod routes;
mod silence;
mod source;
mod uptime;

pub use access::{AuditView, TokenAdd, TokenSecret, TokenView};
pub use authority::{CaRoll, CaStage, CaView};
pub use care::{AcknowledgementAdd, WindowView};
pub use changes::{ChangeKind, ChangePage, ChangeSource, ChangeView, Placed, Position, merge};
pub use commands::{Action, CommandOutcome, CommandReport, CommandRequest, CommandResult, in_words};
pub use enrolment::{EnrolmentDecision, EnrolmentKey, PendingEnrolment};
pub use incident::{
    Closed, Difference, Incident, IncidentCounts, IncidentKind, IncidentPage, LabelValue, MAX_SHOWN_MEMBERS, Member,
    Prior, PriorKind, SilencedBy,
};
pub use restore::{Restore, RestoreDifference, RestoreView};
pub use routes::{RoutePreview, RoutesFile, RoutesPreview};
pub use silence::{Silence, SilenceKind, silences};
pub use source::{GitOrigin, SourceState, SourceView};
pub use uptime::{UptimePage, UptimeView};

use crate::care::Care;
use crate::health::Health;
use crate::policy::PolicySetting;
use crate::run::Run;
use crate::self_test::SelfTest;
use crate::session::frame::DefinitionResult;
use crate::state::CheckState;

/// A list, in an object so that fields can be added beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct List<T> {
    /// The items.
    pub items: Vec<T>,
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Give this back for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What a token may do; each role includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Read everything but secrets.
    Viewer,
    /// Also change definitions and labels, and give commands.
    Operator,
    /// Also add and remove clusters and tokens.
    Admin,
}

impl Role {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

/// Who the caller is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Me {
    /// Name of the token; `oidc:` and a name for whom the OpenID provider vouched.
    pub name: String,
    /// Their role.
    pub role: Role,
}

/// Body of a login.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Login {
    /// The token's text.
    pub token: String,
}

/// How people can log in, beside an API token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoginOptions {
    /// The OpenID provider, where there is one: the login there begins at `/api/v1/oidc/login`.
    pub issuer: Option<String>,
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
    /// The hub came back from the past, and nobody has confirmed it: no definition is pushed or withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Restore>,
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
    /// Checks that the hub does not take, since the cluster has more than it may.
    #[serde(default)]
    pub refused_checks: u64,
    /// The agent's clock minus the hub's, milliseconds, at the last heartbeat.
    pub clock_skew_ms: i64,
    /// End of its agent's newest certificate; absent before it enrolled, and in events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub certificate_ends_at: Option<Timestamp>,
    /// The latest self-test since it enrolled; where it is absent, nothing is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_test: Option<SelfTest>,
    /// An agent that asks to enrol under this name and takes a person's approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_enrolment: Option<PendingEnrolment>,
    /// What the cluster lets the hub do, as its agent says; empty where it does not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy: Vec<PolicySetting>,
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
    /// How it is judged by more than its last result.
    #[serde(default)]
    pub health: Health,
    /// What people say of it: maintenance, acknowledgement.
    #[serde(default, skip_serializing_if = "Care::is_none")]
    pub care: Care,
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

/// Reports of a cluster that never came: their journal dropped or lost them, or the hub forgot them with an older backup.
/// Of which checks they were is not known. Where the journal itself is gone, or another replica of the agent has it, nobody knows
/// how many they are either; from the latter they may come later, and stand behind the gap then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GapView {
    /// Name of the cluster.
    pub cluster: String,
    /// They lie between the run with this position and the next ones of the cluster; 0 where it is before all.
    pub after: i64,
    /// How many; 0 where that is not known.
    pub reports: u64,
    /// When the hub noticed.
    #[schema(value_type = String, format = DateTime)]
    pub noticed_at: Timestamp,
}

/// A page of the history, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunPage {
    /// The runs.
    pub items: Vec<RunView>,
    /// What is missing between them, newest first, at most 1,000; whatever else the query picks runs by, of its cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<GapView>,
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
    /// Why the hub cannot use it; empty when it can.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Where it is written; absent where it is a person's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitOrigin>,
    /// The resource of the hub's own cluster that it comes from, `NAMESPACE/NAME`; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
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
    /// The maintenance windows changed.
    Windows,
    /// The open incidents changed.
    Incidents,
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
