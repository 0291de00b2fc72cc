//! An agent that reads nothing of what it is sent. It answers pings, says that it lives and reports, so that nothing but the
//! hub's own bounds ends it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use active_monitor_core::session::frame::{AgentFrame, Heartbeat, Hello};
use active_monitor_core::state::CheckState;
use active_monitor_proto::{FleetClient, v1};
use futures::Stream;
use jiff::Timestamp;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Endpoint;

use super::{CONNECT_TIMEOUT, enrol, enrolment, numbers, uid};
use crate::fleet::Hub;

/// What may be sent to it ahead, bytes: the first answers, and no more.
const WINDOW: u32 = 65_535;
/// Between two frames that it sends, and between two sessions.
const PAUSE: Duration = Duration::from_millis(200);

/// The agent; it ends when this is dropped.
pub struct Deaf {
    sessions: Arc<AtomicU64>,
    _stop: DropGuard,
}

impl Deaf {
    /// Adds the cluster, enrols it and begins. A session whose connection the hub ends is followed by the next.
    ///
    /// # Errors
    /// The hub refuses it.
    pub async fn join(hub: &Hub, ca: &str, name: &str) -> anyhow::Result<Deaf> {
        let enrolment = enrolment(hub, ca, name).await?;
        let endpoint = enrol(hub, enrolment, name).await?.initial_stream_window_size(WINDOW);
        let (sessions, stop) = (Arc::<AtomicU64>::default(), CancellationToken::new());
        let run = run(endpoint, name.to_owned(), Arc::clone(&sessions));
        tokio::spawn(stop.clone().run_until_cancelled_owned(run));
        Ok(Deaf { sessions, _stop: stop.drop_guard() })
    }

    /// How many sessions it has begun.
    pub fn sessions(&self) -> u64 {
        self.sessions.load(Ordering::Relaxed)
    }
}

async fn run(endpoint: Endpoint, cluster: String, sessions: Arc<AtomicU64>) {
    loop {
        tokio::time::sleep(PAUSE).await;
        let Ok(Ok(channel)) = tokio::time::timeout(CONNECT_TIMEOUT, endpoint.connect()).await else { continue };
        let over = CancellationToken::new();
        let frames = frames(cluster.clone(), over.clone().drop_guard());
        // Held, and not read. That the connection has ended is seen by what is sent.
        let Ok(_answers) = FleetClient::new(channel).session(frames).await else { continue };
        sessions.fetch_add(1, Ordering::Relaxed);
        over.cancelled().await;
    }
}

/// Hello, a snapshot, and then reports and signs of life without end.
fn frames(cluster: String, open: DropGuard) -> impl Stream<Item = v1::AgentFrame> + Send + 'static {
    let checks = vec![Arc::new(numbers::check(0))];
    futures::stream::unfold((0_u64, cluster, checks, open), |(number, cluster, checks, open)| async move {
        if number > 1 {
            tokio::time::sleep(PAUSE).await;
        }
        let frame = frame(number, &cluster, &checks).into();
        Some((frame, (number + 1, cluster, checks, open)))
    })
}

fn frame(number: u64, cluster: &str, checks: &[Arc<CheckState>]) -> AgentFrame {
    match number {
        0 => AgentFrame::Hello(hello(cluster)),
        1 => {
            let checks = checks.iter().map(|check| CheckState::clone(check)).collect();
            AgentFrame::Snapshot { checks, last: true }
        }
        odd if odd % 2 == 1 => {
            AgentFrame::Heartbeat(Heartbeat { sent_at: Timestamp::now(), backlog: 0, dropped_reports: 0 })
        }
        even => AgentFrame::reports(numbers::report(even / 2, checks).into_iter().collect()),
    }
}

fn hello(cluster: &str) -> Hello {
    Hello {
        cluster: cluster.to_owned(),
        cluster_uid: uid(cluster),
        incarnation: "deaf".to_owned(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        kubernetes_version: "v1.36.3".to_owned(),
        oldest_seq: 1,
        next_seq: 1,
        sent_at: Timestamp::now(),
        dropped_reports: 0,
        journal_id: "deaf".to_owned(),
        hub_mark: String::new(),
        policy: Vec::new(),
    }
}
