//! Peers that read nothing of what they are sent: an agent that answers pings and no more, an agent's process that stands
//! still while the hub pushes, a hub's process that stands still while the agent streams. Neither fills the other's memory,
//! and no other agent notices.

use std::sync::Arc;
use std::time::Duration;

use active_monitor_core::view::{ClusterStatus, ClusterView, FleetSummary};
use active_monitor_tests::bench::{Agents, Deaf, proc};
use active_monitor_tests::run_dir::RunDir;
use active_monitor_tests::{Agent, Hub, Options, Process, Testbed, wait};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;

use super::load::all_recorded_once;
use super::{PATIENCE, created_workflows, patient, waiting_check};

const LEASE: &str = "--lease-seconds=3";
const OTHERS: usize = 4;
const CHECKS: usize = 5;
/// Definitions for the one that does not read: together near what a frame takes.
const DEFINITIONS: usize = 14;
const PADDING: usize = 200 << 10;
/// How often the set changes while it is not read: more often than frames may wait.
const EDITS: usize = 90;
/// faults.md.
const MEMORY: f64 = 32.0;
/// For longer than the lease, and than a ping may go unanswered.
const STOPPED: Duration = Duration::from_secs(25);

fn resident(process: &Process) -> f64 {
    proc::memory(process.pid().expect("it lives")).expect("memory").resident
}

/// Puts a definition that is meant for the cluster that does not read.
async fn put(hub: &Hub, number: usize, version: usize) {
    let workflow = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow",
        "spec": {
            "entrypoint": "wait",
            "templates": [{"name": "wait", "suspend": {"duration": "1s"}}],
            "arguments": {"parameters": [{"name": "padding", "value": "x".repeat(PADDING)}]},
        },
    });
    let name = format!("pushed-{number}");
    let definition = json!({
        "apiVersion": "fleet.activemonitor.keikoproj.io/v1alpha1",
        "kind": "FleetHealthCheck",
        "metadata": {"name": name},
        "spec": {
            "clusterSelector": {"matchLabels": {"reads": "nothing"}},
            "template": {"metadata": {"namespace": "health"}, "spec": {
                "description": format!("version {version}"),
                "repeatAfterSec": 600,
                "workflow": {"resource": {
                    "namespace": "health", "serviceAccount": "probe", "source": {"inline": workflow.to_string()},
                }},
            }},
        },
    });
    hub.request(Method::PUT, &format!("/api/v1/definitions/{name}"), Some(&definition)).await.expect("definition");
}

async fn label(hub: &Hub, cluster: &str) {
    let labels = json!({"labels": {"reads": "nothing"}});
    hub.request(Method::PATCH, &format!("/api/v1/clusters/{cluster}"), Some(&labels)).await.expect("label");
}

