//! Three hubs, each a process, on one data base of a real PostgreSQL server and behind a TCP load balancer: they are killed
//! and restarted one after the other while agents report.

use std::collections::VecDeque;
use std::net::TcpListener as StdListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::postgres::Database;

/// Agents, each with a cluster of its own.
const AGENTS: usize = 6;
/// Between two reports of an agent.
const PERIOD: Duration = Duration::from_millis(100);
/// So soon an agent whose hub is gone is at another one.
const BACK: Duration = Duration::from_secs(10);

/// Gives each connection to the next hub that takes it.
struct Balancer {
    address: SocketAddr,
}

impl Balancer {
    async fn start(hubs: Vec<SocketAddr>) -> Balancer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut turn = 0;
            while let Ok((mut agent, _)) = listener.accept().await {
                turn += 1;
                let order: Vec<SocketAddr> = (0..hubs.len()).map(|step| hubs[(turn + step) % hubs.len()]).collect();
                tokio::spawn(async move {
                    for hub in order {
                        if let Ok(mut hub) = TcpStream::connect(hub).await {
                            // However it ends, both ends are closed.
                            let _ = tokio::io::copy_bidirectional(&mut agent, &mut hub).await;
                            return;
                        }
                    }
                });
            }
        });
        Balancer { address }
    }
}

/// A hub that is a process.
pub(super) struct Replica {
    data: TempDir,
    store: String,
    agents: SocketAddr,
    admin: SocketAddr,
    process: Option<Child>,
}

impl Replica {
    pub(super) fn new(store: String) -> Replica {
        let free = || StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Replica { data: TempDir::new().unwrap(), store, agents: free(), admin: free(), process: None }
    }

