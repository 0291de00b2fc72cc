//! More runs are due than may be in flight: all run, never more at once than allowed, and the agent says who waits.

use std::collections::BTreeMap;
use std::time::Duration;

use active_monitor_tests::{Agent, Cluster, Crd, Options, Testbed, wait};
use jiff::Timestamp;

use super::failures::until_metric;
use super::{PATIENCE, check, created_workflows, patient};

const CLUSTER: usize = 3;
const NAMESPACE: usize = 2;
const NAMESPACES: [&str; 2] = ["health", "shop"];
/// In each namespace: all their first runs are due at once.
const CHECKS: usize = 6;
const WAITING: &str = "activemonitor_agent_runs_waiting_for_capacity";

#[tokio::test(flavor = "multi_thread")]
async fn no_more_runs_are_in_flight_than_allowed_and_all_run() {
    let name = "no_more_runs_are_in_flight_than_allowed_and_all_run";
    let Some(testbed) = Testbed::start_or_skip(name, Options::default()).await.expect("testbed") else { return };
    let cluster = &testbed.clusters[0];
    Agent::install(cluster, Crd::Ours).await.expect("install");
    cluster.kubectl(&["create", "namespace", "shop"]).await.expect("namespace");
    let limits = [format!("--max-runs-in-flight={CLUSTER}"), format!("--max-runs-in-flight-per-namespace={NAMESPACE}")];
    let limits = limits.each_ref().map(String::as_str);
    let agent = Agent::start_with(cluster, "capped", None, &limits).await.expect("agent");
    agent.process.until_logged("caches are complete", 0, PATIENCE).await.expect("a ready agent");

    let slow = ["entrypoint: wait", "templates:", "- name: wait", r#"  suspend: {duration: "3s"}"#];
    let checks = NAMESPACES.into_iter().flat_map(|namespace| {
        let text = move |i| patient(check(&format!("{namespace}-{i}"), "repeatAfterSec: 3600", &slow));
        (0..CHECKS).map(move |i| text(i).replace("namespace: health", &format!("namespace: {namespace}")))
    });
    cluster.apply_yaml(&checks.collect::<Vec<_>>().join("---\n")).await.expect("checks");

    wait::until("runs that wait", PATIENCE, || async {
        Ok((waiting(&agent).await? >= CHECKS * NAMESPACES.len() - 2 * CLUSTER).then_some(()))
    })
    .await
    .expect("the metric says that they wait");
    wait::until("every first run", PATIENCE, || async {
        let ended = ends(cluster).await?;
        Ok((ended.len() == CHECKS * NAMESPACES.len()).then_some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", agent.process.log_tail()));
    until_metric(&agent, &format!("{WAITING} 0")).await;

    let most = most_at_once(cluster).await;
    println!("at most {most:?} in flight at once");
    assert!(most[""] == CLUSTER, "{most:?}: all of the places are used, and no more");
    assert!(NAMESPACES.iter().all(|namespace| most[*namespace] <= NAMESPACE), "{most:?}");
}

async fn waiting(agent: &Agent) -> anyhow::Result<usize> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
    let text = client.get(&agent.metrics_url).send().await?.text().await?;
    let value = text.lines().find_map(|line| line.strip_prefix(WAITING)?.trim().parse().ok());
    Ok(value.unwrap_or(0))
}

/// When each workflow ended that has, by `namespace/name`: its last whole second.
async fn ends(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, Timestamp>> {
    let mut ends = BTreeMap::new();
    for namespace in NAMESPACES {
        for workflow in cluster.workflows(namespace).await? {
            let name = workflow["metadata"]["name"].as_str().unwrap_or_default();
            if let Some(at) = workflow["status"]["finishedAt"].as_str() {
                ends.insert(format!("{namespace}/{name}"), at.parse()?);
            }
        }
    }
    Ok(ends)
}

/// The most workflows that were live at once, of each namespace, and of all under the empty name. One is live from the
/// request that created it, as the audit log has it, until the second in which it ended began.
async fn most_at_once(cluster: &Cluster) -> BTreeMap<&'static str, usize> {
    let ends = ends(cluster).await.expect("workflows");
    let created = created_workflows(cluster);
    let mut most = BTreeMap::new();
    for now in &created {
        let live = |other: &&super::Created| other.at <= now.at && ends[&other.workflow] > now.at;
        for namespace in NAMESPACES.into_iter().chain([""]) {
            let of = created.iter().filter(|other| other.workflow.starts_with(namespace));
            let known: &mut usize = most.entry(namespace).or_default();
            *known = of.filter(live).count().max(*known);
        }
    }
    most
}
