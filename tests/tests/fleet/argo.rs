//! A cluster where Argo Workflows is not installed, and then installed without a controller for our instance id: each is
//! said in a condition and a metric, nothing piles up, and once there is one all goes on by itself.

use std::time::Duration;

use active_monitor_tests::cluster::INSTANCE_ID;
use active_monitor_tests::{Agent, Cluster, Crd, Options, Testbed, wait};
use serde_json::Value;

use super::failures::{successes, until, until_metric};
use super::{PATIENCE, created_workflows, waiting_check};

const CONFIG: &str = "workflow-controller-configmap";

#[tokio::test(flavor = "multi_thread")]
async fn without_argo_a_condition_and_a_metric_say_so_and_nothing_piles_up() {
    let name = "without_argo_a_condition_and_a_metric_say_so_and_nothing_piles_up";
    let Some(testbed) = Testbed::start_or_skip(name, Options::default()).await.expect("testbed") else { return };
    let cluster = &testbed.clusters[0];
    Agent::install(cluster, Crd::Ours).await.expect("install");
    cluster.stop_argo();
    let crds = cluster.programs.argo_crds().display().to_string();
    cluster.kubectl(&["delete", "-f", &crds, "--timeout=90s"]).await.expect("no Argo");
    let agent = Agent::start(cluster, "alone", None).await.expect("agent");
    let check =
        waiting_check("dns", "repeatAfterSec: 5").replace("  workflow:\n", "  workflow:\n    workflowtimeout: 4\n");
    cluster.apply_yaml(&check).await.expect("check");
    let failed = until(cluster, "dns", "word of it", |dns| reason(dns, "ArgoReady") == "NotInstalled").await;
    assert!(said(&failed).contains("Argo Workflows is not installed"), "{failed}");
    assert_eq!(reason(&failed, "Ready"), "ArgoNotReady");
    until_metric(&agent, "activemonitor_agent_argo_available 0").await;
    until_metric(&agent, "activemonitor_agent_workflows_waiting_for_argo 0").await;

    nobody_serves_our_instance_id(cluster, &agent, &crds).await;

    // Who has the right instance id takes up what comes next.
    configure(cluster, INSTANCE_ID).await;
    cluster.stop_argo();
    cluster.start_argo().await.expect("Argo");
    until(cluster, "dns", "success", |dns| successes(dns) >= 1 && reason(dns, "ArgoReady") == "TakenUp").await;
    let ready = ["wait", "healthcheck", "dns", "-n", "health", "--for=condition=Ready", "--timeout=90s"];
    cluster.kubectl(&ready).await.expect("ready again");
    until_metric(&agent, "activemonitor_agent_argo_available 1").await;
    assert!(agent.process.pid().is_some(), "{}", agent.process.log_tail());
}

/// An Argo is there, and it is not ours.
async fn nobody_serves_our_instance_id(cluster: &Cluster, agent: &Agent, crds: &str) {
    cluster.kubectl(&["apply", "--server-side", "-f", crds]).await.expect("Argo's kinds");
    cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=90s"]).await.expect("kinds");
    configure(cluster, "somebody-elses").await;
    cluster.start_argo().await.expect("another Argo");
    until_metric(agent, "activemonitor_agent_workflows_waiting_for_argo 1").await;
    let failed = until(cluster, "dns", "word of it", |dns| reason(dns, "ArgoReady") == "NotTakenUp").await;
    assert!(said(&failed).contains("no Argo controller has taken it up"), "{failed}");
    assert_eq!(reason(&failed, "Ready"), "ArgoNotReady");
    until_metric(agent, "activemonitor_agent_argo_available 0").await;
    // Each run's workflow goes when the next one is begun: nobody else would take it away.
    let runs = created_workflows(cluster).len();
    wait::until("another run", PATIENCE, || async { Ok((created_workflows(cluster).len() > runs).then_some(())) })
        .await
        .expect("it goes on trying");
    wait::until("end of what nobody took up", Duration::from_secs(15), || async {
        Ok((cluster.workflows("health").await?.len() <= 1).then_some(()))
    })
    .await
    .expect("they do not pile up");
}

pub(super) async fn configure(cluster: &Cluster, instance_id: &str) {
    let patch = format!(r#"{{"data": {{"instanceID": "{instance_id}"}}}}"#);
    let args = ["patch", "configmap", CONFIG, "-n", "argo", "--type=merge", "-p", &patch];
    cluster.kubectl(&args).await.expect("Argo's configuration");
}

fn reason<'a>(check: &'a Value, condition: &str) -> &'a str {
    let mut conditions = check["status"]["conditions"].as_array().into_iter().flatten();
    let found = conditions.find(|known| known["type"] == condition);
    found.and_then(|found| found["reason"].as_str()).unwrap_or_default()
}

fn said(check: &Value) -> &str {
    check["status"]["errorMessage"].as_str().unwrap_or_default()
}
