//! What active-monitor fails at, row by row of docs/failures.md, and what its users asked for: all side by side on one
//! cluster, since most of it is waiting.

use active_monitor_tests::{Agent, Cluster, Crd, Options, Testbed, wait};
use serde_json::Value;

use super::{PATIENCE, check, failing_check, options, waiting_check};

/// A namespace beside `health`, open for remedies.
const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: active-monitor-ceiling-remedying, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: active-monitor-ceiling-remedying}
subjects: [{kind: ServiceAccount, name: active-monitor-agent, namespace: active-monitor}]
";

const HANGS: [&str; 4] = ["entrypoint: hang", "templates:", "- name: hang", "  suspend: {}"];

#[tokio::test(flavor = "multi_thread")]
async fn what_active_monitor_fails_at_works_and_what_its_users_asked_for_is_there() {
    let name = "what_active_monitor_fails_at_works_and_what_its_users_asked_for_is_there";
    let Some(testbed) = Testbed::start_or_skip(name, Options::default()).await.expect("testbed") else { return };
    let cluster = &testbed.clusters[0];
    Agent::install(cluster, Crd::Ours).await.expect("install");
    cluster.apply_yaml(SHOP).await.expect("namespace");
    let sources = cluster.dir.join("sources");
    std::fs::create_dir_all(&sources).expect("folder of sources");
    let source_dir = format!("--source-dir={}", sources.display());
    let agent = Agent::start_with(cluster, "alone", None, &[&source_dir]).await.expect("agent");
    cluster.apply_yaml(&waiting_check("often", "repeatAfterSec: 3")).await.expect("check");
    tokio::join!(
        runs_follow_each_other(cluster),
        a_slow_check_s_end_is_seen_at_once(cluster),
        an_error_is_an_end(cluster),
        a_file_is_a_source(cluster, &sources),
        a_remedy_has_its_own_namespace_account_and_timeout(cluster),
        one_name_in_two_namespaces_is_two_checks(cluster, &agent),
        a_workflow_in_another_namespace_lives_and_goes_with_its_check(cluster),
        options::a_run_is_asked_for(cluster),
        options::a_check_is_suspended_and_goes_on(cluster),
        options::failures_in_a_row_are_counted(cluster),
        options::kubectl_waits_for_conditions(cluster),
    );
    ends_are_seen_at_once(cluster);
    assert!(agent.process.pid().is_some(), "{}", agent.process.log_tail());
}

/// A HealthCheck of this namespace, whose workflow runs in that one.
fn placed(text: &str, home: &str, runs_in: &str) -> String {
    let text = text.replace("namespace: health}", &format!("namespace: {home}}}"));
    text.replace("      namespace: health", &format!("      namespace: {runs_in}"))
}

/// Waits until the HealthCheck, in `health`, is as it shall be; gives it.
pub(super) async fn until(cluster: &Cluster, check: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    until_in(cluster, "health", check, what, is).await
}

