//! The hub's process with simulated agents and no cluster: killed at random times, stopped, on a full disk, behind a proxy
//! that delays and cuts. Each report is in the history exactly once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use active_monitor_core::view::{ClusterStatus, FleetSummary};
use active_monitor_tests::bench::Agents;
use active_monitor_tests::run_dir::RunDir;
use active_monitor_tests::{Hub, skip, wait};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::PATIENCE;

const CLUSTERS: usize = 8;
/// Of a fleet that is large for a hub that was built for tests.
const MANY: usize = 200;
const CHECKS: usize = 5;
const LEASE: &str = "--lease-seconds=3";
/// As it is where nobody sets it.
const DEFAULT_LEASE: Duration = Duration::from_secs(15);

pub(super) struct Fleet {
    pub(super) hub: Hub,
    pub(super) agents: Agents,
    clusters: usize,
    _run: Arc<RunDir>,
}

impl Fleet {
    async fn start(run: Arc<RunDir>, more: &[&str]) -> Fleet {
        Fleet::start_by(&[], run, more).await
    }

    /// With a hub that another program becomes.
    pub(super) async fn start_by(launcher: &[String], run: Arc<RunDir>, more: &[&str]) -> Fleet {
        let more = [&[LEASE], more].concat();
        let hub = Hub::start_by(launcher, &run, run.path(), &more).await.expect("hub");
        Fleet::join(hub, run, CLUSTERS).await
    }

    /// So many clusters, each with an agent.
    async fn join(hub: Hub, run: Arc<RunDir>, clusters: usize) -> Fleet {
        let ca = std::fs::read_to_string(run.path().join("hub/ca.crt")).expect("CA");
        let agents = Agents::join(&hub, &ca, clusters, CHECKS).await.expect("agents");
        let fleet = Fleet { hub, agents, clusters, _run: run };
        fleet.until_connected().await;
        fleet
    }

    /// How many clusters are connected, and how many unreachable; nothing while the hub does not answer.
    async fn links(&self) -> Option<(usize, usize)> {
        let summary = self.hub.get::<FleetSummary>("/api/v1/fleet").await.ok()?;
        let count = |status: ClusterStatus| usize::try_from(*summary.clusters.get(status.as_str())?).ok();
        Some((count(ClusterStatus::Connected)?, count(ClusterStatus::Unreachable)?))
    }

    pub(super) async fn until_connected(&self) {
        wait::until("all clusters", PATIENCE, || async {
            Ok((self.links().await == Some((self.clusters, 0))).then_some(()))
        })
        .await
        .expect("connected");
    }

