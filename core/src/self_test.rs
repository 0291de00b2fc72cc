//! The self-test of a cluster: one tiny Workflow that the agent makes by its own rights, and waits for. It shows that the
//! API server takes workflows from the agent, that a controller of Argo serves our instance id, and that it carries them
//! out. It starts no pod and pulls no image, so it says nothing about nodes, registries or the accounts of checks.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::command::{Layer, Refusal};
use crate::manifest::{INSTANCE_ID, INSTANCE_ID_LABEL};
use crate::rbac::{OWNER, OWNER_LABEL};
use crate::run::clean_message;
use crate::workflow::{WorkflowPhase, WorkflowStatus};

/// What the workflow's name begins with.
pub const NAME_PREFIX: &str = "active-monitor-self-test-";
/// How long Argo has for it.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// Seconds after which Argo takes the ended workflow away.
const TTL_SECONDS: u32 = 60;

/// How a self-test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum SelfTestOutcome {
    /// Argo carried the workflow out.
    Succeeded,
    /// The API server refused the workflow, or Argo ended it otherwise.
    Failed,
    /// Argo did not end it within a minute.
    TimedOut,
    /// The agent's own configuration forbids it.
    NotRun,
    /// The agent cannot say: it is of a version that knows no self-test.
    Unknown,
}

impl SelfTestOutcome {
    /// Every outcome.
    pub const ALL: [SelfTestOutcome; 5] = [
        SelfTestOutcome::Succeeded,
        SelfTestOutcome::Failed,
        SelfTestOutcome::TimedOut,
        SelfTestOutcome::NotRun,
        SelfTestOutcome::Unknown,
    ];

    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            SelfTestOutcome::Succeeded => "Succeeded",
            SelfTestOutcome::Failed => "Failed",
            SelfTestOutcome::TimedOut => "TimedOut",
            SelfTestOutcome::NotRun => "NotRun",
            SelfTestOutcome::Unknown => "Unknown",
        }
    }
}

/// A self-test that has ended, or will not take place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SelfTest {
    /// How it ended.
    pub outcome: SelfTestOutcome,
    /// For people: what was shown, or why it did not succeed and what to do next. At most 1 KiB.
    pub message: String,
    /// When, by the clock of who says so.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}

impl SelfTest {
    /// One that ended at `at`.
    pub fn new(outcome: SelfTestOutcome, message: &str, at: Timestamp) -> SelfTest {
        SelfTest { outcome, message: clean_message(message), at }
    }

    /// What it means that an agent refuses to run one.
    pub fn refused(refusal: &Refusal, at: Timestamp) -> SelfTest {
        let outcome = match refusal.layer {
            Layer::Policy => SelfTestOutcome::NotRun,
            Layer::Hub | Layer::Agent | Layer::Kubernetes => SelfTestOutcome::Unknown,
        };
        SelfTest::new(outcome, &refusal.reason, at)
    }

    /// Whether it was run and the cluster failed it.
    pub fn failed(&self) -> bool {
        match self.outcome {
            SelfTestOutcome::Failed | SelfTestOutcome::TimedOut => true,
            SelfTestOutcome::Succeeded | SelfTestOutcome::NotRun | SelfTestOutcome::Unknown => false,
        }
    }

    /// Whether the cluster can run a check, as far as a self-test says.
    pub fn passed(&self) -> bool {
        self.outcome == SelfTestOutcome::Succeeded
    }
}

/// The workflow: it waits for a second, which the controller does by itself. `unique` tells it from all others.
pub fn workflow(namespace: &str, unique: &str) -> Value {
    json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {
            "name": format!("{NAME_PREFIX}{unique}"),
            "namespace": namespace,
            "labels": { INSTANCE_ID_LABEL: INSTANCE_ID, OWNER_LABEL: OWNER },
        },
        "spec": {
            "entrypoint": "wait",
            "activeDeadlineSeconds": DEADLINE.as_secs(),
            "ttlStrategy": { "secondsAfterCompletion": TTL_SECONDS },
            "templates": [{ "name": "wait", "suspend": { "duration": "1s" } }],
        },
    })
}

