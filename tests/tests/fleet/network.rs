//! The hub on a host of its own, behind a link that is cut, half cut, lossy and slow; an agent that pauses and one that
//! dies; certificates that all end while the hub is away. No run is lost or doubled, and no alarm is false.

use std::sync::Arc;
use std::time::{Duration, Instant};

use active_monitor_core::view::{CaRoll, CaStage, CaView, CheckStatus, ClusterStatus, ClusterView};
use active_monitor_tests::netns::{self, Direction, Netns};
use active_monitor_tests::{Agent, Cluster, Hub, Options, Testbed, fleet, skip, wait};
use jiff::Timestamp;
use parking_lot::Mutex;
use reqwest::Method;
use rustix::process::Signal;

use super::load::all_recorded_once;
use super::{PATIENCE, patient, waiting_check};

const CHECKS: usize = 10;
/// Shorter than the default, for the test's sake.
const LEASE: Duration = Duration::from_secs(6);
/// How long the fault of a link that is not cut lasts.
const BAD_FOR: Duration = Duration::from_secs(12);
const CERTIFICATE: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread")]
async fn bad_links_and_ended_certificates_lose_no_run_and_raise_no_false_alarm() {
    let name = "bad_links_and_ended_certificates_lose_no_run_and_raise_no_false_alarm";
    if let Some(reason) = netns::missing() {
        skip::report(name, reason);
        return;
    }
    let options = Options { clusters: 2, node: false };
    let Some(testbed) = Testbed::start_or_skip(name, options).await.expect("testbed") else { return };
    tokio::join!(bad_links(&testbed.clusters[0]), ended_certificates(&testbed.clusters[1]));
}

async fn bad_links(cluster: &Cluster) {
    let netns = Netns::create().expect("namespace");
    let lease = format!("--lease-seconds={}", LEASE.as_secs());
    let hub = Arc::new(Hub::start_in(&netns, cluster.run(), &cluster.dir, &[&lease]).await.expect("hub"));
    let agent = Agent::join(cluster, &hub, "remote", &[]).await.expect("agent");
    agent.wait_until_connected(&hub).await.expect("link");
    apply_checks(cluster).await;
    fleet::until_status(&hub, "remote", "check-0", CheckStatus::Succeeded, PATIENCE).await.expect("it runs");
    let link = Link { statuses: Statuses::follow(hub.clone(), "remote"), netns, hub, agent };

    link.a_cut_link_is_seen_and_heals_by_itself().await;
    link.a_half_cut_link_raises_one_alarm_at_most(Direction::In).await;
    link.a_half_cut_link_raises_one_alarm_at_most(Direction::Out).await;
    link.a_lossy_link_raises_one_alarm_at_most().await;
    link.a_slow_link_carries_what_happens().await;
    link.a_pause_within_the_lease_raises_nothing().await;
    link.a_dead_agent_is_seen_at_once_and_alarms_nobody_before_the_lease().await;

    cluster.kubectl(&["delete", "healthchecks", "--all", "-n", "health"]).await.expect("delete");
    all_recorded_once(&link.hub, cluster, "remote", CHECKS * 5).await;
}

/// Renewals do not end the session; certificates that end ten times over while the hub is away keep nobody out.
async fn ended_certificates(cluster: &Cluster) {
    let life = format!("--agent-certificate-seconds={}", CERTIFICATE.as_secs());
    let hub = Arc::new(Hub::start_with(cluster.run(), &cluster.dir, &[&life]).await.expect("hub"));
    let agent = Agent::join(cluster, &hub, "shortlived", &[]).await.expect("agent");
    agent.wait_until_connected(&hub).await.expect("link");
    apply_checks(cluster).await;
    let statuses = Statuses::follow(hub.clone(), "shortlived");
    tokio::time::sleep(CERTIFICATE * 5).await;
    another_ca(&hub, &agent).await;
    assert_eq!(
        statuses.seen(),
        [ClusterStatus::Connected],
        "five lives of the certificate and another CA, one session"
    );
    hub.kill();
    tokio::time::sleep(CERTIFICATE * 10).await;
    hub.restart().await.expect("hub comes back");
    agent.wait_until_connected(&hub).await.expect("the agent proves its key");
    cluster.kubectl(&["delete", "healthchecks", "--all", "-n", "health"]).await.expect("delete");
    all_recorded_once(&hub, cluster, "shortlived", CHECKS * 3).await;
}

