//! Moving over from active-monitor and back: observe, take over, stop where another controller writes, withhold
//! remedies, leave. active-monitor itself is a stand-in: its status writes are made by kubectl under its name.

use std::time::Duration;

use active_monitor_core::healthcheck::CRD_NAME;
use active_monitor_core::view::CheckStatus;
use active_monitor_tests::fleet::{project, until_status, upstream};
use active_monitor_tests::{Agent, Cluster, Crd, Hub, Options, Testbed, skip, wait};

use super::{PATIENCE, created_workflows, failing_check, waiting_check};

/// What an agent that observes needs, and all that it gets: nothing here writes.
const READER: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: active-monitor}
---
apiVersion: v1
kind: Namespace
metadata: {name: health}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: observer, namespace: active-monitor}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: active-monitor-observer}
rules:
- {apiGroups: [activemonitor.keikoproj.io], resources: [healthchecks], verbs: [get, list, watch]}
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  resourceNames: [healthchecks.activemonitor.keikoproj.io]
  verbs: [get, list, watch]
- {apiGroups: [''], resources: [namespaces], resourceNames: [kube-system], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: active-monitor-observer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: active-monitor-observer}
subjects: [{kind: ServiceAccount, name: observer, namespace: active-monitor}]
";

/// Writes a status as the controller of this name would: a binary's name is its client's name for itself.
async fn write_status_as(cluster: &Cluster, manager: &str, check: &str, status: &serde_json::Value) {
    let patch = serde_json::json!({ "status": status }).to_string();
    let manager = format!("--field-manager={manager}");
    let args =
        ["patch", "hc", check, "-n", "health", "--subresource=status", "--type=merge", manager.as_str(), "-p", &patch];
    cluster.kubectl(&args).await.expect("status");
}

async fn resource(cluster: &Cluster, check: &str) -> serde_json::Value {
    cluster.health_check("health", check).await.expect("HealthCheck")
}

