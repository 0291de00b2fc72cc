//! The whole product on real control planes: hub, agents and the people in front of them. Each module is a scenario with
//! clusters of its own. tests/run says which run side by side.

#![allow(clippy::expect_used, clippy::panic, reason = "the helpers of tests fail as tests do")]

#[path = "fleet/admission.rs"]
mod admission;
#[path = "fleet/agent.rs"]
mod agent;
#[path = "fleet/argo.rs"]
mod argo;
#[path = "fleet/bad_input.rs"]
mod bad_input;
#[path = "fleet/capacity.rs"]
mod capacity;
#[path = "fleet/charts.rs"]
mod charts;
#[path = "fleet/clock.rs"]
mod clock;
#[path = "fleet/compaction.rs"]
mod compaction;
#[path = "fleet/day.rs"]
mod day;
#[path = "fleet/diff.rs"]
mod diff;
#[path = "fleet/enrolment.rs"]
mod enrolment;
#[path = "fleet/events.rs"]
mod events;
#[path = "fleet/examples.rs"]
mod examples;
#[path = "fleet/failover.rs"]
mod failover;
#[path = "fleet/failures.rs"]
mod failures;
#[path = "fleet/faults.rs"]
mod faults;
#[path = "fleet/full_disk.rs"]
mod full_disk;
#[path = "fleet/hostile_hub.rs"]
mod hostile_hub;
#[path = "fleet/hub.rs"]
mod hub;
#[path = "fleet/hub_clock.rs"]
mod hub_clock;
#[path = "fleet/hub_limits.rs"]
mod hub_limits;
#[path = "fleet/install.rs"]
mod install;
#[path = "fleet/joining.rs"]
mod joining;
#[path = "fleet/limits.rs"]
mod limits;
#[path = "fleet/load.rs"]
mod load;
#[path = "fleet/lost_state.rs"]
mod lost_state;
#[path = "fleet/manifests.rs"]
mod manifests;
#[path = "fleet/moving.rs"]
mod moving;
#[path = "fleet/network.rs"]
mod network;
#[path = "fleet/one_in_ten.rs"]
mod one_in_ten;
#[path = "fleet/options.rs"]
mod options;
#[path = "fleet/pods.rs"]
mod pods;
#[path = "fleet/replicas.rs"]
mod replicas;
#[path = "fleet/resources.rs"]
mod resources;
#[path = "fleet/restart.rs"]
mod restart;
#[path = "fleet/rights.rs"]
mod rights;
#[path = "fleet/sources.rs"]
mod sources;
#[path = "fleet/together.rs"]
mod together;
#[path = "fleet/unread.rs"]
mod unread;
#[path = "fleet/upstream.rs"]
mod upstream;

use std::collections::BTreeSet;
use std::time::Duration;

use active_monitor_core::self_test;
use active_monitor_tests::{Cluster, wait};
use jiff::Timestamp;

/// What any single thing may take on a machine that is busy with three clusters.
const PATIENCE: Duration = Duration::from_secs(90);

/// How long an API server is away, or a process stands still; `ACTIVE_MONITOR_OUTAGE_SECONDS` (`make soak` gives 600).
fn outage() -> Duration {
    let seconds = std::env::var("ACTIVE_MONITOR_OUTAGE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(3))
}

/// A HealthCheck that needs no pod: its workflow waits for a second.
fn waiting_check(name: &str, timing: &str) -> String {
    check(name, timing, &[r#"entrypoint: wait"#, "templates:", "- name: wait", r#"  suspend: {duration: "1s"}"#])
}

/// The same check with more time for a run than its interval: a busy machine, or an outage, must not look like a failure.
fn patient(check: String) -> String {
    let seconds = 60 + outage().as_secs();
    check.replacen("  workflow:\n", &format!("  workflow:\n    workflowtimeout: {seconds}\n"), 1)
}

/// A HealthCheck whose workflow never ends by itself, and fails by its deadline after a second.
fn failing_check(name: &str, timing: &str) -> String {
    let spec = ["entrypoint: hang", "activeDeadlineSeconds: 1", "templates:", "- name: hang", "  suspend: {}"];
    check(name, timing, &spec)
}

fn check(name: &str, timing: &str, workflow_spec: &[&str]) -> String {
    let spec: String = workflow_spec.iter().map(|line| format!("            {line}\n")).collect();
    format!(
        "apiVersion: activemonitor.keikoproj.io/v1alpha1
kind: HealthCheck
metadata: {{name: {name}, namespace: health}}
spec:
  {timing}
  workflow:
    resource:
      namespace: health
      serviceAccount: probe
      source:
        inline: |
          apiVersion: argoproj.io/v1alpha1
          kind: Workflow
          spec:
{spec}"
    )
}

/// A Workflow that the agent made, as the API server's audit log has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Created {
    /// `namespace/name`.
    workflow: String,
    /// When the request came in.
    at: Timestamp,
}

/// Returns once the API server answers creates of HealthChecks as it will from then on: for two seconds after a CRD was
/// established it holds them back, for the other API servers' sake (apiextensions-apiserver, customresource_handler.go),
/// and before that it may still be making the storage. No promise of ours can be kept meanwhile.
async fn takes_creates(cluster: &Cluster) {
    let check = waiting_check("probe", "repeatAfterSec: 600");
    let args = ["create", "--dry-run=server", "-f", "-"];
    wait::until("an answer to a create", PATIENCE, || async {
        cluster.kubectl_as(&cluster.kubeconfig, &args, &check).await.map(Some)
    })
    .await
    .expect("the API server takes HealthChecks");
}

/// Every successful create of a check's Workflow by the agent; self-tests are not among them.
fn created_workflows(cluster: &Cluster) -> Vec<Created> {
    let events = cluster.audit().expect("audit log");
    let by_agent = events.iter().filter(|event| event.is("create", "workflows") && event.code() == Some(201));
    by_agent
        .filter(|event| event.user.username == "system:serviceaccount:active-monitor:active-monitor-agent")
        .filter_map(|event| {
            let object = event.object_ref.as_ref().filter(|object| !object.name.starts_with(self_test::NAME_PREFIX))?;
            let workflow = format!("{}/{}", object.namespace, object.name);
            Some(Created { workflow, at: event.request_received_timestamp })
        })
        .collect()
}

/// The Workflows of a check that came to be, as `namespace/name`. A create whose agent or API server is killed in the
/// middle may be stored without an answer that the audit log could have: then Argo's own writes tell of it.
fn made_workflows(cluster: &Cluster, check: &str) -> BTreeSet<String> {
    let prefix = format!("health/{check}-");
    let answered = created_workflows(cluster).into_iter().map(|created| created.workflow);
    let events = cluster.audit().expect("audit log");
    let by_argo = events.iter().filter(|event| event.is("update", "workflows") || event.is("patch", "workflows"));
    let by_argo = by_argo.filter(|event| event.user.username == "argo-workflow-controller");
    let written = by_argo.filter(|event| event.code() == Some(200)).filter_map(|event| event.object_ref.as_ref());
    let taken_up = written.map(|object| format!("{}/{}", object.namespace, object.name));
    answered.chain(taken_up).filter(|workflow| workflow.starts_with(&prefix)).collect()
}