async fn until_in(cluster: &Cluster, namespace: &str, check: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let is = &is;
    wait::until(&format!("{what} of {namespace}/{check}"), PATIENCE, || async move {
        let found = cluster.health_check(namespace, check).await?;
        anyhow::ensure!(is(&found), "{}", found["status"]);
        Ok(Some(found))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}"))
}

pub(super) fn successes(check: &Value) -> i64 {
    check["status"]["successCount"].as_i64().unwrap_or(0)
}

/// The check's workflows in a namespace.
async fn workflows(cluster: &Cluster, namespace: &str, check: &str) -> Vec<Value> {
    let mut items = cluster.workflows(namespace).await.expect("workflows");
    items.retain(|item| {
        let named = item["metadata"]["annotations"]["activemonitor.keikoproj.io/check"].as_str();
        named.and_then(|named| named.split_once('/')).is_some_and(|(_, name)| name == check)
    });
    items
}

/// active-monitor stops after the first run that ended.
async fn runs_follow_each_other(cluster: &Cluster) {
    let often = until(cluster, "often", "fifth run", |often| successes(often) >= 5).await;
    assert!(often["status"]["failedCount"].is_null(), "{often}");
    // With Argo 3.4 and newer a pod that may not write these ends its workflow in Error.
    let account = "--as=system:serviceaccount:health:probe";
    for verb in ["create", "patch"] {
        let may = ["auth", "can-i", verb, "workflowtaskresults.argoproj.io", "-n", "health", account];
        assert_eq!(cluster.kubectl(&may).await.expect("its account may").trim(), "yes");
    }
}

/// active-monitor looks for the first time after half the timeout: here, half an hour.
async fn a_slow_check_s_end_is_seen_at_once(cluster: &Cluster) {
    let slow = ["entrypoint: wait", "templates:", "- name: wait", r#"  suspend: {duration: "5s"}"#];
    cluster.apply_yaml(&check("slow", "repeatAfterSec: 3600", &slow)).await.expect("check");
    until(cluster, "slow", "end", |slow| successes(slow) == 1).await;
}

/// From Argo's last write on a workflow to the agent's write on its check, of every run so far, by the audit log.
fn ends_are_seen_at_once(cluster: &Cluster) {
    let events = cluster.audit().expect("audit log");
    let of = |user: &str, resource: &str| {
        let by = events.iter().filter(move |event| event.user.username.ends_with(user));
        by.filter(move |event| event.object_ref.as_ref().is_some_and(|object| object.resource == resource))
            .filter(|event| ["update", "patch"].contains(&event.verb.as_str()) && event.code() == Some(200))
            .collect::<Vec<_>>()
    };
    let (argo, agent) = (of("argo-workflow-controller", "workflows"), of(":active-monitor-agent", "healthchecks"));
    let lag = |check: &str| -> Vec<i128> {
        let name = |event: &active_monitor_tests::audit::Event| {
            event.object_ref.as_ref().map(|object| object.name.clone()).unwrap_or_default()
        };
        let told = agent.iter().filter(|event| name(event) == check).map(|event| event.request_received_timestamp);
        let prefix = format!("{check}-");
        let ended: Vec<_> =
            argo.iter().filter(|event| name(event).starts_with(&prefix)).map(|event| event.stage_timestamp).collect();
        let last = |told| ended.iter().filter(|ended| **ended <= told).max();
        told.filter_map(|told| Some(told.duration_since(*last(told)?).as_millis())).collect()
    };
    let (often, slow) = (lag("often"), lag("slow"));
    assert!(often.len() >= 5 && slow.len() == 1, "{often:?} {slow:?}");
    let mut all = [often, slow].concat();
    all.sort_unstable();
    let (median, worst) = (all[all.len() / 2], all[all.len() - 1]);
    println!("{} ends are in the status after {median} ms in the median, {worst} ms at worst", all.len());
    assert!(median < 1000 && worst < 5000, "{all:?}");
}

/// active-monitor knows Succeeded and Failed: a workflow in Error counts at its timeout, here in an hour.
async fn an_error_is_an_end(cluster: &Cluster) {
    cluster.apply_yaml(&check("errs", "repeatAfterSec: 3600", &HANGS)).await.expect("check");
    let begun = wait::until("workflow of errs", PATIENCE, || async {
        let running = workflows(cluster, "health", "errs").await.into_iter().next();
        Ok(running.filter(|workflow| workflow["status"]["phase"] == "Running"))
    });
    let name = begun.await.expect("begun")["metadata"]["name"].as_str().expect("name").to_owned();
    // Argo is helped: what it could not carry out is nothing that a test can order.
    let end = r#"{"status": {"phase": "Error", "message": "the node went away"}}"#;
    let patch = ["patch", "workflow", &name, "-n", "health", "--type=merge", "-p", end];
    cluster.kubectl(&patch).await.expect("patch");
    let errs = until(cluster, "errs", "end", |errs| errs["status"]["failedCount"] == 1).await;
    assert_eq!(errs["status"]["status"], "Failed");
    assert!(errs["status"]["errorMessage"].as_str().unwrap_or_default().contains("the node went away"), "{errs}");
}

/// active-monitor has the field `file`, and no code for it.
async fn a_file_is_a_source(cluster: &Cluster, folder: &std::path::Path) {
    let text = "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nspec:\n  entrypoint: wait\n  templates:\n  \
        - {name: wait, suspend: {duration: '1s'}}\n";
    std::fs::write(folder.join("from-file.yaml"), text).expect("source");
    let (head, _) = waiting_check("from-file", "repeatAfterSec: 3600")
        .split_once("        inline:")
        .map(|(head, tail)| (head.to_owned(), tail.to_owned()))
        .expect("source");
    cluster.apply_yaml(&format!("{head}        file: {{path: from-file.yaml}}\n")).await.expect("check");
    until(cluster, "from-file", "success", |check| successes(check) == 1).await;
}

/// active-monitor looks for the remedy in the check's namespace, for as long as the check may take.
async fn a_remedy_has_its_own_namespace_account_and_timeout(cluster: &Cluster) {
    let (_, remedy) = check("x", "", &HANGS)
        .split_once("  workflow:\n")
        .map(|(head, tail)| (head.to_owned(), tail.to_owned()))
        .expect("workflow");
    let remedy = placed(&remedy, "health", "shop").replace("probe", "fixer");
    let checked = failing_check("broken", "repeatAfterSec: 3600")
        .replace("  workflow:\n", "  workflow:\n    workflowtimeout: 1800\n");
    let text = format!("{checked}  remedyworkflow:\n    workflowtimeout: 2\n{remedy}");
    cluster.apply_yaml(&text).await.expect("check");
    let broken = until(cluster, "broken", "remedy", |check| check["status"]["remedyFailedCount"] == 1).await;
    let said = broken["status"]["remedyErrorMessage"].as_str().unwrap_or_default();
    assert!(said.contains("not done after 2 s"), "{broken}");
    let there = workflows(cluster, "shop", "broken").await;
    let [remedy] = &there[..] else { panic!("one remedy in shop: {there:?}") };
    assert!(
        remedy["spec"]["serviceAccountName"] == "fixer" && remedy["spec"]["activeDeadlineSeconds"] == 2,
        "{remedy}"
    );
    assert_eq!(workflows(cluster, "health", "broken").await.len(), 1, "the check's own");
}

/// active-monitor keeps timers and metrics by name alone, and one map of labels for all.
async fn one_name_in_two_namespaces_is_two_checks(cluster: &Cluster, agent: &Agent) {
    let marked = "          kind: Workflow\n          metadata: {labels: {team: shop}}\n";
    let well = placed(&waiting_check("twin", "repeatAfterSec: 3600"), "shop", "shop");
    let well = well.replace("          kind: Workflow\n", marked);
    cluster.apply_yaml(&format!("{well}---\n{}", failing_check("twin", "repeatAfterSec: 3600"))).await.expect("checks");
    until_in(cluster, "shop", "twin", "success", |twin| successes(twin) == 1).await;
    until(cluster, "twin", "failure", |twin| twin["status"]["failedCount"] == 1).await;
    for (namespace, family, count) in
        [("shop", "success", 1), ("shop", "error", 0), ("health", "success", 0), ("health", "error", 1)]
    {
        let labels = format!(r#"healthcheck_name="twin",namespace="{namespace}",workflow="healthCheck""#);
        until_metric(agent, &format!("healthcheck_{family}_count{{{labels}}} {count}")).await;
    }
    let label = |workflow: &Value| workflow["metadata"]["labels"]["team"].clone();
    let labels = [workflows(cluster, "shop", "twin").await, workflows(cluster, "health", "twin").await];
    let labels = labels.map(|of| of.iter().map(label).collect::<Vec<_>>());
    assert_eq!(labels, [vec![Value::from("shop")], vec![Value::Null]], "no label of one is on the other");
}

pub(super) async fn until_metric(agent: &Agent, line: &str) {
    let http = reqwest::Client::builder().no_proxy().build().expect("client");
    let http = &http;
    wait::until(line, PATIENCE, || async move {
        let text = http.get(&agent.metrics_url).send().await?.text().await?;
        Ok(text.lines().any(|known| known == line).then_some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}"));
}

/// active-monitor makes the check their owner, which the garbage collector takes for an orphan's and deletes them.
async fn a_workflow_in_another_namespace_lives_and_goes_with_its_check(cluster: &Cluster) {
    let brief = placed(&waiting_check("abroad", "repeatAfterSec: 4"), "health", "shop");
    let long = placed(&check("abroad-long", "repeatAfterSec: 3600", &HANGS), "health", "shop");
    cluster.apply_yaml(&format!("{brief}---\n{long}")).await.expect("checks");
    let ended = until(cluster, "abroad", "second run", |abroad| successes(abroad) >= 2).await;
    assert!(ended["status"]["failedCount"].is_null(), "{ended}");
    let there = [workflows(cluster, "shop", "abroad").await, workflows(cluster, "shop", "abroad-long").await].concat();
    assert!(there.len() >= 3 && there.iter().all(|workflow| workflow["metadata"]["ownerReferences"].is_null()));
    cluster.kubectl(&["delete", "healthcheck", "abroad", "abroad-long", "-n", "health"]).await.expect("delete");
    wait::until("end of what the checks left in shop", PATIENCE, || async {
        let left = [workflows(cluster, "shop", "abroad").await, workflows(cluster, "shop", "abroad-long").await];
        Ok(left.concat().is_empty().then_some(()))
    })
    .await
    .expect("their workflows go with them");
}
