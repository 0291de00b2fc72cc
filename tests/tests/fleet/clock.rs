//! A node whose clock is wrong, and steps: the agent goes by the API server's. Its process is told another time by
//! libfaketime; everything else has the right one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use active_monitor_core::manifest::SLOT_LABEL;
use active_monitor_tests::{Cluster, skip, wait};
use jiff::Timestamp;

use super::faults::{BUSY, World, all_is_counted};
use super::{PATIENCE, created_workflows, patient, waiting_check};

/// Seconds that the clock is off, one after the other, and whether that is a step or a restart.
const STEPS: [i64; 5] = [3_600, -86_400, 90, -90, 0];
const SKEW: &str = "activemonitor_agent_clock_skew_seconds";
/// How long each step is looked at.
const A_WHILE: Duration = Duration::from_secs(6);

/// Debian's package puts it under the machine's triplet.
fn libfaketime() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?;
    let in_folder = |folder: std::fs::DirEntry| folder.path().join("faketime/libfaketimeMT.so.1");
    folders.filter_map(Result::ok).map(in_folder).find(|path| path.is_file())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_clock_is_wrong_and_steps_runs_its_checks_by_the_api_servers() {
    let name = "a_node_whose_clock_is_wrong_and_steps_runs_its_checks_by_the_api_servers";
    let Some(library) = libfaketime() else {
        return skip::report(name, "libfaketime is not installed: apt-get install faketime");
    };
    let folder = tempfile::tempdir().expect("folder");
    let offset = folder.path().join("offset");
    // From the start an hour behind.
    set(&offset, -3_600);
    let launcher = [
        "env".to_owned(),
        format!("LD_PRELOAD={}", library.display()),
        format!("FAKETIME_TIMESTAMP_FILE={}", offset.display()),
        "FAKETIME_NO_CACHE=1".to_owned(),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        "DONT_FAKE_MONOTONIC=1".to_owned(),
    ];
    let launcher: Vec<&str> = launcher.iter().map(String::as_str).collect();
    let Some(world) = World::start_by(name, &launcher).await else { return };
    world.keep_busy().await;
    let calendar = patient(waiting_check("calendar", "schedule: {cron: '@every 2s'}"));
    world.cluster().apply_yaml(&calendar).await.expect("check");
    until_skewed(&world, -3_600).await;
    world.goes_on("a start an hour behind").await;
    for seconds in STEPS {
        let began = Timestamp::now();
        set(&offset, seconds);
        until_skewed(&world, seconds).await;
        tokio::time::sleep(A_WHILE).await;
        world.goes_on(&format!("a clock that is {seconds} s off")).await;
        runs_at_its_times(world.cluster(), began, Timestamp::now());
    }
    all_slots_are_of_their_time(world.cluster()).await;
    world.cluster().kubectl(&["delete", "hc", "calendar", "-n", "health"]).await.expect("delete");
    all_is_counted(&world).await;
}

/// What the process takes for the time from here on; a file that is half written is no time at all.
fn set(offset: &Path, seconds: i64) {
    let next = offset.with_extension("next");
    std::fs::write(&next, format!("{seconds:+}\n")).expect("offset");
    std::fs::rename(&next, offset).expect("offset");
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
