//! The HealthCheck resource as the API server stores it: active-monitor's fields, plus optional ones of our own.
//!
//! Everything is optional that active-monitor's schema leaves optional, and every integer is 64 bits wide, so that no
//! object that its users have stored fails to be read. What the values mean is decided in [`crate::check`].

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::PolicyRule;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// API group of the HealthCheck.
pub const GROUP: &str = "activemonitor.keikoproj.io";
/// Name of its CustomResourceDefinition.
pub const CRD_NAME: &str = "healthchecks.activemonitor.keikoproj.io";

/// What shall be checked, how often, and what to do when it fails.
/// Either repeatAfterSec or schedule must be given for the check to run.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "activemonitor.keikoproj.io",
    version = "v1alpha1",
    kind = "HealthCheck",
    plural = "healthchecks",
    singular = "healthcheck",
    shortname = "hc",
    shortname = "hcs",
    namespaced,
    status = "HealthCheckStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "An Argo Workflow that runs on a schedule, and a remedy for when it fails.",
    crates(kube_core = "::kube_core"),
    printcolumn = r#"{"name": "LATEST STATUS", "type": "string", "jsonPath": ".status.status"}"#,
    printcolumn = r#"{"name": "SUCCESS CNT  ", "type": "string", "jsonPath": ".status.successCount"}"#,
    printcolumn = r#"{"name": "FAIL CNT", "type": "string", "jsonPath": ".status.failedCount"}"#,
    printcolumn = r#"{"name": "REMEDY SUCCESS CNT  ", "type": "string", "jsonPath": ".status.remedySuccessCount"}"#,
    printcolumn = r#"{"name": "REMEDY FAIL CNT", "type": "string", "jsonPath": ".status.remedyFailedCount"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheckSpec {
    /// Seconds between two runs. 0 or less, without a schedule, pauses the check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat_after_sec: Option<i64>,
    /// Calendar times of the runs; used where repeatAfterSec is not above 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleSpec>,
    /// Reach of the account's default rights: `cluster` or `namespace`, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self in ['', 'cluster', 'namespace']",
        "message": "must be cluster or namespace"
    }]))]
    pub level: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The workflow whose success means health.
    pub workflow: WorkflowSpec,
    /// The workflow that mends what the check found broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedyworkflow: Option<WorkflowSpec>,
    /// Remedies between two successes of the check; no limit where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "self >= 0", "message": "must not be negative"}]))]
    pub remedy_runs_limit: Option<i64>,
    /// Seconds after the last remedy when the limit starts anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "self >= 0", "message": "must not be negative"}]))]
    pub remedy_reset_interval: Option<i64>,
    /// Accepted for active-monitor's sake, without effect: workflows are watched, not polled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_factor: Option<String>,
    /// Accepted for active-monitor's sake, without effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_max: Option<i64>,
    /// Accepted for active-monitor's sake, without effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_min: Option<i64>,
}

/// Calendar times.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScheduleSpec {
    /// Five cron fields, `@every 1h30m` or `@hourly` and the like, optionally after `CRON_TZ=Zone`; the syntax of
    /// github.com/robfig/cron v3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub cron: Option<String>,
}

/// A workflow and how it is run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowSpec {
    /// Prefix of the workflows' names; the check's name where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub generate_name: Option<String>,
    /// Rights of the account, instead of the default ones.
    #[serde(default, rename = "rbacRules", skip_serializing_if = "Option::is_none")]
    pub rbac_rules: Option<Vec<PolicyRule>>,
    /// Where the workflow runs, as whom, and what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<ResourceSpec>,
    /// Seconds that a run may take; repeatAfterSec where it is absent.
    #[serde(default, rename = "workflowtimeout", skip_serializing_if = "Option::is_none")]
    pub workflow_timeout: Option<i64>,
}

