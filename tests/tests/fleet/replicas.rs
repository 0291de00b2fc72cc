//! Three replicas of the hub on a real PostgreSQL server and behind a TCP load balancer, with the agents of two real
//! clusters: each replica is killed, and the one that does what only one may do stands still.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use active_monitor_core::view::IncidentPage;
use active_monitor_tests::postgres::Postgres;
use active_monitor_tests::run_dir::RunDir;
use active_monitor_tests::{Agent, Cluster, Crd, Hub, Options, Testbed, skip, wait};
use jiff::Timestamp;
use rustix::process::Signal;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use super::{PATIENCE, created_workflows, patient, takes_creates, waiting_check};

/// So soon an agent whose hub is gone is at another one.
const BACK: Duration = Duration::from_secs(10);
const CHECKS: [&str; 2] = ["busy-a", "busy-b"];

/// Gives each connection to the next hub that takes it.
struct Balancer {
    port: u16,
    /// Open connections to each hub.
    open: Arc<Vec<AtomicUsize>>,
}

impl Balancer {
    /// The hubs are known once they have been started.
    async fn start(count: usize) -> (Balancer, tokio::sync::watch::Sender<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
        let port = listener.local_addr().expect("address").port();
        let open: Arc<Vec<AtomicUsize>> = Arc::new((0..count).map(|_| AtomicUsize::new(0)).collect());
        let (sender, hubs) = tokio::sync::watch::channel(Vec::new());
        let counts = Arc::clone(&open);
        tokio::spawn(async move {
            let mut turn = 0;
            while let Ok((agent, _)) = listener.accept().await {
                turn += 1;
                tokio::spawn(carry(agent, hubs.borrow().clone(), turn, Arc::clone(&counts)));
            }
        });
        (Balancer { port, open }, sender)
    }

    fn open(&self, hub: usize) -> usize {
        self.open[hub].load(Ordering::Relaxed)
    }
}

async fn carry(mut agent: TcpStream, hubs: Vec<String>, turn: usize, open: Arc<Vec<AtomicUsize>>) {
    for step in 0..hubs.len() {
        let hub = (turn + step) % hubs.len();
        if let Ok(mut far) = TcpStream::connect(&hubs[hub]).await {
            open[hub].fetch_add(1, Ordering::Relaxed);
            // However it ends, both ends are closed.
            copy_bidirectional(&mut agent, &mut far).await.ok();
            open[hub].fetch_sub(1, Ordering::Relaxed);
            return;
        }
    }
}

struct Fleet {
    // In the order in which they end.
    agents: Vec<Agent>,
    hubs: Vec<Hub>,
    balancer: Balancer,
    testbed: Testbed,
    _postgres: Postgres,
    _run: Arc<RunDir>,
}

impl Fleet {
    async fn start(test: &str) -> Option<Fleet> {
        let postgres = match Postgres::start().await {
            Ok(postgres) => postgres,
            Err(error) => {
                skip::report(test, &format!("{error:#}"));
                return None;
            }
        };
        let testbed = Testbed::start_or_skip(test, Options { clusters: 2, node: false }).await.expect("testbed")?;
        let run = Arc::new(RunDir::create().expect("folder"));
        let (balancer, known) = Balancer::start(3).await;
        let advertise = format!("--agents-advertise=localhost:{}", balancer.port);
        let mut hubs: Vec<Hub> = Vec::new();
        for number in 0..3 {
            let dir = run.path().join(format!("replica-{number}"));
            std::fs::create_dir_all(dir.join("hub")).expect("folder");
            let token = dir.join("hub/admin-token").display().to_string();
            // The first one makes the admin's token, which the others are given.
            let given = match hubs.first() {
                Some(first) => {
                    std::fs::write(&token, &first.token).expect("token");
                    vec!["--admin-token-file", &token]
                }
                None => Vec::new(),
            };
            let url = postgres.url();
            let more = [&["--replicated", "--store", &url, &advertise], given.as_slice()].concat();
            hubs.push(Hub::start_with(&run, &dir, &more).await.expect("hub"));
        }
        known.send_replace(hubs.iter().map(|hub| hub.agents_address.clone()).collect());
        let mut agents = Vec::new();
        for cluster in &testbed.clusters {
            Agent::install(cluster, Crd::Ours).await.expect("install");
            let token = hubs[0].add_cluster(&cluster.name, &[]).await.expect("cluster");
            agents.push(Agent::start(cluster, &cluster.name, Some(&token)).await.expect("agent"));
            takes_creates(cluster).await;
        }
        let fleet = Fleet { agents, hubs, balancer, testbed, _postgres: postgres, _run: run };
        fleet.until_back(PATIENCE, &[0, 1, 2]).await;
        Some(fleet)
    }

