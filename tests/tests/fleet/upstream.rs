//! What active-monitor's users have: their ten examples and their stored objects, with their CRD and with ours.

use std::collections::BTreeMap;
use std::time::Duration;

use active_monitor_core::view::CheckView;
use active_monitor_tests::fleet::upstream;
use active_monitor_tests::{Agent, Cluster, Crd, Hub, Options, Testbed, skip, wait};

/// The examples' timeouts are 60 and 65 seconds; what comes on top is this machine's.
const EXAMPLES_LIMIT: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_examples_run_unmodified_with_their_crd_and_with_ours() {
    let name = "upstreams_examples_run_unmodified_with_their_crd_and_with_ours";
    let Some(folder) = upstream() else {
        skip::report(name, "../shared/upstream is not there");
        return;
    };
    let Some(testbed) = Testbed::start_or_skip(name, Options { clusters: 2, node: false }).await.expect("testbed")
    else {
        return;
    };
    let hub = Hub::start(testbed.clusters[0].run(), &testbed.clusters[0].dir).await.expect("hub");
    let mut agents = Vec::new();
    for (cluster, (name, crd)) in testbed.clusters.iter().zip([("ours", Crd::Ours), ("theirs", Crd::Upstream)]) {
        Agent::install(cluster, crd).await.expect("install");
        cluster.kubectl(&["create", "namespace", "test"]).await.expect("namespace");
        let token = hub.add_cluster(name, &[]).await.expect("token");
        for file in std::fs::read_dir(folder.join("examples")).expect("examples") {
            let path = file.expect("file").path();
            cluster.kubectl(&["create", "-f", &path.display().to_string()]).await.expect("create");
        }
        store_what_active_monitor_leaves(cluster).await;
        agents.push(Agent::start(cluster, name, Some(&token)).await.expect("agent"));
    }
    for name in ["ours", "theirs"] {
        let checks = until_all_have_run(&hub, name).await;
        judge_examples(&checks);
        judge_stored(&checks);
    }
}

/// An object as active-monitor stores it: empty structures, and counters that must go on.
async fn store_what_active_monitor_leaves(cluster: &Cluster) {
    let mut text = super::waiting_check("stored", "repeatAfterSec: 600");
    text.push_str("  remedyworkflow: {}\n  schedule: {}\n  backoffFactor: '0.5'\n");
    cluster.apply_yaml(&text).await.expect("stored check");
    let status = r#"{"status": {"successCount": 41, "failedCount": 2, "totalHealthCheckRuns": 43, "status": "Succeeded",
        "startedAt": "2024-01-01T00:00:00Z", "finishedAt": "2024-01-01T00:00:02Z", "lastSuccessfulWorkflow": "old"}}"#;
    let patch =
        ["patch", "healthcheck", "stored", "-n", "health", "--subresource=status", "--type=merge", "-p", status];
    cluster.kubectl(&patch).await.expect("status");
}

async fn until_all_have_run(hub: &Hub, cluster: &str) -> BTreeMap<String, CheckView> {
    let query = format!("cluster={cluster}");
    let what = format!("end of every example in {cluster}");
    let all = wait::until(&what, EXAMPLES_LIMIT, || async {
        let checks = hub.checks(&query).await?;
        let ended = checks.iter().filter(|check| check.status.as_str() != "Pending").count();
        Ok((checks.len() == 11 && ended == 11).then_some(checks))
    });
    let all = all.await.unwrap_or_else(|error| panic!("{error:#}"));
    all.into_iter().map(|check| (check.state.name.clone(), check)).collect()
}

/// There is no node, so pods stay pending: all fail at their timeout and say so, but the one that cannot be fetched and
/// the one that has no schedule.
fn judge_examples(checks: &BTreeMap<String, CheckView>) {
    let mut by_end: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, check) in checks.iter().filter(|(name, _)| *name != "stored") {
        let (status, message) = (check.status.as_str(), check.state.message.as_str());
        let end = match status {
            "Stopped" if message.contains("spec.schedule.cron") => "stopped",
            "Failed" if message.contains("cannot fetch https://raw.githubusercontent.com/") => "not fetched",
            "Failed" if message.contains("not done after 6") => "timed out",
            _ => panic!("{name}: {status}: {message}"),
        };
        *by_end.entry(end).or_default() += 1;
    }
    assert_eq!(by_end, BTreeMap::from([("stopped", 1), ("not fetched", 1), ("timed out", 8)]));
}

fn judge_stored(checks: &BTreeMap<String, CheckView>) {
    let stored = &checks["stored"];
    assert_eq!((stored.state.check.succeeded, stored.state.check.failed), (42, 2), "the counters go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn our_crd_only_adds_optional_fields_to_theirs() {
    let name = "our_crd_only_adds_optional_fields_to_theirs";
    let Some(folder) = upstream() else {
        skip::report(name, "../shared/upstream is not there");
        return;
    };
    let read = |path: std::path::PathBuf| -> serde_json::Value {
        let text = std::fs::read_to_string(path).expect("CRD");
        let crd: serde_json::Value = serde_saphyr::from_str(&text).expect("YAML");
        crd["spec"]["versions"][0].clone()
    };
    let theirs = read(folder.join("crd-healthchecks.yaml"));
    let ours = read(active_monitor_tests::fleet::project().join("deploy/crds/healthchecks.yaml"));
    assert_eq!(ours["additionalPrinterColumns"], theirs["additionalPrinterColumns"]);
    assert_eq!(ours["subresources"], theirs["subresources"]);
    compare("", &theirs["schema"]["openAPIV3Schema"], &ours["schema"]["openAPIV3Schema"]);
}

/// Every field of theirs is in ours with the same type, and ours needs nothing that theirs does not.
fn compare(path: &str, theirs: &serde_json::Value, ours: &serde_json::Value) {
    if ["", ".metadata", ".apiVersion", ".kind"].contains(&path) {
        // The API server knows these by itself.
    } else {
        assert_eq!(ours["type"], theirs["type"], "{path}");
    }
    let required = |schema: &serde_json::Value| -> Vec<String> {
        let names = schema["required"].as_array().cloned().unwrap_or_default();
        names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect()
    };
    let theirs_required = required(theirs);
    // The specification itself is required in ours; theirs is an object that cannot run without it.
    let more = required(ours).into_iter().filter(|name| !theirs_required.contains(name) && name != "spec");
    assert_eq!(more.collect::<Vec<_>>(), Vec::<String>::new(), "{path}: required only in ours");
    for (name, field) in theirs["properties"].as_object().into_iter().flatten() {
        let here = format!("{path}.{name}");
        if [".apiVersion", ".kind", ".metadata"].contains(&here.as_str()) {
            continue;
        }
        assert!(ours["properties"].get(name).is_some(), "{here} is missing in ours");
        compare(&here, field, &ours["properties"][name]);
    }
    if theirs["items"].is_object() {
        compare(&format!("{path}[]"), &theirs["items"], &ours["items"]);
    }
}
