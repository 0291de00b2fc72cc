//! The clock of the hub's machine is set while the hub runs, with simulated agents whose clocks are right: nobody who
//! speaks is said to be silent, nobody who is silent is shown as live, and whoever joins meanwhile can stay.

use std::sync::Arc;
use std::time::{Duration, Instant};

use active_monitor_core::view::{CheckStatus, ClusterStatus, ClusterView, List, UptimePage};
use active_monitor_tests::bench::Agents;
use active_monitor_tests::faketime::Faketime;
use active_monitor_tests::run_dir::RunDir;
use active_monitor_tests::{Hub, skip, wait};

use super::PATIENCE;

const LEASE: Duration = Duration::from_secs(3);
/// What the hub may be later than the lease on a busy machine.
const LATE: Duration = Duration::from_secs(4);
const CLUSTERS: usize = 4;
/// Seconds that the clock is off, one after the other.
const STEPS: [i64; 5] = [3_600, 0, -3_600, 0, 3_600];

/// Of the clusters from `first` on, in the order in which they joined.
async fn statuses(hub: &Hub, first: usize, count: usize) -> Vec<ClusterStatus> {
    let clusters: List<ClusterView> = hub.get("/api/v1/clusters").await.expect("clusters");
    clusters.items.into_iter().skip(first).take(count).map(|cluster| cluster.status).collect()
}

/// Waits until these clusters are all this; how long it took.
async fn until(hub: &Hub, first: usize, count: usize, status: ClusterStatus) -> Duration {
    let began = Instant::now();
    wait::until(&format!("{status:?}"), PATIENCE, || async {
        Ok((statuses(hub, first, count).await == vec![status; count]).then_some(()))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", hub.process.log_tail()));
    began.elapsed()
}

/// For two leases these clusters are connected, and their checks green.
async fn stays_well(hub: &Hub, count: usize) {
    let began = Instant::now();
    while began.elapsed() < 2 * LEASE {
        let all = statuses(hub, 0, count).await;
        assert_eq!(all, vec![ClusterStatus::Connected; count], "{}", hub.process.log_tail());
        let checks = hub.checks("cluster=cluster-0000").await.expect("checks");
        assert!(checks.iter().all(|check| check.status == CheckStatus::Succeeded), "{checks:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// As the first ones are called.
fn cluster(number: usize) -> String {
    format!("cluster-{number:04}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_whose_clock_is_set_an_hour_ahead_and_back_says_what_is_true() {
    let name = "a_hub_whose_clock_is_set_an_hour_ahead_and_back_says_what_is_true";
    let run = Arc::new(RunDir::create().expect("folder"));
    let Some(clock) = Faketime::find(run.path()).expect("a file") else {
        return skip::report(name, "libfaketime is not installed: apt-get install faketime");
    };
    let hub = Hub::start_by(&clock.launcher(), &run, run.path(), &["--lease-seconds=3"]).await.expect("hub");
    let ca = std::fs::read_to_string(run.path().join("hub/ca.crt")).expect("CA");
    let agents = Agents::join(&hub, &ca, CLUSTERS, 3).await.expect("agents");
    until(&hub, 0, CLUSTERS, ClusterStatus::Connected).await;
    let mut guests = Vec::new();
    for (round, seconds) in STEPS.into_iter().enumerate() {
        // One that is heard up to the step, and no more.
        let (mortal, guest) = (CLUSTERS + 2 * round, CLUSTERS + 2 * round + 1);
        let dies = Agents::join_as(&hub, &ca, vec![cluster(mortal)], 1).await.expect("an agent");
        until(&hub, mortal, 1, ClusterStatus::Connected).await;
        drop(dies);
        clock.set(seconds).expect("set");
        let shown = until(&hub, mortal, 1, ClusterStatus::Unreachable).await;
        assert!(shown <= LEASE + LATE, "{seconds} s: shown as live for {shown:?}");
        stays_well(&hub, CLUSTERS).await;
        // Who joins under the wrong clock stays when it is put right.
        guests.push((guest, Agents::join_as(&hub, &ca, vec![cluster(guest)], 1).await.expect("an agent")));
        until(&hub, guest, 1, ClusterStatus::Connected).await;
    }
    clock.set(0).expect("set");
    stays_well(&hub, CLUSTERS).await;
    let all = agents.report(20);
    wait::until("the last ack", PATIENCE, || async { Ok((agents.acked() >= all).then_some(())) }).await.expect("acks");
    let runs: Vec<_> = hub.history("").await.expect("history").into_iter().map(|run| run.run.key.slot).collect();
    assert_eq!(runs.len() as u64, all, "none lost, none doubled");
    let uptime: UptimePage = hub.get("/api/v1/uptime?window=2h&by=cluster&limit=100").await.expect("uptime");
    for cluster in &uptime.items {
        assert!(cluster.time.down_seconds == 0.0 && cluster.time.outages == 0, "{cluster:?}");
    }

    // Certificates that the hub made an hour ahead of time are good for the next connection too.
    hub.kill();
    hub.restart().await.expect("hub comes back");
    until(&hub, 0, CLUSTERS, ClusterStatus::Connected).await;
    for (guest, _) in &guests {
        until(&hub, *guest, 1, ClusterStatus::Connected).await;
    }
}
