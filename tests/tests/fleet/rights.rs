//! The rights of checks on a real API server: what is refused and how that is lifted, what is put right, and what of the
//! users' own stays as it is.

use std::time::{Duration, Instant};

use active_monitor_tests::{Agent, Cluster, Crd, Options, Testbed, wait};
use serde_json::Value;

use super::{PATIENCE, failing_check, waiting_check};

const SECRETS: &str = "    rbacRules:\n    - {apiGroups: [''], resources: [secrets], verbs: [get]}\n";

async fn status(cluster: &Cluster, namespace: &str, check: &str) -> Value {
    cluster.health_check(namespace, check).await.expect("HealthCheck")["status"].take()
}

async fn until_status(cluster: &Cluster, check: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    wait::until(&format!("{what} of {check}"), PATIENCE, || async {
        let status = status(cluster, "health", check).await;
        Ok(is(&status).then_some(status))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}"))
}

/// Runs the commands that a message ends with.
async fn obey(cluster: &Cluster, message: &str) {
    let (_, commands) = message.split_once("To allow it: ").unwrap_or_else(|| panic!("no command: {message}"));
    for command in commands.split(" && ") {
        let args: Vec<&str> = command.strip_prefix("kubectl ").expect("kubectl").split(' ').collect();
        cluster.kubectl(&args).await.unwrap_or_else(|error| panic!("{command}: {error:#}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_rights_name_what_lifts_it_and_changed_ones_are_put_right() {
    let name = "refused_rights_name_what_lifts_it_and_changed_ones_are_put_right";
    let Some(testbed) = Testbed::start_or_skip(name, Options::default()).await.expect("testbed") else { return };
    let cluster = &testbed.clusters[0];
    Agent::install(cluster, Crd::Ours).await.expect("install");
    cluster.kubectl(&["create", "namespace", "shop"]).await.expect("namespace");
    // Right after the install, before the API server has aggregated the ceilings: the refusals of those seconds pass.
    let agent = Agent::start(cluster, "alone", None).await.expect("agent");

    let greedy =
        waiting_check("greedy", "repeatAfterSec: 5").replace("  workflow:\n", &format!("  workflow:\n{SECRETS}"));
    let mut remedied = failing_check("remedied", "repeatAfterSec: 5");
    let (_, remedy) =
        waiting_check("x", "").split_once("  workflow:").map(|(a, b)| (a.to_owned(), b.to_owned())).expect("workflow");
    let remedy = remedy.replace("namespace: health", "namespace: shop").replace("probe", "fixer");
    remedied.push_str(&format!("  remedyworkflow:{remedy}"));
    let modest = waiting_check("modest", "repeatAfterSec: 5");
    cluster.apply_yaml(&format!("{modest}---\n{greedy}---\n{remedied}")).await.expect("checks");

    let refused = until_status(cluster, "greedy", "refusal", |status| status["status"] == "Failed").await;
    let message = refused["errorMessage"].as_str().unwrap_or_default();
    assert!(message.contains("account health/probe") && message.contains("escalation check"), "{message}");
    assert!(message.contains("get on secrets") && !message.contains("pods"), "only what is beyond: {message}");
    // The modest check shares the account and goes on with its own rules.
    let modest = until_status(cluster, "modest", "runs", |status| status["successCount"].as_i64() >= Some(2)).await;
    assert!(modest["failedCount"].is_null(), "no run failed for the ceilings' first seconds: {modest}");
    obey(cluster, message).await;
    until_status(cluster, "greedy", "success", |status| status["status"] == "Succeeded").await;
    let rules = cluster.kubectl(&["get", "role", "probe-ns-role", "-n", "health", "-o", "jsonpath={.rules}"]).await;
    assert!(rules.expect("role").contains("secrets"));

    let closed = |status: &Value| status["remedyErrorMessage"].is_string();
    let refused = until_status(cluster, "remedied", "refused remedy", closed).await;
    let message = refused["remedyErrorMessage"].as_str().unwrap_or_default();
    assert!(message.contains("the remedying ceiling is not bound in namespace shop"), "{message}");
    obey(cluster, message).await;
    until_status(cluster, "remedied", "remedy", |status| status["remedySuccessCount"].as_i64() >= Some(1)).await;

    cluster.kubectl(&["delete", "healthcheck", "greedy", "remedied", "-n", "health"]).await.expect("delete");
    changes_are_undone(cluster, &agent).await;
    a_contest_is_slowed_down(cluster, &agent).await;
}

const ROLE: [&str; 4] = ["role", "probe-ns-role", "-n", "health"];
const NO_RULES: &str = r#"{"rules": []}"#;

async fn rules(cluster: &Cluster) -> anyhow::Result<String> {
    cluster.kubectl(&[&["get"], &ROLE[..], &["-o", "jsonpath={.rules}"]].concat()).await
}

async fn empty_the_role(cluster: &Cluster) {
    cluster.kubectl(&[&["patch"], &ROLE[..], &["--type=merge", "-p", NO_RULES]].concat()).await.expect("patch");
}

/// How often the agent has put an object of this kind right.
async fn restored(agent: &Agent, kind: &str) -> u64 {
    metric(agent, &format!("activemonitor_agent_rights_restored_total{{kind=\"{kind}\"}} ")).await
}

async fn metric(agent: &Agent, series: &str) -> u64 {
    let client = reqwest::Client::builder().no_proxy().build().expect("client");
    let answer = client.get(&agent.metrics_url).send().await.expect("metrics");
    let text = answer.text().await.expect("text");
    let value = text.lines().find_map(|line| line.strip_prefix(series));
    value.map_or(0, |value| value.trim().parse().expect("number"))
}

/// Whatever of an account somebody changes is as it was before the next run needs it; what is not the agent's stays.
async fn changes_are_undone(cluster: &Cluster, agent: &Agent) {
    let own =
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: own, namespace: health}\nrules: []\n";
    cluster.apply_yaml(own).await.expect("somebody's own role");
    wait::until("rules without those of the deleted check", PATIENCE, || async {
        let rules = rules(cluster).await?;
        Ok((rules.contains("pods") && !rules.contains("secrets")).then_some(()))
    })
    .await
    .expect("rules");
    let before = all_rights(cluster).await;
    let binding = ["rolebinding", "probe-ns-role-binding", "-n", "health"];
    let mallory = r#"{"subjects": [{"kind": "User", "name": "mallory", "apiGroup": "rbac.authorization.k8s.io"}]}"#;
    for (kind, change) in [
        ("Role", [&["patch"], &ROLE[..], &["--type=merge", "-p", NO_RULES]].concat()),
        ("RoleBinding", [&["patch"], &binding[..], &["--type=merge", "-p", mallory]].concat()),
        ("RoleBinding", [&["delete"], &binding[..]].concat()),
        ("ServiceAccount", vec!["delete", "serviceaccount", "probe", "-n", "health"]),
    ] {
        let times = restored(agent, kind).await;
        let began = Instant::now();
        cluster.kubectl(&change).await.expect("change");
        wait::until(&format!("{kind} put right"), PATIENCE, || async {
            let counted = restored(agent, kind).await > times;
            Ok((counted && all_rights(cluster).await == before).then_some(()))
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", agent.process.log_tail()));
        println!("{} ms: {kind} put right", began.elapsed().as_millis());
    }
    until_event(cluster, "RightsRestored").await;
    let own = cluster.kubectl(&["get", "role", "own", "-n", "health", "-o", "jsonpath={.rules}"]).await;
    assert!(["", "[]", "null"].contains(&own.expect("the own role stays").trim()));
}

/// What the account has, without what changes with each write.
async fn all_rights(cluster: &Cluster) -> String {
    let fields =
        r#"jsonpath={range .items[*]}{.kind} {.metadata.name} {.rules} {.roleRef.name} {.subjects}{"\n"}{end}"#;
    let label = "activemonitor.keikoproj.io/owner=active-monitor-agent";
    let get = ["get", "serviceaccounts,roles,rolebindings", "-n", "health", "-l", label, "-o", fields];
    cluster.kubectl(&get).await.expect("rights")
}

async fn until_event(cluster: &Cluster, reason: &str) {
    let field = format!("reason={reason}");
    let get = ["get", "events", "-n", "health", "--field-selector", &field, "-o", "name"];
    wait::until(reason, PATIENCE, || async { Ok((!cluster.kubectl(&get).await?.is_empty()).then_some(())) })
        .await
        .expect("event");
}

/// Somebody who writes the same object again and again is not answered write for write.
async fn a_contest_is_slowed_down(cluster: &Cluster, agent: &Agent) {
    let contested = || metric(agent, "activemonitor_agent_rights_contested ");
    wait::until("a contest", PATIENCE, || async {
        empty_the_role(cluster).await;
        Ok((contested().await == 1).then_some(()))
    })
    .await
    .expect("contest");
    until_event(cluster, "RightsContested").await;
    let times = restored(agent, "Role").await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        empty_the_role(cluster).await;
    }
    assert!(restored(agent, "Role").await <= times + 1, "at most one write in five seconds");
    // It is slowed down, not given up.
    wait::until("rules after the pause", PATIENCE, || async {
        Ok(rules(cluster).await?.contains("pods").then_some(()))
    })
    .await
    .expect("rules");
}