/// Where a workflow runs, as whom, and what it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceSpec {
    /// Namespace of the workflow.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// ServiceAccount of its pods; made where it does not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub service_account: Option<String>,
    /// The workflow's text.
    pub source: SourceSpec,
}

/// Where the workflow's text is; the first one given counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceSpec {
    /// The text itself: one YAML document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1048576))]
    pub inline: Option<String>,
    /// A document to fetch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<UrlSource>,
    /// A file of the agent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileSource>,
}

/// A document to fetch over HTTPS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UrlSource {
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub path: Option<String>,
    /// Whether the server's certificate is verified; it is unless this is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify_cert: Option<bool>,
}

/// A file of the agent's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileSource {
    /// Its path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// What became of the runs. The fields are active-monitor's; `conditions` and `observedGeneration` are ours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheckStatus {
    /// Why the last run failed, or why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// Failed runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_count: Option<i64>,
    /// End of the last run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// End of the last failed run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failed_at: Option<Time>,
    /// Workflow of the last failed run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failed_workflow: Option<String>,
    /// Workflow of the last successful run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful_workflow: Option<String>,
    /// Why the last remedy failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy_error_message: Option<String>,
    /// Failed remedies since the last reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy_failed_count: Option<i64>,
    /// End of the last remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy_finished_at: Option<Time>,
    /// End of the last failed remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy_last_failed_at: Option<Time>,
    /// Succeeded or Failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy_status: Option<String>,
    /// Successful remedies since the last reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy_success_count: Option<i64>,
    /// Remedies since the last reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy_total_runs: Option<i64>,
    /// Start of the last remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy_triggered_at: Option<Time>,
    /// Start of the last run that ended; never before its slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// Succeeded, Failed, Stopped or Invalid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Successful runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_count: Option<i64>,
    /// All runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_health_check_runs: Option<i64>,
    /// `metadata.generation` that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready` is False while the check cannot be run, and says why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Option<Vec<Condition>>,
}

/// The instant of an optional Kubernetes time.
pub(crate) fn instant(time: &Option<Time>) -> Option<Timestamp> {
    time.as_ref().map(|t| t.0)
}

/// A Kubernetes time of whole seconds, which is what the API server keeps of most of them.
pub(crate) fn time(instant: Timestamp) -> Time {
    Time(whole_seconds(instant))
}

/// Cuts what is below a second.
pub fn whole_seconds(instant: Timestamp) -> Timestamp {
    Timestamp::from_second(instant.as_second()).unwrap_or(instant)
}

#[cfg(test)]
mod tests {
    use kube_core::CustomResourceExt;

    use super::*;

    /// Where the CRD is checked in, for Helm and kubectl.
    const CHECKED_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/crds/healthchecks.yaml");

    #[test]
    fn the_checked_in_crd_is_the_one_of_these_types() {
        let generated = serde_saphyr::to_string(&HealthCheck::crd()).unwrap();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(CHECKED_IN, &generated).unwrap();
        }
        let checked_in = std::fs::read_to_string(CHECKED_IN).unwrap_or_default();
        assert_eq!(checked_in, generated, "run the test with UPDATE=1 and commit deploy/crds/healthchecks.yaml");
    }

    #[test]
    fn what_active_monitor_stores_is_read() {
        let stored = serde_json::json!({
            "apiVersion": "activemonitor.keikoproj.io/v1alpha1", "kind": "HealthCheck",
            "metadata": {"name": "a", "namespace": "health"},
            "spec": {
                "workflow": {"resource": {"namespace": "health", "source": {}}}, "remedyworkflow": {}, "schedule": {},
                "repeatAfterSec": 0
            },
            "status": {"successCount": 7, "startedAt": "2024-01-01T00:00:00Z"}
        });
        let check: HealthCheck = serde_json::from_value(stored).unwrap();
        assert_eq!(check.status.unwrap().success_count, Some(7));
        assert_eq!(check.spec.remedyworkflow, Some(WorkflowSpec::default()));
    }
}
