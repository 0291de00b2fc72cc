//! A node whose clock is wrong, and steps: the agent goes by the API server's.

use std::time::Duration;

use active_monitor_core::manifest::SLOT_LABEL;
use active_monitor_tests::faketime::Faketime;
use active_monitor_tests::{Cluster, skip, wait};
use jiff::Timestamp;

use super::faults::{BUSY, World, all_is_counted};
use super::{PATIENCE, created_workflows, patient, waiting_check};

/// Seconds that the clock is off, one after the other, and whether that is a step or a restart.
const STEPS: [i64; 5] = [3_600, -86_400, 90, -90, 0];
const SKEW: &str = "activemonitor_agent_clock_skew_seconds";
/// How long each step is looked at.
const A_WHILE: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_clock_is_wrong_and_steps_runs_its_checks_by_the_api_servers() {
    let name = "a_node_whose_clock_is_wrong_and_steps_runs_its_checks_by_the_api_servers";
    let folder = tempfile::tempdir().expect("folder");
    let Some(clock) = Faketime::find(folder.path()).expect("a file") else {
        return skip::report(name, "libfaketime is not installed: apt-get install faketime");
    };
    // From the start an hour behind.
    clock.set(-3_600).expect("set");
    let Some(world) = World::start_by(name, &clock.launcher()).await else { return };
    world.keep_busy().await;
    let calendar = patient(waiting_check("calendar", "schedule: {cron: '@every 2s'}"));
    world.cluster().apply_yaml(&calendar).await.expect("check");
    until_skewed(&world, -3_600).await;
    world.goes_on("a start an hour behind").await;
    for seconds in STEPS {
        let began = Timestamp::now();
        clock.set(seconds).expect("set");
        until_skewed(&world, seconds).await;
        tokio::time::sleep(A_WHILE).await;
        world.goes_on(&format!("a clock that is {seconds} s off")).await;
        runs_at_its_times(world.cluster(), began, Timestamp::now());
    }
    all_slots_are_of_their_time(world.cluster()).await;
    world.cluster().kubectl(&["delete", "hc", "calendar", "-n", "health"]).await.expect("delete");
    all_is_counted(&world).await;
}

async fn until_skewed(world: &World, seconds: i64) {
    wait::until(&format!("a skew of {seconds} s"), PATIENCE, || async {
        let metrics = world.metrics().await;
        let skew = metrics.lines().find_map(|line| line.strip_prefix(SKEW)?.trim().parse::<f64>().ok());
        Ok(skew.filter(|skew| (skew - seconds as f64).abs() <= 3.0))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", world.agent.process.log_tail()));
}

/// Each check of every two seconds has run as often as it should between these times: no burst, and no silence.
fn runs_at_its_times(cluster: &Cluster, from: Timestamp, to: Timestamp) {
    let seconds = to.duration_since(from).as_secs().max(0).unsigned_abs();
    for check in BUSY.into_iter().chain(["calendar"]) {
        let prefix = format!("health/{check}-");
        let made = created_workflows(cluster).into_iter().filter(|made| made.workflow.starts_with(&prefix));
        let made = made.filter(|made| (from..to).contains(&made.at)).count() as u64;
        assert!((1..=seconds / 2 + 2).contains(&made), "{check}: {made} runs in {seconds} s");
    }
}

/// A slot is at most a timeout before its workflow, and never after it.
async fn all_slots_are_of_their_time(cluster: &Cluster) {
    let workflows = cluster.workflows("health").await.expect("workflows");
    assert!(workflows.len() > STEPS.len() * BUSY.len(), "{} runs", workflows.len());
    for workflow in workflows {
        let metadata = &workflow["metadata"];
        let created: Timestamp = metadata["creationTimestamp"].as_str().unwrap_or_default().parse().expect("time");
        let slot = created.strftime("%Y%m%dT%H%M%SZ").to_string();
        let earliest = (created - Duration::from_secs(30)).strftime("%Y%m%dT%H%M%SZ").to_string();
        let latest = (created + Duration::from_secs(1)).strftime("%Y%m%dT%H%M%SZ").to_string();
        let label = metadata["labels"][SLOT_LABEL].as_str().unwrap_or_default();
        assert!(label >= earliest.as_str() && label <= latest.as_str(), "slot {label} of a workflow of {slot}");
    }
}
