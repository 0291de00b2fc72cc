//! Two agents on one cluster: one acts. Leaders are paused, killed, asked to go and cut off; no run is doubled or lost.

use std::time::{Duration, Instant};

use active_monitor_core::view::{ClusterStatus, ClusterView, RunPage};
use active_monitor_tests::fleet::project;
use active_monitor_tests::{Agent, Cluster, Crd, Hub, Options, Testbed, wait};
use rustix::process::Signal;

use super::{PATIENCE, check, created_workflows, made_workflows, outage, patient, waiting_check};

/// The shortest lease that an agent takes.
const LEASE: Duration = Duration::from_secs(5);

/// Leaders that are paused; `ACTIVE_MONITOR_TAKEOVERS` (`make soak` gives 100).
fn takeovers() -> usize {
    std::env::var("ACTIVE_MONITOR_TAKEOVERS").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

async fn start(cluster: &Cluster, name: &str) -> Agent {
    let args = ["--leader-elect", "--leader-elect-lease-seconds=5"];
    Agent::start_with(cluster, name, None, &args).await.expect("agent")
}

pub(super) async fn fetch(url: &str) -> anyhow::Result<String> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build()?;
    Ok(client.get(url).send().await?.error_for_status()?.text().await?)
}

async fn leads(agent: &Agent) -> bool {
    fetch(&agent.metrics_url).await.is_ok_and(|text| text.contains("\nactivemonitor_agent_leader 1"))
}

/// Starts anew who has ended, as kubelet would: on a machine that is busy enough a leader misses its lease of five seconds
/// by itself, and ends.
fn kubelet(agents: &[&Agent]) {
    for agent in agents.iter().filter(|agent| agent.process.pid().is_none()) {
        let log = agent.process.log_tail();
        assert!(log.contains("the lease "), "{} has ended, and not by its lease:\n{log}", agent.name);
        agent.process.start().expect("agent again");
    }
}

