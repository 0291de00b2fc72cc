//! The live state of one check, as an agent sees it and the hub shows it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::command::Pause;
use crate::run::RunKind;

/// What the agent knows of a check. `Failed` is the last run's outcome; a check that runs again keeps it until the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub enum Phase {
    /// Valid, but no run has ended yet.
    Pending,
    /// The last run succeeded.
    Succeeded,
    /// The last run failed.
    Failed,
    /// Paused: it has neither interval nor schedule.
    Stopped,
    /// The specification cannot be run; the message says which field and why.
    Invalid,
}

impl Phase {
    /// Every phase, in the order of declaration.
    pub const ALL: [Phase; 5] = [Phase::Pending, Phase::Succeeded, Phase::Failed, Phase::Stopped, Phase::Invalid];

    /// The CamelCase text used in JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Succeeded => "Succeeded",
            Phase::Failed => "Failed",
            Phase::Stopped => "Stopped",
            Phase::Invalid => "Invalid",
        }
    }
}

/// A run that has started and not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// Check or remedy.
    pub kind: RunKind,
    /// Its slot.
    #[schema(value_type = String, format = DateTime)]
    pub slot: Timestamp,
    /// `namespace/name` of the Workflow.
    pub workflow: String,
}

/// Counters and times of one kind of run of a check; what active-monitor's own metrics show.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Runs that succeeded. Goes on from the counters that the HealthCheck's status already had.
    pub succeeded: u64,
    /// Runs that failed, whatever the reason.
    pub failed: u64,
    /// Start of the last run that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// End of the last run that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
}

/// How often a remedy may still run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemedyBudget {
    /// `remedyRunsLimit`.
    pub limit: u32,
    /// Runs that are left.
    pub left: u32,
    /// A failure from then on may be remedied again. Absent where runs are left, or where only a success of the check
    /// brings new ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub resets_at: Option<Timestamp>,
}

/// One value that a check's workflow published (a custom metric).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// The metric's name as the workflow gave it, made of `[a-zA-Z0-9_:]`.
    pub metric: String,
    /// Help text; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub help: String,
    /// Finite.
    pub value: f64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The fleet definition that a HealthCheck was made from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DefinitionRef {
    /// Name of the FleetHealthCheck.
    pub name: String,
    /// Its generation at the hub: grows with each change.
    pub generation: u64,
}

/// Everything the fleet shows of one check, in one message: it replaces what was known before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckState {
    /// `metadata.uid` of the HealthCheck.
    pub uid: String,
    /// Namespace of the HealthCheck.
    pub namespace: String,
    /// Name of the HealthCheck.
    pub name: String,
    /// `spec.description`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What is known of it.
    pub phase: Phase,
    /// Why it is so, for people; empty when it succeeded.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The schedule as written, `@every 60s` for an interval; empty when stopped or invalid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub schedule: String,
    /// The run in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<Running>,
    /// The next slot; absent when stopped or invalid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_slot: Option<Timestamp>,
    /// Seconds that a run may take before it is timed out.
    pub timeout_seconds: u64,
    /// Runs of the check.
    pub check: Totals,
    /// Runs of the remedy; absent where the check has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<Totals>,
    /// Outcome of the last remedy: `Succeeded` or `Failed`; empty where none ran.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy_status: String,
    /// Custom metrics of the last run that published any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
    /// Custom metrics that the same run published and that were refused: out of bounds, or not in active-monitor's form.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refused_samples: u64,
    /// Pauses in force that concern it, whatever they are of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pauses: Vec<Pause>,
    /// How often its remedy may still run; absent where it has none, or one without a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy_budget: Option<RemedyBudget>,
    /// Checks of the same cluster whose failure explains its own, as `namespace/name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// The fleet definition it was made from; absent for a check made in the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<DefinitionRef>,
}
