//! A node is lost with the agent's state while the hub is away. Nothing runs twice and no check stops; the hub lacks the runs
//! of which nothing but that journal knew, and only these, and says so by a gap.

use std::collections::BTreeSet;

use active_monitor_core::view::{RunPage, RunView};
use active_monitor_tests::fleet::{binary, project};
use active_monitor_tests::{Agent, Cluster, Crd, Hub, Options, Testbed, wait};
use jiff::Timestamp;

use super::{PATIENCE, check, created_workflows, made_workflows, patient, waiting_check};

/// Its workflows stay until Argo takes them away, after minutes.
const KEPT: &str = "kept";
/// Its workflows go before the journal does.
const GONE: &str = "gone";
/// It is in flight when the node is lost.
const SLOW: &str = "slow";
/// Runs that end while the hub is away.
const UNSEEN: usize = 3;

struct World {
    testbed: Testbed,
    hub: Hub,
    agent: Agent,
}

impl World {
    async fn start(test: &str) -> Option<World> {
        let testbed = Testbed::start_or_skip(test, Options::default()).await.expect("testbed")?;
        let cluster = &testbed.clusters[0];
        Agent::install(cluster, Crd::Ours).await.expect("install");
        let secret = project().join("deploy/agent-failover/identity-secret.yaml");
        cluster.apply_yaml(&std::fs::read_to_string(secret).expect("file")).await.expect("Secret");
        let hub = Hub::start(cluster.run(), &cluster.dir).await.expect("hub");
        let token = hub.add_cluster("east", &[]).await.expect("token");
        // With the key in a Secret, a new node needs no new token.
        let lease = "--leader-elect-lease-seconds=10";
        let args = ["--leader-elect", lease, "--identity-secret=active-monitor-agent-identity"];
        let agent = Agent::start_with(cluster, "east", Some(&token), &args).await.expect("agent");
        agent.wait_until_connected(&hub).await.expect("connected");
        Some(World { testbed, hub, agent })
    }

    fn cluster(&self) -> &Cluster {
        &self.testbed.clusters[0]
    }

    async fn until<T>(&self, what: &str, read: impl AsyncFn() -> anyhow::Result<Option<T>>) -> T {
        let found = wait::until(what, PATIENCE, || read()).await;
        found.unwrap_or_else(|error| panic!("{error:#}\n{}", self.agent.process.log_tail()))
    }

    async fn status(&self, check: &str) -> anyhow::Result<serde_json::Value> {
        Ok(self.cluster().health_check("health", check).await?["status"].take())
    }

    async fn counted(&self, check: &str) -> anyhow::Result<usize> {
        let status = self.status(check).await?;
        let counts = ["successCount", "failedCount"].map(|count| status[count].as_u64().unwrap_or(0));
        Ok(usize::try_from(counts.iter().sum::<u64>())?)
    }