async fn until_count(cluster: &Cluster, check: &str, count: i64) -> serde_json::Value {
    wait::until(&format!("{count} successes of {check}"), PATIENCE, || async {
        let status = resource(cluster, check).await["status"].take();
        Ok((status["successCount"].as_i64() >= Some(count)).then_some(status))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}"))
}

async fn metrics(agent: &Agent) -> String {
    let http = reqwest::Client::builder().no_proxy().build().expect("client");
    http.get(&agent.metrics_url).send().await.expect("metrics").text().await.expect("text")
}

async fn until_metric(agent: &Agent, line: &str) {
    wait::until(line, PATIENCE, || async { Ok(metrics(agent).await.lines().any(|l| l == line).then_some(())) })
        .await
        .unwrap_or_else(|error| panic!("{error:#}"));
}

fn ago(seconds: u64) -> String {
    (jiff::Timestamp::now() - Duration::from_secs(seconds)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observing_agent_reports_another_controllers_statuses_and_writes_nothing() {
    let name = "an_observing_agent_reports_another_controllers_statuses_and_writes_nothing";
    let Some(testbed) = Testbed::start_or_skip(name, Options::default()).await.expect("testbed") else { return };
    let cluster = &testbed.clusters[0];
    let crd =
        if upstream().is_some() { "../shared/upstream/crd-healthchecks.yaml" } else { "deploy/crds/healthchecks.yaml" };
    let crd = project().join(crd).display().to_string();
    cluster.kubectl(&["apply", "--server-side", "-f", &crd]).await.expect("CRD");
    cluster.apply_yaml(READER).await.expect("rights to read");
    for check in ["runs", "stands", "young"] {
        let text = waiting_check(check, "repeatAfterSec: 60");
        let text = text.replace("  workflow:\n", "  workflow:\n    workflowtimeout: 5\n");
        wait::until("check", PATIENCE, || async { cluster.apply_yaml(&text).await.map(Some) }).await.expect("check");
    }
    let status = |state: &str, ended: u64| {
        serde_json::json!({"status": state, "errorMessage": if state == "Failed" { "no answer" } else { "" },
            "successCount": 41, "failedCount": 2, "totalHealthCheckRuns": 43,
            "startedAt": ago(ended + 2), "finishedAt": ago(ended)})
    };
    write_status_as(cluster, "active-monitor-controller", "runs", &status("Failed", 1)).await;
    write_status_as(cluster, "active-monitor-controller", "stands", &status("Succeeded", 3600)).await;
    let before = cluster.kubectl(&["get", "hc", "-n", "health", "-o", "yaml"]).await.expect("checks");

    let hub = Hub::start(cluster.run(), &cluster.dir).await.expect("hub");
    let token = hub.add_cluster("watched", &[]).await.expect("token");
    let kubeconfig = cluster.service_account_kubeconfig("active-monitor", "observer").await.expect("kubeconfig");
    let more = ["--mode=observe"];
    let agent = Agent::spawn(cluster.run(), &cluster.dir, &kubeconfig, "watched", Some(&token), &more).expect("agent");
    until_status(&hub, "watched", "runs", CheckStatus::Failed, PATIENCE).await.expect("as the other says");
    until_status(&hub, "watched", "stands", CheckStatus::Overdue, PATIENCE).await.expect("it stands still");
    let young = hub.check_status("watched", "young").await.expect("hub").expect("known");
    assert!([CheckStatus::Pending, CheckStatus::Overdue].contains(&young), "{young:?}");
    until_metric(
        &agent,
        r#"healthcheck_success_count{healthcheck_name="runs",namespace="health",workflow="healthCheck"} 41"#,
    )
    .await;
    let overdue = r#"activemonitor_agent_check_overdue_seconds{healthcheck_name="stands",namespace="health"} "#;
    let late = metrics(&agent).await.lines().find_map(|line| line.strip_prefix(overdue)?.parse::<f64>().ok());
    assert!(late.is_some_and(|late| late > 3000.0), "{late:?}");

    // A write of the other shows at once, and what the hub defines is refused.
    write_status_as(cluster, "active-monitor-controller", "runs", &status("Succeeded", 0)).await;
    until_status(&hub, "watched", "runs", CheckStatus::Succeeded, PATIENCE).await.expect("follows");
    let definition = serde_json::json!({
        "apiVersion": "fleet.activemonitor.keikoproj.io/v1alpha1", "kind": "FleetHealthCheck", "metadata": {"name": "pushed"},
        "spec": {"clusterSelector": {}, "template": {"metadata": {"namespace": "health"}, "spec": {"repeatAfterSec": 60,
            "workflow": {"resource": {"namespace": "health", "serviceAccount": "sa", "source": {"inline":
                "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec: {entrypoint: a}"}}}}}}});
    hub.request(reqwest::Method::PUT, "/api/v1/definitions/pushed", Some(&definition)).await.expect("put");
    wait::until("refusal", PATIENCE, || async {
        let view: serde_json::Value = hub.get("/api/v1/definitions/pushed").await?;
        Ok(view.to_string().contains("only observes").then_some(()))
    })
    .await
    .expect("refused");

    assert!(hub.history("cluster=watched").await.expect("history").is_empty(), "a status does not tell every run");
    let after = cluster.kubectl(&["get", "hc", "-n", "health", "-o", "yaml"]).await.expect("checks");
    assert_eq!(before.matches("name: ").count(), after.matches("name: ").count());
    let verbs: Vec<String> = cluster
        .audit()
        .expect("audit")
        .into_iter()
        .filter(|event| event.user.username == "system:serviceaccount:active-monitor:observer")
        .filter(|event| !["get", "list", "watch"].contains(&event.verb.as_str()))
        .map(|event| format!("{} {}", event.verb, event.request_uri))
        .collect();
    assert_eq!(verbs, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_takes_over_what_is_in_flight_and_stops_where_another_controller_writes() {
    let name = "an_agent_takes_over_what_is_in_flight_and_stops_where_another_controller_writes";
    let Some(testbed) = Testbed::start_or_skip(name, Options::default()).await.expect("testbed") else { return };
    let cluster = &testbed.clusters[0];
    let crd = if upstream().is_some() { Crd::Upstream } else { Crd::Ours };
    Agent::install(cluster, crd).await.expect("install");
    for check in ["left", "fought"] {
        cluster.apply_yaml(&waiting_check(check, "repeatAfterSec: 5")).await.expect("check");
    }
    let left = serde_json::json!({"status": "Succeeded", "successCount": 41, "failedCount": 2, "totalHealthCheckRuns": 43,
        "startedAt": ago(60), "finishedAt": ago(58), "lastSuccessfulWorkflow": "left-old"});
    write_status_as(cluster, "active-monitor-controller", "left", &left).await;
    let workflow = in_flight_of_active_monitor(cluster, "left").await;
    let hub = Hub::start(cluster.run(), &cluster.dir).await.expect("hub");
    let token = hub.add_cluster("moved", &[]).await.expect("token");
    let agent = Agent::start(cluster, "moved", Some(&token)).await.expect("agent");

    // The run in flight ends before another one begins, and counts on from 41.
    let status = until_count(cluster, "left", 42).await;
    assert_eq!(status["lastSuccessfulWorkflow"].as_str(), Some(workflow.as_str()), "{status}");
    let text = cluster.kubectl(&["get", "workflow", &workflow, "-n", "health", "-o", "json"]).await.expect("workflow");
    let ended = serde_json::from_str::<serde_json::Value>(&text).expect("JSON")["status"]["finishedAt"].take();
    let ended: jiff::Timestamp = ended.as_str().expect("ended").parse().expect("time");
    until_count(cluster, "left", 43).await;
    let first = created_workflows(cluster).into_iter().find(|made| made.workflow.starts_with("health/left-"));
    assert!(first.expect("the next run").at >= ended, "no check runs twice at once");

    another_controller_stops_the_agent(cluster, &hub, &agent).await;
}

/// A workflow as active-monitor makes it: owned by the check, named by the API server, without labels of ours.
async fn in_flight_of_active_monitor(cluster: &Cluster, check: &str) -> String {
    let uid = resource(cluster, check).await["metadata"]["uid"].as_str().expect("uid").to_owned();
    let text = format!(
        "apiVersion: argoproj.io/v1alpha1
kind: Workflow
metadata:
  generateName: {check}-
  namespace: health
  labels: {{workflows.argoproj.io/controller-instanceid: activemonitor-workflows}}
  ownerReferences:
  - {{apiVersion: activemonitor.keikoproj.io/v1alpha1, kind: HealthCheck, name: {check}, uid: {uid}}}
spec:
  activeDeadlineSeconds: 60
  entrypoint: wait
  templates: [{{name: wait, suspend: {{duration: '8s'}}}}]
"
    );
    let create = ["create", "-f", "-", "-o", "jsonpath={.metadata.name}"];
    cluster.kubectl_as(&cluster.kubeconfig, &create, &text).await.expect("workflow")
}

async fn another_controller_stops_the_agent(cluster: &Cluster, hub: &Hub, agent: &Agent) {
    until_count(cluster, "fought", 1).await;
    let theirs =
        serde_json::json!({"status": "Failed", "successCount": 100, "startedAt": ago(1), "finishedAt": ago(0)});
    // Time has whole seconds there: what is written in the agent's own second does not count as later.
    wait::until("another controller's write", PATIENCE, || async {
        write_status_as(cluster, "manager", "fought", &theirs).await;
        Ok((hub.check_status("moved", "fought").await? == Some(CheckStatus::Stopped)).then_some(()))
    })
    .await
    .expect("the agent stops");
    let message = hub.checks("cluster=moved&name=fought").await.expect("hub")[0].state.message.clone();
    assert!(message.contains("another controller writes this check: \"manager\""), "{message}");
    until_metric(agent, r#"activemonitor_agent_check_contested{healthcheck_name="fought",namespace="health"} 1"#).await;
    until_told(cluster, "AnotherController").await;
    // Its interval is 5 s: while it is held, others run on, and it does not.
    let made = |check: &str| {
        let prefix = format!("health/{check}-");
        created_workflows(cluster).iter().filter(|made| made.workflow.starts_with(&prefix)).count()
    };
    let (held, others) = (made("fought"), made("left"));
    wait::until("two more runs of another", PATIENCE, || async { Ok((made("left") >= others + 2).then_some(())) })
        .await
        .expect("others run");
    assert_eq!(made("fought"), held, "the agent starts nothing");
    assert_eq!(resource(cluster, "fought").await["status"]["status"], "Failed", "and writes nothing");
    let at = format!("activemonitor.keikoproj.io/take-over={}", jiff::Timestamp::now());
    cluster.kubectl(&["annotate", "hc", "fought", "-n", "health", &at]).await.expect("annotate");
    until_count(cluster, "fought", 101).await;
    until_status(hub, "moved", "fought", CheckStatus::Succeeded, PATIENCE).await.expect("it goes on");
    until_told(cluster, "TakenOver").await;
    assert!(!metrics(agent).await.contains("activemonitor_agent_check_contested{"));
}

async fn until_told(cluster: &Cluster, reason: &str) {
    wait::until(reason, PATIENCE, || async {
        let events = ["get", "events.events.k8s.io", "-n", "health", "-o", "jsonpath={.items[*].reason}"];
        Ok(cluster.kubectl(&events).await?.contains(reason).then_some(()))
    })
    .await
    .expect("event");
}

#[tokio::test(flavor = "multi_thread")]
async fn withheld_remedies_are_said_and_after_the_way_back_no_field_is_lost_and_nothing_hangs() {
    let name = "withheld_remedies_are_said_and_after_the_way_back_no_field_is_lost_and_nothing_hangs";
    let Some(theirs) = upstream().map(|folder| folder.join("crd-healthchecks.yaml")) else {
        skip::report(name, "../shared/upstream is not there");
        return;
    };
    let Some(testbed) = Testbed::start_or_skip(name, Options::default()).await.expect("testbed") else { return };
    let cluster = &testbed.clusters[0];
    // Their CRD first, as a user has it; then ours over it.
    let theirs = theirs.display().to_string();
    let ours = project().join("deploy/crds/healthchecks.yaml").display().to_string();
    let replace_crd = |file: String| async move {
        cluster.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &file]).await.expect("CRD");
    };
    Agent::install(cluster, Crd::Upstream).await.expect("install");
    replace_crd(ours).await;
    let remedy = waiting_check("x", "").split_once("  workflow:").map(|(_, text)| text.replace("probe", "fixer"));
    let remedied =
        format!("{}  remedyworkflow:{}", failing_check("remedied", "repeatAfterSec: 5"), remedy.expect("text"));
    cluster.apply_yaml(&remedied).await.expect("check");
    let before = serde_json::json!({"status": "Succeeded", "successCount": 41, "failedCount": 2, "totalHealthCheckRuns": 43,
        "startedAt": ago(60), "finishedAt": ago(58), "lastSuccessfulWorkflow": "old", "remedyStatus": "Succeeded",
        "remedyTriggeredAt": ago(3600), "remedyFinishedAt": ago(3590), "remedySuccessCount": 1, "remedyTotalRuns": 1});
    write_status_as(cluster, "active-monitor-controller", "remedied", &before).await;

    remedies_do_not_run(cluster, "observe", &["as account fixer", "remedies are only observed"]).await;
    remedies_do_not_run(cluster, "off", &["a remedy is owed and not started: remedies are off"]).await;

    // The way back: the agent is stopped, its rights and what it made go, their CRD returns.
    let status = resource(cluster, "remedied").await["status"].take();
    assert!(status["conditions"].is_array(), "ours keeps conditions: {status}");
    leave(cluster).await;
    replace_crd(theirs).await;
    let left = wait::until("their CRD", PATIENCE, || async {
        let left = resource(cluster, "remedied").await;
        Ok(left["status"]["conditions"].is_null().then_some(left))
    });
    let left = left.await.expect("pruned");
    let crd = cluster.kubectl(&["get", "crd", CRD_NAME, "-o", "json"]).await.expect("their CRD");
    let crd: serde_json::Value = serde_json::from_str(&crd).expect("JSON");
    let theirs = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"];
    let kept: Vec<_> =
        status.as_object().expect("fields").iter().filter(|(name, _)| theirs.get(name).is_some()).collect();
    assert!(kept.len() > 10, "{status}");
    for (name, value) in kept {
        assert_eq!(&left["status"][name], value, "{name}");
    }
    assert_eq!(left["status"]["remedyTotalRuns"], 1, "what another counted stays");
    assert!(left["metadata"]["finalizers"].is_null(), "{left}");
    write_status_as(cluster, "active-monitor-controller", "remedied", &serde_json::json!({"failedCount": 50})).await;
    let limit = format!("--timeout={}s", PATIENCE.as_secs());
    for namespace in ["health", "active-monitor"] {
        cluster.kubectl(&["delete", "namespace", namespace, &limit]).await.expect("the namespace ends");
    }
    let crd = "crd/healthchecks.activemonitor.keikoproj.io";
    cluster.kubectl(&["get", crd]).await.expect("the CRD is the user's and stays");
}

/// An agent with `--remedies` at this: the check fails two more times, which says why nothing is done about it.
async fn remedies_do_not_run(cluster: &Cluster, mode: &str, says: &[&str]) {
    let failed = || async { anyhow::Ok(resource(cluster, "remedied").await["status"]["failedCount"].as_i64()) };
    let before = failed().await.expect("status").unwrap_or_default();
    let flag = format!("--remedies={mode}");
    let agent = Agent::start_with(cluster, mode, None, &[&flag]).await.expect("agent");
    let two_more = || async { Ok((failed().await? >= Some(before + 2)).then_some(())) };
    agent.process.until("two failures", PATIENCE, two_more).await.expect("the check goes on");
    let events =
        ["get", "events.events.k8s.io", "-n", "health", "-o", "jsonpath={.items[?(@.reason=='RemedyWithheld')].note}"];
    let told = || async {
        let told = cluster.kubectl(&events).await?;
        anyhow::ensure!(says.iter().all(|says| told.contains(says)), "{told}");
        Ok(Some(()))
    };
    agent.process.until("word of it", PATIENCE, told).await.expect("it is said");
    let kinds = ["get", "workflows", "-n", "health", "-l", "activemonitor.keikoproj.io/kind=remedy", "-o", "name"];
    let names: Vec<_> = created_workflows(cluster).into_iter().map(|made| made.workflow).collect();
    assert_eq!(cluster.kubectl(&kinds).await.expect("workflows"), "", "{names:?}");
    agent.process.stop();
}

/// The commands of docs/migrating.md.
async fn leave(cluster: &Cluster) {
    let ours = "activemonitor.keikoproj.io/owner=active-monitor-agent";
    for kind in ["rolebindings,roles,serviceaccounts", "clusterrolebindings,clusterroles"] {
        cluster.kubectl(&["delete", kind, "-A", "-l", ours, "--ignore-not-found"]).await.expect("what the agent made");
    }
    for file in std::fs::read_dir(project().join("deploy/agent")).expect("deploy/agent") {
        let file = file.expect("file").path();
        // What is in the namespaces is the user's.
        if !file.ends_with("00-namespaces.yaml") {
            let file = file.display().to_string();
            cluster.kubectl(&["delete", "--ignore-not-found", "-f", &file]).await.expect("rights");
        }
    }
}
