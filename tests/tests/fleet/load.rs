//! Three clusters with a hundred checks each: every workflow that the audit logs say was created is in the hub's history
//! exactly once, in time, also when the hub is killed under that load.

use std::collections::BTreeMap;
use std::time::Duration;

use active_monitor_core::check::Check;
use active_monitor_core::healthcheck::HealthCheck;
use active_monitor_tests::{Agent, Cluster, Hub, Options, Testbed, wait};
use futures::future::join_all;
use jiff::Timestamp;
use kube::Api;
use kube::api::ListParams;

use super::{PATIENCE, created_workflows, takes_creates, waiting_check};

const CHECKS: usize = 100;
/// The promise: a workflow is created at most this long after its slot, jitter included.
const MAX_LATENESS: Duration = Duration::from_secs(1);
/// The hub is away for so long in the middle of the load.
const OUTAGE: Duration = Duration::from_secs(60);

/// How long the checks run; `ACTIVE_MONITOR_LOAD_SECONDS` (`make soak` gives 300).
fn load() -> Duration {
    let seconds = std::env::var("ACTIVE_MONITOR_LOAD_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(90)).max(OUTAGE)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_run_is_recorded_exactly_once_also_when_the_hub_is_killed() {
    let name = "every_run_is_recorded_exactly_once_also_when_the_hub_is_killed";
    let Some(testbed) = Testbed::start_or_skip(name, Options { clusters: 3, node: false }).await.expect("testbed")
    else {
        return;
    };
    let hub = Hub::start(testbed.clusters[0].run(), &testbed.clusters[0].dir).await.expect("hub");
    let names = ["eu-1", "eu-2", "us-1"];
    let joins = testbed.clusters.iter().zip(names).map(|(cluster, name)| Agent::join(cluster, &hub, name, &[]));
    let agents: Vec<Agent> = join_all(joins).await.into_iter().map(|agent| agent.expect("agent")).collect();
    join_all(agents.iter().map(|agent| agent.wait_until_connected(&hub)))
        .await
        .into_iter()
        .for_each(|c| c.expect("link"));
    // What is promised is promised of an agent that runs, on an API server that takes HealthChecks.
    for (cluster, agent) in testbed.clusters.iter().zip(&agents) {
        takes_creates(cluster).await;
        agent.process.until_logged("caches are complete", 0, PATIENCE).await.expect("a ready agent");
        hears_of_checks(cluster).await;
    }
    // One cluster after the other: its hundred first runs are due at once, on cores that all clusters share.
    for cluster in &testbed.clusters {
        apply_checks(cluster).await;
    }

    let with_hub = (load() - OUTAGE) / 2;
    tokio::time::sleep(with_hub).await;
    hub.kill();
    let before: Vec<usize> = testbed.clusters.iter().map(|cluster| created_workflows(cluster).len()).collect();
    tokio::time::sleep(OUTAGE).await;
    for (cluster, before) in testbed.clusters.iter().zip(before) {
        let during = created_workflows(cluster).len() - before;
        assert!(during >= CHECKS / 2, "{}: only {during} runs while the hub was away", cluster.name);
    }
    hub.restart().await.expect("hub comes back");
    tokio::time::sleep(with_hub).await;

    let checks = join_all(testbed.clusters.iter().map(checks)).await;
    // No new runs from here: what there is must arrive to the last one.
    for cluster in &testbed.clusters {
        cluster.kubectl(&["delete", "healthchecks", "--all", "-n", "health"]).await.expect("delete");
    }
    for ((cluster, name), checks) in testbed.clusters.iter().zip(names).zip(checks) {
        let slots = all_recorded_once(&hub, cluster, name, CHECKS * 3 / 2).await;
        in_time(cluster, &checks, &slots);
    }
}

/// An API server whose CRD has just come may answer an agent's first requests with 429, which then asks no more for a
/// second: until its watch is there it hears of no check.
async fn hears_of_checks(cluster: &Cluster) {
    cluster.apply_yaml(&waiting_check("paused", "repeatAfterSec: 0")).await.expect("check");
    wait::until("a status", PATIENCE, || async {
        let check = cluster.health_check("health", "paused").await?;
        Ok((check["status"]["status"] == "Stopped").then_some(()))
    })
    .await
    .expect("the agent hears of checks");
}

/// The checks of a cluster.
async fn checks(cluster: &Cluster) -> Vec<Check> {
    let api = Api::<HealthCheck>::namespaced(cluster.client().expect("client"), "health");
    let found = api.list(&ListParams::default()).await.expect("checks");
    found.iter().map(|check| Check::parse(check).expect("a check")).collect()
}

/// Intervals, fixed delays and calendar times, some failing.
async fn apply_checks(cluster: &Cluster) {
    let timings = [
        "repeatAfterSec: 30",
        "repeatAfterSec: 45",
        "repeatAfterSec: 60",
        "repeatAfterSec: 90",
        "schedule: {cron: '*/2 * * * *'}",
        "schedule: {cron: '@every 40s'}",
        "repeatAfterSec: 50",
        "repeatAfterSec: 75",
        "schedule: {cron: '@every 1m30s'}",
        "schedule: {cron: 'CRON_TZ=Asia/Kolkata 1-59/2 * * * *'}",
        "repeatAfterSec: 35",
        "repeatAfterSec: 55",
        "schedule: {cron: '@every 1m10s'}",
        "repeatAfterSec: 65",
    ];
    let checks: Vec<String> = (0..CHECKS)
        .map(|i| {
            let (name, timing) = (format!("check-{i}"), timings[i % timings.len()]);
            if i % 20 == 19 { super::failing_check(&name, timing) } else { waiting_check(&name, timing) }
        })
        .collect();
    cluster.apply_yaml(&checks.join("---\n")).await.expect("checks");
}

/// Gives each workflow's slot, as the history has it; there are more than `at_least`.
pub(super) async fn all_recorded_once(
    hub: &Hub,
    cluster: &Cluster,
    name: &str,
    at_least: usize,
) -> BTreeMap<String, Timestamp> {
    let query = format!("cluster={name}");
    let recorded = wait::until("complete history", PATIENCE, || async {
        let mut recorded = BTreeMap::new();
        for run in hub.history(&query).await? {
            let slots: &mut Vec<_> = recorded.entry(run.run.workflow.clone().unwrap_or_default()).or_default();
            slots.push(run.run.key.slot);
        }
        let created = created_workflows(cluster);
        Ok(created.iter().all(|created| recorded.contains_key(&created.workflow)).then_some(recorded))
    });
    let recorded = recorded.await.unwrap_or_else(|error| panic!("{name}: {error:#}"));
    let created = created_workflows(cluster);
    assert!(created.len() > at_least, "{name}: only {} runs", created.len());
    let twice: Vec<_> = recorded.iter().filter(|(_, slots)| slots.len() != 1).collect();
    assert!(twice.is_empty(), "{name}: recorded more than once: {twice:?}");
    assert_eq!(recorded.len(), created.len(), "{name}: the history has runs that were not created");
    println!("{name}: {} workflows created, each recorded once", created.len());
    recorded.into_iter().map(|(workflow, slots)| (workflow, slots[0])).collect()
}

/// Lateness is measured against the slot, jitter included, or for a first run against the moment when its check was made.
fn in_time(cluster: &Cluster, checks: &[Check], slots: &BTreeMap<String, Timestamp>) {
    let made: BTreeMap<String, Timestamp> = cluster
        .audit()
        .expect("audit log")
        .iter()
        .filter(|event| event.object_ref.as_ref().is_some_and(|object| object.resource == "healthchecks"))
        .filter(|event| event.code() == Some(201))
        .filter_map(|event| Some((event.object_ref.as_ref()?.name.clone(), event.stage_timestamp)))
        .collect();
    let mut late: Vec<(Duration, String)> = Vec::new();
    for created in created_workflows(cluster) {
        let (_, workflow) = created.workflow.split_once('/').expect("namespace/name");
        let slot = slots[&created.workflow];
        let is_its = |check: &str| workflow.starts_with(&format!("{check}-"));
        let timing =
            checks.iter().find(|check| is_its(&check.name)).and_then(Check::slots).expect("a check with slots");
        let check = made.iter().find(|(check, _)| is_its(check));
        // A creation time is cut to the second, and the answer to its request may come in the next one.
        let first =
            check.map(|(_, made)| *made).filter(|made| (0..=1).contains(&(made.as_second() - slot.as_second())));
        let lateness = created.at.duration_since(first.unwrap_or(timing.start(slot)));
        assert!(lateness.as_millis() > -1100, "{} was created {lateness:?} before its slot", created.workflow);
        let kind = if first.is_some() { "first run" } else { "slot" };
        late.push((Duration::try_from(lateness).unwrap_or_default(), format!("{kind} {}", created.workflow)));
    }
    late.sort();
    let (worst, median) = (&late[late.len() - 1], late[late.len() / 2].0);
    println!(
        "{}: {} creates, late by {median:?} in the median, {:?} at worst ({})",
        cluster.name,
        late.len(),
        worst.0,
        worst.1
    );
    assert!(worst.0 <= MAX_LATENESS, "{}: {} was created {:?} late", cluster.name, worst.1, worst.0);
}