    /// Waits until each agent has a session at one of these hubs.
    async fn until_back(&self, limit: Duration, hubs: &[usize]) {
        let http = reqwest::Client::builder().no_proxy().build().expect("client");
        wait::until("sessions of all agents", limit, || async {
            // What the balancer carries is asked first: an agent whose connection was cut may not know it yet.
            let here: usize = hubs.iter().map(|hub| self.balancer.open(*hub)).sum();
            let all: usize = (0..3).map(|hub| self.balancer.open(hub)).sum();
            let mut connected = 0;
            for agent in &self.agents {
                let metrics = http.get(&agent.metrics_url).send().await?.text().await?;
                connected += usize::from(metrics.contains("\nactivemonitor_agent_hub_connected 1"));
            }
            let count = self.agents.len();
            Ok((here == all && here >= count && connected == count).then_some(()))
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.agents[0].process.log_tail()));
    }

    /// The hub that does what only one may do, which alone shows what is counted of pruning.
    async fn holder(&self, among: &[usize]) -> usize {
        wait::until("a holder of the lease", PATIENCE, || async {
            for hub in among {
                if self.hubs[*hub].metrics().await?.contains("activemonitor_hub_pruned_rows_total") {
                    return Ok(Some(*hub));
                }
            }
            Ok(None)
        })
        .await
        .expect("a holder")
    }

    /// Stops all checks and compares each cluster's count with the history, which is the same at each replica.
    async fn each_once(&self) {
        for (cluster, agent) in self.testbed.clusters.iter().zip(&self.agents) {
            for check in CHECKS {
                let counted = stop(cluster, check).await;
                for hub in &self.hubs {
                    recorded(hub, &cluster.name, check, counted)
                        .await
                        .unwrap_or_else(|error| panic!("{error:#}\n{}", agent.process.log_tail()));
                }
            }
        }
    }
}

/// Pauses a check; gives how many runs it has counted once none goes on.
async fn stop(cluster: &Cluster, check: &str) -> u64 {
    let pause = r#"{"spec": {"repeatAfterSec": 0}}"#;
    cluster.kubectl(&["patch", "hc", check, "-n", "health", "--type=merge", "-p", pause]).await.expect("pause");
    wait::until(&format!("{check} stands"), PATIENCE, || async {
        let status = cluster.health_check("health", check).await?["status"].take();
        anyhow::ensure!(status["failedCount"].as_u64().unwrap_or(0) == 0, "{status}");
        let prefix = format!("health/{check}-");
        let all = created_workflows(cluster);
        let created = all.iter().filter(|created| created.workflow.starts_with(&prefix)).count() as u64;
        let counted = status["successCount"].as_u64().filter(|counted| *counted == created);
        Ok(counted.filter(|_| status["status"] == "Stopped"))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}"))
}

async fn recorded(hub: &Hub, cluster: &str, check: &str, counted: u64) -> anyhow::Result<()> {
    let query = format!("cluster={cluster}&name={check}");
    wait::until(&format!("{counted} runs of {check} of {cluster} in the history"), PATIENCE, || async {
        let runs = hub.history(&query).await?;
        let slots: BTreeSet<Timestamp> = runs.iter().map(|run| run.run.key.slot).collect();
        anyhow::ensure!(slots.len() == runs.len() && runs.len() as u64 <= counted, "doubled: {}", runs.len());
        Ok((runs.len() as u64 == counted).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_of_a_replica_that_is_killed_or_stands_still_go_to_another_and_lose_no_run() {
    let name = "agents_of_a_replica_that_is_killed_or_stands_still_go_to_another_and_lose_no_run";
    let Some(fleet) = Fleet::start(name).await else { return };
    for cluster in &fleet.testbed.clusters {
        for check in CHECKS {
            cluster.apply_yaml(&patient(waiting_check(check, "repeatAfterSec: 3"))).await.expect("check");
        }
    }
    let mut longest = Duration::ZERO;
    let mut moved = 0;
    for hub in 0..3 {
        let others: Vec<usize> = (0..3).filter(|other| *other != hub).collect();
        let began = Instant::now();
        moved += fleet.balancer.open(hub);
        fleet.hubs[hub].kill();
        fleet.until_back(PATIENCE, &others).await;
        longest = longest.max(began.elapsed());
        fleet.holder(&others).await;
        fleet.hubs[hub].restart().await.expect("hub comes back");
    }
    println!("{moved} sessions moved; the longest time until all agents were back was {} ms", longest.as_millis());
    assert!(moved > 0 && longest < BACK, "{moved} {longest:?}");
    let incidents: IncidentPage = fleet.hubs[0].get("/api/v1/incidents").await.expect("incidents");
    assert_eq!(incidents.items, [], "nobody was told that anything is wrong");

    // It stands still for longer than its lease, and goes on with what it was at.
    let holder = fleet.holder(&[0, 1, 2]).await;
    let others: Vec<usize> = (0..3).filter(|other| *other != holder).collect();
    let before = fleet.hubs[holder].process.log_bytes();
    fleet.hubs[holder].process.signal(Signal::STOP).expect("stop");
    fleet.holder(&others).await;
    fleet.hubs[holder].process.signal(Signal::CONT).expect("continue");
    fleet.hubs[holder].process.until_logged("the lease is lost", before, PATIENCE).await.expect("it knows");
    fleet.until_back(PATIENCE, &[0, 1, 2]).await;
    fleet.each_once().await;
}