    /// Returns once it is ready.
    async fn start(&mut self) {
        self.spawn();
        within("ready hub", async {
            while !self.is_ready().await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }

    /// Waits for nothing.
    pub(super) fn spawn(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_active-monitor-hub"));
        command.args(["--replicated", "--enrolment-listen", "127.0.0.1:0", "--people-listen", "127.0.0.1:0"]);
        command.arg("--data-dir").arg(self.data.path()).args(["--store", &self.store]);
        command.args(["--agents-listen", &self.agents.to_string(), "--admin-listen", &self.admin.to_string()]);
        let log = std::fs::File::options().create(true).append(true).open(self.data.path().join("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null());
        self.process = Some(command.spawn().unwrap());
    }

    async fn is_ready(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(self.admin).await else { return false };
        let asked = stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n").await;
        let mut answer = String::new();
        asked.is_ok() && stream.read_to_string(&mut answer).await.is_ok() && answer.starts_with("HTTP/1.1 200")
    }

    /// Kills it, or asks it to end; returns once it is gone.
    async fn end(&mut self, signal: &str) {
        let mut process = self.process.take().unwrap();
        assert!(Command::new("kill").args([signal, &process.id().to_string()]).status().unwrap().success());
        within("end of the hub", async {
            while process.try_wait().unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.data.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            eprintln!("== a hub said:\n{}", self.log());
        }
    }
}

/// An agent that reports for as long as it shall, and sends again what was not acked.
struct Reporter {
    agent: Agent,
    cluster: String,
    hub: SocketAddr,
    stop: Arc<AtomicBool>,
    /// Sessions that are open, of all agents.
    open: Arc<AtomicUsize>,
    unacked: VecDeque<u64>,
    next: u64,
}

impl Reporter {
    /// Returns how many reports were acked, and the longest time without a session.
    async fn run(mut self) -> (u64, Duration) {
        let (mut away_since, mut longest) = (Instant::now(), Duration::ZERO);
        while !(self.stop.load(Ordering::Relaxed) && self.unacked.is_empty()) {
            if let Some(session) = self.dial().await {
                longest = longest.max(away_since.elapsed());
                self.open.fetch_add(1, Ordering::Relaxed);
                self.report(session).await;
                self.open.fetch_sub(1, Ordering::Relaxed);
                away_since = Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        (self.next - 1, longest)
    }

    async fn dial(&self) -> Option<Session> {
        let (frames, queued) = mpsc::channel::<v1::AgentFrame>(64);
        let oldest_seq = self.unacked.front().copied().unwrap_or(self.next);
        let hello = Hello { oldest_seq, next_seq: self.next, ..hello(&self.cluster, "uid-1", "i1") };
        frames.send(AgentFrame::Hello(hello).into()).await.ok()?;
        let identity = Identity::from_pem(&self.agent.certificate, &self.agent.key);
        let mut client = FleetClient::new(channel(self.hub, &self.agent.ca, Some(identity)).await);
        let opened = tokio::time::timeout(Duration::from_secs(5), async {
            let mut answers = client.session(ReceiverStream::new(queued)).await.ok()?.into_inner();
            let first = HubFrame::try_from(answers.message().await.ok()??).ok()?;
            matches!(first, HubFrame::Welcome(_)).then_some(answers)
        });
        let answers = opened.await.ok()??;
        Some(Session { frames, answers })
    }

    /// Until the session ends, or everything is acked and it shall stop.
    async fn report(&mut self, mut session: Session) {
        let send = async |session: &Session, seq| {
            session.frames.send(AgentFrame::reports(vec![report(seq)]).into()).await.is_ok()
        };
        let snapshot = AgentFrame::Snapshot { checks: vec![check("dns")], last: true };
        if session.frames.send(snapshot.into()).await.is_err() {
            return;
        }
        for seq in self.unacked.clone() {
            if !send(&session, seq).await {
                return;
            }
        }
        let mut tick = tokio::time::interval(PERIOD);
        loop {
            tokio::select! {
                frame = session.answers.message() => match frame.ok().flatten().map(HubFrame::try_from) {
                    Some(Ok(HubFrame::Ack(acked))) => self.unacked.retain(|seq| *seq > acked),
                    Some(Ok(HubFrame::Definitions { .. } | HubFrame::Command(_) | HubFrame::Mark(_))) => {}
                    Some(Ok(HubFrame::Welcome(_) | HubFrame::GoAway { .. }) | Err(_)) | None => return,
                },
                _ = tick.tick() => {
                    if self.stop.load(Ordering::Relaxed) {
                        if self.unacked.is_empty() {
                            return;
                        }
                        continue;
                    }
                    self.unacked.push_back(self.next);
                    self.next += 1;
                    if !send(&session, self.next - 1).await {
                        return;
                    }
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_that_are_killed_and_restarted_lose_and_double_no_run_and_alarm_nobody() {
    let test = "three_replicas_that_are_killed_and_restarted_lose_and_double_no_run_and_alarm_nobody";
    let Some(database) = Database::create(test).await else { return };
    let url = database.url();
    // The first one makes the CA, and goes; its CA is in the data base.
    let first = TempDir::new().unwrap();
    let hub = Running::start_with(first.path(), &["--store", &url, "--replicated"]).await;
    let mut agents = Vec::new();
    for number in 0..AGENTS {
        let cluster = format!("c{number}");
        let token = hub.token(&cluster).await;
        agents.push((Agent::enrol(first.path(), &hub, &token, "uid-1").await.unwrap(), cluster));
    }
    hub.stop().await;
    let mut replicas: Vec<Replica> = (0..3).map(|_| Replica::new(url.clone())).collect();
    for replica in &mut replicas {
        replica.start().await;
    }
    let balancer = Balancer::start(replicas.iter().map(|replica| replica.agents).collect()).await;
    let (stop, open) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let reporters: Vec<_> = agents
        .into_iter()
        .map(|(agent, cluster)| {
            let (stop, open) = (Arc::clone(&stop), Arc::clone(&open));
            let hub = balancer.address;
            tokio::spawn(Reporter { agent, cluster, hub, stop, open, unacked: VecDeque::new(), next: 1 }.run())
        })
        .collect();
    let mut connection = database.connect().await;
    let all_there = async || {
        eventually("sessions of all agents", || open.load(Ordering::Relaxed) == AGENTS).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    };
    all_there().await;
    let fence = "SELECT coalesce(max(fence), 0)::bigint FROM replica_leases WHERE name = 'singletons'";
    let before: i64 = sqlx::query_scalar(fence).fetch_one(&mut connection).await.unwrap();
    for signal in ["-KILL", "-TERM"] {
        for replica in &mut replicas {
            replica.end(signal).await;
            // For longer than it takes another to take over what only one may do.
            tokio::time::sleep(Duration::from_secs(8)).await;
            replica.start().await;
            all_there().await;
        }
    }
    let after: i64 = sqlx::query_scalar(fence).fetch_one(&mut connection).await.unwrap();
    assert!(after >= before + 2, "each was ended twice, so the holder was: {before} {after}");
    stop.store(true, Ordering::Relaxed);
    let mut total = 0;
    let mut longest = Duration::ZERO;
    for (number, reporter) in reporters.into_iter().enumerate() {
        let (sent, away) = within("end of an agent", reporter).await.unwrap();
        let runs = "SELECT count(*), count(DISTINCT slot) FROM runs WHERE cluster = $1";
        let runs = sqlx::query_as(runs).bind(format!("c{number}"));
        let (recorded, slots): (i64, i64) = runs.fetch_one(&mut connection).await.unwrap();
        assert_eq!((recorded, slots), (sent.cast_signed(), sent.cast_signed()), "runs of c{number}");
        (total, longest) = (total + sent, longest.max(away));
    }
    eprintln!("{total} runs; the longest time of an agent without a session was {} ms", longest.as_millis());
    assert!(longest < BACK, "{longest:?}");
    let count = async |sql: &'static str| {
        sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut database.connect().await).await.unwrap()
    };
    assert_eq!(count("SELECT count(*) FROM gaps").await, 0);
    assert_eq!(count("SELECT count(*) FROM incidents").await, 0, "nobody was told that anything is wrong");
    assert_eq!(count("SELECT count(*) FROM transitions WHERE status <> 'Succeeded'").await, 0);
    let lives = count("SELECT count(*) FROM hub_lives").await;
    assert!(lives > 2, "each holder recorded: {lives}");
}
