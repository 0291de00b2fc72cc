//! A hub with too little: 64 file descriptors, a tenth of a processor, less memory than it needs. It is slower, takes no
//! further connection, or dies; what it has acked stays, and it goes on once it has what it needs.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use active_monitor_tests::run_dir::RunDir;
use active_monitor_tests::{skip, wait};
use tokio::net::TcpStream;

use super::PATIENCE;
use super::hub::Fleet;
use super::limits::Group;

const FILES: usize = 64;
/// Of each 100 ms.
const PROCESSOR_MICROSECONDS: u32 = 10_000;
/// It cannot even start with that.
const TOO_LITTLE_MEMORY: usize = 3 * 1024 * 1024;
const ENOUGH_MEMORY: usize = 512 * 1024 * 1024;

fn run() -> Arc<RunDir> {
    Arc::new(RunDir::create().expect("folder"))
}

/// No panic, and the data base is whole.
fn nothing_is_broken(fleet: &Fleet) {
    let log = fs::read_to_string(fleet.hub.process.log()).expect("log");
    assert!(!log.contains("panicked"), "{}", fleet.hub.process.log_tail());
    assert!(!log.contains("is damaged") && !log.contains("cannot be read"), "{}", fleet.hub.process.log_tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_without_a_free_descriptor_loses_nothing_and_takes_connections_again() {
    let prlimit = ["prlimit".to_owned(), format!("--nofile={FILES}:{FILES}")];
    let fleet = Fleet::start_by(&prlimit, run(), &[]).await;
    let before = fleet.agents.report(50);
    fleet.each_once(before).await;
    let pid = fleet.hub.process.pid().expect("it lives");
    let mut held = Vec::new();
    for _ in 0..2 * FILES {
        held.push(tokio::time::timeout(Duration::from_secs(5), TcpStream::connect(&fleet.hub.agents_address)).await);
    }
    wait::until("no descriptor left", PATIENCE, || async {
        Ok((fs::read_dir(format!("/proc/{pid}/fd"))?.count() >= FILES - 1).then_some(()))
    })
    .await
    .expect("descriptors");
    // Who is connected already is served, and what is acked is on the disk.
    let all = fleet.agents.report(200);
    fleet.hub.process.until_logged("connection not accepted", 0, PATIENCE).await.expect("said");
    wait::until("an ack", PATIENCE, || async { Ok((fleet.agents.acked() >= all).then_some(())) })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", fleet.hub.process.log_tail()));
    drop(held);
    fleet.until_connected().await;
    fleet.each_once(all).await;
    assert_eq!(fleet.hub.process.pid(), Some(pid), "{}", fleet.hub.process.log_tail());
    let metrics = fleet.hub.metrics().await.expect("metrics");
    let counted = "activemonitor_hub_connections_refused_total{listener=\"agents\",reason=\"system\"} ";
    let tries = metrics.lines().find_map(|line| line.strip_prefix(counted)?.parse::<f64>().ok());
    assert!(tries.is_some_and(|tries| tries > 0.0), "{tries:?}");
    nothing_is_broken(&fleet);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_with_a_tenth_of_a_processor_and_one_without_memory_lose_nothing_that_they_acked() {
    let name = "a_hub_with_a_tenth_of_a_processor_and_one_without_memory_lose_nothing_that_they_acked";
    let quota = [("cpu.cfs_period_us", "100000".to_owned()), ("cpu.cfs_quota_us", PROCESSOR_MICROSECONDS.to_string())];
    let limit = [("memory.limit_in_bytes", ENOUGH_MEMORY.to_string())];
    let (Some(processor), Some(memory)) = (Group::make("cpu", &quota), Group::make("memory", &limit)) else {
        return skip::report(name, "no control groups (version 1) to write");
    };

    let fleet = Fleet::start_by(&processor.launcher(), run(), &[]).await;
    let all = fleet.agents.report(100);
    fleet.each_once(all).await;
    fleet.hub.kill();
    fleet.hub.restart().await.expect("hub comes back");
    let all = fleet.agents.report(100);
    fleet.each_once(all).await;
    nothing_is_broken(&fleet);
    drop(fleet);

    // The kernel kills it, wherever it is.
    let fleet = Fleet::start_by(&memory.launcher(), run(), &[]).await;
    fleet.agents.report(50);
    fleet.hub.kill();
    let all = fleet.agents.report(50);
    assert!(memory.set("memory.limit_in_bytes", &TOO_LITTLE_MEMORY.to_string()), "limit");
    for _ in 0..3 {
        fleet.hub.process.start().expect("start");
        wait::until("the end of a hub without memory", PATIENCE, || async {
            Ok(fleet.hub.process.pid().is_none().then_some(()))
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", fleet.hub.process.log_tail()));
    }
    assert!(memory.set("memory.limit_in_bytes", &ENOUGH_MEMORY.to_string()), "limit");
    fleet.hub.restart().await.expect("hub comes back");
    fleet.each_once(all).await;
    fleet.until_connected().await;
    nothing_is_broken(&fleet);
}