/// What the workflow `name` (`namespace/name`) says once it has ended, or at the deadline; nothing before.
pub fn judge(name: &str, status: &WorkflowStatus, is_late: bool) -> Option<(SelfTestOutcome, String)> {
    let seconds = DEADLINE.as_secs();
    match status.phase {
        WorkflowPhase::Succeeded => {
            Some((SelfTestOutcome::Succeeded, format!("Argo carried out the workflow {name}; no pod was started")))
        }
        WorkflowPhase::Failed | WorkflowPhase::Error => {
            let why = status.message.as_deref().unwrap_or("without a reason");
            let message =
                format!("Argo ended the workflow {name}: {why}; see `kubectl describe workflow` and Argo's log");
            Some((SelfTestOutcome::Failed, message))
        }
        WorkflowPhase::Active if !is_late => None,
        WorkflowPhase::Active if status.started_at.is_none() => {
            let message = format!(
                "no Argo controller took up the workflow {name} within {seconds} s: see that one runs, with the instance id \
                 {INSTANCE_ID}, and that it watches this namespace"
            );
            Some((SelfTestOutcome::TimedOut, message))
        }
        WorkflowPhase::Active => {
            let message = format!(
                "Argo began the workflow {name} and did not end it within {seconds} s: see the log of its controller"
            );
            Some((SelfTestOutcome::TimedOut, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(value: Value) -> WorkflowStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_what_argo_carried_out_has_succeeded_and_anything_else_says_what_to_do() {
        let judged = |value, is_late| judge("health/t", &status(value), is_late);
        let outcome = |value, is_late| judged(value, is_late).map(|(outcome, _)| outcome);
        assert_eq!(judged(json!({}), false), None);
        assert_eq!(judged(json!({"phase": "Running", "startedAt": "2026-01-01T00:00:00Z"}), false), None);
        assert_eq!(outcome(json!({"phase": "Succeeded"}), true), Some(SelfTestOutcome::Succeeded));
        for phase in ["Failed", "Error"] {
            let (outcome, message) = judged(json!({"phase": phase, "message": "no quota"}), false).unwrap();
            assert_eq!(outcome, SelfTestOutcome::Failed);
            assert!(message.contains("no quota") && message.contains("kubectl describe workflow"), "{message}");
        }
        let (late, nobody) = judged(json!({}), true).unwrap();
        assert_eq!(late, SelfTestOutcome::TimedOut);
        assert!(nobody.contains("no Argo controller") && nobody.contains(INSTANCE_ID), "{nobody}");
        let (late, slow) = judged(json!({"phase": "Running", "startedAt": "2026-01-01T00:00:00Z"}), true).unwrap();
        assert_eq!(late, SelfTestOutcome::TimedOut);
        assert!(slow.starts_with("Argo began"), "{slow}");
    }

    #[test]
    fn a_refusal_never_passes_and_only_the_clusters_own_policy_means_not_run() {
        for layer in Layer::ALL {
            let said = SelfTest::refused(&Refusal::new(layer, "no\u{1b}"), Timestamp::UNIX_EPOCH);
            assert!(!said.passed() && !said.message.contains('\u{1b}'));
            assert_eq!(said.outcome == SelfTestOutcome::NotRun, layer == Layer::Policy, "{layer:?}");
        }
    }

    #[test]
    fn the_workflow_needs_no_image_and_goes_away_by_itself() {
        let workflow = workflow("health", "1");
        assert_eq!(workflow["metadata"]["labels"][INSTANCE_ID_LABEL], INSTANCE_ID);
        assert_eq!(workflow["spec"]["ttlStrategy"]["secondsAfterCompletion"], TTL_SECONDS);
        assert!(!workflow.to_string().contains("image"));
    }
}
