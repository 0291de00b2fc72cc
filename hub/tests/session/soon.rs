//! How soon every replica shows what an agent says to one of them, on a real PostgreSQL server: within a second; and what
//! is shown where a replica's way to the server is long, or stands still.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use active_monitor_core::session::frame::Heartbeat;
use active_monitor_core::view::{CheckView, ClusterView, Page};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::postgres::Database;

/// What is promised.
const SOON: Duration = Duration::from_secs(1);
/// In seconds: a third of it, after which a replica without a beat is silent, has room for a long way to the server.
const LEASE: &str = "15";

/// A replica that is asked as people ask it.
struct Replica {
    running: Running,
    token: String,
    client: reqwest::Client,
    data: TempDir,
}

impl Replica {
    async fn start(url: &str, first: Option<&Replica>) -> Replica {
        let data = TempDir::new().unwrap();
        let flags = ["--store", url, "--replicated", "--people-plaintext"];
        let running = Running::start_leased(data.path(), LEASE, &flags).await;
        let made = || std::fs::read_to_string(data.path().join(serve::ADMIN_TOKEN_FILE)).unwrap().trim().to_owned();
        let token = first.map_or_else(made, |first| first.token.clone());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Replica { running, token, client, data }
    }

    async fn ask(&self, path: &str) -> reqwest::Response {
        let url = format!("http://{}/api/v1/{path}", self.running.hub.people);
        self.client.get(url).bearer_auth(&self.token).send().await.unwrap().error_for_status().unwrap()
    }

    /// How many runs of the check the API shows.
    async fn runs(&self) -> Option<u64> {
        let page: Page<CheckView> = self.ask("checks?cluster=berlin&name=dns").await.json().await.unwrap();
        page.items.first().map(|check| check.state.check.succeeded)
    }

    /// Until the API shows so many.
    async fn shows(&self, runs: u64) -> Instant {
        within("what the API shows", async {
            while self.runs().await != Some(runs) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        Instant::now()
    }

    async fn link(&self) -> ClusterStatus {
        self.ask("clusters/berlin").await.json::<ClusterView>().await.unwrap().status
    }

    async fn until_link(&self, status: ClusterStatus) {
        within(status.as_str(), async {
            while self.link().await != status {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }

    async fn listen(&self) -> Listener {
        let mut answer = self.ask("events").await;
        let (sender, heard) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let mut text = Vec::new();
            while let Ok(Some(chunk)) = answer.chunk().await {
                let at = Instant::now();
                text.extend_from_slice(&chunk);
                let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                for line in text[..whole].split(|byte| *byte == b'\n') {
                    let Some(data) = line.strip_prefix(b"data: ") else { continue };
                    let _ = sender.send((at, serde_json::from_slice(data).unwrap()));
                }
                text.drain(..whole);
            }
        });
        let mut listener = Listener { heard, links: Vec::new(), _task: AbortOnDropHandle::new(task) };
        assert_eq!(within("first event", listener.heard.recv()).await.unwrap().1, Event::Reset);
        listener
    }
}

/// Server-sent events, each with the moment in which it was read.
struct Listener {
    heard: mpsc::UnboundedReceiver<(Instant, Event)>,
    /// What was said of the link meanwhile.
    links: Vec<ClusterStatus>,
    _task: AbortOnDropHandle<()>,
}

impl Listener {
    /// Until an event shows so many runs.
    async fn shows(&mut self, runs: u64) -> Instant {
        within("event", async {
            loop {
                match self.heard.recv().await.unwrap() {
                    (at, Event::Check(view)) if view.state.check.succeeded == runs => return at,
                    (_, Event::Cluster(view)) => self.links.push(view.status),
                    (_, _) => {}
                }
            }
        })
        .await
    }
}

/// The check after so many runs.
fn after(runs: u64) -> CheckState {
    CheckState { check: Totals { succeeded: runs, ..Totals::default() }, ..check("dns") }
}

/// The time from each of some changes until all of these replicas show it, by their API and by their events.
async fn times(
    session: &Session,
    changes: Range<u64>,
    replicas: &[&Replica],
    listeners: &mut [Listener],
) -> Vec<Duration> {
    let mut times = Vec::new();
    for runs in changes {
        let said = Instant::now();
        session.send(AgentFrame::CheckUpsert(Box::new(after(runs)))).await;
        let mut seen = Vec::new();
        let asked = replicas.iter().map(|replica| replica.shows(runs));
        let (asked, heard) = tokio::join!(
            futures::future::join_all(asked),
            futures::future::join_all(listeners.iter_mut().map(|listener| listener.shows(runs)))
        );
        seen.extend(asked);
        seen.extend(heard);
        times.extend(seen.into_iter().max().map(|last| last.duration_since(said)));
        // Each at another moment of the replicas' rounds.
        tokio::time::sleep(Duration::from_millis(runs * 73 % 250)).await;
    }
    times.sort();
    times
}

/// The agent is alive for as long as this is kept.
fn beats(session: &Session) -> AbortOnDropHandle<()> {
    let frames = session.frames.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        let beat = || Heartbeat { sent_at: Timestamp::now(), backlog: 0, dropped_reports: 0 };
        while frames.send(AgentFrame::Heartbeat(beat()).into()).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }))
}

