//! The HealthCheck resource as the API server stores it: active-monitor's fields, plus optional ones of our own.
//!
//! Everything is optional that active-monitor's schema leaves optional, and every integer is 64 bits wide, so that no
//! object that its users have stored fails to be read. What the values mean is decided in [`crate::check`].
//!
//! The CRD's rules refuse at the door what [`crate::check`] refuses and a rule can tell cheaply, and nothing else: a value
//! that does not count, such as a cron expression beside an interval, may be anything. What was stored before stays
//! usable, since the API server (1.30 and newer) judges only what an update changes.

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::PolicyRule;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube_core::CustomResourceExt;
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names;

mod rules;

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
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": rules::CRON, "fieldPath": ".schedule.cron", "message": rules::CRON_MESSAGE},
    {
        "rule": "!has(self.jitterSec) || !has(self.repeatAfterSec) || self.repeatAfterSec <= 0 \
                 || self.jitterSec <= self.repeatAfterSec",
        "fieldPath": ".jitterSec",
        "message": "must not be above repeatAfterSec"
    },
    {
        "rule": "has(self.workflow.resource)",
        "fieldPath": ".workflow.resource",
        "message": "is missing: it says where the workflow runs and what it is"
    }
]))]
pub struct HealthCheckSpec {
    /// Seconds between two runs. 0 or less, without a schedule, pauses the check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self <= 31622400",
        "message": "must be at most 31622400 (366 days)"
    }]))]
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
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self >= 0 && self <= 4294967295",
        "message": "must not be negative, nor above 4294967295"
    }]))]
    pub remedy_runs_limit: Option<i64>,
    /// Seconds after the last remedy when the limit starts anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self >= 0 && self <= 31622400",
        "message": "must not be negative, nor above 31622400 (366 days)"
    }]))]
    pub remedy_reset_interval: Option<i64>,
    /// Starts nothing while it is true; a run in flight ends in its own time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Seconds after the creation before which nothing runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self >= 0 && self <= 31622400",
        "message": "must be from 0 to 31622400 (366 days)"
    }]))]
    pub initial_delay_sec: Option<i64>,
    /// The check's own offset is drawn below this many seconds; 0: none. Without it: half the interval, at most 300,
    /// and none for calendar times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self >= 0 && self <= 86400",
        "message": "must be from 0 to 86400"
    }]))]
    pub jitter_sec: Option<i64>,
    /// Seconds after its time when a run that has not been started is skipped; no limit where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self >= 1 && self <= 31622400",
        "message": "must be from 1 to 31622400 (366 days)"
    }]))]
    pub starting_deadline_seconds: Option<i64>,
    /// Failed runs in a row that make the check Failed and call the remedy; 1 where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self >= 1 && self <= 100",
        "message": "must be from 1 to 100"
    }]))]
    pub failure_threshold: Option<i64>,
    /// Successful runs in a row that make a failed check Succeeded; 1 where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self >= 1 && self <= 100",
        "message": "must be from 1 to 100"
    }]))]
    pub success_threshold: Option<i64>,
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
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": rules::GENERATE_NAME, "fieldPath": ".generateName", "message": names::DNS_PREFIX},
    {
        "rule": "!has(self.resource) || !has(self.workflowtimeout) \
                 || (self.workflowtimeout >= 0 && self.workflowtimeout <= 31622400)",
        "fieldPath": ".workflowtimeout",
        "message": "must not be negative, nor above 31622400 (366 days)"
    }
]))]
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
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": rules::ACCOUNT, "fieldPath": ".serviceAccount", "message": names::DNS_SUBDOMAIN}
]))]
pub struct ResourceSpec {
    /// Namespace of the workflow.
    #[schemars(
        length(max = 63),
        extend("x-kubernetes-validations" = [{"rule": rules::NAMESPACE, "message": names::DNS_LABEL}])
    )]
    pub namespace: String,
    /// ServiceAccount of its pods; required, and made where it does not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub service_account: Option<String>,
    /// The workflow's text.
    pub source: SourceSpec,
}

/// Where the workflow's text is; the first one given counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": rules::SOURCE, "message": "is empty: one of inline, url, file is needed"},
    {"rule": rules::SOURCE_URL, "fieldPath": ".url.path", "message": "must start with https://"},
    {
        "rule": rules::SOURCE_FILE,
        "fieldPath": ".file.path",
        "message": "must be relative to the agent's folder of sources, without .."
    }
]))]
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
    #[schemars(length(max = 1024))]
    pub path: Option<String>,
}

/// What became of the runs. The fields are active-monitor's, but for the last five, which are ours.
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
    /// Failed runs in a row, up to the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive_failures: Option<i64>,
    /// Successful runs in a row, up to the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consecutive_successes: Option<i64>,
    /// Value of the annotation `activemonitor.keikoproj.io/run-now` that was last obeyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run_now: Option<String>,
    /// `metadata.generation` that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: the check can be run. `Scheduled`: it runs when its schedule says. `RBACReady`: its accounts have the
    /// rights that it asks for. `ArgoReady`: an Argo controller takes up its workflows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Option<Vec<Condition>>,
}

/// The CustomResourceDefinition.
pub fn crd() -> CustomResourceDefinition {
    let mut crd = HealthCheck::crd();
    for version in &mut crd.spec.versions {
        version.schema.iter_mut().filter_map(|schema| schema.open_api_v3_schema.as_mut()).for_each(prune_nulls);
    }
    crd
}

/// A null is no value, as in active-monitor's CRD: the API server drops it before any rule is asked.
fn prune_nulls(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.properties.iter_mut().flat_map(|fields| fields.values_mut()).for_each(prune_nulls);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        prune_nulls(items);
    }
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
    use super::*;

    /// Where the CRD is checked in, for kubectl and for Helm, whose charts hold no files of others.
    const CHECKED_IN: [&str; 2] = [
        concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/crds/healthchecks.yaml"),
        concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/charts/agent/files/healthchecks.yaml"),
    ];

    #[test]
    fn the_checked_in_crd_is_the_one_of_these_types() {
        let generated = serde_saphyr::to_string(&crd()).unwrap();
        for path in CHECKED_IN {
            if std::env::var_os("UPDATE").is_some() {
                std::fs::write(path, &generated).unwrap();
            }
            let checked_in = std::fs::read_to_string(path).unwrap_or_default();
            assert_eq!(checked_in, generated, "run the test with UPDATE=1 and commit {path}");
        }
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