async fn until_connected(hub: &Hub, count: usize) {
    wait::until("all clusters", PATIENCE, || async {
        let summary: FleetSummary = hub.get("/api/v1/fleet").await?;
        Ok((summary.clusters.get("Connected") == Some(&(count as u64))).then_some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", hub.process.log_tail()));
}

async fn until_status(hub: &Hub, cluster: &str, status: ClusterStatus) {
    wait::until(status.as_str(), PATIENCE, || async {
        let view: ClusterView = hub.get(&format!("/api/v1/clusters/{cluster}")).await?;
        Ok((view.status == status).then_some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", hub.process.log_tail()));
}

/// What is reported by the others is recorded.
async fn others_go_on(agents: &Agents, hub: &Hub) {
    let all = agents.report(20);
    wait::until("the last ack", PATIENCE, || async { Ok((agents.acked() >= all).then_some(())) })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", hub.process.log_tail()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_reads_nothing_fills_no_memory_of_the_hub_and_is_let_go() {
    let run = Arc::new(RunDir::create().expect("folder"));
    let hub = Hub::start_with(&run, run.path(), &[LEASE]).await.expect("hub");
    let ca = std::fs::read_to_string(run.path().join("hub/ca.crt")).expect("CA");
    let agents = Agents::join(&hub, &ca, OTHERS, CHECKS).await.expect("agents");
    until_connected(&hub, OTHERS).await;
    for number in 0..DEFINITIONS {
        put(&hub, number, 0).await;
    }
    // What a request of this size costs is not the agent's.
    for version in 1..10 {
        put(&hub, 0, version).await;
    }
    let deaf = Deaf::join(&hub, &ca, "deaf").await.expect("agent");
    until_connected(&hub, OTHERS + 1).await;
    let pid = hub.process.pid().expect("it lives");
    let before = proc::memory(pid).expect("memory").resident;
    proc::reset_peak(pid).expect("peak");
    label(&hub, "deaf").await;
    let mut most = before;
    for version in 10..10 + EDITS {
        put(&hub, 0, version).await;
        most = most.max(proc::memory(pid).expect("memory").resident);
    }
    let peak = proc::memory(pid).expect("memory").peak;
    println!("VmRSS {before:.1} MiB before, {most:.1} at most after an edit, VmHWM {peak:.1}");
    assert!(most - before <= MEMORY, "{before:.1} MiB grew to {most:.1}");
    // It is let go, and its next session too.
    wait::until("its second session", PATIENCE, || async { Ok((deaf.sessions() >= 3).then_some(())) })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", hub.process.log_tail()));
    let metrics = hub.metrics().await.expect("metrics");
    let counted = metrics.lines().find_map(|line| {
        line.strip_prefix("activemonitor_hub_refused_total{what=\"slow_agent\"} ")?.parse::<f64>().ok()
    });
    assert!(counted.is_some_and(|count| count >= 2.0), "{counted:?}");
    others_go_on(&agents, &hub).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_stands_still_and_a_hub_that_stands_still_fill_nobodys_memory_and_lose_nothing() {
    let name = "an_agent_that_stands_still_and_a_hub_that_stands_still_fill_nobodys_memory_and_lose_nothing";
    let Some(testbed) = Testbed::start_or_skip(name, Options::default()).await.expect("testbed") else { return };
    let cluster = &testbed.clusters[0];
    let hub = Hub::start_with(cluster.run(), &cluster.dir, &[LEASE]).await.expect("hub");
    let ca = std::fs::read_to_string(cluster.dir.join("hub/ca.crt")).expect("CA");
    let agents = Agents::join(&hub, &ca, OTHERS, CHECKS).await.expect("agents");
    let agent = Agent::join(cluster, &hub, "remote", &[]).await.expect("agent");
    agent.wait_until_connected(&hub).await.expect("link");
    let checks = (0..CHECKS).map(|i| patient(waiting_check(&format!("check-{i}"), "repeatAfterSec: 5")));
    cluster.apply_yaml(&checks.collect::<Vec<_>>().join("---\n")).await.expect("checks");
    for version in 0..5 {
        put(&hub, 0, version).await;
    }

    // The agent stands still while it is sent definitions and commands.
    let (before, logged) = (resident(&hub.process), hub.process.log_bytes());
    agent.process.signal(Signal::STOP).expect("stop");
    label(&hub, "remote").await;
    let mut most = before;
    for version in 5..25 {
        put(&hub, 0, version).await;
        most = most.max(resident(&hub.process));
    }
    until_status(&hub, "remote", ClusterStatus::Unreachable).await;
    others_go_on(&agents, &hub).await;
    println!("the hub: VmRSS {before:.1} MiB before, {most:.1} at most while the agent stands still");
    assert!(most - before <= MEMORY, "{before:.1} MiB grew to {most:.1}");
    hub.process.until_logged("session ended", logged, PATIENCE).await.expect("the agent is let go");
    agent.process.signal(Signal::CONT).expect("continue");
    until_status(&hub, "remote", ClusterStatus::Connected).await;
    wait::until("the last definition", PATIENCE, || async {
        let get = ["get", "healthcheck", "pushed-0", "-n", "health", "-o", "jsonpath={.spec.description}"];
        Ok((cluster.kubectl(&get).await? == "version 24").then_some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", agent.process.log_tail()));

    // The hub stands still while the agent streams.
    let before = resident(&agent.process);
    let runs = created_workflows(cluster).len();
    hub.process.signal(Signal::STOP).expect("stop");
    tokio::time::sleep(STOPPED).await;
    let after = resident(&agent.process);
    let more = created_workflows(cluster).len() - runs;
    hub.process.signal(Signal::CONT).expect("continue");
    println!("the agent: VmRSS {before:.1} MiB before, {after:.1} after {STOPPED:?}, {more} runs meanwhile");
    assert!(after - before <= MEMORY, "{before:.1} MiB grew to {after:.1}");
    assert!(more >= CHECKS, "checks go on without the hub: {more} runs");
    until_status(&hub, "remote", ClusterStatus::Connected).await;
    others_go_on(&agents, &hub).await;
    cluster.kubectl(&["delete", "healthchecks", "--all", "-n", "health"]).await.expect("delete");
    all_recorded_once(&hub, cluster, "remote", runs).await;
}