    async fn repeat(&self, check: &str, seconds: u32) {
        let patch = format!(r#"{{"spec": {{"repeatAfterSec": {seconds}}}}}"#);
        let patch = ["patch", "hc", check, "-n", "health", "--type=merge", "-p", &patch];
        self.cluster().kubectl(&patch).await.expect("patch");
    }

    /// Stops a check and waits until all that it ran is counted, as successes; gives the workflows.
    async fn stop(&self, check: &str) -> BTreeSet<String> {
        self.repeat(check, 0).await;
        self.until(&format!("{check} stopped"), async || {
            let (status, made) = (self.status(check).await?, made_workflows(self.cluster(), check));
            let succeeded = status["successCount"].as_u64().unwrap_or(0);
            anyhow::ensure!(succeeded == made.len() as u64, "{} made: {status}", made.len());
            Ok((status["status"] == "Stopped").then_some(made))
        })
        .await
    }

    /// What the hub has of the time in which it was away stands behind the gap, and nothing of before.
    async fn a_gap_stands_where_they_were(&self, runs: &[RunView], away: Timestamp) {
        let page: RunPage = self.hub.get("/api/v1/runs?cluster=east&limit=1000").await.expect("history");
        let [gap] = &page.gaps[..] else { panic!("one gap: {:?}", page.gaps) };
        assert_eq!(gap.reports, 0, "nobody knows how many");
        for run in runs {
            assert_eq!(run.id <= gap.after, run.recorded_at < away, "{} at {}", workflow(run), run.recorded_at);
        }
        let args = ["runs", "east", "--limit=1000"];
        let mut fleetcheck = tokio::process::Command::new(binary("fleetcheck").expect("fleetcheck"));
        let fleetcheck = fleetcheck.args(args).env("FLEETCHECK_HUB", &self.hub.url);
        let output = fleetcheck.env("FLEETCHECK_TOKEN", &self.hub.token).output().await.expect("fleetcheck");
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(shown.contains("nobody knows how many"), "{shown}{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The workflows of the runs that the hub has.
    async fn history(&self) -> anyhow::Result<Vec<RunView>> {
        self.hub.history("cluster=east").await
    }
}

/// The workflow of a run.
fn workflow(run: &RunView) -> String {
    run.run.workflow.clone().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_is_lost_while_the_hub_is_away_costs_only_runs_whose_workflows_are_gone_too() {
    let name = "a_journal_that_is_lost_while_the_hub_is_away_costs_only_runs_whose_workflows_are_gone_too";
    let Some(world) = World::start(name).await else { return };
    let cluster = world.cluster();
    for check in [KEPT, GONE] {
        cluster.apply_yaml(&patient(waiting_check(check, "repeatAfterSec: 2"))).await.expect("check");
    }
    world
        .until("runs at the hub, and the key in the Secret", async || {
            let identity = ["get", "secret", "active-monitor-agent-identity", "-n", "active-monitor", "-o", "yaml"];
            let is_shared = cluster.kubectl(&identity).await?.contains("identity.json");
            let runs = world.history().await?;
            let has = |check: &str| runs.iter().any(|run| run.run.name == check);
            Ok((is_shared && has(KEPT) && has(GONE)).then_some(()))
        })
        .await;

    world.hub.kill();
    let away = Timestamp::now();
    let (deleted, only_in_the_journal) = runs_that_only_the_journal_knows(&world, away).await;
    the_node_is_lost(&world).await;
    world.hub.restart().await.expect("hub");
    world.agent.wait_until_connected(&world.hub).await.expect("connected");

    let mut made = made_workflows(cluster, SLOW);
    let gone = world.stop(GONE).await;
    made.extend(world.stop(KEPT).await);
    made.extend(gone.iter().cloned());
    let expected: BTreeSet<String> = made.difference(&deleted).cloned().collect();
    let runs = world
        .until("every run that a workflow tells of at the hub", async || {
            let runs = world.history().await?;
            let has: BTreeSet<String> = runs.iter().map(workflow).collect();
            let missing: Vec<_> = expected.difference(&has).collect();
            anyhow::ensure!(missing.is_empty(), "the hub lacks {missing:?}");
            Ok(Some(runs))
        })
        .await;
    let has: BTreeSet<String> = runs.iter().map(workflow).collect();
    assert_eq!(has.len(), runs.len(), "each once");
    let came: Vec<_> = only_in_the_journal.intersection(&has).collect();
    assert!(came.is_empty(), "only the journal knew these, and it is lost: {came:?}");
    world.a_gap_stands_where_they_were(&runs, away).await;
    // What is missing in the history is in the counters.
    world
        .until("the counters of the status at the hub", async || {
            let checks = world.hub.checks(&format!("cluster=east&name={GONE}")).await?;
            Ok(checks.iter().any(|check| check.state.check.succeeded == gone.len() as u64).then_some(()))
        })
        .await;
    let mut created: Vec<String> = created_workflows(cluster).into_iter().map(|created| created.workflow).collect();
    let all = created.len();
    created.sort();
    created.dedup();
    assert_eq!(created.len(), all, "no slot was created twice");
    println!("{all} runs, {} at the hub, {} known to the lost journal only", runs.len(), only_in_the_journal.len());
}

/// While the hub is away: both checks run, then one is stopped and all its workflows go. Gives these, and those among them
/// of runs that began since then.
async fn runs_that_only_the_journal_knows(world: &World, away: Timestamp) -> (BTreeSet<String>, BTreeSet<String>) {
    let cluster = world.cluster();
    let since = |check: &str| -> BTreeSet<String> {
        let prefix = format!("health/{check}-");
        let created = created_workflows(cluster).into_iter().filter(|created| created.at > away);
        created.map(|created| created.workflow).filter(|workflow| workflow.starts_with(&prefix)).collect()
    };
    world
        .until("runs while the hub is away", async || {
            Ok([KEPT, GONE].iter().all(|check| since(check).len() > UNSEEN).then_some(()))
        })
        .await;
    let deleted = world.stop(GONE).await;
    let names = deleted.iter().filter_map(|workflow| workflow.strip_prefix("health/"));
    let delete: Vec<&str> =
        ["delete", "workflows", "-n", "health", "--ignore-not-found"].into_iter().chain(names).collect();
    cluster.kubectl(&delete).await.expect("delete");
    (deleted, since(GONE))
}

/// In the middle of a run. Another agent begins without any state, and goes on with what the cluster says.
async fn the_node_is_lost(world: &World) {
    let (cluster, agent) = (world.cluster(), &world.agent);
    let slow = ["entrypoint: wait", "templates:", "- name: wait", r#"  suspend: {duration: "15s"}"#];
    cluster.apply_yaml(&check(SLOW, "repeatAfterSec: 86400", &slow)).await.expect("check");
    world.until("slow in flight", async || Ok((made_workflows(cluster, SLOW).len() == 1).then_some(()))).await;
    agent.process.stop();
    std::fs::remove_dir_all(&agent.state_dir).expect("the state is lost");
    let before = (world.counted(KEPT).await.expect("status"), world.counted(GONE).await.expect("status"));
    agent.process.start().expect("agent");
    world.repeat(GONE, 2).await;
    world
        .until("runs after the loss", async || {
            let ended = world.status(SLOW).await?;
            let goes_on = world.counted(KEPT).await? > before.0 + 1 && world.counted(GONE).await? > before.1 + 1;
            Ok((goes_on && ended["successCount"] == 1).then_some(()))
        })
        .await;
    assert_eq!(made_workflows(cluster, SLOW).len(), 1, "the run in flight was found, not repeated");
    assert!(agent.state_dir.join("journal").is_dir(), "a journal of its own");
}