    /// Waits until everything is acked, and compares that with the history.
    pub(super) async fn each_once(&self, all: u64) {
        wait::until("the last ack", PATIENCE, || async { Ok((self.agents.acked() >= all).then_some(())) })
            .await
            .unwrap_or_else(|error| {
                panic!("{error:#}: {} of {all}; {}", self.agents.acked(), self.hub.process.log_tail())
            });
        let runs = self.hub.history("").await.expect("history");
        let keys: BTreeSet<_> =
            runs.iter().map(|run| (&run.cluster, &run.run.key.check_uid, run.run.key.slot)).collect();
        assert_eq!((runs.len() as u64, keys.len()), (all, runs.len()), "none lost, none doubled");
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_killed_at_random_times_under_load_records_each_report_once() {
    let fleet = Fleet::start(Arc::new(RunDir::create().expect("folder")), &[]).await;
    let kills = number("ACTIVE_MONITOR_HUB_KILLS", 4);
    let mut all = 0;
    for _ in 0..kills {
        all = fleet.agents.report(200);
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..700))).await;
        fleet.hub.kill();
        fleet.hub.restart().await.expect("hub comes back");
    }
    fleet.each_once(all).await;
    fleet.until_connected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_is_killed_under_many_agents_has_all_back_within_the_lease_and_calls_none_unreachable() {
    let run = Arc::new(RunDir::create().expect("folder"));
    let hub = Hub::start(&run, run.path()).await.expect("hub");
    let fleet = Fleet::join(hub, run, MANY).await;
    let all = fleet.agents.report(100);
    wait::until("the first acks", PATIENCE, || async { Ok((fleet.agents.acked() >= all / 10).then_some(())) })
        .await
        .expect("acks");
    fleet.hub.kill();
    let acked = fleet.agents.acked();
    assert!(acked < all, "killed too late: {acked} of {all} acked");
    fleet.hub.process.start().expect("hub again");
    let began = Instant::now();
    let mut back = None;
    while back.is_none() || fleet.agents.acked() < all {
        let links = fleet.links().await;
        let (elapsed, acked) = (began.elapsed(), fleet.agents.acked());
        assert!(links.is_none_or(|(_, unreachable)| unreachable == 0), "{links:?} after {elapsed:?}");
        if back.is_none() && links == Some((MANY, 0)) {
            back = Some(elapsed);
        }
        assert!(elapsed < PATIENCE, "{links:?} connected, {acked} of {all} acked\n{}", fleet.hub.process.log_tail());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("{MANY} agents were back after {back:?}, the last of {all} reports was acked after {:?}", began.elapsed());
    assert!(back.is_some_and(|back| back <= DEFAULT_LEASE), "{back:?}");
    fleet.each_once(all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_is_stopped_for_three_leases_and_goes_on_loses_nothing() {
    let fleet = Fleet::start(Arc::new(RunDir::create().expect("folder")), &[]).await;
    fleet.agents.report(50);
    fleet.hub.process.signal(Signal::STOP).expect("stop");
    let all = fleet.agents.report(50);
    tokio::time::sleep(Duration::from_secs(9)).await;
    fleet.hub.process.signal(Signal::CONT).expect("continue");
    fleet.until_connected().await;
    fleet.each_once(all).await;
}

/// A small filesystem; unmounted when it is dropped.
pub(super) struct Disk(PathBuf);

impl Disk {
    /// `None` where this machine does not let us.
    pub(super) fn mount(path: &Path, size: &str) -> Option<Disk> {
        std::fs::create_dir_all(path).expect("folder");
        let size = format!("size={size}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).output();
        mount.is_ok_and(|output| output.status.success()).then(|| Disk(path.to_owned()))
    }

    /// What takes its room.
    pub(super) fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_whose_disk_is_full_takes_no_report_answers_people_and_recovers_by_itself() {
    let run = Arc::new(RunDir::create().expect("folder"));
    let Some(disk) = Disk::mount(&run.path().join("hub"), "16m") else {
        let name = "a_hub_whose_disk_is_full_takes_no_report_answers_people_and_recovers_by_itself";
        skip::report(name, "a small filesystem needs root and the right to mount");
        return;
    };
    // The folder goes last, after what is mounted in it.
    let fleet = Fleet::start(Arc::clone(&run), &[]).await;
    let before = fleet.agents.report(20);
    fleet.each_once(before).await;
    // Fails where the disk is full.
    std::fs::write(disk.filler(), vec![1; 32 << 20]).expect_err("a full disk");
    let all = fleet.agents.report(400);
    fleet.hub.process.until_logged("reports not recorded", 0, PATIENCE).await.expect("refused");
    let acked = fleet.agents.acked();
    assert!(acked < all, "{acked} of {all} acked on a full disk");
    fleet.hub.get::<FleetSummary>("/api/v1/fleet").await.expect("people are answered");
    std::fs::remove_file(disk.filler()).expect("room again");
    fleet.each_once(all).await;
    fleet.until_connected().await;
    drop(fleet);
}

/// Carries connections with a delay each way, and cuts each after a random time while told to.
async fn proxy(listener: TcpListener, to: String, cutting: tokio::sync::watch::Receiver<bool>) {
    loop {
        let Ok((near, _)) = listener.accept().await else { return };
        let (to, mut cutting) = (to.clone(), cutting.clone());
        tokio::spawn(async move {
            let Ok(far) = TcpStream::connect(to).await else { return };
            let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
            let cut = async {
                cutting.wait_for(|cutting| *cutting).await.ok();
                tokio::time::sleep(Duration::from_millis(rand::random_range(200..1500))).await;
            };
            tokio::select! {
                () = delayed(near_read, far_write) => {}
                () = delayed(far_read, near_write) => {}
                () = cut => {}
            }
        });
    }
}

async fn delayed(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut bytes).await {
        tokio::time::sleep(Duration::from_millis(150)).await;
        if count == 0 || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_slow_and_cut_again_and_again_lose_and_double_no_report() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let advertised = listener.local_addr().expect("address");
    let run = Arc::new(RunDir::create().expect("folder"));
    let advertise = format!("--agents-advertise=localhost:{}", advertised.port());
    let (cut, cutting) = tokio::sync::watch::channel(false);
    let hub = Hub::start_with(&run, run.path(), &[LEASE, &advertise]).await.expect("hub");
    tokio::spawn(proxy(listener, hub.agents_address.clone(), cutting));
    let fleet = Fleet::join(hub, run, CLUSTERS).await;
    cut.send_replace(true);
    let mut all = 0;
    for _ in 0..20 {
        all = fleet.agents.report(30);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    cut.send_replace(false);
    fleet.each_once(all).await;
    fleet.until_connected().await;
}