/// Three of four: a moment in which the machine does something else is not the hub's.
fn most(times: &[Duration]) -> Duration {
    times[times.len() * 3 / 4 - 1]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_says_to_one_replica_the_others_show_within_a_second() {
    let test = "what_an_agent_says_to_one_replica_the_others_show_within_a_second";
    let Some(database) = Database::create(test).await else { return };
    let one = Replica::start(&database.url(), None).await;
    let two = Replica::start(&database.url(), Some(&one)).await;
    let three = Replica::start(&database.url(), Some(&one)).await;
    let token = one.running.token("berlin").await;
    let agent = Agent::enrol(one.data.path(), &one.running, &token, "uid-1").await.unwrap();
    let (session, _) = agent.connect(&one.running, "berlin", vec![after(0)]).await;
    let _alive = beats(&session);
    let others = [&two, &three];
    let mut listeners = Vec::new();
    for other in others {
        other.shows(0).await;
        listeners.push(other.listen().await);
    }
    let times = times(&session, 1..13, &others, &mut listeners).await;
    eprintln!("two other replicas showed what the agent said after {times:?}");
    assert!(most(&times) <= SOON, "{times:?}");
    for replica in [one, two, three] {
        replica.running.stop().await;
    }
}

/// A way to the server: what comes is passed on a while later, as over a long line.
struct Way {
    address: SocketAddr,
    /// None: it stands still.
    delay: watch::Sender<Option<Duration>>,
}

impl Way {
    async fn to(server: SocketAddr) -> Way {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (delay, delays) = watch::channel(Some(Duration::ZERO));
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let delays = delays.clone();
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(server).await else { return };
                    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                    tokio::select! {
                        () = carry(near_in, far_out, delays.clone()) => {}
                        () = carry(far_in, near_out, delays) => {}
                    }
                });
            }
        });
        Way { address, delay }
    }

    fn takes(&self, delay: Option<Duration>) {
        self.delay.send_replace(delay);
    }
}

