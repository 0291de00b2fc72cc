//! One agent and its cluster, without a hub: crashes, deleted workflows, rights, and what stays behind.

use active_monitor_tests::{Agent, Cluster, Crd, Options, Testbed, wait};

use super::{PATIENCE, check, created_workflows, failing_check, waiting_check};

async fn start(name: &str) -> Option<(Testbed, Agent)> {
    let testbed = Testbed::start_or_skip(name, Options::default()).await.expect("testbed")?;
    Agent::install(&testbed.clusters[0], Crd::Ours).await.expect("install");
    let agent = Agent::start(&testbed.clusters[0], "alone", None).await.expect("agent");
    Some((testbed, agent))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_adopts_its_run_and_repeats_none() {
    let Some((testbed, agent)) = start("a_killed_agent_adopts_its_run_and_repeats_none").await else { return };
    let cluster = &testbed.clusters[0];
    // Runs that take long enough to be killed in, on a busy machine too; the interval is long, so that each has one slot.
    for (name, template) in [("adopted", r#"  suspend: {duration: "15s"}"#), ("deleted", "  suspend: {}")] {
        let slow = ["entrypoint: wait", "templates:", "- name: wait", template];
        cluster.apply_yaml(&check(name, "repeatAfterSec: 3600", &slow)).await.expect("check");
    }
    // Killed before it heard that a workflow was made, it would have to make it anew.
    wait::until("both runs, as the agent knows", PATIENCE, || async {
        Ok((created_workflows(cluster).len() == 2 && known_as_made(&agent)? == 2).then_some(()))
    })
    .await
    .expect("runs");
    agent.process.stop();
    let workflow = workflow_of(cluster, "deleted");
    cluster.kubectl(&["delete", "workflow", "-n", "health", &workflow]).await.expect("delete");
    agent.process.start().expect("agent again");

    assert_eq!(until_ended(cluster, "adopted").await["status"], "Succeeded");
    let deleted = until_ended(cluster, "deleted").await;
    assert_eq!(deleted["status"], "Failed");
    assert!(deleted["errorMessage"].as_str().unwrap_or_default().contains("deleted before its end"), "{deleted}");
    assert_eq!((deleted["failedCount"].as_i64(), created_workflows(cluster).len()), (Some(1), 2), "no slot ran twice");
}

/// How many workflows the agent's journal says were made.
fn known_as_made(agent: &Agent) -> anyhow::Result<usize> {
    let mut made = 0;
    for file in std::fs::read_dir(agent.state_dir.join("journal"))? {
        let text = std::fs::read(file?.path())?;
        made += String::from_utf8_lossy(&text).matches(r#""record":"created""#).count();
    }
    Ok(made)
}

fn workflow_of(cluster: &Cluster, check: &str) -> String {
    let created = created_workflows(cluster);
    let workflow = created.iter().find(|created| created.workflow.starts_with(&format!("health/{check}-")));
    workflow.expect("workflow").workflow.trim_start_matches("health/").to_owned()
}

async fn status(cluster: &Cluster, check: &str) -> serde_json::Value {
    cluster.health_check("health", check).await.expect("HealthCheck")["status"].take()
}

async fn until_ended(cluster: &Cluster, check: &str) -> serde_json::Value {
    wait::until(&format!("end of {check}"), PATIENCE, || async {
        let status = status(cluster, check).await;
        Ok(status["finishedAt"].is_string().then_some(status))
    })
    .await
    .expect("end")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remedy_has_rights_only_while_it_runs_and_a_deleted_check_leaves_nothing() {
    let name = "a_remedy_has_rights_only_while_it_runs_and_a_deleted_check_leaves_nothing";
    let Some((testbed, agent)) = start(name).await else { return };
    let cluster = &testbed.clusters[0];
    let before = rights(cluster).await;

    let mut remedied = failing_check("remedied", "repeatAfterSec: 6\n  remedyRunsLimit: 2");
    let remedy = waiting_check("x", "").split_once("  workflow:").map(|(_, text)| text.replace("probe", "fixer"));
    remedied.push_str(&format!("  remedyworkflow:{}", remedy.expect("workflow")));
    cluster.apply_yaml(&remedied).await.expect("check");
    // The limit: two remedies, and then none although the check goes on failing.
    wait::until("failures past the limit", PATIENCE, || async {
        let status = status(cluster, "remedied").await;
        let enough = status["failedCount"].as_i64() >= Some(4) && status["remedyTotalRuns"].as_i64() >= Some(2);
        Ok(enough.then_some(()))
    })
    .await
    .expect("failures");
    let now = status(cluster, "remedied").await;
    assert_eq!((now["remedyTotalRuns"].as_i64(), now["remedySuccessCount"].as_i64()), (Some(2), Some(2)), "{now}");
    let during = rights(cluster).await;
    assert!(during.contains("role.rbac.authorization.k8s.io/probe-ns-role"), "{during}");
    assert!(!during.contains("fixer"), "the remedy's rights end with it: {during}");

    cluster.kubectl(&["delete", "healthcheck", "remedied", "-n", "health"]).await.expect("delete");
    wait::until("nothing left", PATIENCE, || async {
        let left = cluster.kubectl(&["get", "workflows", "-A", "-o", "name"]).await?;
        Ok((rights(cluster).await == before && left.is_empty()).then_some(()))
    })
    .await
    .expect("nothing is left");

    // The same when the agent is away while the check is deleted.
    cluster.apply_yaml(&waiting_check("brief", "repeatAfterSec: 3600")).await.expect("check");
    until_ended(cluster, "brief").await;
    agent.process.stop();
    cluster.kubectl(&["delete", "healthcheck", "brief", "-n", "health"]).await.expect("delete");
    agent.process.start().expect("agent again");
    wait::until("nothing left", PATIENCE, || async { Ok((rights(cluster).await == before).then_some(())) })
        .await
        .expect("nothing is left");
}

/// Every account, role and binding that is not Kubernetes' own.
async fn rights(cluster: &Cluster) -> String {
    let kinds = "serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings";
    let all = cluster.kubectl(&["get", kinds, "-n", "health", "-o", "name"]).await.expect("rights");
    all.lines().filter(|line| !line.contains("/system:")).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_asks_for_more_than_the_ceiling_is_refused_and_a_users_own_account_stays_as_it_is() {
    let name = "a_check_that_asks_for_more_than_the_ceiling_is_refused_and_a_users_own_account_stays_as_it_is";
    let Some((testbed, _agent)) = start(name).await else { return };
    let cluster = &testbed.clusters[0];
    let own = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: own, namespace: health}\n---\n\
        apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: own-ns-role, namespace: health}\nrules: []\n";
    cluster.apply_yaml(own).await.expect("own account");
    let rules = "  workflow:\n    rbacRules:\n    - {apiGroups: [''], resources: [secrets], verbs: [get]}\n";
    let greedy = waiting_check("greedy", "repeatAfterSec: 3600").replace("  workflow:\n", rules);
    let foreign =
        waiting_check("foreign", "repeatAfterSec: 3600").replace("serviceAccount: probe", "serviceAccount: own");
    cluster.apply_yaml(&format!("{}---\n{foreign}", greedy.replace("probe", "greedy"))).await.expect("checks");

    let refused = until_ended(cluster, "greedy").await;
    let message = refused["errorMessage"].as_str().unwrap_or_default();
    assert_eq!(refused["status"], "Failed");
    assert!(message.contains("health/greedy") && message.contains("secrets"), "the rule is named: {message}");
    assert_eq!(until_ended(cluster, "foreign").await["status"], "Succeeded");
    cluster.kubectl(&["delete", "healthcheck", "foreign", "-n", "health"]).await.expect("delete");
    cluster.apply_yaml(&waiting_check("later", "repeatAfterSec: 3600")).await.expect("check");
    until_ended(cluster, "later").await;
    let role = cluster.kubectl(&["get", "role", "own-ns-role", "-n", "health", "-o", "jsonpath={.rules}"]).await;
    assert!(["", "[]", "null"].contains(&role.expect("the role stays").trim()));
    cluster.kubectl(&["get", "serviceaccount", "own", "-n", "health"]).await.expect("the account stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successful_run_costs_two_writes_and_no_read() {
    let Some((testbed, _agent)) = start("a_successful_run_costs_two_writes_and_no_read").await else { return };
    let cluster = &testbed.clusters[0];
    cluster.apply_yaml(&waiting_check("cheap", "repeatAfterSec: 5")).await.expect("check");
    let runs = |count: i64| {
        wait::until("further runs", PATIENCE, move || async move {
            let done = status(cluster, "cheap").await["successCount"].as_i64();
            Ok(done.filter(|done| *done >= count))
        })
    };
    // The first runs pay for the account's rights and the event that says that it succeeds.
    let first = runs(2).await.expect("first runs");
    let agents = |events: Vec<active_monitor_tests::audit::Event>| -> Vec<_> {
        let by_agent = events.into_iter().filter(|event| event.user.username.ends_with(":active-monitor-agent"));
        by_agent.filter(|event| event.verb != "watch").collect()
    };
    let before = agents(cluster.audit().expect("audit")).len();
    let last = runs(first + 4).await.expect("further runs");
    let requests = agents(cluster.audit().expect("audit")).split_off(before);
    let described: Vec<String> = requests.iter().map(|event| format!("{} {}", event.verb, event.request_uri)).collect();
    let (made, runs) = (requests.len(), usize::try_from(last - first).expect("count"));
    println!("{made} requests for {runs} runs");
    assert!(
        described.iter().all(|request| request.starts_with("create ") || request.starts_with("patch ")),
        "{described:?}"
    );
    // A run may be half done at either end of the count.
    assert!(made <= 2 * runs + 1, "{made} requests for {runs} runs: {described:?}");
}