/// The hub's CA becomes another one, while hub and agent go on as the processes they are.
async fn another_ca(hub: &Hub, agent: &Agent) {
    let before: CaView = hub.get("/api/v1/ca").await.expect("CA");
    let (processes, started) = ((hub.process.pid(), agent.process.pid()), Instant::now());
    for from in [CaStage::Stable, CaStage::Introduced, CaStage::Switched] {
        // Refused for as long as the agent has not heard of the stage, with its next certificate.
        wait::until(&format!("the end of stage {}", from.as_str()), PATIENCE, || async {
            hub.request(Method::POST, "/api/v1/ca/roll", Some(&CaRoll { from, force: false })).await?;
            Ok(Some(()))
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}"));
    }
    let after: CaView = hub.get("/api/v1/ca").await.expect("CA");
    assert!(after.stage == CaStage::Stable && after.fingerprint != before.fingerprint, "{after:?}");
    println!("another CA after {:.1?}", started.elapsed());
    tokio::time::sleep(CERTIFICATE * 2).await;
    assert_eq!((hub.process.pid(), agent.process.pid()), processes, "nobody has to restart");
}

async fn apply_checks(cluster: &Cluster) {
    let checks = (0..CHECKS).map(|i| patient(waiting_check(&format!("check-{i}"), "repeatAfterSec: 10")));
    cluster.apply_yaml(&checks.collect::<Vec<_>>().join("---\n")).await.expect("checks");
}

struct Link {
    netns: Netns,
    hub: Arc<Hub>,
    agent: Agent,
    statuses: Statuses,
}

impl Link {
    async fn a_cut_link_is_seen_and_heals_by_itself(&self) {
        self.statuses.forget().await;
        let began = Instant::now();
        self.netns.lose(Direction::In, None).expect("cut");
        self.netns.lose(Direction::Out, None).expect("cut");
        self.until(ClusterStatus::Unreachable).await;
        let seen = began.elapsed();
        fleet::until_status(&self.hub, "remote", "check-0", CheckStatus::Stale, PATIENCE).await.expect("stale");
        let healed = self.heals().await;
        println!("a cut link: Unreachable after {seen:.1?} (lease {LEASE:?}), back {healed:.1?} after it healed");
        assert!(seen <= LEASE + Duration::from_secs(2), "Unreachable only after {seen:?}");
        assert_eq!(self.statuses.alarms(), 1);
    }

    async fn a_half_cut_link_raises_one_alarm_at_most(&self, direction: Direction) {
        self.statuses.forget().await;
        self.netns.lose(direction, None).expect("half cut");
        tokio::time::sleep(BAD_FOR).await;
        let healed = self.heals().await;
        println!("half cut ({direction:?}): {:?}, back {healed:.1?} after it healed", self.statuses.seen());
        assert!(self.statuses.alarms() <= 1, "{:?}", self.statuses.seen());
    }

    async fn a_lossy_link_raises_one_alarm_at_most(&self) {
        self.statuses.forget().await;
        self.netns.lose(Direction::In, Some(0.3)).expect("lossy");
        self.netns.lose(Direction::Out, Some(0.3)).expect("lossy");
        tokio::time::sleep(BAD_FOR).await;
        let healed = self.heals().await;
        println!("30 % lost both ways: {:?}, back {healed:.1?} after it healed", self.statuses.seen());
        assert!(self.statuses.alarms() <= 1, "{:?}", self.statuses.seen());
    }

    async fn a_slow_link_carries_what_happens(&self) {
        self.statuses.forget().await;
        self.netns.limit(64).expect("slow");
        let newest = self.newest_run().await.expect("hub").expect("runs");
        let later = wait::until("a run over the slow link", PATIENCE, || async {
            Ok(self.newest_run().await?.filter(|run| *run > newest + CHECKS as i64))
        });
        later.await.expect("runs arrive");
        assert_eq!(self.statuses.seen(), [ClusterStatus::Connected], "64 kbit/s is enough");
        self.heals().await;
    }

    async fn a_pause_within_the_lease_raises_nothing(&self) {
        self.statuses.forget().await;
        self.agent.process.signal(Signal::STOP).expect("stop");
        tokio::time::sleep(LEASE * 2 / 3).await;
        self.agent.process.signal(Signal::CONT).expect("continue");
        tokio::time::sleep(LEASE).await;
        assert_eq!(self.statuses.seen(), [ClusterStatus::Connected], "a pause of two thirds of the lease");
    }

    async fn a_dead_agent_is_seen_at_once_and_alarms_nobody_before_the_lease(&self) {
        self.statuses.forget().await;
        let began = Instant::now();
        self.agent.process.stop();
        self.until(ClusterStatus::Reconnecting).await;
        let seen = began.elapsed();
        self.agent.process.start().expect("agent again");
        self.until(ClusterStatus::Connected).await;
        println!("a killed agent: Reconnecting after {seen:.1?}");
        assert!(seen <= Duration::from_secs(1), "Reconnecting only after {seen:?}");
        assert_eq!(self.statuses.alarms(), 0, "{:?}", self.statuses.seen());
    }

    /// Heals the link; how long it then takes until the hub hears the agent again. TCP, which sends more and more seldom what
    /// gets lost, takes some seconds, in which a cluster that was heard within the lease is still Connected.
    async fn heals(&self) -> Duration {
        self.netns.heal().expect("heal");
        let (began, healed_at) = (Instant::now(), Timestamp::now());
        let heard = wait::until("a word over the healed link", PATIENCE, || async {
            let view: ClusterView = self.hub.get("/api/v1/clusters/remote").await?;
            let is_heard = view.last_heard_at.is_some_and(|at| at > healed_at);
            Ok((is_heard && view.status == ClusterStatus::Connected).then_some(()))
        });
        heard.await.unwrap_or_else(|error| panic!("{error:#}; {}", self.agent.process.log_tail()));
        began.elapsed()
    }

    async fn until(&self, status: ClusterStatus) {
        let reached = wait::until(status.as_str(), PATIENCE, || async {
            Ok((status_of(&self.hub, "remote").await? == status).then_some(()))
        });
        reached.await.unwrap_or_else(|error| panic!("{error:#}; {}", self.agent.process.log_tail()));
    }

    /// The highest id in the history.
    async fn newest_run(&self) -> anyhow::Result<Option<i64>> {
        let page: active_monitor_core::view::RunPage = self.hub.get("/api/v1/runs?limit=1").await?;
        Ok(page.items.first().map(|run| run.id))
    }
}

async fn status_of(hub: &Hub, cluster: &str) -> anyhow::Result<ClusterStatus> {
    Ok(hub.get::<ClusterView>(&format!("/api/v1/clusters/{cluster}")).await?.status)
}

/// Every status that the hub shows of a cluster, one after the other.
struct Statuses {
    seen: Arc<Mutex<Vec<ClusterStatus>>>,
    follower: tokio::task::JoinHandle<()>,
}

impl Statuses {
    fn follow(hub: Arc<Hub>, cluster: &'static str) -> Statuses {
        let seen: Arc<Mutex<Vec<ClusterStatus>>> = Arc::default();
        let statuses = seen.clone();
        let follower = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(50));
            loop {
                ticks.tick().await;
                let Ok(status) = status_of(&hub, cluster).await else { continue };
                let mut statuses = statuses.lock();
                if statuses.last() != Some(&status) {
                    statuses.push(status);
                }
            }
        });
        Statuses { seen, follower }
    }

    fn seen(&self) -> Vec<ClusterStatus> {
        self.seen.lock().clone()
    }

    /// Forgets what was, once it has seen that the cluster is connected.
    async fn forget(&self) {
        wait::until("a connected cluster", PATIENCE, || async {
            let mut seen = self.seen.lock();
            let connected = seen.last() == Some(&ClusterStatus::Connected);
            if connected {
                *seen = vec![ClusterStatus::Connected];
            }
            Ok(connected.then_some(()))
        })
        .await
        .expect("connected");
    }

    /// How often the cluster became Unreachable.
    fn alarms(&self) -> usize {
        self.seen.lock().iter().filter(|status| **status == ClusterStatus::Unreachable).count()
    }
}

impl Drop for Statuses {
    fn drop(&mut self) {
        self.follower.abort();
    }
}
