//! The whole product on real control planes: hub, agents and the people in front of them. Each module is a scenario with
//! clusters of its own; they run one after the other (`--test-threads=1`), since each takes both cores.

#![allow(clippy::expect_used, clippy::panic, reason = "the helpers of tests fail as tests do")]

#[path = "fleet/agent.rs"]
mod agent;
#[path = "fleet/bad_input.rs"]
mod bad_input;
#[path = "fleet/load.rs"]
mod load;
#[path = "fleet/together.rs"]
mod together;
#[path = "fleet/upstream.rs"]
mod upstream;

use std::time::Duration;

use active_monitor_tests::Cluster;
use jiff::Timestamp;

/// What any single thing may take on a machine that is busy with three clusters.
const PATIENCE: Duration = Duration::from_secs(90);

/// A HealthCheck that needs no pod: its workflow waits for a second.
fn waiting_check(name: &str, timing: &str) -> String {
    check(name, timing, &[r#"entrypoint: wait"#, "templates:", "- name: wait", r#"  suspend: {duration: "1s"}"#])
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

/// Every successful create of a Workflow by the agent.
fn created_workflows(cluster: &Cluster) -> Vec<Created> {
    let events = cluster.audit().expect("audit log");
    let by_agent = events.iter().filter(|event| event.is("create", "workflows") && event.code() == Some(201));
    by_agent
        .filter(|event| event.user.username == "system:serviceaccount:active-monitor:active-monitor-agent")
        .filter_map(|event| {
            let object = event.object_ref.as_ref()?;
            let workflow = format!("{}/{}", object.namespace, object.name);
            Some(Created { workflow, at: event.request_received_timestamp })
        })
        .collect()
}