/// Waits until this agent acts: it leads and its caches are complete.
async fn until_leads(agent: &Agent) {
    wait::until(&format!("{} leads", agent.name), PATIENCE, || async {
        kubelet(&[agent]);
        Ok((leads(agent).await && fetch(&agent.ready_url).await.is_ok()).then_some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", agent.process.log_tail()));
}

/// Waits until a process that lost its lease has ended, and starts it anew, as kubelet would.
async fn until_restarted(agent: &Agent) {
    wait::until(&format!("{} ends", agent.name), PATIENCE, || async {
        Ok(agent.process.pid().is_none().then_some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", agent.process.log_tail()));
    agent.process.start().expect("agent again");
}

async fn status(cluster: &Cluster, check: &str) -> serde_json::Value {
    cluster.health_check("health", check).await.expect("HealthCheck")["status"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_agents_acts_and_a_takeover_neither_doubles_nor_loses_a_run() {
    let name = "one_of_two_agents_acts_and_a_takeover_neither_doubles_nor_loses_a_run";
    let Some(testbed) = Testbed::start_or_skip(name, Options::default()).await.expect("testbed") else { return };
    let cluster = &testbed.clusters[0];
    Agent::install(cluster, Crd::Ours).await.expect("install");
    let (mut leader, mut standby) = (start(cluster, "one").await, start(cluster, "two").await);
    wait::until("a leader", PATIENCE, || async { Ok((leads(&leader).await || leads(&standby).await).then_some(())) })
        .await
        .expect("leader");
    if leads(&standby).await {
        std::mem::swap(&mut leader, &mut standby);
    }
    until_leads(&leader).await;
    let ready = wait::until("ready standby", PATIENCE, || async { Ok(fetch(&standby.ready_url).await.ok()) });
    let ready = ready.await.expect("a standby is ready");
    assert!(ready.contains("standby") && !leads(&standby).await, "{ready}");
    let busy = ["busy-a", "busy-b", "busy-c"];
    for name in busy {
        cluster.apply_yaml(&patient(waiting_check(name, "repeatAfterSec: 3"))).await.expect("check");
    }

    // Paused in the middle of anything, and continued when another one leads: it must find out before it writes.
    for _ in 0..takeovers() {
        leader.process.signal(Signal::STOP).expect("pause");
        until_leads(&standby).await;
        leader.process.signal(Signal::CONT).expect("continue");
        until_restarted(&leader).await;
        std::mem::swap(&mut leader, &mut standby);
    }
    killed_while_it_runs(cluster, &mut leader, &mut standby).await;
    asked_to_go(&mut leader, &mut standby).await;
    cut_off(cluster, &leader, &standby).await;

    for name in busy {
        let pause = r#"{"spec": {"repeatAfterSec": 0}}"#;
        cluster.kubectl(&["patch", "hc", name, "-n", "health", "--type=merge", "-p", pause]).await.expect("pause");
    }
    for name in busy {
        let counted = wait::until(&format!("{name} has every run counted"), PATIENCE, || async {
            kubelet(&[&leader, &standby]);
            let (counted, made) = (status(cluster, name).await, made_workflows(cluster, name).len() as u64);
            let (ok, failed) = (counted["successCount"].as_u64(), counted["failedCount"].as_u64());
            let total = ok.unwrap_or(0) + failed.unwrap_or(0);
            anyhow::ensure!(total == made, "{total} runs counted, {made} made: {counted}");
            Ok((counted["status"] == "Stopped").then_some(counted))
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}\n{}", leader.process.log_tail(), standby.process.log_tail()));
        assert!(counted["failedCount"].as_u64().unwrap_or(0) == 0, "{counted}");
    }
    let mut all: Vec<String> = created_workflows(cluster).into_iter().map(|created| created.workflow).collect();
    let runs = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), runs, "no slot was created twice");
    // Names follow from slots, so an agent that acts beside another one meets what that has made. Whoever takes over meets
    // what was in flight, once a check.
    let events = cluster.audit().expect("audit log");
    let met = events.iter().filter(|event| event.is("create", "workflows") && event.code() == Some(409)).count();
    let takeovers = takeovers() + 3;
    println!("{takeovers} takeovers, {runs} runs, {met} of them asked for again");
    assert!(met <= takeovers * busy.len(), "{met} workflows were there already");
}

fn created(cluster: &Cluster, check: &str) -> u64 {
    let prefix = format!("health/{check}-");
    created_workflows(cluster).iter().filter(|created| created.workflow.starts_with(&prefix)).count() as u64
}

async fn killed_while_it_runs(cluster: &Cluster, leader: &mut Agent, standby: &mut Agent) {
    let slow = ["entrypoint: wait", "templates:", "- name: wait", r#"  suspend: {duration: "6s"}"#];
    cluster.apply_yaml(&check("slow", "repeatAfterSec: 3600", &slow)).await.expect("check");
    wait::until("slow runs", PATIENCE, || async {
        kubelet(&[&*leader, &*standby]);
        Ok((created(cluster, "slow") == 1).then_some(()))
    })
    .await
    .expect("run");
    leader.process.stop();
    until_leads(standby).await;
    let ended = wait::until("end of slow", PATIENCE, || async {
        kubelet(&[&*standby]);
        let status = status(cluster, "slow").await;
        Ok(status["finishedAt"].is_string().then_some(status))
    });
    let ended = ended.await.expect("end");
    assert_eq!((ended["status"].as_str(), ended["successCount"].as_u64()), (Some("Succeeded"), Some(1)), "{ended}");
    assert_eq!(created(cluster, "slow"), 1, "adopted by the one that did not begin it");
    leader.process.start().expect("agent again");
    std::mem::swap(leader, standby);
}

async fn asked_to_go(leader: &mut Agent, standby: &mut Agent) {
    // Until it stands by it cannot take over.
    wait::until("standby", PATIENCE, || async { Ok(fetch(&standby.ready_url).await.is_ok().then_some(())) })
        .await
        .expect("standby");
    leader.process.signal(Signal::TERM).expect("TERM");
    let asked = Instant::now();
    // It must not be back before the other one has taken over: a lease that was given back is for whoever comes first.
    wait::until("end of the leader", PATIENCE, || async { Ok(leader.process.pid().is_none().then_some(())) })
        .await
        .expect("it ends");
    until_leads(standby).await;
    println!("took over {} ms after the leader was asked to go", asked.elapsed().as_millis());
    leader.process.start().expect("agent again");
    std::mem::swap(leader, standby);
}

/// An API server that is away for longer than the lease: the leader ends, once; afterwards one leads, and the API
/// server is not overrun.
async fn cut_off(cluster: &Cluster, leader: &Agent, standby: &Agent) {
    // Argo can lose a result that it could not store; that is not what this is about.
    cluster.stop_argo();
    cluster.stop_apiserver();
    until_restarted(leader).await;
    let away = Instant::now();
    while away.elapsed() < LEASE.max(outage()) {
        assert!(standby.process.pid().is_some() && leader.process.pid().is_some(), "who does not lead waits");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    cluster.start_apiserver().await.expect("API server");
    cluster.start_argo().await.expect("Argo");
    wait::until("a leader", PATIENCE, || async {
        kubelet(&[leader, standby]);
        Ok((leads(leader).await || leads(standby).await).then_some(()))
    })
    .await
    .expect("one leads");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_replica_that_takes_over_speaks_to_the_hub_as_the_same_cluster_and_no_run_is_missing_there() {
    let name = "the_replica_that_takes_over_speaks_to_the_hub_as_the_same_cluster_and_no_run_is_missing_there";
    let Some(testbed) = Testbed::start_or_skip(name, Options::default()).await.expect("testbed") else { return };
    let cluster = &testbed.clusters[0];
    Agent::install(cluster, Crd::Ours).await.expect("install");
    let secret = project().join("deploy/agent-failover/identity-secret.yaml");
    cluster.apply_yaml(&std::fs::read_to_string(secret).expect("file")).await.expect("Secret");
    let hub = Hub::start(cluster.run(), &cluster.dir).await.expect("hub");
    let token = hub.add_cluster("east", &[]).await.expect("token");
    let args = ["--leader-elect", "--leader-elect-lease-seconds=5", "--identity-secret=active-monitor-agent-identity"];
    let one = Agent::start_with(cluster, "one", Some(&token), &args).await.expect("agent");
    until_connected(&hub, &one).await;
    // The token is spent: without the Secret this one could not join.
    let two = Agent::start_with(cluster, "two", Some(&token), &args).await.expect("agent");
    cluster.apply_yaml(&waiting_check("seen", "repeatAfterSec: 3")).await.expect("check");
    // The other one's journal does not know this run, and no workflow will tell of it: the hub has it.
    cluster.apply_yaml(&waiting_check("known", "repeatAfterSec: 3600")).await.expect("check");
    wait::until("runs at the hub", PATIENCE, || async {
        let has = async |check: &str| anyhow::Ok(hub.history(&format!("cluster=east&name={check}")).await?.len());
        Ok((has("seen").await? >= 2 && has("known").await? == 1).then_some(()))
    })
    .await
    .expect("runs");
    wait::until("a counted run", PATIENCE, || async {
        Ok((status(cluster, "known").await["status"] == "Succeeded").then_some(()))
    })
    .await
    .expect("counted");
    let known = created_workflows(cluster).into_iter().find(|made| made.workflow.starts_with("health/known-"));
    let known = known.expect("its workflow").workflow.replace("health/", "");
    cluster.kubectl(&["delete", "workflow", "-n", "health", &known]).await.expect("delete");

    let identity = ["get", "secret", "active-monitor-agent-identity", "-n", "active-monitor", "-o", "jsonpath={.data}"];
    wait::until("a shared identity", PATIENCE, || async {
        Ok(cluster.kubectl(&identity).await?.contains("identity.json").then_some(()))
    })
    .await
    .expect("shared");

    // Neither farewell nor last words: what the hub lacks is rebuilt from the workflows.
    one.process.stop();
    until_leads(&two).await;
    until_connected(&hub, &two).await;
    let before = created(cluster, "seen");
    wait::until("runs after the takeover", PATIENCE, || async {
        Ok((created(cluster, "seen") >= before + 2).then_some(()))
    })
    .await
    .expect("runs");
    cluster
        .kubectl(&["patch", "hc", "seen", "-n", "health", "--type=merge", "-p", r#"{"spec": {"repeatAfterSec": 0}}"#])
        .await
        .expect("pause");
    let runs = wait::until("every run at the hub", PATIENCE, || async {
        let (runs, created) = (hub.history("cluster=east&name=seen").await?, created(cluster, "seen"));
        let stopped = status(cluster, "seen").await["status"] == "Stopped";
        Ok((stopped && runs.len() as u64 == created).then_some(runs))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", two.process.log_tail()));
    let slots: std::collections::BTreeSet<_> = runs.iter().map(|run| run.run.key.slot).collect();
    assert_eq!(slots.len(), runs.len(), "each once");
    let page: RunPage = hub.get("/api/v1/runs?cluster=east").await.expect("history");
    assert_eq!(page.gaps, [], "another journal is no loss");
}

async fn until_connected(hub: &Hub, agent: &Agent) {
    agent
        .process
        .until("connection to the hub", PATIENCE, || async {
            let view: ClusterView = hub.get("/api/v1/clusters/east").await?;
            let sessions = fetch(&agent.metrics_url).await?;
            anyhow::ensure!(sessions.contains("activemonitor_agent_leader 1"), "it does not lead");
            Ok((view.status == ClusterStatus::Connected).then_some(()))
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}"));
}
