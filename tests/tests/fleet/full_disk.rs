//! An agent whose disk is full while its hub is away: checks run on, what there is no room for is dropped, counted and shown as
//! a gap, and once there is room and a hub again all goes on by itself.

use std::fs::{self, File};
use std::time::Duration;

use active_monitor_core::view::{ClusterView, RunPage};
use active_monitor_tests::{Agent, Cluster, Crd, Hub, Options, Testbed, skip, wait};
use serde_json::Value;

use super::hub::Disk;
use super::{PATIENCE, takes_creates, waiting_check};

const CHECKS: usize = 20;
const SIZE: &str = "1m";
/// Leaves room for a few hundred reports.
const FILLER: u64 = 700 << 10;
/// Results that there is no room for at all.
const UNSAVED: f64 = 60.0;

/// Each run ends at once, without a workflow, and with a long message: there is no such file.
fn checks(timing: &str) -> String {
    let check = |number: usize| {
        let check = waiting_check(&format!("check-{number}"), timing);
        let (head, _) = check.split_once("      source:").expect("a source");
        format!(
            "{head}      source: {{file: {{path: {}/workflow.yaml}}}}\n",
            "a-long-way/".repeat(40).trim_end_matches('/')
        )
    };
    (0..CHECKS).map(check).collect::<Vec<_>>().join("---\n")
}

struct World<'a> {
    cluster: &'a Cluster,
    hub: Hub,
    agent: Agent,
}

impl World<'_> {
    /// One of the agent's metrics of its journal.
    async fn journal(&self, name: &str) -> anyhow::Result<f64> {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
        let text = client.get(&self.agent.metrics_url).send().await?.text().await?;
        let name = format!("activemonitor_agent_journal_{name} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok());
        value.ok_or_else(|| anyhow::anyhow!("no {name}"))
    }

    async fn until_journal(&self, name: &str, holds: impl Fn(f64) -> bool) -> f64 {
        wait::until(name, PATIENCE, || async {
            let value = self.journal(name).await?;
            anyhow::ensure!(holds(value), "{name} is {value}");
            Ok(Some(value))
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.agent.process.log_tail()))
    }

    /// Runs that the statuses of the checks count.
    async fn counted(&self) -> anyhow::Result<u64> {
        let list: Value =
            serde_json::from_str(&self.cluster.kubectl(&["get", "hc", "-n", "health", "-o", "json"]).await?)?;
        let of = |status: &Value, field: &str| status[field].as_u64().unwrap_or(0);
        let items = list["items"].as_array().into_iter().flatten().map(|check| &check["status"]);
        Ok(items.map(|status| of(status, "successCount") + of(status, "failedCount")).sum())
    }

    /// Runs in the history, and reports in its gaps.
    async fn history(&self) -> anyhow::Result<(u64, u64)> {
        let (mut runs, mut gaps, mut from) = (0, std::collections::BTreeMap::new(), String::new());
        loop {
            let page: RunPage = self.hub.get(&format!("/api/v1/runs?limit=1000&cluster=small{from}")).await?;
            runs += page.items.len() as u64;
            gaps.extend(page.gaps.iter().map(|gap| ((gap.after, gap.noticed_at), gap.reports)));
            match page.next {
                Some(next) => from = format!("&before={next}"),
                None => return Ok((runs, gaps.values().sum())),
            }
        }
    }

    async fn apply(&self, timing: &str) {
        self.cluster.apply_yaml(&checks(timing)).await.expect("checks");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_beside_a_hub_that_is_away_costs_what_is_counted_and_shown_and_nothing_more() {
    let name = "a_full_disk_beside_a_hub_that_is_away_costs_what_is_counted_and_shown_and_nothing_more";
    let Some(testbed) = Testbed::start_or_skip(name, Options::default()).await.expect("testbed") else { return };
    let cluster = &testbed.clusters[0];
    let Some(disk) = Disk::mount(&cluster.dir.join("agent-small"), SIZE) else {
        return skip::report(name, "a small filesystem needs root and the right to mount");
    };
    Agent::install(cluster, Crd::Ours).await.expect("install");
    let hub = Hub::start(cluster.run(), &cluster.dir).await.expect("hub");
    let token = hub.add_cluster("small", &[]).await.expect("token");
    let sources = format!("--source-dir={}", cluster.dir.display());
    let agent = Agent::start_with(cluster, "small", Some(&token), &[&sources]).await.expect("agent");
    let world = World { cluster, hub, agent };
    world.agent.wait_until_connected(&world.hub).await.expect("link");
    takes_creates(cluster).await;
    world.apply("repeatAfterSec: 1").await;
    wait::until("runs in the history", PATIENCE, || async {
        Ok((world.history().await?.0 >= CHECKS as u64).then_some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", world.agent.process.log_tail()));

    // The hub goes, then the room: results are held in memory.
    world.hub.kill();
    fs::write(disk.filler(), vec![1; 2 << 20]).expect_err("a full disk");
    world.until_journal("writable", |writable| writable == 0.0).await;
    let unsaved = world.until_journal("unsaved_reports", |unsaved| unsaved >= UNSAVED).await;
    // With room for some of them they are written, and then the oldest go.
    File::options().write(true).open(disk.filler()).and_then(|filler| filler.set_len(FILLER)).expect("some room");
    let dropped = world.until_journal("dropped_reports_total", |dropped| dropped >= 100.0).await;
    println!("{unsaved} results were in memory only, {dropped} were dropped in the end");
    let before = world.counted().await.expect("statuses");
    wait::until("checks that run on", PATIENCE, || async {
        Ok((world.counted().await? >= before + 2 * CHECKS as u64).then_some(()))
    })
    .await
    .expect("runs");

    // All is well again.
    fs::remove_file(disk.filler()).expect("room again");
    world.hub.restart().await.expect("hub comes back");
    world.apply("repeatAfterSec: 0").await;
    world.until_journal("backlog_reports", |backlog| backlog == 0.0).await;
    let (runs, missing) = wait::until("each run in the history or in a gap", PATIENCE, || async {
        let (counted, (runs, missing)) = (world.counted().await?, world.history().await?);
        anyhow::ensure!(counted == runs + missing, "{counted} counted, {runs} in the history, {missing} in gaps");
        Ok(Some((runs, missing)))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", world.agent.process.log_tail()));
    let dropped = world.journal("dropped_reports_total").await.expect("metric");
    println!("{runs} runs are in the history, {missing} in gaps, {dropped} were dropped");
    // What the hub had on its disk and could not ack any more was dropped and is not missing.
    assert!(missing > 0 && missing as f64 <= dropped, "{missing} missing, {dropped} dropped");
    // The next heartbeat says so.
    wait::until("the same at the hub", PATIENCE, || async {
        let view: ClusterView = world.hub.get("/api/v1/clusters/small").await?;
        Ok((view.dropped_reports as f64 == dropped && view.backlog == 0).then_some(()))
    })
    .await
    .expect("what is dropped and what waits");
    assert_eq!(world.journal("unsaved_reports").await.expect("metric"), 0.0);
    assert_eq!(world.journal("writable").await.expect("metric"), 1.0);
    assert_eq!(world.journal("corrupt_records_total").await.expect("metric"), 0.0);

    world.apply("repeatAfterSec: 2").await;
    wait::until("further runs in the history", PATIENCE, || async {
        Ok((world.history().await?.0 >= runs + 2 * CHECKS as u64).then_some(()))
    })
    .await
    .expect("all goes on");
    assert_eq!(world.history().await.expect("history").1, missing, "and nothing more is missing");
    world.agent.process.stop();
    drop(disk);
}
