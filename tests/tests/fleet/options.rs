//! The fields and annotations that active-monitor does not have: run now, suspend, conditions.

use active_monitor_tests::{Agent, Cluster, wait};
use jiff::Timestamp;
use serde_json::Value;

use super::failures::{successes, until, until_metric};
use super::{PATIENCE, created_workflows, failing_check, waiting_check};

const RUN_NOW: &str = "activemonitor.keikoproj.io/run-now";

async fn patch(cluster: &Cluster, check: &str, spec: &str) {
    let body = format!(r#"{{"spec": {spec}}}"#);
    let args = ["patch", "healthcheck", check, "-n", "health", "--type=merge", "-p", &body];
    cluster.kubectl(&args).await.expect("patch");
}

async fn annotate(cluster: &Cluster, check: &str, value: &str) {
    let annotation = format!("{RUN_NOW}={value}");
    let args = ["annotate", "healthcheck", check, "-n", "health", "--overwrite", &annotation];
    cluster.kubectl(&args).await.expect("annotate");
}

/// When the API server got the last change of the check by kubectl.
fn last_change(cluster: &Cluster, check: &str) -> Timestamp {
    let events = cluster.audit().expect("audit log");
    let asked = events.iter().rfind(|event| {
        event.is("patch", "healthchecks")
            && event.user_agent.starts_with("kubectl")
            && event.object_ref.as_ref().is_some_and(|object| object.name == check)
    });
    asked.expect("the annotation's request").request_received_timestamp
}

fn created(cluster: &Cluster, check: &str) -> Vec<Timestamp> {
    let prefix = format!("health/{check}-");
    let all = created_workflows(cluster).into_iter().filter(|made| made.workflow.starts_with(&prefix));
    all.map(|made| made.at).collect()
}

/// Each value of the annotation is one run, within two seconds; also of a check that is paused.
pub(super) async fn a_run_is_asked_for(cluster: &Cluster) {
    let checks = [waiting_check("asked", "repeatAfterSec: 3600"), waiting_check("paused-one", "repeatAfterSec: 0")];
    cluster.apply_yaml(&checks.join("---\n")).await.expect("checks");
    until(cluster, "asked", "first run", |check| successes(check) == 1).await;
    until(cluster, "paused-one", "pause", |check| check["status"]["status"] == "Stopped").await;
    for (check, before) in [("asked", 1), ("paused-one", 0)] {
        annotate(cluster, check, "one").await;
        let asked = last_change(cluster, check);
        let obeyed = ["wait", "healthcheck", check, "-n", "health", "--for=jsonpath={.status.lastRunNow}=one"];
        cluster.kubectl(&[&obeyed[..], &["--timeout=90s"]].concat()).await.expect("obeyed");
        let done = until(cluster, check, "run", |check| successes(check) == before + 1).await;
        let made: Vec<_> = created(cluster, check).into_iter().filter(|made| *made >= asked).collect();
        assert_eq!(made.len(), 1, "{check}: one run for one value");
        let took = made[0].duration_since(asked).as_millis();
        println!("{check}: created {took} ms after it was asked for");
        assert!(took <= 2000, "{check}: {took} ms");
        assert_eq!(done["metadata"]["annotations"][RUN_NOW], "one");
    }
    until(cluster, "paused-one", "pause again", |check| check["status"]["status"] == "Stopped").await;
    // The same value is no new request, a new one is.
    annotate(cluster, "asked", "one").await;
    annotate(cluster, "asked", "two").await;
    until(cluster, "asked", "third run", |check| check["status"]["lastRunNow"] == "two" && successes(check) == 3).await;
    assert_eq!(created(cluster, "asked").len(), 3);
}

/// One failure is none yet where two in a row are asked for.
pub(super) async fn failures_in_a_row_are_counted(cluster: &Cluster) {
    let twice = "repeatAfterSec: 4\n  failureThreshold: 2\n  initialDelaySec: 1\n  jitterSec: 1";
    cluster.apply_yaml(&failing_check("twice", twice)).await.expect("check");
    let failed = |check: &Value| check["status"]["failedCount"].as_i64().unwrap_or(0);
    let first = until(cluster, "twice", "first failure", |check| failed(check) >= 1).await;
    assert!(failed(&first) > 1 || first["status"]["status"] != "Failed", "{}", first["status"]);
    until(cluster, "twice", "state", |check| check["status"]["status"] == "Failed" && failed(check) >= 2).await;
    patch(cluster, "twice", r#"{"suspend": true}"#).await;
}

/// Suspended, nothing is started and `kubectl wait` hears of it; afterwards it goes on at its next slot.
pub(super) async fn a_check_is_suspended_and_goes_on(cluster: &Cluster) {
    cluster.apply_yaml(&waiting_check("held", "repeatAfterSec: 2")).await.expect("check");
    until(cluster, "held", "first run", |check| successes(check) >= 1).await;
    patch(cluster, "held", r#"{"suspend": true}"#).await;
    let stopped = ["wait", "healthcheck", "held", "-n", "health", "--for=condition=Ready=false", "--timeout=90s"];
    cluster.kubectl(&stopped).await.expect("not ready");
    // A run in flight is counted before the status says so.
    let held = until(cluster, "held", "stop", |check| check["status"]["status"] == "Stopped").await;
    assert!(held["status"]["errorMessage"].as_str().unwrap_or_default().contains("spec.suspend"), "{held}");
    let (runs, others) = (created(cluster, "held").len(), created(cluster, "often").len());
    wait::until("runs of another check", PATIENCE, || async {
        Ok((created(cluster, "often").len() >= others + 2).then_some(()))
    })
    .await
    .expect("others run");
    assert_eq!(created(cluster, "held").len(), runs, "nothing is started");
    let before = successes(&cluster.health_check("health", "held").await.expect("check"));
    patch(cluster, "held", r#"{"suspend": false}"#).await;
    let on = until(cluster, "held", "further runs", |check| successes(check) >= before + 2).await;
    assert_eq!(on["status"]["status"], "Succeeded", "{on}");
}

/// What a pipeline does after `kubectl apply`: each condition speaks of the newest generation, the two that only a run can
/// tell from the next run on.
pub(super) async fn kubectl_waits_for_conditions(cluster: &Cluster) {
    cluster.apply_yaml(&waiting_check("waited", "repeatAfterSec: 3600")).await.expect("check");
    for generation in [1, 2] {
        for condition in ["Ready", "Scheduled", "RBACReady", "ArgoReady"] {
            if condition == "RBACReady" && generation == 2 {
                annotate(cluster, "waited", "edited").await;
            }
            let wait = format!("--for=condition={condition}");
            let args = ["wait", "healthcheck", "waited", "-n", "health", &wait, "--timeout=90s"];
            cluster.kubectl(&args).await.unwrap_or_else(|error| panic!("{condition} of {generation}: {error:#}"));
        }
        let waited = cluster.health_check("health", "waited").await.expect("check");
        let observed = (&waited["status"]["observedGeneration"], &waited["metadata"]["generation"]);
        assert_eq!(observed, (&generation.into(), &generation.into()), "{waited}");
        patch(cluster, "waited", r#"{"description": "changed"}"#).await;
    }
    cluster.apply_yaml(&waiting_check("waited-bad", "schedule: {cron: '61 * * * *'}")).await.expect("check");
    let refused = ["wait", "healthcheck", "waited-bad", "-n", "health", "--for=condition=Ready=false", "--timeout=90s"];
    cluster.kubectl(&refused).await.expect("not ready");
}

/// Where active-monitor's CRD is the one installed: a run is asked for all the same, and the agent says what the API
/// server dropped, as far as anybody can know.
pub(super) async fn their_crd_drops_fields_and_the_agent_says_so(cluster: &Cluster, agent: &Agent) {
    let suspended = waiting_check("dropped", "repeatAfterSec: 3600\n  suspend: true");
    let refused = cluster.kubectl_as(&cluster.kubeconfig, &["apply", "-f", "-"], &suspended).await;
    let refused = format!("{:#}", refused.expect_err("kubectl's own validation"));
    assert!(refused.contains("spec.suspend"), "{refused}");
    let apply = ["apply", "--validate=false", "-f", "-"];
    cluster.kubectl_as(&cluster.kubeconfig, &apply, &suspended).await.expect("apply");
    until(cluster, "dropped", "run", |check| successes(check) == 1).await;
    let told =
        ["get", "events.events.k8s.io", "-n", "health", "-o", "jsonpath={.items[?(@.reason=='FieldsDropped')].note}"];
    wait::until("event of what was dropped", PATIENCE, || async {
        let told = cluster.kubectl(&told).await?;
        Ok((told.contains("spec.suspend") && told.contains("deploy/crds")).then_some(()))
    })
    .await
    .expect("event");
    until_metric(agent, r#"activemonitor_agent_crd_unknown_fields{field="spec.suspend"} 1"#).await;

    annotate(cluster, "dropped", "one").await;
    let done = until(cluster, "dropped", "run that was asked for", |check| successes(check) == 2).await;
    assert!(done["status"]["lastRunNow"].is_null(), "their CRD has no such field: {done}");
    assert_eq!(created(cluster, "dropped").len(), 2);
}
