//! A day in short: checks that run every few seconds, and an Argo to which a hundredth of the time is told that the agent
//! lets finished workflows stay. What is there is bounded by how many checks there are, not by how long they run.

use std::sync::atomic::{AtomicUsize, Ordering};

use active_monitor_tests::{Agent, Cluster, Crd, Options, Testbed, wait};
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::{Value, json};

use super::{PATIENCE, check, created_workflows};

const CHECKS: usize = 10;
const PERIOD_SECONDS: usize = 3;
/// 600 by the agent.
const KEPT_SECONDS: usize = 6;
const QUICKER: u64 = 100;
/// Runs until the end of the day.
const RUNS: usize = 160;
/// What there may be at once: the finished ones that are kept, one that runs, and what Argo, on a busy machine, has yet to
/// take away. Without expiry there would be twice as many.
const MOST: usize = CHECKS * (KEPT_SECONDS / PERIOD_SECONDS + 1 + 5);

#[tokio::test(flavor = "multi_thread")]
async fn what_a_day_leaves_is_bounded_by_the_number_of_checks() {
    let name = "what_a_day_leaves_is_bounded_by_the_number_of_checks";
    let Some(testbed) = Testbed::start_or_skip(name, Options::default()).await.expect("testbed") else { return };
    let cluster = &testbed.clusters[0];
    Agent::install(cluster, Crd::Ours).await.expect("install");
    let agent = Agent::start(cluster, "day", None).await.expect("agent");
    let checks: Vec<String> = (0..CHECKS).map(brief).collect();
    cluster.apply_yaml(&checks.join("---\n")).await.expect("checks");

    let morning = until_created(cluster, &agent, RUNS / 2).await;
    let noon = objects(cluster).await;
    let most = until_created(cluster, &agent, RUNS).await.max(morning);
    let evening = objects(cluster).await;
    println!(
        "{RUNS} runs, at most {most} workflows at once; other objects at noon {noon:?}, in the evening {evening:?}"
    );
    assert!((1..=MOST).contains(&most), "{most} workflows of {CHECKS} checks");
    assert_eq!(noon[..3], evening[..3], "accounts, roles and bindings do not grow");
    // What is new is counted in the series of an event that is there already.
    assert!((1..=2 * CHECKS).contains(&evening[3]), "{} events of {CHECKS} checks", evening[3]);

    cluster.kubectl(&["delete", "healthchecks", "--all", "-n", "health"]).await.expect("delete");
    wait::until("nothing is left", PATIENCE, || async {
        let left = objects(cluster).await;
        let workflows = cluster.workflows("health").await?.len();
        Ok((workflows == 0 && left[1] == 0 && left[2] == 0).then_some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", agent.process.log_tail()));
}

/// One in five fails each time.
fn brief(i: usize) -> String {
    let (deadline, suspend) = if i.is_multiple_of(5) {
        ("activeDeadlineSeconds: 1", "  suspend: {}")
    } else {
        ("", r#"  suspend: {duration: "1s"}"#)
    };
    let spec = ["entrypoint: wait", deadline, "templates:", "- name: wait", suspend];
    let spec: Vec<&str> = spec.into_iter().filter(|line| !line.is_empty()).collect();
    check(&format!("check-{i}"), &format!("repeatAfterSec: {PERIOD_SECONDS}"), &spec)
}

/// Waits until there have been so many runs; gives the most workflows that were there at once meanwhile.
async fn until_created(cluster: &Cluster, agent: &Agent, runs: usize) -> usize {
    let most = AtomicUsize::new(0);
    wait::until(&format!("{runs} runs"), PATIENCE, || async {
        let workflows = cluster.workflows("health").await?;
        most.fetch_max(workflows.len(), Ordering::Relaxed);
        quicken(cluster, &workflows).await?;
        Ok((created_workflows(cluster).len() >= runs).then_some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", agent.process.log_tail()));
    most.into_inner()
}

/// What the agent gave a finished workflow to stay, Argo is told a hundredth of; what it gave none stays for ever.
async fn quicken(cluster: &Cluster, workflows: &[Value]) -> anyhow::Result<()> {
    let kind = GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Workflow");
    let resource = ApiResource::from_gvk_with_plural(&kind, "workflows");
    let api: Api<DynamicObject> = Api::namespaced_with(cluster.client()?, "health", &resource);
    for workflow in workflows.iter().filter(|workflow| workflow["status"]["finishedAt"].is_string()) {
        let stays = workflow["spec"]["ttlStrategy"]["secondsAfterCompletion"].as_u64().unwrap_or(0);
        if stays >= QUICKER {
            let body = json!({"spec": {"ttlStrategy": {"secondsAfterCompletion": stays / QUICKER}}});
            let name = workflow["metadata"]["name"].as_str().unwrap_or_default();
            match api.patch(name, &PatchParams::default(), &Patch::Merge(&body)).await {
                Ok(_) => {}
                Err(kube::Error::Api(gone)) if gone.code == 404 => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// How many accounts, roles and bindings there are, and events of the agent's; Argo has events of its own.
async fn objects(cluster: &Cluster) -> [usize; 4] {
    let mut counts = [0; 4];
    let ours = "activemonitor.keikoproj.io/owner=active-monitor-agent";
    for (count, kind) in counts.iter_mut().zip(["serviceaccounts", "roles", "rolebindings"]) {
        let get = ["get", kind, "-n", "health", "-l", ours, "-o", "name"];
        *count = cluster.kubectl(&get).await.expect("objects").lines().count();
    }
    let names = r#"jsonpath={range .items[?(@.reportingController=="active-monitor-agent")]}{.reason}{"\n"}{end}"#;
    let events = cluster.kubectl(&["get", "events.events.k8s.io", "-n", "health", "-o", names]).await.expect("events");
    counts[3] = events.lines().count();
    counts
}