async fn carry(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut delays: watch::Receiver<Option<Duration>>,
) {
    let (sender, mut under_way) = mpsc::channel::<(tokio::time::Instant, Vec<u8>)>(1024);
    let read = async move {
        let mut bytes = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            if sender.send((tokio::time::Instant::now(), bytes[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async {
        while let Some((came, bytes)) = under_way.recv().await {
            let Ok(delay) = delays.wait_for(Option::is_some).await.map(|delay| *delay) else { return };
            tokio::time::sleep_until(came + delay.unwrap_or_default()).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}

/// A replica, and its way to the server.
async fn far_away(database: &Database) -> (Way, Replica) {
    let server = SocketAddr::from(([127, 0, 0, 1], database.options().get_port()));
    let way = Way::to(server).await;
    let url = database.url_of_tls("127.0.0.1", "sslmode=disable");
    let url = url.replace(&format!(":{}/", server.port()), &format!(":{}/", way.address.port()));
    let replica = Replica::start(&url, None).await;
    (way, replica)
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_long_way_to_the_server_a_view_is_late_and_never_wrong() {
    let test = "over_a_long_way_to_the_server_a_view_is_late_and_never_wrong";
    let Some(database) = Database::create(test).await else { return };
    let (way, one) = far_away(&database).await;
    let two = Replica::start(&database.url(), Some(&one)).await;
    let token = one.running.token("berlin").await;
    let agent = Agent::enrol(one.data.path(), &one.running, &token, "uid-1").await.unwrap();
    let (session, _) = agent.connect(&one.running, "berlin", vec![after(0)]).await;
    let _alive = beats(&session);
    two.shows(0).await;
    let mut listeners = vec![two.listen().await];

    // Servers in one region are nearer to each other than this: 10 ms there and back.
    way.takes(Some(Duration::from_millis(5)));
    let near = times(&session, 1..9, &[&two], &mut listeners).await;
    eprintln!("with 10 ms there and back: {near:?}");
    assert!(most(&near) <= SOON, "{near:?}");

    // Another continent: late, and nobody is called.
    listeners[0].links.clear();
    way.takes(Some(Duration::from_millis(50)));
    let far = times(&session, 9..13, &[&two], &mut listeners).await;
    eprintln!("with 100 ms there and back: {far:?}");
    assert!(listeners[0].links.iter().all(|status| *status == ClusterStatus::Connected), "{:?}", listeners[0].links);

    // Nothing passes. The agent goes on at its replica, and what the other shows is too old to be believed.
    way.takes(None);
    session.send(AgentFrame::CheckUpsert(Box::new(CheckState { phase: Phase::Failed, ..after(99) }))).await;
    eventually("what the agent said at its own replica", || {
        one.running.check_status("berlin", "dns") == Some(CheckStatus::Failed)
    })
    .await;
    two.until_link(ClusterStatus::Reconnecting).await;
    assert_eq!(two.running.check_status("berlin", "dns"), Some(CheckStatus::Succeeded), "nobody is called yet");
    two.until_link(ClusterStatus::Unreachable).await;
    assert_eq!(two.running.check_status("berlin", "dns"), Some(CheckStatus::Stale));

    way.takes(Some(Duration::ZERO));
    two.until_link(ClusterStatus::Connected).await;
    two.shows(99).await;
    assert_eq!(two.running.check_status("berlin", "dns"), Some(CheckStatus::Failed));
    for replica in [one, two] {
        replica.running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_many_clusters_change_at_once_the_others_show_all_of_them_within_a_second() {
    let test = "where_many_clusters_change_at_once_the_others_show_all_of_them_within_a_second";
    let Some(database) = Database::create(test).await else { return };
    let (way, one) = far_away(&database).await;
    let two = Replica::start(&database.url(), Some(&one)).await;
    let names: Vec<String> = (0..60).map(|number| format!("c{number}")).collect();
    let mut sessions = Vec::new();
    for name in &names {
        let token = one.running.token(name).await;
        let agent = Agent::enrol(one.data.path(), &one.running, &token, "uid-1").await.unwrap();
        sessions.push(agent.connect(&one.running, name, vec![after(0)]).await.0);
    }
    let _alive: Vec<_> = sessions.iter().map(beats).collect();
    let shown = async |runs| {
        eventually("all of them", || {
            let view = two.running.hub.fleet.view();
            let is_shown = |check: &Arc<CheckView>| check.state.check.succeeded == runs;
            names.iter().all(|name| view.check(name, "health", "dns").is_some_and(is_shown))
        })
        .await;
    };
    shown(0).await;

    // A question to the data base for each of them would take that long.
    way.takes(Some(Duration::from_millis(5)));
    let mut times = Vec::new();
    for runs in 1..9 {
        let said = Instant::now();
        for session in &sessions {
            session.send(AgentFrame::CheckUpsert(Box::new(after(runs)))).await;
        }
        shown(runs).await;
        times.push(said.elapsed());
        tokio::time::sleep(Duration::from_millis(runs * 73 % 250)).await;
    }
    times.sort();
    eprintln!("60 clusters that changed at once, with 10 ms there and back: {times:?}");
    assert!(most(&times) <= SOON, "{times:?}");
    for replica in [one, two] {
        replica.running.stop().await;
    }
}
